/* Labels that have to meet: those of a similarity matrix, of text files and of checkpoints. */

#include "init_impl.h"

#include <stdlib.h>
#include <string.h>

static int compare_items(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The same pointers in the order of their bytes, so that thousands of labels meet in no time. The caller frees. */
static char **sorted_items(const mg_strings *list) {
  char **items = mg_alloc(list->count, sizeof *items);
  if (items == NULL || list->count == 0) return items;
  memcpy(items, list->items, list->count * sizeof *items);
  qsort(items, list->count, sizeof *items, compare_items);
  return items;
}

mg_status mg_strings_without(const mg_strings *these, const mg_strings *those, mg_strings *rest) {
  mg_status status = MG_OK;
  char **known = sorted_items(those);
  if (known == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < these->count; k++) {
    if (those->count > 0 && bsearch(&these->items[k], known, those->count, sizeof *known, compare_items) != NULL) continue;
    if (mg_strings_find(rest, these->items[k]) < 0) MG_TRY(mg_strings_add(rest, these->items[k]), cleanup);
  }
cleanup:
  free(known);
  return status;
}

mg_status mg_strings_repeated(const mg_strings *list, mg_strings *repeated) {
  mg_status status = MG_OK;
  char **items = sorted_items(list);
  if (items == NULL) return MG_ERR_NOMEM;
  for (size_t k = 1; k < list->count; k++) {
    if (strcmp(items[k - 1], items[k]) != 0) continue;
    if (k > 1 && strcmp(items[k - 2], items[k]) == 0) continue;
    MG_TRY(mg_strings_add(repeated, items[k]), cleanup);
  }
cleanup:
  free(items);
  return status;
}
