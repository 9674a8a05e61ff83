/* A grid's manifest and answers in journals: written as the stage does, read back as show does, of several attempts and parts,
 * torn and damaged. */
#include "mergegrid/grid_journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/io.h"
#include "result/manifest_impl.h"
#include "result/run_impl.h"
#include "small_grid.h"
#include "unit/scratch.h"

enum { SENTENCES = SG_TEXTS, SAME = 20 }; /* SAME: a cell of the same recipe as the one before it */

static small_grid made;
static char result[96];

static int make_all(void **state) {
  if (make_dir(state) != 0) return 1;
  char *path = in_dir("small.h5");
  const mg_status status = small_grid_write(path, &made);
  free(path);
  snprintf(result, sizeof result, "%s/r.h5", dir);
  return status != MG_OK;
}

/* Before each test: no journals. */
static int clear(void **state) {
  char command[256];
  (void)state;
  snprintf(command, sizeof command, "rm -rf '%s'*", result);
  return system(command);
}

/* ---- as the stage writes it ---- */

/* The cells of `made` before anything is merged: `own` is known already. */
static void before(mg_result_cell cells[SG_CELLS], double mean[SG_CELLS]) {
  for (size_t c = 0; c < SG_CELLS; c++) {
    mg_result_cell *cell = &cells[c];
    *cell = made.cells[c];
    mean[c] = cell->accuracy - cell->merging_effect;
    if (strcmp(cell->method, "own") == 0 || strcmp(cell->status, "completed") != 0) continue;
    cell->status = "planned";
    cell->accuracy = cell->macro_f1 = cell->select_accuracy = cell->merging_effect = cell->delta_vs_similarity = NAN;
  }
  cells[SAME].same_as = SAME - 1;
}

static void write_manifest(const mg_result_cell *cells, const double *mean, mg_text *payload) {
  static bool scored[SG_TARGETS][SG_TEXTS], selects[SG_TARGETS][SG_TEXTS];
  static uint32_t position[SG_TEXTS];
  mg_manifest_texts texts[SG_TARGETS];
  for (size_t t = 0; t < SG_TARGETS; t++) {
    for (size_t k = 0; k < SG_TEXTS; k++) {
      position[k] = (uint32_t)(SENTENCES - 1 - k); /* in another order than the texts */
      scored[t][k] = strcmp(made.partitions[t][k], "test") == 0;
      selects[t][k] = t == 2 || !scored[t][k];
    }
    texts[t] = (mg_manifest_texts){.count = SG_TEXTS,
                                   .sequences = SENTENCES,
                                   .label = made.labels[t],
                                   .position = position,
                                   .scored = scored[t],
                                   .selects = selects[t]};
  }
  const mg_strings targets = {SG_TARGETS, sg_targets}, swept = {2, sg_swept};
  const mg_result_grid grid = {.cell_count = SG_CELLS,
                               .cells = cells,
                               .swept = &swept,
                               .swept_values = made.swept_values,
                               .targets = &targets,
                               .partition = "test"};
  const mg_grid_manifest manifest = {
      .grid = &grid, .source_mean = mean, .select = "dev", .classes = SG_CLASSES, .texts = texts};
  assert_int_equal(mg_grid_manifest_write(&manifest, payload), MG_OK);
}

/* What a merge says: its predictions by position, or a message. */
static void write_answer(size_t c, const char *message, mg_text *payload) {
  int32_t said[SENTENCES];
  const mg_grid_answer answer = {.recipe = strtoull(made.cells[c].recipe, NULL, 16),
                                 .failed = message != NULL,
                                 .size = message != NULL ? (uint32_t)strlen(message) : sizeof said};
  for (size_t k = 0; k < SENTENCES; k++) said[SENTENCES - 1 - k] = made.predictions[c][k];
  mg_text_append_bytes(payload, &answer, sizeof answer);
  mg_text_append_bytes(payload, message != NULL ? (const void *)message : said, answer.size);
}

static mg_run *begin(const char *path) {
  mg_run *run = NULL;
  bool complete;
  mg_identity identity = {0};
  assert_int_equal(mg_identity_add(&identity, "base", "1"), MG_OK);
  assert_int_equal(mg_run_open(path, MG_RUN_CONTINUE, &run), MG_OK);
  assert_int_equal(mg_run_check(run, &identity, NULL, NULL, &complete), MG_OK);
  mg_identity_free(&identity);
  return run;
}

static void append(mg_run *run, uint32_t kind, mg_text *payload) {
  assert_int_equal(mg_run_append(run, kind, payload->data, payload->size, NULL), MG_OK);
  mg_text_free(payload);
}

static void append_manifest(mg_run *run) {
  mg_result_cell cells[SG_CELLS];
  double mean[SG_CELLS];
  mg_text payload = {0};
  before(cells, mean);
  write_manifest(cells, mean, &payload);
  append(run, MG_RECORD_MANIFEST, &payload);
}

static void append_answer(mg_run *run, size_t c, const char *message) {
  mg_text payload = {0};
  write_answer(c, message, &payload);
  append(run, MG_RECORD_CELL, &payload);
}

static void stop(mg_run *run) { mg_run_close(&run, MG_STOPPED); }

/* ---- as show reads it ---- */

static void assert_number(double read, double wrote) { assert_true((isnan(read) && isnan(wrote)) || read == wrote); }

static bool is_planned(const mg_grid_progress *p, size_t c) { return strcmp(p->table.cells[c].status, "planned") == 0; }

/* A cell that was answered is as the finished result has it. */
static void assert_finished(const mg_grid_progress *p, size_t c) {
  const mg_result_cell *read = &p->table.cells[c], *wrote = &made.cells[c];
  assert_string_equal(read->key, wrote->key);
  assert_string_equal(read->status, "completed");
  assert_string_equal(read->sources, wrote->sources);
  assert_number(read->accuracy, wrote->accuracy);
  assert_number(read->macro_f1, wrote->macro_f1);
  assert_number(read->select_accuracy, wrote->select_accuracy);
  assert_number(read->best_zero_shot, wrote->best_zero_shot);
  assert_true(fabs(read->merging_effect - wrote->merging_effect) < 1e-12);
  assert_int_equal(read->prediction_row, -1);
}

static void nothing_is_known(void **state) {
  (void)state;
  mg_grid_progress p;
  assert_int_equal(mg_grid_progress_read(result, &p), MG_OK);
  assert_false(p.known);
  assert_int_equal(p.records, 0);
  mg_run *a = begin(result);
  append_answer(a, 1, NULL); /* as an earlier version journals it */
  assert_int_equal(mg_grid_progress_read(result, &p), MG_OK);
  assert_false(p.known);
  assert_int_equal(p.records, 1);
  stop(a);
}

static void attempts_and_failures(void **state) {
  (void)state;
  mg_grid_progress p;
  mg_run *a = begin(result);
  append_answer(a, 0, NULL); /* its manifest is another attempt's */
  append_answer(a, 1, NULL);
  stop(a);
  a = begin(result);
  append_manifest(a);
  append_answer(a, 3, "no memory");
  append_answer(a, SAME - 1, NULL);
  assert_int_equal(mg_grid_progress_read(result, &p), MG_OK); /* the run is still under way */
  assert_true(p.known);
  assert_int_equal(p.table.cell_count, SG_CELLS);
  assert_string_equal(p.table.partition, "test");
  assert_string_equal(p.select, "dev");
  assert_string_equal(p.table.swept.items[1], "exclude_layers.layers");
  for (size_t k = 0; k < 2 * SG_CELLS; k++) assert_string_equal(p.table.swept_values[k], made.swept_values[k]);
  assert_finished(&p, 0);
  assert_finished(&p, 1);
  assert_number(p.table.cells[1].delta_vs_similarity, made.cells[1].delta_vs_similarity);
  assert_finished(&p, 6); /* own */
  assert_string_equal(p.table.cells[3].status, "failed");
  assert_string_equal(p.table.cells[3].error, "no memory");
  assert_true(isnan(p.table.cells[3].delta_vs_similarity));
  assert_finished(&p, SAME - 1);
  assert_true(isnan(p.table.cells[SAME - 1].delta_vs_similarity)); /* what it is compared with is not there yet */
  assert_string_equal(p.table.cells[SAME].status, "completed");
  assert_number(p.table.cells[SAME].accuracy, made.cells[SAME - 1].accuracy);
  assert_true(is_planned(&p, 2));
  assert_true(isnan(p.table.cells[2].accuracy) && isnan(p.table.cells[2].merging_effect));
  assert_string_equal(p.table.cells[SG_FAILED].error, made.cells[SG_FAILED].error);
  mg_grid_progress_free(&p);
  stop(a);
}

static void parts_are_read_together(void **state) {
  (void)state;
  mg_grid_progress p;
  char *paths[2] = {mg_part_path(result, 1, 2), mg_part_path(result, 2, 2)};
  for (size_t k = 0; k < 2; k++) {
    mg_run *a = begin(paths[k]);
    append_manifest(a);
    append_answer(a, k, NULL);
    append_answer(a, 9, NULL); /* both have it */
    stop(a);
  }
  assert_int_equal(mg_grid_progress_read(result, &p), MG_OK);
  assert_true(p.known);
  assert_int_equal(p.records, 6);
  for (size_t c = 0; c < 2; c++) assert_finished(&p, c);
  assert_finished(&p, 9);
  assert_true(is_planned(&p, 10));
  mg_grid_progress_free(&p);
  assert_int_equal(mg_grid_progress_read(paths[1], &p), MG_OK);
  assert_true(is_planned(&p, 0));
  assert_finished(&p, 1);
  mg_grid_progress_free(&p);
  free(paths[0]), free(paths[1]);
}

/* Wherever the journal ends, the whole records before that count. */
static void torn_journals(void **state) {
  (void)state;
  char *path = NULL, *data = NULL;
  size_t size;
  mg_grid_progress p;
  mg_run *a = begin(result);
  append_manifest(a);
  append_answer(a, 0, NULL);
  stop(a);
  path = mg_attempt_path(result, 1, "journal");
  assert_int_equal(mg_read_file(path, 1 << 24, &data, &size), MG_OK);
  const size_t record = 24 + sizeof(mg_grid_answer) + SENTENCES * sizeof(int32_t);
  for (size_t cut = size - record - 40; cut <= size; cut++) {
    assert_int_equal(mg_replace_file(path, data, cut), MG_OK);
    assert_int_equal(mg_grid_progress_read(result, &p), MG_OK);
    assert_int_equal(p.known, cut >= size - record);
    assert_int_equal(p.records, cut < size - record ? 0 : cut < size ? 1 : 2);
    if (p.known) assert_int_equal(is_planned(&p, 0), cut < size);
    mg_grid_progress_free(&p);
  }
  free(data), free(path);
}

/* Of what other stages journal, only that it is there is looked at: what is damaged in it hides nothing behind it. */
static void other_stages(void **state) {
  (void)state;
  char *path, *data = NULL;
  size_t size;
  mg_grid_progress p;
  mg_text payload = {0};
  mg_run *a = begin(result);
  for (int k = 0; k < 1000; k++) mg_text_append(&payload, "%d", k);
  append(a, 3, &payload);
  append_manifest(a);
  append_answer(a, 0, NULL);
  path = mg_attempt_path(result, 1, "journal");
  assert_int_equal(mg_read_file(path, 1 << 24, &data, &size), MG_OK);
  data[500] ^= 1;
  assert_int_equal(mg_replace_file(path, data, size), MG_OK);
  assert_int_equal(mg_grid_progress_read(result, &p), MG_OK);
  assert_int_equal(p.records, 3);
  assert_true(p.bytes > 2890);
  assert_finished(&p, 0);
  mg_grid_progress_free(&p);
  stop(a);
  free(data), free(path);
}

/* Answers that are not of these texts: shorter, of classes that there are not, no answer at all. The cell is not finished. */
static void odd_answers(void **state) {
  (void)state;
  mg_grid_progress p;
  mg_run *a = begin(result);
  append_manifest(a);
  for (size_t c = 0; c < 3; c++) {
    mg_text payload = {0};
    write_answer(c, NULL, &payload);
    if (c == 0) payload.size -= 4;
    if (c == 1) memset(payload.data + payload.size - 4, 0x7f, 4);
    if (c == 2) payload.size = 7;
    append(a, MG_RECORD_CELL, &payload);
  }
  append_answer(a, 0, NULL);
  assert_int_equal(mg_grid_progress_read(result, &p), MG_OK);
  assert_finished(&p, 0);
  assert_true(is_planned(&p, 1) && is_planned(&p, 2));
  mg_grid_progress_free(&p);
  stop(a);
}

/* Whole by its checksum and yet no manifest: refused or read, never beyond its end. */
static void damaged_manifests(void **state) {
  (void)state;
  mg_result_cell cells[SG_CELLS];
  double mean[SG_CELLS];
  mg_text payload = {0};
  mg_manifest m;
  before(cells, mean);
  write_manifest(cells, mean, &payload);
  assert_int_equal(mg_manifest_read("r.h5", payload.data, payload.size, &m), MG_OK);
  mg_manifest_free(&m);
  for (size_t cut = 0; cut < payload.size; cut += cut < 200 ? 1 : 97) {
    char *exact = mg_alloc(cut, 1); /* a reader that goes on is met by a sanitizer */
    memcpy(exact, payload.data, cut);
    assert_int_not_equal(mg_manifest_read("r.h5", exact, cut, &m), MG_OK);
    free(exact);
  }
  for (size_t at = 0; at < payload.size; at += at < 400 ? 1 : 31) {
    payload.data[at] ^= (char)0xff;
    if (mg_manifest_read("r.h5", payload.data, payload.size, &m) == MG_OK) mg_manifest_free(&m);
    payload.data[at] ^= (char)0xff;
  }
  cells[5].same_as = 5; /* a cell before it is meant */
  mg_text_free(&payload);
  write_manifest(cells, mean, &payload);
  assert_int_equal(mg_manifest_read("r.h5", payload.data, payload.size, &m), MG_ERR_CORRUPT);
  mg_text_free(&payload);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test_setup(nothing_is_known, clear),
                                     cmocka_unit_test_setup(attempts_and_failures, clear),
                                     cmocka_unit_test_setup(parts_are_read_together, clear),
                                     cmocka_unit_test_setup(torn_journals, clear),
                                     cmocka_unit_test_setup(odd_answers, clear),
                                     cmocka_unit_test_setup(other_stages, clear),
                                     cmocka_unit_test(damaged_manifests)};
  return cmocka_run_group_tests(tests, make_all, remove_dir);
}
