/* The grid's tables as they were written: every index is held against what it points into. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/text.h"

static mg_status bad(const mg_h5_reader *r, const char *path, const char *expected) {
  return mg_fail(MG_ERR_CORRUPT, "%s: %s: %s was expected", r->path, path, expected);
}

/* ---- columns ---- */

/* A column of strings goes into the table's list; *first is where it begins there. */
static mg_status read_texts(const mg_h5_reader *r, const char *path, size_t count, mg_strings *strings, size_t *first) {
  *first = strings->count;
  const mg_status status = mg_h5_read_strings(r, path, strings);
  if (status == MG_OK && strings->count - *first != count) return bad(r, path, "as many strings as the table has rows");
  return status;
}

static mg_status scatter_texts(const mg_h5_reader *r, const char *path, const mg_column *c, char *rows, size_t row_size,
                               size_t count, mg_strings *strings) {
  size_t first;
  const mg_status status = read_texts(r, path, count, strings, &first);
  for (size_t k = 0; status == MG_OK && k < count; k++)
    *(const char **)(void *)(rows + k * row_size + c->offset) = strings->items[first + k];
  return status;
}

static mg_status scatter_numbers(const mg_h5_reader *r, const char *path, const mg_column *c, char *rows, size_t row_size,
                                 size_t count) {
  hsize_t dim = 0;
  void *values = NULL;
  bool *flags = NULL;
  const hid_t type = c->type == MG_COLUMN_DOUBLE   ? H5T_NATIVE_DOUBLE
                     : c->type == MG_COLUMN_UINT64 ? H5T_NATIVE_UINT64
                                                   : H5T_NATIVE_INT64;
  mg_status status = c->type == MG_COLUMN_BOOL ? mg_h5_read_bools(r, path, 1, &dim, &flags)
                                               : mg_h5_read_numbers(r, path, type, 1, &dim, &values);
  if (status == MG_OK && dim != count) status = bad(r, path, "as many numbers as the table has rows");
  for (size_t k = 0; status == MG_OK && k < count; k++) {
    char *field = rows + k * row_size + c->offset;
    if (c->type == MG_COLUMN_BOOL)
      *(bool *)field = flags[k];
    else if (c->type == MG_COLUMN_INT)
      *(int *)(void *)field = (int)((const int64_t *)values)[k];
    else
      memcpy(field, (const char *)values + 8 * k, 8);
  }
  free(values), free(flags);
  return status;
}

/* How many rows a table has: as many as its scale. */
static mg_status count_rows(const mg_h5_reader *r, const mg_columns *columns, size_t *count) {
  char path[160];
  mg_strings list = {0};
  snprintf(path, sizeof path, "%s/%s", columns->group, columns->items[columns->scale].name);
  const mg_status status = mg_h5_read_strings(r, path, &list);
  *count = list.count;
  mg_strings_free(&list);
  return status;
}

static mg_status read_table(const mg_h5_reader *r, const mg_columns *columns, void **rows, size_t *count, mg_strings *strings) {
  mg_status status = MG_OK;
  char path[160];
  MG_TRY(count_rows(r, columns, count), done);
  *rows = mg_alloc_zero(*count, columns->row_size);
  if (*rows == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < columns->count; k++) {
    const mg_column *c = &columns->items[k];
    snprintf(path, sizeof path, "%s/%s", columns->group, c->name);
    if (c->type == MG_COLUMN_TEXT)
      MG_TRY(scatter_texts(r, path, c, *rows, columns->row_size, *count, strings), done);
    else
      MG_TRY(scatter_numbers(r, path, c, *rows, columns->row_size, *count), done);
  }
done:
  return status;
}

static mg_status read_swept(const mg_h5_reader *r, mg_grid_table *t) {
  mg_status status = MG_OK;
  char path[160];
  MG_TRY(mg_h5_read_strings(r, "/grid/swept", &t->swept), done);
  t->swept_values = mg_alloc_zero(t->swept.count, t->cell_count * sizeof *t->swept_values);
  if (t->swept_values == NULL) return MG_ERR_NOMEM;
  for (size_t s = 0; s < t->swept.count; s++) {
    size_t first;
    snprintf(path, sizeof path, "/grid/cells/%.128s", t->swept.items[s]);
    MG_TRY(read_texts(r, path, t->cell_count, &t->strings, &first), done);
    for (size_t c = 0; c < t->cell_count; c++) t->swept_values[s * t->cell_count + c] = t->strings.items[first + c];
  }
done:
  return status;
}

/* ---- the whole ---- */

static mg_status read_choice(const mg_h5_reader *r, mg_grid_table *t) {
  mg_status status = MG_OK;
  hsize_t weights[2], selected[2];
  void *values = NULL;
  MG_TRY(mg_h5_read_numbers(r, "/grid/weights", H5T_NATIVE_DOUBLE, 2, weights, &values), done);
  t->weights = values;
  MG_TRY(mg_h5_read_bools(r, "/grid/selected", 2, selected, &t->selected), done);
  if (weights[0] != t->cell_count || weights[1] != t->source_count || selected[0] != t->cell_count ||
      selected[1] != t->source_count)
    status = bad(r, "/grid/weights, /grid/selected", "cells × sources");
done:
  return status;
}

static mg_status check_indexes(const mg_h5_reader *r, const mg_grid_table *t) {
  const int64_t cells = (int64_t)t->cell_count;
  for (size_t k = 0; k < t->cell_count; k++) {
    const mg_result_cell *c = &t->cells[k];
    if (c->matched < -1 || c->matched >= cells || c->same_as < -1 || c->same_as >= cells)
      return bad(r, "/grid/cells/matched, /grid/cells/same_as", "cells of the grid");
    if (c->prediction_row < -1) return bad(r, "/grid/cells/prediction_row", "a row, or -1");
    if (mg_strings_find(&t->targets, c->locale) < 0 && c->prediction_row >= 0)
      return bad(r, "/grid/cells/locale", "targets of the result");
  }
  for (size_t k = 0; k < t->best_count; k++)
    if (t->best[k].cell < 0 || t->best[k].cell >= cells) return bad(r, "/grid/best/cell", "cells of the grid");
  return MG_OK;
}

static mg_status read_flag(const mg_h5_reader *r, const char *object, const char *name, bool *flag) {
  bool read = false;
  H5E_BEGIN_TRY {
    int8_t byte = 0;
    const hid_t type = mg_h5_bool_type();
    const hid_t attribute = H5Aopen_by_name(r->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t space = attribute >= 0 ? H5Aget_space(attribute) : H5I_INVALID_HID;
    read = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, type, &byte) >= 0;
    *flag = byte != 0;
    H5Sclose(space);
    H5Aclose(attribute);
    H5Tclose(type);
  }
  H5E_END_TRY
  return read ? MG_OK : mg_fail(MG_ERR_CORRUPT, "%s: %s: no flag '%s'", r->path, object, name);
}

static mg_status read_all(const mg_h5_reader *r, mg_grid_table *t) {
  mg_status status = MG_OK;
  void *rows = NULL;
  MG_TRY(mg_h5_read_text(r, "/grid", "partition", &t->partition), done);
  MG_TRY(read_flag(r, "/grid", "selected_on_partition", &t->selected_on_partition), done);
  MG_TRY(mg_h5_read_strings(r, "/sources/id", &t->sources), done);
  MG_TRY(mg_h5_read_strings(r, "/targets", &t->targets), done);
  t->source_count = t->sources.count;
  status = read_table(r, &mg_cell_columns, &rows, &t->cell_count, &t->strings);
  t->cells = rows;
  if (status != MG_OK) goto done;
  rows = NULL;
  status = read_table(r, &mg_method_columns, &rows, &t->method_count, &t->strings);
  t->methods = rows;
  if (status != MG_OK) goto done;
  rows = NULL;
  status = read_table(r, &mg_best_columns, &rows, &t->best_count, &t->strings);
  t->best = rows;
  if (status != MG_OK) goto done;
  MG_TRY(read_swept(r, t), done);
  MG_TRY(read_choice(r, t), done);
  MG_TRY(check_indexes(r, t), done);
done:
  return status;
}

mg_status mg_grid_read_table(const mg_grid_reader *reader, mg_grid_table *t) {
  *t = (mg_grid_table){.path = mg_strdup(reader->h5.path)};
  const mg_status status = t->path != NULL ? read_all(&reader->h5, t) : MG_ERR_NOMEM;
  if (status != MG_OK) mg_grid_table_free(t);
  return status;
}

mg_status mg_grid_open(const char *path, mg_grid_reader **out) {
  mg_grid_reader *reader = NULL;
  const mg_status status = mg_result_open(path, &reader);
  if (status != MG_OK) return status;
  if (mg_h5_has(&reader->h5, "/grid")) {
    *out = reader;
    return MG_OK;
  }
  mg_result_close(&reader);
  return mg_fail(MG_ERR_INPUT, "%s: has no stage grid, which is asked for", path);
}

void mg_grid_close(mg_grid_reader **reader) { mg_result_close(reader); }

mg_status mg_grid_table_read(const char *path, mg_grid_table *t) {
  mg_grid_reader *reader = NULL;
  *t = (mg_grid_table){0};
  mg_status status = mg_grid_open(path, &reader);
  if (status == MG_OK) status = mg_grid_read_table(reader, t);
  mg_grid_close(&reader);
  return status;
}

void mg_grid_table_free(mg_grid_table *t) {
  free(t->path), free(t->partition);
  free(t->cells), free(t->methods), free(t->best);
  free(t->swept_values), free(t->weights), free(t->selected);
  mg_strings_free(&t->swept), mg_strings_free(&t->sources), mg_strings_free(&t->targets), mg_strings_free(&t->strings);
  *t = (mg_grid_table){0};
}

/* ---- finding a cell ---- */

static mg_status no_such_cell(const mg_grid_table *t, const char *key) {
  const char **keys = mg_alloc(t->cell_count, sizeof *keys);
  if (keys == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < t->cell_count; k++) keys[k] = t->cells[k].key;
  const char *nearest = mg_nearest(key, keys, t->cell_count);
  mg_fail(MG_ERR_INPUT, "%s: no cell has a key that begins with '%s'%s%s%s; mergegrid show --where lists cells with their keys",
          t->path, key, nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "");
  free(keys);
  return MG_ERR_INPUT;
}

mg_status mg_grid_table_find(const mg_grid_table *t, const char *key, size_t *cell) {
  enum { NAMED = 5 };
  const size_t length = strlen(key);
  size_t found = 0;
  mg_text some = {0};
  for (size_t k = 0; k < t->cell_count; k++) {
    if (length == 0 || strncmp(t->cells[k].key, key, length) != 0) continue;
    if (found++ == 0) *cell = k;
    if (found <= NAMED) mg_text_append(&some, "\n  %s %s %s", t->cells[k].key, t->cells[k].locale, t->cells[k].method);
  }
  mg_status status = MG_OK;
  if (found == 0)
    status = no_such_cell(t, key);
  else if (found > 1)
    status = mg_fail(MG_ERR_INPUT, "%s: %zu cells have a key that begins with '%s':%s%s", t->path, found, key,
                     some.data ? some.data : "", found > NAMED ? "\n  …" : "");
  mg_text_free(&some);
  return status;
}
