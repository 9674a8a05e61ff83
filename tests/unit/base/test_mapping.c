/* Files seen in the page cache: the bytes that reading gives, or none; and what becomes of pages that vanish. */
#include "mergegrid/mapping.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/scratch.h"

enum { SIZE = 300000, FILES = 3 };

static char content[SIZE];
static char *paths[FILES];
static int fds[FILES];
static mg_mappings *mappings;
static bool able; /* does this kernel show files at all? */

static int make_files(void **state) {
  unsigned x = 1;
  if (make_dir(state) != 0) return 1;
  for (size_t k = 0; k < SIZE; k++) content[k] = (char)((x = x * 1664525u + 1013904223u) >> 24);
  for (int f = 0; f < FILES; f++) {
    char name[8];
    snprintf(name, sizeof name, "f%d", f);
    paths[f] = in_dir(name);
    if (mg_replace_file(paths[f], content, SIZE - (size_t)f) != MG_OK) return 1;
    fds[f] = open(paths[f], O_RDONLY);
  }
  return mg_mappings_create(FILES, MG_MOST_TABLES, &mappings) != MG_OK;
}

static int remove_files(void **state) {
  mg_mappings_destroy(&mappings);
  for (int f = 0; f < FILES; f++) {
    close(fds[f]);
    free(paths[f]);
  }
  return remove_dir(state);
}

static const char *show(mg_window *w, size_t file, uint64_t offset, size_t size, size_t extent) {
  return mg_window_show(mappings, w, file, fds[file], paths[file], offset, size, extent);
}

static void what_is_shown_is_what_the_file_holds(void **state) {
  (void)state;
  static const struct {
    uint64_t offset;
    size_t size, extent;
  } ranges[] = {{0, 1, 1}, {0, SIZE - 2, 0}, {4095, 2, 10000}, {4096, 4096, 4096}, {8191, 70000, 1}, {SIZE - 3, 1, 1 << 20}};
  mg_window w = {0};
  for (size_t file = 0; file < FILES; file++)
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
      const char *at = show(&w, file, ranges[r].offset, ranges[r].size, ranges[r].extent);
      if (at == NULL) continue;
      able = true;
      assert_memory_equal(at, content + ranges[r].offset, ranges[r].size);
      assert_int_equal((uintptr_t)at % 4096, ranges[r].offset % 4096);
    }
  mg_window_close(&w);
  if (!able) skip(); /* a kernel before 5.14, or a file system that does not say what it has */
}

static void a_window_shows_more_than_was_asked_for(void **state) {
  (void)state;
  if (!able) skip();
  mg_window w = {0};
  const char *at = show(&w, 0, 100, 10, 5000);
  assert_non_null(at);
  assert_ptr_equal(mg_window_at(&w, 0, 100, 5000), at);
  assert_ptr_equal(mg_window_at(&w, 0, 5099, 1), at + 4999);
  assert_null(mg_window_at(&w, 0, 5099, 2));
  assert_null(mg_window_at(&w, 0, 99, 1));
  assert_null(mg_window_at(&w, 1, 100, 1));
  assert_null(mg_window_at(&w, 0, 6000, 0));
  at = show(&w, 0, SIZE - 100, 10, 5000); /* as far as the file goes */
  assert_non_null(at);
  assert_ptr_equal(mg_window_at(&w, 0, SIZE - 100, 100), at);
  assert_null(mg_window_at(&w, 0, SIZE - 100, 101));
  mg_window_close(&w);
  assert_null(mg_window_at(&w, 0, SIZE - 100, 1));
}

static void what_a_file_does_not_have_is_not_shown(void **state) {
  (void)state;
  mg_window w = {0};
  assert_null(show(&w, 1, SIZE - 1, 1, 1)); /* a byte shorter than the first */
  assert_null(show(&w, 1, SIZE - 10, 10, 10));
  assert_null(show(&w, 1, UINT64_MAX - 3, 8, 8));
  assert_null(show(&w, 1, 8, SIZE_MAX - 4, 8));
  mg_mappings *others = NULL;
  assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &others), MG_OK);
  const int directory = open(dir, O_RDONLY), empty = open("/dev/null", O_RDONLY);
  assert_null(mg_window_show(others, &w, 0, directory, dir, 0, 1, 1));
  assert_null(mg_window_show(others, &w, 0, empty, "/dev/null", 0, 1, 1)); /* once unable, always */
  close(directory), close(empty);
  mg_mappings_destroy(&others);
}

static void what_is_on_disk_only_is_left_to_reading(void **state) {
  (void)state;
  if (!able) skip();
  mg_mappings *own = NULL;
  mg_window w = {0};
  char *path = in_dir("cold"), byte;
  assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &own), MG_OK);
  assert_int_equal(mg_replace_file(path, content, SIZE), MG_OK);
  const int fd = open(path, O_RDONLY);
  assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  const bool cold = mg_window_show(own, &w, 0, fd, path, 200000, 10, 10) == NULL;
  assert_int_equal(pread(fd, &byte, 1, 200000), 1);
  const char *at = mg_window_show(own, &w, 0, fd, path, 200000, 10, 10);
  assert_non_null(at);
  assert_memory_equal(at, content + 200000, 10);
  mg_window_close(&w);
  mg_mappings_destroy(&own);
  close(fd);
  free(path);
  if (!cold) skip(); /* a file system in memory keeps it all the same */
}

/* Zeros instead of the end of the process; and the file is named, and shown no more. */
static void a_file_cut_short_is_noticed(void **state) {
  (void)state;
  if (!able) skip();
  mg_mappings *own = NULL;
  mg_window w = {0}, other = {0};
  char *path = in_dir("short");
  assert_int_equal(mg_replace_file(path, content, SIZE), MG_OK);
  const int fd = open(path, O_RDWR);
  assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &own), MG_OK);
  const char *at = mg_window_show(own, &w, 0, fd, path, 100000, 100000, 100000);
  assert_non_null(at);
  assert_int_equal(mg_mappings_check(own), MG_OK);
  assert_int_equal(ftruncate(fd, 150000), 0);
  assert_memory_equal(at, content + 100000, 40000);
  assert_int_equal(mg_mappings_check(own), MG_OK);
  assert_int_equal(at[99999], 0); /* by the handler */
  assert_int_equal(at[60000], 0);
  assert_int_equal(mg_mappings_check(own), MG_ERR_IO);
  assert_non_null(strstr(mg_error_message(), path));
  assert_null(mg_window_show(own, &other, 0, fd, path, 0, 10, 10));
  assert_int_equal(mg_mappings_check(mappings), MG_OK); /* another set's files are in order */
  mg_window_close(&w);
  mg_mappings_destroy(&own);
  close(fd);
  free(path);
}

/* A bus error that is none of ours ends the process, as it would without us. */
static void other_bus_errors_are_not_ours(void **state) {
  (void)state;
  char *path = in_dir("foreign");
  assert_int_equal(mg_replace_file(path, content, 8192), MG_OK);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = open(path, O_RDWR);
    mg_mappings *own = NULL;
    signal(SIGBUS, SIG_DFL); /* not the harness's */
    if (mg_mappings_create(1, MG_MOST_TABLES, &own) != MG_OK || ftruncate(fd, 0) != 0) _exit(0);
    volatile const char *at = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
    _exit(at[5000]);
  }
  int end = 0;
  assert_int_equal(waitpid(child, &end, 0), child);
  assert_true(WIFSIGNALED(end) && WTERMSIG(end) == SIGBUS);
  free(path);
}

/* KiB of a mapped file that page tables show: exactly, where /proc/self/statm is off by what each processor has not told yet.
 */
static long resident(const char *path) {
  char line[4096];
  bool inside = false;
  long all = 0, some;
  FILE *file = fopen("/proc/self/smaps", "r");
  assert_non_null(file);
  while (fgets(line, sizeof line, file) != NULL) {
    if (strstr(line, " kB\n") == NULL) inside = strstr(line, path) != NULL;
    if (inside && sscanf(line, "Rss: %ld kB", &some) == 1) all += some;
  }
  fclose(file);
  return all;
}

/* Whoever walks over a file has nothing of it in memory afterwards, though the kernel shows more than it is asked to. */
static void nothing_stays_behind_a_window(void **state) {
  (void)state;
  if (!able) skip();
  enum { ALL = 16 << 20, TILE = 20000, WINDOW = 128 << 10 };
  mg_mappings *own = NULL;
  mg_window w = {0};
  char *path = in_dir("long");
  const int fd = open(path, O_RDWR | O_CREAT, 0600);
  for (int k = 0; k < ALL; k += 4096) assert_int_equal(write(fd, content, 4096), 4096); /* the page cache has it in pages */
  assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &own), MG_OK);
  for (uint64_t offset = 12345; offset + TILE <= ALL; offset += TILE) {
    if (mg_window_at(&w, 0, offset, TILE) != NULL) continue;
    if (mg_window_show(own, &w, 0, fd, path, offset, TILE, WINDOW) != NULL) assert_true(resident(path) > 0);
  }
  mg_window_close(&w);
  assert_int_equal(resident(path), 0);
  mg_mappings_destroy(&own);
  close(fd);
  free(path);
}

/* Beyond so many page tables, what is shown stays and nothing more is. */
static void page_tables_are_bounded(void **state) {
  (void)state;
  if (!able) skip();
  enum { FEW = 8192, UNASKED = FEW / 8 * 512 }; /* bytes shown before the kernel is asked */
  mg_mappings *own = NULL;
  mg_window kept = {0}, w = {0};
  assert_int_equal(mg_mappings_create(1, FEW, &own), MG_OK);
  const char *at = mg_window_show(own, &kept, 0, fds[0], paths[0], 0, 5000, 5000);
  assert_non_null(at);
  size_t shown = 5000;
  while (mg_window_show(own, &w, 0, fds[0], paths[0], 10000, 100000, 100000) != NULL && shown < 2 * UNASKED) shown += 100000;
  assert_in_range(shown, UNASKED - 100000, UNASKED);
  assert_null(mg_window_show(own, &w, 0, fds[0], paths[0], 10000, 1, 1));
  assert_memory_equal(at, content, 5000);
  mg_window_close(&kept);
  mg_mappings_destroy(&own);
}

/* Whole files would take address space that is rationed from those who allocate. */
static void rationed_address_space_is_left_alone(void **state) {
  (void)state;
  mg_mappings *own = NULL;
  mg_window w = {0};
  struct rlimit before, low;
  assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
  low = before;
  low.rlim_cur = (rlim_t)1 << 60;
  if (before.rlim_cur != RLIM_INFINITY || setrlimit(RLIMIT_AS, &low) != 0) skip();
  assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &own), MG_OK);
  assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
  assert_null(mg_window_show(own, &w, 0, fds[0], paths[0], 0, 10, 10));
  mg_mappings_destroy(&own);
}

static void *look(void *context) {
  const size_t file = (size_t)(uintptr_t)context % FILES;
  mg_window w = {0};
  for (size_t turn = 0; turn < 400; turn++) {
    const uint64_t offset = (turn * 7919) % (SIZE - 5000);
    const char *at = show(&w, file, offset, 4000, 9000);
    if (at != NULL && memcmp(at, content + offset, 4000) != 0) return content;
  }
  mg_window_close(&w);
  return NULL;
}

static void threads_look_at_the_same_files(void **state) {
  (void)state;
  pthread_t threads[6];
  void *wrong;
  for (size_t k = 0; k < 6; k++) assert_int_equal(pthread_create(&threads[k], NULL, look, (void *)(uintptr_t)k), 0);
  for (size_t k = 0; k < 6; k++) {
    pthread_join(threads[k], &wrong);
    assert_null(wrong);
  }
}

static atomic_bool enough;

static void *come_and_go(void *context) {
  mg_mappings *passing = NULL;
  while (!atomic_load(&enough) && mg_mappings_create(FILES, MG_MOST_TABLES, &passing) == MG_OK) mg_mappings_destroy(&passing);
  return context;
}

/* The handler looks through all sets for the page that vanished. */
static void sets_come_and_go_while_pages_vanish(void **state) {
  (void)state;
  if (!able) skip();
  char *path = in_dir("vanishing");
  pthread_t thread;
  atomic_store(&enough, false);
  assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
  for (int turn = 0; turn < 100; turn++) {
    mg_mappings *own = NULL;
    mg_window w = {0};
    assert_int_equal(mg_replace_file(path, content, SIZE), MG_OK);
    const int fd = open(path, O_RDWR);
    assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &own), MG_OK);
    const char *at = mg_window_show(own, &w, 0, fd, path, 0, SIZE, SIZE);
    assert_int_equal(ftruncate(fd, 0), 0);
    for (size_t k = 0; at != NULL && k < SIZE; k += 4096) assert_int_equal(at[k], 0);
    assert_int_equal(mg_mappings_check(own), at != NULL ? MG_ERR_IO : MG_OK);
    mg_window_close(&w);
    mg_mappings_destroy(&own);
    close(fd);
  }
  atomic_store(&enough, true);
  assert_int_equal(pthread_join(thread, NULL), 0);
  free(path);
}

static void more_sets_than_are_watched_show_nothing(void **state) {
  (void)state;
  enum { MANY = 40 };
  mg_mappings *sets[MANY];
  mg_window w = {0};
  for (size_t k = 0; k < MANY; k++) assert_int_equal(mg_mappings_create(1, MG_MOST_TABLES, &sets[k]), MG_OK);
  assert_null(mg_window_show(sets[MANY - 1], &w, 0, fds[0], paths[0], 0, 10, 10));
  for (size_t k = 0; k < MANY; k++) mg_mappings_destroy(&sets[k]);
  if (able) assert_non_null(show(&w, 0, 0, 10, 10));
  mg_window_close(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_shown_is_what_the_file_holds),
      cmocka_unit_test(a_window_shows_more_than_was_asked_for),
      cmocka_unit_test(what_a_file_does_not_have_is_not_shown),
      cmocka_unit_test(what_is_on_disk_only_is_left_to_reading),
      cmocka_unit_test(a_file_cut_short_is_noticed),
      cmocka_unit_test(other_bus_errors_are_not_ours),
      cmocka_unit_test(nothing_stays_behind_a_window),
      cmocka_unit_test(page_tables_are_bounded),
      cmocka_unit_test(rationed_address_space_is_left_alone),
      cmocka_unit_test(threads_look_at_the_same_files),
      cmocka_unit_test(sets_come_and_go_while_pages_vanish),
      cmocka_unit_test(more_sets_than_are_watched_show_nothing),
  };
  return cmocka_run_group_tests(tests, make_files, remove_files);
}
