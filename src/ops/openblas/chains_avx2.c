/* Rows in chains with AVX2: as with AVX-512 without its matrix unit, rows by eight. */

#include <string.h>

#include "chains_impl.h"

#if MG_HAVE_X86_KERNELS

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

enum { ROWS = MG_CHAIN_ROWS, TWOS = MG_LINK / 2, HALF = 8, STRIP = 4 };

INLINE __m256 widen(const uint16_t *at) {
  const __m128i words = _mm_loadu_si128((const __m128i *)(const void *)at);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

/* Copies links, and multiplies them with floats. */
INLINE void copy(const uint16_t *const *row, int rows, int links, const float *floats, float *lanes, mg_link_rows *to) {
  for (int k = 0; k < rows; k++) {
    __m256 low = _mm256_load_ps(lanes + k * MG_LANES), high = _mm256_load_ps(lanes + k * MG_LANES + HALF);
    for (int link = 0; link < links; link++) {
      const uint16_t *from = row[k] + link * MG_LINK;
      __m256i *copied = (__m256i *)(void *)to[link].row[k];
      _mm256_store_si256(copied, _mm256_loadu_si256((const __m256i *)(const void *)from));
      _mm256_store_si256(copied + 1, _mm256_loadu_si256((const __m256i *)(const void *)(from + MG_LANES)));
      for (int at = 0; floats != NULL && at < MG_LINK; at += MG_LANES) {
        const float *with = floats + link * MG_LINK + at;
        low = _mm256_fmadd_ps(widen(from + at), _mm256_loadu_ps(with), low);
        high = _mm256_fmadd_ps(widen(from + at + HALF), _mm256_loadu_ps(with + HALF), high);
      }
    }
    _mm256_store_ps(lanes + k * MG_LANES, low);
    _mm256_store_ps(lanes + k * MG_LANES + HALF, high);
  }
}

/* Eight words of eight rows: lanes become rows. */
INLINE void transpose(const mg_link_rows *from, int half, int part, __m256i *word) {
  __m256i in[HALF], two[HALF], four[HALF];
#pragma GCC unroll 8
  for (int k = 0; k < HALF; k++) in[k] = _mm256_load_si256((const __m256i *)(const void *)from->row[HALF * half + k] + part);
#pragma GCC unroll 4
  for (int k = 0; k < HALF; k += 2) {
    two[k] = _mm256_unpacklo_epi32(in[k], in[k + 1]);
    two[k + 1] = _mm256_unpackhi_epi32(in[k], in[k + 1]);
  }
#pragma GCC unroll 2
  for (int k = 0; k < HALF; k += 4) {
    four[k] = _mm256_unpacklo_epi64(two[k], two[k + 2]);
    four[k + 1] = _mm256_unpackhi_epi64(two[k], two[k + 2]);
    four[k + 2] = _mm256_unpacklo_epi64(two[k + 1], two[k + 3]);
    four[k + 3] = _mm256_unpackhi_epi64(two[k + 1], two[k + 3]);
  }
#pragma GCC unroll 4
  for (int k = 0; k < HALF / 2; k++) {
    word[k] = _mm256_permute2x128_si256(four[k], four[k + 4], 0x20);
    word[k + 4] = _mm256_permute2x128_si256(four[k], four[k + 4], 0x31);
  }
}

/* A link is its even columns, then its odd ones, each of 16 floats. */
TARGET static void pack(const uint16_t *const *row, int rows, const mg_slab *slab, const float *floats, float *lanes,
                        void *panel) {
  mg_link_rows copies[MG_SLAB / MG_LINK];
  float *to = panel;
  const __m256i odd = _mm256_set1_epi32((int)0xFFFF0000u);
  if (rows < ROWS) memset(copies, 0, sizeof copies);
  copy(row, rows, slab->links, floats, lanes, copies);
  for (int link = 0; link < slab->links; link++, to += ROWS * MG_LINK)
    for (int half = 0; half < 2; half++)
      for (int part = 0; part < 2; part++) {
        __m256i word[HALF];
        mg_fetch_some(slab->fetching);
        transpose(&copies[link], half, part, word);
#pragma GCC unroll 8
        for (int w = 0; w < HALF; w++) {
          float *column = to + ROWS * (HALF * part + w) + half * HALF;
          _mm256_store_si256((__m256i *)(void *)column, _mm256_slli_epi32(word[w], 16));
          _mm256_store_si256((__m256i *)(void *)(column + ROWS * TWOS), _mm256_and_si256(word[w], odd));
        }
      }
}

/* One of a link's two chains, of STRIP rows with the first eight, the last eight, or all. */
INLINE void chain(const float *x, const float *y, bool first, bool last, __m256 low[STRIP], __m256 high[STRIP]) {
#pragma GCC unroll 4
  for (int i = 0; i < STRIP; i++) low[i] = high[i] = _mm256_setzero_ps();
  for (int k = 0; k < TWOS; k++) {
    const __m256 b0 = _mm256_load_ps(y + k * ROWS), b1 = _mm256_load_ps(y + k * ROWS + HALF);
#pragma GCC unroll 4
    for (int i = 0; i < STRIP; i++) {
      const __m256 a = _mm256_set1_ps(x[k * ROWS + i]);
      if (first) low[i] = _mm256_fmadd_ps(a, b0, low[i]);
      if (last) high[i] = _mm256_fmadd_ps(a, b1, high[i]);
    }
  }
}

INLINE void multiply_strip(const float *x, const float *y, int links, bool first, bool last, float *sum) {
  for (int link = 0; link < links; link++, x += ROWS * MG_LINK, y += ROWS * MG_LINK) {
    __m256 even_low[STRIP], even_high[STRIP], odd_low[STRIP], odd_high[STRIP];
    chain(x, y, first, last, even_low, even_high);
    chain(x + ROWS * TWOS, y + ROWS * TWOS, first, last, odd_low, odd_high);
#pragma GCC unroll 4
    for (int i = 0; i < STRIP; i++) {
      float *c = sum + i * ROWS;
      if (first) _mm256_store_ps(c, _mm256_add_ps(_mm256_load_ps(c), _mm256_add_ps(even_low[i], odd_low[i])));
      if (last) _mm256_store_ps(c + HALF, _mm256_add_ps(_mm256_load_ps(c + HALF), _mm256_add_ps(even_high[i], odd_high[i])));
    }
  }
}

/*
 * Of a group with itself the last rows' pairs with the first ones have been there the other way round, and there may be no last
 * ones.
 */
TARGET static void multiply(const mg_chain_block *blocks, size_t count, const mg_slab *slab) {
  for (size_t k = 0; k < count; k++) {
    const mg_chain_block *b = &blocks[k];
    for (int row = 0; row < b->rows; row += STRIP) {
      const float *x = (const float *)b->x + row;
      if (b->x == b->y && row >= HALF)
        multiply_strip(x, b->y, slab->links, false, true, b->sum + row * ROWS);
      else if (b->x == b->y && b->rows <= HALF)
        multiply_strip(x, b->y, slab->links, true, false, b->sum + row * ROWS);
      else
        multiply_strip(x, b->y, slab->links, true, true, b->sum + row * ROWS);
    }
    for (int link = 0; link < slab->links; link++) mg_fetch_some(slab->fetching);
  }
}

TARGET static void collect(float *sum, double *total, size_t count) {
  for (size_t k = 0; k < count; k += 4) {
    const __m256d wide = _mm256_cvtps_pd(_mm_load_ps(sum + k));
    _mm256_storeu_pd(total + k, _mm256_add_pd(_mm256_loadu_pd(total + k), wide));
    _mm_store_ps(sum + k, _mm_setzero_ps());
  }
}

TARGET static void collect_lanes(float *lanes, int rows, double *const *acc) {
  for (int i = 0; i < rows; i++, lanes += MG_LANES)
    for (int d = 0; d < MG_ACCUMULATORS; d += 4) {
      const __m256d low = _mm256_cvtps_pd(_mm_load_ps(lanes + d)), high = _mm256_cvtps_pd(_mm_load_ps(lanes + d + HALF));
      _mm256_storeu_pd(acc[i] + d, _mm256_add_pd(_mm256_loadu_pd(acc[i] + d), _mm256_add_pd(low, high)));
      _mm_store_ps(lanes + d, _mm_setzero_ps());
      _mm_store_ps(lanes + d + HALF, _mm_setzero_ps());
    }
}

const mg_chains mg_chains_avx2 = {
    .flushing = true, .pack = pack, .multiply = multiply, .collect = collect, .collect_lanes = collect_lanes};

#else
typedef int mg_no_avx2_chains; /* nothing for other processors */
#endif
