/* The note beside a shard: how it was last found in order. Losing it costs one check of the checksums, nothing else. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shard_impl.h"

enum { LARGEST_NOTE = 1 << 20, MOST_FILES = 1 << 16 };

static char *note_path(const char *shard_path) {
  char *path = NULL;
  return asprintf(&path, "%s.seen", shard_path) < 0 ? NULL : path;
}

void mg_seen_free(mg_seen *seen) {
  free(seen->files);
  *seen = (mg_seen){0};
}

void mg_seen_here(mg_seen *seen) {
  char *boot = NULL;
  size_t size = 0;
  gethostname(seen->host, sizeof seen->host - 1);
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
  /* Without a boot id nothing written before can be trusted: "-" is never equal to what is read back. */
  snprintf(seen->boot, sizeof seen->boot, "-");
  if (file != NULL && getline(&boot, &size, file) > 0) {
    boot[strcspn(boot, "\n")] = '\0';
    snprintf(seen->boot, sizeof seen->boot, "%.60s", boot);
  }
  if (file != NULL) fclose(file);
  free(boot);
}

static bool read_stamp(const char *line, const char *word, mg_file_stamp *stamp) {
  char key[16];
  mg_file_stamp found;
  const int fields = sscanf(line, "%15s %" SCNu64 " %" SCNd64 " %" SCNu64, key, &found.size, &found.mtime_ns, &found.inode);
  if (fields != 4 || strcmp(key, word) != 0) return false;
  *stamp = found; /* only now: a line of another word must not touch it */
  return true;
}

/* One line: kind, type, hashes and seal. */
static bool read_brief(const char *line, mg_shard_brief *brief) {
  mg_shard_brief b;
  char kind[16], dtype[16];
  const int fields = sscanf(
      line, "holds %15s %15s %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " seal %" SCNx64 " %" SCNx64 " %" SCNx64,
      kind, dtype, &b.id_hash, &b.table_hash, &b.checkpoint_hash, &b.base_hash, &b.content_hash, &b.seal.file_size,
      &b.seal.data_offset, &b.seal.metadata_hash);
  b.is_base = strcmp(kind, "base") == 0;
  if (fields != 10 || !mg_dtype_from_name(dtype, &b.dtype) || (!b.is_base && strcmp(kind, "task_vector") != 0)) return false;
  *brief = b;
  return true;
}

static void write_brief(mg_text *text, const mg_shard_brief *b) {
  mg_text_append(text,
                 "holds %s %s %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " seal %" PRIx64 " %" PRIx64 " %" PRIx64
                 "\n",
                 b->is_base ? "base" : "task_vector", mg_dtype_name(b->dtype), b->id_hash, b->table_hash, b->checkpoint_hash,
                 b->base_hash, b->content_hash, b->seal.file_size, b->seal.data_offset, b->seal.metadata_hash);
}

static bool take_line(mg_seen *seen, const char *line) {
  mg_file_stamp stamp;
  int durable;
  if (read_stamp(line, "shard", &seen->shard)) return true;
  if (sscanf(line, "host %255s", seen->host) == 1 || sscanf(line, "boot %63s", seen->boot) == 1) return true;
  if (sscanf(line, "durable %d", &durable) == 1) {
    seen->durable = durable == 1;
    return true;
  }
  if (read_brief(line, &seen->brief)) {
    seen->described = true;
    return true;
  }
  if (!read_stamp(line, "file", &stamp) || seen->file_count >= MOST_FILES) return false;
  mg_file_stamp *files = reallocarray(seen->files, seen->file_count + 1, sizeof *files);
  if (files == NULL) return false;
  seen->files = files;
  files[seen->file_count++] = stamp;
  return true;
}

void mg_seen_read(const char *shard_path, mg_seen *seen) {
  char *path = note_path(shard_path), *text = NULL, *rest;
  size_t size;
  *seen = (mg_seen){0};
  if (path != NULL && mg_path_exists(path) && mg_read_file(path, LARGEST_NOTE, &text, &size) == MG_OK) {
    char *line = strtok_r(text, "\n", &rest);
    seen->valid = line != NULL && strcmp(line, "mergegrid seen 1") == 0;
    while (seen->valid && (line = strtok_r(NULL, "\n", &rest)) != NULL)
      if (strcmp(line, "end") == 0)
        break;
      else if (!take_line(seen, line))
        seen->valid = false;
    if (line == NULL) seen->valid = false; /* torn: its last line is missing */
  }
  if (!seen->valid) mg_seen_free(seen);
  free(text);
  free(path);
}

bool mg_seen_is_of(const char *shard_path, const mg_seen *seen, bool *same_boot) {
  mg_seen here = {0};
  mg_file_stamp stamp;
  *same_boot = false;
  if (!seen->valid || mg_file_stamp_get(shard_path, &stamp) != MG_OK || !mg_file_stamp_equal(&seen->shard, &stamp))
    return false;
  mg_seen_here(&here);
  *same_boot = strcmp(seen->boot, "-") != 0 && strcmp(seen->host, here.host) == 0 && strcmp(seen->boot, here.boot) == 0;
  return true;
}

bool mg_seen_vouches(const char *shard_path, const mg_seen *seen) {
  mg_shard_seal seal;
  bool same_boot;
  return seen->described && mg_seen_is_of(shard_path, seen, &same_boot) && (seen->durable || same_boot) &&
         mg_shard_seal_check(shard_path, &seal) == MG_OK && mg_shard_seal_equal(&seal, &seen->brief.seal);
}

/* Not synced: a note that a crash takes away is as good as none. */
mg_status mg_seen_write(const char *shard_path, const mg_seen *seen) {
  mg_status status = MG_OK;
  mg_text text = {0};
  char *path = note_path(shard_path), *temporary = NULL;
  if (path == NULL || asprintf(&temporary, "%s.tmp.%s.%ld.seen", shard_path, seen->host, (long)getpid()) < 0) {
    free(path);
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  mg_text_append(&text, "mergegrid seen 1\nshard %" PRIu64 " %" PRId64 " %" PRIu64 "\nhost %s\nboot %s\ndurable %d\n",
                 seen->shard.size, seen->shard.mtime_ns, seen->shard.inode, seen->host, seen->boot, seen->durable);
  if (seen->described) write_brief(&text, &seen->brief);
  for (size_t k = 0; k < seen->file_count; k++)
    mg_text_append(&text, "file %" PRIu64 " %" PRId64 " %" PRIu64 "\n", seen->files[k].size, seen->files[k].mtime_ns,
                   seen->files[k].inode);
  mg_text_append(&text, "end\n");
  FILE *file = text.failed ? NULL : fopen(temporary, "w");
  bool good = file != NULL && fwrite(text.data, 1, text.size, file) == text.size;
  if (file != NULL) good = fclose(file) == 0 && good;
  if (!good || rename(temporary, path) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
    unlink(temporary);
  }
  mg_text_free(&text);
  free(temporary);
  free(path);
  return status;
}
