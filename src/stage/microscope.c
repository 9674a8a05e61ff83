/*
 * The stage microscope: what a reference and any number of models differ in, and what each does with some texts. Setups become
 * models; tensors, cut into pieces, and models' forward passes are units that are dealt to the ranks and journaled as they
 * arrive.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "microscope_impl.h"

/* ---- what it all hangs on ---- */

static uint64_t hash_text(uint64_t hash, const char *text) {
  return mg_hash_more(hash, text != NULL ? text : "", text != NULL ? strlen(text) + 1 : 1);
}

/* A file's content, so that a matrix that changed is seen to have. */
static mg_status hash_file(const char *path, uint64_t *hash) {
  enum { LARGEST = 1 << 30 };
  char *data = NULL;
  size_t size;
  const mg_status status = mg_read_file(path, LARGEST, &data, &size);
  if (status == MG_OK) *hash = mg_hash_more(*hash, data, size);
  free(data);
  return status;
}

static mg_status hash_directory(const char *dir, uint64_t *hash) {
  mg_status status = MG_OK;
  mg_checkpoint *checkpoint = NULL;
  MG_TRY(mg_checkpoint_open(dir, &checkpoint), cleanup);
  for (size_t k = 0; k < checkpoint->files.count; k++) {
    mg_file_stamp stamp;
    MG_TRY(mg_file_stamp_get(checkpoint->files.items[k], &stamp), cleanup);
    *hash = mg_hash_more(*hash, &stamp.size, sizeof stamp.size);
    *hash = mg_hash_more(*hash, &stamp.mtime_ns, sizeof stamp.mtime_ns);
    *hash = mg_hash_more(*hash, &stamp.inode, sizeof stamp.inode);
  }
cleanup:
  mg_checkpoint_close(&checkpoint);
  return status;
}

/* The section and what is read for it; not the family and the other stages, which have identities of their own. */
static mg_status make_digest(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  const mg_config *config = s->attempt->config;
  const mg_grid_spec *grid = &config->grid;
  char mode[256];
  uint64_t hash = hash_text(mg_hash("microscope 1", 12), config->microscope.padding);
  bool terms = false;
  hash = mg_hash_more(hash, &config->seed, sizeof config->seed);
  hash = hash_text(hash, s->plan.signals ? mg_encoder_numeric_mode(s->attempt->device, mode, sizeof mode) : "");
  if (s->plan.signals) hash = mg_hash_more(hash, &s->plan.shape, sizeof s->plan.shape);
  hash = mg_hash_more(hash, &s->plan.probes.hash, sizeof s->plan.probes.hash);
  for (size_t k = 0; k < s->setup_count; k++) {
    const mg_setup *said = s->setups[k].said;
    hash = hash_text(hash_text(hash, said->name), said->note);
    if (said->kind != MG_SETUP_PATH) hash = hash_text(hash, said->yaml);
    hash = mg_hash_more(hash, &s->setups[k].exists, sizeof s->setups[k].exists);
    if (said->kind == MG_SETUP_PATH && s->setups[k].exists) MG_TRY(hash_directory(said->what, &hash), done);
    terms = terms || said->kind == MG_SETUP_RECIPE;
  }
  for (size_t k = 0; terms && k < grid->similarity_names.count; k++)
    if (strcmp(grid->similarity_files.items[k], "nxn") != 0) MG_TRY(hash_file(grid->similarity_files.items[k], &hash), done);
  if (terms && strcmp(grid->compatibility.tv, "stage") != 0) MG_TRY(hash_file(grid->compatibility.tv, &hash), done);
  if (terms && strcmp(grid->compatibility.cka, "stage") != 0) MG_TRY(hash_file(grid->compatibility.cka, &hash), done);
  s->digest = hash;
done:
  return status;
}

/* With what setups have come to. */
static uint64_t make_key(const mg_microscope_stage *s) {
  const mg_scope_work *w = &s->work;
  uint64_t key = mg_hash_more(s->digest, w->models, w->model_count * sizeof *w->models);
  key = mg_hash_more(key, w->sources, w->source_count * sizeof *w->sources);
  key = mg_hash_more(key, w->weights, w->weight_count * sizeof *w->weights);
  key = mg_hash_more(key, w->has, w->has_count);
  return mg_hash_more(key, s->dots != NULL ? "gram" : "none", 4);
}

mg_status mg_microscope_covered(const mg_microscope_stage *s, const char *result, bool *covered) {
  char *digest = NULL, own[17];
  const mg_status status = mg_result_microscope_digest(result, &digest);
  *covered = status == MG_OK && digest != NULL && strcmp(digest, mg_hash_text(s->digest, own)) == 0;
  free(digest);
  return status;
}

/* ---- opening ---- */

static mg_status match_classes(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  const mg_roster *roster = s->attempt->roster;
  const size_t classes = s->stages->nxn != NULL ? s->stages->nxn->classes : roster->labels.count;
  s->deltas = (mg_deltas){.rows = s->attempt->rows, .classes = classes};
  if (classes == 0) return MG_OK;
  s->class_of = mg_alloc(s->list->count, classes * sizeof *s->class_of);
  s->deltas.class_of = s->class_of;
  if (s->class_of == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; s->attempt->rank == 0 && k < s->list->count; k++)
    MG_TRY(mg_roster_class_of(s->attempt->config, roster, k, &roster->labels, classes, s->class_of + k * classes), done);
done:
  return status;
}

static mg_status prepare(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  const mg_attempt *a = s->attempt;
  const size_t cells = s->stages->grid != NULL ? s->stages->grid->grid.count : 0;
  MG_TRY(
      mg_microscope_plan_make(a->config, s->list, mg_rows_table(a->rows), a->threads, a->device, a->rank == 0, cells, &s->plan),
      done);
  MG_TRY(match_classes(s), done);
  if (a->rank != 0) return MG_OK;
  if (!s->plan.signals) mg_warn("microscope: no attention, hidden states and logits: %s", s->plan.no_signals);
  MG_TRY(mg_scope_examine(s), done);
  MG_TRY(make_digest(s), done);
done:
  return status;
}

/* What rank 0 has read, to all. */
static mg_status share(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  const MPI_Comm comm = s->attempt->comm;
  mg_microscope_plan *plan = &s->plan;
  int signals = plan->signals;
  MPI_Bcast(&signals, 1, MPI_INT, 0, comm);
  plan->signals = plan->signals && signals;        /* the tokenizer is known to rank 0 alone */
  MPI_Bcast(&s->digest, 1, MPI_UINT64_T, 0, comm); /* it is in the key of every rank's records */
  MG_TRY(mg_agree(comm, signals == plan->signals ? MG_OK
                                                 : mg_fail(MG_ERR_INPUT, "%s: config.json is another one for some ranks",
                                                           s->attempt->config->family.base)),
         done);
  if (s->class_of != NULL) MPI_Bcast(s->class_of, (int)(s->list->count * s->deltas.classes), MPI_INT32_T, 0, comm);
  if (!plan->signals) return MG_OK;
  MG_TRY(mg_tokenized_share(comm, &plan->probes), done);
  void *keys = plan->keys;
  size_t size = plan->keys != NULL ? plan->probes.sequences.count * sizeof *plan->keys : 0;
  MG_TRY(mg_broadcast_bytes(comm, &keys, &size), done);
  plan->keys = keys;
  plan->probes.sequences.keys = size > 0 ? plan->keys : NULL;
done:
  return status;
}

mg_status mg_microscope_open(mg_attempt *attempt, const mg_stages *stages, mg_microscope_stage **stage) {
  mg_status status = MG_OK;
  mg_microscope_stage *s = mg_alloc_zero(1, sizeof *s);
  MG_TRY(mg_agree(attempt->comm, s != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  *s = (mg_microscope_stage){.attempt = attempt, .stages = stages, .list = &attempt->roster->list};
  MG_TRY(mg_agree(attempt->comm, prepare(s)), failed);
  MG_TRY(share(s), failed);
  *stage = s;
  return MG_OK;
failed:
  mg_microscope_close(&s);
  return status;
}

void mg_microscope_close(mg_microscope_stage **stage) {
  mg_microscope_stage *s = *stage;
  if (s == NULL) return;
  mg_scope_worker_close(&s->worker);
  mg_scope_tables_free(s);
  mg_scope_setups_free(s);
  for (size_t u = 0; s->numbers != NULL && u < s->unit_count; u++) free(s->numbers[u]);
  mg_scope_work_free(&s->work);
  mg_microscope_plan_free(&s->plan);
  mg_shared_destroy(&s->dots);
  free(s->class_of), free(s->todo), free(s->places), free(s->heads), free(s->numbers), free(s);
  *stage = NULL;
}

const mg_microscope_plan *mg_microscope_stage_plan(const mg_microscope_stage *s) { return &s->plan; }

/* ---- the journal ---- */

static mg_status check_record(const void *payload, size_t size, mg_scope_record *record) {
  if (size < sizeof *record) return mg_fail(MG_ERR_CORRUPT, "a record of the microscope has %zu bytes", size);
  memcpy(record, payload, sizeof *record);
  if (size != sizeof *record + record->failures * sizeof(mg_scope_failure) + record->count * sizeof(double))
    return mg_fail(MG_ERR_CORRUPT, "a record of the microscope has %zu bytes", size);
  return MG_OK;
}

/* Which of them still hold is known once setups are resolved. */
mg_status mg_microscope_replay(mg_microscope_stage *s, const mg_record *record) {
  mg_status status = MG_OK;
  mg_scope_record head;
  if (record->kind != MG_RECORD_SCOPE) return MG_OK;
  MG_TRY(check_record(record->payload, record->size, &head), done);
  if (s->place_count == s->place_room) {
    const size_t room = s->place_room > 0 ? 2 * s->place_room : 64;
    mg_record_place *places = reallocarray(s->places, room, sizeof *places);
    if (places != NULL) s->places = places;
    mg_scope_record *heads = reallocarray(s->heads, room, sizeof *heads);
    if (heads != NULL) s->heads = heads;
    if (places == NULL || heads == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    s->place_room = room;
  }
  s->places[s->place_count] = record->place;
  s->heads[s->place_count++] = head;
done:
  return status;
}

static mg_status keep_failure(mg_microscope_stage *s, uint32_t unit, const char *at) {
  mg_scope_failure failure;
  memcpy(&failure, at, sizeof failure);
  failure.message[sizeof failure.message - 1] = '\0';
  for (size_t k = 0; k < s->setup_count; k++) {
    mg_scope_setup *setup = &s->setups[k];
    if (setup->model != (ptrdiff_t)failure.model || (setup->error != NULL && setup->failed_in <= unit)) continue;
    free(setup->error);
    setup->error = mg_strdup(failure.message);
    setup->failed_in = unit;
    if (setup->error == NULL) return MG_ERR_NOMEM;
  }
  return MG_OK;
}

/* A unit's numbers, and who failed. */
static mg_status keep(mg_microscope_stage *s, const void *payload, size_t size) {
  mg_status status = MG_OK;
  mg_scope_record head;
  const char *at = (const char *)payload + sizeof head;
  MG_TRY(check_record(payload, size, &head), done);
  if (head.unit >= s->unit_count || head.count != mg_scope_doubles(&s->work, &s->plan, head.unit))
    return mg_fail(MG_ERR_CORRUPT, "a record of the microscope of a unit that is not there");
  for (uint32_t f = 0; f < head.failures; f++, at += sizeof(mg_scope_failure)) MG_TRY(keep_failure(s, head.unit, at), done);
  s->done += s->numbers[head.unit] == NULL;
  free(s->numbers[head.unit]);
  s->numbers[head.unit] = mg_alloc(head.count, sizeof(double));
  if (s->numbers[head.unit] == NULL) return MG_ERR_NOMEM;
  memcpy(s->numbers[head.unit], at, head.count * sizeof(double));
done:
  return status;
}

/* Units in turn, since forward passes are the last and the longest. */
static bool is_ours(mg_microscope_stage *s, size_t unit) {
  mg_parts *parts = &s->attempt->parts;
  if (parts->count == 0 || (parts->part == 0 && parts->compute)) return true;
  const int owner = (int)(unit % (size_t)parts->count) + 1;
  if (parts->part == 0) mg_parts_lack(parts, owner, MG_SHARE_MICROSCOPE);
  return owner == parts->part;
}

static mg_status recall(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  s->numbers = mg_alloc_zero(s->unit_count, sizeof *s->numbers);
  s->todo = mg_alloc(s->unit_count, sizeof *s->todo);
  if (s->numbers == NULL || s->todo == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->place_count; k++) {
    mg_record record;
    if (s->heads[k].key != s->key) continue;
    MG_TRY(mg_run_read(s->attempt->run, s->places[k], &record), done);
    MG_TRY(keep(s, record.payload, record.size), done);
  }
  if (s->done > 0) mg_info("continuing: %zu of %zu units of the microscope are in the journal", s->done, s->unit_count);
  /* forward passes first: they take longest */
  for (size_t u = s->unit_count; u-- > 0;)
    if (s->numbers[u] == NULL && is_ours(s, u)) s->todo[s->todo_count++] = (int64_t)u;
done:
  return status;
}

/* ---- the farm's side ---- */

static mg_status compute_unit(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_microscope_stage *s = context;
  const double began = mg_now();
  const mg_status status = mg_scope_worker_unit(s->worker, (size_t)s->todo[unit], payload, poll);
  s->attempt->mine.units++;
  s->attempt->mine.busy_seconds += mg_now() - began;
  return status;
}

static mg_status take_unit(void *context, int64_t unit, const void *payload, size_t size) {
  mg_microscope_stage *s = context;
  mg_status status = MG_OK;
  (void)unit;
  MG_TRY(mg_run_append(s->attempt->run, MG_RECORD_SCOPE, payload, size, NULL), done);
  MG_TRY(keep(s, payload, size), done);
done:
  return status;
}

static mg_status tick(void *context) {
  mg_microscope_stage *s = context;
  char text[64];
  snprintf(text, sizeof text, "%zu of %zu units", s->done, s->unit_count);
  mg_progress_update(&s->progress, (double)s->done);
  return mg_attempt_keep_going(s->attempt, "microscope", text);
}

/* ---- to all ranks ---- */

static mg_status share_work(mg_microscope_stage *s, mg_status resolved) {
  mg_status status = mg_agree(s->attempt->comm, resolved);
  mg_scope_work *w = &s->work;
  void *models = w->models, *sources = w->sources, *weights = w->weights, *has = w->has;
  const struct {
    void **items;
    size_t *count, bytes;
  } lists[] = {{&models, &w->model_count, sizeof *w->models},
               {&sources, &w->source_count, sizeof *w->sources},
               {&weights, &w->weight_count, sizeof *w->weights},
               {&has, &w->has_count, sizeof *w->has}};
  for (size_t k = 0; k < sizeof lists / sizeof *lists && status == MG_OK; k++)
    status = mg_attempt_share(s->attempt, status, lists[k].items, lists[k].count, lists[k].bytes);
  w->models = models, w->sources = sources, w->weights = weights, w->has = has;
  if (status == MG_OK) status = mg_agree(s->attempt->comm, mg_scope_cut(mg_rows_table(s->attempt->rows), w));
  if (status != MG_OK) return status;
  s->unit_count = w->delta_units + (s->plan.signals ? w->model_count : 0);
  s->key = make_key(s);
  return MG_OK;
}

static mg_status share_todo(mg_microscope_stage *s) {
  const mg_status listed = s->attempt->rank == 0 ? recall(s) : MG_OK;
  void *data = s->todo;
  const mg_status status = mg_attempt_share(s->attempt, listed, &data, &s->todo_count, sizeof *s->todo);
  s->todo = data;
  return status;
}

/* ---- the story ---- */

mg_status mg_microscope_compute(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  mg_attempt *a = s->attempt;
  const double began = mg_now();
  MG_TRY(mg_share_grams(a, s->stages->gram, &s->dots, &s->gram), done);
  MG_TRY(share_work(s, a->rank == 0 ? mg_scope_resolve(s) : MG_OK), done);
  MG_TRY(share_todo(s), done);
  const mg_scope_terms terms = {.attempt = a,
                                .deltas = &s->deltas,
                                .gram = s->dots != NULL ? &s->gram : NULL,
                                .list = s->list,
                                .work = &s->work,
                                .plan = &s->plan,
                                .labels = &a->roster->labels,
                                .key = s->key};
  MG_TRY(mg_agree(a->comm, mg_scope_worker_open(&terms, &s->worker)), done);
  if (a->rank == 0)
    mg_info("microscope: %zu models and the reference on %zu texts, %zu parameters", s->work.model_count - 1,
            s->plan.signals ? s->plan.probes.count : 0, mg_rows_table(a->rows)->count);
  mg_progress_begin(&s->progress, "microscope", (double)s->unit_count, (double)s->done, 1, "units");
  const mg_farm_job job = {
      .units = (int64_t)s->todo_count, .context = s, .work = compute_unit, .take = take_unit, .tick = tick};
  MG_TRY(mg_farm_run(a->comm, &job), done);
  mg_progress_end(&s->progress, (double)s->done);
  mg_attempt_timed(a, "microscope", began);
  mg_scope_worker_close(&s->worker);
done:
  return status;
}

mg_status mg_microscope_collect(mg_microscope_stage *s, mg_result_microscope *out) { return mg_scope_tables_make(s, out); }

size_t mg_microscope_failed(const mg_microscope_stage *s) {
  size_t failed = 0;
  for (size_t k = 0; k < s->setup_count; k++)
    failed += strcmp(mg_setup_status(s->setups[k].exists, s->setups[k].error), "failed") == 0;
  return failed;
}
