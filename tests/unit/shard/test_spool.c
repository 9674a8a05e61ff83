/* Values spooled to a file arrive as they were given, wherever pieces of the file begin; what can't be written is said. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/tiling.h"
#include "shard/shard_impl.h"

enum { LEAF = MG_LEAF * sizeof(float), MOST = 5 << 20, ALL = 40 << 20 };

static char byte_at(size_t k) { return (char)(k * 2654435761u >> 13); }

static int open_scratch(void) {
  char path[] = "spool-test-XXXXXX";
  const int fd = mkstemp(path);
  assert_true(fd >= 0);
  unlink(path);
  return fd;
}

/* Sizes from one value to several pieces, so that pieces end within them, between them, and at once. */
static size_t next_size(size_t k) {
  const size_t sizes[] = {4, LEAF, LEAF - 4, 4 * (k % 251 + 1), MOST - 4 * k, 1 << 20};
  return sizes[k % (sizeof sizes / sizeof *sizes)];
}

static void check(uint64_t offset) {
  mg_spool spool;
  size_t put = 0;
  const int fd = open_scratch();
  assert_int_equal(mg_spool_open(&spool, fd, "scratch", offset, MOST), MG_OK);
  for (size_t k = 0; put < ALL; k++) {
    const size_t size = next_size(k);
    char *room = mg_spool_room(&spool);
    for (size_t i = 0; i < size; i++) room[i] = byte_at(put + i);
    assert_int_equal(mg_spool_take(&spool, size), MG_OK);
    put += size;
  }
  assert_int_equal(mg_spool_flush(&spool), MG_OK);
  assert_int_equal(mg_spool_flush(&spool), MG_OK); /* nothing is left */
  mg_spool_close(&spool);

  struct stat info;
  assert_int_equal(fstat(fd, &info), 0);
  assert_int_equal(info.st_size, offset + put);
  char *back = malloc(put);
  assert_int_equal(pread(fd, back, put, (off_t)offset), put);
  for (size_t k = 0; k < put; k++)
    if (back[k] != byte_at(k)) fail_msg("offset %llu: byte %zu is not what was put there", (unsigned long long)offset, k);
  free(back);
  close(fd);
}

static void values_arrive_as_they_were_given(void **state) {
  (void)state;
  check(0);
  check(45056);
  check((2 << 20) - 4);
  check(2 << 20);
}

static void a_failed_write_names_the_file(void **state) {
  (void)state;
  mg_spool spool;
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  assert_int_equal(mg_spool_open(&spool, fd, "the file's name", 0, LEAF), MG_OK);
  memset(mg_spool_room(&spool), 1, LEAF);
  assert_int_equal(mg_spool_take(&spool, LEAF), MG_OK); /* kept until a piece is full */
  assert_int_equal(mg_spool_flush(&spool), MG_ERR_IO);
  assert_non_null(strstr(mg_error_message(), "the file's name"));
  mg_spool_close(&spool);
  close(fd);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(values_arrive_as_they_were_given),
                                     cmocka_unit_test(a_failed_write_names_the_file)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
