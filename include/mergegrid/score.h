#ifndef MERGEGRID_SCORE_H
#define MERGEGRID_SCORE_H

/** What predictions are worth. Not collective. */

#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

/**
 * The largest logit of each row of [texts, classes], the first of equals, into predictions [texts]. MG_ERR_INPUT where a logit
 * is not finite: *bad (may be NULL) is the row.
 */
mg_status mg_predict(const float *logits, size_t texts, size_t classes, int32_t *predictions, size_t *bad);

typedef struct mg_scores {
  double accuracy; /**< share of right predictions */
  double macro_f1; /**< mean over the classes that occur among labels or predictions of 2 TP / (2 TP + FP + FN) */
} mg_scores;

/**
 * labels and predictions [texts], each 0 … classes − 1; a prediction of −1 is none and counts as wrong. NaN for no texts.
 * MG_ERR_INTERNAL for a number out of range.
 */
mg_status mg_score(const int32_t *labels, const int32_t *predictions, size_t texts, size_t classes, mg_scores *scores);

#endif
