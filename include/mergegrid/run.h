#ifndef MERGEGRID_RUN_H
#define MERGEGRID_RUN_H

/**
 * Owning a result: the lock, the attempt, the journal and the state file. Master rank only. Not collective.
 *
 * Beside result R (e.g. `result.h5`):
 *   R.lock             flock'ed by the run that owns R (released by the kernel when the process dies); a courtesy to runs that
 *                      would disturb each other, since it may not reach other hosts: the newest attempt owns R
 *   R.state            first line: running | stopped | failed | done; then "key value" lines: attempt, id, host, pid, started,
 *                      updated, stage, progress, message. Replaced atomically.
 *   R.journal/NNNN/    one attempt each, created exclusively: `journal` (records), `identity` (what it computes from)
 *   R.tmp.NNNN         the result being written; renamed to R only by the newest attempt
 * A journal record: magic, kind, payload length, XXH3 of all that; then the payload. A torn tail is ignored.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

typedef struct mg_run mg_run;

enum { MG_JOURNAL_MAX_PAYLOAD = 1 << 30 }; /**< bytes of a record */

enum { MG_RUN_ID = 17 }; /**< bytes of an attempt's id, a word that no other attempt has, with its end */

typedef enum mg_run_mode { MG_RUN_CONTINUE, MG_RUN_RESUME, MG_RUN_FRESH } mg_run_mode;

/**
 * What a result is computed from: pairs of a name users understand ("source af-ZA", "compatibility.exclude", "numeric mode")
 * and a value (a hash, a setting).
 */
typedef struct mg_identity {
  size_t count;
  char **names, **values;
} mg_identity;

mg_status mg_identity_add(mg_identity *identity, const char *name, const char *value);
void mg_identity_free(mg_identity *identity);
/** Lists every name that differs, is new or is gone: MG_ERR_INPUT with one line each, and what to do (--fresh). */
mg_status mg_identity_compare(const mg_identity *before, const mg_identity *now, const char *result);
/** The same of a finished result, to which names may be added: *more says whether there are any. */
mg_status mg_identity_compare_finished(const mg_identity *before, const mg_identity *now, const char *result, bool *more);
/** NULL where there is none of that name. */
const char *mg_identity_value(const mg_identity *identity, const char *name);

/**
 * Takes the lock (waits up to 8 seconds for a dying attempt; then MG_ERR_BUSY naming host and pid) and begins an attempt, state
 * running. FRESH removes the result, its journals and its state first; RESUME fails if there is neither a journal nor a
 * result. R's directory is made where missing.
 */
mg_status mg_run_open(const char *result, mg_run_mode mode, mg_run **run);

/**
 * Compares identity with the result's (if there is one) and with every earlier journal's, and refuses by name. *complete: the
 * result is already there, computed from the same, and holds everything (`covered` says so of what identity does not tell;
 * NULL: it does): nothing to do (the attempt leaves no trace; state done at close). Otherwise records the identity as this
 * attempt's; a result that is there stays until a larger one takes its place. Before any replay or append.
 */
typedef mg_status (*mg_run_covered)(void *context, const char *result, bool *covered);
mg_status mg_run_check(mg_run *run, const mg_identity *identity, mg_run_covered covered, void *context, bool *complete);

/** Where a record is kept: an attempt's journal and the byte it begins at. */
typedef struct mg_record_place {
  int attempt;
  int part; /**< 0: this run's own; else the number of the part whose journal it is (mg_run_join) */
  uint64_t offset;
} mg_record_place;

typedef struct mg_record {
  uint32_t kind;
  const void *payload; /**< [size], valid during the call that is given the record */
  size_t size;
  mg_record_place place;
} mg_record;

/** Calls visit for every whole record of the earlier attempts, oldest first. */
typedef mg_status (*mg_journal_visit)(void *context, const mg_record *record);
mg_status mg_run_replay(mg_run *run, mg_journal_visit visit, void *context);
/** The same for a reader that does not own the result (show). path is R. */
mg_status mg_journal_replay(const char *result, mg_journal_visit visit, void *context);

/** Appends a record with one write; it survives the death of this process when the call returns. place may be NULL. */
mg_status mg_run_append(mg_run *run, uint32_t kind, const void *payload, size_t size, mg_record_place *place);
/**
 * Reads a record of this or an earlier attempt again, so that what is large need not be held. Its payload is valid until the
 * next call. MG_ERR_CORRUPT where it is not whole any more.
 */
mg_status mg_run_read(mg_run *run, mg_record_place place, mg_record *record);
/** Bytes first … first + size − 1 of a record's payload, unchecked: of one that was seen whole. */
mg_status mg_run_read_part(mg_run *run, mg_record_place place, size_t first, size_t size, void *data);
/** fdatasyncs the journal if the last time is more than `seconds` ago (0: now). */
mg_status mg_run_sync(mg_run *run, double seconds);
/** Rewrites R.state; at most once a second unless the state changes. MG_ERR_BUSY where a newer attempt owns R. */
mg_status mg_run_report(mg_run *run, const char *state, const char *stage, const char *progress, const char *message);

/** Where to write the result; owned by the run. */
const char *mg_run_temporary(const mg_run *run);
int mg_run_attempt(const mg_run *run);
/** [MG_RUN_ID], owned by the run. */
const char *mg_run_id(const mg_run *run);
/**
 * Is the attempt of that id the one that this host sees at R? For ranks that do not own R; waits up to `seconds` for a file
 * system that is slow to show what another host wrote. MG_ERR_INPUT where it is not.
 */
mg_status mg_run_is_seen(const char *result, const char *id, double seconds);
/**
 * fsyncs the temporary file, checks that this is still the newest attempt (else MG_ERR_BUSY), renames it to R, fsyncs the
 * directory, removes the journals, state done.
 */
mg_status mg_run_publish(mg_run *run);
/** Ends an attempt that did not publish: syncs the journal, state stopped or failed with message; releases everything. Also
 * after publish. */
void mg_run_close(mg_run **run, mg_status status);

/* ---- a result computed in parts ---- */

/**
 * A part is a run of its own, of the name R.part-I-of-N, with its own lock, state and journal and never a file: many can be at
 * work at once, on hosts that only share the directory. What they have journaled is read where it is by those that join them.
 */

/** "R.part-I-of-N". The caller frees; NULL if memory fails. */
char *mg_part_path(const char *result, int part, int parts);
/** The numbers N of which there are parts beside R, ascending; the caller frees *found. */
mg_status mg_parts_find(const char *result, int **found, size_t *count);

/** Right after mg_run_open: this run is a part of `result`, which it reads where it is there, and never writes. */
mg_status mg_run_be_part(mg_run *run, const char *result);
/**
 * Reads the journals of that part too from now on. hold: takes its lock until the run is closed (MG_ERR_BUSY as mg_run_open),
 * and removes what it left once this run has published. In ascending order of parts.
 */
mg_status mg_run_join(mg_run *run, int part, const char *path, bool hold);
/** Compares identity with every joined part's, as mg_run_check does, and visits all their whole records. */
mg_status mg_run_replay_joined(mg_run *run, const mg_identity *identity, mg_journal_visit visit, void *context);
/** A part that has nothing left to do: its journal is synced and stays, its state is done at close. */
mg_status mg_run_end_part(mg_run *run);

/** What a part's state file says of it. */
typedef struct mg_part_report {
  int part, attempt;                                 /**< attempt 0: it was never begun */
  char state[16], stage[32], progress[96], host[64]; /**< "" where there is none */
  char started[24], updated[24];                     /**< ISO 8601, UTC */
} mg_part_report;
mg_status mg_part_read_report(const char *path, int part, mg_part_report *report);

/** What R.state says. *state is "" where there is none. Caller frees both with mg_text_free. */
mg_status mg_run_read_state(const char *result, mg_text *state, mg_text *all);

#endif
