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

static void assert_same(const mg_config *a, const mg_config *b) {
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
  round_trip(MINIMAL "seed: 18446744073709551615\n", "compute={threads: 7, memory_budget: 300MiB, backend: openblas}");
  round_trip(MINIMAL, "compatibility={gram: layer, exclude: ['*.bias', 'classifier.*', '[a-z]?']}");
  round_trip(MINIMAL, "family={base: /b, sources: [x, y/z, /abs/w/], missing: skip, allow_nonfinite: true}");
  round_trip(MINIMAL, "family={base: /b, sources: '{locale}', locales: [no, yes, 'null', 1.5, '~', a b, '#x', '- y', '&z']}");
  round_trip(MINIMAL "shards: {dtype: f16}\n", "family.sources={no: x, '1': {path: y, locale: null_x}, 'a: b': 'z #c'}");
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
                                     cmocka_unit_test(relative_paths_become_absolute)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
