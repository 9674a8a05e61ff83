#ifndef MERGEGRID_FUZZ_SCRATCH_FILE_H
#define MERGEGRID_FUZZ_SCRATCH_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/** Writes the input as file `name` of a directory of this process; returns the directory, path gets the file's. */
static inline const char *scratch_file(const char *name, const uint8_t *data, size_t size, char path[256]) {
  static char dir[128];
  snprintf(dir, sizeof dir, "%s/mg-fuzz-%d", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", (int)getpid());
  mkdir(dir, 0700);
  snprintf(path, 256, "%s/%s", dir, name);
  FILE *file = fopen(path, "w");
  if (file == NULL || fwrite(data, 1, size, file) != size) abort();
  fclose(file);
  return dir;
}

static inline void scratch_remove(const char *dir, const char *path) {
  unlink(path);
  rmdir(dir);
}

#endif
