#include "mergegrid/random.h"

#include "mergegrid/hash.h"

static void multiply(uint32_t a, uint32_t b, uint32_t *high, uint32_t *low) {
  const uint64_t product = (uint64_t)a * b;
  *high = (uint32_t)(product >> 32);
  *low = (uint32_t)product;
}

void mg_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    uint32_t high0, low0, high1, low1;
    multiply(0xD2511F53u, c0, &high0, &low0);
    multiply(0xCD9E8D57u, c2, &high1, &low1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

mg_stream mg_stream_of(uint64_t seed, uint64_t first, uint64_t second) {
  const uint64_t pair[2] = {first, second};
  const uint64_t place = mg_hash(pair, sizeof pair);
  return (mg_stream){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)}, .place = {(uint32_t)place, (uint32_t)(place >> 32)}};
}

enum { BLOCKS = 16 };

/* Blocks `at` and following, side by side, which compilers make vectors of. */
static void philox_blocks(const mg_stream *s, uint64_t at, uint32_t *out) {
  uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS], k0 = s->key[0], k1 = s->key[1];
  for (uint32_t b = 0; b < BLOCKS; b++) {
    c0[b] = (uint32_t)(at + b), c1[b] = (uint32_t)((at + b) >> 32);
    c2[b] = s->place[0], c3[b] = s->place[1];
  }
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int b = 0; b < BLOCKS; b++) {
      uint32_t high0, low0, high1, low1;
      multiply(0xD2511F53u, c0[b], &high0, &low0);
      multiply(0xCD9E8D57u, c2[b], &high1, &low1);
      c0[b] = high1 ^ c1[b] ^ k0;
      c1[b] = low1;
      c2[b] = high0 ^ c3[b] ^ k1;
      c3[b] = low0;
    }
  for (int b = 0; b < BLOCKS; b++) out[4 * b] = c0[b], out[4 * b + 1] = c1[b], out[4 * b + 2] = c2[b], out[4 * b + 3] = c3[b];
}

void mg_stream_words(const mg_stream *s, uint64_t first, uint64_t count, uint32_t *words) {
  for (uint64_t done = 0; done < count;) {
    const uint64_t at = (first + done) / 4;
    const uint32_t counter[4] = {(uint32_t)at, (uint32_t)(at >> 32), s->place[0], s->place[1]};
    uint32_t four[4];
    if ((first + done) % 4 == 0 && count - done >= 4 * BLOCKS) {
      philox_blocks(s, at, words + done);
      done += 4 * BLOCKS;
      continue;
    }
    mg_philox(counter, s->key, four);
    for (uint64_t k = (first + done) % 4; k < 4 && done < count; k++) words[done++] = four[k];
  }
}
