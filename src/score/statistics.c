/* McNemar's test, and Holm's correction. */

#include "mergegrid/statistics.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "mergegrid/text.h"

/*
 * Binomial coefficients as multiples of the middle one, downwards: no logarithms, whose last bits differ between machines. They
 * underflow some thirty square roots of n below the middle, which ends the loop for any n.
 */
double mg_mcnemar(uint64_t only_a, uint64_t only_b) {
  if (only_a == only_b) return 1;
  const uint64_t n = only_a + only_b, few = only_a < only_b ? only_a : only_b;
  double term = 1, all = 0, tail = 0;
  for (uint64_t k = n / 2; term >= DBL_MIN; k--) {
    all += 2 * k == n ? term : 2 * term; /* k and n - k */
    if (k <= few) tail += term;
    if (k == 0) break;
    term *= (double)k / (double)(n - k + 1);
  }
  return 2 * tail / all;
}

typedef struct ranked {
  double p;
  size_t place;
} ranked;

static int compare_ranked(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  return (x->p > y->p) - (x->p < y->p);
}

mg_status mg_holm(double *p, size_t count) {
  size_t tests = 0;
  double most = 0;
  ranked *order = mg_alloc(count, sizeof *order);
  if (order == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < count; k++)
    if (!isnan(p[k])) order[tests++] = (ranked){.p = p[k], .place = k};
  qsort(order, tests, sizeof *order, compare_ranked);
  for (size_t k = 0; k < tests; k++) {
    most = fmin(1, fmax(most, (double)(tests - k) * order[k].p));
    p[order[k].place] = most;
  }
  free(order);
  return MG_OK;
}
