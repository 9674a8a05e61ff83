/* Owning a result: lock, attempt, journal, state; from the first byte to the rename. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "mergegrid/result.h"
#include "mergegrid/stop.h"
#include "run_impl.h"

struct mg_run {
  char *result, *temporary, *journal_path;
  char *whole; /* the result that this is a part of; NULL */
  int lock;    /* descriptor of R.lock */
  int journal; /* descriptor, −1 before the identity is known */
  uint64_t journal_size;
  bool unsynced, published, complete, part_done;
  mg_owner owner;
  double synced, reported;
  char started[24], stage[64];
  mg_journal_file *again; /* open for mg_run_read, of this part */
  int again_part;
  mg_joined joined;
};

static mg_state state_of(mg_run *run, const char *state, const char *progress, const char *message) {
  run->reported = mg_now();
  return (mg_state){.state = state, .stage = run->stage, .progress = progress, .message = message, .started = run->started};
}

static mg_status write_state(mg_run *run, const char *state, const char *progress, const char *message) {
  const mg_state content = state_of(run, state, progress, message);
  return mg_owner_write(&run->owner, &content);
}

/* ---- beginning ---- */

/* A mistyped name must not cost a user's file; a result that is only cut short still begins as one. */
static mg_status check_removable(const char *result) {
  mg_file_stamp stamp = {0};
  const char *kind = mg_file_kind(result);
  if (!mg_path_exists(result) || mg_file_stamp_get(result, &stamp) != MG_OK || stamp.size == 0) return MG_OK;
  if (kind != NULL && strcmp(kind, "result") == 0) return MG_OK;
  return mg_fail(MG_ERR_INPUT,
                 "%s: is no mergegrid result, so --fresh does not remove it: do so yourself, or name another result", result);
}

/* Once the attempt has begun: numbers go on, so that an older attempt does not find its own again. */
static mg_status start_over(mg_run *run) {
  mg_status status = MG_OK;
  MG_TRY(mg_journals_remove(run->result, run->owner.attempt - 1), done);
  MG_TRY(mg_owner_check(&run->owner), done);
  if (unlink(run->result) != 0 && errno != ENOENT) status = mg_fail_errno(MG_ERR_IO, "%s: can't be removed", run->result);
done:
  return status;
}

static mg_status check_resumable(const char *result) {
  int *attempts = NULL;
  size_t count = 0;
  if (mg_path_exists(result)) return MG_OK;
  const mg_status status = mg_attempts_list(result, &attempts, &count);
  free(attempts);
  if (status != MG_OK || count > 0) return status;
  return mg_fail(MG_ERR_INPUT, "%s: nothing was begun, so there is nothing to resume", result);
}

static mg_status begin_attempt(mg_run *run) {
  mg_status status = MG_OK;
  mg_utc_text(run->started);
  const mg_state content = state_of(run, "running", "", "");
  run->owner.result = run->result;
  MG_TRY(mg_owner_begin(&run->owner, &content), done);
  run->journal_path = mg_attempt_path(run->result, run->owner.attempt, "journal");
  if (run->journal_path == NULL || asprintf(&run->temporary, "%s.tmp.%04d", run->result, run->owner.attempt) < 0) {
    run->temporary = NULL;
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
done:
  return status;
}

static void release(mg_run **run) {
  mg_run *r = *run;
  if (r->journal >= 0) close(r->journal);
  if (r->lock >= 0) close(r->lock);
  mg_journal_close(&r->again);
  mg_joined_free(&r->joined);
  free(r->result), free(r->temporary), free(r->journal_path), free(r->whole);
  free(r);
  *run = NULL;
}

mg_status mg_run_open(const char *result, mg_run_mode mode, mg_run **out) {
  mg_status status = MG_OK;
  char *dir = mg_path_dirname(result);
  mg_run *run = mg_alloc_zero(1, sizeof *run);
  if (run == NULL || dir == NULL) {
    free(run);
    free(dir);
    return MG_ERR_NOMEM;
  }
  run->lock = run->journal = -1;
  run->result = mg_strdup(result);
  if (run->result == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  if (mg_path_is_dir(result)) {
    status = mg_fail(MG_ERR_INPUT, "%s: is a directory; a file's name was expected", result);
    goto cleanup;
  }
  MG_TRY(mg_make_dirs(dir), cleanup);
  MG_TRY(mg_lock_take(run->result, &run->lock), cleanup);
  if (mode == MG_RUN_FRESH) MG_TRY(check_removable(result), cleanup);
  if (mode == MG_RUN_RESUME) MG_TRY(check_resumable(result), cleanup);
  MG_TRY(begin_attempt(run), cleanup);
  if (mode == MG_RUN_FRESH) MG_TRY(start_over(run), cleanup);
  *out = run;
  run = NULL;
cleanup:
  if (run != NULL) mg_run_close(&run, status);
  free(dir);
  return status;
}

/* ---- identity ---- */

static mg_status open_journal(mg_run *run, const mg_identity *identity) {
  char *path = mg_attempt_path(run->result, run->owner.attempt, "identity");
  if (path == NULL) return MG_ERR_NOMEM;
  const mg_status status = mg_identity_write(path, identity);
  free(path);
  if (status != MG_OK) return status;
  run->journal = open(run->journal_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (run->journal < 0) return mg_fail_errno(MG_ERR_IO, "%s", run->journal_path);
  run->synced = mg_now();
  return MG_OK;
}

/* The file that a run is about, a part's too. */
static const char *whole_of(const mg_run *run) { return run->whole != NULL ? run->whole : run->result; }

/* Is there a result that holds all that is wanted? */
static mg_status check_finished(mg_run *run, const mg_identity *identity, mg_run_covered covered, void *context) {
  mg_status status = MG_OK;
  mg_identity before = {0};
  bool more = false, all = true;
  MG_TRY(mg_result_read_identity(whole_of(run), &before), cleanup);
  MG_TRY(mg_identity_compare_finished(&before, identity, whole_of(run), &more), cleanup);
  if (!more && covered != NULL) MG_TRY(covered(context, whole_of(run), &all), cleanup);
  run->complete = !more && all;
cleanup:
  mg_identity_free(&before);
  return status;
}

mg_status mg_run_check(mg_run *run, const mg_identity *identity, mg_run_covered covered, void *context, bool *complete) {
  mg_status status = MG_OK;
  *complete = false;
  if (mg_path_exists(whole_of(run))) MG_TRY(check_finished(run, identity, covered, context), done);
  *complete = run->complete;
  if (run->complete) return MG_OK;
  MG_TRY(mg_attempts_compare(run->result, run->owner.attempt, identity), done);
  MG_TRY(open_journal(run, identity), done);
done:
  return status;
}

/* ---- the journal ---- */

mg_status mg_run_replay(mg_run *run, mg_journal_visit visit, void *context) {
  return mg_journal_replay(run->result, visit, context);
}

mg_status mg_run_append(mg_run *run, uint32_t kind, const void *payload, size_t size, mg_record_place *place) {
  const mg_status status = mg_journal_write(run->journal, run->journal_path, run->journal_size, kind, payload, size);
  if (status != MG_OK) return status;
  if (place != NULL) *place = (mg_record_place){.attempt = run->owner.attempt, .offset = run->journal_size};
  run->journal_size = (uint64_t)lseek(run->journal, 0, SEEK_END);
  run->unsynced = true;
  return MG_OK;
}

static mg_status open_again(mg_run *run, mg_record_place place) {
  mg_status status = MG_OK;
  if (run->again == NULL || mg_journal_attempt(run->again) != place.attempt || run->again_part != place.part) {
    mg_journal_close(&run->again);
    const char *of = place.part == 0 ? run->result : mg_joined_path(&run->joined, place.part);
    if (of == NULL) return mg_fail(MG_ERR_INTERNAL, "part %d was not joined", place.part);
    char *path = mg_attempt_path(of, place.attempt, "journal");
    status = path != NULL ? mg_journal_open(path, place.attempt, &run->again) : MG_ERR_NOMEM;
    run->again_part = place.part;
    free(path);
  }
  return status;
}

mg_status mg_run_read(mg_run *run, mg_record_place place, mg_record *record) {
  const mg_status status = open_again(run, place);
  return status == MG_OK ? mg_journal_at(run->again, place.offset, record) : status;
}

mg_status mg_run_read_part(mg_run *run, mg_record_place place, size_t first, size_t size, void *data) {
  const mg_status status = open_again(run, place);
  return status == MG_OK ? mg_journal_part(run->again, place.offset, first, size, data) : status;
}

mg_status mg_run_sync(mg_run *run, double seconds) {
  if (!run->unsynced || (seconds > 0 && mg_now() - run->synced < seconds)) return MG_OK;
  if (fdatasync(run->journal) != 0) return mg_fail_errno(MG_ERR_IO, "%s: syncing", run->journal_path);
  run->synced = mg_now();
  run->unsynced = false;
  return MG_OK;
}

mg_status mg_run_report(mg_run *run, const char *state, const char *stage, const char *progress, const char *message) {
  if (mg_now() - run->reported < 1 && strcmp(run->stage, stage) == 0) return MG_OK;
  snprintf(run->stage, sizeof run->stage, "%s", stage);
  return write_state(run, state, progress, message);
}

/* ---- parts ---- */

mg_status mg_run_be_part(mg_run *run, const char *result) {
  run->whole = mg_strdup(result);
  return run->whole != NULL ? MG_OK : MG_ERR_NOMEM;
}

mg_status mg_run_join(mg_run *run, int part, const char *path, bool hold) {
  return mg_joined_add(&run->joined, part, path, hold);
}

mg_status mg_run_replay_joined(mg_run *run, const mg_identity *identity, mg_journal_visit visit, void *context) {
  return mg_joined_replay(&run->joined, identity, visit, context);
}

mg_status mg_run_end_part(mg_run *run) {
  const mg_status status = mg_run_sync(run, 0);
  run->part_done = status == MG_OK;
  return status;
}

/* ---- the end ---- */

const char *mg_run_temporary(const mg_run *run) { return run->temporary; }
int mg_run_attempt(const mg_run *run) { return run->owner.attempt; }
const char *mg_run_id(const mg_run *run) { return run->owner.id; }

mg_status mg_run_is_seen(const char *result, const char *id, double seconds) {
  char host[64] = "", seen[MG_RUN_ID];
  int attempt;
  for (const double began = mg_now();;) {
    const mg_status status = mg_state_attempt_id(result, &attempt, seen);
    if (status == MG_OK && strcmp(seen, id) == 0) return MG_OK;
    if (mg_now() - began > seconds) break;
    usleep(100000);
  }
  gethostname(host, sizeof host - 1);
  return mg_fail(
      MG_ERR_INPUT,
      "%s: host %s does not see there what rank 0's host does: a result's directory has to be on a file system that all "
      "hosts share, so that a run can be continued on any of them",
      result, host);
}

mg_status mg_run_publish(mg_run *run) {
  mg_status status = MG_OK;
  char *dir = mg_path_dirname(run->result);
  if (dir == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_sync_file(run->temporary), cleanup);
  MG_TRY(mg_owner_check(&run->owner), cleanup);
  if (rename(run->temporary, run->result) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s: renaming to %s", run->temporary, run->result);
    status = mg_owner_why(&run->owner, status);
    goto cleanup;
  }
  MG_TRY(mg_sync_dir(dir), cleanup);
  run->published = true;
  MG_TRY(write_state(run, "done", "", ""), cleanup);
  MG_TRY(mg_journals_remove(run->result, run->owner.attempt), cleanup);
  MG_TRY(mg_joined_remove(&run->joined), cleanup);
cleanup:
  if (status != MG_OK && !run->published) unlink(run->temporary);
  free(dir);
  return status;
}

/* What is left to say, and to tidy up, at an end without a result of its own. */
static void end_attempt(mg_run *run, mg_status status, const char *message) {
  if (run->complete) {
    if (write_state(run, "done", "", "") != MG_OK) return;
    if (mg_attempt_remove(run->result, run->owner.attempt) == MG_OK)
      mg_journals_remove_older(run->result, run->owner.attempt - 1);
    mg_joined_remove(&run->joined);
  } else if (run->part_done && status == MG_OK) {
    write_state(run, "done", "", "");
  } else if (!run->published) {
    if (run->journal >= 0) mg_run_sync(run, 0);
    write_state(run, status == MG_STOPPED ? "stopped" : "failed", "", status == MG_OK ? "" : message);
    /* An attempt that failed before it had a journal leaves no directory to look through next time. */
    if (run->journal < 0) mg_attempt_remove(run->result, run->owner.attempt);
  }
}

void mg_run_close(mg_run **out, mg_status status) {
  mg_run *run = *out;
  if (run == NULL) return;
  char *message = strdup(mg_error_message());
  if (run->temporary != NULL && !run->published) unlink(run->temporary);
  if (run->owner.attempt > 0 && mg_owner_check(&run->owner) == MG_OK) end_attempt(run, status, message != NULL ? message : "");
  if (status != MG_OK && message != NULL) mg_fail(status, "%s", message);
  free(message);
  release(out);
}
