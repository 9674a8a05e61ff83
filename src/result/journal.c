/* The journal: records appended whole, read back up to the first that is not. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "run_impl.h"

enum { MAGIC = 0x314a474d }; /* "MGJ1" */

typedef struct record_header {
  uint32_t magic, kind;
  uint64_t size;
  uint64_t hash; /* of the fields above, then the payload */
} record_header;

static uint64_t record_hash(const record_header *header, const void *payload) {
  const uint64_t of_header = mg_hash(header, offsetof(record_header, hash));
  return header->size > 0 ? mg_hash_more(of_header, payload, (size_t)header->size) : of_header;
}

mg_status mg_journal_write(int fd, const char *path, uint64_t offset, uint32_t kind, const void *payload, size_t size) {
  if (size > MG_JOURNAL_MAX_PAYLOAD) return mg_fail(MG_ERR_INTERNAL, "%s: a record of %zu bytes is too large", path, size);
  record_header header = {.magic = MAGIC, .kind = kind, .size = size};
  header.hash = record_hash(&header, payload);
  const struct iovec parts[2] = {{&header, sizeof header}, {(void *)(uintptr_t)payload, size}};
  ssize_t put;
  do put = pwritev(fd, parts, size > 0 ? 2 : 1, (off_t)offset);
  while (put < 0 && errno == EINTR);
  mg_status status = put < 0 ? mg_fail_errno(MG_ERR_IO, "%s: writing a record of %zu bytes", path, size) : MG_OK;
  size_t done = put > 0 ? (size_t)put : 0;
  if (status == MG_OK && done < sizeof header) {
    status = mg_write_at(fd, path, (const char *)&header + done, sizeof header - done, offset + done);
    done = sizeof header;
  }
  if (status == MG_OK && done < sizeof header + size)
    status = mg_write_at(fd, path, (const char *)payload + (done - sizeof header), sizeof header + size - done, offset + done);
  /* Half a record would hide what is appended behind it after a full disk was mended. */
  if (status != MG_OK && ftruncate(fd, (off_t)offset) != 0) mg_debug("%s: half a record can't be cut off", path);
  return status;
}

struct mg_journal_file {
  int fd, attempt;
  char *path;
  uint64_t size;
  char *payload;
  size_t capacity;
};

mg_status mg_journal_open(const char *path, int attempt, mg_journal_file **out) {
  mg_status status = MG_OK;
  struct stat info;
  mg_journal_file *f = mg_alloc_zero(1, sizeof *f);
  if (f == NULL) return MG_ERR_NOMEM;
  *f = (mg_journal_file){.fd = open(path, O_RDONLY | O_CLOEXEC), .attempt = attempt, .path = mg_strdup(path)};
  if (f->fd < 0 || fstat(f->fd, &info) != 0) status = mg_fail_errno(MG_ERR_IO, "%s", path);
  if (status == MG_OK && f->path == NULL) status = MG_ERR_NOMEM;
  if (status != MG_OK) {
    mg_journal_close(&f);
    return status;
  }
  f->size = S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
  *out = f;
  return MG_OK;
}

void mg_journal_close(mg_journal_file **file) {
  mg_journal_file *f = *file;
  if (f == NULL) return;
  if (f->fd >= 0) close(f->fd);
  free(f->path), free(f->payload), free(f);
  *file = NULL;
}

int mg_journal_attempt(const mg_journal_file *file) { return file->attempt; }

static mg_status make_room(mg_journal_file *f, uint64_t size) {
  if (size <= f->capacity) return MG_OK;
  free(f->payload);
  f->capacity = 0;
  f->payload = mg_alloc((size_t)size, 1);
  if (f->payload == NULL) return MG_ERR_NOMEM;
  f->capacity = (size_t)size;
  return MG_OK;
}

static bool is_wanted(const mg_journal_kinds *kinds, uint32_t kind) {
  bool wanted = kinds == NULL;
  for (size_t k = 0; kinds != NULL && k < kinds->count; k++) wanted = wanted || kinds->items[k] == kind;
  return wanted;
}

/* The record at offset; of other kinds than these (NULL: all) without its payload. *whole is false where it is torn or damaged;
 * *torn where it is just shorter than it says. */
static mg_status read_record(mg_journal_file *f, const mg_journal_kinds *kinds, uint64_t offset, mg_record *record, bool *whole,
                             bool *torn) {
  mg_status status = MG_OK;
  record_header header;
  const uint64_t left = f->size > offset ? f->size - offset : 0;
  *whole = *torn = false;
  if (left < sizeof header) {
    *torn = true;
    return MG_OK;
  }
  MG_TRY(mg_read_at(f->fd, f->path, &header, sizeof header, offset), done);
  if (header.magic != MAGIC || header.size > MG_JOURNAL_MAX_PAYLOAD) return MG_OK;
  if (header.size > left - sizeof header) {
    *torn = true;
    return MG_OK;
  }
  *record = (mg_record){.kind = header.kind, .size = (size_t)header.size, .place = {.attempt = f->attempt, .offset = offset}};
  if (!is_wanted(kinds, header.kind)) {
    *whole = true;
    return MG_OK;
  }
  MG_TRY(make_room(f, header.size), done);
  MG_TRY(mg_read_at(f->fd, f->path, f->payload, (size_t)header.size, offset + sizeof header), done);
  *whole = record_hash(&header, f->payload) == header.hash;
  record->payload = f->payload != NULL ? f->payload : "";
done:
  return status;
}

mg_status mg_journal_at(mg_journal_file *f, uint64_t offset, mg_record *record) {
  struct stat info;
  bool whole, torn;
  if (fstat(f->fd, &info) != 0) return mg_fail_errno(MG_ERR_IO, "%s", f->path);
  f->size = (uint64_t)info.st_size; /* it may have grown */
  const mg_status status = read_record(f, NULL, offset, record, &whole, &torn);
  if (status != MG_OK || whole) return status;
  return mg_fail(MG_ERR_CORRUPT, "%s: the record at byte %llu is not whole any more", f->path, (unsigned long long)offset);
}

mg_status mg_journal_part(mg_journal_file *f, uint64_t offset, size_t first, size_t size, void *data) {
  return mg_read_at(f->fd, f->path, data, size, offset + sizeof(record_header) + first);
}

mg_status mg_journal_read(const char *path, int attempt, const mg_journal_kinds *kinds, mg_journal_visit visit, void *context,
                          uint64_t *whole_bytes) {
  mg_status status = MG_OK;
  bool whole = true, torn = false;
  uint64_t at = 0;
  mg_journal_file *f = NULL;
  if (whole_bytes != NULL) *whole_bytes = 0;
  status = mg_journal_open(path, attempt, &f);
  /* killed before the first record; or, for a reader that does not own it, removed since the result is there */
  if (status != MG_OK && access(path, F_OK) != 0 && errno == ENOENT) return MG_OK;
  if (status != MG_OK) goto cleanup;
  while (at < f->size) {
    mg_record record;
    MG_TRY(read_record(f, kinds, at, &record, &whole, &torn), cleanup);
    if (!whole) break;
    MG_TRY(visit(context, &record), cleanup);
    at += sizeof(record_header) + record.size;
  }
  if (torn) mg_debug("%s: the last record was cut off; %llu bytes are left out", path, (unsigned long long)(f->size - at));
  if (!whole && !torn)
    mg_warn("%s: damaged at byte %llu; the last %llu of %llu bytes are left out and computed again", path,
            (unsigned long long)at, (unsigned long long)(f->size - at), (unsigned long long)f->size);
  if (whole_bytes != NULL) *whole_bytes = at;
cleanup:
  mg_journal_close(&f);
  return status;
}

mg_status mg_journal_skim(const char *result, const mg_journal_kinds *kinds, mg_journal_visit visit, void *context) {
  mg_status status = MG_OK;
  int *attempts = NULL;
  size_t count = 0;
  char *path = NULL;
  MG_TRY(mg_attempts_list(result, &attempts, &count), cleanup);
  for (size_t k = 0; k < count; k++) {
    free(path);
    path = mg_attempt_path(result, attempts[k], "journal");
    if (path == NULL) {
      status = MG_ERR_NOMEM;
      goto cleanup;
    }
    MG_TRY(mg_journal_read(path, attempts[k], kinds, visit, context, NULL), cleanup);
  }
cleanup:
  free(attempts);
  free(path);
  return status;
}

mg_status mg_journal_replay(const char *result, mg_journal_visit visit, void *context) {
  return mg_journal_skim(result, NULL, visit, context);
}
