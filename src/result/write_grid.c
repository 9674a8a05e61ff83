/* The grid: its cells as columns, what was chosen for each, what each predicts, and the tables that follow from them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/text.h"

size_t mg_h5_grid_extents(const mg_result_grid *g) {
  return mg_cell_columns.count + mg_method_columns.count + mg_best_columns.count + 2 + g->targets->count + g->matrix_count;
}

static void out_of_memory(mg_h5_writer *w) {
  w->failed = true;
  w->status = MG_ERR_NOMEM;
}

/* ---- tables ---- */

/* A field of all rows, side by side as the file has it; the caller frees. */
static void *gather(const mg_column *c, const char *rows, size_t row_size, size_t count) {
  const size_t size = c->type == MG_COLUMN_BOOL ? 1 : 8;
  char *values = mg_alloc(count, size);
  for (size_t k = 0; values != NULL && k < count; k++) {
    const char *field = rows + k * row_size + c->offset;
    const int64_t whole = c->type == MG_COLUMN_INT ? *(const int *)(const void *)field : 0;
    memcpy(values + k * size, c->type == MG_COLUMN_INT ? (const char *)&whole : field, size);
  }
  return values;
}

static void write_column(mg_h5_writer *w, const mg_columns *columns, const mg_column *c, const void *rows, size_t count) {
  char path[160];
  const hsize_t dim = count;
  snprintf(path, sizeof path, "%s/%s", columns->group, c->name);
  if (c->type == MG_COLUMN_TEXT) {
    mg_h5_strings(w, path, count > 0 ? (const char *)rows + c->offset : NULL, columns->row_size, count, c->long_name);
    return;
  }
  void *values = gather(c, rows, columns->row_size, count);
  const hid_t boolean = mg_h5_bool_type();
  const hid_t type = c->type == MG_COLUMN_BOOL     ? boolean
                     : c->type == MG_COLUMN_UINT64 ? H5T_NATIVE_UINT64
                     : c->type == MG_COLUMN_DOUBLE ? H5T_NATIVE_DOUBLE
                                                   : H5T_NATIVE_INT64;
  if (values == NULL)
    out_of_memory(w);
  else
    mg_h5_numbers(w, path, type, 1, &dim, values, c->long_name, c->type == MG_COLUMN_BOOL ? NULL : "1");
  H5Tclose(boolean);
  free(values);
}

/* A column's axis is labelled by the table's own scale. */
static void attach(mg_h5_writer *w, const mg_columns *columns, const char *name, size_t count) {
  char path[160], scale[160];
  if (count == 0) return;
  snprintf(scale, sizeof scale, "%s/%s", columns->group, columns->items[columns->scale].name);
  snprintf(path, sizeof path, "%s/%.128s", columns->group, name);
  mg_h5_scale(w, path, scale, 0);
}

void mg_h5_table(mg_h5_writer *w, const mg_columns *columns, const void *rows, size_t count) {
  char scale[160];
  const char *name = columns->items[columns->scale].name;
  mg_h5_group(w, columns->group);
  for (size_t k = 0; k < columns->count; k++) write_column(w, columns, &columns->items[k], rows, count);
  snprintf(scale, sizeof scale, "%s/%s", columns->group, name);
  if (count > 0) mg_h5_make_scale(w, scale, name);
  for (size_t k = 0; k < columns->count; k++)
    if (k != columns->scale) attach(w, columns, columns->items[k].name, count);
}

/* Parameters that differ between cells, each a column of its own beside the cells' fields. */
static void write_swept(mg_h5_writer *w, const mg_result_grid *g) {
  char path[160];
  mg_h5_strings(w, "/grid/swept", g->swept->items, sizeof(char *), g->swept->count, "parameters that are columns of the cells");
  if (g->swept->count > 0) mg_h5_make_scale(w, "/grid/swept", "swept");
  for (size_t s = 0; s < g->swept->count; s++) {
    snprintf(path, sizeof path, "/grid/cells/%.128s", g->swept->items[s]);
    mg_h5_strings(w, path, g->swept_values + s * g->cell_count, sizeof(char *), g->cell_count, "value of a swept parameter");
    attach(w, &mg_cell_columns, g->swept->items[s], g->cell_count);
  }
}

/* ---- what was chosen ---- */

/* The keys once more: a group's own scales are what xarray finds. */
static void write_choice(mg_h5_writer *w, const mg_source_list *sources, const mg_result_grid *g) {
  const hsize_t dims[2] = {g->cell_count, sources->count};
  const hid_t boolean = mg_h5_bool_type();
  mg_h5_strings(w, "/grid/cell", &g->cells->key, sizeof *g->cells, g->cell_count, "key of a row's cell");
  mg_h5_make_scale(w, "/grid/cell", "cell");
  mg_h5_strings(w, "/grid/source", &sources->items->id, sizeof *sources->items, sources->count, "source of a column");
  mg_h5_make_scale(w, "/grid/source", "source");
  mg_h5_numbers(w, "/grid/weights", H5T_NATIVE_DOUBLE, 2, dims, g->weights, "weights as given to the method", "1");
  mg_h5_numbers(w, "/grid/selected", boolean, 2, dims, g->selected, "sources that a cell is made from", NULL);
  for (size_t k = 0; k < 2; k++) {
    const char *const path = k == 0 ? "/grid/weights" : "/grid/selected";
    mg_h5_scale(w, path, "/grid/cell", 0);
    mg_h5_scale(w, path, "/grid/source", 1);
  }
  H5Tclose(boolean);
}

static void write_matrices(mg_h5_writer *w, const mg_result_grid *g) {
  mg_h5_group(w, "/grid/similarity");
  for (size_t k = 0; k < g->matrix_count; k++) {
    char group[160], path[176], row[176], column[192];
    const mg_strings *labels = g->matrix_labels[k];
    const hsize_t dims[2] = {labels->count, labels->count};
    mg_matrix_path(g->matrix_names[k], group);
    mg_h5_group(w, group);
    snprintf(row, sizeof row, "%s/label", group);
    snprintf(column, sizeof column, "%s/label_column", group);
    snprintf(path, sizeof path, "%s/value", group);
    mg_h5_strings(w, row, labels->items, sizeof(char *), labels->count, "label of a row: what is a source");
    mg_h5_strings(w, column, labels->items, sizeof(char *), labels->count, "label of a column: what is a target");
    mg_h5_numbers(w, path, H5T_NATIVE_DOUBLE, 2, dims, g->matrices[k], "what a row's source is to a column's target", "1");
    if (labels->count == 0) continue;
    mg_h5_make_scale(w, row, "label");
    mg_h5_make_scale(w, column, "label_column");
    mg_h5_scale(w, path, row, 0);
    mg_h5_scale(w, path, column, 1);
  }
}

/* ---- what cells predict ---- */

static void write_target(mg_h5_writer *w, const mg_result_grid *g, size_t target, int32_t *row) {
  mg_h5_rows rows;
  char path[160];
  const hsize_t dims[2] = {g->rows[target], g->texts[target]};
  snprintf(path, sizeof path, "/grid/predictions/%.128s", g->targets->items[target]);
  mg_h5_rows_begin(w, path, H5T_NATIVE_INT32, 2, dims, &rows);
  for (size_t r = 0; r < g->rows[target] && !w->failed; r++) {
    const mg_status status = g->predictions(g->context, target, r, row);
    if (status != MG_OK) {
      w->failed = true;
      w->status = status;
    }
    mg_h5_rows_put(w, &rows, row);
  }
  mg_h5_rows_end(w, &rows, "class that a cell gives a text of the target, in the order of /texts; -1: none", "1");
}

static void write_predictions(mg_h5_writer *w, const mg_result_grid *g) {
  size_t longest = 0;
  for (size_t t = 0; t < g->targets->count; t++)
    if (g->texts[t] > longest) longest = g->texts[t];
  int32_t *row = mg_alloc(longest, sizeof *row);
  if (row == NULL) out_of_memory(w);
  mg_h5_group(w, "/grid/predictions");
  for (size_t t = 0; t < g->targets->count && row != NULL; t++) write_target(w, g, t, row);
  free(row);
}

void mg_h5_grid(mg_h5_writer *w, const mg_source_list *sources, const mg_result_grid *g) {
  const hid_t boolean = mg_h5_bool_type();
  mg_h5_group(w, "/grid");
  mg_h5_text_attribute(w, "/grid", "partition", g->partition);
  mg_h5_attribute(w, "/grid", "selected_on_partition", boolean, 1, &g->selected_on_partition);
  mg_h5_table(w, &mg_cell_columns, g->cells, g->cell_count);
  write_swept(w, g);
  write_choice(w, sources, g);
  write_predictions(w, g);
  mg_h5_table(w, &mg_method_columns, g->methods, g->method_count);
  mg_h5_table(w, &mg_best_columns, g->best, g->best_count);
  write_matrices(w, g);
  H5Tclose(boolean);
}
