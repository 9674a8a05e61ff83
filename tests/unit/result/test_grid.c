/* The grid in a result: written, read back field by field, its statistics, damage. `test_grid FILE` only writes the file. */
#include "mergegrid/result_grid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/io.h"
#include "mergegrid/statistics.h"
#include "small_grid.h"
#include "unit/scratch.h"

static small_grid made;

static void assert_text(const char *read, const char *wrote) { assert_string_equal(read, wrote != NULL ? wrote : ""); }

/* Bit by bit, NaN included. */
static void assert_number(double read, double wrote) { assert_memory_equal(&read, &wrote, sizeof read); }

static void assert_near(double a, double b) { assert_true(fabs(a - b) <= 1e-12); }

static void assert_cell(const mg_result_cell *read, const mg_result_cell *wrote) {
  const char *const *const texts[2][16] = {
      {&read->key, &read->recipe, &read->locale, &read->method, &read->parameters, &read->similarity_type, &read->preset,
       &read->head, &read->phase, &read->status, &read->error, &read->sources, &read->note, &read->terms},
      {&wrote->key, &wrote->recipe, &wrote->locale, &wrote->method, &wrote->parameters, &wrote->similarity_type, &wrote->preset,
       &wrote->head, &wrote->phase, &wrote->status, &wrote->error, &wrote->sources, &wrote->note, &wrote->terms}};
  for (size_t k = 0; texts[0][k] != NULL; k++) assert_text(*texts[0][k], *texts[1][k]);
  assert_int_equal(read->num_languages, wrote->num_languages);
  assert_int_equal(read->num_sources, wrote->num_sources);
  assert_int_equal(read->include_target, wrote->include_target);
  assert_int_equal(read->seed, wrote->seed);
  assert_number(read->accuracy, wrote->accuracy);
  assert_number(read->macro_f1, wrote->macro_f1);
  assert_number(read->select_accuracy, wrote->select_accuracy);
  assert_number(read->best_source, wrote->best_source);
  assert_number(read->best_zero_shot, wrote->best_zero_shot);
  assert_number(read->own, wrote->own);
  assert_number(read->merging_effect, wrote->merging_effect);
  assert_number(read->delta_vs_similarity, wrote->delta_vs_similarity);
  assert_int_equal(read->prediction_row, wrote->prediction_row);
  assert_int_equal(read->same_as, wrote->same_as);
  assert_int_equal(read->matched, wrote->matched);
}

static void written_and_read_back(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  mg_grid_table table;
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  assert_int_equal(mg_result_verify(path), MG_OK);
  assert_int_equal(mg_grid_table_read(path, &table), MG_OK);
  assert_int_equal(table.cell_count, SG_CELLS);
  assert_int_equal(table.source_count, SG_SOURCES);
  for (size_t c = 0; c < SG_CELLS; c++) assert_cell(&table.cells[c], &made.cells[c]);
  assert_int_equal(table.swept.count, 2);
  assert_string_equal(table.swept.items[1], "exclude_layers.layers");
  for (size_t k = 0; k < 2 * SG_CELLS; k++) assert_string_equal(table.swept_values[k], made.swept_values[k]);
  assert_memory_equal(table.weights, made.weights, sizeof made.weights);
  assert_memory_equal(table.selected, made.selected, sizeof made.selected);
  assert_string_equal(table.partition, "test");
  assert_false(table.selected_on_partition);
  assert_int_equal(table.targets.count, SG_TARGETS);
  mg_grid_table_free(&table);
  free(path);
}

static void matrices_and_conditions(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  mg_grid_reader *reader = NULL;
  mg_grid_table table;
  mg_labelled_table matrix;
  bool take[SG_CELLS];
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  assert_int_equal(mg_grid_open(path, &reader), MG_OK);
  assert_int_equal(mg_grid_read_matrix(reader, "URIEL", &matrix), MG_OK);
  assert_int_equal(matrix.rows.count, SG_LABELS + 1);
  assert_string_equal(matrix.columns.items[SG_LABELS], "es-ES");
  assert_memory_equal(matrix.values, made.uriel, sizeof made.uriel);
  mg_labelled_table_free(&matrix);
  assert_int_equal(mg_grid_read_matrix(reader, "SYNTAX", &matrix), MG_ERR_INPUT);
  assert_int_equal(mg_grid_read_table(reader, &table), MG_OK);
  assert_int_equal(mg_grid_table_where(&table, "--best", "locale=sw-KE,ties.density=0.10", take), MG_OK);
  for (size_t c = 0; c < SG_CELLS; c++)
    assert_int_equal(take[c], strcmp(made.cells[c].locale, "sw-KE") == 0 && strcmp(made.swept_values[c], "0.1") == 0);
  assert_int_equal(mg_grid_table_where(&table, "--best", "langauge=sw-KE", take), MG_ERR_USAGE);
  assert_non_null(strstr(mg_error_message(), "--best: 'langauge'"));
  assert_int_equal(mg_grid_table_where(&table, "--best", "locale=it-IT", take), MG_ERR_INPUT);
  mg_grid_table_free(&table);
  mg_grid_close(&reader);
  free(path);
}

static void answers_are_read_back(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  for (size_t t = 0; t < SG_TARGETS; t++) {
    mg_grid_answers a;
    assert_int_equal(mg_grid_answers_read(path, sg_targets[t], &a), MG_OK);
    assert_int_equal(a.texts, SG_TEXTS);
    assert_memory_equal(a.label, made.labels[t], sizeof made.labels[t]);
    for (size_t c = 0; c < SG_CELLS; c++)
      if (made.cells[c].prediction_row >= 0 && strcmp(made.cells[c].locale, sg_targets[t]) == 0)
        assert_memory_equal(a.predictions + made.cells[c].prediction_row * SG_TEXTS, made.predictions[c],
                            sizeof made.predictions[c]);
    size_t selects = 0;
    for (size_t k = 0; k < SG_TEXTS; k++) {
      assert_int_equal(a.scored[k], strcmp(made.partitions[t][k], "test") == 0);
      selects += a.selects[k];
    }
    for (int own = 0; own < 2; own++) {
      const int32_t *said = own ? a.best_source : a.best_zero_shot;
      double best = 0;
      size_t right = 0;
      for (size_t s = 0; s < SG_SOURCES; s++)
        if (made.accuracy[1][s][t] > best && (own || strcmp(sg_ids[s], sg_targets[t]) != 0)) best = made.accuracy[1][s][t];
      for (size_t k = 0; k < SG_TEXTS; k++) right += a.selects[k] && said[k] == a.label[k];
      assert_number((double)right / (double)selects, best);
    }
    mg_grid_answers_free(&a);
  }
  free(path);
}

/* A setting's pooled difference is the mean over texts of right minus right, whatever the order it is summed in. */
static void statistics_of_methods(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  mg_grid_table table;
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  assert_int_equal(mg_grid_table_read(path, &table), MG_OK);
  assert_int_equal(table.method_count, SG_SETTINGS);
  for (size_t s = 0; s < SG_SETTINGS; s++) {
    const mg_result_method *m = &table.methods[s];
    double sum = 0, places = 0, accuracy = 0;
    int64_t cells = 0, pairs = 0;
    assert_string_equal(m->method, sg_settings[s].method);
    for (size_t c = s; c < SG_CELLS; c += SG_SETTINGS) {
      const mg_result_cell *cell = &made.cells[c], *other = &made.cells[cell->matched];
      if (strcmp(cell->status, "completed") != 0) continue;
      cells++;
      accuracy += cell->accuracy;
      pairs += s > 0;
      for (size_t k = 0; s > 0 && cell->prediction_row >= 0 && k < SG_TEXTS; k++) {
        const size_t t = c / (SG_MATRICES * SG_SETTINGS);
        if (strcmp(made.partitions[t][k], "test") != 0) continue;
        sum += (made.predictions[c][k] == made.labels[t][k]) - (made.predictions[other - made.cells][k] == made.labels[t][k]);
        places++;
      }
    }
    assert_int_equal(m->cells, cells);
    assert_int_equal(m->pairs, pairs);
    assert_int_equal(m->wins + m->losses + m->draws, pairs);
    assert_near(m->accuracy, accuracy / (double)cells);
    if (s == 0) {
      assert_true(isnan(m->delta) && isnan(m->p_holm)); /* it is what the others are compared with */
      continue;
    }
    assert_near(m->delta, sum / places);
    assert_true(m->delta_low < m->delta && m->delta < m->delta_high);
    assert_true(m->p_holm >= m->p && m->p_holm <= 1);
  }
  assert_int_equal(table.methods[5].failed, 1);
  mg_grid_table_free(&table);
  free(path);
}

/* Only cells that are taken count; what they are compared with need not be among them. */
static void statistics_of_some_cells(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  bool take[SG_CELLS] = {false};
  size_t texts[SG_TARGETS] = {SG_TEXTS, SG_TEXTS, SG_TEXTS};
  const mg_strings targets = {SG_TARGETS, sg_targets};
  mg_grid_tables some = {0};
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  for (size_t c = 0; c < SG_CELLS; c++) take[c] = c % SG_SETTINGS == 2 && c < SG_MATRICES * SG_SETTINGS;
  const mg_grid_statistics_input input = {.cell_count = SG_CELLS,
                                          .cells = made.cells,
                                          .take = take,
                                          .targets = &targets,
                                          .texts = texts,
                                          .context = &made,
                                          .answers = sg_answers};
  assert_int_equal(mg_grid_statistics(&input, &some), MG_OK);
  assert_int_equal(some.method_count, 1);
  assert_int_equal(some.methods[0].pairs, 2);
  assert_near(some.methods[0].delta, (made.cells[2].delta_vs_similarity + made.cells[9].delta_vs_similarity) / 2);
  assert_int_equal(some.best_count, 1);
  const size_t better = made.cells[9].select_accuracy > made.cells[2].select_accuracy ? 9 : 2;
  assert_int_equal(some.best[0].cell, better);
  assert_true(some.best[0].p >= 0 && some.best[0].p <= 1);
  mg_grid_tables_free(&some);
  free(path);
}

/* The best recipe is no baseline, is chosen on dev, and compared with the best source's own answers. */
static void best_of_each_target(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  mg_grid_table table;
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  assert_int_equal(mg_grid_table_read(path, &table), MG_OK);
  assert_int_equal(table.best_count, SG_TARGETS);
  for (size_t t = 0; t < SG_TARGETS; t++) {
    assert_string_equal(table.best[t].locale, sg_targets[t]);
    assert_string_not_equal(table.cells[table.best[t].cell].method, "own");
    for (size_t c = 0; c < SG_CELLS; c++)
      if (strcmp(made.cells[c].locale, sg_targets[t]) == 0 && strcmp(made.cells[c].method, "own") != 0)
        assert_false(made.cells[c].select_accuracy > table.best[t].select_accuracy);
  }
  mg_grid_table_free(&table);
  free(path);
}

/* Every source but the target's own has failed: there is no best one. */
static mg_status without_others(void *context, size_t target, mg_grid_answers *a) {
  const mg_status status = sg_answers(context, target, a);
  free(a->best_zero_shot);
  a->best_zero_shot = NULL;
  return status;
}

static void best_without_a_best_source(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  size_t texts[SG_TARGETS] = {SG_TEXTS, SG_TEXTS, SG_TEXTS}, without = 0;
  const mg_strings targets = {SG_TARGETS, sg_targets};
  mg_grid_tables tables = {0};
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  const mg_grid_statistics_input input = {.cell_count = SG_CELLS,
                                          .cells = made.cells,
                                          .targets = &targets,
                                          .texts = texts,
                                          .context = &made,
                                          .answers = without_others};
  assert_int_equal(mg_grid_statistics(&input, &tables), MG_OK);
  for (size_t k = 0; k < tables.best_count; k++) {
    const bool own_too = made.cells[tables.best[k].cell].include_target;
    assert_int_equal(isnan(tables.best[k].delta_vs_best_source), !own_too);
    assert_int_equal(isnan(tables.best[k].p), !own_too);
    without += !own_too;
  }
  assert_true(without > 0);
  mg_grid_tables_free(&tables);
  free(path);
}

static void pairs_of_cells(void **state) {
  (void)state;
  int32_t label[] = {0, 1, 2, 3, 0, 1}, x[] = {0, 1, 2, 0, 1, 1}, y[] = {0, 0, 2, 1, 0, -1};
  bool scored[] = {true, true, true, true, true, false};
  const mg_grid_answers a = {.texts = 6, .label = label, .scored = scored};
  mg_cell_comparison c;
  assert_int_equal(mg_compare_predictions(&a, x, y, &c), MG_OK);
  assert_int_equal(c.texts, 5);
  assert_int_equal(c.both, 2);
  assert_int_equal(c.only_first, 1);
  assert_int_equal(c.only_second, 1);
  assert_int_equal(c.neither, 1);
  assert_int_equal(c.differ, 3);
  assert_near(c.delta, 0);
  assert_near(c.p, 1);
}

static void cells_are_found_by_prefix(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), cut[17];
  mg_grid_table table;
  size_t found;
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  assert_int_equal(mg_grid_table_read(path, &table), MG_OK);
  for (size_t c = 0; c < SG_CELLS; c++) {
    snprintf(cut, sizeof cut, "%.8s", made.cells[c].key);
    assert_int_equal(mg_grid_table_find(&table, cut, &found), MG_OK);
    assert_int_equal(found, c);
  }
  assert_int_equal(mg_grid_table_find(&table, "xyz", &found), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "begins with 'xyz'"));
  snprintf(cut, sizeof cut, "%.15sx", made.cells[3].key);
  assert_int_equal(mg_grid_table_find(&table, cut, &found), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), made.cells[3].key));
  int most = 0;
  for (char digit = '0'; digit <= 'f'; digit = (char)(digit == '9' ? 'a' : digit + 1)) {
    int count = 0;
    for (size_t c = 0; c < SG_CELLS; c++) count += made.cells[c].key[0] == digit;
    const char key[] = {digit, '\0'};
    if (count < 2) continue;
    most = count;
    assert_int_equal(mg_grid_table_find(&table, key, &found), MG_ERR_INPUT);
    assert_non_null(strstr(mg_error_message(), "cells have a key that begins"));
  }
  assert_true(most > 1);
  mg_grid_table_free(&table);
  free(path);
}

/* Wherever it is cut and whatever is asked of it, a damaged file is refused. */
static void damage_is_refused(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), *data = NULL;
  size_t size;
  mg_grid_table table;
  mg_grid_answers answers;
  assert_int_equal(small_grid_write(path, &made), MG_OK);
  assert_int_equal(mg_read_file(path, 1 << 24, &data, &size), MG_OK);
  for (size_t cut = 0; cut < size; cut += size / 7) {
    assert_int_equal(mg_replace_file(path, data, cut), MG_OK);
    assert_int_not_equal(mg_grid_table_read(path, &table), MG_OK);
    assert_int_not_equal(mg_grid_answers_read(path, "sw-KE", &answers), MG_OK);
  }
  const double needle = made.cells[4].macro_f1;
  char *found = memmem(data, size, &needle, sizeof needle);
  assert_non_null(found);
  *found ^= 1;
  assert_int_equal(mg_replace_file(path, data, size), MG_OK);
  assert_int_equal(mg_result_verify(path), MG_ERR_CORRUPT);
  assert_non_null(strstr(mg_error_message(), "/grid/cells/macro_f1 does not match its checksum"));
  free(data), free(path);
}

int main(int argc, char **argv) {
  if (argc == 2) return small_grid_write(argv[1], NULL) == MG_OK ? 0 : 1;
  const struct CMUnitTest tests[] = {cmocka_unit_test(written_and_read_back),    cmocka_unit_test(matrices_and_conditions),
                                     cmocka_unit_test(answers_are_read_back),    cmocka_unit_test(statistics_of_methods),
                                     cmocka_unit_test(statistics_of_some_cells), cmocka_unit_test(best_of_each_target),
                                     cmocka_unit_test(statistics_of_some_cells), cmocka_unit_test(best_without_a_best_source),
                                     cmocka_unit_test(pairs_of_cells),           cmocka_unit_test(cells_are_found_by_prefix),
                                     cmocka_unit_test(damage_is_refused)};
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
