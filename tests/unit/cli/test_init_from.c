/* init --from: users' ablation files come to the cells that they had; what is unknown or not here is named. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/init_impl.h"
#include "mergegrid/grid.h"
#include "mergegrid/io.h"
#include "unit/cli/init_text.h"

#define FAMILY MG_TEST_DATA "/emoji48"

static mg_config *parsed(const char *text) {
  mg_config *config = NULL;
  if (mg_config_parse("run.yaml", text, strlen(text), NULL, &config) != MG_OK) fail_msg("%s\n%s", mg_error_message(), text);
  return config;
}

static mg_grid cells(const mg_config *config) {
  const mg_strings none = {0};
  mg_grid grid;
  if (mg_grid_expand(config, &none, &grid) != MG_OK) fail_msg("%s", mg_error_message());
  return grid;
}

/* The studies, and how many cells they had; of one only what is in this version is left. */
static void studies(void **state) {
  (void)state;
  static const struct {
    const char *name;
    size_t cells;
  } all[] = {{"overnight", 24},           {"paper_exploration", 40},    {"num_sources", 6},        {"method_comparison", 6},
             {"constructive", 8},         {"source_compatibility", 6},  {"directional_alpha", 10}, {"statsmerging", 12},
             {"ensemble_vs_merging", 84}, {"predictor_validation", 12}, {"layer_ablation", 7}};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
    char path[512];
    snprintf(path, sizeof path, MG_TEST_DATA "/ablations/%s.yaml", all[k].name);
    char *text = printed(&(mg_init_options){.from = path});
    mg_config *config = parsed(text);
    mg_grid grid = cells(config);
    if (grid.count != all[k].cells) fail_msg("%s: %zu cells instead of %zu", all[k].name, grid.count, all[k].cells);
    assert_int_equal(grid.duplicate_count, 0);
    assert_has(text, "# ablation: ");
    assert_string_equal(config->family.pattern, "haryos_model/xlm-roberta-base_massive_k_{locale}");
    assert_string_equal(config->family.base, "haryos_model/xlm-roberta-base");
    assert_int_equal(config->stages.count, 3);
    mg_grid_free(&grid);
    mg_config_free(&config);
    free(text);
  }
}

static void what_dare_becomes(void **state) {
  (void)state;
  char *text =
      printed(&(mg_init_options){.from = MG_TEST_DATA "/ablations/paper_exploration.yaml", .similarity = "my/uriel.csv"});
  mg_config *config = parsed(text);
  mg_grid grid = cells(config);
  static const char *const methods[] = {"ties", "dare_ties", "task_arithmetic", "dare_linear"};
  for (size_t k = 0; k < 8; k++) {
    const mg_terms *t = &grid.cells[k].terms;
    assert_string_equal(t->method->name, methods[k / 2]);
    assert_int_equal(t->include_target, k % 2 == 0);
    assert_string_equal(t->lambda_rule, "merginguriel");
    assert_int_equal(t->seed, 42);
    if (k / 2 == 0) assert_true(mg_method_value(t->method, t->values, "trim") == 1);
    if (k / 2 == 1) assert_true(mg_method_value(t->method, t->values, "density") == 0.1);
    if (k / 2 == 3) assert_true(mg_method_value(t->method, t->values, "weighted") == 0);
  }
  assert_string_equal(config->grid.similarity_files.items[0], "my/uriel.csv");
  assert_has(text, "#   db_path: the result has every cell");
  assert_has(text, "#   merged_models_dir: ");
  assert_has(text, "#   ties with dare_drop_rate is dare_ties");
  mg_grid_free(&grid);
  mg_config_free(&config);
  free(text);
  text = printed(&(mg_init_options){.from = MG_TEST_DATA "/ablations/statsmerging.yaml"});
  assert_has(text, "#   method statsmerging is not in this version, and left out");
  assert_has(text, "#   phase epochs: nothing of it is left");
  assert_has(text, "#   statsmerging_mode: statsmerging is not in this version");
  free(text);
}

/* With a family that is there, the grid goes into what init prints of it. */
static void with_a_family(void **state) {
  (void)state;
  const mg_init_options options = {.base = FAMILY "/xlm-roberta-emoji",
                                   .sources = FAMILY "/xlm-roberta-emoji_k_{locale}",
                                   .similarity = FAMILY "/uriel_similarity.csv",
                                   .texts = FAMILY "/texts/{locale}.jsonl",
                                   .from = MG_TEST_DATA "/ablations/source_compatibility.yaml"};
  char *text = printed(&options);
  mg_config *config = parsed(text);
  mg_grid grid = cells(config);
  assert_int_equal(grid.count, 6);
  assert_string_equal(config->family.base, options.base);
  assert_string_equal(config->texts.text, "utt");
  assert_true(mg_strings_find(&config->stages, "grid") >= 0);
  assert_string_equal(config->grid.similarity_files.items[0], options.similarity);
  mg_grid_free(&grid);
  mg_config_free(&config);
  free(text);
}

/* ---- files of the test's own ---- */

static mg_status converted(const char *body, char **text) {
  char path[64];
  mg_text file = {0};
  snprintf(path, sizeof path, "init-from-%d.yaml", (int)getpid());
  mg_text_append(&file, "ablation:\n%s", body);
  assert_int_equal(mg_replace_file(path, file.data, file.size), MG_OK);
  mg_text_free(&file);
  const mg_status status = print(&(mg_init_options){.from = path}, text);
  unlink(path);
  return status;
}

static void comes_to(const char *body, const char *part) {
  char *text;
  if (converted(body, &text) != MG_OK) fail_msg("%s: %s", body, mg_error_message());
  assert_has(text, part);
  free(text);
}

static void refused(const char *body, const char *place, const char *part) {
  char *text, begin[96];
  if (converted(body, &text) != MG_ERR_CONFIG) fail_msg("%s: %s", body, text ? text : mg_error_message());
  snprintf(begin, sizeof begin, "init-from-%d.yaml:%s: ", (int)getpid(), place);
  if (strncmp(mg_error_message(), begin, strlen(begin)) != 0)
    fail_msg("%s\n  gives %s\n  not %s", body, mg_error_message(), begin);
  assert_has(mg_error_message(), part);
  free(text);
}

static void small_ones(void **state) {
  (void)state;
  comes_to("  fixed: {method: similarity, locales: null}\n", "locales: all");
  comes_to("  fixed: {method: similarity}\n", "sweep:\n    locale: all");
  comes_to("  fixed: {method: similarity}\n", "similarity_type: URIEL");
  comes_to("  fixed: {method: [ties], dare_drop_rate: 0.75, dare_rescale: [true, false]}\n",
           "method: {dare_ties: {density: 0.25, rescale: [inverse, none]}}");
  comes_to("  fixed: {method: [baseline, uriel, soft]}\n", "method: [own, similarity, soft]");
  comes_to("  fixed: {method: ties, alpha: 0.5}\n",
           "# What has no counterpart here, or another one:\n#   alpha: is of directional");
  comes_to("  fixed: {method: [fisher, iterative, average]}\n", "#   method iterative is not in this version");
  comes_to("  sweep: {experiment_type: [{type: merging, method: ties}, {type: baseline, method: baseline}]}\n",
           "experiment_type: [{method: {ties: {trim: global}}, type: merging}, {method: own}]");
  comes_to("  fixed: {method: average, experiment_type: merging}\n", "methods say themselves");
  comes_to("  fixed: {source_locales: [en-US, de-DE], target_locale: sw-KE}\n", "sources: [en-US, de-DE]");
  comes_to("  fixed: {method: average, model_family: [a, b], models_root: m}\n", "sources: \"m/a_massive_k_{locale}\"");
  comes_to("  fixed: {method: average, num_languages: 3}\n  phases:\n    first: {sweep: {num_languages: [5, 7]}}\n"
           "    second: {fixed: {locale: sw-KE}}\n",
           "    - name: \"second\"\n      fixed:\n        method: average\n        num_languages: 3\n        locale: sw-KE\n");
  comes_to("  name: \"a\\nb: c\"\n  fixed: {method: average}\n", "# ablation: a\\x0Ab: c\n");
}

static void refusals(void **state) {
  (void)state;
  refused("  fixed: {num_langages: 3}\n", "2:11", "'num_langages' is no key known here; the nearest is 'num_languages'");
  refused("  fixed: {method: average, banana: 3}\n", "2:28", "'banana' is no key known here; known: method, experiment_type");
  refused("  sweeps: {}\n", "2:3", "the nearest is 'sweep'");
  refused("  phases: [{fixe: {}}]\n", "2:13", "the nearest is 'fixed'");
  refused("  fixed: {method: tise}\n", "2:19", "method 'tise' is unknown (ties?)");
  refused("  fixed: {method: ties, num_languages: five}\n", "2:40", "a whole number");
  refused("  fixed: {method: ties, include_target: yes}\n", "2:41", "true or false");
  refused("  fixed: {method: ties, similarity_type: COSINE}\n", "2:42", "URIEL or REAL was expected");
  refused("  fixed: {method: ties, dare_drop_rate: 1}\n", "2:41", "1 drops everything");
  refused("  fixed: {method: ties, dare_drop_rate: [0, nan]}\n", "2:45", "a number from 0 up to 1");
  refused("  fixed: {method: ties, dare_drop_rate: 0.9, dare_rescale: 1}\n", "2:60", "true or false");
  refused("  fixed: {method: directional_consensus, alpha: 2}\n", "2:49", "from 0 up to 1");
  refused("  fixed: {method: ties, method: average}\n", "2:25", "'method' is there twice");
  refused("  fixed: {method: ties}\n  fixed: {method: ties}\n", "3:3", "'fixed' is there twice");
  refused("  fixed: [method]\n", "2:10", "a map was expected, not a list");
  refused("  sweep: {experiment_type: [{type: merge, method: ties}]}\n", "2:36", "ensemble, merging or baseline");
  refused("  sweep: {experiment_type: [{kind: merging}]}\n", "2:30", "'kind'");
  refused("  fixed: {method: ties}\n  sweep: {experiment_type: [{method: ties}]}\n", "3:11", "says the method");
  refused("  fixed: {method: ties, source_locales: 3}\n", "2:41", "a map {id: weight}");
  refused("  fixed: {method: ties, cv_source_locales: [a]}\n", "2:44", "two sources or more");
  refused("  phases: 3\n", "2:11", "a list was expected");
  refused("  fixed: {method: &a ties}\n", "2:19", "anchors");
  refused("  fixed: {method: []}\n", "2:19", "the list is empty");
  static const char *const nothing[][2] = {
      {"  fixed: {method: [fisher, regmean]}\n", "no method of it is in this version"},
      {"  fixed: {num_languages: 3}\n", "neither method nor experiment_type"},
      {"  sweep: {num_languages: [3], experiment_type: [{method: soft, num_languages: 3}]}\n", "comes to what is no grid"}};
  char *text;
  for (size_t k = 0; k < sizeof nothing / sizeof *nothing; k++) {
    assert_int_equal(converted(nothing[k][0], &text), MG_ERR_CONFIG);
    assert_has(mg_error_message(), nothing[k][1]);
    free(text);
  }
  assert_int_equal(print(&(mg_init_options){.from = "nothing.yaml"}, &text), MG_ERR_IO);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(studies), cmocka_unit_test(what_dare_becomes),
                                     cmocka_unit_test(with_a_family), cmocka_unit_test(small_ones), cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
