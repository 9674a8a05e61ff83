/* A recipe: a method with its parameters, and sources with their weights. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

void mg_terms_free(mg_terms *spec) {
  mg_strings_free(&spec->sources);
  free(spec->weights), free(spec->head), free(spec->locale), free(spec->similarity_type);
  free(spec->axis), free(spec->select), free(spec->inctar), free(spec->duplicates);
  *spec = (mg_terms){0};
}

/* A message of the table of methods, with the place in front. */
static mg_status placed(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, mg_status status) {
  if (status != MG_ERR_CONFIG) return status;
  char *message = mg_strdup(mg_error_message());
  if (message == NULL) return MG_ERR_NOMEM;
  status = mg_config_error(origin, node, "%s: %s", o->key, message);
  free(message);
  return status;
}

static mg_status set_parameters(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                                const yaml_node_t *node, mg_terms *spec) {
  mg_status status = MG_OK;
  if (mg_node_is_empty(node)) return MG_OK;
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: a map of parameters was expected behind %s, not %s", o->key, spec->method->name,
                           mg_node_kind(node));
  const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
  const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
  mg_named_node *names = mg_alloc(count, sizeof *names);
  if (names == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *key = yaml_document_get_node(document, pairs[k].key),
                      *value = yaml_document_get_node(document, pairs[k].value);
    const char *name, *text;
    MG_TRY(mg_scalar(origin, key, o->key, "a parameter's name", &name), cleanup);
    MG_TRY(mg_scalar(origin, value, o->key, "a parameter's value", &text), cleanup);
    MG_TRY(placed(o, origin, value, mg_method_set(spec->method, name, text, spec->values)), cleanup);
    names[k] = (mg_named_node){.name = name, .length = strlen(name), .order = k, .node = key};
  }
  if (count > 0) MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names);
  return status;
}

mg_status mg_recipe_method_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                               const yaml_node_t *node, mg_terms *spec) {
  mg_status status = MG_OK;
  const char *name;
  const yaml_node_t *parameters = NULL, *key = node;
  if (node->type == YAML_MAPPING_NODE) {
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    if (node->data.mapping.pairs.top - pairs != 1)
      return mg_config_error(origin, node, "%s: one method was expected, as in {ties: {density: 0.2}}", o->key);
    key = yaml_document_get_node(document, pairs->key);
    parameters = yaml_document_get_node(document, pairs->value);
  }
  MG_TRY(mg_scalar(origin, key, o->key, o->expected, &name), done);
  spec->method = NULL;
  MG_TRY(placed(o, origin, key, mg_method_find(name, &spec->method)), done);
  mg_method_defaults(spec->method, spec->values);
  if (parameters != NULL) MG_TRY(set_parameters(o, origin, document, parameters, spec), done);
done:
  if (status != MG_OK) spec->method = NULL;
  return status;
}

static mg_status set_weight(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, double *weight) {
  const char *text;
  char *end;
  const mg_status status = mg_scalar(origin, node, o->key, "a weight", &text);
  if (status != MG_OK) return status;
  *weight = strtod(text, &end);
  if (end == text || *end != '\0' || !(*weight > 0) || !isfinite(*weight))
    return mg_config_error(origin, node, "%s: '%s'; a weight above 0 was expected", o->key, text);
  return MG_OK;
}

mg_status mg_recipe_sources_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                                const yaml_node_t *node, mg_terms *spec) {
  mg_status status = MG_OK;
  mg_named_node *names = NULL;
  mg_strings_free(&spec->sources);
  free(spec->weights);
  spec->weights = NULL;
  const bool map = node->type == YAML_MAPPING_NODE;
  if (!map && node->type != YAML_SEQUENCE_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  const yaml_node_pair_t *pairs = map ? node->data.mapping.pairs.start : NULL;
  const yaml_node_item_t *items = map ? NULL : node->data.sequence.items.start;
  const size_t count = map ? (size_t)(node->data.mapping.pairs.top - pairs) : (size_t)(node->data.sequence.items.top - items);
  if (count == 0) return mg_config_error(origin, node, "%s: is empty; %s was expected", o->key, o->expected);
  names = mg_alloc(count, sizeof *names);
  spec->weights = mg_alloc(count, sizeof *spec->weights);
  if (names == NULL || spec->weights == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *key = yaml_document_get_node(document, map ? pairs[k].key : items[k]);
    const char *id;
    MG_TRY(mg_scalar(origin, key, o->key, "a source's id", &id), cleanup);
    spec->weights[k] = 1;
    if (map) MG_TRY(set_weight(o, origin, yaml_document_get_node(document, pairs[k].value), &spec->weights[k]), cleanup);
    names[k] = (mg_named_node){.name = id, .length = strlen(id), .order = k, .node = key};
    MG_TRY(mg_strings_add(&spec->sources, id), cleanup);
  }
  MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names);
  return status;
}

mg_status mg_matrices_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                          mg_grid_spec *spec) {
  mg_status status = MG_OK;
  mg_strings_free(&spec->similarity_names);
  mg_strings_free(&spec->similarity_files);
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
  const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
  mg_named_node *names = mg_alloc(count, sizeof *names);
  char *path = NULL;
  if (names == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *key = yaml_document_get_node(document, pairs[k].key),
                      *value = yaml_document_get_node(document, pairs[k].value);
    const char *name, *file;
    MG_TRY(mg_scalar(origin, key, o->key, "a matrix' name", &name), cleanup);
    MG_TRY(mg_scalar(origin, value, o->key, "a CSV file, or nxn", &file), cleanup);
    const bool word = strcmp(file, "nxn") == 0;
    if (!word) MG_TRY(mg_set_path(origin, file, &path), cleanup);
    MG_TRY(mg_strings_add(&spec->similarity_names, name), cleanup);
    MG_TRY(mg_strings_add(&spec->similarity_files, word ? file : path), cleanup);
    names[k] = (mg_named_node){.name = name, .length = strlen(name), .order = k, .node = key};
  }
  if (count > 0) MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names), free(path);
  return status;
}
