/* What a recipe has to know of a tensor before its tiles can be merged: weights, thresholds, coefficients. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

mg_status mg_quantity_value(const mg_pass_terms *terms, const char *id, const mg_quantity *quantity, double *value) {
  mg_status status = MG_OK;
  if (mg_quantities_find(terms->quantities, quantity, value)) return MG_OK;
  MG_TRY(mg_quantities_compute(terms->deltas, &terms->device, id, quantity, 1, NULL, NULL, value), done);
  MG_TRY(mg_quantities_put(terms->quantities, quantity, *value), done);
done:
  return status;
}

typedef struct filling {
  const mg_pass_terms *terms;
  const mg_recipe *recipe;
  mg_prepared *prepared;
} filling;

static mg_status fill(void *context, const mg_quantity *q, size_t k, mg_purpose purpose) {
  const filling *f = context;
  mg_prepared *p = f->prepared;
  double value;
  const mg_status status = mg_quantity_value(f->terms, f->recipe->id[k], q, &value);
  if (status != MG_OK) return status;
  const float bound = (float)value * (p->drop != MG_DROP_NONE ? p->rescale[k] : 1); /* bounds are of what was multiplied */
  switch (purpose) {
  case MG_FOR_RESCALE:
    p->rescale[k] = (float)value;
    break;
  case MG_FOR_THRESHOLD:
    p->threshold[k] = (double)bound;
    break;
  case MG_FOR_CEILING: /* the largest that stays */
    p->ceiling[k] = (double)nextafterf(bound, INFINITY);
    break;
  case MG_FOR_SHARE:
    if (value > p->share) p->share = value;
    break;
  }
  return MG_OK;
}

/* ---- coefficients ---- */

typedef struct products {
  size_t n;
  double *gram, *base_dot, norm2;
} products;

/* Out of bounds is 0. */
static void mask_tile(mg_combining *c) {
  for (size_t s = 0; s < c->rows.sources; s++) {
    const float *tau = c->scratch->tau[s];
    float *own = c->scratch->own[s];
    for (long k = 0; k < c->rows.count; k++) {
      const double size = fabs((double)tau[k]);
      own[k] = size >= c->rows.threshold[s] && size < c->rows.ceiling[s] ? tau[k] : 0;
    }
    c->scratch->tau[s] = own;
  }
}

static void add_products(void *context, mg_combining *c) {
  products *p = context;
  const mg_merge_kernels *kernels = c->pass->kernels;
  if (c->prepared->formula->keep != MG_KEEP_ALL) mask_tile(c);
  const float *const *tau = c->rows.tau;
  for (size_t i = 0; i < p->n; i++) {
    for (size_t j = 0; j <= i; j++) p->gram[i * p->n + j] += kernels->dot(tau[i], 0, INFINITY, tau[j], c->rows.count);
    p->base_dot[i] += kernels->dot(c->base, 0, INFINITY, tau[i], c->rows.count);
  }
  p->norm2 += kernels->dot(c->base, 0, INFINITY, c->base, c->rows.count);
}

/* Inner products over a tensor of which no Gram is there, or of what is left of it. */
static mg_status measure(const mg_pass_terms *terms, const mg_pass_recipe *r, size_t t, products *p) {
  const mg_status status = mg_each_tile(terms, r, t, add_products, p);
  for (size_t i = 0; i < p->n; i++)
    for (size_t j = 0; j < i; j++) p->gram[j * p->n + i] = p->gram[i * p->n + j];
  return status;
}

static void look_up(const mg_gram_view *view, size_t t, const int *sources, products *p) {
  const double *all = view->source_dot + t * view->sources * view->sources;
  for (size_t i = 0; i < p->n; i++) {
    for (size_t j = 0; j < p->n; j++) p->gram[i * p->n + j] = all[(size_t)sources[i] * view->sources + (size_t)sources[j]];
    p->base_dot[i] = view->base_dot[t * view->sources + (size_t)sources[i]];
  }
  p->norm2 = view->base_norm2[t];
}

/* Inner products relative to the last of n sources, of the n − 1 others: in place, since what is written lies behind what is
   still to be read. */
static void make_relative(products *p) {
  const size_t n = p->n, b = n - 1, m = n - 1;
  double *gram = p->gram;
  const double bb = gram[b * n + b], base_b = p->base_dot[b];
  for (size_t i = 0; i < m; i++) p->base_dot[i] += gram[i * n + b] - base_b - bb;
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < m; j++) gram[i * m + j] = gram[i * n + j] - gram[i * n + b] - gram[b * n + j] + bb;
  p->norm2 += 2 * base_b + bb;
  p->n = m;
}

/* Grams are of heads as the sources have them. */
static bool is_permuted(const mg_pass_terms *terms, const mg_pass_recipe *p, size_t t) {
  const mg_tensor *tensor = &mg_rows_table(terms->deltas->rows)->tensors[t];
  const int base = p->tensors[t].base;
  bool any = base >= 0 && mg_delta_is_permuted(terms->deltas, base, tensor);
  for (size_t k = 0; k < p->recipe->count && !any; k++) any = mg_delta_is_permuted(terms->deltas, p->recipe->source[k], tensor);
  return any;
}

static mg_status find_products(const mg_pass_terms *terms, const mg_pass_recipe *p, size_t t, int *sources, products *to) {
  const mg_recipe *r = p->recipe;
  const mg_prepared *prepared = &p->tensors[t];
  const bool whole = prepared->formula->keep == MG_KEEP_ALL && prepared->drop == MG_DROP_NONE;
  to->n = r->count;
  if (terms->gram == NULL || prepared->base == MG_BASE_RANDOM || !whole || is_permuted(terms, p, t))
    return measure(terms, p, t, to);
  memcpy(sources, r->source, r->count * sizeof *sources);
  if (prepared->base >= 0) sources[to->n++] = prepared->base;
  look_up(terms->gram, t, sources, to);
  if (prepared->base >= 0) make_relative(to);
  return MG_OK;
}

static mg_status find_coefficients(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(terms->deltas->rows)->tensors[t];
  mg_prepared *out = &p->tensors[t];
  const size_t most = p->recipe->count + 1;
  products sums = {.gram = mg_alloc_zero(most, most * sizeof(double)), .base_dot = mg_alloc_zero(most, sizeof(double))};
  int *sources = mg_alloc(most, sizeof *sources);
  if (sums.gram == NULL || sums.base_dot == NULL || sources == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(find_products(terms, p, t, sources, &sums), cleanup);
  const mg_geometry g = {
      .n = sums.n, .elements = (double)tensor->numel, .gram = sums.gram, .base_dot = sums.base_dot, .base_norm2 = sums.norm2};
  mg_coefficients coefficients = {.tau = out->weight, .base = 1};
  MG_TRY(out->formula->coefficients(&g, p->recipe, &coefficients), cleanup);
  out->base_factor = coefficients.base;
cleanup:
  if (status == MG_ERR_INPUT) mg_fail_context(status, "tensor %s", tensor->name);
  free(sums.gram), free(sums.base_dot), free(sources);
  return status;
}

/* ---- a recipe ---- */

mg_status mg_pass_recipe_open(const mg_recipe *recipe, const mg_tensor_table *table, mg_pass_recipe *to) {
  mg_status status = MG_OK;
  *to = (mg_pass_recipe){.recipe = recipe, .kernels = mg_merge_kernels_get(), .layers = mg_layer_count(table)};
  MG_TRY(mg_formula_of(recipe, &to->body), done);
  to->head = recipe->head == MG_HEAD_LINEAR ? mg_formula_of_head(recipe) : to->body;
  to->tensors = mg_alloc_zero(table->count, sizeof *to->tensors);
  if (to->tensors == NULL) status = MG_ERR_NOMEM;
done:
  return status;
}

static void free_prepared(mg_prepared *p) {
  free(p->weight), free(p->vote), free(p->threshold), free(p->ceiling), free(p->rescale), free(p->stream), free(p->table);
}

void mg_pass_recipe_close(mg_pass_recipe *r, const mg_tensor_table *table) {
  for (size_t t = 0; r->tensors != NULL && t < table->count; t++) free_prepared(&r->tensors[t]);
  free(r->tensors), free(r->slot), free(r->failure);
  *r = (mg_pass_recipe){0};
}

/* What a recipe can be wrong about. */
static mg_status check(const mg_pass_recipe *p) {
  const mg_formula *f = &p->body;
  const size_t n = p->recipe->count;
  if (f->most_sources > 0 && (n < f->fewest || n > f->most_sources))
    return mg_fail(MG_ERR_INPUT, "%s merges %s%zu source%s, not %zu", p->recipe->method->name,
                   f->fewest < f->most_sources ? "one or " : "", f->most_sources, f->most_sources == 1 ? "" : "s", n);
  if (f->drop == MG_DROP_BY_RANK) {
    const mg_status status = mg_check_della(f);
    if (status != MG_OK) return status;
  }
  return mg_check_layers(p);
}

static mg_status make_room(mg_prepared *p, size_t n, bool random) {
  p->weight = mg_alloc(n, sizeof *p->weight);
  p->vote = mg_alloc(n, sizeof *p->vote);
  p->threshold = mg_alloc_zero(n, sizeof *p->threshold);
  p->ceiling = mg_alloc(n, sizeof *p->ceiling);
  p->rescale = mg_alloc(n, sizeof *p->rescale);
  p->stream = random ? mg_alloc(n, sizeof *p->stream) : NULL;
  return p->weight && p->vote && p->threshold && p->ceiling && p->rescale && (p->stream || !random) ? MG_OK : MG_ERR_NOMEM;
}

/* What is known without looking at any tensor. */
static void begin(const mg_recipe *r, const mg_formula *f, const mg_tensor *tensor, mg_prepared *out) {
  const bool plain = mg_is_plain_sum(f); /* its weights take lambda in, so that equal products are equal merges */
  out->base_factor = 1;
  out->lambda = plain ? 1 : f->lambda;
  for (size_t k = 0; k < r->count; k++) {
    const double weight = f->mean ? 1 / (double)r->count : f->weighted ? r->weight[k] : 1;
    out->weight[k] = plain ? f->lambda * weight : weight;
    out->vote[k] = f->equal_votes ? 1 : weight;
    out->ceiling[k] = INFINITY;
    out->rescale[k] = out->drop == MG_DROP_EVENLY && f->rescale == MG_RESCALE_INVERSE ? (float)(1 / f->drop_density) : 1;
    /* more than that: from the next float on */
    if (f->keep == MG_KEEP_ABOVE) out->threshold[k] = (double)nextafterf((float)f->above, INFINITY);
    if (out->drop != MG_DROP_NONE) out->stream[k] = mg_stream_of_tensor(r->seed, r->id[k], tensor->name);
  }
}

mg_status mg_prepare(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  const mg_recipe *r = p->recipe;
  const mg_tensor_table *table = mg_rows_table(terms->deltas->rows);
  const mg_tensor *tensor = &table->tensors[t];
  mg_prepared *out = &p->tensors[t];
  if (out->ready) return MG_OK;
  MG_TRY(check(p), done);
  const mg_formula *f = out->formula = tensor->source_only ? &p->head : &p->body;
  out->base = mg_base_of(r, tensor);
  out->drop = mg_drop_of(f, tensor);
  if (out->weight == NULL) MG_TRY(make_room(out, r->count, out->drop != MG_DROP_NONE), done);
  begin(r, f, tensor, out);
  filling fill_in = {.terms = terms, .recipe = r, .prepared = out};
  MG_TRY(mg_each_quantity(r, f, table, t, fill, &fill_in), done);
  if (f->coefficients != NULL && !f->by_row) MG_TRY(find_coefficients(terms, p, t), done);
  if (f->prepare != NULL) MG_TRY(f->prepare(terms, p, t), done);
  out->ready = true;
done:
  return status;
}
