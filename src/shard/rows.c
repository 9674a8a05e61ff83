/* Tile rows of all sources: from shards, or from the checkpoints with the base taken off on the way. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "rows_impl.h"

static const size_t AHEAD_IN_ALL = (size_t)64 << 20, AHEAD_LEAST = (size_t)256 << 10, AHEAD_MOST = (size_t)4 << 20;

mg_rows *mg_rows_create(size_t sources, size_t file_bound) {
  mg_rows *rows = mg_alloc_zero(1, sizeof *rows);
  if (rows == NULL) return NULL;
  rows->sources = sources;
  rows->ahead = AHEAD_IN_ALL / (sources + 1);
  if (rows->ahead < AHEAD_LEAST) rows->ahead = AHEAD_LEAST;
  if (rows->ahead > AHEAD_MOST) rows->ahead = AHEAD_MOST;
  if (mg_file_cache_create(file_bound, &rows->cache) != MG_OK) mg_rows_close(&rows);
  return rows;
}

void mg_rows_close(mg_rows **rows) {
  mg_rows *r = *rows;
  if (r == NULL) return;
  mg_file_cache_destroy(&r->cache);
  mg_tensor_table_free(&r->own_table);
  for (size_t k = 0; r->shards != NULL && k <= r->sources; k++) {
    free(r->shards[k].path);
    free(r->shards[k].id);
    free(r->shards[k].inverse_scale);
  }
  free(r->shards), free(r->first_block), free(r->first_key), free(r->identity);
  free(r->dir), free(r->who);
  free(r);
  *rows = NULL;
}

/* ---- shards ---- */

static void keep_shard(mg_rows *rows, size_t k, mg_shard *shard) {
  mg_shard_row *row = &rows->shards[k];
  row->path = shard->path;
  row->id = shard->id;
  shard->path = shard->id = NULL;
  row->seal = shard->seal;
  atomic_init(&row->data_offset, shard->data_offset);
  row->identity = shard->content_hash;
  if (shard->dtype != MG_F16) return;
  row->inverse_scale = shard->scale;
  shard->scale = NULL;
  for (size_t b = 0; b < shard->block_count; b++) row->inverse_scale[b] = 1 / row->inverse_scale[b];
}

/* A source's shard against the base's. */
static void compare_shards(const mg_shard *base, const mg_shard *shard, const char *id, mg_dtype dtype, mg_text *lines) {
  if (shard->is_base || strcmp(shard->id, id) != 0)
    mg_text_append(lines, "\n  %s: is the shard of '%s', not of '%s'", shard->path, shard->id, id);
  else if (mg_tensor_table_hash(&shard->table) != mg_tensor_table_hash(&base->table))
    mg_text_append(lines, "\n  %s: has other tensors than %s", shard->path, base->path);
  else if (shard->base_hash != base->checkpoint_hash)
    mg_text_append(lines, "\n  %s: was packed against another base than %s", shard->path, base->path);
  else if (shard->dtype != dtype)
    mg_text_append(lines, "\n  %s: holds %s, other shards hold %s", shard->path, mg_dtype_name(shard->dtype),
                   mg_dtype_name(dtype));
}

static mg_status open_sources(mg_rows *rows, const char *dir, const mg_source_list *list, const mg_shard *base) {
  mg_status status = MG_OK;
  mg_text lines = {0};
  for (size_t k = 0; k < list->count && status == MG_OK; k++) {
    mg_shard *shard = NULL;
    char *path = mg_shard_path(dir, list->items[k].id);
    status = path != NULL ? mg_shard_open(path, &shard) : MG_ERR_NOMEM;
    free(path);
    if (status != MG_OK) break;
    if (k == 0) rows->dtype = shard->dtype;
    compare_shards(base, shard, list->items[k].id, rows->dtype, &lines);
    keep_shard(rows, k, shard);
    mg_shard_close(&shard);
  }
  if (status == MG_OK && lines.size > 0) status = mg_fail(MG_ERR_CORRUPT, "shards that do not fit together:%s", lines.data);
  mg_text_free(&lines);
  return status;
}

mg_status mg_rows_index(mg_rows *rows) {
  rows->first_block = mg_alloc(rows->table->count + 1, sizeof *rows->first_block);
  if (rows->first_block == NULL) return MG_ERR_NOMEM;
  mg_count_blocks(rows->table, rows->first_block);
  return MG_OK;
}

mg_status mg_rows_open_shards(const char *dir, const mg_source_list *list, size_t file_bound, mg_rows **out) {
  mg_status status = MG_OK;
  mg_shard *base = NULL;
  char *path = mg_shard_base_path(dir);
  mg_rows *rows = mg_rows_create(list->count, file_bound);
  if (rows == NULL || path == NULL || (rows->dir = mg_strdup(dir)) == NULL ||
      (rows->shards = mg_alloc_zero(list->count + 1, sizeof *rows->shards)) == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_shard_open(path, &base), cleanup);
  if (!base->is_base) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: is not the shard of a base", path);
    goto cleanup;
  }
  MG_TRY(mg_tensor_table_copy(&base->table, &rows->own_table), cleanup);
  rows->table = &rows->own_table;
  MG_TRY(mg_rows_index(rows), cleanup);
  MG_TRY(open_sources(rows, dir, list, base), cleanup);
  base->id[0] = '\0'; /* which no source has */
  keep_shard(rows, list->count, base);
  rows->bytes_per_element = (double)mg_dtype_size(rows->dtype);
  *out = rows;
  rows = NULL;
cleanup:
  free(path);
  mg_shard_close(&base);
  mg_rows_close(&rows);
  return status;
}

static mg_status read_shard_row(mg_rows *rows, size_t k, size_t tensor, int64_t first, int64_t count, size_t size, void *to) {
  mg_shard_row *row = &rows->shards[k];
  mg_file_slot *slot;
  int fd;
  mg_status status = mg_file_acquire(rows->cache, k, row->path, &fd, &slot);
  if (status != MG_OK) return status;
  const uint64_t element = (uint64_t)(rows->table->tensors[tensor].offset + first);
  if (atomic_load_explicit(&row->data_offset, memory_order_relaxed) == 0) MG_TRY(mg_rows_compare(rows, k, fd), release);
  const uint64_t begin = atomic_load_explicit(&row->data_offset, memory_order_relaxed);
  MG_TRY(mg_read_streaming(fd, row->path, to, (size_t)count * size, begin + element * size, rows->ahead), release);
release:
  mg_file_release(rows->cache, slot);
  return status;
}

/* ---- checkpoints ---- */

static const mg_member *member_of(const mg_rows *rows, size_t k) {
  return k == rows->sources ? &rows->family->base : &rows->family->sources[k];
}

/* What stands in for a content hash: headers and stamps. A touched file is another file then; only shards know better. */
static uint64_t member_identity(const mg_rows *rows, size_t k) {
  const mg_member *member = member_of(rows, k);
  uint64_t hash = mg_tensor_table_hash(rows->table);
  for (size_t s = 0; s < member->files.count; s++) {
    const mg_file_stamp *stamp = &member->stamps[s];
    const uint64_t words[3] = {stamp->size, (uint64_t)stamp->mtime_ns, stamp->inode};
    hash = mg_hash_more(hash, words, sizeof words);
  }
  for (size_t t = 0; t < rows->table->count; t++) {
    const uint64_t words[2] = {member->locations[t].offset, member->locations[t].dtype};
    hash = mg_hash_more(hash, words, sizeof words);
  }
  return hash;
}

mg_status mg_rows_open_checkpoints(const mg_family *family, size_t file_bound, mg_rows **out) {
  mg_status status = MG_OK;
  double bytes = 0;
  mg_rows *rows = mg_rows_create(family->source_count, file_bound);
  if (rows == NULL) return MG_ERR_NOMEM;
  rows->family = family;
  rows->table = &family->table;
  rows->dtype = MG_F32;
  rows->first_key = mg_alloc_zero(rows->sources + 1, sizeof *rows->first_key);
  rows->identity = mg_alloc_zero(rows->sources + 1, sizeof *rows->identity);
  if (rows->first_key == NULL || rows->identity == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_rows_index(rows), cleanup);
  uint64_t key = 0;
  for (size_t k = 0; k <= rows->sources; k++) {
    rows->first_key[k] = key;
    key += member_of(rows, k)->files.count;
    rows->identity[k] = member_identity(rows, k);
  }
  for (size_t t = 0; t < rows->table->count; t++)
    bytes += (double)rows->table->tensors[t].numel * (double)mg_dtype_size(mg_location_dtype(&family->sources[0], t));
  rows->bytes_per_element = rows->table->elements > 0 ? bytes / (double)rows->table->elements : 0;
  *out = rows;
  rows = NULL;
cleanup:
  mg_rows_close(&rows);
  return status;
}

static mg_status read_raw(mg_rows *rows, size_t k, size_t tensor, int64_t first, int64_t count, void *to) {
  const mg_member *member = member_of(rows, k);
  const mg_location *at = &member->locations[tensor];
  const char *path = member->files.items[at->file];
  const size_t size = mg_dtype_size((mg_dtype)at->dtype);
  mg_file_slot *slot;
  int fd;
  mg_status status = mg_file_acquire(rows->cache, rows->first_key[k] + at->file, path, &fd, &slot);
  if (status != MG_OK) return status;
  status = mg_read_streaming(fd, path, to, (size_t)count * size, at->offset + (uint64_t)first * size, rows->ahead);
  mg_file_release(rows->cache, slot);
  return status;
}

static mg_status read_checkpoint_rows(mg_rows *rows, const int *sources, int n, size_t tensor, int64_t first, int64_t count,
                                      char *buffer, size_t stride, float *scale, float *base, char *staging) {
  mg_status status = MG_OK;
  const mg_dtype base_dtype = mg_location_dtype(&rows->family->base, tensor);
  char *raw = staging, *base_raw = raw + MG_TILE * sizeof(double);
  if (base == NULL) base = (float *)(void *)(base_raw + MG_TILE * sizeof(double));
  const void *subtrahend = NULL;
  mg_dtype subtrahend_dtype = MG_F32;
  if (base_dtype == MG_DTYPE_COUNT) {
    memset(base, 0, (size_t)count * sizeof *base);
  } else {
    MG_TRY(read_raw(rows, rows->sources, tensor, first, count, base_raw), done);
    mg_to_f32(base, base_raw, base_dtype, (size_t)count, 1);
    subtrahend = base_dtype == MG_F64 ? (const void *)base_raw : base; /* as packing does */
    subtrahend_dtype = base_dtype == MG_F64 ? MG_F64 : MG_F32;
  }
  for (int k = 0; k < n; k++) {
    const size_t source = (size_t)sources[k];
    MG_TRY(read_raw(rows, source, tensor, first, count, raw), done);
    mg_subtract_to_f32((float *)(void *)(buffer + (size_t)k * stride), raw, mg_location_dtype(member_of(rows, source), tensor),
                       subtrahend, subtrahend_dtype, (size_t)count);
    scale[k] = 1;
  }
done:
  return status;
}

/* ---- both ---- */

const mg_tensor_table *mg_rows_table(const mg_rows *rows) { return rows->table; }
size_t mg_rows_sources(const mg_rows *rows) { return rows->sources; }
mg_dtype mg_rows_dtype(const mg_rows *rows) { return rows->dtype; }
double mg_rows_bytes_per_element(const mg_rows *rows) { return rows->bytes_per_element; }
size_t mg_rows_staging_bytes(void) { return MG_TILE * (2 * sizeof(double) + sizeof(float)); }

uint64_t mg_rows_identity(const mg_rows *rows, ptrdiff_t source) {
  const size_t k = source < 0 ? rows->sources : (size_t)source;
  return rows->shards != NULL ? rows->shards[k].identity : rows->identity[k];
}

mg_status mg_rows_read(mg_rows *rows, const int *sources, int n, size_t tensor, int64_t first, int64_t count, void *buffer,
                       size_t stride, float *scale, float *base, void *staging) {
  mg_status status = MG_OK;
  if (rows->shards == NULL)
    return read_checkpoint_rows(rows, sources, n, tensor, first, count, buffer, stride, scale, base, staging);
  const size_t size = mg_dtype_size(rows->dtype), block = rows->first_block[tensor] + (size_t)(first / MG_LEAF);
  if (base != NULL && rows->table->tensors[tensor].source_only)
    memset(base, 0, (size_t)count * sizeof *base);
  else if (base != NULL)
    MG_TRY(read_shard_row(rows, rows->sources, tensor, first, count, sizeof(float), base), done);
  for (int k = 0; k < n; k++) {
    const size_t source = (size_t)sources[k];
    MG_TRY(read_shard_row(rows, source, tensor, first, count, size, (char *)buffer + (size_t)k * stride), done);
    scale[k] = rows->shards[source].inverse_scale != NULL ? rows->shards[source].inverse_scale[block] : 1;
  }
done:
  return status;
}

mg_status mg_rows_check_finite(mg_rows *rows, int source, size_t tensor, int64_t first, int64_t count) {
  mg_status status = MG_OK;
  float scale = 1;
  const size_t stride = MG_TILE * sizeof(float);
  char *buffer = mg_alloc_aligned(stride), *staging = mg_alloc_aligned(mg_rows_staging_bytes());
  float *base = mg_alloc_aligned(stride), *values = mg_alloc_aligned(stride);
  if (!buffer || !staging || !base || !values) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (int64_t at = first; at < first + count; at += MG_TILE) {
    const int64_t piece = first + count - at < MG_TILE ? first + count - at : MG_TILE;
    MG_TRY(mg_rows_read(rows, &source, source == MG_ROW_BASE ? 0 : 1, tensor, at, piece, buffer, stride, &scale, base, staging),
           cleanup);
    mg_to_f32(values, buffer, rows->dtype, (size_t)piece, scale);
    const int64_t bad = mg_first_nonfinite(source == MG_ROW_BASE ? base : values, piece);
    if (bad < 0) continue;
    const size_t k = source == MG_ROW_BASE ? rows->sources : (size_t)source;
    const char *file = rows->shards != NULL ? rows->shards[k].path : member_of(rows, k)->dir;
    status =
        mg_fail(MG_ERR_INPUT, "%s: tensor %s: element %lld is not finite in fp32 (family.allow_nonfinite: true lets it pass)",
                file, rows->table->tensors[tensor].name, (long long)(at + bad));
    goto cleanup;
  }
cleanup:
  free(buffer), free(staging), free(base), free(values);
  return status;
}
