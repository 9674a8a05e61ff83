/* The tables of the backends, and what they have in common. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/text.h"
#include "ops_impl.h"

size_t mg_gram_scratch_bytes(int rows) {
  const size_t lanes =
      ((size_t)rows + MG_SPARE_ROWS) * MG_SCRATCH_STRIDE * sizeof(float) + ((size_t)rows + MG_SPARE_POINTERS) * sizeof(float *);
  const size_t chains = mg_chain_scratch_bytes(rows), bytes = chains > lanes ? chains : lanes;
  return (bytes + MG_ROW_ALIGN - 1) / MG_ROW_ALIGN * MG_ROW_ALIGN;
}

void mg_gram_finish(const double *acc, size_t pairs, double *sum) {
  for (size_t p = 0; p < pairs; p++) {
    const double *d = acc + MG_ACCUMULATORS * p;
    sum[p] = ((d[0] + d[4]) + (d[2] + d[6])) + ((d[1] + d[5]) + (d[3] + d[7]));
  }
}

mg_status mg_ops_get(const char *backend, const mg_ops **ops) {
  static const char *const known[] = {"auto", "ref", "openblas", "cuda"};
  const char *kernel = getenv("MERGEGRID_KERNEL");
  if (kernel != NULL && kernel[0] == '\0') kernel = NULL;
  if (strcmp(backend, "ref") == 0) {
    *ops = &mg_ops_ref;
    return MG_OK;
  }
  for (size_t k = 0; k < sizeof known / sizeof *known; k++) /* what a device leaves to the host is openblas's */
    if (strcmp(backend, known[k]) == 0) return mg_ops_openblas(kernel, ops);
  const char *nearest = mg_nearest(backend, known, sizeof known / sizeof *known);
  return mg_fail(MG_ERR_CONFIG, "compute.backend: '%s' is unknown%s%s%s (auto, ref, openblas, cuda)", backend,
                 nearest ? "; " : "", nearest ? nearest : "", nearest ? " is meant?" : "");
}
