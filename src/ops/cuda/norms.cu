/* L1 norms as src/merge/l1.c defines them: whole numbers, exponent by exponent, which threads may add in any order. */

#include "launch.h"
#include "philox.h"

enum { CREW = 256, MOST_BLOCKS = 512 };

typedef struct term {
  uint32_t bin;
  uint64_t size;
} term;

static __device__ term term_of(float value) {
  const uint32_t bits = __float_as_uint(value), bin = bits >> 23 & 0xFFu, fraction = bits & 0x7FFFFFu;
  if (bin == MG_L1_BINS - 1) return {bin, fraction != 0 ? (uint64_t)1 << 32 : (uint64_t)1};
  return {bin, fraction | (bin > 0 ? 1u << 23 : 0u)};
}

/* What of a value belongs to the part. */
static __device__ float part_of(const mg_device_norms &m, const mg_device_piece &piece, uint32_t p, uint32_t k, float value) {
  if (m.part == MG_DEVICE_PART_PACKED) return m.packed[(size_t)p * MG_PIECE_ELEMENTS + k];
  if (m.part == MG_DEVICE_PART_KEPT) return word_of(m.stream, piece.element + k) <= m.last_kept ? value : 0.0f;
  return fabs((double)value) < m.threshold ? value : 0.0f;
}

static __device__ void add_to(uint64_t *bin, uint64_t size) {
  if (size > 0) atomicAdd((unsigned long long *)bin, (unsigned long long)size);
}

static __global__ void add_norms(mg_device_norms m, uint32_t blocks) {
  __shared__ uint64_t own[2 * MG_L1_BINS];
  for (uint32_t k = threadIdx.x; k < 2 * MG_L1_BINS; k += CREW) own[k] = 0;
  __syncthreads();
  for (uint32_t p = blockIdx.x; p < m.pieces; p += blocks) {
    const mg_device_piece piece = m.piece[p];
    for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {
      float value = m.tau[piece.from + k];
      if (m.other != NULL) value -= m.other[piece.from + k];
      const term all = term_of(value), part = term_of(part_of(m, piece, p, k, value));
      add_to(&own[all.bin], all.size);
      add_to(&own[MG_L1_BINS + part.bin], part.size);
    }
  }
  __syncthreads();
  for (uint32_t k = threadIdx.x; k < 2 * MG_L1_BINS; k += CREW) add_to(&m.bins[k], own[k]);
}

void mg_launch_norms(cudaStream_t stream, const mg_device_norms *m) {
  const uint32_t blocks = m->pieces < MOST_BLOCKS ? m->pieces : (uint32_t)MOST_BLOCKS;
  if (blocks > 0) MG_LAUNCH(add_norms, dim3(blocks), dim3(CREW), stream, *m, blocks);
}
