/*
 * DELLA (Deep et al. 2024): a row's elements stay with a probability that rises with the rank of their magnitude, from
 * density − epsilon to density + epsilon.
 */

#include <string.h>

#include "merge_impl.h"

enum { DIGITS = 4, DIGIT_BITS = 8, BUCKETS = 1 << DIGIT_BITS };

mg_status mg_check_della(const mg_formula *f) {
  if (f->drop_density - f->drop_spread > 0 && f->drop_density + f->drop_spread < 1) return MG_OK;
  return mg_fail(MG_ERR_INPUT,
                 "della keeps elements with probabilities from density - epsilon = %g to density + epsilon = %g; "
                 "both have to lie between 0 and 1",
                 f->drop_density - f->drop_spread, f->drop_density + f->drop_spread);
}

/* Positions by rising magnitude, equal ones as they stand: order [count] of magnitude's bits << 32 | position, sorted digit by
   digit. other: scratch [count]. */
static void sort_row(const float *row, int64_t count, uint64_t *order, uint64_t *other) {
  uint32_t starts[DIGITS][BUCKETS] = {{0}};
  for (int64_t k = 0; k < count; k++) {
    uint32_t bits;
    memcpy(&bits, &row[k], sizeof bits);
    bits &= 0x7FFFFFFFu;
    order[k] = (uint64_t)bits << 32 | (uint32_t)k;
    for (int d = 0; d < DIGITS; d++) starts[d][bits >> (d * DIGIT_BITS) & (BUCKETS - 1)]++;
  }
  for (int d = 0; d < DIGITS; d++) {
    uint32_t at = 0;
    for (int b = 0; b < BUCKETS; b++) {
      const uint32_t here = starts[d][b];
      starts[d][b] = at;
      at += here;
    }
    const int shift = 32 + d * DIGIT_BITS;
    for (int64_t k = 0; k < count; k++) other[starts[d][order[k] >> shift & (BUCKETS - 1)]++] = order[k];
    uint64_t *sorted = other; /* an even number of digits: it ends where it began */
    other = order;
    order = sorted;
  }
}

void mg_keep_by_rank(float *delta, int64_t first, int64_t count, int64_t row, const mg_stream *stream, const mg_formula *f,
                     float scale, uint32_t *words, uint64_t *order) {
  const double low = f->drop_density - f->drop_spread, rise = row > 1 ? 2 * f->drop_spread / (double)(row - 1) : 0;
  const double least = row > 1 ? low : f->drop_density; /* what is alone has no rank */
  mg_stream_words(stream, (uint64_t)first, (uint64_t)count, words);
  for (int64_t at = 0; at < count; at += row) {
    sort_row(delta + at, row, order, order + row);
    for (int64_t rank = 0; rank < row; rank++) {
      const int64_t k = at + (int64_t)(uint32_t)order[rank];
      const double probability = least + rise * (double)rank;
      if (!((double)words[k] < probability * 4294967296.0))
        delta[k] = 0;
      else if (f->rescale == MG_RESCALE_INVERSE)
        delta[k] = (float)((double)delta[k] / probability);
      else
        delta[k] *= scale;
    }
  }
}
