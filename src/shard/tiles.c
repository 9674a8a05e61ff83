/*
 * Tiles of rows: from shards, or from the checkpoints with the base taken off on the way; read, or seen where the page cache
 * has them.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "rows_impl.h"

/* Elements of a tensor, within a leaf. In what follows `row` says where a tile's rows are, the base's behind the sources';
   NULL: nobody asks, they are read. */
typedef struct piece {
  size_t tensor;
  int64_t first, count;
} piece;

/* Bytes of one of the files that the cache opens. unit: that elements take. */
typedef struct extent {
  uint64_t file;
  const char *path;
  uint64_t offset;
  size_t size, unit;
} extent;

/* ---- sights ---- */

/* A thread's windows together, as far as each is worth the two calls that it costs. */
enum { SEEN_IN_ALL = 32 << 20, SEEN_LEAST = 64 << 10, SEEN_MOST = 1 << 20, PAGE = 4096 };

/* What of a row's file has been announced to the kernel; 0: nothing, it is in the page cache as far as has been seen. */
typedef struct announced {
  uint64_t file, until;
} announced;

struct mg_rows_sight {
  mg_mappings *mappings;
  size_t rows, extent;
  mg_window *window;    /* [rows] */
  announced *announced; /* [rows] */
};

static size_t window_extent(size_t rows) {
  const size_t each = SEEN_IN_ALL / (rows > 0 ? rows : 1) / PAGE * PAGE;
  if (each < SEEN_LEAST) return SEEN_LEAST;
  return each < SEEN_MOST ? each : SEEN_MOST;
}

static size_t count_files(const mg_rows *rows) {
  if (rows->shards != NULL) return rows->sources + 1;
  return (size_t)rows->first_key[rows->sources] + mg_rows_member(rows, rows->sources)->files.count;
}

mg_status mg_rows_sight_open(mg_rows *rows, size_t most_rows, mg_rows_sight **out) {
  if (rows->mappings == NULL) {
    const mg_status status = mg_mappings_create(count_files(rows), MG_MOST_TABLES, &rows->mappings);
    if (status != MG_OK) return status;
  }
  mg_rows_sight *sight = mg_alloc_zero(1, sizeof *sight);
  mg_window *window = mg_alloc_zero(most_rows, sizeof *window);
  announced *ahead = mg_alloc_zero(most_rows, sizeof *ahead);
  if (sight == NULL || window == NULL || ahead == NULL) {
    free(sight), free(window), free(ahead);
    return MG_ERR_NOMEM;
  }
  *sight = (mg_rows_sight){rows->mappings, most_rows, window_extent(most_rows), window, ahead};
  *out = sight;
  return MG_OK;
}

void mg_rows_sight_close(mg_rows_sight **sight) {
  mg_rows_sight *s = *sight;
  if (s == NULL) return;
  for (size_t k = 0; k < s->rows; k++) mg_window_close(&s->window[k]);
  free(s->window);
  free(s->announced);
  free(s);
  *sight = NULL;
}

mg_status mg_rows_sight_check(const mg_rows_sight *sight) { return mg_mappings_check(sight->mappings); }

/* ---- bytes ---- */

/*
 * A file that the device had to be asked for before is asked for further on, before anybody waits for it: else the device would
 * serve one row at a time, each while we wait for it.
 */
static void keep_ahead(announced *a, const extent *from, int fd, size_t seen, size_t ahead) {
  const uint64_t end = from->offset + (from->size > seen ? from->size : seen);
  if (a->file != from->file || a->until < from->offset || a->until >= end + ahead) return;
  posix_fadvise(fd, (off_t)a->until, (off_t)(end + ahead - a->until), POSIX_FADV_WILLNEED);
  a->until = end + ahead;
}

/* In window k of the sight (NULL: of none), or read to `to`; *at says where. */
static mg_status fetch(mg_rows *rows, mg_rows_sight *sight, size_t k, const extent *from, void *to, const void **at) {
  mg_status status = MG_OK;
  mg_file_slot *slot;
  int fd;
  /* Files are mapped from their first byte, so an element lies in memory as it does in its file. */
  if (from->offset % from->unit != 0) sight = NULL;
  if (sight != NULL && (*at = mg_window_at(&sight->window[k], from->file, from->offset, from->size)) != NULL) return MG_OK;
  MG_TRY(mg_file_acquire(rows->cache, from->file, from->path, &fd, &slot), failed);
  *at = NULL;
  if (sight != NULL) {
    keep_ahead(&sight->announced[k], from, fd, sight->extent, rows->ahead);
    *at =
        mg_window_show(sight->mappings, &sight->window[k], from->file, fd, from->path, from->offset, from->size, sight->extent);
  }
  if (*at == NULL) {
    uint64_t until = 0;
    status = mg_read_streaming(fd, from->path, to, from->size, from->offset, rows->ahead, &until);
    if (sight != NULL && until != 0) sight->announced[k] = (announced){from->file, until};
    *at = to;
  }
  mg_file_release(rows->cache, slot);
failed:
  return status;
}

/* ---- shards ---- */

/* Where the values of a shard begin in its file, which is compared with what was described when it is first opened. */
static mg_status values_begin(mg_rows *rows, size_t source, uint64_t *begin) {
  mg_shard_row *row = &rows->shards[source];
  mg_file_slot *slot;
  int fd;
  *begin = atomic_load_explicit(&row->data_offset, memory_order_relaxed);
  if (*begin != 0) return MG_OK;
  mg_status status = mg_file_acquire(rows->cache, source, row->path, &fd, &slot);
  if (status != MG_OK) return status;
  status = mg_rows_compare(rows, source, fd);
  mg_file_release(rows->cache, slot);
  *begin = atomic_load_explicit(&row->data_offset, memory_order_relaxed);
  return status;
}

/* Row k of the tile. */
static mg_status fetch_shard(mg_rows *rows, mg_rows_sight *sight, size_t k, size_t source, const piece *p, void *to,
                             const void **at) {
  mg_status status = MG_OK;
  const size_t unit = source == rows->sources ? sizeof(float) : mg_dtype_size(rows->dtype);
  extent from = {.file = source, .path = rows->shards[source].path, .size = (size_t)p->count * unit, .unit = unit};
  MG_TRY(values_begin(rows, source, &from.offset), done);
  from.offset += (uint64_t)(rows->table->tensors[p->tensor].offset + p->first) * unit;
  MG_TRY(fetch(rows, sight, k, &from, to, at), done);
done:
  return status;
}

/* NULL: nobody asks where the row is. */
static void put_row(const mg_rows_tile *tile, size_t k, const void *at, mg_dtype dtype, const float *minus) {
  if (tile->row == NULL) return;
  tile->row[k] = at;
  tile->dtype[k] = dtype;
  tile->minus[k] = minus;
}

static mg_status tile_of_shards(mg_rows *rows, const mg_rows_room *room, const int *sources, size_t n, const piece *p,
                                const mg_rows_tile *tile) {
  mg_status status = MG_OK;
  const void *at = NULL;
  const size_t block = rows->first_block[p->tensor] + (size_t)(p->first / MG_LEAF);
  if (room->base != NULL && rows->table->tensors[p->tensor].source_only)
    at = memset(room->base, 0, (size_t)p->count * sizeof(float));
  else if (room->base != NULL)
    MG_TRY(fetch_shard(rows, room->sight, n, rows->sources, p, room->base, &at), done);
  put_row(tile, n, at, MG_F32, NULL);
  for (size_t k = 0; k < n; k++) {
    const size_t source = (size_t)sources[k];
    MG_TRY(fetch_shard(rows, room->sight, k, source, p, (char *)room->buffer + k * room->stride, &at), done);
    put_row(tile, k, at, rows->dtype, NULL);
    tile->scale[k] = rows->shards[source].inverse_scale != NULL ? rows->shards[source].inverse_scale[block] : 1;
  }
done:
  return status;
}

/* ---- checkpoints ---- */

static mg_status fetch_raw(mg_rows *rows, mg_rows_sight *sight, size_t k, size_t source, const piece *p, void *to,
                           const void **at) {
  const mg_member *member = mg_rows_member(rows, source);
  const mg_location *location = &member->locations[p->tensor];
  const size_t unit = mg_dtype_size((mg_dtype)location->dtype);
  const extent from = {.file = rows->first_key[source] + location->file,
                       .path = member->files.items[location->file],
                       .offset = location->offset + (uint64_t)p->first * unit,
                       .size = (size_t)p->count * unit,
                       .unit = unit};
  return fetch(rows, sight, k, &from, to, at);
}

/* θ0: its floats, and as packing takes it off the sources. */
typedef struct base_row {
  const float *floats;
  const void *raw; /* NULL: the base has no such tensor */
  mg_dtype dtype;
} base_row;

static mg_status base_of_checkpoint(mg_rows *rows, const mg_rows_room *room, size_t k, const piece *p, base_row *base) {
  mg_status status = MG_OK;
  const mg_dtype dtype = mg_location_dtype(&rows->family->base, p->tensor);
  const void *raw;
  float *to = room->base;
  if (to == NULL) to = (float *)(void *)((char *)room->staging + 2 * MG_TILE * sizeof(double));
  *base = (base_row){.floats = to, .dtype = MG_F32};
  if (dtype == MG_DTYPE_COUNT) {
    memset(to, 0, (size_t)p->count * sizeof *to);
    return MG_OK;
  }
  MG_TRY(fetch_raw(rows, room->sight, k, rows->sources, p, (char *)room->staging + MG_TILE * sizeof(double), &raw), done);
  if (dtype == MG_F32 && room->sight != NULL)
    base->floats = raw;
  else
    mg_to_f32(to, raw, dtype, (size_t)p->count, 1);
  base->raw = dtype == MG_F64 ? raw : base->floats;
  if (dtype == MG_F64) base->dtype = MG_F64;
done:
  return status;
}

/* Where rows are looked at, the base comes off when they are used: in fp32 both ways. */
static bool comes_off_later(const mg_rows_room *room, mg_dtype dtype, const base_row *base) {
  return room->sight != NULL && dtype != MG_F64 && base->dtype != MG_F64;
}

static mg_status row_of_checkpoint(mg_rows *rows, const mg_rows_room *room, size_t k, size_t source, const piece *p,
                                   const base_row *base, const mg_rows_tile *tile) {
  mg_status status = MG_OK;
  const void *raw;
  char *to = (char *)room->buffer + k * room->stride;
  const mg_dtype dtype = mg_location_dtype(mg_rows_member(rows, source), p->tensor);
  const bool later = comes_off_later(room, dtype, base);
  MG_TRY(fetch_raw(rows, room->sight, k, source, p, later ? to : room->staging, &raw), done);
  tile->scale[k] = 1;
  put_row(tile, k, later ? raw : to, later ? dtype : MG_F32, later ? base->raw : NULL);
  if (!later) mg_subtract_to_f32((float *)(void *)to, raw, dtype, base->raw, base->dtype, (size_t)p->count);
done:
  return status;
}

static mg_status tile_of_checkpoints(mg_rows *rows, const mg_rows_room *room, const int *sources, size_t n, const piece *p,
                                     const mg_rows_tile *tile) {
  mg_status status = MG_OK;
  base_row base;
  MG_TRY(base_of_checkpoint(rows, room, n, p, &base), done);
  put_row(tile, n, base.floats, MG_F32, NULL);
  for (size_t k = 0; k < n; k++) MG_TRY(row_of_checkpoint(rows, room, k, (size_t)sources[k], p, &base, tile), done);
done:
  return status;
}

/* ---- both ---- */

size_t mg_rows_staging_bytes(void) { return MG_TILE * (2 * sizeof(double) + sizeof(float)); }

mg_status mg_rows_show(mg_rows *rows, const mg_rows_room *room, const int *sources, int n, size_t tensor, int64_t first,
                       int64_t count, const mg_rows_tile *tile) {
  const piece p = {tensor, first, count};
  if (tile->row != NULL) tile->scale[n] = 1;
  return rows->shards != NULL ? tile_of_shards(rows, room, sources, (size_t)n, &p, tile)
                              : tile_of_checkpoints(rows, room, sources, (size_t)n, &p, tile);
}

mg_status mg_rows_read(mg_rows *rows, const int *sources, int n, size_t tensor, int64_t first, int64_t count, void *buffer,
                       size_t stride, float *scale, float *base, void *staging) {
  const mg_rows_room room = {.buffer = buffer, .stride = stride, .base = base, .staging = staging};
  return mg_rows_show(rows, &room, sources, n, tensor, first, count, &(mg_rows_tile){.scale = scale});
}
