#ifndef MERGEGRID_TEST_CUDA_RUNTIME_H
#define MERGEGRID_TEST_CUDA_RUNTIME_H

/*
 * What .cu files see besides: kernels are functions, and a launch is a queued call of one for every thread of every block.
 * Threads are fibres that run until they meet a barrier or a warp's exchange, in an order that changes; shared memory is static
 * and in a section of its own, so that it can be filled with NaN before each block.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <utility>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __shared__ static __attribute__((section("mg_cuda_shared")))

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct mg_emu_index {
  unsigned x, y, z;
};
extern mg_emu_index threadIdx, blockIdx;

void mg_emu_launch(const char *name, dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> kernel);
void mg_emu_barrier();
/* A barrier, and whether any thread of the block says so. */
int mg_emu_any(int predicate);
/* Every lane gives a word, and takes another lane's. */
uint32_t mg_emu_exchange(uint32_t word, int from_lane);
int mg_emu_lane();

/* Arguments are copied when the kernel is launched. */
#define MG_LAUNCH(kernel, grid, block, stream, ...)                                                                            \
  mg_emu_launch(#kernel, grid, block, stream, [arguments = std::make_tuple(__VA_ARGS__)]() { std::apply(kernel, arguments); })

static inline void __syncthreads() { mg_emu_barrier(); }
static inline int __syncthreads_or(int predicate) { return mg_emu_any(predicate); }

static inline float mg_emu_exchange_float(float x, int lane) {
  uint32_t word;
  memcpy(&word, &x, sizeof word);
  word = mg_emu_exchange(word, lane);
  memcpy(&x, &word, sizeof x);
  return x;
}

/* All lanes of a warp take part: what masks say otherwise is not used. */
static inline float __shfl_xor_sync(unsigned, float x, int lanes) { return mg_emu_exchange_float(x, mg_emu_lane() ^ lanes); }

static inline float __shfl_down_sync(unsigned, float x, unsigned lanes, int width) {
  const int lane = mg_emu_lane(), to = lane % width + (int)lanes;
  return mg_emu_exchange_float(x, to < width ? lane - lane % width + to : lane);
}

static inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
static inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint32_t)(((uint64_t)a * b) >> 32); }
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
/* Not inline, so that those who watch plain accesses (emulator.cpp) do not take them for such. */
unsigned long long atomicMin(unsigned long long *at, unsigned long long value);
unsigned long long atomicAdd(unsigned long long *at, unsigned long long value);
unsigned atomicAdd(unsigned *at, unsigned value);

#endif
