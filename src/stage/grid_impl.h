#ifndef MG_GRID_IMPL_H
#define MG_GRID_IMPL_H

/* Between the files of the stage grid. */

#include "mergegrid/encoder.h"
#include "mergegrid/grid.h"
#include "mergegrid/grid_journal.h"
#include "mergegrid/log.h"
#include "mergegrid/merge.h"
#include "nxn_impl.h"
#include "stage_impl.h"

/* ---- what every rank knows ---- */

/* A merge to be computed: a recipe in numbers. */
typedef struct mg_grid_item {
  uint64_t recipe; /* hash of all it is computed from */
  uint32_t target, method, count, best;
  int32_t base, head;
  uint64_t seed, first; /* of its sources and weights */
  double values[MG_MOST_PARAMETERS];
} mg_grid_item;

/* Items that are merged in one pass: consecutive ones of one target. */
typedef struct mg_grid_group {
  uint32_t first, count;
} mg_grid_group;

/* Rank 0's lists, sent to all. */
typedef struct mg_grid_work {
  mg_grid_item *items;
  mg_grid_group *groups;
  int32_t *sources; /* of all items, one after another */
  double *weights;
  int64_t *sequences;      /* of all targets: numbers in the table of tokens, rising */
  mg_shared *texts;        /* what holds them, once they are shared */
  uint64_t *first_of;      /* [M + 1] where a target's begin */
  mg_quantity *quantities; /* that the items ask for, by source */
  uint64_t *unit_of;       /* [units + 1] where a source's begin */
  double *values;          /* of quantities */
  size_t item_count, group_count, source_count, weight_count, sequence_count, target_count, quantity_count, unit_count,
      value_count;
} mg_grid_work;
void mg_grid_work_free(mg_grid_work *work);
/* A sequence's place among a target's. */
size_t mg_grid_position(const mg_grid_work *work, size_t target, int64_t sequence);

/* *turn [targets]: each target's turn, those first whose texts take longest to evaluate. The caller frees it. */
mg_status mg_grid_turns(const mg_nxn_plan *nxn, size_t **turn);
/*
 * Cuts items, which stand target by target, into groups: as many merges in one pass as there is memory for (models), fewer
 * towards the end, so that ranks end together. The caller frees *groups.
 */
mg_status mg_grid_cut(const mg_grid_item *items, size_t item_count, int ranks, size_t models, mg_grid_group **groups,
                      size_t *group_count);

/* ---- the worker (grid_work.c) ---- */

typedef struct mg_grid_worker mg_grid_worker;
typedef struct mg_grid_worker_terms {
  const mg_attempt *attempt;
  const mg_tokenized *tokenized;
  const mg_encoder_shape *shape;
  const mg_deltas *deltas;
  const mg_gram_view *gram; /* NULL where the stage has none a tensor */
  const mg_source_list *list;
  const mg_grid_work *work;
  size_t most_tokens;   /* of one target */
  size_t models;        /* merges at once */
  uint64_t store_bytes; /* that sources in memory may take */
} mg_grid_worker_terms;
/* Collective. Brings the sources into the node's memory as far as they fit. */
mg_status mg_grid_worker_open(const mg_grid_worker_terms *terms, mg_grid_worker **worker);
void mg_grid_worker_close(mg_grid_worker **worker);
/* Collective. Every rank's quantities become the same as rank 0's. */
mg_status mg_grid_worker_learn(mg_grid_worker *worker);
/* Computes a group; appends an answer an item. */
mg_status mg_grid_worker_group(mg_grid_worker *worker, const mg_grid_group *group, mg_text *payload, mg_farm_poll *poll);
/* Quantities of unit u, [unit_of[u + 1] − unit_of[u]] values appended. */
mg_status mg_grid_worker_quantities(mg_grid_worker *worker, size_t unit, mg_text *payload, mg_farm_poll *poll);
/* Seconds of merging and of evaluating so far, over all threads' calls. */
void mg_grid_worker_times(const mg_grid_worker *worker, double *merging, double *evaluating);

/* ---- sources in memory (grid_store.c) ---- */

typedef struct mg_node_store mg_node_store;
/*
 * Collective. θ0 and as many of the sources [wanted_count], in their order, as `bytes` hold, once a node. ranges: of all the
 * tensors' pieces that any target needs. *store is empty where not even θ0 fits.
 */
mg_status mg_node_store_open(MPI_Comm comm, const mg_deltas *deltas, const int *wanted, size_t wanted_count,
                             const mg_range *ranges, size_t range_count, size_t floats, uint64_t bytes, mg_node_store **store);
void mg_node_store_close(mg_node_store **store);
/* NULL where nothing is in memory. */
const mg_store *mg_node_store_get(const mg_node_store *store);
size_t mg_node_store_sources(const mg_node_store *store);

/* ---- sources on a device (grid_device.c) ---- */

/* Bytes of a device's memory that merges need besides models and sources. */
uint64_t mg_grid_device_spare(const mg_encoder_shape *shape, const mg_tensor_table *table, size_t tokens, size_t all_tokens);
/* Bytes of θ0 and so many sources, whole, and of what counting them takes. */
uint64_t mg_grid_device_whole(const mg_tensor_table *table, size_t sources);

typedef struct mg_grid_device_terms {
  mg_device *device;
  mg_queue *queue;
  const mg_deltas *deltas;
  const mg_store *host;      /* what is in memory; NULL: nothing */
  const mg_range_list *rows; /* what texts need, in blocks of `floats` */
  size_t floats;
  uint64_t spare;    /* bytes that are left free */
  const int *wanted; /* [wanted_count] sources, those first that most merges want */
  size_t wanted_count;
  double scans; /* how often a rank would go through a whole source for thresholds and norms */
  mg_farm_poll *poll;
} mg_grid_device_terms;
/* θ0 and the sources, as many as there is room for; whole, listed in `whole`, where that pays. */
mg_status mg_grid_device_open(const mg_grid_device_terms *terms, mg_range_list *whole, mg_device_store **store);

/* ---- rank 0: cells and their recipes (grid_recipes.c) ---- */

typedef enum mg_cell_state { MG_CELL_PLANNED, MG_CELL_COMPLETED, MG_CELL_FAILED } mg_cell_state;

typedef struct mg_grid_cell {
  mg_resolved resolved;
  uint64_t recipe;   /* 0 where it did not resolve */
  ptrdiff_t target;  /* −1: has no texts */
  ptrdiff_t same_as; /* the first cell of this recipe, −1: it is the first */
  ptrdiff_t matched; /* the plain-similarity cell it is compared with, −1 */
  mg_cell_state state;
  char *error;
  mg_record_place place; /* of its answer, of a merge that is done */
  bool done, wanted;     /* wanted: not left out by --where */
  bool ours;             /* a merge that is left to this job */
  ptrdiff_t row;         /* of its target's predictions, −1 */
} mg_grid_cell;

/* Where answers are: by recipe. */
typedef struct mg_grid_kept {
  uint64_t recipe;
  mg_record_place place;
  uint32_t failed;
} mg_grid_kept;

struct mg_grid_stage {
  mg_attempt *attempt;
  mg_nxn_stage *nxn;
  mg_gram_stage *gram;
  mg_cka_stage *cka;
  const mg_source_list *list;
  mg_deltas deltas;
  mg_grid_work work;
  mg_grid_worker *worker;
  mg_shared *dots; /* what gram_view points into */
  mg_gram_view gram_view;
  mg_grid_plan plan;
  int part;                   /* that cells are scored on: 0 nxn.partition, 1 nxn.select */
  double merging, evaluating; /* seconds, of all ranks */
  /* rank 0 */
  mg_grid grid;
  mg_where where;
  size_t matrix_count;
  mg_grid_matrix *matrices;
  double *tv, *cka_values; /* [N,N] from CSVs */
  const double *compatibility[2];
  mg_grid_cell *cells; /* [grid.count] */
  uint64_t *text_hash; /* [M] */
  mg_grid_kept *kept;  /* by recipe, rising, once sorted */
  size_t kept_count, kept_room;
  size_t done, all; /* merges */
  mg_strings reused;
  mg_progress progress;
  struct mg_grid_outcome *outcome;
};

/* Sources, weights, hashes of every cell; which of them are computed already; what is left, into work. */
mg_status mg_grid_recipes(mg_grid_stage *stage);
/* Reads matrices and compatibilities that cells go by. */
mg_status mg_grid_read_matrices(mg_grid_stage *stage);
void mg_grid_recipes_free(mg_grid_stage *stage);
/* Adds an answer to those that are known. */
mg_status mg_grid_keep(mg_grid_stage *stage, const mg_grid_answer *answer, mg_record_place place);
/* The answer to a recipe, or NULL; kept must be sorted. */
const mg_grid_kept *mg_grid_find_kept(const mg_grid_stage *stage, uint64_t recipe);
/* Marks the cells whose answers are known. */
void mg_grid_look_up(mg_grid_stage *stage);
/* Journals an answer and keeps it. place may be NULL. */
mg_status mg_grid_journal(mg_grid_stage *stage, uint64_t recipe, size_t target, const void *predictions, size_t bytes,
                          mg_record_place *place);
/* The cell has failed, with this thread's message. */
mg_status mg_grid_fail_cell(mg_grid_cell *cell);
/* Takes what earlier results know of the recipes that are left: into the journal. */
mg_status mg_grid_reuse(mg_grid_stage *stage);
/* MG_ERR_INPUT names a file of `reuse` that is missing or of another family. */
mg_status mg_grid_check_reuse(const mg_grid_stage *stage);
/* Every vote that is left. */
mg_status mg_grid_vote(mg_grid_stage *stage);

/* ---- rank 0: what came out (grid_outcome.c) ---- */

void mg_grid_outcome_free(mg_grid_stage *stage);
/*
 * Cells with what is known of them: all they are made of, and accuracies of baselines; with `answers` also of merges and votes.
 * What out points to lives until mg_grid_outcome_free; *source_mean (may be NULL) [C] as of mg_grid_manifest.
 */
mg_status mg_grid_make_cells(mg_grid_stage *stage, bool answers, mg_result_grid *out, const double **source_mean);

/* ---- rank 0: what a reader of the journal has to know of the cells (grid_manifest.c) ---- */

/* Into the journal, once recipes are known. */
mg_status mg_grid_journal_manifest(mg_grid_stage *stage);

#endif
