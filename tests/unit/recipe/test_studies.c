/* The shipped grids: every one of them expands, to as many cells as the studies had. */

#include <dirent.h>

#include "mergegrid/io.h"
#include "recipes.h"

#define CONFIGS MG_SOURCE_DIR "/configs/"

static mg_config *shipped(const char *name) {
  char path[512], *text;
  size_t size;
  mg_config *config = NULL;
  snprintf(path, sizeof path, CONFIGS "%s", name);
  assert_int_equal(mg_read_file(path, 1 << 20, &text, &size), MG_OK);
  if (mg_config_parse(path, text, size, NULL, &config) != MG_OK) fail_msg("%s", mg_error_message());
  free(text);
  return config;
}

/* The 48 locales that the configurations are meant for. */
static mg_strings locales(void) {
  mg_strings list = {0};
  mg_config *config = shipped("xlmr-massive-48.yaml");
  for (size_t k = 0; k < config->family.locales.count; k++)
    assert_int_equal(mg_strings_add(&list, config->family.locales.items[k]), MG_OK);
  mg_config_free(&config);
  return list;
}

static void expect_cells(const char *name, size_t cells, size_t duplicates) {
  mg_strings targets = locales();
  mg_config *config = shipped(name);
  mg_grid grid = expanded(config, &targets);
  if (grid.count != cells || grid.duplicate_count != duplicates)
    fail_msg("%s: %zu cells and %zu duplicates", name, grid.count, grid.duplicate_count);
  for (size_t k = 0; k < grid.count; k++) assert_true(mg_strings_find(&targets, grid.cells[k].terms.locale) >= 0);
  mg_grid_free(&grid);
  mg_config_free(&config);
  mg_strings_free(&targets);
}

static const struct {
  const char *name;
  size_t cells;
} STUDIES[] = {{"overnight", 24},
               {"paper-exploration", 40},
               {"number-of-sources", 6},
               {"method-comparison", 6},
               {"constructive", 8},
               {"source-compatibility", 6},
               {"neuromerging", 9},
               {"directional-alpha", 10},
               {"statsmerging", 12}, /* of 43: what needs no statsmerging */
               {"ensemble-against-merging", 84},
               {"predictor-validation", 12},
               {"layer-ablation", 10 * 112},
               {"include-only", 3 * 2 * 56},
               {"layer-swap", 3 * 8}};
enum { STUDY_COUNT = sizeof STUDIES / sizeof *STUDIES };

static void studies(void **state) {
  (void)state;
  for (size_t k = 0; k < STUDY_COUNT; k++) {
    char name[64];
    snprintf(name, sizeof name, "ablations/%s.yaml", STUDIES[k].name);
    expect_cells(name, STUDIES[k].cells, 0);
  }
}

/* No file of the directory is forgotten here. */
static void all_are_known(void **state) {
  (void)state;
  DIR *dir = opendir(CONFIGS "ablations");
  size_t files = 0;
  assert_non_null(dir);
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    char name[300];
    bool known = strcmp(entry->d_name, "all-studies.yaml") == 0 || entry->d_name[0] == '.';
    for (size_t k = 0; k < STUDY_COUNT && !known; k++) {
      snprintf(name, sizeof name, "%s.yaml", STUDIES[k].name);
      known = strcmp(name, entry->d_name) == 0;
    }
    if (!known) fail_msg("%s", entry->d_name);
    files += entry->d_name[0] != '.';
  }
  assert_int_equal(files, STUDY_COUNT + 1);
  closedir(dir);
}

static void together(void **state) {
  (void)state;
  size_t all = 0;
  for (size_t k = 0; k < STUDY_COUNT; k++) all += STUDIES[k].cells;
  /* what studies share: the same similarity merges of sw-KE, cy-GB and vi-VN, mostly */
  expect_cells("ablations/all-studies.yaml", all - 32, 32);
}

static void nightly(void **state) {
  (void)state;
  expect_cells("nightly-full-grid.yaml", 48 * (2 * 2 * 4 * 23 + 2), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(studies), cmocka_unit_test(all_are_known), cmocka_unit_test(together),
                                     cmocka_unit_test(nightly)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
