/* Small steps of writing HDF5: each does nothing once one has failed. */

#include "hdf5_impl.h"

#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "mergegrid/text.h"

uint64_t mg_hash_strings(const char *const *strings, size_t count) {
  uint64_t hash = mg_hash("", 0);
  for (size_t k = 0; k < count; k++) hash = mg_hash_more(hash, strings[k], strlen(strings[k]) + 1);
  return hash;
}

static hid_t text_type(void) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

static hid_t untimed(hid_t class) {
  const hid_t create = H5Pcreate(class);
  if (class == H5P_DATASET_CREATE) H5Pset_obj_track_times(create, false);
  return create;
}

void mg_h5_group(mg_h5_writer *w, const char *path) {
  if (w->failed) return;
  const hid_t group = H5Gcreate2(w->file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  w->failed = group < 0;
  H5Gclose(group);
}

void mg_h5_attribute(mg_h5_writer *w, const char *path, const char *name, hid_t type, size_t count, const void *data) {
  if (w->failed) return;
  const hsize_t dim = count;
  const hid_t space = count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dim, NULL);
  const hid_t attribute = H5Acreate_by_name(w->file, path, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  w->failed = attribute < 0 || (count > 0 && H5Awrite(attribute, type, data) < 0);
  H5Aclose(attribute);
  H5Sclose(space);
}

void mg_h5_text_attribute(mg_h5_writer *w, const char *path, const char *name, const char *text) {
  const hid_t type = text_type();
  const char *const value = text != NULL ? text : "";
  mg_h5_attribute(w, path, name, type, 1, &value);
  H5Tclose(type);
}

static void describe(mg_h5_writer *w, const char *path, uint64_t checksum, const char *long_name, const char *units) {
  mg_h5_attribute(w, path, "checksum", H5T_NATIVE_UINT64, 1, &checksum);
  if (long_name != NULL) mg_h5_text_attribute(w, path, "long_name", long_name);
  if (units != NULL) mg_h5_text_attribute(w, path, "units", units);
}

/* Notes where a dataset's numbers are; strings are in heaps, which have no one place. */
static void remember(mg_h5_writer *w, const char *path, hid_t set, size_t bytes) {
  mg_result_block *block = w->block;
  const haddr_t offset = bytes > 0 ? H5Dget_offset(set) : HADDR_UNDEF;
  if (offset == HADDR_UNDEF || block->used >= block->head.count || strlen(path) >= sizeof block->extents->name) return;
  mg_result_extent *extent = &block->extents[block->used++];
  strcpy(extent->name, path);
  extent->offset = offset;
  extent->size = bytes;
}

static void write_dataset(mg_h5_writer *w, const char *path, hid_t type, int rank, const hsize_t *dims, const void *data) {
  size_t count = 1;
  for (int d = 0; d < rank; d++) count *= (size_t)dims[d];
  const hid_t space = rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, dims, NULL),
              create = untimed(H5P_DATASET_CREATE);
  const hid_t set = H5Dcreate2(w->file, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
  w->failed = set < 0 || (count > 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0);
  if (!w->failed && H5Tis_variable_str(type) == 0) remember(w, path, set, count * H5Tget_size(type));
  H5Dclose(set);
  H5Pclose(create);
  H5Sclose(space);
}

void mg_h5_numbers(mg_h5_writer *w, const char *path, hid_t type, int rank, const hsize_t *dims, const void *data,
                   const char *long_name, const char *units) {
  size_t bytes = H5Tget_size(type);
  if (w->failed) return;
  for (int d = 0; d < rank; d++) bytes *= (size_t)dims[d];
  write_dataset(w, path, type, rank, dims, data);
  describe(w, path, mg_hash(bytes > 0 ? data : "", bytes), long_name, units);
}

void mg_h5_rows_begin(mg_h5_writer *w, const char *path, hid_t type, int rank, const hsize_t *dims, mg_h5_rows *rows) {
  *rows = (mg_h5_rows){.set = H5I_INVALID_HID, .type = type, .rank = rank};
  if (w->failed) return;
  for (int d = 0; d < rank; d++) rows->dims[d] = dims[d];
  snprintf(rows->path, sizeof rows->path, "%s", path);
  rows->hasher = mg_hasher_create();
  const hid_t space = H5Screate_simple(rank, dims, NULL), create = untimed(H5P_DATASET_CREATE);
  /* its place is known from the start, and nothing is written there twice */
  H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
  rows->set = H5Dcreate2(w->file, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
  w->failed = rows->set < 0 || rows->hasher == NULL;
  H5Pclose(create);
  H5Sclose(space);
}

static size_t row_bytes(const mg_h5_rows *rows) {
  size_t bytes = H5Tget_size(rows->type);
  for (int d = 1; d < rows->rank; d++) bytes *= (size_t)rows->dims[d];
  return bytes;
}

void mg_h5_rows_put(mg_h5_writer *w, mg_h5_rows *rows, const void *row) {
  if (w->failed) return;
  const hsize_t start[3] = {rows->next++}, count[3] = {1, rows->dims[1], rows->dims[2]};
  const hid_t file = H5Dget_space(rows->set), memory = H5Screate_simple(rows->rank, count, NULL);
  w->failed = H5Sselect_hyperslab(file, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
              H5Dwrite(rows->set, rows->type, memory, file, H5P_DEFAULT, row) < 0;
  mg_hasher_add(rows->hasher, row, row_bytes(rows));
  H5Sclose(memory);
  H5Sclose(file);
}

void mg_h5_rows_end(mg_h5_writer *w, mg_h5_rows *rows, const char *long_name, const char *units) {
  if (!w->failed) {
    remember(w, rows->path, rows->set, (size_t)rows->dims[0] * row_bytes(rows));
    describe(w, rows->path, mg_hasher_digest(rows->hasher), long_name, units);
  }
  if (rows->set >= 0) H5Dclose(rows->set);
  mg_hasher_destroy(&rows->hasher);
  rows->set = H5I_INVALID_HID;
}

hid_t mg_h5_bool_type(void) {
  const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
  H5Tenum_insert(type, "FALSE", &(int8_t){0});
  H5Tenum_insert(type, "TRUE", &(int8_t){1});
  return type;
}

void mg_h5_bools(mg_h5_writer *w, const char *path, size_t count, const bool *data, const char *long_name) {
  const hsize_t dim = count;
  const hid_t type = mg_h5_bool_type();
  mg_h5_numbers(w, path, type, 1, &dim, data, long_name, NULL);
  H5Tclose(type);
}

void mg_h5_strings(mg_h5_writer *w, const char *path, const void *first, size_t step, size_t count, const char *long_name) {
  const bool scalar = count == SIZE_MAX;
  const hsize_t dim = scalar ? 1 : count;
  if (w->failed) return;
  const char **strings = mg_alloc((size_t)dim, sizeof *strings);
  const hid_t type = text_type();
  w->failed = strings == NULL || type < 0;
  for (size_t k = 0; !w->failed && k < dim; k++) {
    strings[k] = *(char *const *)(const void *)((const char *)first + k * step);
    if (strings[k] == NULL) strings[k] = "";
  }
  if (!w->failed) write_dataset(w, path, type, scalar ? 0 : 1, &dim, strings);
  if (!w->failed) describe(w, path, mg_hash_strings(strings, (size_t)dim), long_name, NULL);
  H5Tclose(type);
  free(strings);
}

void mg_h5_make_scale(mg_h5_writer *w, const char *path, const char *name) {
  if (w->failed) return;
  const hid_t set = H5Dopen2(w->file, path, H5P_DEFAULT);
  w->failed = set < 0 || H5DSset_scale(set, name) < 0;
  H5Dclose(set);
}

void mg_h5_scale(mg_h5_writer *w, const char *path, const char *scale, unsigned axis) {
  if (w->failed) return;
  const hid_t set = H5Dopen2(w->file, path, H5P_DEFAULT), along = H5Dopen2(w->file, scale, H5P_DEFAULT);
  const char *slash = strrchr(scale, '/');
  w->failed = set < 0 || along < 0 || H5DSattach_scale(set, along, axis) < 0 ||
              H5DSset_label(set, axis, slash != NULL ? slash + 1 : scale) < 0;
  H5Dclose(along);
  H5Dclose(set);
}
