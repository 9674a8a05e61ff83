/* JSON lines: one object a line, as MASSIVE is published. */

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "corpus_impl.h"

static mg_status bad_field(const mg_line *line, const char *field, const char *expected, const json_t *found) {
  static const char *const kinds[] = {
      [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list", [JSON_STRING] = "a string", [JSON_INTEGER] = "an integer",
      [JSON_REAL] = "a fraction",  [JSON_TRUE] = "true",    [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
  return mg_fail(MG_ERR_INPUT, "%s:%lld: field '%s': %s was expected, found %s", line->path, (long long)line->number, field,
                 expected, found != NULL ? kinds[json_typeof(found)] : "none");
}

static mg_status take_fields(const mg_line *line, const mg_texts_spec *spec, const json_t *object, char *id_digits,
                             mg_record *record) {
  const json_t *text = json_object_get(object, spec->text), *id = json_object_get(object, spec->id);
  const json_t *label = json_object_get(object, spec->label), *partition = json_object_get(object, spec->partition);
  if (!json_is_string(text)) return bad_field(line, spec->text, "a string", text);
  record->text = json_string_value(text);
  record->text_size = json_string_length(text);
  if (json_is_integer(id)) {
    snprintf(id_digits, 32, "%lld", (long long)json_integer_value(id));
    record->id = id_digits;
  } else if (json_is_string(id)) {
    record->id = json_string_value(id);
  } else if (id != NULL && !json_is_null(id)) {
    return bad_field(line, spec->id, "a string or an integer", id);
  }
  if (json_is_integer(label)) {
    record->label_is_index = true;
    record->index = json_integer_value(label);
  } else if (json_is_string(label)) {
    record->label = json_string_value(label);
  } else if (label != NULL) {
    return bad_field(line, spec->label, "a string or an integer", label);
  }
  if (!json_is_string(partition)) return bad_field(line, spec->partition, "a string", partition);
  record->partition = json_string_value(partition);
  return MG_OK;
}

static mg_status scan_line(const mg_line *line, const mg_texts_spec *spec, mg_record_visit visit, void *context) {
  json_error_t error;
  char id_digits[32];
  mg_record record = {0};
  json_t *object = json_loadb(line->data, line->size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
  mg_status status = MG_OK;
  if (object == NULL)
    return mg_fail(MG_ERR_INPUT, "%s:%lld: no JSON (column %d: %s); an object a line was expected", line->path,
                   (long long)line->number, error.column, error.text);
  if (json_is_object(object))
    status = take_fields(line, spec, object, id_digits, &record);
  else
    status = mg_fail(MG_ERR_INPUT, "%s:%lld: a JSON object was expected", line->path, (long long)line->number);
  if (status == MG_OK) status = visit(context, line, &record);
  json_decref(object);
  return status;
}

mg_status mg_corpus_scan_jsonl(FILE *file, const char *path, const mg_texts_spec *spec, mg_record_visit visit, void *context) {
  mg_status status = MG_OK;
  mg_line line = {.path = path};
  char *buffer = NULL;
  size_t capacity = 0;
  bool end = false;
  for (;;) {
    MG_TRY(mg_corpus_next_line(file, &line, &buffer, &capacity, &end), cleanup);
    if (end) break;
    if (strspn(line.data, " \t") == line.size) continue;
    MG_TRY(scan_line(&line, spec, visit, context), cleanup);
  }
cleanup:
  free(buffer);
  return status;
}
