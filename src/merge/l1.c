/*
 * L1 norms that hang on no order: magnitudes are whole multiples of powers of two, which are added up exponent by exponent in
 * whole numbers. So a device may add in any order, and only at the end is anything rounded.
 */

#include <math.h>
#include <string.h>

#include "merge_impl.h"

enum { NOT_FINITE = MG_L1_BINS - 1, BIAS = 150 /* of the exponent, and the fraction's 23 bits */ };

/* What a magnitude adds to its bin: its fraction, with the bit that is not written; of what is not finite a one, NaN apart. */
static uint64_t term_of(uint32_t bits, uint32_t bin) {
  const uint32_t fraction = bits & 0x7FFFFFu;
  if (bin == NOT_FINITE) return fraction != 0 ? UINT64_C(1) << 32 : 1;
  return fraction | (uint32_t)(bin > 0) << 23;
}

/* Neighbours are added to tables of their own, since most would wait for the same bin. */
void mg_l1_add(mg_l1 *norm, const float *values, int64_t count) {
  enum { TABLES = 4 };
  uint64_t own[TABLES][MG_L1_BINS] = {{0}};
  for (int64_t k = 0; k < count; k++) {
    uint32_t bits;
    memcpy(&bits, &values[k], sizeof bits);
    const uint32_t bin = bits >> 23 & 0xFFu;
    own[k % TABLES][bin] += term_of(bits, bin);
  }
  for (int t = 0; t < TABLES; t++) mg_l1_add_counts(norm, own[t]);
}

void mg_l1_add_counts(mg_l1 *norm, const uint64_t *bins) {
  for (int b = 0; b < MG_L1_BINS; b++) norm->bins[b] += bins[b];
}

/* From the smallest exponent up; 0 is that of subnormal numbers, whose unit is that of 1. */
double mg_l1_value(const mg_l1 *norm) {
  const uint64_t wild = norm->bins[NOT_FINITE];
  double total = 0;
  if (wild > 0) return wild >> 32 > 0 ? (double)NAN : (double)INFINITY;
  for (int b = 0; b < NOT_FINITE; b++) total += ldexp((double)norm->bins[b], (b > 0 ? b : 1) - BIAS);
  return total;
}
