/* What killed writers left in a directory of shards. */

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shard_impl.h"

/* A process that is gone, or killed and only waiting for its parent to notice. */
static bool is_dead(long pid) {
  char path[64], line[512], state = 'Z';
  if (kill((pid_t)pid, 0) != 0) return errno == ESRCH;
  snprintf(path, sizeof path, "/proc/%ld/stat", pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  const char *name_end = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
  fclose(file);
  if (name_end != NULL && sscanf(name_end + 1, " %c", &state) == 1) return state == 'Z';
  return false;
}

static bool writer_is_dead(const char *suffix, const char *host) {
  const size_t length = strlen(host);
  if (strncmp(suffix, host, length) != 0 || suffix[length] != '.') return false;
  const long pid = strtol(suffix + length + 1, NULL, 10);
  return pid > 0 && is_dead(pid);
}

void mg_shard_clean(const char *dir) {
  mg_seen here = {0};
  mg_seen_here(&here);
  DIR *list = opendir(dir);
  for (const struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
    const char *suffix = strstr(entry->d_name, ".h5.tmp.");
    if (suffix != NULL && writer_is_dead(suffix + 8, here.host)) unlinkat(dirfd(list), entry->d_name, 0);
  }
  if (list != NULL) closedir(list);
}
