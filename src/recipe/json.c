/* A cell's coordinates as JSON, which its key is the hash of: the same text for the same cell, always. */

#include <stdlib.h>
#include <string.h>

#include "recipe_impl.h"

/* ---- values ---- */

static void append(mg_text *json, const char *text) { mg_text_append_bytes(json, text, strlen(text)); }

static void append_string(mg_text *json, const char *text) {
  append(json, "\"");
  while (*text != '\0') {
    size_t plain = 0;
    while ((unsigned char)text[plain] >= 0x20 && text[plain] != '"' && text[plain] != '\\') plain++;
    mg_text_append_bytes(json, text, plain);
    text += plain;
    if (*text == '\0') break;
    mg_text_append(json, *text == '"' || *text == '\\' ? "\\%c" : "\\u%04x", (unsigned char)*text);
    text++;
  }
  append(json, "\"");
}

/* Cells come by the hundred thousand: printf would take most of the time. */
static void append_whole(mg_text *json, uint64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  mg_text_append_bytes(json, digits + at, sizeof digits - at);
}

static void append_parameter(const mg_terms *terms, size_t k, mg_text *json) {
  const mg_parameter *p = &terms->method->parameters[k];
  const double value = terms->values[k];
  if (mg_terms_ruled(terms, k))
    append_string(json, terms->lambda_rule);
  else if (p->type == MG_PARAMETER_NUMBER && value >= 0 && value <= 1e9 && value == (double)(uint64_t)value)
    append_whole(json, (uint64_t)value);
  else if (p->type == MG_PARAMETER_NUMBER || p->type == MG_PARAMETER_BOOL)
    mg_parameter_text(p, value, json);
  else {
    append(json, "\"");
    mg_parameter_text(p, value, json);
    append(json, "\"");
  }
}

static void append_parameters(const mg_terms *terms, mg_text *json) {
  append(json, "{");
  for (size_t k = 0; k < terms->method->parameter_count; k++) {
    if (k > 0) append(json, ", ");
    append_string(json, terms->method->parameters[k].name);
    append(json, ": ");
    append_parameter(terms, k, json);
  }
  append(json, "}");
}

typedef struct share {
  const char *id;
  double weight;
} share;

static int by_id(const void *a, const void *b) { return strcmp(((const share *)a)->id, ((const share *)b)->id); }

/* By id and to a sum of 1, so that it does not matter how they were written. */
static void append_sources(const mg_terms *terms, mg_text *json) {
  const size_t n = terms->sources.count;
  double total = 0;
  share *shares = n > 0 ? mg_alloc(n, sizeof *shares) : NULL;
  if (shares == NULL) {
    json->failed |= n > 0;
    append(json, "null");
    return;
  }
  for (size_t k = 0; k < n; k++) total += terms->weights[k];
  for (size_t k = 0; k < n; k++) shares[k] = (share){terms->sources.items[k], terms->weights[k] / total};
  qsort(shares, n, sizeof *shares, by_id);
  append(json, "{");
  for (size_t k = 0; k < n; k++) {
    if (k > 0) append(json, ", ");
    append_string(json, shares[k].id);
    append(json, ": ");
    mg_text_append_number(json, shares[k].weight);
  }
  append(json, "}");
  free(shares);
}

/* ---- the whole ---- */

static void word(mg_text *json, const char *name, const char *text) {
  append(json, name);
  if (text != NULL)
    append_string(json, text);
  else
    append(json, "null");
}

static void whole(mg_text *json, const char *name, uint64_t number) {
  append(json, name);
  append_whole(json, number);
}

static void truth(mg_text *json, const char *name, bool value) {
  append(json, name);
  append(json, value ? "true" : "false");
}

void mg_terms_json(const mg_terms *terms, mg_text *json) {
  word(json, "{\"locale\": ", terms->locale);
  word(json, ", \"method\": ", terms->method->name);
  append(json, ", \"parameters\": ");
  append_parameters(terms, json);
  append(json, ", \"sources\": ");
  append_sources(terms, json);
  word(json, ", \"similarity_type\": ", terms->similarity_type);
  whole(json, ", \"num_languages\": ", (uint64_t)terms->num_languages);
  truth(json, ", \"include_target\": ", terms->include_target);
  word(json, ", \"preset\": ", terms->preset);
  whole(json, ", \"seed\": ", terms->seed);
  word(json, ", \"head\": ", terms->head);
  word(json, ", \"axis\": ", terms->axis);
  word(json, ", \"select\": ", terms->select);
  whole(json, ", \"top_k\": ", (uint64_t)terms->top_k);
  whole(json, ", \"sinkhorn_iters\": ", (uint64_t)terms->sinkhorn_iters);
  word(json, ", \"inctar\": ", terms->inctar);
  truth(json, ", \"drop_strongest\": ", terms->drop_strongest);
  word(json, ", \"lambda_rule\": ", terms->lambda_rule);
  word(json, ", \"duplicates\": ", terms->duplicates);
  append(json, "}");
}

static mg_status finished(const mg_text *text) { return text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK; }

mg_status mg_cell_json(const mg_cell *cell, mg_text *json) {
  mg_terms_json(&cell->terms, json);
  return finished(json);
}

mg_status mg_cell_parameters_json(const mg_cell *cell, mg_text *json) {
  append_parameters(&cell->terms, json);
  return finished(json);
}

mg_status mg_cell_parameter(const mg_cell *cell, const char *swept, mg_text *text) {
  const mg_terms *terms = &cell->terms;
  const size_t length = strlen(terms->method->name);
  if (text->data == NULL) append(text, "");
  if (strncmp(swept, terms->method->name, length) != 0 || swept[length] != '.') return finished(text);
  const int k = mg_method_parameter(terms->method, swept + length + 1);
  if (k >= 0 && mg_terms_ruled(terms, (size_t)k))
    append(text, terms->lambda_rule);
  else if (k >= 0)
    mg_parameter_text(&terms->method->parameters[k], terms->values[k], text);
  return finished(text);
}
