/* A YAML node as text again: in flow style, in one line. */

#include <string.h>

#include "config_impl.h"

/* Can a plain scalar stay as it is, also between brackets and commas? */
static bool stays_plain(const yaml_node_t *node) {
  static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-/";
  const char *text = (const char *)node->data.scalar.value;
  return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && text[strspn(text, safe)] == '\0';
}

static void write_scalar(const yaml_node_t *node, mg_text *text) {
  if (mg_node_is_empty(node)) {
    mg_text_append(text, "null");
  } else if (stays_plain(node)) {
    mg_text_append(text, "%s", (const char *)node->data.scalar.value);
  } else {
    mg_text_append(text, "\"");
    mg_yaml_escape(text, (const char *)node->data.scalar.value);
    mg_text_append(text, "\"");
  }
}

/* As deep as the reader lets a text nest. */
mg_status mg_flow_yaml(yaml_document_t *document, const yaml_node_t *node, mg_text *text) { // NOLINT(misc-no-recursion)
  if (node->type == YAML_SCALAR_NODE) {
    write_scalar(node, text);
  } else if (node->type == YAML_SEQUENCE_NODE) {
    const yaml_node_item_t *items = node->data.sequence.items.start;
    mg_text_append(text, "[");
    for (const yaml_node_item_t *i = items; i < node->data.sequence.items.top; i++) {
      if (i > items) mg_text_append(text, ", ");
      mg_flow_yaml(document, yaml_document_get_node(document, *i), text);
    }
    mg_text_append(text, "]");
  } else {
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    mg_text_append(text, "{");
    for (const yaml_node_pair_t *p = pairs; p < node->data.mapping.pairs.top; p++) {
      if (p > pairs) mg_text_append(text, ", ");
      mg_flow_yaml(document, yaml_document_get_node(document, p->key), text);
      mg_text_append(text, ": ");
      mg_flow_yaml(document, yaml_document_get_node(document, p->value), text);
    }
    mg_text_append(text, "}");
  }
  return text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}
