/*
 * All subsets, depth first in the order of the candidates. A prefix carries its sums, and for each matrix the sum of its
 * members' rows, so that a last member costs a few additions; the last members of a prefix are a loop over vectors, which only
 * compares with what the lists ask for.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "search_impl.h"

enum { LANES = 2, STEP = 2 * LANES }; /* what every x86-64 has; a step is two vectors */
typedef double vd __attribute__((vector_size(LANES * sizeof(double)), aligned(8), may_alias));
typedef int64_t vm __attribute__((vector_size(LANES * sizeof(int64_t))));

#define INLINE static inline __attribute__((always_inline))

enum { COSINE, CKA, SQUARE, MATRICES }; /* of pairs; SQUARE adds up to ‖Σ w_i τ_i‖² */

/* Sums over a prefix' members and pairs. */
typedef struct prefix {
  double similarity, norm, pair[MATRICES];
} prefix;

typedef struct walk {
  size_t n, k, stride;       /* a line of a matrix has `stride` doubles: past n what is never kept */
  double *similarity, *norm; /* [stride] */
  double *diagonal;          /* [stride] of SQUARE */
  double *matrix[MATRICES];  /* [n,stride] */
  double *rows[MATRICES];    /* [k,stride] by depth: sums of the members' lines */
  uint32_t *members;         /* [k] */
  mg_best best[MG_BY_COUNT];
  double bar[MG_BY_COUNT]; /* of sums; of interference what the square has to be above, over Σ² */
  const mg_search_options *options;
  double searched, next_poll;
} walk;

/* ---- leaves ---- */

/* The last members of a prefix of k − 1: where its sums and lines are. */
typedef struct leaves {
  prefix sum;
  const double *row[MATRICES], *last[MATRICES]; /* lines of the members but the last one, and its own */
  const double *similarity, *norm, *diagonal;
  double bar[MG_BY_COUNT];
} leaves;

INLINE vd load(const double *p) { return *(const vd *)(const void *)p; }
INLINE vd splat(double x) { return (vd){x, x}; }

/* A lane is set where a subset is above a bar. The operations are those of mg_search_score, in its order. */
INLINE vm above(const leaves *l, size_t j) {
  const vd similarity = l->sum.similarity + load(l->similarity + j);
  const vd cosine = l->sum.pair[COSINE] + (load(l->row[COSINE] + j) + load(l->last[COSINE] + j));
  const vd cka = l->sum.pair[CKA] + (load(l->row[CKA] + j) + load(l->last[CKA] + j));
  const vd row = load(l->row[SQUARE] + j) + load(l->last[SQUARE] + j);
  const vd square = l->sum.pair[SQUARE] + (load(l->diagonal + j) + row), norm = l->sum.norm + load(l->norm + j);
  return (similarity > splat(l->bar[MG_BY_SIMILARITY])) | (cosine > splat(l->bar[MG_BY_COMPATIBILITY])) |
         (cka > splat(l->bar[MG_BY_CKA])) | (square > norm * norm * l->bar[MG_BY_INTERFERENCE]);
}

/* 1 − √square / norm has to be below −bar; a little less is asked for here, since √ and / round. */
static double square_bar(double bar) {
  if (isinf(bar)) return bar < 0 ? -1 : bar; /* a square is ≥ 0, but for its rounding */
  const double share = 1 + bar - 0x1p-50;
  return share > 0 ? share * share * (1 - 0x1p-48) : 0;
}

static void set_bars(walk *w) {
  for (int by = 0; by < MG_BY_COUNT; by++) w->bar[by] = w->best[by].room > 0 ? mg_best_bar(&w->best[by]) : INFINITY;
  w->bar[MG_BY_INTERFERENCE] = square_bar(w->bar[MG_BY_INTERFERENCE]);
}

static void offer(walk *w, const leaves *l, size_t j) {
  double sum[MATRICES];
  for (int m = 0; m < SQUARE; m++) sum[m] = l->sum.pair[m] + (l->row[m][j] + l->last[m][j]);
  const double row = l->row[SQUARE][j] + l->last[SQUARE][j], norm = l->sum.norm + l->norm[j];
  sum[SQUARE] = l->sum.pair[SQUARE] + (l->diagonal[j] + row);
  const double key[MG_BY_COUNT] = {l->sum.similarity + l->similarity[j], sum[COSINE], sum[CKA],
                                   sqrt(sum[SQUARE] > 0 ? sum[SQUARE] : 0) / norm - 1};
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (w->best[by].room > 0) mg_best_offer(&w->best[by], key[by], w->members, (uint32_t)j);
  set_bars(w);
}

/* From `first` on, the last members of a prefix with these sums; `row` is without its last member, whose line is `last`. */
static mg_status walk_leaves(walk *w, const prefix *sum, const double *const row[MATRICES], const double *const last[MATRICES],
                             size_t first) {
  leaves l = {.sum = *sum, .similarity = w->similarity, .norm = w->norm, .diagonal = w->diagonal};
  for (int m = 0; m < MATRICES; m++) l.row[m] = row[m], l.last[m] = last[m];
  memcpy(l.bar, w->bar, sizeof l.bar);
  for (size_t j = first; j < w->n; j += STEP) {
    const vm hit = above(&l, j) | above(&l, j + LANES);
    if (__builtin_expect((hit[0] | hit[1]) == 0, 1)) continue;
    for (size_t at = j; at < w->n && at < j + STEP; at++) offer(w, &l, at);
    memcpy(l.bar, w->bar, sizeof l.bar);
  }
  w->searched += (double)(w->n - first);
  if (w->options->poll == NULL || w->searched < w->next_poll) return MG_OK;
  w->next_poll = w->searched + (1 << 23);
  return w->options->poll(w->options->context, w->searched);
}

/* ---- prefixes ---- */

static prefix extended(const walk *w, const prefix *sum, const double *const row[MATRICES], size_t member) {
  prefix out = {.similarity = sum->similarity + w->similarity[member], .norm = sum->norm + w->norm[member]};
  for (int m = 0; m < SQUARE; m++) out.pair[m] = sum->pair[m] + row[m][member];
  out.pair[SQUARE] = sum->pair[SQUARE] + (w->diagonal[member] + row[SQUARE][member]);
  return out;
}

/* `depth` members are chosen, at least two are to come. */
static mg_status walk_prefixes(walk *w, const prefix *sum, size_t depth, size_t first) {
  mg_status status = MG_OK;
  const double *row[MATRICES], *last[MATRICES];
  for (int m = 0; m < MATRICES; m++) row[m] = w->rows[m] + depth * w->stride;
  for (size_t a = first; a + w->k <= w->n + depth; a++) {
    const prefix longer = extended(w, sum, row, a);
    for (int m = 0; m < MATRICES; m++) last[m] = w->matrix[m] + a * w->stride;
    w->members[depth] = (uint32_t)a;
    if (depth + 2 == w->k) {
      MG_TRY(walk_leaves(w, &longer, row, last, a + 1), done);
      continue;
    }
    for (int m = 0; m < MATRICES; m++)
      for (size_t j = a + 1; j < w->stride; j++) w->rows[m][(depth + 1) * w->stride + j] = row[m][j] + last[m][j];
    MG_TRY(walk_prefixes(w, &longer, depth + 1, a + 1), done);
  }
done:
  return status;
}

static mg_status walk_all(walk *w) {
  const prefix nothing = {0};
  const double *zero[MATRICES];
  if (w->k > 1) return walk_prefixes(w, &nothing, 0, 0);
  for (int m = 0; m < MATRICES; m++) zero[m] = w->rows[m];
  return walk_leaves(w, &nothing, zero, zero, 0);
}

/* ---- the whole ---- */

/* Lines with what is never kept behind them; zeros where there is no matrix. */
static mg_status set_matrix(walk *w, int m, const double *values) {
  w->matrix[m] = mg_alloc_zero(w->n, w->stride * sizeof(double));
  w->rows[m] = mg_alloc_zero(w->k, w->stride * sizeof(double));
  if (w->matrix[m] == NULL || w->rows[m] == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < w->n; i++) {
    double *line = w->matrix[m] + i * w->stride;
    for (size_t j = 0; values != NULL && j < w->n; j++) line[j] = values[i * w->n + j];
    for (size_t j = w->n; j < w->stride; j++) line[j] = -INFINITY;
  }
  for (size_t j = w->n; j < w->stride; j++) w->rows[m][j] = -INFINITY;
  return MG_OK;
}

static mg_status set_up(const mg_search_space *s, walk *w) {
  mg_status status = MG_OK;
  w->similarity = mg_alloc_zero(w->stride, sizeof(double));
  w->norm = mg_alloc_zero(w->stride, sizeof(double));
  w->diagonal = mg_alloc_zero(w->stride, sizeof(double));
  w->members = mg_alloc(w->k, sizeof *w->members);
  if (w->similarity == NULL || w->norm == NULL || w->diagonal == NULL || w->members == NULL) return MG_ERR_NOMEM;
  MG_TRY(set_matrix(w, COSINE, s->cosine), done);
  MG_TRY(set_matrix(w, CKA, s->cka), done);
  MG_TRY(set_matrix(w, SQUARE, s->dot), done);
  for (size_t i = 0; i < w->stride; i++) w->similarity[i] = i < w->n ? s->similarity[i] : -INFINITY;
  for (size_t i = 0; s->dot != NULL && i < w->n; i++) {
    w->norm[i] = s->weight[i] * sqrt(s->dot[i * w->n + i]);
    w->diagonal[i] = s->weight[i] * s->weight[i] * s->dot[i * w->n + i];
    for (size_t j = 0; j < w->n; j++) w->matrix[SQUARE][i * w->stride + j] *= 2 * s->weight[i] * s->weight[j];
  }
  for (int by = 0; by < MG_BY_COUNT; by++) {
    if (!w->options->by[by] || !mg_search_has(s, (mg_search_by)by)) continue;
    const double all = mg_search_count(w->n, w->k);
    MG_TRY(mg_best_create(all < (double)w->options->top ? (size_t)all : w->options->top, w->k, &w->best[by]), done);
  }
  set_bars(w);
done:
  return status;
}

static void tear_down(walk *w) {
  free(w->similarity), free(w->norm), free(w->diagonal), free(w->members);
  for (int m = 0; m < MATRICES; m++) free(w->matrix[m]), free(w->rows[m]);
  for (int by = 0; by < MG_BY_COUNT; by++) mg_best_free(&w->best[by]);
}

mg_status mg_search_subsets(const mg_search_space *s, const mg_search_options *options, mg_search_found *found) {
  walk w = {.n = s->n, .k = s->k, .stride = s->n + STEP, .options = options, .next_poll = 1 << 20};
  *found = (mg_search_found){0};
  mg_status status = set_up(s, &w);
  if (status == MG_OK) {
    status = walk_all(&w);
    found->searched = w.searched;
    for (int by = 0; by < MG_BY_COUNT; by++) {
      if (w.best[by].room == 0) continue;
      const mg_status listed = mg_best_list(&w.best[by], s, &found->list[by]);
      if (status == MG_OK) status = listed;
    }
  }
  tear_down(&w);
  return status;
}

void mg_search_found_free(mg_search_found *found) {
  for (int by = 0; by < MG_BY_COUNT; by++) free(found->list[by].members), free(found->list[by].score);
  *found = (mg_search_found){0};
}
