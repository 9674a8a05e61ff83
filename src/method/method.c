/* Methods by name, parameters by their text. */

#include "mergegrid/method.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/text.h"

static const char *const LATER[] = {"fisher", "fisher_dataset", "regmean", "adamerging", "statsmerging"};

bool mg_method_is_later(const char *name) {
  for (size_t k = 0; k < sizeof LATER / sizeof *LATER; k++)
    if (strcmp(name, LATER[k]) == 0) return true;
  return false;
}

mg_status mg_method_find(const char *name, const mg_method **method) {
  mg_text known = {0};
  const char *names[64];
  for (size_t k = 0; k < mg_method_count; k++) {
    *method = &mg_methods[k];
    if (strcmp(name, mg_methods[k].name) == 0) return MG_OK;
  }
  if (mg_method_is_later(name)) return mg_fail(MG_ERR_CONFIG, "method '%s' is not in this version", name);
  for (size_t k = 0; k < mg_method_count; k++) {
    names[k] = mg_methods[k].name;
    mg_text_append(&known, "%s%s", k ? ", " : "", mg_methods[k].name);
  }
  const char *nearest = mg_nearest(name, names, mg_method_count);
  mg_fail(MG_ERR_CONFIG, "method '%s' is unknown%s%s%s; known: %s", name, nearest ? " (" : "", nearest ? nearest : "",
          nearest ? "?)" : "", known.data ? known.data : "");
  mg_text_free(&known);
  return MG_ERR_CONFIG;
}

void mg_method_defaults(const mg_method *method, double *values) {
  for (size_t k = 0; k < method->parameter_count; k++) values[k] = method->parameters[k].initial;
}

static mg_status unknown_parameter(const mg_method *method, const char *parameter) {
  mg_text known = {0};
  for (size_t k = 0; k < method->parameter_count; k++)
    mg_text_append(&known, "%s%s", k ? ", " : "", method->parameters[k].name);
  mg_fail(MG_ERR_CONFIG, "method %s has no parameter '%s'%s%s", method->name, parameter,
          method->parameter_count > 0 ? "; it has " : ", nor any other", known.data ? known.data : "");
  mg_text_free(&known);
  return MG_ERR_CONFIG;
}

static mg_status set_number(const mg_method *method, const mg_parameter *p, const char *text, double *value) {
  char *end;
  const double number = strtod(text, &end);
  const bool parsed = end != text && *end == '\0';
  const bool inside =
      parsed && (p->low_open ? number > p->low : number >= p->low) && (p->high_open ? number < p->high : number <= p->high);
  if (!inside)
    return mg_fail(MG_ERR_CONFIG, "%s.%s: '%s'; a number %s %g and %s %g was expected", method->name, p->name, text,
                   p->low_open ? "above" : "from", p->low, p->high_open ? "below" : "up to", p->high);
  *value = number;
  return MG_OK;
}

static mg_status set_choice(const mg_method *method, const mg_parameter *p, const char *text, double *value) {
  mg_text known = {0};
  size_t count = 0;
  for (; p->choices[count] != NULL; count++) {
    if (strcmp(text, p->choices[count]) == 0) {
      *value = (double)count;
      mg_text_free(&known);
      return MG_OK;
    }
    mg_text_append(&known, "%s%s", count ? ", " : "", p->choices[count]);
  }
  mg_fail(MG_ERR_CONFIG, "%s.%s: '%s'; one of %s was expected", method->name, p->name, text, known.data ? known.data : "");
  mg_text_free(&known);
  return MG_ERR_CONFIG;
}

static mg_status set_layers(const mg_method *method, const mg_parameter *p, const char *text, double *value) {
  if (mg_layers_parse(text, value)) return MG_OK;
  return mg_fail(MG_ERR_CONFIG,
                 "%s.%s: '%s'; none, or layers from 0 to %d as in \"0-3,8\", or bottom, middle, top was expected", method->name,
                 p->name, text, MG_MOST_LAYERS - 1);
}

mg_status mg_method_set(const mg_method *method, const char *parameter, const char *text, double *values) {
  for (size_t k = 0; k < method->parameter_count; k++) {
    const mg_parameter *p = &method->parameters[k];
    if (strcmp(parameter, p->name) != 0) continue;
    if (p->type == MG_PARAMETER_NUMBER) return set_number(method, p, text, &values[k]);
    if (p->type == MG_PARAMETER_CHOICE) return set_choice(method, p, text, &values[k]);
    if (p->type == MG_PARAMETER_LAYERS) return set_layers(method, p, text, &values[k]);
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
      return mg_fail(MG_ERR_CONFIG, "%s.%s: '%s'; true or false was expected", method->name, p->name, text);
    values[k] = text[0] == 't';
    return MG_OK;
  }
  return unknown_parameter(method, parameter);
}

int mg_method_parameter(const mg_method *method, const char *parameter) {
  for (size_t k = 0; k < method->parameter_count; k++)
    if (strcmp(method->parameters[k].name, parameter) == 0) return (int)k;
  return -1;
}

double mg_method_value(const mg_method *method, const double *values, const char *parameter) {
  const int k = mg_method_parameter(method, parameter);
  return k >= 0 ? values[k] : NAN;
}

bool mg_method_is_weighted(const mg_method *method, const double *values) {
  const int k = mg_method_parameter(method, "weighted");
  return k >= 0 ? values[k] != 0 : method->weighted;
}

void mg_parameter_text(const mg_parameter *p, double value, mg_text *text) {
  if (p->type == MG_PARAMETER_NUMBER)
    mg_text_append_number(text, value);
  else if (p->type == MG_PARAMETER_LAYERS)
    mg_layers_text(value, text);
  else
    mg_text_append(text, "%s", p->type == MG_PARAMETER_CHOICE ? p->choices[(size_t)value] : value != 0 ? "true" : "false");
}

static void print_parameter(const mg_parameter *p, FILE *out) {
  fprintf(out, "    %-14s %s; ", p->name, p->help);
  if (p->type == MG_PARAMETER_NUMBER) {
    fprintf(out, "%s %g to %s%g; default: %g\n", p->low_open ? "above" : "from", p->low, p->high_open ? "below " : "", p->high,
            p->initial);
    return;
  }
  if (p->type == MG_PARAMETER_LAYERS) {
    fprintf(out, "none, numbers and ranges (\"0-3,8\"), bottom, middle, top (thirds); default: none\n");
    return;
  }
  if (p->type == MG_PARAMETER_BOOL) {
    fprintf(out, "true or false; default: %s\n", p->initial != 0 ? "true" : "false");
    return;
  }
  for (size_t c = 0; p->choices[c] != NULL; c++) fprintf(out, "%s%s", c ? ", " : "", p->choices[c]);
  fprintf(out, "; default: %s\n", p->choices[(size_t)p->initial]);
}

/* What stands behind the reference. */
static const char *manner(const mg_method *m) {
  if (m->kind == MG_METHOD_MODEL) return "no merge: one source as it is";
  if (m->kind == MG_METHOD_VOTE) return "a vote of the sources";
  return m->weighted ? "goes by the sources' weights" : "every source counts alike";
}

void mg_method_help(FILE *out) {
  for (size_t k = 0; k < mg_method_count; k++) {
    const mg_method *m = &mg_methods[k];
    fprintf(out, "  %s\n    %s\n    (%s%s%s)\n", m->name, m->help, m->reference ? m->reference : "", m->reference ? "; " : "",
            manner(m));
    for (size_t p = 0; p < m->parameter_count; p++) print_parameter(&m->parameters[p], out);
  }
}
