/* Reading a result back: sealed or not at all, and every size looked at before it is believed. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hdf5_impl.h"
#include "mergegrid/io.h"
#include "mergegrid/shard.h"
#include "mergegrid/text.h"

enum { MOST_STRINGS = 1 << 24 };

static mg_status bad(const mg_h5_reader *r, const char *object, const char *expected) {
  return mg_fail(MG_ERR_CORRUPT, "%s: %s: %s was expected", r->path, object, expected);
}

mg_status mg_h5_read_text(const mg_h5_reader *r, const char *object, const char *name, char **text) {
  mg_status status = MG_OK;
  char *value = NULL;
  const hid_t attribute = H5Aopen_by_name(r->file, object, name, H5P_DEFAULT, H5P_DEFAULT), type = H5Aget_type(attribute);
  const hid_t space = H5Aget_space(attribute);
  if (attribute < 0 || H5Tis_variable_str(type) <= 0 || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(attribute, type, &value) < 0 || value == NULL)
    status = mg_fail(MG_ERR_CORRUPT, "%s: %s: attribute %s: a string was expected", r->path, object, name);
  else if ((*text = mg_strdup(value)) == NULL)
    status = MG_ERR_NOMEM;
  if (value != NULL) H5Dvlen_reclaim(type, space, H5P_DEFAULT, &value);
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attribute);
  return status;
}

mg_status mg_h5_read_integer(const mg_h5_reader *r, const char *object, const char *name, int64_t *value) {
  bool read = false;
  H5E_BEGIN_TRY {
    const hid_t attribute = H5Aopen_by_name(r->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t space = attribute >= 0 ? H5Aget_space(attribute) : H5I_INVALID_HID;
    read = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, H5T_NATIVE_INT64, value) >= 0;
    H5Sclose(space);
    H5Aclose(attribute);
  }
  H5E_END_TRY
  return read ? MG_OK : mg_fail(MG_ERR_CORRUPT, "%s: %s: no whole number '%s'", r->path, object, name);
}

static mg_status check_format(const mg_h5_reader *r) {
  char *format = NULL;
  int64_t version = 0;
  mg_status status = mg_h5_read_text(r, "/", "format", &format);
  if (status == MG_OK) {
    const hid_t attribute = H5Aopen(r->file, "schema_version", H5P_DEFAULT);
    const bool read = attribute >= 0 && H5Aread(attribute, H5T_NATIVE_INT64, &version) >= 0;
    if (strcmp(format, "mergegrid result") != 0 || !read || version != MG_SCHEMA_VERSION)
      status = mg_fail(MG_ERR_CORRUPT, "%s: is a '%s' of schema %lld; a mergegrid result of schema %d was expected", r->path,
                       format, (long long)version, MG_SCHEMA_VERSION);
    H5Aclose(attribute);
  }
  free(format);
  return status;
}

/* Without the seal: for verify, which wants to say where the damage is. */
static mg_status open_file(const char *path, mg_h5_reader *r) {
  mg_status status;
  *r = (mg_h5_reader){.path = path, .file = H5I_INVALID_HID};
  mg_hdf5_prepare();
  H5E_BEGIN_TRY {
    r->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    status = r->file >= 0 ? check_format(r) : mg_fail(MG_ERR_CORRUPT, "%s: is no HDF5 file that can be opened", path);
    if (status != MG_OK) H5Fclose(r->file);
  }
  H5E_END_TRY
  return status;
}

mg_status mg_h5_open(const char *path, mg_h5_reader *r) {
  const mg_status status = mg_result_check_seal(path);
  return status == MG_OK ? open_file(path, r) : status;
}

void mg_h5_close(mg_h5_reader *r) {
  H5E_BEGIN_TRY { H5Fclose(r->file); }
  H5E_END_TRY
}

bool mg_h5_has(const mg_h5_reader *r, const char *path) {
  htri_t there = 0;
  H5E_BEGIN_TRY { there = H5Lexists(r->file, path, H5P_DEFAULT); }
  H5E_END_TRY
  return there > 0;
}

static mg_status read_numbers(const mg_h5_reader *r, const char *path, hid_t type, int rank, hsize_t *dims, void **data) {
  mg_status status = MG_OK;
  size_t count = 1;
  const hid_t set = H5Dopen2(r->file, path, H5P_DEFAULT), space = H5Dget_space(set), stored = H5Dget_type(set);
  if (set < 0 || H5Tget_class(stored) != H5Tget_class(type) || H5Sget_simple_extent_ndims(space) != rank ||
      H5Sget_simple_extent_dims(space, dims, NULL) != rank) {
    status = bad(r, path, "a dataset of numbers of the schema's shape");
    goto cleanup;
  }
  for (int d = 0; d < rank; d++)
    if (__builtin_mul_overflow(count, (size_t)dims[d], &count)) status = bad(r, path, "a shape that can be");
  /* contiguous data is in the file, so its storage bounds what may be allocated */
  if (status == MG_OK && H5Dget_storage_size(set) < count * H5Tget_size(stored))
    status = bad(r, path, "as much data as its shape says");
  if (status != MG_OK) goto cleanup;
  *data = mg_alloc_zero(count, H5Tget_size(type));
  if (*data == NULL)
    status = MG_ERR_NOMEM;
  else if (count > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *data) < 0)
    status = bad(r, path, "readable data");
cleanup:
  H5Tclose(stored);
  H5Sclose(space);
  H5Dclose(set);
  return status;
}

mg_status mg_h5_read_numbers(const mg_h5_reader *r, const char *path, hid_t type, int rank, hsize_t *dims, void **data) {
  mg_status status;
  *data = NULL;
  H5E_BEGIN_TRY { status = read_numbers(r, path, type, rank, dims, data); }
  H5E_END_TRY
  return status;
}

mg_status mg_h5_read_bools(const mg_h5_reader *r, const char *path, int rank, hsize_t *dims, bool **data) {
  size_t count = 1;
  void *bytes = NULL;
  const hid_t type = mg_h5_bool_type();
  const mg_status status = mg_h5_read_numbers(r, path, type, rank, dims, &bytes);
  H5Tclose(type);
  *data = bytes;
  if (status != MG_OK) return status;
  for (int d = 0; d < rank; d++) count *= (size_t)dims[d];
  for (size_t k = 0; k < count; k++) ((uint8_t *)bytes)[k] = ((const uint8_t *)bytes)[k] != 0;
  return MG_OK;
}

static mg_status read_strings(const mg_h5_reader *r, const char *path, mg_strings *list) {
  mg_status status = MG_OK;
  hsize_t dim = 1;
  char **values = NULL;
  const hid_t set = H5Dopen2(r->file, path, H5P_DEFAULT), space = H5Dget_space(set), type = H5Dget_type(set);
  const int rank = H5Sget_simple_extent_ndims(space);
  if (set < 0 || H5Tis_variable_str(type) <= 0 || rank < 0 || rank > 1 ||
      (rank == 1 && H5Sget_simple_extent_dims(space, &dim, NULL) != 1) || dim > MOST_STRINGS) {
    status = bad(r, path, "a list of strings");
    goto cleanup;
  }
  values = mg_alloc_zero((size_t)dim, sizeof *values);
  if (values == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  if (dim > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) status = bad(r, path, "readable strings");
  for (size_t k = 0; status == MG_OK && k < dim; k++) status = mg_strings_add(list, values[k] != NULL ? values[k] : "");
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, values);
cleanup:
  free(values);
  H5Tclose(type);
  H5Sclose(space);
  H5Dclose(set);
  return status;
}

mg_status mg_h5_read_strings(const mg_h5_reader *r, const char *path, mg_strings *list) {
  mg_status status;
  H5E_BEGIN_TRY { status = read_strings(r, path, list); }
  H5E_END_TRY
  return status;
}

/* ---- identity ---- */

static mg_status read_inputs(const mg_h5_reader *r, mg_identity *identity) {
  typedef struct input {
    char *name, *value;
  } input;
  mg_status status = MG_OK;
  hsize_t dim = 0;
  input *inputs = NULL;
  const hid_t text = H5Tcopy(H5T_C_S1), type = H5Tcreate(H5T_COMPOUND, sizeof(input));
  H5Tset_size(text, H5T_VARIABLE);
  H5Tset_cset(text, H5T_CSET_UTF8);
  H5Tinsert(type, "name", HOFFSET(input, name), text);
  H5Tinsert(type, "value", HOFFSET(input, value), text);
  const hid_t set = H5Dopen2(r->file, "/provenance/inputs", H5P_DEFAULT), space = H5Dget_space(set);
  if (set < 0 || H5Sget_simple_extent_ndims(space) != 1 || H5Sget_simple_extent_dims(space, &dim, NULL) != 1 ||
      dim > MOST_STRINGS) {
    status = bad(r, "/provenance/inputs", "a list of names and values");
    goto cleanup;
  }
  inputs = mg_alloc_zero((size_t)dim, sizeof *inputs);
  if (inputs == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  if (dim > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, inputs) < 0)
    status = bad(r, "/provenance/inputs", "readable names and values");
  for (size_t k = 0; status == MG_OK && k < dim; k++)
    status = mg_identity_add(identity, inputs[k].name ? inputs[k].name : "", inputs[k].value ? inputs[k].value : "");
  H5Dvlen_reclaim(type, space, H5P_DEFAULT, inputs);
cleanup:
  free(inputs);
  H5Sclose(space);
  H5Dclose(set);
  H5Tclose(type);
  H5Tclose(text);
  return status;
}

mg_status mg_result_read_identity(const char *path, mg_identity *identity) {
  mg_h5_reader r;
  mg_status status = mg_h5_open(path, &r);
  if (status != MG_OK) return status;
  H5E_BEGIN_TRY { status = read_inputs(&r, identity); }
  H5E_END_TRY
  mg_h5_close(&r);
  return status;
}

mg_status mg_result_read_inputs(const mg_result_reader *reader, mg_identity *identity) {
  mg_status status;
  H5E_BEGIN_TRY { status = read_inputs(&reader->h5, identity); }
  H5E_END_TRY
  return status;
}

const char *mg_file_kind(const char *path) {
  char magic[8] = "";
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  const bool read = fread(magic, 1, sizeof magic, file) == sizeof magic;
  fclose(file);
  if (read && memcmp(magic, "MGSHARD1", 8) == 0) return "shard";
  if (read && memcmp(magic, "MGRESULT", 8) == 0) return "result";
  return NULL;
}

mg_status mg_result_microscope_digest(const char *path, char **digest) {
  mg_h5_reader reader;
  mg_status status = mg_h5_open(path, &reader);
  *digest = NULL;
  if (status != MG_OK) return status;
  if (mg_h5_has(&reader, "/microscope")) status = mg_h5_read_text(&reader, "/microscope", "digest", digest);
  mg_h5_close(&reader);
  return status;
}
