/* What two results say of the texts that both have: sources and cells, paired text by text. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff_impl.h"
#include "mergegrid/statistics.h"
#include "mergegrid/text.h"

enum { DRAWS = 2000, SEED = 1 };

/* ---- texts ---- */

/* A target's texts in one result. */
typedef struct text_list {
  mg_strings id, partition;
  int32_t *label;
} text_list;

static mg_status read_texts(const mg_diff_side *s, const char *target, text_list *t) {
  mg_status status = MG_OK;
  const mg_h5_reader *r = &s->reader->h5;
  char path[192];
  hsize_t dim = 0;
  void *label = NULL;
  snprintf(path, sizeof path, "/texts/%.128s/id", target);
  MG_TRY(mg_h5_read_strings(r, path, &t->id), done);
  snprintf(path, sizeof path, "/texts/%.128s/partition", target);
  MG_TRY(mg_h5_read_strings(r, path, &t->partition), done);
  snprintf(path, sizeof path, "/texts/%.128s/label", target);
  MG_TRY(mg_h5_read_numbers(r, path, H5T_NATIVE_INT32, 1, &dim, &label), done);
  t->label = label;
  if (t->partition.count != t->id.count || dim != t->id.count)
    status = mg_fail(MG_ERR_CORRUPT, "%s: %s: as many labels as ids were expected", s->path, path);
done:
  return status;
}

static void free_texts(text_list *t) {
  mg_strings_free(&t->id), mg_strings_free(&t->partition);
  free(t->label);
}

/* Texts of a partition that both have, with the right class of the same name. */
typedef struct paired_texts {
  size_t count;
  size_t *at[2];     /* [count] among all of a target's texts */
  size_t *within[2]; /* among those of the partition */
  bool all;          /* neither has others */
} paired_texts;

typedef struct placed_text {
  const char *id;
  size_t at, within;
} placed_text;

static int by_id(const void *a, const void *b) {
  const placed_text *x = a, *y = b;
  const int order = strcmp(x->id, y->id);
  return order != 0 ? order : (x->at > y->at) - (x->at < y->at);
}

/* Those of the partition. */
static placed_text *list_texts(const text_list *t, const char *partition, size_t *count) {
  placed_text *list = mg_alloc(t->id.count, sizeof *list);
  *count = 0;
  for (size_t k = 0; list != NULL && k < t->id.count; k++) {
    if (strcmp(t->partition.items[k], partition) != 0) continue;
    list[*count] = (placed_text){t->id.items[k], k, *count};
    ++*count;
  }
  return list;
}

static void free_pairs(paired_texts *p) {
  for (int k = 0; k < 2; k++) free(p->at[k]), free(p->within[k]);
  *p = (paired_texts){0};
}

/* An id may stand in a file several times: the first is paired with the first, and so on. class_of: of the old result's classes
   those of the new, −1 where it lacks them. */
static mg_status pair_texts(const text_list texts[2], const char *const partition[2], const int32_t *class_of, size_t classes,
                            paired_texts *p) {
  mg_status status = MG_OK;
  size_t count[2] = {0};
  placed_text *old = list_texts(&texts[0], partition[0], &count[0]), *new = list_texts(&texts[1], partition[1], &count[1]);
  for (int k = 0; k < 2; k++)
    p->at[k] = mg_alloc(count[1], sizeof *p->at[k]), p->within[k] = mg_alloc(count[1], sizeof *p->within[k]);
  if (!old || !new || !p->at[0] || !p->at[1] || !p->within[0] || !p->within[1]) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  qsort(old, count[0], sizeof *old, by_id);
  qsort(new, count[1], sizeof *new, by_id);
  for (size_t x = 0, y = 0; x < count[0] && y < count[1];) {
    const placed_text *was = &old[x], *here = &new[y];
    const int order = strcmp(was->id, here->id);
    x += order <= 0, y += order >= 0;
    if (order != 0) continue;
    const int32_t label = texts[0].label[was->at];
    if (label < 0 || (size_t)label >= classes || class_of[label] != texts[1].label[here->at]) continue;
    p->at[0][p->count] = was->at, p->within[0][p->count] = was->within;
    p->at[1][p->count] = here->at, p->within[1][p->count] = here->within;
    p->count++;
  }
  p->all = p->count == count[0] && p->count == count[1];
cleanup:
  free(old), free(new);
  return status;
}

/* ---- one question ---- */

/* What is compared at the time. */
typedef struct comparing {
  mg_diff *diff;
  int32_t *class_of; /* [classes of the old] */
  text_list texts[2];
  paired_texts pairs;
  const char *target;
} comparing;

/* Predictions as each result has them, at the places given. */
static mg_diff_answer compare(const comparing *c, const int32_t *before, const int32_t *now, size_t *const place[2],
                              int32_t *difference) {
  mg_diff_answer a = {.target = c->target, .texts = c->pairs.count, .p = NAN, .p_holm = NAN};
  const size_t classes = c->diff->side[0].m.labels.count;
  size_t right[2] = {0};
  for (size_t k = 0; k < a.texts; k++) {
    const int32_t old = before[place[0][k]], new = now[place[1][k]], label = c->texts[1].label[c->pairs.at[1][k]];
    const int32_t renamed = old >= 0 && (size_t)old < classes ? c->class_of[old] : -1;
    right[0] += renamed == label, right[1] += new == label;
    a.only_before += renamed == label && new != label;
    a.only_now += renamed != label && new == label;
    a.differ += renamed != new;
    if (difference != NULL) difference[k] += (new == label) - (renamed == label);
  }
  a.before = a.texts > 0 ? (double)right[0] / (double)a.texts : NAN;
  a.now = a.texts > 0 ? (double)right[1] / (double)a.texts : NAN;
  a.p = mg_mcnemar(a.only_before, a.only_now);
  return a;
}

static mg_status keep(mg_diff_answers *all, const mg_diff_answer *a) {
  all->compared++;
  if (a->differ == 0) return MG_OK;
  if (all->count == all->room) {
    const size_t room = all->room > 0 ? 2 * all->room : 64;
    mg_diff_answer *grown = reallocarray(all->items, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    all->items = grown;
    all->room = room;
  }
  all->items[all->count++] = *a;
  return MG_OK;
}

static int by_p(const void *a, const void *b) {
  const double x = ((const mg_diff_answer *)a)->p, y = ((const mg_diff_answer *)b)->p;
  return (x > y) - (x < y);
}

static mg_status correct(mg_diff_answers *all) {
  double *p = mg_alloc(all->count, sizeof *p);
  if (p == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < all->count; k++) p[k] = all->items[k].p;
  const mg_status status = mg_holm(p, all->count);
  for (size_t k = 0; k < all->count; k++) all->items[k].p_holm = p[k];
  if (all->count > 0) qsort(all->items, all->count, sizeof *all->items, by_p);
  free(p);
  return status;
}

/* ---- sources ---- */

static mg_status read_matrix(const mg_diff_side *s, const char *group, const char *target, hsize_t dims[2], int32_t **data) {
  char path[192];
  void *values = NULL;
  snprintf(path, sizeof path, "%s/predictions/%.128s", group, target);
  const mg_status status = mg_h5_read_numbers(&s->reader->h5, path, H5T_NATIVE_INT32, 2, dims, &values);
  *data = values;
  return status;
}

static size_t texts_of(const text_list *t, const char *partition) {
  size_t count = 0;
  for (size_t k = 0; k < t->partition.count; k++) count += strcmp(t->partition.items[k], partition) == 0;
  return count;
}

/* Has a source failed on the target in either? Then it has no answers there to be compared, which is said by name. */
static mg_status compare_failures(const comparing *c, const char *id, const size_t row[2], bool *either) {
  mg_status status = MG_OK;
  mg_diff *d = c->diff;
  bool failed[2];
  char *name = NULL;
  for (int k = 0; k < 2; k++) {
    const mg_matrices *m = &d->side[k].m;
    failed[k] = isnan(m->nxn.accuracy[0][row[k] * m->targets.count + (size_t)mg_strings_find(&m->targets, c->target)]);
  }
  *either = failed[0] || failed[1];
  d->failed_both += failed[0] && failed[1];
  if (failed[0] == failed[1]) return MG_OK;
  if (asprintf(&name, "%s on %s", id, c->target) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  status = mg_strings_add(&d->failed[failed[0] ? 0 : 1], name);
  free(name);
  return status;
}

static mg_status compare_sources(comparing *c) {
  mg_status status = MG_OK;
  mg_diff *d = c->diff;
  hsize_t dims[2][2];
  int32_t *data[2] = {NULL};
  for (int k = 0; k < 2; k++) {
    const mg_diff_side *s = &d->side[k];
    MG_TRY(read_matrix(s, "/nxn", c->target, dims[k], &data[k]), cleanup);
    if (dims[k][0] != s->m.ids.count || dims[k][1] != texts_of(&c->texts[k], s->m.nxn.partition[0])) {
      status =
          mg_fail(MG_ERR_CORRUPT, "%s: /nxn/predictions/%s: sources × the partition's texts were expected", s->path, c->target);
      goto cleanup;
    }
  }
  for (size_t k = 0; k < d->side[1].m.ids.count; k++) {
    const char *id = d->side[1].m.ids.items[k];
    const ptrdiff_t was = mg_strings_find(&d->side[0].m.ids, id);
    bool failed;
    if (was < 0) continue;
    MG_TRY(compare_failures(c, id, (const size_t[]){(size_t)was, k}, &failed), cleanup);
    if (failed) continue;
    mg_diff_answer a = compare(c, data[0] + (size_t)was * dims[0][1], data[1] + k * dims[1][1], c->pairs.within, NULL);
    a.source = id;
    MG_TRY(keep(&d->nxn, &a), cleanup);
  }
cleanup:
  free(data[0]), free(data[1]);
  return status;
}

/* ---- cells ---- */

typedef struct key_place {
  const char *key;
  size_t cell;
} key_place;

/* The grids, and sums of differences by setting and target. */
typedef struct cell_work {
  key_place *old;           /* by key */
  size_t *setting_of;       /* [cells of the new]; SIZE_MAX: not in both, or not evaluated in both */
  size_t *was;              /* [cells of the new]: the old one */
  mg_paired_target *pooled; /* [settings, targets of the new]; a difference NULL is all zeros */
  int32_t **sums;           /* [settings, targets of the new] */
} cell_work;

static int by_key(const void *a, const void *b) { return strcmp(((const key_place *)a)->key, ((const key_place *)b)->key); }

static bool has_status(const mg_result_cell *c, const char *status) { return strcmp(c->status, status) == 0; }

static size_t find_setting(mg_diff *d, const mg_result_cell *cell) {
  size_t k = 0;
  while (k < d->method_count && (strcmp(d->methods[k].cell->method, cell->method) != 0 ||
                                 strcmp(d->methods[k].cell->parameters, cell->parameters) != 0))
    k++;
  if (k == d->method_count) d->methods[d->method_count++] = (mg_diff_method){.cell = cell};
  return k;
}

/* Which cells are in both, and what became of them. */
static mg_status match_cells(mg_diff *d, cell_work *w) {
  const mg_grid_table *old = &d->side[0].grid, *new = &d->side[1].grid;
  w->old = mg_alloc(old->cell_count, sizeof *w->old);
  w->setting_of = mg_alloc(new->cell_count, sizeof *w->setting_of);
  w->was = mg_alloc(new->cell_count, sizeof *w->was);
  d->methods = mg_alloc(new->cell_count, sizeof *d->methods);
  if (!w->old || !w->setting_of || !w->was || !d->methods) return MG_ERR_NOMEM;
  for (size_t k = 0; k < old->cell_count; k++) w->old[k] = (key_place){old->cells[k].key, k};
  qsort(w->old, old->cell_count, sizeof *w->old, by_key);
  for (size_t k = 0; k < new->cell_count; k++) {
    const mg_result_cell *now = &new->cells[k];
    const key_place key = {now->key, 0}, *found = bsearch(&key, w->old, old->cell_count, sizeof *w->old, by_key);
    w->setting_of[k] = SIZE_MAX;
    if (found == NULL) continue;
    const mg_result_cell *before = &old->cells[found->cell];
    w->was[k] = found->cell;
    d->cells_both++;
    d->same_recipe += now->recipe[0] != '\0' && strcmp(now->recipe, before->recipe) == 0;
    d->newly_failed += has_status(now, "failed") && !has_status(before, "failed");
    d->newly_completed += has_status(now, "completed") && !has_status(before, "completed");
    if (has_status(now, "completed") && has_status(before, "completed")) w->setting_of[k] = find_setting(d, now);
  }
  d->cells_gone = old->cell_count - d->cells_both;
  d->cells_come = new->cell_count - d->cells_both;
  return MG_OK;
}

static mg_status compare_cells(comparing *c, cell_work *w, size_t target) {
  mg_status status = MG_OK;
  mg_diff *d = c->diff;
  const mg_grid_table *old = &d->side[0].grid, *new = &d->side[1].grid;
  const size_t targets = d->side[1].m.targets.count, n = c->pairs.count;
  hsize_t dims[2][2];
  int32_t *data[2] = {NULL}, *difference = mg_alloc(n, sizeof *difference);
  if (difference == NULL) return MG_ERR_NOMEM;
  for (int k = 0; k < 2; k++) {
    MG_TRY(read_matrix(&d->side[k], "/grid", c->target, dims[k], &data[k]), cleanup);
    if (dims[k][1] == c->texts[k].id.count) continue;
    status = mg_fail(MG_ERR_CORRUPT, "%s: /grid/predictions/%s: rows × texts were expected", d->side[k].path, c->target);
    goto cleanup;
  }
  for (size_t k = 0; k < new->cell_count; k++) {
    const mg_result_cell *now = &new->cells[k], *before = &old->cells[w->was[k] * (w->setting_of[k] != SIZE_MAX)];
    if (w->setting_of[k] == SIZE_MAX || strcmp(now->locale, c->target) != 0) continue;
    if (now->prediction_row < 0 || (hsize_t)now->prediction_row >= dims[1][0] || before->prediction_row < 0 ||
        (hsize_t)before->prediction_row >= dims[0][0])
      continue;
    memset(difference, 0, n * sizeof *difference);
    mg_diff_answer a = compare(c, data[0] + (size_t)before->prediction_row * dims[0][1],
                               data[1] + (size_t)now->prediction_row * dims[1][1], c->pairs.at, difference);
    a.cell = now;
    MG_TRY(keep(&d->cells, &a), cleanup);
    const size_t at = w->setting_of[k] * targets + target;
    d->methods[w->setting_of[k]].cells++;
    w->pooled[at].texts = n, w->pooled[at].pairs++;
    if (a.only_before + a.only_now == 0) continue;
    if (w->sums[at] == NULL) w->sums[at] = mg_alloc_zero(n, sizeof *w->sums[at]);
    if (w->sums[at] == NULL) {
      status = MG_ERR_NOMEM;
      goto cleanup;
    }
    for (size_t t = 0; t < n; t++) w->sums[at][t] += difference[t];
  }
cleanup:
  free(difference), free(data[0]), free(data[1]);
  return status;
}

/* Over all targets, a setting at a time. */
static mg_status pool_methods(mg_diff *d, cell_work *w) {
  mg_status status = MG_OK;
  const size_t targets = d->side[1].m.targets.count;
  size_t most = 0;
  for (size_t k = 0; k < d->method_count * targets; k++) most = w->pooled[k].texts > most ? w->pooled[k].texts : most;
  int32_t *zeros = mg_alloc_zero(most, sizeof *zeros);
  mg_paired_target *some = mg_alloc(targets, sizeof *some);
  double *p = mg_alloc(d->method_count, sizeof *p);
  if (zeros == NULL || some == NULL || p == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t m = 0; m < d->method_count; m++) {
    mg_diff_method *method = &d->methods[m];
    mg_interval interval;
    size_t count = 0;
    for (size_t t = 0; t < targets; t++) {
      const size_t at = m * targets + t;
      if (w->pooled[at].pairs == 0 || w->pooled[at].texts == 0) continue;
      some[count] = w->pooled[at];
      some[count++].difference = w->sums[at] != NULL ? w->sums[at] : zeros;
    }
    MG_TRY(mg_paired_bootstrap(some, count, DRAWS, SEED, &interval, &method->p), cleanup);
    method->delta = interval.estimate, method->low = interval.low, method->high = interval.high;
    p[m] = method->p;
  }
  MG_TRY(mg_holm(p, d->method_count), cleanup);
  for (size_t m = 0; m < d->method_count; m++) d->methods[m].p_holm = p[m];
cleanup:
  free(zeros), free(some), free(p);
  return status;
}

/* ---- all ---- */

static void free_work(mg_diff *d, cell_work *w) {
  const size_t count = d->method_count * d->side[1].m.targets.count;
  for (size_t k = 0; w->sums != NULL && k < count; k++) free(w->sums[k]);
  free(w->old), free(w->setting_of), free(w->was), free(w->pooled), free(w->sums);
}

/* One target of both. Where grids are scored on another partition than sources, texts are paired for each. */
static mg_status compare_target(comparing *c, cell_work *w, bool grids, size_t target) {
  mg_status status = MG_OK;
  mg_diff *d = c->diff;
  const size_t classes = d->side[0].m.labels.count;
  const char *nxn[2] = {d->side[0].m.nxn.partition[0], d->side[1].m.nxn.partition[0]};
  c->target = d->side[1].m.targets.items[target];
  for (int k = 0; k < 2; k++) MG_TRY(read_texts(&d->side[k], c->target, &c->texts[k]), cleanup);
  MG_TRY(pair_texts(c->texts, nxn, c->class_of, classes, &c->pairs), cleanup);
  if (!c->pairs.all) MG_TRY(mg_strings_add(&d->other_texts, c->target), cleanup);
  MG_TRY(compare_sources(c), cleanup);
  if (!grids) goto cleanup;
  free_pairs(&c->pairs);
  const char *grid[2] = {d->side[0].grid.partition, d->side[1].grid.partition};
  MG_TRY(pair_texts(c->texts, grid, c->class_of, classes, &c->pairs), cleanup);
  MG_TRY(compare_cells(c, w, target), cleanup);
cleanup:
  free_pairs(&c->pairs);
  for (int k = 0; k < 2; k++) free_texts(&c->texts[k]), c->texts[k] = (text_list){0};
  return status;
}

mg_status mg_diff_answers_compare(mg_diff *d) {
  mg_status status = MG_OK;
  const mg_strings *old = &d->side[0].m.labels, *targets = &d->side[1].m.targets;
  const bool grids = d->side[0].has_grid && d->side[1].has_grid;
  comparing c = {.diff = d, .class_of = mg_alloc(old->count, sizeof *c.class_of)};
  cell_work w = {0};
  if (c.class_of == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < old->count; k++) c.class_of[k] = (int32_t)mg_strings_find(&d->side[1].m.labels, old->items[k]);
  if (grids) {
    MG_TRY(match_cells(d, &w), cleanup);
    w.pooled = mg_alloc_zero(d->method_count, targets->count * sizeof *w.pooled);
    w.sums = mg_alloc_zero(d->method_count, targets->count * sizeof *w.sums);
    if (w.pooled == NULL || w.sums == NULL) {
      status = MG_ERR_NOMEM;
      goto cleanup;
    }
  }
  for (size_t t = 0; t < targets->count; t++)
    if (mg_strings_find(&d->side[0].m.targets, targets->items[t]) >= 0) MG_TRY(compare_target(&c, &w, grids, t), cleanup);
  if (grids) MG_TRY(pool_methods(d, &w), cleanup);
  MG_TRY(correct(&d->nxn), cleanup);
  MG_TRY(correct(&d->cells), cleanup);
cleanup:
  free_work(d, &w);
  free(c.class_of);
  return status;
}
