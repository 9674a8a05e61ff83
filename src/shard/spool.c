/*
 * Values on their way to a shard, written in pieces that the page cache keeps as one huge page each: who sees them there
 * afterwards has a page table entry for 2 MiB instead of 512, and to let go of as many.
 */

#include <stdlib.h>
#include <string.h>

#include "shard_impl.h"

enum { PIECE = 2 << 20 };

mg_status mg_spool_open(mg_spool *spool, int fd, const char *path, uint64_t offset, size_t room) {
  *spool = (mg_spool){.fd = fd, .path = path, .at = offset, .buffer = mg_alloc_aligned(PIECE + room)};
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
  spool->filled += size;
  const uint64_t end = spool->at + spool->filled,
                 bound = end - end % PIECE; /* the last that is reached, of the file's pieces */
  return bound > spool->at ? write_first(spool, (size_t)(bound - spool->at)) : MG_OK;
}

mg_status mg_spool_flush(mg_spool *spool) { return spool->filled > 0 ? write_first(spool, spool->filled) : MG_OK; }
