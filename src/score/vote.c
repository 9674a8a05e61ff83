/* Votes of several models. */

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "mergegrid/statistics.h"
#include "mergegrid/text.h"

/* One vote a voter; classes compete in the order in which they were voted for. */
static mg_status count_votes(size_t voters, const double *weights, const int32_t *const *predictions_of, size_t text,
                             size_t classes, double *votes, int32_t *prediction) {
  *prediction = -1;
  for (size_t c = 0; c < classes; c++) votes[c] = 0;
  for (size_t v = 0; v < voters; v++) {
    const int32_t vote = predictions_of[v][text];
    if (vote < -1 || (vote >= 0 && (size_t)vote >= classes))
      return mg_fail(MG_ERR_INTERNAL, "text %zu: voter %zu predicts %d of %zu classes", text, v, vote, classes);
    if (vote >= 0) votes[vote] += weights == NULL ? 1 : weights[v];
  }
  for (size_t v = 0; v < voters; v++) {
    const int32_t vote = predictions_of[v][text];
    if (vote >= 0 && (*prediction < 0 || votes[vote] > votes[*prediction])) *prediction = vote;
  }
  return MG_OK;
}

/* Adds a voter's logits, or the softmax of them. */
static mg_status add_logits(const float *logits, size_t classes, double weight, bool soft, double *share, double *sums) {
  float most = logits[0];
  double total = 0;
  for (size_t c = 0; c < classes; c++) {
    if (!isfinite(logits[c])) return mg_fail(MG_ERR_INPUT, "logit %zu is not finite", c);
    if (logits[c] > most) most = logits[c];
  }
  for (size_t c = 0; c < classes && soft; c++) total += share[c] = exp((double)logits[c] - (double)most);
  for (size_t c = 0; c < classes; c++) sums[c] += weight * (soft ? share[c] / total : (double)logits[c]);
  return MG_OK;
}

static mg_status sum_logits(size_t voters, const double *weights, const float *const *logits_of, size_t text, size_t classes,
                            bool soft, double *scratch, int32_t *prediction) {
  double *sums = scratch, *share = scratch + classes;
  for (size_t c = 0; c < classes; c++) sums[c] = 0;
  for (size_t v = 0; v < voters; v++) {
    const double weight = weights == NULL ? 1 : weights[v];
    const mg_status status = add_logits(logits_of[v] + text * classes, classes, weight, soft, share, sums);
    if (status != MG_OK) return mg_fail_context(status, "text %zu, voter %zu", text, v);
  }
  size_t best = 0;
  for (size_t c = 1; c < classes; c++)
    if (sums[c] > sums[best]) best = c;
  *prediction = (int32_t)best;
  return MG_OK;
}

mg_status mg_vote(mg_vote_kind kind, size_t voters, const double *weights, const int32_t *const *predictions_of,
                  const float *const *logits_of, size_t texts, size_t classes, int32_t *predictions) {
  mg_status status = MG_OK;
  if (voters == 0 || classes == 0) return mg_fail(MG_ERR_INTERNAL, "a vote of %zu models on %zu classes", voters, classes);
  double *scratch = mg_alloc(classes, 2 * sizeof *scratch);
  if (scratch == NULL) return MG_ERR_NOMEM;
  for (size_t t = 0; t < texts; t++) {
    if (kind == MG_VOTE_MAJORITY || kind == MG_VOTE_WEIGHTED_MAJORITY)
      MG_TRY(
          count_votes(voters, kind == MG_VOTE_MAJORITY ? NULL : weights, predictions_of, t, classes, scratch, &predictions[t]),
          cleanup);
    else
      MG_TRY(sum_logits(voters, weights, logits_of, t, classes, kind == MG_VOTE_SOFT, scratch, &predictions[t]), cleanup);
  }
cleanup:
  free(scratch);
  return status;
}
