/* Predictions and their scores. */

#include "mergegrid/score.h"

#include <math.h>
#include <stdlib.h>

#include "mergegrid/text.h"

mg_status mg_predict(const float *logits, size_t texts, size_t classes, int32_t *predictions, size_t *bad) {
  for (size_t t = 0; t < texts; t++) {
    const float *row = logits + t * classes;
    size_t best = 0;
    for (size_t c = 0; c < classes; c++) {
      if (!isfinite(row[c])) {
        if (bad != NULL) *bad = t;
        return mg_fail(MG_ERR_INPUT, "logit %zu of text %zu is not finite", c, t);
      }
      if (row[c] > row[best]) best = c;
    }
    predictions[t] = (int32_t)best;
  }
  return MG_OK;
}

typedef struct tally {
  int64_t right, predicted, labelled;
} tally;

static mg_status count(const int32_t *labels, const int32_t *predictions, size_t texts, size_t classes, tally *of) {
  for (size_t t = 0; t < texts; t++) {
    const int32_t label = labels[t], prediction = predictions[t];
    if (label < 0 || (size_t)label >= classes || prediction < -1 || (prediction >= 0 && (size_t)prediction >= classes))
      return mg_fail(MG_ERR_INTERNAL, "text %zu: label %d, prediction %d of %zu classes", t, label, prediction, classes);
    of[label].labelled++;
    if (prediction >= 0) of[prediction].predicted++;
    if (prediction == label) of[label].right++;
  }
  return MG_OK;
}

mg_status mg_score(const int32_t *labels, const int32_t *predictions, size_t texts, size_t classes, mg_scores *scores) {
  mg_status status = MG_OK;
  double f1 = 0;
  int64_t right = 0, occurring = 0;
  tally *of = mg_alloc_zero(classes, sizeof *of);
  *scores = (mg_scores){.accuracy = NAN, .macro_f1 = NAN};
  if (of == NULL) return MG_ERR_NOMEM;
  MG_TRY(count(labels, predictions, texts, classes, of), cleanup);
  for (size_t c = 0; c < classes; c++) {
    const int64_t both = of[c].predicted + of[c].labelled; /* 2 TP + FP + FN */
    if (both == 0) continue;
    occurring++;
    right += of[c].right;
    f1 += 2 * (double)of[c].right / (double)both;
  }
  if (texts > 0) *scores = (mg_scores){.accuracy = (double)right / (double)texts, .macro_f1 = f1 / (double)occurring};
cleanup:
  free(of);
  return status;
}
