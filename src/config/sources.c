/* family.sources: a pattern, a list of directories, or a map of ids. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

static const char PLACE[] = "{locale}";

/* What a file system takes for one name. */
enum { LONGEST_ID = 255 };

static mg_status add_entry(mg_family_spec *spec, const char *id, const char *locale, const char *path) {
  mg_source *e = &spec->entries[spec->entry_count++];
  *e = (mg_source){.id = id ? mg_strdup(id) : NULL, .locale = locale ? mg_strdup(locale) : NULL, .path = mg_strdup(path)};
  return e->path != NULL && (!id || e->id) && (!locale || e->locale) ? MG_OK : MG_ERR_NOMEM;
}

void mg_sources_clear(mg_family_spec *spec) {
  mg_family_spec old = {.pattern = spec->pattern, .entries = spec->entries, .entry_count = spec->entry_count};
  spec->pattern = NULL;
  spec->entries = NULL;
  spec->entry_count = 0;
  mg_family_spec_free(&old);
}

mg_status mg_check_id(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *id, size_t length) {
  const bool dots = (length == 1 && id[0] == '.') || (length == 2 && id[0] == '.' && id[1] == '.');
  if (length == 0 || dots)
    return mg_config_error(origin, node, "%s: '%.*s' can't be the name of a source", key, (int)length, id);
  if (length > LONGEST_ID)
    return mg_config_error(origin, node, "%s: a source's name of %zu bytes; at most %d were expected", key, length, LONGEST_ID);
  for (size_t k = 0; k < length; k++)
    if ((unsigned char)id[k] < 0x20 || id[k] == 0x7F || id[k] == '/')
      return mg_config_error(origin, node, "%s: a source's name may hold neither '/' nor control characters", key);
  return MG_OK;
}

/* ---- a list ---- */

/* The last component of a path, which is the source's id. */
static mg_named_node last_component(const char *path, const yaml_node_t *node, size_t order) {
  size_t end = strlen(path), begin;
  while (end > 0 && path[end - 1] == '/') end--;
  for (begin = end; begin > 0 && path[begin - 1] != '/';) begin--;
  return (mg_named_node){.name = path + begin, .length = end - begin, .order = order, .node = node};
}

static mg_status set_list(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                          mg_family_spec *spec) {
  mg_status status = MG_OK;
  const yaml_node_item_t *items = node->data.sequence.items.start;
  const size_t count = (size_t)(node->data.sequence.items.top - items);
  char *path = NULL;
  mg_named_node *names = mg_alloc(count, sizeof *names);
  spec->kind = MG_SOURCES_LIST;
  spec->entries = mg_alloc(count, sizeof *spec->entries);
  if (names == NULL || spec->entries == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *item = yaml_document_get_node(document, items[k]);
    const char *text;
    MG_TRY(mg_scalar(origin, item, o->key, "a directory", &text), cleanup);
    names[k] = last_component(text, item, k);
    MG_TRY(mg_check_id(origin, item, o->key, names[k].name, names[k].length), cleanup);
    MG_TRY(mg_set_path(origin, text, &path), cleanup);
    MG_TRY(add_entry(spec, NULL, NULL, path), cleanup);
  }
  status = count > 0 ? mg_check_unique(origin, o->key, names, count)
                     : mg_config_error(origin, node, "%s: the list is empty; directories were expected", o->key);
cleanup:
  free(path);
  free(names);
  return status;
}

/* ---- a map ---- */

/* {path: …, locale: …} */
static mg_status read_entry_map(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                                const yaml_node_t *node, const char **path, const char **locale) {
  mg_status status = MG_OK;
  for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
    const yaml_node_t *key = yaml_document_get_node(document, p->key), *value = yaml_document_get_node(document, p->value);
    const char *name;
    MG_TRY(mg_scalar(origin, key, o->key, "path or locale", &name), done);
    const char **to = strcmp(name, "path") == 0 ? path : strcmp(name, "locale") == 0 ? locale : NULL;
    if (to == NULL) return mg_config_error(origin, key, "%s: '%s' is unknown; path and locale were expected", o->key, name);
    if (*to != NULL) return mg_config_error(origin, key, "%s: '%s' is there twice", o->key, name);
    MG_TRY(mg_scalar(origin, value, o->key, to == path ? "a directory" : "a locale", to), done);
    if (to == locale) MG_TRY(mg_check_id(origin, value, o->key, *locale, strlen(*locale)), done);
  }
  if (*path == NULL) return mg_config_error(origin, node, "%s: an entry has no path", o->key);
done:
  return status;
}

static mg_status set_entry(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document,
                           const yaml_node_pair_t *pair, mg_family_spec *spec, mg_named_node *name) {
  mg_status status = MG_OK;
  const yaml_node_t *key = yaml_document_get_node(document, pair->key);
  const yaml_node_t *value = yaml_document_get_node(document, pair->value);
  const char *id, *text = NULL, *locale = NULL;
  char *path = NULL;
  MG_TRY(mg_scalar(origin, key, o->key, "an id", &id), cleanup);
  MG_TRY(mg_check_id(origin, key, o->key, id, strlen(id)), cleanup);
  if (value->type == YAML_MAPPING_NODE)
    MG_TRY(read_entry_map(o, origin, document, value, &text, &locale), cleanup);
  else
    MG_TRY(mg_scalar(origin, value, o->key, "a directory, or {path: …, locale: …}", &text), cleanup);
  MG_TRY(mg_set_path(origin, text, &path), cleanup);
  *name = (mg_named_node){.name = id, .length = strlen(id), .order = spec->entry_count, .node = key};
  MG_TRY(add_entry(spec, id, locale, path), cleanup);
cleanup:
  free(path);
  return status;
}

static mg_status set_map(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                         mg_family_spec *spec) {
  mg_status status = MG_OK;
  const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
  const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
  mg_named_node *names = mg_alloc(count, sizeof *names);
  spec->kind = MG_SOURCES_MAP;
  spec->entries = mg_alloc(count, sizeof *spec->entries);
  if (names == NULL || spec->entries == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) MG_TRY(set_entry(o, origin, document, &pairs[k], spec, &names[k]), cleanup);
  status = count > 0 ? mg_check_unique(origin, o->key, names, count)
                     : mg_config_error(origin, node, "%s: the map is empty; ids and directories were expected", o->key);
cleanup:
  free(names);
  return status;
}

/* ---- a pattern ---- */

static mg_status set_pattern(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, mg_family_spec *spec) {
  mg_status status = MG_OK;
  const char *text;
  MG_TRY(mg_scalar(origin, node, o->key, o->expected, &text), done);
  spec->kind = MG_SOURCES_PATTERN;
  MG_TRY(mg_set_path(origin, text, &spec->pattern), done);
  const char *place = strstr(spec->pattern, PLACE);
  if (place == NULL)
    return mg_config_error(origin, node, "%s: '%s' has no {locale} in it; %s was expected", o->key, text, o->expected);
  if (strstr(place + 1, PLACE) != NULL)
    return mg_config_error(origin, node, "%s: %s has {locale} more than once", o->key, spec->pattern);
done:
  return status;
}

mg_status mg_sources_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                         mg_family_spec *spec) {
  mg_sources_clear(spec);
  if (node->type == YAML_SEQUENCE_NODE) return set_list(o, origin, document, node, spec);
  if (node->type == YAML_MAPPING_NODE) return set_map(o, origin, document, node, spec);
  return set_pattern(o, origin, node, spec);
}
