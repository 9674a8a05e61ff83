/* Which cell of a finished result is merged, and what it comes to by what the result holds: held against what it came to then.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "merging_impl.h"

/* ---- the result and its configuration ---- */

static mg_status parse(const char *file, const char *yaml, const mg_strings *settings, mg_config **config) {
  /* the paths in it are absolute; those of settings are what whoever types them sees */
  return mg_config_parse_in(".", file, yaml, strlen(yaml), settings, config);
}

static mg_status read_config(const mg_merge_cell_options *options, mg_chosen_cell *c) {
  mg_status status = MG_OK;
  char *yaml = NULL, *file = NULL;
  mg_config *then = NULL;
  MG_TRY(mg_result_read_config(c->reader, &yaml), cleanup);
  if (asprintf(&file, "%s: /provenance/config", options->result) < 0) {
    file = NULL;
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  MG_TRY(parse(file, yaml, NULL, &then), cleanup);
  MG_TRY(parse(file, yaml, options->settings, &c->config), cleanup);
  c->of_shards = then->shards.dir != NULL;
  free(c->config->result); /* wherever it has been moved to */
  c->config->result = mg_strdup(options->result);
  if (c->config->result == NULL) status = MG_ERR_NOMEM;
cleanup:
  mg_config_free(&then);
  free(yaml), free(file);
  return status;
}

static bool whether_there_or_not(void *context, const char *id) {
  (void)context, (void)id;
  return true;
}

/* The result's sources, in the directories that the configuration has them in by now. */
static mg_status read_sources(mg_chosen_cell *c) {
  mg_status status = MG_OK;
  mg_source_list now = {0};
  mg_family_spec *family = &c->config->family;
  MG_TRY(mg_result_read_sources(c->reader, &c->sources), cleanup);
  if (family->kind == MG_SOURCES_PATTERN && family->locales.count == 0) /* whatever matches it today */
    for (size_t k = 0; k < c->sources.count; k++) MG_TRY(mg_strings_add(&family->locales, c->sources.items[k].id), cleanup);
  MG_TRY(mg_sources_resolve(family, whether_there_or_not, NULL, &now), cleanup);
  for (size_t k = 0; k < c->sources.count; k++)
    for (size_t j = 0; j < now.count; j++) {
      if (strcmp(now.items[j].id, c->sources.items[k].id) != 0) continue;
      char *path = c->sources.items[k].path;
      c->sources.items[k].path = now.items[j].path;
      now.items[j].path = path;
    }
cleanup:
  mg_source_list_free(&now);
  return status;
}

/* ---- which cell ---- */

static const mg_method *method_of(const mg_result_cell *row) {
  const mg_method *method = NULL;
  return mg_method_find(row->method, &method) == MG_OK ? method : NULL;
}

static bool is_kind(const mg_result_cell *row, mg_method_kind kind) {
  const mg_method *method = method_of(row);
  return method != NULL && method->kind == kind;
}

/* Is it more accurate than the best so far, on the texts that recipes are chosen by? */
static bool is_better(const mg_result_cell *row, const mg_result_cell *best) {
  if (strcmp(row->status, "completed") != 0 || isnan(row->select_accuracy)) return false;
  return best == NULL || row->select_accuracy > best->select_accuracy;
}

/* Of the cells that match (take NULL: of all), those of one kind, and of one target where that is given; NULL: none. */
static const mg_result_cell *best_of_kind(const mg_chosen_cell *c, mg_method_kind kind, const char *locale, const bool *take) {
  const mg_result_cell *best = NULL;
  for (size_t k = 0; k < c->table.cell_count; k++) {
    const mg_result_cell *row = &c->table.cells[k];
    if ((take != NULL && !take[k]) || !is_kind(row, kind) || (locale != NULL && strcmp(row->locale, locale) != 0)) continue;
    if (is_better(row, best)) best = row;
  }
  return best;
}

/* A baseline is no answer to which merge is best, but whoever takes the merge should know of it: also of one that the
   conditions leave out, and of the same target only, since texts of another are easier or harder. */
static void say_best(const mg_chosen_cell *c, const char *conditions) {
  const mg_result_cell *best = c->row, *baseline = best_of_kind(c, MG_METHOD_MODEL, best->locale, NULL);
  mg_info("best of %s: cell %s, %s for %s, accuracy %.4f on the texts that are chosen by, %.4f on %s", conditions, best->key,
          best->method, best->locale, best->select_accuracy, best->accuracy, c->table.partition);
  if (baseline == NULL || !is_better(baseline, best)) return;
  mg_info("note: a baseline scores better: cell %s, %s for %s, one source as it is, accuracy %.4f on the texts that are chosen "
          "by, %.4f on %s; --cell %s writes it",
          baseline->key, baseline->method, baseline->locale, baseline->select_accuracy, baseline->accuracy, c->table.partition,
          baseline->key);
}

static mg_status no_best(const mg_chosen_cell *c, const char *conditions, const bool *take) {
  const mg_result_cell *baseline = best_of_kind(c, MG_METHOD_MODEL, NULL, take);
  mg_text text = {0};
  size_t matching = 0;
  for (size_t k = 0; k < c->table.cell_count; k++) matching += take[k];
  if (baseline != NULL)
    mg_text_append(&text, "; the best baseline among them, %s for %s, is written by --cell %s", baseline->method,
                   baseline->locale, baseline->key);
  mg_fail(MG_ERR_INPUT,
          "%s: --best %s: %zu cells match, and none of them is a merge that was completed; mergegrid show %s --where '%s' "
          "lists them%s",
          c->result, conditions, matching, c->result, conditions, text.data != NULL ? text.data : "");
  mg_text_free(&text);
  return MG_ERR_INPUT;
}

static mg_status find_best(mg_chosen_cell *c, const char *conditions) {
  bool *take = mg_alloc(c->table.cell_count, sizeof *take);
  if (take == NULL) return MG_ERR_NOMEM;
  mg_status status = mg_grid_table_where(&c->table, "--best", conditions, take);
  if (status == MG_OK) {
    c->row = best_of_kind(c, MG_METHOD_MERGE, NULL, take);
    if (c->row != NULL)
      say_best(c, conditions);
    else
      status = no_best(c, conditions, take);
  }
  free(take);
  return status;
}

static mg_status find_key(mg_chosen_cell *c, const char *key) {
  size_t at;
  const mg_status status = mg_grid_table_find(&c->table, key, &at);
  if (status == MG_OK) c->row = &c->table.cells[at];
  return status;
}

static mg_status check_row(const mg_chosen_cell *c) {
  const mg_result_cell *row = c->row;
  if (is_kind(row, MG_METHOD_VOTE))
    return mg_fail(MG_ERR_INPUT, "cell %s: %s is a vote over several models' answers: no checkpoint comes of it", row->key,
                   row->method);
  if (strcmp(row->status, "completed") == 0) return MG_OK;
  if (strcmp(row->status, "failed") == 0)
    return mg_fail(MG_ERR_INPUT, "cell %s (%s for %s) failed: %s", row->key, row->method, row->locale, row->error);
  return mg_fail(MG_ERR_INPUT, "cell %s (%s for %s) is %s: the run left it out (--where), so there is no merge to write yet",
                 row->key, row->method, row->locale, row->status);
}

/* The row's coordinates, as the configuration declares them. */
static mg_status find_cell(mg_chosen_cell *c) {
  mg_status status = MG_OK;
  MG_TRY(mg_grid_expand(c->config, &c->table.targets, &c->grid), done);
  for (size_t k = 0; k < c->grid.count && c->cell == NULL; k++)
    if (strcmp(c->grid.cells[k].key, c->row->key) == 0) c->cell = &c->grid.cells[k];
  if (c->cell == NULL)
    status = mg_fail(MG_ERR_INPUT, "cell %s (%s for %s): is not among the %zu that the configuration declares%s", c->row->key,
                     c->row->method, c->row->locale, c->grid.count, ": --set must not change the section grid or the seed");
done:
  return status;
}

/* ---- what it comes to ---- */

static const double WEIGHT_TOLERANCE = 1e-9; /* another version may round otherwise */

/* Of the same sources, with the same weights? Then they are taken to the last bit. */
static bool take_weights(mg_chosen_cell *c) {
  const size_t n = c->table.source_count, row = (size_t)(c->row - c->table.cells);
  const double *weights = c->table.weights + row * n;
  const bool *selected = c->table.selected + row * n;
  size_t count = 0;
  for (size_t s = 0; s < n; s++) count += selected[s];
  if (count != c->resolved.count || c->sources.count != n) return false;
  for (size_t k = 0; k < count; k++) {
    const int source = c->resolved.source[k];
    if (!selected[source] || fabs(c->resolved.weight[k] - weights[source]) > WEIGHT_TOLERANCE) return false;
    c->resolved.weight[k] = weights[source];
  }
  return true;
}

static mg_status differs(const mg_chosen_cell *c) {
  mg_text text = {0};
  const mg_grid_context context = {.sources = &c->sources};
  mg_status status = mg_resolved_sources_text(&context, &c->resolved, &text);
  if (status == MG_OK)
    status = mg_fail(MG_ERR_INPUT,
                     "cell %s (%s for %s): was merged from %s, and would now be from %s: the configuration or a file that it "
                     "names (grid.compatibility) has changed",
                     c->row->key, c->row->method, c->row->locale, c->row->sources, text.data);
  mg_text_free(&text);
  return status;
}

static mg_status resolve(mg_chosen_cell *c) {
  mg_status status = MG_OK;
  MG_TRY(mg_recipe_resolve(c->config, &c->sources, c->cell, c->reader, &c->resolved), done);
  if (!take_weights(c)) return differs(c);
  c->ids = mg_alloc(c->resolved.count, sizeof *c->ids);
  if (c->ids == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_recipe_of_cell(c->cell, &c->resolved, &c->sources, c->ids, &c->recipe), done);
done:
  if (status == MG_ERR_INPUT) mg_fail_context(status, "cell %s", c->row->key);
  return status;
}

mg_status mg_chosen_cell_open(const mg_merge_cell_options *options, mg_chosen_cell *c) {
  mg_status status = MG_OK;
  *c = (mg_chosen_cell){.result = options->result, .resolved = {.base = -1}};
  MG_TRY(mg_grid_open(options->result, &c->reader), done);
  MG_TRY(mg_grid_read_table(c->reader, &c->table), done);
  MG_TRY(read_config(options, c), done);
  MG_TRY(read_sources(c), done);
  MG_TRY(options->cell != NULL ? find_key(c, options->cell) : find_best(c, options->best), done);
  MG_TRY(check_row(c), done);
  MG_TRY(find_cell(c), done);
  MG_TRY(resolve(c), done);
done:
  return status;
}

void mg_chosen_cell_close(mg_chosen_cell *c) {
  mg_resolved_free(&c->resolved);
  mg_grid_free(&c->grid);
  mg_source_list_free(&c->sources);
  mg_grid_table_free(&c->table);
  mg_config_free(&c->config);
  mg_grid_close(&c->reader);
  free(c->ids);
  *c = (mg_chosen_cell){0};
}
