/* What a recipe has to know of a tensor before its tiles can be merged: weights, thresholds, coefficients. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

uint64_t mg_kept_of(double density, int64_t count) {
  const uint64_t kept = (uint64_t)(density * (double)count);
  return count > 0 && kept == 0 ? 1 : kept;
}

mg_status mg_quantity_value(const mg_pass_terms *terms, const char *id, const mg_quantity *quantity, double *value) {
  mg_status status = MG_OK;
  if (mg_quantities_find(terms->quantities, quantity, value)) return MG_OK;
  MG_TRY(mg_quantities_compute(terms->deltas, id, quantity, 1, NULL, NULL, value), done);
  MG_TRY(mg_quantities_put(terms->quantities, quantity, *value), done);
done:
  return status;
}

/* What a tensor's task vectors are relative to. */
static int base_of(const mg_recipe *r, const mg_tensor *tensor) {
  if (tensor->source_only && r->head == MG_HEAD_RANDOM) return MG_BASE_RANDOM;
  if (tensor->source_only && r->head == MG_HEAD_LINEAR) return MG_BASE_FAMILY; /* a mean of heads */
  return r->base;
}

mg_quantity mg_quantity_of(const mg_recipe *r, const mg_tensor_table *table, mg_quantity_kind kind, size_t k,
                           ptrdiff_t tensor) {
  mg_quantity q;
  memset(&q, 0, sizeof q); /* it is compared by bytes */
  q.kind = (int32_t)kind;
  q.source = (int32_t)r->source[k];
  q.tensor = (int32_t)tensor;
  q.base = (int32_t)(tensor >= 0 ? base_of(r, &table->tensors[tensor]) : r->base);
  const bool random_head = r->head == MG_HEAD_RANDOM && (tensor < 0 || q.base == MG_BASE_RANDOM);
  if (tensor < 0 && random_head && q.base == MG_BASE_FAMILY) q.base = MG_BASE_RANDOM;
  if (random_head || kind == MG_QUANTITY_DARE_L1 || kind == MG_QUANTITY_DELLA_L1) q.seed = r->seed;
  return q;
}

static int64_t elements_of(const mg_recipe *r, const mg_tensor_table *table) {
  int64_t elements = 0;
  for (size_t t = 0; t < table->count; t++)
    if (!table->tensors[t].source_only || r->head == MG_HEAD_RANDOM) elements += table->tensors[t].numel;
  return elements;
}

typedef mg_status (*visit_fn)(void *context, const mg_quantity *quantity, size_t k, bool ceiling);

/* Every quantity that tensor t of a recipe asks for, source by source. */
static mg_status each_quantity(const mg_recipe *r, const mg_formula *f, const mg_tensor_table *table, size_t t, visit_fn visit,
                               void *context) {
  mg_status status = MG_OK;
  const int64_t numel = table->tensors[t].numel;
  const uint64_t kept = mg_kept_of(f->density, numel), all = (uint64_t)numel;
  uint64_t top = (uint64_t)(f->gamma * (double)numel);
  if (top > all - kept) top = all - kept;
  for (size_t k = 0; k < r->count; k++) {
    mg_quantity q;
    if (f->keep == MG_KEEP_RANDOM && f->rescale == MG_RESCALE_L1) {
      q = mg_quantity_of(r, table, MG_QUANTITY_DARE_L1, k, (ptrdiff_t)t);
      q.a = f->density;
      MG_TRY(visit(context, &q, k, false), done);
    }
    if (f->keep != MG_KEEP_LARGEST) continue;
    q = mg_quantity_of(r, table, f->global_trim ? MG_QUANTITY_GLOBAL_RANK : MG_QUANTITY_RANK, k,
                       f->global_trim ? -1 : (ptrdiff_t)t);
    q.a = (double)(f->global_trim ? mg_kept_of(f->density, elements_of(r, table)) : kept + top);
    MG_TRY(visit(context, &q, k, false), done);
    if (f->global_trim || top == 0) continue;
    q.a = (double)top;
    MG_TRY(visit(context, &q, k, true), done);
  }
done:
  return status;
}

typedef struct collecting {
  mg_quantities *seen;
  mg_quantity_list *list;
} collecting;

static mg_status collect(void *context, const mg_quantity *q, size_t k, bool ceiling) {
  const collecting *c = context;
  mg_quantity_list *list = c->list;
  double value;
  (void)k, (void)ceiling;
  if (mg_quantities_find(c->seen, q, &value)) return MG_OK;
  if (list->count == list->room) {
    const size_t room = list->room > 0 ? 2 * list->room : 256;
    mg_quantity *grown = reallocarray(list->items, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    list->items = grown;
    list->room = room;
  }
  list->items[list->count++] = *q;
  return mg_quantities_put(c->seen, q, 0);
}

mg_status mg_recipe_quantities(const mg_recipe *recipe, const mg_tensor_table *table, mg_quantities *seen,
                               mg_quantity_list *list) {
  mg_status status = MG_OK;
  mg_formula body;
  collecting c = {.seen = seen, .list = list};
  MG_TRY(mg_formula_of(recipe, &body), done);
  const mg_formula head = recipe->head == MG_HEAD_LINEAR ? mg_formula_of_head(recipe) : body;
  for (size_t t = 0; t < table->count && status == MG_OK; t++)
    status = each_quantity(recipe, table->tensors[t].source_only ? &head : &body, table, t, collect, &c);
done:
  return status;
}

typedef struct filling {
  const mg_pass_terms *terms;
  const mg_recipe *recipe;
  mg_prepared *prepared;
} filling;

static mg_status fill(void *context, const mg_quantity *q, size_t k, bool ceiling) {
  const filling *f = context;
  double value;
  const mg_status status = mg_quantity_value(f->terms, f->recipe->id[k], q, &value);
  if (status != MG_OK) return status;
  if (q->kind == MG_QUANTITY_DARE_L1)
    f->prepared->rescale[k] = (float)value;
  else
    *(ceiling ? &f->prepared->ceiling[k] : &f->prepared->threshold[k]) = value;
  return MG_OK;
}

/* ---- coefficients ---- */

static double dot(const float *a, const float *b, int64_t count) {
  double sum = 0;
  for (int64_t k = 0; k < count; k++) sum += (double)a[k] * (double)b[k];
  return sum;
}

/* Inner products over a tensor of which no Gram is there; seed: of a random head, relative to which they are wanted. */
static mg_status measure(const mg_pass_terms *terms, size_t t, const int *sources, size_t n, const uint64_t *seed, double *gram,
                         double *base_dot, double *norm2) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(terms->deltas->rows)->tensors[t];
  const int64_t numel = tensor->numel;
  mg_delta_reader reader = {0};
  float *all = mg_alloc_aligned((n + 1) * MG_TILE * sizeof *all), **to = mg_alloc(n, sizeof *to);
  if (all == NULL || to == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  for (size_t k = 0; k < n; k++) to[k] = all + k * MG_TILE;
  float *base = all + n * MG_TILE;
  MG_TRY(mg_delta_reader_create(terms->deltas, n, &reader), cleanup);
  for (int64_t first = 0; first < numel; first += MG_TILE) {
    const int64_t count = numel - first < MG_TILE ? numel - first : MG_TILE;
    MG_TRY(mg_delta_read(&reader, sources, n, t, first, count, to, base), cleanup);
    if (seed != NULL) mg_random_head(tensor, *seed, first, count, base);
    for (size_t i = 0; seed != NULL && i < n; i++)
      for (int64_t k = 0; k < count; k++) to[i][k] -= base[k];
    for (size_t i = 0; i < n; i++) {
      for (size_t j = 0; j <= i; j++) gram[i * n + j] += dot(to[i], to[j], count);
      base_dot[i] += dot(base, to[i], count);
    }
    *norm2 += dot(base, base, count);
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < i; j++) gram[j * n + i] = gram[i * n + j];
cleanup:
  mg_delta_reader_free(&reader);
  free(all), free(to);
  return status;
}

static void look_up(const mg_gram_view *view, size_t t, const int *sources, size_t n, double *gram, double *base_dot,
                    double *norm2) {
  const double *all = view->source_dot + t * view->sources * view->sources;
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < n; j++) gram[i * n + j] = all[(size_t)sources[i] * view->sources + (size_t)sources[j]];
    base_dot[i] = view->base_dot[t * view->sources + (size_t)sources[i]];
  }
  *norm2 = view->base_norm2[t];
}

/* Inner products relative to the last of n sources, of the n − 1 others: in place, since what is written lies behind what is
   still to be read. */
static void make_relative(size_t n, double *gram, double *base_dot, double *norm2) {
  const size_t b = n - 1, m = n - 1;
  const double bb = gram[b * n + b], base_b = base_dot[b];
  for (size_t i = 0; i < m; i++) base_dot[i] += gram[i * n + b] - base_b - bb;
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < m; j++) gram[i * m + j] = gram[i * n + j] - gram[i * n + b] - gram[b * n + j] + bb;
  *norm2 += 2 * base_b + bb;
}

static mg_status find_coefficients(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  const mg_recipe *r = p->recipe;
  mg_prepared *out = &p->tensors[t];
  const size_t n = r->count + (out->base >= 0 ? 1 : 0);
  double *gram = mg_alloc_zero(n, n * sizeof *gram), *base_dot = mg_alloc_zero(n, sizeof *base_dot), norm2 = 0;
  int *sources = mg_alloc(n, sizeof *sources);
  if (gram == NULL || base_dot == NULL || sources == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  memcpy(sources, r->source, r->count * sizeof *sources);
  if (out->base >= 0) sources[n - 1] = out->base;
  if (terms->gram != NULL && out->base != MG_BASE_RANDOM)
    look_up(terms->gram, t, sources, n, gram, base_dot, &norm2);
  else
    MG_TRY(measure(terms, t, sources, n, out->base == MG_BASE_RANDOM ? &r->seed : NULL, gram, base_dot, &norm2), cleanup);
  if (out->base >= 0) make_relative(n, gram, base_dot, &norm2);
  const mg_geometry g = {.n = r->count, .gram = gram, .base_dot = base_dot, .base_norm2 = norm2};
  mg_coefficients coefficients = {.tau = out->weight, .base = 1};
  MG_TRY(out->formula->coefficients(&g, r, &coefficients), cleanup);
  out->base_factor = coefficients.base;
cleanup:
  if (status == MG_ERR_INPUT) mg_fail_context(status, "tensor %s", mg_rows_table(terms->deltas->rows)->tensors[t].name);
  free(gram), free(base_dot), free(sources);
  return status;
}

/* ---- both ---- */

static mg_status make_room(mg_prepared *p, size_t n, bool random) {
  p->weight = mg_alloc(n, sizeof *p->weight);
  p->threshold = mg_alloc_zero(n, sizeof *p->threshold);
  p->ceiling = mg_alloc(n, sizeof *p->ceiling);
  p->rescale = mg_alloc(n, sizeof *p->rescale);
  p->stream = random ? mg_alloc(n, sizeof *p->stream) : NULL;
  return p->weight && p->threshold && p->ceiling && p->rescale && (p->stream || !random) ? MG_OK : MG_ERR_NOMEM;
}

void mg_prepared_free(mg_prepared *p) {
  free(p->weight), free(p->threshold), free(p->ceiling), free(p->rescale), free(p->stream);
  *p = (mg_prepared){0};
}

mg_status mg_prepare(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  const mg_recipe *r = p->recipe;
  const mg_tensor_table *table = mg_rows_table(terms->deltas->rows);
  mg_prepared *out = &p->tensors[t];
  if (out->ready) return MG_OK;
  out->formula = table->tensors[t].source_only ? &p->head : &p->body;
  out->base = base_of(r, &table->tensors[t]);
  out->base_factor = 1;
  const mg_formula *f = out->formula;
  if (out->weight == NULL) MG_TRY(make_room(out, r->count, f->keep == MG_KEEP_RANDOM), done);
  for (size_t k = 0; k < r->count; k++) {
    out->weight[k] = f->mean ? 1 / (double)r->count : f->weighted ? r->weight[k] : 1;
    out->ceiling[k] = INFINITY;
    out->rescale[k] = f->rescale == MG_RESCALE_INVERSE ? (float)(1 / f->density) : 1;
    /* more than epsilon: from the next float on */
    if (f->keep == MG_KEEP_ABOVE) out->threshold[k] = (double)nextafterf((float)f->epsilon, INFINITY);
    if (f->keep == MG_KEEP_RANDOM) out->stream[k] = mg_stream_of_tensor(r->seed, r->id[k], table->tensors[t].name);
  }
  filling fill_in = {.terms = terms, .recipe = r, .prepared = out};
  MG_TRY(each_quantity(r, f, table, t, fill, &fill_in), done);
  if (f->coefficients != NULL) MG_TRY(find_coefficients(terms, p, t), done);
  out->ready = true;
done:
  return status;
}
