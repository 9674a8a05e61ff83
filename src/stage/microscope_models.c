/* Rank 0: what the microscope's setups come to. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "microscope_impl.h"

static bool is_reference(const mg_microscope_stage *s, const mg_scope_setup *setup) { return setup == s->setups; }

/* What is missing is skipped; the reference can't be. message: NULL for this thread's. */
static mg_status skip(const mg_microscope_stage *s, mg_scope_setup *setup) {
  setup->exists = false;
  free(setup->error);
  setup->error = mg_strdup(mg_error_message());
  if (setup->error == NULL) return MG_ERR_NOMEM;
  if (is_reference(s, setup)) return mg_fail(MG_ERR_INPUT, "%s: microscope.reference: %s", setup->said->place, setup->error);
  mg_warn("microscope: %s is skipped: %s", setup->said->name, setup->error);
  return MG_OK;
}

/* It is there, but comes to nothing; the end of the run says so. The reference can't. */
static mg_status fail(const mg_microscope_stage *s, mg_scope_setup *setup) {
  free(setup->error);
  setup->error = mg_strdup(mg_error_message());
  if (setup->error == NULL) return MG_ERR_NOMEM;
  if (is_reference(s, setup)) return mg_fail(MG_ERR_INPUT, "%s: microscope.reference: %s", setup->said->place, setup->error);
  return MG_OK;
}

/* ---- what is known at once ---- */

static mg_status find_source(const mg_microscope_stage *s, const char *id, ptrdiff_t *source) {
  const char *nearest;
  const char **ids = mg_alloc(s->list->count, sizeof *ids);
  *source = -1;
  if (ids == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->list->count; k++) {
    ids[k] = s->list->items[k].id;
    if (strcmp(ids[k], id) == 0) *source = (ptrdiff_t)k;
  }
  nearest = mg_nearest(id, ids, s->list->count);
  mg_status status = MG_OK;
  if (*source < 0)
    status = mg_fail(MG_ERR_INPUT, "there is no source %s%s%s%s", id, nearest ? " (" : "", nearest ? nearest : "",
                     nearest ? "?)" : "");
  free(ids);
  return status;
}

static mg_status find_cell(const mg_microscope_stage *s, const char *key, size_t *cell) {
  const mg_grid_stage *grid = s->stages->grid;
  size_t found = 0;
  if (grid == NULL)
    return mg_fail(MG_ERR_INPUT, "cell %s is one of the stage grid, which this run does not have (--stages)", key);
  for (size_t k = 0; k < grid->grid.count; k++) {
    if (strncmp(grid->grid.cells[k].key, key, strlen(key)) != 0) continue;
    *cell = k;
    found++;
  }
  if (found == 1) return MG_OK;
  return found == 0
             ? mg_fail(MG_ERR_INPUT, "the grid has no cell whose key begins with %s", key)
             : mg_fail(MG_ERR_INPUT, "%zu cells of the grid have keys that begin with %s: more of it was expected", found, key);
}

/* A directory that is there has to be of the family. */
static mg_status check_path(const mg_microscope_stage *s, const mg_setup *said) {
  mg_status status = MG_OK;
  mg_scope_path *path = NULL;
  const mg_tensor_table *table = mg_rows_table(s->attempt->rows);
  uint8_t *has = mg_alloc(table->count, sizeof *has);
  if (has == NULL) return MG_ERR_NOMEM;
  if (strlen(said->what) >= sizeof(((mg_scope_model *)0)->path)) {
    status = mg_fail(MG_ERR_INPUT, "%.80s…: a path of %zu bytes", said->what, strlen(said->what));
    goto cleanup;
  }
  MG_TRY(mg_scope_path_open(said->what, table, &s->attempt->roster->labels, &path), cleanup);
  MG_TRY(mg_scope_path_check(path, said->name, s->plan.signals ? &s->plan.shape : NULL, has), cleanup);
cleanup:
  if (status == MG_ERR_INPUT) mg_fail_context(status, "%s", said->place);
  mg_scope_path_close(&path);
  free(has);
  return status;
}

static mg_status examine(mg_microscope_stage *s, mg_scope_setup *setup) {
  mg_status status = MG_OK;
  const mg_setup *said = setup->said;
  ptrdiff_t source;
  size_t cell;
  mg_cell of_terms;
  setup->exists = true;
  switch (said->kind) {
  case MG_SETUP_SOURCE:
    status = find_source(s, said->what, &source);
    break;
  case MG_SETUP_CELL:
    status = find_cell(s, said->what, &cell);
    break;
  case MG_SETUP_PATH:
    if (mg_path_is_dir(said->what)) return check_path(s, said);
    status = mg_fail(MG_ERR_INPUT, "%s: no such directory", said->what);
    break;
  case MG_SETUP_RECIPE:
    return mg_grid_setup_cell(s->attempt->config, said, &of_terms);
  default:
    break;
  }
  return status == MG_ERR_INPUT ? skip(s, setup) : status;
}

mg_status mg_scope_examine(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  const mg_microscope_spec *spec = &s->attempt->config->microscope;
  s->setup_count = spec->setup_count + 1;
  s->setups = mg_alloc_zero(s->setup_count, sizeof *s->setups);
  if (s->setups == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->setup_count; k++) {
    s->setups[k] = (mg_scope_setup){.said = k > 0 ? &spec->setups[k - 1] : &spec->reference, .model = -1};
    MG_TRY(examine(s, &s->setups[k]), done);
  }
done:
  return status;
}

void mg_scope_setups_free(mg_microscope_stage *s) {
  for (size_t k = 0; s->setups != NULL && k < s->setup_count; k++) free(s->setups[k].error), free(s->setups[k].sources);
  free(s->setups);
  s->setups = NULL;
}

/* ---- what recipes are resolved against ---- */

typedef struct surroundings {
  mg_grid_context context;
  mg_labelled_table evaluation;
  mg_grid_matrix *matrices;
  double *from_file[2]; /* compatibilities: tv, cka */
  mg_strings notes;
  mg_cell *cells; /* [setups] of those that are terms */
} surroundings;

static void free_surroundings(surroundings *r) {
  mg_grid_matrices_free(&r->matrices, r->context.matrix_count);
  mg_labelled_table_free(&r->evaluation);
  mg_strings_free(&r->notes);
  free(r->from_file[0]), free(r->from_file[1]), free(r->cells);
}

/* The cells of setups that are terms, one behind the other; *count of them. */
static mg_status list_cells(const mg_microscope_stage *s, mg_cell **cells, size_t *count) {
  mg_status status = MG_OK;
  *count = 0;
  *cells = mg_alloc(s->setup_count, sizeof **cells);
  if (*cells == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->setup_count; k++)
    if (s->setups[k].said->kind == MG_SETUP_RECIPE)
      MG_TRY(mg_grid_setup_cell(s->attempt->config, s->setups[k].said, &(*cells)[(*count)++]), done);
done:
  return status;
}

static mg_status read_file(const mg_microscope_stage *s, const char *file, surroundings *r, double **values) {
  mg_status status = MG_OK;
  mg_labelled_table table = {0};
  *values = mg_alloc(s->list->count, s->list->count * sizeof **values);
  if (*values == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_labelled_table_read(file, &table), cleanup);
  MG_TRY(mg_compatibility_of(&table, file, s->list, *values, &r->notes), cleanup);
cleanup:
  mg_labelled_table_free(&table);
  return status;
}

/* Compatibilities, where a setup goes by them. */
static mg_status find_compatibilities(const mg_microscope_stage *s, size_t count, surroundings *r) {
  static const char *const methods[] = {"similarity_x_tv_compatibility", "similarity_x_cka_compatibility"};
  mg_status status = MG_OK;
  const mg_config *config = s->attempt->config;
  const char *files[] = {config->grid.compatibility.tv, config->grid.compatibility.cka};
  const double **values[] = {&r->context.tv, &r->context.cka};
  for (size_t m = 0; m < 2; m++) {
    const mg_gram *gram;
    bool wanted = false;
    for (size_t k = 0; k < count; k++) wanted = wanted || strcmp(r->cells[k].terms.method->name, methods[m]) == 0;
    if (!wanted) continue;
    if (strcmp(files[m], "stage") != 0) {
      MG_TRY(read_file(s, files[m], r, &r->from_file[m]), done);
      *values[m] = r->from_file[m];
    } else if (m == 0 && s->stages->gram != NULL) {
      MG_TRY(mg_gram_stage_matrices(s->stages->gram, values[m], &gram), done);
    } else if (m == 1 && s->stages->cka != NULL) {
      MG_TRY(mg_cka_last(s->stages->cka, values[m]), done);
    }
  }
done:
  return status;
}

static mg_status survey(const mg_microscope_stage *s, surroundings *r) {
  mg_status status = MG_OK;
  size_t count;
  const mg_config *config = s->attempt->config;
  mg_nxn_stage *nxn = s->stages->nxn;
  MG_TRY(list_cells(s, &r->cells, &count), done);
  r->context = (mg_grid_context){.sources = s->list, .matrix_count = config->grid.similarity_names.count};
  if (nxn != NULL) {
    MG_TRY(mg_nxn_score(nxn), done);
    r->context.targets = &nxn->plan.texts.targets;
    r->context.accuracy[0] = mg_nxn_accuracy(nxn, 0);
    r->context.accuracy[1] = mg_nxn_accuracy(nxn, 1);
    MG_TRY(mg_evaluation_table(s->list, r->context.targets, r->context.accuracy[1], &r->evaluation), done);
  }
  MG_TRY(mg_grid_matrices_read(config, r->cells, count, s->list, nxn != NULL ? &r->evaluation : NULL, &r->matrices, &r->notes),
         done);
  r->context.matrices = r->matrices;
  MG_TRY(find_compatibilities(s, count, r), done);
  for (size_t k = 0; k < r->notes.count; k++) mg_info("note: %s", r->notes.items[k]);
done:
  return status;
}

/* ---- models ---- */

static mg_status grow(void **items, size_t count, size_t more, size_t size) {
  void *grown = reallocarray(*items, count + more + 1, size);
  if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  *items = grown;
  return MG_OK;
}

static mg_status add_recipe(mg_microscope_stage *s, const mg_recipe *recipe, mg_scope_model *model) {
  mg_status status = MG_OK;
  mg_scope_work *w = &s->work;
  void *sources = w->sources, *weights = w->weights;
  MG_TRY(grow(&sources, w->source_count, recipe->count, sizeof *w->sources), done);
  w->sources = sources;
  MG_TRY(grow(&weights, w->weight_count, recipe->count, sizeof *w->weights), done);
  w->weights = weights;
  model->kind = MG_SCOPE_MERGE;
  model->method = (uint32_t)(recipe->method - mg_methods);
  model->count = (uint32_t)recipe->count;
  model->best = (uint32_t)recipe->best;
  model->base = recipe->base;
  model->head = (int32_t)recipe->head;
  model->seed = recipe->seed;
  model->first = w->source_count;
  memcpy(model->values, recipe->values, sizeof model->values);
  for (size_t k = 0; k < recipe->count; k++) {
    w->sources[w->source_count++] = recipe->source[k];
    w->weights[w->weight_count++] = recipe->weight[k];
  }
done:
  return status;
}

/* A cell's recipe, and what the table of setups says of it. */
static mg_status take_cell(mg_microscope_stage *s, const mg_cell *cell, const mg_resolved *resolved, mg_scope_setup *setup,
                           mg_scope_model *model) {
  mg_status status = MG_OK;
  const mg_terms *terms = &cell->terms;
  const mg_grid_context context = {.sources = s->list};
  mg_recipe recipe;
  mg_text text = {0}, spaced = {0};
  const char **ids = mg_alloc(resolved->count, sizeof *ids);
  if (ids == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_recipe_of_cell(cell, resolved, s->list, ids, &recipe), cleanup);
  MG_TRY(add_recipe(s, &recipe, model), cleanup);
  MG_TRY(mg_resolved_sources_text(&context, resolved, &text), cleanup);
  for (const char *c = text.data; *c != '\0'; c++) mg_text_append(&spaced, *c == ',' ? ", " : "%c", *c);
  setup->sources = mg_strdup(spaced.data != NULL ? spaced.data : "");
  if (setup->sources == NULL) status = MG_ERR_NOMEM;
  setup->mode = terms->method->name;
  setup->target_lang = terms->locale;
  setup->num_languages = terms->num_languages;
  setup->preweight = !mg_method_is_weighted(terms->method, resolved->values) ? "equal"
                     : terms->sources.count > 0                              ? "named"
                                                                             : terms->similarity_type;
  setup->base_model = resolved->base >= 0 ? s->list->items[resolved->base].path : s->attempt->config->family.base;
cleanup:
  mg_text_free(&text);
  mg_text_free(&spaced);
  free(ids);
  return status;
}

static mg_status take_grid_cell(mg_microscope_stage *s, mg_scope_setup *setup, mg_scope_model *model) {
  mg_status status = MG_OK;
  const mg_grid_stage *grid = s->stages->grid;
  size_t k = 0;
  MG_TRY(find_cell(s, setup->said->what, &k), done);
  const mg_grid_cell *cell = &grid->cells[k];
  memcpy(setup->cell, grid->grid.cells[k].key, sizeof setup->cell);
  if (cell->recipe == 0)
    return mg_fail(MG_ERR_INPUT, "cell %s %s", setup->cell, cell->error != NULL ? cell->error : "is left out of this run");
  if (cell->resolved.kind == MG_CELL_VOTE)
    return mg_fail(MG_ERR_INPUT, "cell %s is a vote over several models' answers: there is no one model to look at",
                   setup->cell);
  MG_TRY(take_cell(s, &grid->grid.cells[k], &cell->resolved, setup, model), done);
done:
  return status;
}

static mg_status take_source(mg_microscope_stage *s, mg_scope_setup *setup, mg_scope_model *model) {
  mg_status status = MG_OK;
  static const double whole = 1;
  ptrdiff_t source;
  mg_recipe recipe = {.count = 1, .weight = &whole, .base = -1};
  MG_TRY(find_source(s, setup->said->what, &source), done);
  const int number = (int)source;
  recipe.source = &number;
  MG_TRY(mg_method_find("linear", &recipe.method), done);
  mg_method_defaults(recipe.method, recipe.values);
  MG_TRY(add_recipe(s, &recipe, model), done);
  setup->path = s->list->items[source].path;
done:
  return status;
}

static mg_status take_terms(mg_microscope_stage *s, const surroundings *r, mg_scope_setup *setup, mg_scope_model *model) {
  mg_status status = MG_OK;
  mg_cell cell;
  mg_resolved resolved = {.base = -1};
  MG_TRY(mg_grid_setup_cell(s->attempt->config, setup->said, &cell), done);
  MG_TRY(mg_grid_resolve(&r->context, &cell, &resolved), done);
  if (resolved.note != NULL) mg_info("microscope: %s: %s", setup->said->name, resolved.note);
  MG_TRY(take_cell(s, &cell, &resolved, setup, model), done);
done:
  mg_resolved_free(&resolved);
  return status;
}

static mg_status take(mg_microscope_stage *s, const surroundings *r, mg_scope_setup *setup, mg_scope_model *model) {
  switch (setup->said->kind) {
  case MG_SETUP_SOURCE:
    return take_source(s, setup, model);
  case MG_SETUP_CELL:
    return take_grid_cell(s, setup, model);
  case MG_SETUP_RECIPE:
    return take_terms(s, r, setup, model);
  case MG_SETUP_PATH:
    model->kind = MG_SCOPE_PATH;
    setup->path = setup->said->what;
    snprintf(model->path, sizeof model->path, "%s", setup->said->what);
    return MG_OK;
  default:
    model->kind = MG_SCOPE_BASE;
    setup->path = s->attempt->config->family.base;
    return MG_OK;
  }
}

/* ---- which tensors they have ---- */

static mg_status find_tensors(const mg_microscope_stage *s, const mg_scope_setup *setup, mg_scope_model *model, uint8_t *has) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(s->attempt->rows);
  mg_scope_path *path = NULL;
  if (model->kind == MG_SCOPE_PATH) {
    MG_TRY(mg_scope_path_open(model->path, table, &s->attempt->roster->labels, &path), cleanup);
    MG_TRY(mg_scope_path_check(path, setup->said->name, s->plan.signals ? &s->plan.shape : NULL, has), cleanup);
  } else {
    for (size_t t = 0; t < table->count; t++) has[t] = model->kind == MG_SCOPE_MERGE || !table->tensors[t].source_only;
  }
  model->with_head = s->plan.shape.classes > 0;
  for (size_t t = 0; t < table->count; t++)
    if (mg_weight_name_matches(table->tensors[t].name, "classifier.out_proj.weight") && !has[t]) model->with_head = 0;
cleanup:
  mg_scope_path_close(&path);
  return status;
}

/* Of one that did not resolve: has it failed, as the grid's cells do whose terms come to no merge? Else it is not there. */
static bool has_failed(const mg_microscope_stage *s, const mg_scope_setup *setup) {
  size_t cell;
  if (setup->said->kind == MG_SETUP_CELL && setup->cell[0] != '\0' && find_cell(s, setup->cell, &cell) == MG_OK)
    return s->stages->grid->cells[cell].state == MG_CELL_FAILED;
  return setup->said->kind == MG_SETUP_RECIPE;
}

mg_status mg_scope_resolve(mg_microscope_stage *s) {
  mg_status status = MG_OK;
  surroundings r = {0};
  mg_scope_work *w = &s->work;
  const size_t tensors = mg_rows_table(s->attempt->rows)->count;
  w->models = mg_alloc_zero(s->setup_count, sizeof *w->models);
  w->has = mg_alloc(s->setup_count, tensors);
  if (w->models == NULL || w->has == NULL) return MG_ERR_NOMEM;
  MG_TRY(survey(s, &r), cleanup);
  for (size_t k = 0; k < s->setup_count; k++) {
    mg_scope_setup *setup = &s->setups[k];
    mg_scope_model *model = &w->models[w->model_count];
    if (!setup->exists) continue;
    status = take(s, &r, setup, model);
    if (status == MG_OK) status = find_tensors(s, setup, model, w->has + w->model_count * tensors);
    if (status == MG_ERR_INPUT) {
      MG_TRY(has_failed(s, setup) ? fail(s, setup) : skip(s, setup), cleanup);
      memset(model, 0, sizeof *model);
      continue;
    }
    if (status != MG_OK) goto cleanup;
    setup->model = (ptrdiff_t)w->model_count++;
  }
  w->has_count = w->model_count * tensors;
cleanup:
  free_surroundings(&r);
  return status;
}
