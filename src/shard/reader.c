/* Raw ranges of a checkpoint's tensors. */

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/mapping.h"
#include "shard_impl.h"

enum { AHEAD = 4 << 20, SEEN = 1 << 20 };

struct mg_reader {
  const mg_member *member;
  int *fds; /* [files], −1: not open yet */
  mg_mappings *mappings;
  mg_window window;
};

mg_status mg_reader_create(const mg_member *member, mg_reader **out) {
  mg_reader *reader = mg_alloc_zero(1, sizeof *reader);
  if (reader == NULL) return MG_ERR_NOMEM;
  reader->member = member;
  reader->fds = mg_alloc(member->files.count, sizeof *reader->fds);
  if (reader->fds == NULL) {
    free(reader);
    return MG_ERR_NOMEM;
  }
  for (size_t k = 0; k < member->files.count; k++) reader->fds[k] = -1;
  const mg_status status = mg_mappings_create(member->files.count, MG_MOST_TABLES, &reader->mappings);
  if (status != MG_OK)
    mg_reader_destroy(&reader);
  else
    *out = reader;
  return status;
}

void mg_reader_destroy(mg_reader **reader) {
  if (*reader == NULL) return;
  mg_window_close(&(*reader)->window);
  mg_mappings_destroy(&(*reader)->mappings);
  for (size_t k = 0; k < (*reader)->member->files.count; k++)
    if ((*reader)->fds[k] >= 0) close((*reader)->fds[k]);
  free((*reader)->fds);
  free(*reader);
  *reader = NULL;
}

mg_status mg_reader_show(mg_reader *reader, size_t tensor, int64_t first, int64_t count, void *room, const void **raw) {
  const mg_location *at = &reader->member->locations[tensor];
  const size_t size = (size_t)count * mg_dtype_size((mg_dtype)at->dtype);
  const uint64_t offset = at->offset + (uint64_t)first * mg_dtype_size((mg_dtype)at->dtype);
  const char *path = reader->member->files.items[at->file];
  int *fd = &reader->fds[at->file];
  if (*fd < 0) *fd = open(path, O_RDONLY | O_CLOEXEC);
  if (*fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  *raw = mg_window_at(&reader->window, at->file, offset, size);
  if (*raw == NULL) *raw = mg_window_show(reader->mappings, &reader->window, at->file, *fd, path, offset, size, SEEN);
  if (*raw != NULL) return MG_OK;
  *raw = room;
  return mg_read_streaming(*fd, path, room, size, offset, AHEAD, NULL);
}

mg_status mg_reader_check(const mg_reader *reader) { return mg_mappings_check(reader->mappings); }

uint64_t mg_hash_tensor_begin(uint64_t hash, const mg_tensor *tensor, mg_dtype dtype) {
  const char *name = mg_dtype_name(dtype);
  hash = mg_hash_more(hash, tensor->name, strlen(tensor->name) + 1);
  hash = mg_hash_more(hash, name, strlen(name) + 1);
  return mg_hash_more(hash, tensor->shape, (size_t)tensor->ndim * sizeof *tensor->shape);
}

int64_t mg_first_nonfinite(const float *values, int64_t n) {
  uint32_t found = 0;
  for (int64_t k = 0; k < n; k++) {
    uint32_t bits;
    memcpy(&bits, &values[k], sizeof bits);
    found |= (bits & 0x7F800000) == 0x7F800000;
  }
  if (!found) return -1;
  for (int64_t k = 0; k < n; k++)
    if (!isfinite(values[k])) return k;
  return -1;
}
