#ifndef MG_MANIFEST_IMPL_H
#define MG_MANIFEST_IMPL_H

/* A grid's manifest, read back. */

#include "mergegrid/grid_journal.h"

/* Owns everything; cells as they were written, indexes held against what they point into. */
typedef struct mg_manifest {
  mg_grid_table table; /* cells, swept, targets, partition */
  char *select;
  double *source_mean; /* [C] */
  size_t classes;
  mg_manifest_texts *texts; /* [M] pointing into … */
  void **lists;             /* … [list_count] */
  size_t list_count;
} mg_manifest;

/* MG_ERR_CORRUPT, MG_ERR_INTERNAL: not a manifest, or of a version with other columns. `path` is for messages about the table.
 */
mg_status mg_manifest_read(const char *path, const void *payload, size_t size, mg_manifest *manifest);
void mg_manifest_free(mg_manifest *manifest);

#endif
