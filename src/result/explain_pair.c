/* Why two cells differ: coordinates, sources, and what they say of the same texts. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain_impl.h"
#include "mergegrid/text.h"

/* ---- coordinates ---- */

static char *value_text(const json_t *value) {
  if (value == NULL) return mg_strdup("-");
  return json_is_string(value) ? mg_strdup(json_string_value(value))
                               : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
}

static size_t print_term(const char *prefix, const char *name, const json_t *a, const json_t *b) {
  if (a != NULL && b != NULL && json_equal(a, b)) return 0;
  char *x = value_text(a), *y = value_text(b);
  printf("  %s%-*s %-28s %s\n", prefix, 24 - (int)strlen(prefix), name, x != NULL ? x : "", y != NULL ? y : "");
  free(x), free(y);
  return 1;
}

/* Names of either side that differ; those of the second alone come last. */
static size_t print_terms(const char *prefix, const json_t *a, const json_t *b) {
  size_t differ = 0;
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)a, name, value) {
    const json_t *other = json_object_get(b, name);
    if (json_is_object(value) && json_is_object(other))
      differ += print_terms(strcmp(name, "parameters") == 0 ? "" : "sources ", value, other);
    else
      differ += print_term(prefix, name, value, other);
  }
  json_object_foreach((json_t *)(uintptr_t)b, name, value) {
    if (json_object_get(a, name) == NULL) differ += print_term(prefix, name, NULL, value);
  }
  return differ;
}

static void print_coordinates(const mg_result_cell *a, const mg_result_cell *b) {
  json_t *x = json_loads(a->terms, 0, NULL), *y = json_loads(b->terms, 0, NULL);
  printf("\ncoordinates that differ\n");
  if (print_terms("", x, y) == 0) printf("  none\n");
  json_decref(x), json_decref(y);
}

/* ---- sources ---- */

static void print_weight(const mg_grid_table *t, size_t cell, size_t source) {
  const size_t at = cell * t->source_count + source;
  if (t->selected[at])
    printf("  %8.4f", t->weights[at]);
  else
    printf("  %8s", "-");
}

static void print_sources(const mg_grid_table *t, size_t a, size_t b) {
  size_t same = 0, differ = 0;
  printf("\nsources and weights\n");
  for (size_t s = 0; s < t->source_count; s++) {
    const size_t x = a * t->source_count + s, y = b * t->source_count + s;
    if (!t->selected[x] && !t->selected[y]) continue;
    same += t->selected[x] == t->selected[y] && t->weights[x] == t->weights[y];
    differ += t->selected[x] != t->selected[y] || t->weights[x] != t->weights[y];
    printf("  %-12s", t->sources.items[s]);
    print_weight(t, a, s);
    print_weight(t, b, s);
    printf("%s\n", t->selected[x] != t->selected[y] ? "  only one has it" : "");
  }
  printf("  %zu differ, %zu are the same\n", differ, same);
}

/* ---- predictions ---- */

static const char *class_name(const mg_explaining *e, int32_t class) {
  return class >= 0 && (size_t) class < e->m.labels.count ? e->m.labels.items[class] : "none";
}

/* Some texts that only one of the two has right. */
static mg_status print_texts(const mg_explaining *e, const char *target, const mg_grid_answers *a, const int32_t *x,
                             const int32_t *y) {
  enum { NAMED = 10 };
  mg_status status = MG_OK;
  mg_strings ids = {0};
  char path[192];
  size_t shown = 0;
  snprintf(path, sizeof path, "/texts/%.128s/id", target);
  MG_TRY(mg_h5_read_strings(&e->reader->h5, path, &ids), cleanup);
  for (size_t k = 0; k < a->texts && k < ids.count; k++) {
    const bool right = x[k] == a->label[k];
    if (!a->scored[k] || right == (y[k] == a->label[k]) || shown++ >= NAMED) continue;
    if (shown == 1) printf("  texts that only one has right: id, class, the first's, the second's\n");
    printf("    %-12s %-20s %-20s %s\n", ids.items[k], class_name(e, a->label[k]), class_name(e, x[k]), class_name(e, y[k]));
  }
  if (shown > NAMED) printf("    … and %zu more\n", shown - NAMED);
cleanup:
  mg_strings_free(&ids);
  return status;
}

static mg_status print_predictions(const mg_explaining *e, size_t a, size_t b) {
  mg_status status = MG_OK;
  const mg_result_cell *x = &e->view.table.cells[a], *y = &e->view.table.cells[b];
  mg_grid_answers answers = {0};
  mg_cell_comparison comparison;
  printf("\npredictions (%s)\n", e->view.table.partition);
  if (strcmp(x->locale, y->locale) != 0) {
    printf("  of other texts: the targets differ\n");
    return MG_OK;
  }
  MG_TRY(mg_grid_read_answers(e->reader, x->locale, &answers), cleanup);
  const int32_t *first = mg_cell_row(e, &answers, a), *second = mg_cell_row(e, &answers, b);
  if (first == NULL || second == NULL) {
    printf("  the %s has none\n", first == NULL ? "first" : "second");
    goto cleanup;
  }
  MG_TRY(mg_compare_predictions(&answers, first, second, &comparison), cleanup);
  printf("  accuracy %.4f and %.4f: difference ", x->accuracy, y->accuracy);
  mg_print_comparison(&comparison);
  MG_TRY(print_texts(e, x->locale, &answers, first, second), cleanup);
cleanup:
  mg_grid_answers_free(&answers);
  return status;
}

mg_status mg_explain_pair(const mg_explaining *e, size_t a, size_t b) {
  const mg_grid_table *t = &e->view.table;
  const size_t cells[2] = {a, b};
  for (size_t k = 0; k < 2; k++) {
    mg_text setting = mg_cell_setting(e, cells[k]);
    const mg_result_cell *c = &t->cells[cells[k]];
    printf("%-6s cell %s: %s for %s, %s\n", k == 0 ? "first" : "second", c->key, setting.data ? setting.data : c->method,
           c->locale, c->status);
    if (c->error[0] != '\0') printf("  error: %s\n", c->error);
    mg_text_free(&setting);
  }
  if (a == b) printf("the same cell\n");
  print_coordinates(&t->cells[a], &t->cells[b]);
  print_sources(t, a, b);
  return print_predictions(e, a, b);
}
