/* A cell's terms: defaults, a preset's bundle, and over both what was said. */

#include <string.h>

#include "recipe_impl.h"

bool mg_method_sums(const mg_method *m) {
  return strcmp(m->name, "task_arithmetic") == 0 || strcmp(m->name, "dare_linear") == 0;
}

bool mg_method_elects(const mg_method *m) { return strcmp(m->name, "ties") == 0 || strcmp(m->name, "dare_ties") == 0; }

static void put_words(mg_terms *to, const mg_terms *from) {
  static const struct {
    mg_term term;
    size_t field;
  } words[] = {{MG_TERM_LOCALE, offsetof(mg_terms, locale)},
               {MG_TERM_SIMILARITY_TYPE, offsetof(mg_terms, similarity_type)},
               {MG_TERM_PRESET, offsetof(mg_terms, preset)},
               {MG_TERM_HEAD, offsetof(mg_terms, head)},
               {MG_TERM_AXIS, offsetof(mg_terms, axis)},
               {MG_TERM_SELECT, offsetof(mg_terms, select)},
               {MG_TERM_INCTAR, offsetof(mg_terms, inctar)},
               {MG_TERM_LAMBDA_RULE, offsetof(mg_terms, lambda_rule)},
               {MG_TERM_DUPLICATES, offsetof(mg_terms, duplicates)}};
  for (size_t k = 0; k < sizeof words / sizeof *words; k++)
    if (from->given & MG_GIVEN(words[k].term))
      *(char **)((char *)to + words[k].field) = *(char *const *)((const char *)from + words[k].field);
}

void mg_terms_put(mg_terms *to, const mg_terms *from) {
  const uint32_t given = from->given;
  put_words(to, from);
  if (given & MG_GIVEN(MG_TERM_METHOD)) {
    to->method = from->method;
    to->said_parameters = from->said_parameters;
    memcpy(to->values, from->values, sizeof to->values);
  }
  if (given & MG_GIVEN(MG_TERM_SOURCES)) {
    to->sources = from->sources;
    to->weights = from->weights;
  }
  if (given & MG_GIVEN(MG_TERM_NUM_LANGUAGES)) to->num_languages = from->num_languages;
  if (given & MG_GIVEN(MG_TERM_TOP_K)) to->top_k = from->top_k;
  if (given & MG_GIVEN(MG_TERM_SINKHORN_ITERS)) to->sinkhorn_iters = from->sinkhorn_iters;
  if (given & MG_GIVEN(MG_TERM_INCLUDE_TARGET)) to->include_target = from->include_target;
  if (given & MG_GIVEN(MG_TERM_DROP_STRONGEST)) to->drop_strongest = from->drop_strongest;
  if (given & MG_GIVEN(MG_TERM_SEED)) to->seed = from->seed;
  to->given |= given;
}

/*
 * How merginguriel chooses and merges. It gives ties and task arithmetic the pretrained model, with a new head, and all
 * sources; everything else starts from the strongest source and merges the others into it, the head as any other tensor.
 */
static void put_merginguriel(mg_terms *terms) {
  static char row[] = "row", sinkhorn[] = "sinkhorn", matrix_order[] = "matrix_order", rule[] = "merginguriel",
              first[] = "first", random[] = "random", method[] = "method", linear[] = "linear";
  const bool merge = terms->method != NULL && terms->method->kind == MG_METHOD_MERGE;
  const bool pretrained = merge && (mg_method_sums(terms->method) || mg_method_elects(terms->method));
  const mg_terms said = *terms;
  const mg_terms bundle = {.given =
                               ~said.given & (MG_GIVEN(MG_TERM_AXIS) | MG_GIVEN(MG_TERM_SELECT) | MG_GIVEN(MG_TERM_INCTAR) |
                                              MG_GIVEN(MG_TERM_LAMBDA_RULE) | MG_GIVEN(MG_TERM_DUPLICATES) |
                                              MG_GIVEN(MG_TERM_DROP_STRONGEST) | MG_GIVEN(MG_TERM_HEAD)),
                           .axis = row,
                           .select = sinkhorn,
                           .inctar = matrix_order,
                           .lambda_rule = rule,
                           .duplicates = first,
                           .drop_strongest = merge && !pretrained,
                           .head = pretrained ? random
                                   : merge    ? method
                                              : linear};
  mg_terms_put(terms, &bundle);
  terms->given = said.given;
}

bool mg_terms_choose(const mg_terms *terms) {
  if (terms->sources.count > 0) return false;
  return terms->method == NULL || terms->method->kind != MG_METHOD_MODEL || strcmp(terms->method->name, "best_source") == 0;
}

bool mg_terms_ruled(const mg_terms *terms, size_t parameter) {
  if (strcmp(terms->lambda_rule, "merginguriel") != 0 || (terms->said_parameters & UINT32_C(1) << parameter) != 0) return false;
  return strcmp(terms->method->parameters[parameter].name, "lambda") == 0 &&
         (mg_method_sums(terms->method) || mg_method_elects(terms->method));
}

void mg_terms_complete(const mg_config *config, mg_terms *terms) {
  if ((terms->given & MG_GIVEN(MG_TERM_SEED)) == 0) terms->seed = config->seed;
  if (strcmp(terms->preset, "merginguriel") == 0) put_merginguriel(terms);
  if (terms->sources.count > 0 && (terms->given & MG_GIVEN(MG_TERM_NUM_LANGUAGES)) == 0)
    terms->num_languages = (int)terms->sources.count;
  if (terms->similarity_type == NULL && config->grid.similarity_names.count == 1 && mg_terms_choose(terms))
    terms->similarity_type = config->grid.similarity_names.items[0];
}
