/*
 * LD_PRELOAD: makes a call on some file fail, as a full or broken disk would.
 *
 *   MG_FAULT="CALL PATTERN AFTER WHAT"
 *   CALL     space (statvfs says that there is next to none), open, read (also pread), write (also pwrite, pwritev), sync
 * (fsync, fdatasync), rename, truncate PATTERN  a glob on the file's path (of rename: on the new name) AFTER    so many such
 * calls of this process go well WHAT     an errno's name (EIO, ENOSPC, EACCES), or `short`: half of what was asked for, once
 *   MG_FAULT_RANK=K: in the MPI process of that rank alone. From the first on all such calls fail (but of `short`).
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

static char call_name[16], pattern[PATH_MAX], what[16];
static long after;
static atomic_long seen;
static bool armed;

__attribute__((constructor)) static void read_environment(void) {
  const char *text = getenv("MG_FAULT"), *rank = getenv("MG_FAULT_RANK"), *own = getenv("OMPI_COMM_WORLD_RANK");
  if (text == NULL || sscanf(text, "%15s %4095s %ld %15s", call_name, pattern, &after, what) != 4) return;
  armed = rank == NULL || (own != NULL && strcmp(rank, own) == 0);
}

static int number_of(const char *name) {
  return strcmp(name, "ENOSPC") == 0 ? ENOSPC : strcmp(name, "EACCES") == 0 ? EACCES : EIO;
}

/* Is it this call's turn to fail? */
static bool strikes(const char *call, const char *path) {
  if (!armed || strcmp(call, call_name) != 0 || path == NULL || fnmatch(pattern, path, 0) != 0) return false;
  const long turn = atomic_fetch_add(&seen, 1);
  return strcmp(what, "short") == 0 ? turn == after : turn >= after;
}

static const char *path_of(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  buffer[length > 0 ? length : 0] = '\0';
  return buffer;
}

static bool strikes_fd(const char *call, int fd) {
  char path[PATH_MAX];
  return armed && strcmp(call, call_name) == 0 && strikes(call, path_of(fd, path));
}

static bool is_short(void) { return strcmp(what, "short") == 0; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL                                                                                                                   \
  do {                                                                                                                         \
    errno = number_of(what);                                                                                                   \
    return -1;                                                                                                                 \
  } while (0)

#define OPEN(name)                                                                                                             \
  int name(const char *path, int flags, ...) {                                                                                 \
    va_list more;                                                                                                              \
    va_start(more, flags);                                                                                                     \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;                                       \
    va_end(more);                                                                                                              \
    if (strikes("open", path)) FAIL;                                                                                           \
    return REAL(name)(path, flags, mode);                                                                                      \
  }
OPEN(open)
OPEN(open64)

/* Half of one byte is none, which a reader takes for the end: one it is. */
static size_t half(size_t size) { return size > 1 ? size / 2 : size; }

ssize_t read(int fd, void *data, size_t size) {
  const bool now = strikes_fd("read", fd);
  if (now && !is_short()) FAIL;
  return REAL(read)(fd, data, now ? half(size) : size);
}

#define PREAD(name)                                                                                                            \
  ssize_t name(int fd, void *data, size_t size, off_t offset) {                                                                \
    const bool now = strikes_fd("read", fd);                                                                                   \
    if (now && !is_short()) FAIL;                                                                                              \
    return REAL(name)(fd, data, now ? half(size) : size, offset);                                                              \
  }
PREAD(pread)
PREAD(pread64)

ssize_t write(int fd, const void *data, size_t size) {
  const bool now = strikes_fd("write", fd);
  if (now && !is_short()) FAIL;
  return REAL(write)(fd, data, now ? half(size) : size);
}

#define PWRITE(name)                                                                                                           \
  ssize_t name(int fd, const void *data, size_t size, off_t offset) {                                                          \
    const bool now = strikes_fd("write", fd);                                                                                  \
    if (now && !is_short()) FAIL;                                                                                              \
    return REAL(name)(fd, data, now ? half(size) : size, offset);                                                              \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name)                                                                                                          \
  ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) {                                                   \
    const bool now = strikes_fd("write", fd);                                                                                  \
    if (now && !is_short()) FAIL;                                                                                              \
    if (now) return REAL(pwrite)(fd, parts[0].iov_base, half(parts[0].iov_len), offset);                                       \
    return REAL(name)(fd, parts, count, offset);                                                                               \
  }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define SPACE(name)                                                                                                            \
  int name(const char *path, struct name *disk) {                                                                              \
    const int status = REAL(name)(path, disk);                                                                                 \
    if (status == 0 && strikes("space", path)) disk->f_bavail = 1;                                                             \
    return status;                                                                                                             \
  }
SPACE(statvfs)
SPACE(statvfs64)

int fsync(int fd) {
  if (strikes_fd("sync", fd)) FAIL;
  return REAL(fsync)(fd);
}

int fdatasync(int fd) {
  if (strikes_fd("sync", fd)) FAIL;
  return REAL(fdatasync)(fd);
}

#define TRUNCATE(name)                                                                                                         \
  int name(int fd, off_t size) {                                                                                               \
    if (strikes_fd("truncate", fd)) FAIL;                                                                                      \
    return REAL(name)(fd, size);                                                                                               \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int rename(const char *from, const char *to) {
  if (strikes("rename", to)) FAIL;
  return REAL(rename)(from, to);
}
