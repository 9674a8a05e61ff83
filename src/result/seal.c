/* The block in front of a result: written last, checked first. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hdf5_impl.h"
#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "mergegrid/text.h"

/* Hash of a range; MG_ERR_CORRUPT where the file ends before it. */
static mg_status hash_range(int fd, const char *path, uint64_t begin, uint64_t end, uint64_t *hash) {
  enum { PIECE = 1 << 20 };
  mg_status status = MG_OK;
  char *buffer = mg_alloc(PIECE, 1);
  if (buffer == NULL) return MG_ERR_NOMEM;
  *hash = mg_hash(&begin, sizeof begin);
  for (uint64_t at = begin; at < end; at += PIECE) {
    const size_t step = end - at < PIECE ? (size_t)(end - at) : PIECE;
    MG_TRY(mg_read_at(fd, path, buffer, step, at), cleanup);
    *hash = mg_hash_more(*hash, buffer, step);
  }
cleanup:
  free(buffer);
  return status;
}

static uint64_t hash_block(const mg_result_block *block) {
  mg_result_block copy = *block;
  copy.block_hash = 0;
  return mg_hash(&copy, sizeof copy);
}

/* The numbers again, from the file: what was written is what is vouched for. */
static mg_status hash_extents(int fd, const char *path, mg_result_block *block) {
  mg_status status = MG_OK;
  for (uint64_t k = 0; k < block->count; k++) {
    mg_result_extent *e = &block->extents[k];
    MG_TRY(hash_range(fd, path, e->offset, e->offset + e->size, &e->hash), done);
  }
done:
  return status;
}

mg_status mg_result_seal(const char *path, mg_result_block *block) {
  mg_status status = MG_OK;
  mg_file_stamp stamp;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  memcpy(block->magic, "MGRESULT", 8);
  MG_TRY(mg_file_stamp_get(path, &stamp), cleanup);
  block->file_size = stamp.size;
  MG_TRY(hash_range(fd, path, MG_RESULT_BLOCK, stamp.size, &block->rest_hash), cleanup);
  MG_TRY(hash_extents(fd, path, block), cleanup);
  block->block_hash = hash_block(block);
  MG_TRY(mg_write_at(fd, path, block, sizeof *block, 0), cleanup);
cleanup:
  close(fd);
  return status;
}

/* Which datasets are hit; the block itself is known to be whole. */
static mg_status locate(int fd, const char *path, const mg_result_block *block) {
  mg_status status = MG_OK;
  mg_text lines = {0};
  for (uint64_t k = 0; k < block->count && k < MG_RESULT_EXTENTS; k++) {
    const mg_result_extent *e = &block->extents[k];
    uint64_t hash = 0;
    MG_TRY(hash_range(fd, path, e->offset, e->offset + e->size, &hash), cleanup);
    if (hash != e->hash)
      mg_text_append(&lines, "\n  %.95s does not match its checksum (bytes %llu to %llu of the file)", e->name,
                     (unsigned long long)e->offset, (unsigned long long)(e->offset + e->size - 1));
  }
  status = mg_fail(MG_ERR_CORRUPT, "%s: is damaged:%s", path,
                   lines.size > 0 ? lines.data : "\n  its strings or its structure do not match their checksum");
cleanup:
  mg_text_free(&lines);
  return status;
}

mg_status mg_result_check_seal(const char *path) {
  mg_status status = MG_OK;
  mg_result_block block = {0};
  mg_file_stamp stamp;
  uint64_t hash;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  MG_TRY(mg_file_stamp_get(path, &stamp), cleanup);
  if (stamp.size >= MG_RESULT_BLOCK) MG_TRY(mg_read_at(fd, path, &block, sizeof block, 0), cleanup);
  if (memcmp(block.magic, "MGRESULT", 8) != 0) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: is no mergegrid result", path);
    goto cleanup;
  }
  if (hash_block(&block) != block.block_hash) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: is damaged: its first block does not match its checksum", path);
    goto cleanup;
  }
  if (block.file_size != stamp.size) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: has %llu bytes; %llu were expected: it is truncated or damaged", path,
                     (unsigned long long)stamp.size, (unsigned long long)block.file_size);
    goto cleanup;
  }
  MG_TRY(hash_range(fd, path, MG_RESULT_BLOCK, stamp.size, &hash), cleanup);
  if (hash != block.rest_hash) status = locate(fd, path, &block);
cleanup:
  close(fd);
  return status;
}
