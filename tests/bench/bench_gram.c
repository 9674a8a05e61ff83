/*
 * The Gram kernel beside OpenBLAS, one core, interleaved in one run: SSYRK on the same tile, and SGEMM on large squares as the
 * machine's practical peak. Rates count the useful half: N (N + 1) / 2 pairs, 2 flops an element.
 *
 *   bench_gram [--rows N] [--seconds S]
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "mergegrid/ops.h"
#include "mergegrid/text.h"

enum { SQUARE = 2048, MOST_ROUNDS = 400, CALLS = 16 };

typedef struct arena {
  int rows;
  char *tile[3]; /* F32, BF16, F16 */
  float *plain;  /* rows × MG_TILE without padding, for OpenBLAS */
  float *c, *a, *b, *d;
  double *acc;
  void *scratch;
} arena;

static const mg_dtype DTYPES[3] = {MG_F32, MG_BF16, MG_F16};

static size_t stride_of(mg_dtype dtype) { return MG_TILE * mg_dtype_size(dtype) + MG_ROW_ALIGN; }

static void fill(arena *w) {
  unsigned state = 1;
  for (size_t k = 0; k < (size_t)w->rows * MG_TILE; k++) {
    state = state * 1664525u + 1013904223u;
    w->plain[k] = (float)((int)(state >> 8) - (1 << 23)) * 0x1p-36f; /* about the size of a task vector's elements */
  }
  for (int t = 0; t < 3; t++)
    for (int r = 0; r < w->rows; r++) {
      char *to = w->tile[t] + (size_t)r * stride_of(DTYPES[t]);
      if (t == 0)
        memcpy(to, w->plain + (size_t)r * MG_TILE, MG_TILE * sizeof(float));
      else
        mg_from_f32(to, w->plain + (size_t)r * MG_TILE, DTYPES[t], MG_TILE, t == 2 ? 0x1p20f : 1);
    }
}

static double time_kernel(arena *w, const mg_ops *ops, int t, int base_rows) {
  const void *row[512];
  mg_dtype dtype[512];
  float scale[512];
  for (int r = 0; r < w->rows; r++) {
    const bool base = r >= w->rows - base_rows;
    row[r] = w->tile[base ? 0 : t] + (size_t)r * stride_of(DTYPES[base ? 0 : t]);
    dtype[r] = DTYPES[base ? 0 : t];
    scale[r] = t == 2 && !base ? 0x1p-20f : 1;
  }
  const mg_tile tile = {.rows = w->rows, .count = MG_TILE, .row = row, .dtype = dtype, .scale = scale};
  ops->gram_triangle(&tile, w->acc, w->scratch); /* what the products before it left in the caches is not its concern */
  const double began = mg_now();
  for (int k = 0; k < CALLS; k++) ops->gram_triangle(&tile, w->acc, w->scratch);
  return (mg_now() - began) / CALLS;
}

static double time_syrk(arena *w) {
  double began = 0;
  for (int k = -1; k < CALLS; k++) {
    if (k == 0) began = mg_now(); /* the first call warms the caches, as for the kernel */
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasNoTrans, w->rows, MG_TILE, 1, w->plain, MG_TILE, 1, w->c, w->rows);
  }
  return (mg_now() - began) / CALLS;
}

static double time_gemm(arena *w) {
  const double began = mg_now();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SQUARE, SQUARE, SQUARE, 1, w->a, SQUARE, w->b, SQUARE, 0, w->d,
              SQUARE);
  return mg_now() - began;
}

static int compare(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}
static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return values[count / 2];
}

static bool allocate(arena *w) {
  for (int t = 0; t < 3; t++) w->tile[t] = mg_alloc_aligned((size_t)w->rows * stride_of(DTYPES[t]));
  w->plain = mg_alloc_aligned((size_t)w->rows * MG_TILE * sizeof(float));
  w->c = mg_alloc_zero((size_t)w->rows * (size_t)w->rows, sizeof(float));
  w->a = mg_alloc_zero((size_t)SQUARE * SQUARE, sizeof(float));
  w->b = mg_alloc_zero((size_t)SQUARE * SQUARE, sizeof(float));
  w->d = mg_alloc_zero((size_t)SQUARE * SQUARE, sizeof(float));
  w->acc = mg_alloc_aligned(mg_pair_count(w->rows) * MG_ACCUMULATORS * sizeof(double));
  w->scratch = mg_alloc_aligned(mg_gram_scratch_bytes(w->rows));
  return w->tile[0] && w->tile[1] && w->tile[2] && w->plain && w->c && w->a && w->b && w->d && w->acc && w->scratch;
}

int main(int argc, char **argv) {
  arena w = {.rows = 48};
  double seconds = 3;
  for (int k = 1; k + 1 < argc; k += 2) {
    if (strcmp(argv[k], "--rows") == 0) w.rows = atoi(argv[k + 1]);
    if (strcmp(argv[k], "--seconds") == 0) seconds = atof(argv[k + 1]);
  }
  const mg_ops *ops;
  if (w.rows < 1 || w.rows > 512 || mg_ops_get("auto", &ops) != MG_OK || !allocate(&w)) {
    fprintf(stderr, "bench_gram: %s\n", mg_error_message());
    return 1;
  }
  openblas_set_num_threads(1);
  fill(&w);
  memset(w.acc, 0, mg_pair_count(w.rows) * MG_ACCUMULATORS * sizeof(double));
  static double times[6][MOST_ROUNDS];
  int rounds = 0;
  const double began = mg_now();
  while (rounds < 3 || (rounds < MOST_ROUNDS && mg_now() - began < seconds)) {
    for (int t = 0; t < 3; t++) times[t][rounds] = time_kernel(&w, ops, t, 0);
    times[3][rounds] = time_syrk(&w);
    times[4][rounds] = time_gemm(&w);
    times[5][rounds] = time_kernel(&w, ops, 1, 1);
    rounds++;
  }
  const double useful = 2.0 * (double)mg_pair_count(w.rows) * MG_TILE, square = 2.0 * SQUARE * SQUARE * (double)SQUARE;
  double rate[6];
  for (int t = 0; t < 6; t++) rate[t] = (t == 4 ? square : useful) / median(times[t], rounds) / 1e9;
  printf("tile %d x %d, one core, kernel %s, OpenBLAS core %s, medians of %d rounds\n", w.rows, MG_TILE, ops->kernel,
         openblas_get_corename(), rounds);
  printf("gram f32    %7.1f GFLOP/s (useful half)\n", rate[0]);
  printf("gram bf16   %7.1f GFLOP/s   %.3f of f32\n", rate[1], rate[1] / rate[0]);
  printf("gram f16    %7.1f GFLOP/s   %.3f of f32\n", rate[2], rate[2] / rate[0]);
  printf("gram bf16 with an f32 row  %7.1f GFLOP/s   %.3f of f32\n", rate[5], rate[5] / rate[0]);
  printf("ssyrk       %7.1f GFLOP/s   gram f32 / ssyrk = %.3f\n", rate[3], rate[0] / rate[3]);
  printf("sgemm %d  %7.1f GFLOP/s   gram f32 / sgemm = %.3f\n", SQUARE, rate[4], rate[0] / rate[4]);
  return 0;
}
