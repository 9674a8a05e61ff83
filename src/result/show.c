/* What a result holds, for people and as JSON. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "grid_view_impl.h"
#include "mergegrid/text.h"
#include "microscope_impl.h"

typedef struct pair {
  size_t i, j;
  double cosine;
} pair;

static int closest_first(const void *a, const void *b) {
  const pair *x = a, *y = b;
  if (x->cosine != y->cosine) return x->cosine > y->cosine ? -1 : 1;
  if (x->i != y->i) return x->i < y->i ? -1 : 1;
  return (x->j > y->j) - (x->j < y->j);
}

/* All pairs i < j with a finite cosine, closest first. */
static mg_status list_pairs(const mg_matrices *m, pair **pairs, size_t *count) {
  const size_t n = m->ids.count;
  *count = 0;
  if (m->cosine == NULL) return MG_OK;
  *pairs = mg_alloc(n * (n - 1) / 2, sizeof **pairs);
  if (*pairs == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < n; i++)
    for (size_t j = i + 1; j < n; j++)
      if (isfinite(m->cosine[i * n + j])) (*pairs)[(*count)++] = (pair){i, j, m->cosine[i * n + j]};
  if (*count > 1) qsort(*pairs, *count, sizeof **pairs, closest_first);
  return MG_OK;
}

static void print_statistics(const char *name, const double *matrix, size_t n) {
  const mg_matrix_statistics s = mg_matrix_off_diagonal(matrix, n);
  printf("  %-28s mean %7.4f   std %6.4f   min %7.4f   max %7.4f\n", name, s.mean, s.std, s.min, s.max);
}

static void print_compatibility(const mg_matrices *m) {
  const size_t n = m->ids.count;
  double least = INFINITY, most = -INFINITY;
  for (size_t k = 0; k < n; k++) {
    if (m->norm[k] < least) least = m->norm[k];
    if (m->norm[k] > most) most = m->norm[k];
  }
  printf("\ntask-vector cosine (off the diagonal)\n");
  print_statistics("all selected tensors", m->cosine, n);
  if (m->encoder != NULL) print_statistics("layers, without embeddings", m->encoder, n);
  for (size_t l = 0; m->by_layer != NULL && l < m->layers.count; l++)
    print_statistics(m->layers.items[l], m->by_layer + l * n * n, n);
  for (size_t l = 0; l < m->cka_layer_count; l++) {
    char name[48];
    snprintf(name, sizeof name, "CKA, hidden state %d", m->cka_layers[l]);
    print_statistics(name, m->cka + l * n * n, n);
  }
  printf("  norms of the task vectors, all tensors: %.4g to %.4g\n", least, most);
}

static void print_pairs(const mg_matrices *m, const pair *pairs, size_t count, size_t shown) {
  printf("\nclosest pairs\n");
  for (size_t k = 0; k < shown; k++)
    printf("  %-12s %-12s %.4f\n", m->ids.items[pairs[k].i], m->ids.items[pairs[k].j], pairs[k].cosine);
  printf("farthest pairs\n");
  for (size_t k = 0; k < shown; k++) {
    const pair *p = &pairs[count - 1 - k];
    printf("  %-12s %-12s %.4f\n", m->ids.items[p->i], m->ids.items[p->j], p->cosine);
  }
}

/* A source at a time, which stand together. */
static void print_failures(const mg_matrices *m) {
  enum { NAMED = 5 };
  const mg_evaluation *e = &m->nxn;
  size_t first = 0;
  if (e->failed_source.count > 0) printf("failed: sources without an accuracy there\n");
  for (size_t k = 1; k <= e->failed_source.count; k++) {
    if (k < e->failed_source.count && strcmp(e->failed_source.items[k], e->failed_source.items[first]) == 0) continue;
    printf("  %-12s on %zu of %zu targets:", e->failed_source.items[first], k - first, m->targets.count);
    for (size_t f = first; f < k && f < first + NAMED; f++) printf(" %s", e->failed_target.items[f]);
    printf("%s\n    %s\n", k - first > NAMED ? " …" : "", e->error.items[first]);
    first = k;
  }
}

static void print_nxn(const mg_matrices *m) {
  const size_t columns = m->targets.count;
  printf("\naccuracy by target (%s): its own source, the best other one, and its share of the own one's\n",
         m->nxn.partition[0]);
  if (strcmp(m->nxn.partition[0], m->nxn.partition[1]) != 0) printf("  sources can be chosen by: %s\n", m->nxn.partition[1]);
  for (size_t t = 0; t < columns; t++) {
    ptrdiff_t own, best;
    mg_matrices_best(m, t, &own, &best);
    const double own_accuracy = own >= 0 ? m->nxn.accuracy[0][(size_t)own * columns + t] : NAN;
    printf("  %-12s", m->targets.items[t]);
    if (own >= 0 && !isnan(own_accuracy))
      printf(" %.4f", own_accuracy);
    else
      printf(" %s", own >= 0 ? "failed" : " none ");
    if (best >= 0) {
      const double other = m->nxn.accuracy[0][(size_t)best * columns + t];
      printf("   %.4f %-12s", other, m->ids.items[best]);
      if (own >= 0 && own_accuracy > 0) printf(" %3.0f%%", 100 * other / own_accuracy);
    }
    printf("\n");
  }
  print_failures(m);
}

static void print_text(const mg_matrices *m, const pair *pairs, size_t count, size_t top) {
  printf("%s: %zu sources, %zu tensors", m->path, m->ids.count, m->tensors.count);
  if (m->cosine != NULL) printf(", %zu layers; Grams kept for every %s", m->layers.count, m->level);
  if (m->targets.count > 0) printf("; %zu targets", m->targets.count);
  printf("\n");
  if (m->skipped.count > 0) {
    printf("skipped (no checkpoint):");
    for (size_t k = 0; k < m->skipped.count; k++) printf(" %s", m->skipped.items[k]);
    printf("\n");
  }
  printf("base %s\nmade by mergegrid %s, %s; finished %s\n", m->base_path, m->version, m->backend, m->finished);
  if (m->cosine != NULL) print_compatibility(m);
  if (count > 0) print_pairs(m, pairs, count, top < count ? top : count);
  if (m->targets.count > 0) print_nxn(m);
}

static json_t *pairs_json(const mg_matrices *m, const pair *pairs, size_t count, size_t top, bool from_end) {
  json_t *list = json_array();
  for (size_t k = 0; k < top && k < count; k++) {
    const pair *p = &pairs[from_end ? count - 1 - k : k];
    json_array_append_new(list,
                          json_pack("{s:[s, s], s:f}", "sources", m->ids.items[p->i], m->ids.items[p->j], "cosine", p->cosine));
  }
  return list;
}

static json_t *nxn_json(const mg_matrices *m) {
  json_t *targets = json_object();
  for (size_t t = 0; t < m->targets.count; t++) {
    ptrdiff_t own, best;
    const double *accuracy = m->nxn.accuracy[0];
    json_t *target = json_object();
    mg_matrices_best(m, t, &own, &best);
    if (own >= 0) json_object_set_new(target, "own", mg_json_number(accuracy[(size_t)own * m->targets.count + t]));
    if (best >= 0) json_object_set_new(target, "best_other", mg_json_number(accuracy[(size_t)best * m->targets.count + t]));
    if (best >= 0) json_object_set_new(target, "best_other_source", json_string(m->ids.items[best]));
    json_object_set_new(targets, m->targets.items[t], target);
  }
  return json_pack("{s:s, s:s, s:o, s:o}", "partition", m->nxn.partition[0], "select", m->nxn.partition[1], "targets", targets,
                   "failed", mg_json_failures(&m->nxn));
}

static json_t *all_json(const mg_matrices *m, const pair *pairs, size_t count, size_t top) {
  const size_t n = m->ids.count;
  json_t *ids = json_array(), *skipped = json_array(), *matrices = json_object(), *layers = json_object();
  for (size_t k = 0; k < n; k++) json_array_append_new(ids, json_string(m->ids.items[k]));
  for (size_t k = 0; k < m->skipped.count; k++) json_array_append_new(skipped, json_string(m->skipped.items[k]));
  if (m->cosine != NULL) json_object_set_new(matrices, "task_vector_cosine", mg_json_statistics(m->cosine, n));
  if (m->encoder != NULL) json_object_set_new(matrices, "task_vector_cosine_encoder", mg_json_statistics(m->encoder, n));
  for (size_t l = 0; m->by_layer != NULL && l < m->layers.count; l++)
    json_object_set_new(layers, m->layers.items[l], mg_json_statistics(m->by_layer + l * n * n, n));
  json_t *cka = json_object();
  for (size_t l = 0; l < m->cka_layer_count; l++) {
    char name[16];
    snprintf(name, sizeof name, "%d", m->cka_layers[l]);
    json_object_set_new(cka, name, mg_json_statistics(m->cka + l * n * n, n));
  }
  json_t *root = json_pack("{s:s, s:o, s:o, s:I, s:s?, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "result", m->path,
                           "sources", ids, "skipped", skipped, "tensors", (json_int_t)m->tensors.count, "gram_level", m->level,
                           "base", m->base_path, "version", m->version, "backend", m->backend, "numeric_mode", m->numeric_mode,
                           "finished_utc", m->finished, "statistics", matrices, "layers", layers, "cka", cka, "closest",
                           pairs_json(m, pairs, count, top, false), "farthest", pairs_json(m, pairs, count, top, true));
  if (root != NULL && m->targets.count > 0) json_object_set_new(root, "nxn", nxn_json(m));
  return root;
}

mg_status mg_print_json(json_t *root) {
  char *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  if (text == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  puts(text);
  free(text);
  return MG_OK;
}

/* Cells that were asked for, and the tables over them, alone. */
static mg_status show_cells(const mg_grid_view *view, const mg_addition *addition, const mg_show_options *options) {
  const size_t top = options->top > 0 ? (size_t)options->top : SIZE_MAX;
  if (options->csv) return mg_grid_print_csv(view, top);
  if (options->json)
    return mg_print_json(json_pack("{s:s, s:o, s:o*}", "result", view->table.path, "grid", mg_grid_json(view, top), "addition",
                                   mg_addition_json(addition)));
  mg_grid_print(view);
  mg_grid_print_cells(view, options->top > 0 ? top : MG_USUAL_CELLS);
  mg_addition_print(addition, options);
  return MG_OK;
}

bool mg_show_asks_cells(const mg_show_options *options) {
  return options->where != NULL || options->sort != NULL || options->csv;
}

const char *mg_show_order(const mg_show_options *options) {
  return options->sort == NULL && options->top > 0 ? "-accuracy" : options->sort;
}

/* All that the result holds; the grid and the microscope last, where they are seen. */
static mg_status show_all(const mg_h5_reader *r, const mg_grid_view *view, const mg_addition *addition,
                          const mg_show_options *options) {
  mg_status status = MG_OK;
  mg_matrices m = {0};
  mg_microscope_tables scope = {0};
  const bool scoped = mg_h5_has(r, "/microscope");
  pair *pairs = NULL;
  size_t count = 0;
  const size_t top = options->top > 0 ? (size_t)options->top : 5;
  MG_TRY(mg_matrices_read_from(r, &m), cleanup);
  MG_TRY(list_pairs(&m, &pairs, &count), cleanup);
  if (scoped) MG_TRY(mg_microscope_read(r, &scope), cleanup);
  if (options->json) {
    json_t *root = all_json(&m, pairs, count, top);
    if (root != NULL && view != NULL) json_object_set_new(root, "grid", mg_grid_json(view, 0));
    if (root != NULL && scoped) json_object_set_new(root, "microscope", mg_microscope_json(&scope, top));
    if (root != NULL && addition->known) json_object_set_new(root, "addition", mg_addition_json(addition));
    MG_TRY(mg_print_json(root), cleanup);
  } else {
    print_text(&m, pairs, count, top);
    if (view != NULL) mg_grid_print(view);
    if (scoped) mg_microscope_print(&scope, options->top > 0 ? top : 3);
    mg_addition_print(addition, options);
  }
cleanup:
  mg_microscope_tables_free(&scope);
  free(pairs);
  mg_matrices_free(&m);
  return status;
}

mg_status mg_result_show(const char *path, const mg_show_options *options) {
  mg_grid_reader reader;
  mg_grid_view view = {0};
  mg_addition addition = {0};
  mg_status status = mg_h5_open(path, &reader.h5);
  if (status != MG_OK) return status;
  const bool asks = mg_show_asks_cells(options), grid = mg_h5_has(&reader.h5, "/grid");
  const bool cells = grid && (asks || options->top > 0);
  if (asks && !grid) {
    status = mg_fail(MG_ERR_INPUT, "%s: has no stage grid, whose cells --where, --sort and --csv are about", path);
    goto cleanup;
  }
  if (grid) MG_TRY(mg_grid_view_read(&reader, options->where, mg_show_order(options), &view), cleanup);
  MG_TRY(mg_addition_read(path, grid ? &view.table : NULL, options, &addition), cleanup);
  status = cells ? show_cells(&view, &addition, options) : show_all(&reader.h5, grid ? &view : NULL, &addition, options);
cleanup:
  mg_addition_free(&addition);
  mg_grid_view_free(&view);
  mg_h5_close(&reader.h5);
  return status;
}
