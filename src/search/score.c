/* What a subset is worth, from scratch; how many there are. */

#include <math.h>

#include "mergegrid/search.h"

bool mg_search_has(const mg_search_space *space, mg_search_by by) {
  const double *const of[MG_BY_COUNT] = {space->similarity, space->cosine, space->cka, space->dot};
  return of[by] != NULL && (by == MG_BY_SIMILARITY || space->k > 1);
}

double mg_search_count(size_t n, size_t k) {
  uint64_t whole = 1, grown = 0;
  size_t i = 1;
  if (k > n) return 0;
  if (k > n - k) k = n - k;
  for (; i <= k && !__builtin_mul_overflow(whole, n - k + i, &grown); i++) whole = grown / i;
  double count = (double)whole;
  for (; i <= k; i++) count *= (double)(n - k + i) / (double)i;
  return count;
}

/* Member by member, each with those before it: the order in which the walk adds up. */
static double sum_of_pairs(const double *matrix, const mg_search_space *s, const uint32_t *members) {
  double sum = 0;
  for (size_t j = 1; j < s->k; j++) {
    double row = 0;
    for (size_t i = 0; i < j; i++) row += matrix[members[i] * s->n + members[j]];
    sum += row;
  }
  return sum;
}

static double interference(const mg_search_space *s, const uint32_t *members) {
  double square = 0, norms = 0;
  for (size_t j = 0; j < s->k; j++) {
    const size_t m = members[j];
    double row = 0;
    for (size_t i = 0; i < j; i++) row += 2 * s->weight[members[i]] * s->weight[m] * s->dot[members[i] * s->n + m];
    square += s->weight[m] * s->weight[m] * s->dot[m * s->n + m] + row;
    norms += s->weight[m] * sqrt(s->dot[m * s->n + m]);
  }
  return 1 - sqrt(square > 0 ? square : 0) / norms;
}

void mg_search_score(const mg_search_space *s, const uint32_t *members, double score[MG_BY_COUNT]) {
  const double pairs = (double)s->k * (double)(s->k - 1) / 2;
  double similarity = 0;
  for (size_t j = 0; j < s->k; j++) similarity += s->similarity[members[j]];
  score[MG_BY_SIMILARITY] = similarity / (double)s->k;
  score[MG_BY_COMPATIBILITY] = mg_search_has(s, MG_BY_COMPATIBILITY) ? sum_of_pairs(s->cosine, s, members) / pairs : NAN;
  score[MG_BY_CKA] = mg_search_has(s, MG_BY_CKA) ? sum_of_pairs(s->cka, s, members) / pairs : NAN;
  score[MG_BY_INTERFERENCE] = mg_search_has(s, MG_BY_INTERFERENCE) ? interference(s, members) : NAN;
}
