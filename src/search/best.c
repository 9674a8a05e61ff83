/* The best subsets so far: a heap, so that keeping a hundred thousand costs little more than keeping five. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "search_impl.h"

mg_status mg_best_create(size_t room, size_t k, mg_best *best) {
  *best = (mg_best){.room = room, .k = k};
  best->heap = mg_alloc(room, sizeof *best->heap);
  best->members = mg_alloc(room, k * sizeof *best->members);
  if (best->heap != NULL && best->members != NULL) return MG_OK;
  mg_best_free(best);
  return MG_ERR_NOMEM;
}

void mg_best_free(mg_best *best) {
  free(best->heap), free(best->members);
  *best = (mg_best){0};
}

static bool worse(const mg_kept *a, const mg_kept *b) { return a->key != b->key ? a->key < b->key : a->order > b->order; }

static void sink(mg_best *b, size_t at, mg_kept item) {
  for (size_t child; (child = 2 * at + 1) < b->count; at = child) {
    if (child + 1 < b->count && worse(&b->heap[child + 1], &b->heap[child])) child++;
    if (!worse(&b->heap[child], &item)) break;
    b->heap[at] = b->heap[child];
  }
  b->heap[at] = item;
}

static void rise(mg_best *b, size_t at, mg_kept item) {
  for (size_t parent; at > 0; at = parent) {
    parent = (at - 1) / 2;
    if (!worse(&item, &b->heap[parent])) break;
    b->heap[at] = b->heap[parent];
  }
  b->heap[at] = item;
}

double mg_best_bar(const mg_best *b) { return b->count < b->room ? -INFINITY : b->heap[0].key; }

void mg_best_offer(mg_best *b, double key, const uint32_t *first, uint32_t last) {
  const bool full = b->count == b->room;
  if (full && !(key > b->heap[0].key)) return;
  mg_kept item = {.key = key, .order = b->offered++, .slot = full ? b->heap[0].slot : b->count};
  uint32_t *members = b->members + item.slot * b->k;
  if (b->k > 1) memcpy(members, first, (b->k - 1) * sizeof *members);
  members[b->k - 1] = last;
  if (full)
    sink(b, 0, item);
  else
    rise(b, b->count++, item);
}

static int best_first(const void *a, const void *b) { return worse(a, b) ? 1 : -1; } /* no two have the same order */

mg_status mg_best_list(mg_best *b, const mg_search_space *space, mg_search_list *list) {
  *list = (mg_search_list){.count = b->count};
  list->members = mg_alloc(b->count, b->k * sizeof *list->members);
  list->score = mg_alloc(b->count, sizeof *list->score);
  if (list->members == NULL || list->score == NULL) return MG_ERR_NOMEM;
  if (b->count > 1) qsort(b->heap, b->count, sizeof *b->heap, best_first);
  for (size_t at = 0; at < b->count; at++) {
    uint32_t *members = list->members + at * b->k;
    memcpy(members, b->members + b->heap[at].slot * b->k, b->k * sizeof *members);
    mg_search_score(space, members, list->score[at]);
  }
  mg_best_free(b);
  return MG_OK;
}
