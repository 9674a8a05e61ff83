#ifndef MERGEGRID_GRID_STATISTICS_H
#define MERGEGRID_GRID_STATISTICS_H

/** The tables that follow from cells and their predictions: methods over all cells, and each target's best recipe. Master only.
 */

#include <stdbool.h>
#include <stddef.h>

#include "mergegrid/result.h"
#include "mergegrid/result_grid.h"
#include "mergegrid/status.h"

/** All pointers borrowed. C cells, M targets. */
typedef struct mg_grid_statistics_input {
  size_t cell_count;
  const mg_result_cell *cells; /**< [C]: method, parameters, locale, status, accuracies, prediction_row, matched */
  const bool *take;            /**< [C] cells that count, NULL: all. What they are matched with need not be among them. */
  const mg_strings *targets;   /**< [M] locales */
  const size_t *texts;         /**< [M] texts of a target, or more */
  void *context;
  /** A target's answers; freed with mg_grid_answers_free. Called target by target, perhaps more than once for each. */
  mg_status (*answers)(void *context, size_t target, mg_grid_answers *answers);
} mg_grid_statistics_input;

/** Strings belong to the cells. */
typedef struct mg_grid_tables {
  size_t method_count;
  mg_result_method *methods; /**< settings of a method in order of first appearance */
  size_t best_count;
  mg_result_best *best; /**< by target, in order */
} mg_grid_tables;

/**
 * Methods: a setting's completed cells; pairs are those whose matched cell, another one, is completed. The pooled difference is
 * over the texts that cells are scored on and all pairs that have predictions, its interval and p of mg_paired_bootstrap with
 * 2000 draws and a seed of its own, so that the same cells give the same numbers; p_holm over the settings. NaN without pairs.
 *
 * Best: among a target's completed cells but the baselines that are one source as it is (own, best_source, best_zero_shot), the
 * one of highest select_accuracy, the first of equals; its difference to the answers of the best source (best_zero_shot where
 * it may not have the target's own, like with like), and McNemar's p.
 *
 * Memory: differences of as many settings at a time as 64 MiB hold; targets are asked for again for each such lot.
 */
mg_status mg_grid_statistics(const mg_grid_statistics_input *input, mg_grid_tables *tables);
void mg_grid_tables_free(mg_grid_tables *tables);

/** Two rows of predictions on the texts that cells are scored on; −1 is wrong. */
typedef struct mg_cell_comparison {
  size_t texts, both, only_first, only_second, neither; /**< right in both, … */
  size_t differ;                                        /**< texts with another prediction, right or wrong */
  double delta, low, high; /**< accuracy of the first − that of the second, with its 95% interval */
  double p;                /**< McNemar, exact */
} mg_cell_comparison;
mg_status mg_compare_predictions(const mg_grid_answers *answers, const int32_t *first, const int32_t *second,
                                 mg_cell_comparison *comparison);

#endif
