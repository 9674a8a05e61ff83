#ifndef MG_MERGING_IMPL_H
#define MG_MERGING_IMPL_H

/* Between the files of the command merge. */

#include <jansson.h>

#include "mergegrid/grid.h"
#include "mergegrid/merge.h"
#include "mergegrid/result_grid.h"
#include "stage_impl.h"

/* A merge on its way to a checkpoint; all borrowed. */
typedef struct mg_merging {
  const mg_config *config;
  const mg_roster *roster;
  mg_rows *rows;
  const mg_recipe *recipe;  /* sources numbered as in the roster */
  const mg_gram_view *gram; /* NULL: inner products are computed as they are needed */
  const mg_strings *labels; /* the classes in the family's order; empty where nothing names them */
  const int32_t *class_of;  /* [sources, labels], as of mg_deltas */
  int threads;
  /* for merge_details.json */
  const mg_cell *cell;
  const mg_resolved *resolved; /* its values and note */
  const mg_source *stand_in;   /* for the base, or NULL */
  const char *result;          /* the cell is of, or NULL … */
  const mg_result_cell *row;   /* … and its row there */
} mg_merging;

/*
 * What the recipe's sources call their classes, by the names in `labels`: *class_of [sources, labels->count], the caller frees;
 * NULL where there are no names. MG_ERR_INPUT: other labels; no tensor with a row a class where an order differs.
 */
mg_status mg_merging_classes(const mg_config *config, const mg_roster *roster, const mg_tensor_table *table,
                             const mg_recipe *recipe, const mg_strings *labels, int32_t **class_of);
/* MG_ERR_INPUT where output is there already. */
mg_status mg_merging_check_output(const char *output);
/* Writes the checkpoint to the new directory output; nothing is left on failure. */
mg_status mg_merging_write(const mg_merging *merging, const char *output);

/* ---- a cell of a finished result (merge_choose.c) ---- */

typedef struct mg_chosen_cell {
  const char *result; /* borrowed */
  mg_grid_reader *reader;
  mg_grid_table table;
  mg_config *config;         /* the result's, with what is set instead; `result` is the file that it was found in */
  bool of_shards;            /* the result was computed from shards, not straight from checkpoints */
  mg_source_list sources;    /* the result's, with the directories that the configuration says */
  const mg_result_cell *row; /* of the table */
  mg_grid grid;
  const mg_cell *cell;  /* of the grid */
  mg_resolved resolved; /* sources numbered as in `sources`, as in the recipe */
  const char **ids;     /* of the recipe's sources */
  mg_recipe recipe;
} mg_chosen_cell;
/*
 * Finds the cell and what it comes to, and holds that against what the result says it came to. Close it also after a failure.
 * MG_ERR_INPUT: no such cell, none that was completed, a vote, other sources or weights than the result's.
 */
mg_status mg_chosen_cell_open(const mg_merge_cell_options *options, mg_chosen_cell *chosen);
void mg_chosen_cell_close(mg_chosen_cell *chosen);

/* ---- files ---- */

/* config.json of a checkpoint of this recipe (merge_config.c). The caller releases it. */
mg_status mg_merging_config(const mg_merging *merging, json_t **config);

#endif
