/* The lines `fixed` and `sweep` of a block of an ablation. */

#include <stdlib.h>
#include <string.h>

#include "ablation_impl.h"

/* A block under way. */
typedef struct writing {
  mg_ablating *a;
  const mg_ablation_block *block;
  const char *indent;
  mg_text part[2];    /* lines of fixed, of sweep */
  mg_strings methods; /* as they are here */
  size_t left;        /* of those that were named */
} writing;

static void line(writing *w, bool swept, const char *name, const char *value) {
  mg_text_append(&w->part[swept], "%s  %s: %s\n", w->indent, name, value);
}

static bool is_word(const yaml_node_t *node, const char *word) {
  return node->type == YAML_SCALAR_NODE && strcmp((const char *)node->data.scalar.value, word) == 0;
}

/* ---- terms ---- */

/* What the configuration would say against the value, it says here, of the line in this file. */
static mg_status check_value(const writing *w, const mg_ablation_said *said) {
  static const mg_option option[2] = {{.key = "ablation.fixed"}, {.key = "ablation.sweep"}};
  mg_axes scratch = {0};
  const mg_status status =
      mg_axes_set_one(&option[said->swept], w->a->origin, w->a->document, said->key_node, said->key->as, said->value, &scratch);
  mg_axes_free(&scratch);
  return status;
}

static mg_status note_similarity(writing *w, const yaml_node_t *node) {
  static const char *const known[] = {"URIEL", "REAL"};
  const char *text;
  const mg_status status = mg_scalar(w->a->origin, node, "similarity_type", "URIEL or REAL", &text);
  if (status != MG_OK) return status;
  for (int k = 0; k < 2; k++)
    if (strcmp(text, known[k]) == 0) {
      w->a->goes_by[k] = true;
      return MG_OK;
    }
  return mg_config_error(w->a->origin, node, "similarity_type: '%s'; URIEL or REAL was expected", text);
}

static mg_status note_similarities(writing *w, const yaml_node_t *node) {
  mg_status status = MG_OK;
  if (node->type != YAML_SEQUENCE_NODE) return note_similarity(w, node);
  for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++)
    MG_TRY(note_similarity(w, yaml_document_get_node(w->a->document, *i)), done);
done:
  return status;
}

static mg_status write_term(writing *w, const mg_ablation_said *said) {
  mg_status status = MG_OK;
  mg_text value = {0};
  /* the name that they know, where it is known here too */
  const char *name = mg_term_option(said->key->name) != NULL ? said->key->name : said->key->as;
  const bool locale = strcmp(said->key->as, "locale") == 0;
  if (locale && (mg_node_is_empty(said->value) || is_word(said->value, "all"))) {
    line(w, said->swept, name, "all");
    return MG_OK;
  }
  if (strcmp(said->key->as, "similarity_type") == 0) MG_TRY(note_similarities(w, said->value), cleanup);
  MG_TRY(check_value(w, said), cleanup);
  MG_TRY(mg_flow_yaml(w->a->document, said->value, &value), cleanup);
  line(w, said->swept, name, value.data);
cleanup:
  mg_text_free(&value);
  return status;
}

/* All but one of the sources, leaving out one after the other. */
static mg_status write_folds(writing *w, const mg_ablation_said *said) {
  mg_status status = MG_OK;
  mg_text value = {0};
  const yaml_node_t *node = said->value;
  if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.top - node->data.sequence.items.start < 2)
    return mg_config_error(w->a->origin, node, "%s: a list of two sources or more was expected", said->key->name);
  const yaml_node_item_t *items = node->data.sequence.items.start;
  const size_t count = (size_t)(node->data.sequence.items.top - items);
  MG_TRY(check_value(w, &(mg_ablation_said){.key = said->key, .key_node = said->key_node, .value = node}), cleanup);
  for (size_t k = 0; k < count; k++) {
    size_t written = 0;
    mg_text_append(&value, k > 0 ? ", [" : "[[");
    for (size_t j = 0; j < count; j++) {
      if (j == k) continue;
      mg_text_append(&value, written++ > 0 ? ", " : "");
      MG_TRY(mg_flow_yaml(w->a->document, yaml_document_get_node(w->a->document, items[j]), &value), cleanup);
    }
    mg_text_append(&value, "]");
  }
  mg_text_append(&value, "]");
  line(w, true, "sources", value.data);
cleanup:
  mg_text_free(&value);
  return status;
}

/* ---- methods ---- */

static mg_status write_methods(writing *w, const mg_ablation_said *said) {
  mg_status status = MG_OK;
  mg_text value = {0};
  const yaml_node_t *node = said->value;
  if (node->type == YAML_SEQUENCE_NODE && node->data.sequence.items.start == node->data.sequence.items.top)
    return mg_config_error(w->a->origin, node, "method: the list is empty; methods were expected");
  if (node->type == YAML_SEQUENCE_NODE) {
    for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++)
      MG_TRY(mg_ablation_method(w->a, w->block, yaml_document_get_node(w->a->document, *i), &w->methods), cleanup);
  } else {
    MG_TRY(mg_ablation_method(w->a, w->block, node, &w->methods), cleanup);
  }
  const bool list = said->swept || w->methods.count > 1;
  mg_text_append(&value, list ? "[" : "");
  for (size_t k = 0; k < w->methods.count; k++) mg_text_append(&value, "%s%s", k ? ", " : "", w->methods.items[k]);
  mg_text_append(&value, list ? "]" : "");
  line(w, said->swept, "method", value.data);
  w->left += w->methods.count;
cleanup:
  mg_text_free(&value);
  return status;
}

/* One key of {type: …, method: …, num_languages: …}. */
static mg_status read_pair(writing *w, const yaml_node_pair_t *pair, mg_strings *methods, mg_text *rest) {
  mg_status status = MG_OK;
  mg_ablation_said said = {.key_node = yaml_document_get_node(w->a->document, pair->key),
                           .value = yaml_document_get_node(w->a->document, pair->value)};
  const char *name, *type;
  MG_TRY(mg_scalar(w->a->origin, said.key_node, "experiment_type", "a key", &name), done);
  if (strcmp(name, "method") == 0) return mg_ablation_method(w->a, w->block, said.value, methods);
  if (strcmp(name, "type") == 0) {
    MG_TRY(mg_scalar(w->a->origin, said.value, "type", "ensemble, merging or baseline", &type), done);
    if (strcmp(type, "ensemble") == 0 || strcmp(type, "merging") == 0) mg_text_append(rest, ", type: %s", type);
    if (strcmp(type, "ensemble") != 0 && strcmp(type, "merging") != 0 && strcmp(type, "baseline") != 0)
      return mg_config_error(w->a->origin, said.value, "type: '%s'; ensemble, merging or baseline was expected", type);
    return MG_OK;
  }
  MG_TRY(mg_ablation_key_find(w->a, said.key_node, name, &said.key), done);
  if (said.key->kind != MG_ABLATION_TERM)
    return mg_config_error(w->a->origin, said.key_node, "experiment_type: '%s' is none of what can stand there", name);
  MG_TRY(check_value(w, &said), done);
  mg_text_append(rest, ", %s: ", said.key->as);
  MG_TRY(mg_flow_yaml(w->a->document, said.value, rest), done);
done:
  return status;
}

static mg_status add_experiment(writing *w, const yaml_node_t *node, mg_text *value) {
  mg_status status = MG_OK;
  mg_strings methods = {0};
  mg_text rest = {0};
  for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++)
    MG_TRY(read_pair(w, p, &methods, &rest), cleanup);
  for (size_t k = 0; k < methods.count; k++)
    mg_text_append(value, "%s{method: %s%s}", value->size > 0 ? ", " : "[", methods.items[k], rest.data ? rest.data : "");
  w->left += methods.count;
cleanup:
  mg_strings_free(&methods);
  mg_text_free(&rest);
  return status;
}

/* Maps of type and method; a word alone says nothing that the methods do not say. */
static mg_status write_experiments(writing *w, const mg_ablation_said *said) {
  mg_status status = MG_OK;
  mg_text value = {0};
  const yaml_node_t *node = said->value;
  const bool list = node->type == YAML_SEQUENCE_NODE;
  const size_t count = list ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start) : 1;
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *item = list ? yaml_document_get_node(w->a->document, node->data.sequence.items.start[k]) : node;
    if (item->type == YAML_MAPPING_NODE)
      MG_TRY(add_experiment(w, item, &value), cleanup);
    else
      MG_TRY(mg_ablation_remark(w->a, "experiment_type: methods say themselves whether they merge or vote"), cleanup);
  }
  if (value.size == 0) goto cleanup;
  mg_text_append(&value, "]");
  line(w, said->swept, "experiment_type", value.data);
cleanup:
  mg_text_free(&value);
  return status;
}

/* ---- the block ---- */

static mg_status write_said(writing *w, const mg_ablation_said *said) {
  mg_text value = {0};
  mg_status status = MG_OK;
  switch (said->key->kind) {
  case MG_ABLATION_TERM:
    return write_term(w, said);
  case MG_ABLATION_METHOD:
    return write_methods(w, said);
  case MG_ABLATION_EXPERIMENT:
    return write_experiments(w, said);
  case MG_ABLATION_FOLDS:
    return write_folds(w, said);
  case MG_ABLATION_SOURCES:
    MG_TRY(check_value(w, said), done);
    MG_TRY(mg_flow_yaml(w->a->document, said->value, &value), done);
    line(w, said->swept, "sources", value.data);
    break;
  case MG_ABLATION_PARAMETER:
  case MG_ABLATION_FAMILY:
  case MG_ABLATION_NONE:
    break;
  }
done:
  mg_text_free(&value);
  return status;
}

static bool says(const mg_ablation_block *block, const char *term) {
  for (size_t k = 0; k < block->count; k++)
    if (block->said[k].key->as != NULL && block->said[k].key->kind != MG_ABLATION_NONE &&
        strcmp(block->said[k].key->as, term) == 0)
      return true;
  return false;
}

/* What their pipeline did without being told. */
static mg_status write_implied(writing *w) {
  mg_status status = MG_OK;
  mg_ablating *a = w->a;
  const bool named = mg_ablation_find(w->block, "method") != NULL || mg_ablation_find(w->block, "experiment_type") != NULL;
  if (!named && says(w->block, "sources")) {
    line(w, false, "method", "average");
    w->left++;
    a->needs_similarity = false;
  } else if (!named) {
    return mg_fail(MG_ERR_CONFIG, "%s: %s%sneither method nor experiment_type is there", a->origin->label,
                   w->block->name ? w->block->name : "", w->block->name ? ": " : "");
  }
  if (!says(w->block, "locale")) line(w, true, "locale", "all");
  if (a->needs_similarity && !says(w->block, "sources") && !says(w->block, "similarity_type")) {
    line(w, false, "similarity_type", "URIEL");
    a->goes_by[0] = true;
  }
  if (says(w->block, "top_k") || says(w->block, "sinkhorn_iters"))
    line(w, false, "select", "sinkhorn # which alone goes by top_k and sinkhorn_iters");
  if (a->ruled)
    line(w, false, "lambda_rule",
         "merginguriel # lambda of ties and task_arithmetic from the weights, as their pipeline has it");
  if (mg_ablation_find(w->block, "alpha") != NULL && w->left > 0) {
    bool any = false;
    for (size_t k = 0; k < 2; k++) any = any || (w->part[k].data != NULL && strstr(w->part[k].data, "directional_consensus"));
    if (!any) MG_TRY(mg_ablation_remark(a, "alpha: is of directional_consensus, which is not among the methods"), done);
  }
done:
  return status;
}

mg_status mg_ablation_block_write(mg_ablating *a, const mg_ablation_block *block, const char *indent, mg_text *text,
                                  bool *any) {
  mg_status status = MG_OK;
  writing w = {.a = a, .block = block, .indent = indent};
  a->needs_similarity = a->ruled = false;
  const mg_ablation_said *method = mg_ablation_find(block, "method"), *experiment = mg_ablation_find(block, "experiment_type");
  if (method != NULL && experiment != NULL && experiment->value->type != YAML_SCALAR_NODE)
    return mg_config_error(a->origin, experiment->key_node, "experiment_type says the method, and so does `method`");
  for (size_t k = 0; k < block->count; k++) MG_TRY(write_said(&w, &block->said[k]), cleanup);
  MG_TRY(write_implied(&w), cleanup);
  *any = w.left > 0;
  if (!*any) {
    MG_TRY(
        mg_ablation_remark(a, "%s%s: nothing of it is left", block->name ? "phase " : "sweep", block->name ? block->name : ""),
        cleanup);
    goto cleanup;
  }
  for (int k = 0; k < 2; k++)
    if (w.part[k].size > 0) mg_text_append(text, "%s%s:\n%s", indent, k == 0 ? "fixed" : "sweep", w.part[k].data);
  if (text->failed || w.part[0].failed || w.part[1].failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
cleanup:
  mg_text_free(&w.part[0]);
  mg_text_free(&w.part[1]);
  mg_strings_free(&w.methods);
  return status;
}
