/* How a cell came about, with numbers. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain_impl.h"
#include "mergegrid/text.h"

mg_text mg_cell_setting(const mg_explaining *e, size_t cell) {
  mg_text text = {0};
  const mg_result_cell *c = &e->view.table.cells[cell];
  mg_setting_text(&e->view.table, c->method, c->parameters, &text);
  return text;
}

const int32_t *mg_cell_row(const mg_explaining *e, const mg_grid_answers *a, size_t cell) {
  const int64_t row = e->view.table.cells[cell].prediction_row;
  return row >= 0 && (size_t)row < a->rows ? a->predictions + (size_t)row * a->texts : NULL;
}

void mg_print_comparison(const mg_cell_comparison *c) {
  printf("%+.4f, 95%% interval [%+.4f, %+.4f], p %.4g (McNemar, exact)\n", c->delta, c->low, c->high, c->p);
  printf("  of %zu texts: both right %zu, only the first %zu, only the second %zu, neither %zu; another prediction on %zu\n",
         c->texts, c->both, c->only_first, c->only_second, c->neither, c->differ);
}

/* ---- one cell ---- */

static void print_value(const json_t *value) {
  char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
  printf("%s", text != NULL ? text : json_is_string(value) ? json_string_value(value) : "");
  free(text);
}

static void print_parameters(const char *parameters) {
  json_t *all = json_loads(parameters, 0, NULL), *value;
  const char *name, *between = "";
  if (json_object_size(all) > 0) printf("  with ");
  json_object_foreach(all, name, value) {
    printf("%s%s ", between, name);
    print_value(value);
    between = ", ";
  }
  if (json_object_size(all) > 0) printf("\n");
  json_decref(all);
}

static void print_what(const mg_explaining *e, size_t cell) {
  const mg_result_cell *c = &e->view.table.cells[cell];
  mg_text setting = mg_cell_setting(e, cell);
  printf("cell %s: %s for %s, %s\n", c->key, setting.data ? setting.data : c->method, c->locale, c->status);
  mg_text_free(&setting);
  if (c->error[0] != '\0') printf("  error: %s\n", c->error);
  if (c->note[0] != '\0') printf("  note: %s\n", c->note);
  for (size_t k = 0; k < mg_method_count; k++) {
    if (strcmp(mg_methods[k].name, c->method) != 0) continue;
    const char *file = mg_compatibility_file(e, c->method);
    if (file != NULL)
      printf("  %s: similarity, each weight times the mean compatibility (%s) with the other sources that were chosen",
             c->method, file);
    else
      printf("  %s: %s", c->method, mg_methods[k].help);
    if (mg_methods[k].reference != NULL) printf(" (%s)", mg_methods[k].reference);
    printf("\n");
  }
  print_parameters(c->parameters);
  printf("  head %s, preset %s, seed %llu", c->head, c->preset, (unsigned long long)c->seed);
  if (c->phase[0] != '\0') printf(", phase %s", c->phase);
  printf("\n");
  if (c->recipe[0] != '\0') printf("  recipe %s", c->recipe);
  if (c->same_as >= 0) printf(": the same as that of cell %s, and computed once", e->view.table.cells[c->same_as].key);
  if (c->recipe[0] != '\0') printf("\n");
}

static void print_number(const char *what, double value, const char *more) {
  if (!isnan(value)) printf("  %-44s %.4f%s\n", what, value, more);
}

static mg_status print_result(const mg_explaining *e, size_t cell) {
  mg_status status = MG_OK;
  const mg_grid_table *t = &e->view.table;
  const mg_result_cell *c = &t->cells[cell];
  mg_grid_answers answers = {0};
  if (strcmp(c->status, "completed") != 0) return MG_OK;
  printf("\nresult (%s)\n", t->partition);
  print_number("accuracy", c->accuracy, "");
  print_number("macro-F1", c->macro_f1, "");
  if (!isnan(c->select_accuracy)) printf("  accuracy on %-32s %.4f\n", e->view.select, c->select_accuracy);
  print_number("mean accuracy of its sources", c->accuracy - c->merging_effect, "");
  if (!isnan(c->merging_effect)) printf("  %-44s %+.4f\n", "merging effect: its accuracy minus that mean", c->merging_effect);
  print_number("best of its sources", c->best_source, "");
  print_number("best of all sources but the target's own", c->best_zero_shot, "");
  print_number("the target's own source", c->own, "");
  if (c->matched < 0 || (size_t)c->matched == cell) return MG_OK;
  const mg_result_cell *other = &t->cells[c->matched];
  printf("\nagainst plain similarity (cell %s)\n", other->key);
  print_number("its accuracy", other->accuracy, "");
  MG_TRY(mg_grid_read_answers(e->reader, c->locale, &answers), cleanup);
  const int32_t *mine = mg_cell_row(e, &answers, cell), *theirs = mg_cell_row(e, &answers, (size_t)c->matched);
  if (mine != NULL && theirs != NULL) {
    mg_cell_comparison comparison;
    MG_TRY(mg_compare_predictions(&answers, mine, theirs, &comparison), cleanup);
    printf("  difference ");
    mg_print_comparison(&comparison);
  }
cleanup:
  mg_grid_answers_free(&answers);
  return status;
}

static mg_status explain_cell(const mg_explaining *e, size_t cell) {
  print_what(e, cell);
  const mg_status status = mg_explain_choice(e, cell);
  return status == MG_OK ? print_result(e, cell) : status;
}

mg_status mg_result_explain(const char *path, const mg_strings *keys) {
  mg_status status = MG_OK;
  mg_explaining e = {0};
  size_t cells[2] = {0};
  if (keys->count < 1 || keys->count > 2)
    return mg_fail(MG_ERR_USAGE,
                   "explain: the key of one cell was expected, or of two; mergegrid show RESULT --top 20 has some");
  MG_TRY(mg_grid_open(path, &e.reader), cleanup);
  MG_TRY(mg_grid_view_read(e.reader, NULL, NULL, &e.view), cleanup);
  MG_TRY(mg_matrices_read_from(&e.reader->h5, &e.m), cleanup);
  MG_TRY(mg_result_parse_config(e.reader, &e.config), cleanup); /* some numbers hang on files that it names */
  for (size_t k = 0; k < keys->count; k++) MG_TRY(mg_grid_table_find(&e.view.table, keys->items[k], &cells[k]), cleanup);
  status = keys->count == 1 ? explain_cell(&e, cells[0]) : mg_explain_pair(&e, cells[0], cells[1]);
cleanup:
  mg_grid_view_free(&e.view);
  mg_matrices_free(&e.m);
  mg_config_free(&e.config);
  mg_grid_close(&e.reader);
  return status;
}
