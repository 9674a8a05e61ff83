/* Lists of strings, by the option's type. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

static mg_status set_item(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *item, const char **text) {
  int choice;
  const mg_status status = mg_scalar(origin, item, o->key, "a string", text);
  if (status != MG_OK) return status;
  if (o->type == MG_OPTION_CHOICES) return mg_choice_set(o, origin, item, &choice);
  return o->type == MG_OPTION_LOCALES || o->type == MG_OPTION_TARGETS ? mg_check_id(origin, item, o->key, *text, strlen(*text))
                                                                      : MG_OK;
}

mg_status mg_list_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                      mg_strings *field) {
  mg_status status = MG_OK;
  mg_strings list = {0};
  if (node->type != YAML_SEQUENCE_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  const yaml_node_item_t *items = node->data.sequence.items.start;
  const size_t count = (size_t)(node->data.sequence.items.top - items);
  if (o->type == MG_OPTION_CHOICES && count == 0)
    return mg_config_error(origin, node, "%s: is empty; %s was expected", o->key, o->expected);
  mg_named_node *names = mg_alloc(count, sizeof *names);
  if (names == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *item = yaml_document_get_node(document, items[k]);
    const char *text;
    MG_TRY(set_item(o, origin, item, &text), cleanup);
    names[k] = (mg_named_node){.name = text, .length = strlen(text), .order = k, .node = item};
    MG_TRY(mg_strings_add(&list, text), cleanup);
  }
  MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
  mg_strings_free(field);
  *field = list;
  list = (mg_strings){0};
cleanup:
  mg_strings_free(&list);
  free(names);
  return status;
}

/* A word, or a list. */
mg_status mg_layers_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                        mg_strings *field) {
  mg_status status = MG_OK;
  mg_strings one = {0};
  const char *text;
  if (node->type == YAML_SEQUENCE_NODE) {
    if (node->data.sequence.items.start == node->data.sequence.items.top)
      return mg_config_error(origin, node, "%s: is empty; %s was expected", o->key, o->expected);
    MG_TRY(mg_list_set(o, origin, document, node, field), done);
    if (o->type == MG_OPTION_TARGETS) return MG_OK;
    for (size_t k = 0; k < field->count; k++)
      if (strspn(field->items[k], "0123456789") != strlen(field->items[k]) || strlen(field->items[k]) > 4)
        return mg_config_error(origin, node, "%s: '%s'; %s was expected", o->key, field->items[k], o->expected);
    return MG_OK;
  }
  MG_TRY(mg_scalar(origin, node, o->key, o->expected, &text), done);
  if ((strcmp(text, "last") != 0 || o->type == MG_OPTION_TARGETS) && strcmp(text, "all") != 0)
    return mg_config_error(origin, node, "%s: '%s'; %s was expected", o->key, text, o->expected);
  MG_TRY(mg_strings_add(&one, text), done);
  mg_strings_free(field);
  *field = one;
done:
  return status;
}

mg_status mg_files_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                       mg_strings *field) {
  mg_status status = MG_OK;
  char *path = NULL;
  mg_strings paths = {0};
  MG_TRY(mg_list_set(o, origin, document, node, field), cleanup);
  for (size_t k = 0; k < field->count; k++) {
    MG_TRY(mg_set_path(origin, field->items[k], &path), cleanup);
    MG_TRY(mg_strings_add(&paths, path), cleanup);
  }
  mg_strings_free(field);
  *field = paths;
  paths = (mg_strings){0};
cleanup:
  mg_strings_free(&paths);
  free(path);
  return status;
}
