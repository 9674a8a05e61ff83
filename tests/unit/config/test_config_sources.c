/* The three forms of family.sources, and the settings of the command line. */

#include "parsing.h"

static void pattern(void **state) {
  (void)state;
  mg_config *c = good("family: {base: b, sources: 'm/k_{locale}/last'}\n", NULL, NULL);
  assert_int_equal(c->family.kind, MG_SOURCES_PATTERN);
  assert_string_equal(c->family.pattern, "m/k_{locale}/last");
  assert_int_equal(c->family.entry_count, 0);
  mg_config_free(&c);
  REFUSED("family:\n  base: b\n  sources: models/all\n", "3:12", "family.sources", "'models/all' has no {locale}", "a list",
          "a map");
  REFUSED("family:\n  base: b\n  sources: '{locale}/{locale}'\n", "3:12", "family.sources", "more than once");
}

static void list(void **state) {
  (void)state;
  mg_config *c = good("family:\n  base: b\n  sources: [m/run-a, /abs/run-b/, run-c]\n", NULL, NULL);
  assert_int_equal(c->family.kind, MG_SOURCES_LIST);
  assert_int_equal(c->family.entry_count, 3);
  assert_string_equal(c->family.entries[0].path, "m/run-a");
  assert_string_equal(c->family.entries[1].path, "/abs/run-b/");
  assert_string_equal(c->family.entries[2].path, "run-c");
  for (int k = 0; k < 3; k++) assert_null(c->family.entries[k].id);
  for (int k = 0; k < 3; k++) assert_null(c->family.entries[k].locale);
  assert_null(c->family.pattern);
  mg_config_free(&c);
  REFUSED("family: {base: b, sources: []}\n", "1:28", "family.sources", "is empty", "directories were expected");
  REFUSED("family:\n  base: b\n  sources:\n  - x/a\n  - b\n  - y/a/\n", "6:5", "family.sources", "'a'", "twice", "line 4");
  REFUSED("family: {base: b, sources: [a, [b]]}\n", "1:32", "family.sources", "a directory was expected, not a list");
  REFUSED("family: {base: b, sources: [a, {b: c}]}\n", "1:32", "family.sources", "not a map");
  REFUSED("family: {base: b, sources: [/]}\n", "1:29", "family.sources", "can't be the name");
  REFUSED("family: {base: b, sources: [a/..]}\n", "1:29", "family.sources", "can't be the name");
}

static void map(void **state) {
  (void)state;
  mg_config *c = good("family:\n  base: b\n  sources:\n    fr-FR: m/french\n    no: m/norwegian\n"
                      "    sw big: {path: m/swahili, locale: sw-KE}\n    \xF0\x9F\x98\x80: {path: /m/smile}\n",
                      NULL, NULL);
  const mg_source *e = c->family.entries;
  assert_int_equal(c->family.kind, MG_SOURCES_MAP);
  assert_int_equal(c->family.entry_count, 4);
  assert_string_equal(e[0].id, "fr-FR");
  assert_string_equal(e[0].path, "m/french");
  assert_null(e[0].locale);
  assert_string_equal(e[1].id, "no");
  assert_string_equal(e[2].id, "sw big");
  assert_string_equal(e[2].path, "m/swahili");
  assert_string_equal(e[2].locale, "sw-KE");
  assert_string_equal(e[3].id, "\xF0\x9F\x98\x80");
  assert_string_equal(e[3].path, "/m/smile");
  mg_config_free(&c);
}

static void map_errors(void **state) {
  (void)state;
  REFUSED("family: {base: b, sources: {}}\n", "1:28", "family.sources", "is empty");
  REFUSED("family:\n  base: b\n  sources:\n    a: x\n    c: y\n    a: z\n", "6:5", "family.sources", "'a'", "twice", "line 4");
  REFUSED("family: {base: b, sources: {a/b: x}}\n", "1:29", "family.sources", "'/'");
  REFUSED("family: {base: b, sources: {\"a\\nb\": x}}\n", "1:29", "family.sources", "control");
  REFUSED("family: {base: b, sources: {\"\": x}}\n", "1:29", "family.sources", "is empty", "an id");
  REFUSED("family: {base: b, sources: {..: x}}\n", "1:29", "family.sources", "can't be the name");
  REFUSED("family: {base: b, sources: {a: }}\n", "1:32", "family.sources", "is empty", "a directory");
  REFUSED("family: {base: b, sources: {a: [x]}}\n", "1:32", "family.sources", "not a list");
  REFUSED("family: {base: b, sources: {a: {locale: x}}}\n", "1:32", "family.sources", "no path");
  REFUSED("family: {base: b, sources: {a: {path: x, lang: y}}}\n", "1:42", "'lang'", "path and locale");
  REFUSED("family: {base: b, sources: {a: {path: x, path: y}}}\n", "1:42", "'path'", "twice");
  REFUSED("family: {base: b, sources: {a: {path: [x]}}}\n", "1:39", "family.sources", "a directory was expected, not a list");
  REFUSED("family: {base: b, sources: {a: {path: x, locale: 'y/z'}}}\n", "1:50", "family.sources", "'/'");
  REFUSED("family: {base: b, sources: {[a]: x}}\n", "1:29", "an id was expected, not a list");
  REFUSED("family: {base: b, sources: s_{locale}, locales: [../x]}\n", "1:30", "no valid YAML");
  REFUSED("family: {base: b, sources: 's_{locale}', locales: [../x]}\n", "1:52", "family.locales", "'/'");
}

static void settings_win(void **state) {
  (void)state;
  mg_config *c = good(MINIMAL "seed: 1\nshards: {dtype: f16}\n", "seed=2", "seed=3");
  assert_true(c->seed == 3);
  assert_int_equal(c->shards.dtype, MG_F16);
  mg_config_free(&c);
  c = good("family:\n  base: b\n  sources: {a: x, c: y}\n", "family.sources=k_{locale}", "family.locales=[sw-KE, no]");
  assert_int_equal(c->family.kind, MG_SOURCES_PATTERN);
  assert_string_equal(c->family.pattern, "k_{locale}");
  assert_int_equal(c->family.entry_count, 0);
  assert_int_equal(c->family.locales.count, 2);
  assert_string_equal(c->family.locales.items[1], "no");
  mg_config_free(&c);
  c = good(MINIMAL, "family.sources={a: x, c: {path: y, locale: z}}", "compatibility.exclude=[]");
  assert_int_equal(c->family.kind, MG_SOURCES_MAP);
  assert_null(c->family.pattern);
  assert_int_equal(c->family.entry_count, 2);
  assert_string_equal(c->family.entries[1].locale, "z");
  assert_int_equal(c->compatibility.exclude.count, 0);
  mg_config_free(&c);
  c = good("seed: 1\n", "family.base=bb", "family.sources=[x, y]");
  assert_string_equal(c->family.base, "bb");
  assert_int_equal(c->family.kind, MG_SOURCES_LIST);
  mg_config_free(&c);
  c = good(MINIMAL, "result=a=b.h5", "shards.dir=none");
  assert_string_equal(c->result, "a=b.h5");
  assert_null(c->shards.dir);
  mg_config_free(&c);
}

/* A value for a section takes the place of all of it. */
static void settings_of_sections(void **state) {
  (void)state;
  mg_config *c = good(MINIMAL "shards: {dir: x, dtype: f16}\n", "shards={dir: y}", NULL);
  assert_string_equal(c->shards.dir, "y");
  assert_int_equal(c->shards.dtype, MG_F32);
  mg_config_free(&c);
  c = good(MINIMAL "compute: {threads: 3, backend: ref}\n", "compute={threads: 2}", NULL);
  assert_int_equal(c->compute.threads, 2);
  assert_string_equal(c->compute.backend, "auto");
  mg_config_free(&c);
  mg_config *none;
  assert_int_equal(parse_with("run.yaml", MINIMAL, "family={base: c}", NULL, &none), MG_ERR_CONFIG);
  assert_non_null(strstr(mg_error_message(), "family.sources is missing"));
}

static void bad_settings(void **state) {
  (void)state;
  mg_config *none;
  assert_int_equal(parse_with("run.yaml", MINIMAL, "seed", NULL, &none), MG_ERR_USAGE);
  assert_non_null(strstr(mg_error_message(), "--set seed: KEY=VALUE was expected"));
  SETTING_REFUSED("seed=", "seed", "is empty");
  SETTING_REFUSED("seed=~", "seed", "is empty");
  SETTING_REFUSED("seed=-1", "seed", "whole number");
  SETTING_REFUSED("sede=1", "'sede'", "'seed'");
  SETTING_REFUSED("=1", "known: family");
  SETTING_REFUSED(".=1", "no known key");
  SETTING_REFUSED("seed.x=1", "'seed.x'", "no known key");
  SETTING_REFUSED("familly.base=x", "'familly.base'", "'family.base'");
  SETTING_REFUSED("family.bases=x", "'family.bases'", "'family.base'");
  SETTING_REFUSED("microscope.padding=inclde", "microscope.padding", "exclude or include");
  SETTING_REFUSED("compatibility.cka.pool=max", "compatibility.cka.pool", "cls or mean");
  SETTING_REFUSED("family.base=[a]", "family.base", "not a list");
  SETTING_REFUSED("family=x", "family", "a map of keys was expected");
  SETTING_REFUSED("family.locales=[af, af]", "'af'", "twice");
  SETTING_REFUSED("family.sources=[a", "no valid YAML");
  SETTING_REFUSED("seed=1\n---\n2", "a second YAML document");
  SETTING_REFUSED("result=&a x", "anchors");
  SETTING_REFUSED("result=\xFF", "UTF-8");
  SETTING_REFUSED("compute={threads: 1, threads: 2}", "'compute.threads'", "twice");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(pattern),      cmocka_unit_test(list),
                                     cmocka_unit_test(map),          cmocka_unit_test(map_errors),
                                     cmocka_unit_test(settings_win), cmocka_unit_test(settings_of_sections),
                                     cmocka_unit_test(bad_settings)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
