/*
 * Elements in vectors of LANES doubles, STEP vectors at a time whose sums stay in registers over all sources: included once an
 * instruction set, with LANES, KERNELS and KERNELS_NAME set.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels_impl.h"

#define INLINE static inline __attribute__((always_inline))

typedef double vd __attribute__((vector_size(LANES * sizeof(double)), aligned(8), may_alias));
typedef float vs __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int64_t vm __attribute__((vector_size(LANES * sizeof(int64_t))));

INLINE vd load(const float *p) { return __builtin_convertvector(*(const vs *)(const void *)p, vd); }
INLINE vd splat(double x) { return x - (vd){0}; } /* keeps the sign of a zero */
INLINE vd choose(vm mask, vd a, vd b) { return (vd)((mask & (vm)a) | (~mask & (vm)b)); }
INLINE vd size_of(vd x) { return (vd)((vm)x & INT64_MAX); }
INLINE vd between(vd x, vd low, vd high) { return (vd)((vm)x & (size_of(x) >= low) & (size_of(x) < high)); }
INLINE void put(double *p, vd x) { *(vd *)(void *)p = x; }

enum { STEP = 4, WIDE = STEP * LANES };
_Static_assert((int)WIDE <= (int)MG_MERGE_SLACK, "steps read past the end of a tile");

typedef void (*step_fn)(const mg_merge_rows *rows, long at, double *sum);

INLINE void over_tile(const mg_merge_rows *r, double *sum, step_fn step) {
  for (long at = 0; at < r->count; at += WIDE) step(r, at, sum + at);
}

INLINE void add_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}};
  for (size_t s = 0; s < r->sources; s++) {
    const float *a = r->tau[s] + at;
    const vd w = splat(r->weight[s]);
    for (int k = 0; k < STEP; k++) total[k] += w * load(a + k * LANES);
  }
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, total[k]);
}

INLINE void add_between(const mg_merge_rows *r, long at, vd *total) {
  for (size_t s = 0; s < r->sources; s++) {
    const float *a = r->tau[s] + at;
    const vd w = splat(r->weight[s]), low = splat(r->threshold[s]), high = splat(r->ceiling[s]);
    for (int k = 0; k < STEP; k++) total[k] += w * between(load(a + k * LANES), low, high);
  }
}

INLINE void add_between_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}};
  add_between(r, at, total);
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, total[k]);
}

/* The sign that a value must have, +1 where they cancel. */
INLINE void vote_step(const mg_merge_rows *r, long at, vd *vote) {
  vd total[STEP] = {{0}};
  add_between(r, at, total);
  for (int k = 0; k < STEP; k++) vote[k] = choose(total[k] >= 0, splat(1), splat(-1));
}

INLINE void elect_max_step(const mg_merge_rows *r, long at, double *sum) {
  vd vote[STEP], most[STEP] = {{0}};
  vote_step(r, at, vote);
  for (size_t s = 0; s < r->sources; s++) {
    const vd low = splat(r->threshold[s]), high = splat(r->ceiling[s]);
    for (int k = 0; k < STEP; k++) {
      const vd value = between(load(r->tau[s] + at + k * LANES), low, high);
      most[k] = choose((value * vote[k] > 0) & (size_of(value) > size_of(most[k])), value, most[k]);
    }
  }
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, most[k]);
}

INLINE void elect_sum(const mg_merge_rows *r, long at, vd *total, vd *share) {
  vd vote[STEP];
  vote_step(r, at, vote);
  for (size_t s = 0; s < r->sources; s++) {
    const vd w = splat(r->weight[s]), low = splat(r->threshold[s]), high = splat(r->ceiling[s]);
    for (int k = 0; k < STEP; k++) {
      const vd value = between(load(r->tau[s] + at + k * LANES), low, high);
      const vd counts = (vd)((vm)w & (value * vote[k] > 0));
      total[k] += counts * value;
      share[k] += counts;
    }
  }
}

INLINE void elect_mean_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}}, share[STEP] = {{0}};
  elect_sum(r, at, total, share);
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, choose(share[k] > 0, total[k] / share[k], total[k]));
}

INLINE void elect_sum_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}}, share[STEP] = {{0}};
  elect_sum(r, at, total, share);
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, total[k]);
}

INLINE void largest_step(const mg_merge_rows *r, long at, double *sum) {
  vd most[STEP] = {{0}};
  for (size_t s = 0; s < r->sources; s++)
    for (int k = 0; k < STEP; k++) {
      const vd value = load(r->tau[s] + at + k * LANES);
      most[k] = choose(size_of(value) > size_of(most[k]), value, most[k]);
    }
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, most[k]);
}

INLINE void active_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}}, share[STEP] = {{0}};
  for (size_t s = 0; s < r->sources; s++) {
    const vd w = splat(r->weight[s]), low = splat(r->threshold[s]), high = splat(r->ceiling[s]);
    for (int k = 0; k < STEP; k++) {
      const vd value = between(load(r->tau[s] + at + k * LANES), low, high);
      total[k] += w * value;
      share[k] += (vd)((vm)w & (value != 0));
    }
  }
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, choose(share[k] > 0, total[k] / share[k], total[k]));
}

static void add_up(const mg_merge_rows *r, double *sum) { over_tile(r, sum, add_step); }
static void add_up_between(const mg_merge_rows *r, double *sum) { over_tile(r, sum, add_between_step); }
static void largest(const mg_merge_rows *r, double *sum) { over_tile(r, sum, largest_step); }
static void average_active(const mg_merge_rows *r, double *sum) { over_tile(r, sum, active_step); }

static void elect(const mg_merge_rows *r, mg_elected elected, double *sum) {
  if (elected == MG_ELECTED_MAX)
    over_tile(r, sum, elect_max_step);
  else if (elected == MG_ELECTED_SUM)
    over_tile(r, sum, elect_sum_step);
  else
    over_tile(r, sum, elect_mean_step);
}

/* What is not finite leaves NaN in a sum of zeros: one comparison for all. */
static bool finish(const float *base, const double *sum, double base_factor, double lambda, long count, float *out) {
  vs damage = {0};
  float rest = 0;
  long k = 0;
  for (; k + LANES <= count; k += LANES) {
    const vd value = base_factor * load(base + k) + lambda * *(const vd *)(const void *)(sum + k);
    const vs rounded = __builtin_convertvector(value, vs);
    *(vs *)(void *)(out + k) = rounded;
    damage += rounded * 0.0f;
  }
  for (; k < count; k++) {
    out[k] = (float)(base_factor * (double)base[k] + lambda * sum[k]);
    rest += out[k] * 0.0f;
  }
  for (int l = 0; l < LANES; l++) rest += damage[l];
  return rest == 0;
}

const mg_merge_kernels KERNELS = {.name = KERNELS_NAME,
                                  .add_up = add_up,
                                  .add_up_between = add_up_between,
                                  .elect = elect,
                                  .largest = largest,
                                  .average_active = average_active,
                                  .finish = finish};
