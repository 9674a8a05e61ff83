/* Recipes that an earlier result has computed: their predictions go into this attempt's journal, as if just computed. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/hash.h"
#include "mergegrid/result_grid.h"

/* A recipe that is wanted, and where. */
typedef struct wanted {
  uint64_t recipe;
  size_t target;
} wanted;

static int by_recipe(const void *a, const void *b) {
  const wanted *x = a, *y = b;
  return (x->recipe > y->recipe) - (x->recipe < y->recipe);
}

static mg_status list_wanted(const mg_grid_stage *s, wanted **list, size_t *count) {
  *count = 0;
  *list = mg_alloc(s->grid.count, sizeof **list);
  if (*list == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->grid.count; k++) {
    const mg_grid_cell *c = &s->cells[k];
    if (c->recipe == 0 || c->same_as >= 0 || c->done || c->resolved.kind == MG_CELL_MODEL) continue;
    (*list)[(*count)++] = (wanted){.recipe = c->recipe, .target = (size_t)c->target};
  }
  qsort(*list, *count, sizeof **list, by_recipe);
  return MG_OK;
}

/* A row of an earlier result, text by text, to predictions of this target's different sequences. */
static mg_status take_row(mg_grid_stage *s, uint64_t recipe, size_t target, const int32_t *row, int32_t *predictions) {
  mg_status status = MG_OK;
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  const mg_target *of = &t->items[target];
  const size_t count = (size_t)(s->work.first_of[target + 1] - s->work.first_of[target]);
  char hash[17];
  for (size_t k = 0; k < of->count; k++) {
    if (row[k] < 0 || (size_t)row[k] >= s->nxn->classes) return MG_OK; /* not of these texts: it is computed again */
    predictions[mg_grid_position(&s->work, target, t->tokenized.sequence_of[of->text[k]])] = row[k];
  }
  MG_TRY(mg_grid_journal(s, recipe, target, predictions, count * sizeof *predictions, NULL), done);
  MG_TRY(mg_strings_add(&s->reused, mg_hash_text(recipe, hash)), done);
done:
  return status;
}

/* All wanted rows of one target of a result. */
static mg_status take_target(mg_grid_stage *s, const mg_grid_reader *reader, const mg_grid_table *table, size_t target,
                             const wanted *list, size_t count, size_t *taken) {
  mg_status status = MG_OK;
  const char *name = s->nxn->plan.texts.targets.items[target];
  mg_grid_answers answers = {0};
  int32_t *predictions = mg_alloc(s->nxn->plan.texts.items[target].count, sizeof *predictions);
  bool opened = false;
  if (predictions == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < table->cell_count; k++) {
    const mg_result_cell *cell = &table->cells[k];
    wanted key = {.recipe = strtoull(cell->recipe, NULL, 16)};
    if (strcmp(cell->locale, name) != 0 || cell->prediction_row < 0 || cell->same_as >= 0) continue;
    const wanted *found = bsearch(&key, list, count, sizeof key, by_recipe);
    if (found == NULL || found->target != target) continue;
    if (!opened) MG_TRY(mg_grid_read_answers(reader, name, &answers), cleanup);
    opened = true;
    if (answers.texts != s->nxn->plan.texts.items[target].count || (size_t)cell->prediction_row >= answers.rows) continue;
    MG_TRY(take_row(s, key.recipe, target, answers.predictions + (size_t)cell->prediction_row * answers.texts, predictions),
           cleanup);
    ++*taken;
  }
cleanup:
  mg_grid_answers_free(&answers);
  free(predictions);
  return status;
}

static mg_status take_result(mg_grid_stage *s, const char *path) {
  mg_status status = MG_OK;
  mg_grid_reader *reader = NULL;
  mg_grid_table table = {0};
  wanted *list = NULL;
  size_t count = 0, taken = 0;
  MG_TRY(list_wanted(s, &list, &count), cleanup);
  if (count == 0) goto cleanup;
  MG_TRY(mg_grid_open(path, &reader), cleanup);
  MG_TRY(mg_grid_read_table(reader, &table), cleanup);
  for (size_t m = 0; m < s->work.target_count; m++) {
    if (mg_strings_find(&table.targets, s->nxn->plan.texts.targets.items[m]) < 0) continue;
    MG_TRY(take_target(s, reader, &table, m, list, count, &taken), cleanup);
  }
  mg_info("grid: %zu of %zu recipes are taken from %s", taken, count, path);
  mg_grid_look_up(s);
cleanup:
  mg_grid_table_free(&table);
  mg_grid_close(&reader);
  free(list);
  return status;
}

/* A result of another base is a mistake, not something to pick from. */
static mg_status check_family(const mg_grid_stage *s, const char *path) {
  mg_identity identity = {0};
  char own[17];
  mg_hash_text(mg_rows_identity(s->deltas.rows, MG_ROW_BASE), own);
  mg_status status = mg_path_exists(path) ? mg_result_read_identity(path, &identity)
                                          : mg_fail(MG_ERR_INPUT, "reuse: %s: no such result", path);
  for (size_t k = 0; k < identity.count && status == MG_OK; k++)
    if (strcmp(identity.names[k], "base") == 0 && strcmp(identity.values[k], own) != 0)
      status = mg_fail(MG_ERR_INPUT, "reuse: %s: is of another family: its base is not this run's (%s, not %s)", path,
                       identity.values[k], own);
  mg_identity_free(&identity);
  return status;
}

mg_status mg_grid_check_reuse(const mg_grid_stage *s) {
  mg_status status = MG_OK;
  const mg_strings *reuse = &s->attempt->config->reuse;
  for (size_t k = 0; k < reuse->count && status == MG_OK; k++) status = check_family(s, reuse->items[k]);
  return status;
}

mg_status mg_grid_reuse(mg_grid_stage *s) {
  mg_status status = MG_OK;
  const mg_config *config = s->attempt->config;
  if (mg_path_exists(config->result) && mg_result_has_grid(config->result)) MG_TRY(take_result(s, config->result), done);
  for (size_t k = 0; k < config->reuse.count; k++)
    if (mg_result_has_grid(config->reuse.items[k]))
      MG_TRY(take_result(s, config->reuse.items[k]), done);
    else
      mg_warn("reuse: %s: has no stage grid: nothing to take from it", config->reuse.items[k]);
done:
  return status;
}
