/*
 * A host that is not as others: preloaded by tests/hosts/test_hosts.py.
 *   MG_CLOCK=HOST:SECONDS   adds so many seconds to the time of day on that host; durations (CLOCK_MONOTONIC) are right
 *   MG_NO_LOCKS=1           flock of files named *.lock fails, as on a file system that is mounted without locks
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t wrong_by(void) {
  char host[65] = "";
  const char *what = getenv("MG_CLOCK"), *colon = what != NULL ? strchr(what, ':') : NULL;
  if (colon == NULL || gethostname(host, sizeof host - 1) != 0) return 0;
  const size_t length = (size_t)(colon - what);
  return strlen(host) == length && strncmp(host, what, length) == 0 ? (time_t)strtol(colon + 1, NULL, 10) : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  const int status = (int)syscall(SYS_clock_gettime, id, now);
  if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += wrong_by();
  return status;
}

time_t time(time_t *out) {
  struct timespec now = {0};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != NULL) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise = {0};
  (void)zone;
  const int status = clock_gettime(CLOCK_REALTIME, &precise);
  *now = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
  return status;
}

int flock(int fd, int operation) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = getenv("MG_NO_LOCKS") != NULL ? readlink(link, path, sizeof path) : -1;
  if (length > 5 && strncmp(path + length - 5, ".lock", 5) == 0) {
    errno = ENOLCK;
    return -1;
  }
  return (int)syscall(SYS_flock, fd, operation);
}
