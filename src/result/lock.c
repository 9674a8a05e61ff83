/* R.lock: that two runs do not get into each other's way. Who owns a result is decided elsewhere (owner.c). */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "mergegrid/stop.h"
#include "run_impl.h"

static const double LOCK_SECONDS = 8, WATCH_SECONDS = 3;

static mg_status refuse(const char *result, const char *hint) {
  char *owner = mg_state_owner(result);
  const mg_status status = mg_fail(MG_ERR_BUSY, "%s: another run owns it (%s)%s", result, owner ? owner : "?", hint);
  free(owner);
  return status;
}

/* Is the file that was locked still the one of that name? It may have been removed, to take a result from a lost host. */
static bool is_same_file(int lock, const char *path) {
  struct stat ours, named;
  return fstat(lock, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

/* *held is false where the file system has no locks. */
static mg_status try_lock(const char *path, int *lock, bool *held, bool *again) {
  *again = true;
  *held = false;
  if (*lock < 0) *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*lock < 0) return mg_fail_errno(MG_ERR_IO, "%s", path);
  if (flock(*lock, LOCK_EX | LOCK_NB) == 0) {
    *held = true;
    if (is_same_file(*lock, path)) {
      *again = false;
    } else {
      close(*lock);
      *lock = -1;
    }
    return MG_OK;
  }
  if (errno == EWOULDBLOCK || errno == EINTR) return MG_OK;
  if (errno != ENOLCK && errno != ENOSYS && errno != EOPNOTSUPP) return mg_fail_errno(MG_ERR_IO, "%s: locking", path);
  *again = false;
  return MG_OK;
}

static mg_status wait_for_lock(const char *result, const char *path, int *lock, bool *held) {
  bool said = false, again = true;
  const double began = mg_now();
  for (;;) {
    const mg_status status = try_lock(path, lock, held, &again);
    if (status != MG_OK || !again) return status;
    if (mg_stop_requested()) return mg_fail(MG_STOPPED, "%s: stopped while waiting for another run of it to end", result);
    if (mg_now() - began > LOCK_SECONDS)
      return refuse(result, "; if its host is lost, remove the file .lock beside the result: what still runs there can't write "
                            "into it any more");
    if (*lock >= 0 && !said) {
      char *owner = mg_state_owner(result);
      mg_info("waiting for another run of %s to end (%s)", result, owner ? owner : "?");
      free(owner);
      said = true;
    }
    usleep(50000);
  }
}

/* The text of R.state, NULL unless it says "running" and the lock does not tell about it: no clock is compared with another. */
static char *state_to_watch(const char *result, bool held) {
  mg_text state = {0}, all = {0};
  char host[256] = "", ours[256] = "", *text = NULL;
  gethostname(ours, sizeof ours - 1);
  if (mg_run_read_state(result, &state, &all) == MG_OK && state.data != NULL && strcmp(state.data, "running") == 0) {
    mg_state_value(&all, "host", host, sizeof host);
    if (!held || strcmp(host, ours) != 0) text = mg_strdup(all.data);
  }
  mg_text_free(&state);
  mg_text_free(&all);
  return text;
}

/* A lock that another host does not see, as it is with some mounts, would let a second run end one that is at work. */
static mg_status watch(const char *result, bool held) {
  mg_status status = MG_OK;
  char *before = state_to_watch(result, held);
  if (before == NULL) return MG_OK;
  mg_info("%s: the last run of it did not end as it should; looking whether it is still at work", result);
  for (const double began = mg_now(); status == MG_OK && mg_now() - began < WATCH_SECONDS;) {
    usleep(100000);
    char *now = state_to_watch(result, held);
    if (now != NULL && strcmp(before, now) != 0)
      status = refuse(result, ", and its lock does not reach this host: is the file system mounted without locks?");
    free(now);
    if (status == MG_OK && mg_stop_requested())
      status = mg_fail(MG_STOPPED, "%s: stopped while looking whether another run of it is at work", result);
  }
  free(before);
  return status;
}

mg_status mg_lock_take(const char *result, int *lock) {
  mg_status status = MG_OK;
  bool held = false;
  char *path = mg_beside(result, ".lock");
  *lock = -1;
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(wait_for_lock(result, path, lock, &held), cleanup);
  if (!held) mg_warn("%s: files can't be locked there: of two runs of it at a time the later one goes on", path);
  MG_TRY(watch(result, held), cleanup);
cleanup:
  free(path);
  return status;
}
