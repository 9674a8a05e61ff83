/* Quantities of whole tensors and sources: a table of those that are known. */

#include <pthread.h>
#include <stdlib.h>

#include "merge_impl.h"
#include "mergegrid/hash.h"

typedef struct entry {
  mg_quantity quantity;
  double value;
  bool used;
} entry;

struct mg_quantities {
  pthread_mutex_t mutex;
  entry *entries; /* [room], a power of two; at most half of them used */
  size_t room, count;
};

mg_status mg_quantities_create(mg_quantities **out) {
  mg_quantities *q = mg_alloc_zero(1, sizeof *q);
  if (q == NULL) return MG_ERR_NOMEM;
  q->room = 1024;
  q->entries = mg_alloc_zero(q->room, sizeof *q->entries);
  if (q->entries == NULL) {
    free(q);
    return MG_ERR_NOMEM;
  }
  pthread_mutex_init(&q->mutex, NULL);
  *out = q;
  return MG_OK;
}

void mg_quantities_destroy(mg_quantities **quantities) {
  mg_quantities *q = *quantities;
  if (q == NULL) return;
  pthread_mutex_destroy(&q->mutex);
  free(q->entries), free(q);
  *quantities = NULL;
}

static bool is_same(const mg_quantity *a, const mg_quantity *b) {
  return a->kind == b->kind && a->source == b->source && a->tensor == b->tensor && a->base == b->base && a->seed == b->seed &&
         a->a == b->a && a->b == b->b;
}

/* Where it is, or where it belongs. */
static entry *place_of(entry *entries, size_t room, const mg_quantity *quantity) {
  size_t at = (size_t)mg_hash(quantity, sizeof *quantity) & (room - 1);
  while (entries[at].used && !is_same(&entries[at].quantity, quantity)) at = (at + 1) & (room - 1);
  return &entries[at];
}

bool mg_quantities_find(mg_quantities *q, const mg_quantity *quantity, double *value) {
  pthread_mutex_lock(&q->mutex);
  const entry *found = place_of(q->entries, q->room, quantity);
  const bool used = found->used;
  if (used) *value = found->value;
  pthread_mutex_unlock(&q->mutex);
  return used;
}

static mg_status grow(mg_quantities *q) {
  entry *entries = mg_alloc_zero(2 * q->room, sizeof *entries);
  if (entries == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < q->room; k++)
    if (q->entries[k].used) *place_of(entries, 2 * q->room, &q->entries[k].quantity) = q->entries[k];
  free(q->entries);
  q->entries = entries;
  q->room *= 2;
  return MG_OK;
}

mg_status mg_quantities_put(mg_quantities *q, const mg_quantity *quantity, double value) {
  pthread_mutex_lock(&q->mutex);
  const mg_status status = 2 * q->count >= q->room ? grow(q) : MG_OK;
  if (status == MG_OK) {
    entry *to = place_of(q->entries, q->room, quantity);
    q->count += !to->used;
    *to = (entry){.quantity = *quantity, .value = value, .used = true};
  }
  pthread_mutex_unlock(&q->mutex);
  return status;
}
