/* Differences and signals against sums as plain as they can be written, and against what is known by hand. */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/microscope.h"

enum { MOST = 2000 };

static float draw(uint32_t k) { return (float)((double)(k * 2654435761u >> 8) / (1 << 23) - 1); }

static void near(const char *what, double got, double want, double tolerance) {
  if (!(fabs(got - want) <= tolerance * fmax(fabs(want), 1))) fail_msg("%s: %.17g, %.17g was expected", what, got, want);
}

static void test_sums(void **state) {
  (void)state;
  static float r[MOST], c[MOST];
  for (uint32_t k = 0; k < MOST; k++) r[k] = draw(k), c[k] = draw(k + 5000);
  for (int64_t n = 0; n <= MOST; n += n < 40 ? 1 : 193) {
    long double delta2 = 0, absolute = 0, dot = 0, reference2 = 0, candidate2 = 0;
    mg_delta_sums sums = {0};
    mg_delta_sums_add(&sums, r, c, n);
    for (int64_t k = 0; k < n; k++) {
      const long double a = (long double)r[k], b = (long double)c[k];
      delta2 += (b - a) * (b - a), absolute += fabsl(b - a), dot += a * b, reference2 += a * a, candidate2 += b * b;
    }
    near("delta2", sums.delta2, (double)delta2, 1e-13);
    near("absolute", sums.absolute, (double)absolute, 1e-13);
    near("dot", sums.dot, (double)dot, 1e-13);
    near("reference2", sums.reference2, (double)reference2, 1e-13);
    near("candidate2", sums.candidate2, (double)candidate2, 1e-13);
  }
  mg_delta_sums whole = {0}, parts = {0};
  mg_delta_sums_add(&whole, r, c, 1000);
  mg_delta_sums_add(&parts, r, c, 496); /* whole rows of lanes: the same but for the order */
  mg_delta_sums_add(&parts, r + 496, c + 496, 504);
  near("in parts", parts.delta2, whole.delta2, 1e-13);
}

static void test_parameter(void **state) {
  (void)state;
  const float r[] = {3, 4}, c[] = {4, 3}, zero[] = {0, 0};
  mg_delta_sums sums = {0};
  mg_delta_sums_add(&sums, r, c, 2);
  mg_parameter_delta d = mg_parameter_delta_of(&sums, 2);
  near("delta", d.delta_l2, sqrt(2), 1e-15);
  near("mean", d.delta_mean_abs, 1, 0);
  near("cosine", d.cosine_with_reference, 24.0 / 25, 1e-15);
  near("norm", d.reference_norm, 5, 0);
  sums = (mg_delta_sums){0};
  mg_delta_sums_add(&sums, zero, c, 2);
  d = mg_parameter_delta_of(&sums, 2);
  near("cosine with nothing", d.cosine_with_reference, 0, 0);
  near("delta to nothing", d.delta_l2, 5, 0);
}

/* Two merges of three sources, as vectors and as inner products. */
static void test_merges(void **state) {
  (void)state;
  enum { N = 3, D = 500 };
  static float tau[N][D], base[D], theta[2][D];
  double dot[N * N] = {0}, base_dot[N] = {0}, norm2 = 0;
  const double coefficient[2][N] = {{1, 0, 0}, {0.2, -0.5, 0.7}}, factor[2] = {1, 0.9};
  for (uint32_t d = 0; d < D; d++) {
    base[d] = draw(d);
    for (uint32_t s = 0; s < N; s++) tau[s][d] = draw(7000 + s * D + d) * 0.1f;
    for (int m = 0; m < 2; m++) {
      double sum = factor[m] * (double)base[d];
      for (int s = 0; s < N; s++) sum += coefficient[m][s] * (double)tau[s][d];
      theta[m][d] = (float)sum;
    }
    norm2 += (double)base[d] * (double)base[d];
    for (int i = 0; i < N; i++) {
      base_dot[i] += (double)base[d] * (double)tau[i][d];
      for (int j = 0; j < N; j++) dot[i * N + j] += (double)tau[i][d] * (double)tau[j][d];
    }
  }
  const mg_inner_products inner = {.sources = N, .source_dot = dot, .base_dot = base_dot, .base_norm2 = norm2};
  const mg_combination r = {.base = factor[0], .coefficient = coefficient[0]},
                       c = {.base = factor[1], .coefficient = coefficient[1]};
  mg_delta_sums sums = {0};
  mg_delta_sums_add(&sums, theta[0], theta[1], D);
  const mg_parameter_delta want = mg_parameter_delta_of(&sums, D), got = mg_parameter_delta_of_merges(&inner, &r, &c);
  near("delta", got.delta_l2, want.delta_l2, 1e-6);
  near("cosine", got.cosine_with_reference, want.cosine_with_reference, 1e-7);
  near("reference", got.reference_norm, want.reference_norm, 1e-6);
  near("candidate", got.candidate_norm, want.candidate_norm, 1e-6);
  assert_true(isnan(got.delta_mean_abs));
  assert_true(mg_parameter_delta_of_merges(&inner, &c, &c).delta_l2 == 0); /* exactly, whatever cancels */
}

static void test_layers(void **state) {
  (void)state;
  static const char *const names[][2] = {{"roberta.encoder.layer.3.attention.self.query.weight", "layer.3.attention.self"},
                                         {"roberta.encoder.layer.11.output.LayerNorm.bias", "layer.11.output.LayerNorm"},
                                         {"encoder.layer.0.intermediate.dense.weight", "layer.0.intermediate.dense"},
                                         {"layer.0.weight", "layer.0.weight"},
                                         {"x.layer", "layer"},
                                         {"roberta.embeddings.word_embeddings.weight", "roberta.embeddings.word_embeddings"},
                                         {"classifier.out_proj.bias", "classifier.out_proj"},
                                         {"model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj"},
                                         {"player.0.x.weight", "player.0.x"},
                                         {"weight", "weight"},
                                         {"a.", "a"},
                                         {"", ""}};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    char *layer = mg_parameter_layer(names[k][0]);
    assert_string_equal(layer, names[k][1]);
    free(layer);
  }
}

/* ---- signals ---- */

enum { HEADS = 2, HIDDEN = 3 };

static void test_attention(void **state) {
  (void)state;
  mg_signals *s;
  const int32_t both[] = {0, 1}, twice[] = {0, 0, 1};
  mg_head_summary heads[HEADS];
  mg_state_summary states[2];
  /* one text of two tokens that attends to itself, or evenly; one of a token, padded to two */
  const float two[HEADS * 2 * 2] = {1, 0, 0, 1, 0.5f, 0.5f, 0.5f, 0.5f}, padded[HEADS * 2 * 1] = {1, 1, 1, 1};
  const float zeros[2 * HIDDEN] = {0};
  assert_int_equal(mg_signals_create(2, 1, HEADS, HIDDEN, &s), MG_OK);
  for (size_t t = 0; t < 2; t++)
    for (int l = 0; l < 2; l++) mg_signals_add_states(s, t, l, 2, zeros);
  mg_signals_add_attention(s, 0, 1, 2, 2, two);
  mg_signals_add_attention(s, 1, 1, 2, 1, padded);
  mg_signals_summarize(s, both, 2, heads, states);
  near("mean", heads[0].mean_prob, 0.5, 1e-15);
  near("entropy", heads[0].entropy, 0, 1e-11);
  near("entropy", heads[1].entropy, log(2) / 2, 1e-11);
  near("first", heads[0].cls_focus, 0.75, 1e-15);
  near("first", heads[1].cls_focus, 0.75, 1e-15);
  near("self", heads[0].diagonal_focus, 0.75, 1e-15); /* the padding that asks is not attended to */
  near("self", heads[1].diagonal_focus, 0.5, 1e-15);
  mg_signals_summarize(s, twice, 3, heads, states);
  near("first, a text twice", heads[0].cls_focus, 4.0 / 6, 1e-15);
  mg_signals_destroy(&s);
}

static void test_states(void **state) {
  (void)state;
  mg_signals *s;
  mg_head_summary heads[HEADS];
  mg_state_summary states[2];
  const float one[HIDDEN] = {0, 3, 4}, two[2 * HIDDEN] = {1, 0, 0, 0, 2, 0}, lost[HIDDEN] = {NAN, 0, 0};
  const int32_t both[] = {1, 0};
  assert_int_equal(mg_signals_create(2, 1, HEADS, HIDDEN, &s), MG_OK);
  for (int l = 0; l < 2; l++) {
    mg_signals_add_states(s, 0, l, 1, l == 0 ? one : lost);
    mg_signals_add_states(s, 1, l, 2, two);
  }
  mg_signals_summarize(s, both, 2, heads, states);
  near("mean", states[0].mean_token_norm, 8.0 / 3, 1e-15);
  near("max", states[0].max_token_norm, 5, 0);
  near("std", states[0].std_token_norm,
       sqrt(((1 - 8.0 / 3) * (1 - 8.0 / 3) + (2 - 8.0 / 3) * (2 - 8.0 / 3) + (5 - 8.0 / 3) * (5 - 8.0 / 3)) / 2), 1e-14);
  near("sequences", states[0].sequence_mean_norm, (5 + 1.5) / 2, 1e-15);
  assert_true(isnan(states[1].mean_token_norm) && isnan(states[1].max_token_norm));
  mg_signals_summarize(s, both + 1, 1, heads, states); /* one token has no deviation */
  assert_true(isnan(states[0].std_token_norm));
  mg_signals_destroy(&s);
}

static void test_logits(void **state) {
  (void)state;
  const float logits[] = {0, 0, (float)log(2), 1000, 0, 0};
  const int32_t both[] = {0, 1};
  const mg_logit_summary s = mg_logits_summarize(logits, 3, both, 2);
  near("mean", s.logit_mean, (1000 + log(2)) / 6, 1e-7);
  near("confidence", s.confidence_mean, 0.75, 1e-7);
  near("its deviation", s.confidence_std, sqrt(2 * 0.25 * 0.25), 1e-7);
  near("entropy", s.entropy_mean, (0.5 * log(2) + 0.5 * log(4)) / 2, 1e-7);
  assert_true(isnan(mg_logits_summarize(logits, 3, both, 1).confidence_std));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums),      cmocka_unit_test(test_parameter),
                                     cmocka_unit_test(test_merges),    cmocka_unit_test(test_layers),
                                     cmocka_unit_test(test_attention), cmocka_unit_test(test_states),
                                     cmocka_unit_test(test_logits)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
