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

typedef struct reader {
  int fd;
  const char *path;
  uint64_t size, at;
  char *payload;
  size_t capacity;
} reader;

static mg_status make_room(reader *r, uint64_t size) {
  if (size <= r->capacity) return MG_OK;
  free(r->payload);
  r->capacity = 0;
  r->payload = mg_alloc((size_t)size, 1);
  if (r->payload == NULL) return MG_ERR_NOMEM;
  r->capacity = (size_t)size;
  return MG_OK;
}

/* Reads the record at r->at. *whole is false where it is torn or damaged; *torn where it is just shorter than it says. */
static mg_status read_record(reader *r, record_header *header, bool *whole, bool *torn) {
  mg_status status = MG_OK;
  const uint64_t left = r->size - r->at;
  *whole = *torn = false;
  if (left < sizeof *header) {
    *torn = true;
    return MG_OK;
  }
  MG_TRY(mg_read_at(r->fd, r->path, header, sizeof *header, r->at), done);
  if (header->magic != MAGIC || header->size > MG_JOURNAL_MAX_PAYLOAD) return MG_OK;
  if (header->size > left - sizeof *header) {
    *torn = true;
    return MG_OK;
  }
  MG_TRY(make_room(r, header->size), done);
  MG_TRY(mg_read_at(r->fd, r->path, r->payload, (size_t)header->size, r->at + sizeof *header), done);
  *whole = record_hash(header, r->payload) == header->hash;
done:
  return status;
}

mg_status mg_journal_read(const char *path, mg_journal_visit visit, void *context, uint64_t *whole_bytes) {
  mg_status status = MG_OK;
  struct stat info;
  bool whole = true, torn = false;
  reader r = {.fd = open(path, O_RDONLY | O_CLOEXEC), .path = path};
  if (whole_bytes != NULL) *whole_bytes = 0;
  if (r.fd < 0 && errno == ENOENT) return MG_OK; /* killed before the first record */
  if (r.fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  if (fstat(r.fd, &info) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  r.size = S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
  while (r.at < r.size) {
    record_header header;
    MG_TRY(read_record(&r, &header, &whole, &torn), cleanup);
    if (!whole) break;
    MG_TRY(visit(context, header.kind, r.payload != NULL ? r.payload : (char *)"", (size_t)header.size), cleanup);
    r.at += sizeof header + header.size;
  }
  if (torn) mg_debug("%s: the last record was cut off; %llu bytes are left out", path, (unsigned long long)(r.size - r.at));
  if (!whole && !torn)
    mg_warn("%s: damaged at byte %llu; the last %llu of %llu bytes are left out and computed again", path,
            (unsigned long long)r.at, (unsigned long long)(r.size - r.at), (unsigned long long)r.size);
  if (whole_bytes != NULL) *whole_bytes = r.at;
cleanup:
  close(r.fd);
  free(r.payload);
  return status;
}

mg_status mg_journal_replay(const char *result, mg_journal_visit visit, void *context) {
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
    MG_TRY(mg_journal_read(path, visit, context, NULL), cleanup);
  }
cleanup:
  free(attempts);
  free(path);
  return status;
}
