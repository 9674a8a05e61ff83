#ifndef MERGEGRID_STATISTICS_H
#define MERGEGRID_STATISTICS_H

/** Paired tests of predictions on the same texts, and votes. Not collective. */

#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

/**
 * McNemar's test, exact and two-sided (McNemar 1947; binomial under p = 1/2): the probability of a split at least as uneven as
 * `only_a` against `only_b` texts that one alone has right. 1 for none.
 */
double mg_mcnemar(uint64_t only_a, uint64_t only_b);

/** An estimate and its 95% interval. */
typedef struct mg_interval {
  double estimate, low, high;
} mg_interval;

/** Differences of one target's texts: for each text the sum over pairs of cells of (right in a) − (right in b). */
typedef struct mg_paired_target {
  size_t texts, pairs;
  const int32_t *difference; /**< [texts], each −pairs … pairs */
} mg_paired_target;

/**
 * Mean difference over all texts and pairs of all targets, with the percentile bootstrap's interval (Efron and Tibshirani
 * 1993): `draws` samples that draw each target's texts with replacement from its own (what pairs share a text stays together);
 * its ends are the k-th sample from either end, k = floor((draws + 1) / 40). Random by counter: the same seed, the same
 * interval. p: two-sided, of the sign-flip test by text (normal approximation with continuity correction: half of what the
 * smallest flip moves, the differences' greatest common divisor); 1 where nothing differs. All NaN for no texts.
 * MG_ERR_INTERNAL for no draws, or a difference larger than its target's pairs.
 */
mg_status mg_paired_bootstrap(const mg_paired_target *targets, size_t count, size_t draws, uint64_t seed, mg_interval *interval,
                              double *p);

/** Holm's step-down correction (Holm 1979) in place: p [count]; NaN entries stay and take no part. */
mg_status mg_holm(double *p, size_t count);

/** Votes of several models, as merginguriel names them. */
typedef enum mg_vote_kind {
  MG_VOTE_MAJORITY,          /**< most votes; of equals the class that was voted for first */
  MG_VOTE_WEIGHTED_MAJORITY, /**< largest sum of the voters' weights; of equals the first voted for */
  MG_VOTE_SOFT,              /**< weighted mean of the softmax of the logits; of equals the lowest class */
  MG_VOTE_LOGITS             /**< weighted sum of the logits (uriel_logits) */
} mg_vote_kind;

/**
 * Predictions [texts] of a vote of `voters` models in the order given. predictions_of [voters] → [texts], for the first two
 * kinds, the other may be NULL: a prediction of −1 is no vote, and what nobody voted on is −1; logits_of [voters] → [texts,
 * classes], for the others. weights [voters], NULL: 1 each; MG_VOTE_MAJORITY does not look at them. Sums in double, voter by
 * voter. MG_ERR_INPUT for a logit that is not finite (names class, text and voter); MG_ERR_INTERNAL for a prediction out of
 * range, no voters, no classes.
 */
mg_status mg_vote(mg_vote_kind kind, size_t voters, const double *weights, const int32_t *const *predictions_of,
                  const float *const *logits_of, size_t texts, size_t classes, int32_t *predictions);

#endif
