/* YAML text to the configuration: strict about keys, by the table of options. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

enum { LONGEST_KEY = 128 };

static const mg_option *find_option(const char *key) {
  for (size_t k = 0; k < mg_option_count; k++)
    if (strcmp(mg_options[k].key, key) == 0) return &mg_options[k];
  return NULL;
}

/* Is the prefix that of axes ("grid.sweep.")? Then any term may stand behind it. */
static const mg_option *find_axes(const char *prefix) {
  const size_t length = strlen(prefix);
  for (size_t k = 0; k < mg_option_count && length > 0; k++) {
    const char *key = mg_options[k].key;
    if (mg_options[k].type == MG_OPTION_AXES && strlen(key) == length - 1 && strncmp(key, prefix, length - 1) == 0)
      return &mg_options[k];
  }
  return NULL;
}

/* Do keys begin with this ("family.")? */
static bool is_section_prefix(const char *prefix) {
  const size_t length = strlen(prefix);
  if (length == 0 || prefix[length - 1] != '.') return false;
  for (size_t k = 0; k < mg_option_count; k++)
    if (strncmp(mg_options[k].key, prefix, length) == 0) return true;
  return false;
}

static bool is_section(const char *key) {
  char prefix[LONGEST_KEY + 1];
  snprintf(prefix, sizeof prefix, "%s.", key);
  return is_section_prefix(prefix);
}

/* What may stand behind prefix ("" or "family."): keys and sections, each once. Whole keys if nothing may. */
static mg_status list_known(const char *prefix, mg_strings *known) {
  mg_status status = MG_OK;
  const bool section = prefix[0] == '\0' || is_section_prefix(prefix);
  const size_t skip = section ? strlen(prefix) : 0;
  for (size_t k = 0; k < mg_option_count; k++) {
    char name[LONGEST_KEY];
    if (strncmp(mg_options[k].key, prefix, skip) != 0) continue;
    const char *rest = mg_options[k].key + skip;
    snprintf(name, sizeof name, "%.*s", section ? (int)strcspn(rest, ".") : (int)strlen(rest), rest);
    if (mg_strings_find(known, name) < 0) MG_TRY(mg_strings_add(known, name), done);
  }
done:
  return status;
}

static mg_status unknown_key(const mg_yaml_origin *origin, const yaml_node_t *node, const char *prefix, const char *name,
                             const char *full) {
  mg_status status = MG_OK;
  mg_strings known = {0};
  mg_text all = {0};
  MG_TRY(list_known(prefix, &known), cleanup);
  const bool section = prefix[0] == '\0' || is_section_prefix(prefix);
  const char *front = section ? prefix : "";
  const char *nearest = mg_nearest(section ? name : full, (const char *const *)known.items, known.count);
  for (size_t k = 0; k < known.count; k++) mg_text_append(&all, "%s%s%s", k ? ", " : "", front, known.items[k]);
  if (nearest != NULL)
    status = mg_config_error(origin, node, "'%s' is no known key; the nearest is '%s%s'", full, front, nearest);
  else
    status = mg_config_error(origin, node, "'%s' is no known key; known: %s", full, all.data != NULL ? all.data : "none");
cleanup:
  mg_text_free(&all);
  mg_strings_free(&known);
  return status;
}

static mg_status apply(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *key_node, const char *prefix,
                       const char *name, const yaml_node_t *value, mg_config *config);

/* A section's keys; section is "" for the whole file. */
static mg_status apply_map(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *map, const char *section,
                           mg_config *config) {
  mg_status status = MG_OK;
  char prefix[LONGEST_KEY + 1];
  const char *what = section[0] ? section : "the file", *points = section[0] ? "." : "";
  if (mg_node_is_empty(map)) return mg_config_error(origin, map, "%s: is empty; a map of keys was expected", what);
  if (map->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, map, "%s: a map of keys was expected, not %s", what, mg_node_kind(map));
  snprintf(prefix, sizeof prefix, "%s%s", section, points);
  const yaml_node_pair_t *pairs = map->data.mapping.pairs.start;
  for (const yaml_node_pair_t *p = pairs; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *key = yaml_document_get_node(document, p->key);
    const char *name;
    MG_TRY(mg_scalar(origin, key, "a key", "a name", &name), done);
    /* the first unknown key ends it, so there are never more than the table has */
    for (const yaml_node_pair_t *q = pairs; q < p; q++) {
      const yaml_node_t *earlier = yaml_document_get_node(document, q->key);
      if (strcmp((const char *)earlier->data.scalar.value, name) == 0)
        return mg_config_error(origin, key, "'%s%s' is there twice, first in line %zu", prefix, name,
                               earlier->start_mark.line + 1);
    }
    MG_TRY(apply(origin, document, key, prefix, name, yaml_document_get_node(document, p->value), config), done);
  }
done:
  return status;
}

static mg_status apply(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *key_node, const char *prefix,
                       const char *name, const yaml_node_t *value, mg_config *config) {
  char full[LONGEST_KEY];
  const size_t before = strlen(prefix), own = strlen(name);
  if (before + own >= sizeof full) return mg_config_error(origin, key_node, "a key of %zu bytes is no known key", before + own);
  memcpy(full, prefix, before);
  memcpy(full + before, name, own + 1);
  const mg_option *option = find_option(full);
  /* `shards: DIR` is short for the map with dir */
  if (strcmp(full, "shards") == 0 && value->type == YAML_SCALAR_NODE) option = find_option("shards.dir");
  if (option != NULL) return mg_option_set(option, origin, document, value, config);
  const mg_option *axes = find_axes(prefix);
  if (axes != NULL)
    return mg_axes_set_one(axes, origin, document, key_node, name, value, (mg_axes *)((char *)config + axes->field));
  return is_section(full) ? apply_map(origin, document, value, full, config)
                          : unknown_key(origin, key_node, prefix, name, full);
}

typedef struct target {
  mg_config *config;
  const char *key; /* of a setting */
} target;

static mg_status use_file(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root, void *context) {
  const target *to = context;
  if (root == NULL) return mg_fail(MG_ERR_CONFIG, "%s:1:1: the file is empty; a map of keys was expected", origin->label);
  return apply_map(origin, document, root, "", to->config);
}

static mg_status apply_defaults(const char *section, const char *dir, mg_config *config);

static mg_status use_setting(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root, void *context) {
  mg_status status = MG_OK;
  const target *to = context;
  char prefix[LONGEST_KEY];
  const char *dot = strrchr(to->key, '.');
  const size_t length = dot != NULL ? (size_t)(dot - to->key) + 1 : 0;
  if (length >= sizeof prefix) return mg_config_error(origin, NULL, "a key of %zu bytes is no known key", strlen(to->key));
  memcpy(prefix, to->key, length);
  prefix[length] = '\0';
  if (root == NULL) return mg_config_error(origin, NULL, "%s: is empty; a value was expected", to->key);
  /* a value that is given for a section replaces all of it */
  if (strlen(to->key) < LONGEST_KEY && is_section(to->key)) MG_TRY(apply_defaults(to->key, origin->dir, to->config), done);
  MG_TRY(apply(origin, document, NULL, prefix, to->key + length, root, to->config), done);
done:
  return status;
}

/* Of the keys of a section, or of all with "". */
static mg_status apply_defaults(const char *section, const char *dir, mg_config *config) {
  mg_status status = MG_OK;
  const size_t length = strlen(section);
  for (size_t k = 0; k < mg_option_count && status == MG_OK; k++) {
    const mg_option *o = &mg_options[k];
    /* A default path is relative to the file like one that is written there. */
    const mg_yaml_origin origin = {.label = o->key, .dir = dir};
    target to = {.config = config, .key = o->key};
    if (length > 0 && (strncmp(o->key, section, length) != 0 || o->key[length] != '.')) continue;
    if (o->initial == NULL)
      mg_option_clear(o, config);
    else
      status = mg_yaml_read(&origin, o->initial, strlen(o->initial), use_setting, &to);
    config->recipe.given &= ~o->term;
  }
  return status;
}

static mg_status apply_setting(const char *setting, const char *dir, mg_config *config) {
  mg_status status = MG_OK;
  char *label = NULL, *key = NULL;
  const char *equals = strchr(setting, '=');
  if (equals == NULL) return mg_fail(MG_ERR_USAGE, "--set %s: KEY=VALUE was expected", setting);
  key = strndup(setting, (size_t)(equals - setting));
  if (key == NULL || asprintf(&label, "--set %s", setting) < 0) {
    free(key);
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  const mg_yaml_origin origin = {.label = label, .dir = dir};
  target to = {.config = config, .key = key};
  status = mg_yaml_read(&origin, equals + 1, strlen(equals + 1), use_setting, &to);
  free(label);
  free(key);
  return status;
}

mg_status mg_config_parse_in(const char *dir, const char *file, const char *text, size_t size, const mg_strings *settings,
                             mg_config **out) {
  mg_status status = MG_OK;
  mg_config *config = mg_alloc_zero(1, sizeof *config);
  if (config == NULL) return MG_ERR_NOMEM;
  config->file = mg_strdup(file);
  if (config->file == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(apply_defaults("", dir, config), cleanup);
  MG_TRY(mg_terms_copy(&config->recipe, &config->grid.defaults), cleanup);
  const mg_yaml_origin origin = {.label = file, .positions = true, .dir = dir};
  target to = {.config = config};
  MG_TRY(mg_yaml_read(&origin, text, size, use_file, &to), cleanup);
  for (size_t k = 0; settings != NULL && k < settings->count; k++)
    MG_TRY(apply_setting(settings->items[k], dir, config), cleanup);
  MG_TRY(mg_grid_assemble(config), cleanup);
  MG_TRY(mg_config_check(config), cleanup);
  *out = config;
  config = NULL;
cleanup:
  mg_config_free(&config);
  return status;
}

mg_status mg_config_parse(const char *file, const char *text, size_t size, const mg_strings *settings, mg_config **out) {
  char *dir = mg_path_dirname(file);
  if (dir == NULL) return MG_ERR_NOMEM;
  const mg_status status = mg_config_parse_in(dir, file, text, size, settings, out);
  free(dir);
  return status;
}

void mg_config_free(mg_config **config) {
  mg_config *c = *config;
  if (c == NULL) return;
  mg_family_spec_free(&c->family);
  mg_strings_free(&c->stages);
  mg_strings_free(&c->compatibility.metrics);
  mg_strings_free(&c->compatibility.exclude);
  mg_strings_free(&c->compatibility.cka.layers);
  free(c->compatibility.cka.locale), free(c->compatibility.cka.partition), free(c->compatibility.cka.pool);
  free(c->texts.files), free(c->texts.id), free(c->texts.text), free(c->texts.label), free(c->texts.partition);
  free(c->texts.labels), free(c->nxn.partition), free(c->nxn.select);
  mg_strings_free(&c->nxn.targets);
  mg_terms_free(&c->recipe);
  mg_grid_spec_free(&c->grid);
  mg_microscope_spec_free(&c->microscope);
  mg_strings_free(&c->reuse);
  free(c->file), free(c->shards.dir), free(c->shards.stage_to), free(c->compute.backend), free(c->compute.precision),
      free(c->result);
  free(c);
  *config = NULL;
}
