/* The configuration with its defaults, as YAML that reads back to the same values. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_impl.h"

/* Can the character stand in a YAML text as it is, in one line? */
static bool is_printable(uint32_t point) {
  if (point < 0x20 || (point >= 0x7F && point < 0xA0)) return false;
  return point != 0x2028 && point != 0x2029 && point != 0xFEFF && point != 0xFFFE && point != 0xFFFF;
}

void mg_yaml_escape(mg_text *out, const char *text) {
  const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
  while (p < end) {
    size_t length = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    if (length > (size_t)(end - p)) length = (size_t)(end - p);
    uint32_t point = length == 1 ? *p : *p & (0x7Fu >> length);
    for (size_t k = 1; k < length; k++) point = point << 6 | (p[k] & 0x3Fu);
    if (!is_printable(point))
      mg_text_append(out, point < 0x100 ? "\\x%02X" : "\\u%04X", point);
    else if (point == '"' || point == '\\')
      mg_text_append(out, "\\%c", *p);
    else
      mg_text_append_bytes(out, p, length);
    p += length;
  }
}

/* Double quotes take every string. */
static void quote(mg_text *yaml, const char *text) {
  mg_text_append(yaml, "\"");
  mg_yaml_escape(yaml, text);
  mg_text_append(yaml, "\"");
}

/* Absolute, so that it means the same wherever it is read. */
static mg_status quote_path(mg_text *yaml, const char *path) {
  char *here = path[0] == '/' ? mg_strdup("") : getcwd(NULL, 0);
  if (here == NULL) return mg_fail_errno(MG_ERR_IO, "the current directory");
  char *whole = path[0] == '/' ? mg_strdup(path) : mg_path_join(here, path);
  free(here);
  if (whole == NULL) return MG_ERR_NOMEM;
  quote(yaml, whole);
  free(whole);
  return MG_OK;
}

static void quote_list(mg_text *yaml, const mg_strings *list) {
  mg_text_append(yaml, "[");
  for (size_t k = 0; k < list->count; k++) {
    if (k > 0) mg_text_append(yaml, ", ");
    quote(yaml, list->items[k]);
  }
  mg_text_append(yaml, "]");
}

static mg_status write_sources(const mg_family_spec *spec, mg_text *yaml) {
  mg_status status = MG_OK;
  if (spec->kind == MG_SOURCES_PATTERN) return quote_path(yaml, spec->pattern);
  const bool map = spec->kind == MG_SOURCES_MAP;
  mg_text_append(yaml, map ? "{" : "[");
  for (size_t k = 0; k < spec->entry_count; k++) {
    const mg_source *e = &spec->entries[k];
    if (k > 0) mg_text_append(yaml, ", ");
    if (map) {
      quote(yaml, e->id);
      mg_text_append(yaml, ": {path: ");
    }
    MG_TRY(quote_path(yaml, e->path), done);
    if (map && e->locale != NULL) {
      mg_text_append(yaml, ", locale: ");
      quote(yaml, e->locale);
    }
    if (map) mg_text_append(yaml, "}");
  }
  mg_text_append(yaml, map ? "}" : "]");
done:
  return status;
}

/* A list whose one word is no item of it. */
static bool is_all(const mg_strings *list) { return list->count == 1 && strcmp(list->items[0], "all") == 0; }

static void write_layers(const mg_strings *layers, mg_text *yaml) {
  const bool word = layers->count == 1 && (layers->items[0][0] == 'l' || layers->items[0][0] == 'a');
  if (!word) mg_text_append(yaml, "[");
  for (size_t k = 0; k < layers->count; k++) mg_text_append(yaml, "%s%s", k ? ", " : "", layers->items[k]);
  if (!word) mg_text_append(yaml, "]");
}

/* A preset or rule decides over parameters that were not said: only those that were are written then. */
static void write_method(const mg_terms *terms, bool whole, mg_text *yaml) {
  const mg_method *m = terms->method;
  bool any = false;
  mg_text_append(yaml, "{%s: {", m->name);
  for (size_t k = 0; k < m->parameter_count; k++) {
    if (!whole && (terms->said_parameters & UINT32_C(1) << k) == 0) continue;
    mg_text_append(yaml, "%s%s: ", any ? ", " : "", m->parameters[k].name);
    const char *quotes = m->parameters[k].type == MG_PARAMETER_LAYERS ? "\"" : ""; /* it may have commas */
    mg_text_append(yaml, "%s", quotes);
    mg_parameter_text(&m->parameters[k], terms->values[k], yaml);
    mg_text_append(yaml, "%s", quotes);
    any = true;
  }
  mg_text_append(yaml, "}}");
}

static void write_weights(const mg_terms *spec, mg_text *yaml) {
  for (size_t k = 0; k < spec->sources.count; k++) {
    mg_text_append(yaml, "%s", k ? ", " : "{");
    quote(yaml, spec->sources.items[k]);
    mg_text_append(yaml, ": ");
    mg_text_append_number(yaml, spec->weights[k]);
  }
  mg_text_append(yaml, "}");
}

/* A word that means something to us stays one; a file becomes absolute. */
static mg_status word_or_path(mg_text *yaml, const char *text, const char *word) {
  if (strcmp(text, word) != 0) return quote_path(yaml, text);
  mg_text_append(yaml, "%s", word);
  return MG_OK;
}

/* With its variables: whoever reads it has other values. */
static mg_status write_stage_dir(const char *text, mg_text *yaml) {
  if (text == NULL) {
    mg_text_append(yaml, "none");
    return MG_OK;
  }
  char *whole = mg_stage_dir_absolute(text);
  if (whole == NULL) return mg_fail_errno(MG_ERR_IO, "the current directory");
  quote(yaml, whole);
  free(whole);
  return MG_OK;
}

static mg_status write_matrices(const mg_grid_spec *spec, mg_text *yaml) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < spec->similarity_names.count; k++) {
    mg_text_append(yaml, "%s", k ? ", " : "{");
    quote(yaml, spec->similarity_names.items[k]);
    mg_text_append(yaml, ": ");
    MG_TRY(word_or_path(yaml, spec->similarity_files.items[k], "nxn"), done);
  }
  mg_text_append(yaml, "}");
done:
  return status;
}

static mg_status write_files(const mg_strings *files, mg_text *yaml) {
  mg_status status = MG_OK;
  mg_text_append(yaml, "[");
  for (size_t k = 0; k < files->count; k++) {
    if (k > 0) mg_text_append(yaml, ", ");
    MG_TRY(quote_path(yaml, files->items[k]), done);
  }
  mg_text_append(yaml, "]");
done:
  return status;
}

static void write_axes(const mg_axes *axes, mg_text *yaml) {
  mg_text_append(yaml, "{");
  for (size_t k = 0; k < axes->count; k++) {
    if (k > 0) mg_text_append(yaml, ", ");
    quote(yaml, axes->items[k].name);
    mg_text_append(yaml, ": %s", axes->items[k].yaml);
  }
  mg_text_append(yaml, "}");
}

static void write_phases(const mg_grid_spec *spec, mg_text *yaml) {
  mg_text_append(yaml, "[");
  for (size_t k = 0; k < spec->declared_count; k++) {
    mg_text_append(yaml, "%s{name: ", k ? ", " : "");
    quote(yaml, spec->declared[k].name);
    mg_text_append(yaml, ", fixed: ");
    write_axes(&spec->declared[k].fixed, yaml);
    mg_text_append(yaml, ", sweep: ");
    write_axes(&spec->declared[k].sweep, yaml);
    mg_text_append(yaml, "}");
  }
  mg_text_append(yaml, "]");
}

/* As it was said, but for a directory, which becomes absolute. */
static mg_status write_setup(const mg_setup *setup, mg_text *yaml) {
  mg_status status = MG_OK;
  if (setup->kind != MG_SETUP_PATH) {
    mg_text_append(yaml, "%s", setup->yaml);
    return MG_OK;
  }
  mg_text_append(yaml, "{path: ");
  MG_TRY(quote_path(yaml, setup->what), done);
  if (setup->note[0] != '\0') {
    mg_text_append(yaml, ", note: ");
    quote(yaml, setup->note);
  }
  mg_text_append(yaml, "}");
done:
  return status;
}

static mg_status write_setups(const mg_microscope_spec *spec, mg_text *yaml) {
  mg_status status = MG_OK;
  mg_text_append(yaml, "{");
  for (size_t k = 0; k < spec->setup_count; k++) {
    if (k > 0) mg_text_append(yaml, ", ");
    quote(yaml, spec->setups[k].name);
    mg_text_append(yaml, ": ");
    MG_TRY(write_setup(&spec->setups[k], yaml), done);
  }
  mg_text_append(yaml, "}");
done:
  return status;
}

static mg_status write_probes(const mg_microscope_spec *spec, mg_text *yaml) {
  if (spec->probes.file != NULL) return quote_path(yaml, spec->probes.file);
  if (spec->probes.locale == NULL) {
    mg_text_append(yaml, "null");
    return MG_OK;
  }
  mg_text_append(yaml, "{locale: ");
  quote(yaml, spec->probes.locale);
  mg_text_append(yaml, ", partition: ");
  quote(yaml, spec->probes.partition);
  if (spec->probes.limit > 0) mg_text_append(yaml, ", limit: %d", spec->probes.limit);
  mg_text_append(yaml, "}");
  return MG_OK;
}

/* Does nothing stand beneath the recipe's keys, so that a default may be written as if it had been said? */
static bool is_plain(const mg_terms *terms) {
  return strcmp(terms->preset, "none") == 0 && strcmp(terms->lambda_rule, "none") == 0;
}

/* Is there nothing to write? */
static bool is_absent(const mg_config *config, const mg_option *o) {
  const bool said = o->term == 0 || (config->recipe.given & o->term) != 0;
  if (!said && (!is_plain(&config->recipe) || o->term == MG_GIVEN(MG_TERM_SEED))) return true;
  if (o->type == MG_OPTION_MATRICES) return config->grid.similarity_names.count == 0;
  if (o->type == MG_OPTION_SETUP) return config->microscope.reference.kind == MG_SETUP_NONE;
  if (o->type == MG_OPTION_PATH || o->type == MG_OPTION_TEXT) return *(char *const *)((const char *)config + o->field) == NULL;
  if (o->type == MG_OPTION_METHOD) return config->recipe.method == NULL;
  return o->type == MG_OPTION_WEIGHTS && config->recipe.sources.count == 0;
}

/* Opens the sections of a key ("compatibility.cka.pool" has two) that the key before was not in; returns the key's own name. */
static const char *open_sections(const char *before, const char *key, mg_text *yaml) {
  const char *name = key, *dot;
  int depth = 0;
  for (; (dot = strchr(name, '.')) != NULL; name = dot + 1, depth++)
    if (strncmp(before, key, (size_t)(dot - key) + 1) != 0)
      mg_text_append(yaml, "%*s%.*s:\n", 2 * depth, "", (int)(dot - name), name);
  mg_text_append(yaml, "%*s", 2 * depth, "");
  return name;
}

/* Lists and maps. */
static mg_status write_compound(const mg_config *config, const mg_option *o, mg_text *yaml) {
  const void *field = (const char *)config + o->field;
  switch (o->type) {
  case MG_OPTION_SOURCES:
    return write_sources(&config->family, yaml);
  case MG_OPTION_LAYERS:
    write_layers(field, yaml);
    return MG_OK;
  case MG_OPTION_TARGETS:
    if (is_all(field))
      mg_text_append(yaml, "all");
    else
      quote_list(yaml, field);
    return MG_OK;
  case MG_OPTION_METHOD:
    write_method(&config->recipe, is_plain(&config->recipe), yaml);
    return MG_OK;
  case MG_OPTION_WEIGHTS:
    write_weights(&config->recipe, yaml);
    return MG_OK;
  case MG_OPTION_MATRICES:
    return write_matrices(&config->grid, yaml);
  case MG_OPTION_FILES:
    return write_files(field, yaml);
  case MG_OPTION_PRESETS:
    mg_text_append(yaml, "%s", config->grid.preset.items[0].yaml);
    return MG_OK;
  case MG_OPTION_AXES:
    write_axes(field, yaml);
    return MG_OK;
  case MG_OPTION_PHASES:
    write_phases(&config->grid, yaml);
    return MG_OK;
  case MG_OPTION_SETUP:
    return write_setup(field, yaml);
  case MG_OPTION_SETUPS:
    return write_setups(&config->microscope, yaml);
  case MG_OPTION_PROBES:
    return write_probes(&config->microscope, yaml);
  default:
    quote_list(yaml, field);
    return MG_OK;
  }
}

static mg_status write_value(const mg_config *config, const mg_option *o, mg_text *yaml) {
  const void *field = (const char *)config + o->field;
  switch (o->type) {
  case MG_OPTION_PATH:
    return quote_path(yaml, *(char *const *)field);
  case MG_OPTION_DIR_OR_NONE:
  case MG_OPTION_FILE_OR_NULL:
    if (*(char *const *)field != NULL) return quote_path(yaml, *(char *const *)field);
    mg_text_append(yaml, o->type == MG_OPTION_DIR_OR_NONE ? "none" : "null");
    return MG_OK;
  case MG_OPTION_STAGE_DIR:
    return write_stage_dir(*(char *const *)field, yaml);
  case MG_OPTION_STAGE_OR_FILE:
    return word_or_path(yaml, *(char *const *)field, "stage");
  case MG_OPTION_CHOICE:
    if (o->field == offsetof(mg_config, family.skip_missing))
      mg_text_append(yaml, "%s", o->choices[config->family.skip_missing ? 1 : 0]);
    else
      mg_text_append(yaml, "%s", o->choices[config->compatibility.gram]);
    return MG_OK;
  case MG_OPTION_CHOICE_TEXT:
    mg_text_append(yaml, "%s", *(char *const *)field);
    return MG_OK;
  case MG_OPTION_DTYPE:
    mg_text_append(yaml, "%s", config->shards.dtype == MG_F32 ? "f32" : config->shards.dtype == MG_BF16 ? "bf16" : "f16");
    return MG_OK;
  case MG_OPTION_BOOL:
    mg_text_append(yaml, "%s", *(const bool *)field ? "true" : "false");
    return MG_OK;
  case MG_OPTION_THREADS:
    if (*(const int *)field == 0)
      mg_text_append(yaml, "auto");
    else
      mg_text_append(yaml, "%d", *(const int *)field);
    return MG_OK;
  case MG_OPTION_BYTES:
  case MG_OPTION_SEED:
    mg_text_append(yaml, "%llu", (unsigned long long)*(const uint64_t *)field);
    return MG_OK;
  case MG_OPTION_TEXT:
    quote(yaml, *(char *const *)field);
    return MG_OK;
  case MG_OPTION_COUNT:
    mg_text_append(yaml, "%d", *(const int *)field);
    return MG_OK;
  default:
    return write_compound(config, o, yaml);
  }
}

mg_status mg_config_resolved(const mg_config *config, mg_text *yaml) {
  mg_status status = MG_OK;
  const char *before = "";
  for (size_t k = 0; k < mg_option_count; k++) {
    const mg_option *o = &mg_options[k];
    if (is_absent(config, o)) continue;
    mg_text_append(yaml, "%s: ", open_sections(before, o->key, yaml));
    before = o->key;
    MG_TRY(write_value(config, o, yaml), done);
    mg_text_append(yaml, "\n");
  }
  if (yaml->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
done:
  return status;
}
