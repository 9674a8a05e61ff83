/* Labels that have to meet: those of a similarity matrix, of text files and of checkpoints. */

#include "init_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mergegrid/io.h"

/* A matrix of ten thousand labels has about a gigabyte. */
static const size_t LARGEST_MATRIX = (size_t)2 << 30;

/* ---- sets of labels ---- */

static int compare_items(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The same pointers in the order of their bytes, so that thousands of labels meet in no time. The caller frees. */
static char **sorted_items(const mg_strings *list) {
  char **items = mg_alloc(list->count, sizeof *items);
  if (items == NULL || list->count == 0) return items;
  memcpy(items, list->items, list->count * sizeof *items);
  qsort(items, list->count, sizeof *items, compare_items);
  return items;
}

mg_status mg_strings_without(const mg_strings *these, const mg_strings *those, mg_strings *rest) {
  mg_status status = MG_OK;
  char **known = sorted_items(those);
  if (known == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < these->count; k++) {
    if (those->count > 0 && bsearch(&these->items[k], known, those->count, sizeof *known, compare_items) != NULL) continue;
    if (mg_strings_find(rest, these->items[k]) < 0) MG_TRY(mg_strings_add(rest, these->items[k]), cleanup);
  }
cleanup:
  free(known);
  return status;
}

mg_status mg_strings_repeated(const mg_strings *list, mg_strings *repeated) {
  mg_status status = MG_OK;
  char **items = sorted_items(list);
  if (items == NULL) return MG_ERR_NOMEM;
  for (size_t k = 1; k < list->count; k++) {
    if (strcmp(items[k - 1], items[k]) != 0) continue;
    if (k > 1 && strcmp(items[k - 2], items[k]) == 0) continue;
    MG_TRY(mg_strings_add(repeated, items[k]), cleanup);
  }
cleanup:
  free(items);
  return status;
}

/* ---- the matrix ---- */

typedef struct csv_reader {
  const char *path, *at, *end;
  size_t line;
} csv_reader;

static bool at_line_end(const csv_reader *r) { return r->at == r->end || *r->at == '\n' || *r->at == '\r'; }

/* Past the quote in front; "" stands for a quote. */
static mg_status read_quoted(csv_reader *r, mg_text *field) {
  const size_t first_line = r->line;
  for (r->at++; r->at < r->end; r->at++) {
    if (*r->at == '"') {
      if (r->at + 1 == r->end || r->at[1] != '"') break;
      r->at++;
    }
    r->line += *r->at == '\n';
    mg_text_append_bytes(field, r->at, 1);
  }
  if (r->at == r->end) return mg_fail(MG_ERR_INPUT, "%s:%zu: a quote is opened and not closed", r->path, first_line);
  r->at++;
  if (!at_line_end(r) && *r->at != ',')
    return mg_fail(MG_ERR_INPUT, "%s:%zu: a comma was expected behind the closing quote", r->path, r->line);
  return MG_OK;
}

/* One field, and the comma or line end behind it. *last: the line ends here. */
static mg_status read_field(csv_reader *r, mg_text *field, bool *last) {
  mg_status status = MG_OK;
  field->size = 0;
  mg_text_append_bytes(field, "", 0);
  if (r->at < r->end && *r->at == '"') {
    status = read_quoted(r, field);
  } else {
    const char *begin = r->at;
    while (!at_line_end(r) && *r->at != ',') r->at++;
    mg_text_append_bytes(field, begin, (size_t)(r->at - begin));
  }
  if (status != MG_OK) return status;
  if (field->failed) return mg_fail(MG_ERR_NOMEM, "out of memory");
  *last = at_line_end(r);
  if (r->at < r->end && *r->at == '\r') r->at++;
  if (r->at < r->end) {
    r->line += *r->at == '\n';
    r->at++;
  }
  return MG_OK;
}

static mg_status read_header(csv_reader *r, mg_text *field, mg_strings *columns) {
  mg_status status = MG_OK;
  bool last = false;
  MG_TRY(read_field(r, field, &last), done); /* the corner */
  while (!last) {
    MG_TRY(read_field(r, field, &last), done);
    MG_TRY(mg_strings_add(columns, field->data), done);
  }
  if (columns->count == 0)
    status =
        mg_fail(MG_ERR_INPUT, "%s:1: labels behind the first comma were expected, as pandas' to_csv writes a matrix", r->path);
done:
  return status;
}

static mg_status read_row(csv_reader *r, mg_text *field, mg_matrix_labels *labels) {
  mg_status status = MG_OK;
  const size_t line = r->line;
  bool last = false;
  size_t values = 0;
  MG_TRY(read_field(r, field, &last), done);
  if (last && field->size == 0) return MG_OK; /* an empty line */
  MG_TRY(mg_strings_add(&labels->rows, field->data), done);
  while (!last) {
    MG_TRY(read_field(r, field, &last), done);
    values++;
  }
  if (values != labels->columns.count)
    status = mg_fail(MG_ERR_INPUT, "%s:%zu: has %zu values; %zu were expected, one for each label of the first row", r->path,
                     line, values, labels->columns.count);
done:
  return status;
}

void mg_matrix_labels_free(mg_matrix_labels *labels) {
  mg_strings_free(&labels->rows);
  mg_strings_free(&labels->columns);
}

mg_status mg_matrix_labels_read(const char *path, mg_matrix_labels *labels) {
  static const char byte_order_mark[] = "\xEF\xBB\xBF";
  mg_status status = MG_OK;
  char *data = NULL;
  size_t size = 0;
  mg_text field = {0};
  MG_TRY(mg_read_file(path, LARGEST_MATRIX, &data, &size), cleanup);
  if (!mg_valid_utf8(data, size) || memchr(data, '\0', size) != NULL) {
    status = mg_fail(MG_ERR_INPUT, "%s: is not a text in UTF-8; a similarity matrix in CSV was expected", path);
    goto cleanup;
  }
  csv_reader reader = {.path = path, .at = data, .end = data + size, .line = 1};
  if (size >= 3 && memcmp(data, byte_order_mark, 3) == 0) reader.at += 3;
  MG_TRY(read_header(&reader, &field, &labels->columns), cleanup);
  while (reader.at < reader.end) MG_TRY(read_row(&reader, &field, labels), cleanup);
  if (labels->rows.count == 0) status = mg_fail(MG_ERR_INPUT, "%s: has a row of labels, and no row of values", path);
cleanup:
  mg_text_free(&field);
  free(data);
  return status;
}
