/* Every Gram kernel against the order of operations that ops.h defines, bit for bit, and against plain fp64 sums. */
#include "mergegrid/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cmocka.h>

#include "mergegrid/text.h"

enum { MOST_ROWS = 64, MOST_KERNELS = 5 };

/* A tile with its memory: each row ends where its block does. */
typedef struct sample {
  int rows;
  int64_t count;
  void *block[MOST_ROWS]; /* where the row's memory begins */
  void *data[MOST_ROWS];
  const void *row[MOST_ROWS];
  mg_dtype dtype[MOST_ROWS];
  float scale[MOST_ROWS];
  float *off; /* what is taken off rows of minus */
  const float *minus[MOST_ROWS];
  int chained;
} sample;

/* Where rows lie, what is taken off them, and whether those of BF16 that come first are in chains. */
typedef enum manner { PLAIN, SHIFTED, LESS, SHIFTED_LESS, MIXED, CHAINED, SHIFTED_CHAINED, MANNERS } manner;

static const mg_ops *kernels[MOST_KERNELS]; /* the tables this processor runs, ref first */
static int kernel_count;
static uint64_t random_state = 1;

static uint32_t random_bits(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 32);
}
/* Signed, over some ten binary orders of magnitude, so that a changed order of sums shows in the last bits. */
static float random_value(void) {
  const float fraction = (float)(int32_t)(random_bits() & 0xFFFFFF) * 0x1p-24f - 0.5f;
  return ldexpf(fraction, (int)(random_bits() % 10) - 8);
}

static void make_row(sample *s, int k, mg_dtype dtype, bool shifted) {
  const size_t size = mg_dtype_size(dtype), shift = shifted ? size * (1 + random_bits() % 5) : 0;
  const size_t bytes = shift + (size_t)s->count * size;
  float *values = mg_alloc_aligned((size_t)s->count * sizeof(float));
  assert_non_null(values);
  for (int64_t i = 0; i < s->count; i++) values[i] = random_value();
  assert_int_equal(posix_memalign(&s->block[k], MG_ROW_ALIGN, bytes), 0);
  memset(s->block[k], 0xFF, bytes); /* NaN of every type: what lies before the row must not count */
  s->data[k] = (char *)s->block[k] + shift;
  s->scale[k] = dtype == MG_F16 ? 0x1p-7f : 1;
  if (dtype == MG_F32)
    memcpy(s->data[k], values, (size_t)s->count * sizeof(float));
  else
    mg_from_f32(s->data[k], values, dtype, (size_t)s->count, 1 / s->scale[k]);
  s->row[k] = s->data[k];
  s->dtype[k] = dtype;
  free(values);
}

static void make_sample_in(sample *s, int rows, int64_t count, mg_dtype most, mg_dtype last, manner how) {
  *s = (sample){.rows = rows, .count = count, .off = malloc((size_t)count * sizeof(float))};
  assert_non_null(s->off);
  for (int64_t i = 0; i < count; i++) s->off[i] = random_value();
  for (int k = 0; k < rows; k++) {
    const bool mixed = how == MIXED && random_bits() % 2 == 0;
    make_row(s, k, k == rows - 1 ? last : most, how == SHIFTED || how == SHIFTED_LESS || how == SHIFTED_CHAINED || mixed);
    /* The last row is the base's, mostly, which nothing is taken off. */
    if (k < rows - 1 && (how == LESS || how == SHIFTED_LESS || (how == MIXED && random_bits() % 2 == 0))) s->minus[k] = s->off;
  }
  if (how == CHAINED || how == SHIFTED_CHAINED)
    while (s->chained < rows && s->dtype[s->chained] == MG_BF16) s->chained++;
}
static void make_sample(sample *s, int rows, int64_t count, mg_dtype most, mg_dtype last) {
  make_sample_in(s, rows, count, most, last, PLAIN);
}
static void free_sample(sample *s) {
  for (int k = 0; k < s->rows; k++) free(s->block[k]);
  free(s->off);
}
static mg_tile tile_of(const sample *s) {
  return (mg_tile){.rows = s->rows,
                   .count = s->count,
                   .row = s->row,
                   .dtype = s->dtype,
                   .scale = s->scale,
                   .minus = s->minus,
                   .chained = s->chained};
}

/* A row as floats, with zeros up to whole lanes and links. */
static float *floats_of(const sample *s, int k) {
  const size_t padded = ((size_t)s->count + MG_LINK - 1) / MG_LINK * MG_LINK;
  float *values = mg_alloc_zero(padded, sizeof(float));
  assert_non_null(values);
  mg_to_f32(values, s->row[k], s->dtype[k], (size_t)s->count, s->scale[k]);
  for (int64_t i = 0; s->minus[k] != NULL && i < s->count; i++) values[i] -= s->minus[k][i];
  return values;
}

/* The definition, word for word, one pair at a time. */
static void define_pair(const float *x, const float *y, int64_t count, double *acc) {
  for (int64_t first = 0; first < count; first += MG_RUN) {
    float lane[MG_LANES] = {0};
    for (int64_t i = first; i < count && i < first + MG_RUN; i += MG_LANES)
      for (int l = 0; l < MG_LANES; l++) lane[l] = fmaf(x[i + l], y[i + l], lane[l]);
    for (int d = 0; d < MG_ACCUMULATORS; d++) acc[d] = acc[d] + ((double)lane[d] + (double)lane[d + 8]);
  }
}

/* fp32 without subnormal numbers; what rounds up to the smallest normal one has a test of its own. */
static float normal(float x) { return isfinite(x) && !isnormal(x) ? copysignf(0, x) : x; }

static void define_chained_pair(const float *x, const float *y, int64_t count, double *acc) {
  for (int64_t first = 0; first < count; first += MG_RUN) {
    float c = 0;
    for (int64_t i = first; i < count && i < first + MG_RUN; i += MG_LINK) {
      float chain[2] = {0};
      for (int k = 0; k < MG_LINK; k++) chain[k % 2] = normal(fmaf(normal(x[i + k]), normal(y[i + k]), chain[k % 2]));
      c = normal(c + normal(chain[0] + chain[1]));
    }
    acc[0] = acc[0] + (double)c;
  }
}

static void define_rectangle(const sample *a, const sample *b, double *acc) {
  for (int i = 0; i < a->rows; i++) {
    float *x = floats_of(a, i);
    for (int j = 0; j < b->rows; j++) {
      float *y = floats_of(b, j);
      (i < a->chained && j < b->chained ? define_chained_pair : define_pair)(
          x, y, a->count, acc + MG_ACCUMULATORS * ((size_t)i * (size_t)b->rows + (size_t)j));
      free(y);
    }
    free(x);
  }
}

static void define_triangle(const sample *s, double *acc) {
  float *values[MOST_ROWS];
  for (int k = 0; k < s->rows; k++) values[k] = floats_of(s, k);
  for (int i = 0; i < s->rows; i++)
    for (int j = i; j < s->rows; j++)
      (j < s->chained ? define_chained_pair : define_pair)(values[i], values[j], s->count,
                                                           acc + MG_ACCUMULATORS * mg_pair_index(s->rows, i, j));
  for (int k = 0; k < s->rows; k++) free(values[k]);
}

/* Accumulators that run on from an earlier tile: not zero, and different everywhere. */
static double *make_accumulators(size_t pairs) {
  double *acc = mg_alloc_aligned(pairs * MG_ACCUMULATORS * sizeof(double));
  assert_non_null(acc);
  for (size_t p = 0; p < pairs * MG_ACCUMULATORS; p++) acc[p] = 1e-3 * (double)p - 0.1;
  return acc;
}
static void *make_scratch(int rows) {
  const size_t bytes = mg_gram_scratch_bytes(rows);
  void *scratch = mg_alloc_aligned(bytes);
  assert_non_null(scratch);
  memset(scratch, 0xFF, bytes);
  return scratch;
}

static uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static void assert_same_bits(const double *actual, const double *expected, size_t pairs, const mg_ops *ops, const char *what) {
  for (size_t p = 0; p < pairs * MG_ACCUMULATORS; p++)
    if (bits_of(actual[p]) != bits_of(expected[p]))
      fail_msg("%s, %s/%s: accumulator %zu of pair %zu is %a, expected %a", what, ops->name, ops->kernel, p % MG_ACCUMULATORS,
               p / MG_ACCUMULATORS, actual[p], expected[p]);
}

/* Two tiles in sequence through every kernel. */
static void check_triangle_in(int rows, int64_t count, mg_dtype most, mg_dtype last, manner how) {
  sample s;
  char what[64];
  const size_t pairs = mg_pair_count(rows);
  double *expected = make_accumulators(pairs);
  make_sample_in(&s, rows, count, most, last, how);
  snprintf(what, sizeof what, "%d x %lld %s, last %s, manner %d", rows, (long long)count, mg_dtype_name(most),
           mg_dtype_name(last), (int)how);
  define_triangle(&s, expected);
  define_triangle(&s, expected);
  for (int k = 0; k < kernel_count; k++) {
    const mg_tile tile = tile_of(&s);
    double *acc = make_accumulators(pairs);
    void *scratch = make_scratch(rows);
    kernels[k]->gram_triangle(&tile, acc, scratch);
    kernels[k]->gram_triangle(&tile, acc, scratch);
    assert_same_bits(acc, expected, pairs, kernels[k], what);
    free(acc), free(scratch);
  }
  free(expected);
  free_sample(&s);
}

static void check_triangle(int rows, int64_t count, mg_dtype most, mg_dtype last) {
  for (int how = PLAIN; how < (most == MG_BF16 ? MANNERS : CHAINED); how++)
    check_triangle_in(rows, count, most, last, (manner)how);
}

static void every_number_of_rows_has_the_defined_bits(void **state) {
  (void)state;
  static const mg_dtype types[] = {MG_F32, MG_BF16, MG_F16};
  for (int rows = 1; rows <= 14; rows++)
    for (size_t t = 0; t < 3; t++) {
      check_triangle(rows, 144, types[t], types[t]);
      check_triangle_in(rows, 1040, types[t], types[t], PLAIN);
      check_triangle_in(rows, 1037, types[t], types[t], PLAIN);
    }
  for (int rows = 47; rows <= 49; rows++)
    for (size_t t = 0; t < 3; t++) {
      check_triangle_in(rows, 96, types[t], MG_F32, PLAIN);
      check_triangle_in(rows, 80, types[t], MG_F32, rows == 47 ? SHIFTED : rows == 48 ? SHIFTED_LESS : MIXED);
    }
}

/* Groups of 16 rows, full or not, and one to three of them a side; with the base's row and without. */
static void every_number_of_chained_rows_has_the_defined_bits(void **state) {
  (void)state;
  static const int some[] = {15, 16, 17, 18, 31, 32, 33, 34, 47, 48, 49, 63, 64};
  for (size_t r = 0; r < sizeof some / sizeof *some; r++) {
    check_triangle_in(some[r], 160, MG_BF16, MG_BF16, CHAINED);
    check_triangle_in(some[r], 211, MG_BF16, MG_F32, SHIFTED_CHAINED);
  }
}

static void every_length_has_the_defined_bits(void **state) {
  (void)state;
  static const int64_t counts[] = {1, 2, 15, 16, 17, 31, 33, 1023, 1024, 1025, 2047, 2048, 8191, 8192};
  static const mg_dtype types[] = {MG_F32, MG_BF16, MG_F16};
  for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
    for (size_t t = 0; t < 3; t++) {
      check_triangle_in(13, counts[c], types[t], MG_F32, PLAIN);
      if (counts[c] < 2048) check_triangle_in(13, counts[c], types[t], MG_F32, MIXED);
      if (types[t] == MG_BF16) check_triangle_in(20, counts[c], MG_BF16, MG_F32, CHAINED);
    }
}

static void types_may_differ_from_row_to_row(void **state) {
  (void)state;
  check_triangle(7, 3000, MG_BF16, MG_F32);
  check_triangle(12, 3008, MG_F16, MG_F32);
  check_triangle(12, 3008, MG_F16, MG_BF16);
  check_triangle(6, 2048, MG_BF16, MG_F16);
  check_triangle(18, 1024, MG_F32, MG_F16);
}

static void sixteen_bit_rows_are_their_floats(void **state) {
  (void)state;
  static const mg_dtype types[] = {MG_BF16, MG_F16};
  for (size_t t = 0; t < 2; t++) {
    sample halves, floats;
    const size_t pairs = mg_pair_count(20);
    make_sample(&halves, 20, 4096, types[t], types[t]);
    make_sample(&floats, 20, 4096, MG_F32, MG_F32);
    for (int k = 0; k < 20; k++) mg_to_f32(floats.data[k], halves.row[k], types[t], 4096, halves.scale[k]);
    for (int k = 0; k < kernel_count; k++) {
      const mg_tile of_halves = tile_of(&halves), of_floats = tile_of(&floats);
      double *acc = make_accumulators(pairs), *expected = make_accumulators(pairs);
      void *scratch = make_scratch(20);
      kernels[k]->gram_triangle(&of_floats, expected, scratch);
      kernels[k]->gram_triangle(&of_halves, acc, scratch);
      assert_same_bits(acc, expected, pairs, kernels[k], mg_dtype_name(types[t]));
      free(acc), free(expected), free(scratch);
    }
    free_sample(&halves);
    free_sample(&floats);
  }
}

static void check_rectangle_in(int rows, int columns, int64_t count, mg_dtype left, mg_dtype right, manner how) {
  sample a, b;
  char what[64];
  const size_t pairs = (size_t)rows * (size_t)columns;
  double *expected = make_accumulators(pairs);
  make_sample_in(&a, rows, count, left, left, how);
  make_sample_in(&b, columns, count, right, MG_F32, how);
  snprintf(what, sizeof what, "%d against %d x %lld", rows, columns, (long long)count);
  define_rectangle(&a, &b, expected);
  for (int k = 0; k < kernel_count; k++) {
    const mg_tile tile = tile_of(&a), other = tile_of(&b);
    double *acc = make_accumulators(pairs);
    void *scratch = make_scratch(rows + columns);
    kernels[k]->gram_rectangle(&tile, &other, acc, scratch);
    assert_same_bits(acc, expected, pairs, kernels[k], what);
    free(acc), free(scratch);
  }
  free(expected);
  free_sample(&a);
  free_sample(&b);
}

static void check_rectangle(int rows, int columns, int64_t count, mg_dtype left, mg_dtype right) {
  for (int how = PLAIN; how < (left == MG_BF16 ? MANNERS : CHAINED); how++)
    check_rectangle_in(rows, columns, count, left, right, (manner)how);
}

static void rectangles_have_the_defined_bits(void **state) {
  (void)state;
  for (int rows = 1; rows <= 13; rows += 3)
    for (int columns = 1; columns <= 9; columns += 2) {
      check_rectangle(rows, columns, 144, MG_F32, MG_F32);
      check_rectangle(rows, columns, 137, MG_BF16, MG_F16);
      check_rectangle_in(rows, columns, 1033, MG_BF16, MG_F16, MIXED);
    }
  check_rectangle(12, 8, 8192, MG_F32, MG_BF16);
  check_rectangle_in(33, 20, 2100, MG_BF16, MG_BF16, CHAINED); /* b's last row is of F32 and in no chain */
  check_rectangle_in(16, 49, 1024, MG_BF16, MG_BF16, SHIFTED_CHAINED);
  check_rectangle_in(5, 3, 8191, MG_BF16, MG_F32, CHAINED);
  check_rectangle(1, 1, 1, MG_F16, MG_F32);
}

static void a_rectangle_is_a_part_of_the_triangle(void **state) {
  (void)state;
  enum { ROWS = 19, LEFT = 8, COUNT = 5000 };
  sample s;
  make_sample(&s, ROWS, COUNT, MG_BF16, MG_F32);
  const mg_tile whole = tile_of(&s);
  mg_tile left = whole, right = whole;
  left.rows = LEFT;
  right.rows = ROWS - LEFT;
  right.row += LEFT, right.dtype += LEFT, right.scale += LEFT, right.minus += LEFT;
  for (int k = 0; k < kernel_count; k++) {
    double *triangle = mg_alloc_zero(mg_pair_count(ROWS) * MG_ACCUMULATORS, sizeof(double));
    double *rectangle = mg_alloc_zero((size_t)LEFT * (ROWS - LEFT) * MG_ACCUMULATORS, sizeof(double));
    void *scratch = make_scratch(ROWS);
    kernels[k]->gram_triangle(&whole, triangle, scratch);
    kernels[k]->gram_rectangle(&left, &right, rectangle, scratch);
    for (int i = 0; i < LEFT; i++)
      assert_same_bits(rectangle + (size_t)i * (ROWS - LEFT) * MG_ACCUMULATORS,
                       triangle + mg_pair_index(ROWS, i, LEFT) * MG_ACCUMULATORS, ROWS - LEFT, kernels[k], "rectangle");
    free(triangle), free(rectangle), free(scratch);
  }
  free_sample(&s);
}

/*
 * A pair's sum is at most n u Σ|x y| away from the exact one for n fp32 operations a lane in a run (u = 2^-24; fp64's share is
 * nothing beside it): the bound a reader can check, not the error we see.
 */
static void sums_are_near_those_of_fp64(void **state) {
  (void)state;
  enum { ROWS = 9, COUNT = 8192, STEPS = MG_RUN / MG_LANES };
  sample s;
  make_sample(&s, ROWS, COUNT, MG_F32, MG_F32);
  for (int k = 0; k < kernel_count; k++) {
    const mg_tile tile = tile_of(&s);
    double *acc = mg_alloc_zero(mg_pair_count(ROWS) * MG_ACCUMULATORS, sizeof(double)), sum[ROWS * (ROWS + 1) / 2];
    void *scratch = make_scratch(ROWS);
    kernels[k]->gram_triangle(&tile, acc, scratch);
    mg_gram_finish(acc, mg_pair_count(ROWS), sum);
    for (int i = 0; i < ROWS; i++)
      for (int j = i; j < ROWS; j++) {
        const float *x = s.row[i], *y = s.row[j];
        double exact = 0, magnitude = 0;
        for (int e = 0; e < COUNT; e++) {
          exact += (double)x[e] * (double)y[e];
          magnitude += fabs((double)x[e] * (double)y[e]);
        }
        const double bound = STEPS * 0x1p-24 * magnitude;
        assert_true(fabs(sum[mg_pair_index(ROWS, i, j)] - exact) <= bound);
        assert_true(i != j || exact > 0);
      }
    free(acc), free(scratch);
  }
  free_sample(&s);
}

/* A value that is not finite reaches its own row's and column's pairs and no other. */
static void check_nonfinite(mg_dtype dtype, manner how) {
  enum { ROWS = 14, COUNT = 1030, BAD = 13 };
  static const float values[] = {NAN, INFINITY, -INFINITY};
  for (int at = 0; at < COUNT; at += 1029)
    for (size_t v = 0; v < 3; v++) {
      sample s;
      make_sample_in(&s, ROWS, COUNT, dtype, dtype, how);
      char *bad = (char *)s.data[BAD] + (size_t)at * mg_dtype_size(dtype);
      if (dtype == MG_F32)
        memcpy(bad, &values[v], sizeof values[v]);
      else
        mg_from_f32(bad, &values[v], dtype, 1, 1);
      for (int k = 0; k < kernel_count; k++) {
        const mg_tile tile = tile_of(&s);
        double *acc = mg_alloc_zero(mg_pair_count(ROWS) * MG_ACCUMULATORS, sizeof(double)), sum[ROWS * (ROWS + 1) / 2];
        void *scratch = make_scratch(ROWS);
        kernels[k]->gram_triangle(&tile, acc, scratch);
        mg_gram_finish(acc, mg_pair_count(ROWS), sum);
        for (int i = 0; i < ROWS; i++)
          for (int j = i; j < ROWS; j++) assert_int_equal(!isfinite(sum[mg_pair_index(ROWS, i, j)]), i == BAD || j == BAD);
        const double square = sum[mg_pair_index(ROWS, BAD, BAD)];
        assert_true(isnan(values[v]) ? isnan(square) : square == INFINITY);
        free(acc), free(scratch);
      }
      free_sample(&s);
    }
}

static void nonfinite_values_stay_in_their_row(void **state) {
  (void)state;
  check_nonfinite(MG_F32, PLAIN);
  check_nonfinite(MG_BF16, CHAINED);
}

static void set_all(sample *s, float value) {
  for (int k = 0; k < s->rows; k++)
    for (int64_t i = 0; i < s->count; i++) ((float *)s->data[k])[i] = value;
}

/* Zeros give +0; subnormal inputs and products are kept, not flushed. */
static void zeros_and_subnormals_are_exact(void **state) {
  (void)state;
  enum { ROWS = 7, COUNT = 100 };
  static const struct {
    float value;
    double square;
  } cases[] = {{0, 0}, {-0.0f, 0}, {0x1p-70f, 0x1p-140}, {0x1p-80f, 0}, {0x1.8p-75f, 0}};
  sample s;
  make_sample(&s, ROWS, COUNT, MG_F32, MG_F32);
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    set_all(&s, cases[c].value);
    for (int k = 0; k < kernel_count; k++) {
      const mg_tile tile = tile_of(&s);
      double *acc = mg_alloc_zero(mg_pair_count(ROWS) * MG_ACCUMULATORS, sizeof(double)), sum[ROWS * (ROWS + 1) / 2];
      void *scratch = make_scratch(ROWS);
      kernels[k]->gram_triangle(&tile, acc, scratch);
      mg_gram_finish(acc, mg_pair_count(ROWS), sum);
      for (size_t p = 0; p < mg_pair_count(ROWS); p++) {
        const double expected = cases[c].value == 0x1.8p-75f ? COUNT * 0x1p-149 : COUNT * cases[c].square;
        assert_true(sum[p] == expected && !signbit(sum[p]));
      }
      free(acc), free(scratch);
    }
  }
  set_all(&s, 0x1p-140f); /* a subnormal times a normal number */
  for (int64_t i = 0; i < COUNT; i++) ((float *)s.data[1])[i] = 0x1p100f;
  for (int k = 0; k < kernel_count; k++) {
    const mg_tile tile = tile_of(&s);
    double *acc = mg_alloc_zero(mg_pair_count(ROWS) * MG_ACCUMULATORS, sizeof(double)), sum[ROWS * (ROWS + 1) / 2];
    void *scratch = make_scratch(ROWS);
    kernels[k]->gram_triangle(&tile, acc, scratch);
    mg_gram_finish(acc, mg_pair_count(ROWS), sum);
    assert_true(sum[mg_pair_index(ROWS, 0, 1)] == COUNT * 0x1p-40);
    free(acc), free(scratch);
  }
  free_sample(&s);
}

/* x₀y₀ + x₂y₂ of two chained rows, through every kernel. */
static void assert_chain(const float x[2], const float y[2], double expected) {
  enum { COUNT = 3 };
  sample s;
  make_sample_in(&s, 2, COUNT, MG_BF16, MG_BF16, CHAINED);
  for (int k = 0; k < 2; k++) {
    const float values[COUNT] = {k ? y[0] : x[0], 0, k ? y[1] : x[1]};
    mg_from_f32(s.data[k], values, MG_BF16, COUNT, 1);
  }
  for (int k = 0; k < kernel_count; k++) {
    const mg_tile tile = tile_of(&s);
    double acc[3 * MG_ACCUMULATORS] = {0};
    void *scratch = make_scratch(2);
    kernels[k]->gram_triangle(&tile, acc, scratch);
    if (acc[MG_ACCUMULATORS] != expected)
      fail_msg("%s: %a %a + %a %a is %a, expected %a", kernels[k]->kernel, x[0], y[0], x[1], y[1], acc[MG_ACCUMULATORS],
               expected);
    free(scratch);
  }
  free_sample(&s);
}

/* Where fp32 with subnormal numbers would give something else, and where it decides what is subnormal. */
static void chains_know_no_subnormal_numbers(void **state) {
  (void)state;
  assert_chain((float[]){0x1p-63f, 0}, (float[]){0x1p-63f, 0}, 0x1p-126);
  assert_chain((float[]){0x1p-64f, 0}, (float[]){0x1p-63f, 0}, 0);                     /* a product */
  assert_chain((float[]){0x1p-130f, 0}, (float[]){0x1p100f, 0}, 0);                    /* an element */
  assert_chain((float[]){0x1p-64f, 0x1p-64f}, (float[]){0x1p-63f, 0x1p-63f}, 0);       /* each is gone before they meet */
  assert_chain((float[]){0x1p-63f, 0x1.8p-64f}, (float[]){0x1.02p-63f, -0x1p-63f}, 0); /* what they leave of one another */
  /* 2^-126 (1 - 2^-25) is half way to the next number with 24 digits, and goes to 2^-126; a little less does not. */
  assert_chain((float[]){0x1p-63f, 0x1p-75f}, (float[]){0x1p-63f, -0x1p-76f}, 0x1p-126);
  assert_chain((float[]){0x1p-63f, 0x1p-75f}, (float[]){0x1p-63f, -0x1.02p-76f}, 0);
  assert_chain((float[]){0x1p-63f, 0x1p-75f}, (float[]){0x1p-63f, -0x1.fep-76f}, 0);
}

#if defined(__x86_64__)
/* Whatever a caller does with subnormal numbers (as -ffast-math of some library may have it) and when it rounds. */
static void chains_leave_the_callers_modes_alone(void **state) {
  (void)state;
  enum { ROWS = 18, MODES = 3 };
  static const unsigned modes[MODES] = {0x1F80, 0x9FC0, 0x1F80 | 0x6000}; /* the usual; flushing; towards zero */
  sample s;
  const size_t pairs = mg_pair_count(ROWS);
  make_sample_in(&s, ROWS, 1040, MG_BF16, MG_BF16, CHAINED);
  for (int k = 0; k < kernel_count; k++) {
    const mg_tile tile = tile_of(&s);
    double *acc[MODES];
    for (int m = 0; m < MODES; m++) {
      void *scratch = make_scratch(ROWS);
      acc[m] = mg_alloc_zero(pairs * MG_ACCUMULATORS, sizeof(double));
      _mm_setcsr(modes[m]);
      kernels[k]->gram_triangle(&tile, acc[m], scratch);
      const unsigned after = _mm_getcsr() & ~0x3Fu; /* but for what has happened */
      _mm_setcsr(modes[0]);
      assert_int_equal(after, modes[m] & ~0x3Fu);
      free(scratch);
    }
    assert_same_bits(acc[1], acc[0], pairs, kernels[k], "flushing");
    for (int m = 0; m < MODES; m++) free(acc[m]);
  }
  free_sample(&s);
}
#endif

static void finishing_adds_in_the_defined_order(void **state) {
  (void)state;
  const double acc[2 * MG_ACCUMULATORS] = {1e16, 1, -1e16, 3, 1, 0.5, 1, 0.25, 1, 2, 4, 8, 16, 32, 64, 128};
  double sum[2];
  mg_gram_finish(acc, 2, sum);
  assert_true(sum[0] == ((1e16 + 1) + (-1e16 + 1)) + ((1 + 0.5) + (3 + 0.25)));
  assert_true(sum[1] == 255);
}

static int find_kernels(void **state) {
  (void)state;
  static const char *const names[] = {"portable", "avx2", "avx512", "amx"};
  if (mg_ops_get("ref", &kernels[kernel_count++]) != MG_OK) return -1;
  for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
    setenv("MERGEGRID_KERNEL", names[n], 1);
    if (mg_ops_get("openblas", &kernels[kernel_count]) == MG_OK)
      kernel_count++;
    else
      print_message("not tested here: %s\n", mg_error_message());
  }
  unsetenv("MERGEGRID_KERNEL");
  return kernel_count >= 2 ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_number_of_rows_has_the_defined_bits),
    cmocka_unit_test(every_number_of_chained_rows_has_the_defined_bits),
    cmocka_unit_test(every_length_has_the_defined_bits),
    cmocka_unit_test(types_may_differ_from_row_to_row),
    cmocka_unit_test(sixteen_bit_rows_are_their_floats),
    cmocka_unit_test(rectangles_have_the_defined_bits),
    cmocka_unit_test(a_rectangle_is_a_part_of_the_triangle),
    cmocka_unit_test(sums_are_near_those_of_fp64),
    cmocka_unit_test(nonfinite_values_stay_in_their_row),
    cmocka_unit_test(zeros_and_subnormals_are_exact),
    cmocka_unit_test(chains_know_no_subnormal_numbers),
#if defined(__x86_64__)
    cmocka_unit_test(chains_leave_the_callers_modes_alone),
#endif
    cmocka_unit_test(finishing_adds_in_the_defined_order),
  };
  return cmocka_run_group_tests(tests, find_kernels, NULL);
}
