/* The section grid: axes, phases, what they come to, and everything they must not be. */

#include "parsing.h"

#define GRID MINIMAL "grid:\n"

static const mg_axis *axis(const mg_phase *phase, const char *name) {
  for (size_t k = 0; k < phase->axis_count; k++)
    if (strcmp(phase->axes[k].name, name) == 0) return &phase->axes[k];
  fail_msg("phase '%s' has no axis %s", phase->name, name);
  return NULL;
}

static void expect_axes(const mg_phase *phase, const char *const *names) {
  size_t n = 0;
  for (; names[n] != NULL; n++) {
    assert_true(n < phase->axis_count);
    assert_string_equal(phase->axes[n].name, names[n]);
  }
  assert_int_equal(phase->axis_count, n);
}
#define EXPECT_AXES(phase, ...) expect_axes(phase, (const char *const[]){__VA_ARGS__, NULL})

static double value(const mg_terms *t, const char *parameter) { return mg_method_value(t->method, t->values, parameter); }

static void plain_axes(void **state) {
  (void)state;
  mg_config *c = good(GRID "  similarity: {URIEL: u.csv, REAL: nxn}\n"
                           "  fixed: {locales: [sw-KE, cy-GB], include_target: false, seed: 7}\n"
                           "  sweep:\n"
                           "    similarity_type: [URIEL, REAL]\n"
                           "    num_languages: [3, 5, 10]\n"
                           "    method: [average, ties, best_source]\n"
                           "    head: method\n",
                      NULL, NULL);
  assert_int_equal(c->grid.phase_count, 1);
  const mg_phase *p = &c->grid.phases[0];
  assert_string_equal(p->name, "");
  EXPECT_AXES(p, "preset", "locale", "include_target", "seed", "similarity_type", "num_languages", "method", "head");
  assert_string_equal(axis(p, "preset")->values[0].preset, "none");
  assert_int_equal(axis(p, "locale")->count, 2);
  assert_string_equal(axis(p, "locale")->values[1].locale, "cy-GB");
  assert_int_equal(axis(p, "locale")->values[1].given, MG_GIVEN(MG_TERM_LOCALE));
  assert_int_equal(axis(p, "seed")->values[0].seed, 7);
  assert_int_equal(axis(p, "num_languages")->values[2].num_languages, 10);
  assert_string_equal(axis(p, "method")->values[1].method->name, "ties");
  assert_int_equal(axis(p, "method")->values[1].said_parameters, 0);
  assert_true(value(&axis(p, "method")->values[1], "density") == 0.2);
  assert_int_equal(axis(p, "head")->count, 1);
  assert_string_equal(axis(p, "method")->place, "run.yaml:8:5");
  assert_int_equal(c->grid.defaults.num_languages, 5);
  assert_string_equal(c->grid.defaults.axis, "column");
  assert_int_equal(c->grid.defaults.given, 0);
  mg_config_free(&c);
  c = good(GRID "  sweep: {locale: all, method: similarity}\n  preset: [none, merginguriel]\n", NULL, NULL);
  EXPECT_AXES(&c->grid.phases[0], "preset", "locale", "method");
  assert_true(axis(&c->grid.phases[0], "locale")->all_targets);
  assert_int_equal(axis(&c->grid.phases[0], "locale")->count, 0);
  assert_int_equal(axis(&c->grid.phases[0], "preset")->count, 2);
  mg_config_free(&c);
}

/* Lists within a method's parameters are values in place; of several lists the last is the fastest. */
static void lists_of_parameters(void **state) {
  (void)state;
  mg_config *c = good(GRID "  sweep: {method: [average, {ties: {density: [0.1, 0.2], trim: global}},"
                           " {dare_ties: {density: [0.5, 1], rescale: [inverse, l1, none]}}]}\n",
                      NULL, NULL);
  const mg_axis *a = axis(&c->grid.phases[0], "method");
  assert_int_equal(a->count, 1 + 2 + 6);
  for (size_t k = 0; k < 2; k++) {
    assert_true(value(&a->values[1 + k], "density") == (k == 0 ? 0.1 : 0.2));
    assert_true(value(&a->values[1 + k], "trim") == 1);
    assert_int_equal(a->values[1 + k].said_parameters, 3);
  }
  for (size_t k = 0; k < 6; k++) {
    assert_true(value(&a->values[3 + k], "density") == (k < 3 ? 0.5 : 1));
    assert_true(value(&a->values[3 + k], "rescale") == (double)(k % 3));
  }
  mg_config_free(&c);
}

static void sources(void **state) {
  (void)state;
  mg_config *c = good(GRID "  fixed: {sources: [fr-FR, sw-KE], method: average}\n", NULL, NULL);
  const mg_axis *a = axis(&c->grid.phases[0], "sources");
  assert_int_equal(a->count, 1);
  assert_int_equal(a->values[0].sources.count, 2);
  assert_true(a->values[0].weights[1] == 1);
  mg_config_free(&c);
  c = good(GRID "  fixed: {sources: {fr-FR: 0.25, sw-KE: 0.75}}\n", NULL, NULL);
  assert_true(axis(&c->grid.phases[0], "sources")->values[0].weights[1] == 0.75);
  mg_config_free(&c);
  c = good(GRID "  sweep: {sources: [[fr-FR, sw-KE], {a: 2, b: 1, c: 1}]}\n", NULL, NULL);
  a = axis(&c->grid.phases[0], "sources");
  assert_int_equal(a->count, 2);
  assert_int_equal(a->values[1].sources.count, 3);
  assert_string_equal(a->values[1].sources.items[2], "c");
  mg_config_free(&c);
  c = good(GRID "  fixed: {sources: [[fr-FR], [sw-KE]]}\n", NULL, NULL);
  assert_int_equal(axis(&c->grid.phases[0], "sources")->count, 2);
  mg_config_free(&c);
}

/* Maps of terms under a name of their own. */
static void values_that_are_maps(void **state) {
  (void)state;
  mg_config *c = good(GRID "  fixed: {num_languages: 5}\n"
                           "  sweep:\n"
                           "    experiment_type:\n"
                           "      - {type: ensemble, method: majority}\n"
                           "      - {type: merging, method: {ties: {density: [0.1, 0.3]}}, num_languages: 3}\n"
                           "    locale: [sw-KE]\n",
                      NULL, NULL);
  const mg_axis *a = axis(&c->grid.phases[0], "experiment_type");
  assert_int_equal(a->count, 3);
  assert_int_equal(a->values[0].given, MG_GIVEN(MG_TERM_METHOD));
  assert_int_equal(a->values[2].given, MG_GIVEN(MG_TERM_METHOD) | MG_GIVEN(MG_TERM_NUM_LANGUAGES));
  assert_int_equal(a->values[2].num_languages, 3);
  assert_true(value(&a->values[2], "density") == 0.3);
  EXPECT_AXES(&c->grid.phases[0], "preset", "num_languages", "experiment_type", "locale");
  mg_config_free(&c);
  c = good(GRID "  fixed: {study: {locale: sw-KE, method: average}}\n", NULL, NULL);
  assert_int_equal(axis(&c->grid.phases[0], "study")->count, 1);
  mg_config_free(&c);
}

static void phases_inherit(void **state) {
  (void)state;
  mg_config *c = good(GRID "  fixed: {locales: [sw-KE, cy-GB], num_languages: 5, method: similarity}\n"
                           "  phases:\n"
                           "    - name: how many\n"
                           "      sweep: {num_languages: [3, 5]}\n"
                           "    - fixed: {locale: vi-VN, include_target: true}\n"
                           "      sweep: {method: [ties, soft]}\n"
                           "    - fixed: {preset: merginguriel}\n"
                           "    - sweep: {setup: [{method: ties}, {method: average, num_languages: 3}]}\n",
                      NULL, NULL);
  assert_int_equal(c->grid.phase_count, 4);
  assert_string_equal(c->grid.phases[0].name, "how many");
  assert_string_equal(c->grid.phases[1].name, "2");
  EXPECT_AXES(&c->grid.phases[0], "preset", "locale", "method", "num_languages");
  EXPECT_AXES(&c->grid.phases[1], "preset", "num_languages", "locale", "include_target", "method");
  assert_int_equal(axis(&c->grid.phases[1], "locale")->count, 1);
  EXPECT_AXES(&c->grid.phases[2], "locale", "num_languages", "method", "preset");
  EXPECT_AXES(&c->grid.phases[3], "preset", "locale", "num_languages", "setup"); /* which says the method always */
  mg_config_free(&c);
  c = good(GRID "  fixed: {method: average}\n  sweep: {locale: all}\n  phases: [{sweep: {locale: [sw-KE]}}]\n", NULL, NULL);
  assert_int_equal(c->grid.phase_count, 2); /* the grid's own, and one more */
  mg_config_free(&c);
}

static void settings(void **state) {
  (void)state;
  const char *text = GRID "  fixed: {num_languages: 5, method: similarity}\n  sweep: {locale: all, method: [ties, average]}\n";
  mg_config *c;
  assert_int_equal(parse_with("run.yaml", text, NULL, NULL, &c), MG_ERR_CONFIG);
  expect_message(text, "run.yaml:4:24: ", (const char *const[]){"'method' says method", "run.yaml:3:29", NULL});
  c = good(text, "grid.fixed={num_languages: 3}", "grid.sweep.locale=[sw-KE]");
  EXPECT_AXES(&c->grid.phases[0], "preset", "num_languages", "locale", "method");
  assert_int_equal(axis(&c->grid.phases[0], "num_languages")->values[0].num_languages, 3);
  assert_int_equal(axis(&c->grid.phases[0], "locale")->count, 1);
  mg_config_free(&c);
  c = good(text, "grid.sweep={locale: [af-ZA, sw-KE]}", "grid.fixed.num_languages=[3, 4]");
  EXPECT_AXES(&c->grid.phases[0], "preset", "num_languages", "method", "locale");
  assert_int_equal(axis(&c->grid.phases[0], "num_languages")->count, 2);
  assert_string_equal(axis(&c->grid.phases[0], "num_languages")->place, "--set grid.fixed.num_languages=[3, 4]");
  mg_config_free(&c);
  c = good(text, "grid.sweep={}", "grid.fixed.top_k=9");
  EXPECT_AXES(&c->grid.phases[0], "preset", "num_languages", "method", "top_k");
  mg_config_free(&c);
  c = good(GRID "  similarity: {A: a.csv}\n  fixed: {method: own}\n", "grid={}", NULL);
  assert_int_equal(c->grid.phase_count, 0);
  assert_int_equal(c->grid.similarity_names.count, 0);
  mg_config_free(&c);
  SETTING_REFUSED("grid.sweep.methods=[ties]", "grid.sweep: 'methods'", "nearest is 'method'");
  SETTING_REFUSED("grid.sweep.method=[tise]", "grid.sweep.method", "ties?");
  SETTING_REFUSED("grid.fixed.num_languages=0", "grid.fixed.num_languages", "whole number from 1");
  SETTING_REFUSED("grid.sweep=[a]", "grid.sweep", "not a list");
  SETTING_REFUSED("grid.phases={a: b}", "grid.phases", "not a map");
}

static void stages(void **state) {
  (void)state;
#define READY "texts: {files: 't/{locale}.jsonl'}\nstages: [grid]\n"
  mg_config *c = good(GRID "  sweep: {locale: all, method: [average]}\n" READY, NULL, NULL);
  assert_int_equal(c->stages.count, 3);
  assert_string_equal(c->stages.items[0], "compatibility");
  assert_string_equal(c->stages.items[1], "nxn");
  assert_string_equal(c->stages.items[2], "grid");
  mg_config_free(&c);
  c = good(GRID "  partition: validation\n  sweep: {locale: all, method: [average]}\n" READY, "stages=[nxn, grid]", NULL);
  assert_string_equal(c->stages.items[0], "compatibility"); /* validation is what dev is called elsewhere */
  assert_int_equal(c->stages.count, 3);
  mg_config_free(&c);
  static const struct {
    const char *text, *message;
  } cases[] = {{MINIMAL READY, "declares a cell"},
               {MINIMAL READY "grid: {preset: [none, merginguriel]}\n", "declares a cell"},
               {GRID "  sweep: {locale: all}\nstages: [grid]\n", "needs texts.files"},
               {GRID "  partition: train\n  sweep: {locale: all}\n" READY, "grid.partition is 'train'; nxn.partition ('test')"},
               {MINIMAL "grid: {partition: train}\n", "grid.partition is 'train'"},
               {GRID "  sweep: {locale: all}\nnxn: {partition: dev}\n" READY, "grid.partition is 'test'"}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    assert_int_equal(parse_with("run.yaml", cases[k].text, NULL, NULL, &c), MG_ERR_CONFIG);
    expect_message(cases[k].text, "run.yaml: ", (const char *const[]){cases[k].message, NULL});
  }
  c = good(MINIMAL "nxn: {partition: dev}\n", NULL, NULL); /* no grid, no quarrel */
  mg_config_free(&c);
  const char *cka = GRID "  sweep: {locale: all, method: [ties, similarity_x_cka_compatibility]}\n" READY;
  assert_int_equal(parse_with("run.yaml", cka, NULL, NULL, &c), MG_ERR_CONFIG);
  expect_message(cka, "run.yaml:3:24: ", (const char *const[]){"similarity_x_cka_compatibility needs", NULL});
  c = good(cka, "grid.compatibility.cka=cka.csv", NULL);
  assert_string_equal(c->grid.compatibility.cka, "cka.csv");
  assert_string_equal(c->grid.compatibility.tv, "stage");
  mg_config_free(&c);
  c = good(cka, "compatibility.metrics=[task_vector_cosine, cka]", NULL);
  mg_config_free(&c);
}

static void refusals(void **state) {
  (void)state;
  REFUSED(GRID "  fixed: {num_langages: 5}\n", "3:11", "grid.fixed", "'num_langages'", "'num_languages'");
  REFUSED(GRID "  sweep: {zzzzzzzzzzz: [1]}\n", "3:11", "grid.sweep", "known: locale, method, similarity_type");
  REFUSED(GRID "  sweep: {locale: [a], locales: [b]}\n", "3:24", "'locale' is there twice");
  REFUSED(GRID "  sweep:\n    seed: [1]\n    seed: [2]\n", "5:5", "'seed'", "twice", "line 4");
  REFUSED(GRID "  sweep: {locale: []}\n", "3:19", "grid.sweep.locale", "is empty");
  REFUSED(GRID "  sweep: {locale: [all, sw-KE]}\n", "3:20", "stands alone");
  REFUSED(GRID "  sweep: {locale: [[sw-KE]]}\n", "3:20", "a locale was expected, not a list");
  REFUSED(GRID "  sweep: {num_languages: [3, '5']}\n", "3:30", "grid.sweep.num_languages", "quoted");
  REFUSED(GRID "  sweep: {num_languages: [3, 5.5]}\n", "3:30", "a whole number from 1");
  REFUSED(GRID "  sweep: {include_target: [true, no]}\n", "3:34", "true or false");
  REFUSED(GRID "  sweep: {seed: [1, -1]}\n", "3:21", "grid.sweep.seed", "whole number");
  REFUSED(GRID "  sweep: {axis: [row, rows]}\n", "3:23", "grid.sweep.axis", "column or row", "row?");
  REFUSED(GRID "  sweep: {preset: [merginguriell]}\n", "3:20", "merginguriel?");
  REFUSED(GRID "  preset: [none, x]\n", "3:18", "grid.preset", "none or merginguriel");
  REFUSED(GRID "  preset: {a: b}\n", "3:11", "grid.preset", "not a map");
  REFUSED(GRID "  preset: []\n", "3:11", "grid.preset", "is empty");
  REFUSED(GRID "  fixed: [locale]\n", "3:10", "grid.fixed", "not a list");
  REFUSED(GRID "  sweep: x\n", "3:10", "grid.sweep", "not a value");
  REFUSED(GRID "  sweeps: {}\n", "3:3", "'grid.sweeps'", "'grid.sweep'");
  REFUSED(GRID "  compatibility: stage\n", "3:18", "grid.compatibility", "a map of keys");
  REFUSED(GRID "  compatibility: {tvc: stage}\n", "3:19", "'grid.compatibility.tvc'", "'grid.compatibility.tv'");
  REFUSED(GRID "  sweep: {sources: [a, b]}\n", "3:21", "grid.sweep.sources", "a map {id: weight}", "not a value");
  REFUSED(GRID "  sweep: {sources: [{a: 0}]}\n", "3:25", "above 0");
  REFUSED(GRID "  fixed: {sources: [a, [b]]}\n", "3:24", "a source's id was expected, not a list");
  REFUSED(GRID "  sweep: {similarity_type: [URIEL]}\n  similarity: {URIELS: u.csv}\n", "3:11", "'URIEL'", "URIELS?",
          "known: URIELS");
}

static void refused_methods(void **state) {
  (void)state;
  REFUSED(GRID "  sweep: {method: [average, tise]}\n", "3:29", "grid.sweep.method", "'tise'", "ties?");
  REFUSED(GRID "  sweep: {method: [statsmerging]}\n", "3:20", "'statsmerging' is not in this version");
  REFUSED(GRID "  sweep: {method: [{ties: {density: 0}}]}\n", "3:37", "ties.density", "'0'", "above 0");
  REFUSED(GRID "  sweep: {method: [{ties: {density: [0.2, 1.5]}}]}\n", "3:43", "ties.density", "'1.5'", "up to 1");
  REFUSED(GRID "  sweep: {method: [{dare_ties: {density: 0}}]}\n", "3:42", "dare_ties.density", "above 0");
  REFUSED(GRID "  sweep: {method: [{linear: {lambda: .nan}}]}\n", "3:38", "linear.lambda", "'.nan'");
  REFUSED(GRID "  sweep: {method: [{linear: {lambda: nan}}]}\n", "3:38", "linear.lambda", "'nan'");
  REFUSED(GRID "  sweep: {method: [{ties: {density: []}}]}\n", "3:37", "is empty");
  REFUSED(GRID "  sweep: {method: [{ties: {density: [[1]]}}]}\n", "3:38", "a parameter's value was expected, not a list");
  REFUSED(GRID "  sweep: {method: [{ties: {density: 0.1, density: 0.2}}]}\n", "3:42", "'density'", "twice");
  REFUSED(GRID "  sweep: {method: [{ties: {}, average: {}}]}\n", "3:20", "one method was expected");
  REFUSED(GRID "  sweep: {method: [{own: {k: 1}}]}\n", "3:30", "method own has no parameter 'k'");
}

static void refused_maps(void **state) {
  (void)state;
  REFUSED(GRID "  sweep: {s: [{methods: ties}]}\n", "3:16", "grid.sweep.s", "'methods'", "'method'");
  REFUSED(GRID "  sweep: {s: [{method: ties}, ties]}\n", "3:11", "grid.sweep: 's' is no known key");
  REFUSED(GRID "  sweep: {s: [{}]}\n", "3:15", "an empty map");
  REFUSED(GRID "  sweep: {s: [{locale: all}]}\n", "3:24", "one locale was expected");
  REFUSED(GRID "  sweep: {s: [{locale: [a, b]}]}\n", "3:24", "a locale was expected, not a list");
  REFUSED(GRID "  sweep: {s: [{locale: a, locales: b}]}\n", "3:27", "'locales' is there twice");
  REFUSED(GRID "  sweep: {s: [{type: ensemble, method: ties}]}\n", "3:22", "type 'ensemble', and method ties is none");
  REFUSED(GRID "  sweep: {s: [{type: merging, method: soft}]}\n", "3:22", "type 'merging', and method soft is none");
  REFUSED(GRID "  sweep: {s: [{type: merged, method: ties}]}\n", "3:22", "ensemble or merging was expected");
  REFUSED(GRID "  sweep: {s: [{type: merging}]}\n", "3:22", "beside a method");
  REFUSED(GRID "  sweep: {a: [{method: ties}], b: [{method: average, top_k: 3}]}\n", "3:32", "'b' says method", "'a' says too",
          "dir/run.yaml:3:11");
  REFUSED(GRID "  fixed: {a: [{method: ties}], method: average}\n", "3:32", "'method' says method");
  REFUSED(GRID "  preset: merginguriel\n  sweep: {preset: [none]}\n", "4:11", "says preset", "3:11");
}

static void refused_phases(void **state) {
  (void)state;
  REFUSED(GRID "  phases: [{name: a}]\n", "3:12", "phase 'a' fixes nothing");
  REFUSED(GRID "  phases: [a]\n", "3:12", "a map with name, fixed and sweep was expected, not a value");
  REFUSED(GRID "  phases: [{sweeep: {}}]\n", "3:13", "'sweeep'", "sweep?");
  REFUSED(GRID "  phases: [{fixed: {seed: 1}, fixed: {seed: 2}}]\n", "3:31", "'fixed' is there twice");
  REFUSED(GRID "  phases: [{name: a, fixed: {seed: 1}}, {name: a, fixed: {seed: 2}}]\n", "3:41", "'a'", "twice");
  REFUSED(GRID "  phases: [{fixed: {seed: x}}]\n", "3:27", "grid.phases.fixed.seed", "whole number");
  REFUSED(GRID "  phases: [{fixed: {seed: 1}, sweep: {seed: [2]}}]\n", "3:39", "'seed' says seed");
}

/* Large products are refused before they are made. */
static void too_much(void **state) {
  (void)state;
  mg_text text = {0};
  mg_config *c = NULL;
  mg_text_append(&text, GRID "  sweep: {method: [{ties: {density: [");
  for (int k = 0; k < 200; k++) mg_text_append(&text, "0.5, ");
  mg_text_append(&text, "], lambda: [");
  for (int k = 0; k < 200; k++) mg_text_append(&text, "0.5, ");
  mg_text_append(&text, "]}}]}\n");
  assert_int_equal(mg_config_parse("run.yaml", text.data, text.size, NULL, &c), MG_ERR_CONFIG);
  assert_non_null(strstr(mg_error_message(), "more than 10000 settings"));
  mg_text_free(&text);
  mg_text_append(&text, GRID "  sweep: {seed: [");
  for (int k = 0; k < 20001; k++) mg_text_append(&text, "%d, ", k);
  mg_text_append(&text, "]}\n");
  assert_int_equal(mg_config_parse("run.yaml", text.data, text.size, NULL, &c), MG_ERR_CONFIG);
  assert_non_null(strstr(mg_error_message(), "more than 10000 values"));
  mg_text_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(plain_axes),      cmocka_unit_test(lists_of_parameters),
                                     cmocka_unit_test(sources),         cmocka_unit_test(values_that_are_maps),
                                     cmocka_unit_test(phases_inherit),  cmocka_unit_test(settings),
                                     cmocka_unit_test(stages),          cmocka_unit_test(refusals),
                                     cmocka_unit_test(refused_methods), cmocka_unit_test(refused_maps),
                                     cmocka_unit_test(refused_phases),  cmocka_unit_test(too_much)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
