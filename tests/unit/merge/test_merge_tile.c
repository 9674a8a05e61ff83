/* The kernels of every instruction set against plain loops, bit by bit, over odd sizes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merge/kernels_impl.h"
#include "merge/merge_impl.h"

enum { SOURCES = 5, MOST = 1000, ROOM = MOST + MG_MERGE_SLACK };

static float tau[SOURCES][ROOM], base[ROOM];
static const float *rows_of[SOURCES];
static double weight[SOURCES], vote[SOURCES], threshold[SOURCES], ceiling[SOURCES], shift[SOURCES], alone[SOURCES];
static double expected[ROOM], got[ROOM];
static const long COUNTS[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 250, 999, MOST};
enum { COUNT_COUNT = sizeof COUNTS / sizeof *COUNTS };

/* Multiples of 1/64, so that votes cancel and magnitudes are equal now and then; zeros; what lies behind the end is not finite.
 */
static void make_rows(unsigned seed, long count) {
  for (size_t s = 0; s < SOURCES; s++) {
    rows_of[s] = tau[s];
    for (long k = 0; k < ROOM; k++)
      tau[s][k] =
          k >= count ? (k % 2 ? NAN : INFINITY) : (float)(rand_r(&seed) % 33 - 16) / (rand_r(&seed) % 4 ? 64.0F : 61.0F);
    weight[s] = 0.1 + (double)(rand_r(&seed) % 100) / 300;
    vote[s] = s % 2 ? 1 : weight[s];
    threshold[s] = (double)(float)(rand_r(&seed) % 8) / 64;
    ceiling[s] = s == 1 ? 13.0 / 64 : INFINITY;
    shift[s] = (double)(rand_r(&seed) % 17 - 8) / 31;
    alone[s] = 1 + (double)s / 7;
  }
  for (long k = 0; k < ROOM; k++) base[k] = k >= count ? NAN : (float)(rand_r(&seed) % 2001 - 1000) / 997.0F;
}

static mg_merge_rows rows_with(long count, bool shifted, double tie) {
  return (mg_merge_rows){.sources = SOURCES,
                         .count = count,
                         .tau = rows_of,
                         .weight = weight,
                         .vote = vote,
                         .threshold = threshold,
                         .ceiling = ceiling,
                         .shift = shifted ? shift : NULL,
                         .along = base,
                         .tie = tie,
                         .floor = 0.2};
}

static double value_of(const mg_merge_rows *r, size_t s, long k) {
  const double x = (double)r->tau[s][k], within = fabs(x) >= r->threshold[s] && fabs(x) < r->ceiling[s] ? x : 0;
  return r->shift != NULL ? within - r->shift[s] * (double)r->along[k] : within;
}

static void assert_same_bits(const double *a, const double *b, long count, const char *what, const char *kernel) {
  for (long k = 0; k < count; k++)
    if (memcmp(&a[k], &b[k], sizeof *a) != 0 && (a[k] != 0 || b[k] != 0))
      fail_msg("%s of %ld elements, kernel %s: element %ld is %a, not %a", what, count, kernel, k, b[k], a[k]);
}

/* Runs a check with all kernels of this machine over all sizes. */
typedef void (*check_fn)(const mg_merge_kernels *kernels, long count);

static void with_all(check_fn check) {
  const mg_merge_kernels *all[3];
  const size_t number = mg_merge_kernels_all(all);
  assert_true(number >= 1);
  for (size_t k = 0; k < number; k++)
    for (size_t c = 0; c < COUNT_COUNT; c++) {
      make_rows((unsigned)(c + 1), COUNTS[c]);
      check(all[k], COUNTS[c]);
    }
}

/* ---- sums ---- */

static void check_sums(const mg_merge_kernels *kernels, long count) {
  const mg_merge_rows r = rows_with(count, false, 1);
  for (long k = 0; k < count; k++) {
    expected[k] = 0;
    for (size_t s = 0; s < SOURCES; s++) expected[k] = fma(weight[s], (double)tau[s][k], expected[k]);
  }
  kernels->add_up(&r, got);
  assert_same_bits(expected, got, count, "add_up", kernels->name);
  for (long k = 0; k < count; k++) {
    expected[k] = 0;
    for (size_t s = 0; s < SOURCES; s++) expected[k] += weight[s] * value_of(&r, s, k);
  }
  kernels->add_up_between(&r, got);
  assert_same_bits(expected, got, count, "add_up_between", kernels->name);
  for (int shifted = 0; shifted < 2; shifted++) {
    const mg_merge_rows v = rows_with(count, shifted, 1);
    for (long k = 0; k < count; k++) {
      expected[k] = 0;
      for (size_t s = 0; s < SOURCES; s++) expected[k] += vote[s] * value_of(&v, s, k);
    }
    kernels->votes(&v, got);
    assert_same_bits(expected, got, count, "votes", kernels->name);
  }
}

static void check_others(const mg_merge_kernels *kernels, long count) {
  mg_merge_rows r = rows_with(count, false, 1);
  for (long k = 0; k < count; k++) {
    expected[k] = 0;
    for (size_t s = 0; s < SOURCES; s++)
      if (fabs((double)tau[s][k]) > fabs(expected[k])) expected[k] = (double)tau[s][k];
  }
  kernels->largest(&r, got);
  assert_same_bits(expected, got, count, "largest", kernels->name);
  for (int apart = 0; apart < 2; apart++) {
    r.alone = apart ? alone : NULL;
    for (long k = 0; k < count; k++) {
      double total = 0, share = 0, own = 0;
      int number = 0;
      for (size_t s = 0; s < SOURCES; s++) {
        const double x = value_of(&r, s, k);
        total += weight[s] * x;
        if (x == 0) continue;
        share += weight[s];
        own += alone[s] * x;
        number++;
      }
      expected[k] = apart && number == 1 ? own : share > 0 ? total / share : 0;
    }
    kernels->average_active(&r, got);
    assert_same_bits(expected, got, count, "average_active", kernels->name);
  }
  for (long k = 0; k < count; k++) {
    double mean = 0, total = 0;
    for (size_t s = 0; s < SOURCES; s++) mean += (double)tau[s][k];
    mean /= SOURCES;
    for (size_t s = 0; s < SOURCES; s++) total += ((double)tau[s][k] - mean) * ((double)tau[s][k] - mean);
    expected[k] = total / SOURCES;
  }
  kernels->variance(&r, got);
  assert_same_bits(expected, got, count, "variance", kernels->name);
}

static void check_near(const mg_merge_kernels *kernels, long count) {
  for (int from_base = 0; from_base < 2; from_base++) {
    for (long k = 0; k < count; k++) {
      const double a = from_base ? 0 : (double)tau[0][k], way = (double)tau[1][k] - a;
      const double size = fabs(way) > 1e-6 ? fabs(way) : 1e-6, u = 0.05 / size < 1 ? 0.05 / size : 1;
      expected[k] = a + u * way;
    }
    kernels->near(from_base ? NULL : tau[0], tau[1], 0.05, count, got);
    assert_same_bits(expected, got, count, "near", kernels->name);
  }
}

/* ---- elections ---- */

static double elected(const mg_merge_rows *r, mg_elected how, long k, bool *cancelled) {
  double votes = 0, total = 0, share = 0, most = 0;
  for (size_t s = 0; s < SOURCES; s++) votes += r->vote[s] * value_of(r, s, k);
  const double sign = votes > 0 ? 1 : votes < 0 ? -1 : r->tie;
  for (size_t s = 0; s < SOURCES; s++) {
    const double x = value_of(r, s, k);
    if (!(x * sign > 0)) continue;
    total += r->weight[s] * x;
    share += r->weight[s];
    if (fabs(x) > fabs(most)) most = x;
  }
  if (votes == 0 && share > 0) *cancelled = true;
  if (how == MG_ELECTED_MAX) return most;
  if (how == MG_ELECTED_SUM || !(share > 0)) return total;
  return total / (share > r->floor ? share : r->floor);
}

static size_t cancellations;

static void check_elections(const mg_merge_kernels *kernels, long count) {
  static const char *const names[] = {"elect mean", "elect sum", "elect max"};
  for (int how = MG_ELECTED_MEAN; how <= MG_ELECTED_MAX; how++)
    for (int variant = 0; variant < 4; variant++) { /* a shift or none; either sign where votes cancel */
      const bool shifted = variant / 2 == 1 && how == MG_ELECTED_MEAN;
      const mg_merge_rows r = rows_with(count, shifted, variant % 2 ? 1 : -1);
      bool cancelled = false;
      for (size_t s = 0; s < SOURCES; s++) vote[s] = 1;
      for (long k = 0; k < count; k++) expected[k] = elected(&r, (mg_elected)how, k, &cancelled);
      assert_int_equal(kernels->elect(&r, (mg_elected)how, got), cancelled);
      assert_same_bits(expected, got, count, names[how], kernels->name);
      cancellations += cancelled;
    }
}

/* ---- sums over elements ---- */

static double add_parts(double *parts) {
  for (int half = MG_MERGE_PARTS / 2; half > 0; half /= 2)
    for (int k = 0; k < half; k++) parts[k] += parts[k + half];
  return parts[0];
}

static void check_dot(const mg_merge_kernels *kernels, long count) {
  for (int bounded = 0; bounded < 2; bounded++) {
    const double low = bounded ? 5.0 / 64 : 0, high = bounded ? 12.0 / 64 : INFINITY;
    double parts[MG_MERGE_PARTS] = {0};
    for (long k = 0; k < count; k++)
      if (fabs((double)tau[0][k]) >= low && fabs((double)tau[0][k]) < high)
        parts[k % MG_MERGE_PARTS] += (double)tau[0][k] * (double)tau[1][k];
    const double own = add_parts(parts), theirs = kernels->dot(tau[0], low, high, tau[1], count);
    assert_same_bits(&own, &theirs, 1, "dot", kernels->name);
  }
}

/* In long double with the library's functions. */
static long double divergence_of(const float *a, const float *b, long count) {
  long double total = 0, change = 0, bend = 0;
  for (long k = 0; k < count; k++) {
    const long double share = expl((long double)base[k] + (long double)b[k]);
    total += share;
    change += share * ((long double)b[k] - (a != NULL ? (long double)a[k] : 0));
  }
  for (long k = 0; k < count; k++) {
    const long double x = (long double)b[k] - (a != NULL ? (long double)a[k] : 0) - change / total;
    bend += expl((long double)base[k] + (long double)b[k]) * (expm1l(-x) + x);
  }
  return log1pl(bend / total);
}

static void check_divergence(const mg_merge_kernels *kernels, long count) {
  for (int variant = 0; variant < 4; variant++) { /* from the base or another source; changes as they are, or next to none */
    const float *a = variant % 2 ? NULL : tau[0];
    for (long k = 0; variant == 2 && k < count; k++) tau[0][k] *= 1e-5F, tau[1][k] *= 1e-5F;
    const double one = mg_merge_portable.divergence(base, a, tau[1], count);
    const double other = kernels->divergence(base, a, tau[1], count);
    const long double expected_one = divergence_of(a, tau[1], count);
    assert_same_bits(&one, &other, 1, "divergence", kernels->name);
    if (fabsl(expected_one - (long double)one) > 1e-9L * expected_one + 1e-30L)
      fail_msg("divergence of %ld elements: %.17Lg, not %.17g", count, expected_one, one);
  }
}

static void check_finish(const mg_merge_kernels *kernels, long count) {
  float out[ROOM], untouched = out[count] = 7;
  for (long k = 0; k < ROOM; k++) got[k] = k < count ? (double)(k % 13 - 6) / 3 : NAN;
  assert_true(kernels->finish(base, got, 0.75, 1.25, count, out));
  for (long k = 0; k < count; k++) assert_true(out[k] == (float)(0.75 * (double)base[k] + 1.25 * got[k]));
  assert_true(out[count] == untouched);
  got[count - 1] = count % 2 ? INFINITY : 1e300;
  assert_false(kernels->finish(base, got, 0.75, 1.25, count, out));
}

static void sums(void **state) { (void)state, with_all(check_sums); }
static void others(void **state) { (void)state, with_all(check_others), with_all(check_near); }
static void elections(void **state) {
  (void)state, with_all(check_elections);
  assert_true(cancellations > 0);
}
static void over_elements(void **state) {
  (void)state, with_all(check_dot), with_all(check_divergence), with_all(check_finish);
}

/* Elements far apart: no exponential overflows, and what is next to nothing counts as that. */
static void divergence_of_extremes(void **state) {
  (void)state;
  float rows[2][3 + MG_MERGE_SLACK] = {{0, 1000, -1000}, {0, -900, 3e6F}}, zeros[3 + MG_MERGE_SLACK] = {0};
  const double apart = mg_merge_portable.divergence(zeros, rows[0], rows[1], 3);
  assert_true(fabs(apart - 2000) < 1e-6);
  assert_true(mg_merge_portable.divergence(rows[0], NULL, zeros, 3) == 0);
}

/* ---- at random ---- */

static void keeping_at_random(void **state) {
  (void)state;
  static const uint64_t FIRSTS[] = {0, 1, 3, 4, 37, (1ULL << 34) - 50, (1ULL << 40) + 2};
  static const double DENSITIES[] = {1e-12, 0.1, 0.5, 1};
  const mg_stream stream = mg_stream_of_tensor(0x123456789ABCDEFULL, "aa", "a tensor");
  static uint32_t words[MOST];
  const mg_merge_kernels *all[3];
  const size_t number = mg_merge_kernels_all(all);
  for (size_t f = 0; f < sizeof FIRSTS / sizeof *FIRSTS; f++)
    for (size_t c = 0; c < COUNT_COUNT; c++)
      for (size_t d = 0; d < sizeof DENSITIES / sizeof *DENSITIES; d++) {
        const long count = COUNTS[c];
        make_rows((unsigned)c, count);
        mg_stream_words(&stream, FIRSTS[f], (uint64_t)count, words);
        for (size_t k = 0; k < number; k++) {
          float *to = tau[1];
          to[count] = 7;
          all[k]->keep_random(&stream, FIRSTS[f], count, mg_last_kept(DENSITIES[d]), 3, tau[0], to);
          for (long i = 0; i < count; i++)
            if (to[i] != ((double)words[i] < DENSITIES[d] * 4294967296.0 ? 3 * tau[0][i] : 0))
              fail_msg("%s: element %ld of %ld from %llu", all[k]->name, i, count, (unsigned long long)FIRSTS[f]);
          assert_true(to[count] == 7);
        }
        float *same = tau[0]; /* in place */
        all[number - 1]->keep_random(&stream, FIRSTS[f], count, mg_last_kept(DENSITIES[d]), 3, same, same);
        assert_memory_equal(same, tau[1], (size_t)count * sizeof *same);
      }
}

/* ---- order statistics ---- */

static int by_magnitude(const void *a, const void *b) {
  const float x = fabsf(*(const float *)a), y = fabsf(*(const float *)b);
  return (x < y) - (x > y);
}

/* Ranks near to each other and far apart, equal values, zeros, runs that no rank lies in. */
static void ranks_of_magnitudes(void **state) {
  (void)state;
  enum { N = 5000 };
  static float values[N], sorted[N];
  unsigned seed = 3;
  static const uint64_t RANKS[][3] = {{1, 2, 3}, {1, N / 2, N}, {N / 5, N / 5 + 1, N / 4}, {N, N, N - 1}};
  for (int spread = 0; spread < 3; spread++) {
    for (int k = 0; k < N; k++) {
      const float x = (float)(rand_r(&seed) % 100001 - 50000) / 50000.0F;
      values[k] = spread == 0 ? x : spread == 1 ? x * x * x * x * x : (float)(rand_r(&seed) % 5 - 2) / 64.0F;
    }
    memcpy(sorted, values, sizeof values);
    qsort(sorted, N, sizeof *sorted, by_magnitude);
    for (size_t r = 0; r < sizeof RANKS / sizeof *RANKS; r++) {
      double found[3];
      mg_census census;
      assert_int_equal(mg_census_begin(RANKS[r], 3, &census), MG_OK);
      for (int turn = 0; turn < 2; turn++) {
        for (int at = 0; at < N; at += 333) mg_census_add(&census, values + at, N - at < 333 ? N - at : 333);
        if (turn == 0) assert_int_equal(mg_census_turn(&census), MG_OK);
      }
      mg_census_values(&census, found);
      mg_census_free(&census);
      for (int k = 0; k < 3; k++) assert_true(found[k] == (double)fabsf(sorted[RANKS[r][k] - 1]));
    }
  }
}

/* ---- rows by rank ---- */

typedef struct placed {
  float size;
  int64_t at;
} placed;

static int by_size(const void *a, const void *b) {
  const placed *x = a, *y = b;
  return x->size != y->size ? (x->size > y->size) - (x->size < y->size) : (x->at > y->at) - (x->at < y->at);
}

static void ranks_against_sorting(void **state) {
  (void)state;
  static const int64_t ROWS[] = {1, 2, 3, 37, 250, MOST};
  const mg_stream stream = mg_stream_of_tensor(42, "aa", "a tensor");
  static uint32_t words[MOST];
  static uint64_t order[2 * MOST];
  for (size_t c = 0; c < sizeof ROWS / sizeof *ROWS; c++)
    for (int rescale = MG_RESCALE_INVERSE; rescale <= MG_RESCALE_NONE; rescale++) {
      const int64_t row = ROWS[c], count = MOST / row * row, first = 3 * row;
      const mg_formula f = {.drop_density = 0.5, .drop_spread = 0.2, .rescale = (mg_rescale)rescale};
      make_rows((unsigned)c, MOST);
      memcpy(tau[1], tau[0], sizeof tau[0]);
      mg_keep_by_rank(tau[1], first, count, row, &stream, &f, 3, words, order);
      mg_stream_words(&stream, (uint64_t)first, (uint64_t)count, words);
      for (int64_t at = 0; at < count; at += row) {
        placed sorted[MOST];
        for (int64_t k = 0; k < row; k++) sorted[k] = (placed){fabsf(tau[0][at + k]), at + k};
        qsort(sorted, (size_t)row, sizeof *sorted, by_size);
        for (int64_t rank = 0; rank < row; rank++) {
          const int64_t k = sorted[rank].at;
          const double p = row > 1 ? 0.3 + 0.4 / (double)(row - 1) * (double)rank : 0.5;
          const float kept = rescale == MG_RESCALE_INVERSE ? (float)((double)tau[0][k] / p) : tau[0][k] * 3;
          if (tau[1][k] != ((double)words[k] < p * 4294967296.0 ? kept : 0))
            fail_msg("rows of %lld: element %lld of rank %lld", (long long)row, (long long)k, (long long)rank);
        }
      }
    }
}

/* Exact sums: the same from either end and in any parts, and what adding up in long double comes to. */
static void norms_of_any_order(void **state) {
  enum { COUNT = 4000 };
  static float values[COUNT], back[COUNT];
  unsigned seed = 5;
  long double plain = 0;
  mg_l1 once = {0}, parts = {0};
  (void)state;
  for (int k = 0; k < COUNT; k++) {
    values[k] = ldexpf((float)(rand_r(&seed) % 20001 - 10000), rand_r(&seed) % 60 - 50);
    if (k % 50 == 0) values[k] = (float)(k % 100) * 1e-43F; /* subnormal, or zero */
    back[COUNT - 1 - k] = -values[k];
    plain += fabsl((long double)values[k]);
  }
  mg_l1_add(&once, values, COUNT);
  mg_l1_add(&parts, back, 1234), mg_l1_add(&parts, back + 1234, COUNT - 1234);
  assert_memory_equal(&once, &parts, sizeof once);
  assert_true(fabsl((long double)mg_l1_value(&once) - plain) <= plain * 0x1p-50L);
  const float small[3] = {1e-45F, -3e-45F, 0}, edges[2] = {0x1p-126F, 0x1p127F};
  mg_l1 few = {0};
  mg_l1_add(&few, small, 3);
  assert_true(mg_l1_value(&few) == 3 * 0x1p-149);
  mg_l1_add(&few, edges, 1);
  assert_true(mg_l1_value(&few) == 3 * 0x1p-149 + 0x1p-126);
  mg_l1_add(&few, edges + 1, 1);
  assert_true(mg_l1_value(&few) == 0x1p127);
  const float wild[3] = {-INFINITY, INFINITY, -NAN};
  mg_l1_add(&few, wild, 2);
  assert_true(isinf(mg_l1_value(&few)) && mg_l1_value(&few) > 0);
  mg_l1_add(&few, wild + 2, 1);
  assert_true(isnan(mg_l1_value(&few)));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sums),
                                     cmocka_unit_test(others),
                                     cmocka_unit_test(elections),
                                     cmocka_unit_test(over_elements),
                                     cmocka_unit_test(divergence_of_extremes),
                                     cmocka_unit_test(keeping_at_random),
                                     cmocka_unit_test(ranks_of_magnitudes),
                                     cmocka_unit_test(ranks_against_sorting),
                                     cmocka_unit_test(norms_of_any_order)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
