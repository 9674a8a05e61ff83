/* Cells of a grid that are bound to fail, for reasons that are there before anything is computed. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/grid.h"
#include "plan_impl.h"

static mg_status add_reason(mg_prediction *p) {
  p->failing++;
  if (p->failing_why.count >= MG_MOST_REASONS || mg_strings_find(&p->failing_why, mg_error_message()) >= 0) return MG_OK;
  return mg_strings_add(&p->failing_why, mg_error_message());
}

/* What is not known yet is taken to turn out well: every source is evaluated, all are compatible. */
mg_status mg_plan_find_failing(const mg_config *config, mg_prediction *p) {
  mg_status status = MG_OK;
  const mg_source_list *list = &p->roster.list;
  const mg_strings *targets = &p->nxn.texts.targets;
  const size_t wide = targets->count > list->count ? targets->count : list->count;
  mg_labelled_table evaluation = {0};
  mg_grid_matrix *matrices = NULL;
  double *ones = mg_alloc(list->count * wide, sizeof *ones);
  if (ones == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < list->count * wide; k++) ones[k] = 1;
  MG_TRY(mg_evaluation_table(list, targets, ones, &evaluation), cleanup);
  MG_TRY(mg_grid_matrices_read(config, p->cells.cells, p->cells.count, list, &evaluation, &matrices, NULL), cleanup);
  const mg_grid_context context = {.sources = list,
                                   .targets = targets,
                                   .matrix_count = config->grid.similarity_names.count,
                                   .matrices = matrices,
                                   .tv = ones,
                                   .cka = ones,
                                   .accuracy = {ones, ones}};
  for (size_t k = 0; k < p->cells.count; k++) {
    mg_resolved resolved;
    status = mg_grid_resolve(&context, &p->cells.cells[k], &resolved);
    if (status == MG_OK) mg_resolved_free(&resolved);
    if (status == MG_ERR_INPUT) status = add_reason(p);
    if (status != MG_OK) break;
  }
cleanup:
  mg_grid_matrices_free(&matrices, config->grid.similarity_names.count);
  mg_labelled_table_free(&evaluation);
  free(ones);
  return status;
}
