/* A shard's HDF5 side, writing. The library is not thread-safe as built here: one lock around every use. */

#include <fcntl.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hdf5_impl.h"
#include "mergegrid/hash.h"
#include "shard_impl.h"

pthread_mutex_t mg_hdf5_lock = PTHREAD_MUTEX_INITIALIZER;

struct mg_shard_file {
  char *path;
  hid_t file;
  mg_user_block block;
};

hid_t mg_hdf5_element_type(mg_dtype dtype) {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  if (dtype == MG_F32 || type < 0) return type;
  /* fields before precision before size: each step must be a valid type */
  const bool half = dtype == MG_F16;
  const herr_t bad = half ? (H5Tset_fields(type, 15, 10, 5, 0, 10) < 0) : (H5Tset_fields(type, 15, 7, 8, 0, 7) < 0);
  if (bad || H5Tset_precision(type, 16) < 0 || H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, half ? 15 : 127) < 0) {
    H5Tclose(type);
    return H5I_INVALID_HID;
  }
  return type;
}

static hid_t string_type(size_t longest) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  if (type >= 0 && H5Tset_size(type, longest + 1) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0) return type;
  H5Tclose(type);
  return H5I_INVALID_HID;
}

static bool write_numbers(hid_t group, const char *name, hid_t type, int rank, const hsize_t *dims, const void *data) {
  const hid_t space = H5Screate_simple(rank, dims, NULL);
  const hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const bool good = set >= 0 && (dims[0] == 0 || data == NULL || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
  H5Dclose(set);
  H5Sclose(space);
  return good;
}

static bool rewrite(hid_t group, const char *name, hid_t type, size_t count, const void *data) {
  const hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
  const bool good = set >= 0 && (count == 0 || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
  H5Dclose(set);
  return good;
}

/* count strings, `step` bytes apart from one pointer to the next. */
static bool write_strings(hid_t group, const char *name, const void *first, size_t step, size_t count) {
  size_t longest = 1;
  for (size_t k = 0; k < count; k++) {
    const size_t length = strlen(*(char *const *)(const void *)((const char *)first + k * step));
    if (length > longest) longest = length;
  }
  char *flat = mg_alloc_zero(count, longest + 1);
  if (flat == NULL) return false;
  for (size_t k = 0; k < count; k++)
    strcpy(flat + k * (longest + 1), *(char *const *)(const void *)((const char *)first + k * step));
  const hid_t type = string_type(longest);
  const bool good = type >= 0 && write_numbers(group, name, type, 1, (hsize_t[]){count}, flat);
  H5Tclose(type);
  free(flat);
  return good;
}

static bool write_attribute(hid_t file, const char *name, hid_t type, const void *data) {
  const hid_t space = H5Screate(H5S_SCALAR), attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const bool good = attribute >= 0 && H5Awrite(attribute, type, data) >= 0;
  H5Aclose(attribute);
  H5Sclose(space);
  return good;
}

static bool write_text_attribute(hid_t file, const char *name, const char *text) {
  const hid_t type = string_type(strlen(text));
  const bool good = type >= 0 && write_attribute(file, name, type, text);
  H5Tclose(type);
  return good;
}

static hid_t make_group(hid_t file, const char *name) { return H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT); }

static bool write_tensors(hid_t file, const mg_tensor_table *table) {
  const size_t n = table->count;
  int64_t *shape = mg_alloc_zero(n * MG_MAX_DIMS, sizeof *shape), *offset = mg_alloc(n, sizeof *offset);
  int32_t *ndim = mg_alloc(n, sizeof *ndim);
  uint8_t *source_only = mg_alloc(n, 1);
  const hid_t group = make_group(file, "tensors");
  bool good = shape && offset && ndim && source_only && group >= 0;
  for (size_t k = 0; good && k < n; k++) {
    const mg_tensor *t = &table->tensors[k];
    memcpy(shape + k * MG_MAX_DIMS, t->shape, (size_t)t->ndim * sizeof *shape);
    offset[k] = t->offset;
    ndim[k] = t->ndim;
    source_only[k] = t->source_only;
  }
  good = good && write_strings(group, "name", &table->tensors[0].name, sizeof(mg_tensor), n) &&
         write_strings(group, "layer", &table->tensors[0].layer, sizeof(mg_tensor), n) &&
         write_numbers(group, "shape", H5T_STD_I64LE, 2, (hsize_t[]){n, MG_MAX_DIMS}, shape) &&
         write_numbers(group, "offset", H5T_STD_I64LE, 1, (hsize_t[]){n}, offset) &&
         write_numbers(group, "ndim", H5T_STD_I32LE, 1, (hsize_t[]){n}, ndim) &&
         write_numbers(group, "source_only", H5T_STD_U8LE, 1, (hsize_t[]){n}, source_only) &&
         write_numbers(group, "rounding_error", H5T_IEEE_F64LE, 1, (hsize_t[]){n}, NULL);
  H5Gclose(group);
  free(shape), free(offset), free(ndim), free(source_only);
  return good;
}

static bool write_files(hid_t file, const mg_shard *shard, const mg_strings *names) {
  const size_t n = shard->file_count;
  uint64_t *size = mg_alloc(n, sizeof *size), *inode = mg_alloc(n, sizeof *inode);
  int64_t *mtime = mg_alloc(n, sizeof *mtime);
  const hid_t group = make_group(file, "files");
  bool good = size && inode && mtime && group >= 0;
  for (size_t k = 0; good && k < n; k++) {
    size[k] = shard->stamps[k].size;
    inode[k] = shard->stamps[k].inode;
    mtime[k] = shard->stamps[k].mtime_ns;
  }
  good = good && write_strings(group, "path", names->items, sizeof(char *), n) &&
         write_numbers(group, "size", H5T_STD_U64LE, 1, (hsize_t[]){n}, size) &&
         write_numbers(group, "mtime_ns", H5T_STD_I64LE, 1, (hsize_t[]){n}, mtime) &&
         write_numbers(group, "inode", H5T_STD_U64LE, 1, (hsize_t[]){n}, inode);
  H5Gclose(group);
  free(size), free(inode), free(mtime);
  return good;
}

static bool write_blocks(hid_t file, size_t count) {
  const hid_t group = make_group(file, "blocks");
  const bool good = group >= 0 && write_numbers(group, "checksum", H5T_STD_U64LE, 1, (hsize_t[]){count}, NULL) &&
                    write_numbers(group, "scale", H5T_IEEE_F32LE, 1, (hsize_t[]){count}, NULL);
  H5Gclose(group);
  return good;
}

/* Allocated now and filled by pwrite: the library never touches the values. */
static bool create_values(hid_t file, const mg_shard *shard, uint64_t *offset) {
  const hsize_t elements = (hsize_t)shard->table.elements;
  const hid_t type = mg_hdf5_element_type(shard->dtype), space = H5Screate_simple(1, &elements, NULL);
  const hid_t create = H5Pcreate(H5P_DATASET_CREATE);
  bool good =
      type >= 0 && H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY) >= 0 && H5Pset_fill_time(create, H5D_FILL_TIME_NEVER) >= 0;
  const hid_t set = good ? H5Dcreate2(file, "values", type, space, H5P_DEFAULT, create, H5P_DEFAULT) : H5I_INVALID_HID;
  const haddr_t at = set >= 0 && elements > 0 ? H5Dget_offset(set) : 0;
  good = set >= 0 && at != HADDR_UNDEF;
  *offset = at;
  H5Dclose(set);
  H5Pclose(create);
  H5Sclose(space);
  H5Tclose(type);
  return good;
}

static bool write_head(hid_t file, const mg_shard *shard) {
  const int32_t version = MG_SHARD_VERSION;
  return write_text_attribute(file, "format", "mergegrid shard") && write_attribute(file, "version", H5T_STD_I32LE, &version) &&
         write_text_attribute(file, "kind", shard->is_base ? "base" : "task_vector") &&
         write_text_attribute(file, "id", shard->id) && write_text_attribute(file, "locale", shard->locale) &&
         write_text_attribute(file, "dtype", mg_dtype_name(shard->dtype)) &&
         write_text_attribute(file, "source_path", shard->source_path);
}

static hid_t create_file(const char *path) {
  const hid_t create = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
  hid_t file = H5I_INVALID_HID;
  if (H5Pset_userblock(create, MG_USER_BLOCK) >= 0 && H5Pset_obj_track_times(create, false) >= 0 &&
      H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0)
    file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
  H5Pclose(create);
  H5Pclose(access);
  return file;
}

/*
 * How far beyond a cache line's begin values should start for most of them to lie in whole lines. Tensors follow one another
 * without gaps, and one odd size (a head's bias, early in the alphabet) displaces all behind it: who looks at rows in a mapped
 * file would meet two lines with every load.
 */
static size_t start_in_line(const mg_shard *shard) {
  enum { LINE = 64 };
  const size_t size = mg_dtype_size(shard->dtype);
  int64_t at[LINE] = {0};
  size_t most = 0;
  for (size_t k = 0; k < shard->table.count; k++)
    at[(size_t)shard->table.tensors[k].offset * size % LINE] += shard->table.tensors[k].numel;
  for (size_t begin = 0; begin < LINE; begin++)
    if (at[begin] > at[most]) most = begin;
  return (LINE - most) % LINE;
}

/* Opens the file again to put what is large at that place of a page, behind all that it holds. */
static hid_t reopen_file(const char *path, size_t place) {
  enum { LARGE = 65536, PAGE = 4096, HEADERS = 4 * PAGE /* more than what describes the values takes */ };
  mg_file_stamp stamp;
  if (mg_file_stamp_get(path, &stamp) != MG_OK) return H5I_INVALID_HID;
  /* What is large goes to a multiple of this address: the first that is free is the address itself. */
  const hsize_t behind = (stamp.size + HEADERS) / PAGE * PAGE + place;
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  hid_t file = H5I_INVALID_HID;
  if (H5Pset_alignment(access, LARGE, behind) >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0)
    file = H5Fopen(path, H5F_ACC_RDWR, access);
  H5Pclose(access);
  return file;
}

static bool write_all_but_values(hid_t file, const mg_shard *shard, const mg_strings *file_names) {
  return write_head(file, shard) && write_tensors(file, &shard->table) && write_blocks(file, shard->block_count) &&
         write_files(file, shard, file_names) &&
         write_strings(file, "labels", shard->labels.items, sizeof(char *), shard->labels.count);
}

mg_status mg_shard_file_create(const char *path, const mg_shard *shard, const mg_strings *file_names, mg_shard_file **out,
                               uint64_t *data_offset) {
  mg_shard_file *f = mg_alloc_zero(1, sizeof *f);
  if (f == NULL) return MG_ERR_NOMEM;
  f->file = H5I_INVALID_HID;
  f->path = mg_strdup(path);
  bool good = f->path != NULL;
  mg_hdf5_prepare();
  pthread_mutex_lock(&mg_hdf5_lock);
  H5E_BEGIN_TRY {
    const hid_t file = good ? create_file(path) : H5I_INVALID_HID;
    good = file >= 0 && write_all_but_values(file, shard, file_names);
    good = file >= 0 && H5Fclose(file) >= 0 && good;
    if (good) f->file = reopen_file(path, start_in_line(shard));
    good = good && f->file >= 0 && create_values(f->file, shard, data_offset);
  }
  H5E_END_TRY
  pthread_mutex_unlock(&mg_hdf5_lock);
  f->block =
      (mg_user_block){.data_offset = *data_offset, .data_size = (uint64_t)shard->table.elements * mg_dtype_size(shard->dtype)};
  memcpy(f->block.magic, "MGSHARD1", 8);
  if (good) {
    *out = f;
    return MG_OK;
  }
  mg_shard_file_abandon(&f);
  return mg_fail(MG_ERR_IO, "%s: creating the HDF5 file failed (no space, or no permission?)", path);
}

static bool write_tail(hid_t file, const mg_shard *shard, const double *tensor_error) {
  return rewrite(file, "blocks/checksum", H5T_NATIVE_UINT64, shard->block_count, shard->checksum) &&
         rewrite(file, "blocks/scale", H5T_NATIVE_FLOAT, shard->block_count, shard->scale) &&
         rewrite(file, "tensors/rounding_error", H5T_NATIVE_DOUBLE, shard->table.count, tensor_error) &&
         write_attribute(file, "checkpoint_hash", H5T_STD_U64LE, &shard->checkpoint_hash) &&
         write_attribute(file, "base_hash", H5T_STD_U64LE, &shard->base_hash) &&
         write_attribute(file, "content_hash", H5T_STD_U64LE, &shard->content_hash) &&
         write_attribute(file, "rounding_error", H5T_IEEE_F64LE, &shard->rounding_error);
}

static mg_status write_user_block(const mg_shard_file *f) {
  mg_status status = MG_OK;
  mg_user_block block = f->block;
  mg_file_stamp stamp;
  const int fd = open(f->path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", f->path);
  MG_TRY(mg_file_stamp_get(f->path, &stamp), cleanup);
  block.file_size = stamp.size;
  MG_TRY(mg_hash_metadata(fd, f->path, &block, &block.metadata_hash), cleanup);
  MG_TRY(mg_write_at(fd, f->path, &block, sizeof block, 0), cleanup);
cleanup:
  close(fd);
  return status;
}

mg_status mg_shard_file_finish(mg_shard_file **file, const mg_shard *shard, const double *tensor_error) {
  mg_shard_file *f = *file;
  mg_status status = MG_OK;
  bool good;
  pthread_mutex_lock(&mg_hdf5_lock);
  H5E_BEGIN_TRY {
    good = write_tail(f->file, shard, tensor_error);
    good = H5Fclose(f->file) >= 0 && good;
  }
  H5E_END_TRY
  pthread_mutex_unlock(&mg_hdf5_lock);
  f->file = H5I_INVALID_HID;
  status = good ? write_user_block(f) : mg_fail(MG_ERR_IO, "%s: writing the HDF5 file failed (no space?)", f->path);
  free(f->path);
  free(f);
  *file = NULL;
  return status;
}

void mg_shard_file_abandon(mg_shard_file **file) {
  if (*file == NULL) return;
  if ((*file)->file >= 0) {
    pthread_mutex_lock(&mg_hdf5_lock);
    H5E_BEGIN_TRY { H5Fclose((*file)->file); }
    H5E_END_TRY
    pthread_mutex_unlock(&mg_hdf5_lock);
  }
  free((*file)->path);
  free(*file);
  *file = NULL;
}
