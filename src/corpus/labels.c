/* Names of classes: the model's, or a file's where the model has only numbers. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "corpus_impl.h"

bool mg_label_is_number(const char *name, int64_t *number) {
  static const char prefix[] = "LABEL_";
  if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
  const char *digits = name + sizeof prefix - 1;
  if (digits[0] == '\0' || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 9) return false;
  *number = strtoll(digits, NULL, 10);
  return true;
}

static bool all_numbers(const mg_strings *labels) {
  int64_t number;
  for (size_t k = 0; k < labels->count; k++)
    if (!mg_label_is_number(labels->items[k], &number)) return false;
  return true;
}

static mg_status read_names(const char *path, mg_strings *names) {
  mg_status status = MG_OK;
  mg_line line = {.path = path};
  char *buffer = NULL;
  size_t capacity = 0;
  bool end = false;
  FILE *file = fopen(path, "re");
  if (file == NULL) return mg_fail_errno(MG_ERR_INPUT, "texts.labels: %s", path);
  for (;;) {
    MG_TRY(mg_corpus_next_line(file, &line, &buffer, &capacity, &end), cleanup);
    if (end) break;
    if (line.size == 0) {
      status =
          mg_fail(MG_ERR_INPUT, "%s:%lld: an empty line; one label name a line was expected", path, (long long)line.number);
      goto cleanup;
    }
    if (mg_strings_find(names, line.data) >= 0) {
      status = mg_fail(MG_ERR_INPUT, "%s:%lld: label '%s' is there twice", path, (long long)line.number, line.data);
      goto cleanup;
    }
    MG_TRY(mg_strings_add(names, line.data), cleanup);
  }
cleanup:
  free(buffer);
  fclose(file);
  return status;
}

mg_status mg_corpus_labels(const mg_texts_spec *spec, const mg_strings *model, mg_strings *labels) {
  mg_status status = MG_OK;
  *labels = (mg_strings){0};
  if (spec->labels == NULL) {
    for (size_t k = 0; k < model->count; k++) MG_TRY(mg_strings_add(labels, model->items[k]), failed);
    return MG_OK;
  }
  MG_TRY(read_names(spec->labels, labels), failed);
  if (model->count > 0 && labels->count != model->count) {
    status = mg_fail(MG_ERR_INPUT, "%s: %zu label names, where the models have %zu classes", spec->labels, labels->count,
                     model->count);
    goto failed;
  }
  for (size_t k = 0; k < model->count && !all_numbers(model); k++) {
    if (strcmp(labels->items[k], model->items[k]) == 0) continue;
    status = mg_fail(MG_ERR_INPUT, "%s:%zu: label '%s', where the models' class %zu is '%s'", spec->labels, k + 1,
                     labels->items[k], k, model->items[k]);
    goto failed;
  }
  return MG_OK;
failed:
  mg_strings_free(labels);
  return status;
}
