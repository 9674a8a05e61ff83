/* Computing quantities of one source: each pass over a tensor serves all that are asked of it. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

enum { BINS = 1 << 16 };

typedef struct source_scan {
  const mg_deltas *deltas;
  mg_delta_reader reader;
  const char *id;
  int sources[2]; /* the source, and what stands in for theta_0 */
  int base;
  uint64_t seed;
  float *values, *other, *copy;
  uint32_t *words;
  mg_status (*poll)(void *context);
  void *context;
} source_scan;

typedef void (*mg_tile_visit)(void *context, const mg_tensor *tensor, const float *values, int64_t first, int64_t count);

/* All tiles of a tensor, whole rows where those are not longer than a tile, relative to the base asked for. */
static mg_status scan_tensor(source_scan *s, size_t t, mg_tile_visit visit, void *context) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(s->deltas->rows)->tensors[t];
  const bool random = s->base == MG_BASE_RANDOM && tensor->source_only, relative = s->base >= 0 && !random;
  float *const to[2] = {s->values, s->other};
  for (int64_t first = 0; first < tensor->numel; first += MG_TILE) {
    const int64_t count = tensor->numel - first < MG_TILE ? tensor->numel - first : MG_TILE;
    MG_TRY(mg_delta_read(&s->reader, s->sources, relative ? 2 : 1, t, first, count, to, NULL), done);
    if (random) mg_random_head(tensor, s->seed, first, count, s->other);
    for (int64_t k = 0; (random || relative) && k < count; k++) s->values[k] -= s->other[k];
    visit(context, tensor, s->values, first, count);
    if (s->poll != NULL) MG_TRY(s->poll(s->context), done);
  }
done:
  return status;
}

/* ---- ranks: magnitudes order as the bits of non-negative floats do ---- */

typedef struct census {
  uint64_t *bins;       /* of the upper 16 bits; then of the lower ones, for each of `count` bins */
  size_t count;         /* 0: first pass */
  const uint32_t *high; /* [count] second pass: the bins that are looked into, rising */
  int32_t *index_of;    /* [BINS] */
} census;

static void count_tile(void *context, const mg_tensor *tensor, const float *values, int64_t first, int64_t count) {
  const census *c = context;
  (void)tensor, (void)first;
  for (int64_t k = 0; k < count; k++) {
    uint32_t bits;
    memcpy(&bits, &values[k], sizeof bits);
    bits &= 0x7FFFFFFFu;
    if (c->count == 0)
      c->bins[bits >> 16]++;
    else if (c->index_of[bits >> 16] >= 0)
      c->bins[(size_t)c->index_of[bits >> 16] * BINS + (bits & 0xFFFFu)]++;
  }
}

/* The bin that holds the m-th from above; m becomes its rank within it. */
static uint32_t find_bin(const uint64_t *bins, uint64_t *m) {
  uint32_t bin = BINS;
  while (bin > 0 && *m > bins[bin - 1]) *m -= bins[--bin];
  return bin > 0 ? bin - 1 : 0;
}

/* The m-th largest magnitudes over the tensors that are to be taken. ranks [count]. */
static mg_status find_ranks(source_scan *s, const bool *take, const uint64_t *ranks, size_t count, double *values) {
  mg_status status = MG_OK;
  const size_t tensors = mg_rows_table(s->deltas->rows)->count;
  uint64_t *left = mg_alloc(count, sizeof *left);
  uint32_t *high = mg_alloc(count, sizeof *high), *own = mg_alloc(count, sizeof *own);
  census c = {.bins = mg_alloc_zero(BINS, sizeof *c.bins), .index_of = mg_alloc(BINS, sizeof *c.index_of), .high = high};
  if (!left || !high || !own || !c.bins || !c.index_of) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t t = 0; t < tensors; t++)
    if (take[t]) MG_TRY(scan_tensor(s, t, count_tile, &c), cleanup);
  for (size_t k = 0; k < BINS; k++) c.index_of[k] = -1;
  for (size_t k = 0; k < count; k++) {
    left[k] = ranks[k];
    own[k] = find_bin(c.bins, &left[k]);
    if (c.index_of[own[k]] >= 0) continue;
    c.index_of[own[k]] = (int32_t)c.count;
    high[c.count++] = own[k];
  }
  free(c.bins);
  c.bins = mg_alloc_zero(c.count * BINS, sizeof *c.bins);
  if (c.bins == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t t = 0; t < tensors; t++)
    if (take[t]) MG_TRY(scan_tensor(s, t, count_tile, &c), cleanup);
  for (size_t k = 0; k < count; k++) {
    const uint32_t bits = own[k] << 16 | find_bin(c.bins + (size_t)c.index_of[own[k]] * BINS, &left[k]);
    float value;
    memcpy(&value, &bits, sizeof value);
    values[k] = ranks[k] > 0 ? (double)value : 0;
  }
cleanup:
  free(left), free(high), free(own), free(c.bins), free(c.index_of);
  return status;
}

/* ---- norms ---- */

typedef struct norms {
  source_scan *scan;
  const mg_quantity *quantity;
  mg_stream stream;
  double before, after;
} norms;

static void add_norms(void *context, const mg_tensor *tensor, const float *values, int64_t first, int64_t count) {
  norms *n = context;
  float *copy = n->scan->copy;
  (void)tensor;
  memcpy(copy, values, (size_t)count * sizeof *values);
  mg_keep_random(copy, first, count, &n->stream, n->quantity->a, 1, n->scan->words);
  for (int64_t k = 0; k < count; k++) n->before += fabs((double)values[k]), n->after += fabs((double)copy[k]);
}

static mg_status find_dare_ratio(source_scan *s, const mg_quantity *q, double *value) {
  norms n = {.scan = s, .quantity = q};
  const size_t t = (size_t)q->tensor;
  n.stream = mg_stream_of_tensor(q->seed, s->id, mg_rows_table(s->deltas->rows)->tensors[t].name);
  const mg_status status = scan_tensor(s, t, add_norms, &n);
  *value = n.after > 0 ? n.before / n.after : 1;
  return status;
}

/* ---- all of them ---- */

static bool same_ranks(const mg_quantity *a, const mg_quantity *b) {
  return a->kind == b->kind && a->tensor == b->tensor && a->base == b->base && a->seed == b->seed;
}

/* All ranks that are asked of the tensors that the first of them is about. */
static mg_status find_ranks_like(source_scan *s, const mg_quantity *quantities, size_t count, size_t first, bool *done,
                                 double *values) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(s->deltas->rows);
  const mg_quantity *like = &quantities[first];
  bool *take = mg_alloc_zero(table->count, sizeof *take);
  uint64_t *ranks = mg_alloc(count, sizeof *ranks);
  size_t *which = mg_alloc(count, sizeof *which), found = 0;
  double *results = mg_alloc(count, sizeof *results);
  if (!take || !ranks || !which || !results) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t t = 0; t < table->count; t++)
    take[t] = like->kind == MG_QUANTITY_RANK ? (ptrdiff_t)t == like->tensor
                                             : !table->tensors[t].source_only || like->base == MG_BASE_RANDOM;
  for (size_t k = first; k < count; k++) {
    if (!same_ranks(like, &quantities[k])) continue;
    ranks[found] = (uint64_t)quantities[k].a;
    which[found++] = k;
    done[k] = true;
  }
  MG_TRY(find_ranks(s, take, ranks, found, results), cleanup);
  for (size_t k = 0; k < found; k++) values[which[k]] = results[k];
cleanup:
  free(take), free(ranks), free(which), free(results);
  return status;
}

static mg_status find_all(source_scan *s, const mg_quantity *quantities, size_t count, bool *done, double *values) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < count; k++) {
    const mg_quantity *q = &quantities[k];
    if (done[k]) continue;
    s->base = q->base;
    s->seed = q->seed;
    s->sources[1] = q->base >= 0 ? q->base : 0;
    if (q->kind == MG_QUANTITY_RANK || q->kind == MG_QUANTITY_GLOBAL_RANK)
      MG_TRY(find_ranks_like(s, quantities, count, k, done, values), done);
    else if (q->kind == MG_QUANTITY_DARE_L1)
      MG_TRY(find_dare_ratio(s, q, &values[k]), done);
    else
      return mg_fail(MG_ERR_INTERNAL, "a quantity of kind %d", q->kind);
  }
done:
  return status;
}

mg_status mg_quantities_compute(const mg_deltas *deltas, const char *id, const mg_quantity *quantities, size_t count,
                                mg_status (*poll)(void *context), void *context, double *values) {
  mg_status status = MG_OK;
  bool *done = mg_alloc_zero(count, sizeof *done);
  source_scan s = {.deltas = deltas, .id = id, .poll = poll, .context = context};
  if (count == 0) goto cleanup;
  s.sources[0] = quantities[0].source;
  s.values = mg_alloc_aligned(MG_TILE * sizeof(float)), s.other = mg_alloc_aligned(MG_TILE * sizeof(float));
  s.copy = mg_alloc_aligned(MG_TILE * sizeof(float)), s.words = mg_alloc(MG_TILE, sizeof *s.words);
  if (!done || !s.values || !s.other || !s.copy || !s.words) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  MG_TRY(mg_delta_reader_create(deltas, 2, &s.reader), cleanup);
  MG_TRY(find_all(&s, quantities, count, done, values), cleanup);
cleanup:
  mg_delta_reader_free(&s.reader);
  free(done), free(s.values), free(s.other), free(s.copy), free(s.words);
  return status;
}
