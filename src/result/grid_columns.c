/* The columns of the grid's tables: written, read, filtered, sorted, shown and exported by these. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "grid_impl.h"

#define CELL(field, type, meaning)                                                                                             \
  { #field, MG_COLUMN_##type, offsetof(mg_result_cell, field), meaning }
#define METHOD(field, type, meaning)                                                                                           \
  { #field, MG_COLUMN_##type, offsetof(mg_result_method, field), meaning }
#define BEST(field, type, meaning)                                                                                             \
  { #field, MG_COLUMN_##type, offsetof(mg_result_best, field), meaning }

static const mg_column CELLS[] = {
    CELL(key, TEXT, "hash of the cell's coordinates"),
    CELL(recipe, TEXT, "hash of everything it is computed from; empty where it was not resolved"),
    CELL(locale, TEXT, "the target"),
    CELL(method, TEXT, "merge method, baseline or vote"),
    CELL(parameters, TEXT, "the method's parameters, JSON"),
    CELL(similarity_type, TEXT, "the matrix its sources were chosen by"),
    CELL(num_languages, INT, "sources asked for"),
    CELL(num_sources, INT, "sources taken"),
    CELL(include_target, BOOL, "the target's own source may be one"),
    CELL(preset, TEXT, "bundle of flags"),
    CELL(head, TEXT, "what becomes of tensors that the base lacks"),
    CELL(phase, TEXT, "phase of the grid that declares it"),
    CELL(seed, UINT64, "of what is random"),
    CELL(status, TEXT, "planned, completed or failed"),
    CELL(error, TEXT, "why it failed"),
    CELL(sources, TEXT, "sources with their weights, by falling weight"),
    CELL(note, TEXT, "what is unusual"),
    CELL(terms, TEXT, "all coordinates, JSON"),
    CELL(accuracy, DOUBLE, "share of right predictions on the partition that cells are scored on"),
    CELL(macro_f1, DOUBLE, "mean F1 of the classes that occur, on the same texts"),
    CELL(select_accuracy, DOUBLE, "accuracy on the partition that is chosen by"),
    CELL(best_source, DOUBLE, "highest accuracy of one of its sources on the same texts"),
    CELL(best_zero_shot, DOUBLE, "highest accuracy of any source but the target's own"),
    CELL(own, DOUBLE, "accuracy of the target's own source"),
    CELL(merging_effect, DOUBLE, "accuracy minus the mean accuracy of its sources"),
    CELL(delta_vs_similarity, DOUBLE, "accuracy minus that of the matched plain-similarity cell"),
    CELL(prediction_row, INT64, "row of /grid/predictions/<locale>, -1: none"),
    CELL(same_as, INT64, "first cell of the same recipe where that is another, else -1"),
    CELL(matched, INT64, "the plain-similarity cell that delta_vs_similarity is against, -1: none"),
};

static const mg_column METHODS[] = {
    METHOD(method, TEXT, "merge method, baseline or vote"),
    METHOD(parameters, TEXT, "its parameters, JSON"),
    METHOD(cells, INT64, "completed cells"),
    METHOD(failed, INT64, "failed cells"),
    METHOD(accuracy, DOUBLE, "mean accuracy of the completed cells"),
    METHOD(pairs, INT64, "cells that have a matched plain-similarity cell"),
    METHOD(delta, DOUBLE, "mean difference to those over all texts"),
    METHOD(delta_low, DOUBLE, "lower end of its 95% interval"),
    METHOD(delta_high, DOUBLE, "upper end of its 95% interval"),
    METHOD(p, DOUBLE, "sign-flip test by text, two-sided"),
    METHOD(p_holm, DOUBLE, "the same after Holm's correction over all settings"),
    METHOD(wins, INT64, "pairs with a higher accuracy"),
    METHOD(losses, INT64, "pairs with a lower accuracy"),
    METHOD(draws, INT64, "pairs with equal accuracy"),
};

static const mg_column BESTS[] = {
    BEST(locale, TEXT, "the target"),
    BEST(cell, INT64, "the cell with the highest select_accuracy, the first of equals"),
    BEST(select_accuracy, DOUBLE, "its accuracy on the partition that is chosen by"),
    BEST(accuracy, DOUBLE, "its accuracy on the partition that cells are scored on"),
    BEST(delta_vs_best_source, DOUBLE, "difference to the source that is best on the partition that is chosen by"),
    BEST(low, DOUBLE, "lower end of its 95% interval"),
    BEST(high, DOUBLE, "upper end of its 95% interval"),
    BEST(p, DOUBLE, "McNemar's test, exact"),
};

const mg_columns mg_cell_columns = {"/grid/cells", sizeof CELLS / sizeof *CELLS, sizeof(mg_result_cell), CELLS, 0};
const mg_columns mg_method_columns = {"/grid/methods", sizeof METHODS / sizeof *METHODS, sizeof(mg_result_method), METHODS, 0};
const mg_columns mg_best_columns = {"/grid/best", sizeof BESTS / sizeof *BESTS, sizeof(mg_result_best), BESTS, 0};

const char *mg_column_text(const mg_column *c, const void *row) {
  const char *text = *(const char *const *)(const void *)((const char *)row + c->offset);
  return text != NULL ? text : "";
}

double mg_column_number(const mg_column *c, const void *row) {
  const void *field = (const char *)row + c->offset;
  switch (c->type) {
  case MG_COLUMN_BOOL:
    return *(const bool *)field;
  case MG_COLUMN_INT:
    return *(const int *)field;
  case MG_COLUMN_INT64:
    return (double)*(const int64_t *)field;
  case MG_COLUMN_UINT64:
    return (double)*(const uint64_t *)field;
  case MG_COLUMN_DOUBLE:
    return *(const double *)field;
  case MG_COLUMN_TEXT:
    break;
  }
  return NAN;
}

mg_method_kind mg_kind_of(const char *method) {
  for (size_t k = 0; k < mg_method_count; k++)
    if (strcmp(mg_methods[k].name, method) == 0) return mg_methods[k].kind;
  return MG_METHOD_MERGE;
}

void mg_matrix_path(const char *name, char path[160]) {
  enum { STEM = sizeof "/grid/similarity/" - 1 };
  snprintf(path, 160, "/grid/similarity/%.128s", name);
  for (char *c = path + STEM; *c != '\0'; c++)
    if (*c == '/') *c = '_';
}
