/* Opening a shard: the user block vouches for the metadata, the metadata for its own sizes, the file's size for the values. */

#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hdf5_impl.h"
#include "mergegrid/hash.h"
#include "shard_impl.h"

enum { MOST_TENSORS = 1 << 22, LONGEST_STRING = 65536 };

void mg_count_blocks(const mg_tensor_table *table, size_t *first_block) {
  first_block[0] = 0;
  for (size_t k = 0; k < table->count; k++)
    first_block[k + 1] = first_block[k] + (size_t)((table->tensors[k].numel + MG_LEAF - 1) / MG_LEAF);
}

uint64_t mg_shard_content_hash(const mg_shard *shard) {
  const int64_t kind[2] = {shard->dtype, shard->is_base};
  uint64_t hash = mg_hash_more(mg_tensor_table_hash(&shard->table), kind, sizeof kind);
  hash = mg_hash_more(hash, shard->scale, shard->block_count * sizeof *shard->scale);
  return mg_hash_more(hash, shard->checksum, shard->block_count * sizeof *shard->checksum);
}

/* ---- the user block ---- */

static mg_status hash_range(int fd, const char *path, uint64_t begin, uint64_t end, char *buffer, size_t room, uint64_t *hash) {
  while (begin < end) {
    const size_t step = end - begin < room ? (size_t)(end - begin) : room;
    const mg_status status = mg_read_at(fd, path, buffer, step, begin);
    if (status != MG_OK) return status;
    *hash = mg_hash_more(*hash, buffer, step);
    begin += step;
  }
  return MG_OK;
}

mg_status mg_hash_metadata(int fd, const char *path, const mg_user_block *block, uint64_t *hash) {
  enum { ROOM = 1 << 18 };
  mg_status status = MG_OK;
  const uint64_t begin = block->data_size > 0 ? block->data_offset : block->file_size;
  char *buffer = mg_alloc(ROOM, 1);
  if (buffer == NULL) return MG_ERR_NOMEM;
  *hash = mg_hash(&block->data_offset, sizeof block->data_offset);
  MG_TRY(hash_range(fd, path, sizeof *block, begin, buffer, ROOM, hash), cleanup);
  MG_TRY(hash_range(fd, path, begin + block->data_size, block->file_size, buffer, ROOM, hash), cleanup);
cleanup:
  free(buffer);
  return status;
}

/* The first bytes of an open file, held against its size. */
static mg_status read_user_block(int fd, const char *path, mg_user_block *block) {
  struct stat now;
  if (fstat(fd, &now) != 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  const uint64_t size = (uint64_t)now.st_size;
  if (size < MG_USER_BLOCK)
    return mg_fail(MG_ERR_CORRUPT, "%s: is no mergegrid shard: it has only %llu bytes", path, (unsigned long long)size);
  const mg_status status = mg_read_at(fd, path, block, sizeof *block, 0);
  if (status != MG_OK) return status;
  if (memcmp(block->magic, "MGSHARD1", 8) != 0)
    return mg_fail(MG_ERR_CORRUPT, "%s: is no mergegrid shard (it does not begin with MGSHARD1)", path);
  const bool inside =
      block->file_size == size && block->data_size <= size &&
      (block->data_size == 0 || (block->data_offset >= MG_USER_BLOCK && block->data_offset <= size - block->data_size));
  if (!inside)
    return mg_fail(MG_ERR_CORRUPT, "%s: has %llu bytes; its first block says %llu: it is truncated or damaged", path,
                   (unsigned long long)size, (unsigned long long)block->file_size);
  return MG_OK;
}

static mg_status check_user_block(const char *path, mg_user_block *block) {
  mg_status status = MG_OK;
  uint64_t hash;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  MG_TRY(read_user_block(fd, path, block), cleanup);
  MG_TRY(mg_hash_metadata(fd, path, block, &hash), cleanup);
  if (hash != block->metadata_hash) status = mg_fail(MG_ERR_CORRUPT, "%s: its metadata is damaged (checksum)", path);
cleanup:
  close(fd);
  return status;
}

/* ---- seals ---- */

static mg_shard_seal seal_of(const mg_user_block *block) {
  return (mg_shard_seal){block->file_size, block->data_offset, block->metadata_hash};
}

mg_status mg_shard_seal_of(int fd, const char *path, mg_shard_seal *seal) {
  mg_user_block block;
  const mg_status status = read_user_block(fd, path, &block);
  if (status == MG_OK) *seal = seal_of(&block);
  return status;
}

mg_status mg_shard_seal_check(const char *path, mg_shard_seal *seal) {
  mg_user_block block;
  const mg_status status = check_user_block(path, &block);
  if (status == MG_OK) *seal = seal_of(&block);
  return status;
}

mg_status mg_shard_seal_read(const char *path, mg_shard_seal *seal) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  const mg_status status = mg_shard_seal_of(fd, path, seal);
  close(fd);
  return status;
}

bool mg_shard_seal_equal(const mg_shard_seal *a, const mg_shard_seal *b) {
  return a->file_size == b->file_size && a->data_offset == b->data_offset && a->metadata_hash == b->metadata_hash;
}

/* ---- briefs ---- */

mg_shard_brief mg_shard_brief_of(const mg_shard *shard) {
  return (mg_shard_brief){.seal = shard->seal,
                          .is_base = shard->is_base,
                          .dtype = shard->dtype,
                          .id_hash = mg_hash(shard->id, strlen(shard->id)),
                          .table_hash = mg_tensor_table_hash(&shard->table),
                          .checkpoint_hash = shard->checkpoint_hash,
                          .base_hash = shard->base_hash,
                          .content_hash = shard->content_hash};
}

/* ---- reading HDF5 ---- */

typedef struct h5_source {
  const char *path;
  hid_t file;
} h5_source;

/* HDF5 gives one answer to what is not there and to what the disk does not give. */
static mg_status bad(const h5_source *f, const char *object, const char *expected) {
  const mg_status readable = mg_file_readable(f->path);
  if (readable != MG_OK) return readable;
  return mg_fail(MG_ERR_CORRUPT, "%s: /%s: %s was expected", f->path, object, expected);
}

/* A dataset of `count` rows of `width` (1: one-dimensional) as `type`; *data is allocated. */
static mg_status read_numbers(const h5_source *f, const char *name, hid_t type, H5T_class_t class, hsize_t count, hsize_t width,
                              void **data) {
  mg_status status = MG_OK;
  hsize_t dims[2] = {0, 1};
  const int rank = width > 1 ? 2 : 1;
  const hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT), space = H5Dget_space(set), stored = H5Dget_type(set);
  if (set < 0 || space < 0 || H5Tget_class(stored) != class || H5Sget_simple_extent_ndims(space) != rank ||
      H5Sget_simple_extent_dims(space, dims, NULL) != rank || dims[0] != count || dims[1] != width) {
    status = bad(f, name, "a dataset of the shape that the number of tensors and blocks gives");
    goto cleanup;
  }
  *data = mg_alloc_zero((size_t)(count * width), H5Tget_size(type));
  if (*data == NULL)
    status = MG_ERR_NOMEM;
  else if (count > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *data) < 0)
    status = bad(f, name, "readable data");
cleanup:
  H5Tclose(stored);
  H5Sclose(space);
  H5Dclose(set);
  return status;
}

/* A one-dimensional dataset of fixed-length strings; any count if *count is SIZE_MAX. */
static mg_status read_strings(const h5_source *f, const char *name, size_t *count, mg_strings *list) {
  mg_status status = MG_OK;
  hsize_t dim = 0;
  char *flat = NULL;
  const hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT), space = H5Dget_space(set), type = H5Dget_type(set);
  const size_t size = set >= 0 ? H5Tget_size(type) : 0;
  if (set < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || size < 1 || size > LONGEST_STRING ||
      H5Sget_simple_extent_ndims(space) != 1 || H5Sget_simple_extent_dims(space, &dim, NULL) != 1 || dim > MOST_TENSORS ||
      (*count != SIZE_MAX && dim != *count)) {
    status = bad(f, name, "a list of strings of fixed length");
    goto cleanup;
  }
  flat = mg_alloc_zero((size_t)dim + 1, size);
  if (flat == NULL) status = MG_ERR_NOMEM;
  if (flat != NULL && dim > 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, flat) < 0)
    status = bad(f, name, "readable strings");
  for (size_t k = 0; status == MG_OK && k < dim; k++) {
    const char *text = flat + k * size;
    const size_t length = strnlen(text, size);
    if (length == size || !mg_valid_utf8(text, length))
      status = bad(f, name, "NUL-terminated UTF-8");
    else
      status = mg_strings_add(list, text);
  }
  *count = (size_t)dim;
cleanup:
  free(flat);
  H5Tclose(type);
  H5Sclose(space);
  H5Dclose(set);
  return status;
}

static mg_status read_attribute(const h5_source *f, const char *name, hid_t type, H5T_class_t class, void *value) {
  mg_status status = MG_OK;
  const hid_t attribute = H5Aopen(f->file, name, H5P_DEFAULT), space = H5Aget_space(attribute), stored = H5Aget_type(attribute);
  if (attribute < 0 || H5Tget_class(stored) != class || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(attribute, type, value) < 0)
    status = mg_fail(MG_ERR_CORRUPT, "%s: attribute %s: a number was expected", f->path, name);
  H5Tclose(stored);
  H5Sclose(space);
  H5Aclose(attribute);
  return status;
}

static mg_status read_text_attribute(const h5_source *f, const char *name, char **text) {
  mg_status status = MG_OK;
  const hid_t attribute = H5Aopen(f->file, name, H5P_DEFAULT), space = H5Aget_space(attribute), type = H5Aget_type(attribute);
  const size_t size = attribute >= 0 ? H5Tget_size(type) : 0;
  if (attribute < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || size < 1 || size > LONGEST_STRING ||
      H5Sget_simple_extent_npoints(space) != 1) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: attribute %s: a string was expected", f->path, name);
    goto cleanup;
  }
  *text = mg_alloc_zero(size + 1, 1);
  if (*text == NULL)
    status = MG_ERR_NOMEM;
  else if (H5Aread(attribute, type, *text) < 0 || !mg_valid_utf8(*text, strlen(*text)))
    status = mg_fail(MG_ERR_CORRUPT, "%s: attribute %s: UTF-8 was expected", f->path, name);
cleanup:
  H5Tclose(type);
  H5Sclose(space);
  H5Aclose(attribute);
  return status;
}

/* ---- the parts of a shard ---- */

static mg_status read_head(const h5_source *f, mg_shard *shard) {
  mg_status status = MG_OK;
  char *format = NULL, *kind = NULL, *dtype = NULL;
  int version = 0;
  MG_TRY(read_text_attribute(f, "format", &format), cleanup);
  MG_TRY(read_attribute(f, "version", H5T_NATIVE_INT, H5T_INTEGER, &version), cleanup);
  if (strcmp(format, "mergegrid shard") != 0 || version != MG_SHARD_VERSION) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: is a '%s' of version %d; a mergegrid shard of version %d was expected", f->path,
                     format, version, MG_SHARD_VERSION);
    goto cleanup;
  }
  MG_TRY(read_text_attribute(f, "kind", &kind), cleanup);
  MG_TRY(read_text_attribute(f, "id", &shard->id), cleanup);
  MG_TRY(read_text_attribute(f, "locale", &shard->locale), cleanup);
  MG_TRY(read_text_attribute(f, "source_path", &shard->source_path), cleanup);
  MG_TRY(read_text_attribute(f, "dtype", &dtype), cleanup);
  shard->is_base = strcmp(kind, "base") == 0;
  if ((!shard->is_base && strcmp(kind, "task_vector") != 0) || !mg_dtype_from_name(dtype, &shard->dtype) ||
      (shard->dtype != MG_F32 && shard->dtype != MG_F16 && shard->dtype != MG_BF16)) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: holds a '%s' of %s; a task_vector or base of F32, F16 or BF16 was expected", f->path,
                     kind, dtype);
    goto cleanup;
  }
  MG_TRY(read_attribute(f, "checkpoint_hash", H5T_NATIVE_UINT64, H5T_INTEGER, &shard->checkpoint_hash), cleanup);
  MG_TRY(read_attribute(f, "base_hash", H5T_NATIVE_UINT64, H5T_INTEGER, &shard->base_hash), cleanup);
  MG_TRY(read_attribute(f, "content_hash", H5T_NATIVE_UINT64, H5T_INTEGER, &shard->content_hash), cleanup);
  MG_TRY(read_attribute(f, "rounding_error", H5T_NATIVE_DOUBLE, H5T_FLOAT, &shard->rounding_error), cleanup);
cleanup:
  free(format);
  free(kind);
  free(dtype);
  return status;
}

static mg_status take_tensor(const h5_source *f, mg_tensor_table *table, mg_strings *names, mg_strings *layers,
                             const int64_t *shape, int32_t ndim, int64_t offset, uint8_t source_only) {
  const size_t k = table->count;
  mg_tensor *t = &table->tensors[table->count++];
  *t = (mg_tensor){.name = names->items[k],
                   .layer = layers->items[k],
                   .ndim = ndim,
                   .numel = 1,
                   .offset = offset,
                   .source_only = source_only != 0};
  names->items[k] = layers->items[k] = NULL;
  bool good = ndim >= 0 && ndim <= MG_MAX_DIMS && offset == table->elements && source_only <= 1;
  for (int d = 0; good && d < ndim; d++) {
    t->shape[d] = shape[d];
    good = shape[d] >= 0 && !__builtin_mul_overflow(t->numel, shape[d], &t->numel);
  }
  good = good && !__builtin_add_overflow(table->elements, t->numel, &table->elements);
  if (!good) return mg_fail(MG_ERR_CORRUPT, "%s: /tensors: tensor %s: its shape and offset do not fit", f->path, t->name);
  return MG_OK;
}

static mg_status read_table(const h5_source *f, mg_tensor_table *table) {
  mg_status status = MG_OK;
  size_t count = SIZE_MAX;
  mg_strings names = {0}, layers = {0};
  void *shape = NULL, *ndim = NULL, *offset = NULL, *source_only = NULL;
  MG_TRY(read_strings(f, "tensors/name", &count, &names), cleanup);
  MG_TRY(read_strings(f, "tensors/layer", &count, &layers), cleanup);
  MG_TRY(read_numbers(f, "tensors/shape", H5T_NATIVE_INT64, H5T_INTEGER, count, MG_MAX_DIMS, &shape), cleanup);
  MG_TRY(read_numbers(f, "tensors/ndim", H5T_NATIVE_INT32, H5T_INTEGER, count, 1, &ndim), cleanup);
  MG_TRY(read_numbers(f, "tensors/offset", H5T_NATIVE_INT64, H5T_INTEGER, count, 1, &offset), cleanup);
  MG_TRY(read_numbers(f, "tensors/source_only", H5T_NATIVE_UINT8, H5T_INTEGER, count, 1, &source_only), cleanup);
  table->tensors = mg_alloc_zero(count, sizeof *table->tensors);
  if (table->tensors == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++)
    MG_TRY(take_tensor(f, table, &names, &layers, (int64_t *)shape + k * MG_MAX_DIMS, ((int32_t *)ndim)[k],
                       ((int64_t *)offset)[k], ((uint8_t *)source_only)[k]),
           cleanup);
cleanup:
  mg_strings_free(&names);
  mg_strings_free(&layers);
  free(shape), free(ndim), free(offset), free(source_only);
  return status;
}

static mg_status read_blocks(const h5_source *f, mg_shard *shard) {
  mg_status status = MG_OK;
  void *checksum = NULL, *scale = NULL;
  shard->first_block = mg_alloc(shard->table.count + 1, sizeof *shard->first_block);
  if (shard->first_block == NULL) return MG_ERR_NOMEM;
  mg_count_blocks(&shard->table, shard->first_block);
  shard->block_count = shard->first_block[shard->table.count];
  MG_TRY(read_numbers(f, "blocks/checksum", H5T_NATIVE_UINT64, H5T_INTEGER, shard->block_count, 1, &checksum), done);
  MG_TRY(read_numbers(f, "blocks/scale", H5T_NATIVE_FLOAT, H5T_FLOAT, shard->block_count, 1, &scale), done);
done:
  shard->checksum = checksum;
  shard->scale = scale;
  for (size_t k = 0; status == MG_OK && k < shard->block_count; k++)
    if (!isnormal(shard->scale[k]) || shard->scale[k] < 0) status = bad(f, "blocks/scale", "a positive power of two");
  return status;
}

static mg_status read_files(const h5_source *f, mg_shard *shard) {
  mg_status status = MG_OK;
  size_t count = SIZE_MAX;
  mg_strings paths = {0};
  void *size = NULL, *mtime = NULL, *inode = NULL;
  MG_TRY(read_strings(f, "files/path", &count, &paths), cleanup);
  MG_TRY(read_numbers(f, "files/size", H5T_NATIVE_UINT64, H5T_INTEGER, count, 1, &size), cleanup);
  MG_TRY(read_numbers(f, "files/mtime_ns", H5T_NATIVE_INT64, H5T_INTEGER, count, 1, &mtime), cleanup);
  MG_TRY(read_numbers(f, "files/inode", H5T_NATIVE_UINT64, H5T_INTEGER, count, 1, &inode), cleanup);
  shard->stamps = mg_alloc(count, sizeof *shard->stamps);
  if (shard->stamps == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  shard->file_count = count;
  for (size_t k = 0; k < count; k++)
    shard->stamps[k] = (mg_file_stamp){((uint64_t *)size)[k], ((int64_t *)mtime)[k], ((uint64_t *)inode)[k]};
cleanup:
  mg_strings_free(&paths);
  free(size), free(mtime), free(inode);
  return status;
}

/* The values must be where the user block says, in the type that the dtype says. */
static mg_status check_values(const h5_source *f, const mg_user_block *block, mg_shard *shard) {
  mg_status status = MG_OK;
  hsize_t dim = 0;
  uint64_t bytes;
  const hid_t set = H5Dopen2(f->file, "values", H5P_DEFAULT), space = H5Dget_space(set), type = H5Dget_type(set);
  const hid_t expected = mg_hdf5_element_type(shard->dtype), create = H5Dget_create_plist(set);
  const bool good = set >= 0 && H5Tequal(type, expected) > 0 && H5Sget_simple_extent_ndims(space) == 1 &&
                    H5Sget_simple_extent_dims(space, &dim, NULL) == 1 && dim == (hsize_t)shard->table.elements &&
                    H5Pget_layout(create) == H5D_CONTIGUOUS && H5Pget_external_count(create) == 0 &&
                    !__builtin_mul_overflow((uint64_t)dim, (uint64_t)mg_dtype_size(shard->dtype), &bytes) &&
                    bytes == block->data_size && (bytes == 0 || H5Dget_offset(set) == block->data_offset);
  if (!good) status = bad(f, "values", "one contiguous dataset of all elements, where the first block says");
  shard->data_offset = block->data_offset;
  H5Pclose(create);
  H5Tclose(expected);
  H5Tclose(type);
  H5Sclose(space);
  H5Dclose(set);
  return status;
}

static mg_status read_all(const h5_source *f, const mg_user_block *block, mg_shard *shard) {
  mg_status status = MG_OK;
  size_t labels = SIZE_MAX;
  MG_TRY(read_head(f, shard), done);
  MG_TRY(read_table(f, &shard->table), done);
  MG_TRY(check_values(f, block, shard), done); /* before the number of blocks is believed */
  MG_TRY(read_blocks(f, shard), done);
  MG_TRY(read_files(f, shard), done);
  MG_TRY(read_strings(f, "labels", &labels, &shard->labels), done);
  if (shard->content_hash != mg_shard_content_hash(shard)) status = bad(f, "content_hash", "the hash of table and checksums");
done:
  return status;
}

mg_status mg_shard_open(const char *path, mg_shard **out) {
  mg_status status = MG_OK;
  mg_user_block block;
  h5_source f = {.path = path, .file = H5I_INVALID_HID};
  mg_shard *shard = mg_alloc_zero(1, sizeof *shard);
  if (shard == NULL) return MG_ERR_NOMEM;
  shard->path = mg_strdup(path);
  if (shard->path == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(check_user_block(path, &block), cleanup);
  shard->seal = seal_of(&block);
  mg_hdf5_prepare();
  pthread_mutex_lock(&mg_hdf5_lock);
  H5E_BEGIN_TRY {
    f.file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    status =
        f.file >= 0 ? read_all(&f, &block, shard) : mg_fail(MG_ERR_CORRUPT, "%s: is no HDF5 file that can be opened", path);
    H5Fclose(f.file);
  }
  H5E_END_TRY
  pthread_mutex_unlock(&mg_hdf5_lock);
  if (status != MG_OK) goto cleanup;
  *out = shard;
  shard = NULL;
cleanup:
  mg_shard_close(&shard);
  return status;
}

void mg_shard_close(mg_shard **shard) {
  mg_shard *s = *shard;
  if (s == NULL) return;
  mg_tensor_table_free(&s->table);
  mg_strings_free(&s->labels);
  free(s->path), free(s->id), free(s->locale), free(s->source_path);
  free(s->checksum), free(s->scale), free(s->first_block), free(s->stamps);
  free(s);
  *shard = NULL;
}
