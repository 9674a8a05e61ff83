/* Parameters of two models side by side. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/microscope.h"
#include "mergegrid/text.h"

enum { LANES = 8 };

static double add_up(const double *lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Lane by lane, so that the compiler may take them together and no machine takes them in another order. */
void mg_delta_sums_add(mg_delta_sums *sums, const float *reference, const float *candidate, int64_t count) {
  double delta2[LANES] = {0}, absolute[LANES] = {0}, dot[LANES] = {0}, reference2[LANES] = {0}, candidate2[LANES] = {0};
  for (int64_t k = 0; k < count; k += LANES) {
    const int lanes = count - k < LANES ? (int)(count - k) : LANES;
    for (int l = 0; l < lanes; l++) {
      const double r = (double)reference[k + l], c = (double)candidate[k + l], d = c - r;
      delta2[l] += d * d;
      absolute[l] += fabs(d);
      dot[l] += c * r;
      reference2[l] += r * r;
      candidate2[l] += c * c;
    }
  }
  const mg_delta_sums more = {.delta2 = add_up(delta2),
                              .absolute = add_up(absolute),
                              .dot = add_up(dot),
                              .reference2 = add_up(reference2),
                              .candidate2 = add_up(candidate2)};
  mg_delta_sums_join(sums, &more);
}

void mg_delta_sums_join(mg_delta_sums *sums, const mg_delta_sums *more) {
  sums->delta2 += more->delta2;
  sums->absolute += more->absolute;
  sums->dot += more->dot;
  sums->reference2 += more->reference2;
  sums->candidate2 += more->candidate2;
}

mg_parameter_delta mg_parameter_delta_of(const mg_delta_sums *s, int64_t count) {
  static const double least = 1e-8;
  const double reference = sqrt(s->reference2), candidate = sqrt(s->candidate2);
  return (mg_parameter_delta){.delta_l2 = sqrt(s->delta2),
                              .delta_mean_abs = s->absolute / (double)count,
                              .cosine_with_reference = s->dot / (fmax(reference, least) * fmax(candidate, least)),
                              .reference_norm = reference,
                              .candidate_norm = candidate};
}

/* <x, y> of two combinations. */
static double inner_product(const mg_inner_products *p, double x_base, const double *x, double y_base, const double *y) {
  double sum = x_base * y_base * p->base_norm2;
  for (size_t i = 0; i < p->sources; i++) {
    sum += (x_base * y[i] + y_base * x[i]) * p->base_dot[i];
    for (size_t j = 0; x[i] != 0 && j < p->sources; j++)
      if (y[j] != 0) sum += x[i] * y[j] * p->source_dot[i * p->sources + j];
  }
  return sum;
}

/* The difference is a combination itself, whose square is small where it is: nothing cancels but within it. */
static double squared_distance(const mg_inner_products *p, const mg_combination *a, const mg_combination *b) {
  const double base = a->base - b->base;
  double sum = base * base * p->base_norm2;
  for (size_t i = 0; i < p->sources; i++) {
    const double x = a->coefficient[i] - b->coefficient[i];
    if (x == 0) continue;
    sum += 2 * base * x * p->base_dot[i];
    for (size_t j = 0; j < p->sources; j++)
      sum += x * (a->coefficient[j] - b->coefficient[j]) * p->source_dot[i * p->sources + j];
  }
  return fmax(sum, 0);
}

mg_parameter_delta mg_parameter_delta_of_merges(const mg_inner_products *p, const mg_combination *reference,
                                                const mg_combination *candidate) {
  const mg_combination *r = reference, *c = candidate;
  const mg_delta_sums sums = {.delta2 = squared_distance(p, c, r),
                              .absolute = NAN,
                              .dot = inner_product(p, c->base, c->coefficient, r->base, r->coefficient),
                              .reference2 = fmax(inner_product(p, r->base, r->coefficient, r->base, r->coefficient), 0),
                              .candidate2 = fmax(inner_product(p, c->base, c->coefficient, c->base, c->coefficient), 0)};
  return mg_parameter_delta_of(&sums, 1);
}

/* Where a component of exactly this name begins, NULL where there is none. */
static const char *find_component(const char *name, const char *component) {
  const size_t length = strlen(component);
  for (const char *at = name; at != NULL; at = strchr(at, '.') != NULL ? strchr(at, '.') + 1 : NULL)
    if (strncmp(at, component, length) == 0 && (at[length] == '.' || at[length] == '\0')) return at;
  return NULL;
}

char *mg_parameter_layer(const char *parameter) {
  enum { COMPONENTS = 4 };
  const char *begin = find_component(parameter, "layer"), *end;
  if (begin != NULL) {
    end = begin;
    for (int k = 0; k < COMPONENTS && *end != '\0'; k++) end += strcspn(end, ".") + (end[strcspn(end, ".")] == '.');
    if (end[-1] == '.') end--;
  } else {
    begin = parameter;
    end = strrchr(parameter, '.');
    if (end == NULL) end = parameter + strlen(parameter);
  }
  char *layer = strndup(begin, (size_t)(end - begin));
  if (layer == NULL) mg_fail(MG_ERR_NOMEM, "out of memory");
  return layer;
}
