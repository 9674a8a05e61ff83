/*
 * Rows in chains with AVX-512 and with AMX, whose registers are 16 rows of 64 bytes: of one factor's rows a link each, of the
 * other's columns, elements in twos. That transposition is most of the packing; without a matrix unit both factors are packed
 * like the second one, as floats.
 */

#include <string.h>

#include "chains_impl.h"

#if MG_HAVE_X86_KERNELS

#include <immintrin.h>

#define TARGET     __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define INLINE     TARGET static inline __attribute__((always_inline))
#define TARGET_AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,amx-tile,amx-bf16")))

enum { ROWS = MG_CHAIN_ROWS, TWOS = MG_LINK / 2, WORDS = 4 /* of 32 bits in a quarter of a register */ };

/*
 * Copies links, and multiplies them with floats: words of 16 bits become the upper halves of floats, the first 16 of a register
 * and then the others, by one operation each.
 */
INLINE void copy(const uint16_t *const *row, int rows, int links, const float *floats, float *lanes, mg_link_rows *to,
                 size_t apart) {
  const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i first = _mm512_slli_epi32(places, 16);
  const __m512i second = _mm512_slli_epi32(_mm512_add_epi32(places, _mm512_set1_epi32(MG_LANES)), 16);
  const __mmask32 upper = 0xAAAAAAAA;
  for (int k = 0; k < rows; k++) {
    __m512 sum = floats != NULL ? _mm512_load_ps(lanes + k * MG_LANES) : _mm512_setzero_ps();
    for (int link = 0; link < links; link++) {
      const __m512i words = _mm512_loadu_si512((const void *)(row[k] + link * MG_LINK));
      _mm512_store_si512((void *)to[(size_t)link * apart].row[k], words);
      if (floats == NULL) continue;
      const __m512 b0 = _mm512_loadu_ps(floats + link * MG_LINK), b1 = _mm512_loadu_ps(floats + link * MG_LINK + MG_LANES);
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, first, words)), b0, sum);
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, second, words)), b1, sum);
    }
    if (floats != NULL) _mm512_store_ps(lanes + k * MG_LANES, sum);
  }
}

/* A quarter from memory goes where it belongs without the port that all shuffles share. */
INLINE __m512i quarters(const mg_link_rows *from, int k, int quarter) {
  const __m128i *at = (const __m128i *)(const void *)from->row[k] + quarter;
  enum { APART = 4 * sizeof from->row[0] / sizeof *at };
  const __m512i first = _mm512_castsi128_si512(_mm_load_si128(at));
  const __m512i second = _mm512_inserti32x4(first, _mm_load_si128(at + APART), 1);
  const __m512i third = _mm512_inserti32x4(second, _mm_load_si128(at + 2 * APART), 2);
  return _mm512_inserti32x4(third, _mm_load_si128(at + 3 * APART), 3);
}

/* Four words of each row: lanes become rows. Quarter q of register k is row 4 q + k; within quarters 4 × 4 words are
   transposed. */
INLINE void transpose(const mg_link_rows *from, int quarter, __m512i word[WORDS]) {
  const __m512i a = quarters(from, 0, quarter), b = quarters(from, 1, quarter);
  const __m512i c = quarters(from, 2, quarter), d = quarters(from, 3, quarter);
  const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
  const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
  word[0] = _mm512_unpacklo_epi64(ab0, cd0), word[1] = _mm512_unpackhi_epi64(ab0, cd0);
  word[2] = _mm512_unpacklo_epi64(ab1, cd1), word[3] = _mm512_unpackhi_epi64(ab1, cd1);
}

TARGET static void collect(float *sum, double *total, size_t count) {
  for (size_t k = 0; k < count; k += 8) {
    const __m512d wide = _mm512_cvtps_pd(_mm256_load_ps(sum + k));
    _mm512_storeu_pd(total + k, _mm512_add_pd(_mm512_loadu_pd(total + k), wide));
    _mm256_store_ps(sum + k, _mm256_setzero_ps());
  }
}

TARGET static void collect_lanes(float *lanes, int rows, double *const *acc) {
  for (int i = 0; i < rows; i++, lanes += MG_LANES) {
    const __m512d low = _mm512_cvtps_pd(_mm256_load_ps(lanes)), high = _mm512_cvtps_pd(_mm256_load_ps(lanes + 8));
    _mm512_storeu_pd(acc[i], _mm512_add_pd(_mm512_loadu_pd(acc[i]), _mm512_add_pd(low, high)));
    _mm512_store_ps(lanes, _mm512_setzero_ps());
  }
}

/* ---- without a matrix unit: a link is its even columns, then its odd ones, each of 16 floats ---- */

TARGET static void pack(const uint16_t *const *row, int rows, const mg_slab *slab, const float *floats, float *lanes,
                        void *panel) {
  mg_link_rows copies[MG_SLAB / MG_LINK];
  float *to = panel;
  const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000u);
  if (rows < ROWS) memset(copies, 0, sizeof copies);
  copy(row, rows, slab->links, floats, lanes, copies, 1);
  for (int link = 0; link < slab->links; link++, to += ROWS * MG_LINK) {
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; quarter++) {
      __m512i word[WORDS];
      mg_fetch_some(slab->fetching);
      transpose(&copies[link], quarter, word);
#pragma GCC unroll 4
      for (int w = 0; w < WORDS; w++) {
        float *column = to + ROWS * (WORDS * quarter + w);
        _mm512_store_si512((void *)column, _mm512_slli_epi32(word[w], 16));
        _mm512_store_si512((void *)(column + ROWS * TWOS), _mm512_and_si512(word[w], upper));
      }
    }
  }
}

enum { STRIP = 8 /* most rows of x at a time: two chains and a sum each, 24 registers */ };

INLINE void multiply_strip(const float *x, const float *y, int rows, int links, float *sum) {
  __m512 c[STRIP];
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++) c[i] = _mm512_load_ps(sum + i * ROWS);
  for (int link = 0; link < links; link++, x += ROWS * MG_LINK, y += ROWS * MG_LINK) {
    __m512 even[STRIP], odd[STRIP];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) even[i] = odd[i] = _mm512_setzero_ps();
    for (int k = 0; k < TWOS; k++) {
      const __m512 b0 = _mm512_load_ps(y + k * ROWS), b1 = _mm512_load_ps(y + (TWOS + k) * ROWS);
#pragma GCC unroll 8
      for (int i = 0; i < rows; i++) {
        even[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[k * ROWS + i]), b0, even[i]);
        odd[i] = _mm512_fmadd_ps(_mm512_set1_ps(x[(TWOS + k) * ROWS + i]), b1, odd[i]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) c[i] = _mm512_add_ps(c[i], _mm512_add_ps(even[i], odd[i]));
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++) _mm512_store_ps(sum + i * ROWS, c[i]);
}

TARGET static void multiply(const mg_chain_block *blocks, size_t count, const mg_slab *slab) {
  for (size_t k = 0; k < count; k++) {
    const mg_chain_block *b = &blocks[k];
    for (int row = 0; row < b->rows; row += STRIP) {
      const float *x = (const float *)b->x + row;
      if (b->rows - row > STRIP / 2)
        multiply_strip(x, b->y, STRIP, slab->links, b->sum + row * ROWS);
      else
        multiply_strip(x, b->y, STRIP / 2, slab->links, b->sum + row * ROWS);
    }
    for (int link = 0; link < slab->links; link++) mg_fetch_some(slab->fetching);
  }
}

const mg_chains mg_chains_avx512 = {
    .flushing = true, .pack = pack, .multiply = multiply, .collect = collect, .collect_lanes = collect_lanes};

/* ---- with one: a link is its 16 rows, then its 16 columns of twos; no subnormal numbers in any case ---- */

enum { TILES = 6, TILE_BYTES = 1024, TILE_ROW = 64 };

TARGET static void pack_tiles(const uint16_t *const *row, int rows, const mg_slab *slab, const float *floats, float *lanes,
                              void *panel) {
  mg_link_rows *to = panel;
  copy(row, rows, slab->links, floats, lanes, to, 2);
  for (int link = 0; link < slab->links; link++, to += 2) {
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; quarter++) {
      __m512i word[WORDS];
      mg_fetch_some(slab->fetching);
      transpose(to, quarter, word);
#pragma GCC unroll 4
      for (int w = 0; w < WORDS; w++) _mm512_store_si512((void *)to[1].row[WORDS * quarter + w], word[w]);
    }
  }
}

/* Numbers of registers are part of an instruction: DO(t) for each of the six that hold sums. */
#define EACH_TILE(DO)                                                                                                          \
  DO(0)                                                                                                                        \
  DO(1)                                                                                                                        \
  DO(2)                                                                                                                        \
  DO(3)                                                                                                                        \
  DO(4)                                                                                                                        \
  DO(5)
#define LOAD_SUM(t)                                                                                                            \
  if ((t) < count) _tile_loadd(t, blocks[t].sum, TILE_ROW);
#define STORE_SUM(t)                                                                                                           \
  if ((t) < count) _tile_stored(t, blocks[t].sum, TILE_ROW);
#define MULTIPLY_TILE(t)                                                                                                       \
  if ((t) < count) {                                                                                                           \
    if ((t) == 0 || blocks[(t)].x != blocks[(t) - ((t) > 0)].x) _tile_loadd(6, (const char *)blocks[(t)].x + at, TILE_ROW);    \
    _tile_loadd(7, (const char *)blocks[(t)].y + at + TILE_BYTES, TILE_ROW);                                                   \
    _tile_dpbf16ps(t, 6, 7);                                                                                                   \
    mg_fetch_some(slab->fetching);                                                                                             \
  }

/* As many blocks as there are registers: a product waits for the one before it in its chain, not for the others. */
TARGET_AMX static void multiply_some(const mg_chain_block *blocks, size_t count, const mg_slab *slab, bool load, bool store) {
  if (load) {
    EACH_TILE(LOAD_SUM)
  }
  for (size_t at = 0; at < (size_t)slab->links * 2 * TILE_BYTES; at += 2 * TILE_BYTES) {
    EACH_TILE(MULTIPLY_TILE)
  }
  if (store) {
    EACH_TILE(STORE_SUM)
  }
}

/* Sums that find room stay in the registers until the run is done: nothing else uses these. */
TARGET_AMX static void multiply_tiles(const mg_chain_block *blocks, size_t count, const mg_slab *slab) {
  const bool room = count <= TILES;
  __asm__ volatile("" : : : "memory"); /* loads of tiles do not say that they read what was stored */
  for (size_t k = 0; k < count; k += TILES)
    multiply_some(blocks + k, count - k < TILES ? count - k : TILES, slab, slab->first || !room, slab->last || !room);
}

TARGET_AMX static void set_up_tiles(void) {
  static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shape = {.palette = 1,
             .row_bytes = {TILE_ROW, TILE_ROW, TILE_ROW, TILE_ROW, TILE_ROW, TILE_ROW, TILE_ROW, TILE_ROW},
             .rows = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS}};
  _tile_loadconfig(&shape);
}

/* What holds nothing is not saved when threads take turns. */
TARGET_AMX static void release_tiles(void) { _tile_release(); }

const mg_chains mg_chains_amx = {.begin = set_up_tiles,
                                 .end = release_tiles,
                                 .pack = pack_tiles,
                                 .multiply = multiply_tiles,
                                 .collect = collect,
                                 .collect_lanes = collect_lanes};

#else
typedef int mg_no_avx512_chains; /* nothing for other processors */
#endif
