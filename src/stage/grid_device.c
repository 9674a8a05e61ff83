/* A rank's device: the sources that the grid's merges read there. */

#include <stdlib.h>

#include "grid_impl.h"

/* What kernels are told: of pieces of 4096 elements 32 bytes each, and more of ranges that are shorter; twice, since pieces of
   whole rows are a list of their own, of up to twice as many. And what thresholds are counted with, rows thinned out, and a
   random head. */
uint64_t mg_grid_device_spare(const mg_encoder_shape *shape, const mg_tensor_table *table, size_t tokens, size_t all_tokens) {
  const uint64_t floats = mg_encoder_block_floats(shape, tokens);
  return (3 * floats / MG_PIECE_ELEMENTS + 2 * tokens) * sizeof(mg_device_piece) + (UINT64_C(32) << 20) +
         mg_device_thin_bytes() + mg_device_head_bytes(table) +
         mg_device_count_bytes(mg_encoder_block_floats(shape, all_tokens), all_tokens + 32 * ((size_t)shape->layers + 1));
}

/* A tensor begins on a boundary of 64 bytes. */
static size_t padded(const mg_tensor *tensor) { return ((size_t)tensor->numel + 15) / 16 * 16; }

static uint64_t whole_floats(const mg_tensor_table *table) {
  uint64_t floats = 0;
  for (size_t t = 0; t < table->count; t++) floats += padded(&table->tensors[t]);
  return floats;
}

uint64_t mg_grid_device_whole(const mg_tensor_table *table, size_t sources) {
  const uint64_t floats = whole_floats(table);
  return (sources + 1) * (floats * sizeof(float) + MG_DEVICE_ALIGN) + mg_device_count_bytes(floats, table->count);
}

/* Whole sources, where nearly as much would be read of them for thresholds and norms anyway, which then nobody waits for. */
static bool wants_whole(const mg_grid_device_terms *t) {
  const uint64_t need = t->spare + mg_grid_device_whole(mg_rows_table(t->deltas->rows), t->wanted_count);
  return 2 * t->scans >= (double)t->wanted_count && t->device->ops->room(t->device) >= need;
}

static mg_status list_whole(const mg_tensor_table *table, mg_range_list *list) {
  size_t offset = 0;
  list->items = mg_alloc(table->count, sizeof *list->items);
  if (list->items == NULL) return MG_ERR_NOMEM;
  list->room = table->count;
  for (size_t t = 0; t < table->count; t++) {
    list->items[list->count++] = (mg_range){.tensor = t, .count = table->tensors[t].numel, .offset = offset};
    offset += padded(&table->tensors[t]);
  }
  return MG_OK;
}

mg_status mg_grid_device_open(const mg_grid_device_terms *t, mg_range_list *whole, mg_device_store **store) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(t->deltas->rows);
  const bool all = wants_whole(t);
  const mg_store *host = all ? NULL : t->host; /* whose blocks are of rows */
  bool added;
  if (all) MG_TRY(list_whole(table, whole), done);
  const mg_range_list *ranges = all ? whole : t->rows;
  const mg_store where = {.range_count = ranges->count, .ranges = ranges->items};
  MG_TRY(mg_device_store_create(t->device, t->queue, &where, mg_rows_sources(t->deltas->rows),
                                all ? (size_t)whole_floats(table) : t->floats, t->spare, store),
         done);
  const float *base = host != NULL ? host->base : NULL; /* first: without it nothing is merged there */
  MG_TRY(mg_device_store_add(*store, t->queue, t->deltas, MG_ROW_BASE, base, mg_attempt_poll, t->poll, &added), done);
  for (size_t k = 0; k < t->wanted_count && added; k++) {
    const float *tau = host != NULL ? host->tau[t->wanted[k]] : NULL;
    MG_TRY(mg_device_store_add(*store, t->queue, t->deltas, t->wanted[k], tau, mg_attempt_poll, t->poll, &added), done);
  }
  mg_info("grid: %zu of %zu sources on the device%s", mg_device_store_sources(*store), t->wanted_count, all ? ", whole" : "");
done:
  return status;
}
