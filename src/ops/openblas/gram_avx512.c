/*
 * The Gram micro-kernels for AVX-512: one register is the
 * 16 lanes of a pair. Blocks of 6 × 4 pairs take 24 accumulators, 6 rows and one column: 31 of 32 registers, 24 multiply-adds
 * to 10 loads. On the diagonal, 6 rows make 21 pairs, so no half is computed twice; it converts 16-bit rows on its way and
 * stores them as floats for the other blocks.
 */

#include "kernels_impl.h"

#if MG_HAVE_X86_KERNELS

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define INLINE TARGET static inline __attribute__((always_inline))

/* Loads a row once: without it the compiler repeats the load as an operand of every multiply-add. */
#define IN_REGISTER(value) __asm__("" : "+v"(value))

/* Keeps the compiler from taking a value from registers that was just stored. */
#define THROUGH_MEMORY(array) __asm__ volatile("" : : "r"(array) : "memory")

enum { GROUP = 6, COLUMNS = 4, DIAGONAL = GROUP * (GROUP + 1) / 2 };

/*
 * Lane l goes to double d = l mod 8 as (double)a_l + (double)a_{l+8}, then onto the pair's accumulators. From memory, a
 * widening costs one operation of the ports that multiply and add; from the halves of a register it would cost five for two.
 */
INLINE void flush(double *acc, const float *lanes) {
  const __m512d low = _mm512_cvtps_pd(_mm256_load_ps(lanes)), high = _mm512_cvtps_pd(_mm256_load_ps(lanes + 8));
  _mm512_storeu_pd(acc, _mm512_add_pd(_mm512_loadu_pd(acc), _mm512_add_pd(low, high)));
}

INLINE __m512 load(const void *row, mg_dtype dtype, __m512 scale, size_t at) {
  if (dtype == MG_F32) return _mm512_loadu_ps((const float *)row + at);
  const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)row + at));
  if (dtype == MG_BF16) return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  return _mm512_mul_ps(_mm512_cvtph_ps(half), scale);
}

INLINE void diagonal_step(const void *const *row, mg_load how, const __m512 *factor, const float *minus, size_t at, float *out,
                          __m512 *sum) {
  __m512 x[GROUP], off = _mm512_setzero_ps();
  if (how.less) off = _mm512_loadu_ps(minus + at);
#pragma GCC unroll 6
  for (int i = 0; i < GROUP; i++) {
    x[i] = load(row[i], how.dtype, factor[i], at);
    if (how.less) x[i] = _mm512_sub_ps(x[i], off);
    IN_REGISTER(x[i]);
    if (how.stored) _mm512_store_ps(out + i * MG_SCRATCH_STRIDE + at, x[i]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < GROUP; i++)
#pragma GCC unroll 6
    for (int j = i; j < GROUP; j++) {
      const int p = i * GROUP - i * (i + 1) / 2 + j;
      sum[p] = _mm512_fmadd_ps(x[i], x[j], sum[p]);
    }
}

INLINE void diagonal(const mg_group_rows *rows, mg_load how, int steps, double *const *acc) {
  __m512 sum[DIAGONAL], factor[GROUP];
  const void *from[GROUP]; /* in registers: as far as the compiler can see, storing to out might change rows */
  const float *minus = rows->minus;
  float *out = rows->out;
#pragma GCC unroll 6
  for (int i = 0; i < GROUP; i++) from[i] = rows->row[i];
#pragma GCC unroll 21
  for (int p = 0; p < DIAGONAL; p++) sum[p] = _mm512_setzero_ps();
#pragma GCC unroll 6
  for (int i = 0; i < GROUP; i++) factor[i] = _mm512_set1_ps(rows->scale[i]);
  for (size_t at = 0; at < 16 * (size_t)steps; at += 16) diagonal_step(from, how, factor, minus, at, out, sum);
  _Alignas(64) float lanes[DIAGONAL][MG_LANES];
#pragma GCC unroll 21
  for (int p = 0; p < DIAGONAL; p++) _mm512_store_ps(lanes[p], sum[p]);
  THROUGH_MEMORY(lanes);
#pragma GCC unroll 21
  for (int p = 0; p < DIAGONAL; p++) flush(acc[p], lanes[p]);
}

/* Accumulators of row i and column j of a block: see mg_kernels. */
INLINE double *pair_at(double *const *acc, int i, int j, bool before) {
  return before ? acc[j] + MG_ACCUMULATORS * i : acc[i] + MG_ACCUMULATORS * j;
}

INLINE void block(const float *const *x, const float *const *y, int n, bool before, int steps, double *const *acc,
                  mg_ahead ahead) {
  __m512 sum[GROUP * COLUMNS];
#pragma GCC unroll 24
  for (int p = 0; p < GROUP * n; p++) sum[p] = _mm512_setzero_ps();
  for (size_t at = 0; at < 16 * (size_t)steps; at += 16) {
    __m512 a[GROUP];
    const char *next = ahead.at;
    _mm_prefetch(next + 2 * at, _MM_HINT_T1);
    ahead.at = ahead.other;
    ahead.other = next;
#pragma GCC unroll 6
    for (int i = 0; i < GROUP; i++) {
      a[i] = _mm512_loadu_ps(x[i] + at);
      IN_REGISTER(a[i]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
      __m512 b = _mm512_loadu_ps(y[j] + at);
      IN_REGISTER(b);
#pragma GCC unroll 6
      for (int i = 0; i < GROUP; i++) sum[i * n + j] = _mm512_fmadd_ps(a[i], b, sum[i * n + j]);
    }
  }
  _Alignas(64) float lanes[GROUP * COLUMNS][MG_LANES];
#pragma GCC unroll 24
  for (int p = 0; p < GROUP * n; p++) _mm512_store_ps(lanes[p], sum[p]);
  THROUGH_MEMORY(lanes);
#pragma GCC unroll 24
  for (int p = 0; p < GROUP * n; p++) flush(pair_at(acc, p / n, p % n, before), lanes[p]);
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

#define KERNELS(of_chains)                                                                                                     \
  {                                                                                                                            \
    .group = GROUP, .columns = COLUMNS, .diagonal = MG_ALL_LOADINGS, .before = {NULL, before_1, before_2, before_3, before_4}, \
    .behind = {NULL, behind_1, behind_2, behind_3, behind_4}, .chains = (of_chains)                                            \
  }
static const mg_kernels kernels = KERNELS(&mg_chains_avx512), with_matrix_unit = KERNELS(&mg_chains_amx);

void mg_gram_triangle_avx512(const mg_tile *tile, double *acc, void *scratch) {
  mg_drive_triangle(&kernels, tile, acc, scratch);
}

void mg_gram_rectangle_avx512(const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  mg_drive_rectangle(&kernels, a, b, acc, scratch);
}

void mg_gram_triangle_amx(const mg_tile *tile, double *acc, void *scratch) {
  mg_drive_triangle(&with_matrix_unit, tile, acc, scratch);
}

void mg_gram_rectangle_amx(const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  mg_drive_rectangle(&with_matrix_unit, a, b, acc, scratch);
}

#else
typedef int mg_no_avx512; /* nothing for other processors */
#endif
