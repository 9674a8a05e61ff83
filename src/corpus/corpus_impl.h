#ifndef MERGEGRID_CORPUS_IMPL_H
#define MERGEGRID_CORPUS_IMPL_H

#include <stdio.h>

#include "mergegrid/corpus.h"

/** One text as its line holds it. Pointers are borrowed from the line; NULL where the field is not there. */
typedef struct mg_record {
  const char *id, *text, *label, *partition;
  size_t text_size;
  bool label_is_index;
  int64_t index; /**< where label_is_index */
} mg_record;

/** Where a record is, for messages. */
typedef struct mg_line {
  const char *path;
  int64_t number; /**< 1-based */
  char *data;     /**< NUL-terminated, without the line feed */
  size_t size;
} mg_line;

/** Called for every record of a file. */
typedef mg_status (*mg_record_visit)(void *context, const mg_line *line, const mg_record *record);

mg_status mg_corpus_scan_jsonl(FILE *file, const char *path, const mg_texts_spec *spec, mg_record_visit visit, void *context);
mg_status mg_corpus_scan_tsv(FILE *file, const char *path, const mg_texts_spec *spec, mg_record_visit visit, void *context);

/**
 * The next line into *line (number counts on), read into buffer that the caller frees; *end after the last one. Checks length
 * and UTF-8.
 */
mg_status mg_corpus_next_line(FILE *file, mg_line *line, char **buffer, size_t *capacity, bool *end);

/** Does a name of a class say nothing but its number: LABEL_7? */
bool mg_label_is_number(const char *name, int64_t *number);

#endif
