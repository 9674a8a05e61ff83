/* How fast this machine merges what is in memory: for plans. */

#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/log.h"

mg_status mg_merge_rate(double *linear, double *elected) {
  enum { SOURCES = 5, ELEMENTS = 1 << 20, PIECE = 8192 };
  mg_status status = MG_OK;
  const mg_merge_kernels *kernels = mg_merge_kernels_get();
  const double weight[SOURCES] = {0.2, 0.2, 0.2, 0.2, 0.2}, low[SOURCES] = {0}, high[SOURCES] = {1, 1, 1, 1, 1};
  float *block = mg_alloc_aligned(((SOURCES + 2) * (size_t)ELEMENTS + MG_MERGE_SLACK) * sizeof *block);
  double *sum = mg_alloc_aligned((PIECE + MG_MERGE_SLACK) * sizeof *sum);
  if (block == NULL || sum == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  memset(block, 0, ((SOURCES + 2) * (size_t)ELEMENTS + MG_MERGE_SLACK) * sizeof *block);
  for (int pass = 0; pass < 3; pass++) { /* the first to warm up */
    const double began = mg_now();
    for (size_t at = 0; at < ELEMENTS; at += PIECE) {
      const float *tau[SOURCES];
      for (size_t s = 0; s < SOURCES; s++) tau[s] = block + s * ELEMENTS + at;
      const mg_merge_rows rows = {.sources = SOURCES,
                                  .count = PIECE,
                                  .tau = tau,
                                  .weight = weight,
                                  .vote = weight,
                                  .threshold = low,
                                  .ceiling = high,
                                  .tie = 1};
      if (pass < 2)
        kernels->add_up(&rows, sum);
      else
        kernels->elect(&rows, MG_ELECTED_MEAN, sum);
      kernels->finish(block + SOURCES * (size_t)ELEMENTS + at, sum, 1, 1, PIECE, block + (SOURCES + 1) * (size_t)ELEMENTS + at);
    }
    *(pass < 2 ? linear : elected) = (SOURCES + 2) * (double)ELEMENTS * sizeof(float) / (mg_now() - began);
  }
cleanup:
  free(block), free(sum);
  return status;
}
