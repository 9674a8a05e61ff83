#ifndef MERGEGRID_TEST_RECIPES_H
#define MERGEGRID_TEST_RECIPES_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/grid.h"

#define MINIMAL "family: {base: b, sources: 's_{locale}'}\n"

static inline mg_config *parsed(const char *text) {
  mg_config *config = NULL;
  if (mg_config_parse("run.yaml", text, strlen(text), NULL, &config) != MG_OK) fail_msg("%s\n%s", mg_error_message(), text);
  return config;
}

static inline mg_strings strings(const char *const *items) {
  mg_strings list = {0};
  for (; *items != NULL; items++) assert_int_equal(mg_strings_add(&list, *items), MG_OK);
  return list;
}
#define STRINGS(...) strings((const char *const[]){__VA_ARGS__, NULL})

static inline mg_grid expanded(const mg_config *config, const mg_strings *targets) {
  mg_grid grid;
  if (mg_grid_expand(config, targets, &grid) != MG_OK) fail_msg("%s", mg_error_message());
  return grid;
}

static inline void assert_says(const char *part) {
  if (strstr(mg_error_message(), part) == NULL) fail_msg("'%s' lacks '%s'", mg_error_message(), part);
}

#endif
