#ifndef MERGEGRID_STAGE_IMPL_H
#define MERGEGRID_STAGE_IMPL_H

#include "mergegrid/config.h"
#include "mergegrid/family.h"
#include "mergegrid/gram.h"
#include "mergegrid/schedule.h"
#include "mergegrid/shard.h"
#include "mergegrid/stage.h"

/** The family as a run finds it: what has a checkpoint, what has only a shard. */
typedef struct mg_roster {
  mg_source_list list;
  bool base_there;   /**< the base's directory exists */
  mg_family *family; /**< of the sources that have checkpoints; NULL where none has one or the base is gone */
  ptrdiff_t *member; /**< [list.count]: index in family, −1 where only a shard is there */
  mg_strings labels;
  double family_seconds, pack_seconds; /**< what finding and packing it took, for the result */
} mg_roster;

/**
 * Not collective. Resolves the sources (checkpoints, or shards where those are gone) and compares headers.
 * quiet: do not log notes.
 */
mg_status mg_roster_open(const mg_config *config, bool quiet, mg_roster *roster);
void mg_roster_close(mg_roster *roster);
/** Collective. The same on all ranks, which must see the same family. */
mg_status mg_roster_open_all(MPI_Comm comm, const mg_config *config, mg_roster *roster);

/** Collective. Packs what is missing or outdated. */
mg_status mg_pack_family(MPI_Comm comm, const mg_config *config, const mg_roster *roster, bool rehash);

/** Not collective. Tile rows of the roster: from shards, or from the checkpoints. */
mg_status mg_roster_rows(const mg_config *config, const mg_roster *roster, mg_rows **rows);

/** The shape of a run: layout, lease size, what it holds. The same for plan and run. */
typedef struct mg_gram_plan {
  bool *selected;
  mg_gram_layout *layout;
  int64_t unit_leaves;                                         /**< a power of two */
  uint64_t engine_bytes, master_bytes, base_bytes, rank_bytes; /**< rank_bytes: the predicted peak of rank 0, the largest */
  double bytes_read, flops;
} mg_gram_plan;

/** staging_bytes as of mg_rows_staging_bytes. MG_ERR_NOMEM where rank_bytes exceeds the memory budget; says what would fit. */
mg_status mg_gram_plan_make(const mg_config *config, const mg_tensor_table *table, int sources, mg_dtype dtype,
                            double bytes_per_element, size_t staging_bytes, int ranks, int threads, mg_gram_plan *plan);
void mg_gram_plan_free(mg_gram_plan *plan);

/** Collective. The compatibility stage over rows that are open on every rank; run is NULL on other ranks than 0. */
mg_status mg_stage_compatibility(MPI_Comm comm, const mg_config *config, const mg_run_options *options, const mg_roster *roster,
                                 mg_rows *rows, mg_run *run);

/** Peak of anonymous and shared memory of this process so far, in bytes. */
uint64_t mg_peak_memory(void);
/** "2026-01-31T12:00:00Z" into buffer[21]. */
void mg_utc_now(char *buffer);

#endif
