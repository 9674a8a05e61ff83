#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "stage_impl.h"

/* A field of /proc/self/status in bytes; 0 if it is not there. */
static uint64_t status_field(const char *name) {
  char line[256];
  uint64_t kibibytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (file == NULL) return 0;
  const size_t length = strlen(name);
  while (fgets(line, sizeof line, file) != NULL)
    if (strncmp(line, name, length) == 0 && line[length] == ':') sscanf(line + length + 1, "%" SCNu64, &kibibytes);
  fclose(file);
  return kibibytes * 1024;
}

uint64_t mg_peak_memory(void) {
  /* The high-water mark counts mapped files as well, which are the libraries: they stay as they are, so they come off. */
  const uint64_t peak = status_field("VmHWM"), files = status_field("RssFile");
  return peak > files ? peak - files : peak;
}

void mg_utc_now(char *buffer) {
  const time_t now = time(NULL);
  struct tm parts;
  gmtime_r(&now, &parts);
  strftime(buffer, 21, "%Y-%m-%dT%H:%M:%SZ", &parts);
}
