/* Which attempt owns a result. A lock may not reach another host, or stay behind on one that is gone, so nothing hangs on it
 * alone: the newest attempt owns, and what is newest is decided by mkdir; an older one can't rename anything into place any
 * more. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "run_impl.h"

/* Numbers begin again where somebody removed everything; ids do not. */
static void make_id(char id[MG_RUN_ID]) {
  uint64_t bits;
  if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != (ssize_t)sizeof bits) {
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t other[3] = {(uint64_t)now.tv_sec, (uint64_t)now.tv_nsec, (uint64_t)getpid()};
    bits = mg_hash(other, sizeof other);
  }
  mg_hash_text(bits, id);
}

static mg_status newest(const char *result, int *attempt) {
  int *attempts = NULL;
  size_t count = 0;
  const mg_status status = mg_attempts_list(result, &attempts, &count);
  *attempt = status == MG_OK && count > 0 ? attempts[count - 1] : 0;
  free(attempts);
  return status;
}

mg_status mg_owner_check(void *context) {
  const mg_owner *owner = context;
  int named = 0, last = 0;
  char id[MG_RUN_ID];
  mg_status status = mg_state_attempt_id(owner->result, &named, id);
  if (status == MG_OK) status = newest(owner->result, &last);
  if (status != MG_OK) return status;
  const int first = named > last ? named : last;
  if (first > owner->attempt)
    return mg_fail(MG_ERR_BUSY, "%s: attempt %d owns it now, this is attempt %d: it ends here, and nothing more is written",
                   owner->result, first, owner->attempt);
  if (last < owner->attempt || (named == owner->attempt && strcmp(id, owner->id) != 0))
    return mg_fail(
        MG_ERR_BUSY,
        "%s: the journal of this attempt (%d) was removed, or another run began it anew: it ends here, and nothing more "
        "is written",
        owner->result, owner->attempt);
  return MG_OK;
}

static mg_status write_own(mg_owner *owner, const mg_state *state, mg_may_replace may) {
  mg_state own = *state;
  own.attempt = owner->attempt;
  own.id = owner->id;
  return mg_state_write(owner->result, &own, may, owner);
}

mg_status mg_owner_why(mg_owner *owner, mg_status status) {
  char *why = mg_strdup(mg_error_message());
  const mg_status owned = mg_owner_check(owner);
  if (owned != MG_ERR_BUSY && why != NULL) mg_fail(status, "%s", why);
  free(why);
  return owned == MG_ERR_BUSY ? owned : status;
}

mg_status mg_owner_write(mg_owner *owner, const mg_state *state) {
  const mg_status status = write_own(owner, state, mg_owner_check);
  return status == MG_ERR_IO ? mg_owner_why(owner, status) : status;
}

mg_status mg_owner_begin(mg_owner *owner, const mg_state *state) {
  mg_status status = MG_OK;
  int last = 0;
  make_id(owner->id);
  MG_TRY(mg_state_attempt(owner->result, &last), done);
  MG_TRY(mg_attempt_create(owner->result, last + 1, &owner->attempt), done);
  /* Whoever asked before this has made what it renames before that too, and loses it in the next line; whoever asks after it is
   * told. One that renamed its state in between is overwritten. */
  MG_TRY(write_own(owner, state, NULL), done);
  mg_leftovers_remove(owner->result, owner->attempt);
  MG_TRY(mg_owner_write(owner, state), done);
done:
  return status;
}
