#ifndef MERGEGRID_CUDA_PHILOX_H
#define MERGEGRID_CUDA_PHILOX_H

#include <cuda_runtime.h>

#include "mergegrid/random.h"

/** Word k of a stream: Philox4x32-10 as in src/base/random.c. */
static __device__ inline uint32_t word_of(const mg_stream &s, uint64_t k) {
  const uint64_t at = k / 4;
  uint32_t c0 = (uint32_t)at, c1 = (uint32_t)(at >> 32), c2 = s.place[0], c3 = s.place[1], k0 = s.key[0], k1 = s.key[1];
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
  }
  return k % 4 == 0 ? c0 : k % 4 == 1 ? c1 : k % 4 == 2 ? c2 : c3;
}

#endif
