/* init: what it prints is a configuration, and what does not meet is named. */

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/init_impl.h"
#include "mergegrid/config.h"
#include "mergegrid/io.h"
#include "unit/cli/init_text.h"

#define FAMILY  MG_TEST_DATA "/emoji48"
#define BASE    FAMILY "/xlm-roberta-emoji"
#define SOURCES FAMILY "/xlm-roberta-emoji_k_{locale}"

/* ---- a family of the test's own ---- */

static int make_place(void **state) {
  char *dir = strdup("init-test-XXXXXX");
  *state = dir;
  return dir != NULL && mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_place(void **state) {
  char command[256];
  snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
  free(*state);
  return system(command);
}

static char *place(void **state, const char *name) {
  static char paths[256][512]; /* more than any test asks for */
  static int turn;
  char *path = paths[turn++ % 256];
  snprintf(path, sizeof paths[0], "%s/%s", (char *)*state, name);
  return path;
}

static void write_text(const char *path, const char *text) {
  char *dir = mg_path_dirname(path);
  assert_int_equal(mg_make_dirs(dir), MG_OK);
  assert_int_equal(mg_replace_file(path, text, strlen(text)), MG_OK);
  free(dir);
}

/* A checkpoint of F32 tensors of two elements each. */
static void write_checkpoint(void **state, const char *name, const char *const *tensors) {
  char path[4200], header[4096] = "{";
  size_t length = 1, count = 0;
  for (; tensors[count] != NULL; count++)
    length += (size_t)snprintf(header + length, sizeof header - length,
                               "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%zu,%zu]}", count ? "," : "",
                               tensors[count], 8 * count, 8 * count + 8);
  length += (size_t)snprintf(header + length, sizeof header - length, "}");
  snprintf(path, sizeof path, "%s/config.json", place(state, name));
  write_text(path, "{\"model_type\": \"test\"}");
  snprintf(path, sizeof path, "%s/model.safetensors", place(state, name));
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  const uint64_t size = length;
  static const float zeros[128];
  assert_int_equal(fwrite(&size, sizeof size, 1, file), 1);
  assert_int_equal(fwrite(header, 1, length, file), length);
  assert_int_equal(fwrite(zeros, 8, count, file), count);
  assert_int_equal(fclose(file), 0);
}

/* ---- calling it ---- */

static void assert_refused(const mg_init_options *options, mg_status code, const char *part) {
  char *text;
  assert_int_equal(print(options, &text), code);
  assert_has(mg_error_message(), part);
  free(text);
}

static mg_config *parsed(const char *text) {
  mg_config *config = NULL;
  if (mg_config_parse("run.yaml", text, strlen(text), NULL, &config) != MG_OK) fail_msg("%s\n%s", mg_error_message(), text);
  return config;
}

/* ---- the demonstration's family ---- */

static void prints_a_configuration(void **state) {
  (void)state;
  const mg_init_options options = {.base = BASE, .sources = SOURCES};
  char *text = printed(&options);
  mg_config *config = parsed(text), *plain = parsed("family:\n  base: " BASE "\n  sources: " SOURCES "\n");
  mg_text a = {0}, b = {0};
  /* nothing but the defaults, whatever they are */
  assert_int_equal(mg_config_resolved(config, &a), MG_OK);
  assert_int_equal(mg_config_resolved(plain, &b), MG_OK);
  assert_string_equal(a.data, b.data);
  assert_has(text, "# 48 sources: af-ZA, am-ET,");
  assert_has(text, " vi-VN\n");
  assert_has(text, "# each: 73 tensors, 595305 parameters, F16, 1.1 MiB in files; all: 55 MiB\n");
  assert_has(text, "# 4 layers: roberta.encoder.layer.0,");
  assert_has(text, "# 41 labels: alphanum, animal-bird,");
  assert_has(text, "# tensors that only the sources have: classifier.dense.bias,");
  assert_null(strstr(text, "similarity"));
  assert_null(strstr(text, "texts"));
  mg_text_free(&a);
  mg_text_free(&b);
  mg_config_free(&config);
  mg_config_free(&plain);
  free(text);
}

static void names_what_does_not_meet(void **state) {
  (void)state;
  const mg_init_options options = {.base = BASE,
                                   .sources = SOURCES,
                                   .similarity = FAMILY "/uriel_similarity_50.csv",
                                   .texts = FAMILY "/texts/{locale}.jsonl"};
  char *text = printed(&options);
  mg_config *config = parsed(text);
  assert_has(text, "# 50 rows, 50 columns\n"
                   "#   labels that have no checkpoint: zh-TW\n"
                   "#   checkpoints that have no label: none\n"
                   "#   labels that are repeated: zh-TW\n");
  assert_has(text, "# 48 files\n"
                   "#   texts that have no checkpoint: none\n"
                   "#   checkpoints that have no texts: none\n");
  assert_has(text, "\ntexts: {files: ");
  assert_has(text, "\ngrid: {similarity: ");
  mg_config_free(&config);
  free(text);
}

/* ---- families and matrices of the test's own ---- */

static const char *const LLAMA_BASE[] = {"model.embed.weight", "model.layers.0.mlp.weight", "lm_head.weight", NULL};
static const char *const LLAMA_SOURCE[] = {"model.embed.weight", "model.layers.0.mlp.weight", "score.weight", NULL};
static const char *const POOLED_SOURCE[] = {"model.embed.weight", "model.layers.0.mlp.weight", "model.pooler.dense.weight",
                                            NULL};

static mg_init_options small_family(void **state, const char *const *source) {
  write_checkpoint(state, "base", LLAMA_BASE);
  write_checkpoint(state, "k_fr", source);
  write_checkpoint(state, "k_sw ke", source);
  return (mg_init_options){.base = place(state, "base"), .sources = place(state, "k_{locale}")};
}

static void heads_are_excluded(void **state) {
  mg_init_options options = small_family(state, LLAMA_SOURCE);
  char *text = printed(&options);
  mg_config *config = parsed(text);
  assert_has(text, "# 2 sources: fr, sw ke\n");
  assert_has(text, "# 1 layers: model.layers.0\n");
  assert_has(text, "# 0 labels: none\n");
  assert_int_equal(config->compatibility.exclude.count, 2);
  assert_string_equal(config->compatibility.exclude.items[0], "classifier.*");
  assert_string_equal(config->compatibility.exclude.items[1], "score.*");
  mg_config_free(&config);
  free(text);
}

/* The glob for a head inside the backbone must not take the backbone along. */
static void poolers_are_excluded(void **state) {
  mg_init_options options = small_family(state, POOLED_SOURCE);
  char *text = printed(&options);
  mg_config *config = parsed(text);
  assert_int_equal(config->compatibility.exclude.count, 2);
  assert_string_equal(config->compatibility.exclude.items[1], "model.pooler.*");
  mg_config_free(&config);
  free(text);
}

static void one_source(void **state) {
  write_checkpoint(state, "base", LLAMA_BASE);
  write_checkpoint(state, "k_fr", LLAMA_SOURCE);
  const mg_init_options options = {.base = place(state, "base"), .sources = place(state, "k_{locale}")};
  char *text = printed(&options);
  assert_has(text, "# 1 source: fr\n");
  assert_has(text, "one source has no other to be compared with");
  free(text);
}

static void matrices_and_texts(void **state) {
  mg_init_options options = small_family(state, LLAMA_SOURCE);
  options.similarity = place(state, "matrix.csv");
  options.texts = place(state, "texts/{locale}/[1].txt");
  write_text(options.similarity, "\xEF\xBB\xBFx,fr,\"a \"\"b\"\"\",fr,\"c\nd\"\r\nfr,1,2,3,4\r\nonly row,1,2,3,4\r\n\r\n");
  write_text(place(state, "texts/fr/[1].txt"), "");
  write_text(place(state, "texts/de/[1].txt"), "");
  write_text(place(state, "texts/en/1.txt"), "");
  assert_int_equal(mg_make_dirs(place(state, "texts/it/[1].txt")), MG_OK);
  char *text = printed(&options);
  mg_config *config = parsed(text);
  assert_has(text, "# 2 rows, 4 columns\n"
                   "#   labels that have no checkpoint: a \\\"b\\\", c\\x0Ad\n"
                   "#   checkpoints that have no label: sw ke\n"
                   "#   labels that are repeated: fr\n"
                   "#   labels of rows that are no column: only row\n"
                   "#   labels of columns that are no row: a \\\"b\\\", c\\x0Ad\n");
  assert_has(text, "# 2 files\n"
                   "#   texts that have no checkpoint: de\n"
                   "#   checkpoints that have no texts: sw ke\n");
  mg_config_free(&config);
  free(text);
}

/* Names that would end a comment or a scalar if they were written as they are. */
static void names_cannot_break_out(void **state) {
  write_checkpoint(state, "base\nseed: 7 #\"", LLAMA_BASE);
  write_checkpoint(state, "k\n_a: \"#", LLAMA_SOURCE);
  write_checkpoint(state, "k\n_b\xE2\x80\xA8seed: 8", LLAMA_SOURCE);
  const mg_init_options options = {.base = place(state, "base\nseed: 7 #\""), .sources = place(state, "k\n_{locale}")};
  char *text = printed(&options);
  mg_config *config = parsed(text);
  assert_true(config->seed == 42);
  assert_string_equal(config->family.base, options.base);
  assert_string_equal(config->family.pattern, options.sources);
  mg_config_free(&config);
  free(text);
}

static void refusals(void **state) {
  mg_init_options good = small_family(state, LLAMA_SOURCE), bad = good;
  bad.sources = "models/all";
  assert_refused(&bad, MG_ERR_USAGE, "--sources: 'models/all' has no {locale}");
  bad.sources = "{locale}/{locale}";
  assert_refused(&bad, MG_ERR_USAGE, "more than one {locale}");
  bad.sources = place(state, "nothing_{locale}");
  assert_refused(&bad, MG_ERR_INPUT, "no directory matches");
  bad = good;
  bad.base = place(state, "gone");
  assert_refused(&bad, MG_ERR_INPUT, "no such directory");
  bad = good;
  bad.texts = "texts.txt";
  assert_refused(&bad, MG_ERR_USAGE, "--texts");
  bad.texts = place(state, "{locale}.txt");
  assert_refused(&bad, MG_ERR_INPUT, "no file matches");
  write_text(place(state, "\xFF.txt"), "");
  assert_refused(&bad, MG_ERR_INPUT, "a name in UTF-8 was expected");
  static const char *const other[] = {"model.embed.weight", "model.layers.0.mlp.weight", "score.bias", NULL};
  write_checkpoint(state, "k_other", other);
  assert_refused(&good, MG_ERR_INPUT, "score.bias");
  assert_int_equal(rename(place(state, "k_other"), place(state, "k_\xFF")), 0);
  write_checkpoint(state, "k_\xFF", LLAMA_SOURCE);
  assert_refused(&good, MG_ERR_CONFIG, "UTF-8");
}

static void bad_matrices(void **state) {
  static const struct {
    const char *text, *message;
  } cases[] = {{"", "labels behind the first comma were expected"},
               {"\n", "labels behind the first comma were expected"},
               {",a,b\n", "no row of values"},
               {",a,b\na,1,2\nb,1\n", "matrix.csv:3: has 1 values; 2 were expected"},
               {",a,b\na,1,2,3\n", "matrix.csv:2: has 3 values; 2 were expected"},
               {",\"a\nb\"\nx,1,1\n", "matrix.csv:3: has 2 values; 1 were expected"},
               {",a,\"b\n", "matrix.csv:1: a quote is opened and not closed"},
               {",a,\"b\"c\n", "a comma was expected behind the closing quote"},
               {",\xFF\na,1\n", "UTF-8"}};
  mg_init_options options = small_family(state, LLAMA_SOURCE);
  options.similarity = place(state, "matrix.csv");
  assert_refused(&options, MG_ERR_IO, "matrix.csv");
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    write_text(options.similarity, cases[k].text);
    assert_refused(&options, MG_ERR_INPUT, cases[k].message);
  }
}

static void a_full_device_is_noticed(void **state) {
  (void)state;
  const mg_init_options options = {.base = BASE, .sources = SOURCES};
  FILE *full = fopen("/dev/full", "w");
  if (full == NULL) skip();
  assert_int_equal(mg_init_print(&options, full), MG_ERR_IO);
  fclose(full);
}

int main(void) {
#define IN_A_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
  const struct CMUnitTest tests[] = {cmocka_unit_test(prints_a_configuration),
                                     cmocka_unit_test(names_what_does_not_meet),
                                     IN_A_PLACE(heads_are_excluded),
                                     IN_A_PLACE(poolers_are_excluded),
                                     IN_A_PLACE(one_source),
                                     IN_A_PLACE(matrices_and_texts),
                                     IN_A_PLACE(names_cannot_break_out),
                                     IN_A_PLACE(refusals),
                                     IN_A_PLACE(bad_matrices),
                                     cmocka_unit_test(a_full_device_is_noticed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
