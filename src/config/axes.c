/* grid.fixed and grid.sweep: keys and the values they take in turn. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

static void axis_free(mg_axis *axis) {
  for (size_t k = 0; k < axis->count; k++) mg_terms_free(&axis->values[k]);
  free(axis->values), free(axis->name), free(axis->place), free(axis->yaml);
  *axis = (mg_axis){0};
}

void mg_axes_free(mg_axes *axes) {
  for (size_t k = 0; k < axes->count; k++) axis_free(&axes->items[k]);
  free(axes->items);
  *axes = (mg_axes){0};
}

/* An axis that is being read. */
typedef struct reading {
  const mg_yaml_origin *origin;
  yaml_document_t *document;
  const char *key;         /* "grid.sweep.method" */
  const mg_option *option; /* of the term; NULL: values are maps of terms */
} reading;

/* ---- a map of terms ---- */

/* `type: ensemble` or `merging` beside a method, as users' experiment_type has it: says what the table says too. */
static mg_status check_type(const reading *r, const yaml_node_t *node, const mg_terms *terms) {
  const char *text;
  const mg_status status = mg_scalar(r->origin, node, r->key, "ensemble or merging", &text);
  if (status != MG_OK) return status;
  const bool ensemble = strcmp(text, "ensemble") == 0;
  if (!ensemble && strcmp(text, "merging") != 0)
    return mg_config_error(r->origin, node, "%s: type '%s' is unknown; ensemble or merging was expected", r->key, text);
  if (terms->method == NULL)
    return mg_config_error(r->origin, node, "%s: type stands beside a method, which is missing here", r->key);
  if (terms->method->kind == (ensemble ? MG_METHOD_VOTE : MG_METHOD_MERGE)) return MG_OK;
  return mg_config_error(r->origin, node, "%s: type '%s', and method %s is none", r->key, text, terms->method->name);
}

static const yaml_node_t *value_of(yaml_document_t *document, const yaml_node_t *map, const char *name) {
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *key = yaml_document_get_node(document, p->key);
    if (key->type == YAML_SCALAR_NODE && strcmp((const char *)key->data.scalar.value, name) == 0)
      return yaml_document_get_node(document, p->value);
  }
  return NULL;
}

static mg_status set_term_of_map(const reading *r, const yaml_node_pair_t *pair, size_t variant, mg_terms *terms,
                                 const yaml_node_t **type) {
  mg_status status = MG_OK;
  const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
  const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
  const char *name;
  MG_TRY(mg_scalar(r->origin, key, r->key, "a key", &name), done);
  const mg_option *option = mg_term_option(name);
  const bool is_type = strcmp(name, "type") == 0;
  if (option == NULL && !is_type) return mg_term_unknown(r->origin, key, r->key, name, "type");
  if (is_type ? *type != NULL : (terms->given & option->term) != 0)
    return mg_config_error(r->origin, key, "%s: '%s' is there twice", r->key, name);
  if (is_type) {
    *type = value;
    return MG_OK;
  }
  MG_TRY(mg_term_set(option, r->key, r->origin, r->document, value, variant, terms), done);
  if (option->term == MG_GIVEN(MG_TERM_LOCALE) && strcmp(terms->locale, "all") == 0)
    return mg_config_error(r->origin, value, "%s: 'all' can't stand beside other keys; one locale was expected", r->key);
done:
  return status;
}

static mg_status set_map(const reading *r, const yaml_node_t *node, size_t variant, mg_terms *terms) {
  mg_status status = MG_OK;
  const yaml_node_t *type = NULL;
  if (node->data.mapping.pairs.start == node->data.mapping.pairs.top)
    return mg_config_error(r->origin, node, "%s: an empty map; keys as `recipe` has them were expected", r->key);
  for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++)
    MG_TRY(set_term_of_map(r, p, variant, terms, &type), done);
  if (type != NULL) MG_TRY(check_type(r, type, terms), done);
done:
  return status;
}

/* ---- an axis ---- */

static bool has_kind(yaml_document_t *document, const yaml_node_t *list, yaml_node_type_t type) {
  for (const yaml_node_item_t *i = list->data.sequence.items.start; i < list->data.sequence.items.top; i++)
    if (yaml_document_get_node(document, *i)->type == type) return true;
  return false;
}

/* Is the node one value, and no list of them? A fixed list of sources is one. */
static bool is_one(const reading *r, const yaml_node_t *node, bool swept) {
  if (node->type != YAML_SEQUENCE_NODE) return true;
  return r->option != NULL && r->option->type == MG_OPTION_WEIGHTS && !swept && has_kind(r->document, node, YAML_SCALAR_NODE);
}

static mg_status count_variants(const reading *r, const yaml_node_t *node, size_t *count) {
  if (r->option == NULL) {
    if (node->type == YAML_MAPPING_NODE) node = value_of(r->document, node, "method");
  } else if (r->option->type != MG_OPTION_METHOD) {
    node = NULL;
  }
  *count = 1;
  return node != NULL ? mg_method_variants(r->origin, r->key, r->document, node, count) : MG_OK;
}

/* One value, of a method with lists a variant of it. */
static mg_status set_value(const reading *r, const yaml_node_t *node, size_t variant, mg_terms *terms) {
  mg_status status = MG_OK;
  if (r->option == NULL) return set_map(r, node, variant, terms);
  MG_TRY(mg_term_set(r->option, r->key, r->origin, r->document, node, variant, terms), done);
  if (r->option->term == MG_GIVEN(MG_TERM_LOCALE) && strcmp(terms->locale, "all") == 0)
    return mg_config_error(r->origin, node, "%s: 'all' stands alone, as in `locale: all`", r->key);
done:
  return status;
}

static mg_status add_value(const reading *r, const yaml_node_t *node, mg_axis *axis, size_t *room) {
  mg_status status = MG_OK;
  size_t variants = 1;
  MG_TRY(count_variants(r, node, &variants), done);
  if (axis->count + variants > MG_MOST_VALUES)
    return mg_config_error(r->origin, node, "%s: more than %d values", r->key, MG_MOST_VALUES);
  if (axis->count + variants > *room) {
    const size_t wanted = 2 * (axis->count + variants);
    mg_terms *grown = reallocarray(axis->values, wanted, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    axis->values = grown;
    *room = wanted;
  }
  for (size_t v = 0; v < variants; v++) {
    mg_terms *terms = &axis->values[axis->count++];
    *terms = (mg_terms){0};
    MG_TRY(set_value(r, node, v, terms), done);
  }
done:
  return status;
}

static mg_status add_values(const reading *r, const yaml_node_t *node, bool swept, mg_axis *axis) {
  mg_status status = MG_OK;
  size_t room = 0;
  if (r->option != NULL && r->option->term == MG_GIVEN(MG_TERM_LOCALE) && node->type == YAML_SCALAR_NODE &&
      strcmp((const char *)node->data.scalar.value, "all") == 0) {
    axis->all_targets = true;
    return MG_OK;
  }
  if (is_one(r, node, swept)) return add_value(r, node, axis, &room);
  if (node->data.sequence.items.start == node->data.sequence.items.top)
    return mg_config_error(r->origin, node, "%s: is empty; a list of values was expected", r->key);
  for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++)
    MG_TRY(add_value(r, yaml_document_get_node(r->document, *i), axis, &room), done);
done:
  return status;
}

/* Are all values maps? Then an axis may be called what it likes. */
static bool all_maps(yaml_document_t *document, const yaml_node_t *node) {
  if (node->type != YAML_SEQUENCE_NODE) return node->type == YAML_MAPPING_NODE;
  return node->data.sequence.items.start < node->data.sequence.items.top && !has_kind(document, node, YAML_SCALAR_NODE) &&
         !has_kind(document, node, YAML_SEQUENCE_NODE);
}

static bool is_sweep(const mg_option *o) {
  const char *dot = strrchr(o->key, '.');
  return dot != NULL && strcmp(dot, ".sweep") == 0;
}

static mg_status read_axis(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                           const yaml_node_t *key_node, const char *name, const yaml_node_t *node, mg_axis *axis) {
  mg_status status = MG_OK;
  mg_text key = {0}, yaml = {0};
  reading r = {.origin = origin, .document = document, .option = mg_term_option(name)};
  *axis = (mg_axis){0};
  if (r.option == NULL && (!all_maps(document, node) || strlen(name) > MG_LONGEST_NAME))
    return mg_term_unknown(origin, key_node, o->key, name, NULL);
  axis->name = mg_strdup(r.option != NULL ? strrchr(r.option->key, '.') + 1 : name);
  axis->place = mg_config_place(origin, key_node);
  mg_text_append(&key, "%s.%s", o->key, name);
  if (axis->name == NULL || axis->place == NULL || key.failed) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  r.key = key.data;
  MG_TRY(add_values(&r, node, is_sweep(o), axis), cleanup);
  MG_TRY(mg_flow_yaml(document, node, &yaml), cleanup);
  axis->yaml = yaml.data;
  yaml = (mg_text){0};
cleanup:
  mg_text_free(&key);
  mg_text_free(&yaml);
  if (status != MG_OK) axis_free(axis);
  return status;
}

/* ---- maps of axes ---- */

mg_status mg_axes_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                      mg_axes *axes) {
  mg_status status = MG_OK;
  mg_axes read = {0};
  mg_named_node *names = NULL;
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
  const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
  names = mg_alloc(count, sizeof *names);
  read.items = mg_alloc(count, sizeof *read.items);
  if (names == NULL || read.items == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *key = yaml_document_get_node(document, pairs[k].key);
    const char *name;
    MG_TRY(mg_scalar(origin, key, o->key, "a key", &name), cleanup);
    mg_axis *axis = &read.items[read.count];
    MG_TRY(read_axis(o, origin, document, key, name, yaml_document_get_node(document, pairs[k].value), axis), cleanup);
    names[read.count++] = (mg_named_node){.name = axis->name, .length = strlen(axis->name), .order = k, .node = key};
  }
  MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
  mg_axes_free(axes);
  *axes = read;
  read = (mg_axes){0};
cleanup:
  mg_axes_free(&read);
  free(names);
  return status;
}

mg_status mg_axes_set_one(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                          const yaml_node_t *key_node, const char *name, const yaml_node_t *node, mg_axes *axes) {
  mg_axis axis;
  mg_status status = read_axis(o, origin, document, key_node, name, node, &axis);
  if (status != MG_OK) return status;
  for (size_t k = 0; k < axes->count; k++) {
    if (strcmp(axes->items[k].name, axis.name) != 0) continue;
    axis_free(&axes->items[k]);
    axes->items[k] = axis;
    return MG_OK;
  }
  mg_axis *grown = reallocarray(axes->items, axes->count + 1, sizeof *grown);
  if (grown == NULL) {
    axis_free(&axis);
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  axes->items = grown;
  axes->items[axes->count++] = axis;
  return MG_OK;
}

mg_status mg_presets_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                         mg_axes *axes) {
  static const mg_option grid = {.key = "grid"};
  mg_axes read = {0};
  if (node->type == YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not a map", o->key, o->expected);
  const mg_status status = mg_axes_set_one(&grid, origin, document, node, "preset", node, &read);
  if (status != MG_OK) return status;
  mg_axes_free(axes);
  *axes = read;
  return MG_OK;
}
