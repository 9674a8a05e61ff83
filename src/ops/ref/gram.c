/* The order of operations as ops.h defines it, in plain C: right before fast. */

#include <float.h>
#include <math.h>
#include <string.h>

#include "ops_impl.h"

void mg_load_run(const mg_tile *tile, int k, int64_t first, int64_t count, float *to) {
  const char *row = tile->row[k];
  mg_to_f32(to, row + (size_t)first * mg_dtype_size(tile->dtype[k]), tile->dtype[k], (size_t)count, tile->scale[k]);
  const float *minus = tile->minus != NULL ? tile->minus[k] : NULL;
  for (int i = 0; minus != NULL && i < (int)count; i++) to[i] -= minus[first + i];
  for (int i = (int)count; i < mg_links(count) * MG_LINK; i++) to[i] = 0;
}

static void add_lanes(const float *x, const float *y, int padded, double *acc) {
  float lane[MG_LANES] = {0};
  for (int i = 0; i < padded; i += MG_LANES)
    for (int l = 0; l < MG_LANES; l++) lane[l] = fmaf(x[i + l], y[i + l], lane[l]);
  for (int d = 0; d < MG_ACCUMULATORS; d++) acc[d] += (double)lane[d] + (double)lane[d + MG_ACCUMULATORS];
}

static float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

/*
 * What rounds up to the smallest normal number counts as subnormal if 24 digits, with no bound on the exponent, would have told
 * it from that: its distance then is over half of such a digit. Where that is close the sum is exact in double, x and y having
 * 8 digits.
 */
static float flushing_fma(float x, float y, float a) {
  const float sum = fmaf(flushed(x), flushed(y), a);
  if (fabsf(sum) != FLT_MIN) return flushed(sum);
  const double exact = (double)flushed(x) * (double)flushed(y) + (double)a;
  return fabs(exact) < (double)FLT_MIN * (1 - 0x1p-25) ? copysignf(0, sum) : sum;
}

static void add_chains(const float *x, const float *y, int links, double *acc) {
  float sum = 0;
  for (int i = 0; i < links * MG_LINK; i += MG_LINK) {
    float even = 0, odd = 0;
    for (int k = 0; k < MG_LINK; k += 2) {
      even = flushing_fma(x[i + k], y[i + k], even);
      odd = flushing_fma(x[i + k + 1], y[i + k + 1], odd);
    }
    sum = flushed(sum + flushed(even + odd)); /* what two floats add up to below the normal numbers is exact */
  }
  acc[0] += (double)sum;
}

static void add_run(const float *x, const float *y, bool chained, int64_t count, double *acc) {
  if (chained)
    add_chains(x, y, mg_links(count), acc);
  else
    add_lanes(x, y, mg_padded(count), acc);
}

void mg_gram_triangle_ref(const mg_tile *tile, double *acc, void *scratch) {
  for (int64_t first = 0; first < tile->count; first += MG_RUN) {
    const int64_t count = tile->count - first < MG_RUN ? tile->count - first : MG_RUN;
    for (int k = 0; k < tile->rows; k++) mg_load_run(tile, k, first, count, mg_scratch_row(scratch, k));
    size_t pair = 0;
    for (int i = 0; i < tile->rows; i++)
      for (int j = i; j < tile->rows; j++, pair++)
        add_run(mg_scratch_row(scratch, i), mg_scratch_row(scratch, j), j < tile->chained, count, acc + MG_ACCUMULATORS * pair);
  }
}

void mg_gram_rectangle_ref(const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  for (int64_t first = 0; first < a->count; first += MG_RUN) {
    const int64_t count = a->count - first < MG_RUN ? a->count - first : MG_RUN;
    for (int k = 0; k < a->rows; k++) mg_load_run(a, k, first, count, mg_scratch_row(scratch, k));
    for (int k = 0; k < b->rows; k++) mg_load_run(b, k, first, count, mg_scratch_row(scratch, a->rows + k));
    for (int i = 0; i < a->rows; i++)
      for (int j = 0; j < b->rows; j++)
        add_run(mg_scratch_row(scratch, i), mg_scratch_row(scratch, a->rows + j), i < a->chained && j < b->chained, count,
                acc + MG_ACCUMULATORS * ((size_t)i * (size_t)b->rows + (size_t)j));
  }
}

const mg_ops mg_ops_ref = {
    .name = "ref", .kernel = "portable", .gram_triangle = mg_gram_triangle_ref, .gram_rectangle = mg_gram_rectangle_ref};
