/* A safetensors file: length of the header, header in JSON, then the tensors' bytes. */

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/checkpoint_write.h"

struct mg_safetensors_writer {
  int fd;
  char *path;
  uint64_t at, end;
};

static json_t *describe(const mg_tensor_table *table) {
  json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
  uint64_t offset = 0;
  for (size_t t = 0; t < table->count; t++) {
    const mg_tensor *tensor = &table->tensors[t];
    const uint64_t bytes = (uint64_t)tensor->numel * sizeof(float);
    json_t *shape = json_array();
    for (int d = 0; d < tensor->ndim; d++) json_array_append_new(shape, json_integer((json_int_t)tensor->shape[d]));
    json_object_set_new(root, tensor->name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets", (json_int_t)offset,
                                  (json_int_t)(offset + bytes)));
    offset += bytes;
  }
  return root;
}

mg_status mg_safetensors_create(const char *path, const mg_tensor_table *table, mg_safetensors_writer **out) {
  mg_status status = MG_OK;
  char *text = NULL, head[8];
  mg_safetensors_writer *w = mg_alloc_zero(1, sizeof *w);
  if (w == NULL) return MG_ERR_NOMEM;
  w->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (w->fd < 0) status = mg_fail_errno(MG_ERR_IO, "%s", path);
  json_t *root = describe(table);
  text = json_dumps(root, JSON_COMPACT);
  json_decref(root);
  w->path = mg_strdup(path);
  if (status == MG_OK && (text == NULL || w->path == NULL)) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status != MG_OK) goto failed;
  const size_t size = strlen(text), padded = (size + 7) / 8 * 8; /* tensors begin on eight bytes */
  for (int k = 0; k < 8; k++) head[k] = (char)(padded >> (8 * k) & 0xFF);
  MG_TRY(mg_write_at(w->fd, path, head, 8, 0), failed);
  MG_TRY(mg_write_at(w->fd, path, text, size, 8), failed);
  MG_TRY(mg_write_at(w->fd, path, "       ", padded - size, 8 + size), failed);
  w->at = 8 + padded;
  w->end = w->at + (uint64_t)table->elements * sizeof(float);
  free(text);
  *out = w;
  return MG_OK;
failed:
  free(text);
  mg_safetensors_abandon(&w);
  return status;
}

mg_status mg_safetensors_put(mg_safetensors_writer *w, const float *values, int64_t count) {
  const size_t bytes = (size_t)count * sizeof *values;
  if (bytes > w->end - w->at) return mg_fail(MG_ERR_INTERNAL, "%s: more elements than its header says", w->path);
  const mg_status status = mg_write_at(w->fd, w->path, values, bytes, w->at);
  if (status == MG_OK) w->at += bytes;
  return status;
}

mg_status mg_safetensors_finish(mg_safetensors_writer **writer) {
  mg_status status = MG_OK;
  mg_safetensors_writer *w = *writer;
  if (w->at != w->end)
    status = mg_fail(MG_ERR_INTERNAL, "%s: %llu bytes are missing", w->path, (unsigned long long)(w->end - w->at));
  else if (fsync(w->fd) != 0)
    status = mg_fail_errno(MG_ERR_IO, "%s: syncing", w->path);
  mg_safetensors_abandon(writer);
  return status;
}

void mg_safetensors_abandon(mg_safetensors_writer **writer) {
  mg_safetensors_writer *w = *writer;
  if (w == NULL) return;
  if (w->fd >= 0) close(w->fd);
  free(w->path), free(w);
  *writer = NULL;
}
