/*
 * Whole files are mapped once: a mapping is address space only, and showing a range fills page tables without the lock that
 * threads would wait for if ranges were mapped one by one. A page that has vanished when it is touched (the file was cut short,
 * or its disk failed after the page cache let it go) raises SIGBUS: the handler puts zeros there and notes it.
 */

#include "mergegrid/mapping.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/text.h"

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ 22
#endif

enum { MOST_SETS = 16, MOST_MAPPED = 16384 /* of the 65530 mappings that a process may have */ };
/*
 * Of one fault, the kernel may map as much as the page cache has in one piece, at most a block; and pieces within so much of
 * memory around. So pages are let go by blocks, when no window shows a part of a block any more.
 */
enum { BLOCK = 2 << 20, AROUND = 64 << 10 };

typedef struct mg_mapped_file {
  char *_Atomic at; /* NULL: not mapped yet; UNABLE */
  size_t size;
  const char *path;
  atomic_uint *windows; /* [blocks + 1] that show a part of it; 0 behind the last */
  atomic_bool broken;   /* zeros were put in place of a page */
} mapped_file;

struct mg_mappings {
  pthread_mutex_t lock; /* mapping a file */
  size_t files, mapped;
  uintptr_t page;
  mapped_file *file;
  size_t most_tables;
  atomic_size_t shown; /* bytes, since the page tables were last looked at */
  atomic_bool full;    /* there are too many of them */
  atomic_bool broken;  /* some file is */
};

static char UNABLE[1];
static _Atomic(mg_mappings *) sets[MOST_SETS]; /* those that the handler looks for */
static atomic_int looking;                     /* handlers that look at sets now */
static struct sigaction before_us;
static pthread_mutex_t handling = PTHREAD_MUTEX_INITIALIZER;

/* ---- pages that vanish ---- */

static mapped_file *find_in(mg_mappings *m, uintptr_t at) {
  for (size_t f = 0; f < m->files; f++) {
    char *begin = atomic_load(&m->file[f].at);
    if (begin == NULL || begin == UNABLE) continue;
    if (at >= (uintptr_t)begin && at - (uintptr_t)begin < m->file[f].size) return &m->file[f];
  }
  return NULL;
}

/* Puts zeros where the page was, and says so. */
static bool replace_page(uintptr_t at) {
  for (int k = 0; k < MOST_SETS; k++) {
    mg_mappings *m = atomic_load(&sets[k]);
    mapped_file *file = m != NULL ? find_in(m, at) : NULL;
    if (file == NULL) continue;
    atomic_store(&file->broken, true);
    atomic_store(&m->broken, true);
    void *begin = (void *)(at - at % m->page);
    return mmap(begin, m->page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

/* Whoever touched the page goes on with zeros, and is told by mg_mappings_check. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
  const int error = errno;
  atomic_fetch_add(&looking, 1);
  const bool ours = replace_page((uintptr_t)info->si_addr);
  atomic_fetch_sub(&looking, 1); /* before the next handler, which need not return */
  if (ours) {
    errno = error;
    return;
  }
  if ((before_us.sa_flags & SA_SIGINFO) != 0 && before_us.sa_sigaction != NULL)
    before_us.sa_sigaction(number, info, context);
  else if ((before_us.sa_flags & SA_SIGINFO) == 0 && before_us.sa_handler != SIG_DFL && before_us.sa_handler != SIG_IGN)
    before_us.sa_handler(number);
  else
    signal(SIGBUS, SIG_DFL); /* and the instruction that is done again ends the process */
  errno = error;
}

/* Anew for every set, since others (MPI, a test's harness) set theirs as they begin. */
static bool handle(void) {
  struct sigaction ours = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_RESTART}, now;
  sigemptyset(&ours.sa_mask);
  pthread_mutex_lock(&handling);
  bool handled = sigaction(SIGBUS, NULL, &now) == 0;
  if (handled && ((now.sa_flags & SA_SIGINFO) == 0 || now.sa_sigaction != on_bus_error)) {
    before_us = now;
    handled = sigaction(SIGBUS, &ours, NULL) == 0;
  }
  pthread_mutex_unlock(&handling);
  return handled;
}

static bool enter(mg_mappings *mappings) {
  if (!handle()) return false;
  for (int k = 0; k < MOST_SETS; k++) {
    mg_mappings *none = NULL;
    if (atomic_compare_exchange_strong(&sets[k], &none, mappings)) return true;
  }
  return false;
}

/* Afterwards no handler (of a thread that looks at another set's file) has it before it. */
static void leave(const mg_mappings *mappings) {
  for (int k = 0; k < MOST_SETS; k++)
    if (atomic_load(&sets[k]) == mappings) atomic_store(&sets[k], NULL);
  while (atomic_load(&looking) > 0) sched_yield();
}

/* Where address space is rationed, whole files would take what memory is to be had from. */
static bool is_rationed(void) {
  struct rlimit limit;
  return getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY;
}

/* ---- files ---- */

mg_status mg_mappings_create(size_t files, size_t most_tables, mg_mappings **out) {
  mg_mappings *m = mg_alloc_zero(1, sizeof *m);
  if (m == NULL) return MG_ERR_NOMEM;
  m->file = mg_alloc_zero(files, sizeof *m->file);
  if (m->file == NULL) {
    free(m);
    return MG_ERR_NOMEM;
  }
  m->files = files;
  m->most_tables = most_tables;
  m->page = (uintptr_t)sysconf(_SC_PAGESIZE);
  pthread_mutex_init(&m->lock, NULL);
  /* Nothing is shown where nobody would notice a page that vanishes. */
  if (is_rationed() || !enter(m)) m->mapped = MOST_MAPPED;
  *out = m;
  return MG_OK;
}

void mg_mappings_destroy(mg_mappings **mappings) {
  mg_mappings *m = *mappings;
  if (m == NULL) return;
  leave(m);
  for (size_t f = 0; f < m->files; f++) {
    char *at = atomic_load(&m->file[f].at);
    if (at != NULL && at != UNABLE) munmap(at, m->file[f].size);
    free(m->file[f].windows);
  }
  pthread_mutex_destroy(&m->lock);
  free(m->file);
  free(m);
  *mappings = NULL;
}

static char *map_file(mg_mappings *m, mapped_file *file, int fd, const char *path) {
  struct stat info;
  if (m->mapped >= MOST_MAPPED || fstat(fd, &info) != 0 || info.st_size <= 0) return UNABLE;
  file->windows = mg_alloc_zero((size_t)info.st_size / BLOCK + 2, sizeof *file->windows);
  char *at = file->windows != NULL ? mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (at == MAP_FAILED) return UNABLE; /* a limit on address space, say */
  file->size = (size_t)info.st_size;
  file->path = path;
  m->mapped++;
  return at;
}

static char *file_at(mg_mappings *m, mapped_file *file, int fd, const char *path) {
  char *at = atomic_load(&file->at);
  if (at != NULL) return at;
  pthread_mutex_lock(&m->lock);
  at = atomic_load(&file->at);
  if (at == NULL) {
    at = map_file(m, file, fd, path);
    atomic_store(&file->at, at);
  }
  pthread_mutex_unlock(&m->lock);
  return at;
}

mg_status mg_mappings_check(mg_mappings *m) {
  if (!atomic_load(&m->broken)) return MG_OK;
  for (size_t f = 0; f < m->files; f++)
    if (atomic_load(&m->file[f].broken))
      return mg_fail(MG_ERR_IO, "%s: a part of it vanished while it was read: cut short, or its disk failed", m->file[f].path);
  return MG_OK;
}

/* ---- windows ---- */

/* Are there too many page tables, now that so much more was shown? Asks the kernel when they may have grown by an eighth. */
static bool is_full(mg_mappings *m, size_t more) {
  enum { BYTES_A_TABLE_BYTE = 512 };
  const size_t shown = atomic_fetch_add(&m->shown, more) + more;
  if (shown / BYTES_A_TABLE_BYTE >= m->most_tables / 8) {
    atomic_store(&m->shown, 0);
    if (mg_process_memory("VmPTE") > m->most_tables) atomic_store(&m->full, true);
  }
  return atomic_load(&m->full);
}

/* The page cache says so without waiting for anything. */
static bool is_cached(int fd, uint64_t offset) {
  char byte;
  const struct iovec one = {.iov_base = &byte, .iov_len = 1};
  return preadv2(fd, &one, 1, (off_t)offset, RWF_NOWAIT) == 1;
}

const char *mg_window_at(const mg_window *w, size_t file, uint64_t offset, size_t size) {
  if (w->from == NULL || w->file != file || offset < w->offset) return NULL;
  const uint64_t in = offset - w->offset;
  return in <= w->size && size <= w->size - in ? w->from + in : NULL;
}

static void let_go(mapped_file *f, size_t block) {
  char *at = atomic_load(&f->at);
  size_t begin = block * BLOCK, end = f->size - begin < BLOCK ? f->size : begin + BLOCK;
  if (block > 0 && atomic_load(&f->windows[block - 1]) == 0) begin -= AROUND;
  if (end < f->size && atomic_load(&f->windows[block + 1]) == 0) end = f->size - end < AROUND ? f->size : end + AROUND;
  /* Should another window come to show a part of it just now, its pages come back when they are touched. */
  madvise(at + begin, end - begin, MADV_DONTNEED);
}

const char *mg_window_show(mg_mappings *m, mg_window *w, size_t file, int fd, const char *path, uint64_t offset, size_t size,
                           size_t extent) {
  mapped_file *f = &m->file[file];
  mg_window before = *w;
  w->from = NULL;
  char *at = file_at(m, f, fd, path);
  if (at == UNABLE || size == 0 || offset > f->size || size > f->size - offset || atomic_load(&f->broken)) goto done;
  uint64_t end = f->size - offset > extent ? offset + extent : f->size;
  if (end < offset + size) end = offset + size;
  if (!is_cached(fd, offset) || !is_cached(fd, end - 1) || is_full(m, (size_t)(end - offset))) goto done;
  const uint64_t first = offset - offset % m->page;
  *w = (mg_window){.file = file, .from = at + offset, .offset = offset, .size = (size_t)(end - offset), .shows = f};
  for (size_t block = offset / BLOCK; block <= (end - 1) / BLOCK; block++) atomic_fetch_add(&f->windows[block], 1);
  /* Fails where touching a page would, and where the kernel is too old. */
  if (madvise(at + first, (size_t)(end - first), MADV_POPULATE_READ) != 0) mg_window_close(w);
done:
  mg_window_close(&before); /* only now: of a block that goes on being shown, the pages stay */
  return w->from;
}

void mg_window_close(mg_window *w) {
  if (w->from == NULL) return;
  for (size_t block = w->offset / BLOCK; block <= (w->offset + w->size - 1) / BLOCK; block++)
    if (atomic_fetch_sub(&w->shows->windows[block], 1) == 1) let_go(w->shows, block);
  w->from = NULL;
}
