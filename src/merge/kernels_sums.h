/* Sums over the elements of a tile or row, part by part: a piece of kernels_body.h, whose vectors it works with. */

enum { VECTORS = MG_MERGE_PARTS / LANES };

INLINE double add_parts(const vd *parts) {
  double sums[MG_MERGE_PARTS];
  for (int v = 0; v < VECTORS; v++) put(sums + v * LANES, parts[v]);
  for (int half = MG_MERGE_PARTS / 2; half > 0; half /= 2)
    for (int k = 0; k < half; k++) sums[k] += sums[k + half];
  return sums[0];
}

/* Lanes of vector v of a block that lie before its end. */
INLINE vm inside(int v, long valid) {
  vm lanes = {0};
  for (int l = 0; l < LANES; l++) lanes[l] = -(int64_t)(v * LANES + l < valid);
  return lanes;
}

static double dot(const float *a, double low, double high, const float *b, long count) {
  const vd from = splat(low), to = splat(high);
  vd parts[VECTORS] = {{0}};
  long at = 0;
  for (; at + MG_MERGE_PARTS <= count; at += MG_MERGE_PARTS)
    for (int v = 0; v < VECTORS; v++) parts[v] += between(load(a + at + v * LANES), from, to) * load(b + at + v * LANES);
  for (int v = 0; at < count && v < VECTORS; v++)
    parts[v] += only(inside(v, count - at), between(load(a + at + v * LANES), from, to) * load(b + at + v * LANES));
  return add_parts(parts);
}

/* e^x, for x up to 0: 2^n times a series of what is left, which is at most half of log 2. Below −700 as there: next to 0. */
INLINE vd exp_of(vd x) {
  static const double inverse[] = {
      1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320, 1. / 5040,
      1. / 720,        1. / 120,       1. / 24,       1. / 6,       1. / 2,      1.,         1.};
  const double shift = 0x1.8p52, log2e = 0x1.71547652b82fep0, high = 0x1.62e42fee00000p-1, low = 0x1.a39ef35793c76p-33;
  x = choose(x > splat(-700), x, splat(-700));
  const vd turns = x * log2e + shift, n = turns - shift, rest = (x - n * high) - n * low;
  vd sum = splat(inverse[0]);
  for (size_t k = 1; k < sizeof inverse / sizeof *inverse; k++) sum = sum * rest + inverse[k];
  return sum * (vd)(((vm)turns + 1023) << 52);
}

/* A row's largest element of base + tau. */
INLINE double top_of(const float *base, const float *tau, long count) {
  vd most[VECTORS];
  double tops[MG_MERGE_PARTS], top = -INFINITY;
  for (int v = 0; v < VECTORS; v++) most[v] = splat(-INFINITY);
  for (long at = 0; at < count; at += MG_MERGE_PARTS)
    for (int v = 0; v < VECTORS; v++) {
      const vd x = load(base + at + v * LANES) + (tau != NULL ? load(tau + at + v * LANES) : (vd){0});
      most[v] = choose(inside(v, count - at) & (x > most[v]), x, most[v]);
    }
  for (int v = 0; v < VECTORS; v++) put(tops + v * LANES, most[v]);
  for (int k = 0; k < MG_MERGE_PARTS; k++) top = tops[k] > top ? tops[k] : top;
  return top;
}

/* log((1 + z) / (1 − z)) = 2 atanh z, for z up to 0.18 or so. */
INLINE double log_ratio(double z) {
  const double square = z * z;
  double sum = 0;
  for (int k = 29; k > 0; k -= 2) sum = sum * square + 1. / k;
  return 2 * z * sum;
}

INLINE double log_of(double x) {
  int exponent;
  double m = frexp(x, &exponent);
  if (m < 0x1.6a09e667f3bcdp-1) m *= 2, exponent--;
  return exponent * 0x1.62e42fefa39efp-1 + log_ratio((m - 1) / (m + 1));
}

/* e^−x − 1 + x for |x| up to a third: what is left of the series, so that nothing cancels. */
INLINE vd bend_of(vd x) {
  static const double inverse[] = {1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320,
                                   1. / 5040,       1. / 720,       1. / 120,      1. / 24,      1. / 6,      1. / 2};
  vd sum = splat(inverse[0]);
  for (size_t k = 1; k < sizeof inverse / sizeof *inverse; k++) sum = inverse[k] - sum * x;
  return sum * x * x;
}

typedef struct softmaxes {
  const float *base, *a, *b; /* rows */
  long count;
  double top_a, top_b, sum_a, sum_b; /* of e^(theta − top) */
  double change, most;               /* the mean of b − a by the second softmax; how far any is from it */
} softmaxes;

INLINE void look_at(softmaxes *s) {
  vd total_a[VECTORS] = {{0}}, total_b[VECTORS] = {{0}}, along[VECTORS] = {{0}}, up[VECTORS], down[VECTORS];
  for (int v = 0; v < VECTORS; v++) up[v] = splat(-INFINITY), down[v] = splat(-INFINITY);
  for (long at = 0; at < s->count; at += MG_MERGE_PARTS)
    for (int v = 0; v < VECTORS; v++) {
      const long k = at + v * LANES;
      const vm mask = inside(v, s->count - at);
      const vd theta = load(s->base + k), from = s->a != NULL ? load(s->a + k) : (vd){0}, way = load(s->b + k) - from;
      const vd weight = exp_of(theta + load(s->b + k) - s->top_b);
      total_a[v] += only(mask, exp_of(theta + from - s->top_a));
      total_b[v] += only(mask, weight);
      along[v] += only(mask, weight * way);
      up[v] = choose(mask & (way > up[v]), way, up[v]);
      down[v] = choose(mask & (-way > down[v]), -way, down[v]);
    }
  s->sum_a = add_parts(total_a), s->sum_b = add_parts(total_b);
  s->change = add_parts(along) / s->sum_b;
  s->most = 0;
  for (int v = 0; v < VECTORS; v++)
    for (int l = 0; l < LANES; l++) {
      s->most = up[v][l] - s->change > s->most ? up[v][l] - s->change : s->most;
      s->most = down[v][l] + s->change > s->most ? down[v][l] + s->change : s->most;
    }
}

/* The mean of e^−x − 1 + x by the second softmax, x the changes about their mean: e^divergence − 1. */
INLINE double mean_bend(const softmaxes *s) {
  vd total[VECTORS] = {{0}};
  for (long at = 0; at < s->count; at += MG_MERGE_PARTS)
    for (int v = 0; v < VECTORS; v++) {
      const long k = at + v * LANES;
      const vd to = load(s->b + k), way = to - (s->a != NULL ? load(s->a + k) : (vd){0});
      const vd weight = exp_of(load(s->base + k) + to - s->top_b);
      total[v] += only(inside(v, s->count - at), weight * bend_of(way - s->change));
    }
  return add_parts(total) / s->sum_b;
}

static double divergence(const float *base, const float *a, const float *b, long count) {
  softmaxes s = {
      .base = base, .a = a, .b = b, .count = count, .top_a = top_of(base, a, count), .top_b = top_of(base, b, count)};
  look_at(&s);
  if (s.most < 1. / 3) { /* as of models that are related: the divergence is of second order in the changes */
    const double bend = mean_bend(&s);
    return log_ratio(bend / (2 + bend));
  }
  const double apart = s.change - (s.top_b - s.top_a) - log_of(s.sum_b / s.sum_a);
  return apart > 0 ? apart : 0;
}
