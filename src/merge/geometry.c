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

/* <theta_i, theta_j> */
static double theta_dot(const mg_geometry *g, size_t i, size_t j) {
  return g->base_norm2 + g->base_dot[i] + g->base_dot[j] + g->gram[i * g->n + j];
}

mg_status mg_model_stock(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  (void)recipe;
  const double floor = 1e-6, n = (double)g->n;
  double total = 0, pairs = 0;
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = i + 1; j < g->n; j++, pairs++) {
      const double norms = tau_norm(g, i) * tau_norm(g, j), cosine = g->gram[i * g->n + j] / (norms > floor ? norms : floor);
      total += cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
    }
  const double c = pairs > 0 ? total / pairs : 1, below = 1 + (n - 1) * c;
  const double t = fabs(below) < 1e-6 ? 0 : n * c / below; /* they cancel: t has a pole, and only rounding decides its sign */
  for (size_t i = 0; i < g->n; i++) out->tau[i] = t / n;
  return MG_OK;
}

mg_status mg_directional_consensus(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  const double alpha = mg_method_value(recipe->method, recipe->values, "alpha");
  const double lambda = mg_method_value(recipe->method, recipe->values, "lambda");
  double norm2 = 0, along = 0; /* of the sum of the task vectors; the weighted sum's product with it */
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = 0; j < g->n; j++) {
      norm2 += g->gram[i * g->n + j];
      along += recipe->weight[i] * g->gram[i * g->n + j];
    }
  const bool defined = norm2 > 0 && sqrt(norm2) > 1e-8;
  for (size_t i = 0; i < g->n; i++)
    out->tau[i] = lambda * (defined ? (1 - alpha) * recipe->weight[i] + alpha * along / norm2 : recipe->weight[i]);
  return MG_OK;
}

mg_status mg_fisher_simple(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  double total = 0;
  for (size_t i = 0; i < g->n; i++) total += out->tau[i] = recipe->weight[i] * sqrt(fmax(theta_dot(g, i, i), 0));
  for (size_t i = 0; i < g->n; i++) out->tau[i] = total > 0 ? out->tau[i] / total : recipe->weight[i];
  return MG_OK;
}

mg_status mg_multislerp(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  double length = 0, norm2 = 0;
  for (size_t i = 0; i < g->n; i++) {
    const double norm = tau_norm(g, i);
    length += recipe->weight[i] * norm;
    out->tau[i] = norm > 0 ? recipe->weight[i] / norm : 0;
  }
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = 0; j < g->n; j++) norm2 += out->tau[i] * out->tau[j] * g->gram[i * g->n + j];
  if (length > 0 && !(norm2 > 1e-16)) {
    if (g->n == 2) { /* opposite ones: a straight line */
      memcpy(out->tau, recipe->weight, 2 * sizeof *out->tau);
      return MG_OK;
    }
    return mg_fail(MG_ERR_INPUT, "multislerp: the sources' directions cancel each other: there is no mean direction");
  }
  for (size_t i = 0; i < g->n; i++) out->tau[i] *= length > 0 ? length / sqrt(norm2) : 0;
  return MG_OK;
}

/* ---- of the weights themselves: a result is sum a_i theta_i ---- */

static double product(const mg_geometry *g, const double *a, const double *b) {
  double sum = 0;
  for (size_t i = 0; i < g->n; i++)
    for (size_t j = 0; j < g->n; j++) sum += a[i] * b[j] * theta_dot(g, i, j);
  return sum;
}

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

/* Shoemake 1985 on whole tensors; the next source comes in with its share of the weights so far. */
mg_status mg_slerp(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  mg_status status = MG_OK;
  const double threshold = mg_method_value(recipe->method, recipe->values, "dot_threshold");
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
    const double t = recipe->weight[next] / (so_far += recipe->weight[next]);
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

/* The mean on the sphere (Karcher 1977), found by its own iteration, times the mean norm. Every iterate is in the span. */
mg_status mg_karcher(const mg_geometry *g, const mg_recipe *recipe, mg_coefficients *out) {
  enum { MOST_TURNS = 10 };
  const double tolerance = 1e-5, share = 1 / (double)g->n;
  mg_status status = MG_OK;
  double length = 0, norm, *u = mg_alloc_zero(g->n, sizeof *u), *step = mg_alloc(g->n, sizeof *step),
         *unit = mg_alloc_zero(g->n, sizeof *unit);
  (void)recipe;
  if (u == NULL || step == NULL || unit == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t i = 0; i < g->n; i++) {
    const double own = sqrt(fmax(theta_dot(g, i, i), 0));
    length += share * own;
    u[i] = own > 0 ? share / own : 0;
  }
  norm = sqrt(fmax(product(g, u, u), 0));
  for (size_t i = 0; i < g->n && norm > 0; i++) u[i] /= norm;
  for (int turn = 0; turn < MOST_TURNS && norm > 0; turn++) {
    memset(step, 0, g->n * sizeof *step);
    for (size_t i = 0; i < g->n; i++) {
      const double own = sqrt(fmax(theta_dot(g, i, i), 0));
      if (!(own > 0)) continue;
      memset(unit, 0, g->n * sizeof *unit);
      unit[i] = 1 / own;
      const double cosine = fmin(1, fmax(-1, product(g, u, unit))), angle = acos(cosine);
      const double factor = angle > 1e-8 ? share * angle / sin(angle) : share;
      for (size_t j = 0; j < g->n; j++) step[j] += factor * (unit[j] - cosine * u[j]);
    }
    const double size = sqrt(fmax(product(g, step, step), 0));
    if (size < tolerance) break;
    for (size_t i = 0; i < g->n; i++) u[i] = cos(size) * u[i] + sin(size) * step[i] / size;
  }
  for (size_t i = 0; i < g->n; i++) u[i] *= length;
  take_theta(g, u, out);
cleanup:
  free(u), free(step), free(unit);
  return status;
}
