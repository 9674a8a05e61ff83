/* A rank's place on its node: who else is there, and which processors it may use. */

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "mergegrid/schedule.h"

void mg_node_ranks(MPI_Comm comm, int *ranks, int *rank) {
  MPI_Comm node;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, ranks);
  MPI_Comm_rank(node, rank);
  MPI_Comm_free(&node);
}

/*
 * Open MPI binds one or two ranks to a core each when nobody said how: fourteen of sixteen cores would idle, and threads that
 * were asked for would share one. Where that is why we are bound, we take what the launcher itself may use; a binding that
 * was asked for (--bind-to, a batch system) stays.
 */
static void widen(int ranks, int asked) {
  cpu_set_t mine, launcher;
  if (getenv("OMPI_MCA_orte_bound_at_launch") == NULL || getenv("OMPI_MCA_hwloc_base_binding_policy") != NULL) return;
  if (sched_getaffinity(0, sizeof mine, &mine) != 0 || sched_getaffinity(getppid(), sizeof launcher, &launcher) != 0) return;
  const int own = CPU_COUNT(&mine), share = CPU_COUNT(&launcher) / ranks;
  if (share > own || asked > own) sched_setaffinity(0, sizeof launcher, &launcher);
}

int mg_threads_auto(MPI_Comm comm, int asked) {
  cpu_set_t mine, all;
  MPI_Comm node;
  int ranks;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &ranks);
  widen(ranks, asked);
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof mine, &mine) != 0) CPU_SET(0, &mine);
  MPI_Allreduce(&mine, &all, (int)sizeof mine, MPI_BYTE, MPI_BOR, node);
  MPI_Comm_free(&node);
  if (asked > 0) return asked;
  /* Bound ranks have their own processors; unbound ones see them all and share what the node's ranks have together. */
  const int own = CPU_COUNT(&mine), share = CPU_COUNT(&all) / ranks;
  const int threads = own < share ? own : share;
  return threads > 0 ? threads : 1;
}

void mg_places_gather(MPI_Comm comm, mg_place *mine, mg_place *all) {
  MPI_Comm node;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Allreduce(&mine->rank, &mine->node, 1, MPI_INT, MPI_MIN, node);
  MPI_Comm_free(&node);
  MPI_Gather(mine, (int)sizeof *mine, MPI_BYTE, all, (int)sizeof *mine, MPI_BYTE, 0, comm);
}
