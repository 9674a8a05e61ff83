#ifndef MG_SMALL_GRID_H
#define MG_SMALL_GRID_H

/*
 * A small result with the stages nxn and grid, made up without any model: what unit tests and whole-program tests read back.
 * Four sources, three targets (the last without a source of its own and without dev texts), two matrices, 7 method settings;
 * one cell failed, one is planned, one has no predictions.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/grid_statistics.h"
#include "mergegrid/hash.h"
#include "mergegrid/result.h"
#include "mergegrid/similarity.h"
#include "mergegrid/text.h"
#include "unit/result/small_result.h"

enum { SG_SOURCES = 4, SG_TARGETS = 3, SG_CLASSES = 4, SG_TEXTS = 90, SG_LABELS = 6, SG_SETTINGS = 7, SG_MATRICES = 2 };
enum { SG_CELLS = SG_TARGETS * SG_MATRICES * SG_SETTINGS, SG_PLANNED = 16, SG_FAILED = 33, SG_MUTE = 6 };

static char *sg_ids[SG_SOURCES] = {"fr-FR", "es-ES", "sw-KE", "de-DE"};
static char *sg_targets[SG_TARGETS] = {"sw-KE", "fr-FR", "xx-XX"};
static char *sg_classes[SG_CLASSES] = {"alarm", "music", "news", "weather"};
static char *sg_swept[2] = {"ties.density", "exclude_layers.layers"};
static const char *sg_matrix_names[SG_MATRICES] = {"URIEL", "REAL"};
/* one label is there twice, one has no checkpoint */
static char *sg_labels[SG_LABELS] = {"fr-FR", "es-ES", "sw-KE", "hu-HU", "xx-XX", "de-DE"};
static char *sg_twice[SG_LABELS + 1] = {"fr-FR", "es-ES", "sw-KE", "hu-HU", "xx-XX", "de-DE", "es-ES"};

static const struct {
  const char *method, *parameters, *density, *layers;
  int right; /* percent */
} sg_settings[SG_SETTINGS] = {
    {"similarity", "{\"lambda\": 1.0}", "", "", 60},
    {"average", "{}", "", "", 58},
    {"ties", "{\"density\": 0.1, \"trim\": \"tensor\"}", "0.1", "", 66},
    {"ties", "{\"density\": 0.2, \"trim\": \"tensor\"}", "0.2", "", 45},
    {"exclude_layers", "{\"layers\": \"0,1\"}", "", "0,1", 50},
    {"majority", "{}", "", "", 62},
    {"own", "{}", "", "", 80},
};

typedef struct small_grid {
  char ids[SG_TEXTS][16];
  const char *text_ids[SG_TEXTS], *partitions[SG_TARGETS][SG_TEXTS];
  int32_t labels[SG_TARGETS][SG_TEXTS];
  mg_result_texts texts[SG_TARGETS];
  double accuracy[2][SG_SOURCES][SG_TARGETS];
  mg_result_cell cells[SG_CELLS];
  char keys[SG_CELLS][17], recipes[SG_CELLS][17], sources[SG_CELLS][64], terms[SG_CELLS][512];
  const char *swept_values[2 * SG_CELLS];
  double weights[SG_CELLS * SG_SOURCES];
  bool selected[SG_CELLS * SG_SOURCES];
  int32_t predictions[SG_CELLS][SG_TEXTS];
  double uriel[(SG_LABELS + 1) * (SG_LABELS + 1)], real[SG_LABELS * SG_LABELS];
} small_grid;

/* A number below `below`, the same whenever it is asked for. */
static uint64_t sg_number(uint64_t a, uint64_t b, uint64_t c, uint64_t below) {
  const uint64_t words[3] = {a, b, c};
  return mg_hash(words, sizeof words) % below;
}

static int32_t sg_answer(uint64_t who, size_t target, size_t text, int32_t label, int right) {
  if (sg_number(who, target, text, 100) < (uint64_t)right) return label;
  return (int32_t)((label + 1 + (int32_t)sg_number(who + 1000, target, text, SG_CLASSES - 1)) % SG_CLASSES);
}

static void sg_make_texts(small_grid *g) {
  for (size_t k = 0; k < SG_TEXTS; k++) {
    snprintf(g->ids[k], sizeof g->ids[k], "t%zu", k);
    g->text_ids[k] = g->ids[k];
  }
  for (size_t t = 0; t < SG_TARGETS; t++) {
    mg_result_texts *texts = &g->texts[t];
    *texts = (mg_result_texts){.count = SG_TEXTS, .stands_in = t == 2, .id = g->text_ids};
    for (size_t k = 0; k < SG_TEXTS; k++) {
      const bool test = t == 2 || k % 3 != 2;
      g->partitions[t][k] = test ? "test" : "dev";
      g->labels[t][k] = (int32_t)sg_number(7, t, k, SG_CLASSES);
      texts->part_count[0] += test;
      texts->part_count[1] += t == 2 || !test;
    }
    texts->partition = g->partitions[t];
    texts->label = g->labels[t];
  }
}

/* What a source says of a part's texts, in their order. */
static mg_status sg_source_answers(void *context, size_t source, int part, size_t target, int32_t *predictions, float *logits,
                                   mg_scores *scores) {
  const small_grid *g = context;
  int32_t labels[SG_TEXTS];
  size_t count = 0;
  (void)logits;
  for (size_t k = 0; k < SG_TEXTS; k++) {
    const bool test = strcmp(g->partitions[target][k], "test") == 0;
    if (target != 2 && test != (part == 0)) continue;
    labels[count] = g->labels[target][k];
    predictions[count] = sg_answer(source, target, k, labels[count], strcmp(sg_ids[source], sg_targets[target]) ? 48 : 80);
    count++;
  }
  const mg_status status = mg_score(labels, predictions, count, SG_CLASSES, scores);
  ((small_grid *)context)->accuracy[part][source][target] = scores->accuracy;
  return status;
}

static void sg_make_matrices(small_grid *g) {
  for (size_t i = 0; i <= SG_LABELS; i++)
    for (size_t j = 0; j <= SG_LABELS; j++)
      g->uriel[i * (SG_LABELS + 1) + j] = i == j ? 1 : (double)(1 + sg_number(3, i < j ? i : j, i < j ? j : i, 9)) / 10;
  for (size_t i = 0; i < SG_LABELS; i++)
    for (size_t j = 0; j < SG_LABELS; j++) g->real[i * SG_LABELS + j] = (double)(1 + sg_number(5, i, j, 19)) / 20;
}

static ptrdiff_t sg_source_of(void *context, const char *label) {
  (void)context;
  for (size_t s = 0; s < SG_SOURCES; s++)
    if (strcmp(sg_ids[s], label) == 0) return (ptrdiff_t)s;
  return -1;
}

/* Two sources by the matrix, their weights and text. */
static mg_status sg_choose(small_grid *g, size_t c, size_t matrix) {
  mg_status status = MG_OK;
  mg_selection selection = {0};
  mg_similarity similarity = {0};
  const bool uriel = matrix == 0;
  const size_t n = uriel ? SG_LABELS + 1 : SG_LABELS;
  mg_labelled_table table = {.rows = {n, uriel ? sg_twice : sg_labels}, .columns = {n, uriel ? sg_twice : sg_labels}};
  table.values = uriel ? g->uriel : g->real;
  table.count = n * n;
  const mg_selection_terms terms = {.num_languages = 2, .top_k = 20, .sinkhorn_iters = 20};
  MG_TRY(mg_similarity_of(&table, "small", MG_DUPLICATES_FIRST, &similarity, NULL), cleanup);
  MG_TRY(mg_select_sources(&similarity, &terms, g->cells[c].locale, sg_source_of, NULL, &selection), cleanup);
  for (size_t k = 0; k < selection.taken; k++) {
    const mg_candidate *taken = &selection.candidates[k];
    const size_t at = strlen(g->sources[c]);
    for (size_t s = 0; s < SG_SOURCES; s++) {
      if (strcmp(sg_ids[s], similarity.labels.items[taken->label]) != 0) continue;
      g->weights[c * SG_SOURCES + s] = taken->share;
      g->selected[c * SG_SOURCES + s] = true;
      snprintf(g->sources[c] + at, sizeof g->sources[c] - at, "%s%s:%.3f", at ? "," : "", sg_ids[s], taken->share);
    }
  }
cleanup:
  free(selection.candidates);
  mg_similarity_free(&similarity);
  return status;
}

/* Accuracy of what a cell says on the texts of a partition, which stands for the other where the target has none of it. */
static double sg_accuracy(const small_grid *g, size_t c, size_t target, const char *partition, double *macro_f1) {
  int32_t labels[SG_TEXTS], predictions[SG_TEXTS];
  size_t count = 0;
  mg_scores scores = {0};
  for (size_t k = 0; k < SG_TEXTS; k++) {
    if (target != 2 && strcmp(g->partitions[target][k], partition) != 0) continue;
    labels[count] = g->labels[target][k];
    predictions[count++] = g->predictions[c][k];
  }
  mg_score(labels, predictions, count, SG_CLASSES, &scores);
  if (macro_f1 != NULL) *macro_f1 = scores.macro_f1;
  return scores.accuracy;
}

static mg_status sg_make_cell(small_grid *g, size_t c) {
  const size_t target = c / (SG_MATRICES * SG_SETTINGS), matrix = c / SG_SETTINGS % SG_MATRICES, setting = c % SG_SETTINGS;
  mg_result_cell *cell = &g->cells[c];
  *cell = (mg_result_cell){.locale = sg_targets[target],
                           .method = sg_settings[setting].method,
                           .parameters = sg_settings[setting].parameters,
                           .similarity_type = sg_matrix_names[matrix],
                           .preset = "none",
                           .head = "linear",
                           .status = "completed",
                           .num_languages = 2,
                           .num_sources = 2,
                           .seed = 42,
                           .accuracy = NAN,
                           .macro_f1 = NAN,
                           .select_accuracy = NAN,
                           .best_source = NAN,
                           .best_zero_shot = NAN,
                           .own = NAN,
                           .merging_effect = NAN,
                           .delta_vs_similarity = NAN,
                           .prediction_row = -1,
                           .same_as = -1,
                           .matched = (int64_t)(c - setting)};
  snprintf(g->terms[c], sizeof g->terms[c],
           "{\"locale\": \"%s\", \"method\": \"%s\", \"parameters\": %s, \"similarity_type\": \"%s\", \"num_languages\": 2, "
           "\"include_target\": false, \"preset\": \"none\", \"seed\": 42, \"head\": \"linear\", \"axis\": \"column\", "
           "\"select\": \"topk\", \"top_k\": 20, \"sinkhorn_iters\": 20, \"inctar\": \"by_weight\", \"drop_strongest\": false, "
           "\"duplicates\": \"first\"}",
           cell->locale, cell->method, cell->parameters, cell->similarity_type);
  cell->terms = g->terms[c];
  cell->key = mg_hash_text(mg_hash(g->terms[c], strlen(g->terms[c])), g->keys[c]);
  cell->recipe = c == SG_FAILED ? NULL : mg_hash_text(sg_number(c, 1, 2, UINT64_MAX), g->recipes[c]);
  g->swept_values[c] = sg_settings[setting].density;
  g->swept_values[SG_CELLS + c] = sg_settings[setting].layers;
  if (c == SG_FAILED) {
    cell->status = "failed";
    cell->error = "tensor \"x\": the merge is not finite, in\n2 elements";
    return MG_OK;
  }
  const mg_status status = sg_choose(g, c, matrix);
  cell->sources = g->sources[c];
  if (status != MG_OK || c == SG_PLANNED) {
    cell->status = "planned";
    return status;
  }
  for (size_t k = 0; k < SG_TEXTS; k++)
    g->predictions[c][k] = sg_answer(2000 + c, target, k, g->labels[target][k], sg_settings[setting].right);
  cell->accuracy = sg_accuracy(g, c, target, "test", &cell->macro_f1);
  cell->select_accuracy = sg_accuracy(g, c, target, "dev", NULL);
  cell->delta_vs_similarity = cell->accuracy - g->cells[cell->matched].accuracy;
  if (c == SG_MUTE) cell->note = "no predictions were kept";
  return MG_OK;
}

/* What follows from the sources' accuracies, known once nxn's answers were asked for. */
static void sg_compare_with_sources(small_grid *g, size_t c) {
  const size_t target = c / (SG_MATRICES * SG_SETTINGS);
  mg_result_cell *cell = &g->cells[c];
  double sum = 0;
  if (!(cell->accuracy >= 0)) return;
  cell->best_source = 0;
  for (size_t s = 0; s < SG_SOURCES; s++) {
    const double accuracy = g->accuracy[0][s][target];
    const bool own = strcmp(sg_ids[s], cell->locale) == 0;
    if (own) cell->own = accuracy;
    if (!own && !(cell->best_zero_shot >= accuracy)) cell->best_zero_shot = accuracy;
    if (!g->selected[c * SG_SOURCES + s]) continue;
    sum += accuracy;
    if (accuracy > cell->best_source) cell->best_source = accuracy;
  }
  cell->merging_effect = cell->accuracy - sum / 2;
}

static mg_status sg_row(void *context, size_t target, size_t row, int32_t *predictions) {
  const small_grid *g = context;
  for (size_t c = 0; c < SG_CELLS; c++)
    if (strcmp(g->cells[c].locale, sg_targets[target]) == 0 && g->cells[c].prediction_row == (int64_t)row)
      memcpy(predictions, g->predictions[c], sizeof g->predictions[c]);
  return MG_OK;
}

/* What the source that is best on the dev texts says, the target's own too or not. */
static int32_t *sg_best_source(const small_grid *g, size_t target, bool own_too) {
  size_t best = SIZE_MAX;
  int32_t *said = mg_alloc(SG_TEXTS, sizeof *said);
  for (size_t s = 0; s < SG_SOURCES; s++)
    if ((own_too || strcmp(sg_ids[s], sg_targets[target]) != 0) &&
        (best == SIZE_MAX || g->accuracy[1][s][target] > g->accuracy[1][best][target]))
      best = s;
  for (size_t k = 0; k < SG_TEXTS; k++)
    said[k] = sg_answer(best, target, k, g->labels[target][k], strcmp(sg_ids[best], sg_targets[target]) ? 48 : 80);
  return said;
}

/* As the stage gives them to the statistics. */
static mg_status sg_answers(void *context, size_t target, mg_grid_answers *a) {
  const small_grid *g = context;
  *a = (mg_grid_answers){.texts = SG_TEXTS, .rows = SG_CELLS};
  a->label = mg_alloc(SG_TEXTS, sizeof *a->label);
  a->scored = mg_alloc(SG_TEXTS, sizeof *a->scored);
  a->selects = mg_alloc(SG_TEXTS, sizeof *a->selects);
  a->predictions = mg_alloc_zero(SG_CELLS * SG_TEXTS, sizeof *a->predictions);
  for (size_t k = 0; k < SG_TEXTS; k++) {
    a->label[k] = g->labels[target][k];
    a->scored[k] = strcmp(g->partitions[target][k], "test") == 0;
    a->selects[k] = target == 2 || !a->scored[k];
  }
  for (size_t row = 0; row < SG_CELLS; row++) sg_row(context, target, row, a->predictions + row * SG_TEXTS);
  a->best_source = sg_best_source(g, target, true);
  a->best_zero_shot = sg_best_source(g, target, false);
  return MG_OK;
}

static mg_status sg_write_tables(const char *path, small_grid *g, mg_result_data *data) {
  mg_status status = MG_OK;
  mg_grid_tables tables = {0};
  size_t rows[SG_TARGETS] = {0}, texts[SG_TARGETS];
  for (size_t t = 0; t < SG_TARGETS; t++) texts[t] = SG_TEXTS;
  for (size_t c = 0; c < SG_CELLS; c++) {
    const bool has = strcmp(g->cells[c].status, "completed") == 0 && c != SG_MUTE;
    if (has) g->cells[c].prediction_row = (int64_t)rows[c / (SG_MATRICES * SG_SETTINGS)]++;
    sg_compare_with_sources(g, c);
  }
  const mg_strings targets = {SG_TARGETS, sg_targets}, swept = {2, sg_swept}, labels = {SG_LABELS, sg_labels},
                   twice = {SG_LABELS + 1, sg_twice};
  const mg_strings *const matrix_labels[] = {&twice, &labels};
  const double *const matrices[] = {g->uriel, g->real};
  const char *const reused[] = {"0123456789abcdef"};
  const mg_grid_statistics_input input = {
      .cell_count = SG_CELLS, .cells = g->cells, .targets = &targets, .texts = texts, .context = g, .answers = sg_answers};
  MG_TRY(mg_grid_statistics(&input, &tables), cleanup);
  const mg_result_grid grid = {.cell_count = SG_CELLS,
                               .cells = g->cells,
                               .swept = &swept,
                               .swept_values = g->swept_values,
                               .weights = g->weights,
                               .selected = g->selected,
                               .targets = &targets,
                               .texts = texts,
                               .rows = rows,
                               .context = g,
                               .predictions = sg_row,
                               .partition = "test",
                               .method_count = tables.method_count,
                               .methods = tables.methods,
                               .best_count = tables.best_count,
                               .best = tables.best,
                               .matrix_count = SG_MATRICES,
                               .matrix_names = sg_matrix_names,
                               .matrix_labels = matrix_labels,
                               .matrices = matrices,
                               .reused_count = 1,
                               .reused = reused};
  data->grid = &grid;
  MG_TRY(mg_result_write(path, data), cleanup);
cleanup:
  mg_grid_tables_free(&tables);
  return status;
}

/* Writes it to path; *g (may be NULL) is what it holds. */
static mg_status small_grid_write(const char *path, small_grid *g) {
  mg_status status = MG_OK;
  char models[SG_SOURCES][16], name[] = "head.w", none[] = "";
  mg_source items[SG_SOURCES];
  small_grid *mine = g == NULL ? g = mg_alloc(1, sizeof *g) : NULL;
  *g = (small_grid){0};
  for (size_t s = 0; s < SG_SOURCES; s++) {
    snprintf(models[s], sizeof models[s], "models/%s", sg_ids[s]);
    items[s] = (mg_source){sg_ids[s], sg_ids[s], models[s]};
  }
  const mg_source_list sources = {.count = SG_SOURCES, .items = items};
  mg_tensor tensor = {.name = name, .layer = none, .ndim = 1, .shape = {4}, .numel = 4, .source_only = true};
  const mg_tensor_table table = {.count = 1, .tensors = &tensor, .elements = 4};
  const mg_strings targets = {SG_TARGETS, sg_targets}, labels = {SG_CLASSES, sg_classes};
  mg_identity identity = {0};
  const mg_result_nxn nxn = {.targets = &targets,
                             .labels = &labels,
                             .texts = g->texts,
                             .partition = {"test", "dev"},
                             .classes = SG_CLASSES,
                             .context = g,
                             .answer = sg_source_answers};
  mg_result_data data = small_result(&sources, "models/xlm-roberta-base", &labels, &table, (bool[]){false}, &identity);
  data.nxn = &nxn;
  int32_t predictions[SG_TEXTS];
  mg_scores scores;
  sg_make_texts(g);
  sg_make_matrices(g);
  for (size_t s = 0; s < SG_SOURCES; s++)
    for (size_t t = 0; t < SG_TARGETS; t++)
      for (int part = 0; part < 2; part++) MG_TRY(sg_source_answers(g, s, part, t, predictions, NULL, &scores), cleanup);
  for (size_t c = 0; c < SG_CELLS; c++) MG_TRY(sg_make_cell(g, c), cleanup);
  MG_TRY(sg_write_tables(path, g, &data), cleanup);
cleanup:
  free(mine);
  return status;
}

#endif
