/* What others take from a finished result: a run instead of computing it again, a merge of one of its cells. */

#include <stdlib.h>
#include <string.h>

#include "hdf5_impl.h"
#include "mergegrid/config.h"
#include "mergegrid/text.h"

mg_status mg_result_open(const char *path, mg_result_reader **out) {
  mg_status status = MG_OK;
  mg_result_reader *r = mg_alloc_zero(1, sizeof *r);
  if (r == NULL) return MG_ERR_NOMEM;
  char *copy = mg_strdup(path);
  status = copy != NULL ? mg_h5_open(copy, &r->h5) : MG_ERR_NOMEM;
  if (status == MG_OK) {
    *out = r;
    return MG_OK;
  }
  free(copy), free(r);
  return status;
}

void mg_result_close(mg_result_reader **reader) {
  mg_result_reader *r = *reader;
  if (r == NULL) return;
  mg_h5_close(&r->h5);
  free((char *)(uintptr_t)r->h5.path), free(r);
  *reader = NULL;
}

bool mg_result_has(const mg_result_reader *r, const char *object) { return mg_h5_has(&r->h5, object); }

mg_status mg_result_source(const mg_result_reader *r, const char *id, ptrdiff_t *source) {
  mg_strings ids = {0};
  const mg_status status = mg_h5_read_strings(&r->h5, "/sources/id", &ids);
  *source = status == MG_OK ? mg_strings_find(&ids, id) : -1;
  mg_strings_free(&ids);
  return status;
}

mg_status mg_result_read_config(const mg_result_reader *r, char **yaml) {
  mg_strings text = {0};
  mg_status status = mg_h5_read_strings(&r->h5, "/provenance/config", &text);
  if (status == MG_OK && text.count != 1)
    status = mg_fail(MG_ERR_CORRUPT, "%s: /provenance/config: one string was expected", r->h5.path);
  if (status == MG_OK) *yaml = mg_strdup(text.items[0]);
  if (status == MG_OK && *yaml == NULL) status = MG_ERR_NOMEM;
  mg_strings_free(&text);
  return status;
}

mg_status mg_result_parse_config(const mg_result_reader *r, mg_config **config) {
  char *yaml = NULL;
  *config = NULL;
  mg_status status = mg_result_read_config(r, &yaml);
  if (status == MG_OK) status = mg_config_parse_in(".", "/provenance/config", yaml, strlen(yaml), NULL, config);
  free(yaml);
  return status == MG_ERR_CONFIG || status == MG_ERR_INPUT ? MG_OK : status;
}

mg_status mg_result_read_list(const mg_result_reader *r, const char *path, mg_strings *list) {
  return mg_h5_read_strings(&r->h5, path, list);
}

mg_status mg_result_read_sources(const mg_result_reader *r, mg_source_list *list) {
  mg_status status = MG_OK;
  mg_strings ids = {0}, locales = {0}, paths = {0};
  *list = (mg_source_list){0};
  MG_TRY(mg_h5_read_strings(&r->h5, "/sources/id", &ids), cleanup);
  MG_TRY(mg_h5_read_strings(&r->h5, "/sources/locale", &locales), cleanup);
  MG_TRY(mg_h5_read_strings(&r->h5, "/sources/path", &paths), cleanup);
  if (locales.count != ids.count || paths.count != ids.count) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: /sources: lists of equal length were expected", r->h5.path);
    goto cleanup;
  }
  list->items = mg_alloc_zero(ids.count, sizeof *list->items);
  if (list->items == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (; list->count < ids.count; list->count++) {
    const size_t k = list->count;
    list->items[k] = (mg_source){.id = ids.items[k], .locale = locales.items[k], .path = paths.items[k]};
    ids.items[k] = locales.items[k] = paths.items[k] = NULL; /* moved */
  }
cleanup:
  mg_strings_free(&ids), mg_strings_free(&locales), mg_strings_free(&paths);
  return status;
}

/* One row of a dataset of `rank` dimensions whose others are as expected. */
static bool read_row(const mg_result_reader *r, const char *path, hid_t type, int rank, size_t row, const hsize_t *expected,
                     void *data) {
  hsize_t dims[3] = {0}, start[3] = {row}, count[3] = {1, expected[0], expected[1]};
  bool read = false;
  H5E_BEGIN_TRY {
    const hid_t set = H5Dopen2(r->h5.file, path, H5P_DEFAULT), space = H5Dget_space(set);
    if (set >= 0 && H5Sget_simple_extent_ndims(space) == rank && H5Sget_simple_extent_dims(space, dims, NULL) == rank) {
      const bool fits = row < dims[0] && dims[1] == expected[0] && (rank < 3 || dims[2] == expected[1]);
      const hid_t memory = H5Screate_simple(rank, count, NULL);
      read = fits && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
             H5Dread(set, type, memory, space, H5P_DEFAULT, data) >= 0;
      H5Sclose(memory);
    }
    H5Sclose(space);
    H5Dclose(set);
  }
  H5E_END_TRY
  return read;
}

mg_status mg_result_read_source(const mg_result_reader *r, int part, const char *target, size_t source, size_t texts,
                                size_t classes, int32_t *predictions, float *logits) {
  const char *group = part == 0 ? "/nxn" : "/nxn_select";
  const hsize_t shape[2] = {texts, classes};
  char path[192];
  snprintf(path, sizeof path, "%s/predictions/%.128s", group, target);
  bool read = read_row(r, path, H5T_NATIVE_INT32, 2, source, shape, predictions);
  snprintf(path, sizeof path, "%s/logits/%.128s", group, target);
  if (read && logits != NULL) read = read_row(r, path, H5T_NATIVE_FLOAT, 3, source, shape, logits);
  return read ? MG_OK : mg_fail(MG_ERR_INPUT, "%s: %s: no answers to %zu texts", r->h5.path, path, texts);
}

mg_status mg_result_read_gram(const mg_result_reader *r, mg_gram *gram) {
  mg_status status = MG_OK;
  hsize_t dot[3] = {0}, base[2] = {0}, norm[1] = {0};
  void *data = NULL;
  *gram = (mg_gram){0};
  MG_TRY(mg_h5_read_numbers(&r->h5, "/compatibility/gram/source_dot", H5T_NATIVE_DOUBLE, 3, dot, &data), failed);
  gram->dot = data;
  MG_TRY(mg_h5_read_numbers(&r->h5, "/compatibility/gram/base_dot", H5T_NATIVE_DOUBLE, 2, base, &data), failed);
  gram->base_dot = data;
  MG_TRY(mg_h5_read_numbers(&r->h5, "/compatibility/gram/base_norm2", H5T_NATIVE_DOUBLE, 1, norm, &data), failed);
  gram->base_norm2 = data;
  gram->groups = (size_t)dot[0];
  gram->sources = (size_t)dot[1];
  if (dot[2] == dot[1] && base[0] == dot[0] && base[1] == dot[1] && norm[0] == dot[0]) return MG_OK;
  status = mg_fail(MG_ERR_CORRUPT, "%s: /compatibility/gram: shapes that do not fit each other", r->h5.path);
failed:
  mg_gram_free(gram);
  return status;
}

mg_status mg_result_read_cka(const mg_result_reader *r, size_t layers, size_t sources, double **biased, double **unbiased) {
  mg_status status = MG_OK;
  hsize_t a[3] = {0}, b[3] = {0};
  void *first = NULL, *second = NULL;
  MG_TRY(mg_h5_read_numbers(&r->h5, "/compatibility/cka", H5T_NATIVE_DOUBLE, 3, a, &first), failed);
  MG_TRY(mg_h5_read_numbers(&r->h5, "/compatibility/cka_unbiased", H5T_NATIVE_DOUBLE, 3, b, &second), failed);
  if (a[0] != layers || a[1] != sources || a[2] != sources || b[0] != layers || b[1] != sources || b[2] != sources) {
    status = mg_fail(MG_ERR_INPUT, "%s: /compatibility/cka is not of %zu layers and %zu sources", r->h5.path, layers, sources);
    goto failed;
  }
  *biased = first;
  *unbiased = second;
  return MG_OK;
failed:
  free(first), free(second);
  return status;
}

bool mg_result_has_grid(const char *path) {
  mg_result_reader *r = NULL;
  if (mg_result_open(path, &r) != MG_OK) return false;
  const bool has = mg_result_has(r, "/grid");
  mg_result_close(&r);
  return has;
}

const char *mg_setup_status(bool exists, const char *error) {
  if (!exists) return "skipped";
  return error != NULL && error[0] != '\0' ? "failed" : "completed";
}

static mg_status count_failed_cells(const mg_result_reader *r, size_t *failed) {
  mg_strings states = {0};
  const mg_status status = mg_h5_read_strings(&r->h5, "/grid/cells/status", &states);
  for (size_t k = 0; k < states.count; k++) *failed += strcmp(states.items[k], "failed") == 0;
  mg_strings_free(&states);
  return status;
}

static mg_status count_failed_setups(const mg_result_reader *r, size_t *failed) {
  mg_status status = MG_OK;
  mg_strings errors = {0};
  bool *exists = NULL;
  hsize_t count = 0;
  MG_TRY(mg_h5_read_strings(&r->h5, "/microscope/setups/error", &errors), cleanup);
  MG_TRY(mg_h5_read_bools(&r->h5, "/microscope/setups/exists", 1, &count, &exists), cleanup);
  if (count != errors.count)
    status = mg_fail(MG_ERR_CORRUPT, "%s: /microscope/setups: columns of equal length were expected", r->h5.path);
  for (size_t k = 0; status == MG_OK && k < errors.count; k++)
    *failed += strcmp(mg_setup_status(exists[k], errors.items[k]), "failed") == 0;
cleanup:
  free(exists);
  mg_strings_free(&errors);
  return status;
}

static mg_status count_failed_evaluations(const mg_result_reader *r, size_t *failed) {
  mg_strings sources = {0};
  const mg_status status = mg_h5_read_strings(&r->h5, "/nxn/failures/source", &sources);
  *failed = sources.count;
  mg_strings_free(&sources);
  return status;
}

mg_status mg_result_failures(const char *path, mg_failures *failures) {
  mg_status status = MG_OK;
  mg_result_reader *r = NULL;
  *failures = (mg_failures){0};
  MG_TRY(mg_result_open(path, &r), cleanup);
  if (mg_result_has(r, "/nxn/failures")) MG_TRY(count_failed_evaluations(r, &failures->evaluations), cleanup);
  if (mg_result_has(r, "/grid")) MG_TRY(count_failed_cells(r, &failures->cells), cleanup);
  if (mg_result_has(r, "/microscope")) MG_TRY(count_failed_setups(r, &failures->setups), cleanup);
cleanup:
  mg_result_close(&r);
  return status;
}
