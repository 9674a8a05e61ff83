/* A cell's sources in the order of their choice: named, chosen by a similarity, or the one that a baseline is. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "recipe_impl.h"
#include "resolve_impl.h"

/* The first source of a locale; −1 where there is none. */
static ptrdiff_t source_of_locale(const mg_source_list *sources, const char *locale) {
  for (size_t s = 0; s < sources->count; s++)
    if (strcmp(sources->items[s].locale, locale) == 0) return (ptrdiff_t)s;
  return -1;
}

static mg_status make_room(size_t count, mg_choice *choice) {
  choice->source = mg_alloc(count, sizeof *choice->source);
  choice->weight = mg_alloc(count, sizeof *choice->weight);
  return choice->source != NULL && choice->weight != NULL ? MG_OK : MG_ERR_NOMEM;
}

/* A source that comes again (of a label that a matrix repeats) gets the sum of its shares. */
static void add(mg_choice *choice, int source, double weight) {
  for (size_t k = 0; k < choice->count; k++)
    if (choice->source[k] == source) {
      choice->weight[k] += weight;
      return;
    }
  choice->source[choice->count] = source;
  choice->weight[choice->count++] = weight;
}

/* ---- named ---- */

static mg_status unknown_source(const mg_source_list *sources, const char *wanted) {
  const char **known = mg_alloc(sources->count, sizeof *known);
  if (known == NULL) return MG_ERR_NOMEM;
  for (size_t s = 0; s < sources->count; s++) known[s] = sources->items[s].id;
  const char *nearest = mg_nearest(wanted, known, sources->count);
  const mg_status status = mg_fail(MG_ERR_INPUT, "sources: '%s' is no source of the family%s%s%s", wanted, nearest ? " (" : "",
                                   nearest ? nearest : "", nearest ? "?)" : "");
  free(known);
  return status;
}

static mg_status take_named(const mg_grid_context *context, const mg_terms *terms, mg_choice *choice) {
  mg_status status = MG_OK;
  double total = 0;
  MG_TRY(make_room(terms->sources.count, choice), done);
  for (size_t k = 0; k < terms->sources.count; k++) total += terms->weights[k];
  for (size_t k = 0; k < terms->sources.count; k++) {
    size_t s = 0;
    while (s < context->sources->count && strcmp(context->sources->items[s].id, terms->sources.items[k]) != 0) s++;
    if (s == context->sources->count) return unknown_source(context->sources, terms->sources.items[k]);
    add(choice, (int)s, terms->weights[k] / total);
  }
done:
  return status;
}

/* ---- by a similarity ---- */

static ptrdiff_t source_of_label(void *sources, const char *label) { return source_of_locale(sources, label); }

static mg_status find_matrix(const mg_grid_context *context, const mg_terms *terms, const mg_similarity **found) {
  const char *name = terms->similarity_type != NULL ? terms->similarity_type : "";
  for (size_t m = 0; m < context->matrix_count; m++) {
    const mg_grid_matrix *matrix = &context->matrices[m];
    if (strcmp(matrix->name, name) != 0) continue;
    *found = strcmp(terms->duplicates, "keep") == 0 ? &matrix->keep : &matrix->first;
    if ((*found)->labels.count > 0) return MG_OK;
  }
  return mg_fail(MG_ERR_INPUT, "similarity_type '%s': there is no such matrix", name);
}

static mg_status take_similar(const mg_grid_context *context, const mg_terms *terms, mg_choice *choice,
                              mg_selection *selection) {
  mg_status status = MG_OK;
  const mg_similarity *similarity = NULL;
  const mg_selection_terms how = {.by_row = strcmp(terms->axis, "row") == 0,
                                  .sinkhorn = strcmp(terms->select, "sinkhorn") == 0,
                                  .top_k = terms->top_k,
                                  .sinkhorn_iters = terms->sinkhorn_iters,
                                  .num_languages = terms->num_languages,
                                  .include_target = terms->include_target,
                                  .matrix_order = strcmp(terms->inctar, "matrix_order") == 0};
  MG_TRY(find_matrix(context, terms, &similarity), done);
  status = mg_select_sources(similarity, &how, terms->locale, source_of_label, (void *)(uintptr_t)context->sources, selection);
  if (status == MG_ERR_INPUT) return mg_fail_context(status, "%s", terms->similarity_type);
  if (status != MG_OK) return status;
  MG_TRY(make_room(selection->taken, choice), done);
  for (size_t k = 0; k < selection->taken; k++) {
    const char *label = similarity->labels.items[selection->candidates[k].label];
    add(choice, (int)source_of_locale(context->sources, label), selection->candidates[k].share);
  }
done:
  return status;
}

/* ---- one ---- */

/* The most accurate of those with allowed[s], on the texts that sources are chosen by; the first of equals. */
static mg_status take_most_accurate(const mg_grid_context *context, const mg_terms *terms, const bool *allowed,
                                    mg_choice *choice) {
  mg_status status = MG_OK;
  const ptrdiff_t target = context->targets != NULL ? mg_strings_find(context->targets, terms->locale) : -1;
  ptrdiff_t best = -1;
  double highest = -1;
  if (target < 0 || context->accuracy[1] == NULL)
    return mg_fail(MG_ERR_INPUT, "method %s needs the evaluation of the stage nxn on %s", terms->method->name, terms->locale);
  for (size_t s = 0; s < context->sources->count; s++) {
    const double accuracy = context->accuracy[1][s * context->targets->count + (size_t)target];
    if (!allowed[s]) continue;
    if (isnan(accuracy))
      mg_text_append(&choice->left_out, "%s%s", choice->left_out.size > 0 ? ", " : "", context->sources->items[s].id);
    if (!(accuracy > highest)) continue; /* NaN is none */
    best = (ptrdiff_t)s;
    highest = accuracy;
  }
  if (best < 0) return mg_fail(MG_ERR_INPUT, "method %s: no source was evaluated on %s", terms->method->name, terms->locale);
  choice->count = 0;
  if (choice->source == NULL) MG_TRY(make_room(1, choice), done);
  add(choice, (int)best, 1);
done:
  return status;
}

static mg_status take_one(const mg_grid_context *context, const mg_terms *terms, mg_choice *choice) {
  mg_status status = MG_OK;
  const mg_source_list *sources = context->sources;
  bool *allowed = NULL;
  if (strcmp(terms->method->name, "own") == 0) {
    const ptrdiff_t own = source_of_locale(sources, terms->locale);
    if (own < 0) return mg_fail(MG_ERR_INPUT, "target %s has no source of its own", terms->locale);
    choice->count = 0; /* sources that were named are none of its */
    if (choice->source == NULL) MG_TRY(make_room(1, choice), cleanup);
    add(choice, (int)own, 1);
    return MG_OK;
  }
  allowed = mg_alloc_zero(sources->count, sizeof *allowed);
  if (allowed == NULL) return MG_ERR_NOMEM;
  if (strcmp(terms->method->name, "best_zero_shot") == 0)
    for (size_t s = 0; s < sources->count; s++) allowed[s] = strcmp(sources->items[s].locale, terms->locale) != 0;
  else
    for (size_t k = 0; k < choice->count; k++) allowed[choice->source[k]] = true;
  MG_TRY(take_most_accurate(context, terms, allowed, choice), cleanup);
cleanup:
  free(allowed);
  return status;
}

mg_status mg_choose(const mg_grid_context *context, const mg_terms *terms, mg_choice *choice, mg_selection *selection) {
  mg_status status = MG_OK;
  if (terms->sources.count > 0)
    MG_TRY(take_named(context, terms, choice), done);
  else if (mg_terms_choose(terms))
    MG_TRY(take_similar(context, terms, choice, selection), done);
  if (terms->method->kind == MG_METHOD_MODEL) MG_TRY(take_one(context, terms, choice), done);
done:
  return status;
}

void mg_choice_free(mg_choice *choice) {
  free(choice->source), free(choice->weight);
  mg_text_free(&choice->left_out);
  *choice = (mg_choice){0};
}
