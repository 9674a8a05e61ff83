/* One shard from one checkpoint: read, subtract, round, checksum, write, rename. */

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "shard_impl.h"

/* What packing works in: a block of raw source and base values, and of differences. */
typedef struct packer {
  const mg_pack_job *job;
  const mg_member *member; /* the checkpoint packed */
  const mg_tensor_table *table;
  mg_reader *source, *base; /* base: NULL when the base itself is packed */
  char *raw, *base_raw;
  const void *seen; /* a block's raw values: there, or in the page cache */
  mg_spool spool;
  float *values; /* a block's differences: in the spool where that is how they are stored */
  float *room, *back;
  mg_shard shard; /* being made */
  double *tensor_error;
  double error2, norm2;
  int64_t since_poll;
} packer;

/* ---- names ---- */

static char *named_path(const char *dir, const char *name) {
  mg_text text = {0};
  for (const char *c = name; *c != '\0'; c++) {
    const bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '-' ||
                       ((*c == '.' || *c == '_') && c > name);
    mg_text_append(&text, plain ? "%c" : "%%%02X", (unsigned char)*c);
  }
  mg_text_append(&text, ".h5");
  char *path = text.failed ? NULL : mg_path_join(dir, text.data);
  mg_text_free(&text);
  return path;
}

char *mg_shard_path(const char *dir, const char *id) { return named_path(dir, id); }

char *mg_shard_base_path(const char *dir) { return mg_path_join(dir, "_base.h5"); }

/* ---- the values of a block ---- */

static mg_status report_nonfinite(const packer *p, size_t tensor, int64_t element, int64_t k) {
  const mg_member *base = &p->job->family->base;
  const mg_tensor *t = &p->table->tensors[tensor];
  float one;
  mg_to_f32(&one, (const char *)p->seen + (size_t)k * mg_dtype_size(mg_location_dtype(p->member, tensor)),
            mg_location_dtype(p->member, tensor), 1, 1);
  const bool in_source = !isfinite(one);
  const mg_member *member = in_source || p->base == NULL ? p->member : base;
  const char *file =
      member->locations[tensor].dtype != MG_DTYPE_COUNT ? member->files.items[member->locations[tensor].file] : member->dir;
  return mg_fail(MG_ERR_INPUT, "%s: tensor %s: element %lld is not finite in fp32 (family.allow_nonfinite: true lets it pass)",
                 file, t->name, (long long)element);
}

/* Differences of raw values to p->values; *bad: the first that is not finite, or −1. Piece by piece, while the cache has them.
 */
static void subtract(const packer *p, mg_dtype dtype, const char *base, mg_dtype base_dtype, int64_t count, int64_t *bad) {
  enum { PIECE = 4096 };
  const size_t size = mg_dtype_size(dtype), base_size = base != NULL ? mg_dtype_size(base_dtype) : 0;
  *bad = -1;
  for (int64_t first = 0; first < count; first += PIECE) {
    const int64_t n = count - first < PIECE ? count - first : PIECE;
    mg_subtract_to_f32(p->values + first, (const char *)p->seen + (size_t)first * size, dtype,
                       base != NULL ? base + (size_t)first * base_size : NULL, base_dtype, (size_t)n);
    const int64_t at = *bad >= 0 || p->job->allow_nonfinite ? -1 : mg_first_nonfinite(p->values + first, n);
    if (at >= 0) *bad = first + at;
  }
}

/* Differences of one block to p->values; feeds the hash with the raw bytes. */
static mg_status read_block(packer *p, size_t tensor, int64_t first, int64_t count, uint64_t *hash) {
  mg_status status = MG_OK;
  const mg_dtype dtype = mg_location_dtype(p->member, tensor);
  if (dtype == MG_DTYPE_COUNT) { /* the base's place for a tensor that only the sources have */
    memset(p->values, 0, (size_t)count * sizeof(float));
    return MG_OK;
  }
  MG_TRY(mg_reader_show(p->source, tensor, first, count, p->raw, &p->seen), done);
  *hash = mg_hash_more(*hash, p->seen, (size_t)count * mg_dtype_size(dtype));
  const mg_dtype base_dtype = p->base != NULL ? mg_location_dtype(&p->job->family->base, tensor) : MG_DTYPE_COUNT;
  const void *base = NULL;
  int64_t bad;
  if (base_dtype != MG_DTYPE_COUNT) MG_TRY(mg_reader_show(p->base, tensor, first, count, p->base_raw, &base), done);
  subtract(p, dtype, base, base_dtype, count, &bad);
  MG_TRY(mg_reader_check(p->source), done);
  if (p->base != NULL) MG_TRY(mg_reader_check(p->base), done);
  if (bad >= 0) status = report_nonfinite(p, tensor, first + bad, bad);
done:
  return status;
}

/* The power of two that brings the block's largest magnitude just below 2^15: F16 then loses no more than it must. */
static float choose_scale(const float *values, int64_t count) {
  float largest = 0;
  int exponent;
  for (int64_t k = 0; k < count; k++) {
    const float magnitude = fabsf(values[k]);
    if (magnitude > largest && isfinite(magnitude)) largest = magnitude;
  }
  if (largest == 0) return 1;
  frexpf(largest, &exponent);
  int shift = 15 - exponent;
  if (shift > 120) shift = 120;
  if (shift < -120) shift = -120;
  return ldexpf(1, shift);
}

/* Rounds the block to the spool as it is stored, and adds to the errors what that lost. */
static void round_block(packer *p, void *stored, int64_t count, float scale, double *error2, double *norm2) {
  mg_from_f32(stored, p->values, p->shard.dtype, (size_t)count, scale);
  mg_to_f32(p->back, stored, p->shard.dtype, (size_t)count, 1 / scale);
  for (int64_t k = 0; k < count; k++) {
    const double lost = (double)p->back[k] - (double)p->values[k];
    *error2 += lost * lost;
    *norm2 += (double)p->values[k] * (double)p->values[k];
  }
}

static mg_status poll(packer *p, int64_t count) {
  enum { EVERY = 1 << 20 };
  p->since_poll += count;
  if (p->since_poll < EVERY || p->job->poll == NULL) return MG_OK;
  const mg_status status = p->job->poll(p->job->context, p->since_poll);
  p->since_poll = 0;
  return status;
}

static double relative(double error2, double norm2) { return norm2 > 0 ? sqrt(error2 / norm2) : 0; }

static mg_status pack_tensor(packer *p, size_t tensor) {
  mg_status status = MG_OK;
  const mg_tensor *t = &p->table->tensors[tensor];
  const size_t size = mg_dtype_size(p->shard.dtype);
  double error2 = 0, norm2 = 0;
  if (p->member->locations[tensor].dtype != MG_DTYPE_COUNT)
    p->shard.checkpoint_hash = mg_hash_tensor_begin(p->shard.checkpoint_hash, t, mg_location_dtype(p->member, tensor));
  size_t block = p->shard.first_block[tensor];
  for (int64_t first = 0; first < t->numel; first += MG_LEAF, block++) {
    const int64_t count = t->numel - first < MG_LEAF ? t->numel - first : MG_LEAF;
    void *stored = mg_spool_room(&p->spool);
    p->values = p->shard.dtype == MG_F32 ? stored : p->room;
    MG_TRY(read_block(p, tensor, first, count, &p->shard.checkpoint_hash), done);
    const float scale = p->shard.dtype == MG_F16 ? choose_scale(p->values, count) : 1;
    if (p->shard.dtype != MG_F32) round_block(p, stored, count, scale, &error2, &norm2);
    p->shard.scale[block] = scale;
    p->shard.checksum[block] = mg_hash(stored, (size_t)count * size);
    MG_TRY(mg_spool_take(&p->spool, (size_t)count * size), done);
    MG_TRY(poll(p, count), done);
  }
  p->tensor_error[tensor] = relative(error2, norm2);
  p->error2 += error2;
  p->norm2 += norm2;
done:
  return status;
}

/* ---- the hash of a checkpoint that is not packed ---- */

static mg_status hash_checkpoint(packer *p, uint64_t *hash) {
  mg_status status = MG_OK;
  *hash = 0;
  for (size_t tensor = 0; tensor < p->table->count; tensor++) {
    const mg_dtype dtype = mg_location_dtype(p->member, tensor);
    if (dtype == MG_DTYPE_COUNT) continue;
    const mg_tensor *t = &p->table->tensors[tensor];
    *hash = mg_hash_tensor_begin(*hash, t, dtype);
    for (int64_t first = 0; first < t->numel; first += MG_LEAF) {
      const int64_t count = t->numel - first < MG_LEAF ? t->numel - first : MG_LEAF;
      MG_TRY(mg_reader_show(p->source, tensor, first, count, p->raw, &p->seen), done);
      *hash = mg_hash_more(*hash, p->seen, (size_t)count * mg_dtype_size(dtype));
      MG_TRY(mg_reader_check(p->source), done);
      MG_TRY(poll(p, count), done);
    }
  }
done:
  return status;
}

/* ---- setting up ---- */

static void packer_destroy(packer *p) {
  mg_reader_destroy(&p->source);
  mg_reader_destroy(&p->base);
  mg_spool_close(&p->spool);
  free(p->raw), free(p->base_raw), free(p->room), free(p->back), free(p->tensor_error);
  free(p->shard.checksum), free(p->shard.scale), free(p->shard.first_block);
}

static mg_status packer_create(const mg_pack_job *job, packer *p) {
  mg_status status = MG_OK;
  const mg_family *family = job->family;
  *p = (packer){
      .job = job, .member = job->source != NULL ? &family->sources[job->index] : &family->base, .table = &family->table};
  p->shard =
      (mg_shard){.id = job->source != NULL ? job->source->id : (char *)(uintptr_t) "base",
                 .locale = job->source != NULL ? job->source->locale : (char *)(uintptr_t) "",
                 .source_path = p->member->dir,
                 .is_base = job->source == NULL,
                 .dtype = job->source != NULL ? job->dtype : MG_F32,
                 .table = family->table,
                 .stamps = p->member->stamps, /* older than what is read: a file that changes meanwhile is packed again */
                 .file_count = p->member->files.count,
                 .labels = job->source != NULL ? p->member->labels : family->labels,
                 .base_hash = job->base_hash};
  p->raw = mg_alloc_aligned(MG_LEAF * sizeof(double));
  p->base_raw = mg_alloc_aligned(MG_LEAF * sizeof(double));
  p->room = mg_alloc_aligned(MG_LEAF * sizeof(float));
  p->back = mg_alloc_aligned(MG_LEAF * sizeof(float));
  p->tensor_error = mg_alloc_zero(p->table->count, sizeof *p->tensor_error);
  p->shard.first_block = mg_alloc(p->table->count + 1, sizeof *p->shard.first_block);
  if (!p->raw || !p->base_raw || !p->room || !p->back || !p->tensor_error || !p->shard.first_block) return MG_ERR_NOMEM;
  mg_count_blocks(p->table, p->shard.first_block);
  p->shard.block_count = p->shard.first_block[p->table->count];
  p->shard.checksum = mg_alloc_zero(p->shard.block_count, sizeof *p->shard.checksum);
  p->shard.scale = mg_alloc_zero(p->shard.block_count, sizeof *p->shard.scale);
  if (!p->shard.checksum || !p->shard.scale) return MG_ERR_NOMEM;
  MG_TRY(mg_reader_create(p->member, &p->source), done);
  if (job->source != NULL) MG_TRY(mg_reader_create(&family->base, &p->base), done);
done:
  return status;
}

/* ---- writing ---- */

static mg_status write_values(packer *p, const char *temporary) {
  mg_status status = MG_OK;
  mg_shard_file *file = NULL;
  uint64_t data_offset = 0;
  int fd = -1;
  MG_TRY(mg_shard_file_create(temporary, &p->shard, &p->member->files, &file, &data_offset), cleanup);
  fd = open(temporary, O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", temporary);
    goto cleanup;
  }
  MG_TRY(mg_spool_open(&p->spool, fd, temporary, data_offset, MG_LEAF * sizeof(float)), cleanup);
  p->shard.checkpoint_hash = 0;
  for (size_t tensor = 0; tensor < p->table->count; tensor++) MG_TRY(pack_tensor(p, tensor), cleanup);
  MG_TRY(mg_spool_flush(&p->spool), cleanup);
  p->shard.rounding_error = relative(p->error2, p->norm2);
  if (p->shard.is_base) p->shard.base_hash = p->shard.checkpoint_hash;
  p->shard.content_hash = mg_shard_content_hash(&p->shard);
  MG_TRY(mg_shard_file_finish(&file, &p->shard, p->tensor_error), cleanup);
cleanup:
  if (fd >= 0) close(fd);
  mg_shard_file_abandon(&file);
  return status;
}

static mg_status note_shard(const char *path, const mg_shard_brief *brief, const mg_file_stamp *files, size_t count,
                            bool durable) {
  mg_seen seen = {
      .files = (mg_file_stamp *)(uintptr_t)files, .file_count = count, .durable = durable, .described = true, .brief = *brief};
  mg_seen_here(&seen);
  const mg_status status = mg_file_stamp_get(path, &seen.shard);
  return status == MG_OK ? mg_seen_write(path, &seen) : status;
}

static mg_status write_shard(packer *p, const char *path) {
  mg_status status = MG_OK;
  mg_seen here = {0};
  char *temporary = NULL;
  mg_seen_here(&here);
  if (asprintf(&temporary, "%s.tmp.%s.%ld", path, here.host, (long)getpid()) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  MG_TRY(write_values(p, temporary), cleanup);
  if (rename(temporary, path) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s: renaming to %s", temporary, path);
    goto cleanup;
  }
  mg_shard_brief brief = mg_shard_brief_of(&p->shard);
  MG_TRY(mg_shard_seal_read(path, &brief.seal), cleanup);
  MG_TRY(note_shard(path, &brief, p->shard.stamps, p->shard.file_count, false), cleanup);
cleanup:
  if (status != MG_OK) unlink(temporary);
  free(temporary);
  return status;
}

/* ---- is it up to date? ---- */

/* A shard that is there: what it holds, and the checkpoint's files when it was last found in order. */
typedef struct present {
  mg_seen seen;
  mg_shard *shard; /* NULL where the note said it all */
  mg_shard_brief brief;
  const mg_file_stamp *files; /* the note's or the shard's own */
  size_t file_count;
} present;

/* Who puts another shard in place (from a backup, say) leaves the note of the one before: its checkpoint was another one. That
   of a copied shard holds. */
static void find_stamps(const char *path, present *there) {
  bool same_boot;
  const mg_seen *seen = &there->seen;
  const bool is_of =
      seen->described ? mg_shard_seal_equal(&seen->brief.seal, &there->brief.seal) : mg_seen_is_of(path, seen, &same_boot);
  const bool own = there->shard != NULL && !is_of;
  there->files = own ? there->shard->stamps : seen->files;
  there->file_count = own ? there->shard->file_count : seen->file_count;
}

/* Is the shard as its writer left it? Checks the checksums where that is not known. */
static mg_status trust(const char *path, const present *there) {
  enum { SETTLED_SECONDS = 60 };
  mg_status status = MG_OK;
  bool same_boot;
  mg_file_stamp stamp;
  MG_TRY(mg_file_stamp_get(path, &stamp), done);
  if (mg_seen_is_of(path, &there->seen, &same_boot) && there->seen.durable) return MG_OK;
  if (!same_boot) MG_TRY(mg_shard_verify(path), done);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (same_boot && (int64_t)now.tv_sec * 1000000000 - stamp.mtime_ns < (int64_t)SETTLED_SECONDS * 1000000000) return MG_OK;
  MG_TRY(mg_sync_file(path), done);
  /* A note that can't be written (a read-only directory) costs the check next time, no more. */
  note_shard(path, &there->brief, there->files, there->file_count, true);
done:
  return status;
}

static mg_status look(const char *path, present *there) {
  mg_status status = MG_OK;
  *there = (present){0};
  mg_seen_read(path, &there->seen);
  if (mg_seen_vouches(path, &there->seen)) {
    there->brief = there->seen.brief;
  } else {
    MG_TRY(mg_shard_open(path, &there->shard), done);
    there->brief = mg_shard_brief_of(there->shard);
  }
  find_stamps(path, there);
  MG_TRY(trust(path, there), done);
  /* A note of an earlier version: from now on it says what the shard holds. */
  if (there->seen.valid && !there->seen.described && there->seen.durable)
    note_shard(path, &there->brief, there->files, there->file_count, true);
done:
  return status;
}

static void present_free(present *there) {
  mg_seen_free(&there->seen);
  mg_shard_close(&there->shard);
}

static bool same_stamps(const mg_file_stamp *a, size_t a_count, const mg_file_stamp *b, size_t b_count) {
  if (a_count != b_count) return false;
  for (size_t k = 0; k < a_count; k++)
    if (!mg_file_stamp_equal(&a[k], &b[k])) return false;
  return true;
}

/* *current: the shard holds what packing would write. */
static mg_status compare_with_checkpoint(packer *p, const char *path, const present *there, bool *current) {
  mg_status status = MG_OK;
  uint64_t hash;
  const mg_seen *seen = &there->seen;
  const mg_shard_brief *is = &there->brief;
  *current = false;
  const bool same_kind = is->is_base == p->shard.is_base && is->dtype == p->shard.dtype &&
                         is->id_hash == mg_hash(p->shard.id, strlen(p->shard.id)) &&
                         is->table_hash == mg_tensor_table_hash(p->table) &&
                         (is->is_base || is->base_hash == p->job->base_hash);
  if (!same_kind) return MG_OK;
  if (!p->job->rehash && same_stamps(there->files, there->file_count, p->shard.stamps, p->shard.file_count)) {
    *current = true;
    return MG_OK;
  }
  MG_TRY(hash_checkpoint(p, &hash), done);
  *current = hash == is->checkpoint_hash;
  if (*current) note_shard(path, is, p->shard.stamps, p->shard.file_count, seen->valid && seen->durable);
done:
  return status;
}

static mg_status keep(const char *path, const mg_pack_job *job, mg_pack_outcome *outcome) {
  mg_status status = MG_OK;
  present there;
  if (!mg_path_exists(path))
    return mg_fail(MG_ERR_INPUT, "%s: there is no such shard, and its checkpoint or the base's is gone", path);
  MG_TRY(look(path, &there), cleanup);
  if (there.brief.dtype != job->dtype && job->source != NULL)
    status = mg_fail(MG_ERR_INPUT, "%s: holds %s where shards.dtype asks for %s, and its checkpoint is gone", path,
                     mg_dtype_name(there.brief.dtype), mg_dtype_name(job->dtype));
  *outcome = MG_PACK_KEPT;
cleanup:
  present_free(&there);
  return status;
}

static mg_status bring_up_to_date(const char *path, const mg_pack_job *job, mg_pack_outcome *outcome) {
  mg_status status = MG_OK;
  packer p;
  present there = {0};
  bool current = false;
  MG_TRY(packer_create(job, &p), cleanup);
  if (mg_path_exists(path)) {
    status = look(path, &there);
    if (status == MG_ERR_CORRUPT) {
      mg_warn("%s; it is written anew", mg_error_message());
      status = MG_OK;
    } else if (status == MG_OK) {
      status = compare_with_checkpoint(&p, path, &there, &current);
    }
    if (status != MG_OK) goto cleanup;
  }
  *outcome = current ? MG_PACK_UNCHANGED : MG_PACK_WRITTEN;
  if (!current) MG_TRY(write_shard(&p, path), cleanup);
cleanup:
  present_free(&there);
  packer_destroy(&p);
  return status;
}

mg_status mg_shard_pack(const mg_pack_job *job, mg_pack_outcome *outcome) {
  char *path = job->source != NULL ? mg_shard_path(job->dir, job->source->id) : mg_shard_base_path(job->dir);
  if (path == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = job->family == NULL ? keep(path, job, outcome) : bring_up_to_date(path, job, outcome);
  free(path);
  return status;
}
