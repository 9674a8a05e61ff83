/* What is said of the ranks of a node, and where threads would share a processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/places.h"

/* Processors first … last, and first + apart … if apart. */
static mg_place place(int rank, int threads, int online, int first, int last, int apart) {
  mg_place p = {.rank = rank, .threads = threads, .online = online, .host = "n01"};
  CPU_ZERO(&p.processors);
  for (int k = first; k <= last; k++) {
    CPU_SET((size_t)k, &p.processors);
    if (apart > 0) CPU_SET((size_t)(k + apart), &p.processors);
  }
  return p;
}

static void assert_line(const mg_place *places, size_t count, const char *expected) {
  mg_text text = {0};
  mg_places_line(places, count, &text);
  assert_string_equal(text.data, expected);
  mg_text_free(&text);
}

static void assert_crowded(const mg_place *places, size_t count, const char *expected) {
  mg_text text = {0};
  assert_int_equal(mg_places_crowded(places, count, &text), expected != NULL);
  if (expected != NULL) assert_string_equal(text.data, expected);
  mg_text_free(&text);
}

static void lines(void **state) {
  (void)state;
  mg_place four[4];
  for (int k = 0; k < 4; k++) four[k] = place(k, 4, 32, 4 * k, 4 * k + 3, 16);
  assert_line(four, 4, "node n01: ranks 0-3, 4 threads each on processors 0-3,16-19; 4-7,20-23; 8-11,24-27; 12-15,28-31");
  assert_line(four, 1, "node n01: rank 0, 4 threads on processors 0-3,16-19");
  four[1].rank = 5, four[2].rank = 6, four[3].rank = 9;
  for (int k = 0; k < 4; k++) four[k].processors = place(0, 1, 2, 0, 1, 0).processors;
  assert_line(four, 4, "node n01: ranks 0,5-6,9, 4 threads each, all on processors 0-1");
  four[3].threads = 1;
  assert_line(four, 4, "node n01: ranks 0,5-6,9, 4, 4, 4, 1 threads, all on processors 0-1");
  four[0] = place(7, 1, 8, 3, 3, 0);
  assert_line(four, 1, "node n01: rank 7, 1 thread on processor 3");
  snprintf(four[0].device, sizeof four[0].device, "a device");
  assert_line(four, 1, "node n01: rank 7, 1 thread on processor 3, with a device");
  four[1] = four[0];
  four[1].rank = 8;
  assert_line(four, 2, "node n01: ranks 7-8, 1 thread each, all on processors 3, each with a device");
  four[1].device[0] = '\0';
  assert_line(four, 2, "node n01: ranks 7-8, 1 thread each, all on processors 3, with a device; no device");
}

static void threads_that_share(void **state) {
  (void)state;
  mg_place two[2] = {place(0, 1, 8, 0, 0, 0), place(1, 1, 8, 1, 1, 0)};
  assert_crowded(two, 2, NULL);
  two[1].threads = 2;
  assert_crowded(two, 2, "node n01: rank 1 has 2 threads on processor 1");
  two[0] = place(0, 2, 8, 0, 2, 0), two[1] = place(1, 2, 8, 0, 2, 0); /* each has enough, together they have not */
  assert_crowded(two, 2, "node n01: ranks 0-1 have 4 threads on processors 0-2");
  two[1] = place(1, 2, 8, 1, 2, 0); /* within the other's */
  assert_crowded(two, 2, "node n01: ranks 0-1 have 4 threads on processors 0-2");
  two[0] = place(0, 2, 8, 0, 3, 0);
  assert_crowded(two, 2, NULL);
  two[0] = place(0, 9, 8, 0, 7, 0); /* not bound: more threads than processors were asked for */
  assert_crowded(two, 1, NULL);
}

static void here(void **state) {
  (void)state;
  mg_place p = {0};
  mg_place_here(&p);
  assert_true(p.host[0] != '\0' && p.online > 0 && CPU_COUNT(&p.processors) > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(lines), cmocka_unit_test(threads_that_share), cmocka_unit_test(here)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
