/* Feeds every file of a directory to a fuzz target: the corpus as a regression test, without a fuzzing engine. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
    perror(path);
    return 1;
  }
  const long size = ftell(file);
  rewind(file);
  uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
  const int failed = data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size;
  fclose(file);
  if (!failed) LLVMFuzzerTestOneInput(data, (size_t)size);
  free(data);
  return failed;
}

int main(int argc, char **argv) {
  int seen = 0;
  DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
  if (dir == NULL) {
    fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
    return 2;
  }
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    char path[4096];
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
    if (replay(path) != 0) return 1;
    seen++;
  }
  closedir(dir);
  printf("%d inputs\n", seen);
  return seen == 0; /* an empty corpus tests nothing */
}
