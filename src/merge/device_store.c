/* What a device holds of the sources: blocks of the host's memory, or read for it from the shards. */

#include <stdlib.h>
#include <string.h>

#include "device.h"

/* Floats that are read before they go up: their copy takes longer than beginning it, and their reading longer than both. */
enum { BATCH = 1 << 15 };

mg_status mg_device_store_create(mg_device *device, mg_queue *queue, const mg_store *host, size_t sources, size_t floats,
                                 uint64_t spare, mg_device_store **out) {
  mg_status status = MG_OK;
  bool added = true;
  mg_device_store *s = mg_alloc_zero(1, sizeof *s);
  *out = NULL;
  if (s == NULL) return MG_ERR_NOMEM;
  *s = (mg_device_store){.device = device, .sources = sources, .floats = floats, .spare = spare};
  s->where = (mg_store){.range_count = host->range_count, .ranges = host->ranges};
  s->tau = mg_alloc_zero(sources, sizeof *s->tau);
  if (s->tau == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  /* theta_0 first: without it nothing is merged there */
  if (host->base != NULL) MG_TRY(mg_device_store_add(s, queue, NULL, MG_ROW_BASE, host->base, NULL, NULL, &added), failed);
  for (size_t k = 0; host->tau != NULL && k < sources && added; k++)
    if (host->tau[k] != NULL) MG_TRY(mg_device_store_add(s, queue, NULL, (int)k, host->tau[k], NULL, NULL, &added), failed);
  *out = s;
  return MG_OK;
failed:
  mg_device_store_destroy(&s);
  return status;
}

void mg_device_store_destroy(mg_device_store **store) {
  mg_device_store *s = *store;
  if (s == NULL) return;
  const mg_device_ops *ops = s->device->ops;
  for (size_t k = 0; s->tau != NULL && k < s->sources; k++) ops->give(s->device, s->tau[k]);
  ops->give(s->device, s->base), ops->give(s->device, s->told), ops->give(s->device, s->thinned);
  ops->give(s->device, s->head);
  ops->unpin(s->device, s->verdicts);
  mg_device_counter_free(s);
  free(s->tau);
  free(s);
  *store = NULL;
}

size_t mg_device_store_sources(const mg_device_store *s) { return s->kept; }
uint64_t mg_device_store_merged(const mg_device_store *s) { return s->merged; }

/* ---- reading ---- */

/* Floats on their way to a block, from place `at` on. */
typedef struct batch {
  mg_delta_reader reader;
  float *floats;
  size_t at, count;
  mg_status (*poll)(void *context);
  void *context;
} batch;

static mg_status send(const mg_device_store *s, mg_queue *queue, float *to, batch *b) {
  const size_t bytes = b->count * sizeof *b->floats;
  const mg_status status = bytes > 0 ? s->device->ops->upload_any(queue, to + b->at, b->floats, bytes) : MG_OK;
  b->count = 0;
  return status == MG_OK && b->poll != NULL ? b->poll(b->context) : status;
}

/* Ranges whose places are next to each other, as those of embedding rows are, go up together. */
static mg_status read_range(const mg_device_store *s, mg_queue *queue, int source, const mg_range *range, float *to, batch *b) {
  mg_status status = MG_OK;
  for (int64_t done = 0; done < range->count;) {
    const size_t at = range->offset + (size_t)done;
    if (b->count == BATCH || at != b->at + b->count) MG_TRY(send(s, queue, to, b), done);
    if (b->count == 0) b->at = at;
    const int64_t left = range->count - done, room = BATCH - (int64_t)b->count, now = left < room ? left : room;
    float *floats = b->floats + b->count;
    if (source == MG_ROW_BASE)
      MG_TRY(mg_delta_read(&b->reader, NULL, 0, range->tensor, range->first + done, now, NULL, floats), done);
    else
      MG_TRY(mg_delta_read(&b->reader, &source, 1, range->tensor, range->first + done, now, &floats, NULL), done);
    b->count += (size_t)now;
    done += now;
  }
done:
  return status;
}

static mg_status read_block(const mg_device_store *s, mg_queue *queue, const mg_deltas *deltas, int source, float *to,
                            mg_status (*poll)(void *context), void *context) {
  mg_status status = MG_OK;
  batch b = {.floats = mg_alloc(BATCH, sizeof *b.floats), .poll = poll, .context = context};
  if (b.floats == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  MG_TRY(mg_delta_reader_create(deltas, 1, &b.reader), cleanup);
  for (size_t k = 0; k < s->where.range_count; k++) MG_TRY(read_range(s, queue, source, &s->where.ranges[k], to, &b), cleanup);
  MG_TRY(send(s, queue, to, &b), cleanup);
cleanup:
  mg_delta_reader_free(&b.reader);
  free(b.floats);
  return status;
}

mg_status mg_device_store_add(mg_device_store *s, mg_queue *queue, const mg_deltas *deltas, int source, const float *block,
                              mg_status (*poll)(void *context), void *context, bool *added) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const bool is_base = source == MG_ROW_BASE;
  float **to = is_base ? &s->base : &s->tau[source];
  const uint64_t bytes = s->floats * sizeof(float);
  *added = *to != NULL;
  if (*added || ops->room(s->device) < bytes + s->spare + MG_DEVICE_ALIGN) return MG_OK;
  MG_TRY(ops->take(s->device, bytes, is_base ? "the base" : "task vectors", (void **)to), done);
  s->kept += !is_base;
  if (block != NULL)
    MG_TRY(ops->upload_any(queue, *to, block, bytes), done);
  else
    MG_TRY(read_block(s, queue, deltas, source, *to, poll, context), done);
  *added = true;
done:
  return status;
}
