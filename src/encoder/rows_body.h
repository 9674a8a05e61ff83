/*
 * The row operations in vectors of 16 floats, which the compiler maps to one, two or four registers: included once an
 * instruction set, with KERNELS and KERNELS_NAME set. Coefficients are Chebyshev fits made for these intervals (erf(x)/x in x²
 * on [0, 1], −log erfc on [1, 4], exp on ±log(2)/2).
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rows_impl.h"

enum { LANES = 16 };
typedef float vf __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * sizeof(int32_t))));

#define INLINE static inline __attribute__((always_inline))

INLINE vf splat(float x) { return x - (vf){0}; } /* keeps the sign of a zero */
INLINE vf load(const float *p) { return *(const vf *)(const void *)p; }
INLINE void store(float *p, vf x) { *(vf *)(void *)p = x; }
INLINE vf load_some(const float *p, long n) {
  float all[LANES] = {0};
  memcpy(all, p, (size_t)n * sizeof(float));
  return load(all);
}
INLINE void store_some(float *p, vf x, long n) {
  float all[LANES];
  store(all, x);
  memcpy(p, all, (size_t)n * sizeof(float));
}
/* where mask then a else b */
INLINE vf choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
/* false for a NaN */
INLINE vi is_number(vf x) { return x == x; } /* NOLINT(misc-redundant-expression) */
INLINE vf largest(vf a, vf b) { return choose(a > b, a, b); }

INLINE float sum(vf x) {
  float a[LANES];
  store(a, x);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int l = 0; l < half; l++) a[l] += a[l + half];
  return a[0];
}

INLINE float maximum(vf x) {
  float a[LANES];
  store(a, x);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int l = 0; l < half; l++) a[l] = a[l] > a[l + half] ? a[l] : a[l + half];
  return a[0];
}

/* exp(x) for x ≤ 0, 0 below −87 (subnormal results are not worth their cost); a NaN stays one. */
INLINE vf exp_negative(vf x) {
  const vf clamped = choose(x < splat(-87.0f), splat(-87.0f), x);
  const vf magic = splat(12582912.0f); /* 1.5 · 2^23: adding it rounds to a whole number */
  const vf shifted = clamped * splat(1.44269504f) + magic;
  const vf whole = shifted - magic;
  const vf r = (clamped - whole * splat(0.693359375f)) - whole * splat(-2.12194440e-4f);
  vf p = splat(1.394858118e-3f);
  p = p * r + splat(8.375128731e-3f);
  p = p * r + splat(4.1666217148e-2f);
  p = p * r + splat(1.66664153337e-1f);
  p = p * r + splat(0.5f);
  p = p * r + splat(1.0f);
  p = p * r + splat(1.0f);
  const vi exponent = ((vi)shifted - (vi)magic) << 23;
  const vf scaled = (vf)((vi)p + exponent);
  return choose(x < splat(-87.0f), splat(0), choose(is_number(x), scaled, x));
}

INLINE vf erf_of(vf x) {
  const vi sign = (vi)x & (vi)splat(-0.0f);
  const vf a = (vf)((vi)x & ~(vi)splat(-0.0f)), t = a * a;
  vf small = splat(7.882497448e-5f);
  small = small * t + splat(-8.018855006e-4f);
  small = small * t + splat(5.189312156e-3f);
  small = small * t + splat(-2.6854328811e-2f);
  small = small * t + splat(1.12835973501e-1f);
  small = small * t + splat(-3.76126259565e-1f);
  small = small * t + splat(1.12837910652f);
  small = small * a;
  const vf b = choose(a > splat(4.0f), splat(4.0f), a);
  vf q = splat(-1.6140616e-6f);
  q = q * b + splat(4.5590623e-5f);
  q = q * b + splat(-5.9276953e-4f);
  q = q * b + splat(4.7402224e-3f);
  q = q * b + splat(-2.63647176e-2f);
  q = q * b + splat(1.099782437e-1f);
  q = q * b + splat(6.319370866e-1f);
  q = q * b + splat(1.1301666498f);
  q = q * b + splat(-3.03213019e-4f);
  const vf large = splat(1.0f) - exp_negative(-q);
  return (vf)((vi)choose(a < splat(1.0f), small, large) | sign);
}

INLINE vf gelu_of(vf x) {
  const vf y = splat(0.5f) * x * (splat(1.0f) + erf_of(x * splat(0.70710678f)));
  return choose(is_number(x), y, x);
}

static void gelu(float *x, long n) {
  long k = 0;
  for (; k + LANES <= n; k += LANES) store(x + k, gelu_of(load(x + k)));
  if (k < n) store_some(x + k, gelu_of(load_some(x + k, n - k)), n - k);
}

/* The head's, once a text: the library's is good enough. */
static void tanh_all(float *x, long n) {
  for (long k = 0; k < n; k++) x[k] = tanhf(x[k]);
}

static void layer_norm(float *out, const float *in, const float *gain, const float *bias, long rows, long n, float epsilon) {
  const long whole = n - n % LANES;
  for (long r = 0; r < rows; r++, in += n, out += n) {
    vf total = splat(0);
    for (long k = 0; k < whole; k += LANES) total += load(in + k);
    if (whole < n) total += load_some(in + whole, n - whole);
    const float mean = sum(total) / (float)n;
    vf squares = splat(0);
    for (long k = 0; k < whole; k += LANES) {
      const vf d = load(in + k) - mean;
      squares += d * d;
    }
    float variance = sum(squares);
    for (long k = whole; k < n; k++) variance += (in[k] - mean) * (in[k] - mean);
    const float inverse = 1.0f / sqrtf(variance / (float)n + epsilon);
    for (long k = 0; k < whole; k += LANES) store(out + k, (load(in + k) - mean) * inverse * load(gain + k) + load(bias + k));
    for (long k = whole; k < n; k++) out[k] = (in[k] - mean) * inverse * gain[k] + bias[k];
  }
}

static void softmax_row(float *x, long n, float scale) {
  const long whole = n - n % LANES, rest = n - whole;
  vf top = splat(-INFINITY);
  for (long k = 0; k < whole; k += LANES) top = largest(load(x + k), top);
  float most = maximum(top);
  for (long k = whole; k < n; k++) most = x[k] > most ? x[k] : most;
  vf total = splat(0);
  for (long k = 0; k < whole; k += LANES) {
    const vf e = exp_negative((load(x + k) - most) * scale);
    store(x + k, e);
    total += e;
  }
  if (rest > 0) {
    float e[LANES];
    store(e, exp_negative((load_some(x + whole, rest) - most) * scale));
    for (long k = rest; k < LANES; k++) e[k] = 0;
    total += load(e);
    memcpy(x + whole, e, (size_t)rest * sizeof(float));
  }
  const float inverse = 1.0f / sum(total);
  for (long k = 0; k < whole; k += LANES) store(x + k, load(x + k) * inverse);
  for (long k = whole; k < n; k++) x[k] *= inverse;
}

static void softmax(float *x, long rows, long n, long stride, float scale) {
  for (long r = 0; r < rows; r++) softmax_row(x + r * stride, n, scale);
}

static void attend(const float *q, const float *k, const float *v, long queries, long keys, long width, long stride,
                   long q_stride, float scale, float *out, long out_stride, float *probabilities, float *transposed) {
  const long padded = (keys + LANES - 1) / LANES * LANES;
  for (long d = 0; d < width; d++) {
    for (long j = 0; j < keys; j++) transposed[d * padded + j] = k[j * stride + d];
    for (long j = keys; j < padded; j++) transposed[d * padded + j] = 0;
  }
  for (long i = 0; i < queries; i++) {
    const float *query = q + i * q_stride;
    float *p = probabilities + i * padded;
    for (long j = 0; j < padded; j += LANES) {
      vf dot = splat(0);
      for (long d = 0; d < width; d++) dot += load(transposed + d * padded + j) * query[d];
      store(p + j, dot);
    }
    softmax_row(p, keys, scale);
    for (long d = 0; d < width; d += LANES) {
      vf mix = splat(0);
      for (long j = 0; j < keys; j++) mix += load(v + j * stride + d) * p[j];
      if (d + LANES <= width)
        store(out + i * out_stride + d, mix);
      else
        store_some(out + i * out_stride + d, mix, width - d);
    }
  }
}

const mg_row_kernels KERNELS = {
    .name = KERNELS_NAME, .gelu = gelu, .tanh = tanh_all, .layer_norm = layer_norm, .softmax = softmax, .attend = attend};
