/* From a YAML node to a value of the configuration, by the option's type. */

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

mg_status(mg_config_error)(const mg_yaml_origin *origin, const yaml_node_t *node, const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  const int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (origin->positions && node != NULL)
    mg_fail(MG_ERR_CONFIG, "%s:%zu:%zu: %s", origin->label, node->start_mark.line + 1, node->start_mark.column + 1, text);
  else
    mg_fail(MG_ERR_CONFIG, "%s: %s", origin->label, text);
  free(text);
  return MG_ERR_CONFIG;
}

char *mg_config_place(const mg_yaml_origin *origin, const yaml_node_t *node) {
  char *text = NULL;
  if (!origin->positions || node == NULL) return mg_strdup(origin->label);
  if (asprintf(&text, "%s:%zu:%zu", origin->label, node->start_mark.line + 1, node->start_mark.column + 1) < 0) {
    mg_fail(MG_ERR_NOMEM, "out of memory");
    return NULL;
  }
  return text;
}

const char *mg_node_kind(const yaml_node_t *node) {
  if (node->type == YAML_SEQUENCE_NODE) return "a list";
  return node->type == YAML_MAPPING_NODE ? "a map" : "a value";
}

bool mg_node_is_empty(const yaml_node_t *node) {
  static const char *const nulls[] = {"~", "null", "Null", "NULL"};
  if (node->type != YAML_SCALAR_NODE) return false;
  const char *text = (const char *)node->data.scalar.value;
  if (node->data.scalar.length == 0) return true;
  for (size_t k = 0; k < sizeof nulls / sizeof *nulls; k++)
    if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && strcmp(text, nulls[k]) == 0) return true;
  return false;
}

mg_status mg_scalar(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *expected,
                    const char **text) {
  if (node->type != YAML_SCALAR_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", key, expected, mg_node_kind(node));
  if (mg_node_is_empty(node)) return mg_config_error(origin, node, "%s: is empty; %s was expected", key, expected);
  *text = (const char *)node->data.scalar.value;
  if (strlen(*text) != node->data.scalar.length) return mg_config_error(origin, node, "%s: holds a NUL byte", key);
  return MG_OK;
}

/* A scalar written without quotes: numbers, booleans and names of ours. */
static mg_status plain_scalar(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, const char **text) {
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, text);
  if (status != MG_OK || node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) return status;
  return mg_config_error(origin, node, "%s: '%s' is a quoted string; %s was expected", o->key, *text, o->expected);
}

mg_status mg_set_path(const mg_yaml_origin *origin, const char *text, char **field) {
  char *path = mg_path_join(origin->dir, text);
  if (path == NULL) return MG_ERR_NOMEM;
  free(*field);
  *field = path;
  return MG_OK;
}

mg_status mg_choice_set(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, int *choice) {
  const char *text;
  size_t count = 0;
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, &text);
  if (status != MG_OK) return status;
  for (; o->choices[count] != NULL; count++)
    if (strcmp(text, o->choices[count]) == 0) {
      *choice = (int)count;
      return MG_OK;
    }
  const char *nearest = mg_nearest(text, o->choices, count);
  return mg_config_error(origin, node, "%s: '%s' is unknown; %s was expected%s%s%s", o->key, text, o->expected,
                         nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "");
}

/* ---- numbers ---- */

static mg_status set_threads(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, int *field) {
  const char *text;
  char *end;
  const mg_status status = plain_scalar(o, origin, node, &text);
  if (status != MG_OK) return status;
  if (strcmp(text, "auto") == 0) {
    *field = 0;
    return MG_OK;
  }
  const long number = strtol(text, &end, 10);
  if (*end != '\0' || number < 1 || number > 4096)
    return mg_config_error(origin, node, "%s: '%s'; %s was expected", o->key, text, o->expected);
  *field = (int)number;
  return MG_OK;
}

static mg_status set_seed(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, uint64_t *field) {
  const char *text;
  char *end;
  const mg_status status = plain_scalar(o, origin, node, &text);
  if (status != MG_OK) return status;
  errno = 0;
  const unsigned long long number = strtoull(text, &end, 10);
  if (errno != 0 || *end != '\0' || strspn(text, "0123456789") != strlen(text))
    return mg_config_error(origin, node, "%s: '%s'; %s was expected", o->key, text, o->expected);
  *field = number;
  return MG_OK;
}

static mg_status set_bool(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, bool *field) {
  const char *text;
  const mg_status status = plain_scalar(o, origin, node, &text);
  if (status != MG_OK) return status;
  if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
    return mg_config_error(origin, node, "%s: '%s'; true or false was expected", o->key, text);
  *field = text[0] == 't';
  return MG_OK;
}

static mg_status set_bytes(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, uint64_t *field) {
  const char *text;
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, &text);
  if (status != MG_OK) return status;
  if (!mg_parse_bytes(text, field))
    return mg_config_error(origin, node, "%s: '%s'; %s was expected", o->key, text, o->expected);
  if (*field < (UINT64_C(1) << 20)) return mg_config_error(origin, node, "%s: %s is less than 1MiB", o->key, text);
  return MG_OK;
}

static mg_status set_dir_or_none(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, char **field) {
  const char *text;
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, &text);
  if (status != MG_OK) return status;
  if (strcmp(text, "none") != 0 || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return mg_set_path(origin, text, field);
  free(*field);
  *field = NULL;
  return MG_OK;
}

static mg_status set_count(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, int *field) {
  const char *text;
  char *end;
  const mg_status status = plain_scalar(o, origin, node, &text);
  if (status != MG_OK) return status;
  const long number = strtol(text, &end, 10);
  if (*end != '\0' || strspn(text, "0123456789") != strlen(text) || number < 1 || number > 1000000)
    return mg_config_error(origin, node, "%s: '%s'; %s was expected", o->key, text, o->expected);
  *field = (int)number;
  return MG_OK;
}

static mg_status set_string(const char *text, char **field) {
  char *copy = mg_strdup(text);
  if (copy == NULL) return MG_ERR_NOMEM;
  free(*field);
  *field = copy;
  return MG_OK;
}

static mg_status set_file_or_null(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, char **field) {
  const char *text;
  if (mg_node_is_empty(node)) {
    free(*field);
    *field = NULL;
    return MG_OK;
  }
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, &text);
  return status == MG_OK ? mg_set_path(origin, text, field) : status;
}

/* A word that means something here, or a file. */
static mg_status set_stage_or_file(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, char **field) {
  const char *text;
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, &text);
  if (status != MG_OK) return status;
  return strcmp(text, "stage") == 0 ? set_string(text, field) : mg_set_path(origin, text, field);
}

static mg_status set_text(const mg_option *o, int choice, char **field) {
  char *copy = mg_strdup(o->choices[choice]);
  if (copy == NULL) return MG_ERR_NOMEM;
  free(*field);
  *field = copy;
  return MG_OK;
}

/* Lists and maps. */
static mg_status set_compound(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                              const yaml_node_t *node, void *field) {
  switch (o->type) {
  case MG_OPTION_SOURCES:
    return mg_sources_set(o, origin, document, node, field);
  case MG_OPTION_LAYERS:
  case MG_OPTION_TARGETS:
    return mg_layers_set(o, origin, document, node, field);
  case MG_OPTION_METHOD:
    return mg_recipe_method_set(o, origin, document, node, MG_NO_VARIANT, field);
  case MG_OPTION_WEIGHTS:
    return mg_recipe_sources_set(o, origin, document, node, field);
  case MG_OPTION_MATRICES:
    return mg_matrices_set(o, origin, document, node, field);
  case MG_OPTION_FILES:
    return mg_files_set(o, origin, document, node, field);
  case MG_OPTION_PRESETS:
    return mg_presets_set(o, origin, document, node, field);
  case MG_OPTION_AXES:
    return mg_axes_set(o, origin, document, node, field);
  case MG_OPTION_PHASES:
    return mg_phases_set(o, origin, document, node, field);
  case MG_OPTION_SETUP:
    return mg_setup_set(o, origin, document, node, field);
  case MG_OPTION_SETUPS:
    return mg_setups_set(o, origin, document, node, field);
  case MG_OPTION_PROBES:
    return mg_probes_set(o, origin, document, node, field);
  default:
    return mg_list_set(o, origin, document, node, field);
  }
}

static mg_status set_word(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, mg_config *config,
                          void *field) {
  static const mg_dtype dtypes[] = {MG_F32, MG_BF16, MG_F16};
  int choice = 0;
  const mg_status status = mg_choice_set(o, origin, node, &choice);
  if (status != MG_OK) return status;
  if (o->type == MG_OPTION_CHOICE_TEXT) return set_text(o, choice, field);
  if (o->type == MG_OPTION_DTYPE)
    config->shards.dtype = dtypes[choice]; // NOLINT(clang-analyzer-core.uninitialized.Assign): as many as choices
  else if (o->field == offsetof(mg_config, family.skip_missing))
    config->family.skip_missing = choice == 1;
  else
    config->compatibility.gram = (mg_gram_level)choice;
  return MG_OK;
}

mg_status mg_value_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                       void *base) {
  mg_status status = MG_OK;
  void *field = (char *)base + o->field;
  const char *text;
  switch (o->type) {
  case MG_OPTION_PATH:
    MG_TRY(mg_scalar(origin, node, o->key, o->expected, &text), done);
    return mg_set_path(origin, text, field);
  case MG_OPTION_DIR_OR_NONE:
    return set_dir_or_none(o, origin, node, field);
  case MG_OPTION_STAGE_DIR:
    return mg_stage_dir_set(o, origin, node, field);
  case MG_OPTION_FILE_OR_NULL:
    return set_file_or_null(o, origin, node, field);
  case MG_OPTION_STAGE_OR_FILE:
    return set_stage_or_file(o, origin, node, field);
  case MG_OPTION_CHOICE:
  case MG_OPTION_CHOICE_TEXT:
  case MG_OPTION_DTYPE:
    return set_word(o, origin, node, base, field);
  case MG_OPTION_BOOL:
    return set_bool(o, origin, node, field);
  case MG_OPTION_THREADS:
    return set_threads(o, origin, node, field);
  case MG_OPTION_BYTES:
    return set_bytes(o, origin, node, field);
  case MG_OPTION_SEED:
    return set_seed(o, origin, node, field);
  case MG_OPTION_TEXT:
    MG_TRY(mg_scalar(origin, node, o->key, o->expected, &text), done);
    return set_string(text, field);
  case MG_OPTION_COUNT:
    return set_count(o, origin, node, field);
  default:
    return set_compound(o, origin, document, node, field);
  }
done:
  return status;
}

mg_status mg_option_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                        mg_config *config) {
  if (o->term != 0) return mg_term_set(o, o->key, origin, document, node, MG_NO_VARIANT, &config->recipe);
  return mg_value_set(o, origin, document, node, config);
}

void mg_option_clear(const mg_option *o, mg_config *config) {
  char **text = (char **)((char *)config + o->field);
  config->recipe.given &= ~o->term;
  if (o->type == MG_OPTION_SOURCES) mg_sources_clear(&config->family);
  if (o->type == MG_OPTION_SETUP) mg_setup_free(&config->microscope.reference);
  if (o->type == MG_OPTION_METHOD) config->recipe.method = NULL;
  if (o->type == MG_OPTION_WEIGHTS) mg_strings_free(&config->recipe.sources);
  if (o->type == MG_OPTION_MATRICES) {
    mg_strings_free(&config->grid.similarity_names);
    mg_strings_free(&config->grid.similarity_files);
  }
  if (o->type != MG_OPTION_PATH && o->type != MG_OPTION_TEXT) return;
  free(*text);
  *text = NULL;
}
