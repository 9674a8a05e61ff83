/* What lies between the matrix products of a forward pass: each kernel reads and writes its rows once. */

#include <math.h>

#include "launch.h"

/* Over the lanes of a warp whose numbers differ in the bits below `width`; all get it, in one order. */
static __device__ float lanes_sum(float x, int width) {
  for (int turn = width / 2; turn > 0; turn /= 2) x += __shfl_xor_sync(0xffffffffu, x, turn);
  return x;
}

static __device__ float lanes_max(float x, int width) {
  for (int turn = width / 2; turn > 0; turn /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, turn));
  return x;
}

/* Rows are normalised by a warp each: what its lanes find together needs no barrier. */
static __device__ int own_row() { return (int)(blockIdx.x * MG_WARPS + threadIdx.x / MG_WARP); }
static __device__ int own_lane() { return (int)(threadIdx.x % MG_WARP); }

/* A row that the lanes have written, each its own elements. */
static __device__ void normalise(float *x, int n, float total, const float *gain, const float *bias, float epsilon) {
  const float mean = lanes_sum(total, MG_WARP) / (float)n;
  float squares = 0;
  for (int d = own_lane(); d < n; d += MG_WARP) squares += (x[d] - mean) * (x[d] - mean);
  const float inverse = 1.0f / sqrtf(lanes_sum(squares, MG_WARP) / (float)n + epsilon);
  for (int d = own_lane(); d < n; d += MG_WARP) x[d] = (x[d] - mean) * inverse * gain[d] + bias[d];
}

static __global__ void embed(mg_embedding from, int rows, int n, const float *gain, const float *bias, float epsilon,
                             float *x) {
  const int r = own_row();
  if (r >= rows) return;
  const float *word = from.words + (size_t)from.word[r] * (size_t)n;
  const float *place = from.positions + (size_t)from.position[r] * (size_t)n;
  float *row = x + (size_t)r * (size_t)n, total = 0;
  for (int d = own_lane(); d < n; d += MG_WARP) {
    row[d] = (word[d] + from.type[d]) + place[d];
    total += row[d];
  }
  normalise(row, n, total, gain, bias, epsilon);
}

static __global__ void add_norm(int rows, int n, float *x, const float *y, const float *offset, const float *gain,
                                const float *bias, float epsilon) {
  const int r = own_row();
  if (r >= rows) return;
  const size_t at = (size_t)r * (size_t)n;
  float *row = x + at, total = 0;
  for (int d = own_lane(); d < n; d += MG_WARP) {
    row[d] += y[at + (size_t)d] + offset[d];
    total += row[d];
  }
  normalise(row, n, total, gain, bias, epsilon);
}

enum { EACH = 4, SPAN = EACH * MG_THREADS }; /* elements of a thread, and of a block */

/* The first element of a thread, SPAN / EACH apart from its next one. */
static __device__ int64_t first_element() { return (int64_t)blockIdx.x * SPAN + threadIdx.x; }

static __global__ void bias_gelu(int64_t count, int n, float *x, const float *bias) {
  const int64_t first = first_element();
  for (int64_t k = first; k < count && k < first + SPAN; k += MG_THREADS) {
    const float v = x[k] + bias[k % n];
    x[k] = v * normcdff(v);
  }
}

static __global__ void bias_tanh(int64_t count, int n, float *x, const float *bias) {
  const int64_t first = first_element();
  for (int64_t k = first; k < count && k < first + SPAN; k += MG_THREADS) x[k] = tanhf(x[k] + bias[k % n]);
}

static __global__ void bias_add(int64_t count, int n, float *x, const float *bias) {
  const int64_t first = first_element();
  for (int64_t k = first; k < count && k < first + SPAN; k += MG_THREADS) x[k] += bias[k % n];
}

static __global__ void gather(int n, const int32_t *row, const float *from, float *to) {
  const float *source = from + (size_t)row[blockIdx.x] * (size_t)n;
  for (int d = (int)threadIdx.x; d < n; d += MG_THREADS) to[(size_t)blockIdx.x * (size_t)n + (size_t)d] = source[d];
}

static __global__ void means(int n, const int32_t *first, const float *from, float *to) {
  const int begin = first[blockIdx.x], end = first[blockIdx.x + 1];
  for (int d = (int)threadIdx.x; d < n; d += MG_THREADS) {
    double total = 0;
    for (int r = begin; r < end; r++) total += (double)from[(size_t)r * (size_t)n + (size_t)d];
    to[(size_t)blockIdx.x * (size_t)n + (size_t)d] = (float)(total / (end - begin));
  }
}

/* ---- attention ---- */

enum { QUERIES = MG_PIECE_QUERIES, KEYS = 32, WIDE = MG_WIDEST_HEAD };
enum { CREW = MG_THREADS / QUERIES, OWN_KEYS = KEYS / CREW, OWN_WIDTH = WIDE / CREW }; /* threads of a query */

/* Rows of a head into shared memory, those that are there, a warp each; biases added. */
static __device__ void load_rows(float (*to)[WIDE + 1], int room, int rows, int width, const float *from, int stride,
                                 const float *bias) {
  for (int r = (int)threadIdx.x / MG_WARP; r < room && r < rows; r += MG_WARPS)
    for (int d = own_lane(); d < width; d += MG_WARP) to[r][d] = from[(size_t)r * (size_t)stride + (size_t)d] + bias[d];
}

/* How many of a block's keys, of which `left` are there, are a thread's: every CREW-th one, and none where it has no query. */
static __device__ int own_keys(bool has_query, int left, int member) {
  return has_query ? ((left < KEYS ? left : KEYS) - member + CREW - 1) / CREW : 0;
}

/* The scores of a thread's query with its keys of a block; what has no key gets none. */
static __device__ void score(const float *query, const float (*keys)[WIDE + 1], int own, int width, int member, float *out) {
  for (int j = 0; j < OWN_KEYS; j++) {
    const int key = member + CREW * j;
    float dot = j < own ? 0 : -INFINITY;
    for (int d = 0; j < own && d < width; d++) dot = fmaf(query[d], keys[key][d], dot);
    out[j] = dot;
  }
}

/* One piece of one head: CREW neighbouring threads a query. First the largest score and the sum, then probabilities and the
   mix: scores of long texts are computed twice rather than kept. */
static __global__ void attend(mg_attention a) {
  __shared__ float query[QUERIES][WIDE + 1], block[KEYS][WIDE + 1], p[QUERIES][KEYS + 1];
  const int32_t *piece = a.piece + 4 * (size_t)blockIdx.x;
  const int width = a.width, hidden = a.heads * width, head = (int)blockIdx.y * width, keys = piece[3];
  const int q = (int)threadIdx.x / CREW, member = (int)threadIdx.x % CREW;
  const bool has_query = q < piece[1];
  const float *key = a.key + (size_t)piece[2] * (size_t)a.key_stride + head, *key_bias = a.key_bias + head;
  float own[OWN_KEYS], mix[OWN_WIDTH], most = -INFINITY, total = 0;
  load_rows(query, QUERIES, piece[1], width, a.query + (size_t)piece[0] * (size_t)a.query_stride + head, a.query_stride,
            a.query_bias + head);
  for (int at = 0; at < keys; at += KEYS) {
    load_rows(block, KEYS, keys - at, width, key + (size_t)at * (size_t)a.key_stride, a.key_stride, key_bias);
    __syncthreads();
    const int count = own_keys(has_query, keys - at, member);
    score(query[q], block, count, width, member, own);
    float top = most, sum = 0;
    for (int j = 0; j < OWN_KEYS; j++) top = fmaxf(top, own[j]);
    top = lanes_max(top, CREW);
    for (int j = 0; j < OWN_KEYS && j < count; j++) sum += expf((own[j] - top) * a.scale);
    total = total * expf((most - top) * a.scale) + lanes_sum(sum, CREW);
    most = top;
    __syncthreads(); /* the block is loaded anew */
  }
  for (int j = 0; j < OWN_WIDTH; j++) mix[j] = 0;
  const float inverse = 1.0f / total;
  for (int at = 0; at < keys; at += KEYS) {
    const int count = own_keys(has_query, keys - at, member);
    if (keys > KEYS) { /* else the scores are at hand */
      load_rows(block, KEYS, keys - at, width, key + (size_t)at * (size_t)a.key_stride, a.key_stride, key_bias);
      __syncthreads();
      score(query[q], block, count, width, member, own);
    }
    for (int j = 0; j < OWN_KEYS && j < count; j++) {
      const int k = member + CREW * j;
      const float value = expf((own[j] - most) * a.scale) * inverse;
      p[q][k] = value;
      if (a.keep != NULL)
        a.keep[a.keep_at[blockIdx.x] + ((int64_t)blockIdx.y * a.keep_rows[blockIdx.x] + q) * keys + at + k] = value;
    }
    __syncthreads();
    load_rows(block, KEYS, keys - at, width, key + (size_t)at * (size_t)a.key_stride + hidden, a.key_stride, key_bias + hidden);
    __syncthreads();
    for (int k = 0; has_query && k < KEYS && at + k < keys; k++)
      for (int j = 0; j < OWN_WIDTH && member + CREW * j < width; j++)
        mix[j] = fmaf(p[q][k], block[k][member + CREW * j], mix[j]);
    __syncthreads();
  }
  if (!has_query) return;
  float *out = a.mixed + ((size_t)piece[0] + (size_t)q) * (size_t)hidden + head;
  for (int j = 0; j < OWN_WIDTH && member + CREW * j < width; j++) out[member + CREW * j] = mix[j];
}

/* ---- launching ---- */

void mg_launch_embed(cudaStream_t stream, const mg_embedding *from, int rows, int n, const float *gain, const float *bias,
                     float epsilon, float *x) {
  MG_LAUNCH(embed, dim3(mg_blocks(rows, MG_WARPS)), dim3(MG_THREADS), stream, *from, rows, n, gain, bias, epsilon, x);
}

void mg_launch_add_norm(cudaStream_t stream, int rows, int n, float *x, const float *y, const float *offset, const float *gain,
                        const float *bias, float epsilon) {
  MG_LAUNCH(add_norm, dim3(mg_blocks(rows, MG_WARPS)), dim3(MG_THREADS), stream, rows, n, x, y, offset, gain, bias, epsilon);
}

void mg_launch_attend(cudaStream_t stream, const mg_attention *a) {
  MG_LAUNCH(attend, dim3((unsigned)a->pieces, (unsigned)a->heads), dim3(MG_THREADS), stream, *a);
}

void mg_launch_bias_gelu(cudaStream_t stream, int rows, int n, float *x, const float *bias) {
  const int64_t count = (int64_t)rows * n;
  MG_LAUNCH(bias_gelu, dim3(mg_blocks(count, SPAN)), dim3(MG_THREADS), stream, count, n, x, bias);
}

void mg_launch_bias_tanh(cudaStream_t stream, int rows, int n, float *x, const float *bias) {
  const int64_t count = (int64_t)rows * n;
  MG_LAUNCH(bias_tanh, dim3(mg_blocks(count, SPAN)), dim3(MG_THREADS), stream, count, n, x, bias);
}

void mg_launch_bias_add(cudaStream_t stream, int rows, int n, float *x, const float *bias) {
  const int64_t count = (int64_t)rows * n;
  MG_LAUNCH(bias_add, dim3(mg_blocks(count, SPAN)), dim3(MG_THREADS), stream, count, n, x, bias);
}

void mg_launch_gather(cudaStream_t stream, int rows, int n, const int32_t *row, const float *from, float *to) {
  MG_LAUNCH(gather, dim3((unsigned)rows), dim3(MG_THREADS), stream, n, row, from, to);
}

void mg_launch_means(cudaStream_t stream, int texts, int n, const int32_t *first, const float *from, float *to) {
  MG_LAUNCH(means, dim3((unsigned)texts), dim3(MG_THREADS), stream, n, first, from, to);
}
