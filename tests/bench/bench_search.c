/*
 * Searching all subsets beside the plain way, which scores each of them from scratch; one core, interleaved in one run.
 *
 *   bench_search [--candidates N] [--sources K] [--top N] [--seconds S]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "mergegrid/search.h"

enum { MOST_ROUNDS = 400, LENGTH = 64, MOST = 1000 };

static double *arrays[5];
static size_t candidates = 47, sources = 5, top = 10;

/* As of a family: random vectors that have something in common, so that all cosines are positive. */
static bool make_space(mg_search_space *s) {
  unsigned state = 7;
  double *vector = mg_alloc(candidates, LENGTH * sizeof *vector);
  for (int k = 0; k < 5; k++) arrays[k] = mg_alloc(candidates, (k < 2 ? 1 : candidates) * sizeof(double));
  if (!vector || !arrays[0] || !arrays[1] || !arrays[2] || !arrays[3] || !arrays[4]) return false;
  for (size_t k = 0; k < candidates * LENGTH; k++) {
    state = state * 1664525u + 1013904223u;
    vector[k] = (double)(state >> 8) * 0x1p-24 - 0.4;
  }
  for (size_t i = 0; i < candidates; i++) {
    arrays[0][i] = arrays[1][i] = 0.5 + vector[i * LENGTH];
    for (size_t j = 0; j < candidates; j++) {
      double dot = 0;
      for (size_t e = 0; e < LENGTH; e++) dot += vector[i * LENGTH + e] * vector[j * LENGTH + e];
      arrays[4][i * candidates + j] = dot;
    }
  }
  for (size_t i = 0; i < candidates; i++)
    for (size_t j = 0; j < candidates; j++) {
      const double cosine = arrays[4][i * candidates + j] / sqrt(arrays[4][i * candidates + i] * arrays[4][j * candidates + j]);
      arrays[2][i * candidates + j] = cosine;
      arrays[3][i * candidates + j] = cosine * cosine;
    }
  free(vector);
  *s = (mg_search_space){.n = candidates,
                         .k = sources,
                         .similarity = arrays[0],
                         .weight = arrays[1],
                         .cosine = arrays[2],
                         .cka = arrays[3],
                         .dot = arrays[4]};
  return true;
}

static double best[MG_BY_COUNT];

/* The best score of each kind alone; returns how many subsets there are. */
static double plain(const mg_search_space *s) {
  uint32_t members[MOST];
  double count = 0;
  for (size_t k = 0; k < s->k; k++) members[k] = (uint32_t)k;
  for (int by = 0; by < MG_BY_COUNT; by++) best[by] = by == MG_BY_INTERFERENCE ? INFINITY : -INFINITY;
  for (;;) {
    double score[MG_BY_COUNT];
    mg_search_score(s, members, score);
    for (int by = 0; by < MG_BY_COUNT; by++)
      if (by == MG_BY_INTERFERENCE ? score[by] < best[by] : score[by] > best[by]) best[by] = score[by];
    count++;
    size_t at = s->k;
    while (at > 0 && members[at - 1] == s->n - s->k + at - 1) at--;
    if (at == 0) return count;
    members[at - 1]++;
    for (; at < s->k; at++) members[at] = members[at - 1] + 1;
  }
}

static int compare(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}
static double median(const double *values, int count) {
  double sorted[MOST_ROUNDS];
  memcpy(sorted, values, (size_t)count * sizeof *values);
  qsort(sorted, (size_t)count, sizeof *sorted, compare);
  return sorted[count / 2];
}

static bool same_best(const mg_search_found *found) {
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (found->list[by].count == 0 || found->list[by].score[0][by] != best[by]) return false;
  return true;
}

static mg_status measure(const mg_search_space *s, double seconds) {
  const mg_search_options options = {.top = top, .by = {true, true, true, true}};
  double fast[MOST_ROUNDS], slow[MOST_ROUNDS], ratio[MOST_ROUNDS];
  int rounds = 0;
  const double began = mg_now();
  while (rounds < 3 || (rounds < MOST_ROUNDS && mg_now() - began < seconds)) {
    mg_search_found found;
    const double first = mg_now();
    const mg_status status = mg_search_subsets(s, &options, &found);
    const double second = mg_now();
    if (status != MG_OK) return status;
    const double count = plain(s), third = mg_now();
    const bool same = count == found.searched && same_best(&found);
    mg_search_found_free(&found);
    if (!same) return mg_fail(MG_ERR_INTERNAL, "the two ways do not agree");
    fast[rounds] = count / (second - first);
    slow[rounds] = count / (third - second);
    ratio[rounds] = fast[rounds] / slow[rounds];
    rounds++;
  }
  printf("%.0f subsets of %zu of %zu, four scores each, the best %zu by each kept; one core, medians of %d rounds\n",
         mg_search_count(s->n, s->k), s->k, s->n, top, rounds);
  printf("search           %8.1f million subsets a second\n", median(fast, rounds) / 1e6);
  printf("from scratch     %8.1f million subsets a second\n", median(slow, rounds) / 1e6);
  printf("search / from scratch = %.1f\n", median(ratio, rounds));
  return MG_OK;
}

int main(int argc, char **argv) {
  double seconds = 3;
  mg_search_space space;
  for (int k = 1; k + 1 < argc; k += 2) {
    if (strcmp(argv[k], "--candidates") == 0) candidates = strtoul(argv[k + 1], NULL, 10);
    if (strcmp(argv[k], "--sources") == 0) sources = strtoul(argv[k + 1], NULL, 10);
    if (strcmp(argv[k], "--top") == 0) top = strtoul(argv[k + 1], NULL, 10);
    if (strcmp(argv[k], "--seconds") == 0) seconds = strtod(argv[k + 1], NULL);
  }
  if (candidates < 2 || candidates > MOST || sources < 2 || sources > candidates || top < 1) {
    fprintf(stderr, "bench_search: 2 to %d candidates, 2 to as many sources, and at least 1 to keep were expected\n", MOST);
    return 2;
  }
  const mg_status status = make_space(&space) ? measure(&space, seconds) : MG_ERR_NOMEM;
  if (status != MG_OK) fprintf(stderr, "bench_search: %s\n", mg_error_message());
  for (int k = 0; k < 5; k++) free(arrays[k]);
  return status == MG_OK ? 0 : 1;
}
