/* The section `recipe` resolved: whose weights are merged, how, and by what. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

/* A linear merge of weights that sum to 1 is the same from whatever base. */
static bool base_cancels(const mg_method *method, const double *values) {
  static const char *const linear[] = {
      "linear", "similarity", "manual", "average", "similarity_x_tv_compatibility", "similarity_x_cka_compatibility"};
  const int lambda = mg_method_parameter(method, "lambda");
  for (size_t k = 0; k < sizeof linear / sizeof *linear; k++)
    if (strcmp(method->name, linear[k]) == 0) return lambda < 0 || values[lambda] == 1;
  return false;
}

mg_status mg_recipe_of_cell(const mg_cell *cell, const mg_resolved *resolved, const mg_source_list *sources, const char **ids,
                            mg_recipe *recipe) {
  const mg_terms *terms = &cell->terms;
  *recipe = (mg_recipe){.method = terms->method,
                        .count = resolved->count,
                        .source = resolved->source,
                        .id = ids,
                        .weight = resolved->weight,
                        .best = resolved->best,
                        .base = resolved->base,
                        .head = mg_head_policy_of(terms->head),
                        .seed = terms->seed};
  memcpy(recipe->values, resolved->values, sizeof recipe->values);
  for (size_t k = 0; k < resolved->count; k++) ids[k] = sources->items[resolved->source[k]].id;
  if (resolved->kind == MG_CELL_VOTE)
    return mg_fail(MG_ERR_CONFIG, "method %s is a vote over the answers of several models: there is no checkpoint to write",
                   terms->method->name);
  if (resolved->kind == MG_CELL_MODEL) { /* a merge of one */
    const mg_status status = mg_method_find("linear", &recipe->method);
    if (status != MG_OK) return status;
    mg_method_defaults(recipe->method, recipe->values);
  }
  if (base_cancels(recipe->method, recipe->values)) recipe->base = -1;
  return MG_OK;
}

/* ---- what a recipe is resolved against ---- */

typedef struct surroundings {
  const mg_config *config;
  const mg_source_list *sources;
  const mg_cell *cell;
  const mg_grid_reader *finished; /* the result that the cell is of, or NULL */
  mg_result_reader *opened;       /* the configuration's result, where something is read of it */
  mg_labelled_table evaluation;
  mg_grid_matrix *matrices;
  double *accuracy, *compatibility;
  mg_strings notes;
} surroundings;

/* Does the recipe go by the matrix that the stage nxn makes? */
static bool goes_by_evaluation(const mg_config *config, const mg_terms *terms) {
  const mg_grid_spec *grid = &config->grid;
  const ptrdiff_t m = terms->similarity_type != NULL ? mg_strings_find(&grid->similarity_names, terms->similarity_type) : -1;
  return terms->sources.count == 0 && m >= 0 && strcmp(grid->similarity_files.items[m], "nxn") == 0;
}

/* Where evaluations and compatibilities are. */
static mg_status find_result(surroundings *s, const mg_result_reader **result) {
  const bool open = s->finished == NULL && s->opened == NULL;
  const mg_status status = open ? mg_result_open(s->config->result, &s->opened) : MG_OK;
  *result = s->finished != NULL ? s->finished : s->opened;
  return status;
}

/* The evaluation, where the recipe needs it; where it only helps to tell the best source, if it is there. */
static mg_status read_evaluation(surroundings *s, mg_grid_context *context) {
  const mg_terms *terms = &s->cell->terms;
  const bool best = terms->method->kind == MG_METHOD_MODEL && strcmp(terms->method->name, "own") != 0;
  const bool needed = best || goes_by_evaluation(s->config, terms);
  const mg_result_reader *result;
  if (s->finished == NULL && !mg_path_exists(s->config->result)) {
    if (!needed) return MG_OK;
    return mg_fail(MG_ERR_INPUT, "recipe: goes by the evaluation of the stage nxn, and %s is not there", s->config->result);
  }
  if (terms->locale == NULL) return MG_OK;
  mg_status status = find_result(s, &result);
  if (status == MG_OK) status = mg_result_read_evaluation(result, true, &s->evaluation);
  if (status != MG_OK) return needed || status == MG_ERR_NOMEM ? status : MG_OK;
  if (mg_strings_find(&s->evaluation.columns, terms->locale) < 0) return MG_OK;
  s->accuracy = mg_alloc(s->sources->count, s->evaluation.columns.count * sizeof *s->accuracy);
  if (s->accuracy == NULL) return MG_ERR_NOMEM;
  mg_evaluation_accuracy(&s->evaluation, s->sources, &s->evaluation.columns, s->accuracy);
  context->targets = &s->evaluation.columns;
  context->accuracy[1] = s->accuracy;
  return MG_OK;
}

static mg_status read_compatibility(surroundings *s, mg_grid_context *context) {
  mg_status status = MG_OK;
  const char *method = s->cell->terms.method->name;
  const bool cka = strcmp(method, "similarity_x_cka_compatibility") == 0;
  const char *file = cka ? s->config->grid.compatibility.cka : s->config->grid.compatibility.tv;
  const bool stage = strcmp(file, "stage") == 0;
  const mg_result_reader *result;
  mg_labelled_table table = {0};
  if (!cka && strcmp(method, "similarity_x_tv_compatibility") != 0) return MG_OK;
  if (stage) {
    MG_TRY(find_result(s, &result), cleanup);
    MG_TRY(mg_result_read_compatibility(result, cka, &table), cleanup);
  } else {
    MG_TRY(mg_labelled_table_read(file, &table), cleanup);
  }
  s->compatibility = mg_alloc(s->sources->count, s->sources->count * sizeof *s->compatibility);
  if (s->compatibility == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_compatibility_of(&table, stage ? s->config->result : file, s->sources, s->compatibility, &s->notes), cleanup);
  *(cka ? &context->cka : &context->tv) = s->compatibility;
cleanup:
  mg_labelled_table_free(&table);
  return status;
}

/* The one matrix that a cell of a finished result went by. */
static mg_status recall_matrix(surroundings *s) {
  mg_status status = MG_OK;
  const mg_terms *terms = &s->cell->terms;
  const mg_strings *names = &s->config->grid.similarity_names;
  const bool keep = strcmp(terms->duplicates, "keep") == 0;
  mg_labelled_table table = {0};
  s->matrices = mg_alloc_zero(names->count, sizeof *s->matrices);
  if (s->matrices == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < names->count; k++) s->matrices[k].name = names->items[k];
  if (!mg_terms_choose(terms) || terms->similarity_type == NULL) return MG_OK;
  const ptrdiff_t m = mg_strings_find(names, terms->similarity_type);
  if (m < 0) return MG_OK; /* what resolving says of the cell */
  MG_TRY(mg_grid_read_matrix(s->finished, terms->similarity_type, &table), cleanup);
  mg_similarity *matrix = keep ? &s->matrices[m].keep : &s->matrices[m].first;
  MG_TRY(mg_similarity_of(&table, terms->similarity_type, keep ? MG_DUPLICATES_KEEP : MG_DUPLICATES_FIRST, matrix, NULL),
         cleanup);
  if (strcmp(s->config->grid.similarity_files.items[m], "nxn") == 0)
    MG_TRY(mg_similarity_set_evaluated(matrix, &s->evaluation.columns), cleanup);
cleanup:
  mg_labelled_table_free(&table);
  return status;
}

static mg_status read_matrices(surroundings *s) {
  if (s->finished != NULL) return recall_matrix(s);
  return mg_grid_matrices_read(s->config, s->cell, 1, s->sources, s->evaluation.rows.count > 0 ? &s->evaluation : NULL,
                               &s->matrices, &s->notes);
}

static mg_status say(const surroundings *s, const mg_grid_context *context, const mg_resolved *resolved) {
  mg_status status = MG_OK;
  mg_text text = {0};
  for (size_t k = 0; k < s->notes.count; k++) mg_info("note: %s", s->notes.items[k]);
  MG_TRY(mg_resolved_sources_text(context, resolved, &text), cleanup);
  mg_info("sources: %s", text.data);
  if (resolved->base >= 0) mg_info("starts from %s, the strongest", s->sources->items[resolved->base].id);
  if (resolved->note != NULL) mg_info("note: %s", resolved->note);
cleanup:
  mg_text_free(&text);
  return status;
}

mg_status mg_recipe_resolve(const mg_config *config, const mg_source_list *sources, const mg_cell *cell,
                            const mg_grid_reader *finished, mg_resolved *resolved) {
  mg_status status = MG_OK;
  surroundings s = {.config = config, .sources = sources, .cell = cell, .finished = finished};
  mg_grid_context context = {.sources = sources, .matrix_count = config->grid.similarity_names.count};
  *resolved = (mg_resolved){.base = -1};
  MG_TRY(read_evaluation(&s, &context), cleanup);
  MG_TRY(read_matrices(&s), cleanup);
  context.matrices = s.matrices;
  MG_TRY(read_compatibility(&s, &context), cleanup);
  MG_TRY(mg_grid_resolve(&context, cell, resolved), cleanup);
  MG_TRY(say(&s, &context, resolved), cleanup);
cleanup:
  mg_grid_matrices_free(&s.matrices, context.matrix_count);
  mg_labelled_table_free(&s.evaluation);
  mg_strings_free(&s.notes);
  mg_result_close(&s.opened);
  free(s.accuracy), free(s.compatibility);
  return status;
}
