/* A head that is drawn at random, on the device: drawn by the host, whose logarithms and cosines its bits are, once a seed. */

#include <stdlib.h>

#include "device.h"

/* Of all that only sources have, each tensor on a boundary of 64 bytes. */
uint64_t mg_device_head_bytes(const mg_tensor_table *table) {
  uint64_t floats = 0;
  for (size_t t = 0; t < table->count; t++)
    if (table->tensors[t].source_only) floats += ((uint64_t)table->tensors[t].numel + 15) / 16 * 16;
  return floats * sizeof(float) + MG_DEVICE_ALIGN;
}

/* From the first to the last float that a head has in a block of the store. */
static void find_span(const mg_device_store *s, const mg_tensor_table *table, size_t *first, size_t *end) {
  *first = SIZE_MAX, *end = 0;
  for (size_t k = 0; k < s->where.range_count; k++) {
    const mg_range *r = &s->where.ranges[k];
    if (!table->tensors[r->tensor].source_only) continue;
    if (r->offset < *first) *first = r->offset;
    if (r->offset + (size_t)r->count > *end) *end = r->offset + (size_t)r->count;
  }
}

/* In its own block, and as a block of the store whose other floats are not there. */
static float *place_of(const mg_device_store *s, size_t offset) { return s->head + (offset - s->head_first); }

const float *mg_device_relative(const mg_device_store *s, int other) {
  if (other == MG_BASE_RANDOM) return (const float *)((uintptr_t)s->head - s->head_first * sizeof(float));
  return other >= 0 ? s->tau[other] : NULL;
}

static mg_status take_room(mg_device_store *s, const mg_tensor_table *table) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  size_t first, end;
  find_span(s, table, &first, &end);
  if (s->head != NULL || first >= end) return MG_OK;
  const uint64_t bytes = (end - first) * sizeof *s->head + MG_DEVICE_ALIGN; /* more than was planned where it lies apart */
  if (bytes > mg_device_head_bytes(table) || ops->room(s->device) < bytes) return MG_OK;
  MG_TRY(ops->take(s->device, bytes - MG_DEVICE_ALIGN, "a random head", (void **)&s->head), done);
  s->head_first = first;
done:
  return status;
}

static mg_status draw(mg_device_store *s, mg_queue *queue, const mg_tensor *tensor, const mg_range *r, float *piece) {
  mg_status status = MG_OK;
  for (int64_t done = 0; done < r->count; done += MG_TILE) {
    const int64_t now = r->count - done < MG_TILE ? r->count - done : MG_TILE;
    mg_random_head(tensor, s->head_seed, r->first + done, now, piece);
    MG_TRY(s->device->ops->upload_any(queue, place_of(s, r->offset + (size_t)done), piece, (size_t)now * sizeof *piece), done);
  }
done:
  return status;
}

mg_status mg_device_head_begin(mg_device_store *s, mg_queue *queue, const mg_tensor_table *table, uint64_t seed, bool *able) {
  mg_status status = MG_OK;
  float *piece = NULL;
  *able = s->head_drawn && s->head_seed == seed;
  if (*able) return MG_OK;
  MG_TRY(take_room(s, table), cleanup);
  if (s->head == NULL) goto cleanup;
  piece = mg_alloc(MG_TILE, sizeof *piece);
  if (piece == NULL) return MG_ERR_NOMEM;
  s->head_drawn = false;
  s->head_seed = seed;
  for (size_t k = 0; k < s->where.range_count; k++) { /* behind whatever goes by the last one */
    const mg_range *r = &s->where.ranges[k];
    if (table->tensors[r->tensor].source_only) MG_TRY(draw(s, queue, &table->tensors[r->tensor], r, piece), cleanup);
  }
  *able = s->head_drawn = true;
cleanup:
  free(piece);
  return status;
}
