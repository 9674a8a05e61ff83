/*
 * Methods whose result lies in the span of the sources: their coefficients follow from the inner products of a tensor's task
 * vectors and base, tensor by tensor.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/text.h"

static double tau_norm(const mg_geometry *g, size_t i) { return sqrt(g->gram[i * g->n + i]); }

mg_status mg_model_stock(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  const double floor = 1e-6, n = (double)g->n;
  const bool angles = mg_value(recipe, "average") != 0;
  double total = 0, pairs = 0;
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = i + 1; j < g->n; j++, pairs++) {
      const double norms = tau_norm(g, i) * tau_norm(g, j), raw = g->gram[i * g->n + j] / (norms > floor ? norms : floor);
      const double cosine = raw > 1 ? 1 : raw < -1 ? -1 : raw;
      total += angles ? acos(cosine) : cosine;
    }
  const double mean = pairs > 0 ? total / pairs : 0, c = pairs > 0 ? (angles ? cos(mean) : mean) : 1;
  const double below = 1 + (n - 1) * c;
  const double t = fabs(below) < 1e-6 ? 0 : n * c / below; /* they cancel: t has a pole, and only rounding decides its sign */
  for (size_t i = 0; i < g->n; i++) out->tau[i] = t / n;
  return MG_OK;
}

/* out->tau comes with what the aggregation counts each source with. */
mg_status mg_directional_consensus(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  enum { WEIGHTED, SUM };
  const double alpha = mg_value(recipe, "alpha"), lambda = mg_value(recipe, "lambda");
  const double kind = mg_value(recipe, "aggregation");
  double norm2 = 0, along = 0; /* of the sum of the task vectors; the aggregate's product with it */
  for (size_t i = 0; i < g->n; i++) {
    out->tau[i] = kind == WEIGHTED ? recipe->weight[i] : kind == SUM ? 1 : 1 / (double)g->n;
    for (size_t j = 0; j < g->n; j++) {
      norm2 += g->gram[i * g->n + j];
      along += out->tau[i] * g->gram[i * g->n + j];
    }
  }
  const bool defined = norm2 > 0 && sqrt(norm2) > 1e-8;
  for (size_t i = 0; i < g->n; i++)
    out->tau[i] = lambda * (defined ? (1 - alpha) * out->tau[i] + alpha * along / norm2 : out->tau[i]);
  return MG_OK;
}

mg_status mg_fisher_simple(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  const bool weighted = mg_value(recipe, "weighted") != 0;
  double total = 0;
  for (size_t i = 0; i < g->n; i++) {
    out->tau[i] = (weighted ? recipe->weight[i] : 1) * sqrt(fmax(mg_theta_dot(g, i, i), 0));
    total += out->tau[i];
  }
  for (size_t i = 0; i < g->n; i++)
    out->tau[i] = total > 0 ? out->tau[i] / total : weighted ? recipe->weight[i] : 1 / (double)g->n;
  return MG_OK;
}

static void take_theta(const mg_geometry *g, const double *a, mg_coefficients *out);

/* Of the task vectors, or of the weights: then what comes out is sum a_i theta_i. */
mg_status mg_multislerp(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  const bool theta = mg_value(recipe, "of") != 0;
  double length = 0, norm2 = 0;
  for (size_t i = 0; i < g->n; i++) {
    const double norm = theta ? sqrt(fmax(mg_theta_dot(g, i, i), 0)) : tau_norm(g, i);
    length += recipe->weight[i] * norm;
    out->tau[i] = norm > 0 ? recipe->weight[i] / norm : 0;
  }
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = 0; j < g->n; j++)
      norm2 += out->tau[i] * out->tau[j] * (theta ? mg_theta_dot(g, i, j) : g->gram[i * g->n + j]);
  const bool straight = length > 0 && !(norm2 > 1e-16); /* two that cancel have a line between them, and no one arc */
  if (straight && g->n != 2)
    return mg_fail(MG_ERR_INPUT, "multislerp: the sources' directions cancel each other: there is no mean direction");
  for (size_t i = 0; i < g->n; i++)
    out->tau[i] = straight ? recipe->weight[i] : length > 0 ? out->tau[i] * length / sqrt(norm2) : 0;
  if (theta) take_theta(g, out->tau, out);
  return MG_OK;
}

/* ---- of the weights themselves: a result is sum a_i theta_i ---- */

static double product(const mg_geometry *g, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = 0; j < g->n; j++) sum += a[i] * b[j] * mg_theta_dot(g, i, j);
  return sum;
}

/* a may be out->tau. */
static void take_theta(const mg_geometry *g, const double *a, mg_coefficients *out) {
  out->base = 0;
  for (size_t i = 0; i < g->n; i++) {
    out->base += a[i];
    out->tau[i] = a[i];
  }
}

/* Source numbers by falling weight, equal ones in the family's order. */
static void rank_sources(const mg_recipe *recipe, size_t *order) {
  for (size_t k = 0; k < recipe->count; k++) {
    size_t at = k;
    for (; at > 0 && recipe->weight[order[at - 1]] < recipe->weight[k]; at--) order[at] = order[at - 1];
    order[at] = k;
  }
}

/*
 * Shoemake 1985 on whole tensors. The next source comes in with its share of the weights so far; in merginguriel with that of
 * the source before it among both.
 */
mg_status mg_slerp(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  mg_status status = MG_OK;
  const double threshold = mg_value(recipe, "dot_threshold");
  const bool cumulative = mg_value(recipe, "share") == 0;
  double *a = mg_alloc_zero(g->n, sizeof *a), *b = mg_alloc_zero(g->n, sizeof *b);
  size_t *order = mg_alloc(g->n, sizeof *order);
  if (a == NULL || b == NULL || order == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  rank_sources(recipe, order);
  a[order[0]] = 1;
  double so_far = recipe->weight[order[0]];
  for (size_t k = 1; k < g->n; k++) {
    const size_t next = order[k];
    const double own = recipe->weight[next], before = recipe->weight[order[k - 1]];
    so_far += own;
    const double t = cumulative ? own / so_far : before / (before + own);
    memset(b, 0, g->n * sizeof *b);
    b[next] = 1;
    const double norms = sqrt(product(g, a, a)) * sqrt(product(g, b, b));
    const double dot = norms > 0 ? fmin(1, fmax(-1, product(g, a, b) / norms)) : 1, angle = acos(dot);
    const bool straight = fabs(dot) > threshold || sin(angle) < 1e-9; /* no arc, or no one arc, between parallels */
    const double keep = straight ? 1 - t : sin((1 - t) * angle) / sin(angle), add = straight ? t : sin(t * angle) / sin(angle);
    for (size_t i = 0; i < g->n; i++) a[i] *= keep;
    a[next] += add;
  }
  take_theta(g, a, out);
cleanup:
  free(a), free(b), free(order);
  return status;
}

typedef struct sphere {
  const mg_geometry *g;
  double share, *norm, *u, *step, *unit; /* [n] */
} sphere;

/* Towards the mean from u: sum share · angle / sin(angle) · (unit_i − cos(angle) u); its length. */
static double find_step(const sphere *s) {
  const size_t n = s->g->n;
  memset(s->step, 0, n * sizeof *s->step);
  for (size_t i = 0; i < n; i++) {
    if (!(s->norm[i] > 0)) continue;
    memset(s->unit, 0, n * sizeof *s->unit);
    s->unit[i] = 1 / s->norm[i];
    const double cosine = fmin(1, fmax(-1, product(s->g, s->u, s->unit))), angle = acos(cosine);
    const double factor = angle > 1e-8 ? s->share * angle / sin(angle) : s->share;
    for (size_t j = 0; j < n; j++) s->step[j] += factor * (s->unit[j] - cosine * s->u[j]);
  }
  return sqrt(fmax(product(s->g, s->step, s->step), 0));
}

/*
 * The mean on the sphere (Karcher 1977) of those that have a direction, found by its own iteration, times the mean norm of all.
 * Every iterate is in the span.
 */
mg_status mg_karcher(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  const double tolerance = mg_value(recipe, "tol"), most = mg_value(recipe, "max_iter");
  double length = 0, present = 0, *block = mg_alloc_zero(4, g->n * sizeof *block);
  if (block == NULL) return MG_ERR_NOMEM;
  sphere s = {.g = g, .norm = block, .u = block + g->n, .step = block + 2 * g->n, .unit = block + 3 * g->n};
  for (size_t i = 0; i < g->n; i++) {
    s.norm[i] = sqrt(fmax(mg_theta_dot(g, i, i), 0));
    length += s.norm[i];
    present += s.norm[i] > 0;
    s.u[i] = s.norm[i] > 0 ? 1 / s.norm[i] : 0;
  }
  s.share = present > 0 ? 1 / present : 0;
  const double norm = sqrt(fmax(product(g, s.u, s.u), 0));
  for (size_t i = 0; i < g->n && norm > 0; i++) s.u[i] /= norm;
  for (double turn = 0; turn < most && norm > 0; turn++) {
    const double size = find_step(&s);
    if (size < tolerance) break;
    for (size_t i = 0; i < g->n && size > 0; i++) s.u[i] = cos(size) * s.u[i] + sin(size) * s.step[i] / size;
  }
  for (size_t i = 0; i < g->n; i++) s.u[i] *= length / (double)g->n;
  take_theta(g, s.u, out);
  free(block);
  return MG_OK;
}
