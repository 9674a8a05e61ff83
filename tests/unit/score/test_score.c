/* Scores against numbers worked out by hand, and against precision and recall. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "mergegrid/score.h"

static void test_predict(void **state) {
  (void)state;
  const float logits[] = {1, 3, 3, -5, -4, -9, 0, 0, 0};
  float bad[9];
  int32_t predictions[3];
  size_t row = 99;
  assert_int_equal(mg_predict(logits, 3, 3, predictions, &row), MG_OK);
  assert_int_equal(predictions[0], 1);
  assert_int_equal(predictions[1], 1);
  assert_int_equal(predictions[2], 0);
  memcpy(bad, logits, sizeof bad);
  bad[5] = NAN;
  assert_int_equal(mg_predict(bad, 3, 3, predictions, &row), MG_ERR_INPUT);
  assert_int_equal(row, 1);
  bad[5] = INFINITY;
  assert_int_equal(mg_predict(bad, 3, 3, predictions, NULL), MG_ERR_INPUT);
}

static void test_by_hand(void **state) {
  (void)state;
  /* class 0: TP 1, FP 1, FN 1: 1/2; class 1: TP 1, FP 0, FN 1: 2/3; class 2: TP 0, FP 1, FN 0: 0; class 3 does not occur */
  const int32_t labels[] = {0, 0, 1, 1}, predictions[] = {0, 2, 1, 0};
  mg_scores s;
  assert_int_equal(mg_score(labels, predictions, 4, 4, &s), MG_OK);
  assert_true(fabs(s.accuracy - 0.5) < 1e-15);
  assert_true(fabs(s.macro_f1 - (0.5 + 2.0 / 3) / 3) < 1e-15);
  const int32_t none[] = {-1, -1, -1, -1};
  assert_int_equal(mg_score(labels, none, 4, 4, &s), MG_OK);
  assert_true(s.accuracy == 0 && s.macro_f1 == 0);
  assert_int_equal(mg_score(labels, predictions, 0, 4, &s), MG_OK);
  assert_true(isnan(s.accuracy) && isnan(s.macro_f1));
}

static void test_against_precision_and_recall(void **state) {
  (void)state;
  enum { TEXTS = 500, CLASSES = 7 };
  int32_t labels[TEXTS], predictions[TEXTS];
  uint32_t random = 1;
  for (int t = 0; t < TEXTS; t++) {
    random = random * 1664525u + 1013904223u;
    labels[t] = (int32_t)(random >> 20) % CLASSES;
    predictions[t] = (random >> 8) % 3 ? labels[t] : (int32_t)(random >> 12) % CLASSES;
  }
  mg_scores s;
  assert_int_equal(mg_score(labels, predictions, TEXTS, CLASSES, &s), MG_OK);
  double f1 = 0;
  for (int c = 0; c < CLASSES; c++) {
    double hit = 0, said = 0, is = 0;
    for (int t = 0; t < TEXTS; t++) {
      hit += labels[t] == c && predictions[t] == c;
      said += predictions[t] == c;
      is += labels[t] == c;
    }
    const double precision = hit / said, recall = hit / is;
    f1 += 2 * precision * recall / (precision + recall) / CLASSES;
  }
  assert_true(fabs(s.macro_f1 - f1) < 1e-12);
  assert_true(s.accuracy > 0.5 && s.accuracy < 1);
}

static void test_out_of_range(void **state) {
  (void)state;
  const int32_t fine[] = {1}, high[] = {2}, low[] = {-2}, no_label[] = {-1};
  mg_scores s;
  assert_int_equal(mg_score(high, fine, 1, 2, &s), MG_ERR_INTERNAL);
  assert_int_equal(mg_score(no_label, fine, 1, 2, &s), MG_ERR_INTERNAL);
  assert_int_equal(mg_score(fine, high, 1, 2, &s), MG_ERR_INTERNAL);
  assert_int_equal(mg_score(fine, low, 1, 2, &s), MG_ERR_INTERNAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_predict), cmocka_unit_test(test_by_hand),
                                     cmocka_unit_test(test_against_precision_and_recall), cmocka_unit_test(test_out_of_range)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
