/* Ensembles: votes over answers that the stage nxn has, target by target, journaled as merges are. No forward pass. */

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/statistics.h"

/* What the votes of one target share. */
typedef struct polling {
  mg_grid_stage *s;
  size_t target, texts;
  const int64_t *sequences;
  float **logits;        /* [N], read when a vote asks for them */
  int32_t **predictions; /* [N] */
  const float **logits_of;
  const int32_t **predictions_of;
  int32_t *result;
} polling;

static mg_status begin(mg_grid_stage *s, size_t target, polling *p) {
  const size_t n = s->list->count;
  *p = (polling){.s = s,
                 .target = target,
                 .texts = (size_t)(s->work.first_of[target + 1] - s->work.first_of[target]),
                 .sequences = s->work.sequences + s->work.first_of[target]};
  p->logits = mg_alloc_zero(n, sizeof *p->logits);
  p->predictions = mg_alloc_zero(n, sizeof *p->predictions);
  p->logits_of = mg_alloc(n, sizeof *p->logits_of);
  p->predictions_of = mg_alloc(n, sizeof *p->predictions_of);
  p->result = mg_alloc(p->texts, sizeof *p->result);
  return p->logits && p->predictions && p->logits_of && p->predictions_of && p->result ? MG_OK : MG_ERR_NOMEM;
}

static void end(polling *p) {
  for (size_t k = 0; p->s != NULL && k < p->s->list->count; k++) {
    if (p->logits != NULL) free(p->logits[k]);
    if (p->predictions != NULL) free(p->predictions[k]);
  }
  free(p->logits), free(p->predictions), free(p->logits_of), free(p->predictions_of), free(p->result);
  *p = (polling){0};
}

static mg_status ask(polling *p, size_t source, bool logits) {
  mg_status status = MG_OK;
  mg_grid_stage *s = p->s;
  const int32_t *all = mg_nxn_predictions(s->nxn) + source * s->nxn->plan.texts.tokenized.sequences.count;
  if (!logits && p->predictions[source] == NULL) {
    p->predictions[source] = mg_alloc(p->texts, sizeof(int32_t));
    if (p->predictions[source] == NULL) return MG_ERR_NOMEM;
    for (size_t k = 0; k < p->texts; k++) p->predictions[source][k] = all[p->sequences[k]];
  }
  if (logits && p->logits[source] == NULL) {
    float *read = mg_alloc(p->texts, s->nxn->classes * sizeof *read);
    if (read == NULL) return MG_ERR_NOMEM;
    status = mg_nxn_logits(s->nxn, source, p->sequences, p->texts, read);
    if (status == MG_OK)
      p->logits[source] = read;
    else
      free(read);
  }
  return status;
}

/* Voters in the order of their weights, as merginguriel asks them: of equal votes the first one's counts. */
static void order_voters(const mg_resolved *r, size_t *order) {
  for (size_t k = 0; k < r->count; k++) {
    size_t at = k;
    for (; at > 0 && r->weight[order[at - 1]] < r->weight[k]; at--) order[at] = order[at - 1];
    order[at] = k;
  }
}

static mg_vote_kind kind_of(const mg_method *method) {
  if (strcmp(method->name, "soft") == 0) return MG_VOTE_SOFT;
  if (strcmp(method->name, "uriel_logits") == 0) return MG_VOTE_LOGITS;
  return strcmp(method->name, "majority") == 0 ? MG_VOTE_MAJORITY : MG_VOTE_WEIGHTED_MAJORITY;
}

static mg_status vote(polling *p, size_t cell) {
  mg_status status = MG_OK;
  mg_grid_stage *s = p->s;
  mg_grid_cell *c = &s->cells[cell];
  const mg_resolved *r = &c->resolved;
  const mg_vote_kind kind = kind_of(s->grid.cells[cell].terms.method);
  const bool logits = kind == MG_VOTE_SOFT || kind == MG_VOTE_LOGITS;
  size_t *order = mg_alloc(r->count, sizeof *order);
  double *weights = mg_alloc(r->count, sizeof *weights);
  if (order == NULL || weights == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  order_voters(r, order);
  for (size_t k = 0; k < r->count; k++) {
    const size_t source = (size_t)r->source[order[k]];
    weights[k] = r->weight[order[k]];
    MG_TRY(ask(p, source, logits), cleanup);
    p->logits_of[k] = p->logits[source];
    p->predictions_of[k] = p->predictions[source];
  }
  MG_TRY(mg_vote(kind, r->count, weights, p->predictions_of, p->logits_of, p->texts, s->nxn->classes, p->result), cleanup);
  const size_t bytes = p->texts * sizeof *p->result;
  MG_TRY(mg_grid_journal(s, c->recipe, p->target, p->result, bytes, &c->place), cleanup);
  c->done = true;
cleanup:
  free(order), free(weights);
  return status;
}

mg_status mg_grid_vote(mg_grid_stage *s) {
  mg_status status = MG_OK;
  polling p = {0};
  for (size_t m = 0; m < s->work.target_count; m++) {
    bool begun = false;
    for (size_t k = 0; k < s->grid.count; k++) {
      mg_grid_cell *c = &s->cells[k];
      if (c->recipe == 0 || c->target != (ptrdiff_t)m || c->same_as >= 0 || c->resolved.kind != MG_CELL_VOTE || c->done)
        continue;
      if (!begun) MG_TRY(begin(s, m, &p), cleanup);
      begun = true;
      status = vote(&p, k);
      if (status == MG_ERR_INPUT) status = mg_grid_fail_cell(c);
      if (status != MG_OK) goto cleanup;
    }
    end(&p);
    MG_TRY(mg_attempt_keep_going(s->attempt, "grid", "votes"), cleanup);
  }
cleanup:
  end(&p);
  return status;
}
