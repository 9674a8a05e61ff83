/*
 * Rank 0: what finished results know already. Of the run's own result, which is to become larger, everything; of those that
 * `reuse` names, the answers of sources that did not change (and recipes, which the stage grid looks for itself).
 */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "nxn_impl.h"
#include "stage_impl.h"

typedef struct importing {
  mg_attempt *attempt;
  mg_stages *stages;
  const mg_identity *now;
  const char *path;
  mg_identity before;
  mg_result_reader *reader;
  int32_t *row, *predictions; /* of the longest target; [sequences] */
  float *row_logits, *logits;
} importing;

static bool same(const importing *i, const char *name) {
  const char *before = mg_identity_value(&i->before, name), *now = mg_identity_value(i->now, name);
  return before != NULL && now != NULL && strcmp(before, now) == 0;
}

/* Is every input that begins with one of these names the same in both? */
static bool all_same(const importing *i, const char *const *prefixes) {
  for (size_t k = 0; k < i->now->count; k++)
    for (size_t p = 0; prefixes[p] != NULL; p++)
      if (strncmp(i->now->names[k], prefixes[p], strlen(prefixes[p])) == 0 && !same(i, i->now->names[k])) return false;
  return true;
}

/* ---- Grams and CKA, where nothing about them changed ---- */

static mg_status take_gram(importing *i) {
  static const char *const inputs[] = {
      "numeric mode", "compatibility.gram", "compatibility.exclude", "family.", "order of", "base", "source ", NULL};
  mg_status status = MG_OK;
  mg_gram gram = {0};
  if (i->stages->gram == NULL || !mg_result_has(i->reader, "/compatibility") || !all_same(i, inputs)) return MG_OK;
  MG_TRY(mg_result_read_gram(i->reader, &gram), done);
  MG_TRY(mg_gram_stage_adopt(i->stages->gram, &gram), done);
  mg_info("compatibility: inner products are taken from %s", i->path);
done:
  mg_gram_free(&gram);
  return status;
}

static mg_status take_cka(importing *i) {
  static const char *const inputs[] = {"numeric mode of forward passes",
                                       "compatibility.cka",
                                       "probe texts",
                                       "encoder",
                                       "family.",
                                       "order of",
                                       "base",
                                       "source ",
                                       NULL};
  mg_status status = MG_OK;
  double *biased = NULL, *unbiased = NULL;
  if (i->stages->cka == NULL || !mg_result_has(i->reader, "/compatibility/cka") || !all_same(i, inputs)) return MG_OK;
  const mg_cka_plan *plan = mg_cka_stage_plan(i->stages->cka);
  MG_TRY(mg_result_read_cka(i->reader, (size_t)plan->layer_count, i->attempt->roster->list.count, &biased, &unbiased), done);
  mg_cka_adopt(i->stages->cka, biased, unbiased);
  mg_info("cka: taken from %s", i->path);
done:
  return status;
}

/* ---- answers ---- */

/* A target's texts of both parts to predictions (and logits) by sequence. */
static mg_status take_target(importing *i, size_t target, size_t row) {
  mg_status status = MG_OK;
  const mg_nxn_stage *s = i->stages->nxn;
  const mg_nxn_texts *t = &s->plan.texts;
  const mg_target *of = &t->items[target];
  for (int part = 0; part < 2; part++) {
    size_t n = 0;
    if (part == 1 && (t->parts == 1 || of->stands_in)) break;
    MG_TRY(mg_result_read_source(i->reader, part, t->targets.items[target], row, of->part_count[part], s->classes, i->row,
                                 i->row_logits),
           done);
    for (size_t k = 0; k < of->count; k++) {
      if (!mg_nxn_takes_part(s, of, k, part)) continue;
      const size_t sequence = (size_t)t->tokenized.sequence_of[of->text[k]];
      if (i->row[n] < -1 || i->row[n] >= (int32_t)s->classes) /* −1: it has failed, and would again */
        return mg_fail(MG_ERR_INPUT, "%s: a prediction of class %d", i->path, i->row[n]);
      i->predictions[sequence] = i->row[n];
      if (i->logits != NULL)
        memcpy(i->logits + sequence * s->classes, i->row_logits + n * s->classes, s->classes * sizeof *i->logits);
      n++;
    }
  }
done:
  return status;
}

static mg_status make_room(importing *i) {
  const mg_nxn_stage *s = i->stages->nxn;
  const size_t sequences = s->plan.texts.tokenized.sequences.count;
  const bool logits = i->attempt->config->nxn.logits;
  size_t longest = 0;
  for (size_t m = 0; m < s->plan.texts.targets.count; m++)
    if (s->plan.texts.items[m].count > longest) longest = s->plan.texts.items[m].count;
  i->row = mg_alloc(longest, sizeof *i->row);
  i->predictions = mg_alloc(sequences, sizeof *i->predictions);
  i->row_logits = logits ? mg_alloc(longest, s->classes * sizeof *i->row_logits) : NULL;
  i->logits = logits ? mg_alloc(sequences, s->classes * sizeof *i->logits) : NULL;
  return i->row && i->predictions && (!logits || (i->row_logits && i->logits)) ? MG_OK : MG_ERR_NOMEM;
}

static mg_status take_answers(importing *i) {
  static const char *const inputs[] = {
      "numeric mode of forward passes", "nxn.", "texts of the targets", "labels", "classifier", "base", NULL};
  mg_status status = MG_OK;
  mg_nxn_stage *s = i->stages->nxn;
  size_t taken = 0;
  char name[300];
  if (s == NULL || !mg_result_has(i->reader, "/nxn") || !all_same(i, inputs)) return MG_OK;
  MG_TRY(make_room(i), done);
  for (size_t k = 0; k < s->list->count; k++) {
    ptrdiff_t row;
    snprintf(name, sizeof name, "source %s", s->list->items[k].id);
    if (mg_nxn_is_done(s, k) || !same(i, name)) continue;
    MG_TRY(mg_result_source(i->reader, s->list->items[k].id, &row), done);
    if (row < 0) continue;
    for (size_t m = 0; m < s->plan.texts.targets.count; m++) MG_TRY(take_target(i, m, (size_t)row), done);
    MG_TRY(mg_nxn_adopt(s, k, i->predictions, i->logits), done);
    taken++;
  }
  if (taken > 0) mg_info("nxn: answers of %zu of %zu sources are taken from %s", taken, s->list->count, i->path);
done:
  return status;
}

/* ---- a result ---- */

static mg_status import_result(mg_attempt *a, mg_stages *stages, const mg_identity *identity, const char *path) {
  mg_status status = MG_OK;
  importing i = {.attempt = a, .stages = stages, .now = identity, .path = path};
  MG_TRY(mg_result_read_identity(path, &i.before), cleanup);
  MG_TRY(mg_result_open(path, &i.reader), cleanup);
  MG_TRY(take_gram(&i), cleanup);
  MG_TRY(take_cka(&i), cleanup);
  MG_TRY(take_answers(&i), cleanup);
cleanup:
  if (status == MG_ERR_INPUT) { /* it is computed then */
    mg_warn("%s: %s", path, mg_error_message());
    status = MG_OK;
  }
  mg_result_close(&i.reader);
  mg_identity_free(&i.before);
  free(i.row), free(i.predictions), free(i.row_logits), free(i.logits);
  return status;
}

mg_status mg_stages_import(mg_attempt *a, mg_stages *stages, const mg_identity *identity) {
  mg_status status = MG_OK;
  const mg_config *config = a->config;
  if (mg_path_exists(config->result)) MG_TRY(import_result(a, stages, identity, config->result), done);
  for (size_t k = 0; k < config->reuse.count; k++)
    if (mg_path_exists(config->reuse.items[k])) MG_TRY(import_result(a, stages, identity, config->reuse.items[k]), done);
done:
  return status;
}
