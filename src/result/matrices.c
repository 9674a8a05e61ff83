/* The matrices of a result and what is told beside them. */

#include "matrices_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/text.h"

static mg_status read_matrix(const mg_h5_reader *r, const char *path, size_t rows, size_t columns, double **matrix) {
  hsize_t dims[2];
  void *data;
  const mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_DOUBLE, 2, dims, &data);
  *matrix = data;
  if (status == MG_OK && (dims[0] != rows || dims[1] != columns))
    return mg_fail(MG_ERR_CORRUPT, "%s: %s: %zu × %zu was expected", r->path, path, rows, columns);
  return status;
}

static mg_status read_layers(const mg_h5_reader *r, mg_matrices *m) {
  const char *path = "/compatibility/task_vector_cosine_layers";
  hsize_t dims[3];
  void *data;
  if (!mg_h5_has(r, path)) return MG_OK;
  const mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_DOUBLE, 3, dims, &data);
  m->by_layer = data;
  if (status == MG_OK && (dims[0] != m->layers.count || dims[1] != m->ids.count || dims[2] != m->ids.count))
    return mg_fail(MG_ERR_CORRUPT, "%s: %s: layers × sources × sources was expected", r->path, path);
  return status;
}

static mg_status read_cka(const mg_h5_reader *r, mg_matrices *m) {
  mg_status status = MG_OK;
  hsize_t cube[3], line[1];
  void *data;
  if (!mg_h5_has(r, "/compatibility/cka")) return MG_OK;
  MG_TRY(mg_h5_read_numbers(r, "/compatibility/cka", H5T_NATIVE_DOUBLE, 3, cube, &data), done);
  m->cka = data;
  MG_TRY(mg_h5_read_numbers(r, "/compatibility/cka_layers", H5T_NATIVE_INT, 1, line, &data), done);
  m->cka_layers = data;
  m->cka_layer_count = (size_t)line[0];
  MG_TRY(mg_h5_read_integer(r, "/compatibility/cka", "samples", &m->cka_samples), done);
  if (cube[0] != line[0] || line[0] == 0 || cube[1] != m->ids.count || cube[2] != m->ids.count)
    status = mg_fail(MG_ERR_CORRUPT, "%s: /compatibility/cka: layers × sources × sources was expected", r->path);
done:
  return status;
}

/* Norms of the task vectors over all tensors, from the Grams' diagonals. */
static mg_status read_norms(const mg_h5_reader *r, mg_matrices *m) {
  const char *path = "/compatibility/gram/source_dot";
  hsize_t dims[3];
  void *data;
  const size_t n = m->ids.count;
  const mg_status status = mg_h5_read_numbers(r, path, H5T_NATIVE_DOUBLE, 3, dims, &data);
  const double *dot = data;
  if (status != MG_OK) return status;
  m->norm = mg_alloc_zero(n, sizeof *m->norm);
  const bool fits = dims[1] == n && dims[2] == n && dims[0] == m->groups.count;
  for (size_t g = 0; fits && m->norm != NULL && g < dims[0]; g++)
    for (size_t i = 0; i < n; i++) m->norm[i] += dot[(g * n + i) * n + i];
  for (size_t i = 0; m->norm != NULL && i < n; i++) m->norm[i] = sqrt(m->norm[i]);
  free(data);
  if (m->norm == NULL) return MG_ERR_NOMEM;
  return fits ? MG_OK : mg_fail(MG_ERR_CORRUPT, "%s: %s: groups × sources × sources was expected", r->path, path);
}

static mg_status read_texts(const mg_h5_reader *r, mg_matrices *m) {
  mg_status status = MG_OK;
  const struct {
    const char *path;
    mg_strings *list;
    bool optional;
  } lists[] = {{"/sources/id", &m->ids, false},      {"/sources/locale", &m->locales, false},
               {"/sources/path", &m->paths, false},  {"/sources/skipped", &m->skipped, true},
               {"/labels", &m->labels, false},       {"/targets", &m->targets, true},
               {"/tensors/name", &m->tensors, false}};
  for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
    if (!lists[k].optional || mg_h5_has(r, lists[k].path)) MG_TRY(mg_h5_read_strings(r, lists[k].path, lists[k].list), done);
  const struct {
    const char *name;
    char **text;
  } texts[] = {{"base_path", &m->base_path}, {"started_utc", &m->started}, {"finished_utc", &m->finished},
               {"version", &m->version},     {"backend", &m->backend},     {"numeric_mode", &m->numeric_mode}};
  for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
    MG_TRY(mg_h5_read_text(r, "/provenance", texts[k].name, texts[k].text), done);
  if (m->locales.count != m->ids.count || m->paths.count != m->ids.count || m->ids.count == 0)
    status = mg_fail(MG_ERR_CORRUPT, "%s: /sources: lists of equal length were expected", r->path);
done:
  return status;
}

static mg_status read_compatibility(const mg_h5_reader *r, mg_matrices *m) {
  mg_status status = MG_OK;
  const size_t n = m->ids.count;
  if (!mg_h5_has(r, "/compatibility")) return MG_OK;
  MG_TRY(mg_h5_read_strings(r, "/compatibility/layers", &m->layers), done);
  MG_TRY(mg_h5_read_strings(r, "/compatibility/gram/groups", &m->groups), done);
  MG_TRY(mg_h5_read_text(r, "/compatibility/gram/groups", "level", &m->level), done);
  MG_TRY(read_matrix(r, "/compatibility/task_vector_cosine", n, n, &m->cosine), done);
  if (mg_h5_has(r, "/compatibility/task_vector_cosine_encoder"))
    MG_TRY(read_matrix(r, "/compatibility/task_vector_cosine_encoder", n, n, &m->encoder), done);
  MG_TRY(read_layers(r, m), done);
  MG_TRY(read_cka(r, m), done);
  MG_TRY(read_norms(r, m), done);
done:
  return status;
}

/* Results of before evaluations could fail have no such table. */
static mg_status read_failures(const mg_h5_reader *r, mg_evaluation *e) {
  mg_status status = MG_OK;
  if (!mg_h5_has(r, "/nxn/failures")) return MG_OK;
  MG_TRY(mg_h5_read_strings(r, "/nxn/failures/source", &e->failed_source), done);
  MG_TRY(mg_h5_read_strings(r, "/nxn/failures/target", &e->failed_target), done);
  MG_TRY(mg_h5_read_strings(r, "/nxn/failures/error", &e->error), done);
  if (e->failed_target.count != e->failed_source.count || e->error.count != e->failed_source.count)
    status = mg_fail(MG_ERR_CORRUPT, "%s: /nxn/failures: lists of equal length were expected", r->path);
done:
  return status;
}

static mg_status read_nxn(const mg_h5_reader *r, mg_matrices *m) {
  static const char *const groups[2] = {"/nxn", "/nxn_select"};
  mg_status status = MG_OK;
  char path[64];
  for (int part = 0; part < 2 && m->targets.count > 0; part++) {
    MG_TRY(mg_h5_read_text(r, groups[part], "partition", &m->nxn.partition[part]), done);
    snprintf(path, sizeof path, "%s/accuracy", groups[part]);
    MG_TRY(read_matrix(r, path, m->ids.count, m->targets.count, &m->nxn.accuracy[part]), done);
    snprintf(path, sizeof path, "%s/macro_f1", groups[part]);
    MG_TRY(read_matrix(r, path, m->ids.count, m->targets.count, &m->nxn.macro_f1[part]), done);
  }
  if (m->targets.count > 0) MG_TRY(read_failures(r, &m->nxn), done);
done:
  return status;
}

mg_status mg_matrices_read_from(const mg_h5_reader *r, mg_matrices *m) {
  mg_status status = MG_OK;
  *m = (mg_matrices){.path = r->path};
  MG_TRY(read_texts(r, m), done);
  MG_TRY(read_compatibility(r, m), done);
  MG_TRY(read_nxn(r, m), done);
done:
  if (status != MG_OK) mg_matrices_free(m);
  return status;
}

mg_status mg_matrices_read(const char *path, mg_matrices *m) {
  mg_h5_reader r;
  *m = (mg_matrices){0};
  mg_status status = mg_h5_open(path, &r);
  if (status != MG_OK) return status;
  status = mg_matrices_read_from(&r, m);
  mg_h5_close(&r);
  return status;
}

void mg_matrices_best(const mg_matrices *m, size_t target, ptrdiff_t *own, ptrdiff_t *best) {
  const size_t columns = m->targets.count;
  const double *accuracy = m->nxn.accuracy[0];
  *own = *best = -1;
  for (size_t s = 0; s < m->ids.count; s++) {
    if (strcmp(m->locales.items[s], m->targets.items[target]) == 0)
      *own = (ptrdiff_t)s;
    else if (!isnan(accuracy[s * columns + target]) &&
             (*best < 0 || accuracy[s * columns + target] > accuracy[(size_t)*best * columns + target]))
      *best = (ptrdiff_t)s;
  }
}

void mg_matrices_free(mg_matrices *m) {
  mg_strings *const lists[] = {&m->ids,     &m->locales, &m->paths,  &m->skipped, &m->labels,
                               &m->tensors, &m->layers,  &m->groups, &m->targets};
  for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) mg_strings_free(lists[k]);
  free(m->cosine), free(m->encoder), free(m->by_layer), free(m->cka), free(m->cka_layers), free(m->norm);
  free(m->base_path), free(m->started), free(m->finished), free(m->version), free(m->backend), free(m->numeric_mode),
      free(m->level);
  for (int part = 0; part < 2; part++) free(m->nxn.accuracy[part]), free(m->nxn.macro_f1[part]), free(m->nxn.partition[part]);
  mg_strings_free(&m->nxn.failed_source), mg_strings_free(&m->nxn.failed_target), mg_strings_free(&m->nxn.error);
  *m = (mg_matrices){0};
}

mg_status mg_result_read_evaluation(const mg_result_reader *reader, bool select, mg_labelled_table *table) {
  mg_status status = MG_OK;
  mg_matrices m = {0};
  *table = (mg_labelled_table){0};
  MG_TRY(mg_matrices_read_from(&reader->h5, &m), cleanup);
  if (m.targets.count == 0) {
    status = mg_fail(MG_ERR_INPUT, "%s: has no stage nxn, whose evaluation is asked for", m.path);
    goto cleanup;
  }
  *table = (mg_labelled_table){
      .rows = m.ids, .columns = m.targets, .values = m.nxn.accuracy[select], .count = m.ids.count * m.targets.count};
  m.ids = m.targets = (mg_strings){0}; /* the table's now */
  m.nxn.accuracy[select] = NULL;
cleanup:
  mg_matrices_free(&m);
  return status;
}

mg_status mg_result_read_compatibility(const mg_result_reader *reader, bool cka, mg_labelled_table *table) {
  mg_status status = MG_OK;
  mg_matrices m = {0};
  *table = (mg_labelled_table){0};
  MG_TRY(mg_matrices_read_from(&reader->h5, &m), cleanup);
  const size_t n = m.ids.count;
  const double *from = cka && m.cka != NULL ? m.cka + (m.cka_layer_count - 1) * n * n : cka ? NULL : m.cosine;
  if (from == NULL) {
    status = mg_fail(MG_ERR_INPUT, "%s: has no %s, which is asked for", m.path, cka ? "CKA" : "task-vector cosines");
    goto cleanup;
  }
  table->values = mg_alloc(n, n * sizeof *table->values);
  if (table->values == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  memcpy(table->values, from, n * n * sizeof *from);
  table->count = table->room = n * n;
  for (size_t k = 0; k < n; k++) {
    MG_TRY(mg_strings_add(&table->rows, m.ids.items[k]), cleanup);
    MG_TRY(mg_strings_add(&table->columns, m.ids.items[k]), cleanup);
  }
cleanup:
  mg_matrices_free(&m);
  if (status != MG_OK) mg_labelled_table_free(table);
  return status;
}
