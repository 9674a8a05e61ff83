/*
 * How fast one thread gets the tiles of all sources from packed shards, with nothing computed from them:
 *   bench_rows SHARDS_DIR [PART PARTS]   the PARTth (from 0) of PARTS equal shares of the leaves, as a rank would
 */
#include <stdio.h>
#include <stdlib.h>

#include "mergegrid/log.h"
#include "mergegrid/shard.h"

typedef struct buffers {
  char *tile;
  float *base, *scale;
  void *staging;
  int *ids;
  size_t stride;
} buffers;

static mg_status buffers_create(const mg_rows *rows, buffers *b) {
  const size_t sources = mg_rows_sources(rows);
  b->stride = MG_TILE * mg_dtype_size(mg_rows_dtype(rows)) + MG_ROW_ALIGN;
  b->tile = mg_alloc_aligned(sources * b->stride);
  b->base = mg_alloc_aligned(MG_TILE * sizeof(float));
  b->scale = mg_alloc(sources, sizeof *b->scale);
  b->staging = mg_alloc_aligned(mg_rows_staging_bytes());
  b->ids = mg_alloc(sources, sizeof *b->ids);
  if (!b->tile || !b->base || !b->scale || !b->staging || !b->ids) return MG_ERR_NOMEM;
  for (size_t k = 0; k < sources; k++) b->ids[k] = (int)k;
  return MG_OK;
}

static void buffers_free(buffers *b) { free(b->tile), free(b->base), free(b->scale), free(b->staging), free(b->ids); }

static mg_status read_leaf(mg_rows *rows, buffers *b, size_t tensor, int64_t first, int64_t end) {
  mg_status status = MG_OK;
  for (; first < end && status == MG_OK; first += MG_TILE)
    status = mg_rows_read(rows, b->ids, (int)mg_rows_sources(rows), tensor, first,
                          end - first < MG_TILE ? end - first : MG_TILE, b->tile, b->stride, b->scale, b->base, b->staging);
  return status;
}

static mg_status read_part(mg_rows *rows, buffers *b, int64_t part, int64_t parts, int64_t *elements) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(rows);
  int64_t leaves = 0, leaf = 0;
  for (size_t t = 0; t < table->count; t++) leaves += (table->tensors[t].numel + MG_LEAF - 1) / MG_LEAF;
  for (size_t t = 0; t < table->count; t++)
    for (int64_t first = 0; first < table->tensors[t].numel; first += MG_LEAF, leaf++) {
      if (leaf * parts / leaves != part) continue;
      const int64_t left = table->tensors[t].numel - first, count = left < MG_LEAF ? left : MG_LEAF;
      MG_TRY(read_leaf(rows, b, t, first, first + count), done);
      *elements += count;
    }
done:
  return status;
}

int main(int argc, char **argv) {
  mg_status status = MG_OK;
  mg_source_list list = {0};
  mg_rows *rows = NULL;
  buffers b = {0};
  int64_t elements = 0;
  const int64_t part = argc > 3 ? atoll(argv[2]) : 0, parts = argc > 3 ? atoll(argv[3]) : 1;
  if (argc < 2 || part < 0 || part >= parts) {
    fprintf(stderr, "usage: bench_rows SHARDS_DIR [PART PARTS]\n");
    return 2;
  }
  MG_TRY(mg_shard_list(argv[1], &list), cleanup);
  MG_TRY(mg_rows_open_shards(argv[1], &list, mg_file_cache_bound(), &rows), cleanup);
  MG_TRY(buffers_create(rows, &b), cleanup);
  const double began = mg_now();
  MG_TRY(read_part(rows, &b, part, parts, &elements), cleanup);
  const double seconds = mg_now() - began;
  const double bytes = (double)elements * ((double)list.count * mg_rows_bytes_per_element(rows) + sizeof(float));
  printf("rows %.4g GB in %.4f s: %.3f GB/s\n", bytes / 1e9, seconds, bytes / seconds / 1e9);
cleanup:
  if (status != MG_OK) fprintf(stderr, "bench_rows: %s\n", mg_error_message());
  buffers_free(&b);
  mg_rows_close(&rows);
  mg_source_list_free(&list);
  return status == MG_OK ? 0 : 1;
}
