#ifndef MERGEGRID_RESOLVE_IMPL_H
#define MERGEGRID_RESOLVE_IMPL_H

#include "mergegrid/grid.h"
#include "mergegrid/text.h"

/* Different sources in the order of their choice; weights sum to 1. */
typedef struct mg_choice {
  size_t count;
  int *source;
  double *weight;
  mg_text left_out; /* ids of those that the best was not looked for among, since nxn has no accuracy of them */
} mg_choice;

/* Of a method of kind model, the one source that it is. selection is filled in where a similarity chose. */
mg_status mg_choose(const mg_grid_context *context, const mg_terms *terms, mg_choice *choice, mg_selection *selection);
void mg_choice_free(mg_choice *choice);

#endif
