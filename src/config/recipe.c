/* Terms that a YAML node says: a method with its parameters, sources with their weights, matrices. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

/* A message of the table of methods, with the place in front. */
static mg_status placed(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, mg_status status) {
  if (status != MG_ERR_CONFIG) return status;
  char *message = mg_strdup(mg_error_message());
  if (message == NULL) return MG_ERR_NOMEM;
  status = mg_config_error(origin, node, "%s: %s", o->key, message);
  free(message);
  return status;
}

/* ---- methods ---- */

static size_t item_count(const yaml_node_t *list) {
  return (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
}

/* The map behind a method's name, NULL where there is none. */
static const yaml_node_t *parameters_of(yaml_document_t *document, const yaml_node_t *node) {
  if (node->type != YAML_MAPPING_NODE || node->data.mapping.pairs.top - node->data.mapping.pairs.start != 1) return NULL;
  const yaml_node_t *parameters = yaml_document_get_node(document, node->data.mapping.pairs.start->value);
  return parameters->type == YAML_MAPPING_NODE ? parameters : NULL;
}

mg_status mg_method_variants(const mg_yaml_origin *origin, const char *key, yaml_document_t *document, const yaml_node_t *node,
                             size_t *count) {
  const yaml_node_t *map = parameters_of(document, node);
  *count = 1;
  if (map == NULL) return MG_OK;
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *value = yaml_document_get_node(document, p->value);
    if (value->type != YAML_SEQUENCE_NODE) continue;
    const size_t values = item_count(value);
    if (values > 0) *count *= values;
    if (values > MG_MOST_VALUES || *count > MG_MOST_VALUES)
      return mg_config_error(origin, node, "%s: a method with more than %d settings", key, MG_MOST_VALUES);
  }
  return MG_OK;
}

/* A parameter's value, of a list the one that is its turn. stride: how many variants each of its values stands for. */
static mg_status pick_value(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, size_t variant,
                            size_t *stride, const yaml_node_t **value) {
  if ((*value)->type != YAML_SEQUENCE_NODE) return MG_OK;
  if (variant == MG_NO_VARIANT)
    return mg_config_error(origin, *value, "%s: a list of values is for grid.sweep and grid.fixed; one was expected", o->key);
  const size_t values = item_count(*value);
  if (values == 0) return mg_config_error(origin, *value, "%s: is empty; values of a parameter were expected", o->key);
  *stride /= values;
  *value = yaml_document_get_node(document, (*value)->data.sequence.items.start[variant / *stride % values]);
  return MG_OK;
}

static mg_status set_parameters(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                                const yaml_node_t *node, size_t variant, size_t stride, mg_terms *terms) {
  mg_status status = MG_OK;
  const char *method = terms->method->name;
  if (mg_node_is_empty(node)) return MG_OK;
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: a map of parameters was expected behind %s, not %s", o->key, method,
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
    MG_TRY(pick_value(o, origin, document, variant, &stride, &value), cleanup);
    MG_TRY(mg_scalar(origin, value, o->key, "a parameter's value", &text), cleanup);
    MG_TRY(placed(o, origin, value, mg_method_set(terms->method, name, text, terms->values)), cleanup);
    terms->said_parameters |= UINT32_C(1) << mg_method_parameter(terms->method, name);
    names[k] = (mg_named_node){.name = name, .length = strlen(name), .order = k, .node = key};
  }
  if (count > 0) MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names);
  return status;
}

mg_status mg_recipe_method_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                               const yaml_node_t *node, size_t variant, mg_terms *terms) {
  mg_status status = MG_OK;
  const char *name;
  const yaml_node_t *parameters = NULL, *key = node;
  size_t stride = 1;
  terms->method = NULL;
  terms->said_parameters = 0;
  if (node->type == YAML_MAPPING_NODE) {
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    if (node->data.mapping.pairs.top - pairs != 1)
      return mg_config_error(origin, node, "%s: one method was expected, as in {ties: {density: 0.2}}", o->key);
    key = yaml_document_get_node(document, pairs->key);
    parameters = yaml_document_get_node(document, pairs->value);
  }
  MG_TRY(mg_scalar(origin, key, o->key, o->expected, &name), done);
  MG_TRY(placed(o, origin, key, mg_method_find(name, &terms->method)), done);
  mg_method_defaults(terms->method, terms->values);
  if (variant != MG_NO_VARIANT) MG_TRY(mg_method_variants(origin, o->key, document, node, &stride), done);
  if (parameters != NULL) MG_TRY(set_parameters(o, origin, document, parameters, variant, stride, terms), done);
done:
  if (status != MG_OK) terms->method = NULL;
  return status;
}

/* ---- sources ---- */

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
                                const yaml_node_t *node, mg_terms *terms) {
  mg_status status = MG_OK;
  mg_named_node *names = NULL;
  mg_strings_free(&terms->sources);
  free(terms->weights);
  terms->weights = NULL;
  const bool map = node->type == YAML_MAPPING_NODE;
  if (!map && node->type != YAML_SEQUENCE_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  const yaml_node_pair_t *pairs = map ? node->data.mapping.pairs.start : NULL;
  const yaml_node_item_t *items = map ? NULL : node->data.sequence.items.start;
  const size_t count = map ? (size_t)(node->data.mapping.pairs.top - pairs) : (size_t)(node->data.sequence.items.top - items);
  if (count == 0) return mg_config_error(origin, node, "%s: is empty; %s was expected", o->key, o->expected);
  names = mg_alloc(count, sizeof *names);
  terms->weights = mg_alloc(count, sizeof *terms->weights);
  if (names == NULL || terms->weights == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *key = yaml_document_get_node(document, map ? pairs[k].key : items[k]);
    const char *id;
    MG_TRY(mg_scalar(origin, key, o->key, "a source's id", &id), cleanup);
    MG_TRY(mg_check_id(origin, key, o->key, id, strlen(id)), cleanup);
    terms->weights[k] = 1;
    if (map) MG_TRY(set_weight(o, origin, yaml_document_get_node(document, pairs[k].value), &terms->weights[k]), cleanup);
    names[k] = (mg_named_node){.name = id, .length = strlen(id), .order = k, .node = key};
    MG_TRY(mg_strings_add(&terms->sources, id), cleanup);
  }
  MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names);
  return status;
}

/* In a result a '/' in a name is '_': which other name it would then have the place of, or NULL. */
static const char *same_place(const mg_strings *names, const char *name) {
  for (size_t k = 0; k < names->count; k++) {
    const char *other = names->items[k];
    size_t c = 0;
    while (other[c] != '\0' && (other[c] == '/' ? '_' : other[c]) == (name[c] == '/' ? '_' : name[c])) c++;
    if (other[c] == name[c] && strcmp(other, name) != 0) return other;
  }
  return NULL;
}

/* ---- matrices ---- */

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
    if (strlen(name) > MG_LONGEST_NAME) {
      status = mg_config_error(origin, key, "%s: a name of %zu bytes; at most %d were expected", o->key, strlen(name),
                               MG_LONGEST_NAME);
      goto cleanup;
    }
    MG_TRY(mg_scalar(origin, value, o->key, "a CSV file, or nxn", &file), cleanup);
    const bool word = strcmp(file, "nxn") == 0;
    if (!word) MG_TRY(mg_set_path(origin, file, &path), cleanup);
    const char *other = same_place(&spec->similarity_names, name);
    if (other != NULL) {
      status = mg_config_error(origin, key, "%s: '%s' and '%s' would have one place in the result, where '/' is '_'", o->key,
                               other, name);
      goto cleanup;
    }
    MG_TRY(mg_strings_add(&spec->similarity_names, name), cleanup);
    MG_TRY(mg_strings_add(&spec->similarity_files, word ? file : path), cleanup);
    names[k] = (mg_named_node){.name = name, .length = strlen(name), .order = k, .node = key};
  }
  if (count > 0) MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names), free(path);
  return status;
}
