/* The bootstrap against what its distribution is known to be. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "mergegrid/random.h"
#include "mergegrid/statistics.h"

enum { MANY = 20000 };

/* Differences −pairs … pairs, a share of them not 0, a little more often positive. */
static void fill(int32_t *difference, size_t texts, int32_t pairs, double share, uint32_t key) {
  for (uint32_t u = 0; u < texts; u++) {
    const uint32_t counter[4] = {u}, keys[2] = {key};
    uint32_t word[4];
    mg_philox(counter, keys, word);
    const int32_t size = 1 + (int32_t)(word[0] % (uint32_t)pairs);
    difference[u] = (double)word[1] < share * 4294967296.0 ? (word[2] % 100 < 55 ? size : -size) : 0;
  }
}

static mg_interval of(const mg_paired_target *targets, size_t count, size_t draws, uint64_t seed, double *p) {
  mg_interval interval;
  assert_int_equal(mg_paired_bootstrap(targets, count, draws, seed, &interval, p), MG_OK);
  return interval;
}

/* Mean and the interval of the normal distribution that the bootstrap's mean has: each target's variance by itself. */
static mg_interval analytic(const mg_paired_target *targets, size_t count) {
  double total = 0, variance = 0, places = 0;
  for (size_t t = 0; t < count; t++) {
    double sum = 0, squares = 0, texts = (double)targets[t].texts;
    for (size_t u = 0; u < targets[t].texts; u++) {
      sum += targets[t].difference[u];
      squares += (double)targets[t].difference[u] * targets[t].difference[u];
    }
    total += sum;
    variance += squares - sum * sum / texts;
    places += texts * (double)targets[t].pairs;
  }
  const double reach = 1.959964 * sqrt(variance);
  return (mg_interval){total / places, (total - reach) / places, (total + reach) / places};
}

/* Several draws' quantiles: 20,000 draws place an end of the interval within 2% of its length (four standard errors of a
 * quantile). */
static void test_against_the_normal(void **state) {
  (void)state;
  static int32_t a[3000], b[440], c[1200], d[50];
  const mg_paired_target targets[] = {{3000, 1, a}, {440, 6, b}, {1200, 3, c}, {50, 2, d}};
  fill(a, 3000, 1, 0.15, 1), fill(b, 440, 6, 0.5, 2), fill(c, 1200, 3, 1, 3), fill(d, 50, 2, 0.02, 4);
  for (size_t first = 0; first < 4; first++)
    for (size_t count = 1; first + count <= 4; count++) {
      if (first == 3) continue; /* one text of fifty: not normal */
      const mg_interval expected = analytic(targets + first, count);
      double p;
      const mg_interval got = of(targets + first, count, MANY, 7, &p);
      const double tolerance = 0.02 * (expected.high - expected.low);
      assert_true(fabs(got.estimate - expected.estimate) < 1e-12);
      assert_true(fabs(got.low - expected.low) < tolerance && fabs(got.high - expected.high) < tolerance);
    }
}

/* One text of U that differs: the number of times it is drawn is Binomial(U, 1/U), nearly Poisson(1): 2.5% lie above 3. */
static void test_a_rare_difference(void **state) {
  (void)state;
  int32_t difference[1000] = {0};
  difference[123] = 2;
  const mg_paired_target target = {1000, 2, difference};
  double p;
  const mg_interval got = of(&target, 1, MANY, 1, &p);
  assert_true(fabs(got.estimate - 0.001) < 1e-15 && got.low == 0 && fabs(got.high - 0.003) < 1e-15);
  assert_true(p == 1);
}

static void test_the_seed_decides(void **state) {
  (void)state;
  static int32_t a[440], b[300];
  const mg_paired_target targets[] = {{440, 2, a}, {300, 1, b}};
  double p[3];
  fill(a, 440, 2, 0.3, 5), fill(b, 300, 1, 0.2, 6);
  const mg_interval one = of(targets, 2, 2000, 42, &p[0]), again = of(targets, 2, 2000, 42, &p[1]),
                    other = of(targets, 2, 2000, 43, &p[2]);
  assert_memory_equal(&one, &again, sizeof one);
  assert_true(one.low != other.low || one.high != other.high);
  assert_true(p[0] == p[1] && p[0] == p[2] && one.estimate == other.estimate);
}

static void test_corners(void **state) {
  (void)state;
  const int32_t zero[100] = {0}, lone[] = {-2};
  const mg_paired_target same = {100, 3, zero}, single = {1, 4, lone}, empty = {0, 1, NULL};
  double p;
  mg_interval got = of(&same, 1, 500, 1, &p);
  assert_true(got.estimate == 0 && got.low == 0 && got.high == 0 && p == 1);
  got = of(&single, 1, 500, 1, &p);
  assert_true(got.estimate == -0.5 && got.low == -0.5 && got.high == -0.5 && p == 1);
  got = of(&single, 1, 1, 1, &p);
  assert_true(got.low == -0.5 && got.high == -0.5);
  got = of(&empty, 1, 500, 1, &p);
  assert_true(isnan(got.estimate) && isnan(got.low) && isnan(got.high) && isnan(p));
  got = of(NULL, 0, 500, 1, &p);
  assert_true(isnan(got.estimate) && isnan(p));
  const mg_paired_target both[] = {empty, single}, wrong = {1, 1, lone};
  assert_true(of(both, 2, 500, 1, &p).estimate == -0.5);
  assert_int_equal(mg_paired_bootstrap(&single, 1, 0, 1, &got, &p), MG_ERR_INTERNAL);
  assert_int_equal(mg_paired_bootstrap(&wrong, 1, 10, 1, &got, &p), MG_ERR_INTERNAL);
}

/* The sign-flip test: close to McNemar's exact one where there is one pair; the same for pairs that all say the same. */
static void test_p(void **state) {
  (void)state;
  static int32_t one[440], twice[440];
  for (int u = 0; u < 440; u++) one[u] = u < 40 ? 1 : u < 62 ? -1 : 0, twice[u] = 2 * one[u];
  const mg_paired_target single = {440, 1, one}, two = {440, 2, twice};
  double p, q;
  const mg_interval a = of(&single, 1, 1000, 1, &p), b = of(&two, 1, 1000, 1, &q);
  assert_true(fabs(p - erfc(17 / sqrt(2.0 * 62))) < 1e-15);
  assert_true(fabs(p - mg_mcnemar(40, 22)) < 0.003);
  assert_true(fabs(p - q) < 1e-15 && a.estimate == b.estimate && a.low == b.low && a.high == b.high);
  int32_t mixed[] = {2, 2, 2, -1}; /* all sixteen signs: 5, 7 and their opposites are as large: 2 (1 + 1) / 16 */
  const mg_paired_target few = {4, 2, mixed};
  of(&few, 1, 10, 1, &p);
  assert_true(fabs(p - erfc(4 / sqrt(2.0 * 13))) < 1e-15);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_the_normal), cmocka_unit_test(test_a_rare_difference),
                                     cmocka_unit_test(test_the_seed_decides), cmocka_unit_test(test_corners),
                                     cmocka_unit_test(test_p)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
