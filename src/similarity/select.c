/* A target's sources: by the matrix as it is, or after top-k and Sinkhorn's normalisation. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/similarity.h"

static int falling(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* A row keeps what is at least its k-th largest. */
static mg_status keep_top(double *m, size_t n, size_t k) {
  double *sorted = mg_alloc(n, sizeof *sorted);
  if (sorted == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < n && n > k; i++) {
    memcpy(sorted, m + i * n, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, falling);
    for (size_t j = 0; j < n; j++)
      if (m[i * n + j] < sorted[k - 1]) m[i * n + j] = 0;
  }
  free(sorted);
  return MG_OK;
}

/* Sinkhorn and Knopp 1967: rows, then columns to a sum of 1. The small term is merginguriel's, against empty lines. */
static void normalize(double *m, size_t n, int iterations) {
  const double small = 1e-9;
  for (int turn = 0; turn < iterations; turn++) {
    for (size_t i = 0; i < n; i++) {
      double total = 0;
      for (size_t j = 0; j < n; j++) total += m[i * n + j];
      for (size_t j = 0; j < n; j++) m[i * n + j] /= total + small;
    }
    for (size_t j = 0; j < n; j++) {
      double total = 0;
      for (size_t i = 0; i < n; i++) total += m[i * n + j];
      for (size_t i = 0; i < n; i++) m[i * n + j] /= total + small;
    }
  }
}

/* As the matrix has it, NaN where that has no number: what `of` is to the target, or by row the other way about. */
static double entry(const mg_similarity *s, const mg_selection_terms *terms, size_t target, size_t of) {
  const size_t n = s->labels.count;
  return s->values[terms->by_row ? target * n + of : of * n + target];
}

/* The target's line of the matrix, after Sinkhorn where asked for. weights [n]. */
static mg_status line_of(const mg_similarity *s, const mg_selection_terms *terms, size_t target, double *weights) {
  mg_status status = MG_OK;
  const size_t n = s->labels.count;
  double *m = mg_alloc(n, n * sizeof *m), diagonal = 0;
  if (m == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      const double value = entry(s, terms, i, j);
      m[i * n + j] = isnan(value) ? 0 : value;
    }
  if (terms->sinkhorn) {
    /* A diagonal of ones is no information; any other is kept, as merginguriel does. */
    for (size_t i = 0; i < n; i++) diagonal += m[i * n + i];
    for (size_t i = 0; diagonal == (double)n && i < n; i++) m[i * n + i] = 0;
    MG_TRY(keep_top(m, n, (size_t)terms->top_k), cleanup);
    normalize(m, n, terms->sinkhorn_iters);
  }
  memcpy(weights, m + target * n, n * sizeof *weights);
cleanup:
  free(m);
  return status;
}

static mg_status find_target(const mg_similarity *s, const char *target, size_t *index) {
  const ptrdiff_t found = mg_strings_find(&s->labels, target);
  if (found >= 0) {
    *index = (size_t)found;
    return MG_OK;
  }
  const char *nearest = mg_nearest(target, (const char *const *)s->labels.items, s->labels.count);
  return mg_fail(MG_ERR_INPUT, "target %s is not in the similarity matrix%s%s%s", target, nearest ? " (" : "",
                 nearest ? nearest : "", nearest ? "?)" : "");
}

/* Those taken first, then by falling weight, equal ones by rank: of a source that labels share, as the matrix has them. */
static int in_order(const void *a, const void *b) {
  const mg_candidate *x = a, *y = b;
  if (x->taken != y->taken) return x->taken ? -1 : 1;
  if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
  if (x->rank != y->rank) return x->rank > y->rank ? 1 : -1;
  return (x->label > y->label) - (x->label < y->label);
}

/* Takes up to `most` of those without a reason against them, in the array's order. */
static size_t take(mg_candidate *candidates, size_t count, size_t most, size_t taken) {
  for (size_t k = 0; k < count && taken < most; k++) {
    if (candidates[k].reason != NULL || candidates[k].taken) continue;
    candidates[k].taken = true;
    taken++;
  }
  return taken;
}

static const char *const REASONS[] = {"similarity is not positive",
                                      "no value",
                                      "not evaluated (nxn.targets)",
                                      "the evaluation failed (nxn)",
                                      "not among its top_k",
                                      "a diagonal of 1 is left out",
                                      "no checkpoint",
                                      "is the target"};
enum { NOT_SIMILAR, NO_VALUE, NOT_EVALUATED, EVALUATION_FAILED, NOT_TOP, DIAGONAL, NO_CHECKPOINT, IS_TARGET, REASON_COUNT };

/* Why label k has no weight: what the matrix says of it, or what was done before Sinkhorn. */
static int reason_of(const mg_similarity *s, const mg_selection_terms *terms, size_t target, size_t k) {
  const double value = entry(s, terms, target, k);
  if (isnan(value) && s->evaluated == NULL) return NO_VALUE;
  if (isnan(value)) return s->evaluated[terms->by_row ? k : target] ? EVALUATION_FAILED : NOT_EVALUATED;
  if (!terms->sinkhorn || !(value > 0)) return NOT_SIMILAR;
  return k == target ? DIAGONAL : NOT_TOP;
}

/* Has the target no number at all in its row of an evaluation? */
static bool lacks_row(const mg_similarity *s, const mg_selection_terms *terms, size_t target) {
  if (s->evaluated == NULL || !terms->by_row) return false;
  for (size_t k = 0; k < s->labels.count; k++)
    if (!isnan(entry(s, terms, target, k))) return false;
  return true;
}

/* How many there are, and what is with the other labels. */
static mg_status too_few(const char *target, const mg_candidate *c, size_t n, size_t taken, int wanted) {
  mg_text others = {0};
  for (int r = 0; r < REASON_COUNT; r++) {
    size_t count = 0;
    for (size_t k = 0; k < n; k++) count += c[k].reason == REASONS[r];
    if (count > 0) mg_text_append(&others, "%s%s: %zu", others.size > 0 ? ", " : "", REASONS[r], count);
  }
  const mg_status status = mg_fail(MG_ERR_INPUT, "target %s has %zu candidate%s, and num_languages is %d%s%s%s", target, taken,
                                   taken == 1 ? "" : "s", wanted, others.size > 0 ? " (" : "",
                                   others.size > 0 ? others.data : "", others.size > 0 ? ")" : "");
  mg_text_free(&others);
  return status;
}

mg_status mg_select_sources(const mg_similarity *s, const mg_selection_terms *terms, const char *target,
                            ptrdiff_t (*source_of)(void *context, const char *label), void *context, mg_selection *selection) {
  mg_status status = MG_OK;
  const size_t n = s->labels.count, most = (size_t)terms->num_languages;
  size_t own = 0, taken = 0;
  double total = 0, *weights = mg_alloc(n, sizeof *weights);
  mg_candidate *c = mg_alloc_zero(n, sizeof *c);
  *selection = (mg_selection){0};
  if (weights == NULL || c == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(find_target(s, target, &own), cleanup);
  if (lacks_row(s, terms, own) && source_of(context, target) < 0) {
    status = mg_fail(MG_ERR_INPUT, "target %s has no source of its own, whose accuracies its row would be (axis: row)", target);
    goto cleanup;
  }
  MG_TRY(line_of(s, terms, own, weights), cleanup);
  for (size_t k = 0; k < n; k++) {
    const bool is_target = strcmp(s->labels.items[k], target) == 0;
    const ptrdiff_t source = source_of(context, s->labels.items[k]);
    c[k] = (mg_candidate){.label = k, .rank = terms->sinkhorn ? k : (size_t)source, .weight = weights[k]};
    if (!(weights[k] > 0)) c[k].reason = REASONS[reason_of(s, terms, own, k)];
    if (source < 0) c[k].reason = REASONS[NO_CHECKPOINT];
    if (is_target && !terms->include_target) c[k].reason = REASONS[IS_TARGET];
    c[k].unknown = c[k].reason == REASONS[NO_VALUE] || c[k].reason == REASONS[EVALUATION_FAILED];
  }
  if (terms->include_target && terms->matrix_order)
    taken = take(c + own, 1, most, 0); /* then the others as they stand, not the most similar */
  else
    qsort(c, n, sizeof *c, in_order);
  taken = take(c, n, most, taken);
  if (taken < most) {
    status = too_few(target, c, n, taken, terms->num_languages);
    goto cleanup;
  }
  for (size_t k = 0; k < n; k++) {
    if (c[k].taken) total += c[k].weight;
    if (!c[k].taken && c[k].reason == NULL) c[k].reason = "enough others";
  }
  for (size_t k = 0; k < n; k++) c[k].share = c[k].taken ? c[k].weight / total : 0;
  qsort(c, n, sizeof *c, in_order);
  *selection = (mg_selection){.taken = taken, .count = n, .candidates = c};
  c = NULL;
cleanup:
  free(weights), free(c);
  return status;
}

double mg_mean_compatibility(const double *compatibility, size_t n, size_t i) {
  double sum = 0;
  for (size_t j = 0; j < n; j++)
    if (j != i && compatibility[i * n + j] > 0) sum += compatibility[i * n + j];
  return sum / (double)(n - 1);
}

void mg_weigh_by_compatibility(const double *compatibility, size_t n, double *weights, bool *kept) {
  double total = 0, before = 0;
  *kept = false;
  if (n < 2) return;
  for (size_t i = 0; i < n; i++) {
    total += weights[i] * mg_mean_compatibility(compatibility, n, i);
    before += weights[i];
  }
  *kept = !(total > 0);
  for (size_t i = 0; i < n; i++) weights[i] *= *kept ? 1 / before : mg_mean_compatibility(compatibility, n, i) / total;
}
