/* A directory of a test's own, made before and removed after: setup and teardown of a group of tests. */

#ifndef MERGEGRID_TEST_SCRATCH_H
#define MERGEGRID_TEST_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/io.h"

static char dir[64];

static inline int make_dir(void **state) {
  (void)state;
  strcpy(dir, "/tmp/mergegrid_test_XXXXXX");
  return mkdtemp(dir) == NULL;
}

static inline int remove_dir(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  return system(command);
}

/** dir/name, to be freed. */
static inline char *in_dir(const char *name) { return mg_path_join(dir, name); }

#endif
