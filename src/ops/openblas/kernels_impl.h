#ifndef MERGEGRID_KERNELS_IMPL_H
#define MERGEGRID_KERNELS_IMPL_H

#include "ops_impl.h"

enum { MG_MOST_COLUMNS = 4, MG_MOST_GROUP = 8 };

/**
 * The micro-kernels of an instruction set, each over one run of steps × 16 elements. acc[p] points to the MG_ACCUMULATORS
 * doubles of pair p.
 */
typedef struct mg_kernels {
  int group, columns; /**< rows and columns of a block */
  /** `group` rows against each other, pairs as mg_pair_index; 16-bit rows are stored to out[i] as floats on the way. */
  void (*diagonal_f32)(const void *const *row, const float *scale, int steps, float *out, double *const *acc);
  void (*diagonal_bf16)(const void *const *row, const float *scale, int steps, float *out, double *const *acc);
  void (*diagonal_f16)(const void *const *row, const float *scale, int steps, float *out, double *const *acc);
  /** `group` rows x against n columns y. before[n]: acc[j] is the pair of row 0 and column j, further rows follow it. */
  void (*before[MG_MOST_COLUMNS + 1])(const float *const *x, const float *const *y, int steps, double *const *acc);
  /** The same; behind[n]: acc[i] is the pair of row i and column 0, further columns follow it. */
  void (*behind[MG_MOST_COLUMNS + 1])(const float *const *x, const float *const *y, int steps, double *const *acc);
} mg_kernels;

void mg_drive_triangle(const mg_kernels *kernels, const mg_tile *tile, double *acc, void *scratch);
void mg_drive_rectangle(const mg_kernels *kernels, const mg_tile *a, const mg_tile *b, double *acc, void *scratch);

#endif
