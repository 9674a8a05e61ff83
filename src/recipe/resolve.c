/* What a cell comes to: its sources and weights as they are given to the method, and the method's parameters. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "recipe_impl.h"
#include "resolve_impl.h"

typedef struct resolving {
  const mg_grid_context *context;
  const mg_terms *terms;
  mg_choice choice;
  ptrdiff_t target; /* −1: the context has no targets, or the cell none */
  mg_resolved *out;
  mg_text note;
} resolving;

static const char *id_of(const resolving *r, int source) { return r->context->sources->items[source].id; }

static const char *behind_notes(const resolving *r) { return r->note.size > 0 ? "; " : ""; }

static void note(resolving *r, const char *text) { mg_text_append(&r->note, "%s%s", behind_notes(r), text); }

static mg_status find_target(resolving *r) {
  const mg_strings *targets = r->context->targets;
  r->target = -1;
  if (targets == NULL || r->terms->locale == NULL) return MG_OK;
  r->target = mg_strings_find(targets, r->terms->locale);
  if (r->target >= 0) return MG_OK;
  const char *nearest = mg_nearest(r->terms->locale, (const char *const *)targets->items, targets->count);
  return mg_fail(MG_ERR_INPUT, "target %s has no texts%s%s%s", r->terms->locale, nearest ? " (" : "", nearest ? nearest : "",
                 nearest ? "?)" : "");
}

/* ---- weights ---- */

/* Of the chosen pairs [n, n] those without a number, which count as 0: by row and column. */
static void note_unknown(resolving *r, const double *chosen, bool tv) {
  enum { NAMED = 5 };
  const size_t n = r->choice.count;
  size_t unknown = 0;
  mg_text names = {0}, text = {0};
  for (size_t k = 0; k < n * n; k++) {
    if (k / n == k % n || !isnan(chosen[k]) || unknown++ >= NAMED) continue;
    mg_text_append(&names, "%s%s %s", unknown > 1 ? ", " : "", id_of(r, r->choice.source[k / n]),
                   id_of(r, r->choice.source[k % n]));
  }
  mg_text_append(&text, "compatibilities (%s) that are NaN or lacking count as 0: %s%s", tv ? "tv" : "cka",
                 names.data ? names.data : "", unknown > NAMED ? ", …" : "");
  if (unknown > 0) note(r, text.data ? text.data : "");
  if (names.failed || text.failed) r->note.failed = true;
  mg_text_free(&names);
  mg_text_free(&text);
}

static mg_status weigh_by_compatibility(resolving *r) {
  const bool tv = strcmp(r->terms->method->name, "similarity_x_tv_compatibility") == 0;
  if (!tv && strcmp(r->terms->method->name, "similarity_x_cka_compatibility") != 0) return MG_OK;
  const double *all = tv ? r->context->tv : r->context->cka;
  const size_t n = r->choice.count, sources = r->context->sources->count;
  bool kept;
  if (all == NULL)
    return mg_fail(MG_ERR_INPUT, "method %s needs %s, which is not there", r->terms->method->name,
                   tv ? "task-vector cosines" : "CKA");
  double *chosen = mg_alloc(n, n * sizeof *chosen);
  if (chosen == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) chosen[i * n + j] = all[(size_t)r->choice.source[i] * sources + (size_t)r->choice.source[j]];
  note_unknown(r, chosen, tv);
  mg_weigh_by_compatibility(chosen, n, r->choice.weight, &kept);
  free(chosen);
  if (kept) note(r, "every compatibility is 0: the similarity's weights stay");
  return MG_OK;
}

size_t mg_strongest(const double *weights, size_t n) {
  size_t best = 0;
  for (size_t k = 1; k < n; k++)
    if (weights[k] > weights[best]) best = k;
  return best;
}

/* What is not positive can't be scaled: a weight of 0 is left out, as if it had not been chosen. */
static mg_status drop_weightless(resolving *r) {
  mg_choice *c = &r->choice;
  size_t kept = 0;
  for (size_t k = 0; k < c->count; k++) {
    if (!(c->weight[k] > 0)) continue;
    c->source[kept] = c->source[k];
    c->weight[kept++] = c->weight[k];
  }
  if (kept == 0) return mg_fail(MG_ERR_INPUT, "all weights are 0");
  if (kept < c->count) note(r, "sources whose weight is 0 are left out");
  c->count = kept;
  return MG_OK;
}

static mg_status drop_strongest(resolving *r) {
  mg_choice *c = &r->choice;
  if (!r->terms->drop_strongest || r->terms->method->kind != MG_METHOD_MERGE) return MG_OK;
  const size_t best = mg_strongest(c->weight, c->count);
  double rest = 0;
  if (c->count == 1)
    return mg_fail(MG_ERR_INPUT, "drop_strongest: %s is the only source, nothing is left to merge", id_of(r, c->source[0]));
  r->out->base = c->source[best]; /* it is not among the sources then */
  mg_text_append(&r->note, "%sstarts from %s, the strongest", behind_notes(r), id_of(r, c->source[best]));
  for (size_t k = best; k + 1 < c->count; k++) c->source[k] = c->source[k + 1], c->weight[k] = c->weight[k + 1];
  c->count--;
  for (size_t k = 0; k < c->count; k++) rest += c->weight[k];
  for (size_t k = 0; k < c->count; k++) c->weight[k] /= rest;
  return MG_OK;
}

/* ---- parameters ---- */

double mg_lambda_by_rule(const mg_method *method, const double *weights, size_t n) {
  const size_t best = mg_strongest(weights, n);
  double largest = 0;
  for (size_t k = 0; k < n; k++)
    if (k != best && weights[k] > largest) largest = weights[k];
  return mg_method_sums(method) ? (1 - weights[best]) / (double)(n - 1) : largest;
}

static mg_status rule_lambda(resolving *r) {
  const mg_terms *terms = r->terms;
  const mg_choice *c = &r->choice;
  const int at = mg_method_parameter(terms->method, "lambda");
  memcpy(r->out->values, terms->values, sizeof r->out->values);
  if (at < 0 || !mg_terms_ruled(terms, (size_t)at)) return MG_OK;
  if (c->count == 1) return mg_fail(MG_ERR_INPUT, "lambda_rule merginguriel: %s is the only source", id_of(r, c->source[0]));
  r->out->values[at] = mg_lambda_by_rule(terms->method, c->weight, c->count); /* the parameters that are said have the rule */
  mg_text_append(&r->note, "%slambda ", behind_notes(r));
  mg_text_append_number(&r->note, r->out->values[at]);
  mg_text_append(&r->note, " by the rule %s", terms->lambda_rule);
  return MG_OK;
}

/* ---- the recipe ---- */

/* In the family's order, whatever the choice's: a merge's bits hang on it. */
static mg_status keep_in_order(resolving *r) {
  const mg_choice *c = &r->choice;
  mg_resolved *out = r->out;
  out->source = mg_alloc(c->count, sizeof *out->source);
  out->weight = mg_alloc(c->count, sizeof *out->weight);
  if (out->source == NULL || out->weight == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < c->count; k++) {
    size_t at = k;
    for (; at > 0 && out->source[at - 1] > c->source[k]; at--) {
      out->source[at] = out->source[at - 1];
      out->weight[at] = out->weight[at - 1];
    }
    out->source[at] = c->source[k];
    out->weight[at] = c->weight[k];
  }
  out->count = c->count;
  return MG_OK;
}

size_t mg_best_of(const int *sources, const double *weights, size_t n, const double *accuracy, size_t columns,
                  ptrdiff_t target) {
  ptrdiff_t best = -1;
  double highest = -1;
  for (size_t k = 0; accuracy != NULL && target >= 0 && k < n; k++) {
    const double value = accuracy[(size_t)sources[k] * columns + (size_t)target];
    const bool first_of_equals = best >= 0 && value == highest && sources[k] < sources[best];
    if (!(value > highest) && !first_of_equals) continue;
    best = (ptrdiff_t)k;
    highest = value;
  }
  return best >= 0 ? (size_t)best : mg_strongest(weights, n);
}

/* Do layers hang on which source is the best? */
static bool goes_by_best(const mg_method *method, const double *values) {
  const int elsewhere = mg_method_parameter(method, "elsewhere");
  return strcmp(method->name, "exclude_layers") == 0 || (elsewhere >= 0 && values[elsewhere] != 0);
}

/* Sources that can't be the best, since nothing is known of them, are named. */
static void note_left_out(resolving *r) {
  mg_choice *c = &r->choice;
  const double *accuracy = r->context->accuracy[1];
  const size_t columns = r->context->targets != NULL ? r->context->targets->count : 0;
  if (r->target >= 0 && accuracy != NULL && goes_by_best(r->terms->method, r->out->values))
    for (size_t k = 0; k < c->count; k++)
      if (isnan(accuracy[(size_t)c->source[k] * columns + (size_t)r->target]))
        mg_text_append(&c->left_out, "%s%s", c->left_out.size > 0 ? ", " : "", id_of(r, c->source[k]));
  if (c->left_out.failed) r->note.failed = true;
  if (c->left_out.size == 0 || c->left_out.failed) return;
  mg_text text = {0};
  mg_text_append(&text, "not considered as the best source, since the stage nxn has no accuracy of them: %s", c->left_out.data);
  note(r, text.data != NULL ? text.data : "");
  if (text.failed) r->note.failed = true;
  mg_text_free(&text);
}

/* Weights that someone wrote down and that come to nothing. */
static void note_unused_weights(resolving *r) {
  const mg_terms *terms = r->terms;
  const mg_resolved *out = r->out;
  bool differ = false;
  for (size_t k = 1; terms->sources.count > 0 && k < out->count; k++) differ = differ || out->weight[k] != out->weight[0];
  if (!differ || out->kind != MG_CELL_MERGE || terms->drop_strongest || strcmp(terms->lambda_rule, "none") != 0) return;
  note(r, mg_method_parameter(terms->method, "weighted") >= 0
              ? "every source counts alike: the weights that were named count with `weighted: true`"
              : "every source counts alike, whatever weights were named");
}

static int best_source(const resolving *r) {
  const mg_choice *c = &r->choice;
  const size_t columns = r->context->targets != NULL ? r->context->targets->count : 0;
  return c->source[mg_best_of(c->source, c->weight, c->count, r->context->accuracy[1], columns, r->target)];
}

static mg_status resolve(resolving *r) {
  mg_status status = MG_OK;
  mg_resolved *out = r->out;
  const mg_method *method = r->terms->method;
  MG_TRY(find_target(r), done);
  MG_TRY(mg_choose(r->context, r->terms, &r->choice, &out->selection), done);
  MG_TRY(weigh_by_compatibility(r), done);
  MG_TRY(drop_weightless(r), done);
  MG_TRY(rule_lambda(r), done);
  MG_TRY(drop_strongest(r), done);
  MG_TRY(keep_in_order(r), done);
  note_left_out(r);
  const int best = best_source(r);
  while (out->source[out->best] != best) out->best++;
  if (!mg_method_is_weighted(method, out->values)) {
    note_unused_weights(r);
    for (size_t k = 0; k < out->count; k++) out->weight[k] = 1 / (double)out->count;
  }
  if (r->note.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
done:
  return status;
}

mg_status mg_grid_resolve(const mg_grid_context *context, const mg_cell *cell, mg_resolved *out) {
  static const mg_cell_kind kinds[] = {
      [MG_METHOD_MERGE] = MG_CELL_MERGE, [MG_METHOD_MODEL] = MG_CELL_MODEL, [MG_METHOD_VOTE] = MG_CELL_VOTE};
  resolving r = {.context = context, .terms = &cell->terms, .out = out};
  *out = (mg_resolved){.kind = kinds[cell->terms.method->kind], .base = -1};
  const mg_status status = resolve(&r);
  mg_choice_free(&r.choice);
  if (status == MG_OK) {
    out->note = r.note.data;
  } else {
    mg_text_free(&r.note);
    mg_resolved_free(out);
  }
  return status;
}

void mg_resolved_free(mg_resolved *resolved) {
  free(resolved->source), free(resolved->weight), free(resolved->note), free(resolved->selection.candidates);
  *resolved = (mg_resolved){.base = -1};
}

mg_status mg_resolved_sources_text(const mg_grid_context *context, const mg_resolved *resolved, mg_text *text) {
  bool *written = mg_alloc_zero(resolved->count, sizeof *written);
  if (written == NULL) return MG_ERR_NOMEM;
  for (size_t n = 0; n < resolved->count; n++) {
    size_t next = resolved->count;
    for (size_t k = 0; k < resolved->count; k++)
      if (!written[k] && (next == resolved->count || resolved->weight[k] > resolved->weight[next])) next = k;
    written[next] = true;
    mg_text_append(text, "%s%s:%.3f", n > 0 ? "," : "", context->sources->items[resolved->source[next]].id,
                   resolved->weight[next]);
  }
  free(written);
  return text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}
