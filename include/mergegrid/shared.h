#ifndef MERGEGRID_SHARED_H
#define MERGEGRID_SHARED_H

/** Memory that the ranks of a node have once between them: filled by some of them, then read by all. */

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

typedef struct mg_shared mg_shared;

/**
 * Collective; `bytes` (above 0) and what ("the sources", for messages) are the same on all ranks. A block of zeros, aligned to
 * 64 bytes, once a node. Where a node has one rank only, and where its kernel does not give so much or its ranks cannot see
 * each other's memory, every rank there has a block of its own. All its pages are there when this returns: a node that has too
 * little is a refusal (MG_ERR_NOMEM), not a signal later. The caller owns *shared (mg_shared_destroy).
 */
mg_status mg_shared_create(MPI_Comm comm, uint64_t bytes, const char *what, mg_shared **shared);

/**
 * Not collective, but nobody may write or be about to read another's writing: after mg_shared_ready, or where create was the
 * last call. NULL is nothing to destroy.
 */
void mg_shared_destroy(mg_shared **shared);

/** The block, owned by shared. */
void *mg_shared_data(const mg_shared *shared);

/** Of all that is to be written into this rank's block, it writes pieces *first, *first + *step, …; 0 and 1 of a block of its
 * own. */
void mg_shared_turn(const mg_shared *shared, size_t *first, size_t *step);

/**
 * Collective, once everyone has written: as mg_agree, and all ranks of a node see the block as it is then. A block that is
 * shared cannot be written any more.
 */
mg_status mg_shared_ready(MPI_Comm comm, mg_shared *shared, mg_status status);

/** One of several arrays in a block. */
typedef struct mg_shared_piece {
  const void *from; /**< rank 0: what it holds, borrowed */
  size_t size;      /**< in bytes; rank 0's becomes everyone's */
  void *at;         /**< where it is in the block, aligned to 64 bytes; NULL of size 0 */
} mg_shared_piece;

/** Collective. Rank 0's pieces [count] to every node, into one block that is ready; NULL where all are empty. */
mg_status mg_shared_broadcast(MPI_Comm comm, const char *what, mg_shared_piece *pieces, size_t count, mg_shared **shared);

#endif
