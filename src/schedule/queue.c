/* The master's decisions: which unit goes to whom, and when it is over. */

#include <stdlib.h>

#include "mergegrid/queue.h"
#include "mergegrid/text.h"

/* The last turns of every rank, in which nothing is dealt ahead. */
enum { LAST_TURNS = 4 };

typedef struct lease_book {
  int64_t unit[MG_LEASES_AHEAD];
  int count;
  bool gone;
} lease_book;

struct mg_queue {
  int64_t units, next, taken, leased;
  int ranks, byes;
  mg_status status;
  bool closed;
  lease_book of[]; /* [ranks] */
};

uint64_t mg_queue_bytes(int ranks) { return sizeof(mg_queue) + (uint64_t)ranks * sizeof(lease_book); }

mg_status mg_queue_create(int64_t units, int ranks, mg_queue **queue) {
  *queue = mg_alloc_zero(1, mg_queue_bytes(ranks));
  if (*queue == NULL) return MG_ERR_NOMEM;
  (*queue)->units = units;
  (*queue)->ranks = ranks;
  return MG_OK;
}

void mg_queue_destroy(mg_queue **queue) {
  free(*queue);
  *queue = NULL;
}

/* Towards the end nothing is dealt ahead: what waits behind a long unit is what another rank could do. */
static int leases_ahead(const mg_queue *q) { return q->units - q->next > LAST_TURNS * (int64_t)q->ranks ? MG_LEASES_AHEAD : 1; }

static bool give(mg_queue *q, int rank, int most, int64_t *unit) {
  lease_book *book = &q->of[rank];
  if (q->closed || q->status != MG_OK || q->next == q->units || book->count >= most) return false;
  *unit = book->unit[book->count++] = q->next++;
  q->leased++;
  return true;
}

bool mg_queue_deal(mg_queue *q, int worker, int64_t *unit) { return give(q, worker, leases_ahead(q), unit); }

bool mg_queue_own(mg_queue *q, int64_t *unit) { return q->ranks <= MG_MASTER_COMPUTES_UP_TO && give(q, 0, 1, unit); }

mg_status mg_queue_returned(mg_queue *q, int rank, int64_t unit, bool *wanted) {
  lease_book *book = &q->of[rank];
  int at = 0;
  *wanted = false;
  while (at < book->count && book->unit[at] != unit) at++;
  if (at == book->count)
    return mg_fail(MG_ERR_INTERNAL, "rank %d returned unit %lld, which it has no lease of", rank, (long long)unit);
  for (book->count--; at < book->count; at++) book->unit[at] = book->unit[at + 1];
  q->leased--;
  *wanted = q->status == MG_OK || q->status == MG_STOPPED;
  q->taken += *wanted;
  return MG_OK;
}

bool mg_queue_end(mg_queue *q, mg_status status) {
  if (q->status != MG_OK && (q->status != MG_STOPPED || status == MG_STOPPED)) return false;
  q->status = status;
  return true;
}

bool mg_queue_over(const mg_queue *q) { return q->status != MG_OK || q->taken == q->units; }

mg_status mg_queue_status(const mg_queue *q) { return q->status == MG_STOPPED && q->taken == q->units ? MG_OK : q->status; }

void mg_queue_close(mg_queue *q) { q->closed = true; }

void mg_queue_bye(mg_queue *q, int worker) {
  q->byes += !q->of[worker].gone;
  q->of[worker].gone = true;
}

bool mg_queue_all_gone(const mg_queue *q) { return q->byes == q->ranks - 1; }

mg_queue_counts mg_queue_count(const mg_queue *q) {
  return (mg_queue_counts){.left = q->units - q->next, .leased = q->leased, .taken = q->taken};
}

bool mg_leases_add(mg_leases *l, int64_t unit) {
  if (l->count == MG_LEASES_AHEAD) return false;
  l->unit[l->count++] = unit;
  return true;
}

bool mg_leases_next(mg_leases *l, int64_t *unit) {
  if (l->ended || l->count == 0) return false;
  *unit = l->unit[0];
  l->count--;
  for (int k = 0; k < l->count; k++) l->unit[k] = l->unit[k + 1];
  return true;
}
