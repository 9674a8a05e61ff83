/*
 * Sources that fail: whose logits are not finite, since a forward pass overflows. That is between a source and a target: its
 * other targets, and all other sources, go on.
 */

#include <stdlib.h>
#include <string.h>

#include "nxn_impl.h"

mg_status mg_nxn_note_nonfinite(mg_nxn_stage *s, const mg_nxn_part *part, const int32_t *predictions) {
  const size_t begin = s->plan.batch[part->first], end = s->plan.batch[part->first + part->count];
  if (s->nonfinite == NULL) s->nonfinite = mg_alloc_zero(s->list->count, sizeof *s->nonfinite);
  if (s->nonfinite == NULL) return MG_ERR_NOMEM;
  uint8_t **bits = &s->nonfinite[part->source];
  for (size_t k = begin; k < end; k++) {
    if (predictions[k - begin] >= 0) continue;
    if (*bits == NULL) *bits = mg_alloc_zero(s->plan.texts.tokenized.sequences.count / 8 + 1, 1);
    if (*bits == NULL) return MG_ERR_NOMEM;
    (*bits)[k / 8] |= (uint8_t)(1u << (k % 8));
  }
  return MG_OK;
}

void mg_nxn_failures_free(mg_nxn_stage *s) {
  for (size_t k = 0; s->nonfinite != NULL && k < s->list->count; k++) free(s->nonfinite[k]);
  for (size_t k = 0; s->failure != NULL && k < s->list->count * s->plan.texts.targets.count; k++) free(s->failure[k]);
  free(s->nonfinite), free(s->failure);
  s->nonfinite = NULL, s->failure = NULL;
}

static bool is_nonfinite(const mg_nxn_stage *s, size_t source, int32_t sequence) {
  return (s->nonfinite[source][sequence / 8] >> (sequence % 8) & 1) != 0;
}

/* *first: the target's first text that the source has no logits for; unchanged where there is none. */
static mg_status look_at(mg_nxn_stage *s, size_t source, size_t target, size_t *first) {
  const mg_nxn_texts *t = &s->plan.texts;
  const mg_target *of = &t->items[target];
  char **failure = &s->failure[source * t->targets.count + target];
  size_t count = 0;
  for (size_t k = of->count; k-- > 0;) {
    if (!is_nonfinite(s, source, t->tokenized.sequence_of[of->text[k]])) continue;
    *first = k;
    count++;
  }
  if (count == 0) return MG_OK;
  s->failed++;
  if (asprintf(failure, "the source's logits are not finite for %zu of %zu texts, the first is %s", count, of->count,
               of->id[*first]) >= 0)
    return MG_OK;
  *failure = NULL;
  return mg_fail(MG_ERR_NOMEM, "out of memory");
}

/* Once a source, however many targets it failed on. */
static mg_status warn_of(const mg_nxn_stage *s, size_t source, size_t failed, size_t target, size_t text) {
  enum { NAMED = 5 };
  const mg_nxn_texts *t = &s->plan.texts;
  const mg_target *of = &t->items[target];
  mg_text names = {0};
  size_t named = 0;
  for (size_t m = 0; m < t->targets.count && named < NAMED && failed < t->targets.count; m++)
    if (mg_nxn_failure(s, source, m) != NULL) mg_text_append(&names, "%s%s", named++ > 0 ? ", " : " (", t->targets.items[m]);
  if (named > 0) mg_text_append(&names, "%s)", failed > named ? ", …" : "");
  const bool whole = !names.failed;
  if (whole)
    mg_warn("source %s has failed on %zu of %zu targets%s: its logits are not finite, first for text %s (%s:%lld); it has no "
            "accuracy there",
            s->list->items[source].id, failed, t->targets.count, names.data != NULL ? names.data : "", of->id[text], of->path,
            (long long)of->line[text]);
  mg_text_free(&names);
  return whole ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
}

static mg_status settle_source(mg_nxn_stage *s, size_t source) {
  mg_status status = MG_OK;
  const size_t targets = s->plan.texts.targets.count, before = s->failed;
  size_t first_target = targets, first_text = 0;
  for (size_t m = 0; m < targets; m++) {
    size_t text = 0;
    MG_TRY(look_at(s, source, m, &text), done);
    if (first_target < targets || mg_nxn_failure(s, source, m) == NULL) continue;
    first_target = m;
    first_text = text;
  }
  if (s->failed > before) MG_TRY(warn_of(s, source, s->failed - before, first_target, first_text), done);
done:
  return status;
}

mg_status mg_nxn_settle(mg_nxn_stage *s) {
  mg_status status = MG_OK;
  const size_t n = s->list->count, m = s->plan.texts.targets.count;
  if (s->failure == NULL) {
    s->failure = mg_alloc_zero(n, m * sizeof *s->failure);
    if (s->failure == NULL) return MG_ERR_NOMEM;
    for (size_t k = 0; k < n; k++)
      if (s->nonfinite != NULL && s->nonfinite[k] != NULL) MG_TRY(settle_source(s, k), done);
  }
  if (s->failed == n * m)
    status = mg_fail(MG_ERR_INPUT, "nxn: every source has failed on every target: none has finite logits; of %s on %s %s",
                     s->list->items[0].id, s->plan.texts.targets.items[0], s->failure[0]);
done:
  return status;
}

const char *mg_nxn_failure(const mg_nxn_stage *s, size_t source, size_t target) {
  return s->failure[source * s->plan.texts.targets.count + target];
}

size_t mg_nxn_failed(const mg_nxn_stage *s) { return s->failed; }
