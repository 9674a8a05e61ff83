/* Methods that weigh a tensor's sources by one another: SCE by their energies, RAM+ by how much of their changes is shared. */

#include <math.h>
#include <stdlib.h>

#include "merge_impl.h"

/* ---- SCE ---- */

/* Mean squares in place of energies, then their shares. */
static void find_shares(const mg_recipe *r, size_t n, double elements, double *energy) {
  double total = 0;
  for (size_t k = 0; k < n; k++) {
    energy[k] = elements > 0 ? energy[k] / elements : 0;
    total += energy[k];
  }
  const bool equal = !(total > 0) || total < mg_value(r, "equal_below");
  for (size_t k = 0; k < n; k++) energy[k] = equal ? 1 / (double)n : energy[k] / total;
}

mg_status mg_sce_weights(const mg_geometry *g, const mg_recipe *r, mg_coefficients *out) {
  for (size_t k = 0; k < g->n; k++) out->tau[k] = g->gram[k * g->n + k];
  find_shares(r, g->n, g->elements, out->tau);
  return MG_OK;
}

/* Variances as floats, which is what they are ranked as, over the sums. */
static const float *find_variances(mg_combining *c) {
  float *variance = (float *)(void *)c->scratch->order;
  c->pass->kernels->variance(&c->rows, c->sum);
  for (long k = 0; k < c->rows.count; k++) variance[k] = (float)c->sum[k];
  return variance;
}

static void count_variances(void *census, mg_combining *c) { mg_census_add(census, find_variances(c), c->rows.count); }

static void count_nonzero(void *count, mg_combining *c) {
  const float *variance = find_variances(c);
  for (long k = 0; k < c->rows.count; k++) *(uint64_t *)count += variance[k] > 0;
}

typedef struct energies {
  double *sum, cut;
} energies;

static void add_energies(void *context, mg_combining *c) {
  const energies *e = context;
  const float *variance = find_variances(c);
  for (size_t s = 0; s < c->rows.sources; s++) {
    const float *tau = c->rows.tau[s];
    double sum = 0;
    for (long k = 0; k < c->rows.count; k++) sum += (double)variance[k] >= e->cut ? (double)tau[k] * (double)tau[k] : 0;
    e->sum[s] += sum;
  }
}

/* The variance from which on elements are kept, and the energies of what is left. Where nothing differs, everything is kept. */
mg_status mg_prepare_sce(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  mg_prepared *out = &p->tensors[t];
  const size_t n = p->recipe->count;
  uint64_t differing = 0, rank = 0;
  mg_census census = {0};
  MG_TRY(mg_each_tile(terms, p, t, count_nonzero, &differing), cleanup);
  rank = mg_kept_of(mg_value(p->recipe, "select_topk"), (int64_t)differing);
  MG_TRY(mg_census_begin(&rank, 1, &census), cleanup);
  MG_TRY(mg_each_tile(terms, p, t, count_variances, &census), cleanup);
  MG_TRY(mg_census_turn(&census), cleanup);
  MG_TRY(mg_each_tile(terms, p, t, count_variances, &census), cleanup);
  mg_census_values(&census, &out->cut);
  for (size_t k = 0; k < n; k++) out->weight[k] = 0;
  energies e = {.sum = out->weight, .cut = out->cut};
  MG_TRY(mg_each_tile(terms, p, t, add_energies, &e), cleanup);
  find_shares(p->recipe, n, (double)mg_rows_table(terms->deltas->rows)->tensors[t].numel, out->weight);
cleanup:
  mg_census_free(&census);
  return status;
}

void mg_combine_sce(mg_combining *c) {
  const float *variance = find_variances(c);
  c->pass->kernels->elect(&c->rows, MG_ELECTED_MEAN, c->sum);
  for (long k = 0; k < c->rows.count; k++)
    if ((double)variance[k] < c->prepared->cut) c->sum[k] = 0;
}

/* ---- RAM+ ---- */

typedef struct sharing {
  uint64_t *shared, *unshared; /* [sources] */
} sharing;

static bool is_active(const mg_combining *c, size_t s, long k) {
  return fabs((double)c->rows.tau[s][k]) >= c->rows.threshold[s];
}

static void count_sharing(void *context, mg_combining *c) {
  const sharing *n = context;
  uint32_t *active = c->scratch->words;
  for (long k = 0; k < c->rows.count; k++) active[k] = 0;
  for (size_t s = 0; s < c->rows.sources; s++)
    for (long k = 0; k < c->rows.count; k++) active[k] += is_active(c, s, k);
  for (size_t s = 0; s < c->rows.sources; s++)
    for (long k = 0; k < c->rows.count; k++) {
      const bool own = is_active(c, s, k);
      n->shared[s] += own && active[k] > 1;
      n->unshared[s] += own && active[k] == 1;
    }
}

mg_status mg_prepare_ramplus(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  mg_prepared *out = &p->tensors[t];
  const size_t n = p->recipe->count;
  const double r = mg_value(p->recipe, "r"), alpha = mg_value(p->recipe, "alpha");
  sharing counted = {.shared = mg_alloc_zero(n, sizeof *counted.shared),
                     .unshared = mg_alloc_zero(n, sizeof *counted.unshared)};
  free(out->table);
  out->table = mg_alloc(n, sizeof *out->table);
  if (counted.shared == NULL || counted.unshared == NULL || out->table == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_each_tile(terms, p, t, count_sharing, &counted), cleanup);
  for (size_t s = 0; s < n; s++) {
    const double ratio = counted.unshared[s] > 0 ? (double)counted.shared[s] / (double)counted.unshared[s] : 0;
    out->table[s] = 1 + r * (ratio < alpha ? ratio : alpha);
  }
cleanup:
  free(counted.shared), free(counted.unshared);
  return status;
}
