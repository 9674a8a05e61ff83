#ifndef MERGEGRID_TESTS_WORKLOAD_H
#define MERGEGRID_TESTS_WORKLOAD_H

/**
 * The stages' work on XLM-R base as the program cuts it (plans, lists of leases, tree of sums: its own functions), with the
 * times that a machine would take for it. Texts are made up: 48 targets of MASSIVE's numbers of texts, longer in some
 * languages.
 */

#include "simulate.h"
#include "stage/grid_impl.h"
#include "stage/stage_impl.h"

typedef struct sim_family {
  mg_config *config; /**< configs/nightly-full-grid.yaml */
  mg_tensor_table table;
  mg_nxn_plan nxn; /**< shape and texts */
  mg_grid grid;    /**< its cells */
  int threads;
  uint64_t budget; /**< of memory, a rank; the file's */
} sim_family;

/** config: the nightly grid's file. level: of the Grams. on_device: each rank has one for forward passes. */
mg_status sim_family_make(const char *config, mg_gram_level level, int threads, bool on_device, sim_family *family);
void sim_family_free(sim_family *family);

/** A stage that came to its end. */
typedef struct sim_stage {
  sim_outcome run;
  int64_t units;
  /** Of compatibility: that reading its bytes once takes at least; of grid: that nodes take to bring sources into memory. */
  double read_seconds;
  double start_seconds;   /**< of launching the ranks and opening the files */
  uint64_t planned_bytes; /**< of rank 0's memory, kept, by the stage's plan */
  uint64_t held_bytes;    /**< of the same, counted in the structures; 0: not */
  uint64_t list_bytes;    /**< every rank's list of the work */
} sim_stage;

/** real: adds every node to a sum (memory of its size); else a tree of the same shape stands for it. */
mg_status sim_compatibility(const sim_family *family, const sim_machine *machine, int sources, int ranks, bool real,
                            sim_stage *stage);
mg_status sim_nxn(const sim_family *family, const sim_machine *machine, int sources, int ranks, sim_stage *stage);
mg_status sim_grid(const sim_family *family, const sim_machine *machine, int sources, int ranks, sim_stage *stage);

/** A rank a core of a node, and a rank a GPU. docs/scaling.md says where the figures are from. */
extern const sim_machine sim_core, sim_gpu;

#endif
