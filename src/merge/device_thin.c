/* Rows of what a device holds, thinned out there by the ranks of their magnitudes, a few pieces at a time. */

#include "device.h"

/* As much as caches of devices hold, since merges read at once what was written; and enough to keep every processor busy. */
enum { ROOM_PIECES = 1024 };

uint64_t mg_device_thin_bytes(void) { return (uint64_t)ROOM_PIECES * MG_PIECE_ELEMENTS * sizeof(float) + MG_DEVICE_ALIGN; }

mg_status mg_device_thin_begin(mg_device_store *s, bool *able) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  *able = s->thinned != NULL;
  if (*able || ops->room(s->device) < mg_device_thin_bytes()) return MG_OK;
  MG_TRY(ops->take(s->device, mg_device_thin_bytes() - MG_DEVICE_ALIGN, "rows that are thinned out", (void **)&s->thinned),
         done);
  *able = true;
done:
  return status;
}

uint32_t mg_device_thin_most(size_t sources, int64_t row) {
  return row <= MG_PIECE_ELEMENTS && sources > 0 ? (uint32_t)(ROOM_PIECES / sources) : 0;
}

float *mg_device_thin_place(const mg_device_store *store, size_t sources, size_t source) {
  return store->thinned + source * (ROOM_PIECES / sources) * MG_PIECE_ELEMENTS;
}
