#ifndef MERGEGRID_ENCODER_ROWS_IMPL_H
#define MERGEGRID_ENCODER_ROWS_IMPL_H

/** The row operations between the matrix products, one table an instruction set. */

typedef struct mg_row_kernels {
  const char *name;
  /** x[k] = x[k] Φ(x[k]), exact to float's rounding. */
  void (*gelu)(float *x, long n);
  void (*tanh)(float *x, long n);
  /** out[r] = (in[r] − mean) / sqrt(variance + epsilon) · gain + bias for each of `rows` rows of n; out may be in. */
  void (*layer_norm)(float *out, const float *in, const float *gain, const float *bias, long rows, long n, float epsilon);
  /** Each of `rows` rows of length n (stride apart) becomes softmax(scale · row). */
  void (*softmax)(float *x, long rows, long n, long stride, float scale);
  /**
   * Short sequences: softmax(scale · q kᵀ) v of one head. q, k, v: rows of `width` floats `stride` apart, readable 16 floats
   * past their end; out rows out_stride apart. Scratch: scores [keys rounded up to 16, 16], packed [width rounded up to 16,
   * 16]. keep: NULL, or [queries, keys] for the probabilities.
   */
  void (*attend)(const float *q, const float *k, const float *v, long queries, long keys, long width, long stride,
                 long q_stride, float scale, float *out, long out_stride, float *scores, float *packed, float *keep);
} mg_row_kernels;

extern const mg_row_kernels mg_rows_portable, mg_rows_avx2, mg_rows_avx512;
/** The best for this machine, or what MERGEGRID_KERNEL names. */
const mg_row_kernels *mg_row_kernels_get(void);

#endif
