/* Which elements of the family's tensors an encoder holds, and where in its block. */

#include <stdlib.h>

#include "stage_impl.h"

typedef struct listing {
  const mg_tensor_table *table;
  mg_range_list *list;
} listing;

static mg_status add_range(void *context, const char *name, int64_t first, int64_t count, size_t offset) {
  const listing *l = context;
  mg_range_list *list = l->list;
  size_t t = 0;
  while (t < l->table->count && !mg_weight_name_matches(l->table->tensors[t].name, name)) t++;
  if (t == l->table->count) return mg_fail(MG_ERR_INPUT, "the sources have no tensor %s, which an encoder needs", name);
  if (list->count == list->room) {
    const size_t room = list->room > 0 ? 2 * list->room : 256;
    mg_range *grown = reallocarray(list->items, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    list->items = grown;
    list->room = room;
  }
  list->items[list->count++] = (mg_range){.tensor = t, .first = first, .count = count, .offset = offset};
  return MG_OK;
}

static int by_place(const void *a, const void *b) {
  const mg_range *x = a, *y = b;
  if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
  return (x->first > y->first) - (x->first < y->first);
}

mg_status mg_encoder_ranges(const mg_encoder_shape *shape, const mg_tensor_table *table, const int32_t *tokens,
                            size_t token_count, mg_range_list *list) {
  listing l = {.table = table, .list = list};
  list->count = 0;
  const mg_status status = mg_encoder_places(shape, tokens, token_count, add_range, &l);
  if (status == MG_OK && list->count > 0) qsort(list->items, list->count, sizeof *list->items, by_place);
  return status;
}
