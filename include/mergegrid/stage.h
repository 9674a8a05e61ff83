#ifndef MERGEGRID_STAGE_H
#define MERGEGRID_STAGE_H

/** The stages, each collective over its communicator: every rank gets the same status and message. */

#include <mpi.h>
#include <stdbool.h>

#include "mergegrid/config.h"
#include "mergegrid/result.h"
#include "mergegrid/run.h"
#include "mergegrid/status.h"

typedef struct mg_pack_options {
  bool rehash;
} mg_pack_options;

/** Collective. Brings the shards of the family up to date. */
mg_status mg_stage_pack(MPI_Comm comm, const mg_config *config, const mg_pack_options *options);

typedef struct mg_run_options {
  mg_run_mode mode;
  double max_hours;  /**< stop cleanly (MG_STOPPED) after that; 0: no limit */
  const char *where; /**< which of the grid's cells, as of mg_where_parse; NULL: all. The others stay planned. */
  int part, parts;   /**< compute the share of part 1 … parts alone, and journal it beside the result; 0: all, and write it */
  bool gather;       /**< write the result from what its parts (0: as many as there are) have journaled */
  bool compute_missing; /**< gathering: compute what they have not */
} mg_run_options;

/**
 * Collective. Packs what is missing or outdated, runs the stages the configuration names and writes the result. *failed: in
 * these stages of the result that is there now. With a part: its shares of the stages, in a journal of its own; MG_STOPPED
 * where a stage builds on shares that others have not done yet. gather: MG_STOPPED names the parts that have not done theirs.
 */
mg_status mg_stage_run(MPI_Comm comm, const mg_config *config, const mg_run_options *options, mg_failures *failed);

/**
 * Collective. Merges what the section recipe says and writes it to the new directory output as a checkpoint: F32
 * model.safetensors, config.json, tokenizer, merge_details.json. MG_ERR_INPUT where output is there already; nothing is left on
 * failure.
 */
mg_status mg_stage_merge(MPI_Comm comm, const mg_config *config, const char *output);

typedef struct mg_merge_cell_options {
  const char *result; /**< a finished result with a grid */
  const char *cell;   /**< its key, or a prefix that no other cell's has; NULL: … */
  const char *best;   /**< … the most accurate merge for which these conditions hold, as of mg_grid_table_where */
  const mg_strings
      *settings; /**< as of mg_config_parse, for the result's configuration; paths relative to the current directory */
} mg_merge_cell_options;

/**
 * Collective; rank 0 works. The same for a cell of a result: what it was merged from is in the result, but for the sources'
 * shards (or checkpoints) and the tokenizer. With `best` a note says whether a baseline of the same target is better than the
 * merge. MG_ERR_INPUT: no such cell, no merge that `best` holds for, one that failed, was not computed or is a vote,
 * sources that are not what the result was computed from.
 */
mg_status mg_stage_merge_cell(MPI_Comm comm, const mg_merge_cell_options *options, const char *output);

typedef struct mg_plan_options {
  int ranks;       /**< that the run would have */
  int part, parts; /**< also of part 1 … parts, as of mg_run_options; 0: of the whole only */
  bool json;
} mg_plan_options;

/** Rank-local. Prints what a run would read, compute, hold and take; MG_ERR_NOMEM where it exceeds memory_budget. */
mg_status mg_stage_plan(const mg_config *config, const mg_plan_options *options);

#endif
