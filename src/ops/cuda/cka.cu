/* Centring, and inner products of Gram matrices; all in double. The order of additions hangs on sizes alone, not on how many
   matrices are at hand, so that it does not matter how much memory there was. */

#include "launch.h"

enum { CREW = 256, SLICE = 8192 /* entries that a block multiplies */ };

/* The same of all threads' values, for thread 0; once a kernel. */
static __device__ double sum_of_block(double value) {
  __shared__ double part[CREW];
  part[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = CREW / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    __syncthreads();
  }
  return part[0];
}

/* A thread a column, as the host adds it up. */
static __global__ void centre(int rows, int n, const float *from, double *x) {
  const int d = (int)(blockIdx.x * MG_THREADS + threadIdx.x);
  double total = 0;
  if (d >= n) return;
  for (int t = 0; t < rows; t++) total += (double)from[(size_t)t * (size_t)n + (size_t)d];
  const double mean = total / rows;
  for (int t = 0; t < rows; t++) {
    const size_t at = (size_t)t * (size_t)n + (size_t)d;
    x[at] = (double)from[at] - mean;
  }
}

/* Of a row, what is off the diagonal. */
static __global__ void add_rows(int n, const double *k, double *sums) {
  const int row = (int)blockIdx.x;
  double mine = 0;
  for (int j = (int)threadIdx.x; j < n; j += CREW)
    if (j != row) mine += k[(size_t)row * (size_t)n + (size_t)j];
  const double total = sum_of_block(mine);
  if (threadIdx.x == 0) sums[row] = total;
}

static __global__ void add_all(int n, double *sums) {
  double mine = 0;
  for (int j = (int)threadIdx.x; j < n; j += CREW) mine += sums[j];
  const double total = sum_of_block(mine);
  if (threadIdx.x == 0) sums[n] = total;
}

static __global__ void u_centre(int n, const double *k, const double *sums, double *u) {
  const int64_t at = (int64_t)blockIdx.x * MG_THREADS + threadIdx.x;
  if (at >= (int64_t)n * n) return;
  const int i = (int)(at / n), j = (int)(at % n);
  const double each = 1 / (double)(n - 2), total = sums[n] / ((double)(n - 1) * (double)(n - 2));
  u[at] = i == j ? 0 : k[at] - (sums[i] + sums[j]) * each + total;
}

/* A slice of each vector's product: parts [count][slices]. */
static __global__ void multiply(int64_t n, int slices, const double *a, int64_t stride, const double *b, double *parts) {
  const double *own = a + (int64_t)blockIdx.y * stride;
  const int64_t first = (int64_t)blockIdx.x * SLICE, end = n - first < SLICE ? n : first + SLICE;
  double mine = 0;
  for (int64_t k = first + threadIdx.x; k < end; k += CREW) mine = fma(own[k], b[k], mine);
  const double total = sum_of_block(mine);
  if (threadIdx.x == 0) parts[(size_t)blockIdx.y * (size_t)slices + blockIdx.x] = total;
}

static __global__ void add_slices(int count, int slices, const double *parts, double *out) {
  const int j = (int)(blockIdx.x * MG_THREADS + threadIdx.x);
  double total = 0;
  if (j >= count) return;
  for (int s = 0; s < slices; s++) total += parts[(size_t)j * (size_t)slices + (size_t)s];
  out[j] = total;
}

/* ---- launching ---- */

void mg_launch_centre(cudaStream_t stream, int rows, int n, const float *from, double *x) {
  MG_LAUNCH(centre, dim3(mg_blocks(n, MG_THREADS)), dim3(MG_THREADS), stream, rows, n, from, x);
}

void mg_launch_u_centre(cudaStream_t stream, int n, const double *k, double *sums, double *u) {
  MG_LAUNCH(add_rows, dim3((unsigned)n), dim3(CREW), stream, n, k, sums);
  MG_LAUNCH(add_all, dim3(1), dim3(CREW), stream, n, sums);
  MG_LAUNCH(u_centre, dim3(mg_blocks((int64_t)n * n, MG_THREADS)), dim3(MG_THREADS), stream, n, k, sums, u);
}

static int slices_of(int64_t n) { return (int)mg_blocks(n, SLICE); }

size_t mg_dots_scratch_of(int count, int64_t n) { return (size_t)count * (size_t)slices_of(n) * sizeof(double); }

void mg_launch_dots(cudaStream_t stream, int count, int64_t n, const double *a, int64_t stride, const double *b, double *parts,
                    double *out) {
  const int slices = slices_of(n);
  MG_LAUNCH(multiply, dim3((unsigned)slices, (unsigned)count), dim3(CREW), stream, n, slices, a, stride, b, parts);
  MG_LAUNCH(add_slices, dim3(mg_blocks(count, MG_THREADS)), dim3(MG_THREADS), stream, count, slices, parts, out);
}
