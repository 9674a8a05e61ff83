/* What the stage compatibility says of pairs of sources, over the selected tensors. */

#include <stdlib.h>
#include <string.h>

#include "hdf5_impl.h"
#include "mergegrid/text.h"

static mg_status bad(const mg_h5_reader *r, const char *path, const char *expected) {
  return mg_fail(MG_ERR_CORRUPT, "%s: %s: %s was expected", r->path, path, expected);
}

/* Is a group of the Grams of selected tensors? Of tensors the table says so; else only what is called "excluded" is not. */
static mg_status read_selected(const mg_h5_reader *r, const mg_strings *groups, bool **selected) {
  mg_status status = MG_OK;
  char *level = NULL;
  hsize_t dims[1] = {0};
  MG_TRY(mg_h5_read_text(r, "/compatibility/gram/groups", "level", &level), cleanup);
  if (strcmp(level, "tensor") == 0) {
    MG_TRY(mg_h5_read_bools(r, "/tensors/selected", 1, dims, selected), cleanup);
    if (dims[0] != groups->count) status = bad(r, "/compatibility/gram/groups", "a group a tensor");
    goto cleanup;
  }
  *selected = mg_alloc(groups->count, sizeof **selected);
  if (*selected == NULL) status = MG_ERR_NOMEM;
  for (size_t g = 0; *selected != NULL && g < groups->count; g++) (*selected)[g] = strcmp(groups->items[g], "excluded") != 0;
cleanup:
  free(level);
  return status;
}

static mg_status read_dot(const mg_h5_reader *r, size_t n, double **dot) {
  static const char *const path = "/compatibility/gram/source_dot";
  mg_status status = MG_OK;
  mg_strings groups = {0};
  bool *selected = NULL;
  void *values = NULL;
  hsize_t dims[3];
  MG_TRY(mg_h5_read_strings(r, "/compatibility/gram/groups", &groups), cleanup);
  MG_TRY(read_selected(r, &groups, &selected), cleanup);
  MG_TRY(mg_h5_read_numbers(r, path, H5T_NATIVE_DOUBLE, 3, dims, &values), cleanup);
  if (dims[0] != groups.count || dims[1] != n || dims[2] != n) {
    status = bad(r, path, "groups × sources × sources");
    goto cleanup;
  }
  *dot = mg_alloc_zero(n, n * sizeof **dot);
  if (*dot == NULL) status = MG_ERR_NOMEM;
  for (size_t g = 0; *dot != NULL && g < groups.count; g++)
    for (size_t k = 0; selected[g] && k < n * n; k++) (*dot)[k] += ((const double *)values)[g * n * n + k];
cleanup:
  mg_strings_free(&groups);
  free(selected), free(values);
  return status;
}

static mg_status read_cka(const mg_h5_reader *r, size_t n, double **cka) {
  static const char *const path = "/compatibility/cka";
  void *values = NULL;
  hsize_t dims[3];
  if (!mg_h5_has(r, path)) return MG_OK;
  mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_DOUBLE, 3, dims, &values);
  if (status == MG_OK && (dims[0] == 0 || dims[1] != n || dims[2] != n)) status = bad(r, path, "layers × sources × sources");
  if (status == MG_OK) memmove(values, (const double *)values + (dims[0] - 1) * n * n, n * n * sizeof(double));
  *cka = values;
  return status;
}

mg_status mg_result_read_pairs(const mg_result_reader *reader, mg_result_pairs *pairs) {
  mg_status status = MG_OK;
  const mg_h5_reader *r = &reader->h5;
  mg_strings ids = {0};
  void *cosine = NULL;
  hsize_t dims[2];
  *pairs = (mg_result_pairs){0};
  if (!mg_h5_has(r, "/compatibility"))
    return mg_fail(MG_ERR_INPUT, "%s: has no stage compatibility, whose matrices are asked for", r->path);
  MG_TRY(mg_h5_read_strings(r, "/sources/id", &ids), cleanup);
  const size_t n = pairs->sources = ids.count;
  status = mg_h5_read_numbers(r, "/compatibility/task_vector_cosine", H5T_NATIVE_DOUBLE, 2, dims, &cosine);
  pairs->cosine = cosine;
  if (status == MG_OK && (dims[0] != n || dims[1] != n))
    status = bad(r, "/compatibility/task_vector_cosine", "sources × sources");
  if (status != MG_OK) goto cleanup;
  MG_TRY(read_dot(r, n, &pairs->dot), cleanup);
  MG_TRY(read_cka(r, n, &pairs->cka), cleanup);
cleanup:
  mg_strings_free(&ids);
  if (status != MG_OK) mg_result_pairs_free(pairs);
  return status;
}

void mg_result_pairs_free(mg_result_pairs *pairs) {
  free(pairs->cosine), free(pairs->dot), free(pairs->cka);
  *pairs = (mg_result_pairs){0};
}
