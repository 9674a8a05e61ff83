/* Methods of two models, the first of larger weight; nearswap and arcee_fusion take the base for the first where there is one.
 */

#include <math.h>
#include <stdlib.h>

#include "merge_impl.h"

/* ---- NuSLERP ---- */

/* Along the arc between vectors as they are, whose lengths are left to go from one to the other with them. */
mg_status mg_nuslerp(const mg_geometry *g, const mg_recipe *r, mg_coefficients *out) {
  const double least_norm = 1e-7, least_sine2 = 1e-14; /* a cosine is rounded: nothing smaller can be told from 0 */
  const bool theta = mg_value(r, "of") != 0;
  const size_t a = mg_first_source(r), b = 1 - a;
  const double t = r->weight[b] / (r->weight[a] + r->weight[b]);
  const double aa = theta ? mg_theta_dot(g, a, a) : g->gram[a * g->n + a],
               bb = theta ? mg_theta_dot(g, b, b) : g->gram[b * g->n + b];
  const double ab = theta ? mg_theta_dot(g, a, b) : g->gram[a * g->n + b];
  const double norms = fmax(sqrt(fmax(aa, 0)), least_norm) * fmax(sqrt(fmax(bb, 0)), least_norm);
  const double cosine = fmin(1, fmax(-1, ab / norms)), angle = acos(cosine);
  const bool straight = 1 - cosine * cosine <= least_sine2;
  out->tau[a] = straight ? 1 - t : sin((1 - t) * angle) / sin(angle);
  out->tau[b] = straight ? t : sin(t * angle) / sin(angle);
  if (theta) out->base = out->tau[a] + out->tau[b];
  return MG_OK;
}

/* Vectors along a tensor's first axis: how many. */
static int64_t columns_of(const mg_tensor *tensor) {
  return tensor->ndim > 0 && tensor->shape[0] > 0 ? tensor->numel / tensor->shape[0] : tensor->numel;
}

enum { PRODUCTS = 6 }; /* aa, ab, bb, base a, base b, base base */

typedef struct column_sums {
  int64_t columns;
  double *sums; /* [columns, PRODUCTS] */
} column_sums;

static void add_columns(void *context, mg_combining *c) {
  const column_sums *all = context;
  const float *a = c->rows.tau[0], *b = c->rows.tau[1], *base = c->base;
  int64_t column = c->first % all->columns;
  for (long k = 0; k < c->rows.count; k++) {
    double *sums = all->sums + column * PRODUCTS;
    const double x = (double)a[k], y = (double)b[k], z = (double)base[k];
    sums[0] += x * x, sums[1] += x * y, sums[2] += y * y;
    sums[3] += z * x, sums[4] += z * y, sums[5] += z * z;
    column = column + 1 < all->columns ? column + 1 : 0;
  }
}

/* table: [columns, 3] coefficients of both sources, and what theta_0's is more than 1. */
mg_status mg_prepare_columns(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(terms->deltas->rows)->tensors[t];
  mg_prepared *out = &p->tensors[t];
  column_sums all = {.columns = columns_of(tensor)};
  all.sums = mg_alloc_zero((size_t)all.columns, PRODUCTS * sizeof *all.sums);
  free(out->table);
  out->table = mg_alloc((size_t)all.columns, 3 * sizeof *out->table);
  if (all.sums == NULL || out->table == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_each_tile(terms, p, t, add_columns, &all), cleanup);
  for (int64_t k = 0; k < all.columns; k++) {
    const double *s = all.sums + k * PRODUCTS, gram[4] = {s[0], s[1], s[1], s[2]}, base_dot[2] = {s[3], s[4]};
    const mg_geometry g = {.n = 2, .gram = gram, .base_dot = base_dot, .base_norm2 = s[5]};
    mg_coefficients coefficients = {.tau = out->table + 3 * k, .base = 1};
    MG_TRY(mg_nuslerp(&g, p->recipe, &coefficients), cleanup);
    out->table[3 * k + 2] = coefficients.base - 1;
  }
cleanup:
  free(all.sums);
  return status;
}

void mg_combine_columns(mg_combining *c) {
  const int64_t columns = columns_of(c->tensor);
  const float *a = c->rows.tau[0], *b = c->rows.tau[1];
  int64_t column = c->first % columns;
  for (long k = 0; k < c->rows.count; k++) {
    const double *of = c->prepared->table + 3 * column;
    c->sum[k] = of[0] * (double)a[k] + of[1] * (double)b[k] + of[2] * (double)c->base[k];
    column = column + 1 < columns ? column + 1 : 0;
  }
}

/* ---- the base, or the source of larger weight, and the other one ---- */

/* NULL where the first is the base. */
static const float *first_of(const mg_combining *c) {
  return c->rows.sources > 1 ? c->rows.tau[mg_first_source(c->recipe)] : NULL;
}

static const float *other_of(const mg_combining *c) {
  return c->rows.sources > 1 ? c->rows.tau[1 - mg_first_source(c->recipe)] : c->rows.tau[0];
}

void mg_combine_near(mg_combining *c) {
  c->pass->kernels->near(first_of(c), other_of(c), mg_value(c->recipe, "t"), c->rows.count, c->sum);
}

/* How much the elements of a tile matter: |change| times the divergence of their row; as floats, which is what is ranked. */
static const float *find_importance(const mg_combining *c) {
  const float *a = first_of(c), *b = other_of(c);
  const int64_t row = mg_row_length(c->tensor);
  float *importance = (float *)(void *)c->scratch->order;
  for (long at = 0; at < c->rows.count; at += row) {
    const double divergence = c->prepared->table[(c->first + at) / row];
    for (long k = at; k < at + row; k++)
      importance[k] = (float)(fabs((double)b[k] - (a != NULL ? (double)a[k] : 0)) * divergence);
  }
  return importance;
}

static void count_importance(void *census, mg_combining *c) { mg_census_add(census, find_importance(c), c->rows.count); }

static void count_first(void *census, mg_combining *c) {
  const float *a = first_of(c), *b = other_of(c);
  const int64_t row = mg_row_length(c->tensor);
  for (long at = 0; at < c->rows.count; at += row)
    c->prepared->table[(c->first + at) / row] =
        c->pass->kernels->divergence(c->base + at, a != NULL ? a + at : NULL, b + at, (long)row);
  count_importance(census, c);
}

/* table: [rows] divergences of their softmaxes; cut: the median and half as much again as the middle half is wide. */
mg_status mg_prepare_fusion(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(terms->deltas->rows)->tensors[t];
  mg_prepared *out = &p->tensors[t];
  const uint64_t n = (uint64_t)tensor->numel, last = n > 0 ? n - 1 : 0;
  const uint64_t ranks[3] = {n - last / 4, n - last / 2, n - 3 * last / 4};
  double quartiles[3];
  mg_census census = {0};
  free(out->table);
  out->table = mg_alloc((size_t)(tensor->numel / mg_row_length(tensor)) + 1, sizeof *out->table);
  if (out->table == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_census_begin(ranks, 3, &census), cleanup);
  MG_TRY(mg_each_tile(terms, p, t, count_first, &census), cleanup);
  MG_TRY(mg_census_turn(&census), cleanup);
  MG_TRY(mg_each_tile(terms, p, t, count_importance, &census), cleanup);
  mg_census_values(&census, quartiles);
  out->cut = quartiles[1] + 1.5 * (quartiles[2] - quartiles[0]);
cleanup:
  mg_census_free(&census);
  return status;
}

void mg_combine_fusion(mg_combining *c) {
  const float *a = first_of(c), *b = other_of(c), *importance = find_importance(c);
  for (long k = 0; k < c->rows.count; k++)
    c->sum[k] = (double)importance[k] >= c->prepared->cut ? (double)b[k] : a != NULL ? (double)a[k] : 0;
}
