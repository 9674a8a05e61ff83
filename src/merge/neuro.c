/*
 * NeuroMerging (Fang et al. 2025): of the matrices of layers, each row's change is taken apart into what lies along the
 * pretrained row and what is at right angles to it, and signs are elected in each. Everything else is elected as it is.
 */

#include <math.h>

#include "merge_impl.h"

static bool is_apart(const mg_tensor *tensor) { return tensor->ndim == 2 && tensor->layer[0] != '\0'; }

mg_status mg_prepare_neuro(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  const double most = 0.95;
  mg_prepared *out = &p->tensors[t];
  (void)terms;
  const double share = out->share < most ? out->share : most;
  out->cut = mg_value(p->recipe, "lambda2_from") != 0 ? mg_value(p->recipe, "lambda2") : 1 / (1 - share + 1e-8);
  return MG_OK;
}

/* shift[s] = (tau_s · w) / (w · w + 1e-8), of one row */
static void find_shifts(const mg_combining *c, const mg_merge_rows *rows, const float *along, double *shift) {
  const mg_merge_kernels *kernels = c->pass->kernels;
  const double norm2 = kernels->dot(along, 0, INFINITY, along, rows->count) + 1e-8;
  for (size_t s = 0; s < rows->sources; s++)
    shift[s] = kernels->dot(rows->tau[s], rows->threshold[s], rows->ceiling[s], along, rows->count) / norm2;
}

/* The mean of those shifts that have a sign. */
static double mean_of(const mg_merge_rows *rows, double sign) {
  double total = 0, share = 0;
  for (size_t s = 0; s < rows->sources; s++) {
    if (!(rows->shift[s] * sign > 0)) continue;
    total += rows->weight[s] * rows->shift[s];
    share += rows->weight[s];
  }
  return share > 0 ? total / share : 0;
}

static double vote_of(const mg_merge_rows *rows) {
  double vote = 0;
  for (size_t s = 0; s < rows->sources; s++) vote += rows->vote[s] * rows->shift[s];
  return vote;
}

/*
 * Elects along a row: every element is a shift times w, so the sign of the shifts' sum decides for all. Where they cancel, it
 * is the element's that has to be the tie's.
 */
static void add_along(mg_combining *c, const mg_merge_rows *rows, double lambda1, double *sum) {
  const double vote = vote_of(rows), tie = mg_tie_of(c, 1);
  const double up = mean_of(rows, vote != 0 ? vote : tie), down = vote != 0 ? up : mean_of(rows, -tie);
  mg_note_undecided(c, 1, vote == 0 && (up != 0 || down != 0));
  for (long k = 0; k < rows->count; k++) {
    const double w = (double)rows->along[k];
    sum[k] += lambda1 * ((w > 0 ? up : down) * w);
  }
}

/* Row by row: rows->tau, along and shift are set, then `each` is called with where the row is. */
typedef void (*row_fn)(mg_combining *c, mg_merge_rows *rows, int64_t at, void *context);

static void each_row(mg_combining *c, row_fn each, void *context) {
  const int64_t row = mg_row_length(c->tensor);
  const float **tau = c->scratch->tau;
  mg_merge_rows rows = c->rows;
  rows.count = (long)row;
  rows.shift = c->scratch->small;
  for (int64_t at = 0; at < c->rows.count; at += row) {
    rows.along = c->base + at;
    find_shifts(c, &rows, rows.along, c->scratch->small);
    each(c, &rows, at, context);
    for (size_t s = 0; s < rows.sources; s++) tau[s] += row;
  }
}

static void combine_row(mg_combining *c, mg_merge_rows *rows, int64_t at, void *context) {
  const double lambda1 = mg_value(c->recipe, "lambda1"), lambda2 = c->prepared->cut;
  double *sum = c->sum + at;
  (void)context;
  rows->tie = mg_tie_of(c, 0);
  mg_note_undecided(c, 0, c->pass->kernels->elect(rows, MG_ELECTED_MEAN, sum));
  for (long k = 0; k < rows->count; k++) sum[k] *= lambda2;
  if (lambda1 > 0) add_along(c, rows, lambda1, sum);
}

void mg_combine_neuro(mg_combining *c) {
  if (is_apart(c->tensor)) {
    each_row(c, combine_row, NULL);
    return;
  }
  c->rows.tie = mg_tie_of(c, 0);
  mg_note_undecided(c, 0, c->pass->kernels->elect(&c->rows, MG_ELECTED_MEAN, c->sum));
  for (long k = 0; k < c->rows.count; k++) c->sum[k] *= c->prepared->cut;
}

static int sign_of(double x) { return (x > 0) - (x < 0); }

static void count_row(mg_combining *c, mg_merge_rows *rows, int64_t at, void *context) {
  int64_t *totals = context;
  const int along = sign_of(vote_of(rows));
  (void)at;
  c->pass->kernels->votes(rows, c->sum);
  for (long k = 0; k < rows->count; k++) {
    totals[0] += sign_of(c->sum[k]);
    totals[1] += along * sign_of((double)rows->along[k]);
  }
}

void mg_count_neuro(mg_combining *c, int64_t totals[2]) {
  if (is_apart(c->tensor))
    each_row(c, count_row, totals);
  else
    mg_count_elected(c, totals);
}
