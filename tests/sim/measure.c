/* What rank 0's work costs on this machine: the program's own functions, timed. Each figure is the best of some rounds, since
   other programs can only make it longer. */

#include "measure.h"

#include <ftw.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/log.h"

enum { RANKS = 512, DECISIONS = 200000, ROUNDS = 5, SMALL = 64, LARGE = 256 << 10, TAG = 5 };

static double best(double a, double b) { return a < b ? a : b; }

static mg_status measure_decision(sim_machine *m) {
  for (int round = 0; round < ROUNDS; round++) {
    mg_queue *q = NULL;
    int64_t unit[RANKS], next;
    bool wanted;
    if (mg_queue_create(INT64_C(1) << 40, RANKS, &q) != MG_OK) return MG_ERR_NOMEM;
    for (int k = 1; k < RANKS; k++) mg_queue_deal(q, k, &unit[k]), mg_queue_deal(q, k, &next);
    const double began = mg_now();
    for (int k = 0; k < DECISIONS; k++) {
      const int worker = 1 + k % (RANKS - 1);
      mg_queue_returned(q, worker, unit[worker], &wanted);
      mg_queue_deal(q, worker, &unit[worker]);
      mg_queue_deal(q, worker, &next);
    }
    const double one = (mg_now() - began) / DECISIONS;
    m->decide = round == 0 ? one : best(m->decide, one);
    mg_queue_destroy(&q);
  }
  return MG_OK;
}

/* Seconds of appending one record of so many bytes. */
static mg_status time_records(mg_run *run, const void *payload, size_t size, int count, double *seconds) {
  mg_status status = MG_OK;
  *seconds = 1;
  for (int round = 0; round < ROUNDS; round++) {
    const double began = mg_now();
    for (int k = 0; k < count; k++) MG_TRY(mg_run_append(run, MG_RECORD_NODES, payload, size, NULL), done);
    *seconds = best(*seconds, (mg_now() - began) / count);
  }
done:
  return status;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk) {
  (void)info, (void)kind, (void)walk;
  return remove(path);
}

static mg_status measure_journal(const char *dir, sim_machine *m) {
  mg_status status = MG_OK;
  mg_run *run = NULL;
  mg_identity identity = {0};
  bool complete;
  double small = 0, large = 0;
  char made[4000], path[4096];
  void *payload = mg_alloc_zero(1, LARGE);
  if (payload == NULL) return MG_ERR_NOMEM;
  snprintf(made, sizeof made, "%s/schedule-XXXXXX", dir);
  if (mkdtemp(made) == NULL) {
    free(payload);
    return mg_fail_errno(MG_ERR_IO, "%s", made);
  }
  snprintf(path, sizeof path, "%s/measured.h5", made);
  MG_TRY(mg_run_open(path, MG_RUN_FRESH, &run), cleanup);
  MG_TRY(mg_identity_add(&identity, "measured", "this"), cleanup);
  MG_TRY(mg_run_check(run, &identity, NULL, NULL, &complete), cleanup);
  MG_TRY(time_records(run, payload, SMALL, 2000, &small), cleanup);
  MG_TRY(time_records(run, payload, LARGE, 60, &large), cleanup);
  m->record_byte = (large - small) / (LARGE - SMALL);
  m->record = small - SMALL * m->record_byte;
cleanup:
  mg_run_close(&run, status);
  mg_identity_free(&identity);
  free(payload);
  nftw(made, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  return status;
}

/* Every leaf of 48 sources' word embeddings, as rank 0 adds them. */
static mg_status measure_sums(const sim_family *f, sim_machine *m) {
  mg_status status = MG_OK;
  mg_gram_plan plan = {0};
  mg_gram_sum *sum = NULL;
  mg_gram_node *nodes = NULL;
  double *values = NULL;
  size_t count = 0;
  MG_TRY(mg_gram_plan_make(f->config, &f->table, 48, MG_F32, 4, 0, RANKS, 1, NULL, &plan), cleanup);
  MG_TRY(mg_gram_sum_create(plan.layout, &sum), cleanup);
  MG_TRY(mg_gram_sum_missing(sum, 1, &nodes, &count), cleanup);
  const size_t bytes = mg_gram_values(plan.layout, 0) * sizeof *values;
  values = mg_alloc_zero(bytes, 1);
  if (values == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  const double began = mg_now();
  for (size_t k = 0; k < count; k++) MG_TRY(mg_gram_sum_add(sum, &nodes[k], values), cleanup);
  m->sum_byte = (mg_now() - began) / ((double)count * (double)bytes);
cleanup:
  mg_gram_sum_destroy(&sum);
  mg_gram_plan_free(&plan);
  free(nodes), free(values);
  return status;
}

/* Seconds of half a round trip between ranks 0 and 1, probed and received into fresh memory as the farm does. */
static double time_messages(int rank, size_t size, int count) {
  double seconds = 1;
  for (int round = 0; round < ROUNDS; round++) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double began = mg_now();
    for (int k = 0; k < 2 * count && rank < 2; k++) {
      char *buffer = malloc(size);
      if (buffer == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
      if (k % 2 == rank) {
        memset(buffer, 0, size);
        MPI_Send(buffer, (int)size, MPI_BYTE, 1 - rank, TAG, MPI_COMM_WORLD);
      } else {
        for (int there = 0; !there;) MPI_Iprobe(1 - rank, TAG, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
        MPI_Recv(buffer, (int)size, MPI_BYTE, 1 - rank, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      }
      free(buffer);
    }
    seconds = best(seconds, (mg_now() - began) / (2 * count));
  }
  return seconds;
}

mg_status sim_measure(const sim_family *f, const char *dir, sim_machine *m) {
  mg_status status = MG_OK;
  int rank, ranks;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (ranks > 1) {
    const double small = time_messages(rank, SMALL, 2000), large = time_messages(rank, LARGE, 200);
    m->message_byte = (large - small) / (LARGE - SMALL);
    m->message = small;
  }
  if (rank > 0) return MG_OK;
  MG_TRY(measure_decision(m), done);
  MG_TRY(measure_journal(dir, m), done);
  MG_TRY(measure_sums(f, m), done);
done:
  return status;
}
