/* R.lock: who owns a result. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "mergegrid/stop.h"
#include "run_impl.h"

static const double LOCK_SECONDS = 8;

mg_status mg_lock_take(const char *result, int *lock) {
  mg_status status = MG_OK;
  bool said = false;
  char *path = mg_beside(result, ".lock");
  if (path == NULL) return MG_ERR_NOMEM;
  *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*lock < 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  const double began = mg_now();
  while (flock(*lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      status = mg_fail_errno(MG_ERR_IO, "%s: locking", path);
      goto cleanup;
    }
    if (mg_stop_requested()) {
      status = mg_fail(MG_STOPPED, "%s: stopped while waiting for another run of it to end", result);
      goto cleanup;
    }
    char *owner = mg_state_owner(result);
    if (mg_now() - began > LOCK_SECONDS)
      status = mg_fail(MG_ERR_BUSY, "%s: another run owns it (%s)", result, owner ? owner : "?");
    else if (!said)
      mg_info("waiting for another run of %s to end (%s)", result, owner ? owner : "?");
    said = true;
    free(owner);
    if (status != MG_OK) goto cleanup;
    usleep(50000);
  }
cleanup:
  free(path);
  return status;
}
