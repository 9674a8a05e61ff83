/* Rows that one process opened, told to others: those open a shard when they first read it, and see then that it is the same.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rows_impl.h"

/* What is sent stays within one program, so structures go as they are (without their pointers). */
typedef struct heading {
  uint64_t sources, blocks;
  mg_dtype dtype;
} heading;

typedef struct entry {
  mg_shard_seal seal;
  uint64_t identity, scales;
} entry;

/* ---- telling ---- */

mg_status mg_rows_describe(const mg_rows *rows, mg_text *text) {
  const mg_tensor_table *table = rows->table;
  const heading head = {.sources = rows->sources, .blocks = rows->first_block[table->count], .dtype = rows->dtype};
  mg_text_append_bytes(text, &head, sizeof head);
  mg_tensor_table_describe(table, text);
  for (size_t k = 0; k <= rows->sources; k++) {
    const mg_shard_row *row = &rows->shards[k];
    const entry e = {row->seal, row->identity, row->inverse_scale != NULL ? head.blocks : 0};
    mg_text_append_bytes(text, &e, sizeof e);
    mg_text_append_bytes(text, row->inverse_scale, (size_t)e.scales * sizeof *row->inverse_scale);
  }
  return text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

/* ---- being told ---- */

static char *path_in(const char *dir, const mg_shard_row *row) {
  return row->id[0] != '\0' ? mg_shard_path(dir, row->id) : mg_shard_base_path(dir);
}

static mg_status take_shard(mg_cursor *c, const char *dir, const char *id, size_t blocks, mg_shard_row *row) {
  mg_status status = MG_OK;
  entry e;
  MG_TRY(mg_cursor_take(c, &e, sizeof e), done);
  row->seal = e.seal;
  row->identity = e.identity;
  atomic_init(&row->data_offset, 0);
  row->id = mg_strdup(id);
  row->path = row->id != NULL ? path_in(dir, row) : NULL;
  if (row->path == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (e.scales == 0) return MG_OK;
  if (e.scales != blocks)
    return mg_fail(MG_ERR_INTERNAL, "a description of shards with %llu scales", (unsigned long long)e.scales);
  row->inverse_scale = mg_alloc(blocks, sizeof *row->inverse_scale);
  if (row->inverse_scale == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_cursor_take(c, row->inverse_scale, blocks * sizeof *row->inverse_scale), done);
done:
  return status;
}

mg_status mg_rows_open_described(const void *data, size_t size, const char *dir, const mg_source_list *list, size_t file_bound,
                                 const char *who, mg_rows **out) {
  mg_status status = MG_OK;
  mg_cursor c = {data, size};
  heading head;
  mg_rows *rows = mg_rows_create(list->count, file_bound);
  if (rows == NULL) return MG_ERR_NOMEM;
  rows->dir = mg_strdup(dir);
  rows->who = mg_strdup(who);
  rows->shards = mg_alloc_zero(list->count + 1, sizeof *rows->shards);
  if (rows->dir == NULL || rows->who == NULL || rows->shards == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  MG_TRY(mg_cursor_take(&c, &head, sizeof head), cleanup);
  if (head.sources != list->count) {
    status = mg_fail(MG_ERR_INTERNAL, "a description of %llu shards, not %zu", (unsigned long long)head.sources, list->count);
    goto cleanup;
  }
  rows->dtype = head.dtype;
  rows->bytes_per_element = (double)mg_dtype_size(rows->dtype);
  rows->table = &rows->own_table;
  MG_TRY(mg_tensor_table_take(&c, &rows->own_table), cleanup);
  MG_TRY(mg_rows_index(rows), cleanup);
  for (size_t k = 0; k <= list->count; k++)
    MG_TRY(take_shard(&c, dir, k < list->count ? list->items[k].id : "", (size_t)head.blocks, &rows->shards[k]), cleanup);
  *out = rows;
  rows = NULL;
cleanup:
  mg_rows_close(&rows);
  return status;
}

/* ---- the files ---- */

/* Packed apart from the same checkpoint, files differ in paths and times, and their values do not: that takes the HDF5 library.
 */
static mg_status compare_contents(const mg_rows *rows, const mg_shard_row *row, uint64_t *data_offset) {
  mg_shard *shard = NULL;
  mg_status status = mg_shard_open(row->path, &shard);
  if (status == MG_OK && shard->content_hash != row->identity)
    status = mg_fail(MG_ERR_INPUT, "the shard of %s in %s is another one than rank 0's: an older copy?",
                     row->id[0] != '\0' ? row->id : "the base", rows->dir);
  if (status == MG_OK) *data_offset = shard->data_offset;
  mg_shard_close(&shard);
  return status;
}

mg_status mg_rows_compare(mg_rows *rows, size_t k, int fd) {
  mg_shard_row *row = &rows->shards[k];
  mg_shard_seal seal;
  mg_status status = mg_shard_seal_of(fd, row->path, &seal);
  if (status == MG_OK && !mg_shard_seal_equal(&seal, &row->seal)) status = compare_contents(rows, row, &seal.data_offset);
  if (status != MG_OK) return rows->who != NULL ? mg_fail_context(status, "%s", rows->who) : status;
  atomic_store_explicit(&row->data_offset, seal.data_offset, memory_order_relaxed);
  return MG_OK;
}

static size_t index_of(const mg_rows *rows, ptrdiff_t source) { return source < 0 ? rows->sources : (size_t)source; }

mg_status mg_rows_look(mg_rows *rows, ptrdiff_t source) {
  const size_t k = index_of(rows, source);
  const int fd = open(rows->shards[k].path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const mg_status status = mg_fail_errno(MG_ERR_IO, "%s", rows->shards[k].path);
    return rows->who != NULL ? mg_fail_context(status, "%s", rows->who) : status;
  }
  const mg_status status = mg_rows_compare(rows, k, fd);
  close(fd);
  return status;
}

mg_status mg_rows_move(mg_rows *rows, const char *dir) {
  char *copy = mg_strdup(dir);
  if (copy == NULL) return MG_ERR_NOMEM;
  free(rows->dir);
  rows->dir = copy;
  for (size_t k = 0; k <= rows->sources; k++) {
    mg_shard_row *row = &rows->shards[k];
    char *path = path_in(dir, row);
    if (path == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    free(row->path);
    row->path = path;
    atomic_store_explicit(&row->data_offset, 0, memory_order_relaxed);
  }
  return MG_OK;
}

const mg_shard_seal *mg_rows_seal(const mg_rows *rows, ptrdiff_t source) { return &rows->shards[index_of(rows, source)].seal; }
const char *mg_rows_shard_path(const mg_rows *rows, ptrdiff_t source) { return rows->shards[index_of(rows, source)].path; }
