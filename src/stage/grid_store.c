/* Sources in memory, once a node: the ranks of a node share one block. */

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/shared.h"

struct mg_node_store {
  mg_shared *block;    /* θ0, then the sources */
  size_t source_count; /* that are in memory */
  const float **tau;   /* [sources of the family] */
  mg_store store;
};

/* Every rank of the node reads its share. */
static mg_status fill(const mg_node_store *s, const mg_deltas *deltas, const int *wanted, const mg_range *ranges,
                      size_t range_count, size_t stride) {
  mg_status status = MG_OK;
  float *block = mg_shared_data(s->block);
  size_t first, step;
  mg_shared_turn(s->block, &first, &step);
  for (size_t k = first; k < s->source_count + 1; k += step) /* the slack behind each stays zero */
    MG_TRY(mg_store_fill(deltas, k == 0 ? MG_ROW_BASE : wanted[k - 1], ranges, range_count, block + k * stride), done);
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
  *s = (mg_node_store){.tau = tau};
  const uint64_t fit = bytes / (stride * sizeof(float));
  if (fit >= 2 && wanted_count > 0) {
    s->source_count = fit - 1 < wanted_count ? (size_t)fit - 1 : wanted_count;
    MG_TRY(mg_shared_create(comm, (s->source_count + 1) * stride * sizeof(float), "the sources", &s->block), failed);
    MG_TRY(mg_shared_ready(comm, s->block, fill(s, deltas, wanted, ranges, range_count, stride)), failed);
    const float *block = mg_shared_data(s->block);
    for (size_t k = 0; k < s->source_count; k++) s->tau[wanted[k]] = block + (k + 1) * stride;
    s->store = (mg_store){.range_count = range_count, .ranges = ranges, .tau = s->tau, .base = block};
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
  mg_shared_destroy(&s->block);
  free(s->tau), free(s);
  *store = NULL;
}

const mg_store *mg_node_store_get(const mg_node_store *s) { return s->source_count > 0 ? &s->store : NULL; }
size_t mg_node_store_sources(const mg_node_store *s) { return s->source_count; }
