/*
 * The bootstrap of paired differences. Most texts do not differ, so a draw of a target's U texts is made in two steps, of the
 * same distribution: how many of them are among the D that differ (binomial, by its table of sums), and which those are (one by
 * one).
 */

#include <math.h>
#include <stdlib.h>

#include "mergegrid/random.h"
#include "mergegrid/statistics.h"
#include "mergegrid/text.h"

typedef struct bootstrap {
  int32_t *differing; /* [D] the differences that are not 0 */
  double *sums;       /* [U + 1] of the binomial's probabilities, times a factor */
  uint32_t *words;    /* [U + 2] random */
  int64_t *totals;    /* [draws] of all targets so far */
} bootstrap;

/* What the sign-flip test goes by. */
typedef struct moments {
  int64_t total, places; /* of differences; texts × pairs */
  double squares;
  int64_t step; /* greatest common divisor of the differences */
} moments;

static int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

static mg_status add_moments(const mg_paired_target *target, moments *m) {
  const int64_t pairs = (int64_t)target->pairs;
  for (size_t u = 0; u < target->texts; u++) {
    const int64_t difference = target->difference[u], size = difference < 0 ? -difference : difference;
    if (size > pairs)
      return mg_fail(MG_ERR_INTERNAL, "text %zu: a difference of %lld in %zu pairs", u, (long long)difference, target->pairs);
    m->total += difference;
    m->squares += (double)(difference * difference);
    m->step = common_divisor(size, m->step);
  }
  m->places += (int64_t)target->texts * pairs;
  return MG_OK;
}

/* Running sums of the probabilities of 0 … texts, each a multiple of the most probable one's: the ratio of neighbours is known.
 */
static void binomial_sums(size_t texts, size_t differing, double *sums) {
  const double odds = (double)differing / (double)(texts - differing);
  const size_t mode = differing; /* the mean, which is whole, is the most probable */
  sums[mode] = 1;
  for (size_t k = mode; k > 0; k--) sums[k - 1] = sums[k] * (double)k / ((double)(texts - k + 1) * odds);
  for (size_t k = mode; k < texts; k++) sums[k + 1] = sums[k] * ((double)(texts - k) * odds) / (double)(k + 1);
  for (size_t k = 0; k < texts; k++) sums[k + 1] += sums[k];
}

/* The first whose sum exceeds the random share of all. */
static size_t draw_binomial(const double *sums, size_t texts, const uint32_t word[2]) {
  const uint64_t bits = (uint64_t)word[0] << 32 | word[1];
  const double share = (double)(bits >> 11) * 0x1p-53 * sums[texts];
  size_t low = 0, high = texts;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (sums[middle] > share)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

static void draw_target(const mg_paired_target *target, size_t index, size_t draws, uint64_t seed, const bootstrap *b) {
  size_t differing = 0;
  for (size_t u = 0; u < target->texts; u++)
    if (target->difference[u] != 0) b->differing[differing++] = target->difference[u];
  if (differing == 0) return;
  if (differing < target->texts) binomial_sums(target->texts, differing, b->sums);
  const mg_stream stream = mg_stream_of(seed, index, target->texts);
  const uint64_t words = (target->texts + 2 + 3) / 4 * 4; /* of each draw; blocks of the generator are 4 */
  for (size_t d = 0; d < draws; d++) {
    size_t some = target->texts;
    mg_stream_words(&stream, d * words, 2, b->words);
    if (differing < target->texts) some = draw_binomial(b->sums, target->texts, b->words);
    mg_stream_words(&stream, d * words + 2, some, b->words);
    int64_t total = 0;
    for (size_t k = 0; k < some; k++) total += b->differing[(uint64_t)b->words[k] * differing >> 32];
    b->totals[d] += total;
  }
}

static int compare_totals(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static double sign_flip(const moments *m) {
  const double off = fabs((double)m->total) - (double)m->step; /* flipping a sign moves the total by twice the step at least */
  return m->squares > 0 && off > 0 ? erfc(off / sqrt(2 * m->squares)) : 1;
}

static mg_status make_room(size_t draws, size_t texts, bootstrap *b) {
  b->differing = mg_alloc(texts, sizeof *b->differing);
  b->sums = mg_alloc(texts + 1, sizeof *b->sums);
  b->words = mg_alloc(texts + 2, sizeof *b->words);
  b->totals = mg_alloc_zero(draws, sizeof *b->totals);
  return b->differing && b->sums && b->words && b->totals ? MG_OK : MG_ERR_NOMEM;
}

mg_status mg_paired_bootstrap(const mg_paired_target *targets, size_t count, size_t draws, uint64_t seed, mg_interval *interval,
                              double *p) {
  mg_status status = MG_OK;
  bootstrap b = {0};
  moments m = {0};
  size_t most = 0;
  *interval = (mg_interval){.estimate = NAN, .low = NAN, .high = NAN};
  *p = NAN;
  if (draws == 0) return mg_fail(MG_ERR_INTERNAL, "a bootstrap of no draws");
  for (size_t t = 0; t < count; t++) {
    MG_TRY(add_moments(&targets[t], &m), cleanup);
    if (targets[t].texts > most) most = targets[t].texts;
  }
  if (m.places == 0) goto cleanup;
  MG_TRY(make_room(draws, most, &b), cleanup);
  for (size_t t = 0; t < count; t++) draw_target(&targets[t], t, draws, seed, &b);
  qsort(b.totals, draws, sizeof *b.totals, compare_totals);
  size_t below = (size_t)(0.025 * (double)(draws + 1));
  if (below > 0) below--;
  *interval = (mg_interval){.estimate = (double)m.total / (double)m.places,
                            .low = (double)b.totals[below] / (double)m.places,
                            .high = (double)b.totals[draws - 1 - below] / (double)m.places};
  *p = sign_flip(&m);
cleanup:
  free(b.differing), free(b.sums), free(b.words), free(b.totals);
  return status;
}
