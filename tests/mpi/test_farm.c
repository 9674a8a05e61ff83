/*
 * The farm at any number of ranks: every unit is taken once, its payload whole; a failure or a stop on any rank ends it on
 * all with the same status and message, and the farm can be used again afterwards.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "mergegrid/schedule.h"
#include "mergegrid/stop.h"

typedef struct trial {
  int64_t units;
  int *seen;
  int64_t fail_at, stop_at; /* −1: never */
  int64_t computed;
} trial;

/* A payload whose size and bytes follow from the unit: from nothing to far beyond the eager limit. */
static size_t payload_size(int64_t unit) { return (size_t)(unit * 7919 % 40000); }

static mg_status work(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  trial *t = context;
  for (int k = 0; k < 20; k++) {
    const mg_status status = mg_farm_poll_now(poll);
    if (status != MG_OK) return status;
  }
  if (unit == t->fail_at) return mg_fail(MG_ERR_CORRUPT, "unit %lld is bad", (long long)unit);
  if (unit == t->stop_at) mg_stop_request();
  for (size_t k = 0; k < payload_size(unit); k++) {
    const char byte = (char)(unit + (int64_t)k);
    mg_text_append_bytes(payload, &byte, 1);
  }
  t->computed++;
  return MG_OK;
}

static mg_status take(void *context, int64_t unit, const void *payload, size_t size) {
  trial *t = context;
  CHECK(rank == 0 && unit >= 0 && unit < t->units && size == payload_size(unit));
  for (size_t k = 0; k < size; k++)
    if (((const char *)payload)[k] != (char)(unit + (int64_t)k)) return mg_fail(MG_ERR_INTERNAL, "a payload was changed");
  t->seen[unit]++;
  return MG_OK;
}

static mg_status run(trial *t) {
  const mg_farm_job job = {.units = t->units, .context = t, .work = work, .take = take};
  t->seen = calloc((size_t)t->units + 1, sizeof *t->seen);
  t->computed = 0;
  return mg_farm_run(MPI_COMM_WORLD, &job);
}

static void every_unit_once(int64_t units) {
  trial t = {.units = units, .fail_at = -1, .stop_at = -1};
  CHECK(run(&t) == MG_OK);
  if (rank == 0)
    for (int64_t k = 0; k < units; k++) CHECK(t.seen[k] == 1);
  int64_t all = 0;
  MPI_Allreduce(&t.computed, &all, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  CHECK(all == units);
  free(t.seen);
}

static void failure_is_everybodys(int64_t unit) {
  trial t = {.units = 60, .fail_at = unit, .stop_at = -1};
  CHECK(run(&t) == MG_ERR_CORRUPT);
  char expected[64];
  snprintf(expected, sizeof expected, "unit %lld is bad", (long long)unit);
  CHECK(strcmp(mg_error_message(), expected) == 0);
  free(t.seen);
}

static void agreement(void) {
  CHECK(mg_agree(MPI_COMM_WORLD, MG_OK) == MG_OK);
  const mg_status mine = rank == ranks - 1 ? mg_fail(MG_ERR_IO, "rank %d says so", rank) : MG_OK;
  CHECK(mg_agree(MPI_COMM_WORLD, mine) == MG_ERR_IO);
  char expected[64];
  snprintf(expected, sizeof expected, "rank %d says so", ranks - 1);
  CHECK(strcmp(mg_error_message(), expected) == 0);
  /* a failure says more than a stop */
  const mg_status mixed = rank == ranks - 1 ? mg_fail(MG_ERR_IO, "failed") : mg_fail(MG_STOPPED, "stopped");
  CHECK(mg_agree(MPI_COMM_WORLD, mixed) == MG_ERR_IO);
}

static void broadcast(void) {
  size_t size = rank == 0 ? 100000 : 0;
  char *data = rank == 0 ? malloc(size) : NULL;
  for (size_t k = 0; k < size; k++) data[k] = (char)k;
  void *bytes = data;
  CHECK(mg_broadcast_bytes(MPI_COMM_WORLD, &bytes, &size) == MG_OK);
  data = bytes;
  CHECK(size == 100000 && data[99999] == (char)99999);
  free(data);
}

static void stop_is_everybodys(void) { /* last: a stop stays requested */
  trial t = {.units = 400, .fail_at = -1, .stop_at = 20};
  CHECK(run(&t) == MG_STOPPED);
  if (rank == 0)
    for (int64_t k = 0; k < t.units; k++) CHECK(t.seen[k] <= 1);
  free(t.seen);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  agreement();
  broadcast();
  CHECK(mg_threads_auto(MPI_COMM_WORLD, 3) == 3 && mg_threads_auto(MPI_COMM_WORLD, 0) >= 1);
  const int64_t sizes[] = {0, 1, 2, 7, 200};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) every_unit_once(sizes[k]);
  for (int64_t unit = 0; unit < 60; unit += 13) failure_is_everybodys(unit);
  every_unit_once(50);
  stop_is_everybodys();
  int all = 0;
  MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return all > 0;
}
