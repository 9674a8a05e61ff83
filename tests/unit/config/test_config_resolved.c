/* The resolved YAML reads back to the same values. */

#include "parsing.h"

static void assert_same_strings(const mg_strings *a, const mg_strings *b) {
  assert_int_equal(a->count, b->count);
  for (size_t k = 0; k < a->count; k++) assert_string_equal(a->items[k], b->items[k]);
}

static void assert_same_text(const char *a, const char *b) {
  assert_int_equal(a == NULL, b == NULL);
  if (a != NULL) assert_string_equal(a, b);
}

static void assert_same_terms(const mg_terms *a, const mg_terms *b) {
  assert_ptr_equal(a->method, b->method);
  for (size_t k = 0; a->method != NULL && k < a->method->parameter_count; k++) assert_true(a->values[k] == b->values[k]);
  assert_same_strings(&a->sources, &b->sources);
  for (size_t k = 0; k < a->sources.count; k++) assert_true(a->weights[k] == b->weights[k]);
  assert_same_text(a->locale, b->locale);
  assert_same_text(a->similarity_type, b->similarity_type);
  assert_same_text(a->preset, b->preset);
  assert_same_text(a->head, b->head);
  assert_same_text(a->axis, b->axis);
  assert_same_text(a->select, b->select);
  assert_same_text(a->inctar, b->inctar);
  assert_same_text(a->duplicates, b->duplicates);
  assert_same_text(a->lambda_rule, b->lambda_rule);
  assert_int_equal(a->num_languages, b->num_languages);
  assert_int_equal(a->top_k, b->top_k);
  assert_int_equal(a->sinkhorn_iters, b->sinkhorn_iters);
  assert_int_equal(a->include_target, b->include_target);
  assert_int_equal(a->drop_strongest, b->drop_strongest);
  assert_true(a->seed == b->seed);
}

static void assert_same_phase(const mg_phase *a, const mg_phase *b) {
  assert_string_equal(a->name, b->name);
  assert_int_equal(a->axis_count, b->axis_count);
  for (size_t k = 0; k < a->axis_count; k++) {
    assert_string_equal(a->axes[k].name, b->axes[k].name);
    assert_int_equal(a->axes[k].all_targets, b->axes[k].all_targets);
    assert_int_equal(a->axes[k].count, b->axes[k].count);
    for (size_t v = 0; v < a->axes[k].count; v++) {
      assert_int_equal(a->axes[k].values[v].given, b->axes[k].values[v].given);
      assert_int_equal(a->axes[k].values[v].said_parameters, b->axes[k].values[v].said_parameters);
      assert_same_terms(&a->axes[k].values[v], &b->axes[k].values[v]);
    }
  }
}

static void assert_same(const mg_config *a, const mg_config *b) {
  assert_same_terms(&a->recipe, &b->recipe);
  assert_same_strings(&a->grid.similarity_names, &b->grid.similarity_names);
  assert_same_text(a->grid.partition, b->grid.partition);
  assert_int_equal(a->grid.phase_count, b->grid.phase_count);
  for (size_t k = 0; k < a->grid.phase_count; k++) assert_same_phase(&a->grid.phases[k], &b->grid.phases[k]);
  assert_same_text(a->family.base, b->family.base);
  assert_int_equal(a->family.kind, b->family.kind);
  assert_same_text(a->family.pattern, b->family.pattern);
  assert_int_equal(a->family.entry_count, b->family.entry_count);
  for (size_t k = 0; k < a->family.entry_count; k++) {
    assert_same_text(a->family.entries[k].id, b->family.entries[k].id);
    assert_same_text(a->family.entries[k].locale, b->family.entries[k].locale);
    assert_same_text(a->family.entries[k].path, b->family.entries[k].path);
  }
  assert_same_strings(&a->family.locales, &b->family.locales);
  assert_int_equal(a->family.skip_missing, b->family.skip_missing);
  assert_int_equal(a->family.allow_nonfinite, b->family.allow_nonfinite);
  assert_same_text(a->shards.dir, b->shards.dir);
  assert_int_equal(a->shards.dtype, b->shards.dtype);
  assert_same_text(a->shards.stage_to, b->shards.stage_to);
  assert_same_strings(&a->stages, &b->stages);
  assert_same_strings(&a->compatibility.metrics, &b->compatibility.metrics);
  assert_same_strings(&a->compatibility.exclude, &b->compatibility.exclude);
  assert_int_equal(a->compatibility.gram, b->compatibility.gram);
  assert_same_text(a->compute.backend, b->compute.backend);
  assert_int_equal(a->compute.threads, b->compute.threads);
  assert_true(a->compute.memory_budget == b->compute.memory_budget);
  assert_same_text(a->compute.precision, b->compute.precision);
  assert_same_text(a->result, b->result);
  assert_true(a->seed == b->seed);
}

/* Read as a file of an absolute directory, written, read as a file of another one, written again. */
static void round_trip(const char *text, const char *setting) {
  mg_config *first, *second;
  mg_text once = {0}, twice = {0};
  if (parse_with("/some/dir/run.yaml", text, setting, NULL, &first) != MG_OK) fail_msg("%s", mg_error_message());
  assert_int_equal(mg_config_resolved(first, &once), MG_OK);
  if (parse_with("elsewhere/run.yaml", once.data, NULL, NULL, &second) != MG_OK)
    fail_msg("%s\n%s", mg_error_message(), once.data);
  assert_same(first, second);
  assert_int_equal(mg_config_resolved(second, &twice), MG_OK);
  assert_string_equal(once.data, twice.data);
  mg_text_free(&once);
  mg_text_free(&twice);
  mg_config_free(&first);
  mg_config_free(&second);
}

static void reads_back(void **state) {
  (void)state;
  round_trip(MINIMAL, NULL);
  round_trip(MINIMAL, "shards.dir=none");
  round_trip(MINIMAL, "shards.dir='none'");
  round_trip(MINIMAL, "shards.stage_to=$TMPDIR");
  round_trip(MINIMAL, "shards.stage_to=${TMPDIR}/$USER/x");
  round_trip(MINIMAL, "shards.stage_to=near/$USER/$$x");
  round_trip(MINIMAL, "shards.stage_to='none'");
  round_trip("family: {base: b, sources: 's_{locale}'}\n", "shards={dir: x, stage_to: /scratch}");
  round_trip(MINIMAL "seed: 18446744073709551615\n", "compute={threads: 7, memory_budget: 300MiB, backend: openblas}");
  round_trip(MINIMAL, "compatibility={gram: layer, exclude: ['*.bias', 'classifier.*', '[a-z]?']}");
  round_trip(MINIMAL, "family={base: /b, sources: [x, y/z, /abs/w/], missing: skip, allow_nonfinite: true}");
  round_trip(MINIMAL, "family={base: /b, sources: '{locale}', locales: [no, yes, 'null', 1.5, '~', a b, '#x', '- y', '&z']}");
  round_trip(MINIMAL "shards: {dtype: f16}\n", "family.sources={no: x, '1': {path: y, locale: null_x}, 'a: b': 'z #c'}");
}

static void grids_read_back(void **state) {
  (void)state;
  round_trip(MINIMAL
             "grid: {preset: [none, merginguriel], similarity: {URIEL: u.csv, REAL: nxn}, compatibility: {tv: c.csv}}\n",
             "reuse=[a.h5, /b.h5]");
  round_trip(MINIMAL "grid:\n"
                     "  fixed:\n"
                     "    locales: [sw-KE, 'no', \"a, b\", \"x\\u2028y\"]\n"
                     "    num_languages: 5\n"
                     "    seed: 18446744073709551615\n"
                     "    sources: {a: 0.1, 'b: c': 0.30000000000000004}\n"
                     "  sweep:\n"
                     "    \"odd: name\":\n"
                     "    - type: ensemble\n"
                     "      method: majority\n"
                     "    - {method: {ties: {density: [0.1, 1e-3], trim: global}}, include_target: true}\n"
                     "    top_k: [3, 4]\n"
                     "  phases:\n"
                     "    - name: \"a\\nb\"\n"
                     "      sweep: {locale: all, method: [ties: , average: null, linear: ~, soft]}\n"
                     "    - fixed: {method: own}\n",
             "grid.fixed.head=random");
  round_trip(MINIMAL "recipe: {preset: merginguriel, method: {ties: {density: 0.1}}, locale: a, axis: column}\n", NULL);
  round_trip(MINIMAL "recipe: {method: task_arithmetic, lambda_rule: merginguriel, sources: [a, b], seed: 3}\n", NULL);
  round_trip(MINIMAL "recipe: {method: {directional_consensus: {alpha: 0.3}}, sources: {a: 3, b: 0.7}}\n", NULL);
}

/* What a preset decides is not written out as if it had been said; neither are a method's parameters under a rule. */
static void presets_stay_beneath(void **state) {
  (void)state;
  mg_config *c =
      good(MINIMAL "recipe: {preset: merginguriel, method: {ties: {density: 0.1}}, locale: a, axis: column}\n", NULL, NULL);
  mg_config *again = NULL;
  mg_text yaml = {0};
  const uint32_t said = MG_GIVEN(MG_TERM_PRESET) | MG_GIVEN(MG_TERM_METHOD) | MG_GIVEN(MG_TERM_LOCALE) | MG_GIVEN(MG_TERM_AXIS);
  assert_int_equal(c->recipe.given, said);
  assert_int_equal(mg_config_resolved(c, &yaml), MG_OK);
  assert_int_equal(mg_config_parse("r.yaml", yaml.data, yaml.size, NULL, &again), MG_OK);
  assert_int_equal(again->recipe.given, said);
  assert_int_equal(again->recipe.said_parameters, 1);
  mg_config_free(&again);
  mg_config_free(&c);
  mg_text_free(&yaml);
}

/* Names may hold what YAML takes for a line break, or does not allow unescaped. */
static void odd_characters(void **state) {
  (void)state;
  round_trip(MINIMAL, "result=\"a\\nb\\tc\\u0085\\u2028\\u2029\\uFEFF\\x80\\x9f\\x01\\e\\\\ \\\" 'q' %s\"");
  round_trip(MINIMAL, "family.sources={\"a\\u0085b\": \"x\\u2028\", \"\xF0\x9F\x98\x80\": \"\\uFFFE\\uFFFF\", 'a\"b\\\\': y}");
  round_trip(MINIMAL, "compatibility.exclude=[\"  leading\", \"trailing  \", \"multi\\n\\nline\"]");
  round_trip(MINIMAL "result: |\n  block\n  text\n", NULL);
}

static void relative_paths_become_absolute(void **state) {
  (void)state;
  mg_config *c = good(MINIMAL, NULL, NULL);
  mg_text yaml = {0};
  char *here = realpath(".", NULL), expected[4200];
  assert_non_null(here);
  assert_int_equal(mg_config_resolved(c, &yaml), MG_OK);
  snprintf(expected, sizeof expected, "\nresult: \"%s/result.h5\"\n", here);
  assert_non_null(strstr(yaml.data, expected));
  free(here);
  mg_text_free(&yaml);
  mg_config_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(reads_back), cmocka_unit_test(odd_characters),
                                     cmocka_unit_test(grids_read_back), cmocka_unit_test(presets_stay_beneath),
                                     cmocka_unit_test(relative_paths_become_absolute)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
