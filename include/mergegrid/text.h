#ifndef MERGEGRID_TEXT_H
#define MERGEGRID_TEXT_H

/** Growing strings, string lists, globs, spelling, sizes. Not collective. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

/** A growing, always NUL-terminated string. Zero-initialise; free with mg_text_free. Out of memory sets `failed`. */
typedef struct mg_text {
  char *data;
  size_t size, capacity;
  bool failed;
} mg_text;

void mg_text_append(mg_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mg_text_append_bytes(mg_text *text, const void *bytes, size_t size);
/** A number with as many digits (15 to 17, no trailing zeros) as it takes to read back the same. */
void mg_text_append_number(mg_text *text, double number);
void mg_text_free(mg_text *text);

/** A list of owned strings. Zero-initialise. */
typedef struct mg_strings {
  size_t count;
  char **items;
} mg_strings;

mg_status mg_strings_add(mg_strings *list, const char *item);
void mg_strings_free(mg_strings *list);
void mg_strings_sort(mg_strings *list); /**< by bytes */
/** Index of item, or -1. */
ptrdiff_t mg_strings_find(const mg_strings *list, const char *item);

/** The candidate nearest to word by edit distance, NULL if none is near enough to be meant. */
const char *mg_nearest(const char *word, const char *const *candidates, size_t count);

/** Natural order: digit runs compare as numbers ("layer.2" before "layer.10"), bytes otherwise. */
int mg_natural_compare(const char *a, const char *b);

/** "2GiB", "300 MiB", "1024" to bytes; false if it is none. */
bool mg_parse_bytes(const char *text, uint64_t *bytes);
/** A short readable size ("1.5 GiB") in a buffer of at least 32 characters; returns buffer. */
const char *mg_format_bytes(double bytes, char *buffer);
/** A duration in the unit that suits it ("under 1 s", "40 s", "12 min", "2.9 h"), likewise. */
const char *mg_format_hours(double hours, char *buffer);

bool mg_valid_utf8(const char *data, size_t size);

/** malloc/calloc of count × size that fail on overflow and set MG_ERR_NOMEM's message; NULL on failure. */
void *mg_alloc(size_t count, size_t size);
void *mg_alloc_zero(size_t count, size_t size);
/** 64-byte aligned; free() releases it. */
void *mg_alloc_aligned(size_t bytes);
char *mg_strdup(const char *text);

#endif
