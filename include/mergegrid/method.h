#ifndef MERGEGRID_METHOD_H
#define MERGEGRID_METHOD_H

/**
 * The table of merge methods: names, parameters, defaults, ranges. Configuration, help and the merges themselves read it from
 * here. Not collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

typedef enum mg_parameter_type {
  MG_PARAMETER_NUMBER,
  MG_PARAMETER_CHOICE,
  MG_PARAMETER_BOOL,
  MG_PARAMETER_LAYERS /**< a set of encoder layers: "none", "0-3,8", "bottom,top" (thirds); see mg_layers_have */
} mg_parameter_type;

typedef struct mg_parameter {
  const char *name;
  mg_parameter_type type;
  double initial;             /**< a number; of a choice its index; 0 or 1; no layers: 0 */
  double low, high;           /**< of a number, both allowed … */
  bool low_open, high_open;   /**< … unless open */
  const char *const *choices; /**< NULL-terminated */
  const char *help;
} mg_parameter;

enum { MG_MOST_PARAMETERS = 12 };

/** What a method makes of its sources. */
typedef enum mg_method_kind {
  MG_METHOD_MERGE, /**< one model's weights */
  MG_METHOD_MODEL, /**< none: one of the sources, as it is */
  MG_METHOD_VOTE   /**< answers: the sources' own, put together text by text */
} mg_method_kind;

typedef struct mg_method {
  const char *name, *help;
  mg_method_kind kind;
  const char *reference; /**< paper or system that the formula is from */
  bool weighted;         /**< goes by the sources' weights, else every source counts alike */
  size_t parameter_count;
  mg_parameter parameters[MG_MOST_PARAMETERS];
} mg_method;

extern const mg_method mg_methods[];
extern const size_t mg_method_count;

/** MG_ERR_CONFIG lists the known ones and names the nearest; says so where a method is of a later version. */
mg_status mg_method_find(const char *name, const mg_method **method);
/** Is it the name of a method that a later version will have? */
bool mg_method_is_later(const char *name);
/** Fills in values [method->parameter_count] with the defaults. */
void mg_method_defaults(const mg_method *method, double *values);
/** Sets a parameter from its text. MG_ERR_CONFIG: unknown (lists the known ones), not of its type, out of range (says which).
 */
mg_status mg_method_set(const mg_method *method, const char *parameter, const char *text, double *values);
/** Value of a parameter that the method has. */
double mg_method_value(const mg_method *method, const double *values, const char *parameter);
/** Index of a parameter, −1 where the method has none of that name. */
int mg_method_parameter(const mg_method *method, const char *parameter);
/** Appends a value as mg_method_set reads it: "0.2", "tensor", "true", "0-3,8" (which YAML wants quoted within braces). */
void mg_parameter_text(const mg_parameter *parameter, double value, mg_text *text);
/** Do the recipe's weights matter to the method with these values? (Its parameter `weighted` decides, where it has that.) */
bool mg_method_is_weighted(const mg_method *method, const double *values);

void mg_method_help(FILE *out);

/* ---- sets of layers, as a parameter's value holds them ---- */

enum { MG_MOST_LAYERS = 50 }; /**< layers 0 … 49 have a bit of the 53 that a double holds, thirds the others */

/** False where the text is none, or names a layer from MG_MOST_LAYERS on. */
bool mg_layers_parse(const char *text, double *set);
/** Appends the set as mg_layers_parse reads it. */
void mg_layers_text(double set, mg_text *text);
/** Is a layer of a model with `count` layers in the set? A third has the layers whose middle lies in it. */
bool mg_layers_have(double set, size_t layer, size_t count);
/** The last layer that is named by its number, −1: none. */
int mg_layers_last(double set);

#endif
