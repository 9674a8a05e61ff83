/* What follows from a cell's choice: weights by compatibility, the lambda of a rule, the source that stands for other layers.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain_impl.h"
#include "mergegrid/grid.h"
#include "mergegrid/labelled_table.h"
#include "mergegrid/similarity.h"
#include "mergegrid/text.h"

/* ---- the choice ---- */

mg_status mg_chosen_create(size_t room, mg_chosen *c) {
  *c = (mg_chosen){.source = mg_alloc(room, sizeof *c->source), .weight = mg_alloc(room, sizeof *c->weight)};
  if (c->source != NULL && c->weight != NULL) return MG_OK;
  mg_chosen_free(c);
  return MG_ERR_NOMEM;
}

void mg_chosen_add(mg_chosen *c, size_t source, double weight) {
  size_t k = 0;
  while (k < c->count && c->source[k] != (int)source) k++;
  if (k == c->count) {
    c->source[c->count] = (int)source;
    c->weight[c->count++] = 0;
  }
  c->weight[k] += weight;
}

void mg_chosen_free(mg_chosen *c) {
  free(c->source), free(c->weight);
  *c = (mg_chosen){0};
}

/* ---- compatibility ---- */

const char *mg_compatibility_file(const mg_explaining *e, const char *method) {
  if (e->config == NULL) return NULL;
  const bool cka = strcmp(method, "similarity_x_cka_compatibility") == 0;
  const bool tv = strcmp(method, "similarity_x_tv_compatibility") == 0;
  const char *file = cka ? e->config->grid.compatibility.cka : e->config->grid.compatibility.tv;
  return (cka || tv) && strcmp(file, "stage") != 0 ? file : NULL;
}

static mg_status read_file(const mg_explaining *e, const char *file, double *all) {
  mg_status status = MG_OK;
  const size_t n = e->m.ids.count;
  mg_labelled_table table = {0};
  mg_source *items = mg_alloc_zero(n, sizeof *items);
  if (items == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < n; k++) items[k] = (mg_source){.id = e->m.ids.items[k], .locale = e->m.locales.items[k]};
  const mg_source_list list = {.count = n, .items = items};
  MG_TRY(mg_labelled_table_read(file, &table), cleanup);
  MG_TRY(mg_compatibility_of(&table, file, &list, all, NULL), cleanup);
cleanup:
  mg_labelled_table_free(&table);
  free(items);
  return status;
}

/* [N, N]: of the file, or of the result's own stage. */
static mg_status read_compatibility(const mg_explaining *e, const char *file, bool cka, double *all) {
  const size_t n = e->m.ids.count;
  if (file != NULL) return read_file(e, file, all);
  const double *own = e->m.cosine;
  if (cka) own = e->m.cka != NULL ? e->m.cka + (e->m.cka_layer_count - 1) * n * n : NULL;
  if (own == NULL) return mg_fail(MG_ERR_INPUT, "%s: has no %s", e->m.path, cka ? "CKA" : "task-vector cosines");
  memcpy(all, own, n * n * sizeof *own);
  return MG_OK;
}

/* weights: the choice's, which become the cell's. */
static void print_weights(const mg_explaining *e, size_t cell, const mg_chosen *c, const double *compatibility,
                          double *weights) {
  const mg_grid_table *t = &e->view.table;
  bool kept, as_stored = true;
  mg_weigh_by_compatibility(compatibility, c->count, weights, &kept);
  printf("  %-12s  %6s  %13s  %7s\n", "source", "share", "compatibility", "weight");
  for (size_t k = 0; k < c->count; k++) {
    const size_t source = (size_t)c->source[k];
    printf("  %-12s  %6.4f", e->m.ids.items[source], c->weight[k]);
    if (c->count > 1)
      printf("  %13.4f", mg_mean_compatibility(compatibility, c->count, k));
    else
      printf("  %13s", "-");
    printf("  %7.4f\n", weights[k]);
    const size_t at = cell * t->source_count + source;
    if (t->selected[at] && !c->drops) as_stored = as_stored && fabs(weights[k] - t->weights[at]) < 1e-9;
  }
  if (kept) printf("  every compatibility is 0: the shares stay\n");
  if (!as_stored) printf("  the compatibilities have changed since: the cell has the weights further above\n");
}

static mg_status explain_weights(const mg_explaining *e, size_t cell, const mg_chosen *c) {
  mg_status status = MG_OK;
  const char *method = e->view.table.cells[cell].method, *file = mg_compatibility_file(e, method);
  const bool cka = strcmp(method, "similarity_x_cka_compatibility") == 0;
  const size_t n = c->count, all_count = e->m.ids.count;
  if (!cka && strcmp(method, "similarity_x_tv_compatibility") != 0) return MG_OK;
  double *all = mg_alloc(all_count, all_count * sizeof *all), *of = mg_alloc(n, n * sizeof *of);
  double *weights = mg_alloc(n, sizeof *weights);
  if (all == NULL || of == NULL || weights == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  memcpy(weights, c->weight, n * sizeof *weights);
  printf("\nweights: each share of the similarity times the mean %s%s with the other sources\n",
         file != NULL ? "compatibility of "
         : cka        ? "CKA"
                      : "task-vector cosine",
         file != NULL ? file : "");
  status = read_compatibility(e, file, cka, all);
  if (status == MG_ERR_INPUT || status == MG_ERR_IO) {
    printf("  not to be had any more: %s\n", mg_error_message());
    status = MG_OK;
    goto cleanup;
  }
  if (status != MG_OK) goto cleanup;
  for (size_t k = 0; k < n * n; k++) of[k] = all[(size_t)c->source[k / n] * all_count + (size_t)c->source[k % n]];
  print_weights(e, cell, c, of, weights);
cleanup:
  free(all), free(of), free(weights);
  return status;
}

/* ---- parameters ---- */

static void explain_lambda(const mg_explaining *e, const mg_result_cell *c, const mg_chosen *chosen, const json_t *parameters) {
  const char *rule = json_string_value(json_object_get(parameters, "lambda"));
  if (rule == NULL || chosen->count < 2) return;
  for (size_t k = 0; k < mg_method_count; k++) {
    if (strcmp(mg_methods[k].name, c->method) != 0) continue;
    printf("\nlambda %.6g by the rule %s: %s but %s, the strongest\n",
           mg_lambda_by_rule(&mg_methods[k], chosen->weight, chosen->count), rule,
           mg_method_sums(&mg_methods[k]) ? "the mean share of all" : "the largest share of all",
           e->m.ids.items[chosen->source[mg_strongest(chosen->weight, chosen->count)]]);
  }
}

/* Only what is merged: drop_strongest takes one away, which then has no weight. */
static void keep_merged(const mg_explaining *e, size_t cell, mg_chosen *c) {
  const mg_grid_table *t = &e->view.table;
  size_t kept = 0;
  for (size_t k = 0; k < c->count; k++) {
    if (!(t->weights[cell * t->source_count + (size_t)c->source[k]] > 0)) continue;
    c->source[kept] = c->source[k];
    c->weight[kept++] = c->weight[k];
  }
  c->count = kept;
}

static void print_best(const mg_explaining *e, size_t cell, const mg_chosen *c, const char *which) {
  const ptrdiff_t target = mg_strings_find(&e->m.targets, e->view.table.cells[cell].locale);
  const size_t best = mg_best_of(c->source, c->weight, c->count, e->m.nxn.accuracy[1], e->m.targets.count, target);
  printf("\n%s are those of %s, the best source", which, e->m.ids.items[c->source[best]]);
  if (target >= 0 && e->m.nxn.accuracy[1] != NULL) {
    const double accuracy = e->m.nxn.accuracy[1][(size_t)c->source[best] * e->m.targets.count + (size_t)target];
    if (isnan(accuracy)) /* all have failed on the target: the heaviest is taken */
      printf(" by weight, since none has an accuracy on %s", e->m.nxn.partition[1]);
    else
      printf(": %.4f on %s", accuracy, e->m.nxn.partition[1]);
  }
  printf("\n");
}

/* Of the two the one of larger weight is the first, of equals the family's first. */
static void print_swapped(const mg_explaining *e, const mg_chosen *c) {
  if (c->count != 2) return;
  const bool behind = c->weight[1] > c->weight[0] || (c->weight[1] == c->weight[0] && c->source[1] < c->source[0]);
  printf("\nthe layers named are those of %s, the others those of %s\n", e->m.ids.items[c->source[!behind]],
         e->m.ids.items[c->source[behind]]);
}

static void explain_layers(const mg_explaining *e, size_t cell, mg_chosen *c, const json_t *parameters) {
  const char *method = e->view.table.cells[cell].method;
  const char *elsewhere = json_string_value(json_object_get(parameters, "elsewhere"));
  keep_merged(e, cell, c);
  if (c->count == 0) return;
  if (strcmp(method, "exclude_layers") == 0) print_best(e, cell, c, "the layers named");
  if (elsewhere != NULL && strcmp(elsewhere, "best_source") == 0) print_best(e, cell, c, "the layers not named");
  if (strcmp(method, "layer_swap") == 0) print_swapped(e, c);
}

mg_status mg_explain_numbers(const mg_explaining *e, size_t cell, mg_chosen *chosen) {
  const mg_result_cell *c = &e->view.table.cells[cell];
  if (c->recipe[0] == '\0' || chosen->count == 0) return MG_OK; /* it did not come to that */
  json_t *parameters = json_loads(c->parameters, 0, NULL);
  const mg_status status = explain_weights(e, cell, chosen);
  if (status == MG_OK) {
    explain_lambda(e, c, chosen, parameters);
    explain_layers(e, cell, chosen, parameters);
  }
  json_decref(parameters);
  return status;
}
