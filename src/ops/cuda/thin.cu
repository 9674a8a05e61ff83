/*
 * Rows whose elements are dropped by rank: a block sorts a piece's rows in shared memory, then everyone knows what became of
 * the elements that are next in order.
 */

#include "launch.h"
#include "philox.h"

enum { CREW = 256 };

/*
 * A key orders as row, magnitude, place; the sign goes along, so that a value need not be read again. No two are equal, so
 * every way of sorting them ends with the host's order.
 */
enum { PLACE_BIT = 1, SIZE_BIT = PLACE_BIT + 12, ROW_BIT = SIZE_BIT + 31 };
static_assert(MG_PIECE_ELEMENTS == 1 << (SIZE_BIT - PLACE_BIT), "places fit into their bits");

static __device__ uint64_t key_of(float value, uint32_t place, uint32_t row) {
  const uint32_t bits = __float_as_uint(value);
  return (uint64_t)row << ROW_BIT | (uint64_t)(bits & 0x7FFFFFFFu) << SIZE_BIT | place << PLACE_BIT | bits >> 31;
}

static __device__ float value_of(uint64_t key) {
  return __uint_as_float((uint32_t)(key >> SIZE_BIT & 0x7FFFFFFFu) | (uint32_t)key << 31);
}

static __device__ uint32_t place_of(uint64_t key) { return (uint32_t)(key >> PLACE_BIT) % MG_PIECE_ELEMENTS; }

/* A bitonic network whose comparisons all point upwards: what would lie behind the last key would never move, so it need not be
   there. The first step of a merge pairs runs of 2^log keys back to front, the others keys that lie 2^log apart. */
static __device__ void exchange(uint64_t *keys, uint32_t count, uint32_t log, bool first) {
  const uint32_t half = 1u << log;
  for (uint32_t pair = threadIdx.x; pair < MG_PIECE_ELEMENTS / 2; pair += CREW) {
    const uint32_t begin = pair >> log << (log + 1), at = pair & (half - 1);
    const uint32_t low = begin + at, high = first ? begin + 2 * half - 1 - at : low + half;
    if (begin + half >= count) break;
    if (high >= count || keys[low] < keys[high]) continue;
    const uint64_t key = keys[low];
    keys[low] = keys[high];
    keys[high] = key;
  }
  __syncthreads();
}

static __device__ void sort(uint64_t *keys, uint32_t count) {
  for (uint32_t log = 0; 1u << log < count; log++) {
    exchange(keys, count, log, true);
    for (uint32_t step = log; step > 0; step--) exchange(keys, count, step - 1, false);
  }
}

static __global__ void thin_out(mg_device_thinning m) {
  __shared__ uint64_t keys[MG_PIECE_ELEMENTS];
  const mg_device_piece piece = m.piece[blockIdx.x];
  const mg_stream stream = m.stream[blockIdx.y];
  const float *tau = m.tau[blockIdx.y] + piece.from;
  float *out = m.out[blockIdx.y] + (size_t)blockIdx.x * MG_PIECE_ELEMENTS;
  for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {
    const float value = m.other != NULL ? tau[k] - m.other[piece.from + k] : tau[k];
    keys[k] = key_of(value, k, k / m.row);
  }
  __syncthreads();
  sort(keys, piece.count);
  for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {
    const float value = value_of(keys[k]);
    const uint32_t place = place_of(keys[k]);
    const double probability = m.least + m.rise * (double)(k % m.row);
    const bool stays = (double)word_of(stream, piece.element + place) < probability * 4294967296.0;
    const float kept = m.inverse ? (float)((double)value / probability) : value * m.scale[blockIdx.y];
    out[place] = stays ? kept : 0.0f;
  }
}

void mg_launch_thin(cudaStream_t stream, const mg_device_thinning *m) {
  if (m->pieces > 0) MG_LAUNCH(thin_out, dim3(m->pieces, (unsigned)m->sources), dim3(CREW), stream, *m);
}
