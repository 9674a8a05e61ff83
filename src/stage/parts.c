/* A result computed by several jobs that know nothing of each other: whose share is what, and how they come together. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "stage_impl.h"

static const double SEEN_SECONDS = 5; /* file systems over a network show new files at once, if not always the very moment */

/* ---- shares ---- */

int64_t mg_share_begin(const mg_parts *parts, int part, int64_t total) {
  return ((part - 1) * total + parts->count - 1) / parts->count;
}

int mg_share_of(const mg_parts *parts, int64_t position, int64_t total) { return (int)(position * parts->count / total) + 1; }

bool mg_parts_only_gather(const mg_parts *parts) { return parts->count > 0 && parts->part == 0 && !parts->compute; }

bool mg_share_is_ours(const mg_parts *parts, int64_t position, int64_t total) {
  if (parts->part == 0) return !mg_parts_only_gather(parts);
  return mg_share_of(parts, position, total) == parts->part;
}

void mg_parts_lack(mg_parts *parts, int part, mg_share share) { parts->lacking[part - 1] |= 1u << share; }

/* ---- taking the result ---- */

static mg_status open_part(mg_attempt *a) {
  mg_status status = MG_OK;
  const char *result = a->config->result;
  char *path = mg_part_path(result, a->parts.part, a->parts.count);
  if (path == NULL) return MG_ERR_NOMEM;
  if (a->options->mode == MG_RUN_FRESH && mg_path_exists(result)) {
    status =
        mg_fail(MG_ERR_INPUT, "%s is there: --fresh starts a part over, not the result; remove it, or name another", result);
    goto cleanup;
  }
  MG_TRY(mg_run_open(path, a->options->mode, &a->run), cleanup);
  MG_TRY(mg_run_be_part(a->run, result), cleanup);
cleanup:
  free(path);
  return status;
}

/* Into how many parts it was divided, from what they have left. */
static mg_status find_count(mg_attempt *a) {
  const char *result = a->config->result;
  int *found = NULL;
  size_t count = 0;
  mg_text numbers = {0};
  mg_status status = mg_parts_find(result, &found, &count);
  if (status != MG_OK || a->parts.count > 0) goto cleanup;
  for (size_t k = 0; k < count; k++) mg_text_append(&numbers, "%s%d", k ? ", " : "", found[k]);
  if (count == 0 && !mg_path_exists(result))
    status = mg_fail(MG_ERR_INPUT, "%s: there are no parts of it to gather; mergegrid run -c %s --part 1/N begins one of N",
                     result, a->config->file);
  else if (count > 1)
    status = mg_fail(MG_ERR_INPUT, "%s: there are parts of %s: --parts says which are to be gathered", result,
                     numbers.failed ? "several numbers" : numbers.data);
  a->parts.count = count > 0 ? found[0] : 1; /* of a result that is there, nothing has to be */
cleanup:
  mg_text_free(&numbers);
  free(found);
  return status;
}

/* A part that is at work is no part to gather. */
static mg_status join_all(mg_attempt *a) {
  mg_status status = MG_OK;
  for (int part = 1; part <= a->parts.count && status == MG_OK; part++) {
    mg_part_report report;
    char *path = mg_part_path(a->config->result, part, a->parts.count);
    if (path == NULL) return MG_ERR_NOMEM;
    status = mg_part_read_report(path, part, &report);
    if (status == MG_OK && report.attempt > 0) status = mg_run_join(a->run, part, path, true);
    free(path);
    if (status == MG_ERR_BUSY)
      status = mg_fail(MG_STOPPED, "part %d of %d is at work (host %s, since %s; %s %s): gather when it has ended", part,
                       a->parts.count, report.host, report.started, report.stage, report.progress);
  }
  return status;
}

static mg_status open_gathering(mg_attempt *a) {
  mg_status status = MG_OK;
  MG_TRY(find_count(a), done);
  MG_TRY(mg_run_open(a->config->result, MG_RUN_CONTINUE, &a->run), done);
  MG_TRY(join_all(a), done);
done:
  return status;
}

/* The one job takes nothing from parts that somebody began: that is worth knowing before the night is over. */
static mg_status open_whole(mg_attempt *a) {
  mg_status status = MG_OK;
  int *found = NULL;
  size_t count = 0;
  MG_TRY(mg_run_open(a->config->result, a->options->mode, &a->run), done);
  MG_TRY(mg_parts_find(a->config->result, &found, &count), done);
  if (count > 0)
    mg_warn("%s: there are parts of it, which this run does not look at: mergegrid gather -c %s puts them together",
            a->config->result, a->config->file);
done:
  free(found);
  return status;
}

/* Only rank 0 writes there; but the next attempt may have its rank 0 on any host of this one. */
static mg_status agree_on_place(const mg_attempt *a) {
  mg_status status = MG_OK;
  char id[MG_RUN_ID] = "", *path = NULL;
  const char *result = a->config->result;
  if (a->rank == 0) memcpy(id, mg_run_id(a->run), sizeof id);
  MPI_Bcast(id, sizeof id, MPI_CHAR, 0, a->comm);
  if (a->rank > 0 && a->parts.part > 0) {
    path = mg_part_path(result, a->parts.part, a->parts.count);
    if (path == NULL) status = MG_ERR_NOMEM;
  }
  if (a->rank > 0 && status == MG_OK) status = mg_run_is_seen(path != NULL ? path : result, id, SEEN_SECONDS);
  free(path);
  return mg_agree(a->comm, status);
}

mg_status mg_parts_open(mg_attempt *a) {
  mg_status status = MG_OK;
  const mg_run_options *options = a->options;
  a->parts = (mg_parts){.part = options->part, .count = options->parts, .compute = options->compute_missing};
  if (a->rank == 0) {
    if (options->part > 0)
      status = open_part(a);
    else if (options->gather)
      status = open_gathering(a);
    else
      status = open_whole(a);
  }
  MG_TRY(mg_agree(a->comm, status), done);
  MPI_Bcast(&a->parts.count, 1, MPI_INT, 0, a->comm);
  if (a->parts.count > 0) a->parts.lacking = mg_alloc_zero((size_t)a->parts.count, sizeof *a->parts.lacking);
  MG_TRY(mg_agree(a->comm, a->parts.count > 0 && a->parts.lacking == NULL ? MG_ERR_NOMEM : MG_OK), done);
  MG_TRY(agree_on_place(a), done);
done:
  return status;
}

void mg_parts_close(mg_attempt *a) {
  free(a->parts.lacking);
  a->parts = (mg_parts){0};
}

static mg_status lock_shards(const char *dir, int *lock) {
  mg_status status = MG_OK;
  char *path = mg_path_join(dir, ".lock");
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_make_dirs(dir), cleanup);
  MG_TRY(mg_lock_wait(path, lock), cleanup);
cleanup:
  free(path);
  return status;
}

mg_status mg_parts_pack(const mg_attempt *a) {
  mg_status status = MG_OK;
  int lock = -1;
  if (a->rank == 0 && a->parts.part > 0) status = lock_shards(a->config->shards.dir, &lock);
  MG_TRY(mg_agree(a->comm, status), cleanup);
  MG_TRY(mg_pack_family(a->comm, a->config, a->roster, false), cleanup);
cleanup:
  if (lock >= 0) close(lock);
  return status;
}

/* ---- what is not there ---- */

static void describe_shares(unsigned lacking, mg_text *text) {
  static const char *const names[] = {[MG_SHARE_GRAM] = "task_vector_cosine",
                                      [MG_SHARE_CKA] = "cka",
                                      [MG_SHARE_NXN] = "nxn",
                                      [MG_SHARE_GRID] = "grid",
                                      [MG_SHARE_MICROSCOPE] = "microscope"};
  const char *between = "";
  for (unsigned s = 0; s < MG_SHARES; s++) {
    if ((lacking & 1u << s) == 0) continue;
    mg_text_append(text, "%s%s", between, names[s]);
    between = ", ";
  }
}

static mg_status read_report(const mg_attempt *a, int part, mg_part_report *report) {
  char *path = mg_part_path(a->config->result, part, a->parts.count);
  const mg_status status = path != NULL ? mg_part_read_report(path, part, report) : MG_ERR_NOMEM;
  free(path);
  return status;
}

mg_status mg_parts_report(const mg_attempt *a, mg_part_report **reports) {
  mg_status status = MG_OK;
  *reports = mg_alloc_zero((size_t)a->parts.count, sizeof **reports);
  if (*reports == NULL) return MG_ERR_NOMEM;
  for (int part = 1; part <= a->parts.count; part++) MG_TRY(read_report(a, part, &(*reports)[part - 1]), done);
done:
  return status;
}

/* "part 2 of 3 (stopped, host a, 2026-01-31T12:00:00Z) lacks nxn", a line each. */
static mg_status describe_lacking(const mg_attempt *a, mg_text *text) {
  for (int part = 1; part <= a->parts.count; part++) {
    mg_part_report report;
    if (a->parts.lacking[part - 1] == 0) continue;
    const mg_status status = read_report(a, part, &report);
    if (status != MG_OK) return status;
    mg_text_append(text, "\n  part %d of %d ", part, a->parts.count);
    if (report.attempt == 0)
      mg_text_append(text, "(never begun)");
    else
      mg_text_append(text, "(%s, host %s, %s)", report.state, report.host, report.updated);
    mg_text_append(text, " lacks ");
    describe_shares(a->parts.lacking[part - 1], text);
  }
  return text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

static mg_status check_lacking(const mg_attempt *a) {
  mg_text text = {0};
  mg_status status = describe_lacking(a, &text);
  if (status == MG_OK && text.size > 0) {
    if (a->parts.part > 0)
      status =
          mg_fail(MG_STOPPED,
                  "part %d of %d has done its share of what comes first; the rest begins when the others have: run it again "
                  "then:%s",
                  a->parts.part, a->parts.count, text.data);
    else
      status = mg_fail(MG_STOPPED,
                       "%s: not all parts are done: run those that lack something (mergegrid run -c %s --part I/%d) and gather "
                       "again, or let --compute-missing compute it here:%s",
                       a->config->result, a->config->file, a->parts.count, text.data);
  }
  mg_text_free(&text);
  return status;
}

mg_status mg_parts_hold(mg_attempt *a) {
  return mg_agree(a->comm, a->rank == 0 && mg_parts_only_gather(&a->parts) ? check_lacking(a) : MG_OK);
}

/* ---- coming together ---- */

static mg_status join_others(mg_attempt *a, const mg_identity *identity, mg_journal_visit visit, void *context) {
  mg_status status = MG_OK;
  for (int part = 1; part <= a->parts.count; part++) {
    if (part == a->parts.part) continue;
    char *path = mg_part_path(a->config->result, part, a->parts.count);
    status = path != NULL ? mg_run_join(a->run, part, path, false) : MG_ERR_NOMEM;
    free(path);
    if (status != MG_OK) return status;
  }
  return mg_run_replay_joined(a->run, identity, visit, context);
}

static mg_status meet(mg_attempt *a, mg_stages *stages, const mg_identity *identity, mg_journal_visit visit) {
  mg_status status = MG_OK;
  if (a->parts.part > 0) MG_TRY(join_others(a, identity, visit, stages), done);
  if (stages->gram != NULL) MG_TRY(mg_gram_stage_lacking(stages->gram), done);
  if (stages->cka != NULL) mg_cka_lacking(stages->cka);
  if (stages->nxn != NULL) mg_nxn_lacking(stages->nxn);
  MG_TRY(check_lacking(a), done);
done:
  return status;
}

mg_status mg_parts_meet(mg_attempt *a, mg_stages *stages, const mg_identity *identity, mg_journal_visit visit) {
  if (a->parts.count == 0) return MG_OK;
  return mg_agree(a->comm, a->rank == 0 ? meet(a, stages, identity, visit) : MG_OK);
}
