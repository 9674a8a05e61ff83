/* The header of a safetensors file: untrusted bytes, so nothing is believed before it is checked against the file's size. */

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "family_impl.h"

enum { LARGEST_HEADER = 100 * 1000 * 1000 }; /* the format's own bound */

typedef struct header {
  const char *path;
  uint32_t file;
  uint64_t data_start, data_size;
  mg_tensor_info *tensors; /* of this file */
  size_t count;
} header;

static mg_status corrupt(const header *h, const char *tensor, const char *what) {
  return mg_fail(MG_ERR_CORRUPT, "%s: tensor %s: %s", h->path, tensor, what);
}

static mg_status read_shape(const header *h, const char *name, const json_t *shape, mg_tensor_info *info) {
  if (!json_is_array(shape)) return corrupt(h, name, "a shape is missing (a list of sizes was expected)");
  if (json_array_size(shape) > MG_MAX_DIMS)
    return mg_fail(MG_ERR_CORRUPT, "%s: tensor %s: has %zu dimensions; at most %d were expected", h->path, name,
                   json_array_size(shape), MG_MAX_DIMS);
  info->ndim = (int)json_array_size(shape);
  info->numel = 1;
  for (int d = 0; d < info->ndim; d++) {
    const json_t *size = json_array_get(shape, (size_t)d);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
      return corrupt(h, name, "a size in its shape is not a whole number");
    info->shape[d] = json_integer_value(size);
    if (__builtin_mul_overflow(info->numel, info->shape[d], &info->numel)) return corrupt(h, name, "its shape overflows");
  }
  return MG_OK;
}

static mg_status read_range(const header *h, const char *name, const json_t *offsets, mg_tensor_info *info) {
  const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
  int64_t bytes;
  if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
    return corrupt(h, name, "data_offsets are missing ([begin, end] was expected)");
  const json_int_t begin = json_integer_value(first), end = json_integer_value(last);
  if (begin < 0 || end < begin) return corrupt(h, name, "its data_offsets are reversed or negative");
  if ((uint64_t)end > h->data_size)
    return mg_fail(MG_ERR_CORRUPT, "%s: tensor %s: its data ends at byte %lld; the file has only %llu bytes of data", h->path,
                   name, (long long)end, (unsigned long long)h->data_size);
  if (__builtin_mul_overflow(info->numel, (int64_t)mg_dtype_size(info->dtype), &bytes) || bytes != end - begin)
    return mg_fail(MG_ERR_CORRUPT, "%s: tensor %s: its shape takes %lld elements of %s, but its data_offsets hold %lld bytes",
                   h->path, name, (long long)info->numel, mg_dtype_name(info->dtype), (long long)(end - begin));
  info->offset = h->data_start + (uint64_t)begin;
  return MG_OK;
}

static mg_status read_tensor(const header *h, const char *name, const json_t *entry, mg_tensor_info *info) {
  mg_status status = MG_OK;
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  *info = (mg_tensor_info){.file = h->file};
  if (!json_is_object(entry)) return corrupt(h, name, "its entry is not an object");
  if (dtype == NULL) return corrupt(h, name, "a dtype is missing");
  if (!mg_dtype_from_name(dtype, &info->dtype))
    return mg_fail(MG_ERR_INPUT, "%s: tensor %s: dtype %s is not supported (F64, F32, F16, BF16, integers and BOOL are)",
                   h->path, name, dtype);
  MG_TRY(read_shape(h, name, json_object_get(entry, "shape"), info), done);
  MG_TRY(read_range(h, name, json_object_get(entry, "data_offsets"), info), done);
  info->name = mg_strdup(name);
  if (info->name == NULL) status = MG_ERR_NOMEM;
done:
  return status;
}

static int compare_offsets(const void *a, const void *b) {
  const mg_tensor_info *x = *(const mg_tensor_info *const *)a, *y = *(const mg_tensor_info *const *)b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  return (x->numel > y->numel) - (x->numel < y->numel); /* empty tensors first */
}

/* The data must be one after another without overlap or hole, as the format demands: a gap hides bytes nobody checks. */
static mg_status check_layout(const header *h) {
  mg_status status = MG_OK;
  const mg_tensor_info **order = mg_alloc(h->count, sizeof *order);
  if (order == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < h->count; k++) order[k] = &h->tensors[k];
  if (h->count > 1) qsort(order, h->count, sizeof *order, compare_offsets);
  uint64_t at = h->data_start;
  for (size_t k = 0; k < h->count && status == MG_OK; k++) {
    if (order[k]->offset < at) status = corrupt(h, order[k]->name, "its data overlaps another tensor's");
    if (order[k]->offset > at) status = corrupt(h, order[k]->name, "there is a hole before its data");
    at = order[k]->offset + (uint64_t)order[k]->numel * mg_dtype_size(order[k]->dtype);
  }
  if (status == MG_OK && at != h->data_start + h->data_size)
    status = mg_fail(MG_ERR_CORRUPT, "%s: %llu bytes follow the last tensor's data", h->path,
                     (unsigned long long)(h->data_start + h->data_size - at));
  free(order);
  return status;
}

/* __metadata__ is a map of strings. */
static mg_status check_metadata(const header *h, json_t *metadata) {
  const char *key;
  json_t *value;
  if (!json_is_object(metadata)) return mg_fail(MG_ERR_CORRUPT, "%s: __metadata__ is not an object", h->path);
  json_object_foreach(metadata, key, value) {
    if (!json_is_string(value)) return mg_fail(MG_ERR_CORRUPT, "%s: __metadata__: %s is not a string", h->path, key);
  }
  return MG_OK;
}

static mg_status parse(header *h, const char *text, size_t size) {
  mg_status status = MG_OK;
  json_error_t error;
  const char *name;
  json_t *entry;
  json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
  if (root == NULL)
    return mg_fail(MG_ERR_CORRUPT, "%s: its header is no valid JSON: line %d, column %d: %s", h->path, error.line, error.column,
                   error.text);
  if (!json_is_object(root)) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: its header is not a JSON object", h->path);
    goto cleanup;
  }
  h->tensors = mg_alloc_zero(json_object_size(root), sizeof *h->tensors);
  if (h->tensors == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  json_object_foreach(root, name, entry) {
    if (strcmp(name, "__metadata__") == 0) {
      status = check_metadata(h, entry);
    } else {
      status = read_tensor(h, name, entry, &h->tensors[h->count]);
      if (status == MG_OK) h->count++;
    }
    if (status != MG_OK) goto cleanup;
  }
  MG_TRY(check_layout(h), cleanup);
cleanup:
  json_decref(root);
  return status;
}

static mg_status open_header(const char *path, int *fd, uint64_t *file_size, uint64_t *header_size) {
  unsigned char bytes[8];
  struct stat info;
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block; files ignore it */
  if (*fd < 0 || fstat(*fd, &info) != 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  if (!S_ISREG(info.st_mode)) return mg_fail(MG_ERR_INPUT, "%s: is not a regular file", path);
  *file_size = (uint64_t)info.st_size;
  if (*file_size < 8)
    return mg_fail(MG_ERR_CORRUPT, "%s: has %llu bytes; a safetensors file begins with 8 bytes of header size", path,
                   (unsigned long long)*file_size);
  const mg_status status = mg_read_at(*fd, path, bytes, sizeof bytes, 0);
  if (status != MG_OK) return status;
  *header_size = 0;
  for (int k = 7; k >= 0; k--) *header_size = *header_size << 8 | bytes[k];
  if (*header_size > *file_size - 8 || *header_size > LARGEST_HEADER)
    return mg_fail(MG_ERR_CORRUPT,
                   "%s: its header would take %llu bytes, but the file has %llu (and %d is the format's bound): is it "
                   "truncated, or no safetensors file?",
                   path, (unsigned long long)*header_size, (unsigned long long)*file_size, LARGEST_HEADER);
  return MG_OK;
}

mg_status mg_header_read(const char *path, mg_header *read) {
  mg_status status = MG_OK;
  uint64_t size = 0;
  int fd = -1;
  *read = (mg_header){0};
  MG_TRY(open_header(path, &fd, &read->file_size, &size), cleanup);
  read->size = (size_t)size;
  read->text = mg_alloc(read->size + 1, 1);
  if (read->text == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_read_at(fd, path, read->text, read->size, 8), cleanup);
cleanup:
  if (fd >= 0) close(fd);
  return status;
}

bool mg_header_equal(const mg_header *a, const mg_header *b) {
  return a->text != NULL && b->text != NULL && a->file_size == b->file_size && a->size == b->size &&
         memcmp(a->text, b->text, a->size) == 0;
}

void mg_header_free(mg_header *read) {
  free(read->text);
  *read = (mg_header){0};
}

mg_status mg_header_parse(const char *path, uint32_t file, const mg_header *from, mg_tensor_info **tensors, size_t *count) {
  mg_status status = MG_OK;
  header h = {.path = path, .file = file, .data_start = 8 + from->size, .data_size = from->file_size - 8 - from->size};
  MG_TRY(parse(&h, from->text, from->size), cleanup);
  mg_tensor_info *all = reallocarray(*tensors, *count + h.count + 1, sizeof *all);
  if (all == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  if (h.count > 0) memcpy(all + *count, h.tensors, h.count * sizeof *all);
  *tensors = all;
  *count += h.count;
  h.count = 0; /* the names have moved */
cleanup:
  for (size_t k = 0; k < h.count; k++) free(h.tensors[k].name);
  free(h.tensors);
  return status;
}

mg_status mg_safetensors_read_header(const char *path, uint32_t file, mg_tensor_info **tensors, size_t *count) {
  mg_header text;
  mg_status status = mg_header_read(path, &text);
  if (status == MG_OK) status = mg_header_parse(path, file, &text, tensors, count);
  mg_header_free(&text);
  return status;
}
