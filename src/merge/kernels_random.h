/* Elements kept at random, Philox4x32-10 (mergegrid/random.h) in vectors: a piece of kernels_body.h. */

typedef uint64_t vq __attribute__((vector_size(LANES * sizeof(uint64_t)), aligned(8), may_alias)); /* a block a lane */
typedef uint32_t vw __attribute__((vector_size(2 * LANES * sizeof(uint32_t)), aligned(4), may_alias));
typedef float vt __attribute__((vector_size(2 * LANES * sizeof(float)), aligned(4), may_alias));

/* Product of the lower halves: in each lane 64 bits. */
INLINE vq product(vq a, vq b) {
#if LANES == 8 && defined(__AVX512F__)
  return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif LANES == 4 && defined(__AVX2__)
  return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif LANES == 2 && defined(__SSE2__)
  return (vq)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

#if LANES == 8
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define TOP_HALVES(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif LANES == 4
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define TOP_HALVES(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#else
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, 0, 2)
#define TOP_HALVES(a, b) __builtin_shufflevector(a, b, 1, 3)
#endif

enum { ABREAST = 2, PER_TURN = ABREAST * 4 * LANES }; /* chains of multiplications under way at once; words of them */

/* The words of LANES blocks each from block `at` on, in their order. What stands in a lane's upper half is left there until the
   end: products do not look at it. */
INLINE void blocks_words(const mg_stream *s, uint64_t at, vw words[2 * ABREAST]) {
  vq c0[ABREAST], c1[ABREAST], c2[ABREAST], c3[ABREAST];
  vq number = {0};
  uint32_t k0 = s->key[0], k1 = s->key[1];
  for (int l = 0; l < LANES; l++) number[l] = at + (uint64_t)l;
  for (int u = 0; u < ABREAST; u++) {
    c0[u] = number + (uint64_t)(u * LANES);
    c1[u] = c0[u] >> 32;
    c2[u] = (vq){0} + s->place[0], c3[u] = (vq){0} + s->place[1];
  }
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int u = 0; u < ABREAST; u++) {
      const vq p = product(c0[u], (vq){0} + 0xD2511F53u), q = product(c2[u], (vq){0} + 0xCD9E8D57u);
      c0[u] = (q >> 32) ^ c1[u] ^ k0;
      c2[u] = (p >> 32) ^ c3[u] ^ k1;
      c1[u] = q, c3[u] = p;
    }
  for (int u = 0; u < ABREAST; u++) {
    const vq a = (c0[u] & 0xFFFFFFFFu) | c1[u] << 32, b = (c2[u] & 0xFFFFFFFFu) | c3[u] << 32;
    words[2 * u] = (vw)LOW_HALVES(a, b);
    words[2 * u + 1] = (vw)TOP_HALVES(a, b);
  }
}

INLINE float kept_if(uint32_t word, uint32_t last, float value) { return word <= last ? value : 0; }

/* As far as a block is not taken whole, one by one. */
static long thin_ends(const mg_stream *s, uint64_t first, long count, uint32_t last, float scale, const float *from,
                      float *to) {
  const uint64_t at = first / 4;
  const uint32_t counter[4] = {(uint32_t)at, (uint32_t)(at >> 32), s->place[0], s->place[1]};
  uint32_t four[4];
  long done = 0;
  mg_philox(counter, s->key, four);
  for (uint64_t k = first % 4; k < 4 && done < count; k++, done++) to[done] = kept_if(four[k], last, from[done] * scale);
  return done;
}

static void keep_random(const mg_stream *s, uint64_t first, long count, uint32_t last, float scale, const float *from,
                        float *to) {
  for (long done = 0; done < count;) {
    if ((first + (uint64_t)done) % 4 != 0 || count - done < PER_TURN) {
      done += thin_ends(s, first + (uint64_t)done, count - done, last, scale, from + done, to + done);
      continue;
    }
    vw words[2 * ABREAST];
    blocks_words(s, (first + (uint64_t)done) / 4, words);
    for (int v = 0; v < 2 * ABREAST; v++, done += 2 * LANES) {
      const vt value = *(const vt *)(const void *)(from + done) * scale;
      *(vt *)(void *)(to + done) = (vt)((vw)value & (vw)(words[v] <= last));
    }
  }
}
