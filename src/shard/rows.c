/* The rows of all sources: of shards, or of the checkpoints themselves. */

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
  mg_mappings_destroy(&r->mappings);
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

static mg_status keep_brief(mg_rows *rows, size_t k, const char *path, const char *id, const mg_shard_brief *brief) {
  mg_shard_row *row = &rows->shards[k];
  row->path = mg_strdup(path);
  row->id = mg_strdup(id);
  row->seal = brief->seal;
  row->identity = brief->content_hash;
  atomic_init(&row->data_offset, brief->seal.data_offset);
  return row->path != NULL && row->id != NULL ? MG_OK : MG_ERR_NOMEM;
}

static void keep_scales(mg_rows *rows, size_t k, mg_shard *shard) {
  mg_shard_row *row = &rows->shards[k];
  row->inverse_scale = shard->scale;
  shard->scale = NULL;
  for (size_t b = 0; b < shard->block_count; b++) row->inverse_scale[b] = 1 / row->inverse_scale[b];
}

/* A source's shard against the base's. */
static void compare_shards(const char *base_path, const mg_shard_brief *base, const char *path, const mg_shard_brief *shard,
                           const char *id, mg_dtype dtype, mg_text *lines) {
  if (shard->is_base || shard->id_hash != mg_hash(id, strlen(id)))
    mg_text_append(lines, "\n  %s: is not the shard of '%s'", path, id);
  else if (shard->table_hash != base->table_hash)
    mg_text_append(lines, "\n  %s: has other tensors than %s", path, base_path);
  else if (shard->base_hash != base->checkpoint_hash)
    mg_text_append(lines, "\n  %s: was packed against another base than %s", path, base_path);
  else if (shard->dtype != dtype)
    mg_text_append(lines, "\n  %s: holds %s, other shards hold %s", path, mg_dtype_name(shard->dtype), mg_dtype_name(dtype));
}

/* What shard k holds: of its note, where that vouches for all that is wanted; scales take the HDF5 library. */
static mg_status open_source(mg_rows *rows, size_t k, const char *path, const char *id, mg_shard_brief *brief) {
  mg_status status = MG_OK;
  mg_shard *shard = NULL;
  mg_seen seen = {0};
  mg_seen_read(path, &seen);
  if (mg_seen_vouches(path, &seen) && seen.brief.dtype != MG_F16) {
    *brief = seen.brief;
  } else {
    MG_TRY(mg_shard_open(path, &shard), cleanup);
    *brief = mg_shard_brief_of(shard);
  }
  MG_TRY(keep_brief(rows, k, path, id, brief), cleanup);
  if (brief->dtype == MG_F16) keep_scales(rows, k, shard);
cleanup:
  mg_shard_close(&shard);
  mg_seen_free(&seen);
  return status;
}

static mg_status open_sources(mg_rows *rows, const char *dir, const mg_source_list *list, const mg_shard *base) {
  mg_status status = MG_OK;
  mg_text lines = {0};
  const mg_shard_brief base_brief = mg_shard_brief_of(base);
  for (size_t k = 0; k < list->count && status == MG_OK; k++) {
    mg_shard_brief brief = {0};
    const char *id = list->items[k].id;
    char *path = mg_shard_path(dir, id);
    status = path != NULL ? open_source(rows, k, path, id, &brief) : MG_ERR_NOMEM;
    if (status == MG_OK && k == 0) rows->dtype = brief.dtype;
    if (status == MG_OK) compare_shards(base->path, &base_brief, path, &brief, id, rows->dtype, &lines);
    free(path);
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
  const mg_shard_brief brief = mg_shard_brief_of(base);
  MG_TRY(keep_brief(rows, list->count, path, "", &brief), cleanup); /* an id that no source has */
  rows->bytes_per_element = (double)mg_dtype_size(rows->dtype);
  *out = rows;
  rows = NULL;
cleanup:
  free(path);
  mg_shard_close(&base);
  mg_rows_close(&rows);
  return status;
}

/* ---- checkpoints ---- */

const mg_member *mg_rows_member(const mg_rows *rows, size_t k) {
  return k == rows->sources ? &rows->family->base : &rows->family->sources[k];
}

/* What stands in for a content hash: headers and stamps. A touched file is another file then; only shards know better. */
static uint64_t member_identity(const mg_rows *rows, size_t k) {
  const mg_member *member = mg_rows_member(rows, k);
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
    key += mg_rows_member(rows, k)->files.count;
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

/* ---- both ---- */

const mg_tensor_table *mg_rows_table(const mg_rows *rows) { return rows->table; }
size_t mg_rows_sources(const mg_rows *rows) { return rows->sources; }
mg_dtype mg_rows_dtype(const mg_rows *rows) { return rows->dtype; }
double mg_rows_bytes_per_element(const mg_rows *rows) { return rows->bytes_per_element; }

uint64_t mg_rows_identity(const mg_rows *rows, ptrdiff_t source) {
  const size_t k = source < 0 ? rows->sources : (size_t)source;
  return rows->shards != NULL ? rows->shards[k].identity : rows->identity[k];
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
    const char *file = rows->shards != NULL ? rows->shards[k].path : mg_rows_member(rows, k)->dir;
    status =
        mg_fail(MG_ERR_INPUT, "%s: tensor %s: element %lld is not finite in fp32 (family.allow_nonfinite: true lets it pass)",
                file, rows->table->tensors[tensor].name, (long long)(at + bad));
    goto cleanup;
  }
cleanup:
  free(buffer), free(staging), free(base), free(values);
  return status;
}
