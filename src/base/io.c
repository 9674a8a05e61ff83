#include "mergegrid/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mergegrid/stop.h"
#include "mergegrid/text.h"

mg_status mg_file_stamp_get(const char *path, mg_file_stamp *stamp) {
  struct stat info;
  if (stat(path, &info) != 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  *stamp = (mg_file_stamp){.size = (uint64_t)info.st_size,
                           .mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec,
                           .inode = (uint64_t)info.st_ino};
  return MG_OK;
}

bool mg_file_stamp_equal(const mg_file_stamp *a, const mg_file_stamp *b) {
  return a->size == b->size && a->mtime_ns == b->mtime_ns && a->inode == b->inode;
}

bool mg_path_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

bool mg_path_is_dir(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *mg_path_join(const char *dir, const char *name) {
  char *path = NULL;
  if (name[0] == '/' || strcmp(dir, ".") == 0) return mg_strdup(name);
  const size_t length = strlen(dir);
  if (asprintf(&path, "%s%s%s", dir, length > 0 && dir[length - 1] == '/' ? "" : "/", name) < 0) {
    mg_fail(MG_ERR_NOMEM, "out of memory");
    return NULL;
  }
  return path;
}

char *mg_path_dirname(const char *path) {
  const char *slash = strrchr(path, '/');
  if (slash == NULL) return mg_strdup(".");
  if (slash == path) return mg_strdup("/");
  char *dir = strndup(path, (size_t)(slash - path));
  if (dir == NULL) mg_fail(MG_ERR_NOMEM, "out of memory");
  return dir;
}

mg_status mg_make_dirs(const char *path) {
  char *copy = mg_strdup(path);
  if (copy == NULL) return MG_ERR_NOMEM;
  mg_status status = MG_OK;
  for (char *p = copy + 1;; p++) {
    if (*p != '/' && *p != '\0') continue;
    const char end = *p;
    *p = '\0';
    if (mkdir(copy, 0777) != 0 && !mg_path_is_dir(copy)) {
      status = mg_fail_errno(MG_ERR_IO, "%s: the directory can't be made", copy);
      break;
    }
    *p = end;
    if (end == '\0') break;
  }
  free(copy);
  return status;
}

mg_status mg_file_readable(const char *path) {
  enum { PIECE = 1 << 20 };
  mg_status status = MG_OK;
  ssize_t got = 1;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  char *piece = mg_alloc(PIECE, 1);
  if (piece == NULL) status = MG_ERR_NOMEM;
  while (status == MG_OK && got > 0) {
    got = read(fd, piece, PIECE);
    if (got < 0 && errno == EINTR) got = 1;
    if (got < 0) status = mg_fail_errno(MG_ERR_IO, "%s", path);
  }
  free(piece);
  close(fd);
  return status;
}

mg_status mg_read_file(const char *path, size_t limit, char **data, size_t *size) {
  mg_status status = MG_OK;
  char *buffer = NULL;
  struct stat info;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up before it is recognised */
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  if (fstat(fd, &info) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  if (!S_ISREG(info.st_mode)) {
    status = mg_fail(MG_ERR_INPUT, "%s: is not a regular file", path);
    goto cleanup;
  }
  if ((uint64_t)info.st_size > limit) {
    status = mg_fail(MG_ERR_INPUT, "%s: has %lld bytes; at most %zu were expected", path, (long long)info.st_size, limit);
    goto cleanup;
  }
  buffer = mg_alloc((size_t)info.st_size + 1, 1);
  if (buffer == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_read_at(fd, path, buffer, (size_t)info.st_size, 0), cleanup);
  buffer[info.st_size] = '\0';
  *data = buffer;
  *size = (size_t)info.st_size;
  buffer = NULL;
cleanup:
  free(buffer);
  close(fd);
  return status;
}

static mg_status short_file(const char *path, uint64_t offset, size_t missing) {
  return mg_fail(MG_ERR_CORRUPT, "%s: ends at byte %llu, %zu bytes short of what its header promises", path,
                 (unsigned long long)offset, missing);
}

mg_status mg_read_at(int fd, const char *path, void *buffer, size_t size, uint64_t offset) {
  char *at = buffer;
  while (size > 0) {
    const ssize_t got = pread(fd, at, size, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return mg_fail_errno(MG_ERR_IO, "%s: reading %zu bytes at %llu", path, size, (unsigned long long)offset);
    if (got == 0) return short_file(path, offset, size);
    at += got;
    offset += (uint64_t)got;
    size -= (size_t)got;
  }
  return MG_OK;
}

mg_status mg_read_streaming(int fd, const char *path, void *buffer, size_t size, uint64_t offset, size_t ahead,
                            uint64_t *announced) {
  const struct iovec range = {.iov_base = buffer, .iov_len = size};
  /* What is in the page cache comes at once, without an announcement's cost; the rest waits for the device either way, so
     the device may as well be told what is wanted next. */
  const ssize_t got = preadv2(fd, &range, 1, (off_t)offset, RWF_NOWAIT);
  if (got == (ssize_t)size) return MG_OK;
  const size_t have = got > 0 ? (size_t)got : 0;
  if (ahead > 0) posix_fadvise(fd, (off_t)(offset + have), (off_t)(size - have + ahead), POSIX_FADV_WILLNEED);
  if (announced != NULL) *announced = offset + size + ahead;
  return mg_read_at(fd, path, (char *)buffer + have, size - have, offset + have);
}

mg_status mg_write_at(int fd, const char *path, const void *buffer, size_t size, uint64_t offset) {
  const char *at = buffer;
  while (size > 0) {
    const ssize_t put = pwrite(fd, at, size, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return mg_fail_errno(MG_ERR_IO, "%s: writing %zu bytes at %llu", path, size, (unsigned long long)offset);
    at += put;
    offset += (uint64_t)put;
    size -= (size_t)put;
  }
  return MG_OK;
}

mg_status mg_sync_dir(const char *dir) {
  const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", dir);
  /* Some network file systems can't sync a directory and say EINVAL; the rename itself is then all there is. */
  const bool failed = fsync(fd) != 0 && errno != EINVAL;
  const mg_status status = failed ? mg_fail_errno(MG_ERR_IO, "%s: syncing the directory", dir) : MG_OK;
  close(fd);
  return status;
}

mg_status mg_sync_file(const char *path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  const mg_status status = fsync(fd) == 0 ? MG_OK : mg_fail_errno(MG_ERR_IO, "%s: syncing", path);
  close(fd);
  return status;
}

mg_status mg_replace_file_if(const char *path, long number, const void *data, size_t size, mg_may_replace may, void *context) {
  mg_status status = MG_OK;
  char *temporary = NULL, *dir = mg_path_dirname(path);
  int fd = -1;
  if (dir == NULL || asprintf(&temporary, "%s.tmp.%ld", path, number) < 0) {
    temporary = NULL;
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", temporary);
    goto cleanup;
  }
  MG_TRY(mg_write_at(fd, temporary, data, size, 0), cleanup);
  if (fsync(fd) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s: syncing", temporary);
    goto cleanup;
  }
  if (may != NULL) MG_TRY(may(context), cleanup);
  if (rename(temporary, path) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s: renaming to %s", temporary, path);
    goto cleanup;
  }
  MG_TRY(mg_sync_dir(dir), cleanup);
cleanup:
  if (fd >= 0) close(fd);
  if (status != MG_OK && temporary != NULL) unlink(temporary);
  free(temporary);
  free(dir);
  return status;
}

mg_status mg_replace_file(const char *path, const void *data, size_t size) {
  return mg_replace_file_if(path, (long)getpid(), data, size, NULL, NULL);
}

mg_status mg_lock_wait(const char *path, int *lock) {
  mg_status status = MG_OK;
  *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*lock < 0) return MG_OK;
  while (flock(*lock, LOCK_EX | LOCK_NB) != 0 && status == MG_OK) {
    if (errno != EWOULDBLOCK && errno != EINTR)
      status = mg_fail_errno(MG_ERR_IO, "%s: locking", path);
    else if (mg_stop_requested())
      status = mg_fail(MG_STOPPED, "%s: stopped while waiting for whoever holds it", path);
    else
      usleep(50000);
  }
  if (status != MG_OK) {
    close(*lock);
    *lock = -1;
  }
  return status;
}

uint64_t mg_process_memory(const char *field) {
  char line[256];
  uint64_t kibibytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (file == NULL) return 0;
  const size_t length = strlen(field);
  while (fgets(line, sizeof line, file) != NULL)
    if (strncmp(line, field, length) == 0 && line[length] == ':') sscanf(line + length + 1, "%" SCNu64, &kibibytes);
  fclose(file);
  return kibibytes * 1024;
}
