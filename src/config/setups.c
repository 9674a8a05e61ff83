/* The models that the microscope looks at, and the texts it does so on. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

static const struct {
  const char *key;
  mg_setup_kind kind;
} KINDS[] = {{"source", MG_SETUP_SOURCE}, {"base", MG_SETUP_BASE}, {"path", MG_SETUP_PATH}, {"cell", MG_SETUP_CELL}};
enum { KIND_COUNT = sizeof KINDS / sizeof *KINDS, LONGEST_SETUP_KEY = 160 };

void mg_setup_free(mg_setup *setup) {
  mg_terms_free(&setup->terms);
  free(setup->name), free(setup->place), free(setup->what), free(setup->note), free(setup->yaml);
  *setup = (mg_setup){0};
}

static void free_setups(mg_microscope_spec *spec) {
  for (size_t k = 0; k < spec->setup_count; k++) mg_setup_free(&spec->setups[k]);
  free(spec->setups);
  spec->setups = NULL;
  spec->setup_count = 0;
}

static void free_probes(mg_microscope_spec *spec) {
  free(spec->probes.file), free(spec->probes.locale), free(spec->probes.partition);
  spec->probes.file = spec->probes.locale = spec->probes.partition = NULL;
  spec->probes.limit = 0;
}

void mg_microscope_spec_free(mg_microscope_spec *spec) {
  mg_setup_free(&spec->reference);
  free_setups(spec);
  free_probes(spec);
  free(spec->padding);
  *spec = (mg_microscope_spec){0};
}

/* ---- a setup ---- */

static mg_status unknown(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *name) {
  const char *names[MG_TERM_COUNT + KIND_COUNT + 1] = {"note"};
  size_t count = 1;
  for (size_t k = 0; k < KIND_COUNT; k++) names[count++] = KINDS[k].key;
  for (int t = 0; t < MG_TERM_COUNT; t++) names[count++] = mg_term_name((mg_term)t);
  const char *nearest = mg_nearest(name, names, count);
  return mg_config_error(origin, node,
                         "%s: '%.80s' is no known key%s%s%s; source, base, path, cell, note or keys that `recipe` has were "
                         "expected",
                         key, name, nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "");
}

static mg_status set_kind(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, mg_setup_kind kind,
                          const char *text, mg_setup *setup) {
  if (setup->kind != MG_SETUP_NONE)
    return mg_config_error(origin, node,
                           "%s: says more than one model; one of source, base, path and cell, or keys that `recipe` has, were "
                           "expected",
                           key);
  setup->kind = kind;
  if (kind == MG_SETUP_BASE && strcmp(text, "true") != 0)
    return mg_config_error(origin, node, "%s: base: '%s'; true was expected", key, text);
  if (kind == MG_SETUP_BASE) return MG_OK;
  if (kind == MG_SETUP_PATH) return mg_set_path(origin, text, &setup->what);
  setup->what = mg_strdup(text);
  return setup->what != NULL ? MG_OK : MG_ERR_NOMEM;
}

/* One key of a setup's map. */
static mg_status set_entry(const char *key, const mg_yaml_origin *origin, yaml_document_t *document,
                           const yaml_node_t *key_node, const char *name, const yaml_node_t *node, mg_setup *setup) {
  mg_status status = MG_OK;
  char whole[LONGEST_SETUP_KEY];
  const char *text;
  for (size_t k = 0; k < KIND_COUNT; k++)
    if (strcmp(name, KINDS[k].key) == 0) {
      MG_TRY(mg_scalar(origin, node, key, "one word", &text), done);
      return set_kind(origin, node, key, KINDS[k].kind, text, setup);
    }
  if (strcmp(name, "note") == 0) {
    MG_TRY(mg_scalar(origin, node, key, "a note", &text), done);
    setup->note = mg_strdup(text);
    return setup->note != NULL ? MG_OK : MG_ERR_NOMEM;
  }
  const mg_option *term = mg_term_option(name);
  if (term == NULL) return unknown(origin, key_node, key, name);
  if (setup->kind != MG_SETUP_NONE && setup->kind != MG_SETUP_RECIPE)
    return set_kind(origin, key_node, key, MG_SETUP_RECIPE, "", setup);
  setup->kind = MG_SETUP_RECIPE;
  snprintf(whole, sizeof whole, "%.100s.%.50s", key, name);
  MG_TRY(mg_term_set(term, whole, origin, document, node, MG_NO_VARIANT, &setup->terms), done);
done:
  return status;
}

static mg_status check_setup(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const mg_setup *setup) {
  if (setup->kind == MG_SETUP_NONE)
    return mg_config_error(origin, node, "%s: says no model; source, base, path, cell or keys that `recipe` has were expected",
                           key);
  if (setup->kind != MG_SETUP_RECIPE) return MG_OK;
  if (setup->terms.method == NULL || (setup->terms.sources.count == 0 && setup->terms.locale == NULL))
    return mg_config_error(origin, node, "%s: method, and either sources or locale, say what to merge: both were expected",
                           key);
  if (setup->terms.method->kind == MG_METHOD_VOTE)
    return mg_config_error(origin, node,
                           "%s: method %s is a vote over several models' answers: there is no one model to look at", key,
                           setup->terms.method->name);
  return MG_OK;
}

static mg_status read_setup(const char *key, const char *name, const mg_yaml_origin *origin, yaml_document_t *document,
                            const yaml_node_t *node, mg_setup *setup) {
  mg_status status = MG_OK;
  mg_text yaml = {0};
  mg_named_node *names = NULL;
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: a map such as {source: af-ZA} was expected, not %s", key, mg_node_kind(node));
  const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
  const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
  names = mg_alloc(count, sizeof *names);
  setup->name = mg_strdup(name);
  setup->place = mg_config_place(origin, node);
  if (names == NULL || setup->name == NULL || setup->place == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *key_node = yaml_document_get_node(document, pairs[k].key);
    const char *text;
    MG_TRY(mg_scalar(origin, key_node, key, "a key", &text), cleanup);
    names[k] = (mg_named_node){.name = text, .length = strlen(text), .order = k, .node = key_node};
  }
  if (count > 0) MG_TRY(mg_check_unique(origin, key, names, count), cleanup);
  for (size_t k = 0; k < count; k++) { /* checking has sorted the names */
    const yaml_node_t *key_node = yaml_document_get_node(document, pairs[k].key);
    MG_TRY(set_entry(key, origin, document, key_node, (const char *)key_node->data.scalar.value,
                     yaml_document_get_node(document, pairs[k].value), setup),
           cleanup);
  }
  MG_TRY(check_setup(origin, node, key, setup), cleanup);
  MG_TRY(mg_flow_yaml(document, node, &yaml), cleanup);
  if (setup->note == NULL) setup->note = mg_strdup("");
  setup->yaml = mg_strdup(yaml.data);
  if (setup->note == NULL || setup->yaml == NULL) status = MG_ERR_NOMEM;
cleanup:
  mg_text_free(&yaml);
  free(names);
  return status;
}

mg_status mg_setup_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                       mg_setup *field) {
  mg_setup setup = {0};
  const mg_status status = read_setup(o->key, "reference", origin, document, node, &setup);
  mg_setup_free(status == MG_OK ? field : &setup);
  if (status == MG_OK) *field = setup;
  return status;
}

/* ---- all of them ---- */

mg_status mg_setups_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                        mg_microscope_spec *spec) {
  mg_status status = MG_OK;
  free_setups(spec);
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
  const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
  mg_named_node *names = mg_alloc(count, sizeof *names);
  spec->setups = mg_alloc_zero(count, sizeof *spec->setups);
  if (names == NULL || spec->setups == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    char key[LONGEST_SETUP_KEY];
    const yaml_node_t *key_node = yaml_document_get_node(document, pairs[k].key);
    const char *name;
    MG_TRY(mg_scalar(origin, key_node, o->key, "a setup's name", &name), cleanup);
    MG_TRY(mg_check_id(origin, key_node, o->key, name, strlen(name)), cleanup);
    if (strcmp(name, "reference") == 0) {
      status = mg_config_error(origin, key_node, "%s: a setup can't be called reference: that is microscope.reference", o->key);
      goto cleanup;
    }
    snprintf(key, sizeof key, "%s.%.100s", o->key, name);
    names[k] = (mg_named_node){.name = name, .length = strlen(name), .order = k, .node = key_node};
    spec->setup_count = k + 1;
    MG_TRY(read_setup(key, name, origin, document, yaml_document_get_node(document, pairs[k].value), &spec->setups[k]),
           cleanup);
  }
  if (count > 0) MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names);
  return status;
}

/* ---- probes ---- */

static mg_status set_probe(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *key_node,
                           const yaml_node_t *node, mg_microscope_spec *spec) {
  mg_status status = MG_OK;
  const char *name, *text;
  char *end;
  MG_TRY(mg_scalar(origin, key_node, o->key, "a key", &name), done);
  MG_TRY(mg_scalar(origin, node, o->key, "one word", &text), done);
  if (strcmp(name, "limit") == 0) {
    const long number = strtol(text, &end, 10);
    if (*end != '\0' || number < 1 || number > 1000000 || spec->probes.limit != 0)
      return mg_config_error(origin, node, "%s: limit: '%s'; a whole number from 1 to 1000000 was expected, once", o->key,
                             text);
    spec->probes.limit = (int)number;
    return MG_OK;
  }
  char **field = strcmp(name, "locale") == 0      ? &spec->probes.locale
                 : strcmp(name, "partition") == 0 ? &spec->probes.partition
                                                  : NULL;
  if (field == NULL)
    return mg_config_error(origin, key_node, "%s: '%.80s' is no known key; locale, partition and limit were expected", o->key,
                           name);
  if (*field != NULL) return mg_config_error(origin, key_node, "%s: '%s' is there twice", o->key, name);
  if (field == &spec->probes.locale) MG_TRY(mg_check_id(origin, node, o->key, text, strlen(text)), done);
  *field = mg_strdup(text);
  if (*field == NULL) status = MG_ERR_NOMEM;
done:
  return status;
}

mg_status mg_probes_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                        mg_microscope_spec *spec) {
  mg_status status = MG_OK;
  const char *text;
  free_probes(spec);
  if (mg_node_is_empty(node)) return MG_OK;
  if (node->type != YAML_MAPPING_NODE) {
    MG_TRY(mg_scalar(origin, node, o->key, o->expected, &text), done);
    return mg_set_path(origin, text, &spec->probes.file);
  }
  for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++)
    MG_TRY(set_probe(o, origin, yaml_document_get_node(document, p->key), yaml_document_get_node(document, p->value), spec),
           done);
  if (spec->probes.locale == NULL) return mg_config_error(origin, node, "%s: locale is missing", o->key);
  if (spec->probes.partition == NULL) spec->probes.partition = mg_strdup("test");
  if (spec->probes.partition == NULL) status = MG_ERR_NOMEM;
done:
  return status;
}
