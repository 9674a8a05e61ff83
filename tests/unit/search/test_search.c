/* Every subset the plain way, by the formulas as they are written, beside the search. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/random.h"
#include "mergegrid/search.h"

enum { MOST = 12, LENGTH = 7, EVERY = 1000 };

typedef struct family {
  size_t n;
  double similarity[MOST], weight[MOST], cosine[MOST * MOST], cka[MOST * MOST], dot[MOST * MOST];
} family;

/* words: how many values a number may have; few make ties that are exact in any order of adding up. */
static void make_family(family *f, size_t n, uint32_t seed, uint32_t words) {
  double vector[MOST][LENGTH];
  const mg_stream stream = mg_stream_of(seed, 1, 2);
  uint32_t word[MOST * (LENGTH + 2)];
  mg_stream_words(&stream, 0, sizeof word / sizeof *word, word);
  f->n = n;
  for (size_t i = 0; i < n; i++) {
    const uint32_t *mine = word + i * (LENGTH + 2);
    f->similarity[i] = (double)(1 + mine[0] % words);
    f->weight[i] = (double)(1 + mine[1] % words);
    for (size_t e = 0; e < LENGTH; e++) vector[i][e] = (double)(mine[2 + e] % words) - (double)(words / 2);
    vector[i][0] = (double)words; /* none is zero */
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      double dot = 0;
      for (size_t e = 0; e < LENGTH; e++) dot += vector[i][e] * vector[j][e];
      f->dot[i * n + j] = dot;
      f->cosine[i * n + j] = words < 10 ? (double)((int)dot % 3) : dot / 1e18;
      f->cka[i * n + j] =
          words < 10 ? (double)((int)dot % 2) : fabs(vector[i][1] - vector[j][1]) * fabs(vector[i][2] - vector[j][2]);
    }
}

static mg_search_space space_of(const family *f, size_t k) {
  return (mg_search_space){
      .n = f->n, .k = k, .similarity = f->similarity, .weight = f->weight, .cosine = f->cosine, .cka = f->cka, .dot = f->dot};
}

/* ---- the plain way ---- */

typedef struct subset {
  uint32_t members[MOST];
  double score[MG_BY_COUNT];
  size_t order;
} subset;

static subset all[EVERY];
static size_t all_count;
static mg_search_by sorted_by;

static double mean_of_pairs(const double *matrix, size_t n, const uint32_t *members, size_t k) {
  long double sum = 0;
  for (size_t i = 0; i < k; i++)
    for (size_t j = 0; j < k; j++)
      if (i != j) sum += matrix[members[i] * n + members[j]];
  return (double)(sum / (long double)(k * (k - 1)));
}

static void score(const family *f, size_t k, subset *s) {
  long double total = 0, similarity = 0, square = 0, norms = 0;
  for (size_t i = 0; i < k; i++) similarity += f->similarity[s->members[i]];
  for (size_t i = 0; i < k; i++) total += f->weight[s->members[i]];
  for (size_t i = 0; i < k; i++) {
    const size_t a = s->members[i];
    norms += f->weight[a] / total * sqrtl(f->dot[a * f->n + a]);
    for (size_t j = 0; j < k; j++) {
      const size_t b = s->members[j];
      square += f->weight[a] / total * f->weight[b] / total * f->dot[a * f->n + b];
    }
  }
  s->score[MG_BY_SIMILARITY] = (double)(similarity / (long double)k);
  s->score[MG_BY_COMPATIBILITY] = mean_of_pairs(f->cosine, f->n, s->members, k);
  s->score[MG_BY_CKA] = mean_of_pairs(f->cka, f->n, s->members, k);
  s->score[MG_BY_INTERFERENCE] = (double)(1 - sqrtl(square) / norms);
}

/* Subsets of k as the bits of a number, those with the earlier members first. */
static void list_all(const family *f, size_t k) {
  all_count = 0;
  for (uint32_t bits = (1u << f->n); bits-- > 0;) {
    if ((size_t)__builtin_popcount(bits) != k) continue;
    assert_true(all_count < EVERY);
    subset *s = &all[all_count];
    size_t count = 0;
    for (size_t i = 0; i < f->n; i++)
      if (bits >> (f->n - 1 - i) & 1) s->members[count++] = (uint32_t)i;
    s->order = all_count++;
    score(f, k, s);
  }
}

static int best_first(const void *a, const void *b) {
  const subset *x = a, *y = b;
  const double sign = sorted_by == MG_BY_INTERFERENCE ? -1 : 1, p = sign * x->score[sorted_by], q = sign * y->score[sorted_by];
  return p != q ? (p > q ? -1 : 1) : (x->order > y->order) - (x->order < y->order);
}

/* ---- comparing ---- */

static mg_search_found search(const mg_search_space *s, size_t top) {
  mg_search_found found;
  const mg_search_options options = {.top = top, .by = {true, true, true, true}};
  if (mg_search_subsets(s, &options, &found) != MG_OK) fail_msg("%s", mg_error_message());
  return found;
}

/* The same scores place by place, and the same members where no neighbour's score is as good as equal. */
static void compare_list(const mg_search_space *s, mg_search_by by, const mg_search_list *got, size_t top) {
  sorted_by = by;
  qsort(all, all_count, sizeof *all, best_first);
  assert_int_equal(got->count, all_count < top ? all_count : top);
  for (size_t at = 0; at < got->count; at++) {
    double again[MG_BY_COUNT];
    const uint32_t *members = got->members + at * s->k;
    const double value = all[at].score[by];
    if (fabs(got->score[at][by] - value) > 1e-12 * fabs(value) + 1e-14)
      fail_msg("by %d, place %zu: %.17g instead of %.17g", by, at, got->score[at][by], value);
    mg_search_score(s, members, again);
    assert_memory_equal(again, got->score[at], sizeof again);
    bool alone = true;
    for (size_t other = at > 0 ? at - 1 : 0; other <= at + 1 && other < all_count; other++)
      alone = alone && (other == at || fabs(all[other].score[by] - value) > 1e-12 * fabs(value) + 1e-14);
    if (alone) assert_memory_equal(members, all[at].members, s->k * sizeof *members);
  }
}

static void compare(const family *f, size_t k, size_t top) {
  const mg_search_space s = space_of(f, k);
  mg_search_found found = search(&s, top);
  list_all(f, k);
  assert_true(found.searched == (double)all_count);
  assert_true(mg_search_count(f->n, k) == (double)all_count);
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (k > 1 || by == MG_BY_SIMILARITY)
      compare_list(&s, (mg_search_by)by, &found.list[by], top);
    else
      assert_int_equal(found.list[by].count, 0);
  mg_search_found_free(&found);
}

/* ---- tests ---- */

static void as_the_plain_way(void **state) {
  (void)state;
  family f;
  for (size_t n = 1; n <= MOST; n++)
    for (size_t k = 1; k <= n; k++)
      for (size_t top = 1; top <= 2000; top = top * 7 + 3) {
        make_family(&f, n, (uint32_t)(n * 100 + k), 1u << 30);
        compare(&f, k, top);
      }
}

/* Small whole numbers: sums are exact, so equal means equal, and the order of equals is what is tested. */
static void ties_in_order(void **state) {
  (void)state;
  family f;
  for (uint32_t seed = 0; seed < 20; seed++) {
    make_family(&f, 9, seed, 3);
    const mg_search_space s = space_of(&f, 4);
    for (size_t top = 1; top < 200; top += 31) {
      mg_search_found found = search(&s, top);
      list_all(&f, 4);
      for (int by = 0; by < MG_BY_INTERFERENCE; by++) {
        sorted_by = (mg_search_by)by;
        qsort(all, all_count, sizeof *all, best_first);
        for (size_t at = 0; at < found.list[by].count; at++)
          assert_memory_equal(found.list[by].members + at * 4, all[at].members, 4 * sizeof(uint32_t));
      }
      mg_search_found_free(&found);
    }
  }
}

/* All the same: the first subsets in the candidates' order, of each score. */
static void equal_sources(void **state) {
  (void)state;
  family f = {.n = 6};
  for (size_t i = 0; i < 36; i++) f.cosine[i] = f.cka[i] = 0.5, f.dot[i] = i % 7 == 0 ? 4 : 2;
  for (size_t i = 0; i < 6; i++) f.similarity[i] = f.weight[i] = 0.25;
  const mg_search_space s = space_of(&f, 3);
  mg_search_found found = search(&s, 3);
  const uint32_t first[] = {0, 1, 2, 0, 1, 3, 0, 1, 4};
  for (int by = 0; by < MG_BY_COUNT; by++) assert_memory_equal(found.list[by].members, first, sizeof first);
  mg_search_found_free(&found);
}

/* Opposite task vectors cancel out altogether; parallel ones not at all. */
static void known_interference(void **state) {
  (void)state;
  family f = {.n = 4};
  const double x[] = {1, -1, 2, 3};
  for (size_t i = 0; i < 4; i++) {
    f.similarity[i] = 1, f.weight[i] = 1;
    for (size_t j = 0; j < 4; j++) f.dot[i * 4 + j] = x[i] * x[j];
  }
  mg_search_space s = space_of(&f, 2);
  s.cosine = s.cka = NULL;
  mg_search_found found = search(&s, 6);
  assert_int_equal(found.list[MG_BY_COMPATIBILITY].count, 0);
  assert_int_equal(found.list[MG_BY_CKA].count, 0);
  const mg_search_list *list = &found.list[MG_BY_INTERFERENCE];
  const double scores[] = {0, 0, 0, 0.5, 1 - 1 / 3.0, 1};
  const uint32_t members[] = {0, 2, 0, 3, 2, 3, 1, 3, 1, 2, 0, 1};
  assert_int_equal(list->count, 6);
  assert_memory_equal(list->members, members, sizeof members);
  for (size_t at = 0; at < 6; at++) {
    assert_true(fabs(list->score[at][MG_BY_INTERFERENCE] - scores[at]) < 1e-15);
    assert_true(isnan(list->score[at][MG_BY_CKA]));
  }
  mg_search_found_free(&found);
}

static void only_what_is_asked_for(void **state) {
  (void)state;
  family f;
  make_family(&f, 10, 3, 1u << 30);
  const mg_search_space s = space_of(&f, 4);
  mg_search_found some, every = search(&s, 5);
  const mg_search_options options = {.top = 5, .by = {[MG_BY_CKA] = true}};
  assert_int_equal(mg_search_subsets(&s, &options, &some), MG_OK);
  assert_int_equal(some.list[MG_BY_SIMILARITY].count, 0);
  assert_int_equal(some.list[MG_BY_CKA].count, 5);
  assert_memory_equal(some.list[MG_BY_CKA].members, every.list[MG_BY_CKA].members, 20 * sizeof(uint32_t));
  assert_memory_equal(some.list[MG_BY_CKA].score, every.list[MG_BY_CKA].score, 5 * sizeof *every.list->score);
  mg_search_found_free(&some);
  mg_search_found_free(&every);
}

static mg_status stop(void *context, double searched) {
  *(double *)context = searched;
  return mg_fail(MG_STOPPED, "enough");
}

static void stops_with_what_it_has(void **state) {
  (void)state;
  enum { MANY = 40 };
  double similarity[MANY], asked = 0;
  mg_search_found found;
  for (size_t i = 0; i < MANY; i++) similarity[i] = (double)i;
  const mg_search_space s = {.n = MANY, .k = 8, .similarity = similarity, .weight = similarity};
  const mg_search_options options = {.top = 3, .by = {true}, .poll = stop, .context = &asked};
  assert_int_equal(mg_search_subsets(&s, &options, &found), MG_STOPPED);
  assert_true(found.searched == asked && asked > 1e6 && asked < 1e7);
  assert_int_equal(found.list[MG_BY_SIMILARITY].count, 3);
  mg_search_found_free(&found);
}

static void counts_do_not_overflow(void **state) {
  (void)state;
  assert_true(mg_search_count(47, 5) == 1533939);
  assert_true(mg_search_count(5, 5) == 1 && mg_search_count(5, 0) == 1 && mg_search_count(5, 6) == 0);
  assert_true(mg_search_count(56, 28) == 7648690600760440); /* the last middle one below 2^53 */
  for (size_t n = 1; n < 57; n++)
    for (size_t k = 1; k < n; k++)
      assert_true(mg_search_count(n, k) == mg_search_count(n - 1, k) + mg_search_count(n - 1, k - 1));
  assert_true(fabs(mg_search_count(1000, 10) / 2.63409560461970e23 - 1) < 1e-12);
  assert_true(fabs(mg_search_count(1028, 514) / 7.1560510548779e307 - 1) < 1e-10);
  assert_true(isinf(mg_search_count(100000, 50000)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(as_the_plain_way),       cmocka_unit_test(ties_in_order),
      cmocka_unit_test(equal_sources),          cmocka_unit_test(known_interference),
      cmocka_unit_test(only_what_is_asked_for), cmocka_unit_test(stops_with_what_it_has),
      cmocka_unit_test(counts_do_not_overflow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
