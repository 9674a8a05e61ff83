/* Every block against its checksum. */

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "shard_impl.h"

enum { LISTED_BLOCKS = 50 };

mg_status mg_shard_verify(const char *path) {
  mg_status status = MG_OK;
  mg_shard *shard = NULL;
  mg_text lines = {0};
  size_t bad = 0;
  int fd = -1;
  char *buffer = mg_alloc_aligned(MG_LEAF * sizeof(float));
  if (buffer == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_shard_open(path, &shard), cleanup);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  const size_t size = mg_dtype_size(shard->dtype);
  for (size_t k = 0; k < shard->table.count; k++) {
    const mg_tensor *t = &shard->table.tensors[k];
    size_t block = shard->first_block[k];
    for (int64_t first = 0; first < t->numel; first += MG_LEAF, block++) {
      const int64_t count = t->numel - first < MG_LEAF ? t->numel - first : MG_LEAF;
      const uint64_t offset = shard->data_offset + (uint64_t)(t->offset + first) * size;
      MG_TRY(mg_read_streaming(fd, path, buffer, (size_t)count * size, offset, 4 << 20, NULL), cleanup);
      if (mg_hash(buffer, (size_t)count * size) == shard->checksum[block]) continue;
      if (bad++ < LISTED_BLOCKS)
        mg_text_append(&lines, "\n  tensor %s, elements %lld to %lld (bytes %llu to %llu of the file)", t->name,
                       (long long)first, (long long)(first + count - 1), (unsigned long long)offset,
                       (unsigned long long)(offset + (uint64_t)count * size - 1));
    }
  }
  if (bad > LISTED_BLOCKS) mg_text_append(&lines, "\n  … and %zu more", bad - LISTED_BLOCKS);
  if (bad > 0)
    status = mg_fail(MG_ERR_CORRUPT, "%s: %zu blocks do not match their checksums:%s", path, bad, lines.data ? lines.data : "");
cleanup:
  if (fd >= 0) close(fd);
  mg_text_free(&lines);
  mg_shard_close(&shard);
  free(buffer);
  return status;
}
