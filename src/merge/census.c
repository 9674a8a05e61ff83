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

static uint32_t magnitude_of(const float *value) {
  uint32_t bits;
  memcpy(&bits, value, sizeof bits);
  return bits & 0x7FFFFFFFu;
}

static void count_upper(uint64_t *bins, const float *values, int64_t count) {
  for (int64_t k = 0; k < count; k++) bins[magnitude_of(&values[k]) >> 16]++;
}

/* Few values lie in bins that are looked into: they are sought by runs, a comparison each that vectors make. */
static void count_lower(const mg_census *c, const float *values, int64_t count) {
  enum { RUN = 32 };
  for (int64_t at = 0; at < count; at += RUN) {
    const int64_t end = count - at < RUN ? count : at + RUN;
    uint32_t any = 0;
    if (end - at == RUN)
      for (int k = 0; k < RUN; k++) any |= magnitude_of(&values[at + k]) - c->lowest <= c->span;
    else
      any = 1;
    for (int64_t k = at; any && k < end; k++) {
      const uint32_t bits = magnitude_of(&values[k]);
      const int32_t index = c->index_of[bits >> 16];
      if (index >= 0) c->bins[(size_t)index * BINS + (bits & 0xFFFFu)]++;
    }
  }
}

void mg_census_add(mg_census *c, const float *values, int64_t count) {
  if (c->looked == 0)
    count_upper(c->bins, values, count);
  else
    count_lower(c, values, count);
}

void mg_census_add_counts(mg_census *c, size_t bin, const uint64_t *counts, size_t count) {
  for (size_t k = 0; k < count; k++) c->bins[bin * BINS + k] += counts[k];
}

/* The bin that holds the m-th from above; m becomes its rank within it. */
static uint32_t find_bin(const uint64_t *bins, uint64_t *m) {
  uint32_t bin = BINS;
  while (bin > 0 && *m > bins[bin - 1]) *m -= bins[--bin];
  return bin > 0 ? bin - 1 : 0;
}

mg_status mg_census_turn(mg_census *c) {
  uint32_t low = BINS - 1, high = 0;
  for (size_t k = 0; k < BINS; k++) c->index_of[k] = -1;
  for (size_t k = 0; k < c->count; k++) {
    c->own[k] = find_bin(c->bins, &c->left[k]);
    if (c->index_of[c->own[k]] < 0) c->index_of[c->own[k]] = (int32_t)c->looked++;
    low = c->own[k] < low ? c->own[k] : low;
    high = c->own[k] > high ? c->own[k] : high;
  }
  c->lowest = low << 16;
  c->span = (high - low) << 16 | 0xFFFFu;
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
