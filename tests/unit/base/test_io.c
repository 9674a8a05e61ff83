#include "mergegrid/io.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/scratch.h"

static void files_are_replaced_whole(void **state) {
  (void)state;
  char *path = in_dir("a"), *data = NULL;
  size_t size;
  assert_int_equal(mg_replace_file(path, "one", 3), MG_OK);
  assert_int_equal(mg_replace_file(path, "three", 5), MG_OK);
  assert_int_equal(mg_read_file(path, 100, &data, &size), MG_OK);
  assert_int_equal(size, 5);
  assert_string_equal(data, "three");
  free(data);
  assert_int_equal(mg_read_file(path, 4, &data, &size), MG_ERR_INPUT);
  assert_int_equal(mg_read_file(dir, 100, &data, &size), MG_ERR_INPUT);
  free(path);
  path = in_dir("no/such");
  assert_int_equal(mg_replace_file(path, "x", 1), MG_ERR_IO);
  assert_non_null(strstr(mg_error_message(), "no/such"));
  free(path);
}

static void short_reads_are_corrupt(void **state) {
  (void)state;
  char *path = in_dir("short"), buffer[16];
  assert_int_equal(mg_replace_file(path, "0123456789", 10), MG_OK);
  const int fd = open(path, O_RDONLY);
  assert_int_equal(mg_read_at(fd, path, buffer, 10, 0), MG_OK);
  assert_int_equal(mg_read_at(fd, path, buffer, 11, 0), MG_ERR_CORRUPT);
  assert_int_equal(mg_read_streaming(fd, path, buffer, 4, 6, 1 << 20, NULL), MG_OK);
  assert_memory_equal(buffer, "6789", 4);
  assert_int_equal(mg_read_streaming(fd, path, buffer, 5, 6, 1 << 20, NULL), MG_ERR_CORRUPT);
  close(fd);
  free(path);
}

static void directories_are_made(void **state) {
  (void)state;
  char *path = in_dir("x/y/z"), *file = in_dir("file/under");
  assert_int_equal(mg_make_dirs(path), MG_OK);
  assert_true(mg_path_is_dir(path));
  assert_int_equal(mg_make_dirs(path), MG_OK);
  char *plain = in_dir("file");
  assert_int_equal(mg_replace_file(plain, "", 0), MG_OK);
  assert_int_equal(mg_make_dirs(file), MG_ERR_IO);
  free(path), free(file), free(plain);
}

enum { FILES = 12, BOUND = 3 };
static mg_file_cache *cache;

static void *read_all(void *seed) {
  unsigned random = (unsigned)(size_t)seed;
  for (int i = 0; i < 2000; i++) {
    const unsigned k = (unsigned)rand_r(&random) % FILES;
    char name[16], byte;
    snprintf(name, sizeof name, "f%u", k);
    char *path = in_dir(name);
    int fd;
    mg_file_slot *slot;
    if (mg_file_acquire(cache, k, path, &fd, &slot) != MG_OK || pread(fd, &byte, 1, 0) != 1 || byte != (char)('a' + k))
      return (void *)1;
    mg_file_release(cache, slot);
    free(path);
  }
  return NULL;
}

static void cache_bounds_open_files(void **state) {
  (void)state;
  for (int i = 0; i < FILES; i++) {
    char name[16], byte = (char)('a' + i);
    snprintf(name, sizeof name, "f%d", i);
    char *path = in_dir(name);
    assert_int_equal(mg_replace_file(path, &byte, 1), MG_OK);
    free(path);
  }
  assert_int_equal(mg_file_cache_create(BOUND, &cache), MG_OK);
  pthread_t threads[5];
  for (size_t i = 0; i < 5; i++) pthread_create(&threads[i], NULL, read_all, (void *)(i + 1));
  for (size_t i = 0; i < 5; i++) {
    void *failed;
    pthread_join(threads[i], &failed);
    assert_null(failed);
  }
  int fd;
  mg_file_slot *slot;
  assert_int_equal(mg_file_acquire(cache, 99, "/no/such/file", &fd, &slot), MG_ERR_IO);
  assert_non_null(strstr(mg_error_message(), "/no/such/file"));
  mg_file_cache_destroy(&cache);
  assert_null(cache);
  mg_file_cache_destroy(&cache);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(files_are_replaced_whole), cmocka_unit_test(short_reads_are_corrupt),
                                     cmocka_unit_test(directories_are_made), cmocka_unit_test(cache_bounds_open_files)};
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
