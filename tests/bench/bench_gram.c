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

/* CALLS make a timing of some ten milliseconds: the processor changes its clock more slowly than that. */
enum { SQUARE = 2048, MOST_ROUNDS = 400, CALLS = 64, MOST_ROWS = 512 };
enum { GRAM_F32, GRAM_BF16, GRAM_F16, GRAM_BASE, SYRK, GEMM, TIMED };

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
  for (size_t k = 0; k < (size_t)SQUARE * SQUARE; k++) w->a[k] = w->b[k] = w->plain[k % MG_TILE];
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
  const void *row[MOST_ROWS];
  mg_dtype dtype[MOST_ROWS];
  float scale[MOST_ROWS];
  for (int r = 0; r < w->rows; r++) {
    const bool base = r >= w->rows - base_rows;
    row[r] = w->tile[base ? 0 : t] + (size_t)r * stride_of(DTYPES[base ? 0 : t]);
    dtype[r] = DTYPES[base ? 0 : t];
    scale[r] = t == 2 && !base ? 0x1p-20f : 1;
  }
  mg_tile tile = {.rows = w->rows, .count = MG_TILE, .row = row, .dtype = dtype, .scale = scale};
  if (t == GRAM_BF16) tile.chained = w->rows - base_rows; /* as of shards */
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
static double median(const double *values, int count) {
  double sorted[MOST_ROUNDS];
  memcpy(sorted, values, (size_t)count * sizeof *values);
  qsort(sorted, (size_t)count, sizeof *sorted, compare);
  return sorted[count / 2];
}
/* The median of the rounds' own ratios, which a change of the clock between rounds leaves alone. */
static double median_ratio(const double *a, const double *b, int count) {
  double ratio[MOST_ROUNDS];
  for (int k = 0; k < count; k++) ratio[k] = a[k] / b[k];
  return median(ratio, count);
}

static bool allocate(arena *w) {
  for (int t = 0; t < 3; t++) w->tile[t] = mg_alloc_aligned((size_t)w->rows * stride_of(DTYPES[t]));
  w->plain = mg_alloc_aligned((size_t)w->rows * MG_TILE * sizeof(float));
  w->c = mg_alloc_zero((size_t)w->rows * (size_t)w->rows, sizeof(float));
  w->a = mg_alloc_aligned((size_t)SQUARE * SQUARE * sizeof(float));
  w->b = mg_alloc_aligned((size_t)SQUARE * SQUARE * sizeof(float));
  w->d = mg_alloc_zero((size_t)SQUARE * SQUARE, sizeof(float));
  w->acc = mg_alloc_aligned(mg_pair_count(w->rows) * MG_ACCUMULATORS * sizeof(double));
  w->scratch = mg_alloc_aligned(mg_gram_scratch_bytes(w->rows));
  return w->tile[0] && w->tile[1] && w->tile[2] && w->plain && w->c && w->a && w->b && w->d && w->acc && w->scratch;
}

static void release(arena *w) {
  for (int t = 0; t < 3; t++) free(w->tile[t]);
  free(w->plain), free(w->c), free(w->a), free(w->b), free(w->d), free(w->acc), free(w->scratch);
}

static int measure(arena *w, const mg_ops *ops, double seconds, double rate[TIMED][MOST_ROUNDS]) {
  const double useful = 2.0 * (double)mg_pair_count(w->rows) * MG_TILE, square = 2.0 * SQUARE * SQUARE * (double)SQUARE;
  int rounds = 0;
  const double began = mg_now();
  while (rounds < 3 || (rounds < MOST_ROUNDS && mg_now() - began < seconds)) {
    for (int t = GRAM_F32; t <= GRAM_F16; t++) rate[t][rounds] = useful / time_kernel(w, ops, t, 0) / 1e9;
    rate[GRAM_BASE][rounds] = useful / time_kernel(w, ops, GRAM_BF16, 1) / 1e9;
    rate[SYRK][rounds] = useful / time_syrk(w) / 1e9;
    rate[GEMM][rounds] = square / time_gemm(w) / 1e9;
    rounds++;
  }
  return rounds;
}

static void report(double rate[TIMED][MOST_ROUNDS], int rounds) {
  static const char *const names[TIMED] = {"gram f32", "gram bf16", "gram f16", "gram bf16, last row f32", "ssyrk", "sgemm"};
  for (int t = 0; t < TIMED; t++) {
    printf("%-24s %7.1f GFLOP/s", names[t], median(rate[t], rounds));
    if (t == SYRK || t == GEMM)
      printf("   gram f32 / %s = %.3f\n", names[t], median_ratio(rate[GRAM_F32], rate[t], rounds));
    else
      printf("   %.3f of f32\n", median_ratio(rate[t], rate[GRAM_F32], rounds));
  }
}

int main(int argc, char **argv) {
  mg_ops_suit_processor(argv);
  static double rate[TIMED][MOST_ROUNDS];
  arena w = {.rows = 48};
  double seconds = 3;
  for (int k = 1; k + 1 < argc; k += 2) {
    if (strcmp(argv[k], "--rows") == 0) w.rows = atoi(argv[k + 1]);
    if (strcmp(argv[k], "--seconds") == 0) seconds = atof(argv[k + 1]);
  }
  const mg_ops *ops;
  if (w.rows < 1 || w.rows > MOST_ROWS) {
    fprintf(stderr, "bench_gram: --rows takes 1 to %d\n", MOST_ROWS);
    return 2;
  }
  if (mg_ops_get("auto", &ops) != MG_OK || !allocate(&w)) {
    fprintf(stderr, "bench_gram: %s\n", mg_error_message());
    release(&w);
    return 1;
  }
  openblas_set_num_threads(1);
  fill(&w);
  memset(w.acc, 0, mg_pair_count(w.rows) * MG_ACCUMULATORS * sizeof(double));
  const int rounds = measure(&w, ops, seconds, rate);
  printf("tile %d x %d, one core, kernel %s, OpenBLAS core %s, sgemm of %d^3, medians of %d rounds, useful flops only\n",
         w.rows, MG_TILE, ops->kernel, openblas_get_corename(), SQUARE, rounds);
  report(rate, rounds);
  release(&w);
  return 0;
}
