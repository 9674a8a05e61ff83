/*
 * The device's side of a thread of the Gram engine: tiles go there through two buffers, so that one is read while the other is
 * copied and multiplied; accumulators stay there until a leaf is done.
 */

#include <stdlib.h>
#include <string.h>

#include "lane.h"
#include "mergegrid/text.h"

/* Behind what describes the rows, the rows: of the host, pinned, and of the device. */
typedef struct slot {
  char *host, *device;
  mg_mark *done;
} slot;

struct mg_gram_lane {
  mg_device *device;
  mg_queue *queue;
  slot slot[2];
  int turn;
  size_t most_rows, most_values;
  double *acc, *host_acc; /* of the device; pinned */
  void *scratch;
};

typedef struct description {
  int64_t *offset;
  int32_t *dtype;
  float *scale;
  size_t bytes;
} description;

static description describe(char *at, size_t rows) {
  return (description){.offset = (int64_t *)(void *)at,
                       .dtype = (int32_t *)(void *)(at + rows * sizeof(int64_t)),
                       .scale = (float *)(void *)(at + rows * (sizeof(int64_t) + sizeof(int32_t))),
                       .bytes = (rows * (sizeof(int64_t) + sizeof(int32_t) + sizeof(float)) + 63) / 64 * 64};
}

/* Of a row of `count` elements; a cache line apart, as the host's. */
static size_t row_bytes(int64_t count, mg_dtype dtype) {
  return ((size_t)count * mg_dtype_size(dtype) + MG_ROW_ALIGN - 1) / MG_ROW_ALIGN * MG_ROW_ALIGN + MG_ROW_ALIGN;
}

static size_t slot_bytes(size_t rows, mg_dtype dtype) {
  return describe(NULL, rows).bytes + rows * row_bytes(MG_TILE, dtype) + row_bytes(MG_TILE, MG_F32);
}

/* In doubles of device memory a pair: accumulators; scratch holds those of every run. */
uint64_t mg_gram_lane_bytes(const mg_device *device, size_t sources, size_t values, mg_dtype dtype) {
  const size_t rows = sources + 1;
  const uint64_t floats = (uint64_t)rows * MG_TILE * sizeof(float), runs = MG_TILE / MG_RUN;
  return 2 * (uint64_t)slot_bytes(rows, dtype) + values * MG_ACCUMULATORS * sizeof(double) + floats +
         (uint64_t)(rows * (rows + 1) / 2) * runs * MG_ACCUMULATORS * sizeof(double) + 4 * MG_DEVICE_ALIGN +
         (device->products ? MG_QUEUE_BYTES : 0);
}

mg_status mg_gram_lane_create(mg_device *device, size_t sources, size_t values, mg_dtype dtype, mg_gram_lane **out) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = device->ops;
  const size_t bytes = slot_bytes(sources + 1, dtype), acc = values * MG_ACCUMULATORS * sizeof(double);
  mg_gram_lane *l = mg_alloc_zero(1, sizeof *l);
  if (l == NULL) return MG_ERR_NOMEM;
  *l = (mg_gram_lane){.device = device, .most_rows = sources + 1, .most_values = values};
  MG_TRY(ops->open_queue(device, device->products, &l->queue), failed);
  for (int k = 0; k < 2; k++) {
    MG_TRY(ops->pin(device, bytes, (void **)&l->slot[k].host), failed);
    MG_TRY(ops->take(device, bytes, "tiles", (void **)&l->slot[k].device), failed);
    MG_TRY(ops->open_mark(device, &l->slot[k].done), failed);
  }
  MG_TRY(ops->take(device, acc, "accumulators", (void **)&l->acc), failed);
  MG_TRY(ops->take(device, ops->gram_scratch((int)sources + 1), "sums of runs", &l->scratch), failed);
  MG_TRY(ops->pin(device, acc, (void **)&l->host_acc), failed);
  *out = l;
  return MG_OK;
failed:
  mg_gram_lane_destroy(&l);
  return status;
}

void mg_gram_lane_destroy(mg_gram_lane **lane) {
  mg_gram_lane *l = *lane;
  if (l == NULL) return;
  const mg_device_ops *ops = l->device->ops;
  ops->close_queue(l->queue); /* which waits until nothing is under way */
  for (int k = 0; k < 2; k++) {
    ops->unpin(l->device, l->slot[k].host);
    ops->give(l->device, l->slot[k].device);
    ops->close_mark(l->slot[k].done);
  }
  ops->give(l->device, l->acc), ops->give(l->device, l->scratch);
  ops->unpin(l->device, l->host_acc);
  free(l);
  *lane = NULL;
}

mg_status mg_gram_lane_begin(mg_gram_lane *l, size_t values) {
  return l->device->ops->zero(l->queue, l->acc, values * MG_ACCUMULATORS * sizeof(double));
}

mg_status mg_gram_lane_room(mg_gram_lane *l, size_t rows, int64_t count, mg_dtype dtype, mg_gram_room *room) {
  mg_status status = MG_OK;
  slot *s = &l->slot[l->turn];
  MG_TRY(l->device->ops->await(s->done), done); /* what was in it has been copied and multiplied */
  room->tile = s->host + describe(s->host, rows).bytes;
  room->stride = row_bytes(count, dtype);
  room->base = (float *)(void *)(room->tile + (rows - 1) * room->stride);
done:
  return status;
}

/* Rows first … first + rows − 1 as they are on the device; of all, so many are chained. */
static mg_device_rows rows_at(const slot *s, size_t all, size_t first, size_t rows, size_t chained, int64_t count) {
  const description d = describe(s->device, all);
  const size_t own = chained > first ? chained - first : 0;
  return (mg_device_rows){.rows = (int)rows,
                          .count = count,
                          .raw = s->device,
                          .offset = d.offset + first,
                          .dtype = d.dtype + first,
                          .scale = d.scale + first,
                          .chained = (int)(own < rows ? own : rows)};
}

mg_status mg_gram_lane_multiply(mg_gram_lane *l, const mg_gram_room *room, size_t rows, size_t left, size_t chained,
                                int64_t count, const mg_dtype *dtype, const float *scale) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = l->device->ops;
  const slot *s = &l->slot[l->turn];
  const description d = describe(s->host, rows);
  for (size_t k = 0; k < rows; k++) {
    d.offset[k] = room->tile - s->host + (ptrdiff_t)(k * room->stride); /* the base's as well */
    d.dtype[k] = (int32_t)dtype[k];
    d.scale[k] = scale[k];
  }
  const size_t bytes = (size_t)((char *)room->base - s->host) + row_bytes(count, MG_F32);
  MG_TRY(ops->upload(l->queue, s->device, s->host, bytes), done);
  const mg_device_rows a = rows_at(s, rows, 0, left, chained, count);
  const mg_device_rows b = rows_at(s, rows, left, rows - 1 - left, chained, count);
  MG_TRY(ops->gram(l->queue, &a, left < rows ? &b : NULL, l->acc, l->scratch), done);
  MG_TRY(ops->mark(l->queue, s->done), done);
  l->turn ^= 1;
done:
  return status;
}

mg_status mg_gram_lane_end(mg_gram_lane *l, size_t values, double *acc) {
  mg_status status = MG_OK;
  const size_t bytes = values * MG_ACCUMULATORS * sizeof(double);
  MG_TRY(l->device->ops->download(l->queue, l->host_acc, l->acc, bytes), done);
  MG_TRY(l->device->ops->finish(l->queue), done);
  memcpy(acc, l->host_acc, bytes);
done:
  return status;
}
