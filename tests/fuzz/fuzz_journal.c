/* Replays a journal of arbitrary bytes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "mergegrid/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mg_status visit(void *context, const mg_record *record) {
  uint64_t *sum = context;
  *sum += record->kind;
  for (size_t k = 0; k < record->size; k++) *sum += ((const uint8_t *)record->payload)[k];
  return MG_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char result[64], journal[128];
  uint64_t sum = 0;
  if (result[0] == '\0') { /* one directory a process */
    char attempt[96];
    snprintf(result, sizeof result, "/tmp/fuzz_journal.%ld", (long)getpid());
    snprintf(attempt, sizeof attempt, "%s.journal", result);
    mkdir(attempt, 0700);
    snprintf(attempt, sizeof attempt, "%s.journal/0001", result);
    mkdir(attempt, 0700);
    snprintf(journal, sizeof journal, "%s/journal", attempt);
    if (freopen("/dev/null", "w", stderr) == NULL) abort(); /* every input warns of damage */
  }
  FILE *file = fopen(journal, "wb");
  if (file == NULL || fwrite(data, 1, size, file) != size) abort();
  fclose(file);
  (void)mg_journal_replay(result, visit, &sum);
  unlink(journal);
  return 0;
}
