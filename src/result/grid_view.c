/* Cells that a user asks for, and the tables that follow from them. */

#include "grid_view_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "mergegrid/text.h"

void mg_setting_text(const mg_grid_table *t, const char *method, const char *parameters, mg_text *text) {
  json_t *all = json_loads(parameters, 0, NULL);
  const size_t length = strlen(method);
  mg_text_append(text, "%s", method);
  /* a number elsewhere: what a preset makes it differs without being swept */
  const json_t *rule = json_object_get(all, "lambda");
  bool ruled = json_is_string(rule);
  for (size_t k = 0; k < t->swept.count; k++) {
    const char *name = t->swept.items[k];
    if (strncmp(name, method, length) != 0 || name[length] != '.') continue;
    const json_t *value = json_object_get(all, name + length + 1);
    if (value == rule) ruled = false;
    if (json_is_string(value)) mg_text_append(text, " %s=%s", name + length + 1, json_string_value(value));
    if (json_is_number(value)) mg_text_append(text, " %s=%.10g", name + length + 1, json_number_value(value));
    if (json_is_boolean(value)) mg_text_append(text, " %s=%s", name + length + 1, json_is_true(value) ? "true" : "false");
  }
  if (ruled) mg_text_append(text, " lambda=%s", json_string_value(rule));
  json_decref(all);
}

/* ---- tables over some cells ---- */

typedef struct asking {
  const mg_grid_reader *reader;
  const mg_grid_table *table;
} asking;

static mg_status answers_of(void *context, size_t target, mg_grid_answers *answers) {
  const asking *a = context;
  return mg_grid_read_answers(a->reader, a->table->targets.items[target], answers);
}

static mg_status compute(const mg_grid_reader *reader, const bool *take, mg_grid_view *v) {
  mg_status status = MG_OK;
  const mg_grid_table *t = &v->table;
  asking ask = {reader, t};
  size_t *texts = mg_alloc(t->targets.count, sizeof *texts);
  if (texts == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < t->targets.count; k++)
    MG_TRY(mg_grid_count_texts(&reader->h5, t->targets.items[k], &texts[k]), cleanup);
  const mg_grid_statistics_input input = {.cell_count = t->cell_count,
                                          .cells = t->cells,
                                          .take = take,
                                          .targets = &t->targets,
                                          .texts = texts,
                                          .context = &ask,
                                          .answers = answers_of};
  MG_TRY(mg_grid_statistics(&input, &v->computed), cleanup);
  v->shown = v->computed;
cleanup:
  free(texts);
  return status;
}

static bool has_status(const mg_result_cell *c, const char *status) { return strcmp(c->status, status) == 0; }

/* Do conditions tell cells apart by their status? Then those that are not finished are wanted where they match. */
static bool asks_status(const char *where) {
  for (const char *at = where; at != NULL; at = strchr(at, ',')) {
    at += strspn(at, ", ");
    if (strncmp(at, "status=", sizeof "status=" - 1) == 0) return true;
  }
  return false;
}

static void count(mg_grid_view *v, const char *where, const bool *take) {
  static const char *const states[3] = {"completed", "failed", "planned"};
  const bool every = !v->incomplete || asks_status(where);
  for (size_t k = 0; k < v->table.cell_count; k++) {
    const mg_result_cell *c = &v->table.cells[k];
    const bool planned = has_status(c, "planned");
    v->finished += !planned;
    v->all += !planned || c->recipe[0] != '\0'; /* without a recipe it was left out (run --where) */
    if (!take[k]) continue;
    v->matching++;
    for (size_t s = 0; s < 3; s++) v->counts[s] += has_status(c, states[s]);
    if (every || !planned) v->order[v->listed++] = k;
  }
}

/* Which of the table's cells are meant, counted and sorted; take [C] is the caller's to free. */
static mg_status arrange(mg_grid_view *v, const char *where, const char *sort, bool **take) {
  mg_status status = MG_OK;
  *take = mg_alloc(v->table.cell_count, sizeof **take);
  v->order = mg_alloc(v->table.cell_count, sizeof *v->order);
  if (*take == NULL || v->order == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_grid_table_where(&v->table, "--where", where, *take), done);
  count(v, where, *take);
  MG_TRY(mg_cells_sort(&v->table, sort, v->order, v->listed), done);
done:
  return status;
}

mg_status mg_grid_view_progress(mg_grid_progress *progress, const char *where, const char *sort, mg_grid_view *v) {
  bool *take = NULL;
  *v = (mg_grid_view){.table = progress->table, .select = progress->select, .incomplete = true};
  progress->table = (mg_grid_table){0};
  progress->select = NULL;
  const mg_status status = arrange(v, where, sort, &take);
  free(take);
  if (status != MG_OK) mg_grid_view_free(v);
  return status;
}

mg_status mg_grid_view_read(const mg_grid_reader *reader, const char *where, const char *sort, mg_grid_view *v) {
  mg_status status = MG_OK;
  bool *take = NULL;
  *v = (mg_grid_view){0};
  MG_TRY(mg_grid_read_table(reader, &v->table), cleanup);
  MG_TRY(mg_h5_read_text(&reader->h5, "/nxn_select", "partition", &v->select), cleanup);
  MG_TRY(arrange(v, where, sort, &take), cleanup);
  v->shown = (mg_grid_tables){v->table.method_count, v->table.methods, v->table.best_count, v->table.best};
  if (where != NULL) MG_TRY(compute(reader, take, v), cleanup);
cleanup:
  free(take);
  if (status != MG_OK) mg_grid_view_free(v);
  return status;
}

void mg_grid_view_free(mg_grid_view *v) {
  mg_grid_tables_free(&v->computed);
  mg_grid_table_free(&v->table);
  free(v->order), free(v->select);
  *v = (mg_grid_view){0};
}

static int most_accurate_first(const void *a, const void *b) {
  const mg_result_method *x = *(const mg_result_method *const *)a, *y = *(const mg_result_method *const *)b;
  if (isnan(x->accuracy) || isnan(y->accuracy)) {
    if (isnan(x->accuracy) != isnan(y->accuracy)) return isnan(x->accuracy) - isnan(y->accuracy);
  } else if (x->accuracy != y->accuracy) {
    return x->accuracy > y->accuracy ? -1 : 1;
  }
  return (x > y) - (x < y);
}

const mg_result_method **mg_sorted_methods(const mg_grid_view *v) {
  const mg_result_method **sorted = mg_alloc(v->shown.method_count, sizeof *sorted);
  for (size_t k = 0; sorted != NULL && k < v->shown.method_count; k++) sorted[k] = &v->shown.methods[k];
  if (sorted != NULL && v->shown.method_count > 1) qsort(sorted, v->shown.method_count, sizeof *sorted, most_accurate_first);
  return sorted;
}

/* ---- JSON ---- */

static json_t *text_json(const char *name, const char *text) {
  const bool parsed = strcmp(name, "parameters") == 0 || strcmp(name, "terms") == 0;
  json_t *object = parsed ? json_loads(text, 0, NULL) : NULL;
  return object != NULL ? object : json_string(text);
}

json_t *mg_row_json(const mg_columns *columns, const void *row) {
  json_t *object = json_object();
  for (size_t k = 0; k < columns->count; k++) {
    const mg_column *c = &columns->items[k];
    json_t *value;
    if (c->type == MG_COLUMN_TEXT)
      value = text_json(c->name, mg_column_text(c, row));
    else if (c->type == MG_COLUMN_BOOL)
      value = json_boolean(mg_column_number(c, row) != 0);
    else if (c->type == MG_COLUMN_DOUBLE)
      value = mg_json_number(mg_column_number(c, row));
    else if (c->type == MG_COLUMN_INT)
      value = json_integer(*(const int *)(const void *)((const char *)row + c->offset));
    else
      value = json_integer(*(const json_int_t *)(const void *)((const char *)row + c->offset));
    json_object_set_new(object, c->name, value);
  }
  return object;
}

static json_t *rows_json(const mg_columns *columns, const void *rows, size_t count) {
  json_t *list = json_array();
  for (size_t k = 0; k < count; k++)
    json_array_append_new(list, mg_row_json(columns, (const char *)rows + k * columns->row_size));
  return list;
}

static json_t *cell_json(const mg_grid_table *t, size_t cell) {
  json_t *object = mg_row_json(&mg_cell_columns, &t->cells[cell]);
  for (size_t s = 0; s < t->swept.count; s++)
    json_object_set_new(object, t->swept.items[s], json_string(t->swept_values[s * t->cell_count + cell]));
  return object;
}

/* Tables over cells; while there will be more of these, how far it is instead, and which tables that leaves out. */
static void add_tables(json_t *root, const mg_grid_view *v) {
  json_object_set_new(root, "complete", json_boolean(!v->incomplete));
  if (v->incomplete) {
    json_object_set_new(root, "finished", json_integer((json_int_t)v->finished));
    json_object_set_new(root, "to_finish", json_integer((json_int_t)v->all));
    json_object_set_new(root, "not_yet_known", json_pack("[s, s]", "methods", "best"));
    return;
  }
  json_object_set_new(root, "methods", rows_json(&mg_method_columns, v->shown.methods, v->shown.method_count));
  json_object_set_new(root, "best", rows_json(&mg_best_columns, v->shown.best, v->shown.best_count));
}

json_t *mg_grid_json(const mg_grid_view *v, size_t most) {
  const mg_grid_table *t = &v->table;
  json_t *failures = json_array(), *cells = json_array();
  for (size_t k = 0; k < v->listed; k++) {
    const mg_result_cell *c = &t->cells[v->order[k]];
    if (has_status(c, "failed"))
      json_array_append_new(failures, json_pack("{s:s, s:s, s:s, s:s}", "key", c->key, "locale", c->locale, "method", c->method,
                                                "error", c->error));
    if (k < most) json_array_append_new(cells, cell_json(t, v->order[k]));
  }
  json_t *root = json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:o}", "partition", t->partition, "select", v->select,
                           "selected_on_partition", t->selected_on_partition, "cells", (json_int_t)t->cell_count, "matching",
                           (json_int_t)v->matching, "completed", (json_int_t)v->counts[0], "failed", (json_int_t)v->counts[1],
                           "planned", (json_int_t)v->counts[2], "failures", failures);
  if (root != NULL) add_tables(root, v);
  json_object_set_new(root, "listed", cells);
  return root;
}
