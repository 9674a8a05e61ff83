/*
 * Memory once a node at any number of ranks: what is written is what all see; where the kernel gives one of them no file, or
 * not so much, every rank has a block of its own with the same in it; arrays of rank 0 arrive whole.
 */
#include <fcntl.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "mergegrid/schedule.h"
#include "mergegrid/shared.h"

/* Words are written in turns; all of them are read. one: does the node have it once? */
static void in_turns(size_t words, bool one) {
  mg_shared *s = NULL;
  size_t first, step;
  CHECK(mg_shared_create(MPI_COMM_WORLD, words * sizeof(uint64_t), "words", &s) == MG_OK);
  if (s == NULL) return;
  uint64_t *data = mg_shared_data(s);
  CHECK((uintptr_t)data % 64 == 0 && data[0] == 0 && data[words - 1] == 0);
  MPI_Barrier(MPI_COMM_WORLD);
  mg_shared_turn(s, &first, &step);
  CHECK(step == (size_t)(one ? ranks : 1) && first < step);
  for (size_t k = first; k < words; k += step) data[k] = k * UINT64_C(0x9E3779B97F4A7C15) + 1;
  CHECK(mg_shared_ready(MPI_COMM_WORLD, s, MG_OK) == MG_OK);
  size_t wrong = 0;
  for (size_t k = 0; k < words; k++) wrong += data[k] != k * UINT64_C(0x9E3779B97F4A7C15) + 1;
  CHECK(wrong == 0);
  mg_shared_destroy(&s);
  CHECK(s == NULL);
}

static void failure_is_everybodys(void) {
  mg_shared *s = NULL;
  CHECK(mg_shared_create(MPI_COMM_WORLD, 100, "bytes", &s) == MG_OK);
  CHECK(mg_shared_ready(MPI_COMM_WORLD, s, rank == ranks - 1 ? mg_fail(MG_ERR_IO, "no disk") : MG_OK) == MG_ERR_IO);
  CHECK(strcmp(mg_error_message(), "no disk") == 0);
  mg_shared_destroy(&s);
}

static void arrays(void) {
  static const char text[] = "which rank 0 has read";
  static const double numbers[] = {1, 2, 3};
  mg_shared *s = NULL;
  mg_shared_piece pieces[3] = {{0}};
  if (rank == 0) {
    pieces[0] = (mg_shared_piece){.from = text, .size = sizeof text};
    pieces[2] = (mg_shared_piece){.from = numbers, .size = sizeof numbers};
  }
  CHECK(mg_shared_broadcast(MPI_COMM_WORLD, "arrays", pieces, 3, &s) == MG_OK);
  CHECK(s != NULL && pieces[0].size == sizeof text && pieces[1].size == 0 && pieces[2].size == sizeof numbers);
  CHECK(pieces[0].at != NULL && memcmp(pieces[0].at, text, sizeof text) == 0);
  CHECK(pieces[1].at == NULL);
  CHECK(pieces[2].at != NULL && memcmp(pieces[2].at, numbers, sizeof numbers) == 0 && (uintptr_t)pieces[2].at % 64 == 0);
  mg_shared_destroy(&s);
  mg_shared_piece nothing = {0};
  CHECK(mg_shared_broadcast(MPI_COMM_WORLD, "nothing", &nothing, 1, &s) == MG_OK);
  CHECK(s == NULL && nothing.at == NULL);
}

static void large_of_its_own(void) { in_turns(1 << 20, ranks == 1); }

static void of_its_own(void) {
  in_turns(1000, ranks == 1);
  arrays();
}

/* Rank 0 may write no file that is so large, not even one without a name. */
static void with_a_limit(void) {
  struct rlimit before, low;
  getrlimit(RLIMIT_FSIZE, &before);
  low = before;
  low.rlim_cur = 1 << 20;
  if (rank == 0) CHECK(setrlimit(RLIMIT_FSIZE, &low) == 0);
  large_of_its_own();
  CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
}

/* The last rank has as many files open as it may. */
static void without_a_file(void) {
  enum { MOST = 256 };
  static int opened[MOST];
  struct rlimit before, low;
  int last = 0, count = 0;
  getrlimit(RLIMIT_NOFILE, &before);
  low = before;
  for (int fd = 0; fd < MOST; fd++)
    if (fcntl(fd, F_GETFD) >= 0) last = fd;
  low.rlim_cur = (rlim_t)last + 1;
  if (rank == ranks - 1) {
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    while (count < MOST && (opened[count] = dup(2)) >= 0) count++;
  }
  of_its_own();
  while (count > 0) close(opened[--count]);
  CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  signal(SIGXFSZ, SIG_IGN);
  in_turns(1, true);
  in_turns(1000, true);
  in_turns(3 << 20, true);
  failure_is_everybodys();
  arrays();
  with_a_limit();
  without_a_file();
  in_turns(1000, true); /* and again once there is room */
  int all = 0;
  MPI_Allreduce(&failures, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  if (all == 0 && rank == 0) puts("all passed");
  return all == 0 ? 0 : 1;
}
