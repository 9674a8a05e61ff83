/* Methods that go by layers: what a tensor becomes hangs on the number of its layer. */

#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/text.h"

/* The number of a tensor's layer; −1: embeddings and heads have none. */
static ptrdiff_t layer_of(const mg_tensor *tensor) {
  const char *dot = strrchr(tensor->layer, '.');
  if (tensor->layer[0] == '\0') return -1;
  return (ptrdiff_t)strtol(dot != NULL ? dot + 1 : tensor->layer, NULL, 10);
}

size_t mg_layer_count(const mg_tensor_table *table) {
  ptrdiff_t last = -1;
  for (size_t t = 0; t < table->count; t++) {
    const ptrdiff_t layer = layer_of(&table->tensors[t]);
    if (layer > last) last = layer;
  }
  return (size_t)(last + 1);
}

mg_status mg_check_layers(const mg_pass_recipe *p) {
  const int last = mg_layers_last(mg_value(p->recipe, "layers"));
  if (last < (int)p->layers) return MG_OK;
  if (p->layers == 0) return mg_fail(MG_ERR_INPUT, "%s.layers: the family has no numbered layers", p->recipe->method->name);
  return mg_fail(MG_ERR_INPUT, "%s.layers: there is no layer %d; the family has 0 to %zu", p->recipe->method->name, last,
                 p->layers - 1);
}

static bool is_named(const mg_pass_recipe *p, ptrdiff_t layer) {
  return layer >= 0 && mg_layers_have(mg_value(p->recipe, "layers"), (size_t)layer, p->layers);
}

static const mg_tensor *tensor_of(const mg_pass_terms *terms, size_t t) {
  return &mg_rows_table(terms->deltas->rows)->tensors[t];
}

/* One source as it is. */
static void take_only(mg_prepared *out, size_t sources, size_t source) {
  for (size_t k = 0; k < sources; k++) out->weight[k] = k == source ? 1 : 0;
}

static void take_linear(const mg_recipe *r, mg_prepared *out) {
  for (size_t k = 0; k < r->count; k++) out->weight[k] = mg_value(r, "lambda") * r->weight[k];
}

mg_status mg_layer_swap(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  const ptrdiff_t layer = layer_of(tensor_of(terms, t));
  const bool second = layer >= 0 ? is_named(p, layer) : mg_value(p->recipe, "rest") != 0;
  const size_t first = mg_first_source(p->recipe);
  take_only(&p->tensors[t], p->recipe->count, second ? 1 - first : first);
  return MG_OK;
}

mg_status mg_exclude_layers(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  if (is_named(p, layer_of(tensor_of(terms, t))))
    take_only(&p->tensors[t], p->recipe->count, p->recipe->best);
  else
    take_linear(p->recipe, &p->tensors[t]);
  return MG_OK;
}

mg_status mg_include_layers(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  const ptrdiff_t layer = layer_of(tensor_of(terms, t));
  const size_t n = p->recipe->count;
  if (layer < 0 || is_named(p, layer))
    take_linear(p->recipe, &p->tensors[t]);
  else
    take_only(&p->tensors[t], n, mg_value(p->recipe, "elsewhere") != 0 ? p->recipe->best : n);
  return MG_OK;
}
