/* McNemar's test against sums over Pascal's triangle and published numbers; Holm's correction by hand. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "mergegrid/statistics.h"

/* Both tails by Pascal's triangle, in whole numbers: n <= 60. */
static double by_triangle(unsigned a, unsigned b) {
  uint64_t row[62] = {1}, tails = 0;
  const unsigned n = a + b, few = a < b ? a : b;
  for (unsigned r = 1; r <= n; r++)
    for (unsigned k = r; k > 0; k--) row[k] += row[k - 1];
  for (unsigned k = 0; k <= n; k++)
    if (k <= few || k >= n - few) tails += row[k];
  return few * 2 == n ? 1 : ldexp((double)tails, -(int)n);
}

static void test_mcnemar_small(void **state) {
  (void)state;
  for (unsigned a = 0; a <= 60; a++)
    for (unsigned b = 0; a + b <= 60; b++) {
      const double p = mg_mcnemar(a, b), expected = by_triangle(a, b);
      assert_true(fabs(p - expected) <= 1e-13 * expected);
      assert_true(p <= 1 && p == mg_mcnemar(b, a));
    }
  assert_true(mg_mcnemar(0, 0) == 1);
  assert_true(mg_mcnemar(0, 1) == 1);
  assert_true(fabs(mg_mcnemar(0, 5) - 0.0625) < 1e-15);
  assert_true(fabs(mg_mcnemar(2, 8) - 112.0 / 1024) < 1e-15);
  assert_true(fabs(mg_mcnemar(1, 9) - 22.0 / 1024) < 1e-15);
}

/* Agresti's approval ratings, 86 against 150, and large numbers by logarithms of factorials. */
static void test_mcnemar_large(void **state) {
  (void)state;
  assert_true(fabs(mg_mcnemar(86, 150) - 3.716e-5) < 1e-8);
  const uint64_t cases[][2] = {{86, 150}, {200, 300}, {900, 1100}, {10, 700}, {9800, 10100}, {400000, 402000}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    const double n = (double)(cases[c][0] + cases[c][1]);
    double tail = 0;
    for (uint64_t k = 0; k <= cases[c][0]; k++)
      tail += exp(lgamma(n + 1) - lgamma((double)k + 1) - lgamma(n - (double)k + 1) - n * log(2));
    assert_true(fabs(mg_mcnemar(cases[c][0], cases[c][1]) / (2 * tail) - 1) < 1e-7);
  }
  const double z = (1e6 - 1) / sqrt(1e12); /* a million more of a billion that differ: the normal's tail, and it ends */
  assert_true(fabs(mg_mcnemar(500000000000u, 500001000000u) - erfc(z / sqrt(2))) < 1e-6);
  assert_true(mg_mcnemar(0, 1000000000000u) == 0);
}

static void test_holm(void **state) {
  (void)state;
  /* of four: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 raised to what stands before it */
  double p[] = {0.01, NAN, 0.04, 0.03, NAN, 0.005};
  const double expected[] = {0.03, NAN, 0.06, 0.06, NAN, 0.02};
  assert_int_equal(mg_holm(p, 6), MG_OK);
  for (int k = 0; k < 6; k++) assert_true(isnan(expected[k]) ? isnan(p[k]) : fabs(p[k] - expected[k]) < 1e-15);
  double equal[] = {0.4, 0.02, 0.02};
  assert_int_equal(mg_holm(equal, 3), MG_OK);
  assert_true(equal[0] == 0.4 && fabs(equal[1] - 0.06) < 1e-15 && equal[1] == equal[2]);
  double large[] = {0.9, 0.8};
  assert_int_equal(mg_holm(large, 2), MG_OK);
  assert_true(large[0] == 1 && large[1] == 1);
  double none[] = {NAN};
  assert_int_equal(mg_holm(none, 1), MG_OK);
  assert_true(isnan(none[0]));
  assert_int_equal(mg_holm(none, 0), MG_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_mcnemar_small), cmocka_unit_test(test_mcnemar_large),
                                     cmocka_unit_test(test_holm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
