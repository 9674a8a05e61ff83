/* CKA against the formulas as the papers write them, and what must not change it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "mergegrid/cka.h"
#include "test_device.h"

enum { SOURCES = 5, TEXTS = 23, WIDTH = 13 };

static double uniform(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (double)(*state >> 33) / (double)(UINT64_C(1) << 30) - 1;
}

static mg_status get(void *context, size_t source, const float **features) {
  *features = (const float *)context + source * TEXTS * WIDTH;
  return MG_OK;
}

/* Sources that have something in common. */
static void fill(float *x) {
  uint64_t state = 7;
  for (size_t k = 0; k < TEXTS * WIDTH; k++) x[k] = (float)uniform(&state);
  for (size_t s = 1; s < SOURCES; s++)
    for (size_t k = 0; k < TEXTS * WIDTH; k++)
      x[s * TEXTS * WIDTH + k] = (float)(0.5 * (double)x[k] + 0.4 * (double)s * uniform(&state) + 3);
}

static void compute(float *x, size_t sources, size_t texts, uint64_t memory, double *biased, double *unbiased) {
  const mg_cka_features f = {.sources = sources, .texts = texts, .width = WIDTH, .context = x, .get = get};
  assert_int_equal(mg_cka(&f, memory, test_device(), biased, unbiased), MG_OK);
}

/* ---- the papers ---- */

/* ‖Yᵀ X‖² of centred features */
static double cross(const float *x, const float *y, size_t texts) {
  double total = 0;
  for (size_t a = 0; a < WIDTH; a++)
    for (size_t b = 0; b < WIDTH; b++) {
      double mean_x = 0, mean_y = 0, sum = 0;
      for (size_t t = 0; t < texts; t++) mean_x += (double)x[t * WIDTH + a], mean_y += (double)y[t * WIDTH + b];
      mean_x /= (double)texts, mean_y /= (double)texts;
      for (size_t t = 0; t < texts; t++) sum += ((double)x[t * WIDTH + a] - mean_x) * ((double)y[t * WIDTH + b] - mean_y);
      total += sum * sum;
    }
  return total;
}

static double kernel(const float *x, size_t i, size_t j) {
  double sum = 0;
  for (size_t d = 0; d < WIDTH && i != j; d++) sum += (double)x[i * WIDTH + d] * (double)x[j * WIDTH + d];
  return sum; /* zero on the diagonal */
}

/* Song et al. 2012, eq. 5: (tr KL + 1ᵀK1 1ᵀL1 / ((n−1)(n−2)) − 2/(n−2) 1ᵀKL1) / (n(n−3)) */
static double hsic_1(const float *x, const float *y, size_t n) {
  double trace = 0, k_all = 0, l_all = 0, both = 0;
  for (size_t i = 0; i < n; i++) {
    double k_row = 0, l_row = 0;
    for (size_t j = 0; j < n; j++) {
      trace += kernel(x, i, j) * kernel(y, i, j);
      k_row += kernel(x, i, j);
      l_row += kernel(y, i, j);
    }
    k_all += k_row;
    l_all += l_row;
    both += k_row * l_row;
  }
  const double m = (double)n;
  return (trace + k_all * l_all / ((m - 1) * (m - 2)) - 2 / (m - 2) * both) / (m * (m - 3));
}

static void test_papers(void **state) {
  (void)state;
  static float x[SOURCES * TEXTS * WIDTH];
  double biased[SOURCES * SOURCES], unbiased[SOURCES * SOURCES];
  fill(x);
  compute(x, SOURCES, TEXTS, UINT64_MAX, biased, unbiased);
  for (size_t i = 0; i < SOURCES; i++)
    for (size_t j = 0; j < SOURCES; j++) {
      const float *a = x + i * TEXTS * WIDTH, *b = x + j * TEXTS * WIDTH;
      const double linear = cross(a, b, TEXTS) / sqrt(cross(a, a, TEXTS) * cross(b, b, TEXTS));
      const double song = hsic_1(a, b, TEXTS) / sqrt(hsic_1(a, a, TEXTS) * hsic_1(b, b, TEXTS));
      assert_true(fabs(biased[i * SOURCES + j] - linear) < 1e-12);
      assert_true(fabs(unbiased[i * SOURCES + j] - song) < 1e-10);
      assert_true(biased[i * SOURCES + j] == biased[j * SOURCES + i]);
    }
  assert_true(biased[1] > 0.1 && biased[1] < 1 && fabs(biased[1] - unbiased[1]) > 1e-3);
  assert_true(biased[0] == 1 && unbiased[0] == 1);
}

static void test_blocks_same_bits(void **state) {
  (void)state;
  static float x[SOURCES * TEXTS * WIDTH];
  double all[2][SOURCES * SOURCES], blocked[2][SOURCES * SOURCES];
  fill(x);
  compute(x, SOURCES, TEXTS, UINT64_MAX, all[0], all[1]);
  for (uint64_t sources = 0; sources < 6; sources++) {
    compute(x, SOURCES, TEXTS, sources * 2 * TEXTS * TEXTS * sizeof(double), blocked[0], blocked[1]);
    assert_memory_equal(all, blocked, sizeof all);
  }
}

/* A rotation (of two dimensions), a scale and a shift change nothing. */
static void test_invariance(void **state) {
  (void)state;
  static float x[2 * TEXTS * WIDTH];
  double biased[4], unbiased[4];
  uint64_t seed = 3;
  for (size_t k = 0; k < TEXTS * WIDTH; k++) x[k] = (float)uniform(&seed);
  for (size_t t = 0; t < TEXTS; t++)
    for (size_t d = 0; d < WIDTH; d++) {
      const float *row = x + t * WIDTH;
      const float turned = d == 0 ? 0.6f * row[0] - 0.8f * row[1] : d == 1 ? 0.8f * row[0] + 0.6f * row[1] : row[d];
      x[(TEXTS + t) * WIDTH + d] = 4 * turned + 2;
    }
  compute(x, 2, TEXTS, UINT64_MAX, biased, unbiased);
  assert_true(fabs(biased[1] - 1) < 1e-6 && fabs(unbiased[1] - 1) < 1e-6);
}

static void test_undefined(void **state) {
  (void)state;
  static float x[2 * TEXTS * WIDTH];
  double biased[4], unbiased[4];
  uint64_t seed = 5;
  for (size_t k = 0; k < TEXTS * WIDTH; k++) x[k] = (float)uniform(&seed);
  for (size_t k = 0; k < TEXTS * WIDTH; k++) x[TEXTS * WIDTH + k] = 2; /* constant: no representation */
  compute(x, 2, TEXTS, UINT64_MAX, biased, unbiased);
  assert_true(biased[0] == 1 && isnan(biased[1]) && isnan(biased[3]));
  assert_true(unbiased[0] == 1 && isnan(unbiased[1]) && isnan(unbiased[3]));
  compute(x, 1, 3, UINT64_MAX, biased, unbiased);
  assert_true(biased[0] == 1 && isnan(unbiased[0]));
  x[WIDTH * 4 + 1] = NAN;
  const mg_cka_features f = {.sources = 2, .texts = TEXTS, .width = WIDTH, .context = x, .get = get};
  assert_int_equal(mg_cka(&f, UINT64_MAX, test_device(), biased, unbiased), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "source 0 are not finite at text 4"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_papers), cmocka_unit_test(test_blocks_same_bits),
                                     cmocka_unit_test(test_invariance), cmocka_unit_test(test_undefined)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
