/* Order statistics of what a device holds: it counts, the host decides where to look next, and counts what is not there. */

#include <stdlib.h>
#include <string.h>

#include "device.h"

enum { MOST_LOOKED = 32 /* bins that a device looks into at once */ };

/* One piece of device memory from the first time on, and a pinned buffer. */
struct mg_device_counter {
  char *block;
  uint64_t *bins; /* [MOST_LOOKED, MG_CENSUS_LOWER] */
  int32_t *index; /* [MG_CENSUS_UPPER] */
  mg_device_piece *pieces;
  size_t piece_room;
  uint64_t *fetched; /* pinned [MG_CENSUS_LOWER] */
  mg_text told;
  uint64_t counted;
};

static const uint64_t BINS_BYTES = (uint64_t)MOST_LOOKED * MG_CENSUS_LOWER * sizeof(uint64_t);
static const uint64_t INDEX_BYTES = MG_CENSUS_UPPER * sizeof(int32_t);

uint64_t mg_device_count_bytes(uint64_t floats, size_t ranges) {
  return BINS_BYTES + INDEX_BYTES + (floats / MG_PIECE_ELEMENTS + ranges) * sizeof(mg_device_piece) + MG_DEVICE_ALIGN;
}

/* Of the tensor that has the most. */
static size_t most_pieces(const mg_store *host) {
  size_t most = 0, own = 0;
  for (size_t k = 0; k < host->range_count; k++) {
    if (k > 0 && host->ranges[k].tensor != host->ranges[k - 1].tensor) own = 0;
    own += (size_t)((host->ranges[k].count + MG_PIECE_ELEMENTS - 1) / MG_PIECE_ELEMENTS);
    if (own > most) most = own;
  }
  return most;
}

/* NULL where there is no room. */
static mg_status open_counter(mg_device_store *s) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const size_t pieces = most_pieces(s->host);
  const uint64_t bytes = BINS_BYTES + INDEX_BYTES + pieces * sizeof(mg_device_piece);
  if (s->counter != NULL || ops->room(s->device) < bytes + MG_DEVICE_ALIGN) return MG_OK;
  mg_device_counter *c = mg_alloc_zero(1, sizeof *c);
  if (c == NULL) return MG_ERR_NOMEM;
  MG_TRY(ops->take(s->device, bytes, "counts of magnitudes", (void **)&c->block), failed);
  MG_TRY(ops->pin(s->device, MG_CENSUS_LOWER * sizeof *c->fetched, (void **)&c->fetched), failed);
  c->bins = (uint64_t *)(void *)c->block;
  c->index = (int32_t *)(void *)(c->block + BINS_BYTES);
  c->pieces = (mg_device_piece *)(void *)(c->block + BINS_BYTES + INDEX_BYTES);
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

mg_status mg_device_count_begin(mg_device_store *s, mg_queue *queue, const mg_device_values *values, const mg_census *census,
                                bool *able) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const size_t looked = census->looked;
  *able = false;
  if (!holds(s, values) || looked > MOST_LOOKED) return MG_OK;
  MG_TRY(open_counter(s), done);
  mg_device_counter *c = s->counter;
  if (c == NULL) return MG_OK;
  const size_t bins = looked == 0 ? MG_CENSUS_UPPER : looked * MG_CENSUS_LOWER;
  MG_TRY(ops->zero(queue, c->bins, bins * sizeof *c->bins), done);
  if (looked > 0) MG_TRY(ops->upload_any(queue, c->index, census->index_of, INDEX_BYTES), done);
  *able = true;
done:
  return status;
}

mg_status mg_device_count_tensor(mg_device_store *s, mg_queue *queue, const mg_device_values *values, const mg_census *census,
                                 size_t t) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  mg_device_counter *c = s->counter;
  c->told.size = 0;
  for (size_t k = 0; k < s->host->range_count; k++) {
    const mg_range *r = &s->host->ranges[k];
    if (r->tensor != t) continue;
    for (int64_t at = 0; at < r->count; at += MG_PIECE_ELEMENTS) {
      const int64_t left = r->count - at;
      const mg_device_piece piece = {.from = r->offset + (size_t)at,
                                     .element = (uint64_t)(r->first + at),
                                     .count = left < MG_PIECE_ELEMENTS ? (uint32_t)left : MG_PIECE_ELEMENTS};
      mg_text_append_bytes(&c->told, &piece, sizeof piece);
    }
    c->counted += census->looked == 0 ? (uint64_t)r->count : 0;
  }
  if (c->told.failed) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (c->told.size == 0) return MG_OK;
  MG_TRY(ops->upload_any(queue, c->pieces, c->told.data, c->told.size), done);
  const mg_device_census what = {.tau = s->tau[values->source],
                                 .other = values->other >= 0 ? s->tau[values->other] : NULL,
                                 .thinned = values->thinned,
                                 .stream = values->stream,
                                 .last_kept = values->last_kept,
                                 .piece = c->pieces,
                                 .pieces = (uint32_t)(c->told.size / sizeof(mg_device_piece)),
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
