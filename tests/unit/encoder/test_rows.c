/* The row operations of every instruction set against double precision, at all lengths around a vector's. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encoder/rows_impl.h"

static const char *const KERNELS[] = {"portable", "avx2", "avx512"};

static const mg_row_kernels *use(size_t k) {
  setenv("MERGEGRID_KERNEL", KERNELS[k], 1);
  return mg_row_kernels_get();
}

static uint32_t seed = 1;

static float uniform(float low, float high) {
  seed = seed * 1664525u + 1013904223u;
  return low + (high - low) * (float)(seed >> 8) / 16777216.0f;
}

static void test_gelu(void **state) {
  (void)state;
  enum { N = 40000 };
  float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
  for (size_t k = 0; k < 3; k++) {
    const mg_row_kernels *rows = use(k);
    for (int i = 0; i < N; i++) y[i] = x[i] = (float)(i - N / 2) * 5e-4f;
    rows->gelu(y, N);
    for (int i = 0; i < N; i++) {
      const double exact = 0.5 * (double)x[i] * erfc(-(double)x[i] * sqrt(0.5));
      /* a rounding of the result, and of erfc */
      if (fabs((double)y[i] - exact) > 1.5e-7 * fabs(exact) + 6e-8 * fabs((double)x[i]))
        fail_msg("%s: gelu(%g) is %.9g, not %.9g", rows->name, (double)x[i], (double)y[i], exact);
    }
    float odd[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 1e-30f, -1e-38f, 3e38f};
    enum { ODD = sizeof odd / sizeof *odd };
    rows->gelu(odd, ODD);
    assert_true(odd[0] == 0 && odd[1] == 0 && isinf(odd[2]) && fabsf(odd[3]) < 1e-7f && isnan(odd[4]));
    assert_true(odd[5] == 1e30f && fabsf(odd[6]) < 1e-7f && odd[7] == 0.5e-30f && odd[9] == 3e38f);
    for (int n = 0; n < 40; n++) { /* nothing past the end is touched */
      for (int i = 0; i < 41; i++) y[i] = 1;
      rows->gelu(y, n);
      for (int i = 0; i < 41; i++) assert_int_equal(y[i] != 1, i < n);
    }
  }
  free(x), free(y);
}

static void test_tanh(void **state) {
  (void)state;
  enum { N = 40000 };
  float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
  for (size_t k = 0; k < 3; k++) {
    const mg_row_kernels *rows = use(k);
    for (int i = 0; i < N; i++) y[i] = x[i] = (float)(i - N / 2) * 6e-4f;
    rows->tanh(y, N);
    for (int i = 0; i < N; i++) {
      const double exact = tanh((double)x[i]);
      if (fabs((double)y[i] - exact) > 2.5e-7 * fabs(exact))
        fail_msg("%s: tanh(%g) is %.9g, not %.9g", rows->name, (double)x[i], (double)y[i], exact);
    }
    float odd[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e30f, -1e30f, 1e-30f, -1e-38f};
    rows->tanh(odd, sizeof odd / sizeof *odd);
    assert_true(odd[0] == 0 && odd[1] == 0 && signbit(odd[1]) && odd[2] == 1 && odd[3] == -1 && isnan(odd[4]));
    assert_true(odd[5] == 1 && odd[6] == -1 && odd[7] == 1e-30f && odd[8] == -1e-38f);
    for (int n = 0; n < 40; n++) { /* nothing past the end is touched */
      for (int i = 0; i < 41; i++) y[i] = 1;
      rows->tanh(y, n);
      for (int i = 0; i < 41; i++) assert_int_equal(y[i] != 1, i < n);
    }
  }
  free(x), free(y);
}

static void test_layer_norm(void **state) {
  (void)state;
  enum { ROWS = 3, MOST = 70 };
  float in[ROWS * MOST], out[ROWS * MOST], gain[MOST], bias[MOST];
  for (size_t k = 0; k < 3; k++)
    for (int n = 1; n <= MOST; n++) {
      const mg_row_kernels *rows = use(k);
      for (int i = 0; i < n; i++) gain[i] = uniform(0.5f, 1.5f), bias[i] = uniform(-1, 1);
      for (int i = 0; i < ROWS * n; i++) in[i] = uniform(-3, 5);
      rows->layer_norm(out, in, gain, bias, ROWS, n, 1e-5f);
      for (int r = 0; r < ROWS; r++) {
        double mean = 0, variance = 0;
        for (int i = 0; i < n; i++) mean += (double)in[r * n + i] / n;
        for (int i = 0; i < n; i++) variance += ((double)in[r * n + i] - mean) * ((double)in[r * n + i] - mean) / n;
        for (int i = 0; i < n; i++) {
          const double exact = ((double)in[r * n + i] - mean) / sqrt(variance + 1e-5) * (double)gain[i] + (double)bias[i];
          assert_true(fabs((double)out[r * n + i] - exact) < (n > 1 ? 5e-6 : 1e-3));
        }
      }
    }
}

static void test_softmax(void **state) {
  (void)state;
  enum { ROWS = 2, MOST = 70, STRIDE = 80 };
  float x[ROWS * STRIDE], y[ROWS * STRIDE];
  for (size_t k = 0; k < 3; k++)
    for (int n = 1; n <= MOST; n++) {
      const mg_row_kernels *rows = use(k);
      for (int i = 0; i < ROWS * STRIDE; i++) y[i] = x[i] = uniform(-30, 30);
      rows->softmax(y, ROWS, n, STRIDE, 0.5f);
      for (int r = 0; r < ROWS; r++) {
        double total = 0, most = -1e9;
        for (int i = 0; i < n; i++) most = fmax(most, (double)x[r * STRIDE + i]);
        for (int i = 0; i < n; i++) total += exp(((double)x[r * STRIDE + i] - most) * 0.5);
        for (int i = 0; i < n; i++) {
          const double exact = exp(((double)x[r * STRIDE + i] - most) * 0.5) / total;
          assert_true(fabs((double)y[r * STRIDE + i] - exact) < 4e-7);
        }
        for (int i = n; i < STRIDE; i++) assert_true(y[r * STRIDE + i] == x[r * STRIDE + i]);
      }
    }
}

enum { KEYS = 40, WIDTH = 33, STRIDE = 3 * WIDTH, SLACK = 16 };

static void check_attention(const mg_row_kernels *rows, int queries, int keys, int width) {
  static float qkv[KEYS * STRIDE + SLACK], out[KEYS * WIDTH + SLACK], keep[KEYS * KEYS];
  static float scores[64 * 16], packed[64 * 16];
  for (int i = 0; i < KEYS * STRIDE + SLACK; i++) qkv[i] = uniform(-2, 2);
  for (int i = 0; i < KEYS * WIDTH + SLACK; i++) out[i] = 77;
  const float *q = qkv, *k = qkv + width, *v = qkv + 2 * width;
  rows->attend(q, k, v, queries, keys, width, STRIDE, STRIDE, 0.3f, out, WIDTH, scores, packed, keep);
  for (int i = 0; i < queries; i++) {
    double p[KEYS], total = 0;
    for (int j = 0; j < keys; j++) {
      double dot = 0;
      for (int d = 0; d < width; d++) dot += (double)q[i * STRIDE + d] * (double)k[j * STRIDE + d];
      total += p[j] = exp(dot * (double)0.3f);
    }
    for (int j = 0; j < keys; j++) {
      p[j] /= total;
      if (fabs(p[j] - (double)keep[i * keys + j]) > 3e-6)
        fail_msg("%s: %d queries, %d keys, width %d: probability %d, %d", rows->name, queries, keys, width, i, j);
    }
    for (int d = 0; d < WIDTH; d++) {
      double mix = 0;
      for (int j = 0; j < keys && d < width; j++) mix += p[j] * (double)v[j * STRIDE + d];
      if (fabs((d < width ? mix : 77) - (double)out[i * WIDTH + d]) > 1e-5)
        fail_msg("%s: %d queries, %d keys, width %d: output %d, %d", rows->name, queries, keys, width, i, d);
    }
  }
  assert_true(out[(queries - 1) * WIDTH + width] == 77);
}

static void test_attention(void **state) {
  (void)state;
  for (size_t k = 0; k < 3; k++)
    for (int keys = 1; keys <= KEYS; keys++)
      for (int width = 1; width <= WIDTH - 1; width += keys % 5 + 1) {
        check_attention(use(k), keys, keys, width);
        check_attention(use(k), 1, keys, width);
      }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gelu),    cmocka_unit_test(test_tanh),      cmocka_unit_test(test_layer_norm),
      cmocka_unit_test(test_softmax), cmocka_unit_test(test_attention),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
