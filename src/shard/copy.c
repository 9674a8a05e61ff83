/* A copy of a shard on another disk: in large pieces, every block held against its checksum. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "shard_impl.h"

enum { PIECE = 4 << 20 }; /* a whole number of the largest blocks */

typedef struct copying {
  const char *from, *to;
  int in, out;
  mg_spool spool;
  uint64_t at;
  mg_status (*poll)(void *context);
  void *context;
} copying;

/* The next bytes to the spool's room, and how many these are. */
static mg_status read_piece(copying *c, uint64_t end, size_t *size) {
  *size = end - c->at < PIECE ? (size_t)(end - c->at) : PIECE;
  return mg_read_at(c->in, c->from, mg_spool_room(&c->spool), *size, c->at);
}

static mg_status move_on(copying *c, size_t size) {
  mg_status status = MG_OK;
  MG_TRY(mg_spool_take(&c->spool, size), done);
  c->at += size;
  if (c->poll != NULL) MG_TRY(c->poll(c->context), done);
done:
  return status;
}

static mg_status copy_until(copying *c, uint64_t end) {
  mg_status status = MG_OK;
  while (c->at < end) {
    size_t size;
    MG_TRY(read_piece(c, end, &size), done);
    MG_TRY(move_on(c, size), done);
  }
done:
  return status;
}

/* Elements of a tensor's block, by its number within the tensor. */
static size_t block_elements(const mg_tensor *tensor, size_t block) {
  const int64_t left = tensor->numel - (int64_t)block * MG_LEAF;
  return (size_t)(left < MG_LEAF ? left : MG_LEAF);
}

/* The next whole blocks that fit into a piece: their bytes. Blocks of a shard follow one another without gaps. */
static mg_status check_piece(const copying *c, const mg_shard *shard, size_t room, size_t *tensor, size_t *block,
                             size_t *bytes) {
  const size_t size = mg_dtype_size(shard->dtype);
  const char *piece = mg_spool_room(&c->spool);
  *bytes = 0;
  while (*tensor < shard->table.count) {
    const mg_tensor *t = &shard->table.tensors[*tensor];
    const size_t number = shard->first_block[*tensor] + *block;
    if (number >= shard->first_block[*tensor + 1]) {
      *tensor += 1;
      *block = 0;
      continue;
    }
    const size_t own = block_elements(t, *block) * size;
    if (own > room - *bytes) return MG_OK;
    if (mg_hash(piece + *bytes, own) != shard->checksum[number])
      return mg_fail(MG_ERR_CORRUPT, "%s: tensor %s: a block does not match its checksum (mergegrid verify names all of them)",
                     c->from, t->name);
    *bytes += own;
    *block += 1;
  }
  return MG_OK;
}

static mg_status copy_values(copying *c, const mg_shard *shard) {
  mg_status status = MG_OK;
  const uint64_t end = shard->data_offset + (uint64_t)shard->table.elements * mg_dtype_size(shard->dtype);
  size_t tensor = 0, block = 0, size, whole;
  while (c->at < end) {
    MG_TRY(read_piece(c, end, &size), done);
    MG_TRY(check_piece(c, shard, size, &tensor, &block, &whole), done);
    if (whole == 0) return mg_fail(MG_ERR_INTERNAL, "%s: a block of more than %d bytes", c->from, PIECE);
    MG_TRY(move_on(c, whole), done);
  }
done:
  return status;
}

static mg_status copy_file(copying *c, const mg_shard *shard, const char *temporary, const char *to) {
  mg_status status = MG_OK;
  c->in = open(c->from, O_RDONLY | O_CLOEXEC);
  if (c->in < 0) return mg_fail_errno(MG_ERR_IO, "%s", c->from);
  c->out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (c->out < 0) return mg_fail_errno(MG_ERR_IO, "%s", temporary);
  MG_TRY(mg_spool_open(&c->spool, c->out, c->to, 0, PIECE), done);
  MG_TRY(copy_until(c, shard->data_offset), done);
  MG_TRY(copy_values(c, shard), done);
  MG_TRY(copy_until(c, shard->seal.file_size), done);
  MG_TRY(mg_spool_flush(&c->spool), done);
  /* A copy that a crash has torn would look whole to the next run. */
  if (fsync(c->out) != 0 || rename(temporary, to) != 0) status = mg_fail_errno(MG_ERR_IO, "%s", to);
done:
  return status;
}

mg_status mg_shard_copy(const char *from, const char *to, const mg_shard_seal *seal, mg_status (*poll)(void *context),
                        void *context) {
  mg_status status = MG_OK;
  mg_shard *shard = NULL;
  mg_seen here = {0};
  char *temporary = NULL;
  copying c = {.from = from, .to = to, .in = -1, .out = -1, .poll = poll, .context = context};
  MG_TRY(mg_shard_open(from, &shard), cleanup);
  if (!mg_shard_seal_equal(&shard->seal, seal)) {
    status = mg_fail(MG_ERR_INPUT, "%s: is another shard than it was when the run began", from);
    goto cleanup;
  }
  mg_seen_here(&here); /* the name that mg_shard_clean knows a killed writer's file by */
  if (asprintf(&temporary, "%s.tmp.%s.%ld", to, here.host, (long)getpid()) < 0) {
    temporary = NULL;
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  status = copy_file(&c, shard, temporary, to);
  if (status != MG_OK) unlink(temporary);
cleanup:
  if (c.in >= 0) close(c.in);
  if (c.out >= 0) close(c.out);
  mg_spool_close(&c.spool);
  free(temporary);
  mg_shard_close(&shard);
  return status;
}
