/* Exact ranks of magnitudes in two turns over them: first their upper 16 bits are counted, then the lower ones where it
 * matters. */

#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

enum { BINS = 1 << 16 };

mg_status mg_census_begin(const uint64_t *ranks, size_t count, mg_census *c) {
  *c = (mg_census){.count = count};
  c->left = mg_alloc(count, sizeof *c->left);
  c->own = mg_alloc_zero(count, sizeof *c->own);
  c->bins = mg_alloc_zero(BINS, sizeof *c->bins);
  c->index_of = mg_alloc(BINS, sizeof *c->index_of);
  if (!c->left || !c->own || !c->bins || !c->index_of) {
    mg_census_free(c);
    return MG_ERR_NOMEM;
  }
  memcpy(c->left, ranks, count * sizeof *ranks);
  return MG_OK;
}

void mg_census_free(mg_census *c) {
  free(c->left), free(c->own), free(c->bins), free(c->index_of);
  *c = (mg_census){0};
}

void mg_census_add(mg_census *c, const float *values, int64_t count) {
  for (int64_t k = 0; k < count; k++) {
    uint32_t bits;
    memcpy(&bits, &values[k], sizeof bits);
    bits &= 0x7FFFFFFFu;
    if (c->looked == 0)
      c->bins[bits >> 16]++;
    else if (c->index_of[bits >> 16] >= 0)
      c->bins[(size_t)c->index_of[bits >> 16] * BINS + (bits & 0xFFFFu)]++;
  }
}

/* The bin that holds the m-th from above; m becomes its rank within it. */
static uint32_t find_bin(const uint64_t *bins, uint64_t *m) {
  uint32_t bin = BINS;
  while (bin > 0 && *m > bins[bin - 1]) *m -= bins[--bin];
  return bin > 0 ? bin - 1 : 0;
}

mg_status mg_census_turn(mg_census *c) {
  for (size_t k = 0; k < BINS; k++) c->index_of[k] = -1;
  for (size_t k = 0; k < c->count; k++) {
    c->own[k] = find_bin(c->bins, &c->left[k]);
    if (c->index_of[c->own[k]] < 0) c->index_of[c->own[k]] = (int32_t)c->looked++;
  }
  free(c->bins);
  c->bins = mg_alloc_zero(c->looked * BINS, sizeof *c->bins);
  return c->bins != NULL ? MG_OK : MG_ERR_NOMEM;
}

void mg_census_values(const mg_census *c, double *values) {
  for (size_t k = 0; k < c->count; k++) {
    uint64_t left = c->left[k];
    const uint32_t bits = c->own[k] << 16 | find_bin(c->bins + (size_t)c->index_of[c->own[k]] * BINS, &left);
    float value;
    memcpy(&value, &bits, sizeof value);
    values[k] = c->left[k] > 0 ? (double)value : 0;
  }
}
