/* YAML text to the configuration: strict about keys, by the table of options. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

enum { LONGEST_KEY = 128 };

/* Top-level keys and keys of sections that belong to later stages. */
static const char *const LATER[] = {"texts", "nxn", "grid", "reuse", "recipe", "microscope", "compatibility.cka"};

static const mg_option *find_option(const char *key) {
  for (size_t k = 0; k < mg_option_count; k++)
    if (strcmp(mg_options[k].key, key) == 0) return &mg_options[k];
  return NULL;
}

static bool is_section(const char *key) {
  const size_t length = strlen(key);
  for (size_t k = 0; k < mg_option_count; k++)
    if (strncmp(mg_options[k].key, key, length) == 0 && mg_options[k].key[length] == '.') return true;
  return false;
}

static mg_status unknown_key(const mg_yaml_origin *origin, const yaml_node_t *node, const char *prefix, const char *name,
                             const char *full) {
  const char *names[64] = {NULL};
  char parts[64][LONGEST_KEY];
  size_t count = 0;
  const size_t skip = strlen(prefix);
  for (size_t k = 0; k < sizeof LATER / sizeof *LATER; k++)
    if (strcmp(full, LATER[k]) == 0)
      return mg_config_error(origin, node, "'%s' belongs to a stage that is not in this version", full);
  for (size_t k = 0; k < mg_option_count; k++) {
    if (strncmp(mg_options[k].key, prefix, skip) != 0) continue;
    const char *rest = mg_options[k].key + skip;
    snprintf(parts[count], LONGEST_KEY, "%.*s", (int)strcspn(rest, "."), rest);
    names[count] = parts[count];
    count++;
  }
  const char *nearest = mg_nearest(name, names, count);
  if (nearest != NULL)
    return mg_config_error(origin, node, "'%s' is no known key; the nearest is '%s%s'", full, prefix, nearest);
  mg_text all = {0};
  for (size_t k = 0; k < count; k++) {
    bool repeated = false;
    for (size_t j = 0; j < k; j++) repeated = repeated || strcmp(names[j], names[k]) == 0;
    if (!repeated) mg_text_append(&all, "%s%s%s", all.size ? ", " : "", prefix, names[k]);
  }
  const mg_status status = mg_config_error(origin, node, "'%s' is no known key; known: %s", full, all.data ? all.data : "none");
  mg_text_free(&all);
  return status;
}

static mg_status apply(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *key_node, const char *prefix,
                       const char *name, const yaml_node_t *value, mg_config *config);

static mg_status apply_map(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *map, const char *prefix,
                           mg_config *config) {
  mg_status status = MG_OK;
  const char *what = prefix[0] ? prefix : "the configuration";
  if (map->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, map, "%.*s: a map of keys was expected", (int)strcspn(what, "\n"), what);
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *key = yaml_document_get_node(document, p->key);
    const char *name;
    MG_TRY(mg_scalar(origin, key, "a key", "a name", &name), done);
    for (const yaml_node_pair_t *q = map->data.mapping.pairs.start; q < p; q++) {
      const yaml_node_t *earlier = yaml_document_get_node(document, q->key);
      if (earlier->type == YAML_SCALAR_NODE && strcmp((const char *)earlier->data.scalar.value, name) == 0)
        return mg_config_error(origin, key, "'%s%s' is there twice (first in line %zu)", prefix, name,
                               earlier->start_mark.line + 1);
    }
    MG_TRY(apply(origin, document, key, prefix, name, yaml_document_get_node(document, p->value), config), done);
  }
done:
  return status;
}

static mg_status apply(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *key_node, const char *prefix,
                       const char *name, const yaml_node_t *value, mg_config *config) {
  char full[2 * LONGEST_KEY], section[2 * LONGEST_KEY + 1];
  if (strlen(prefix) + strlen(name) >= LONGEST_KEY)
    return mg_config_error(origin, key_node, "a key of %zu bytes", strlen(name));
  snprintf(full, sizeof full, "%s%s", prefix, name);
  const mg_option *option = find_option(full);
  if (option != NULL) {
    return mg_option_set(option, origin, document, value, config);
  }
  if (!is_section(full)) return unknown_key(origin, key_node, prefix, name, full);
  snprintf(section, sizeof section, "%s.", full);
  return apply_map(origin, document, value, section, config);
}

static mg_status parser_error(const mg_yaml_origin *origin, const yaml_parser_t *parser) {
  const yaml_mark_t *at =
      parser->problem_mark.line || parser->problem_mark.column ? &parser->problem_mark : &parser->context_mark;
  const char *problem = parser->problem ? parser->problem : "is no valid YAML";
  if (parser->error == YAML_MEMORY_ERROR) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (parser->error == YAML_READER_ERROR)
    return mg_fail(MG_ERR_CONFIG, "%s: byte %zu: is no valid YAML text: %s", origin->label, parser->problem_offset, problem);
  if (!origin->positions) return mg_fail(MG_ERR_CONFIG, "%s: no valid YAML: %s", origin->label, problem);
  return mg_fail(MG_ERR_CONFIG, "%s:%zu:%zu: no valid YAML: %s", origin->label, at->line + 1, at->column + 1, problem);
}

typedef mg_status (*use_root_fn)(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root,
                                 void *context);

/* Loads the one document of a text and hands its root on. */
static mg_status with_document(const mg_yaml_origin *origin, const char *text, size_t size, use_root_fn use, void *context) {
  mg_status status = MG_OK;
  yaml_parser_t parser;
  yaml_document_t document, second;
  if (!yaml_parser_initialize(&parser)) return mg_fail(MG_ERR_NOMEM, "out of memory");
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  if (!yaml_parser_load(&parser, &document)) {
    status = parser_error(origin, &parser);
    yaml_parser_delete(&parser);
    return status;
  }
  const yaml_node_t *root = yaml_document_get_root_node(&document);
  if (root == NULL) {
    status = mg_config_error(origin, NULL, "is empty");
  } else if (!yaml_parser_load(&parser, &second)) {
    status = parser_error(origin, &parser);
  } else {
    const yaml_node_t *more = yaml_document_get_root_node(&second);
    status = more != NULL ? mg_config_error(origin, more, "a second YAML document begins; one was expected")
                          : use(origin, &document, root, context);
    yaml_document_delete(&second);
  }
  yaml_document_delete(&document);
  yaml_parser_delete(&parser);
  return status;
}

typedef struct target {
  mg_config *config;
  const char *key; /* of a setting */
} target;

static mg_status use_file(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root, void *context) {
  const target *to = context;
  return apply_map(origin, document, root, "", to->config);
}

static mg_status use_setting(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root, void *context) {
  const target *to = context;
  char prefix[LONGEST_KEY];
  const char *dot = strrchr(to->key, '.');
  const size_t length = dot != NULL ? (size_t)(dot - to->key) + 1 : 0;
  if (length >= sizeof prefix) return mg_config_error(origin, NULL, "a key of %zu bytes", strlen(to->key));
  memcpy(prefix, to->key, length);
  prefix[length] = '\0';
  return apply(origin, document, NULL, prefix, to->key + length, root, to->config);
}

static mg_status apply_defaults(mg_config *config) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < mg_option_count; k++) {
    const mg_option *o = &mg_options[k];
    /* A default path is relative to the file like one that is written there. */
    char *dir = mg_path_dirname(config->file);
    const mg_yaml_origin origin = {.label = o->key, .dir = dir};
    target to = {.config = config, .key = o->key};
    if (dir == NULL) status = MG_ERR_NOMEM;
    if (status == MG_OK && o->initial != NULL)
      status = with_document(&origin, o->initial, strlen(o->initial), use_setting, &to);
    free(dir);
    if (status != MG_OK) return status;
  }
  return MG_OK;
}

static mg_status apply_settings(const mg_strings *settings, const char *dir, target *to) {
  mg_status status = MG_OK;
  for (size_t k = 0; settings != NULL && k < settings->count && status == MG_OK; k++) {
    const char *setting = settings->items[k], *equals = strchr(setting, '=');
    char *label = NULL, *key = equals != NULL ? strndup(setting, (size_t)(equals - setting)) : NULL;
    if (equals == NULL) return mg_fail(MG_ERR_CONFIG, "--set %s: KEY=VALUE was expected", setting);
    if (key == NULL || asprintf(&label, "--set %s", setting) < 0) {
      free(key);
      return mg_fail(MG_ERR_NOMEM, "out of memory");
    }
    const mg_yaml_origin origin = {.label = label, .dir = dir};
    to->key = key;
    status = with_document(&origin, equals + 1, strlen(equals + 1), use_setting, to);
    free(label);
    free(key);
  }
  return status;
}

static mg_status check_required(const mg_config *config) {
  if (config->family.base == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: family.base is missing: the base checkpoint's directory was expected", config->file);
  if (config->family.pattern == NULL && config->family.entry_count == 0)
    return mg_fail(MG_ERR_CONFIG, "%s: family.sources is missing: a pattern with {locale}, a list or a map was expected",
                   config->file);
  return MG_OK;
}

mg_status mg_config_parse(const char *file, const char *text, size_t size, const mg_strings *settings, mg_config **out) {
  mg_status status = MG_OK;
  char *dir = mg_path_dirname(file);
  mg_config *config = mg_alloc_zero(1, sizeof *config);
  if (config == NULL || dir == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  config->file = mg_strdup(file);
  if (config->file == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(apply_defaults(config), cleanup);
  const mg_yaml_origin origin = {.label = file, .positions = true, .dir = dir};
  target to = {.config = config};
  MG_TRY(with_document(&origin, text, size, use_file, &to), cleanup);
  MG_TRY(apply_settings(settings, dir, &to), cleanup);
  MG_TRY(check_required(config), cleanup);
  *out = config;
  config = NULL;
cleanup:
  mg_config_free(&config);
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
  free(c->file), free(c->shards.dir), free(c->compute.backend), free(c->compute.precision), free(c->result);
  free(c);
  *config = NULL;
}
