/* Quantities of whole sources: tiles of one source in turn, and the exact rank of a magnitude. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/text.h"

mg_status mg_source_reader_create(mg_rows *rows, mg_source_reader *r) {
  *r = (mg_source_reader){.rows = rows};
  r->tile = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  r->base = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  r->values = mg_alloc_aligned(MG_TILE * sizeof(float));
  r->staging = mg_alloc_aligned(mg_rows_staging_bytes());
  return r->tile && r->base && r->values && r->staging ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
}

void mg_source_reader_free(mg_source_reader *r) {
  free(r->tile), free(r->base), free(r->values), free(r->staging);
  *r = (mg_source_reader){0};
}

mg_status mg_source_reader_tensor(mg_source_reader *r, int source, size_t t, mg_tile_visit visit, void *context) {
  mg_status status = MG_OK;
  const int64_t numel = mg_rows_table(r->rows)->tensors[t].numel;
  for (int64_t first = 0; first < numel; first += MG_TILE) { /* tiles divide leaves */
    const int64_t count = numel - first < MG_TILE ? numel - first : MG_TILE;
    float scale;
    MG_TRY(mg_rows_read(r->rows, &source, 1, t, first, count, r->tile, MG_TILE * sizeof(float), &scale, r->base, r->staging),
           done);
    mg_to_f32(r->values, r->tile, mg_rows_dtype(r->rows), (size_t)count, scale);
    visit(context, r->values, first, count);
  }
done:
  return status;
}

enum { BINS = 1 << 16 };

typedef struct census {
  uint64_t *bins; /* [BINS] */
  uint32_t high;  /* second pass: only magnitudes with these upper 16 bits */
  bool second;
} census;

/* Magnitudes order as the bits of non-negative floats do. */
static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits & 0x7FFFFFFFu;
}

static void count_tile(void *context, const float *values, int64_t first, int64_t count) {
  census *c = context;
  (void)first;
  for (int64_t k = 0; k < count; k++) {
    const uint32_t bits = bits_of(values[k]);
    if (!c->second)
      c->bins[bits >> 16]++;
    else if (bits >> 16 == c->high)
      c->bins[bits & 0xFFFFu]++;
  }
}

/* The bin that holds the m-th from above; m becomes its rank within it. */
static uint32_t find_bin(const uint64_t *bins, uint64_t *m) {
  uint32_t bin = BINS;
  while (bin > 0 && *m > bins[bin - 1]) *m -= bins[--bin];
  return bin > 0 ? bin - 1 : 0;
}

mg_status mg_magnitude_rank(mg_rows *rows, int source, const bool *take, uint64_t m, float *magnitude) {
  mg_status status = MG_OK;
  mg_source_reader reader = {0};
  census c = {.bins = mg_alloc_zero(BINS, sizeof *c.bins)};
  *magnitude = 0;
  if (m == 0) goto cleanup;
  if (c.bins == NULL) status = MG_ERR_NOMEM;
  if (status == MG_OK) status = mg_source_reader_create(rows, &reader);
  for (int pass = 0; pass < 2 && status == MG_OK; pass++) {
    c.second = pass == 1;
    for (size_t t = 0; t < mg_rows_table(rows)->count && status == MG_OK; t++)
      if (take == NULL || take[t]) status = mg_source_reader_tensor(&reader, source, t, count_tile, &c);
    if (pass == 1 || status != MG_OK) break;
    c.high = find_bin(c.bins, &m);
    memset(c.bins, 0, BINS * sizeof *c.bins);
  }
  if (status == MG_OK) {
    const uint32_t bits = c.high << 16 | find_bin(c.bins, &m);
    memcpy(magnitude, &bits, sizeof bits);
  }
cleanup:
  free(c.bins);
  mg_source_reader_free(&reader);
  return status;
}
