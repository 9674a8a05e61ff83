/* Sources in memory, once a node: the ranks of a node share one window. */

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"

struct mg_node_store {
  MPI_Comm node;
  MPI_Win window;
  float *block; /* θ0, then the sources */
  bool shared;
  size_t source_count; /* that are in memory */
  const float **tau;   /* [sources of the family] */
  mg_store store;
};

/* Rank 0 of the node makes room; where a window is not to be had, and where nobody shares, everyone has their own. */
static mg_status make_room(mg_node_store *s, uint64_t bytes) {
  int ranks, rank, unit;
  MPI_Aint size;
  MPI_Comm_size(s->node, &ranks);
  MPI_Comm_rank(s->node, &rank);
  if (ranks > 1) {
    void *mine = NULL;
    MPI_Comm_set_errhandler(s->node, MPI_ERRORS_RETURN);
    int made =
        MPI_Win_allocate_shared(rank == 0 ? (MPI_Aint)bytes : 0, 1, MPI_INFO_NULL, s->node, &mine, &s->window) == MPI_SUCCESS;
    MPI_Allreduce(MPI_IN_PLACE, &made, 1, MPI_INT, MPI_MIN, s->node);
    if (made) {
      s->shared = true;
      MPI_Win_shared_query(s->window, 0, &size, &unit, (void *)&s->block);
      return MG_OK;
    }
    mg_debug("no shared memory for the sources: every rank keeps its own");
  }
  s->block = mg_alloc_aligned((size_t)bytes);
  return s->block != NULL ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory for sources of %.3g GB", (double)bytes / 1e9);
}

/* Every rank of the node reads its share. */
static mg_status fill(mg_node_store *s, const mg_deltas *deltas, const int *wanted, const mg_range *ranges, size_t range_count,
                      size_t stride) {
  mg_status status = MG_OK;
  int ranks, rank;
  MPI_Comm_size(s->node, &ranks);
  MPI_Comm_rank(s->node, &rank);
  const size_t step = s->shared ? (size_t)ranks : 1, first = s->shared ? (size_t)rank : 0;
  for (size_t k = first; k < s->source_count + 1; k += step) {
    const int source = k == 0 ? MG_ROW_BASE : wanted[k - 1];
    float *block = s->block + k * stride;
    memset(block + stride - MG_STORE_SLACK, 0, MG_STORE_SLACK * sizeof *block);
    MG_TRY(mg_store_fill(deltas, source, ranges, range_count, block), done);
  }
done:
  return status;
}

mg_status mg_node_store_open(MPI_Comm comm, const mg_deltas *deltas, const int *wanted, size_t wanted_count,
                             const mg_range *ranges, size_t range_count, size_t floats, uint64_t bytes, mg_node_store **out) {
  mg_status status = MG_OK;
  const size_t stride = (floats + MG_STORE_SLACK + 15) / 16 * 16, sources = mg_rows_sources(deltas->rows);
  mg_node_store *s = mg_alloc_zero(1, sizeof *s);
  const float **tau = mg_alloc_zero(sources, sizeof *tau);
  if (s == NULL || tau == NULL) status = MG_ERR_NOMEM;
  status = mg_agree(comm, status);
  if (status != MG_OK || s == NULL) {
    free(s), free(tau);
    return status;
  }
  *s = (mg_node_store){.node = MPI_COMM_NULL, .tau = tau};
  const uint64_t fit = bytes / (stride * sizeof(float));
  if (fit >= 2 && wanted_count > 0) {
    s->source_count = fit - 1 < wanted_count ? (size_t)fit - 1 : wanted_count;
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &s->node);
    MG_TRY(mg_agree(comm, make_room(s, (s->source_count + 1) * stride * sizeof(float))), failed);
    if (s->shared) MPI_Win_lock_all(MPI_MODE_NOCHECK, s->window);
    MG_TRY(mg_agree(comm, fill(s, deltas, wanted, ranges, range_count, stride)), failed);
    if (s->shared) {
      MPI_Win_sync(s->window);
      MPI_Barrier(s->node);
      MPI_Win_sync(s->window);
    }
    for (size_t k = 0; k < s->source_count; k++) s->tau[wanted[k]] = s->block + (k + 1) * stride;
    s->store = (mg_store){.range_count = range_count, .ranges = ranges, .tau = s->tau, .base = s->block};
  }
  *out = s;
  return MG_OK;
failed:
  mg_node_store_close(&s);
  return status;
}

void mg_node_store_close(mg_node_store **store) {
  mg_node_store *s = *store;
  if (s == NULL) return;
  if (s->shared) {
    MPI_Win_unlock_all(s->window);
    MPI_Win_free(&s->window);
  } else {
    free(s->block);
  }
  if (s->node != MPI_COMM_NULL) MPI_Comm_free(&s->node);
  free(s->tau), free(s);
  *store = NULL;
}

const mg_store *mg_node_store_get(const mg_node_store *s) { return s->source_count > 0 ? &s->store : NULL; }
size_t mg_node_store_sources(const mg_node_store *s) { return s->source_count; }
