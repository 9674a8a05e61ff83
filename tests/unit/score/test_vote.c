/* Votes against loops that do the obvious. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "mergegrid/random.h"
#include "mergegrid/score.h"
#include "mergegrid/statistics.h"

enum { VOTERS = 5, TEXTS = 300, CLASSES = 4 };

typedef struct election {
  float logits[VOTERS][TEXTS * CLASSES];
  int32_t predictions[VOTERS][TEXTS];
  const float *logits_of[VOTERS];
  const int32_t *predictions_of[VOTERS];
} election;

/* Logits of few different values, so that there are ties. */
static void hold(election *e) {
  for (uint32_t v = 0; v < VOTERS; v++) {
    for (uint32_t k = 0; k < TEXTS * CLASSES; k++) {
      const uint32_t counter[4] = {k, v}, key[2] = {11};
      uint32_t word[4];
      mg_philox(counter, key, word);
      e->logits[v][k] = (float)(word[0] % 5) * 0.5f - 1;
    }
    assert_int_equal(mg_predict(e->logits[v], TEXTS, CLASSES, e->predictions[v], NULL), MG_OK);
    e->logits_of[v] = e->logits[v];
    e->predictions_of[v] = e->predictions[v];
  }
}

/* What the classes have, and which was voted for first. */
static int32_t naive(const election *e, mg_vote_kind kind, size_t voters, const double *weights, size_t text, double *score) {
  size_t first[CLASSES] = {99, 99, 99, 99};
  for (int c = 0; c < CLASSES; c++) score[c] = 0;
  for (size_t v = 0; v < voters; v++) {
    const float *row = e->logits[v] + text * CLASSES;
    const size_t vote = (size_t)e->predictions[v][text];
    double total = 0;
    for (int c = 0; c < CLASSES; c++) total += exp((double)row[c]);
    if (kind == MG_VOTE_MAJORITY || kind == MG_VOTE_WEIGHTED_MAJORITY) {
      score[vote] += kind == MG_VOTE_MAJORITY ? 1 : weights[v];
      if (first[vote] == 99) first[vote] = v;
    } else
      for (int c = 0; c < CLASSES; c++)
        score[c] += weights[v] * (kind == MG_VOTE_SOFT ? exp((double)row[c]) / total : (double)row[c]);
  }
  int best = 0;
  for (int c = 1; c < CLASSES; c++)
    if (score[c] > score[best] || (!(score[c] < score[best]) && first[c] < first[best])) best = c;
  return best;
}

/* Sums are exact but for the softmax's: there, of classes that have the same up to rounding, either may win. */
static void test_against_loops(void **state) {
  (void)state;
  static election e;
  const double weights[][VOTERS] = {{1, 1, 1, 1, 1}, {0.5, 0.25, 0.125, 0.0625, 0.0625}, {0.25, 0.25, 0.125, 0.125, 0.25}};
  hold(&e);
  for (mg_vote_kind kind = MG_VOTE_MAJORITY; kind <= MG_VOTE_LOGITS; kind++)
    for (size_t w = 0; w < 3; w++)
      for (size_t voters = 1; voters <= VOTERS; voters++) {
        int32_t got[TEXTS], unweighted[TEXTS];
        assert_int_equal(mg_vote(kind, voters, weights[w], e.predictions_of, e.logits_of, TEXTS, CLASSES, got), MG_OK);
        for (size_t t = 0; t < TEXTS; t++) {
          double score[CLASSES];
          const int32_t expected = naive(&e, kind, voters, weights[w], t, score);
          if (kind != MG_VOTE_SOFT || fabs(score[got[t]] - score[expected]) > 1e-12) assert_int_equal(got[t], expected);
        }
        if (voters == 1 && kind != MG_VOTE_SOFT) assert_memory_equal(got, e.predictions[0], sizeof got);
        assert_int_equal(mg_vote(kind, voters, NULL, e.predictions_of, e.logits_of, TEXTS, CLASSES, unweighted), MG_OK);
        if (w == 0) assert_memory_equal(got, unweighted, sizeof got);
      }
}

static void test_by_hand(void **state) {
  (void)state;
  const int32_t a[] = {2, 0, -1, -1}, b[] = {1, 1, 3, -1}, c[] = {1, 2, 0, -1}, d[] = {2, 1, 0, -1};
  const int32_t *const predictions_of[] = {a, b, c, d};
  const double weights[] = {0.5, 0.25, 0.125, 0.125};
  int32_t got[4];
  const int32_t majority[] = {2, 1, 0, -1}; /* 2 : 1 is two all, and 2 came first */
  assert_int_equal(mg_vote(MG_VOTE_MAJORITY, 4, weights, predictions_of, NULL, 4, 4, got), MG_OK);
  assert_memory_equal(got, majority, sizeof got);
  const int32_t weighted[] = {2, 0, 3, -1}; /* of a quarter each, 3 came first */
  assert_int_equal(mg_vote(MG_VOTE_WEIGHTED_MAJORITY, 4, weights, predictions_of, NULL, 4, 4, got), MG_OK);
  assert_memory_equal(got, weighted, sizeof got);
  /* two unsure models against a sure one: softmax bounds what one voter has, logits do not */
  const float sure[] = {9, 0, 0}, unsure[] = {0, 2, 0};
  const float *const logits_of[] = {sure, unsure, unsure};
  assert_int_equal(mg_vote(MG_VOTE_SOFT, 3, NULL, NULL, logits_of, 1, 3, got), MG_OK);
  assert_int_equal(got[0], 1);
  assert_int_equal(mg_vote(MG_VOTE_LOGITS, 3, NULL, NULL, logits_of, 1, 3, got), MG_OK);
  assert_int_equal(got[0], 0);
  const float large[] = {1000, 1001, -3000}; /* its exponential is no number */
  const float *const alone[] = {large};
  assert_int_equal(mg_vote(MG_VOTE_SOFT, 1, NULL, NULL, alone, 1, 3, got), MG_OK);
  assert_int_equal(got[0], 1);
}

static void test_what_is_wrong(void **state) {
  (void)state;
  const int32_t fine[] = {0}, high[] = {2}, low[] = {-2};
  const int32_t *const out_of_range[] = {fine, high}, *const below[] = {low};
  const float bad[] = {0, NAN};
  const float *const logits_of[] = {bad};
  int32_t got[1];
  assert_int_equal(mg_vote(MG_VOTE_MAJORITY, 2, NULL, out_of_range, NULL, 1, 2, got), MG_ERR_INTERNAL);
  assert_int_equal(mg_vote(MG_VOTE_MAJORITY, 1, NULL, below, NULL, 1, 2, got), MG_ERR_INTERNAL);
  assert_int_equal(mg_vote(MG_VOTE_MAJORITY, 0, NULL, below, NULL, 1, 2, got), MG_ERR_INTERNAL);
  assert_int_equal(mg_vote(MG_VOTE_SOFT, 1, NULL, NULL, logits_of, 1, 2, got), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "text 0, voter 0: logit 1"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_loops), cmocka_unit_test(test_by_hand),
                                     cmocka_unit_test(test_what_is_wrong)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
