/* What changed, in words and as JSON. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff_impl.h"
#include "export_impl.h"
#include "mergegrid/text.h"

/* From here on, corrected for how many were asked, a difference is called one. */
static const double LEVEL = 0.05;

static const char *or_nothing(const char *text) { return text != NULL ? text : "-"; }

/* ---- words ---- */

void mg_diff_print_values(const mg_diff_values *v, int indent) {
  for (size_t k = 0; k < v->count; k++)
    printf("%*s%-28s %s\n%*s%-28s %s\n", indent, "", v->items[k].name, or_nothing(v->items[k].before), indent, "", "",
           or_nothing(v->items[k].now));
}

static void print_values(const char *what, const mg_diff_values *v) {
  printf("\n%s: ", what);
  if (v->count == 0) printf("all %zu the same\n", v->compared);
  if (v->count > 0) printf("%zu of %zu differ\n", v->count, v->compared);
  mg_diff_print_values(v, 2);
}

void mg_diff_print_list(const char *what, const mg_strings *list) {
  if (list->count == 0) return;
  printf("%s", what);
  for (size_t k = 0; k < list->count; k++) printf(" %s", list->items[k]);
  printf("\n");
}

static void print_failures(const mg_diff *d, size_t top) {
  static const char *const when[2] = {"failed in the old and not in the new", "failed in the new and not in the old"};
  if (d->failed_both > 0) printf("\nsources on targets: %zu failed in both\n", d->failed_both);
  for (int k = 0; k < 2; k++) {
    const mg_strings *list = &d->failed[k];
    if (list->count == 0) continue;
    printf("\nsources on targets: %zu %s, so nothing is compared:\n", list->count, when[k]);
    for (size_t f = 0; f < list->count && f < top; f++) printf("  %s\n", list->items[f]);
    if (list->count > top) printf("  … and %zu more (--top)\n", list->count - top);
  }
}

static void print_matrices(const mg_diff *d) {
  if (d->pairs == 0) return;
  printf("\ntask-vector cosine: ");
  if (d->pairs_changed == 0)
    printf("all %zu pairs the same\n", d->pairs);
  else
    printf("%zu of %zu pairs changed, most %s and %s, by %+.4g\n", d->pairs_changed, d->pairs, d->largest_of[0],
           d->largest_of[1], d->largest);
}

static size_t beyond_noise(const mg_diff_answers *all) {
  size_t count = 0;
  for (size_t k = 0; k < all->count; k++) count += all->items[k].p_holm < LEVEL;
  return count;
}

static void print_answer(const mg_diff *d, const mg_diff_answer *a) {
  mg_text what = {0};
  if (a->cell != NULL) {
    mg_setting_text(&d->side[1].grid, a->cell->method, a->cell->parameters, &what);
    printf("  %.8s  %-12s", a->cell->key, a->target);
  } else {
    mg_text_append(&what, "%s", a->source);
    printf("  %-12s", a->target);
  }
  printf(" %-28s %.4f  %.4f  %+.4f  %-9.3g %.3g\n", what.data != NULL ? what.data : "", a->before, a->now, a->now - a->before,
         a->p, a->p_holm);
  mg_text_free(&what);
}

static void print_answers(const mg_diff *d, const char *what, const mg_diff_answers *all, bool cells, size_t top) {
  if (all->compared == 0) return;
  printf("\n%s: %zu in both; %zu predict something else, %zu beyond noise (McNemar, Holm over those)\n", what, all->compared,
         all->count, beyond_noise(all));
  if (all->count == 0) return;
  printf("  %s%-12s %-28s %-7s %-7s %-8s %-9s %s\n", cells ? "cell      " : "", "target", cells ? "method" : "source", "old",
         "new", "change", "p", "p (Holm)");
  for (size_t k = 0; k < all->count && k < top; k++) print_answer(d, &all->items[k]);
  if (all->count > top) printf("  … and %zu more (--top)\n", all->count - top);
}

static void print_methods(const mg_diff *d) {
  bool any = false;
  for (size_t k = 0; k < d->method_count; k++) {
    const mg_diff_method *m = &d->methods[k];
    mg_text what = {0};
    if (!(m->p < 1)) continue; /* nothing differs there */
    if (!any) printf("  methods over the cells of both: new − old, 95%% interval, p (Holm over %zu)\n", d->method_count);
    any = true;
    mg_setting_text(&d->side[1].grid, m->cell->method, m->cell->parameters, &what);
    printf("    %-28s %4zu cells  %+.4f [%+.4f, %+.4f]  %.3g\n", what.data != NULL ? what.data : "", m->cells, m->delta, m->low,
           m->high, m->p_holm);
    mg_text_free(&what);
  }
}

static void print_grid(const mg_diff *d, size_t top) {
  if (d->side[0].has_grid != d->side[1].has_grid) printf("\ngrid: only the %s has one\n", d->side[0].has_grid ? "old" : "new");
  if (!d->side[0].has_grid || !d->side[1].has_grid) return;
  printf("\ngrid: %zu cells in both, %zu only in the old, %zu only in the new\n", d->cells_both, d->cells_gone, d->cells_come);
  printf("  of both, %zu are computed from the same; %zu failed now and not before, %zu completed now and not before\n",
         d->same_recipe, d->newly_failed, d->newly_completed);
  print_answers(d, "cells", &d->cells, true, top);
  print_methods(d);
}

void mg_diff_print(const mg_diff *d, size_t top) {
  static const char *const names[2] = {"old", "new"};
  for (int k = 0; k < 2; k++)
    printf("%s  %s  %s  mergegrid %s\n", names[k], d->side[k].path, or_nothing(d->side[k].m.finished),
           or_nothing(d->side[k].m.version));
  print_values("computed from", &d->inputs);
  print_values("configuration", &d->config);
  mg_diff_print_list("sources only in the old:", &d->gone[0]);
  mg_diff_print_list("sources only in the new:", &d->come[0]);
  mg_diff_print_list("targets only in the old:", &d->gone[1]);
  mg_diff_print_list("targets only in the new:", &d->come[1]);
  mg_diff_print_list("targets with other texts or labels, compared on those that both have:", &d->other_texts);
  print_matrices(d);
  print_failures(d, top);
  print_answers(d, "sources on targets", &d->nxn, false, top);
  print_grid(d, top);
  mg_diff_microscope_print(d, top);
}

/* ---- JSON ---- */

static json_t *text_or_null(const char *text) { return text != NULL ? json_string(text) : json_null(); }

json_t *mg_diff_values_json(const mg_diff_values *v) {
  json_t *list = json_array();
  for (size_t k = 0; k < v->count; k++)
    json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "name", v->items[k].name, "old", text_or_null(v->items[k].before),
                                          "new", text_or_null(v->items[k].now)));
  return json_pack("{s:I, s:o}", "compared", (json_int_t)v->compared, "changed", list);
}

static json_t *answers_json(const mg_diff_answers *all) {
  json_t *list = json_array();
  for (size_t k = 0; k < all->count; k++) {
    const mg_diff_answer *a = &all->items[k];
    json_t *item = json_pack("{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "target", a->target, "old",
                             mg_json_number(a->before), "new", mg_json_number(a->now), "texts", (json_int_t)a->texts, "differ",
                             (json_int_t)a->differ, "only_old", (json_int_t)a->only_before, "only_new", (json_int_t)a->only_now,
                             "p", mg_json_number(a->p), "p_holm", mg_json_number(a->p_holm));
    if (a->cell != NULL) {
      json_object_set_new(item, "key", json_string(a->cell->key));
      json_object_set_new(item, "method", json_string(a->cell->method));
      json_object_set_new(item, "parameters", json_loads(a->cell->parameters, 0, NULL));
    } else {
      json_object_set_new(item, "source", json_string(a->source));
    }
    json_array_append_new(list, item);
  }
  return json_pack("{s:I, s:I, s:o}", "compared", (json_int_t)all->compared, "beyond_noise", (json_int_t)beyond_noise(all),
                   "changed", list);
}

static json_t *methods_json(const mg_diff *d) {
  json_t *list = json_array();
  for (size_t k = 0; k < d->method_count; k++) {
    const mg_diff_method *m = &d->methods[k];
    json_array_append_new(list,
                          json_pack("{s:s, s:o, s:I, s:o, s:o, s:o, s:o, s:o}", "method", m->cell->method, "parameters",
                                    json_loads(m->cell->parameters, 0, NULL), "cells", (json_int_t)m->cells, "delta",
                                    mg_json_number(m->delta), "low", mg_json_number(m->low), "high", mg_json_number(m->high),
                                    "p", mg_json_number(m->p), "p_holm", mg_json_number(m->p_holm)));
  }
  return list;
}

static json_t *nxn_json(const mg_diff *d) {
  json_t *json = answers_json(&d->nxn);
  json_object_set_new(json, "failed_in_both", json_integer((json_int_t)d->failed_both));
  json_object_set_new(json, "failed_only_old", mg_json_strings(&d->failed[0]));
  json_object_set_new(json, "failed_only_new", mg_json_strings(&d->failed[1]));
  return json;
}

static json_t *grid_json(const mg_diff *d) {
  if (!d->side[0].has_grid || !d->side[1].has_grid) return json_null();
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "both", (json_int_t)d->cells_both, "only_old",
                   (json_int_t)d->cells_gone, "only_new", (json_int_t)d->cells_come, "same_recipe", (json_int_t)d->same_recipe,
                   "newly_failed", (json_int_t)d->newly_failed, "newly_completed", (json_int_t)d->newly_completed, "cells",
                   answers_json(&d->cells), "methods", methods_json(d));
}

mg_status mg_diff_print_json(const mg_diff *d) {
  json_t *root = json_pack("{s:s, s:s, s:o, s:o, s:{s:o, s:o}, s:{s:o, s:o}, s:o, s:{s:I, s:I, s:o}, s:o, s:o, s:o}", "old",
                           d->side[0].path, "new", d->side[1].path, "inputs", mg_diff_values_json(&d->inputs), "configuration",
                           mg_diff_values_json(&d->config), "sources", "only_old", mg_json_strings(&d->gone[0]), "only_new",
                           mg_json_strings(&d->come[0]), "targets", "only_old", mg_json_strings(&d->gone[1]), "only_new",
                           mg_json_strings(&d->come[1]), "other_texts", mg_json_strings(&d->other_texts), "task_vector_cosine",
                           "pairs", (json_int_t)d->pairs, "changed", (json_int_t)d->pairs_changed, "largest",
                           mg_json_number(d->pairs_changed > 0 ? d->largest : 0), "nxn", nxn_json(d), "grid", grid_json(d),
                           "microscope", mg_diff_microscope_json(d));
  char *text = root != NULL ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
  json_decref(root);
  if (text == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory for JSON");
  puts(text);
  free(text);
  return MG_OK;
}
