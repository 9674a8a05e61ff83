/*
 * Values on their way to a shard, written in pieces that the page cache keeps as one huge page each: who sees them there
 * afterwards has a page table entry for 2 MiB instead of 512, and to let go of as many.
 */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/tiling.h"
#include "shard_impl.h"

enum { PIECE = 2 << 20, ROOM = MG_LEAF * sizeof(float) };

mg_status mg_spool_open(mg_spool *spool, int fd, const char *path, uint64_t offset) {
  *spool = (mg_spool){.fd = fd, .path = path, .at = offset, .buffer = mg_alloc_aligned(PIECE + ROOM)};
  return spool->buffer != NULL ? MG_OK : MG_ERR_NOMEM;
}

void mg_spool_close(mg_spool *spool) {
  free(spool->buffer);
  spool->buffer = NULL;
}

void *mg_spool_room(const mg_spool *spool) { return spool->buffer + spool->filled; }

static mg_status write_first(mg_spool *spool, size_t size) {
  const mg_status status = mg_write_at(spool->fd, spool->path, spool->buffer, size, spool->at);
  spool->at += size;
  spool->filled -= size;
  memmove(spool->buffer, spool->buffer + size, spool->filled);
  return status;
}

mg_status mg_spool_take(mg_spool *spool, size_t size) {
  const size_t whole = PIECE - (size_t)(spool->at % PIECE); /* what is left of a piece of the file */
  spool->filled += size;
  return spool->filled >= whole ? write_first(spool, whole) : MG_OK;
}

mg_status mg_spool_flush(mg_spool *spool) { return spool->filled > 0 ? write_first(spool, spool->filled) : MG_OK; }
