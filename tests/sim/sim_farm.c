/*
 * The simulation against the farm itself: units that sleep, on as many ranks as it is started with, then the same units in
 * simulated time. Sleeping ranks take no processor, so a small machine will do: docs/scaling.md.
 *
 *   mpirun -n 40 sim_farm [UNITS [SECONDS [BYTES]]]
 */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "workload.h"

static sim_unit *make_units(int64_t count, double seconds, uint32_t bytes) {
  sim_unit *units = calloc((size_t)count, sizeof *units);
  for (int64_t k = 0; units != NULL && k < count; k++)
    units[k] = (sim_unit){.seconds = seconds * (1 + 0.5 * sim_draw((uint64_t)k, 11)), .payload_bytes = bytes, .context = -1};
  return units;
}

static mg_status work(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  const sim_unit *u = (const sim_unit *)context + unit;
  const double end = mg_now() + u->seconds;
  while (mg_now() < end) {
    const mg_status status = mg_farm_poll_now(poll);
    if (status != MG_OK) return status;
    usleep(500);
  }
  for (uint32_t k = 0; k < u->payload_bytes; k++) mg_text_append_bytes(payload, "", 1);
  return MG_OK;
}

static mg_status take(void *context, int64_t unit, const void *payload, size_t size) {
  const sim_unit *u = (const sim_unit *)context + unit;
  (void)payload;
  return size == u->payload_bytes ? MG_OK : mg_fail(MG_ERR_INTERNAL, "unit %lld came with %zu bytes", (long long)unit, size);
}

static mg_status compare(int argc, char **argv) {
  mg_status status = MG_OK;
  sim_outcome simulated;
  int rank, ranks;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int64_t count = argc > 1 ? atoll(argv[1]) : 20 * ranks;
  const double seconds = argc > 2 ? strtod(argv[2], NULL) : 0.2;
  sim_unit *units = make_units(count, seconds, argc > 3 ? (uint32_t)atoi(argv[3]) : 10000);
  MG_TRY(mg_agree(MPI_COMM_WORLD, units != NULL ? MG_OK : MG_ERR_NOMEM), cleanup);
  const mg_farm_job job = {.units = count, .context = units, .work = work, .take = take};
  MPI_Barrier(MPI_COMM_WORLD);
  const double began = mg_now();
  MG_TRY(mg_farm_run(MPI_COMM_WORLD, &job), cleanup);
  const double took = mg_now() - began;
  if (rank > 0) goto cleanup;
  sim_machine machine =
      sim_core; /* nothing is journaled or summed, ranks are alike, and sleeping ends within half a millisecond */
  machine.spread = machine.noise = machine.record = machine.record_byte = machine.sync = machine.sync_byte = 0;
  const sim_job same = {.units = count, .unit = units};
  if (!sim_run(&machine, &same, ranks, &simulated))
    status = mg_fail(MG_ERR_INTERNAL, "the simulated farm did not come to its end");
  if (status == MG_OK)
    printf("%d ranks, %lld units: %.3f s, simulated %.3f s (%+.1f%%), of which idle %.1f%%\n", ranks, (long long)count, took,
           simulated.makespan, 100 * (simulated.makespan / took - 1), 100 * simulated.idle);
cleanup:
  free(units);
  return status;
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  const mg_status status = compare(argc, argv);
  if (status != MG_OK) fprintf(stderr, "%s\n", mg_error_message());
  MPI_Finalize();
  return status != MG_OK;
}
