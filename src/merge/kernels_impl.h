#ifndef MERGEGRID_MERGE_KERNELS_IMPL_H
#define MERGEGRID_MERGE_KERNELS_IMPL_H

/*
 * What is done to a tile, one table an instruction set. All of them do the same operations on each element in the same order
 * (products and sums in double, no fused ones), so their bits are the same.
 */

#include <stdbool.h>
#include <stddef.h>

typedef enum mg_elected { MG_ELECTED_MEAN, MG_ELECTED_SUM, MG_ELECTED_MAX } mg_elected;

/* Rows may be read, and sums written, so many elements past their count. */
enum { MG_MERGE_SLACK = 32 };

typedef struct mg_merge_rows {
  size_t sources;
  long count;                        /* elements */
  const float *const *tau;           /* [sources] */
  const double *weight;              /* [sources] */
  const double *threshold, *ceiling; /* [sources] of |tau|: elements below, or from the ceiling on, count as 0 */
} mg_merge_rows;

typedef struct mg_merge_kernels {
  const char *name;
  /* sum[k] = Σ w_s tau_s[k], thresholds left aside */
  void (*add_up)(const mg_merge_rows *rows, double *sum);
  /* the same of what lies between threshold and ceiling */
  void (*add_up_between)(const mg_merge_rows *rows, double *sum);
  /* of what is between them: the sign of the weighted sum (+ for 0), then mean, sum or largest of those that have it */
  void (*elect)(const mg_merge_rows *rows, mg_elected elected, double *sum);
  /* of each element the value of largest magnitude, of equals the first */
  void (*largest)(const mg_merge_rows *rows, double *sum);
  /* the weighted mean of those that lie between threshold and ceiling */
  void (*average_active)(const mg_merge_rows *rows, double *sum);
  /* out = base_factor base + lambda sum, rounded once; is all of it finite? */
  bool (*finish)(const float *base, const double *sum, double base_factor, double lambda, long count, float *out);
} mg_merge_kernels;

extern const mg_merge_kernels mg_merge_portable, mg_merge_avx2, mg_merge_avx512;
/* The best for this machine, or what MERGEGRID_KERNEL names. */
const mg_merge_kernels *mg_merge_kernels_get(void);

#endif
