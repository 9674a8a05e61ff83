/* Order statistics of what a device holds: it counts, the host decides where to look next, and counts what is not there. */

#include <stdlib.h>
#include <string.h>

#include "device.h"

static const uint64_t BINS_BYTES = (uint64_t)MG_MOST_LOOKED * MG_CENSUS_LOWER * sizeof(uint64_t);
static const uint64_t INDEX_BYTES = MG_CENSUS_UPPER * sizeof(int32_t);

static const uint64_t SOURCE_BYTES = MG_DEVICE_ALIGN;

/* Pieces of whole rows are up to twice as many. */
uint64_t mg_device_count_bytes(uint64_t floats, size_t ranges) {
  return BINS_BYTES + INDEX_BYTES + SOURCE_BYTES + 2 * (floats / MG_PIECE_ELEMENTS + ranges) * sizeof(mg_device_piece) +
         MG_DEVICE_ALIGN;
}

/* Of the tensor that has the most, in whole rows or not. */
static size_t most_pieces(const mg_store *where) {
  size_t most = 0, own = 0;
  for (size_t k = 0; k < where->range_count; k++) {
    if (k > 0 && where->ranges[k].tensor != where->ranges[k - 1].tensor) own = 0;
    own += (size_t)((where->ranges[k].count + MG_PIECE_ELEMENTS - 1) / MG_PIECE_ELEMENTS);
    if (own > most) most = own;
  }
  return 2 * most;
}

/* NULL where there is no room. */
static mg_status open_counter(mg_device_store *s) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const size_t pieces = most_pieces(&s->where);
  const uint64_t bytes = BINS_BYTES + INDEX_BYTES + SOURCE_BYTES + pieces * sizeof(mg_device_piece);
  if (s->counter != NULL || ops->room(s->device) < bytes + MG_DEVICE_ALIGN) return MG_OK;
  mg_device_counter *c = mg_alloc_zero(1, sizeof *c);
  if (c == NULL) return MG_ERR_NOMEM;
  MG_TRY(ops->take(s->device, bytes, "counts of magnitudes", (void **)&c->block), failed);
  MG_TRY(ops->pin(s->device, MG_CENSUS_LOWER * sizeof *c->fetched, (void **)&c->fetched), failed);
  c->bins = (uint64_t *)(void *)c->block;
  c->index = (int32_t *)(void *)(c->block + BINS_BYTES);
  c->source = c->block + BINS_BYTES + INDEX_BYTES;
  c->pieces = (mg_device_piece *)(void *)(c->block + BINS_BYTES + INDEX_BYTES + SOURCE_BYTES);
  c->piece_room = pieces;
  s->counter = c;
  return MG_OK;
failed:
  ops->give(s->device, c->block);
  free(c);
  return status;
}

void mg_device_counter_free(mg_device_store *s) {
  mg_device_counter *c = s->counter;
  if (c == NULL) return;
  s->device->ops->give(s->device, c->block);
  s->device->ops->unpin(s->device, c->fetched);
  mg_text_free(&c->told);
  free(c);
  s->counter = NULL;
}

uint64_t mg_device_store_counted(const mg_device_store *s) { return s->counter != NULL ? s->counter->counted : 0; }

static bool holds(const mg_device_store *s, const mg_device_values *values) {
  return s->tau[values->source] != NULL && (values->other < 0 || s->tau[values->other] != NULL);
}

mg_status mg_device_counter_open(mg_device_store *s, const mg_device_values *values, bool *able) {
  const mg_status status = holds(s, values) ? open_counter(s) : MG_OK;
  *able = status == MG_OK && holds(s, values) && s->counter != NULL;
  return status;
}

mg_status mg_device_counter_tell(mg_device_store *s, mg_queue *queue, size_t t, int64_t most, uint32_t *pieces) {
  mg_device_counter *c = s->counter;
  c->told.size = 0, c->elements = 0;
  for (size_t k = 0; k < s->where.range_count; k++) {
    const mg_range *r = &s->where.ranges[k];
    if (r->tensor != t) continue;
    for (int64_t at = 0; at < r->count; at += most) {
      const int64_t left = r->count - at;
      const mg_device_piece piece = {
          .from = r->offset + (size_t)at, .element = (uint64_t)(r->first + at), .count = (uint32_t)(left < most ? left : most)};
      mg_text_append_bytes(&c->told, &piece, sizeof piece);
    }
    c->elements += (uint64_t)r->count;
  }
  if (c->told.failed) return mg_fail(MG_ERR_NOMEM, "out of memory");
  *pieces = (uint32_t)(c->told.size / sizeof(mg_device_piece));
  return *pieces > 0 ? s->device->ops->upload_any(queue, c->pieces, c->told.data, c->told.size) : MG_OK;
}

mg_status mg_device_count_begin(mg_device_store *s, mg_queue *queue, const mg_device_values *values, const mg_census *census,
                                bool *able) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const size_t looked = census->looked;
  *able = false;
  if (looked > MG_MOST_LOOKED) return MG_OK;
  MG_TRY(mg_device_counter_open(s, values, able), done);
  if (!*able) return MG_OK;
  mg_device_counter *c = s->counter;
  const size_t bins = looked == 0 ? MG_CENSUS_UPPER : looked * MG_CENSUS_LOWER;
  MG_TRY(ops->zero(queue, c->bins, bins * sizeof *c->bins), done);
  if (looked > 0) MG_TRY(ops->upload_any(queue, c->index, census->index_of, INDEX_BYTES), done);
done:
  return status;
}

mg_status mg_device_count_tensor(mg_device_store *s, mg_queue *queue, const mg_device_values *values, const mg_census *census,
                                 size_t t) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  mg_device_counter *c = s->counter;
  uint32_t pieces;
  MG_TRY(mg_device_counter_tell(s, queue, t, MG_PIECE_ELEMENTS, &pieces), done);
  if (pieces == 0) goto done;
  c->counted += census->looked == 0 ? c->elements : 0;
  const mg_device_census what = {.tau = s->tau[values->source],
                                 .other = mg_device_relative(s, values->other),
                                 .thinned = values->thinned,
                                 .stream = values->stream,
                                 .last_kept = values->last_kept,
                                 .piece = c->pieces,
                                 .pieces = pieces,
                                 .index = census->looked > 0 ? c->index : NULL,
                                 .bins = c->bins};
  MG_TRY(ops->census(queue, &what), done);
done:
  return status;
}

mg_status mg_device_count_end(mg_device_store *s, mg_queue *queue, mg_census *census) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const mg_device_counter *c = s->counter;
  const size_t count = census->looked == 0 ? MG_CENSUS_UPPER : MG_CENSUS_LOWER;
  for (size_t bin = 0; bin < (census->looked == 0 ? 1 : census->looked); bin++) {
    MG_TRY(ops->download(queue, c->fetched, c->bins + bin * MG_CENSUS_LOWER, count * sizeof *c->fetched), done);
    MG_TRY(ops->finish(queue), done);
    mg_census_add_counts(census, bin, c->fetched, count);
  }
done:
  return status;
}
