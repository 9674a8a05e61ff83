#ifndef MERGEGRID_TESTS_SIMULATE_H
#define MERGEGRID_TESTS_SIMULATE_H

/**
 * A farm of any number of ranks in simulated time. The decisions are the program's (mergegrid/queue.h); computing, reading,
 * messages and the journal take the times that a machine's description gives them. The same input gives the same figures.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/queue.h"

/** What takes how long: seconds, bytes a second. */
typedef struct sim_machine {
  double flops;               /**< of one rank */
  double merge_rate;          /**< bytes a second that one rank's merging goes through */
  double read_one, read_all;  /**< of one rank; of the file system under all of them */
  double cached;              /**< of one rank, what another one of its node has read already */
  int node;                   /**< ranks a node */
  double latency, bandwidth;  /**< of a message between ranks */
  double decide;              /**< taking a result off the books and dealing the next unit */
  double message;             /**< of rank 0: probing and receiving, or sending, one */
  double message_byte;        /**< and a byte of it */
  double record, record_byte; /**< appending to the journal */
  double sync, sync_byte;     /**< bringing the journal to the disk, and each byte written since */
  double sync_every;          /**< seconds between two of that */
  double sum_byte;            /**< adding a byte of partial sums to the tree */
  double launch, launch_rank; /**< starting the ranks: fixed, and each */
  double opens;               /**< files that the file system opens a second */
  double idle_wait, poll;     /**< a waiting rank looks every …; a computing one every … */
  double spread, noise;       /**< ranks differ by ± this share, and units by ± that */
} sim_machine;

/** What a rank does for a unit, and what rank 0 gets. */
typedef struct sim_unit {
  double seconds, read_bytes;
  uint32_t payload_bytes, records, sum_bytes;
  int32_t context; /**< a source or target that a rank may have at hand already, −1 */
} sim_unit;

typedef struct sim_job {
  int64_t units;
  const sim_unit *unit;
  double switch_bytes; /**< read when a rank comes to another context: from the disk the first time on its node */
  int32_t contexts;    /**< how many there are */
  /** Rank 0 takes a unit; may be NULL. */
  void (*take)(void *context, int64_t unit);
  void *context;
} sim_job;

typedef struct sim_outcome {
  double makespan;   /**< from the first lease to the last goodbye */
  double idle;       /**< share of ranks × makespan in which they neither computed nor read */
  double master;     /**< share of the makespan that rank 0 spends with messages, journal and sums */
  double read_bytes; /**< from the file system */
  uint64_t messages, journal_bytes;
  uint64_t waiting, waiting_bytes; /**< most results that waited for rank 0, and their payload */
} sim_outcome;

/** False: out of memory. */
bool sim_run(const sim_machine *machine, const sim_job *job, int ranks, sim_outcome *outcome);

/** A number in [−1, 1) that hangs on its arguments alone. */
double sim_draw(uint64_t a, uint64_t b);

#endif
