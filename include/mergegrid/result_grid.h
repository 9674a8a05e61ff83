#ifndef MERGEGRID_RESULT_GRID_H
#define MERGEGRID_RESULT_GRID_H

/** Reading a result's grid back: for show, export, explain, merge and for runs that build on an earlier result. Master only. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/result.h"

/** A grid as it was read; owns everything. The fields are those of mg_result_grid. */
typedef struct mg_grid_table {
  char *path;
  size_t cell_count, source_count;
  mg_result_cell *cells; /**< [C]; strings belong to the table */
  mg_strings swept;
  const char **swept_values;   /**< [swept, C] */
  double *weights;             /**< [C,N] */
  bool *selected;              /**< [C,N] */
  mg_strings sources, targets; /**< ids; locales */
  char *partition;
  bool selected_on_partition;
  size_t method_count;
  mg_result_method *methods;
  size_t best_count;
  mg_result_best *best;
  mg_strings strings; /**< what the pointers above point to */
} mg_grid_table;

/** A target's texts: class of each, whether it is of the partition that cells are scored on; and all rows of predictions. */
typedef struct mg_grid_answers {
  size_t texts, rows;
  int32_t *label;          /**< [texts] */
  bool *scored, *selects;  /**< [texts] of the partition cells are scored on; of the one that is chosen by */
  int32_t *predictions;    /**< [rows, texts] */
  int32_t *best_source;    /**< [texts] what the source says that is best on the latter, −1 none; NULL where there is none */
  int32_t *best_zero_shot; /**< the same of the sources but the target's own; sources that failed are neither */
} mg_grid_answers;
void mg_grid_answers_free(mg_grid_answers *answers);

/** A result with a grid, opened once: a file is read through from end to end to be held to its checksums. Whatever reads a
 * result that is open reads this one. */
typedef mg_result_reader mg_grid_reader;
mg_status mg_grid_open(const char *path, mg_grid_reader **reader);
void mg_grid_close(mg_grid_reader **reader);

/** MG_ERR_INPUT where the result has no stage grid; MG_ERR_CORRUPT where a column is missing or of another length. */
mg_status mg_grid_read_table(const mg_grid_reader *reader, mg_grid_table *table);
/** Of a target that the table has. */
mg_status mg_grid_read_answers(const mg_grid_reader *reader, const char *target, mg_grid_answers *answers);
/**
 * A similarity matrix that cells went by, as it was read, all repeated labels kept where any cell kept them. MG_ERR_INPUT where
 * the result has none of that name. The caller frees the table.
 */
mg_status mg_grid_read_matrix(const mg_grid_reader *reader, const char *name, mg_labelled_table *table);

/** Names of the matrices that mg_grid_read_matrix can read, in the order in which cells go by them; none without a grid. */
mg_status mg_grid_matrix_names(const mg_grid_reader *reader, mg_strings *names);

/** A table of a file that is opened and closed again. */
mg_status mg_grid_table_read(const char *path, mg_grid_table *table);
void mg_grid_table_free(mg_grid_table *table);
mg_status mg_grid_answers_read(const char *path, const char *target, mg_grid_answers *answers);

/**
 * Conditions `column=value|value,column=value` on the cells' columns (NULL: none): which cells they all hold for, into take
 * [C]. option: for messages. MG_ERR_USAGE: no condition, no column, no value of its type; MG_ERR_INPUT: a value that no cell
 * has.
 */
mg_status mg_grid_table_where(const mg_grid_table *table, const char *option, const char *where, bool *take);

/** The cell whose key begins with `key`. MG_ERR_INPUT: none (names the nearest), or several (lists some). */
mg_status mg_grid_table_find(const mg_grid_table *table, const char *key, size_t *cell);

#endif
