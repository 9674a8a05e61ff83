#ifndef MG_SEARCH_IMPL_H
#define MG_SEARCH_IMPL_H

#include "mergegrid/search.h"

/* ---- the best so far ---- */

typedef struct mg_kept {
  double key; /* larger is better */
  uint64_t order;
  size_t slot;
} mg_kept;

/* The largest keys; of equal ones those that came first. A heap whose root is what goes next. */
typedef struct mg_best {
  size_t room, count, k;
  uint64_t offered;  /* that were taken, ever */
  mg_kept *heap;     /* [room] */
  uint32_t *members; /* [room,k] */
} mg_best;

mg_status mg_best_create(size_t room, size_t k, mg_best *best);
void mg_best_free(mg_best *best);
/* A subset that came later than all others: the first k − 1 members, and the last one. */
void mg_best_offer(mg_best *best, double key, const uint32_t *first, uint32_t last);
/* What a key has to be above to be kept: −∞ while there is room. */
double mg_best_bar(const mg_best *best);
/* Sorted, with all scores; leaves best empty. */
mg_status mg_best_list(mg_best *best, const mg_search_space *space, mg_search_list *list);

#endif
