/* The files that Python tools of the field read. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hdf5_impl.h"
#include "matrices_impl.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"
#include "run_impl.h"

/*
 * The fewest digits that read back to value, as "d.ddde±xx". The nearest decimal of a length is not always the one: below a
 * power of two doubles lie closer than above it, so the next decimal away from zero may be the only one of that length.
 */
static void shortest_digits(double value, char digits[40]) {
  for (int precision = 0; precision <= 17; precision++) {
    snprintf(digits, 40, "%.*e", precision, value);
    if (strtod(digits, NULL) == value) return;
    char *last = strchr(digits, 'e') - 1;
    if (*last == '9') continue; /* its successor is shorter, and was tried */
    ++*last;
    if (strtod(digits, NULL) == value) return;
  }
}

/* A double as Python's repr writes it: exponents below 1e-4 and from 1e16 on, else always with a decimal point. */
static void append_number(mg_text *text, double value) {
  char digits[40];
  if (isnan(value)) return; /* pandas writes an empty field */
  if (isinf(value)) {
    mg_text_append(text, value < 0 ? "-inf" : "inf");
    return;
  }
  shortest_digits(value, digits);
  char *letter = strchr(digits, 'e');
  const int exponent = atoi(letter + 1);
  if (exponent < -4 || exponent >= 16) {
    mg_text_append(text, "%s", digits); /* 1e-05: at least two digits of exponent, as printf has it too */
    return;
  }
  char mantissa[24];
  int count = 0;
  for (const char *c = digits; c < letter; c++)
    if (*c >= '0' && *c <= '9') mantissa[count++] = *c;
  if (digits[0] == '-') mg_text_append(text, "-");
  if (exponent < 0) {
    mg_text_append(text, "0.%.*s%.*s", -exponent - 1, "000", count, mantissa);
    return;
  }
  for (int k = 0; k <= exponent; k++) mg_text_append(text, "%c", k < count ? mantissa[k] : '0');
  mg_text_append(text, ".%.*s", count > exponent + 1 ? count - exponent - 1 : 1,
                 count > exponent + 1 ? mantissa + exponent + 1 : "0");
}

/* As csv.writer quotes: where the field holds a comma, a quote or a line end. */
static void append_field(mg_text *text, const char *field) {
  if (field[strcspn(field, ",\"\r\n")] == '\0') {
    mg_text_append(text, "%s", field);
    return;
  }
  mg_text_append(text, "\"");
  for (; *field != '\0'; field++) mg_text_append(text, *field == '"' ? "\"\"" : "%c", *field);
  mg_text_append(text, "\"");
}

static mg_status write_matrix(const char *path, const mg_strings *ids, const double *matrix) {
  mg_text text = {0};
  for (size_t j = 0; j < ids->count; j++) {
    mg_text_append(&text, ",");
    append_field(&text, ids->items[j]);
  }
  mg_text_append(&text, "\n");
  for (size_t i = 0; i < ids->count; i++) {
    append_field(&text, ids->items[i]);
    for (size_t j = 0; j < ids->count; j++) {
      mg_text_append(&text, ",");
      append_number(&text, matrix[i * ids->count + j]);
    }
    mg_text_append(&text, "\n");
  }
  const mg_status status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_replace_file(path, text.data, text.size);
  if (status == MG_OK) mg_info("wrote %s", path);
  mg_text_free(&text);
  return status;
}

static mg_status write_named(const char *dir, const char *name, const mg_strings *ids, const double *matrix) {
  char *path = mg_path_join(dir, name);
  const mg_status status = path != NULL ? write_matrix(path, ids, matrix) : MG_ERR_NOMEM;
  free(path);
  return status;
}

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
    status = write_named(layers, name, &m->ids, m->by_layer + l * m->ids.count * m->ids.count);
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
  MG_TRY(write_named(dir, "cka_matrix.csv", &m->ids, m->cka + (m->cka_layer_count - 1) * square), cleanup);
  MG_TRY(mg_make_dirs(layers), cleanup);
  for (size_t k = 0; k < m->cka_layer_count && m->cka_layer_count > 1; k++) {
    snprintf(name, sizeof name, "cka_matrix_%d.csv", m->cka_layers[k]);
    MG_TRY(write_named(layers, name, &m->ids, m->cka + k * square), cleanup);
  }
cleanup:
  free(layers);
  return status;
}

/* ---- the log ---- */

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static json_t *statistics(const double *matrix, size_t n) {
  const mg_matrix_statistics s = mg_matrix_off_diagonal(matrix, n);
  return json_pack("{s:o, s:o, s:o, s:o, s:I}", "mean", number(s.mean), "std", number(s.std), "min", number(s.min), "max",
                   number(s.max), "count", (json_int_t)s.count);
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

static json_t *string_list(const mg_strings *list) {
  json_t *array = json_array();
  for (size_t k = 0; k < list->count; k++) json_array_append_new(array, json_string(list->items[k]));
  return array;
}

static mg_status write_log(const char *dir, const mg_matrices *m) {
  mg_status status = MG_OK;
  char *path = mg_path_join(dir, "computation_log.json"), *models = common_dir(&m->paths), *text = NULL;
  json_t *all = json_object();
  const size_t n = m->ids.count;
  json_object_set_new(all, "task_vector_cosine", statistics(m->cosine, n));
  if (m->encoder != NULL) json_object_set_new(all, "task_vector_cosine_encoder", statistics(m->encoder, n));
  json_t *metrics = json_pack("[s]", "task_vector_cosine"), *layer = json_null();
  if (m->cka != NULL) {
    json_array_append_new(metrics, json_string("cka"));
    layer = json_integer(m->cka_layers[m->cka_layer_count - 1]);
    json_object_set_new(all, "cka", statistics(m->cka + (m->cka_layer_count - 1) * n * n, n));
  }
  json_t *root =
      json_pack("{s:s, s:o, s:I, s:o, s:s?, s:s, s:o, s:o, s:o, s:s, s:s}", "timestamp", m->finished, "metrics", metrics,
                "num_locales", (json_int_t)n, "locales", string_list(&m->locales), "models_dir", models, "pretrained_model",
                m->base_path, "cka_samples", m->cka != NULL ? json_integer(m->cka_samples) : json_null(), "cka_layer", layer,
                "statistics", all, "result", m->path, "version", m->version);
  if (root != NULL) text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  status = path != NULL && text != NULL ? mg_replace_file(path, text, strlen(text)) : mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) mg_info("wrote %s", path);
  json_decref(root);
  free(text), free(models), free(path);
  return status;
}

mg_status mg_result_export(const char *path, const char *dir, mg_export_layout layout) {
  mg_status status = MG_OK;
  mg_matrices m = {0};
  char *to = layout == MG_EXPORT_MERGINGURIEL ? mg_path_join(dir, "nxn_results/compatibility_matrix") : mg_strdup(dir);
  if (to == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_matrices_read(path, &m), cleanup);
  MG_TRY(mg_make_dirs(to), cleanup);
  MG_TRY(write_named(to, "task_vector_cosine_matrix.csv", &m.ids, m.cosine), cleanup);
  if (m.encoder != NULL) MG_TRY(write_named(to, "task_vector_cosine_encoder_matrix.csv", &m.ids, m.encoder), cleanup);
  if (m.by_layer != NULL) MG_TRY(write_layers(to, &m), cleanup);
  if (m.cka != NULL) MG_TRY(write_cka(to, &m), cleanup);
  MG_TRY(write_log(to, &m), cleanup);
cleanup:
  mg_matrices_free(&m);
  free(to);
  return status;
}
