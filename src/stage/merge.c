/* The section `recipe` merged: its sources, what they call their classes, and what is written. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "merging_impl.h"

/* ---- heads ---- */

static bool in_order(const int32_t *class_of, size_t classes) {
  for (size_t c = 0; c < classes; c++)
    if (class_of[c] != (int32_t)c) return false;
  return true;
}

/* An order that can't be brought about: no tensor has a row a class, or the base has those as well. */
static mg_status check_head(const mg_roster *roster, const mg_tensor_table *table, size_t source, size_t classes) {
  for (size_t t = 0; t < table->count; t++)
    if (mg_has_row_a_class(&table->tensors[t], classes)) return MG_OK;
  return mg_fail(
      MG_ERR_INPUT,
      "source %s has its labels in another order than the first, and no tensor that the base lacks has %zu rows: its "
      "head can't be merged with the others'",
      roster->list.items[source].id, classes);
}

mg_status mg_merging_classes(const mg_config *config, const mg_roster *roster, const mg_tensor_table *table,
                             const mg_recipe *recipe, const mg_strings *labels, int32_t **class_of) {
  mg_status status = MG_OK;
  const size_t classes = labels->count, n = roster->list.count;
  *class_of = NULL;
  if (classes == 0) return MG_OK;
  int32_t *all = mg_alloc(n, classes * sizeof *all);
  if (all == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < n * classes; k++) all[k] = (int32_t)(k % classes);
  for (size_t k = 0; k <= recipe->count && status == MG_OK; k++) {
    const int source = k < recipe->count ? recipe->source[k] : recipe->base;
    if (source < 0) continue;
    int32_t *own = all + (size_t)source * classes;
    status = mg_roster_class_of(config, roster, (size_t)source, labels, classes, own);
    if (status == MG_OK && !in_order(own, classes)) status = check_head(roster, table, (size_t)source, classes);
  }
  if (status == MG_OK)
    *class_of = all;
  else
    free(all);
  return status;
}

/* ---- the story ---- */

/* begun: all but the recipe and what follows from it. */
static mg_status merge(const mg_merging *begun, const char *output) {
  mg_status status = MG_OK;
  mg_merging m = *begun;
  mg_resolved resolved = {.base = -1};
  mg_recipe recipe;
  const char **ids = NULL;
  int32_t *class_of = NULL;
  MG_TRY(mg_recipe_resolve(m.config, &m.roster->list, m.cell, NULL, &resolved), cleanup);
  ids = mg_alloc(resolved.count, sizeof *ids);
  if (ids == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_recipe_of_cell(m.cell, &resolved, &m.roster->list, ids, &recipe), cleanup);
  MG_TRY(mg_merging_classes(m.config, m.roster, mg_rows_table(m.rows), &recipe, m.labels, &class_of), cleanup);
  m.recipe = &recipe;
  m.class_of = class_of;
  m.resolved = &resolved;
  m.stand_in = resolved.base >= 0 ? &m.roster->list.items[resolved.base] : NULL;
  MG_TRY(mg_merging_write(&m, output), cleanup);
  mg_info("%s of %zu source%s in %s", m.cell->terms.method->name, recipe.count, recipe.count == 1 ? "" : "s", output);
cleanup:
  mg_resolved_free(&resolved);
  free(ids), free(class_of);
  return status;
}

mg_status mg_stage_merge(MPI_Comm comm, const mg_config *config, const char *output) {
  mg_status status = MG_OK;
  int rank;
  mg_roster roster = {0};
  mg_cell cell;
  mg_merging m = {.config = config, .roster = &roster, .labels = &roster.labels, .cell = &cell};
  MPI_Comm_rank(comm, &rank);
  status = mg_grid_recipe_cell(config, &cell);
  if (status == MG_OK && cell.terms.method->kind == MG_METHOD_VOTE)
    status = mg_fail(MG_ERR_CONFIG, "%s: recipe.method: %s is a vote over several models' answers: no checkpoint comes of it",
                     config->file, cell.terms.method->name);
  if (status == MG_OK && rank == 0) status = mg_merging_check_output(output);
  MG_TRY(mg_agree(comm, status), cleanup);
  MG_TRY(mg_roster_open_all(comm, config, &roster), cleanup);
  if (config->shards.dir != NULL) MG_TRY(mg_pack_family(comm, config, &roster, false), cleanup);
  MG_TRY(mg_agree(comm, rank == 0 ? mg_roster_rows(config, &roster, &m.rows) : MG_OK), cleanup);
  m.threads = mg_threads_auto(comm, config->compute.threads);
  MG_TRY(mg_agree(comm, rank == 0 ? merge(&m, output) : MG_OK), cleanup);
cleanup:
  mg_rows_close(&m.rows);
  mg_roster_close(&roster);
  return status;
}
