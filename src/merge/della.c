/*
 * DELLA (Deep et al. 2024): a row's elements stay with a probability that rises with the rank of their magnitude, from
 * density − epsilon to density + epsilon.
 */

#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

/* Magnitudes are sorted by their upper bits first: 64 buckets an octave, which leave a few elements each of most rows. */
enum { BUCKET_SHIFT = 17, BUCKETS = 1 << (31 - BUCKET_SHIFT), FEW = 48 };

mg_status mg_check_della(const mg_formula *f) {
  if (f->drop_density - f->drop_spread > 0 && f->drop_density + f->drop_spread < 1) return MG_OK;
  return mg_fail(MG_ERR_INPUT,
                 "della keeps elements with probabilities from density - epsilon = %g to density + epsilon = %g; "
                 "both have to lie between 0 and 1",
                 f->drop_density - f->drop_spread, f->drop_density + f->drop_spread);
}

static uint32_t magnitude_of(const float *value) {
  uint32_t bits;
  memcpy(&bits, value, sizeof bits);
  return bits & 0x7FFFFFFFu;
}

static int compare(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* What is sorted already costs one comparison each. */
static void sort_bucket(uint64_t *items, size_t count) {
  size_t sorted = 1;
  while (sorted < count && items[sorted - 1] < items[sorted]) sorted++;
  if (sorted < count && count > FEW) {
    qsort(items, count, sizeof *items, compare);
    return;
  }
  for (size_t k = sorted; k < count; k++) {
    const uint64_t item = items[k];
    size_t at = k;
    for (; at > 0 && items[at - 1] > item; at--) items[at] = items[at - 1];
    items[at] = item;
  }
}

/* Positions by rising magnitude, equal ones as they stand: order [count] of magnitude's bits << 32 | position. ends [BUCKETS]:
   0, and 0 again after it. */
static void sort_row(const float *row, int64_t count, uint64_t *order, uint32_t *ends) {
  uint32_t low = BUCKETS - 1, high = 0, at = 0;
  for (int64_t k = 0; k < count; k++) {
    const uint32_t bucket = magnitude_of(&row[k]) >> BUCKET_SHIFT;
    ends[bucket]++;
    low = bucket < low ? bucket : low;
    high = bucket > high ? bucket : high;
  }
  for (uint32_t b = low; b <= high; b++) { /* where they begin, for now */
    const uint32_t here = ends[b];
    ends[b] = at;
    at += here;
  }
  for (int64_t k = 0; k < count; k++) {
    const uint32_t bits = magnitude_of(&row[k]);
    order[ends[bits >> BUCKET_SHIFT]++] = (uint64_t)bits << 32 | (uint32_t)k;
  }
  at = 0;
  for (uint32_t b = low; b <= high; b++) {
    if (ends[b] - at > 1) sort_bucket(order + at, ends[b] - at);
    at = ends[b];
    ends[b] = 0;
  }
}

void mg_rank_chances(const mg_formula *f, int64_t count, double *least, double *rise) {
  const double low = f->drop_density - f->drop_spread;
  *least = count > 1 ? low : f->drop_density; /* what is alone has no rank */
  *rise = count > 1 ? 2 * f->drop_spread / (double)(count - 1) : 0;
}

/* A row, in the order of its magnitudes. */
static void thin_out(float *row, int64_t count, const uint64_t *order, const uint32_t *words, const mg_formula *f,
                     float scale) {
  const bool inverse = f->rescale == MG_RESCALE_INVERSE;
  double least, rise;
  mg_rank_chances(f, count, &least, &rise);
  for (int64_t rank = 0; rank < count; rank++) {
    const uint32_t k = (uint32_t)order[rank];
    const double probability = least + rise * (double)rank;
    const float kept = inverse ? (float)((double)row[k] / probability) : row[k] * scale;
    uint32_t bits; /* masked, since no branch is foretold */
    memcpy(&bits, &kept, sizeof bits);
    bits &= 0U - (uint32_t)((double)words[k] < probability * 4294967296.0);
    memcpy(&row[k], &bits, sizeof bits);
  }
}

void mg_keep_by_rank(float *delta, int64_t first, int64_t count, int64_t row, const mg_stream *stream, const mg_formula *f,
                     float scale, uint32_t *words, uint64_t *order) {
  uint32_t ends[BUCKETS] = {0};
  mg_stream_words(stream, (uint64_t)first, (uint64_t)count, words);
  for (int64_t at = 0; at < count; at += row) {
    sort_row(delta + at, row, order, ends);
    thin_out(delta + at, row, order, words + at, f, scale);
  }
}
