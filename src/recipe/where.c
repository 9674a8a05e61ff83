/* --where: conditions on a cell's coordinates. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipe_impl.h"

static const char *const NAMES[] = {
    "locale", "method", "similarity_type", "num_languages", "include_target", "preset", "seed", "head", "phase", "key"};
enum { NAME_COUNT = sizeof NAMES / sizeof *NAMES };

static mg_status check_name(const char *condition, const char *name) {
  mg_text all = {0};
  mg_status status = MG_OK;
  for (size_t k = 0; k < NAME_COUNT; k++) {
    if (strcmp(name, NAMES[k]) == 0) goto cleanup;
    mg_text_append(&all, "%s%s", k ? ", " : "", NAMES[k]);
  }
  const char *nearest = mg_nearest(name, NAMES, NAME_COUNT);
  status = mg_fail(MG_ERR_USAGE, "--where %s: '%s' is no coordinate of a cell%s%s%s; there are %s", condition, name,
                   nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "", all.data ? all.data : "");
cleanup:
  mg_text_free(&all);
  return status;
}

/* "method=ties|dare_ties"; condition is cut into pieces. */
static mg_status add_condition(const char *text, char *condition, mg_where *where) {
  mg_status status = MG_OK;
  char *equals = strchr(condition, '='), *rest = NULL;
  if (equals == NULL || equals == condition || equals[1] == '\0')
    return mg_fail(MG_ERR_USAGE, "--where %s: '%s' is no condition; NAME=VALUE or NAME=VALUE|VALUE was expected", text,
                   condition);
  *equals = '\0';
  MG_TRY(check_name(text, condition), done);
  if (mg_strings_find(&where->names, condition) >= 0)
    return mg_fail(MG_ERR_USAGE, "--where %s: two conditions on %s; %s=VALUE|VALUE means either", text, condition, condition);
  mg_strings *grown = reallocarray(where->values, where->count + 1, sizeof *grown);
  if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  where->values = grown;
  where->values[where->count++] = (mg_strings){0};
  MG_TRY(mg_strings_add(&where->names, condition), done);
  for (char *value = strtok_r(equals + 1, "|", &rest); value != NULL; value = strtok_r(NULL, "|", &rest))
    MG_TRY(mg_strings_add(&where->values[where->count - 1], value), done);
done:
  return status;
}

mg_status mg_where_parse(const char *text, mg_where *where) {
  mg_status status = MG_OK;
  char *copy = NULL, *rest = NULL;
  *where = (mg_where){0};
  if (text == NULL) return MG_OK;
  copy = mg_strdup(text);
  if (copy == NULL) return MG_ERR_NOMEM;
  for (char *condition = strtok_r(copy, ",", &rest); condition != NULL; condition = strtok_r(NULL, ",", &rest))
    MG_TRY(add_condition(text, condition, where), cleanup);
  if (where->count == 0) status = mg_fail(MG_ERR_USAGE, "--where '%s': no condition; NAME=VALUE was expected", text);
cleanup:
  free(copy);
  if (status != MG_OK) mg_where_free(where);
  return status;
}

void mg_where_free(mg_where *where) {
  for (size_t k = 0; k < where->count; k++) mg_strings_free(&where->values[k]);
  free(where->values);
  mg_strings_free(&where->names);
  *where = (mg_where){0};
}

/* The text of a coordinate; numbers go into buffer. */
static const char *text_of(const mg_cell *cell, const char *name, char buffer[24]) {
  const mg_terms *t = &cell->terms;
  const char *const texts[NAME_COUNT] = {
      t->locale, t->method->name, t->similarity_type, NULL,     t->include_target ? "true" : "false", t->preset,
      NULL,      t->head,         cell->phase,        cell->key};
  size_t k = 0;
  while (strcmp(name, NAMES[k]) != 0) k++;
  if (strcmp(name, "num_languages") == 0)
    snprintf(buffer, 24, "%d", t->num_languages);
  else if (strcmp(name, "seed") == 0)
    snprintf(buffer, 24, "%llu", (unsigned long long)t->seed);
  else
    return texts[k] != NULL ? texts[k] : "";
  return buffer;
}

/* Keys may be cut, and booleans be written as Python does. */
static bool is_value(const char *name, const char *text, const char *value) {
  if (strcmp(name, "key") == 0) return strncmp(text, value, strlen(value)) == 0;
  if (strcmp(name, "include_target") == 0 && (strcmp(value, "True") == 0 || strcmp(value, "False") == 0))
    return strcmp(text + 1, value + 1) == 0;
  return strcmp(text, value) == 0;
}

bool mg_where_matches(const mg_where *where, const mg_cell *cell) {
  for (size_t k = 0; k < where->count; k++) {
    char buffer[24];
    const char *name = where->names.items[k], *text = text_of(cell, name, buffer);
    bool any = false;
    for (size_t v = 0; v < where->values[k].count && !any; v++) any = is_value(name, text, where->values[k].items[v]);
    if (!any) return false;
  }
  return true;
}

/* "af-ZA, sw-KE": what cells have, each once. */
static mg_status list_values(const char *name, const mg_cell *cells, size_t count, mg_text *text) {
  enum { MOST = 30 };
  mg_status status = MG_OK;
  mg_strings seen = {0};
  for (size_t k = 0; k < count && seen.count <= MOST; k++) {
    char buffer[24];
    const char *value = text_of(&cells[k], name, buffer);
    if (mg_strings_find(&seen, value) < 0) MG_TRY(mg_strings_add(&seen, value), cleanup);
  }
  for (size_t k = 0; k < seen.count && k < MOST; k++) mg_text_append(text, "%s%s", k > 0 ? ", " : "", seen.items[k]);
  if (seen.count > MOST) mg_text_append(text, ", …");
cleanup:
  mg_strings_free(&seen);
  return status;
}

static bool any_has(const char *name, const char *value, const mg_cell *cells, size_t count) {
  char buffer[24];
  for (size_t k = 0; k < count; k++)
    if (is_value(name, text_of(&cells[k], name, buffer), value)) return true;
  return false;
}

mg_status mg_where_check(const mg_where *where, const mg_cell *cells, size_t count) {
  for (size_t k = 0; k < where->count; k++) {
    const char *name = where->names.items[k];
    for (size_t v = 0; v < where->values[k].count; v++) {
      const char *value = where->values[k].items[v];
      mg_text all = {0};
      if (any_has(name, value, cells, count)) continue;
      mg_status status = list_values(name, cells, count, &all);
      if (status == MG_OK)
        status = mg_fail(MG_ERR_USAGE, "--where: no cell of the grid has %s=%s; there are %s", name, value,
                         all.data != NULL ? all.data : "none");
      mg_text_free(&all);
      return status;
    }
  }
  return MG_OK;
}
