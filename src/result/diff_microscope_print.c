/* What changed of the microscope's setups, in words and as JSON. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diff_impl.h"
#include "export_impl.h"

static const char *table_name(const mg_diff_table *t) { return strrchr(t->frame->of->group, '/') + 1; }

static bool is_changed(const mg_diff_table *t) { return t->changed + t->gone + t->come > 0; }

/* What a row is about: a parameter's name, "layer 3", "layer 3 head 2"; "" of the only one. */
static void describe_row(const mg_diff_table *t, size_t row, char *text, size_t size) {
  const char *name = table_name(t);
  text[0] = '\0';
  if (strcmp(name, "parameter_deltas") == 0)
    snprintf(text, size, "%s", mg_frame_text(t->frame, "parameter", row));
  else if (strcmp(name, "attentions") == 0)
    snprintf(text, size, "layer %.0f head %.0f", mg_frame_number(t->frame, "layer", row),
             mg_frame_number(t->frame, "head", row));
  else if (strcmp(name, "hidden_states") == 0)
    snprintf(text, size, "layer %.0f", mg_frame_number(t->frame, "layer", row));
}

/* The column that says most of a table, or the first that changed; NULL: none did. */
static const mg_diff_column *leading_column(const mg_diff_table *t) {
  static const char *const leading[] = {"delta_l2", "entropy", "mean_token_norm", "confidence_mean"};
  const mg_diff_column *first = NULL;
  for (size_t c = 0; c < t->column_count; c++) {
    const mg_diff_column *column = &t->columns[c];
    if (column->changed == 0) continue;
    for (size_t k = 0; k < sizeof leading / sizeof *leading; k++)
      if (strcmp(column->name, leading[k]) == 0) return column;
    if (first == NULL) first = column;
  }
  return first;
}

/* ---- words ---- */

static void print_table(const mg_diff_table *t) {
  char row[160];
  const mg_diff_column *c = leading_column(t);
  if (!is_changed(t)) return;
  printf("    %-28s %zu of %zu rows changed", table_name(t), t->changed, t->both);
  if (t->gone > 0) printf(", %zu only in the old", t->gone);
  if (t->come > 0) printf(", %zu only in the new", t->come);
  if (c != NULL) {
    describe_row(t, c->row, row, sizeof row);
    printf("; %s%s%s, by %+.4g", c->name, row[0] != '\0' ? " most at " : "", row, c->largest);
  }
  printf("\n");
}

static const char *or_null(const char *text) { return text[0] != '\0' ? text : NULL; }

static void print_setup(const mg_diff_setup *s) {
  mg_diff_value items[2];
  mg_diff_values outcome = {.items = items};
  if (strcmp(s->status[0], s->status[1]) != 0) items[outcome.count++] = (mg_diff_value){"status", s->status[0], s->status[1]};
  if (strcmp(s->error[0], s->error[1]) != 0)
    items[outcome.count++] = (mg_diff_value){"error", or_null(s->error[0]), or_null(s->error[1])};
  printf("  %s\n", s->name);
  mg_diff_print_values(&outcome, 4);
  mg_diff_print_values(&s->inputs, 4);
  for (int k = 0; k < MG_DIFF_TABLES; k++) print_table(&s->tables[k]);
}

void mg_diff_microscope_print(const mg_diff *d, size_t top) {
  const mg_diff_microscope *m = &d->scope;
  size_t seen = 0;
  if (d->side[0].has_microscope != d->side[1].has_microscope)
    printf("\nmicroscope: only the %s has one\n", d->side[0].has_microscope ? "old" : "new");
  if (!d->side[0].has_microscope || !d->side[1].has_microscope) return;
  printf("\nmicroscope: %zu setups in both (the reference among them), %zu only in the old, %zu only in the new\n", m->count,
         m->gone.count, m->come.count);
  mg_diff_print_list("  only in the old:", &m->gone);
  mg_diff_print_list("  only in the new:", &m->come);
  printf("  of both, %zu are made from the same; %zu failed now and not before, %zu completed now and not before\n",
         m->same_recipe, m->newly_failed, m->newly_completed);
  if (m->conditions.count > 0) printf("  all are looked at with something else:\n");
  mg_diff_print_values(&m->conditions, 4);
  printf("  %zu have other inputs, another status or other numbers\n", m->changed);
  for (size_t k = 0; k < m->count; k++)
    if (m->items[k].changed && seen++ < top) print_setup(&m->items[k]);
  if (seen > top) printf("  … and %zu more (--top)\n", seen - top);
}

/* ---- JSON ---- */

static json_t *columns_json(const mg_diff_table *t) {
  json_t *list = json_array();
  char row[160];
  for (size_t c = 0; c < t->column_count; c++) {
    const mg_diff_column *column = &t->columns[c];
    if (column->changed == 0) continue;
    describe_row(t, column->row, row, sizeof row);
    json_array_append_new(list, json_pack("{s:s, s:I, s:o, s:s}", "column", column->name, "changed",
                                          (json_int_t)column->changed, "largest", mg_json_number(column->largest), "at", row));
  }
  return list;
}

static json_t *tables_json(const mg_diff_setup *s) {
  json_t *list = json_array();
  for (int k = 0; k < MG_DIFF_TABLES; k++) {
    const mg_diff_table *t = &s->tables[k];
    if (is_changed(t))
      json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "table", table_name(t), "rows",
                                            (json_int_t)t->both, "changed", (json_int_t)t->changed, "only_old",
                                            (json_int_t)t->gone, "only_new", (json_int_t)t->come, "columns", columns_json(t)));
  }
  return list;
}

static json_t *setups_json(const mg_diff_microscope *m) {
  json_t *list = json_array();
  for (size_t k = 0; k < m->count; k++) {
    const mg_diff_setup *s = &m->items[k];
    if (s->changed)
      json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "setup", s->name, "old", s->status[0], "new",
                                            s->status[1], "old_error", s->error[0], "new_error", s->error[1], "inputs",
                                            mg_diff_values_json(&s->inputs), "numbers", tables_json(s)));
  }
  return json_pack("{s:I, s:o}", "compared", (json_int_t)m->count, "changed", list);
}

json_t *mg_diff_microscope_json(const mg_diff *d) {
  const mg_diff_microscope *m = &d->scope;
  if (!d->side[0].has_microscope || !d->side[1].has_microscope) return json_null();
  return json_pack("{s:I, s:o, s:o, s:I, s:I, s:I, s:o, s:o}", "both", (json_int_t)m->count, "only_old",
                   mg_json_strings(&m->gone), "only_new", mg_json_strings(&m->come), "same_recipe", (json_int_t)m->same_recipe,
                   "newly_failed", (json_int_t)m->newly_failed, "newly_completed", (json_int_t)m->newly_completed, "conditions",
                   mg_diff_values_json(&m->conditions), "setups", setups_json(m));
}
