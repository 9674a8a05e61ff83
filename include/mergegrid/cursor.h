#ifndef MERGEGRID_CURSOR_H
#define MERGEGRID_CURSOR_H

/**
 * Structures from one process of a program to another of the same: appended to a text (mg_text_append_bytes, and what is here),
 * and taken from its bytes in the same order. Not collective. Taking fails with MG_ERR_INTERNAL where the bytes end before
 * that.
 */

#include <stddef.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

/** What is left to be taken; the bytes are borrowed. */
typedef struct mg_cursor {
  const char *at;
  size_t left;
} mg_cursor;

mg_status mg_cursor_take(mg_cursor *cursor, void *to, size_t size);
/** As if taken; the bytes are where the cursor was. */
mg_status mg_cursor_skip(mg_cursor *cursor, size_t size);

/** With its NUL; *text is the caller's to free. */
void mg_append_string(mg_text *text, const char *string);
mg_status mg_cursor_take_string(mg_cursor *cursor, char **string);

/** A list; what is taken is added to `list`, which the caller frees also on failure. */
void mg_append_strings(mg_text *text, const mg_strings *list);
mg_status mg_cursor_take_strings(mg_cursor *cursor, mg_strings *list);

#endif
