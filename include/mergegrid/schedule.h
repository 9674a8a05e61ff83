#ifndef MERGEGRID_SCHEDULE_H
#define MERGEGRID_SCHEDULE_H

/** Dealing work to ranks, and agreeing on failure. The only header beside stage.h that knows MPI. */

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/places.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"

/**
 * Collective. All ranks return the same status: MG_OK if all came with it, else that of the lowest rank that failed, whose
 * message every rank then has. Call it after every rank-local piece of work that can fail.
 */
mg_status mg_agree(MPI_Comm comm, mg_status status);

/**
 * Collective. Is `text` (what: "the version") the same on all ranks? MG_ERR_INPUT names the lowest rank where it is another,
 * its host, and both texts.
 */
mg_status mg_agree_text(MPI_Comm comm, const char *what, const char *text);

/** Collective. Rank 0's bytes to everyone; on other ranks *data is allocated (NUL appended) and the caller frees it. */
mg_status mg_broadcast_bytes(MPI_Comm comm, void **data, size_t *size);

/** Collective. Ranks on this rank's node, and its number among them. */
void mg_node_ranks(MPI_Comm comm, int *ranks, int *rank);

/**
 * Collective. Threads for this rank: `asked`, or (0) the processors it may use, shared fairly with the node's other ranks. A
 * binding to one core that Open MPI made by default is undone where it would leave processors idle.
 */
int mg_threads_auto(MPI_Comm comm, int asked);

/** Collective. Numbers mine's node and gathers the places of all [ranks] on rank 0 (all is NULL on others). */
void mg_places_gather(MPI_Comm comm, mg_place *mine, mg_place *all);

typedef struct mg_farm_poll mg_farm_poll;

/** A job of numbered units dealt out to ranks as they ask. */
typedef struct mg_farm_job {
  int64_t units;
  void *context;
  /**
   * Any rank: computes one unit and appends its result to payload. Must call mg_farm_poll_now(poll) every few milliseconds and
   * return what it returns if that is not MG_OK.
   */
  mg_status (*work)(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll);
  /** Rank 0: takes a unit's result, in the order of arrival. */
  mg_status (*take)(void *context, int64_t unit, const void *payload, size_t size);
  /** Rank 0: called about ten times a second, and after every take (journal sync, progress). */
  mg_status (*tick)(void *context);
} mg_farm_job;

mg_status mg_farm_poll_now(mg_farm_poll *poll);

/**
 * Collective. Runs the job: rank 0 leases units in rising order, two ahead of every worker, and computes itself while there are
 * at most 32 ranks. A failure or a stop on any rank ends it on all, with the same status and message.
 */
mg_status mg_farm_run(MPI_Comm comm, const mg_farm_job *job);

#endif
