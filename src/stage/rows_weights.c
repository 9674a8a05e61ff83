/* A model as the shards (or checkpoints) give it: θ0 + τ, one rounding, tile by tile. */

#include <stdlib.h>

#include "stage_impl.h"

struct mg_row_weights {
  mg_rows *rows;
  const mg_source_list *list;
  int source;
  void *tile, *staging;
  float *base, *delta;
};

static ptrdiff_t find_tensor(const mg_row_weights *w, const char *name) {
  const mg_tensor_table *table = mg_rows_table(w->rows);
  for (size_t t = 0; t < table->count; t++)
    if (mg_weight_name_matches(table->tensors[t].name, name)) return (ptrdiff_t)t;
  return -1;
}

static bool find(void *context, const char *name, int *ndim, int64_t shape[8]) {
  const mg_row_weights *w = context;
  const ptrdiff_t t = find_tensor(w, name);
  if (t < 0) return false;
  const mg_tensor *tensor = &mg_rows_table(w->rows)->tensors[t];
  *ndim = tensor->ndim;
  for (int d = 0; d < tensor->ndim; d++) shape[d] = tensor->shape[d];
  return true;
}

static mg_status read_range(void *context, const char *name, int64_t first, int64_t count, float *out) {
  mg_status status = MG_OK;
  const mg_row_weights *w = context;
  const mg_dtype dtype = mg_rows_dtype(w->rows);
  const ptrdiff_t t = find_tensor(w, name);
  if (t < 0) return mg_fail(MG_ERR_INTERNAL, "no tensor %s", name);
  while (count > 0) {
    const int64_t leaf_end = (first / MG_LEAF + 1) * MG_LEAF;
    int64_t now = count < MG_TILE ? count : MG_TILE;
    float scale;
    if (first + now > leaf_end) now = leaf_end - first;
    MG_TRY(mg_rows_read(w->rows, &w->source, 1, (size_t)t, first, now, w->tile, MG_TILE * sizeof(float), &scale, w->base,
                        w->staging),
           done);
    mg_to_f32(w->delta, w->tile, dtype, (size_t)now, scale);
    for (int64_t k = 0; k < now; k++) out[k] = w->base[k] + w->delta[k];
    out += now;
    first += now;
    count -= now;
  }
done:
  return status;
}

mg_status mg_row_weights_open(mg_rows *rows, const mg_source_list *list, mg_row_weights **opened) {
  mg_row_weights *w = mg_alloc_zero(1, sizeof *w);
  if (w == NULL) return MG_ERR_NOMEM;
  *w = (mg_row_weights){.rows = rows, .list = list};
  w->tile = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  w->base = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  w->delta = mg_alloc_aligned(MG_TILE * sizeof(float));
  w->staging = mg_alloc_aligned(mg_rows_staging_bytes());
  *opened = w;
  if (w->tile != NULL && w->base != NULL && w->delta != NULL && w->staging != NULL) return MG_OK;
  mg_row_weights_close(opened);
  return mg_fail(MG_ERR_NOMEM, "out of memory");
}

void mg_row_weights_source(mg_row_weights *w, size_t k, mg_weights *weights) {
  w->source = (int)k;
  *weights = (mg_weights){.context = w, .origin = w->list->items[k].id, .find = find, .read = read_range};
}

void mg_row_weights_close(mg_row_weights **opened) {
  mg_row_weights *w = *opened;
  if (w == NULL) return;
  free(w->tile), free(w->base), free(w->delta), free(w->staging), free(w);
  *opened = NULL;
}
