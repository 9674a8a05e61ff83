/* The canonical tensor table and the selection. */

#include <stdlib.h>
#include <string.h>

#include "family_impl.h"
#include "mergegrid/hash.h"

void mg_tensor_table_free(mg_tensor_table *table) {
  for (size_t k = 0; k < table->count; k++) {
    free(table->tensors[k].name);
    free(table->tensors[k].layer);
  }
  free(table->tensors);
  *table = (mg_tensor_table){0};
}

mg_status mg_tensor_table_copy(const mg_tensor_table *from, mg_tensor_table *to) {
  *to = (mg_tensor_table){.elements = from->elements};
  to->tensors = mg_alloc_zero(from->count, sizeof *to->tensors);
  if (to->tensors == NULL) return MG_ERR_NOMEM;
  for (; to->count < from->count; to->count++) {
    mg_tensor *t = &to->tensors[to->count];
    *t = from->tensors[to->count];
    t->name = mg_strdup(t->name);
    t->layer = mg_strdup(t->layer);
    if (t->name == NULL || t->layer == NULL) {
      to->count++;
      mg_tensor_table_free(to);
      return MG_ERR_NOMEM;
    }
  }
  return MG_OK;
}

uint64_t mg_tensor_table_hash(const mg_tensor_table *table) {
  uint64_t hash = mg_hash(&table->elements, sizeof table->elements);
  for (size_t k = 0; k < table->count; k++) {
    const mg_tensor *t = &table->tensors[k];
    const int64_t flags = t->ndim * 2 + (t->source_only ? 1 : 0);
    hash = mg_hash_more(hash, t->name, strlen(t->name) + 1);
    hash = mg_hash_more(hash, t->shape, (size_t)t->ndim * sizeof *t->shape);
    hash = mg_hash_more(hash, &flags, sizeof flags);
  }
  return hash;
}

mg_status mg_select_tensors(const mg_tensor_table *table, const mg_strings *exclude, bool *selected) {
  size_t count = 0;
  for (size_t k = 0; k < table->count; k++) {
    selected[k] = !mg_matches_any(exclude, table->tensors[k].name);
    count += selected[k];
  }
  if (count > 0) return MG_OK;
  return mg_fail(MG_ERR_CONFIG, "compatibility.exclude leaves none of the %zu tensors", table->count);
}
