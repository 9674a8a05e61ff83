/* What a rank finds wrong is said at once, and counted. */

#ifndef MERGEGRID_TEST_CHECK_H
#define MERGEGRID_TEST_CHECK_H

#include <stdio.h>

static int rank, ranks, failures;

#define CHECK(condition)                                                                                                       \
  do {                                                                                                                         \
    if (!(condition)) {                                                                                                        \
      fprintf(stderr, "rank %d: %s:%d: %s does not hold\n", rank, __FILE__, __LINE__, #condition);                             \
      failures++;                                                                                                              \
    }                                                                                                                          \
  } while (0)

#endif
