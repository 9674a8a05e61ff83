#ifndef MERGEGRID_MERGE_H
#define MERGEGRID_MERGE_H

/** Merging: a recipe's tensors, computed from the tiles of its sources. Not collective. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/method.h"
#include "mergegrid/shard.h"
#include "mergegrid/status.h"

/** What tensors that only the sources have (heads) become: their theta_0 is 0, which few methods mean. */
typedef enum mg_head_policy {
  MG_HEAD_LINEAR, /**< the mean of the heads, weighted where the method is */
  MG_HEAD_METHOD  /**< as every other tensor */
} mg_head_policy;

/** All pointers borrowed. */
typedef struct mg_recipe {
  const mg_method *method;
  double values[MG_MOST_PARAMETERS]; /**< of its parameters */
  size_t count;
  const int *source;     /**< [count] rows of the tiles, rising */
  const char *const *id; /**< [count] their names: what is random hangs on name, tensor and element, not on order */
  const double *weight;  /**< [count], positive, sum 1 */
  mg_head_policy head;
  uint64_t seed;
} mg_recipe;

typedef struct mg_merger mg_merger;

/**
 * Memory for one merge, which borrows rows and recipe. Quantities of whole sources (a global trim's thresholds) are computed
 * here: that reads the sources twice.
 */
mg_status mg_merger_create(mg_rows *rows, const mg_recipe *recipe, mg_merger **merger);
void mg_merger_destroy(mg_merger **merger);

/** Makes tensor t of the table the current one; reads it where the method has quantities of whole tensors. */
mg_status mg_merger_tensor(mg_merger *merger, size_t t);
/**
 * Elements first … first + count − 1 of the current tensor's merge: theta = theta_0 + what the method makes of the task
 * vectors. Sums over sources are double, in the recipe's order; one rounding at the end. MG_ERR_INPUT where one is not finite
 * (names tensor and element).
 */
mg_status mg_merger_read(mg_merger *merger, int64_t first, int64_t count, float *out);

/**
 * The m-th largest magnitude of a source's elements in the tensors that `take` is true for (of all where NULL), exactly: by the
 * bits of |tau|, in two passes of 16. 0 for m = 0 elements.
 */
mg_status mg_magnitude_rank(mg_rows *rows, int source, const bool *take, uint64_t m, float *magnitude);

#endif
