/* A run: the result is taken, the family looked at, its shards brought up to date, then the stages one after another. */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "mergegrid/stop.h"
#include "mergegrid/version.h"
#include "stage_impl.h"

static const double SYNC_SECONDS = 3;

/* ---- what stages share ---- */

bool mg_stage_wanted(const mg_config *config, const char *name) { return mg_strings_find(&config->stages, name) >= 0; }

mg_status mg_attempt_keep_going(mg_attempt *a, const char *stage, const char *progress) {
  mg_status status = MG_OK;
  MG_TRY(mg_run_sync(a->run, SYNC_SECONDS), done);
  MG_TRY(mg_run_report(a->run, "running", stage, progress, ""), done);
  if (a->options->max_hours > 0 && mg_now() - a->began > a->options->max_hours * 3600) mg_stop_request();
done:
  return status;
}

void mg_attempt_timed(mg_attempt *a, const char *part, double began) {
  a->timings[a->timing_count++] = (mg_timing){.name = part, .seconds = mg_now() - began};
}

mg_status mg_attempt_share(const mg_attempt *a, mg_status status, void **items, size_t *count, size_t item_bytes) {
  size_t size = *count * item_bytes;
  MG_TRY(mg_agree(a->comm, status), done);
  MG_TRY(mg_broadcast_bytes(a->comm, items, &size), done);
  *count = size / item_bytes;
done:
  return status;
}

mg_status mg_attempt_poll(void *context) { return mg_farm_poll_now(context); }

mg_status mg_identity_add_hash(mg_identity *identity, const char *what, uint64_t hash) {
  char value[17];
  return mg_identity_add(identity, what, mg_hash_text(hash, value));
}

/* ---- identity ---- */

static mg_status identify_family(const mg_attempt *a, mg_identity *identity) {
  mg_status status = MG_OK;
  mg_text order = {0};
  char *name = NULL;
  const mg_source_list *list = &a->roster->list;
  for (size_t k = 0; k < list->count; k++) mg_text_append(&order, "%s\n", list->items[k].id);
  for (size_t k = 0; k < list->skipped.count; k++) mg_text_append(&order, "skipped %s\n", list->skipped.items[k]);
  if (order.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status != MG_OK) goto cleanup;
  MG_TRY(mg_identity_add(identity, "family.allow_nonfinite", a->config->family.allow_nonfinite ? "true" : "false"), cleanup);
  MG_TRY(mg_identity_add_hash(identity, "order of the sources", mg_hash(order.data, order.size)), cleanup);
  MG_TRY(mg_identity_add_hash(identity, "base", mg_rows_identity(a->rows, MG_ROW_BASE)), cleanup);
  for (size_t k = 0; k < list->count; k++) {
    free(name);
    if (asprintf(&name, "source %s", list->items[k].id) < 0) {
      name = NULL;
      status = mg_fail(MG_ERR_NOMEM, "out of memory");
      goto cleanup;
    }
    MG_TRY(mg_identity_add_hash(identity, name, mg_rows_identity(a->rows, (ptrdiff_t)k)), cleanup);
  }
cleanup:
  free(name);
  mg_text_free(&order);
  return status;
}

static mg_status identify(const mg_attempt *a, const mg_stages *stages, mg_identity *identity) {
  mg_status status = MG_OK;
  char mode[256];
  if (stages->gram != NULL) MG_TRY(mg_gram_stage_identify(stages->gram, identity), done);
  MG_TRY(identify_family(a, identity), done);
  if (stages->cka != NULL || stages->nxn != NULL || stages->microscope != NULL)
    MG_TRY(mg_identity_add(identity, "numeric mode of forward passes", mg_encoder_numeric_mode(a->device, mode, sizeof mode)),
           done);
  if (stages->cka != NULL) MG_TRY(mg_cka_identify(stages->cka, identity), done);
  if (stages->nxn != NULL) MG_TRY(mg_nxn_identify(stages->nxn, identity), done);
done:
  return status;
}

/* ---- what earlier attempts have done ---- */

static mg_status replay(void *context, const mg_record *record) {
  const mg_stages *stages = context;
  mg_status status = MG_OK;
  if (stages->gram != NULL) status = mg_gram_stage_replay(stages->gram, record);
  if (status == MG_OK && stages->cka != NULL) status = mg_cka_replay(stages->cka, record);
  if (status == MG_OK && stages->nxn != NULL) status = mg_nxn_replay(stages->nxn, record);
  if (status == MG_OK && stages->grid != NULL) status = mg_grid_stage_replay(stages->grid, record);
  if (status == MG_OK && stages->microscope != NULL) status = mg_microscope_replay(stages->microscope, record);
  /* Whole by its checksum, and yet no part of this work: what it held is computed again. */
  if (status == MG_ERR_INTERNAL || status == MG_ERR_CORRUPT) {
    mg_warn("a journal record is left out: %s", mg_error_message());
    return MG_OK;
  }
  return status;
}

/* Of what no identity tells: the cells of the grid, the setups of the microscope. */
static mg_status is_covered(void *context, const char *result, bool *covered) {
  mg_status status = MG_OK;
  const mg_stages *stages = context;
  bool same = true;
  *covered = true;
  if (stages->grid != NULL) MG_TRY(mg_grid_stage_covered(stages->grid, result, covered), done);
  if (stages->microscope != NULL) MG_TRY(mg_microscope_covered(stages->microscope, result, &same), done);
  *covered = *covered && same;
done:
  return status;
}

/* *complete: the result is there, computed from the same inputs. */
static mg_status take_over(mg_attempt *a, mg_stages *stages, mg_identity *identity, bool *complete) {
  mg_status status = MG_OK;
  int already = 0;
  if (a->rank == 0) {
    status = identify(a, stages, identity);
    if (status == MG_OK) status = mg_run_check(a->run, identity, is_covered, stages, complete);
    if (status == MG_OK && !*complete) status = mg_run_replay(a->run, replay, stages);
    if (status == MG_OK && !*complete) status = mg_run_replay_joined(a->run, identity, replay, stages);
    if (status == MG_OK && !*complete) status = mg_stages_import(a, stages, identity);
    already = *complete;
  }
  MG_TRY(mg_agree(a->comm, status), done);
  MPI_Bcast(&already, 1, MPI_INT, 0, a->comm);
  *complete = already;
done:
  return status;
}

/* ---- ranks of one kind ---- */

/* The same program, and the same arithmetic where it shows in the bits. That rows are in chains follows from the shards, of
   which every rank is told. */
static mg_status agree_on_program(const mg_attempt *a) {
  mg_status status = MG_OK;
  char text[512];
  snprintf(text, sizeof text, "%s %s", mg_version(), mg_git_describe());
  MG_TRY(mg_agree_text(a->comm, "mergegrid's version", text), done);
  if (mg_stage_wanted(a->config, "compatibility"))
    MG_TRY(mg_agree_text(a->comm, "the numeric mode of Grams", mg_gram_stage_numeric_mode(a, text, sizeof text)), done);
  if (mg_cka_wanted(a->config) || mg_stage_wanted(a->config, "nxn") || mg_stage_wanted(a->config, "microscope"))
    MG_TRY(mg_agree_text(a->comm, "the numeric mode of forward passes", mg_encoder_numeric_mode(a->device, text, sizeof text)),
           done);
done:
  return status;
}

/* ---- the story ---- */

/* Rank 0 alone knows of the texts, and so of what the forward passes of all ranks need. */
static mg_status reserve_device(mg_attempt *a, const mg_plans *plans) {
  mg_device_need need = mg_device_need_of(plans);
  MPI_Bcast(&need, (int)sizeof need, MPI_BYTE, 0, a->comm);
  return mg_attempt_reserve_device(a, &need);
}

static mg_status open_stages(mg_attempt *a, mg_stages *stages) {
  mg_status status = MG_OK;
  MG_TRY(mg_agree(a->comm, mg_ops_get(a->config->compute.backend, &a->ops)), done);
  if (mg_stage_wanted(a->config, "compatibility")) MG_TRY(mg_gram_stage_open(a, &stages->gram), done);
  if (mg_cka_wanted(a->config)) MG_TRY(mg_cka_open(a, &stages->cka), done);
  if (mg_stage_wanted(a->config, "nxn")) MG_TRY(mg_nxn_open(a, &stages->nxn), done);
  if (mg_stage_wanted(a->config, "grid")) MG_TRY(mg_grid_stage_open(a, stages, &stages->grid), done);
  if (mg_stage_wanted(a->config, "microscope")) MG_TRY(mg_microscope_open(a, stages, &stages->microscope), done);
  const mg_plans plans = mg_stages_plans(stages);
  const mg_status fits = mg_memory_hold(a->config, &plans);
  MG_TRY(mg_agree(a->comm, a->rank == 0 ? fits : MG_OK), done);
  MG_TRY(reserve_device(a, &plans), done);
done:
  return status;
}

mg_plans mg_stages_plans(const mg_stages *stages) {
  return (mg_plans){.gram = stages->gram != NULL ? mg_gram_stage_plan(stages->gram) : NULL,
                    .cka = stages->cka != NULL ? mg_cka_stage_plan(stages->cka) : NULL,
                    .nxn = stages->nxn != NULL ? mg_nxn_stage_plan(stages->nxn) : NULL,
                    .grid = stages->grid != NULL ? mg_grid_stage_plan(stages->grid) : NULL,
                    .microscope = stages->microscope != NULL ? mg_microscope_stage_plan(stages->microscope) : NULL};
}

static void close_stages(mg_stages *stages) {
  mg_microscope_close(&stages->microscope);
  mg_grid_stage_close(&stages->grid);
  mg_gram_stage_close(&stages->gram);
  mg_cka_close(&stages->cka);
  mg_nxn_close(&stages->nxn);
}

/* What others build on. */
static mg_status compute_first(const mg_attempt *a, mg_stages *stages) {
  mg_status status = MG_OK;
  if (mg_parts_only_gather(&a->parts)) return MG_OK;
  if (stages->gram != NULL) MG_TRY(mg_gram_stage_compute(stages->gram), done);
  if (stages->cka != NULL) MG_TRY(mg_cka_compute(stages->cka), done);
  if (stages->nxn != NULL) MG_TRY(mg_nxn_compute(stages->nxn), done);
done:
  return status;
}

static mg_status compute(mg_attempt *a, mg_stages *stages, const mg_identity *identity) {
  mg_status status = MG_OK;
  const bool more = stages->grid != NULL || stages->microscope != NULL;
  MG_TRY(compute_first(a, stages), done);
  /* a part that has no more to do waits for nobody */
  if (more || mg_parts_only_gather(&a->parts)) MG_TRY(mg_parts_meet(a, stages, identity, replay), done);
  if (stages->grid != NULL) MG_TRY(mg_grid_stage_compute(stages->grid), done);
  MG_TRY(mg_parts_hold(a), done);
  if (stages->microscope != NULL) MG_TRY(mg_microscope_compute(stages->microscope), done);
  MG_TRY(mg_parts_hold(a), done);
done:
  return status;
}

/* A part is done with its journal. */
static mg_status end_part(const mg_attempt *a) {
  mg_info("part %d of %d is done; once all are, mergegrid gather -c %s writes %s", a->parts.part, a->parts.count,
          a->config->file, a->config->result);
  return mg_agree(a->comm, a->rank == 0 ? mg_run_end_part(a->run) : MG_OK);
}

static mg_status gather_and_write(mg_attempt *a, const mg_stages *stages, const mg_identity *identity) {
  mg_status status = MG_OK;
  mg_rank_report *reports = NULL;
  a->mine.peak_bytes = mg_peak_memory();
  gethostname(a->mine.host, sizeof a->mine.host - 1);
  if (a->device != NULL) a->device->ops->place(a->device, a->mine.device, sizeof a->mine.device);
  reports = mg_alloc_zero((size_t)a->ranks, sizeof *reports);
  MG_TRY(mg_agree(a->comm, reports == NULL ? MG_ERR_NOMEM : MG_OK), cleanup);
  MPI_Gather(&a->mine, (int)sizeof a->mine, MPI_BYTE, reports, (int)sizeof a->mine, MPI_BYTE, 0, a->comm);
  MG_TRY(mg_agree(a->comm, a->rank == 0 ? mg_outcome_write(a, stages, identity, reports) : MG_OK), cleanup);
cleanup:
  free(reports);
  return status;
}

/* Rank 0. In the stages that were asked for alone: what else the result holds is not this run's. */
static mg_status find_failures(const mg_attempt *a, const mg_stages *stages, mg_failures *failed) {
  const mg_status status = mg_result_failures(a->config->result, failed);
  if (stages->nxn == NULL) failed->evaluations = 0;
  if (stages->grid == NULL) failed->cells = 0;
  if (stages->microscope == NULL) failed->setups = 0;
  return status;
}

static mg_status run_stages(mg_attempt *a, mg_failures *failed) {
  mg_status status = MG_OK;
  mg_stages stages = {0};
  mg_identity identity = {0};
  bool complete = false;
  MG_TRY(open_stages(a, &stages), cleanup);
  MG_TRY(take_over(a, &stages, &identity, &complete), cleanup);
  if (complete) {
    mg_info("%s is complete and was computed from the same inputs: nothing to do (--fresh starts over)", a->config->result);
    MG_TRY(mg_agree(a->comm, a->rank == 0 ? find_failures(a, &stages, failed) : MG_OK), cleanup);
    goto cleanup;
  }
  if (a->config->shards.stage_to != NULL && !mg_parts_only_gather(&a->parts)) MG_TRY(mg_attempt_stage_shards(a), cleanup);
  MG_TRY(compute(a, &stages, &identity), cleanup);
  if (a->parts.part > 0) {
    MG_TRY(end_part(a), cleanup);
    goto cleanup;
  }
  MG_TRY(gather_and_write(a, &stages, &identity), cleanup);
  if (stages.nxn != NULL) failed->evaluations = mg_nxn_failed(stages.nxn);
  if (stages.grid != NULL) failed->cells = mg_grid_stage_failed(stages.grid);
  if (stages.microscope != NULL) failed->setups = mg_microscope_failed(stages.microscope);
cleanup:
  if (status == MG_OK) MPI_Bcast(failed, (int)sizeof *failed, MPI_BYTE, 0, a->comm);
  close_stages(&stages);
  mg_identity_free(&identity);
  return status;
}

/* A variable that is not set is known before hours of packing. */
static mg_status check_stage_to(const mg_config *config) {
  char *dir = NULL;
  const mg_status status = config->shards.stage_to != NULL ? mg_config_stage_dir(config, &dir) : MG_OK;
  free(dir);
  return status;
}

mg_status mg_stage_run(MPI_Comm comm, const mg_config *config, const mg_run_options *options, mg_failures *failed) {
  mg_status status = MG_OK;
  *failed = (mg_failures){0};
  mg_roster roster = {0};
  mg_attempt a = {.comm = comm, .config = config, .options = options, .roster = &roster, .began = mg_now()};
  MPI_Comm_rank(comm, &a.rank);
  MPI_Comm_size(comm, &a.ranks);
  mg_utc_now(a.started);
  MG_TRY(mg_attempt_open_device(&a), cleanup);
  MG_TRY(agree_on_program(&a), cleanup);
  MG_TRY(mg_agree(comm, check_stage_to(config)), cleanup);
  MG_TRY(mg_parts_open(&a), cleanup);
  MG_TRY(mg_roster_open_all(comm, config, &roster), cleanup);
  MG_TRY(mg_agree(comm, a.rank == 0 ? mg_inputs_check(config) : MG_OK), cleanup);
  mg_attempt_timed(&a, "family", a.began);
  const double packing = mg_now();
  if (config->shards.dir != NULL) MG_TRY(mg_parts_pack(&a), cleanup);
  mg_attempt_timed(&a, "pack", packing);
  MG_TRY(mg_attempt_open_rows(&a), cleanup);
  a.threads = mg_threads_auto(comm, config->compute.threads);
  MG_TRY(mg_attempt_print_places(&a), cleanup);
  MG_TRY(run_stages(&a, failed), cleanup);
cleanup:
  mg_rows_close(&a.rows);
  mg_device_close(&a.device);
  mg_roster_close(&roster);
  mg_parts_close(&a);
  if (a.run != NULL) mg_run_close(&a.run, status);
  return status;
}
