/* Names that may be there once only. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

static int compare_names(const void *a, const void *b) {
  const mg_named_node *x = a, *y = b;
  const int order = memcmp(x->name, y->name, x->length < y->length ? x->length : y->length);
  if (order != 0) return order;
  if (x->length != y->length) return x->length < y->length ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

static bool same_name(const mg_named_node *a, const mg_named_node *b) {
  return a->length == b->length && memcmp(a->name, b->name, a->length) == 0;
}

mg_status mg_check_unique(const mg_yaml_origin *origin, const char *key, mg_named_node *names, size_t count) {
  const mg_named_node *first = NULL, *second = NULL;
  /* sorted, since a file may hold hundreds of thousands of names */
  if (count > 1) qsort(names, count, sizeof *names, compare_names);
  for (size_t k = 1; k < count; k++) {
    if (!same_name(&names[k - 1], &names[k]) || (second != NULL && second->order < names[k].order)) continue;
    first = &names[k - 1];
    second = &names[k];
  }
  if (second == NULL) return MG_OK;
  if (!origin->positions)
    return mg_config_error(origin, NULL, "%s: '%.*s' is there twice", key, (int)second->length, second->name);
  return mg_config_error(origin, second->node, "%s: '%.*s' is there twice, first in line %zu", key, (int)second->length,
                         second->name, first->node->start_mark.line + 1);
}
