/*
 * The Gram micro-kernels for AVX2: a register is half of a pair's 16 lanes, and since lanes do not meet before fp64, the two
 * halves are computed one after the other. Blocks of 3 × 4 pairs: 12 accumulators, 3 rows, one column: all 16 registers.
 */

#include "kernels_impl.h"

#if MG_HAVE_X86_KERNELS

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

enum { GROUP = 3, COLUMNS = 4, DIAGONAL = GROUP * (GROUP + 1) / 2, HALF = 8 };

/* The two halves of a pair's lanes: d = l mod 8 takes (double)a_l + (double)a_{l+8}. */
INLINE void flush(double *acc, __m256 low, __m256 high) {
  const __m256d low0 = _mm256_cvtps_pd(_mm256_castps256_ps128(low)), low1 = _mm256_cvtps_pd(_mm256_extractf128_ps(low, 1));
  const __m256d high0 = _mm256_cvtps_pd(_mm256_castps256_ps128(high)), high1 = _mm256_cvtps_pd(_mm256_extractf128_ps(high, 1));
  _mm256_storeu_pd(acc, _mm256_add_pd(_mm256_loadu_pd(acc), _mm256_add_pd(low0, high0)));
  _mm256_storeu_pd(acc + 4, _mm256_add_pd(_mm256_loadu_pd(acc + 4), _mm256_add_pd(low1, high1)));
}

INLINE __m256 load(const void *row, mg_dtype dtype, __m256 scale, size_t at) {
  if (dtype == MG_F32) return _mm256_loadu_ps((const float *)row + at);
  const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)row + at));
  if (dtype == MG_BF16) return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  return _mm256_mul_ps(_mm256_cvtph_ps(half), scale);
}

INLINE void diagonal(const mg_group_rows *rows, mg_load how, int steps, double *const *acc) {
  __m256 lanes[2][DIAGONAL];
  const void *from[GROUP]; /* in registers: as far as the compiler can see, storing to out might change rows */
  const float *minus = rows->minus;
  float *out = rows->out;
#pragma GCC unroll 3
  for (int i = 0; i < GROUP; i++) from[i] = rows->row[i];
#pragma GCC unroll 2
  for (size_t h = 0; h < 2; h++) {
    __m256 sum[DIAGONAL], factor[GROUP], off = _mm256_setzero_ps();
#pragma GCC unroll 6
    for (int p = 0; p < DIAGONAL; p++) sum[p] = _mm256_setzero_ps();
#pragma GCC unroll 3
    for (int i = 0; i < GROUP; i++) factor[i] = _mm256_set1_ps(rows->scale[i]);
    for (size_t at = HALF * h; at < 16 * (size_t)steps; at += 16) {
      __m256 x[GROUP];
      if (how.less) off = _mm256_loadu_ps(minus + at);
#pragma GCC unroll 3
      for (int i = 0; i < GROUP; i++) {
        x[i] = load(from[i], how.dtype, factor[i], at);
        if (how.less) x[i] = _mm256_sub_ps(x[i], off);
        if (how.stored) _mm256_store_ps(out + i * MG_SCRATCH_STRIDE + at, x[i]);
      }
#pragma GCC unroll 3
      for (int i = 0; i < GROUP; i++)
#pragma GCC unroll 3
        for (int j = i; j < GROUP; j++) {
          const int p = i * GROUP - i * (i + 1) / 2 + j;
          sum[p] = _mm256_fmadd_ps(x[i], x[j], sum[p]);
        }
    }
#pragma GCC unroll 6
    for (int p = 0; p < DIAGONAL; p++) lanes[h][p] = sum[p];
  }
#pragma GCC unroll 6
  for (int p = 0; p < DIAGONAL; p++) flush(acc[p], lanes[0][p], lanes[1][p]);
}

/* Accumulators of row i and column j of a block: see mg_kernels. */
INLINE double *pair_at(double *const *acc, int i, int j, bool before) {
  return before ? acc[j] + MG_ACCUMULATORS * i : acc[i] + MG_ACCUMULATORS * j;
}

INLINE void block(const float *const *x, const float *const *y, int n, bool before, int steps, double *const *acc,
                  mg_ahead ahead) {
  __m256 lanes[2][GROUP * COLUMNS];
#pragma GCC unroll 2
  for (size_t h = 0; h < 2; h++) {
    __m256 sum[GROUP * COLUMNS];
#pragma GCC unroll 12
    for (int p = 0; p < GROUP * n; p++) sum[p] = _mm256_setzero_ps();
    for (size_t at = HALF * h; at < 16 * (size_t)steps; at += 16) {
      __m256 a[GROUP];
      if (h == 0) {
        const char *next = ahead.at;
        _mm_prefetch(next + 2 * at, _MM_HINT_T1);
        ahead.at = ahead.other;
        ahead.other = next;
      }
#pragma GCC unroll 3
      for (int i = 0; i < GROUP; i++) a[i] = _mm256_loadu_ps(x[i] + at);
#pragma GCC unroll 4
      for (int j = 0; j < n; j++) {
        const __m256 b = _mm256_loadu_ps(y[j] + at);
#pragma GCC unroll 3
        for (int i = 0; i < GROUP; i++) sum[i * n + j] = _mm256_fmadd_ps(a[i], b, sum[i * n + j]);
      }
    }
#pragma GCC unroll 12
    for (int p = 0; p < GROUP * n; p++) lanes[h][p] = sum[p];
  }
#pragma GCC unroll 12
  for (int p = 0; p < GROUP * n; p++) flush(pair_at(acc, p / n, p % n, before), lanes[0][p], lanes[1][p]);
}

/* One function for each shape, so that every loop bound is a constant and every accumulator a register. */
#define DEFINE_DIAGONAL(name, ...)                                                                                             \
  TARGET static void name(const mg_group_rows *rows, int steps, double *const *acc) {                                          \
    diagonal(rows, (mg_load){__VA_ARGS__}, steps, acc);                                                                        \
  }
#define DEFINE_BLOCK(name, columns, before)                                                                                    \
  TARGET static void name(const float *const *x, const float *const *y, int steps, double *const *acc, mg_ahead ahead) {       \
    block(x, y, columns, before, steps, acc, ahead);                                                                           \
  }
MG_EACH_LOADING(DEFINE_DIAGONAL)
DEFINE_BLOCK(before_1, 1, true)
DEFINE_BLOCK(before_2, 2, true)
DEFINE_BLOCK(before_3, 3, true)
DEFINE_BLOCK(before_4, 4, true)
DEFINE_BLOCK(behind_1, 1, false)
DEFINE_BLOCK(behind_2, 2, false)
DEFINE_BLOCK(behind_3, 3, false)
DEFINE_BLOCK(behind_4, 4, false)

static const mg_kernels kernels = {.group = GROUP,
                                   .columns = COLUMNS,
                                   .diagonal = MG_ALL_LOADINGS,
                                   .before = {NULL, before_1, before_2, before_3, before_4},
                                   .behind = {NULL, behind_1, behind_2, behind_3, behind_4},
                                   .chains = &mg_chains_avx2};

void mg_gram_triangle_avx2(const mg_tile *tile, double *acc, void *scratch) { mg_drive_triangle(&kernels, tile, acc, scratch); }

void mg_gram_rectangle_avx2(const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  mg_drive_rectangle(&kernels, a, b, acc, scratch);
}

#else
typedef int mg_no_avx2; /* nothing for other processors */
#endif
