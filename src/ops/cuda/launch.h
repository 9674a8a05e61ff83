#ifndef MERGEGRID_CUDA_LAUNCH_H
#define MERGEGRID_CUDA_LAUNCH_H

/** What .cu files begin with. A test's cuda_runtime.h brings an MG_LAUNCH of its own. */

#include <cuda_runtime.h>

#include "kernels.h"

#ifndef MG_LAUNCH
#define MG_LAUNCH(kernel, grid, block, stream, ...) kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__)
#endif

enum { MG_WARP = 32, MG_THREADS = 128, MG_WARPS = MG_THREADS / MG_WARP };

/** Blocks of `each` for count. */
static inline unsigned mg_blocks(int64_t count, int64_t each) { return (unsigned)((count + each - 1) / each); }

#endif
