/* The files that Python tools of the field read. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "microscope_impl.h"

/* A layer's name as a file name: '/' cannot be in one. */
static mg_status write_layers(const char *dir, const mg_matrices *m) {
  mg_status status = MG_OK;
  char *layers = mg_path_join(dir, "layers");
  if (layers == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_make_dirs(layers), cleanup);
  for (size_t l = 0; l < m->layers.count; l++) {
    char *name = NULL;
    if (asprintf(&name, "task_vector_cosine_matrix_%s.csv", m->layers.items[l]) < 0) {
      status = mg_fail(MG_ERR_NOMEM, "out of memory");
      goto cleanup;
    }
    for (char *c = name; *c != '\0'; c++)
      if (*c == '/') *c = '_';
    status = mg_csv_write(layers, name, &m->ids, &m->ids, m->by_layer + l * m->ids.count * m->ids.count);
    free(name);
    if (status != MG_OK) goto cleanup;
  }
cleanup:
  free(layers);
  return status;
}

/* The last layer asked for under the name that Python tools look for, every one in layers/. */
static mg_status write_cka(const char *dir, const mg_matrices *m) {
  mg_status status = MG_OK;
  const size_t square = m->ids.count * m->ids.count;
  char *layers = mg_path_join(dir, "layers"), name[64];
  if (layers == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_csv_write(dir, "cka_matrix.csv", &m->ids, &m->ids, m->cka + (m->cka_layer_count - 1) * square), cleanup);
  MG_TRY(mg_make_dirs(layers), cleanup);
  for (size_t k = 0; k < m->cka_layer_count && m->cka_layer_count > 1; k++) {
    snprintf(name, sizeof name, "cka_matrix_%d.csv", m->cka_layers[k]);
    MG_TRY(mg_csv_write(layers, name, &m->ids, &m->ids, m->cka + k * square), cleanup);
  }
cleanup:
  free(layers);
  return status;
}

/* ---- the log ---- */

json_t *mg_json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

mg_status mg_json_write(const char *dir, const char *name, json_t *root) {
  char *path = mg_path_join(dir, name),
       *text = root != NULL ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
  const mg_status status =
      path != NULL && text != NULL ? mg_replace_file(path, text, strlen(text)) : mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) mg_info("wrote %s", path);
  json_decref(root);
  free(text), free(path);
  return status;
}

json_t *mg_json_statistics(const double *matrix, size_t n) {
  const mg_matrix_statistics s = mg_matrix_off_diagonal(matrix, n);
  return json_pack("{s:o, s:o, s:o, s:o, s:I}", "mean", mg_json_number(s.mean), "std", mg_json_number(s.std), "min",
                   mg_json_number(s.min), "max", mg_json_number(s.max), "count", (json_int_t)s.count);
}

/* The directory that all sources are in: their paths' common leading components. */
static char *common_dir(const mg_strings *paths) {
  if (paths->count == 0) return mg_strdup("");
  size_t length = strlen(paths->items[0]);
  for (size_t k = 1; k < paths->count; k++) {
    size_t same = 0;
    while (same < length && paths->items[k][same] == paths->items[0][same]) same++;
    length = same;
  }
  while (length > 0 && paths->items[0][length - 1] != '/') length--;
  if (length > 1) length--;
  return length > 0 ? strndup(paths->items[0], length) : mg_strdup(".");
}

json_t *mg_json_strings(const mg_strings *list) {
  json_t *array = json_array();
  for (size_t k = 0; k < list->count; k++) json_array_append_new(array, json_string(list->items[k]));
  return array;
}

static mg_status write_log(const char *dir, const mg_matrices *m) {
  const size_t n = m->ids.count;
  char *models = common_dir(&m->paths);
  json_t *all = json_object(), *metrics = json_pack("[s]", "task_vector_cosine"), *layer = json_null();
  if (models == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  json_object_set_new(all, "task_vector_cosine", mg_json_statistics(m->cosine, n));
  if (m->encoder != NULL) json_object_set_new(all, "task_vector_cosine_encoder", mg_json_statistics(m->encoder, n));
  if (m->cka != NULL) {
    json_array_append_new(metrics, json_string("cka"));
    layer = json_integer(m->cka_layers[m->cka_layer_count - 1]);
    json_object_set_new(all, "cka", mg_json_statistics(m->cka + (m->cka_layer_count - 1) * n * n, n));
  }
  json_t *root =
      json_pack("{s:s, s:o, s:I, s:o, s:s, s:s, s:o, s:o, s:o, s:s, s:s}", "timestamp", m->finished, "metrics", metrics,
                "num_locales", (json_int_t)n, "locales", mg_json_strings(&m->locales), "models_dir", models, "pretrained_model",
                m->base_path, "cka_samples", m->cka != NULL ? json_integer(m->cka_samples) : json_null(), "cka_layer", layer,
                "statistics", all, "result", m->path, "version", m->version);
  free(models);
  return mg_json_write(dir, "computation_log.json", root);
}

static mg_status export_compatibility(const char *dir, const mg_matrices *m) {
  mg_status status = MG_OK;
  MG_TRY(mg_make_dirs(dir), done);
  MG_TRY(mg_csv_write(dir, "task_vector_cosine_matrix.csv", &m->ids, &m->ids, m->cosine), done);
  if (m->encoder != NULL)
    MG_TRY(mg_csv_write(dir, "task_vector_cosine_encoder_matrix.csv", &m->ids, &m->ids, m->encoder), done);
  if (m->by_layer != NULL) MG_TRY(write_layers(dir, m), done);
  if (m->cka != NULL) MG_TRY(write_cka(dir, m), done);
  MG_TRY(write_log(dir, m), done);
done:
  return status;
}

static mg_status export_matrices(const mg_matrices *m, const char *dir, mg_export_layout layout) {
  mg_status status = MG_OK;
  const bool theirs = layout == MG_EXPORT_MERGINGURIEL;
  char *matrices = mg_path_join(dir, theirs ? "nxn_results/compatibility_matrix" : "."),
       *evaluation = mg_path_join(dir, theirs ? "nxn_results" : ".");
  if (matrices == NULL || evaluation == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  if (m->cosine != NULL) MG_TRY(export_compatibility(theirs ? matrices : dir, m), cleanup);
  if (m->targets.count > 0) MG_TRY(mg_export_evaluation(theirs ? evaluation : dir, m), cleanup);
cleanup:
  free(matrices), free(evaluation);
  return status;
}

mg_status mg_result_export(const mg_strings *paths, const char *dir, mg_export_layout layout) {
  mg_h5_reader r;
  mg_matrices m = {0};
  mg_status status = mg_h5_open(paths->items[0], &r);
  if (status != MG_OK) return status;
  const bool grid = mg_h5_has(&r, "/grid");
  status = mg_matrices_read_from(&r, &m);
  if (status == MG_OK && paths->count > 1 && !grid)
    status = mg_fail(MG_ERR_INPUT, "%s: has no stage grid; only results that have one are exported together", paths->items[0]);
  if (status != MG_OK) goto cleanup;
  m.path = paths->items[0];
  if (grid) MG_TRY(mg_export_grids(paths, dir), cleanup); /* the first to find what is wrong with another result */
  MG_TRY(export_matrices(&m, dir, layout), cleanup);
  if (mg_h5_has(&r, "/microscope")) MG_TRY(mg_microscope_export(&r, dir), cleanup);
cleanup:
  mg_h5_close(&r);
  mg_matrices_free(&m);
  return status;
}
