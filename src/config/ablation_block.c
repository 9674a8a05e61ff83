/* fixed and sweep of an ablation: methods with what stood beside them, and the other keys as the terms they are. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ablation_impl.h"

/* Calls visit for a scalar, or for each item of a list. */
static mg_status each(const mg_ablating *a, const yaml_node_t *node, mg_status (*visit)(void *context, const yaml_node_t *item),
                      void *context) {
  mg_status status = MG_OK;
  if (node->type != YAML_SEQUENCE_NODE) return visit(context, node);
  if (node->data.sequence.items.start == node->data.sequence.items.top)
    return mg_config_error(a->origin, node, "the list is empty; values were expected");
  for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++)
    MG_TRY(visit(context, yaml_document_get_node(a->document, *i)), done);
done:
  return status;
}

/* "x", or "[x, y]". */
static void append_list(mg_text *text, const mg_strings *list) {
  mg_text_append(text, list->count == 1 ? "" : "[");
  for (size_t k = 0; k < list->count; k++) mg_text_append(text, "%s%s", k ? ", " : "", list->items[k]);
  mg_text_append(text, list->count == 1 ? "" : "]");
}

/* ---- parameters of methods ---- */

typedef struct gathering {
  const mg_ablating *a;
  const char *key;
  bool plain; /* a rate of 0 is among them */
  mg_strings list;
} gathering;

static mg_status add_text(mg_strings *list, const char *format, double number) {
  char text[32];
  snprintf(text, sizeof text, format, number);
  return mg_strings_add(list, text);
}

static mg_status number_of(const gathering *g, const yaml_node_t *node, double low, double high, double *number) {
  const char *text;
  char *end;
  const mg_status status = mg_scalar(g->a->origin, node, g->key, "a number", &text);
  if (status != MG_OK) return status;
  *number = strtod(text, &end);
  if (end != text && *end == '\0' && *number >= low && *number <= high) return MG_OK;
  return mg_config_error(g->a->origin, node, "%s: '%s'; a number from %g up to %g was expected", g->key, text, low, high);
}

/* A rate of what is dropped is a density of what is kept; nothing dropped is the method without DARE. */
static mg_status add_rate(void *context, const yaml_node_t *node) {
  gathering *g = context;
  double rate;
  const mg_status status = number_of(g, node, 0, 1, &rate);
  if (status != MG_OK) return status;
  if (rate == 1) return mg_config_error(g->a->origin, node, "%s: 1 drops everything; a rate below 1 was expected", g->key);
  if (rate > 0) return add_text(&g->list, "%.12g", 1 - rate);
  g->plain = true;
  return MG_OK;
}

static mg_status add_alpha(void *context, const yaml_node_t *node) {
  gathering *g = context;
  double alpha;
  const mg_status status = number_of(g, node, 0, 1, &alpha);
  return status == MG_OK ? add_text(&g->list, "%.12g", alpha) : status;
}

static mg_status add_rescale(void *context, const yaml_node_t *node) {
  gathering *g = context;
  const char *text;
  const mg_status status = mg_scalar(g->a->origin, node, g->key, "true or false", &text);
  if (status != MG_OK) return status;
  if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
    return mg_config_error(g->a->origin, node, "%s: '%s'; true or false was expected", g->key, text);
  return mg_strings_add(&g->list, text[0] == 't' ? "inverse" : "none");
}

static mg_status gather(const mg_ablating *a, const mg_ablation_block *block, const char *key,
                        mg_status (*add)(void *context, const yaml_node_t *node), gathering *g) {
  const mg_ablation_said *said = mg_ablation_find(block, key);
  *g = (gathering){.a = a, .key = key, .plain = said == NULL};
  return said != NULL ? each(a, said->value, add, g) : MG_OK;
}

/* ---- methods ---- */

/* Of theirs that are called otherwise here, or come with a parameter that makes them theirs. */
static const struct {
  const char *theirs, *ours, *dropping;
} METHODS[] = {{"baseline", "own", NULL},
               {"uriel", "similarity", NULL},
               {"ties", "{ties: {trim: global}}", "dare_ties: {"},
               {"task_arithmetic", "task_arithmetic", "dare_linear: {weighted: false, "}};

static mg_status left_out(mg_ablating *a, const char *name) {
  return mg_ablation_remark(a, "method %s is not in this version, and left out", name);
}

/* "{dare_ties: {density: 0.1, rescale: none}}" */
static mg_status add_dropping(const mg_ablating *a, const mg_ablation_block *block, const char *begin,
                              const mg_strings *density, mg_strings *list) {
  mg_status status = MG_OK;
  gathering rescale = {0};
  mg_text text = {0};
  MG_TRY(gather(a, block, "dare_rescale", add_rescale, &rescale), cleanup);
  mg_text_append(&text, "{%sdensity: ", begin);
  append_list(&text, density);
  if (rescale.list.count > 0) mg_text_append(&text, ", rescale: ");
  if (rescale.list.count > 0) append_list(&text, &rescale.list);
  mg_text_append(&text, "}}");
  status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_strings_add(list, text.data);
cleanup:
  mg_strings_free(&rescale.list);
  mg_text_free(&text);
  return status;
}

static mg_status add_directional(const mg_ablating *a, const mg_ablation_block *block, mg_strings *list) {
  mg_status status = MG_OK;
  gathering alpha = {0};
  mg_text text = {0};
  MG_TRY(gather(a, block, "alpha", add_alpha, &alpha), cleanup);
  mg_text_append(&text, alpha.list.count > 0 ? "{directional_consensus: {alpha: " : "directional_consensus");
  if (alpha.list.count > 0) append_list(&text, &alpha.list);
  if (alpha.list.count > 0) mg_text_append(&text, "}}");
  status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_strings_add(list, text.data);
cleanup:
  mg_strings_free(&alpha.list);
  mg_text_free(&text);
  return status;
}

mg_status mg_ablation_method(mg_ablating *a, const mg_ablation_block *block, const yaml_node_t *node, mg_strings *list) {
  mg_status status = MG_OK;
  const char *name;
  const mg_method *method;
  size_t m = 0;
  gathering rate = {0};
  MG_TRY(mg_scalar(a->origin, node, "method", "a method", &name), cleanup);
  while (m < sizeof METHODS / sizeof *METHODS && strcmp(METHODS[m].theirs, name) != 0) m++;
  const bool mapped = m < sizeof METHODS / sizeof *METHODS;
  if (!mapped && (strcmp(name, "iterative") == 0 || mg_method_is_later(name))) return left_out(a, name);
  if (!mapped && mg_method_find(name, &method) != MG_OK) {
    mg_text message = {0};
    mg_text_append(&message, "%s", mg_error_message());
    status = mg_config_error(a->origin, node, "%s", message.data ? message.data : name);
    mg_text_free(&message);
    return status;
  }
  a->needs_similarity |= strcmp(name, "baseline") != 0 && strcmp(name, "own") != 0 && strcmp(name, "best_zero_shot") != 0;
  a->out->needs_cka |= strcmp(name, "similarity_x_cka_compatibility") == 0;
  if (strcmp(name, "directional_consensus") == 0) return add_directional(a, block, list);
  if (!mapped || METHODS[m].dropping == NULL) return mg_strings_add(list, mapped ? METHODS[m].ours : name);
  a->ruled = true;
  MG_TRY(gather(a, block, "dare_drop_rate", add_rate, &rate), cleanup);
  if (rate.plain) MG_TRY(mg_strings_add(list, METHODS[m].ours), cleanup);
  if (rate.list.count > 0) {
    MG_TRY(add_dropping(a, block, METHODS[m].dropping, &rate.list, list), cleanup);
    if (strcmp(name, "ties") == 0)
      MG_TRY(mg_ablation_remark(a, "ties with dare_drop_rate is dare_ties, which drops at random and does not trim besides"),
             cleanup);
  }
cleanup:
  mg_strings_free(&rate.list);
  return status;
}
