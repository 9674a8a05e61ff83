/* The texts of a locale, by partition. */

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "corpus_impl.h"

static const char PLACEHOLDER[] = "{locale}";
static const int64_t LARGEST_FILE = INT64_C(4) << 30;

char *mg_corpus_path(const mg_texts_spec *spec, const char *locale) {
  mg_text path = {0};
  const char *at = spec->files, *found;
  while ((found = strstr(at, PLACEHOLDER)) != NULL) {
    mg_text_append(&path, "%.*s%s", (int)(found - at), at, locale);
    at = found + sizeof PLACEHOLDER - 1;
  }
  mg_text_append(&path, "%s", at);
  if (path.failed) mg_text_free(&path);
  return path.data;
}

typedef struct reading {
  const mg_texts_spec *spec;
  const mg_strings *partitions, *labels;
  size_t limit;
  mg_corpus *corpora;
  size_t *capacity; /* [partitions->count] */
} reading;

const char *mg_partition_name(const char *partition) { return strcmp(partition, "validation") == 0 ? "dev" : partition; }

static mg_status grow(mg_corpus *corpus, size_t *capacity) {
  if (corpus->count < *capacity) return MG_OK;
  const size_t larger = *capacity ? 2 * *capacity : 256;
#define GROW(member)                                                                                                           \
  do {                                                                                                                         \
    void *grown = realloc(corpus->member, larger * sizeof *corpus->member);                                                    \
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory for the texts of %s", corpus->path);                        \
    corpus->member = grown;                                                                                                    \
  } while (0)
  GROW(id);
  GROW(text);
  GROW(size);
  GROW(label);
  GROW(line);
#undef GROW
  *capacity = larger;
  return MG_OK;
}

static mg_status unknown_label(const mg_line *line, const mg_record *record, const mg_strings *labels) {
  int64_t number;
  if (labels->count > 0 && mg_label_is_number(labels->items[0], &number))
    return mg_fail(MG_ERR_INPUT,
                   "%s:%lld: label '%s' is a name, but the models' classes are numbers (%s, …): give texts.labels: FILE with "
                   "the name of each class, one a line",
                   line->path, (long long)line->number, record->label, labels->items[0]);
  const char *nearest = mg_nearest(record->label, (const char *const *)labels->items, labels->count);
  return mg_fail(MG_ERR_INPUT, "%s:%lld: label '%s' is none of the models' %zu classes%s%s%s", line->path,
                 (long long)line->number, record->label, labels->count, nearest != NULL ? "; the nearest is '" : "",
                 nearest != NULL ? nearest : "", nearest != NULL ? "'" : "");
}

static mg_status resolve_label(const reading *r, const mg_line *line, const mg_record *record, int32_t *label) {
  const mg_strings *labels = r->labels;
  int64_t index = record->index;
  *label = -1;
  if (labels == NULL) return MG_OK;
  if (record->label != NULL && record->label[0] != '\0') {
    const ptrdiff_t named = mg_strings_find(labels, record->label);
    if (named >= 0) {
      *label = (int32_t)named;
      return MG_OK;
    }
    if (!record->label_is_index && !mg_label_is_number(record->label, &index)) return unknown_label(line, record, labels);
  } else if (!record->label_is_index) {
    return mg_fail(MG_ERR_INPUT, "%s:%lld: the text has no label: field '%s' was expected (texts.label)", line->path,
                   (long long)line->number, r->spec->label);
  }
  if (index < 0 || index >= (int64_t)labels->count)
    return mg_fail(MG_ERR_INPUT, "%s:%lld: label %lld is out of range: the models have %zu classes", line->path,
                   (long long)line->number, (long long)index, labels->count);
  *label = (int32_t)index;
  return MG_OK;
}

static mg_status keep(reading *r, size_t p, const mg_line *line, const mg_record *record) {
  mg_status status = MG_OK;
  mg_corpus *corpus = &r->corpora[p];
  int32_t label;
  char number[24];
  if (r->limit > 0 && corpus->count >= r->limit) return MG_OK;
  MG_TRY(resolve_label(r, line, record, &label), done);
  MG_TRY(grow(corpus, &r->capacity[p]), done);
  snprintf(number, sizeof number, "%lld", (long long)line->number);
  char *id = mg_strdup(record->id != NULL ? record->id : number);
  char *text = mg_alloc(record->text_size + 1, 1);
  if (id == NULL || text == NULL) {
    free(id), free(text);
    return MG_ERR_NOMEM;
  }
  memcpy(text, record->text, record->text_size);
  text[record->text_size] = '\0';
  const size_t at = corpus->count++;
  corpus->id[at] = id;
  corpus->text[at] = text;
  corpus->size[at] = record->text_size;
  corpus->label[at] = label;
  corpus->line[at] = line->number;
done:
  return status;
}

static mg_status visit(void *context, const mg_line *line, const mg_record *record) {
  reading *r = context;
  mg_status status = MG_OK;
  const char *partition = mg_partition_name(record->partition);
  for (size_t p = 0; p < r->partitions->count; p++)
    if (strcmp(partition, mg_partition_name(r->partitions->items[p])) == 0) MG_TRY(keep(r, p, line, record), done);
done:
  return status;
}

static mg_status open_texts(const char *path, const char *locale, FILE **file) {
  struct stat about;
  *file = fopen(path, "re");
  if (*file == NULL) return mg_fail_errno(MG_ERR_INPUT, "texts of %s: %s", locale, path);
  mg_status status = MG_OK;
  if (fstat(fileno(*file), &about) != 0)
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
  else if (!S_ISREG(about.st_mode))
    status = mg_fail(MG_ERR_INPUT, "texts of %s: %s is no regular file", locale, path);
  else if ((int64_t)about.st_size > LARGEST_FILE)
    status = mg_fail(MG_ERR_INPUT, "texts of %s: %s is larger than 4 GiB", locale, path);
  if (status != MG_OK) {
    fclose(*file);
    *file = NULL;
  }
  return status;
}

mg_status mg_corpus_read(const mg_texts_spec *spec, const char *locale, const mg_strings *partitions, const mg_strings *labels,
                         size_t limit, mg_corpus *corpora) {
  mg_status status = MG_OK;
  FILE *file = NULL;
  size_t *capacity = NULL;
  for (size_t p = 0; p < partitions->count; p++) corpora[p] = (mg_corpus){0};
  if (spec->files == NULL) return mg_fail(MG_ERR_CONFIG, "texts.files is missing: a path with {locale} was expected");
  char *path = mg_corpus_path(spec, locale);
  capacity = mg_alloc_zero(partitions->count + 1, sizeof *capacity);
  if (path == NULL || capacity == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  for (size_t p = 0; p < partitions->count; p++)
    if ((corpora[p].path = mg_strdup(path)) == NULL) {
      status = MG_ERR_NOMEM;
      goto cleanup;
    }
  reading r = {
      .spec = spec, .partitions = partitions, .labels = labels, .limit = limit, .corpora = corpora, .capacity = capacity};
  MG_TRY(open_texts(path, locale, &file), cleanup);
  const size_t length = strlen(path);
  const bool tsv = length > 4 && strcmp(path + length - 4, ".tsv") == 0;
  status = (tsv ? mg_corpus_scan_tsv : mg_corpus_scan_jsonl)(file, path, spec, visit, &r);
cleanup:
  if (file != NULL) fclose(file);
  if (status != MG_OK)
    for (size_t p = 0; p < partitions->count; p++) mg_corpus_free(&corpora[p]);
  free(capacity);
  free(path);
  return status;
}

void mg_corpus_free(mg_corpus *corpus) {
  for (size_t k = 0; k < corpus->count; k++) free(corpus->id[k]), free(corpus->text[k]);
  free(corpus->path), free(corpus->id), free(corpus->text), free(corpus->size), free(corpus->label), free(corpus->line);
  *corpus = (mg_corpus){0};
}
