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

/* ---- the block ---- */

static size_t block_bytes(uint64_t count) {
  const size_t need = sizeof(mg_result_head) + (size_t)count * sizeof(mg_result_extent);
  size_t bytes = MG_RESULT_LEAST_BLOCK;
  while (bytes < need) bytes *= 2;
  return bytes;
}

mg_status mg_result_block_create(size_t extents, mg_result_block *block) {
  const size_t bytes = block_bytes(extents);
  *block = (mg_result_block){.bytes = bytes, .head.count = (bytes - sizeof block->head) / sizeof *block->extents};
  block->extents = mg_alloc_zero((size_t)block->head.count, sizeof *block->extents);
  return block->extents != NULL ? MG_OK : MG_ERR_NOMEM;
}

void mg_result_block_free(mg_result_block *block) {
  free(block->extents);
  block->extents = NULL;
}

/* As the file has it; the caller frees. block_hash is 0 in it. */
static char *block_image(const mg_result_block *block) {
  char *image = mg_alloc_zero(block->bytes, 1);
  if (image == NULL) return NULL;
  mg_result_head head = block->head;
  head.block_hash = 0;
  memcpy(image, &head, sizeof head);
  memcpy(image + sizeof head, block->extents, (size_t)head.count * sizeof *block->extents);
  return image;
}

/* ---- sealing ---- */

/* The numbers again, from the file: what was written is what is vouched for. */
static mg_status hash_extents(int fd, const char *path, mg_result_block *block) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < block->used; k++) {
    mg_result_extent *e = &block->extents[k];
    MG_TRY(hash_range(fd, path, e->offset, e->offset + e->size, &e->hash), done);
  }
done:
  return status;
}

mg_status mg_result_seal(const char *path, mg_result_block *block) {
  mg_status status = MG_OK;
  mg_file_stamp stamp;
  char *image = NULL;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  memcpy(block->head.magic, "MGRESULT", 8);
  MG_TRY(mg_file_stamp_get(path, &stamp), cleanup);
  block->head.file_size = stamp.size;
  MG_TRY(hash_range(fd, path, block->bytes, stamp.size, &block->head.rest_hash), cleanup);
  MG_TRY(hash_extents(fd, path, block), cleanup);
  image = block_image(block);
  if (image == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  block->head.block_hash = mg_hash(image, block->bytes);
  memcpy(image, &block->head, sizeof block->head);
  MG_TRY(mg_write_at(fd, path, image, block->bytes, 0), cleanup);
cleanup:
  free(image);
  close(fd);
  return status;
}

/* ---- checking ---- */

/* Which datasets are hit; the block itself is known to be whole. */
static mg_status locate(int fd, const char *path, const mg_result_block *block) {
  mg_status status = MG_OK;
  mg_text lines = {0};
  for (uint64_t k = 0; k < block->head.count; k++) {
    const mg_result_extent *e = &block->extents[k];
    uint64_t hash = 0;
    if (e->name[0] == '\0') continue;
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

/* Reads the block and holds it to its checksum. */
static mg_status read_block(int fd, const char *path, uint64_t file_size, mg_result_block *block) {
  mg_status status = MG_OK;
  mg_result_head *head = &block->head;
  char *image = NULL;
  if (file_size >= sizeof *head) MG_TRY(mg_read_at(fd, path, head, sizeof *head, 0), cleanup);
  if (memcmp(head->magic, "MGRESULT", 8) != 0) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: is no mergegrid result", path);
    goto cleanup;
  }
  const bool sane = head->count <= MG_RESULT_MOST_EXTENTS;
  block->bytes = block_bytes(sane ? head->count : 0);
  image = mg_alloc_zero(block->bytes, 1);
  block->extents = mg_alloc(sane ? (size_t)head->count : 0, sizeof *block->extents);
  if (image == NULL || block->extents == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  if (file_size >= block->bytes) MG_TRY(mg_read_at(fd, path, image, block->bytes, 0), cleanup);
  memset(image + offsetof(mg_result_head, block_hash), 0, sizeof head->block_hash);
  if (!sane || file_size < block->bytes || mg_hash(image, block->bytes) != head->block_hash)
    status = mg_fail(MG_ERR_CORRUPT, "%s: is damaged: its first block does not match its checksum", path);
  else
    memcpy(block->extents, image + sizeof *head, (size_t)head->count * sizeof *block->extents);
cleanup:
  free(image);
  return status;
}

mg_status mg_result_check_seal(const char *path) {
  mg_status status = MG_OK;
  mg_result_block block = {0};
  mg_file_stamp stamp;
  uint64_t hash;
  if (mg_path_is_dir(path)) return mg_fail(MG_ERR_INPUT, "%s: is a directory; a result was expected", path);
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  MG_TRY(mg_file_stamp_get(path, &stamp), cleanup);
  MG_TRY(read_block(fd, path, stamp.size, &block), cleanup);
  if (block.head.file_size != stamp.size) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: has %llu bytes; %llu were expected: it is truncated or damaged", path,
                     (unsigned long long)stamp.size, (unsigned long long)block.head.file_size);
    goto cleanup;
  }
  MG_TRY(hash_range(fd, path, block.bytes, stamp.size, &hash), cleanup);
  if (hash != block.head.rest_hash) status = locate(fd, path, &block);
cleanup:
  mg_result_block_free(&block);
  close(fd);
  return status;
}
