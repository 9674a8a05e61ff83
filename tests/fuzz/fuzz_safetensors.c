/* Any bytes as a safetensors file: the reader takes or refuses them, and what it takes lies inside the file. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mergegrid/family.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const mg_tensor_info *t, size_t size) {
  const uint64_t bytes = (uint64_t)t->numel * mg_dtype_size(t->dtype);
  if (t->numel < 0 || t->ndim < 0 || t->ndim > MG_MAX_DIMS || t->offset > size || bytes > size - t->offset) abort();
}

static void read_as_file(const uint8_t *data, size_t size) {
  mg_tensor_info *tensors = NULL;
  size_t count = 0;
  char path[64];
  const int fd = memfd_create("safetensors", MFD_CLOEXEC);
  if (fd < 0) return;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  if (mg_write_at(fd, path, data, size, 0) == MG_OK && mg_safetensors_read_header(path, 3, &tensors, &count) != MG_OK &&
      count != 0)
    abort();
  for (size_t k = 0; k < count; k++) {
    check(&tensors[k], size);
    free(tensors[k].name);
  }
  free(tensors);
  close(fd);
}

/* The bytes as they are, and with a header size that ends at the last brace: few mutations leave that in step. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_as_file(data, size);
  size_t end = size;
  while (end > 8 && data[end - 1] != '}') end--;
  if (end <= 8) return 0;
  uint8_t *mended = malloc(size);
  if (mended == NULL) return 0;
  for (size_t k = 0; k < size; k++) mended[k] = (uint8_t)(k < 8 ? (uint64_t)(end - 8) >> (8 * k) : data[k]);
  read_as_file(mended, size);
  free(mended);
  return 0;
}
