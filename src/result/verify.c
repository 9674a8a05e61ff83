/* A result against its seal, and every dataset against its own checksum and the schema. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/hash.h"
#include "mergegrid/text.h"

typedef struct verification {
  const mg_h5_reader *reader;
  mg_text lines;
  size_t bad, seen;
} verification;

static uint64_t hash_texts(char **texts, size_t count) {
  uint64_t hash = mg_hash("", 0);
  for (size_t k = 0; k < count; k++) {
    const char *text = texts[k] != NULL ? texts[k] : "";
    hash = mg_hash_more(hash, text, strlen(text) + 1);
  }
  return hash;
}

/* Is everything in the type variable-length text (a string, or a compound of strings)? Then how many a row. */
static size_t texts_in(hid_t type) {
  if (H5Tis_variable_str(type) > 0) return 1;
  if (H5Tget_class(type) != H5T_COMPOUND) return 0;
  const int members = H5Tget_nmembers(type);
  for (int k = 0; k < members; k++) {
    const hid_t member = H5Tget_member_type(type, (unsigned)k);
    const bool text = H5Tis_variable_str(member) > 0;
    H5Tclose(member);
    if (!text) return 0;
  }
  return members > 0 ? (size_t)members : 0;
}

static const char *check_dataset(hid_t set) {
  const char *problem = NULL;
  uint64_t stored = 0, found;
  const hid_t type = H5Dget_type(set), space = H5Dget_space(set), attribute = H5Aopen(set, "checksum", H5P_DEFAULT);
  const hssize_t points = H5Sget_simple_extent_npoints(space);
  const size_t texts = texts_in(type), size = H5Tget_size(type);
  void *data = NULL;
  size_t bytes;
  if (attribute < 0 || H5Aread(attribute, H5T_NATIVE_UINT64, &stored) < 0) {
    problem = "has no checksum";
  } else if (points < 0 || __builtin_mul_overflow((size_t)points, size, &bytes) ||
             H5Dget_storage_size(set) > (hsize_t)1 << 40 || (texts == 0 && H5Dget_storage_size(set) < bytes)) {
    problem = "has a shape that does not fit its data";
  } else if ((data = mg_alloc_zero(bytes + 1, 1)) == NULL) {
    problem = "does not fit into memory";
  } else if (points > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    problem = "can't be read";
  } else {
    found = texts > 0 ? hash_texts(data, (size_t)points * texts) : mg_hash(bytes > 0 ? data : "", bytes);
    if (found != stored) problem = "does not match its checksum";
    if (texts > 0) H5Dvlen_reclaim(type, space, H5P_DEFAULT, data);
  }
  free(data);
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
  return problem;
}

static herr_t visit(hid_t file, const char *name, const H5O_info_t *info, void *context) {
  verification *v = context;
  if (info->type != H5O_TYPE_DATASET) return 0;
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
  const char *problem = set < 0 ? "can't be opened" : check_dataset(set);
  H5Dclose(set);
  v->seen++;
  if (problem == NULL) return 0;
  v->bad++;
  mg_text_append(&v->lines, "\n  /%s %s", name, problem);
  return 0;
}

static void need(verification *v, const char *const *paths) {
  for (; *paths != NULL; paths++)
    if (!mg_h5_has(v->reader, *paths)) {
      v->bad++;
      mg_text_append(&v->lines, "\n  %s is missing", *paths);
    }
}

static void check_grid(verification *v) {
  const mg_columns *const tables[] = {&mg_cell_columns, &mg_method_columns, &mg_best_columns};
  char path[160];
  for (size_t t = 0; t < 3; t++)
    for (size_t k = 0; k < tables[t]->count; k++) {
      snprintf(path, sizeof path, "%s/%s", tables[t]->group, tables[t]->items[k].name);
      need(v, (const char *const[]){path, NULL});
    }
  need(v, (const char *const[]){"/nxn", "/grid/swept", "/grid/cell", "/grid/source", "/grid/weights", "/grid/selected",
                                "/grid/predictions", "/grid/similarity", "/provenance/reused", NULL});
}

/* The datasets that every result has, and those of each stage that is in it. */
static void check_presence(verification *v) {
  need(v, (const char *const[]){"/sources/id", "/sources/locale", "/sources/path", "/labels", "/tensors/name", "/tensors/shape",
                                "/tensors/ndim", "/tensors/layer", "/tensors/selected", "/tensors/source_only",
                                "/provenance/config", "/provenance/inputs", "/provenance/ranks", "/provenance/timings", NULL});
  if (mg_h5_has(v->reader, "/compatibility"))
    need(v, (const char *const[]){"/compatibility/gram/groups", "/compatibility/gram/source_dot",
                                  "/compatibility/gram/base_dot", "/compatibility/gram/base_norm2",
                                  "/compatibility/task_vector_cosine", "/compatibility/layers", NULL});
  if (mg_h5_has(v->reader, "/nxn"))
    need(v, (const char *const[]){"/targets", "/texts", "/nxn/accuracy", "/nxn/macro_f1", "/nxn/predictions",
                                  "/nxn_select/accuracy", "/nxn_select/macro_f1", "/nxn_select/predictions", NULL});
  if (mg_h5_has(v->reader, "/grid")) check_grid(v);
}

mg_status mg_result_verify(const char *path) {
  mg_h5_reader reader;
  mg_status status = mg_h5_open(path, &reader); /* a broken seal names what is damaged */
  if (status != MG_OK) return status;
  verification v = {.reader = &reader};
  H5E_BEGIN_TRY {
    check_presence(&v);
    if (H5Ovisit(reader.file, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &v) < 0)
      mg_text_append(&v.lines, "\n  its structure can't be walked");
  }
  H5E_END_TRY
  mg_h5_close(&reader);
  if (v.lines.size > 0)
    status = mg_fail(MG_ERR_CORRUPT, "%s: %zu of its datasets are not as they should be:%s", path, v.bad, v.lines.data);
  mg_text_free(&v.lines);
  return status;
}
