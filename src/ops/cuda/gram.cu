/* Inner products of a tile's rows in the order that ops.h defines: 16 lanes of fused multiply-adds over runs, then fp64. Runs
   are computed side by side and added to the accumulators one after the other, so every bit is the host's. */

#include "launch.h"
#include "mergegrid/tiling.h"

enum { ACCUMULATORS = 8, RUNS = MG_TILE / MG_RUN };
enum { GROUP = 8, OWN = 4, SIDE = GROUP / OWN }; /* rows of a block of pairs, and of a thread's part of it */
enum { CREW = MG_LANES * SIDE * SIDE };          /* threads */
/* Elements in shared memory at a time. Rows that two half-warps read at once lie half the banks apart. */
enum { SLAB = 256, SLAB_STRIDE = SLAB + 4 };

typedef struct raw_rows {
  int rows;
  int64_t count;
  const char *raw;
  const int64_t *offset;
  const int32_t *dtype;
  const float *scale;
} raw_rows;

static __device__ float half_of(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3FFu;
  if (exponent == 0) { /* subnormal: a whole multiple of 2^-24 */
    const float value = (float)fraction * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 0x7F800000u : (exponent + 112) << 23;
  return __uint_as_float(sign | wide | fraction << 13);
}

/* Rows as floats [rows][MG_TILE], zeros behind the last element to whole lanes. */
static __global__ void load(raw_rows from, float *to) {
  const int64_t k = (int64_t)blockIdx.x * MG_THREADS + threadIdx.x;
  const char *row = from.raw + from.offset[blockIdx.y];
  float value = 0;
  if (k >= (from.count + MG_LANES - 1) / MG_LANES * MG_LANES) return;
  if (k < from.count) {
    const int dtype = from.dtype[blockIdx.y];
    if (dtype == MG_F32)
      value = ((const float *)row)[k];
    else if (dtype == MG_BF16)
      value = __uint_as_float((uint32_t)((const uint16_t *)row)[k] << 16);
    else
      value = half_of(((const uint16_t *)row)[k]);
    value *= from.scale[blockIdx.y];
  }
  to[(int64_t)blockIdx.y * MG_TILE + k] = value;
}

typedef struct pairs {
  const float *a, *b; /* [rows][MG_TILE]; b is a where pairs are those i ≤ j */
  int a_rows, b_rows;
  bool triangle;
  int64_t count; /* elements, whole lanes */
} pairs;

static __device__ size_t pair_index(const pairs &p, int i, int j) {
  if (!p.triangle) return (size_t)i * (size_t)p.b_rows + (size_t)j;
  return (size_t)i * (size_t)p.a_rows - (size_t)i * (size_t)(i + 1) / 2 + (size_t)j;
}

static __device__ bool is_pair(const pairs &p, int i, int j) { return i < p.a_rows && j < p.b_rows && (!p.triangle || i <= j); }

/* The run's sums in fp64: sum [pairs][RUNS][ACCUMULATORS]. Rows that are not there repeat the first one; nobody takes them. */
static __global__ void multiply(pairs p, double *sum) {
  __shared__ float x[GROUP][SLAB_STRIDE], y[GROUP][SLAB_STRIDE];
  const int lane = (int)threadIdx.x % MG_LANES, part = (int)threadIdx.x / MG_LANES;
  const int i0 = (int)blockIdx.y * GROUP, j0 = (int)blockIdx.x * GROUP, iu = part / SIDE * OWN, ju = part % SIDE * OWN;
  const int64_t first = (int64_t)blockIdx.z * MG_RUN, left = p.count - first;
  const int count = left < MG_RUN ? (int)left : MG_RUN;
  float acc[OWN][OWN];
  if (p.triangle && blockIdx.x < blockIdx.y) return;
  for (int u = 0; u < OWN; u++)
    for (int v = 0; v < OWN; v++) acc[u][v] = 0;
  for (int slab = 0; slab < count; slab += SLAB) {
    const int some = count - slab < SLAB ? count - slab : SLAB;
    for (int e = (int)threadIdx.x; e < GROUP * SLAB; e += CREW) {
      const int r = e / SLAB, k = e % SLAB;
      if (k >= some) continue;
      x[r][k] = p.a[(int64_t)(i0 + r < p.a_rows ? i0 + r : 0) * MG_TILE + first + slab + k];
      y[r][k] = p.b[(int64_t)(j0 + r < p.b_rows ? j0 + r : 0) * MG_TILE + first + slab + k];
    }
    __syncthreads();
    for (int k = lane; k < some; k += MG_LANES)
      for (int u = 0; u < OWN; u++)
        for (int v = 0; v < OWN; v++) acc[u][v] = fmaf(x[iu + u][k], y[ju + v][k], acc[u][v]);
    __syncthreads();
  }
  for (int u = 0; u < OWN; u++)
    for (int v = 0; v < OWN; v++) {
      const float other = __shfl_down_sync(0xffffffffu, acc[u][v], ACCUMULATORS, MG_LANES);
      const int i = i0 + iu + u, j = j0 + ju + v;
      if (lane < ACCUMULATORS && is_pair(p, i, j))
        sum[(pair_index(p, i, j) * RUNS + blockIdx.z) * ACCUMULATORS + (size_t)lane] = (double)acc[u][v] + (double)other;
    }
}

static __global__ void add_runs(size_t count, int runs, const double *sum, double *acc) {
  const size_t k = (size_t)blockIdx.x * MG_THREADS + threadIdx.x;
  if (k >= count) return;
  double total = acc[k];
  for (int r = 0; r < runs; r++) total += sum[(k / ACCUMULATORS * RUNS + (size_t)r) * ACCUMULATORS + k % ACCUMULATORS];
  acc[k] = total;
}

/* One rounding to fp32 a tile, and fp64 from tile to tile. */
static __global__ void add_products(pairs p, const float *product, double *acc) {
  const int i = (int)blockIdx.y, j = (int)(blockIdx.x * MG_THREADS + threadIdx.x);
  if (is_pair(p, i, j)) acc[pair_index(p, i, j) * ACCUMULATORS] += (double)product[(size_t)i * (size_t)p.b_rows + (size_t)j];
}

/* ---- launching ---- */

static size_t float_bytes(int rows) { return (size_t)rows * MG_TILE * sizeof(float); }

size_t mg_gram_scratch_of(int rows) {
  const size_t pair_count = (size_t)rows * (size_t)(rows + 1) / 2;
  return float_bytes(rows) + pair_count * RUNS * ACCUMULATORS * sizeof(double);
}

static void load_rows(cudaStream_t stream, const mg_device_rows *r, float *to) {
  const raw_rows from = {r->rows, r->count, (const char *)r->raw, r->offset, r->dtype, r->scale};
  MG_LAUNCH(load, dim3(mg_blocks(r->count + MG_LANES, MG_THREADS), (unsigned)r->rows), dim3(MG_THREADS), stream, from, to);
}

mg_loaded_rows mg_launch_gram_load(cudaStream_t stream, const mg_device_rows *a, const mg_device_rows *b, void *scratch) {
  float *left = (float *)scratch, *right = b != NULL ? left + (size_t)a->rows * MG_TILE : left;
  load_rows(stream, a, left);
  if (b != NULL) load_rows(stream, b, right);
  return {left,
          right,
          a->rows,
          b != NULL ? b->rows : a->rows,
          (int)((a->count + MG_LANES - 1) / MG_LANES * MG_LANES),
          (float *)((char *)scratch + float_bytes(a->rows + (b != NULL ? b->rows : 0)))};
}

static pairs pairs_of(const mg_loaded_rows *r) { return {r->a, r->b, r->a_rows, r->b_rows, r->a == r->b, r->count}; }

void mg_launch_gram(cudaStream_t stream, const mg_device_rows *a, const mg_device_rows *b, double *acc, void *scratch) {
  const mg_loaded_rows r = mg_launch_gram_load(stream, a, b, scratch);
  const int runs = (int)mg_blocks(a->count, MG_RUN);
  double *sum = (double *)(void *)r.products;
  const size_t count = b != NULL ? (size_t)a->rows * (size_t)b->rows : (size_t)a->rows * (size_t)(a->rows + 1) / 2;
  MG_LAUNCH(multiply, dim3(mg_blocks(r.b_rows, GROUP), mg_blocks(r.a_rows, GROUP), (unsigned)runs), dim3(CREW), stream,
            pairs_of(&r), sum);
  MG_LAUNCH(add_runs, dim3(mg_blocks((int64_t)(count * ACCUMULATORS), MG_THREADS)), dim3(MG_THREADS), stream,
            count * ACCUMULATORS, runs, sum, acc);
}

void mg_launch_gram_add(cudaStream_t stream, const mg_loaded_rows *r, double *acc) {
  MG_LAUNCH(add_products, dim3(mg_blocks(r->b_rows, MG_THREADS), (unsigned)r->a_rows), dim3(MG_THREADS), stream, pairs_of(r),
            r->products, acc);
}
