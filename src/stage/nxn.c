/*
 * The stage nxn: every source on every target's texts. Each different text goes through each source once; its logits are
 * journaled as they arrive and stay there until the result is written, source by source.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "mergegrid/score.h"
#include "nxn_impl.h"

/* ---- opening ---- */

static mg_status match_classes(const mg_attempt *a, size_t classes, int32_t *class_of) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < a->roster->list.count; k++)
    MG_TRY(mg_roster_class_of(a->config, a->roster, k, &a->roster->labels, classes, class_of + k * classes), done);
done:
  return status;
}

static mg_status prepare(mg_nxn_stage *s) {
  mg_status status = MG_OK;
  mg_weights weights;
  const mg_attempt *a = s->attempt;
  if (a->rank == 0) MG_TRY(mg_nxn_plan_end(a->config, s->list->count, a->threads, a->device, &s->plan), done);
  MG_TRY(mg_row_weights_open(a->rows, s->list, &s->weights), done);
  mg_row_weights_source(s->weights, 0, &weights);
  MG_TRY(mg_encoder_shape_check(&s->plan.shape, &weights), done);
  s->classes = (size_t)s->plan.shape.classes;
  s->class_of = mg_alloc(s->list->count, s->classes * sizeof *s->class_of);
  if (s->class_of == NULL) return MG_ERR_NOMEM;
  if (a->rank == 0) MG_TRY(match_classes(a, s->classes, s->class_of), done);
  if (a->rank == 0) {
    s->done = mg_alloc_zero(s->list->count, s->plan.batch_count * sizeof *s->done);
    if (s->done == NULL) return MG_ERR_NOMEM;
  }
done:
  return status;
}

/* What rank 0 has read, to all. */
static mg_status share(mg_nxn_stage *s) {
  mg_status status = MG_OK;
  const MPI_Comm comm = s->attempt->comm;
  MG_TRY(mg_tokenized_share(comm, &s->plan.texts.tokenized), done);
  MPI_Bcast(s->class_of, (int)(s->list->count * s->classes), MPI_INT32_T, 0, comm);
  MG_TRY(mg_agree(comm, s->attempt->rank == 0 ? MG_OK : mg_nxn_batches(&s->plan, s->attempt->device)), done);
done:
  return status;
}

mg_status mg_nxn_open(mg_attempt *attempt, mg_nxn_stage **stage) {
  mg_status status = MG_OK;
  mg_nxn_stage *s = mg_alloc_zero(1, sizeof *s);
  MG_TRY(mg_agree(attempt->comm, s != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  *s = (mg_nxn_stage){.attempt = attempt, .list = &attempt->roster->list, .loaded = -1};
  MG_TRY(mg_agree(attempt->comm, mg_nxn_plan_begin(attempt->config, mg_rows_table(attempt->rows), &s->plan)), failed);
  MG_TRY(
      mg_nxn_texts_read_all(attempt->comm, attempt->config, s->list, &attempt->roster->labels, &s->plan.shape, &s->plan.texts),
      failed);
  MG_TRY(mg_agree(attempt->comm, prepare(s)), failed);
  MG_TRY(share(s), failed);
  *stage = s;
  return MG_OK;
failed:
  mg_nxn_close(&s);
  return status;
}

void mg_nxn_close(mg_nxn_stage **stage) {
  mg_nxn_stage *s = *stage;
  if (s == NULL) return;
  mg_encoder_destroy(&s->encoder);
  mg_row_weights_close(&s->weights);
  mg_nxn_answers_free(s);
  mg_nxn_failures_free(s);
  mg_nxn_plan_free(&s->plan);
  free(s->class_of), free(s->done), free(s->kept), free(s->todo);
  free(s);
  *stage = NULL;
}

const mg_nxn_plan *mg_nxn_stage_plan(const mg_nxn_stage *s) { return &s->plan; }

mg_status mg_nxn_identify(const mg_nxn_stage *s, mg_identity *identity) {
  mg_status status = MG_OK;
  const mg_nxn_texts *t = &s->plan.texts;
  uint64_t labels = 0, texts = t->tokenized.hash;
  for (size_t k = 0; k < t->labels.count; k++)
    labels = mg_hash_more(labels, t->labels.items[k], strlen(t->labels.items[k]) + 1);
  for (size_t m = 0; m < t->targets.count; m++) {
    const mg_target *target = &t->items[m];
    texts = mg_hash_more(texts, t->targets.items[m], strlen(t->targets.items[m]) + 1);
    texts = mg_hash_more(texts, target->label, target->count * sizeof *target->label);
    texts = mg_hash_more(texts, target->part, target->count);
    for (size_t k = 0; k < target->count; k++) texts = mg_hash_more(texts, target->id[k], strlen(target->id[k]) + 1);
  }
  MG_TRY(mg_identity_add(identity, "nxn.partition", mg_partition_name(s->attempt->config->nxn.partition)), done);
  MG_TRY(mg_identity_add(identity, "nxn.select", mg_partition_name(s->attempt->config->nxn.select)), done);
  MG_TRY(mg_identity_add(identity, "nxn.logits", s->attempt->config->nxn.logits ? "true" : "false"), done);
  MG_TRY(mg_identity_add_hash(identity, "texts of the targets", texts), done);
  MG_TRY(mg_identity_add_hash(identity, "labels", labels), done);
  MG_TRY(mg_identity_add_hash(identity, "classes of the sources",
                              mg_hash(s->class_of, s->list->count * s->classes * sizeof *s->class_of)),
         done);
  MG_TRY(mg_identity_add_hash(identity, "classifier", mg_hash(&s->plan.shape, sizeof s->plan.shape)), done);
done:
  return status;
}

/* ---- answers arrive ---- */

static size_t answer_bytes(const mg_nxn_stage *s) {
  return sizeof(int32_t) + (s->attempt->config->nxn.logits ? s->classes * sizeof(float) : 0);
}

static const int32_t *predictions_of(const void *payload) {
  return (const int32_t *)(const void *)((const char *)payload + sizeof(mg_nxn_part));
}

static mg_status check_answers(const mg_nxn_stage *s, const void *payload, size_t size, mg_nxn_part *part) {
  if (size < sizeof *part) return mg_fail(MG_ERR_CORRUPT, "a record of answers has %zu bytes", size);
  memcpy(part, payload, sizeof *part);
  if (part->source >= s->list->count || part->first >= s->plan.batch_count || part->count == 0 ||
      part->count > s->plan.batch_count - part->first)
    return mg_fail(MG_ERR_CORRUPT, "a record of answers of a source or of texts that are not there");
  const size_t begin = s->plan.batch[part->first], end = s->plan.batch[part->first + part->count];
  if (size != sizeof *part + (end - begin) * answer_bytes(s))
    return mg_fail(MG_ERR_CORRUPT, "a record of answers to %zu texts has %zu bytes", end - begin, size);
  for (size_t k = 0; k < end - begin; k++) /* −1: none, its logits are not finite */
    if (predictions_of(payload)[k] < -1 || predictions_of(payload)[k] >= (int32_t)s->classes)
      return mg_fail(MG_ERR_CORRUPT, "a record of answers has a class that is none");
  return MG_OK;
}

/* Notes that a record at `place` has these. */
static mg_status keep(mg_nxn_stage *s, const mg_nxn_part *part, const int32_t *predictions, mg_record_place place) {
  if (s->kept_count == s->kept_room) {
    const size_t room = s->kept_room > 0 ? 2 * s->kept_room : 1024;
    mg_nxn_kept *grown = reallocarray(s->kept, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    s->kept = grown;
    s->kept_room = room;
  }
  s->kept[s->kept_count++] = (mg_nxn_kept){.part = *part, .place = place};
  for (size_t b = part->first; b < part->first + part->count; b++) {
    bool *done = &s->done[part->source * s->plan.batch_count + b];
    if (!*done) s->done_texts += s->plan.batch[b + 1] - s->plan.batch[b];
    *done = true;
  }
  return mg_nxn_note_nonfinite(s, part, predictions);
}

mg_status mg_nxn_replay(mg_nxn_stage *s, const mg_record *record) {
  mg_status status = MG_OK;
  mg_nxn_part part;
  if (record->kind != MG_RECORD_LOGITS) return MG_OK;
  MG_TRY(check_answers(s, record->payload, record->size, &part), done);
  MG_TRY(keep(s, &part, predictions_of(record->payload), record->place), done);
done:
  return status;
}

/* ---- the farm's side ---- */

/*
 * Each row's largest logit. Where one is not finite there is no prediction, and none of the row's logits is kept: which of them
 * are infinite and which NaN, and with what sign, hangs on the order of the last operations.
 */
static void predict(const mg_nxn_stage *s, size_t source, size_t texts, float *logits, float *row, int32_t *predictions) {
  const size_t classes = s->classes;
  const int32_t *class_of = s->class_of + source * classes;
  for (size_t t = 0; t < texts; t++) {
    float *own = logits + t * classes;
    for (size_t c = 0; c < classes; c++) row[class_of[c]] = own[c];
    memcpy(own, row, classes * sizeof *row);
    if (mg_predict(own, 1, classes, &predictions[t], NULL) == MG_OK) continue;
    predictions[t] = -1;
    for (size_t c = 0; c < classes; c++) own[c] = NAN;
  }
}

static mg_status load(mg_nxn_stage *s, size_t source) {
  mg_status status = MG_OK;
  mg_weights weights;
  if (s->loaded == (ptrdiff_t)source) return MG_OK;
  s->loaded = -1;
  mg_row_weights_source(s->weights, source, &weights);
  MG_TRY(mg_encoder_load(s->encoder, &weights), done);
  s->loaded = (ptrdiff_t)source;
done:
  return status;
}

static mg_status compute_part(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_nxn_stage *s = context;
  mg_status status = MG_OK;
  const mg_nxn_part part = s->todo[unit];
  const size_t begin = s->plan.batch[part.first], end = s->plan.batch[part.first + part.count], texts = end - begin;
  float *logits = mg_alloc(texts + 1, s->classes * sizeof *logits);
  int32_t *predictions = mg_alloc(texts, sizeof *predictions);
  if (logits == NULL || predictions == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(load(s, part.source), cleanup);
  /* the encoder's rows are numbered by text of the whole table; ours begin with the first of this part */
  const mg_sequences own = {
      .count = texts, .ids = s->plan.texts.tokenized.ids, .offset = s->plan.texts.tokenized.offset + begin};
  const mg_encoder_want want = {.logits = logits, .context = poll, .poll = mg_attempt_poll};
  MG_TRY(mg_encoder_run(s->encoder, &own, 0, texts, &want), cleanup);
  predict(s, part.source, texts, logits, logits + texts * s->classes, predictions);
  mg_text_append_bytes(payload, &part, sizeof part);
  mg_text_append_bytes(payload, predictions, texts * sizeof *predictions);
  if (s->attempt->config->nxn.logits) mg_text_append_bytes(payload, logits, texts * s->classes * sizeof *logits);
  s->attempt->mine.units++;
cleanup:
  free(logits), free(predictions);
  return status;
}

static mg_status take_part(void *context, int64_t unit, const void *payload, size_t size) {
  mg_nxn_stage *s = context;
  mg_status status = MG_OK;
  mg_nxn_part part;
  mg_record_place place;
  (void)unit;
  MG_TRY(check_answers(s, payload, size, &part), done);
  MG_TRY(mg_run_append(s->attempt->run, MG_RECORD_LOGITS, payload, size, &place), done);
  MG_TRY(keep(s, &part, predictions_of(payload), place), done);
done:
  return status;
}

bool mg_nxn_is_done(const mg_nxn_stage *s, size_t source) {
  for (size_t b = 0; b < s->plan.batch_count; b++)
    if (!s->done[source * s->plan.batch_count + b]) return false;
  return true;
}

mg_status mg_nxn_adopt(mg_nxn_stage *s, size_t source, const int32_t *predictions, const float *logits) {
  mg_status status = MG_OK;
  mg_text record = {0};
  mg_record_place place;
  const size_t sequences = s->plan.texts.tokenized.sequences.count;
  const mg_nxn_part part = {.source = (uint32_t)source, .count = (uint32_t)s->plan.batch_count};
  mg_text_append_bytes(&record, &part, sizeof part);
  mg_text_append_bytes(&record, predictions, sequences * sizeof *predictions);
  if (s->attempt->config->nxn.logits) mg_text_append_bytes(&record, logits, sequences * s->classes * sizeof *logits);
  if (record.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) status = mg_run_append(s->attempt->run, MG_RECORD_LOGITS, record.data, record.size, &place);
  if (status == MG_OK) status = keep(s, &part, predictions, place);
  mg_text_free(&record);
  return status;
}

static mg_status tick(void *context) {
  mg_nxn_stage *s = context;
  char text[64];
  snprintf(text, sizeof text, "%zu of %zu texts", s->done_texts, s->all_texts);
  mg_progress_update(&s->progress, (double)s->done_texts);
  return mg_attempt_keep_going(s->attempt, "nxn", text);
}

/* ---- what is left ---- */

void mg_nxn_lacking(mg_nxn_stage *s) {
  mg_parts *parts = &s->attempt->parts;
  const int64_t all = (int64_t)(s->list->count * s->plan.batch_count);
  for (int64_t k = 0; k < all; k++)
    if (!s->done[k]) mg_parts_lack(parts, mg_share_of(parts, k, all), MG_SHARE_NXN);
}

/* What is not done, of all or of this part's share. */
static mg_status list_todo(mg_nxn_stage *s) {
  const size_t all = s->list->count * s->plan.batch_count;
  bool *skip = mg_alloc(all, sizeof *skip);
  if (skip == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < all; k++) skip[k] = s->done[k] || !mg_share_is_ours(&s->attempt->parts, (int64_t)k, (int64_t)all);
  const mg_status status = mg_nxn_parts(&s->plan, s->list->count, s->attempt->ranks, skip, &s->todo, &s->todo_count);
  free(skip);
  return status;
}

static mg_status share_todo(mg_nxn_stage *s) {
  const mg_status listed = s->attempt->rank == 0 ? list_todo(s) : MG_OK;
  void *data = s->todo;
  const mg_status status = mg_attempt_share(s->attempt, listed, &data, &s->todo_count, sizeof *s->todo);
  s->todo = data;
  return status;
}

mg_status mg_nxn_compute(mg_nxn_stage *s) {
  mg_status status = MG_OK;
  mg_attempt *a = s->attempt;
  const mg_tokenized *t = &s->plan.texts.tokenized;
  const double began = mg_now();
  MG_TRY(share_todo(s), done);
  MG_TRY(mg_agree(a->comm, mg_encoder_create(&s->plan.shape, t->tokens, t->token_count, a->threads, a->device, &s->encoder)),
         done);
  s->all_texts = s->done_texts;
  for (size_t k = 0; k < s->todo_count; k++)
    s->all_texts += s->plan.batch[s->todo[k].first + s->todo[k].count] - s->plan.batch[s->todo[k].first];
  if (s->done_texts > 0)
    mg_info("continuing: %.0f%% of the answers are in the journal", 100 * (double)s->done_texts / (double)s->all_texts);
  mg_info("nxn: %zu sources on %zu texts of %zu targets (%zu different, %lld tokens)", s->list->count, t->count,
          s->plan.texts.targets.count, t->sequences.count, (long long)t->offset[t->sequences.count]);
  mg_progress_begin(&s->progress, "nxn", (double)s->all_texts, (double)s->done_texts, 1, "texts");
  const mg_farm_job job = {
      .units = (int64_t)s->todo_count, .context = s, .work = compute_part, .take = take_part, .tick = tick};
  MG_TRY(mg_farm_run(a->comm, &job), done);
  mg_progress_end(&s->progress, (double)s->done_texts);
  mg_attempt_timed(a, "nxn", began);
  mg_encoder_destroy(&s->encoder);
  /* said, and refused where nothing is left, before hours of merging; a part has only its share */
  MG_TRY(mg_agree(a->comm, a->rank == 0 && a->parts.part == 0 ? mg_nxn_settle(s) : MG_OK), done);
done:
  return status;
}
