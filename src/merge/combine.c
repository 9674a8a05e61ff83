/* What is done to a tile: plain loops over elements, source by source, sums in double. */

#include <math.h>
#include <string.h>

#include "merge_impl.h"

void mg_keep_between(float *delta, int64_t count, float threshold, float ceiling) {
  for (int64_t k = 0; k < count; k++) delta[k] = fabsf(delta[k]) >= threshold && fabsf(delta[k]) < ceiling ? delta[k] : 0;
}

void mg_keep_random(float *delta, int64_t first, int64_t count, const mg_stream *stream, double density, float scale,
                    uint32_t *words) {
  const double limit = density * 4294967296.0; /* of 32 random bits */
  mg_stream_words(stream, (uint64_t)first, (uint64_t)count, words);
  for (int64_t k = 0; k < count; k++) delta[k] = (double)words[k] < limit ? delta[k] * scale : 0;
}

static void add_up(const mg_merge_tile *t) {
  memset(t->sum, 0, (size_t)t->count * sizeof *t->sum);
  for (size_t s = 0; s < t->sources; s++)
    for (int64_t k = 0; k < t->count; k++) t->sum[k] += t->weight[s] * (double)t->delta[s][k];
}

/* The sign of the sum (+ where it is zero), then only those that have it. */
static void elect(const mg_merge_tile *t, mg_elected elected) {
  add_up(t);
  for (int64_t k = 0; k < t->count; k++) t->vote[k] = t->sum[k] >= 0 ? 1 : -1;
  memset(t->sum, 0, (size_t)t->count * sizeof *t->sum);
  memset(t->share, 0, (size_t)t->count * sizeof *t->share);
  for (size_t s = 0; s < t->sources; s++)
    for (int64_t k = 0; k < t->count; k++) {
      const double value = (double)t->delta[s][k];
      if (!(value * t->vote[k] > 0)) continue;
      if (elected == MG_ELECTED_MAX) {
        if (fabs(value) > fabs(t->sum[k])) t->sum[k] = value;
        continue;
      }
      t->sum[k] += t->weight[s] * value;
      t->share[k] += t->weight[s];
    }
  for (int64_t k = 0; elected == MG_ELECTED_MEAN && k < t->count; k++)
    if (t->share[k] > 0) t->sum[k] /= t->share[k];
}

static void take_largest(const mg_merge_tile *t) {
  memset(t->sum, 0, (size_t)t->count * sizeof *t->sum);
  for (size_t s = 0; s < t->sources; s++)
    for (int64_t k = 0; k < t->count; k++)
      if (fabs((double)t->delta[s][k]) > fabs(t->sum[k])) t->sum[k] = (double)t->delta[s][k];
}

/* The mean of those that are not zero. */
static void average_active(const mg_merge_tile *t) {
  add_up(t);
  memset(t->share, 0, (size_t)t->count * sizeof *t->share);
  for (size_t s = 0; s < t->sources; s++)
    for (int64_t k = 0; k < t->count; k++) t->share[k] += t->delta[s][k] != 0 ? t->weight[s] : 0;
  for (int64_t k = 0; k < t->count; k++)
    if (t->share[k] > 0) t->sum[k] /= t->share[k];
}

void mg_combine_tile(const mg_formula *formula, const mg_merge_tile *t) {
  if (formula->combine == MG_COMBINE_SUM) add_up(t);
  if (formula->combine == MG_COMBINE_ELECT) elect(t, formula->elected);
  if (formula->combine == MG_COMBINE_LARGEST) take_largest(t);
  if (formula->combine == MG_COMBINE_ACTIVE) average_active(t);
}
