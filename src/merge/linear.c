/* Recipes as coefficients: what of a merge can be said from inner products alone, without reading a weight. */

#include <stdlib.h>

#include "merge_impl.h"

struct mg_linear {
  mg_pass_terms terms;
  mg_pass_recipe recipe;
};

mg_status mg_linear_open(const mg_pass_terms *terms, mg_linear **opened) {
  mg_linear *l = mg_alloc_zero(1, sizeof *l);
  if (l == NULL) return MG_ERR_NOMEM;
  l->terms = *terms;
  *opened = l;
  const mg_status status = mg_pass_recipe_open(terms->recipes, mg_rows_table(terms->deltas->rows), &l->recipe);
  if (status != MG_OK) mg_linear_close(opened);
  return status;
}

void mg_linear_close(mg_linear **opened) {
  mg_linear *l = *opened;
  if (l == NULL) return;
  mg_pass_recipe_close(&l->recipe, mg_rows_table(l->terms.deltas->rows));
  free(l);
  *opened = NULL;
}

/* A sum of whole task vectors whose coefficients need no reading? */
static bool is_sum(const mg_linear *l, const mg_tensor *tensor) {
  const mg_formula *f = tensor->source_only ? &l->recipe.head : &l->recipe.body;
  const bool by_layer = f->prepare == mg_layer_swap || f->prepare == mg_exclude_layers || f->prepare == mg_include_layers;
  const mg_recipe *r = l->recipe.recipe;
  bool sum = f->combine == mg_combine_sum && !f->by_row && f->keep == MG_KEEP_ALL && mg_drop_of(f, tensor) == MG_DROP_NONE &&
             (f->prepare == NULL || by_layer) && mg_base_of(r, tensor) != MG_BASE_RANDOM;
  /* inner products are of heads as the sources have them */
  for (size_t k = 0; k < r->count && sum; k++) sum = !mg_delta_is_permuted(l->terms.deltas, r->source[k], tensor);
  return sum && !(r->base >= 0 && mg_delta_is_permuted(l->terms.deltas, r->base, tensor));
}

mg_status mg_linear_tensor(mg_linear *l, size_t t, double *coefficient, double *base, bool *is_linear) {
  mg_status status = MG_OK;
  const mg_recipe *r = l->recipe.recipe;
  const mg_prepared *p = &l->recipe.tensors[t];
  double rest = 0;
  *is_linear = is_sum(l, &mg_rows_table(l->terms.deltas->rows)->tensors[t]);
  if (!*is_linear) return MG_OK;
  MG_TRY(mg_prepare(&l->terms, &l->recipe, t), done);
  for (size_t k = 0; k < mg_rows_sources(l->terms.deltas->rows); k++) coefficient[k] = 0;
  for (size_t k = 0; k < r->count; k++) {
    coefficient[r->source[k]] = p->lambda * p->weight[k];
    rest += p->lambda * p->weight[k];
  }
  *base = p->base_factor;
  if (p->base >= 0) coefficient[p->base] += p->base_factor - rest; /* task vectors were taken from that source */
done:
  return status;
}
