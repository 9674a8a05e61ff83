/* What the ranks compute with, said at the start of a run: a line a node. */

#include <stdio.h>
#include <stdlib.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

/* By node, then rank. */
static int by_node(const void *a, const void *b) {
  const mg_place *x = a, *y = b;
  return x->node != y->node ? (x->node > y->node) - (x->node < y->node) : (x->rank > y->rank) - (x->rank < y->rank);
}

static void print(mg_place *places, size_t count) {
  qsort(places, count, sizeof *places, by_node);
  for (size_t first = 0, next; first < count; first = next) {
    mg_text line = {0}, crowded = {0};
    for (next = first; next < count && places[next].node == places[first].node; next++) {
    }
    mg_places_line(&places[first], next - first, &line);
    if (line.data != NULL) mg_info("%s", line.data);
    if (mg_places_crowded(&places[first], next - first, &crowded) && crowded.data != NULL)
      mg_warn("%s, so that threads share a processor: bind ranks apart, or not at all (mpirun --bind-to none), or set "
              "compute.threads",
              crowded.data);
    mg_text_free(&line);
    mg_text_free(&crowded);
  }
}

mg_status mg_attempt_print_places(const mg_attempt *a) {
  mg_place mine = {.rank = a->rank, .threads = a->threads}, *all = NULL;
  mg_place_here(&mine);
  if (a->device != NULL) a->device->ops->place(a->device, mine.device, sizeof mine.device);
  if (a->rank == 0) all = mg_alloc((size_t)a->ranks, sizeof *all);
  const mg_status status = mg_agree(a->comm, a->rank == 0 && all == NULL ? MG_ERR_NOMEM : MG_OK);
  if (status == MG_OK) mg_places_gather(a->comm, &mine, all);
  if (status == MG_OK && all != NULL) print(all, (size_t)a->ranks);
  free(all);
  return status;
}
