/* What a setup's model is made from: what is declared of it, the sources that it took, and their content. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff_impl.h"
#include "mergegrid/grid.h"

/* The setup of a name as the configuration declares it; NULL where that is not known. */
static const mg_setup *find_declared(const mg_diff_side *s, const char *name) {
  if (s->declared == NULL) return NULL;
  const mg_microscope_spec *spec = &s->declared->microscope;
  if (strcmp(name, "reference") == 0) return spec->reference.kind != MG_SETUP_NONE ? &spec->reference : NULL;
  for (size_t k = 0; k < spec->setup_count; k++)
    if (strcmp(spec->setups[k].name, name) == 0) return &spec->setups[k];
  return NULL;
}

/* ---- declared ---- */

static mg_status add_value(const char *name, json_t *value, mg_identity *from) {
  mg_status status = MG_OK;
  mg_text text = {0};
  char *dumped = NULL;
  if (json_is_string(value))
    mg_text_append(&text, "%s", json_string_value(value));
  else if (json_is_number(value))
    mg_text_append_number(&text, json_number_value(value)); /* as short as it reads back */
  else if ((dumped = json_dumps(value, JSON_ENCODE_ANY)) != NULL)
    mg_text_append(&text, "%s", dumped);
  status = text.data != NULL && !text.failed ? mg_identity_add(from, name, text.data) : mg_fail(MG_ERR_NOMEM, "out of memory");
  free(dumped);
  mg_text_free(&text);
  return status;
}

/* As the grid names those that are swept: ties.density. */
static mg_status add_parameters(const char *method, json_t *parameters, mg_identity *from) {
  mg_status status = MG_OK;
  const char *parameter;
  json_t *value;
  json_object_foreach(parameters, parameter, value) {
    char *name = NULL;
    if (asprintf(&name, "%s.%s", method, parameter) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
    status = add_value(name, value, from);
    free(name);
    if (status != MG_OK) break;
  }
  return status;
}

/* Coordinates by their names, as those of a cell; what is null was not said. */
static mg_status add_coordinates(const char *method, json_t *terms, mg_identity *from) {
  mg_status status = MG_OK;
  const char *name;
  json_t *value;
  json_object_foreach(terms, name, value) {
    if (json_is_null(value)) continue;
    status = strcmp(name, "parameters") == 0 ? add_parameters(method, value, from) : add_value(name, value, from);
    if (status != MG_OK) break;
  }
  return status;
}

static mg_status add_terms(const mg_diff_side *s, const mg_setup *setup, mg_identity *from) {
  mg_status status = MG_OK;
  mg_cell cell;
  mg_text text = {0};
  json_t *terms = NULL;
  MG_TRY(mg_grid_setup_cell(s->declared, setup, &cell), cleanup);
  MG_TRY(mg_cell_json(&cell, &text), cleanup);
  terms = json_loads(text.data, 0, NULL);
  status =
      terms != NULL ? add_coordinates(cell.terms.method->name, terms, from) : mg_fail(MG_ERR_NOMEM, "out of memory for JSON");
cleanup:
  json_decref(terms);
  mg_text_free(&text);
  return status == MG_ERR_CONFIG ? MG_OK : status; /* as where it can't be read at all */
}

static mg_status add_declared(const mg_diff_side *s, const mg_setup *setup, mg_identity *from) {
  switch (setup->kind) {
  case MG_SETUP_SOURCE:
    return mg_identity_add(from, "source", setup->what);
  case MG_SETUP_BASE:
    return mg_identity_add(from, "source", "the base");
  case MG_SETUP_PATH:
    return mg_identity_add(from, "path", setup->what);
  case MG_SETUP_RECIPE:
    return add_terms(s, setup, from);
  default:
    return MG_OK; /* a cell's key may be cut; the table has all of it */
  }
}

/* ---- what it came to ---- */

/* Is a source one of "fr-FR:0.500, sw-KE:0.500"? */
static bool takes(const char *sources, const char *id) {
  const size_t length = strlen(id);
  for (const char *at = sources; (at = strstr(at, id)) != NULL; at++) {
    const bool begins = at == sources || (at - sources >= 2 && at[-2] == ',' && at[-1] == ' ');
    if (begins && at[length] == ':' && (isdigit((unsigned char)at[length + 1]) || at[length + 1] == '-')) return true;
  }
  return false;
}

/* Where a checkpoint lies is nothing that numbers hang on: its id; a path that is no source's stays. */
static const char *model_at(const mg_diff_side *s, const char *path) {
  const ptrdiff_t source = mg_strings_find(&s->m.paths, path);
  if (source >= 0) return s->m.ids.items[source];
  return s->m.base_path != NULL && strcmp(path, s->m.base_path) == 0 ? "the base" : path;
}

static mg_status add_content(const mg_diff_side *s, const char *name, mg_identity *from) {
  const char *hash = mg_identity_value(&s->inputs, name);
  return hash != NULL ? mg_identity_add(from, name, hash) : MG_OK;
}

/* Hashes of the checkpoints that take part, as the run had them. */
static mg_status add_checkpoints(const mg_diff_side *s, size_t row, mg_identity *from) {
  mg_status status = MG_OK;
  const mg_frame *setups = &s->scope.tables[MG_SCOPE_SETUPS];
  const char *sources = mg_frame_text(setups, "sources", row), *path = mg_frame_text(setups, "path", row),
             *start = mg_frame_text(setups, "base_model", row);
  bool of_family = sources[0] != '\0' || (s->m.base_path != NULL && strcmp(path, s->m.base_path) == 0);
  mg_text name = {0};
  for (size_t k = 0; k < s->m.ids.count && status == MG_OK; k++) {
    const char *id = s->m.ids.items[k], *at = s->m.paths.items[k];
    if (!takes(sources, id) && strcmp(path, at) != 0 && strcmp(start, at) != 0) continue;
    of_family = true;
    name.size = 0;
    mg_text_append(&name, "source %s", id);
    status = name.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : add_content(s, name.data, from);
  }
  mg_text_free(&name);
  return status == MG_OK && of_family ? add_content(s, "base", from) : status;
}

/* The grid's cell that it is, whose recipe is a hash of all that it is computed from. */
static mg_status add_cell(const mg_diff_side *s, const char *key, mg_identity *from) {
  mg_status status = MG_OK;
  if (key[0] == '\0') return MG_OK;
  MG_TRY(mg_identity_add(from, "cell", key), done);
  for (size_t k = 0; s->has_grid && k < s->grid.cell_count; k++)
    if (strcmp(s->grid.cells[k].key, key) == 0) return mg_identity_add(from, "recipe", s->grid.cells[k].recipe);
done:
  return status;
}

static mg_status add_resolved(const mg_diff_side *s, size_t row, mg_identity *from) {
  mg_status status = MG_OK;
  const mg_frame *setups = &s->scope.tables[MG_SCOPE_SETUPS];
  const char *sources = mg_frame_text(setups, "sources", row), *start = mg_frame_text(setups, "base_model", row),
             *path = mg_frame_text(setups, "path", row), *method = mg_frame_text(setups, "mode", row);
  const bool declared = mg_identity_value(from, "source") != NULL || mg_identity_value(from, "path") != NULL;
  if (!declared && path[0] != '\0') MG_TRY(mg_identity_add(from, "source", model_at(s, path)), done);
  if (mg_identity_value(from, "method") == NULL && method[0] != '\0') MG_TRY(mg_identity_add(from, "method", method), done);
  if (sources[0] != '\0') MG_TRY(mg_identity_add(from, "sources taken", sources), done);
  if (start[0] != '\0') MG_TRY(mg_identity_add(from, "base_model", model_at(s, start)), done);
  MG_TRY(add_cell(s, mg_frame_text(setups, "cell", row), from), done);
  MG_TRY(add_checkpoints(s, row, from), done);
done:
  return status;
}

bool mg_diff_setup_is_resolved(const mg_diff_side *s, size_t row) {
  const mg_frame *setups = &s->scope.tables[MG_SCOPE_SETUPS];
  return mg_frame_number(setups, "exists", row) != 0 &&
         (mg_frame_text(setups, "sources", row)[0] != '\0' || mg_frame_text(setups, "path", row)[0] != '\0');
}

mg_status mg_diff_setup_inputs(const mg_diff_side *s, size_t row, bool terms, bool resolved, mg_identity *from) {
  mg_status status = MG_OK;
  const mg_setup *declared = terms ? find_declared(s, mg_frame_text(&s->scope.tables[MG_SCOPE_SETUPS], "model", row)) : NULL;
  if (declared != NULL) MG_TRY(add_declared(s, declared, from), done);
  if (resolved) MG_TRY(add_resolved(s, row, from), done);
done:
  return status;
}
