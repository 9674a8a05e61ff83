/* Answers out of the journals, a source at a time, as rows of the result. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/score.h"
#include "nxn_impl.h"

void mg_nxn_answers_free(mg_nxn_stage *s) {
  free(s->predictions), free(s->logits), free(s->labels), free(s->accuracy), free(s->all), free(s->kept_of);
  for (size_t m = 0; s->texts != NULL && m < s->plan.texts.targets.count; m++) free((void *)(uintptr_t)s->texts[m].partition);
  free(s->texts);
  s->predictions = NULL, s->logits = NULL, s->labels = NULL, s->accuracy = NULL, s->texts = NULL, s->all = NULL;
  s->kept_of = NULL;
}

/* All answers of a source; a later record of the same texts holds the same. */
static mg_status recall(mg_nxn_stage *s, size_t source) {
  mg_status status = MG_OK;
  if (s->answering == (ptrdiff_t)source) return MG_OK;
  s->answering = -1;
  for (size_t k = 0; k < s->kept_count; k++) {
    const mg_nxn_part *part = &s->kept[k].part;
    mg_record record;
    if (part->source != source) continue;
    MG_TRY(mg_run_read(s->attempt->run, s->kept[k].place, &record), done);
    const size_t begin = s->plan.batch[part->first], texts = s->plan.batch[part->first + part->count] - begin;
    const char *at = (const char *)record.payload + sizeof *part;
    memcpy(s->predictions + begin, at, texts * sizeof *s->predictions);
    if (s->logits != NULL)
      memcpy(s->logits + begin * s->classes, at + texts * sizeof *s->predictions, texts * s->classes * sizeof *s->logits);
  }
  s->answering = (ptrdiff_t)source;
done:
  return status;
}

bool mg_nxn_takes_part(const mg_nxn_stage *s, const mg_target *target, size_t text, int part) {
  return target->part[text] == (s->plan.texts.parts == 1 || target->stands_in ? 0 : part);
}

bool mg_nxn_parts_are_one(const mg_nxn_texts *texts) {
  bool one = true;
  for (size_t m = 0; m < texts->targets.count; m++) one = one && (texts->parts == 1 || texts->items[m].stands_in);
  return one;
}

static mg_status answer(void *context, size_t source, int part, size_t target, int32_t *predictions, float *logits,
                        mg_scores *scores) {
  mg_nxn_stage *s = context;
  mg_status status = MG_OK;
  const mg_nxn_texts *t = &s->plan.texts;
  const mg_target *of = &t->items[target];
  size_t n = 0;
  MG_TRY(recall(s, source), done);
  for (size_t k = 0; k < of->count; k++) {
    if (!mg_nxn_takes_part(s, of, k, part)) continue;
    const size_t sequence = (size_t)t->tokenized.sequence_of[of->text[k]];
    predictions[n] = s->predictions[sequence];
    s->labels[n] = of->label[k];
    if (logits != NULL) memcpy(logits + n * s->classes, s->logits + sequence * s->classes, s->classes * sizeof *logits);
    n++;
  }
  if (mg_nxn_failure(s, source, target) == NULL)
    MG_TRY(mg_score(s->labels, predictions, n, s->classes, scores), done);
  else
    *scores = (mg_scores){.accuracy = NAN, .macro_f1 = NAN};
  s->accuracy[((size_t)part * s->list->count + source) * t->targets.count + target] = scores->accuracy;
done:
  return status;
}

/* ---- for the grid: all predictions at once, logits where they are asked for ---- */

static mg_status read_all_predictions(mg_nxn_stage *s) {
  mg_status status = MG_OK;
  const size_t sequences = s->plan.texts.tokenized.sequences.count, batches = s->plan.batch_count;
  for (size_t k = 0; k < s->list->count * batches; k++) s->kept_of[k] = -1;
  for (size_t k = 0; k < s->kept_count; k++) {
    const mg_nxn_part *part = &s->kept[k].part;
    const size_t begin = s->plan.batch[part->first], texts = s->plan.batch[part->first + part->count] - begin;
    MG_TRY(mg_run_read_part(s->attempt->run, s->kept[k].place, sizeof *part, texts * sizeof(int32_t),
                            s->all + part->source * sequences + begin),
           done);
    for (size_t b = part->first; b < part->first + part->count; b++) s->kept_of[part->source * batches + b] = (int32_t)k;
  }
done:
  return status;
}

/* NaN where the source has failed: the share of right ones among the others would pass for that of all. */
static double accuracy_of(const mg_nxn_stage *s, size_t source, size_t target, int part) {
  const mg_nxn_texts *t = &s->plan.texts;
  const mg_target *of = &t->items[target];
  const int32_t *predictions = s->all + source * t->tokenized.sequences.count;
  size_t right = 0, n = 0;
  if (mg_nxn_failure(s, source, target) != NULL) return NAN;
  for (size_t k = 0; k < of->count; k++) {
    if (!mg_nxn_takes_part(s, of, k, part)) continue;
    right += predictions[t->tokenized.sequence_of[of->text[k]]] == of->label[k];
    n++;
  }
  return (double)right / (double)n;
}

mg_status mg_nxn_score(mg_nxn_stage *s) {
  mg_status status = MG_OK;
  const mg_nxn_texts *t = &s->plan.texts;
  const size_t n = s->list->count, m = t->targets.count;
  if (s->all != NULL) return MG_OK;
  MG_TRY(mg_nxn_settle(s), done);
  s->all = mg_alloc(n, t->tokenized.sequences.count * sizeof *s->all);
  s->kept_of = mg_alloc(n, s->plan.batch_count * sizeof *s->kept_of);
  s->accuracy = mg_alloc(2 * n, m * sizeof *s->accuracy);
  if (s->all == NULL || s->kept_of == NULL || s->accuracy == NULL) return MG_ERR_NOMEM;
  MG_TRY(read_all_predictions(s), done);
  for (int part = 0; part < 2; part++)
    for (size_t k = 0; k < n; k++)
      for (size_t c = 0; c < m; c++) s->accuracy[((size_t)part * n + k) * m + c] = accuracy_of(s, k, c, part);
done:
  return status;
}

const int32_t *mg_nxn_predictions(const mg_nxn_stage *s) { return s->all; }

const double *mg_nxn_accuracy(const mg_nxn_stage *s, int part) {
  return s->accuracy + (size_t)part * s->list->count * s->plan.texts.targets.count;
}

const int32_t *mg_nxn_class_of(const mg_nxn_stage *s) { return s->class_of; }

mg_status mg_nxn_logits(mg_nxn_stage *s, size_t source, const int64_t *sequences, size_t count, float *logits) {
  mg_status status = MG_OK;
  const size_t row = s->classes * sizeof *logits;
  size_t batch = 0;
  if (!s->attempt->config->nxn.logits)
    return mg_fail(MG_ERR_INPUT, "logits are not kept (nxn.logits: false), and this vote goes by them");
  for (size_t k = 0; k < count; k++) {
    const size_t sequence = (size_t)sequences[k];
    if (k > 0 && sequence < (size_t)sequences[k - 1]) batch = 0;
    while (s->plan.batch[batch + 1] <= sequence) batch++;
    const mg_nxn_kept *kept = &s->kept[s->kept_of[source * s->plan.batch_count + batch]];
    const size_t begin = s->plan.batch[kept->part.first], texts = s->plan.batch[kept->part.first + kept->part.count] - begin;
    const size_t at = sizeof kept->part + texts * sizeof(int32_t) + (sequence - begin) * row;
    MG_TRY(mg_run_read_part(s->attempt->run, kept->place, at, row, logits + k * s->classes), done);
  }
done:
  return status;
}

/* Names of the texts' partitions, as the result has them. */
static mg_status describe_texts(mg_nxn_stage *s) {
  const mg_nxn_texts *t = &s->plan.texts;
  const char *names[2] = {mg_partition_name(s->attempt->config->nxn.partition),
                          mg_partition_name(s->attempt->config->nxn.select)};
  s->texts = mg_alloc_zero(t->targets.count, sizeof *s->texts);
  if (s->texts == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < t->targets.count; m++) {
    const mg_target *of = &t->items[m];
    const char **partition = mg_alloc(of->count, sizeof *partition);
    if (partition == NULL) return MG_ERR_NOMEM;
    for (size_t k = 0; k < of->count; k++) partition[k] = names[of->part[k]];
    s->texts[m] = (mg_result_texts){.count = of->count,
                                    .part_count = {of->part_count[0], of->part_count[1]},
                                    .stands_in = of->stands_in,
                                    .id = (const char *const *)of->id,
                                    .partition = partition,
                                    .label = of->label};
  }
  return MG_OK;
}

mg_status mg_nxn_collect(mg_nxn_stage *s, mg_result_nxn *out) {
  mg_status status = MG_OK;
  const mg_nxn_texts *t = &s->plan.texts;
  const bool logits = s->attempt->config->nxn.logits;
  const size_t sequences = t->tokenized.sequences.count, n = s->list->count;
  size_t longest = 0;
  for (size_t m = 0; m < t->targets.count; m++)
    if (t->items[m].count > longest) longest = t->items[m].count;
  s->answering = -1;
  s->predictions = mg_alloc(sequences, sizeof *s->predictions);
  s->logits = logits ? mg_alloc(sequences, s->classes * sizeof *s->logits) : NULL;
  s->labels = mg_alloc(longest, sizeof *s->labels);
  if (s->accuracy == NULL) s->accuracy = mg_alloc(2 * n, t->targets.count * sizeof *s->accuracy);
  if (!s->predictions || (logits && !s->logits) || !s->labels || !s->accuracy) return MG_ERR_NOMEM;
  MG_TRY(mg_nxn_settle(s), done);
  MG_TRY(describe_texts(s), done);
  *out = (mg_result_nxn){
      .targets = &t->targets,
      .labels = &t->labels,
      .texts = s->texts,
      .partition = {mg_partition_name(s->attempt->config->nxn.partition), mg_partition_name(s->attempt->config->nxn.select)},
      .classes = s->classes,
      .logits = logits,
      .accuracy = s->accuracy,
      .failures = (const char *const *)s->failure,
      .context = s,
      .answer = answer};
done:
  return status;
}
