#ifndef MG_MATRICES_IMPL_H
#define MG_MATRICES_IMPL_H

#include "hdf5_impl.h"
#include "mergegrid/result.h"

/* Each source on each target, part 0 the partition, part 1 `select`. */
typedef struct mg_evaluation {
  double *accuracy[2], *macro_f1[2]; /* [N,M] */
  char *partition[2];
  mg_strings failed_source, failed_target, error; /* of each evaluation that failed, whose numbers are NaN */
} mg_evaluation;

/* What export and show read of a result. */
typedef struct mg_matrices {
  const char *path;
  mg_strings ids, locales, paths, skipped, labels, tensors, layers, groups;
  double *cosine, *encoder, *by_layer; /* [N,N], [N,N] or NULL, [L,N,N] or NULL; cosine NULL without the stage compatibility */
  double *cka;                         /* [K,N,N] or NULL */
  int *cka_layers;                     /* [K] */
  size_t cka_layer_count;
  int64_t cka_samples; /* probe texts */
  double *norm;        /* [N]: of the selected tensors, from the Grams; NULL where they mix */
  mg_strings targets;  /* none without the stage nxn */
  mg_evaluation nxn;
  char *base_path, *started, *finished, *version, *backend, *numeric_mode, *level;
} mg_matrices;

mg_status mg_matrices_read(const char *path, mg_matrices *matrices);
/* The same of an open file, whose path is borrowed. */
mg_status mg_matrices_read_from(const mg_h5_reader *reader, mg_matrices *matrices);
/* By accuracy on the partition: a target's own source, and the best of the others (the first of equals) that has not failed; −1
 * where there is none. */
void mg_matrices_best(const mg_matrices *matrices, size_t target, ptrdiff_t *own, ptrdiff_t *best);
void mg_matrices_free(mg_matrices *matrices);

#endif
