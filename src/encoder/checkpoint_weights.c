/* Weights straight from a checkpoint's safetensors files. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/encoder.h"
#include "mergegrid/family.h"

bool mg_weight_name_matches(const char *full, const char *name) {
  if (strcmp(full, name) == 0) return true;
  const char *dot = strchr(full, '.');
  return dot != NULL && strcmp(dot + 1, name) == 0;
}

struct mg_checkpoint_weights {
  mg_checkpoint *checkpoint;
  int *fds; /* [files] */
};

static const mg_tensor_info *find_tensor(const mg_checkpoint *c, const char *name) {
  for (size_t k = 0; k < c->tensor_count; k++)
    if (mg_weight_name_matches(c->tensors[k].name, name)) return &c->tensors[k];
  return NULL;
}

static bool find(void *context, const char *name, int *ndim, int64_t shape[8]) {
  const mg_checkpoint_weights *w = context;
  const mg_tensor_info *tensor = find_tensor(w->checkpoint, name);
  if (tensor == NULL || !mg_dtype_is_floating(tensor->dtype)) return false;
  *ndim = tensor->ndim;
  for (int d = 0; d < tensor->ndim; d++) shape[d] = tensor->shape[d];
  return true;
}

static mg_status read_tensor(void *context, const char *name, int64_t first, int64_t count, float *out) {
  enum { PIECE = 1 << 16 };
  mg_status status = MG_OK;
  const mg_checkpoint_weights *w = context;
  const mg_tensor_info *tensor = find_tensor(w->checkpoint, name);
  if (tensor == NULL || first < 0 || count < 0 || first + count > tensor->numel)
    return mg_fail(MG_ERR_INTERNAL, "%s: no such range of %s", w->checkpoint->dir, name);
  const size_t size = mg_dtype_size(tensor->dtype);
  void *bytes = mg_alloc(PIECE, size);
  if (bytes == NULL) return MG_ERR_NOMEM;
  for (int64_t done = 0; done < count; done += PIECE) {
    const size_t now = (size_t)(count - done < PIECE ? count - done : PIECE);
    MG_TRY(mg_read_at(w->fds[tensor->file], w->checkpoint->files.items[tensor->file], bytes, now * size,
                      tensor->offset + (uint64_t)(first + done) * size),
           cleanup);
    mg_to_f32(out + done, bytes, tensor->dtype, now, 1);
  }
cleanup:
  free(bytes);
  return status;
}

mg_status mg_checkpoint_weights_open(const char *dir, mg_checkpoint_weights **opened, mg_weights *weights) {
  mg_status status = MG_OK;
  mg_checkpoint_weights *w = mg_alloc_zero(1, sizeof *w);
  if (w == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_checkpoint_open(dir, &w->checkpoint), failed);
  w->fds = mg_alloc(w->checkpoint->files.count, sizeof *w->fds);
  if (w->fds == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  for (size_t k = 0; k < w->checkpoint->files.count; k++) w->fds[k] = -1;
  for (size_t k = 0; k < w->checkpoint->files.count; k++) {
    w->fds[k] = open(w->checkpoint->files.items[k], O_RDONLY | O_CLOEXEC);
    if (w->fds[k] >= 0) continue;
    status = mg_fail_errno(MG_ERR_IO, "%s", w->checkpoint->files.items[k]);
    goto failed;
  }
  *weights = (mg_weights){.context = w, .origin = w->checkpoint->dir, .find = find, .read = read_tensor};
  *opened = w;
  return MG_OK;
failed:
  mg_checkpoint_weights_close(&w);
  return status;
}

void mg_checkpoint_weights_close(mg_checkpoint_weights **opened) {
  mg_checkpoint_weights *w = *opened;
  if (w == NULL) return;
  for (size_t k = 0; w->fds != NULL && k < w->checkpoint->files.count; k++)
    if (w->fds[k] >= 0) close(w->fds[k]);
  free(w->fds);
  mg_checkpoint_close(&w->checkpoint);
  free(w);
  *opened = NULL;
}
