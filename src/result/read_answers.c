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

mg_status mg_grid_count_texts(const mg_h5_reader *r, const char *target, size_t *texts) {
  char path[192];
  hsize_t dim = 0;
  void *labels = NULL;
  snprintf(path, sizeof path, "/texts/%.128s/label", target);
  const mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_INT32, 1, &dim, &labels);
  free(labels);
  *texts = (size_t)dim;
  return status;
}

mg_status mg_grid_count_scored(const mg_h5_reader *r, const char *target, size_t *count) {
  mg_grid_answers answers = {0};
  const mg_status status = read_labels(r, target, &answers);
  *count = 0;
  for (size_t k = 0; status == MG_OK && k < answers.texts; k++) *count += answers.scored[k];
  mg_grid_answers_free(&answers);
  return status;
}

/* ---- the best sources' answers ---- */

/* How sources do on a target's texts that are chosen by, and whose own they are. */
typedef struct ranking {
  mg_strings targets, locales;
  double *accuracy; /* [N,M] */
  size_t column;
} ranking;

static mg_status read_ranking(const mg_h5_reader *r, const char *target, ranking *k) {
  mg_status status = MG_OK;
  hsize_t dims[2];
  void *data = NULL;
  MG_TRY(mg_h5_read_strings(r, "/targets", &k->targets), done);
  MG_TRY(mg_h5_read_strings(r, "/sources/locale", &k->locales), done);
  MG_TRY(mg_h5_read_numbers(r, "/nxn_select/accuracy", H5T_NATIVE_DOUBLE, 2, dims, &data), done);
  k->accuracy = data;
  const ptrdiff_t column = mg_strings_find(&k->targets, target);
  if (column < 0 || dims[0] != k->locales.count || dims[1] != k->targets.count)
    return bad(r, "/nxn_select/accuracy", "a row for each source, a column for each target");
  k->column = (size_t)column;
done:
  return status;
}

/* The source of highest accuracy, the first of equals; −1 where there is none. */
static ptrdiff_t find_best(const ranking *k, bool own_too) {
  ptrdiff_t best = -1;
  for (size_t s = 0; s < k->locales.count; s++) {
    const double *accuracy = k->accuracy + k->column;
    if (!own_too && strcmp(k->locales.items[s], k->targets.items[k->column]) == 0) continue;
    if (isnan(accuracy[s * k->targets.count])) continue; /* it has failed */
    if (best < 0 || accuracy[s * k->targets.count] > accuracy[(size_t)best * k->targets.count]) best = (ptrdiff_t)s;
  }
  return best;
}

/* A source's row of a part's predictions goes to where those texts stand among all. */
static mg_status spread(const mg_h5_reader *r, const char *group, const char *target, size_t source,
                        const mg_strings *partitions, int32_t *all) {
  mg_status status = MG_OK;
  char path[192], *partition = NULL;
  hsize_t dims[2];
  void *data = NULL;
  size_t next = 0;
  MG_TRY(mg_h5_read_text(r, group, "partition", &partition), cleanup);
  snprintf(path, sizeof path, "%s/predictions/%.128s", group, target);
  MG_TRY(mg_h5_read_numbers(r, path, H5T_NATIVE_INT32, 2, dims, &data), cleanup);
  for (size_t k = 0; status == MG_OK && k < partitions->count; k++) {
    if (strcmp(partitions->items[k], partition) != 0) continue;
    if (source >= dims[0] || next >= dims[1])
      status = bad(r, path, "sources × the partition's texts");
    else
      all[k] = ((const int32_t *)data)[source * dims[1] + next++];
  }
cleanup:
  free(partition);
  free(data);
  return status;
}

static mg_status read_source(const mg_h5_reader *r, const char *target, ptrdiff_t source, const mg_strings *partitions,
                             int32_t **all) {
  mg_status status = MG_OK;
  if (source < 0) return MG_OK;
  *all = mg_alloc(partitions->count, sizeof **all);
  if (*all == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < partitions->count; k++) (*all)[k] = -1;
  MG_TRY(spread(r, "/nxn_select", target, (size_t)source, partitions, *all), done);
  MG_TRY(spread(r, "/nxn", target, (size_t)source, partitions, *all), done);
done:
  return status;
}

static mg_status read_best_sources(const mg_h5_reader *r, const char *target, mg_grid_answers *a) {
  mg_status status = MG_OK;
  char path[192];
  ranking rank = {0};
  mg_strings partitions = {0};
  MG_TRY(read_ranking(r, target, &rank), cleanup);
  snprintf(path, sizeof path, "/texts/%.128s/partition", target);
  MG_TRY(mg_h5_read_strings(r, path, &partitions), cleanup);
  MG_TRY(read_source(r, target, find_best(&rank, true), &partitions, &a->best_source), cleanup);
  MG_TRY(read_source(r, target, find_best(&rank, false), &partitions, &a->best_zero_shot), cleanup);
cleanup:
  mg_strings_free(&rank.targets), mg_strings_free(&rank.locales);
  free(rank.accuracy);
  mg_strings_free(&partitions);
  return status;
}

mg_status mg_grid_read_answers(const mg_grid_reader *reader, const char *target, mg_grid_answers *a) {
  mg_status status = MG_OK;
  const mg_h5_reader *r = &reader->h5;
  *a = (mg_grid_answers){0};
  MG_TRY(read_labels(r, target, a), done);
  MG_TRY(read_predictions(r, target, a), done);
  MG_TRY(read_best_sources(r, target, a), done);
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
  free(a->label), free(a->scored), free(a->selects), free(a->predictions);
  free(a->best_source), free(a->best_zero_shot);
  *a = (mg_grid_answers){0};
}

/* ---- matrices ---- */

mg_status mg_grid_read_matrix(const mg_grid_reader *reader, const char *name, mg_labelled_table *table) {
  mg_status status = MG_OK;
  const mg_h5_reader *r = &reader->h5;
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

mg_status mg_grid_matrix_names(const mg_grid_reader *reader, mg_strings *names) {
  mg_status status = MG_OK;
  mg_strings used = {0};
  if (!mg_h5_has(&reader->h5, "/grid")) return MG_OK;
  MG_TRY(mg_h5_read_strings(&reader->h5, "/grid/cells/similarity_type", &used), cleanup);
  for (size_t k = 0; k < used.count; k++) {
    char group[160];
    mg_matrix_path(used.items[k], group);
    if (used.items[k][0] == '\0' || mg_strings_find(names, used.items[k]) >= 0) continue;
    if (mg_h5_has(&reader->h5, group)) MG_TRY(mg_strings_add(names, used.items[k]), cleanup);
  }
cleanup:
  mg_strings_free(&used);
  return status;
}
