/*
 * The row operations in vectors of LANES floats, one register each: included once an instruction set, with LANES, KERNELS and
 * KERNELS_NAME set. Sums go by lanes, so the numeric mode names the set. Coefficients are minimax fits made for
 * these intervals (−log2 Φ(−x) on [0, 4√2], exp2 on ±1/2, exp on ±log(2)/2, tanh on [0, 0.6]).
 */

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rows_impl.h"

typedef float vf __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * sizeof(int32_t))));

/* x with its lanes turned by `distance`, a power of two; the two halves of x and y interleaved, first and second half. */
#if LANES == 16
#define TURN_8(x)            __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define TURN_4(x)            __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define TURN_2(x)            __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define TURN_1(x)            __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#define INTERLEAVE_LOW(x, y) __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_TOP(x, y) __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define TURNS                4
#elif LANES == 8
#define TURN_4(x)            __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3)
#define TURN_2(x)            __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5)
#define TURN_1(x)            __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6)
#define INTERLEAVE_LOW(x, y) __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVE_TOP(x, y) __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15)
#define TURNS                3
#else
#define TURN_2(x)            __builtin_shufflevector(x, x, 2, 3, 0, 1)
#define TURN_1(x)            __builtin_shufflevector(x, x, 1, 0, 3, 2)
#define INTERLEAVE_LOW(x, y) __builtin_shufflevector(x, y, 0, 4, 1, 5)
#define INTERLEAVE_TOP(x, y) __builtin_shufflevector(x, y, 2, 6, 3, 7)
#define TURNS                2
#endif

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
INLINE vf choose(vi mask, vf a, vf b) {
#if LANES == 8 && defined(__AVX2__)
  return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
  return (vf)((mask & (vi)a) | (~mask & (vi)b));
#endif
}
/* false for a NaN */
INLINE vi is_number(vf x) { return x == x; } /* NOLINT(misc-redundant-expression) */
INLINE vf largest(vf a, vf b) { return choose(a > b, a, b); }

/* a · b + c, with one rounding where the machine has that. */
INLINE vf fused(vf a, vf b, vf c) {
#if LANES == 16 && defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LANES == 8 && defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FP_FAST_FMAF)
  for (int l = 0; l < LANES; l++) c[l] = __builtin_fmaf(a[l], b[l], c[l]);
  return c;
#else
  return a * b + c;
#endif
}

INLINE float fused1(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

INLINE float sum(vf x) {
#if LANES >= 16
  x += TURN_8(x);
#endif
#if LANES >= 8
  x += TURN_4(x);
#endif
  x += TURN_2(x);
  return (x + TURN_1(x))[0];
}

INLINE float maximum(vf x) {
#if LANES >= 16
  x = largest(x, TURN_8(x));
#endif
#if LANES >= 8
  x = largest(x, TURN_4(x));
#endif
  x = largest(x, TURN_2(x));
  return largest(x, TURN_1(x))[0];
}

/* LANES vectors as a matrix, transposed: interleaving its halves rotates the bits of an element's index by one, and half a turn
   of them exchanges row and column. */
INLINE void transpose(vf a[LANES]) {
  vf b[LANES];
  for (int turn = 0; turn < TURNS; turn++) {
    for (int i = 0; i < LANES / 2; i++) {
      b[2 * i] = INTERLEAVE_LOW(a[i], a[i + LANES / 2]);
      b[2 * i + 1] = INTERLEAVE_TOP(a[i], a[i + LANES / 2]);
    }
    for (int i = 0; i < LANES; i++) a[i] = b[i];
  }
}

/* exp(x) for −87 ≤ x ≤ 0. */
INLINE vf exp_within(vf x) {
  const vf magic = splat(12582912.0f); /* 1.5 · 2^23: adding it rounds to a whole number */
  const vf shifted = fused(x, splat(1.44269504f), magic);
  const vf whole = shifted - magic;
  const vf r = fused(whole, splat(2.12194440e-4f), fused(whole, splat(-0.693359375f), x));
  vf p = splat(1.394858118e-3f);
  p = fused(p, r, splat(8.375128731e-3f));
  p = fused(p, r, splat(4.1666217148e-2f));
  p = fused(p, r, splat(1.66664153337e-1f));
  p = fused(p, r, splat(0.5f));
  p = fused(p, r, splat(1.0f));
  p = fused(p, r, splat(1.0f));
  return (vf)((vi)p + (((vi)shifted - (vi)magic) << 23));
}

/* exp(x) for x ≤ 0, 0 below −87 (subnormal results are not worth their cost); a NaN stays one. */
INLINE vf exp_negative(vf x) {
  const vi deep = x < splat(-87.0f);
  const vf y = exp_within(choose(deep, splat(-87.0f), x));
  return choose(deep, splat(0), choose(is_number(x), y, x));
}

/*
 * x Φ(x) = max(x, 0) − |x| Φ(−|x|), and Φ(−b) = 2^−q(b): good on both sides of zero. Past 4√2 Φ(−|x|) is below an ulp of 1, so
 * that b stops there.
 */
INLINE vf gelu_of(vf x) {
  const vf magnitude = (vf)((vi)x & ~(vi)splat(-0.0f)), most = splat(5.6568542f);
  const vf b = choose(magnitude > most, most, magnitude);
  vf q = splat(2.8348759985e-6f);
  q = fused(q, b, splat(-3.9377320540e-5f));
  q = fused(q, b, splat(1.8617877943e-4f));
  q = fused(q, b, splat(1.3693924967e-4f));
  q = fused(q, b, splat(-7.0634231253e-3f));
  q = fused(q, b, splat(5.2496179946e-2f));
  q = fused(q, b, splat(4.5920819628e-1f));
  q = fused(q, b, splat(1.1511052053f));
  q = fused(q, b, splat(1.0f));
  const vf magic = splat(12582912.0f); /* 1.5 · 2^23: adding it rounds to a whole number */
  const vf shifted = magic - q;
  const vf r = (magic - shifted) - q;
  vf p = splat(1.5353362019e-4f);
  p = fused(p, r, splat(1.3398874511e-3f));
  p = fused(p, r, splat(9.6184373580e-3f));
  p = fused(p, r, splat(5.5503324709e-2f));
  p = fused(p, r, splat(2.4022647914e-1f));
  p = fused(p, r, splat(6.9314720286e-1f));
  p = fused(p, r, splat(1.0f));
  const vf tail = (vf)((vi)p + ((vi)shifted << 23)); /* what magic has there is shifted out */
  return fused(-b, tail, largest(splat(0), x));
}

static void gelu(float *x, long n) {
  long k = 0;
  for (; k + 2 * LANES <= n; k += 2 * LANES) { /* one vector's polynomials are a chain: a second fills its gaps */
    const vf a = gelu_of(load(x + k)), b = gelu_of(load(x + k + LANES));
    store(x + k, a);
    store(x + k + LANES, b);
  }
  for (; k + LANES <= n; k += LANES) store(x + k, gelu_of(load(x + k)));
  if (k < n) store_some(x + k, gelu_of(load_some(x + k, n - k)), n - k);
}

/* (1 − e) / (1 + e) of e = exp(−2 |x|), where that cancels a series in x. Past 10 it is 1. */
INLINE vf tanh_of(vf x) {
  const vf sign = (vf)((vi)x & (vi)splat(-0.0f)), a = (vf)((vi)x ^ (vi)sign), most = splat(10.0f);
  const vf e = exp_within(splat(-2.0f) * choose(a > most, most, a));
  const vf z = a * a;
  vf p = splat(-5.9058673867e-3f);
  p = fused(p, z, splat(2.0805383834e-2f));
  p = fused(p, z, splat(-5.3786683391e-2f));
  p = fused(p, z, splat(1.3331958241e-1f));
  p = fused(p, z, splat(-3.3333299272e-1f));
  const vf small = fused(p * z, a, a);
  const vf large = (splat(1.0f) - e) / (splat(1.0f) + e);
  const vf y = choose(a < splat(0.6f), small, large);
  return choose(is_number(x), (vf)((vi)y | (vi)sign), x);
}

static void tanh_all(float *x, long n) {
  const long whole = n - n % LANES;
  for (long k = 0; k < whole; k += LANES) store(x + k, tanh_of(load(x + k)));
  if (whole < n) store_some(x + whole, tanh_of(load_some(x + whole, n - whole)), n - whole);
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
      squares = fused(d, d, squares);
    }
    float variance = sum(squares);
    for (long k = whole; k < n; k++) variance = fused1(in[k] - mean, in[k] - mean, variance);
    const float inverse = 1.0f / sqrtf(variance / (float)n + epsilon);
    for (long k = 0; k < whole; k += LANES)
      store(out + k, fused((load(in + k) - mean) * inverse, load(gain + k), load(bias + k)));
    for (long k = whole; k < n; k++) out[k] = fused1((in[k] - mean) * inverse, gain[k], bias[k]);
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

/* ---- attention of short sequences ---- */

enum { ABREAST = 8 }; /* sums under way at once: a fused multiply-add has to wait for the one before it */

typedef struct head {
  const float *k, *v;
  long keys, width, stride;
  float scale;
} head;

/* Up to LANES queries side by side: packed [width rounded up][LANES]. */
static void pack_queries(const float *q, long rows, long q_stride, long width, float *packed) {
  for (long d = 0; d < width; d += LANES) {
    vf block[LANES];
    for (int i = 0; i < LANES; i++) block[i] = load(q + (i < rows ? i : 0) * q_stride + d);
    transpose(block);
    for (int i = 0; i < LANES; i++) store(packed + (d + i) * LANES, block[i]);
  }
}

/* scores [keys][LANES] = q kᵀ */
static void score_queries(const head *h, const float *packed, float *scores) {
  long j = 0;
  for (; j + ABREAST <= h->keys; j += ABREAST) {
    const float *k = h->k + j * h->stride;
    vf dot[ABREAST] = {0};
    for (long d = 0; d < h->width; d++)
      for (int u = 0; u < ABREAST; u++) dot[u] = fused(splat(k[u * h->stride + d]), load(packed + d * LANES), dot[u]);
    for (int u = 0; u < ABREAST; u++) store(scores + (j + u) * LANES, dot[u]);
  }
  for (; j < h->keys; j++) {
    vf dot = splat(0);
    for (long d = 0; d < h->width; d++) dot = fused(splat(h->k[j * h->stride + d]), load(packed + d * LANES), dot);
    store(scores + j * LANES, dot);
  }
}

/* Every lane is a query of its own, so its softmax needs no sum across lanes. Returns what the mix is to be multiplied by. */
static vf soften(const head *h, float *scores) {
  vf top = load(scores), total = splat(0);
  for (long j = 1; j < h->keys; j++) top = largest(load(scores + j * LANES), top);
  for (long j = 0; j < h->keys; j++) {
    const vf e = exp_negative((load(scores + j * LANES) - top) * h->scale);
    store(scores + j * LANES, e);
    total += e;
  }
  return splat(1.0f) / total;
}

/* mixed [width rounded up][LANES] = p v */
static void mix_values(const head *h, const float *scores, vf inverse, float *mixed) {
  for (long d = 0; d < h->width; d += ABREAST) {
    vf mix[ABREAST] = {0};
    for (long j = 0; j < h->keys; j++)
      for (int u = 0; u < ABREAST; u++) mix[u] = fused(splat(h->v[j * h->stride + d + u]), load(scores + j * LANES), mix[u]);
    for (int u = 0; u < ABREAST; u++) store(mixed + (d + u) * LANES, mix[u] * inverse);
  }
}

static void unpack(const float *mixed, long rows, long width, float *out, long out_stride) {
  for (long d = 0; d < width; d += LANES) {
    vf block[LANES];
    for (int i = 0; i < LANES; i++) block[i] = load(mixed + (d + i) * LANES);
    transpose(block);
    for (int i = 0; i < rows; i++) {
      if (d + LANES <= width)
        store(out + i * out_stride + d, block[i]);
      else
        store_some(out + i * out_stride + d, block[i], width - d);
    }
  }
}

/* One query: lanes along the width, the sums of LANES keys transposed and added. */
static void attend_one(const head *h, const float *q, float *out, float *p) {
  const long whole = h->width - h->width % LANES, rest = h->width - whole;
  for (long j = 0; j < h->keys; j += LANES) {
    vf part[LANES] = {0};
    for (long u = 0; u < LANES && j + u < h->keys; u++) {
      const float *k = h->k + (j + u) * h->stride;
      for (long d = 0; d < whole; d += LANES) part[u] = fused(load(q + d), load(k + d), part[u]);
      if (rest > 0) part[u] = fused(load_some(q + whole, rest), load_some(k + whole, rest), part[u]);
    }
    transpose(part);
    for (int half = LANES / 2; half > 0; half /= 2)
      for (int u = 0; u < half; u++) part[u] += part[u + half];
    store(p + j, part[0]);
  }
  softmax_row(p, h->keys, h->scale);
  for (long d = 0; d < h->width; d += LANES) {
    vf mix = splat(0);
    for (long j = 0; j < h->keys; j++) mix = fused(splat(p[j]), load(h->v + j * h->stride + d), mix);
    if (d + LANES <= h->width)
      store(out + d, mix);
    else
      store_some(out + d, mix, h->width - d);
  }
}

static void attend(const float *q, const float *k, const float *v, long queries, long keys, long width, long stride,
                   long q_stride, float scale, float *out, long out_stride, float *scores, float *packed, float *keep) {
  const head h = {.k = k, .v = v, .keys = keys, .width = width, .stride = stride, .scale = scale};
  if (queries == 1) {
    attend_one(&h, q, out, scores);
    if (keep != NULL) memcpy(keep, scores, (size_t)keys * sizeof(float));
    return;
  }
  for (long i = 0; i < queries; i += LANES) {
    const long rows = queries - i < LANES ? queries - i : LANES;
    pack_queries(q + i * q_stride, rows, q_stride, width, packed);
    score_queries(&h, packed, scores);
    const vf inverse = soften(&h, scores);
    for (long j = 0; keep != NULL && j < keys; j++) {
      const vf p = load(scores + j * LANES) * inverse;
      for (long r = 0; r < rows; r++) keep[(i + r) * keys + j] = p[r];
    }
    mix_values(&h, scores, inverse, packed);
    unpack(packed, rows, width, out + i * out_stride, out_stride);
  }
}

const mg_row_kernels KERNELS = {
    .name = KERNELS_NAME, .gelu = gelu, .tanh = tanh_all, .layer_norm = layer_norm, .softmax = softmax, .attend = attend};
