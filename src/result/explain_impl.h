#ifndef MG_EXPLAIN_IMPL_H
#define MG_EXPLAIN_IMPL_H

#include <jansson.h>

#include "grid_view_impl.h"
#include "matrices_impl.h"
#include "mergegrid/config.h"

/* What explaining needs of a result; freed by whoever opened it. */
typedef struct mg_explaining {
  mg_grid_reader *reader;
  mg_grid_view view; /* all cells */
  mg_matrices m;
  mg_config *config; /* that it was computed by; NULL where this program does not understand it */
} mg_explaining;

/* Prints how a cell's sources were chosen: those taken and those not, with numbers and reasons. */
mg_status mg_explain_choice(const mg_explaining *e, size_t cell);
/* Sources in the order of their choice, with their shares of the similarity or as they were named. */
typedef struct mg_chosen {
  size_t count;
  int *source;
  double *weight;
  bool drops; /* the strongest is left out of the merge */
} mg_chosen;
mg_status mg_chosen_create(size_t room, mg_chosen *chosen);
/* Of a source that is there already the weights are added up. */
void mg_chosen_add(mg_chosen *chosen, size_t source, double weight);
void mg_chosen_free(mg_chosen *chosen);
/* Prints what follows from the choice; what is chosen may be cut down on the way. */
mg_status mg_explain_numbers(const mg_explaining *e, size_t cell, mg_chosen *chosen);
/* The CSV whose compatibilities a method weighs by; NULL where it has none, or they are the result's own. */
const char *mg_compatibility_file(const mg_explaining *e, const char *method);

/* Prints what tells two cells apart, and on which texts they differ. */
mg_status mg_explain_pair(const mg_explaining *e, size_t a, size_t b);

/* "ties density=0.2" into a text that the caller frees. */
mg_text mg_cell_setting(const mg_explaining *e, size_t cell);
/* A cell's predictions among its target's answers; NULL where there are none. */
const int32_t *mg_cell_row(const mg_explaining *e, const mg_grid_answers *answers, size_t cell);
/* "+0.0123 [-0.001, +0.02], p 0.03 (McNemar): only a right on 5 texts, only b on 3". */
void mg_print_comparison(const mg_cell_comparison *comparison);

#endif
