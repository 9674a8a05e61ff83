/* Texts without labels, one a line. */

#include <stdlib.h>
#include <string.h>

#include "corpus_impl.h"

static const char BLANK[] = " \t\r\v\f";

static mg_status add_text(mg_corpus *corpus, size_t *room, const mg_line *line, const char *text, size_t size) {
  char number[24];
  if (corpus->count == *room) {
    *room = *room > 0 ? 2 * *room : 16;
    char **ids = reallocarray(corpus->id, *room, sizeof *ids);
    if (ids != NULL) corpus->id = ids;
    char **texts = reallocarray(corpus->text, *room, sizeof *texts);
    if (texts != NULL) corpus->text = texts;
    size_t *sizes = reallocarray(corpus->size, *room, sizeof *sizes);
    if (sizes != NULL) corpus->size = sizes;
    int32_t *labels = reallocarray(corpus->label, *room, sizeof *labels);
    if (labels != NULL) corpus->label = labels;
    int64_t *lines = reallocarray(corpus->line, *room, sizeof *lines);
    if (lines != NULL) corpus->line = lines;
    if (!ids || !texts || !sizes || !labels || !lines) return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  const size_t k = corpus->count++;
  snprintf(number, sizeof number, "%lld", (long long)line->number);
  corpus->id[k] = mg_strdup(number);
  corpus->text[k] = strndup(text, size);
  corpus->size[k] = size;
  corpus->label[k] = -1;
  corpus->line[k] = line->number;
  return corpus->id[k] != NULL && corpus->text[k] != NULL ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
}

mg_status mg_corpus_read_lines(const char *path, mg_corpus *corpus) {
  mg_status status = MG_OK;
  char *buffer = NULL;
  size_t capacity = 0, room = 0;
  bool end = false;
  mg_line line = {.path = path};
  *corpus = (mg_corpus){.path = mg_strdup(path)};
  FILE *file = fopen(path, "re");
  if (corpus->path == NULL) status = MG_ERR_NOMEM;
  if (status == MG_OK && file == NULL) status = mg_fail_errno(MG_ERR_INPUT, "%s", path);
  if (status != MG_OK) goto cleanup;
  for (;;) {
    MG_TRY(mg_corpus_next_line(file, &line, &buffer, &capacity, &end), cleanup);
    if (end) break;
    const char *text = line.data + strspn(line.data, BLANK);
    size_t size = strlen(text);
    while (size > 0 && strchr(BLANK, text[size - 1]) != NULL) size--;
    if (size > 0) MG_TRY(add_text(corpus, &room, &line, text, size), cleanup);
  }
  if (corpus->count == 0) status = mg_fail(MG_ERR_INPUT, "%s: no text in it; one a line was expected", path);
cleanup:
  if (file != NULL) fclose(file);
  free(buffer);
  if (status != MG_OK) mg_corpus_free(corpus);
  return status;
}
