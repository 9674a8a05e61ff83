/* Inner products of a tile's rows in the orders that ops.h defines: 16 lanes of fused multiply-adds over runs, or chains over
   links, then fp64. Runs are computed side by side and added to the accumulators one after the other, so every bit is the
   host's. */

#include <float.h>

#include "launch.h"
#include "mergegrid/tiling.h"

enum { ACCUMULATORS = 8, RUNS = MG_TILE / MG_RUN };
enum { GROUP = 8, OWN = 4, SIDE = GROUP / OWN };           /* rows of a block of pairs, and of a thread's part of it */
enum { PARTS = SIDE * SIDE, CREW = MG_LANES * PARTS };     /* threads */
enum { SLAB = MG_LANES / 2 * MG_LINK, CHAINS = MG_LANES }; /* elements in shared memory at a time; chains of their links */
/* Half a warp reads 16 elements in a row, or two of each of 8 links: these lie two banks apart besides. Rows that two
   half-warps read at once lie half the banks apart. */
enum { LINK_STRIDE = MG_LINK + 2, SLAB_STRIDE = SLAB / MG_LINK * LINK_STRIDE + 4 };
static_assert(OWN * OWN == MG_LANES, "each of a part's threads adds up the links of one pair");

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
  int a_chained, b_chained;
  bool triangle;
  int64_t count; /* elements, whole lanes */
} pairs;

static __device__ size_t pair_index(const pairs &p, int i, int j) {
  if (!p.triangle) return (size_t)i * (size_t)p.b_rows + (size_t)j;
  return (size_t)i * (size_t)p.a_rows - (size_t)i * (size_t)(i + 1) / 2 + (size_t)j;
}

static __device__ bool is_pair(const pairs &p, int i, int j) { return i < p.a_rows && j < p.b_rows && (!p.triangle || i <= j); }

static __device__ bool is_chained(const pairs &p, int i, int j) { return i < p.a_chained && j < p.b_chained; }

/* Rows of the two sides. */
typedef struct slabs {
  float x[GROUP][SLAB_STRIDE], y[GROUP][SLAB_STRIDE];
} slabs;

/* What of them a thread multiplies: rows x … x + OWN by rows y … y + OWN. */
typedef struct member {
  int lane, x, y;
} member;

static __device__ int place_of(int k) { return k / MG_LINK * LINK_STRIDE + k % MG_LINK; }

/* Elements of chained rows have 8 digits. Where none is as small as this, products and all that they add up to are whole
   multiples of the smallest normal number: nothing is flushed, and plain fused multiply-adds do. */
static __device__ bool is_tiny(float x) { return x != 0 && fabsf(x) < 0x1p-56f; }

/* Elements from `first` on, and zeros behind the last one. Is one of them tiny? Rows that are not there repeat the first one;
   nobody takes them. */
static __device__ bool load_slabs(const pairs &p, int64_t first, int count, slabs *to) {
  bool tiny = false;
  for (int e = (int)threadIdx.x; e < GROUP * SLAB; e += CREW) {
    const int r = e / SLAB, k = e % SLAB, i = (int)blockIdx.y * GROUP + r, j = (int)blockIdx.x * GROUP + r;
    const float x = k < count ? p.a[(int64_t)(i < p.a_rows ? i : 0) * MG_TILE + first + k] : 0;
    const float y = k < count ? p.b[(int64_t)(j < p.b_rows ? j : 0) * MG_TILE + first + k] : 0;
    to->x[r][place_of(k)] = x;
    to->y[r][place_of(k)] = y;
    tiny = tiny || is_tiny(x) || is_tiny(y);
  }
  return tiny;
}

static __device__ void multiply_lanes(const slabs &s, member m, int count, float acc[OWN][OWN]) {
  for (int k = m.lane; k < count; k += MG_LANES) {
    const int at = place_of(k);
    for (int u = 0; u < OWN; u++)
      for (int v = 0; v < OWN; v++) acc[u][v] = fmaf(s.x[m.x + u][at], s.y[m.y + v][at], acc[u][v]);
  }
}

static __device__ float flushed(float x) { return fabsf(x) < FLT_MIN ? copysignf(0, x) : x; }

/* As the reference has it (src/ops/ref/gram.c). What a device's own flushing does to a sum that rounds up to the smallest
   normal number is not documented. */
static __device__ float flushing_fma(float x, float y, float a) {
  const float sum = fmaf(flushed(x), flushed(y), a);
  if (fabsf(sum) != FLT_MIN) return flushed(sum);
  const double exact = (double)flushed(x) * (double)flushed(y) + (double)a;
  return fabs(exact) < (double)FLT_MIN * (1 - 0x1p-25) ? copysignf(0, sum) : sum;
}

/* The links of a slab: even lanes have chains of even elements, odd ones of odd. */
static __device__ void multiply_links(const slabs &s, member m, float chain[OWN * OWN][CHAINS + 1]) {
  float acc[OWN][OWN] = {};
  const int first = m.lane / 2 * LINK_STRIDE + m.lane % 2;
  for (int k = first; k < first + MG_LINK; k += 2)
    for (int u = 0; u < OWN; u++)
      for (int v = 0; v < OWN; v++) acc[u][v] = fmaf(s.x[m.x + u][k], s.y[m.y + v][k], acc[u][v]);
  for (int u = 0; u < OWN; u++)
    for (int v = 0; v < OWN; v++) chain[u * OWN + v][m.lane] = acc[u][v];
}

/* The same with elements that are tiny: seldom, so without registers of its own. */
static __device__ void multiply_tiny_links(const slabs &s, member m, float chain[OWN * OWN][CHAINS + 1]) {
  const int first = m.lane / 2 * LINK_STRIDE + m.lane % 2;
  for (int pair = 0; pair < OWN * OWN; pair++) {
    const float *x = s.x[m.x + pair / OWN], *y = s.y[m.y + pair % OWN];
    float acc = 0;
    for (int k = first; k < first + MG_LINK; k += 2) acc = flushing_fma(x[k], y[k], acc);
    chain[pair][m.lane] = acc;
  }
}

static __device__ float add_links(const float *chain, float sum) {
  for (int l = 0; l < CHAINS; l += 2) sum = flushed(sum + flushed(chain[l] + chain[l + 1]));
  return sum;
}

/* Where the run's sums of a pair go: sum [pairs][RUNS][ACCUMULATORS]. */
static __device__ double *sums_at(const pairs &p, int i, int j, double *sum) {
  return sum + (pair_index(p, i, j) * RUNS + blockIdx.z) * ACCUMULATORS;
}

static __device__ void keep_lanes(const pairs &p, int i0, int j0, int lane, const float acc[OWN][OWN], double *sum) {
  for (int u = 0; u < OWN; u++)
    for (int v = 0; v < OWN; v++) {
      const float other = __shfl_down_sync(0xffffffffu, acc[u][v], ACCUMULATORS, MG_LANES);
      const int i = i0 + u, j = j0 + v;
      if (lane < ACCUMULATORS && is_pair(p, i, j) && !is_chained(p, i, j))
        sums_at(p, i, j, sum)[lane] = (double)acc[u][v] + (double)other;
    }
}

static __device__ void keep_chained(const pairs &p, int i, int j, float chained, double *sum) {
  if (!is_pair(p, i, j) || !is_chained(p, i, j)) return;
  for (int d = 0; d < ACCUMULATORS; d++) sums_at(p, i, j, sum)[d] = d == 0 ? (double)chained : 0;
}

/* The run's sums in fp64. Links are added up in order by as many threads as a part has pairs, each its own. */
static __global__ void multiply(pairs p, double *sum) {
  __shared__ slabs s;
  __shared__ float chain[PARTS][OWN * OWN][CHAINS + 1];
  const int lane = (int)threadIdx.x % MG_LANES, part = (int)threadIdx.x / MG_LANES;
  const int i0 = (int)blockIdx.y * GROUP, j0 = (int)blockIdx.x * GROUP;
  const int i_end = i0 + GROUP < p.a_rows ? i0 + GROUP : p.a_rows, j_end = j0 + GROUP < p.b_rows ? j0 + GROUP : p.b_rows;
  const bool chains = is_chained(p, i0, j0), lanes = !is_chained(p, i_end - 1, j_end - 1);
  const member m = {lane, part / SIDE * OWN, part % SIDE * OWN};
  const int64_t first = (int64_t)blockIdx.z * MG_RUN, left = p.count - first;
  const int count = left < MG_RUN ? (int)left : MG_RUN;
  float acc[OWN][OWN] = {}, chained = 0;
  if (p.triangle && blockIdx.x < blockIdx.y) return;
  for (int slab = 0; slab < count; slab += SLAB) {
    const int some = count - slab < SLAB ? count - slab : SLAB;
    const bool tiny = __syncthreads_or(load_slabs(p, first + slab, some, &s));
    if (lanes) multiply_lanes(s, m, some, acc);
    if (chains && !tiny) multiply_links(s, m, chain[part]);
    if (chains && tiny) multiply_tiny_links(s, m, chain[part]);
    __syncthreads();
    if (chains) chained = add_links(chain[part][lane], chained);
  }
  if (lanes) keep_lanes(p, i0 + m.x, j0 + m.y, lane, acc, sum);
  if (chains) keep_chained(p, i0 + m.x + lane / OWN, j0 + m.y + lane % OWN, chained, sum);
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
          a->chained,
          b != NULL ? b->chained : a->chained,
          (int)((a->count + MG_LANES - 1) / MG_LANES * MG_LANES),
          (float *)((char *)scratch + float_bytes(a->rows + (b != NULL ? b->rows : 0)))};
}

static pairs pairs_of(const mg_loaded_rows *r) {
  return {r->a, r->b, r->a_rows, r->b_rows, r->a_chained, r->b_chained, r->a == r->b, r->count};
}

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
