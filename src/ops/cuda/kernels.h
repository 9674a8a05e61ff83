#ifndef MERGEGRID_CUDA_KERNELS_H
#define MERGEGRID_CUDA_KERNELS_H

/** Launchers of the kernels: they queue, and leave what went wrong to cudaGetLastError. Arguments as in device.h. */

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "mergegrid/device.h"

void mg_launch_embed(cudaStream_t stream, const mg_embedding *from, int rows, int n, const float *gain, const float *bias,
                     float epsilon, float *x);
void mg_launch_add_norm(cudaStream_t stream, int rows, int n, float *x, const float *y, const float *offset, const float *gain,
                        const float *bias, float epsilon);
void mg_launch_attend(cudaStream_t stream, const mg_attention *attention);
void mg_launch_bias_gelu(cudaStream_t stream, int rows, int n, float *x, const float *bias);
void mg_launch_bias_tanh(cudaStream_t stream, int rows, int n, float *x, const float *bias);
void mg_launch_bias_add(cudaStream_t stream, int rows, int n, float *x, const float *bias);
void mg_launch_gather(cudaStream_t stream, int rows, int n, const int32_t *row, const float *from, float *to);
void mg_launch_means(cudaStream_t stream, int texts, int n, const int32_t *first, const float *from, float *to);

size_t mg_gram_scratch_of(int rows);
void mg_launch_gram(cudaStream_t stream, const mg_device_rows *a, const mg_device_rows *b, double *acc, void *scratch);

/** A tile's rows as floats, MG_TILE apart, zeros behind the last element to whole lanes; and room for their products. */
typedef struct mg_loaded_rows {
  const float *a, *b; /**< b is a where pairs are those i ≤ j */
  int a_rows, b_rows, a_chained, b_chained, count;
  float *products; /**< [a_rows][b_rows] */
} mg_loaded_rows;
mg_loaded_rows mg_launch_gram_load(cudaStream_t stream, const mg_device_rows *a, const mg_device_rows *b, void *scratch);
/** Products to the pairs' first accumulators. */
void mg_launch_gram_add(cudaStream_t stream, const mg_loaded_rows *rows, double *acc);

void mg_launch_merge(cudaStream_t stream, const mg_device_merge *merge);
void mg_launch_thin(cudaStream_t stream, const mg_device_thinning *thinning);
void mg_launch_census(cudaStream_t stream, const mg_device_census *census);
void mg_launch_norms(cudaStream_t stream, const mg_device_norms *norms);

void mg_launch_centre(cudaStream_t stream, int rows, int n, const float *from, double *x);
void mg_launch_u_centre(cudaStream_t stream, int n, const double *k, double *sums, double *u);
void mg_launch_dots(cudaStream_t stream, int count, int64_t n, const double *a, int64_t stride, const double *b, double *parts,
                    double *out);
size_t mg_dots_scratch_of(int count, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
