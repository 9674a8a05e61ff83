/* What cells say of a target's texts, beside the right answers; and the matrices that cells went by. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/text.h"

static mg_status bad(const mg_h5_reader *r, const char *path, const char *expected) {
  return mg_fail(MG_ERR_CORRUPT, "%s: %s: %s was expected", r->path, path, expected);
}

/* Which texts are of a partition; *count how many. */
static mg_status mark(const mg_strings *partitions, const char *wanted, bool **flags, size_t *count) {
  *count = 0;
  *flags = mg_alloc(partitions->count, sizeof **flags);
  if (*flags == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < partitions->count; k++) *count += (*flags)[k] = strcmp(partitions->items[k], wanted) == 0;
  return MG_OK;
}

/* Labels, and which texts cells are scored on and which are chosen by: where those are missing, nxn's stand in. */
static mg_status read_labels(const mg_h5_reader *r, const char *target, mg_grid_answers *a) {
  mg_status status = MG_OK;
  char path[192], *scored = NULL, *selects = NULL, *stands_in = NULL;
  mg_strings partitions = {0};
  hsize_t dim;
  void *labels = NULL;
  size_t count;
  MG_TRY(mg_h5_read_text(r, "/grid", "partition", &scored), cleanup);
  MG_TRY(mg_h5_read_text(r, "/nxn", "partition", &stands_in), cleanup);
  MG_TRY(mg_h5_read_text(r, "/nxn_select", "partition", &selects), cleanup);
  snprintf(path, sizeof path, "/texts/%.128s/label", target);
  MG_TRY(mg_h5_read_numbers(r, path, H5T_NATIVE_INT32, 1, &dim, &labels), cleanup);
  a->label = labels;
  a->texts = (size_t)dim;
  snprintf(path, sizeof path, "/texts/%.128s/partition", target);
  MG_TRY(mg_h5_read_strings(r, path, &partitions), cleanup);
  if (partitions.count != a->texts) {
    status = bad(r, path, "as many strings as there are labels");
    goto cleanup;
  }
  MG_TRY(mark(&partitions, selects, &a->selects, &count), cleanup);
  if (count == 0) {
    free(a->selects);
    MG_TRY(mark(&partitions, stands_in, &a->selects, &count), cleanup);
  }
  MG_TRY(mark(&partitions, scored, &a->scored, &count), cleanup);
  if (count == 0) memcpy(a->scored, a->selects, a->texts * sizeof *a->scored);
cleanup:
  free(scored), free(selects), free(stands_in);
  mg_strings_free(&partitions);
  return status;
}

static mg_status read_predictions(const mg_h5_reader *r, const char *target, mg_grid_answers *a) {
  char path[192];
  hsize_t dims[2];
  void *data = NULL;
  snprintf(path, sizeof path, "/grid/predictions/%.128s", target);
  const mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_INT32, 2, dims, &data);
  a->predictions = data;
  if (status != MG_OK) return status;
  a->rows = (size_t)dims[0];
  return dims[1] == a->texts ? MG_OK : bad(r, path, "rows × the target's texts");
}

/* ---- the best source's answers ---- */

/* The source of highest accuracy in the target's column, the first of equals; −1 where the result has none. */
static mg_status find_best(const mg_h5_reader *r, const char *target, ptrdiff_t *best) {
  mg_status status = MG_OK;
  hsize_t dims[2];
  void *data = NULL;
  mg_strings targets = {0};
  *best = -1;
  MG_TRY(mg_h5_read_strings(r, "/targets", &targets), cleanup);
  MG_TRY(mg_h5_read_numbers(r, "/nxn_select/accuracy", H5T_NATIVE_DOUBLE, 2, dims, &data), cleanup);
  const double *accuracy = data;
  const ptrdiff_t column = mg_strings_find(&targets, target);
  if (column < 0 || dims[1] != targets.count) {
    status = bad(r, "/nxn_select/accuracy", "a column for each target");
    goto cleanup;
  }
  for (size_t s = 0; s < dims[0]; s++)
    if (*best < 0 || accuracy[s * dims[1] + (size_t)column] > accuracy[(size_t)*best * dims[1] + (size_t)column])
      *best = (ptrdiff_t)s;
cleanup:
  free(data);
  mg_strings_free(&targets);
  return status;
}

/* A source's row of a part's predictions goes to where those texts stand among all. */
static mg_status spread(const mg_h5_reader *r, const char *group, const char *target, size_t source, const char *partition,
                        const mg_strings *partitions, int32_t *all) {
  char path[192];
  hsize_t dims[2];
  void *data = NULL;
  size_t next = 0;
  snprintf(path, sizeof path, "%s/predictions/%.128s", group, target);
  mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_INT32, 2, dims, &data);
  for (size_t k = 0; status == MG_OK && k < partitions->count; k++) {
    if (strcmp(partitions->items[k], partition) != 0) continue;
    if (source >= dims[0] || next >= dims[1])
      status = bad(r, path, "sources × the partition's texts");
    else
      all[k] = ((const int32_t *)data)[source * dims[1] + next++];
  }
  free(data);
  return status;
}

static mg_status read_best_source(const mg_h5_reader *r, const char *target, mg_grid_answers *a) {
  static const char *const groups[] = {"/nxn_select", "/nxn"};
  mg_status status = MG_OK;
  char path[192];
  ptrdiff_t best;
  mg_strings partitions = {0};
  MG_TRY(find_best(r, target, &best), cleanup);
  if (best < 0) goto cleanup;
  a->best_source = mg_alloc(a->texts, sizeof *a->best_source);
  if (a->best_source == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < a->texts; k++) a->best_source[k] = -1;
  snprintf(path, sizeof path, "/texts/%.128s/partition", target);
  MG_TRY(mg_h5_read_strings(r, path, &partitions), cleanup);
  for (size_t g = 0; g < 2; g++) {
    char *partition = NULL;
    status = mg_h5_read_text(r, groups[g], "partition", &partition);
    if (status == MG_OK) status = spread(r, groups[g], target, (size_t)best, partition, &partitions, a->best_source);
    free(partition);
    if (status != MG_OK) goto cleanup;
  }
cleanup:
  mg_strings_free(&partitions);
  return status;
}

mg_status mg_grid_read_answers(const mg_grid_reader *reader, const char *target, mg_grid_answers *a) {
  mg_status status = MG_OK;
  const mg_h5_reader *r = &reader->h5;
  *a = (mg_grid_answers){0};
  MG_TRY(read_labels(r, target, a), done);
  MG_TRY(read_predictions(r, target, a), done);
  MG_TRY(read_best_source(r, target, a), done);
done:
  if (status != MG_OK) mg_grid_answers_free(a);
  return status;
}

mg_status mg_grid_answers_read(const char *path, const char *target, mg_grid_answers *a) {
  mg_grid_reader *reader = NULL;
  *a = (mg_grid_answers){0};
  mg_status status = mg_grid_open(path, &reader);
  if (status == MG_OK) status = mg_grid_read_answers(reader, target, a);
  mg_grid_close(&reader);
  return status;
}

void mg_grid_answers_free(mg_grid_answers *a) {
  free(a->label), free(a->scored), free(a->selects), free(a->predictions), free(a->best_source);
  *a = (mg_grid_answers){0};
}

/* ---- matrices ---- */

mg_status mg_grid_read_matrix(const mg_h5_reader *r, const char *name, mg_labelled_table *table) {
  mg_status status = MG_OK;
  char group[160], path[192];
  hsize_t dims[2];
  void *values = NULL;
  *table = (mg_labelled_table){0};
  mg_matrix_path(name, group);
  if (!mg_h5_has(r, group)) return mg_fail(MG_ERR_INPUT, "%s: has no similarity matrix %s", r->path, name);
  snprintf(path, sizeof path, "%s/label", group);
  MG_TRY(mg_h5_read_strings(r, path, &table->rows), failed);
  MG_TRY(mg_h5_read_strings(r, path, &table->columns), failed);
  snprintf(path, sizeof path, "%s/value", group);
  MG_TRY(mg_h5_read_numbers(r, path, H5T_NATIVE_DOUBLE, 2, dims, &values), failed);
  table->values = values;
  table->count = table->room = (size_t)(dims[0] * dims[1]);
  if (dims[0] != table->rows.count || dims[1] != table->rows.count) {
    status = bad(r, path, "labels × labels");
    goto failed;
  }
  return MG_OK;
failed:
  mg_labelled_table_free(table);
  return status;
}
