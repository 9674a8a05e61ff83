/*
 * The schedule at any number of ranks and sources, in simulated time: docs/scaling.md. Measures what rank 0's work costs on
 * this machine (messages where it is started with two ranks), then prints tables.
 *
 *   [mpirun -n 2] sim_schedule [name=value ...]
 *
 *   machine=core|gpu   a rank a core, a rank a GPU; the machine's figures then by their names (flops=60e9 read_all=40e9 ...)
 *   measure=0          take the defaults for rank 0's work; else dir=. where a journal is written for a moment
 *   ranks=512 sources=48   only those; node=64: ranks a node
 *   gram=tensor|layer|total   threads=1
 *   budget=2e9         bytes a rank: decides over the merges in a pass
 */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

typedef struct wanted {
  sim_machine machine;
  mg_gram_level gram;
  int threads, ranks, sources;
  double budget;
  const char *dir; /* of the measured journal */
  bool measure, on_device;
} wanted;

static const struct {
  const char *name;
  size_t offset;
} figures[] = {
#define FIGURE(name)                                                                                                           \
  { #name, offsetof(sim_machine, name) }
    FIGURE(flops),     FIGURE(merge_rate), FIGURE(read_one),   FIGURE(read_all),     FIGURE(cached), FIGURE(latency),
    FIGURE(bandwidth), FIGURE(decide),     FIGURE(message),    FIGURE(message_byte), FIGURE(record), FIGURE(record_byte),
    FIGURE(sync),      FIGURE(sync_byte),  FIGURE(sync_every), FIGURE(sum_byte),     FIGURE(launch), FIGURE(launch_rank),
    FIGURE(opens),     FIGURE(idle_wait),  FIGURE(poll),       FIGURE(spread),       FIGURE(noise)};

static double *figure(sim_machine *m, size_t k) { return (double *)(void *)((char *)m + figures[k].offset); }

static bool take_figure(wanted *w, const char *name, const char *value) {
  for (size_t k = 0; k < sizeof figures / sizeof *figures; k++)
    if (strcmp(figures[k].name, name) == 0) {
      *figure(&w->machine, k) = strtod(value, NULL);
      return true;
    }
  return false;
}

static bool take_argument(wanted *w, char *argument) {
  char *value = strchr(argument, '=');
  if (value == NULL) return false;
  *value++ = '\0';
  if (strcmp(argument, "machine") == 0) {
    w->on_device = strcmp(value, "gpu") == 0;
    w->machine = w->on_device ? sim_gpu : sim_core;
  } else if (strcmp(argument, "gram") == 0)
    w->gram = strcmp(value, "total") == 0 ? MG_GRAM_TOTAL : strcmp(value, "layer") == 0 ? MG_GRAM_LAYER : MG_GRAM_TENSOR;
  else if (strcmp(argument, "threads") == 0)
    w->threads = atoi(value);
  else if (strcmp(argument, "budget") == 0)
    w->budget = strtod(value, NULL);
  else if (strcmp(argument, "dir") == 0)
    w->dir = value;
  else if (strcmp(argument, "node") == 0)
    w->machine.node = atoi(value);
  else if (strcmp(argument, "ranks") == 0)
    w->ranks = atoi(value);
  else if (strcmp(argument, "sources") == 0)
    w->sources = atoi(value);
  else if (strcmp(argument, "measure") == 0)
    w->measure = atoi(value) != 0;
  else
    return take_figure(w, argument, value);
  return true;
}

static void print_machine(wanted *w) {
  for (size_t k = 0; k < sizeof figures / sizeof *figures; k++)
    printf("%s%s=%.3g", k == 0 ? "" : " ", figures[k].name, *figure(&w->machine, k));
  printf(
      "\n\n| stage | sources | ranks | units | seconds | idle %% | rank 0 busy %% | journal MB | waiting | memory planned, MB |"
      " counted, MB | list, MB | read, s | start, s |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
}

static void print_stage(const char *name, int sources, int ranks, const sim_stage *s) {
  printf("| %s | %d | %d | %lld | %.4g | %.1f | %.2f | %.4g | %llu (%.3g MB) | %.4g | %.4g | %.3g | %.4g | %.3g |\n", name,
         sources, ranks, (long long)s->units, s->run.makespan, 100 * s->run.idle, 100 * s->run.master,
         (double)s->run.journal_bytes / 1e6, (unsigned long long)s->run.waiting, (double)s->run.waiting_bytes / 1e6,
         (double)s->planned_bytes / 1e6, (double)s->held_bytes / 1e6, (double)s->list_bytes / 1e6, s->read_seconds,
         s->start_seconds);
  fflush(stdout);
}

static mg_status simulate(const wanted *w, const sim_family *f, int sources, int ranks) {
  mg_status status = MG_OK;
  sim_stage s;
  MG_TRY(sim_compatibility(f, &w->machine, sources, ranks, sources <= 48, &s), done);
  print_stage("compatibility", sources, ranks, &s);
  MG_TRY(sim_nxn(f, &w->machine, sources, ranks, &s), done);
  print_stage("nxn", sources, ranks, &s);
  MG_TRY(sim_grid(f, &w->machine, sources, ranks, &s), done);
  print_stage("grid", sources, ranks, &s);
done:
  return status;
}

static mg_status tables(wanted *w) {
  mg_status status = MG_OK;
  static const int all_sources[] = {48, 1000, 10000}, all_ranks[] = {1, 8, 32, 64, 128, 256, 512, 1024};
  sim_family f = {0};
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MG_TRY(sim_family_make(MG_SOURCE_DIR "/configs/nightly-full-grid.yaml", w->gram, w->threads, w->on_device, &f), cleanup);
  if (w->budget > 0) f.budget = (uint64_t)w->budget;
  if (w->measure) MG_TRY(sim_measure(&f, w->dir, &w->machine), cleanup);
  if (rank > 0) goto cleanup;
  print_machine(w);
  for (size_t s = 0; s < sizeof all_sources / sizeof *all_sources; s++)
    for (size_t r = 0; r < sizeof all_ranks / sizeof *all_ranks; r++) {
      const int sources = w->sources > 0 ? w->sources : all_sources[s], ranks = w->ranks > 0 ? w->ranks : all_ranks[r];
      if ((w->sources > 0 && s > 0) || (w->ranks > 0 && r > 0)) continue;
      MG_TRY(simulate(w, &f, sources, ranks), cleanup);
    }
cleanup:
  sim_family_free(&f);
  return status;
}

int main(int argc, char **argv) {
  wanted w = {.machine = sim_core, .gram = MG_GRAM_TENSOR, .threads = 1, .measure = true, .dir = "."};
  MPI_Init(&argc, &argv);
  mg_status status = MG_OK;
  for (int k = 1; k < argc && status == MG_OK; k++)
    if (!take_argument(&w, argv[k])) status = mg_fail(MG_ERR_USAGE, "%s: name=value, see the head of sim_schedule.c", argv[k]);
  if (status == MG_OK) status = tables(&w);
  if (status != MG_OK) fprintf(stderr, "%s\n", mg_error_message());
  MPI_Finalize();
  return status != MG_OK;
}
