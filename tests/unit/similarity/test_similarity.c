/* Matrices from CSV and choosing from them: by hand, by a plain second way, and against what a notebook of merginguriel
 * printed. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/similarity.h"

static const char *write_csv(const char *text) {
  static char path[64];
  snprintf(path, sizeof path, "/tmp/mergegrid-similarity-%d.csv", (int)getpid());
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
  return path;
}

static mg_similarity read_good(const char *text, mg_duplicates duplicates, mg_strings *notes) {
  mg_similarity s;
  const mg_status status = mg_similarity_read(write_csv(text), duplicates, &s, notes);
  if (status != MG_OK) fail_msg("%s", mg_error_message());
  return s;
}

static void refused(const char *text, const char *message) {
  mg_similarity s;
  assert_int_equal(mg_similarity_read(write_csv(text), MG_DUPLICATES_FIRST, &s, NULL), MG_ERR_INPUT);
  if (strstr(mg_error_message(), message) == NULL) fail_msg("'%s' lacks '%s'", mg_error_message(), message);
}

static bool has_note(const mg_strings *notes, const char *text) {
  for (size_t k = 0; k < notes->count; k++)
    if (strstr(notes->items[k], text) != NULL) return true;
  return false;
}

static void labels_meet(void **state) {
  (void)state;
  mg_strings notes = {0};
  /* rows and columns in another order, one of each alone, one repeated */
  mg_similarity s = read_good(",b,a,x,b\na,1,2,3,4\nb,5,6,7,8\ny,9,9,9,9\nb,10,11,12,13\n", MG_DUPLICATES_FIRST, &notes);
  assert_int_equal(s.labels.count, 2);
  assert_string_equal(s.labels.items[0], "a");
  const double expected[] = {2, 1, 6, 5};
  assert_memory_equal(s.values, expected, sizeof expected);
  assert_true(has_note(&notes, "repeated; the first counts: b"));
  assert_true(has_note(&notes, "left out: y, x"));
  assert_true(has_note(&notes, "not symmetric: a b"));
  mg_similarity_free(&s);
  mg_strings_free(&notes);
  s = read_good(",b,a,x,b\na,1,2,3,4\nb,5,6,7,8\ny,9,9,9,9\nb,10,11,12,13\n", MG_DUPLICATES_KEEP, NULL);
  assert_int_equal(s.labels.count, 3);
  const double all[] = {2, 1, 4, 6, 5, 8, 11, 10, 13};
  assert_memory_equal(s.values, all, sizeof all);
  mg_similarity_free(&s);
  s = read_good(",a,b\r\na,,0.5\r\n\"b\",nan,1e-3\r\n", MG_DUPLICATES_FIRST, &notes);
  assert_true(isnan(s.values[0]) && isnan(s.values[2]) && s.values[3] == 1e-3);
  assert_true(has_note(&notes, "NaN count as 0: a a, b a"));
  mg_similarity_free(&s);
  mg_strings_free(&notes);
}

static void bad_tables(void **state) {
  (void)state;
  refused("", ":1: labels behind the first comma");
  refused(",a\n", "no row of values");
  refused(",a,b\na,1\n", ":2: has 1 values; 2 were expected");
  refused(",a\na,one\n", ":2: 'one' is no number");
  refused(",a\na,inf\n", ":2: 'inf' is no number");
  refused(",a\na,1x\n", ":2: '1x' is no number");
  refused(",a\nb,1\n", "no label stands in the first row and in the first column");
  refused(",\"a\na,1\n", ":1: a quote is opened and not closed");
  refused(",\xFF\na,1\n", "UTF-8");
  mg_similarity s;
  assert_int_equal(mg_similarity_read("/nonexistent.csv", MG_DUPLICATES_FIRST, &s, NULL), MG_ERR_IO);
}

static ptrdiff_t every(void *context, const char *label) {
  (void)context;
  return label[0];
}

static ptrdiff_t all_but(void *missing, const char *label) { return strcmp(label, missing) == 0 ? -1 : label[0]; }

/* Sources whose labels are letters, in the order of a text. */
static ptrdiff_t place_in(void *sources, const char *label) {
  const char *at = strchr(sources, label[0]);
  return at != NULL ? at - (const char *)sources : -1;
}

static void expect_taken(const mg_similarity *s, const mg_selection *got, const char *const *labels, const double *shares) {
  size_t n = 0;
  for (; labels[n] != NULL; n++) {
    assert_true(n < got->taken);
    assert_string_equal(s->labels.items[got->candidates[n].label], labels[n]);
    if (shares != NULL && fabs(got->candidates[n].share - shares[n]) > 1e-12)
      fail_msg("%s: %.15g", labels[n], got->candidates[n].share);
  }
  assert_int_equal(got->taken, n);
}

/* To the target (column) d: a 0.1, b 0.4, c 0.4, e −1; of d (row): a 0.9, b 0.2, c 0.3, e 0.5. */
static const char SMALL[] = ",a,b,c,d,e\na,1,0,0,0.1,0\nb,0,1,0,0.4,0\nc,0,0,1,0.4,0\nd,0.9,0.2,0.3,0.8,0.5\ne,0,0,0,-1,1\n";

static void the_most_similar(void **state) {
  (void)state;
  mg_selection got;
  mg_similarity s = read_good(SMALL, MG_DUPLICATES_FIRST, NULL);
  mg_selection_terms terms = {.num_languages = 2};
  assert_int_equal(mg_select_sources(&s, &terms, "d", every, NULL, &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"b", "c", NULL}, (const double[]){0.5, 0.5});
  assert_string_equal(got.candidates[2].reason, "is the target");
  assert_string_equal(got.candidates[3].reason, "enough others");
  assert_string_equal(got.candidates[4].reason, "similarity is not positive");
  free(got.candidates);
  assert_int_equal(mg_select_sources(&s, &terms, "d", all_but, "b", &got), MG_OK); /* the next one fills the slot */
  expect_taken(&s, &got, (const char *const[]){"c", "a", NULL}, (const double[]){0.8, 0.2});
  free(got.candidates);
  terms.by_row = true;
  assert_int_equal(mg_select_sources(&s, &terms, "d", every, NULL, &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"a", "e", NULL}, (const double[]){0.9 / 1.4, 0.5 / 1.4});
  free(got.candidates);
  terms.include_target = true; /* ranked by its weight */
  assert_int_equal(mg_select_sources(&s, &terms, "d", every, NULL, &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"a", "d", NULL}, (const double[]){0.9 / 1.7, 0.8 / 1.7});
  free(got.candidates);
  terms.matrix_order = true; /* first, and the others as they stand */
  terms.num_languages = 3;
  assert_int_equal(mg_select_sources(&s, &terms, "d", every, NULL, &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"a", "d", "b", NULL}, NULL);
  free(got.candidates);
  terms = (mg_selection_terms){.num_languages = 4};
  assert_int_equal(mg_select_sources(&s, &terms, "d", every, NULL, &got), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "target d has 3 candidates, and num_languages is 4"));
  assert_int_equal(mg_select_sources(&s, &terms, "zz-ZZ", every, NULL, &got), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "target zz-ZZ is not in the similarity matrix"));
  mg_similarity_free(&s);
}

/* Equal weights: in the order of the sources, whatever the matrix' is; after Sinkhorn in the matrix', as merginguriel has them.
 */
static void equals_by_source(void **state) {
  (void)state;
  mg_selection got;
  mg_similarity s = read_good(SMALL, MG_DUPLICATES_FIRST, NULL);
  mg_selection_terms terms = {.num_languages = 1};
  assert_int_equal(mg_select_sources(&s, &terms, "d", place_in, "dcab", &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"c", NULL}, NULL);
  assert_string_equal(s.labels.items[got.candidates[2].label], "b");
  free(got.candidates);
  terms = (mg_selection_terms){.num_languages = 1, .sinkhorn = true, .top_k = 5, .sinkhorn_iters = 0};
  assert_int_equal(mg_select_sources(&s, &terms, "d", place_in, "dcab", &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"b", NULL}, NULL);
  free(got.candidates);
  mg_similarity_free(&s);
}

/* What the notebook of merginguriel's run printed for af-ZA, before the strongest was dropped. */
static void as_the_notebook_has_it(void **state) {
  (void)state;
  mg_similarity s;
  mg_selection got;
  mg_strings notes = {0};
  const mg_selection_terms terms = {.by_row = true, .sinkhorn = true, .top_k = 20, .sinkhorn_iters = 20, .num_languages = 5};
  assert_int_equal(mg_similarity_read(MG_TEST_DATA "/emoji48/uriel_similarity_50.csv", MG_DUPLICATES_KEEP, &s, &notes), MG_OK);
  assert_int_equal(s.labels.count, 50);
  assert_true(has_note(&notes, "repeated; all count: zh-TW"));
  mg_strings_free(&notes);
  assert_int_equal(mg_select_sources(&s, &terms, "af-ZA", every, NULL, &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"id-ID", "hy-AM", "hu-HU", "ka-GE", "nl-NL", NULL}, NULL);
  const double printed[] = {0, 0.283, 0.177, 0.114, 0.091};
  for (size_t k = 1; k < 5; k++) assert_true(fabs(got.candidates[k].share - printed[k]) < 1e-3);
  free(got.candidates);
  mg_similarity_free(&s);
}

static const char *reason_of(const mg_similarity *s, const mg_selection *got, const char *label) {
  for (size_t k = 0; k < got->count; k++)
    if (strcmp(s->labels.items[got->candidates[k].label], label) == 0) return got->candidates[k].reason;
  return "no such label";
}

/* Why a label has no weight: what is not there is not what is not positive, nor what top_k took away. */
static void reasons(void **state) {
  (void)state;
  mg_selection got;
  mg_similarity s =
      read_good(",a,b,c,d,e\na,1,0.9,0.2,-1,\nb,0,1,0,0,0\nc,0,0,1,0,0\nd,0,0,0,1,0\ne,,,,,1\n", MG_DUPLICATES_FIRST, NULL);
  mg_selection_terms terms = {.by_row = true, .sinkhorn = true, .top_k = 1, .sinkhorn_iters = 20, .num_languages = 1};
  assert_int_equal(mg_select_sources(&s, &terms, "a", every, NULL, &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"b", NULL}, NULL);
  assert_string_equal(reason_of(&s, &got, "c"), "not among its top_k");
  assert_string_equal(reason_of(&s, &got, "d"), "similarity is not positive");
  assert_string_equal(reason_of(&s, &got, "e"), "no value");
  free(got.candidates);
  terms.top_k = 2;
  static char *labels[] = {"e"};
  const mg_strings none = {0}, targets = {1, labels};
  assert_int_equal(mg_similarity_set_evaluated(&s, &none), MG_OK);
  terms.include_target = true;
  assert_int_equal(mg_select_sources(&s, &terms, "a", every, NULL, &got), MG_OK);
  assert_string_equal(reason_of(&s, &got, "a"), "a diagonal of 1 is left out");
  assert_string_equal(reason_of(&s, &got, "e"), "not evaluated (nxn.targets)");
  assert_false(got.candidates[got.count - 1].unknown);
  free(got.candidates);
  s.values[4 * 5 + 4] = NAN;
  assert_int_equal(mg_select_sources(&s, &terms, "e", all_but, "e", &got), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "target e has no source of its own"));
  assert_int_equal(mg_select_sources(&s, &terms, "e", every, NULL, &got), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "(not evaluated (nxn.targets): 5)"));
  free(s.evaluated);
  assert_int_equal(mg_similarity_set_evaluated(&s, &targets), MG_OK);
  assert_int_equal(mg_select_sources(&s, &terms, "e", every, NULL, &got), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "(not evaluated (nxn.targets): 4, the evaluation failed (nxn): 1)"));
  terms.by_row = terms.sinkhorn = terms.include_target = false; /* by column it is the others that failed on e */
  for (size_t k = 0; k < 4; k++) s.values[k * 5 + 4] = k == 1 ? 0.5 : NAN;
  assert_int_equal(mg_select_sources(&s, &terms, "e", all_but, "d", &got), MG_OK);
  expect_taken(&s, &got, (const char *const[]){"b", NULL}, NULL);
  assert_string_equal(reason_of(&s, &got, "a"), "the evaluation failed (nxn)");
  assert_string_equal(reason_of(&s, &got, "d"), "no checkpoint");
  for (size_t k = 0; k < got.count; k++) {
    const char *label = s.labels.items[got.candidates[k].label];
    assert_int_equal(got.candidates[k].unknown, *label == 'a' || *label == 'c');
  }
  free(got.candidates);
  mg_similarity_free(&s);
}

static void sinkhorn_scales_both_ways(void **state) {
  (void)state;
  mg_selection got;
  mg_similarity s = read_good(",a,b,c\na,3,1,2\nb,1,5,4\nc,2,4,7\n", MG_DUPLICATES_FIRST, NULL);
  const mg_selection_terms terms = {
      .sinkhorn = true, .top_k = 3, .sinkhorn_iters = 500, .num_languages = 3, .include_target = true};
  double total = 0;
  assert_int_equal(mg_select_sources(&s, &terms, "b", every, NULL, &got), MG_OK);
  for (size_t k = 0; k < 3; k++) total += got.candidates[k].weight;
  assert_true(fabs(total - 1) < 1e-6); /* lines of a doubly stochastic matrix */
  free(got.candidates);
  mg_similarity_free(&s);
}

static void compatibility_weighs(void **state) {
  (void)state;
  const double c[] = {1, 0.5, -3, 0.5, 1, 0.25, -3, 0.25, 1};
  double weights[] = {0.5, 0.25, 0.25}, alone[] = {1};
  bool kept;
  mg_weigh_by_compatibility(c, 3, weights, &kept); /* means 0.25, 0.375, 0.125 */
  assert_false(kept);
  const double total = 0.5 * 0.25 + 0.25 * 0.375 + 0.25 * 0.125;
  const double expected[] = {0.5 * 0.25 / total, 0.25 * 0.375 / total, 0.25 * 0.125 / total};
  for (size_t k = 0; k < 3; k++) assert_true(fabs(weights[k] - expected[k]) < 1e-15);
  const double none[] = {1, -1, -1, 1};
  double two[] = {0.75, 0.25};
  mg_weigh_by_compatibility(none, 2, two, &kept);
  assert_true(kept && two[0] == 0.75 && two[1] == 0.25);
  mg_weigh_by_compatibility(c, 1, alone, &kept);
  assert_true(!kept && alone[0] == 1);
}

static int clean(void **state) {
  (void)state;
  unlink(write_csv(""));
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(labels_meet),
                                     cmocka_unit_test(bad_tables),
                                     cmocka_unit_test(the_most_similar),
                                     cmocka_unit_test(equals_by_source),
                                     cmocka_unit_test(as_the_notebook_has_it),
                                     cmocka_unit_test(reasons),
                                     cmocka_unit_test(sinkhorn_scales_both_ways),
                                     cmocka_unit_test(compatibility_weighs)};
  return cmocka_run_group_tests(tests, NULL, clean);
}
