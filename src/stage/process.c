#include <stdio.h>
#include <time.h>

#include "mergegrid/io.h"
#include "stage_impl.h"

/*
 * While files are looked at in the page cache, the process's high-water mark counts pages that are the kernel's: more of them
 * than are shown, since it maps what it has in one piece. What is ours is sampled then, and the mark set back at the end.
 */
static struct { uint64_t before, sampled; } peak;

static uint64_t peak_of_mark(void) {
  /* The mark counts mapped files as well, which are the libraries otherwise: they stay as they are, so they come off. */
  const uint64_t mark = mg_process_memory("VmHWM"), files = mg_process_memory("RssFile");
  return mark > files ? mark - files : mark;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

void mg_peak_begin_seeing(void) { peak.before = mg_peak_memory(); }

void mg_peak_sample(void) { peak.sampled = larger(peak.sampled, mg_process_memory("RssAnon") + mg_process_memory("RssShmem")); }

void mg_peak_end_seeing(void) {
  mg_peak_sample();
  FILE *file = fopen("/proc/self/clear_refs", "w");
  /* Where it can't be set back, the peak is said to be higher than it was. */
  if (file == NULL) return;
  fputs("5", file);
  fclose(file);
}

uint64_t mg_peak_memory(void) { return larger(peak_of_mark(), larger(peak.before, peak.sampled)); }

void mg_utc_now(char *buffer) {
  const time_t now = time(NULL);
  struct tm parts;
  gmtime_r(&now, &parts);
  strftime(buffer, 21, "%Y-%m-%dT%H:%M:%SZ", &parts);
}
