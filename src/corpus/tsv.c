/* Tab-separated values with a header line. No quoting: a text holds no tab and no line feed. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "corpus_impl.h"

enum { FIELDS = 4 }; /* id, text, label, partition */

typedef struct columns {
  ptrdiff_t at[FIELDS];
  size_t count;
} columns;

/* Cuts the line at its tabs, in place. */
static mg_status split(const mg_line *line, mg_strings *cells) {
  mg_status status = MG_OK;
  char *cell = line->data;
  if (memchr(line->data, '\0', line->size) != NULL)
    return mg_fail(MG_ERR_INPUT, "%s:%lld: a NUL in the line", line->path, (long long)line->number);
  for (;;) {
    char *tab = strchr(cell, '\t');
    if (tab != NULL) *tab = '\0';
    MG_TRY(mg_strings_add(cells, cell), done);
    if (tab == NULL) break;
    cell = tab + 1;
  }
done:
  return status;
}

static mg_status find_columns(const mg_line *line, const mg_texts_spec *spec, columns *found) {
  mg_status status = MG_OK;
  mg_strings names = {0};
  const char *const wanted[FIELDS] = {spec->id, spec->text, spec->label, spec->partition};
  MG_TRY(split(line, &names), cleanup);
  found->count = names.count;
  for (size_t k = 0; k < FIELDS; k++) {
    found->at[k] = mg_strings_find(&names, wanted[k]);
    if (found->at[k] >= 0 || k == 0 || k == 2) continue; /* an id and a label need not be there */
    status = mg_fail(MG_ERR_INPUT, "%s:1: the header line has no column '%s'", line->path, wanted[k]);
    break;
  }
cleanup:
  mg_strings_free(&names);
  return status;
}

static mg_status scan_row(const mg_line *line, const columns *where, mg_record_visit visit, void *context) {
  mg_status status = MG_OK;
  mg_strings cells = {0};
  MG_TRY(split(line, &cells), cleanup);
  if (cells.count != where->count) {
    status = mg_fail(MG_ERR_INPUT, "%s:%lld: %zu columns, where the header line has %zu", line->path, (long long)line->number,
                     cells.count, where->count);
    goto cleanup;
  }
  mg_record record = {.text = cells.items[where->at[1]], .partition = cells.items[where->at[3]]};
  record.text_size = strlen(record.text);
  if (where->at[0] >= 0) record.id = cells.items[where->at[0]];
  if (where->at[2] >= 0) record.label = cells.items[where->at[2]];
  if (record.label != NULL && record.label[0] != '\0') {
    char *rest;
    errno = 0;
    const long long index = strtoll(record.label, &rest, 10);
    if (*rest == '\0' && errno == 0) {
      record.label_is_index = true;
      record.index = index;
    }
  }
  status = visit(context, line, &record);
cleanup:
  mg_strings_free(&cells);
  return status;
}

mg_status mg_corpus_scan_tsv(FILE *file, const char *path, const mg_texts_spec *spec, mg_record_visit visit, void *context) {
  mg_status status = MG_OK;
  mg_line line = {.path = path};
  columns where = {0};
  char *buffer = NULL;
  size_t capacity = 0;
  bool end = false;
  MG_TRY(mg_corpus_next_line(file, &line, &buffer, &capacity, &end), cleanup);
  if (end) {
    status = mg_fail(MG_ERR_INPUT, "%s: is empty; a header line was expected", path);
    goto cleanup;
  }
  MG_TRY(find_columns(&line, spec, &where), cleanup);
  for (;;) {
    MG_TRY(mg_corpus_next_line(file, &line, &buffer, &capacity, &end), cleanup);
    if (end) break;
    if (line.size > 0) MG_TRY(scan_row(&line, &where, visit, context), cleanup);
  }
cleanup:
  free(buffer);
  return status;
}
