/* How often each half of magnitudes' bits occurs. Counts are whole numbers, so that threads may add them in any order. */

#include "launch.h"
#include "philox.h"

enum { CREW = 256, MOST_BLOCKS = 512 };
/* The upper halves that a block counts in shared memory: of magnitudes from 2^-44 up to 2^20, where nearly all are. */
enum { WINDOW_FIRST = (127 - 44) << 7, WINDOW = 64 << 7 };

static __device__ uint32_t magnitude_of(const mg_device_census &m, const mg_device_piece &piece, uint32_t k) {
  if (m.thinned && word_of(m.stream, piece.element + k) > m.last_kept) return 0;
  float value = m.tau[piece.from + k];
  if (m.other != NULL) value -= m.other[piece.from + k];
  return __float_as_uint(value) & 0x7FFFFFFFu;
}

static __device__ void add_to(uint64_t *bin, uint64_t count) {
  atomicAdd((unsigned long long *)bin, (unsigned long long)count);
}

/* Zeros are many where nothing was trained; each thread counts its own, since all of them would be after one bin. */
static __global__ void count_upper(mg_device_census m, uint32_t blocks) {
  __shared__ uint32_t own[WINDOW], none;
  uint32_t zeros = 0;
  for (uint32_t k = threadIdx.x; k < WINDOW; k += CREW) own[k] = 0;
  if (threadIdx.x == 0) none = 0;
  __syncthreads();
  for (uint32_t p = blockIdx.x; p < m.pieces; p += blocks) {
    const mg_device_piece piece = m.piece[p];
    for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {
      const uint32_t bits = magnitude_of(m, piece, k), at = (bits >> 16) - WINDOW_FIRST;
      if (bits == 0)
        zeros++;
      else if (at < WINDOW)
        atomicAdd(&own[at], 1u);
      else
        add_to(&m.bins[bits >> 16], 1);
    }
  }
  if (zeros > 0) atomicAdd(&none, zeros);
  __syncthreads();
  for (uint32_t k = threadIdx.x; k < WINDOW; k += CREW)
    if (own[k] > 0) add_to(&m.bins[WINDOW_FIRST + k], own[k]);
  if (threadIdx.x == 0 && none > 0) add_to(&m.bins[0], none);
}

/* Few values have an upper half that is looked into, and those lie far apart: they go to their bins at once. */
static __global__ void count_lower(mg_device_census m, uint32_t blocks) {
  __shared__ uint32_t none;
  uint32_t zeros = 0;
  if (threadIdx.x == 0) none = 0;
  __syncthreads();
  for (uint32_t p = blockIdx.x; p < m.pieces; p += blocks) {
    const mg_device_piece piece = m.piece[p];
    for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {
      const uint32_t bits = magnitude_of(m, piece, k);
      const int32_t index = m.index[bits >> 16];
      if (bits == 0)
        zeros++;
      else if (index >= 0)
        add_to(&m.bins[(size_t)index * MG_CENSUS_LOWER + (bits & 0xFFFFu)], 1);
    }
  }
  if (zeros > 0) atomicAdd(&none, zeros);
  __syncthreads();
  if (threadIdx.x == 0 && none > 0 && m.index[0] >= 0) add_to(&m.bins[(size_t)m.index[0] * MG_CENSUS_LOWER], none);
}

void mg_launch_census(cudaStream_t stream, const mg_device_census *m) {
  const uint32_t blocks = m->pieces < MOST_BLOCKS ? m->pieces : (uint32_t)MOST_BLOCKS;
  if (blocks == 0) return;
  if (m->index == NULL)
    MG_LAUNCH(count_upper, dim3(blocks), dim3(CREW), stream, *m, blocks);
  else
    MG_LAUNCH(count_lower, dim3(blocks), dim3(CREW), stream, *m, blocks);
}
