/*
 * CKA's Gram matrices on a device. All is in double, as by the host: features are centred to the bits of its, and even a device
 * that is slow in double is done long before the forward passes that the features come from.
 */

#include <stdlib.h>
#include <string.h>

#include "cka_impl.h"
#include "mergegrid/device.h"
#include "mergegrid/text.h"

enum { MOST_SLOTS = 65535 /* that one launch multiplies with */ };

struct mg_cka_lane {
  mg_device *device;
  mg_queue *queue;
  size_t texts, width, entries, slots;
  float *features; /* of the device, as all that follow but the last */
  double *x, *sums, *grams, *parts, *products;
  double *answers; /* pinned [2, slots] */
};

static uint64_t padded(uint64_t bytes) { return (bytes + MG_DEVICE_ALIGN - 1) / MG_DEVICE_ALIGN * MG_DEVICE_ALIGN; }

static uint64_t bytes_of(const mg_device *device, size_t slots, size_t texts, size_t width) {
  const uint64_t entries = (uint64_t)texts * texts;
  return MG_QUEUE_BYTES + padded(texts * width * sizeof(float)) + padded(texts * width * sizeof(double)) +
         padded((texts + 1) * sizeof(double)) + padded(slots * 2 * entries * sizeof(double)) +
         padded(device->ops->dots_scratch((int)slots, (int64_t)entries)) + padded(2 * slots * sizeof(double));
}

static size_t most_slots(size_t sources) { return sources < MOST_SLOTS ? sources + 1 : MOST_SLOTS; }

void mg_cka_device_bytes(const mg_device *device, size_t sources, size_t texts, size_t width, uint64_t *least, uint64_t *wish) {
  *least = bytes_of(device, 2, texts, width);
  *wish = bytes_of(device, most_slots(sources), texts, width);
}

static mg_status take_memory(mg_cka_lane *l) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = l->device->ops;
  const size_t features = l->texts * l->width, grams = l->slots * 2 * l->entries;
  MG_TRY(ops->take(l->device, features * sizeof(float), "features", (void **)&l->features), done);
  MG_TRY(ops->take(l->device, features * sizeof(double), "centred features", (void **)&l->x), done);
  MG_TRY(ops->take(l->device, (l->texts + 1) * sizeof(double), "sums of rows", (void **)&l->sums), done);
  MG_TRY(ops->take(l->device, grams * sizeof(double), "Gram matrices of features", (void **)&l->grams), done);
  MG_TRY(ops->take(l->device, ops->dots_scratch((int)l->slots, (int64_t)l->entries), "parts of products", (void **)&l->parts),
         done);
  MG_TRY(ops->take(l->device, 2 * l->slots * sizeof(double), "products", (void **)&l->products), done);
  MG_TRY(ops->pin(l->device, 2 * l->slots * sizeof(double), (void **)&l->answers), done);
done:
  return status;
}

mg_status mg_cka_lane_create(mg_device *device, size_t sources, size_t texts, size_t width, mg_cka_lane **out) {
  mg_status status = MG_OK;
  mg_cka_lane *l = mg_alloc_zero(1, sizeof *l);
  *out = NULL;
  if (l == NULL) return MG_ERR_NOMEM;
  *l = (mg_cka_lane){.device = device, .texts = texts, .width = width, .entries = texts * texts, .slots = most_slots(sources)};
  while (l->slots > 2 && bytes_of(device, l->slots, texts, width) > device->ops->room(device)) l->slots--;
  MG_TRY(device->ops->open_queue(device, true, &l->queue), failed);
  MG_TRY(take_memory(l), failed);
  *out = l;
  return MG_OK;
failed:
  mg_cka_lane_destroy(&l);
  return status;
}

void mg_cka_lane_destroy(mg_cka_lane **lane) {
  mg_cka_lane *l = *lane;
  if (l == NULL) return;
  const mg_device_ops *ops = l->device->ops;
  ops->close_queue(l->queue); /* which waits until nothing is under way */
  ops->give(l->device, l->features), ops->give(l->device, l->x), ops->give(l->device, l->sums);
  ops->give(l->device, l->grams), ops->give(l->device, l->parts), ops->give(l->device, l->products);
  ops->unpin(l->device, l->answers);
  free(l);
  *lane = NULL;
}

size_t mg_cka_lane_slots(const mg_cka_lane *l) { return l->slots; }

mg_status mg_cka_lane_fill(mg_cka_lane *l, const float *features, size_t slot) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = l->device->ops;
  const int n = (int)l->texts, width = (int)l->width;
  double *to = l->grams + slot * 2 * l->entries;
  MG_TRY(ops->upload_any(l->queue, l->features, features, l->texts * l->width * sizeof *features), done);
  MG_TRY(ops->centre(l->queue, n, width, l->features, l->x), done);
  MG_TRY(ops->own_product(l->queue, n, width, l->x, to), done);
  if (n >= 4) MG_TRY(ops->u_centre(l->queue, n, to, l->sums, to + l->entries), done);
done:
  return status;
}

mg_status mg_cka_lane_multiply(mg_cka_lane *l, size_t slot, size_t count, const double **centred, const double **u_centred) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = l->device->ops;
  const int kinds = l->texts >= 4 ? 2 : 1;
  const int64_t entries = (int64_t)l->entries;
  for (int kind = 0; kind < kinds; kind++) {
    const double *all = l->grams + kind * entries, *own = all + (int64_t)slot * 2 * entries;
    MG_TRY(ops->dots(l->queue, (int)count, entries, all, 2 * entries, own, l->parts, l->products + (size_t)kind * count), done);
  }
  MG_TRY(ops->download(l->queue, l->answers, l->products, (size_t)kinds * count * sizeof(double)), done);
  MG_TRY(ops->finish(l->queue), done);
  *centred = l->answers, *u_centred = l->answers + count;
done:
  return status;
}
