/* Choosing a device, and the table of what it does. */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_impl.h"
#include "kernels.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"
#include "mergegrid/tiling.h"

mg_status mg_cuda_check(const mg_cuda_device *d, cudaError_t error, const char *what) {
  if (error == cudaSuccess) return MG_OK;
  return mg_fail(error == cudaErrorMemoryAllocation ? MG_ERR_NOMEM : MG_ERR_IO, "device %d (%s): %s: %s", d->number, d->name,
                 what, cudaGetErrorString(error));
}

mg_status mg_cublas_check(const mg_cuda_device *d, cublasStatus_t error, const char *what) {
  if (error == CUBLAS_STATUS_SUCCESS) return MG_OK;
  return mg_fail(error == CUBLAS_STATUS_ALLOC_FAILED ? MG_ERR_NOMEM : MG_ERR_IO, "device %d (%s): %s: %s", d->number, d->name,
                 what, cublasGetStatusString(error));
}

mg_status mg_cuda_enter(const mg_cuda_device *d) { return mg_cuda_check(d, cudaSetDevice(d->number), "choosing the device"); }

/* A kernel that can't be started says so only when it is asked. */
static mg_status launched(const mg_queue *q, const char *what) { return mg_cuda_check(q->device, cudaGetLastError(), what); }

/* cuBLAS stores by columns, so that what it sees is cᵀ = w aᵀ. */
static mg_status product(mg_queue *q, int m, int n, int k, const float *a, int a_stride, const float *w, float *c,
                         int c_stride) {
  const float one = 1, none = 0;
  MG_ENTER(q->device);
  return mg_cublas_check(q->device,
                         cublasSgemm(q->blas, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, &one, w, k, a, a_stride, &none, c, c_stride),
                         "a matrix product");
}

static mg_status embed(mg_queue *q, const mg_embedding *from, int rows, int n, const float *gain, const float *bias,
                       float epsilon, float *x) {
  MG_ENTER(q->device);
  mg_launch_embed(q->stream, from, rows, n, gain, bias, epsilon, x);
  return launched(q, "the embeddings");
}

static mg_status add_norm(mg_queue *q, int rows, int n, float *x, const float *y, const float *offset, const float *gain,
                          const float *bias, float epsilon) {
  MG_ENTER(q->device);
  mg_launch_add_norm(q->stream, rows, n, x, y, offset, gain, bias, epsilon);
  return launched(q, "a layer norm");
}

static mg_status attend(mg_queue *q, const mg_attention *attention) {
  MG_ENTER(q->device);
  mg_launch_attend(q->stream, attention);
  return launched(q, "attention");
}

static mg_status bias_gelu(mg_queue *q, int rows, int n, float *x, const float *bias) {
  MG_ENTER(q->device);
  mg_launch_bias_gelu(q->stream, rows, n, x, bias);
  return launched(q, "GELU");
}

static mg_status bias_tanh(mg_queue *q, int rows, int n, float *x, const float *bias) {
  MG_ENTER(q->device);
  mg_launch_bias_tanh(q->stream, rows, n, x, bias);
  return launched(q, "tanh");
}

static mg_status bias_add(mg_queue *q, int rows, int n, float *x, const float *bias) {
  MG_ENTER(q->device);
  mg_launch_bias_add(q->stream, rows, n, x, bias);
  return launched(q, "adding a bias");
}

static mg_status gather(mg_queue *q, int rows, int n, const int32_t *row, const float *from, float *to) {
  MG_ENTER(q->device);
  mg_launch_gather(q->stream, rows, n, row, from, to);
  return launched(q, "gathering rows");
}

static mg_status means(mg_queue *q, int texts, int n, const int32_t *first, const float *from, float *to) {
  MG_ENTER(q->device);
  mg_launch_means(q->stream, texts, n, first, from, to);
  return launched(q, "means over texts");
}

/* Rows are columns of MG_TILE to cuBLAS, and what comes out is [rows of a][rows of b] to us. */
static mg_status gram_by_products(mg_queue *q, const mg_device_rows *a, const mg_device_rows *b, double *acc, void *scratch) {
  const float one = 1, none = 0;
  const mg_loaded_rows r = mg_launch_gram_load(q->stream, a, b, scratch);
  const cublasStatus_t status = cublasSgemm(q->blas, CUBLAS_OP_T, CUBLAS_OP_N, r.b_rows, r.a_rows, r.count, &one, r.b, MG_TILE,
                                            r.a, MG_TILE, &none, r.products, r.b_rows);
  if (status != CUBLAS_STATUS_SUCCESS) return mg_cublas_check(q->device, status, "a matrix product of task vectors");
  mg_launch_gram_add(q->stream, &r, acc);
  return launched(q, "inner products");
}

static mg_status gram(mg_queue *q, const mg_device_rows *a, const mg_device_rows *b, double *acc, void *scratch) {
  MG_ENTER(q->device);
  if (q->device->device.products) return gram_by_products(q, a, b, acc, scratch);
  mg_launch_gram(q->stream, a, b, acc, scratch);
  return launched(q, "inner products");
}

static mg_status merge(mg_queue *q, const mg_device_merge *merge) {
  MG_ENTER(q->device);
  mg_launch_merge(q->stream, merge);
  return launched(q, "a merge");
}

static mg_status thin(mg_queue *q, const mg_device_thinning *thinning) {
  MG_ENTER(q->device);
  mg_launch_thin(q->stream, thinning);
  return launched(q, "dropping by rank");
}

static mg_status census(mg_queue *q, const mg_device_census *census) {
  MG_ENTER(q->device);
  mg_launch_census(q->stream, census);
  return launched(q, "counting magnitudes");
}

static mg_status norms(mg_queue *q, const mg_device_norms *norms) {
  MG_ENTER(q->device);
  mg_launch_norms(q->stream, norms);
  return launched(q, "adding up magnitudes");
}

static mg_status centre(mg_queue *q, int rows, int n, const float *from, double *x) {
  MG_ENTER(q->device);
  mg_launch_centre(q->stream, rows, n, from, x);
  return launched(q, "centring features");
}

/* By columns x is xᵀ, [n, rows]. What comes out is symmetric. */
static mg_status own_product(mg_queue *q, int rows, int n, const double *x, double *k) {
  const double one = 1, none = 0;
  MG_ENTER(q->device);
  return mg_cublas_check(q->device,
                         cublasDgemm(q->blas, CUBLAS_OP_T, CUBLAS_OP_N, rows, rows, n, &one, x, n, x, n, &none, k, rows),
                         "a Gram matrix of features");
}

static mg_status u_centre(mg_queue *q, int n, const double *k, double *sums, double *u) {
  MG_ENTER(q->device);
  mg_launch_u_centre(q->stream, n, k, sums, u);
  return launched(q, "centring a Gram matrix");
}

static mg_status dots(mg_queue *q, int count, int64_t n, const double *a, int64_t stride, const double *b, double *parts,
                      double *out) {
  MG_ENTER(q->device);
  mg_launch_dots(q->stream, count, n, a, stride, b, parts, out);
  return launched(q, "inner products of Gram matrices");
}

static const char *describe(const mg_device *device, char *buffer, size_t size) {
  const mg_cuda_device *d = (const mg_cuda_device *)device;
  snprintf(buffer, size, "%s, sm_%d%d, cuBLAS %d.%d.%d, %s", d->name, d->major, d->minor, d->cublas / 10000,
           d->cublas / 100 % 100, d->cublas % 100, d->device.tf32 ? "TF32" : "fp32");
  return buffer;
}

static const char *place(const mg_device *device, char *buffer, size_t size) {
  const mg_cuda_device *d = (const mg_cuda_device *)device;
  if (cudaDeviceGetPCIBusId(buffer, (int)size, d->number) != cudaSuccess) {
    cudaGetLastError();
    snprintf(buffer, size, "CUDA %d", d->number);
  }
  return buffer;
}

static void close_device(mg_device *device) {
  mg_cuda_device *d = mg_cuda_of(device);
  if (mg_cuda_enter(d) == MG_OK) mg_arena_free(&d->arena);
  free(d);
}

static const mg_device_ops ops = {.name = "cuda",
                                  .close = close_device,
                                  .describe = describe,
                                  .place = place,
                                  .reserve = mg_cuda_reserve,
                                  .take = mg_cuda_take,
                                  .give = mg_cuda_give,
                                  .room = mg_cuda_room,
                                  .pin = mg_cuda_pin,
                                  .unpin = mg_cuda_unpin,
                                  .open_queue = mg_cuda_open_queue,
                                  .close_queue = mg_cuda_close_queue,
                                  .open_mark = mg_cuda_open_mark,
                                  .close_mark = mg_cuda_close_mark,
                                  .mark = mg_cuda_mark,
                                  .after = mg_cuda_after,
                                  .await = mg_cuda_await,
                                  .finish = mg_cuda_finish,
                                  .upload = mg_cuda_upload,
                                  .download = mg_cuda_download,
                                  .upload_any = mg_cuda_upload_any,
                                  .zero = mg_cuda_zero,
                                  .product = product,
                                  .embed = embed,
                                  .attend = attend,
                                  .add_norm = add_norm,
                                  .bias_gelu = bias_gelu,
                                  .bias_tanh = bias_tanh,
                                  .bias_add = bias_add,
                                  .gather = gather,
                                  .means = means,
                                  .gram_scratch = mg_gram_scratch_of,
                                  .gram = gram,
                                  .merge = merge,
                                  .thin = thin,
                                  .census = census,
                                  .norms = norms,
                                  .centre = centre,
                                  .own_product = own_product,
                                  .u_centre = u_centre,
                                  .dots = dots,
                                  .dots_scratch = mg_dots_scratch_of};

static mg_status count_devices(int *count) {
  const cudaError_t error = cudaGetDeviceCount(count);
  if (error == cudaSuccess && *count > 0) return MG_OK;
  cudaGetLastError();
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  return mg_fail(MG_ERR_CONFIG, "cuda: no device is usable here: %s%s%s",
                 error == cudaSuccess ? "there is none" : cudaGetErrorString(error),
                 visible != NULL ? "; CUDA_VISIBLE_DEVICES is " : "", visible != NULL ? visible : "");
}

static mg_status look_at(mg_cuda_device *d) {
  mg_status status = MG_OK;
  struct cudaDeviceProp properties;
  cublasHandle_t blas = NULL;
  snprintf(d->name, sizeof d->name, "CUDA");
  MG_TRY(mg_cuda_enter(d), done);
  MG_TRY(mg_cuda_check(d, cudaGetDeviceProperties(&properties, d->number), "asking what it is"), done);
  snprintf(d->name, sizeof d->name, "%.120s", properties.name);
  d->major = properties.major;
  d->minor = properties.minor;
  MG_TRY(mg_cublas_check(d, cublasCreate(&blas), "opening cuBLAS"), done);
  status = mg_cublas_check(d, cublasGetVersion(blas, &d->cublas), "asking for cuBLAS's version");
  cublasDestroy(blas);
done:
  return status;
}

mg_status mg_cuda_open(const mg_device_terms *terms, mg_device **out) {
  mg_status status = MG_OK;
  int count = 0;
  *out = NULL;
  MG_TRY(count_devices(&count), done);
  mg_cuda_device *d = mg_alloc_zero(1, sizeof *d);
  if (d == NULL) return MG_ERR_NOMEM;
  d->device.ops = &ops;
  d->number = terms->node_rank % count;
  d->sharers = (terms->node_ranks - 1 - d->number) / count + 1;
  d->device.tf32 = terms->tf32;
  d->device.products = terms->products;
  MG_TRY(look_at(d), failed);
  MG_TRY(mg_arena_init(&d->arena), failed);
  if (terms->node_rank == 0 && terms->node_ranks > count)
    mg_info("%d ranks of this node share %d device%s", terms->node_ranks, count, count > 1 ? "s" : "");
  *out = &d->device;
  return MG_OK;
failed:
  free(d);
done:
  return status;
}
