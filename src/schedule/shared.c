/*
 * Memory once a node: a file without a name (memfd_create), which the node's first rank makes and the others open where /proc
 * shows it. It ends with the processes, however they end, and is bound by memory alone, not by the size of /dev/shm. A window
 * of MPI would be both: Open MPI makes it of a file in /dev/shm, and where that is too small its ranks wait for each other for
 * ever.
 */

#include "mergegrid/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "mergegrid/schedule.h"
#include "mergegrid/text.h"

enum { ALIGNED = 64, PIECE = 1 << 28 };

struct mg_shared {
  void *data;
  size_t bytes;
  bool mapped;     /* else a block of this rank's own */
  int rank, ranks; /* of those that share it */
};

/* ---- a file that the node's ranks see ---- */

/* Where rank 0 of the node has it; the last two tell it from what another namespace has under that number. */
typedef struct origin {
  long long pid, fd;
  unsigned long long device, inode;
} origin;

/* −1 where there is none. */
static int make_file(size_t bytes, origin *o) {
  struct stat info;
  const int fd = memfd_create("mergegrid", MFD_CLOEXEC);
  if (fd < 0) return -1;
  if (ftruncate(fd, (off_t)bytes) != 0 || fstat(fd, &info) != 0) {
    close(fd);
    return -1;
  }
  *o = (origin){getpid(), fd, info.st_dev, info.st_ino};
  return fd;
}

static int open_file(const origin *o) {
  char path[64];
  struct stat info;
  snprintf(path, sizeof path, "/proc/%lld/fd/%lld", o->pid, o->fd);
  const int fd = o->fd >= 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return -1;
  if (fstat(fd, &info) == 0 && info.st_dev == o->device && info.st_ino == o->inode) return fd;
  close(fd);
  return -1;
}

/* Each rank has the pages of its share made, near the processors that it is on; what can't be made is an error here. */
static bool reserve(int fd, size_t bytes, int rank, int ranks) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page;
  const size_t first = pages * (size_t)rank / (size_t)ranks, last = pages * ((size_t)rank + 1) / (size_t)ranks;
  int error = 0;
  if (first == last) return true;
  do /* a signal that asks for a stop interrupts it */
    error = posix_fallocate(fd, (off_t)(first * page), (off_t)((last - first) * page));
  while (error == EINTR);
  return error == 0;
}

static bool everyone(MPI_Comm node, bool good) {
  int all = good;
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, node);
  return all != 0;
}

/* Maps the block where the node's ranks can share it; false, on all of them, where not. */
static bool map_shared(MPI_Comm node, mg_shared *s) {
  origin o = {.fd = -1};
  int fd = s->rank == 0 ? make_file(s->bytes, &o) : -1;
  MPI_Bcast(&o, (int)sizeof o, MPI_BYTE, 0, node);
  if (s->rank != 0) fd = open_file(&o);
  void *data = MAP_FAILED;
  bool good = everyone(node, fd >= 0);
  if (good) good = everyone(node, reserve(fd, s->bytes, s->rank, s->ranks));
  if (good) {
    data = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    good = everyone(node, data != MAP_FAILED);
  }
  if (!good && data != MAP_FAILED) munmap(data, s->bytes);
  if (fd >= 0) close(fd);
  if (good) s->data = data;
  return good;
}

/* ---- blocks ---- */

/* What the plan does not have is said aloud where it is more than the plan's slack. */
static void say_not_shared(const mg_shared *s, const char *what) {
  enum { SLACK = 16 << 20 };
  const double more = (double)s->bytes * (s->ranks - 1);
  if (more > SLACK)
    mg_warn("%s can't be shared by the ranks of this node: every one keeps its own, %.3g GB more than planned in all", what,
            more / 1e9);
  else
    mg_debug("%s can't be shared by the ranks of this node: every one keeps its own", what);
}

static mg_status have_own(mg_shared *s, const char *what) {
  s->rank = 0;
  s->ranks = 1;
  s->data = mg_alloc_aligned(s->bytes);
  if (s->data == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory for %s: %.3g GB", what, (double)s->bytes / 1e9);
  memset(s->data, 0, s->bytes);
  return MG_OK;
}

mg_status mg_shared_create(MPI_Comm comm, uint64_t bytes, const char *what, mg_shared **out) {
  mg_status status = MG_OK;
  MPI_Comm node;
  mg_shared *s = mg_alloc_zero(1, sizeof *s);
  MG_TRY(mg_agree(comm, s != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  if (s == NULL) return MG_ERR_NOMEM; /* agreed on, which no analyzer sees */
  s->bytes = (size_t)bytes;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &s->ranks);
  MPI_Comm_rank(node, &s->rank);
  s->mapped = s->ranks > 1 && map_shared(node, s);
  MPI_Comm_free(&node);
  if (!s->mapped) {
    if (s->ranks > 1 && s->rank == 0) say_not_shared(s, what);
    status = have_own(s, what);
  }
  MG_TRY(mg_agree(comm, status), failed);
  *out = s;
  return MG_OK;
failed:
  mg_shared_destroy(&s);
  return status;
}

void mg_shared_destroy(mg_shared **shared) {
  mg_shared *s = *shared;
  if (s == NULL) return;
  if (s->mapped)
    munmap(s->data, s->bytes);
  else
    free(s->data);
  free(s);
  *shared = NULL;
}

void *mg_shared_data(const mg_shared *s) { return s->data; }

void mg_shared_turn(const mg_shared *s, size_t *first, size_t *step) {
  *first = (size_t)s->rank;
  *step = (size_t)s->ranks;
}

mg_status mg_shared_ready(MPI_Comm comm, mg_shared *s, mg_status status) {
  atomic_thread_fence(memory_order_seq_cst);
  const mg_status all = mg_agree(comm, status);
  atomic_thread_fence(memory_order_seq_cst);
  if (s->mapped) mprotect(s->data, s->bytes, PROT_READ);
  return all;
}

/* ---- rank 0's to all ---- */

/* Where each piece begins; the size of all. */
static size_t lay_out(const mg_shared_piece *pieces, size_t count, size_t *offset) {
  size_t bytes = 0;
  for (size_t k = 0; k < count; k++) {
    offset[k] = bytes;
    bytes += (pieces[k].size + ALIGNED - 1) / ALIGNED * ALIGNED;
  }
  return bytes;
}

/* Between those that write a block: of rank 0 (who is first among them), and of every other node. */
static void send(MPI_Comm writers, char *data, size_t bytes) {
  for (size_t at = 0; at < bytes; at += PIECE) {
    const size_t left = bytes - at;
    MPI_Bcast(data + at, (int)(left < PIECE ? left : PIECE), MPI_BYTE, 0, writers);
  }
}

mg_status mg_shared_broadcast(MPI_Comm comm, const char *what, mg_shared_piece *pieces, size_t count, mg_shared **shared) {
  mg_status status = MG_OK;
  MPI_Comm writers;
  int rank;
  *shared = NULL;
  size_t *offset = mg_alloc(count, sizeof *offset), bytes;
  MG_TRY(mg_agree(comm, offset != NULL ? MG_OK : MG_ERR_NOMEM), cleanup);
  if (offset == NULL) return MG_ERR_NOMEM; /* agreed on, which no analyzer sees */
  MPI_Comm_rank(comm, &rank);
  for (size_t k = 0; k < count; k++) {
    unsigned long long size = pieces[k].size;
    MPI_Bcast(&size, 1, MPI_UNSIGNED_LONG_LONG, 0, comm);
    pieces[k].size = (size_t)size;
    pieces[k].at = NULL;
  }
  bytes = lay_out(pieces, count, offset);
  if (bytes == 0) goto cleanup;
  MG_TRY(mg_shared_create(comm, bytes, what, shared), cleanup);
  char *data = (*shared)->data;
  for (size_t k = 0; k < count; k++) {
    if (pieces[k].size > 0) pieces[k].at = data + offset[k];
    if (rank == 0 && pieces[k].size > 0) memcpy(data + offset[k], pieces[k].from, pieces[k].size);
  }
  MPI_Comm_split(comm, (*shared)->rank == 0 ? 0 : MPI_UNDEFINED, 0, &writers);
  if (writers != MPI_COMM_NULL) {
    send(writers, data, bytes);
    MPI_Comm_free(&writers);
  }
  status = mg_shared_ready(comm, *shared, MG_OK);
cleanup:
  free(offset);
  return status;
}
