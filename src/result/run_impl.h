#ifndef MG_RUN_IMPL_H
#define MG_RUN_IMPL_H

/* What the files beside a result look like; private to the result room. */

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "mergegrid/io.h"
#include "mergegrid/run.h"

/* ---- names ---- */

/* R.journal/0007 for attempt 7, or a file in it. Caller frees; NULL if memory fails. */
char *mg_attempt_path(const char *result, int attempt, const char *file);
char *mg_beside(const char *result, const char *suffix);
/* The attempts that have a directory, ascending; the caller frees *attempts. No directory at all: none. */
mg_status mg_attempts_list(const char *result, int **attempts, size_t *count);
mg_status mg_attempt_remove(const char *result, int attempt);
enum { MG_LAST_ATTEMPT = 99999999 };
/* R.journal and everything in it that is of attempt `last` or an earlier one. */
mg_status mg_journals_remove(const char *result, int last);
/* But for those that were written to after the result: they are of a larger run, which another time goes on with. */
mg_status mg_journals_remove_older(const char *result, int last);
/* R.tmp.NNNN and R.state.tmp.NNNN of attempts up to `last`: what a killed one left, what one that is fenced off would rename.
 */
void mg_leftovers_remove(const char *result, int last);
/* mkdir for a number that no attempt had before; at least `least`. */
mg_status mg_attempt_create(const char *result, int least, int *attempt);

/* ---- owning ---- */

typedef struct mg_state {
  const char *state, *stage, *progress, *message;
  const char *started, *id;
  int attempt;
} mg_state;

typedef struct mg_owner {
  const char *result;
  int attempt;
  char id[MG_RUN_ID];
} mg_owner;

/*
 * Begins an attempt of a number above all others' and fences those off: from here on what they ask with mg_owner_check says no,
 * and what they were about to rename is gone. `state` is written, with the new attempt's number and id.
 */
mg_status mg_owner_begin(mg_owner *owner, const mg_state *state);
/* MG_ERR_BUSY where this is no longer the newest attempt, whatever R.lock says. context is the mg_owner. */
mg_status mg_owner_check(void *context);
/*
 * What is to be told of a rename that failed: fenced off between asking and renaming, an attempt finds its file taken away, and
 * then that is the news.
 */
mg_status mg_owner_why(mg_owner *owner, mg_status status);
/* R.state, unless another attempt owns R. */
mg_status mg_owner_write(mg_owner *owner, const mg_state *state);

/*
 * Takes R.lock (waits up to 8 seconds for a dying attempt; then MG_ERR_BUSY naming host and pid); *lock is the caller's to
 * close. Where the lock tells nothing, since R.state is of another host or files can't be locked there, it watches for 3
 * seconds whether R.state moves.
 */
mg_status mg_lock_take(const char *result, int *lock);
/* Every attempt at R but `except` that has something to continue must have been computed from identity. */
mg_status mg_attempts_compare(const char *result, int except, const mg_identity *identity);

/* ---- journal ---- */

mg_status mg_journal_write(int fd, const char *path, uint64_t offset, uint32_t kind, const void *payload, size_t size);
/* Kinds of records whose payload is wanted. */
typedef struct mg_journal_kinds {
  size_t count;
  const uint32_t *items;
} mg_journal_kinds;

/*
 * The whole records of one file. kinds: of others (NULL: of none) the payload is neither read nor checked, and is NULL.
 * *whole: bytes they take. Says so where more than a torn tail is ignored.
 */
mg_status mg_journal_read(const char *path, int attempt, const mg_journal_kinds *kinds, mg_journal_visit visit, void *context,
                          uint64_t *whole);
/* As mg_journal_replay, but for that. */
mg_status mg_journal_skim(const char *result, const mg_journal_kinds *kinds, mg_journal_visit visit, void *context);

/* One attempt's journal, open for reading single records again. */
typedef struct mg_journal_file mg_journal_file;
mg_status mg_journal_open(const char *path, int attempt, mg_journal_file **file);
mg_status mg_journal_at(mg_journal_file *file, uint64_t offset, mg_record *record);
mg_status mg_journal_part(mg_journal_file *file, uint64_t offset, size_t first, size_t size, void *data);
int mg_journal_attempt(const mg_journal_file *file);
void mg_journal_close(mg_journal_file **file);

/* ---- parts whose journals are read too ---- */

typedef struct mg_joined_part {
  int part;
  char *path;
  int lock; /* −1: not held */
} mg_joined_part;

typedef struct mg_joined {
  mg_joined_part *items;
  size_t count;
} mg_joined;

mg_status mg_joined_add(mg_joined *joined, int part, const char *path, bool hold);
mg_status mg_joined_replay(const mg_joined *joined, const mg_identity *identity, mg_journal_visit visit, void *context);
/* NULL where no such part was joined. */
const char *mg_joined_path(const mg_joined *joined, int part);
/* What the parts left: journals, states, locks. */
mg_status mg_joined_remove(const mg_joined *joined);
void mg_joined_free(mg_joined *joined);

/* ---- identity ---- */

mg_status mg_identity_write(const char *path, const mg_identity *identity);
/* MG_ERR_CORRUPT if the file does not hold one. */
mg_status mg_identity_read(const char *path, mg_identity *identity);

/* ---- state ---- */

/* By R.state.tmp.ATTEMPT; `may` as in mg_replace_file_if. */
mg_status mg_state_write(const char *result, const mg_state *state, mg_may_replace may, void *context);
/* "attempt" of R.state, 0 where there is none. */
mg_status mg_state_attempt(const char *result, int *attempt);
/* The same and its "id", "" where there is none. */
mg_status mg_state_attempt_id(const char *result, int *attempt, char id[MG_RUN_ID]);
/* "HOST, process PID, since TIME" as R.state has it, or a sentence that it is not known. Caller frees. */
char *mg_state_owner(const char *result);
/* Value of a key in the text of a state file into buffer; false if it is not there. */
bool mg_state_value(const mg_text *all, const char *key, char *buffer, size_t size);

/* ISO 8601, UTC, to the second. */
void mg_utc_text(char buffer[24]);

#endif
