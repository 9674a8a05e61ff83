/* Values that are accepted, defaults, and paths. */

#include "parsing.h"

static void defaults(void **state) {
  (void)state;
  mg_config *c = good(MINIMAL, NULL, NULL);
  assert_string_equal(c->file, "run.yaml");
  assert_string_equal(c->family.base, "b");
  assert_int_equal(c->family.kind, MG_SOURCES_PATTERN);
  assert_string_equal(c->family.pattern, "s_{locale}");
  assert_int_equal(c->family.locales.count, 0);
  assert_false(c->family.skip_missing);
  assert_false(c->family.allow_nonfinite);
  assert_string_equal(c->shards.dir, "shards");
  assert_int_equal(c->shards.dtype, MG_F32);
  assert_int_equal(c->stages.count, 1);
  assert_string_equal(c->stages.items[0], "compatibility");
  assert_int_equal(c->compatibility.metrics.count, 1);
  assert_string_equal(c->compatibility.metrics.items[0], "task_vector_cosine");
  assert_int_equal(c->compatibility.exclude.count, 1);
  assert_string_equal(c->compatibility.exclude.items[0], "classifier.*");
  assert_int_equal(c->compatibility.gram, MG_GRAM_TENSOR);
  assert_string_equal(c->compute.backend, "auto");
  assert_int_equal(c->compute.threads, 0);
  assert_true(c->compute.memory_budget == UINT64_C(2) << 30);
  assert_string_equal(c->compute.precision, "fp32");
  assert_string_equal(c->result, "result.h5");
  assert_true(c->seed == 42);
  mg_config_free(&c);
  assert_null(c);
  mg_config_free(&c);
}

static void every_key(void **state) {
  (void)state;
  mg_config *c = good("family:\n"
                      "  base: models/base\n"
                      "  sources: models/k_{locale}\n"
                      "  locales: [sw-KE, af-ZA, no, nb-NO, \"yes\", 12]\n"
                      "  missing: skip\n"
                      "  allow_nonfinite: true\n"
                      "shards: {dir: /fast/shards, dtype: bf16}\n"
                      "stages: [compatibility]\n"
                      "compatibility: {metrics: [task_vector_cosine], exclude: [], gram: total}\n"
                      "compute: {backend: ref, threads: 3, memory_budget: 300 MiB, precision: fp32}\n"
                      "result: out/r.h5\n"
                      "seed: 18446744073709551615\n",
                      NULL, NULL);
  static const char *const locales[] = {"sw-KE", "af-ZA", "no", "nb-NO", "yes", "12"};
  assert_int_equal(c->family.locales.count, 6);
  for (size_t k = 0; k < 6; k++) assert_string_equal(c->family.locales.items[k], locales[k]);
  assert_true(c->family.skip_missing);
  assert_true(c->family.allow_nonfinite);
  assert_string_equal(c->shards.dir, "/fast/shards");
  assert_int_equal(c->shards.dtype, MG_BF16);
  assert_int_equal(c->compatibility.exclude.count, 0);
  assert_int_equal(c->compatibility.gram, MG_GRAM_TOTAL);
  assert_string_equal(c->compute.backend, "ref");
  assert_int_equal(c->compute.threads, 3);
  assert_true(c->compute.memory_budget == UINT64_C(300) << 20);
  assert_string_equal(c->result, "out/r.h5");
  assert_true(c->seed == UINT64_MAX);
  mg_config_free(&c);
}

static void shards_in_short(void **state) {
  (void)state;
  mg_config *c = good(MINIMAL "shards: there\n", NULL, NULL);
  assert_string_equal(c->shards.dir, "there");
  assert_int_equal(c->shards.dtype, MG_F32);
  mg_config_free(&c);
  c = good(MINIMAL "shards: {dir: none}\n", NULL, NULL);
  assert_null(c->shards.dir);
  mg_config_free(&c);
  c = good(MINIMAL "shards: none\n", NULL, NULL);
  assert_null(c->shards.dir);
  mg_config_free(&c);
  c = good(MINIMAL "shards: {dir: \"none\", dtype: f16}\n", NULL, NULL); /* a directory of that name */
  assert_string_equal(c->shards.dir, "none");
  assert_int_equal(c->shards.dtype, MG_F16);
  mg_config_free(&c);
}

/* Variables are those of whoever asks, not of whoever reads the file. */
static void directories_of_nodes(void **state) {
  (void)state;
  static const struct {
    const char *text, *kept, *expanded;
  } cases[] = {{"/scratch", "/scratch", "/scratch"},
               {"$MG_TEST_A", "$MG_TEST_A", "/tmp/a b"},
               {"${MG_TEST_A}x/$MG_TEST_B$MG_TEST_B", "${MG_TEST_A}x/$MG_TEST_B$MG_TEST_B", "/tmp/a bx/bb"},
               {"/$MG_TEST_B/$$MG_TEST_B$$", "/$MG_TEST_B/$$MG_TEST_B$$", "/b/$MG_TEST_B$"},
               {"near/$MG_TEST_B", "/some/$$dir/near/$MG_TEST_B", "/some/$dir/near/b"},
               {"$$near", "/some/$$dir/$$near", "/some/$dir/$near"},
               {"\"none\"", "/some/$$dir/none", "/some/$dir/none"}};
  setenv("MG_TEST_A", "/tmp/a b", 1);
  setenv("MG_TEST_B", "b", 1);
  unsetenv("MG_TEST_C");
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    mg_config *c = NULL;
    char *dir = NULL, text[256];
    snprintf(text, sizeof text, MINIMAL "shards:\n  stage_to: %s\n", cases[k].text);
    if (parse_with("/some/$dir/run.yaml", text, NULL, NULL, &c) != MG_OK) fail_msg("%s", mg_error_message());
    assert_string_equal(c->shards.stage_to, cases[k].kept);
    assert_int_equal(mg_config_stage_dir(c, &dir), MG_OK);
    assert_string_equal(dir, cases[k].expanded);
    free(dir);
    mg_config_free(&c);
  }
  static const char *const bad[][2] = {{"$MG_TEST_C", "the environment has no MG_TEST_C"},
                                       {"/x/${MG_TEST_C}", "the environment has no MG_TEST_C"},
                                       {"$MG_TEST_B/x", "comes to 'b/x': an absolute path"}};
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
    char *dir = NULL, setting[64];
    snprintf(setting, sizeof setting, "shards.stage_to=%s", bad[k][0]);
    mg_config *c = good(MINIMAL, setting, NULL);
    assert_int_equal(mg_config_stage_dir(c, &dir), MG_ERR_CONFIG);
    expect_message(setting, "run.yaml: shards.stage_to is '", (const char *const[]){bad[k][1], NULL});
    mg_config_free(&c);
  }
  mg_config *c = good(MINIMAL, "shards.stage_to=/x", "shards.stage_to=none");
  assert_null(c->shards.stage_to);
  mg_config_free(&c);
}

static void sizes(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t bytes;
  } cases[] = {{"compute.memory_budget=1048576", 1048576},
               {"compute.memory_budget=1.5GiB", UINT64_C(3) << 29},
               {"compute.memory_budget=2TiB", UINT64_C(2) << 40},
               {"compute.memory_budget=500MB", 500000000},
               {"compute.memory_budget=\"2000kB\"", 2000000}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    mg_config *c = good(MINIMAL, cases[k].text, NULL);
    assert_true(c->compute.memory_budget == cases[k].bytes);
    mg_config_free(&c);
  }
}

static void paths_are_relative_to_the_file(void **state) {
  (void)state;
  static const struct {
    const char *file, *base, *shards, *result;
  } cases[] = {{"run.yaml", "../b", "shards", "/r.h5"},
               {"a/b/run.yaml", "a/b/../b", "a/b/shards", "/r.h5"},
               {"/x/run.yaml", "/x/../b", "/x/shards", "/r.h5"},
               {"/run.yaml", "/../b", "/shards", "/r.h5"}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    mg_config *c;
    const char *text = "family: {base: ../b, sources: {x: '../s'}}\nresult: /r.h5\n";
    assert_int_equal(parse_with(cases[k].file, text, NULL, NULL, &c), MG_OK);
    assert_string_equal(c->file, cases[k].file);
    assert_string_equal(c->family.base, cases[k].base);
    assert_string_equal(c->shards.dir, cases[k].shards);
    assert_string_equal(c->result, cases[k].result);
    mg_config_free(&c);
    assert_int_equal(parse_with(cases[k].file, text, "family.base=../b", NULL, &c), MG_OK);
    assert_string_equal(c->family.base, cases[k].base);
    mg_config_free(&c);
  }
}

static void byte_order_mark_and_crlf(void **state) {
  (void)state;
  mg_config *c = good("\xEF\xBB\xBF"
                      "family:\r\n  base: b\r\n  sources: s_{locale}\r\nseed: 7\r\n",
                      NULL, NULL);
  assert_string_equal(c->family.base, "b");
  assert_string_equal(c->family.pattern, "s_{locale}");
  assert_true(c->seed == 7);
  mg_config_free(&c);
}

static void shipped_configurations(void **state) {
  (void)state;
  static const char *const names[] = {"example.yaml", "emoji48.yaml", "xlmr-massive-48.yaml"};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    char path[512];
    char *text;
    size_t size;
    mg_config *c = NULL;
    snprintf(path, sizeof path, MG_SOURCE_DIR "/configs/%s", names[k]);
    assert_int_equal(mg_read_file(path, 1 << 20, &text, &size), MG_OK);
    if (mg_config_parse(path, text, size, NULL, &c) != MG_OK) fail_msg("%s", mg_error_message());
    if (k == 1) {
      mg_source_list list;
      assert_int_equal(mg_sources_resolve(&c->family, NULL, NULL, &list), MG_OK);
      assert_int_equal(list.count, 48);
      mg_source_list_free(&list);
      assert_true(mg_path_is_dir(c->family.base));
    }
    if (k == 2) assert_int_equal(c->family.locales.count, 48);
    mg_config_free(&c);
    free(text);
  }
}

/* The example has every key, and the defaults where it has values. */
static void example_is_complete(void **state) {
  (void)state;
  char *text;
  size_t size;
  mg_config *example = NULL, *plain = NULL;
  mg_text a = {0}, b = {0};
  assert_int_equal(mg_read_file(MG_SOURCE_DIR "/configs/example.yaml", 1 << 20, &text, &size), MG_OK);
  assert_int_equal(mg_config_parse("/d/run.yaml", text, size, NULL, &example), MG_OK);
  plain = good(MINIMAL, NULL, NULL);
  mg_config_free(&plain);
  assert_int_equal(parse_with("/d/run.yaml", MINIMAL, "family.base=../models/xlm-roberta-base",
                              "family.sources=../models/xlm-roberta-base_massive_k_{locale}", &plain),
                   MG_OK);
  assert_int_equal(mg_config_resolved(example, &a), MG_OK);
  assert_int_equal(mg_config_resolved(plain, &b), MG_OK);
  assert_string_equal(a.data, b.data);
  for (char *line = b.data; line != NULL; line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
    char key[64];
    if (sscanf(line, " %60[a-z_]", key) != 1) continue;
    strcat(key, ":");
    if (strstr(text, key) == NULL) fail_msg("configs/example.yaml lacks %s", key);
  }
  mg_text_free(&a);
  mg_text_free(&b);
  mg_config_free(&example);
  mg_config_free(&plain);
  free(text);
}

static void help_names_every_key(void **state) {
  (void)state;
  static const char *const keys[] = {"family.base",
                                     "family.sources",
                                     "family.locales",
                                     "family.missing",
                                     "family.allow_nonfinite",
                                     "shards.dir",
                                     "shards.dtype",
                                     "shards.stage_to",
                                     "stages",
                                     "compatibility.metrics",
                                     "compatibility.exclude",
                                     "compatibility.gram",
                                     "recipe.lambda_rule",
                                     "grid.compatibility.tv",
                                     "grid.partition",
                                     "grid.preset",
                                     "grid.fixed",
                                     "grid.sweep",
                                     "grid.phases",
                                     "reuse",
                                     "compute.backend",
                                     "compute.threads",
                                     "compute.memory_budget",
                                     "compute.precision",
                                     "result",
                                     "seed"};
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  assert_non_null(out);
  mg_config_help(out);
  fclose(out);
  for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) assert_non_null(strstr(text, keys[k]));
  assert_non_null(strstr(text, "2GiB"));
  assert_non_null(strstr(text, "f32, bf16 or f16"));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(defaults),
                                     cmocka_unit_test(every_key),
                                     cmocka_unit_test(shards_in_short),
                                     cmocka_unit_test(directories_of_nodes),
                                     cmocka_unit_test(sizes),
                                     cmocka_unit_test(paths_are_relative_to_the_file),
                                     cmocka_unit_test(byte_order_mark_and_crlf),
                                     cmocka_unit_test(shipped_configurations),
                                     cmocka_unit_test(example_is_complete),
                                     cmocka_unit_test(help_names_every_key)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
