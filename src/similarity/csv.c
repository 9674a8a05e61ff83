/* A labelled table in CSV: fields, quotes, line ends. */

#include "mergegrid/labelled_table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/io.h"

/* A matrix of ten thousand labels has about a gigabyte. */
static const size_t LARGEST_MATRIX = (size_t)2 << 30;

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
    status = mg_fail(MG_ERR_INPUT, "%s:1: labels behind the first comma were expected, as pandas' to_csv writes a matrix%s",
                     r->path, strpbrk(field->data, ";\t") != NULL ? " (not behind semicolons or tabs)" : "");
done:
  return status;
}

/* An empty field is NaN, as pandas writes it. */
static mg_status parse_value(const csv_reader *r, size_t line, const char *text, double *value) {
  char *end;
  if (text[0] == '\0') {
    *value = NAN;
    return MG_OK;
  }
  *value = strtod(text, &end);
  if (end != text && *end == '\0' && !isinf(*value)) return MG_OK;
  return mg_fail(MG_ERR_INPUT, "%s:%zu: '%.40s' is no number", r->path, line, text);
}

static mg_status add_value(mg_labelled_table *table, double value) {
  if (table->count == table->room) {
    const size_t room = table->room > 0 ? 2 * table->room : 4096;
    double *grown = reallocarray(table->values, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    table->values = grown;
    table->room = room;
  }
  table->values[table->count++] = value;
  return MG_OK;
}

static mg_status read_row(csv_reader *r, mg_text *field, mg_labelled_table *table) {
  mg_status status = MG_OK;
  const size_t line = r->line;
  bool last = false;
  size_t values = 0;
  MG_TRY(read_field(r, field, &last), done);
  if (last && field->size == 0) return MG_OK; /* an empty line */
  MG_TRY(mg_strings_add(&table->rows, field->data), done);
  for (; !last; values++) {
    double value;
    MG_TRY(read_field(r, field, &last), done);
    MG_TRY(parse_value(r, line, field->data, &value), done);
    MG_TRY(add_value(table, value), done);
  }
  if (values != table->columns.count)
    status = mg_fail(MG_ERR_INPUT, "%s:%zu: has %zu values; %zu were expected, one for each label of the first row", r->path,
                     line, values, table->columns.count);
done:
  return status;
}

mg_status mg_labelled_table_read(const char *path, mg_labelled_table *table) {
  static const char byte_order_mark[] = "\xEF\xBB\xBF";
  mg_status status = MG_OK;
  char *data = NULL;
  size_t size = 0;
  mg_text field = {0};
  *table = (mg_labelled_table){0};
  MG_TRY(mg_read_file(path, LARGEST_MATRIX, &data, &size), cleanup);
  if (!mg_valid_utf8(data, size) || memchr(data, '\0', size) != NULL) {
    status = mg_fail(MG_ERR_INPUT, "%s: is not a text in UTF-8; a similarity matrix in CSV was expected", path);
    goto cleanup;
  }
  csv_reader reader = {.path = path, .at = data, .end = data + size, .line = 1};
  if (size >= 3 && memcmp(data, byte_order_mark, 3) == 0) reader.at += 3;
  MG_TRY(read_header(&reader, &field, &table->columns), cleanup);
  while (reader.at < reader.end) MG_TRY(read_row(&reader, &field, table), cleanup);
  if (table->rows.count == 0) status = mg_fail(MG_ERR_INPUT, "%s: has a row of labels, and no row of values", path);
cleanup:
  mg_text_free(&field);
  free(data);
  if (status != MG_OK) mg_labelled_table_free(table);
  return status;
}

void mg_labelled_table_free(mg_labelled_table *table) {
  mg_strings_free(&table->rows);
  mg_strings_free(&table->columns);
  free(table->values);
  *table = (mg_labelled_table){0};
}
