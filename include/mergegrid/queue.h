#ifndef MERGEGRID_QUEUE_H
#define MERGEGRID_QUEUE_H

/**
 * What rank 0 decides when it deals units to workers, without a message: the farm (schedule.h) asks it over MPI, the simulation
 * of many ranks (docs/scaling.md) without. Time plays no part: the same events in the same order give the same decisions.
 * Nothing here is collective.
 */

#include <stdbool.h>
#include <stdint.h>

#include "mergegrid/status.h"

/** Leases that a worker holds at most: what it computes, and what it goes on with. */
enum { MG_LEASES_AHEAD = 2 };
/** With more ranks than this rank 0 only deals. */
enum { MG_MASTER_COMPUTES_UP_TO = 32 };

/** Rank 0's books. */
typedef struct mg_queue mg_queue;

/** Units 0 … units − 1 for workers 1 … ranks − 1 and, while ranks are few, rank 0. */
mg_status mg_queue_create(int64_t units, int ranks, mg_queue **queue);
void mg_queue_destroy(mg_queue **queue);
/** Bytes that the books take: hangs on the ranks, never on the units. */
uint64_t mg_queue_bytes(int ranks);

/**
 * Is there a unit to be sent to the worker now? Call it until it says no: for every worker at the beginning, later for the one
 * whose result came. Units go out in rising order, each once.
 */
bool mg_queue_deal(mg_queue *queue, int worker, int64_t *unit);
/** Is there one for rank 0 to compute itself? */
bool mg_queue_own(mg_queue *queue, int64_t *unit);
/**
 * A result came from the rank. *wanted: it counts (after a stop it does, after a failure not). MG_ERR_INTERNAL: the rank has no
 * such lease.
 */
mg_status mg_queue_returned(mg_queue *queue, int rank, int64_t unit, bool *wanted);
/**
 * The job is to end: nothing is dealt any more. True where it is the reason to be told from now on: the first one is, but a
 * failure says more than a stop.
 */
bool mg_queue_end(mg_queue *queue, mg_status status);
/** Nothing is to be waited for but goodbyes: everything is taken, or there is a reason to end. */
bool mg_queue_over(const mg_queue *queue);
/** MG_OK while it goes on; a stop that came when everything was taken already changes nothing. */
mg_status mg_queue_status(const mg_queue *queue);
/** The workers are told to end. */
void mg_queue_close(mg_queue *queue);
/** A worker's last word. */
void mg_queue_bye(mg_queue *queue, int worker);
/** Has every worker said it? */
bool mg_queue_all_gone(const mg_queue *queue);

/** Units not dealt yet, dealt and not back yet, taken. */
typedef struct mg_queue_counts {
  int64_t left, leased, taken;
} mg_queue_counts;
mg_queue_counts mg_queue_count(const mg_queue *queue);

/** A worker's leases, in the order they came. Zero-initialise. */
typedef struct mg_leases {
  int64_t unit[MG_LEASES_AHEAD];
  int count;
  bool ended; /**< rank 0 said so */
} mg_leases;

/** False where a rank has no room for it: rank 0 deals out no more than that. */
bool mg_leases_add(mg_leases *leases, int64_t unit);
/** The next to be computed; false: none is there, or the job has ended. */
bool mg_leases_next(mg_leases *leases, int64_t *unit);

#endif
