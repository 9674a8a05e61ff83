/*
 * Elements in vectors of LANES doubles, STEP vectors at a time whose sums stay in registers over all sources: included once an
 * instruction set, with LANES, KERNELS and KERNELS_NAME set.
 */

#if defined(__SSE__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels_impl.h"

#define INLINE static inline __attribute__((always_inline))

typedef double vd __attribute__((vector_size(LANES * sizeof(double)), aligned(8), may_alias));
typedef float vs __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int64_t vm __attribute__((vector_size(LANES * sizeof(int64_t))));

/* One instruction where there is one: compilers make four of the generic conversion. */
INLINE vd load(const float *p) {
#if LANES == 8 && defined(__AVX512F__)
  return (vd)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif LANES == 4 && defined(__AVX__)
  return (vd)_mm256_cvtps_pd(_mm_loadu_ps(p));
#else
  return __builtin_convertvector(*(const vs *)(const void *)p, vd);
#endif
}
INLINE vd splat(double x) { return x - (vd){0}; } /* keeps the sign of a zero */
INLINE vd choose(vm mask, vd a, vd b) { return (vd)((mask & (vm)a) | (~mask & (vm)b)); }
INLINE vd only(vm mask, vd x) { return (vd)(mask & (vm)x); }
INLINE vd size_of(vd x) { return (vd)((vm)x & INT64_MAX); }
INLINE vd between(vd x, vd low, vd high) { return only((size_of(x) >= low) & (size_of(x) < high), x); }
/* a b + c, rounded once. */
INLINE vd fused(vd a, vd b, vd c) {
#if LANES == 8 && defined(__AVX512F__)
  return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif LANES == 4 && defined(__FMA__)
  return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  vd out = c;
  for (int l = 0; l < LANES; l++) out[l] = fma(a[l], b[l], c[l]);
  return out;
#endif
}
INLINE void put(double *p, vd x) { *(vd *)(void *)p = x; }

enum { STEP = 4, WIDE = STEP * LANES };
_Static_assert((int)WIDE <= (int)MG_MERGE_SLACK, "steps read past the end of a tile");

typedef void (*step_fn)(const mg_merge_rows *rows, long at, double *sum);

INLINE void over_tile(const mg_merge_rows *r, double *sum, step_fn step) {
  for (long at = 0; at < r->count; at += WIDE) step(r, at, sum + at);
}

INLINE void put_step(double *sum, const vd *total) {
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, total[k]);
}

INLINE void add_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}};
  for (size_t s = 0; s < r->sources; s++) {
    const float *a = r->tau[s] + at;
    const vd w = splat(r->weight[s]);
    for (int k = 0; k < STEP; k++) total[k] = fused(w, load(a + k * LANES), total[k]);
  }
  put_step(sum, total);
}

enum { HALF = STEP / 2 };

/* Half a step of every sum: a row is loaded once for all of them. plain: all factors are 1. */
INLINE void sums_step(const mg_merge_rows *r, const mg_merge_sum *sums, const float *base, long at, bool plain) {
  vd total[MG_MERGE_MANY][HALF] = {{{0}}}, theta[HALF];
  for (size_t s = 0; s < r->sources; s++) {
    const float *a = r->tau[s] + at;
    vd value[HALF];
    for (int k = 0; k < HALF; k++) value[k] = load(a + k * LANES);
    for (int m = 0; m < MG_MERGE_MANY; m++) {
      const vd w = splat(sums[m].weight[s]);
      for (int k = 0; k < HALF; k++) total[m][k] = fused(w, value[k], total[m][k]);
    }
  }
  for (int k = 0; k < HALF; k++) theta[k] = load(base + at + k * LANES);
  for (int m = 0; m < MG_MERGE_MANY; m++)
    for (int k = 0; k < HALF; k++) {
      const vd value = plain ? theta[k] + total[m][k] : sums[m].base_factor * theta[k] + sums[m].lambda * total[m][k];
      *(vs *)(void *)(sums[m].out + at + k * LANES) = __builtin_convertvector(value, vs);
    }
}

static void sums_of_rows(const mg_merge_rows *r, const mg_merge_sum *sums, const float *base) {
  bool plain = true;
  for (int m = 0; m < MG_MERGE_MANY; m++) plain = plain && sums[m].base_factor == 1 && sums[m].lambda == 1;
  if (plain)
    for (long at = 0; at < r->count; at += HALF * LANES) sums_step(r, sums, base, at, true);
  else
    for (long at = 0; at < r->count; at += HALF * LANES) sums_step(r, sums, base, at, false);
}

/* What is not finite leaves NaN in a sum of zeros: one comparison for all. */
static bool all_finite(const float *values, long count) {
  vs damage[STEP] = {{0}};
  float rest = 0;
  long k = 0;
  for (; k + WIDE <= count; k += WIDE)
    for (int i = 0; i < STEP; i++) damage[i] += *(const vs *)(const void *)(values + k + i * LANES) * 0.0f;
  for (; k < count; k++) rest += values[k] * 0.0f;
  for (int i = 1; i < STEP; i++) damage[0] += damage[i];
  for (int l = 0; l < LANES; l++) rest += damage[0][l];
  return rest == 0;
}

/* Past the caches whole lines at a time: what is written in parts costs a line each. */
static bool copy_out(float *to, const float *from, long count, bool past) {
  long k = 0;
#if defined(__SSE2__)
  if (past && ((uintptr_t)to & 63) == 0)
    for (; k + 16 <= count; k += 16)
      for (int i = 0; i < 16; i += 4) _mm_stream_ps(to + k + i, _mm_loadu_ps(from + k + i));
#else
  (void)past;
#endif
  memcpy(to + k, from + k, (size_t)(count - k) * sizeof *to);
  return all_finite(from, count);
}

/* A step's values of one source. */
INLINE void values_of(const mg_merge_rows *r, size_t s, long at, bool shifted, vd *value) {
  const float *a = r->tau[s] + at;
  const vd low = splat(r->threshold[s]), high = splat(r->ceiling[s]), shift = splat(shifted ? r->shift[s] : 0);
  for (int k = 0; k < STEP; k++) {
    value[k] = between(load(a + k * LANES), low, high);
    if (shifted) value[k] -= shift * load(r->along + at + k * LANES);
  }
}

INLINE void add_values(const mg_merge_rows *r, const double *weights, long at, bool shifted, vd *total) {
  vd value[STEP];
  for (size_t s = 0; s < r->sources; s++) {
    const vd w = splat(weights[s]);
    values_of(r, s, at, shifted, value);
    for (int k = 0; k < STEP; k++) total[k] += w * value[k];
  }
}

INLINE void add_between_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}};
  add_values(r, r->weight, at, false, total);
  put_step(sum, total);
}

INLINE void votes_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}};
  add_values(r, r->vote, at, false, total);
  put_step(sum, total);
}

INLINE void shifted_votes_step(const mg_merge_rows *r, long at, double *sum) {
  vd total[STEP] = {{0}};
  add_values(r, r->vote, at, true, total);
  put_step(sum, total);
}

/* ---- elections ---- */

/* Besides the sums: where votes cancelled that were not all 0. */
typedef void (*electing_fn)(const mg_merge_rows *rows, long at, double *sum, vm *cancelled);

INLINE bool elect_over_tile(const mg_merge_rows *r, double *sum, electing_fn step) {
  vm seen = {0}, cancelled[STEP];
  long at = 0;
  bool any = false;
  for (; at + WIDE <= r->count; at += WIDE) {
    step(r, at, sum + at, cancelled);
    for (int k = 0; k < STEP; k++) seen |= cancelled[k];
  }
  if (at < r->count) { /* what lies behind the end is no one's vote */
    step(r, at, sum + at, cancelled);
    for (long k = 0; at + k < r->count; k++) any |= cancelled[k / LANES][k % LANES] != 0;
  }
  for (int l = 0; l < LANES; l++) any |= seen[l] != 0;
  return any;
}

/* The sign that a value must have. */
INLINE void vote_step(const mg_merge_rows *r, long at, bool shifted, vd *vote, vm *cancelled) {
  vd total[STEP] = {{0}};
  add_values(r, r->vote, at, shifted, total);
  for (int k = 0; k < STEP; k++) {
    vote[k] = choose(total[k] > 0, splat(1), choose(total[k] < 0, splat(-1), splat(r->tie)));
    cancelled[k] = total[k] == 0;
  }
}

INLINE void elect_max_step(const mg_merge_rows *r, long at, double *sum, vm *cancelled) {
  vd vote[STEP], value[STEP], most[STEP] = {{0}};
  vote_step(r, at, false, vote, cancelled);
  for (size_t s = 0; s < r->sources; s++) {
    values_of(r, s, at, false, value);
    for (int k = 0; k < STEP; k++)
      most[k] = choose((value[k] * vote[k] > 0) & (size_of(value[k]) > size_of(most[k])), value[k], most[k]);
  }
  for (int k = 0; k < STEP; k++) cancelled[k] &= most[k] != 0;
  put_step(sum, most);
}

INLINE void elect_sum(const mg_merge_rows *r, long at, bool shifted, vd *total, vd *share, vm *cancelled) {
  vd vote[STEP], value[STEP];
  vote_step(r, at, shifted, vote, cancelled);
  for (size_t s = 0; s < r->sources; s++) {
    const vd w = splat(r->weight[s]);
    values_of(r, s, at, shifted, value);
    for (int k = 0; k < STEP; k++) {
      const vd counts = only(value[k] * vote[k] > 0, w);
      total[k] += counts * value[k];
      share[k] += counts;
    }
  }
  for (int k = 0; k < STEP; k++) cancelled[k] &= share[k] > 0;
}

INLINE void elect_mean(const mg_merge_rows *r, long at, bool shifted, double *sum, vm *cancelled) {
  vd total[STEP] = {{0}}, share[STEP] = {{0}};
  const vd floor = splat(r->floor);
  elect_sum(r, at, shifted, total, share, cancelled);
  for (int k = 0; k < STEP; k++)
    put(sum + k * LANES, choose(share[k] > 0, total[k] / choose(share[k] > floor, share[k], floor), total[k]));
}

INLINE void elect_mean_step(const mg_merge_rows *r, long at, double *sum, vm *cancelled) {
  elect_mean(r, at, false, sum, cancelled);
}

INLINE void elect_shifted_mean_step(const mg_merge_rows *r, long at, double *sum, vm *cancelled) {
  elect_mean(r, at, true, sum, cancelled);
}

INLINE void elect_sum_step(const mg_merge_rows *r, long at, double *sum, vm *cancelled) {
  vd total[STEP] = {{0}}, share[STEP] = {{0}};
  elect_sum(r, at, false, total, share, cancelled);
  put_step(sum, total);
}

/* ---- others ---- */

INLINE void largest_step(const mg_merge_rows *r, long at, double *sum) {
  vd most[STEP] = {{0}};
  for (size_t s = 0; s < r->sources; s++)
    for (int k = 0; k < STEP; k++) {
      const vd value = load(r->tau[s] + at + k * LANES);
      most[k] = choose(size_of(value) > size_of(most[k]), value, most[k]);
    }
  put_step(sum, most);
}

INLINE void average_active_of(const mg_merge_rows *r, long at, bool apart, double *sum) {
  vd total[STEP] = {{0}}, share[STEP] = {{0}}, alone[STEP] = {{0}}, number[STEP] = {{0}}, value[STEP];
  for (size_t s = 0; s < r->sources; s++) {
    const vd w = splat(r->weight[s]), factor = splat(apart ? r->alone[s] : 0);
    values_of(r, s, at, false, value);
    for (int k = 0; k < STEP; k++) {
      total[k] += w * value[k];
      share[k] += only(value[k] != 0, w);
      if (!apart) continue;
      alone[k] += factor * value[k];
      number[k] += only(value[k] != 0, splat(1));
    }
  }
  for (int k = 0; k < STEP; k++) {
    const vd mean = choose(share[k] > 0, total[k] / share[k], total[k]);
    put(sum + k * LANES, apart ? choose(number[k] == 1, alone[k], mean) : mean);
  }
}

INLINE void active_step(const mg_merge_rows *r, long at, double *sum) { average_active_of(r, at, false, sum); }
INLINE void active_apart_step(const mg_merge_rows *r, long at, double *sum) { average_active_of(r, at, true, sum); }

INLINE void variance_step(const mg_merge_rows *r, long at, double *sum) {
  const vd n = splat((double)r->sources);
  vd mean[STEP] = {{0}}, total[STEP] = {{0}};
  for (size_t s = 0; s < r->sources; s++)
    for (int k = 0; k < STEP; k++) mean[k] += load(r->tau[s] + at + k * LANES);
  for (int k = 0; k < STEP; k++) mean[k] /= n;
  for (size_t s = 0; s < r->sources; s++)
    for (int k = 0; k < STEP; k++) {
      const vd off = load(r->tau[s] + at + k * LANES) - mean[k];
      total[k] += off * off;
    }
  for (int k = 0; k < STEP; k++) put(sum + k * LANES, total[k] / n);
}

static void add_up(const mg_merge_rows *r, double *sum) { over_tile(r, sum, add_step); }
static void add_up_between(const mg_merge_rows *r, double *sum) { over_tile(r, sum, add_between_step); }
static void largest(const mg_merge_rows *r, double *sum) { over_tile(r, sum, largest_step); }
static void variance(const mg_merge_rows *r, double *sum) { over_tile(r, sum, variance_step); }

static void average_active(const mg_merge_rows *r, double *sum) {
  if (r->alone != NULL)
    over_tile(r, sum, active_apart_step);
  else
    over_tile(r, sum, active_step);
}

static void votes(const mg_merge_rows *r, double *sum) {
  if (r->shift != NULL)
    over_tile(r, sum, shifted_votes_step);
  else
    over_tile(r, sum, votes_step);
}

static bool elect(const mg_merge_rows *r, mg_elected elected, double *sum) {
  if (r->shift != NULL) return elect_over_tile(r, sum, elect_shifted_mean_step);
  if (elected == MG_ELECTED_MAX) return elect_over_tile(r, sum, elect_max_step);
  if (elected == MG_ELECTED_SUM) return elect_over_tile(r, sum, elect_sum_step);
  return elect_over_tile(r, sum, elect_mean_step);
}

static void near(const float *a, const float *b, double t, long count, double *sum) {
  const vd reach = splat(t), least = splat(1e-6), one = splat(1);
  for (long at = 0; at < count; at += LANES) {
    const vd from = a != NULL ? load(a + at) : (vd){0}, way = load(b + at) - from, size = size_of(way);
    const vd u = reach / choose(size > least, size, least);
    put(sum + at, from + choose(u < one, u, one) * way);
  }
}

#include "kernels_random.h"
#include "kernels_sums.h"

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
                                  .sums = sums_of_rows,
                                  .copy_out = copy_out,
                                  .add_up_between = add_up_between,
                                  .votes = votes,
                                  .elect = elect,
                                  .largest = largest,
                                  .average_active = average_active,
                                  .variance = variance,
                                  .near = near,
                                  .keep_random = keep_random,
                                  .dot = dot,
                                  .divergence = divergence,
                                  .finish = finish};
