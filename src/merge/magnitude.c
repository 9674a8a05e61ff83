/* Computing quantities of one source: each pass over a tensor serves all that are asked of it. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

typedef struct source_scan {
  const mg_deltas *deltas;
  const mg_merge_device *device; /* NULL: the host does everything */
  const mg_merge_kernels *kernels;
  mg_delta_reader reader;
  const char *id;
  int sources[2];              /* the source, and what stands in for theta_0 */
  const mg_quantity *quantity; /* that what is scanned is relative to */
  bool head;                   /* the device has the random head that it is about */
  float *values, *other, *copy;
  uint32_t *words;
  uint64_t *order;
  mg_status (*poll)(void *context);
  void *context;
} source_scan;

typedef void (*mg_tile_visit)(void *context, const mg_tensor *tensor, const float *values, int64_t first, int64_t count);

static bool is_thinned(const mg_quantity *q) {
  return (q->kind == MG_QUANTITY_RANK || q->kind == MG_QUANTITY_GLOBAL_RANK) && q->b > 0;
}

static bool is_random(const source_scan *s, const mg_tensor *tensor) {
  return s->quantity->base == MG_BASE_RANDOM && tensor->source_only;
}

static mg_stream stream_of(const source_scan *s, size_t t) {
  return mg_stream_of_tensor(s->quantity->seed, s->id, mg_rows_table(s->deltas->rows)->tensors[t].name);
}

/* Elements from … end − 1 of a tensor in chunks, relative to the base asked for, as what was dropped at random before leaves
   them. */
static mg_status scan_range(source_scan *s, size_t t, int64_t from, int64_t end, mg_tile_visit visit, void *context) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(s->deltas->rows)->tensors[t];
  const mg_quantity *q = s->quantity;
  const bool random = is_random(s, tensor), relative = q->base >= 0;
  const mg_stream stream = stream_of(s, t);
  const int64_t most = mg_chunk_length(tensor);
  float *const to[2] = {s->values, s->other};
  for (int64_t first = from; first < end; first += most) {
    const int64_t count = end - first < most ? end - first : most;
    MG_TRY(mg_delta_read(&s->reader, s->sources, relative ? 2 : 1, t, first, count, to, NULL), done);
    if (random) mg_random_head(tensor, q->seed, first, count, s->other);
    for (int64_t k = 0; (random || relative) && k < count; k++) s->values[k] -= s->other[k];
    if (is_thinned(q))
      s->kernels->keep_random(&stream, (uint64_t)first, (long)count, mg_last_kept(q->b), 1, s->values, s->values);
    visit(context, tensor, s->values, first, count);
    if (s->poll != NULL) MG_TRY(s->poll(s->context), done);
  }
done:
  return status;
}

/* What a device has not: whole rows, as what it has. */
static mg_status scan_rest(source_scan *s, size_t t, mg_tile_visit visit, void *context) {
  mg_status status = MG_OK;
  const mg_store *there = &s->device->store->where;
  int64_t at = 0;
  for (size_t k = 0; k < there->range_count; k++) {
    const mg_range *r = &there->ranges[k];
    if (r->tensor != t) continue;
    MG_TRY(scan_range(s, t, at, r->first, visit, context), done);
    at = r->first + r->count;
  }
  MG_TRY(scan_range(s, t, at, mg_rows_table(s->deltas->rows)->tensors[t].numel, visit, context), done);
done:
  return status;
}

static mg_status scan_tensor(source_scan *s, size_t t, mg_tile_visit visit, void *context) {
  return scan_range(s, t, 0, mg_rows_table(s->deltas->rows)->tensors[t].numel, visit, context);
}

/* ---- ranks ---- */

static void count_tile(void *context, const mg_tensor *tensor, const float *values, int64_t first, int64_t count) {
  (void)tensor, (void)first;
  mg_census_add(context, values, count);
}

static bool is_taken(const source_scan *s, size_t t) {
  const mg_quantity *q = s->quantity;
  if (q->tensor >= 0) return (ptrdiff_t)t == q->tensor;
  return !mg_rows_table(s->deltas->rows)->tensors[t].source_only || q->base == MG_BASE_RANDOM;
}

/* Which values of a tensor a device is asked about. *able: may it be? */
static void aim(const source_scan *s, size_t t, mg_device_values *values, bool *able) {
  const bool random = is_random(s, &mg_rows_table(s->deltas->rows)->tensors[t]);
  values->stream = stream_of(s, t);
  values->other = random ? MG_BASE_RANDOM : s->quantity->base >= 0 ? s->quantity->base : MG_BASE_FAMILY;
  *able = *able && (!random || s->head);
}

/* What a device has of a tensor is counted there; the host counts what lies between. */
static mg_status count_with_device(source_scan *s, mg_census *census, const mg_device_values *values, size_t t) {
  mg_status status = MG_OK;
  MG_TRY(mg_device_count_tensor(s->device->store, s->device->queue, values, census, t), done);
  MG_TRY(scan_rest(s, t, count_tile, census), done);
done:
  return status;
}

/* *there: there is one that holds something; a random head, if it is about that. */
static mg_status find_device(source_scan *s, bool *there) {
  *there = s->device != NULL && s->device->store != NULL;
  s->head = false;
  if (!*there || s->quantity->base != MG_BASE_RANDOM) return MG_OK;
  return mg_device_head_begin(s->device->store, s->device->queue, mg_rows_table(s->deltas->rows), s->quantity->seed, &s->head);
}

/* thinned: the share `density` stays of them. */
static mg_device_values values_of(const source_scan *s, bool thinned, double density) {
  return (mg_device_values){.source = s->sources[0],
                            .other = s->quantity->base >= 0 ? s->quantity->base : MG_BASE_FAMILY,
                            .thinned = thinned,
                            .last_kept = thinned ? mg_last_kept(density) : 0};
}

/* One turn over all that is to be taken. */
static mg_status count_taken(source_scan *s, mg_census *census) {
  mg_status status = MG_OK;
  const mg_quantity *q = s->quantity;
  const mg_tensor_table *table = mg_rows_table(s->deltas->rows);
  mg_device_values values = values_of(s, is_thinned(q), q->b);
  bool there;
  MG_TRY(find_device(s, &there), done);
  if (there) MG_TRY(mg_device_count_begin(s->device->store, s->device->queue, &values, census, &there), done);
  for (size_t t = 0; t < table->count; t++) {
    bool able = there;
    if (!is_taken(s, t)) continue;
    aim(s, t, &values, &able);
    if (able)
      MG_TRY(count_with_device(s, census, &values, t), done);
    else
      MG_TRY(scan_tensor(s, t, count_tile, census), done);
    if (s->poll != NULL) MG_TRY(s->poll(s->context), done);
  }
  if (there) MG_TRY(mg_device_count_end(s->device->store, s->device->queue, census), done);
done:
  return status;
}

/* The m-th largest magnitudes over the tensors that are to be taken. ranks [count]. */
static mg_status find_ranks(source_scan *s, const uint64_t *ranks, size_t count, double *values) {
  mg_status status = MG_OK;
  mg_census census;
  MG_TRY(mg_census_begin(ranks, count, &census), done);
  MG_TRY(count_taken(s, &census), cleanup);
  MG_TRY(mg_census_turn(&census), cleanup);
  MG_TRY(count_taken(s, &census), cleanup);
  mg_census_values(&census, values);
cleanup:
  mg_census_free(&census);
done:
  return status;
}

/* ---- norms ---- */

/* Of all, and of what stays of it. */
typedef struct norms {
  source_scan *scan;
  mg_device_share share;
  double density;
  mg_stream stream; /* of the tensor at hand */
  mg_l1 all, part;
} norms;

static void add_norms(void *context, const mg_tensor *tensor, const float *values, int64_t first, int64_t count) {
  norms *n = context;
  source_scan *s = n->scan;
  float *copy = s->copy;
  switch (n->share.part) {
  case MG_DEVICE_PART_BELOW:
    for (int64_t k = 0; k < count; k++) copy[k] = fabs((double)values[k]) < n->share.threshold ? values[k] : 0;
    break;
  case MG_DEVICE_PART_KEPT:
    s->kernels->keep_random(&n->stream, (uint64_t)first, (long)count, mg_last_kept(n->density), 1, values, copy);
    break;
  case MG_DEVICE_PART_PACKED:
    memcpy(copy, values, (size_t)count * sizeof *values);
    mg_keep_by_rank(copy, first, count, mg_row_length(tensor), &n->stream, n->share.formula, 1, s->words, s->order);
    break;
  }
  mg_l1_add(&n->all, values, count);
  mg_l1_add(&n->part, copy, count);
}

/* Over all that is to be taken: the device adds up what it has, the host the rest. */
static mg_status find_norms(norms *n) {
  mg_status status = MG_OK;
  source_scan *s = n->scan;
  const mg_tensor_table *table = mg_rows_table(s->deltas->rows);
  mg_device_values values = values_of(s, n->share.part == MG_DEVICE_PART_KEPT, n->density);
  bool there;
  MG_TRY(find_device(s, &there), done);
  if (there) MG_TRY(mg_device_norms_begin(s->device->store, s->device->queue, &values, &n->share, &there), done);
  for (size_t t = 0; t < table->count; t++) {
    bool able = there;
    if (!is_taken(s, t)) continue;
    n->stream = stream_of(s, t);
    aim(s, t, &values, &able);
    if (able) {
      MG_TRY(mg_device_norms_tensor(s->device->store, s->device->queue, &values, &n->share, t), done);
      MG_TRY(scan_rest(s, t, add_norms, n), done);
    } else {
      MG_TRY(scan_tensor(s, t, add_norms, n), done);
    }
  }
  if (there) MG_TRY(mg_device_norms_end(s->device->store, s->device->queue, &n->all, &n->part), done);
done:
  return status;
}

static mg_status find_ratio(source_scan *s, double *value) {
  const mg_quantity *q = s->quantity;
  const mg_formula formula = {.drop_density = q->a, .drop_spread = q->b, .rescale = MG_RESCALE_L1};
  norms n = {.scan = s,
             .density = q->a,
             .share = {.part = q->kind == MG_QUANTITY_DELLA_L1 ? MG_DEVICE_PART_PACKED : MG_DEVICE_PART_KEPT,
                       .formula = &formula,
                       .row = mg_row_length(&mg_rows_table(s->deltas->rows)->tensors[q->tensor])}};
  const mg_status status = find_norms(&n);
  const double before = mg_l1_value(&n.all), after = mg_l1_value(&n.part);
  *value = after > 0 ? before / after : 1;
  return status;
}

static mg_status find_share(source_scan *s, double *value) {
  mg_status status = MG_OK;
  const uint64_t rank = (uint64_t)s->quantity->a;
  norms n = {.scan = s, .share = {.part = MG_DEVICE_PART_BELOW}};
  MG_TRY(find_ranks(s, &rank, 1, &n.share.threshold), done);
  MG_TRY(find_norms(&n), done);
  const double all = mg_l1_value(&n.all), below = mg_l1_value(&n.part);
  *value = all > 0 ? below / all : 0;
done:
  return status;
}

/* ---- all of them ---- */

/* Ranks of the same values? */
static bool same_values(const mg_quantity *a, const mg_quantity *b) {
  return a->kind == b->kind && a->tensor == b->tensor && a->base == b->base && a->seed == b->seed && a->b == b->b;
}

/* All ranks that are asked of the values that the first of them is about. */
static mg_status find_ranks_like(source_scan *s, const mg_quantity *quantities, size_t count, size_t first, bool *done,
                                 double *values) {
  mg_status status = MG_OK;
  uint64_t *ranks = mg_alloc(count, sizeof *ranks);
  size_t *which = mg_alloc(count, sizeof *which), found = 0;
  double *results = mg_alloc(count, sizeof *results);
  if (!ranks || !which || !results) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = first; k < count; k++) {
    if (!same_values(&quantities[first], &quantities[k])) continue;
    ranks[found] = (uint64_t)quantities[k].a;
    which[found++] = k;
    done[k] = true;
  }
  MG_TRY(find_ranks(s, ranks, found, results), cleanup);
  for (size_t k = 0; k < found; k++) values[which[k]] = results[k];
cleanup:
  free(ranks), free(which), free(results);
  return status;
}

static mg_status find_all(source_scan *s, const mg_quantity *quantities, size_t count, bool *done, double *values) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < count && status == MG_OK; k++) {
    const mg_quantity *q = &quantities[k];
    if (done[k]) continue;
    s->quantity = q;
    s->sources[1] = q->base >= 0 ? q->base : 0;
    switch ((mg_quantity_kind)q->kind) {
    case MG_QUANTITY_RANK:
    case MG_QUANTITY_GLOBAL_RANK:
      status = find_ranks_like(s, quantities, count, k, done, values);
      break;
    case MG_QUANTITY_DARE_L1:
    case MG_QUANTITY_DELLA_L1:
      status = find_ratio(s, &values[k]);
      break;
    case MG_QUANTITY_GLOBAL_SHARE:
      status = find_share(s, &values[k]);
      break;
    }
  }
  return status;
}

mg_status mg_quantities_compute(const mg_deltas *deltas, const mg_merge_device *device, const char *id,
                                const mg_quantity *quantities, size_t count, mg_status (*poll)(void *context), void *context,
                                double *values) {
  mg_status status = MG_OK;
  const size_t room = (size_t)mg_chunk_capacity(mg_rows_table(deltas->rows));
  bool *done = mg_alloc_zero(count, sizeof *done);
  source_scan s = {
      .deltas = deltas, .device = device, .kernels = mg_merge_kernels_get(), .id = id, .poll = poll, .context = context};
  if (count == 0) goto cleanup;
  s.sources[0] = quantities[0].source;
  s.values = mg_alloc_aligned(room * sizeof(float)), s.other = mg_alloc_aligned(room * sizeof(float));
  s.copy = mg_alloc_aligned(room * sizeof(float)), s.words = mg_alloc(room, sizeof *s.words);
  s.order = mg_alloc(room, sizeof *s.order);
  if (!done || !s.values || !s.other || !s.copy || !s.words || !s.order) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  MG_TRY(mg_delta_reader_create(deltas, 2, &s.reader), cleanup);
  MG_TRY(find_all(&s, quantities, count, done, values), cleanup);
cleanup:
  mg_delta_reader_free(&s.reader);
  free(done), free(s.values), free(s.other), free(s.copy), free(s.words), free(s.order);
  return status;
}
