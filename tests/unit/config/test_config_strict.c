/* Everything that a configuration must not be: each error names line, column, key, and what was expected. */

#include "parsing.h"

static void unknown_keys(void **state) {
  (void)state;
  REFUSED(MINIMAL "shard: x\n", "2:1", "'shard'", "'shards'");
  REFUSED(MINIMAL "reslut: x\n", "2:1", "'reslut'", "'result'");
  REFUSED("family:\n  base: b\n  sorces: s_{locale}\n", "3:3", "'family.sorces'", "'family.sources'");
  REFUSED(MINIMAL "compute:\n  memory_buget: 1GiB\n", "3:3", "'compute.memory_buget'", "'compute.memory_budget'");
  REFUSED(MINIMAL "zzzzzzzzzz: 1\n", "2:1", "'zzzzzzzzzz'",
          "known: family, shards, texts, stages, compatibility, nxn, recipe, grid, microscope, reuse, compute, result, seed");
  REFUSED(MINIMAL "compute: {zzzzzzzzzz: 1}\n", "2:11", "compute.backend, compute.threads");
  REFUSED(MINIMAL "'': 1\n", "2:1", "a name was expected");
  REFUSED(MINIMAL "<<: {seed: 1}\n", "2:1", "'<<'");
  REFUSED(MINIMAL "Seed: 1\n", "2:1", "'Seed'", "'seed'");
}

/* What only two keys together make wrong has no one place. */
static void metrics_that_need_more(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } cases[] = {{MINIMAL "compatibility: {metrics: [cka]}\n", "task_vector_cosine must be among them"},
               {MINIMAL "compatibility: {metrics: [task_vector_cosine, cka]}\n", "needs texts.files"}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    mg_config *config = NULL;
    assert_int_equal(mg_config_parse("run.yaml", cases[k].text, strlen(cases[k].text), NULL, &config), MG_ERR_CONFIG);
    expect_message(cases[k].text, "run.yaml: compatibility.metrics", (const char *const[]){cases[k].message, NULL});
  }
}

static void directories_of_nodes(void **state) {
  (void)state;
  REFUSED(MINIMAL "shards: {stage_to: [a]}\n", "2:20", "shards.stage_to", "or none", "not a list");
  REFUSED(MINIMAL "shards: {stage_to: }\n", "2:20", "shards.stage_to");
  REFUSED(MINIMAL "shards: {stage_to: /a/$}\n", "2:20", "shards.stage_to", "the name of a variable was expected");
  REFUSED(MINIMAL "shards: {stage_to: /a/$1}\n", "2:20", "the name of a variable was expected");
  REFUSED(MINIMAL "shards: {stage_to: '${A'}\n", "2:20", "the name of a variable was expected");
  REFUSED(MINIMAL "shards: {stage_to: '${}'}\n", "2:20", "the name of a variable was expected");
  REFUSED(MINIMAL "shards: {stage_t: /a}\n", "2:10", "'shards.stage_t'", "'shards.stage_to'");
  mg_config *config = NULL;
  assert_int_equal(parse_with("run.yaml", MINIMAL, "shards={dir: none, stage_to: /a}", NULL, &config), MG_ERR_CONFIG);
  expect_message(MINIMAL, "run.yaml: shards.stage_to is '/a'", (const char *const[]){"shards.dir: none", NULL});
}

static void sections_of_stages(void **state) {
  (void)state;
  REFUSED(MINIMAL "microscope: {a: b}\n", "2:14", "'microscope.a' is no known key", "known: microscope.reference");
  REFUSED(MINIMAL "microscope: {reference: {sorce: a}}\n", "2:26", "microscope.reference", "source?");
  REFUSED(MINIMAL "microscope: {reference: {source: a, source: b}}\n", "2:37", "'source'", "twice");
  REFUSED(MINIMAL "microscope: {setups: {a: {method: tise, locale: b}}}\n", "2:35", "microscope.setups.a.method", "ties?");
  REFUSED(MINIMAL "microscope: {setups: {a: {method: {ties: {density: [0.1, 0.2]}}, locale: b}}}\n", "2:52",
          "a list of values");
  REFUSED(MINIMAL "microscope: {setups: {a: {base: true}, a: {base: true}}}\n", "2:40", "'a'", "twice");
  REFUSED(MINIMAL "microscope: {probes: {locale: a, locale: b}}\n", "2:34", "microscope.probes", "twice");
  REFUSED(MINIMAL "microscope: {probes: []}\n", "2:22", "microscope.probes", "not a list");
  REFUSED(MINIMAL "reuse: {a: b}\n", "2:8", "reuse", "a list of results was expected, not a map");
  REFUSED(MINIMAL "reuse: [a, b, a]\n", "2:15", "reuse", "'a' is there twice");
  REFUSED(MINIMAL "recipe: {method: tise}\n", "2:18", "recipe.method", "'tise'", "ties?");
  REFUSED(MINIMAL "recipe:\n  method: {ties: {density: 2}}\n", "3:28", "recipe.method", "ties.density", "up to 1");
  REFUSED(MINIMAL "recipe:\n  method: {ties: {trim: tensor, trim: global}}\n", "3:33", "'trim'", "twice");
  REFUSED(MINIMAL "recipe:\n  method: {ties: 3}\n", "3:18", "a map of parameters");
  REFUSED(MINIMAL "recipe: {axis: rows}\n", "2:16", "recipe.axis", "column or row");
  REFUSED(MINIMAL "grid: {similarity: x.csv}\n", "2:20", "grid.similarity", "a map {NAME", "not a value");
  REFUSED(MINIMAL "recipe: {method: {ties: {density: [0.1, 0.2]}}}\n", "2:35", "recipe.method", "grid.sweep and grid.fixed");
  REFUSED(MINIMAL "recipe: {preset: mergingurial}\n", "2:18", "recipe.preset", "none or merginguriel", "(merginguriel?)");
  REFUSED(MINIMAL "recipe: {lambda_rule: max}\n", "2:23", "recipe.lambda_rule", "none or merginguriel");
  REFUSED(MINIMAL "recipe: {seed: -1}\n", "2:16", "recipe.seed", "whole number");
  REFUSED(MINIMAL "recipe: {locale: a/b}\n", "2:18", "recipe.locale", "neither '/'");
  REFUSED(MINIMAL "recipe:\n  sources: {a: 0}\n", "3:16", "recipe.sources", "above 0");
  REFUSED(MINIMAL "recipe:\n  sources: [a, a]\n", "3:16", "'a'", "twice");
  REFUSED(MINIMAL "recipe:\n  sources: a\n", "3:12", "a map {id: weight}");
  REFUSED(MINIMAL "compatibility:\n  cka: {pool: max}\n", "3:15", "compatibility.cka.pool", "cls or mean", NULL);
  REFUSED(MINIMAL "compatibility:\n  cka: {layers: first}\n", "3:17", "compatibility.cka.layers", "last, all", NULL);
  REFUSED(MINIMAL "compatibility:\n  cka: {layers: [1, x]}\n", "3:17", "compatibility.cka.layers", "'x'", NULL);
  REFUSED(MINIMAL "compatibility:\n  cka: {samples: 0}\n", "3:18", "compatibility.cka.samples", "whole number", NULL);
  REFUSED(MINIMAL "nxn: {targets: some}\n", "2:16", "nxn.targets", "all, or a list", NULL);
  REFUSED(MINIMAL "nxn: {targets: []}\n", "2:16", "nxn.targets", "is empty", NULL);
  REFUSED(MINIMAL "nxn: {targets: [a/b]}\n", "2:17", "nxn.targets", "neither '/'", NULL);
  REFUSED(MINIMAL "nxn: {targets: [sw-KE, sw-KE]}\n", "2:24", "nxn.targets", "twice", NULL);
  REFUSED(MINIMAL "nxn: {logits: 1}\n", "2:15", "nxn.logits", "true or false", NULL);
  REFUSED(MINIMAL "nxn: {partitions: test}\n", "2:7", "'nxn.partitions'", "'nxn.partition'", NULL);
  REFUSED(MINIMAL "stages: [microscop]\n", "2:10", "'microscop'", "microscope?");
}

static void repeated_keys(void **state) {
  (void)state;
  REFUSED(MINIMAL "seed: 1\nresult: r\nseed: 2\n", "4:1", "'seed'", "twice", "line 2");
  REFUSED("family:\n  base: b\n  sources: s_{locale}\n  base: c\n", "4:3", "'family.base'", "twice", "line 2");
  REFUSED(MINIMAL "family: {base: c}\n", "2:1", "'family'", "twice", "line 1");
  REFUSED(MINIMAL "stages: [compatibility, compatibility]\n", "2:25", "stages", "'compatibility'", "twice", "line 2");
  REFUSED("family:\n  base: b\n  sources: s_{locale}\n  locales:\n  - af\n  - sw\n  - sw\n  - af\n", "7:5", "family.locales",
          "'sw'", "twice", "line 6");
}

static void wrong_types(void **state) {
  (void)state;
  REFUSED("family: {base: [b], sources: 's_{locale}'}\n", "1:16", "family.base", "directory was expected, not a list");
  REFUSED("family: {base: {a: b}, sources: 's_{locale}'}\n", "1:16", "family.base", "not a map");
  REFUSED("family: [base]\n", "1:9", "family", "a map of keys was expected, not a list");
  REFUSED("family: yes\n", "1:9", "family", "a map of keys was expected, not a value");
  REFUSED(MINIMAL "compute: []\n", "2:10", "compute", "a map of keys was expected");
  REFUSED(MINIMAL "shards: [a]\n", "2:9", "shards", "a map of keys was expected");
  REFUSED(MINIMAL "stages: compatibility\n", "2:9", "stages",
          "a list of compatibility, nxn, grid, microscope was expected, not a value");
  REFUSED(MINIMAL "stages: [[compatibility]]\n", "2:10", "stages", "not a list");
  REFUSED("family: {base: b, sources: 's_{locale}', locales: all}\n", "1:51", "family.locales", "a list of locales");
  REFUSED("family: {base: b, sources: 's_{locale}', locales: {a: b}}\n", "1:51", "family.locales", "not a map");
  REFUSED(MINIMAL "compatibility: {exclude: 'classifier.*'}\n", "2:26", "compatibility.exclude", "a list");
  REFUSED(MINIMAL "seed: [1]\n", "2:7", "seed", "whole number");
  REFUSED(MINIMAL "? [seed]\n: 1\n", "2:3", "a name was expected, not a list");
  REFUSED(MINIMAL "result: {a: b}\n", "2:9", "result", "a file was expected");
}

static void wrong_values(void **state) {
  (void)state;
  static const char *const booleans[] = {"yes", "no", "on", "True", "1", "'true'"};
  for (size_t k = 0; k < sizeof booleans / sizeof *booleans; k++) {
    char text[128];
    snprintf(text, sizeof text, "family: {base: b, sources: 's_{locale}', allow_nonfinite: %s}\n", booleans[k]);
    refused(text, strlen(text), "1:59", (const char *const[]){"family.allow_nonfinite", "true or false was expected", NULL});
  }
  REFUSED("family: {base: b, sources: 's_{locale}', missing: skpi}\n", "1:51", "family.missing", "'skpi'", "error or skip",
          "skip?");
  REFUSED(MINIMAL "shards: {dtype: f64}\n", "2:17", "shards.dtype", "'f64'", "f32, bf16 or f16");
  REFUSED(MINIMAL "compatibility: {gram: tensors}\n", "2:23", "compatibility.gram", "tensor, layer or total");
  REFUSED(MINIMAL "compatibility: {metrics: []}\n", "2:26", "compatibility.metrics", "is empty");
  REFUSED(MINIMAL "stages: []\n", "2:9", "stages", "is empty");
  REFUSED(MINIMAL "stages: [compatability]\n", "2:10", "stages", "'compatability'", "compatibility?");
  REFUSED(MINIMAL "compute: {backend: mkl}\n", "2:20", "compute.backend", "auto, ref, openblas or cuda");
  REFUSED(MINIMAL "compute: {precision: fp64}\n", "2:22", "compute.precision", "fp32");
}

static void wrong_numbers(void **state) {
  (void)state;
  static const char *const threads[] = {"0", "-1", "4097", "2.5", "many", "99999999999999999999", "0x4", "'2'"};
  for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
    char text[128];
    snprintf(text, sizeof text, MINIMAL "compute: {threads: %s}\n", threads[k]);
    refused(text, strlen(text), "2:20", (const char *const[]){"compute.threads", "auto, or a number from 1 to 4096", NULL});
  }
  static const char *const seeds[] = {"-1", "1.5", "18446744073709551616", "abc", "0x10", "\"42\"", "1e3"};
  for (size_t k = 0; k < sizeof seeds / sizeof *seeds; k++) {
    char text[128];
    snprintf(text, sizeof text, MINIMAL "seed: %s\n", seeds[k]);
    refused(text, strlen(text), "2:7", (const char *const[]){"seed", "whole number", NULL});
  }
  static const char *const sizes[] = {"lots", "-2GiB", "2 parsecs", "1e300GiB", "nan", "1023KiB", "0"};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    char text[128];
    snprintf(text, sizeof text, MINIMAL "compute: {memory_budget: %s}\n", sizes[k]);
    refused(text, strlen(text), "2:26", (const char *const[]){"compute.memory_budget", sizes[k], NULL});
  }
}

static void empty_values(void **state) {
  (void)state;
  static const char *const empty[] = {"", "''", "\"\"", "~", "null", "Null", "NULL"};
  static const char *const keys[] = {"result", "seed", "shards"};
  for (size_t k = 0; k < sizeof empty / sizeof *empty; k++)
    for (size_t j = 0; j < sizeof keys / sizeof *keys; j++) {
      char text[128], position[32];
      snprintf(text, sizeof text, MINIMAL "%s: %s\n", keys[j], empty[k]);
      snprintf(position, sizeof position, "2:%zu", strlen(keys[j]) + 2 + (empty[k][0] != '\0'));
      refused(text, strlen(text), position, (const char *const[]){keys[j], "is empty", "was expected", NULL});
    }
  REFUSED("family:\nseed: 1\n", "1:8", "family", "is empty", "a map of keys was expected");
  REFUSED("family: {base: b, sources: 's_{locale}', locales: [af, '']}\n", "1:56", "family.locales", "is empty");
  REFUSED("", "1:1", "is empty");
  REFUSED("# nothing but a comment\n", "1:1", "is empty");
}

static void required_keys(void **state) {
  (void)state;
  mg_config *config;
  assert_int_equal(parse_with("run.yaml", "seed: 1\n", NULL, NULL, &config), MG_ERR_CONFIG);
  assert_non_null(strstr(mg_error_message(), "run.yaml: family.base is missing"));
  assert_int_equal(parse_with("run.yaml", "family: {base: b}\n", NULL, NULL, &config), MG_ERR_CONFIG);
  assert_non_null(strstr(mg_error_message(), "run.yaml: family.sources is missing"));
}

static void not_a_configuration(void **state) {
  (void)state;
  REFUSED("- a\n- b\n", "1:1", "a map of keys was expected, not a list");
  REFUSED("hello\n", "1:1", "a map of keys was expected, not a value");
  REFUSED(MINIMAL "---\nseed: 1\n", "2:1", "a second YAML document");
  REFUSED(MINIMAL "...\n---\n", "3:1", "a second YAML document");
  REFUSED("family:\n\tbase: b\n", "2:1", "no valid YAML", "token");
  REFUSED(MINIMAL "result: 'r\n", "3:1", "no valid YAML", "line 2");
  REFUSED(MINIMAL "stages: [a\nseed: 1\n", "3:5", "no valid YAML", "line 2");
  REFUSED(MINIMAL "seed: 1\n  result: x\n", "3:9", "no valid YAML");
}

static void what_yaml_has_and_this_has_not(void **state) {
  (void)state;
  REFUSED("family: &f {base: b, sources: 's_{locale}'}\n", "1:9", "anchors");
  REFUSED("family: &f\n  base: *f\n", "1:9", "anchors");
  REFUSED(MINIMAL "result: *r\n", "2:9", "aliases");
  REFUSED(MINIMAL "result: &r x\n", "2:9", "anchors");
  REFUSED(MINIMAL "stages: &s [compatibility]\n", "2:9", "anchors");
  REFUSED(MINIMAL "result: !!str x\n", "2:9", "tags");
  REFUSED(MINIMAL "seed: !!int 3\n", "2:7", "tags");
  REFUSED(MINIMAL "stages: !!set [compatibility]\n", "2:9", "tags");
  REFUSED(MINIMAL "compute: !x {threads: 1}\n", "2:10", "tags");
  REFUSED("%YAML 1.1\n---\n" MINIMAL, "1:1", "directives");
  REFUSED("# x\r%TAG ! x\r---\r" MINIMAL, "1:1", "directives");
  REFUSED("# x\xE2\x80\xA8%TAG ! x\n---\n" MINIMAL, "1:1", "directives");
  REFUSED("# x\n%TAG ! tag:x,2000:\n---\n" MINIMAL, "2:1", "directives");
}

static void bytes_that_are_no_text(void **state) {
  (void)state;
  REFUSED(MINIMAL "result: \xFFx\n", "2:9", "UTF-8");
  REFUSED(MINIMAL "result: \xC3(\n", "2:10", "UTF-8");
  REFUSED(MINIMAL "result: \xED\xA0\x80\n", "2:9", "UTF-8");
  REFUSED(MINIMAL "r\xC3\xA9sult: \xF8\n", "2:9", "UTF-8");
  REFUSED("\xFF\xFE"
          "f\0a\0",
          "1:1", "UTF-8");
  REFUSED(MINIMAL "result: a\0b\n", "2:10", "control character");
  REFUSED(MINIMAL "result: a\x01"
                  "b\n",
          "2:10", "control character");
  REFUSED(MINIMAL "result: \"a\\0b\"\n", "2:9", "result", "NUL byte");
  REFUSED(MINIMAL "stages: [\"a\\0b\"]\n", "2:10", "stages", "NUL byte");
  REFUSED(MINIMAL "\"seed\\0\": 1\n", "2:1", "NUL byte");
}

/* What is large without meaning anything is refused early: none of these may take noticeable time or memory. */
static void nesting_is_bounded(void **state) {
  (void)state;
  enum { SIZE = 1 << 20 };
  static const char *const words[] = {"nested deeper", NULL};
  char *text = malloc(SIZE);
  assert_non_null(text);
  memset(text, '[', SIZE);
  refused(text, SIZE, "1:17", words);
  for (size_t k = 0; k + 1 < SIZE; k += 2) memcpy(text + k, "- ", 2);
  refused(text, SIZE, "1:33", words);
  for (size_t k = 0; k + 3 < SIZE; k += 3) memcpy(text + k, "{a:", 3);
  memset(text + SIZE - SIZE % 3, ' ', SIZE % 3);
  mg_config *config = NULL;
  assert_int_equal(mg_config_parse("run.yaml", text, SIZE, NULL, &config), MG_ERR_CONFIG);
  free(text);
}

/* Hundreds of thousands of names: unique ones pass, a repeated one is found, in seconds rather than hours. */
static void long_lists(void **state) {
  (void)state;
  enum { COUNT = 200000 };
  mg_text text = {0};
  mg_config *config = NULL;
  mg_text_append(&text, "family: {base: b, sources: 's_{locale}', locales: [");
  for (int k = 0; k < COUNT; k++) mg_text_append(&text, "x%d,", k);
  const size_t kept = text.size;
  mg_text_append(&text, "]}\n");
  assert_int_equal(mg_config_parse("run.yaml", text.data, text.size, NULL, &config), MG_OK);
  assert_int_equal(config->family.locales.count, COUNT);
  mg_config_free(&config);
  text.size = kept;
  mg_text_append(&text, "\nx7]}\n");
  refused(text.data, text.size, "2:1", (const char *const[]){"'x7'", "twice", "line 1", NULL});
  mg_text_free(&text);
}

static void long_keys(void **state) {
  (void)state;
  mg_text text = {0};
  mg_text_append(&text, MINIMAL);
  for (int k = 0; k < 900; k++) mg_text_append(&text, "k");
  mg_text_append(&text, ": 1\n");
  refused(text.data, text.size, "2:1", (const char *const[]){"a key of 900 bytes", NULL});
  mg_text_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(unknown_keys),
                                     cmocka_unit_test(directories_of_nodes),
                                     cmocka_unit_test(sections_of_stages),
                                     cmocka_unit_test(metrics_that_need_more),
                                     cmocka_unit_test(repeated_keys),
                                     cmocka_unit_test(wrong_types),
                                     cmocka_unit_test(wrong_values),
                                     cmocka_unit_test(wrong_numbers),
                                     cmocka_unit_test(empty_values),
                                     cmocka_unit_test(required_keys),
                                     cmocka_unit_test(not_a_configuration),
                                     cmocka_unit_test(what_yaml_has_and_this_has_not),
                                     cmocka_unit_test(bytes_that_are_no_text),
                                     cmocka_unit_test(nesting_is_bounded),
                                     cmocka_unit_test(long_lists),
                                     cmocka_unit_test(long_keys)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
