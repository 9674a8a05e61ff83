/*
 * What cells are called in the Python tools: a variant tells cells of a locale apart and is the same over locales, so that it
 * can be a column. Theirs have method, matrix, family, number of languages and inclusion; ours add whatever else differs
 * between cells.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_grid_impl.h"

static const char *type_of(const char *method) {
  static const char *const types[] = {
      [MG_METHOD_MERGE] = "merging", [MG_METHOD_MODEL] = "baseline", [MG_METHOD_VOTE] = "ensemble"};
  return types[mg_kind_of(method)];
}

/* ---- what differs ---- */

/* Said otherwise in the name, or too long for it. */
static bool is_named(const char *term) {
  char *names[] = {"locale", "method", "parameters", "sources", "similarity_type", "num_languages", "include_target"};
  const mg_strings list = {sizeof names / sizeof *names, names};
  return mg_strings_find(&list, term) >= 0;
}

/* Other terms that are not the same for all cells; a preset stands for the flags that it bundles. */
static mg_status find_varying(const mg_grid_table *t, mg_strings *varying) {
  mg_status status = MG_OK;
  json_t *first = t->cell_count > 0 ? json_loads(t->cells[0].terms, 0, NULL) : NULL;
  for (size_t k = 1; k < t->cell_count && status == MG_OK; k++) {
    json_t *terms = json_loads(t->cells[k].terms, 0, NULL), *value;
    const char *name;
    json_object_foreach(first, name, value) {
      if (is_named(name) || mg_strings_find(varying, name) >= 0 || json_equal(value, json_object_get(terms, name))) continue;
      status = mg_strings_add(varying, name);
    }
    json_decref(terms);
  }
  json_decref(first);
  if (status == MG_OK && mg_strings_find(varying, "preset") >= 0) {
    mg_strings_free(varying);
    status = mg_strings_add(varying, "preset");
  }
  return status;
}

static void append_value(mg_text *text, const char *name, const json_t *value) {
  if (json_is_string(value)) mg_text_append(text, "_%s%s", name, json_string_value(value));
  if (json_is_integer(value)) mg_text_append(text, "_%s%lld", name, json_integer_value(value));
  if (json_is_real(value)) mg_text_append(text, "_%s%.10g", name, json_real_value(value));
  if (json_is_boolean(value)) mg_text_append(text, "_%s%s", name, json_is_true(value) ? "True" : "False");
}

/* "ties_density0.2": the method with those of its parameters that differ. */
static void append_method(const mg_grid_table *t, size_t cell, mg_text *text) {
  const char *method = t->cells[cell].method;
  const size_t length = strlen(method);
  mg_text_append(text, "%s", method);
  for (size_t s = 0; s < t->swept.count; s++) {
    const char *name = t->swept.items[s], *value = t->swept_values[s * t->cell_count + cell];
    if (strncmp(name, method, length) == 0 && name[length] == '.' && value[0] != '\0')
      mg_text_append(text, "_%s%s", name + length + 1, value);
  }
}

/* ---- names ---- */

static void append_matrix(mg_text *text, const mg_result_cell *c) {
  if (c->similarity_type[0] != '\0') mg_text_append(text, "_%s", c->similarity_type);
}

static mg_status name_cell(mg_export_result *r, size_t cell, const mg_strings *varying) {
  mg_status status = MG_OK;
  const mg_grid_table *t = &r->view.table;
  const mg_result_cell *c = &t->cells[cell];
  const char *type = type_of(c->method), *family = mg_export_family(r), *inc = c->include_target ? "IncTar" : "ExcTar";
  mg_text variant = {0}, folder = {0};
  if (strcmp(c->method, "own") == 0) {
    mg_text_append(&variant, "baseline_%s", family);
    mg_text_append(&folder, "baseline_%s_%s", c->locale, family);
  } else {
    json_t *terms = json_loads(c->terms, 0, NULL);
    append_method(t, cell, &variant);
    append_matrix(&variant, c);
    mg_text_append(&variant, "_%s_%dlang_%s", family, c->num_languages, inc);
    mg_text_append(&folder, "%s_", type);
    append_method(t, cell, &folder);
    append_matrix(&folder, c);
    mg_text_append(&folder, "_%s_%s_%dlang_%s", c->locale, family, c->num_languages, inc);
    for (size_t k = 0; k < varying->count; k++) {
      append_value(&variant, varying->items[k], json_object_get(terms, varying->items[k]));
      append_value(&folder, varying->items[k], json_object_get(terms, varying->items[k]));
    }
    json_decref(terms);
  }
  if (variant.failed || folder.failed) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  MG_TRY(mg_strings_add(&r->types, type), cleanup);
  MG_TRY(mg_strings_add(&r->variants, variant.data), cleanup);
  MG_TRY(mg_strings_add(&r->folders, folder.data), cleanup);
cleanup:
  mg_text_free(&variant), mg_text_free(&folder);
  return status;
}

/* ---- cells that are still alike ---- */

typedef struct named {
  const char *folder;
  size_t cell;
} named;

static int by_folder(const void *a, const void *b) {
  const named *x = a, *y = b;
  const int order = strcmp(x->folder, y->folder);
  return order != 0 ? order : (x->cell > y->cell) - (x->cell < y->cell);
}

static mg_status append_key(char **name, const char *key) {
  char *longer = NULL;
  if (asprintf(&longer, "%s_%.8s", *name, key) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  free(*name);
  *name = longer;
  return MG_OK;
}

/* A folder names locale and variant: cells of one folder get their keys, but for the target's own source, which is the same in
 * all. */
static mg_status tell_apart(mg_export_result *r) {
  mg_status status = MG_OK;
  const mg_grid_table *t = &r->view.table;
  bool *alike = mg_alloc_zero(t->cell_count, sizeof *alike);
  named *names = mg_alloc(t->cell_count, sizeof *names);
  if (alike == NULL || names == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < t->cell_count; k++) names[k] = (named){r->folders.items[k], k};
  if (t->cell_count > 1) qsort(names, t->cell_count, sizeof *names, by_folder);
  for (size_t k = 1; k < t->cell_count; k++)
    if (strcmp(names[k].folder, names[k - 1].folder) == 0) alike[names[k].cell] = alike[names[k - 1].cell] = true;
  for (size_t k = 0; k < t->cell_count; k++) {
    if (!alike[k] || strcmp(t->cells[k].method, "own") == 0) continue;
    MG_TRY(append_key(&r->variants.items[k], t->cells[k].key), cleanup);
    MG_TRY(append_key(&r->folders.items[k], t->cells[k].key), cleanup);
  }
cleanup:
  free(alike), free(names);
  return status;
}

mg_status mg_export_name_cells(mg_export_result *r) {
  mg_status status = MG_OK;
  mg_strings varying = {0};
  MG_TRY(find_varying(&r->view.table, &varying), cleanup);
  for (size_t k = 0; k < r->view.table.cell_count; k++) MG_TRY(name_cell(r, k, &varying), cleanup);
  MG_TRY(tell_apart(r), cleanup);
cleanup:
  mg_strings_free(&varying);
  return status;
}
