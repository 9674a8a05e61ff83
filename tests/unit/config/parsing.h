#ifndef MERGEGRID_TEST_PARSING_H
#define MERGEGRID_TEST_PARSING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/config.h"

#define MINIMAL "family: {base: b, sources: 's_{locale}'}\n"

/* Parses text as the file `run.yaml` with at most two settings; the caller frees. */
static mg_status parse_with(const char *file, const char *text, const char *first, const char *second, mg_config **config) {
  mg_strings settings = {0};
  *config = NULL;
  if (first != NULL) assert_int_equal(mg_strings_add(&settings, first), MG_OK);
  if (second != NULL) assert_int_equal(mg_strings_add(&settings, second), MG_OK);
  const mg_status status = mg_config_parse(file, text, strlen(text), &settings, config);
  mg_strings_free(&settings);
  if (status != MG_OK) assert_null(*config);
  return status;
}

/* A configuration that has to be good; the caller frees. */
static inline mg_config *good(const char *text, const char *first, const char *second) {
  mg_config *config;
  if (parse_with("run.yaml", text, first, second, &config) != MG_OK) fail_msg("%s", mg_error_message());
  return config;
}

/* The message's beginning, and words that it has to hold (NULL-terminated). */
static inline void expect_message(const char *text, const char *begin, const char *const *words) {
  const char *message = mg_error_message();
  if (strncmp(message, begin, strlen(begin)) != 0) fail_msg("%s\n  gives: %s\n  not:   %s…", text, message, begin);
  for (; *words != NULL; words++)
    if (strstr(message, *words) == NULL) fail_msg("%s\n  gives: %s\n  which lacks: %s", text, message, *words);
}

/* A file that has to be refused: at "line:column", with these words. */
static inline void refused(const char *text, size_t size, const char *position, const char *const *words) {
  char begin[64];
  mg_config *config = NULL;
  assert_int_equal(mg_config_parse("dir/run.yaml", text, size, NULL, &config), MG_ERR_CONFIG);
  assert_null(config);
  snprintf(begin, sizeof begin, "dir/run.yaml:%s: ", position);
  expect_message(text, begin, words);
}

#define REFUSED(text, position, ...) refused(text, sizeof(text) - 1, position, (const char *const[]){__VA_ARGS__, NULL})

/* A setting that has to be refused. */
static inline void setting_refused(const char *setting, const char *const *words) {
  char begin[512];
  mg_config *config;
  assert_int_equal(parse_with("run.yaml", MINIMAL, setting, NULL, &config), MG_ERR_CONFIG);
  snprintf(begin, sizeof begin, "--set %s: ", setting);
  expect_message(setting, begin, words);
}

#define SETTING_REFUSED(setting, ...) setting_refused(setting, (const char *const[]){__VA_ARGS__, NULL})

#endif
