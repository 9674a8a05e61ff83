/* Lines of untrusted text files. */

#include <stdlib.h>
#include <string.h>

#include "corpus_impl.h"

static const size_t LONGEST_LINE = (size_t)16 << 20;

static size_t valid_prefix(const char *data, size_t size) {
  size_t good = 0;
  while (good < size) {
    size_t length = 1;
    while (good + length < size && ((unsigned char)data[good + length] & 0xC0) == 0x80) length++;
    if (!mg_valid_utf8(data + good, length)) break;
    good += length;
  }
  return good;
}

/* Like getline, but a line that never ends is refused before it fills the memory. */
static mg_status read_line(FILE *file, mg_line *line, char **buffer, size_t *capacity, bool *end) {
  size_t size = 0;
  int byte;
  flockfile(file);
  while ((byte = getc_unlocked(file)) != EOF && byte != '\n' && size < LONGEST_LINE) {
    if (size + 2 > *capacity) {
      const size_t larger = *capacity ? *capacity * 2 : 4096;
      char *grown = realloc(*buffer, larger);
      if (grown == NULL) {
        funlockfile(file);
        return mg_fail(MG_ERR_NOMEM, "out of memory");
      }
      *buffer = grown;
      *capacity = larger;
    }
    (*buffer)[size++] = (char)byte;
  }
  funlockfile(file);
  if (ferror(file)) return mg_fail_errno(MG_ERR_IO, "%s:%lld", line->path, (long long)line->number);
  if (size >= LONGEST_LINE)
    return mg_fail(MG_ERR_INPUT, "%s:%lld: the line is longer than 16 MiB", line->path, (long long)line->number);
  *end = byte == EOF && size == 0;
  if (*buffer == NULL && (*buffer = calloc(1, *capacity = 64)) == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (size > 0 && (*buffer)[size - 1] == '\r') size--;
  (*buffer)[size] = '\0';
  line->data = *buffer;
  line->size = size;
  return MG_OK;
}

mg_status mg_corpus_next_line(FILE *file, mg_line *line, char **buffer, size_t *capacity, bool *end) {
  line->number++;
  const mg_status status = read_line(file, line, buffer, capacity, end);
  if (status != MG_OK || *end) return status;
  if (line->number == 1 && line->size >= 3 && memcmp(line->data, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark */
    line->data += 3;
    line->size -= 3;
  }
  if (!mg_valid_utf8(line->data, line->size))
    return mg_fail(MG_ERR_INPUT, "%s:%lld: no valid UTF-8 at byte %zu of the line", line->path, (long long)line->number,
                   valid_prefix(line->data, line->size) + 1);
  return MG_OK;
}
