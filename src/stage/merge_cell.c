/*
 * A cell of a finished result merged: what the result says of it (merge_choose.c), its sources' shards or checkpoints as far as
 * they are still what the result was computed from, and the checkpoint that comes of them.
 */

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "merging_impl.h"

typedef struct cell_merge {
  mg_chosen_cell chosen;
  mg_recipe recipe;   /* sources numbered as in the roster */
  int *source;        /* [recipe.count] of it */
  mg_identity inputs; /* what the result was computed from */
  mg_roster roster;   /* of the sources that the recipe needs */
  mg_rows *rows;
  bool the_same;     /* the rows are what the result was computed from, not only what is there now */
  mg_strings labels; /* the family's, as the result calls them */
  int32_t *class_of;
  double *dots; /* inner products of the roster's sources: source_dot, base_dot, base_norm2, one block */
  mg_gram_view gram;
} cell_merge;

/* ---- only the sources that are needed ---- */

static bool is_needed(const mg_recipe *recipe, int source) {
  bool needed = recipe->base == source;
  for (size_t k = 0; k < recipe->count; k++) needed = needed || recipe->source[k] == source;
  return needed;
}

static mg_status copy_source(const mg_source *from, mg_source *to) {
  *to = (mg_source){.id = mg_strdup(from->id), .locale = mg_strdup(from->locale), .path = mg_strdup(from->path)};
  return to->id != NULL && to->locale != NULL && to->path != NULL ? MG_OK : MG_ERR_NOMEM;
}

/* The configuration's family becomes the recipe's sources, in the result's order, and the recipe is numbered by them. */
static mg_status narrow(cell_merge *x) {
  mg_status status = MG_OK;
  const mg_chosen_cell *c = &x->chosen;
  mg_family_spec *family = &c->config->family, spec = {.kind = MG_SOURCES_MAP, .allow_nonfinite = family->allow_nonfinite};
  int *number = mg_alloc(c->sources.count, sizeof *number);
  x->recipe = c->recipe;
  x->source = mg_alloc(c->recipe.count, sizeof *x->source);
  spec.entries = mg_alloc_zero(c->recipe.count + 1, sizeof *spec.entries);
  spec.base = mg_strdup(family->base);
  if (number == NULL || x->source == NULL || spec.entries == NULL || spec.base == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t s = 0; s < c->sources.count; s++) {
    if (!is_needed(&c->recipe, (int)s)) continue;
    number[s] = (int)spec.entry_count;
    MG_TRY(copy_source(&c->sources.items[s], &spec.entries[spec.entry_count++]), cleanup);
  }
  for (size_t k = 0; k < c->recipe.count; k++) x->source[k] = number[c->recipe.source[k]];
  x->recipe.source = x->source;
  if (c->recipe.base >= 0) x->recipe.base = number[c->recipe.base];
  mg_family_spec_free(family);
  *family = spec;
  spec = (mg_family_spec){0};
cleanup:
  mg_family_spec_free(&spec);
  free(number);
  return status;
}

/* ---- are they what the result was computed from? ---- */

/* The first of base and sources that is another one, NULL: none. */
static const char *find_other(const cell_merge *x, const mg_rows *rows, const mg_source *sources) {
  for (ptrdiff_t k = MG_ROW_BASE; k < (ptrdiff_t)mg_rows_sources(rows); k++) {
    char *name = NULL, own[17];
    if (k >= 0 && asprintf(&name, "source %s", sources[k].id) < 0) return sources[k].id;
    const char *before = mg_identity_value(&x->inputs, name != NULL ? name : "base");
    const bool same = before != NULL && strcmp(before, mg_hash_text(mg_rows_identity(rows, k), own)) == 0;
    free(name);
    if (!same) return k >= 0 ? sources[k].id : "the base";
  }
  return NULL;
}

/* Shards that the result was computed from are taken as they are, whatever has become of the checkpoints. */
static bool shards_hold(const cell_merge *x) {
  const mg_config *config = x->chosen.config;
  const mg_source_list list = {.count = config->family.entry_count, .items = config->family.entries};
  mg_rows *rows = NULL;
  if (config->shards.dir == NULL) return false;
  const mg_status status = mg_rows_open_shards(config->shards.dir, &list, mg_file_cache_bound(), &rows);
  const bool hold = status == MG_OK && find_other(x, rows, list.items) == NULL;
  mg_rows_close(&rows);
  return hold;
}

/* Against their checksums, unless they are known to be as they were written. */
static mg_status check_shards(const cell_merge *x) {
  mg_status status = MG_OK;
  mg_pack_outcome outcome;
  const mg_config *config = x->chosen.config;
  mg_pack_job job = {.dir = config->shards.dir, .dtype = config->shards.dtype};
  MG_TRY(mg_shard_pack(&job, &outcome), done);
  for (size_t k = 0; k < x->roster.list.count; k++) {
    job.source = &x->roster.list.items[k];
    MG_TRY(mg_shard_pack(&job, &outcome), done);
  }
done:
  return status;
}

static mg_status check_inputs(cell_merge *x) {
  const mg_config *config = x->chosen.config;
  const char *other = find_other(x, x->rows, x->roster.list.items), *result = x->chosen.result;
  x->the_same = other == NULL;
  if (other == NULL) return MG_OK;
  if (config->shards.dir != NULL && x->chosen.of_shards)
    return mg_fail(MG_ERR_INPUT,
                   "%s is not what %s was computed from: the merge would not be the cell's (--set shards.dir=DIR names other "
                   "shards; as a section recipe, merge -c takes what is there now)",
                   other, result);
  mg_warn("%s was computed from %s, and %s: whether %s is still the same can't be told", result,
          x->chosen.of_shards ? "shards" : "checkpoints",
          x->chosen.of_shards ? "this merge reads checkpoints" : "they are not where or as they were", other);
  return MG_OK;
}

static mg_status open_sources(cell_merge *x) {
  mg_status status = MG_OK;
  const mg_config *config = x->chosen.config;
  const bool hold = shards_hold(x);
  status = hold ? mg_roster_open_shards(config, &x->roster) : mg_roster_open(config, false, &x->roster);
  if (status == MG_ERR_INPUT)
    mg_fail_context(status,
                    "cell %s: where its sources are now is said by --set shards.dir=DIR or --set family.sources=PATTERN",
                    x->chosen.cell->key);
  if (status != MG_OK) return status;
  if (hold)
    MG_TRY(check_shards(x), done);
  else if (config->shards.dir != NULL)
    MG_TRY(mg_pack_family(MPI_COMM_SELF, config, &x->roster, false), done);
  MG_TRY(mg_roster_rows(config, &x->roster, &x->rows), done);
  MG_TRY(check_inputs(x), done);
done:
  return status;
}

/* ---- classes ---- */

/* The result's names; `own` gets those that sources are to be matched by: they may know theirs by numbers only. */
static mg_status find_labels(cell_merge *x, mg_strings *own) {
  mg_status status = MG_OK;
  const mg_strings *first = &x->roster.labels;
  MG_TRY(mg_result_read_list(x->chosen.reader, "/labels", &x->labels), done);
  if (first->count > 0 && first->count != x->labels.count)
    return mg_fail(MG_ERR_INPUT, "source %s names %zu labels, %s %zu", x->roster.list.items[0].id, first->count,
                   x->chosen.result, x->labels.count);
  const bool by_name = first->count > 0 && mg_strings_find(&x->labels, first->items[0]) >= 0;
  *own = by_name ? x->labels : *first;
done:
  return status;
}

/* ---- inner products ---- */

/* Those of the roster's sources, out of all. */
static mg_status take_grams(cell_merge *x, const mg_gram *all) {
  const mg_source_list *list = &x->roster.list;
  const size_t n = list->count, tensors = all->groups, most = all->sources;
  size_t *from = mg_alloc_zero(n, sizeof *from);
  x->dots = mg_alloc(tensors, (n * n + n + 1) * sizeof *x->dots);
  if (from == NULL || x->dots == NULL) {
    free(from);
    return MG_ERR_NOMEM;
  }
  for (size_t k = 0; k < n; k++)
    while (strcmp(x->chosen.sources.items[from[k]].id, list->items[k].id) != 0) from[k]++;
  double *dot = x->dots, *base_dot = dot + tensors * n * n, *base_norm2 = base_dot + tensors * n;
  for (size_t t = 0; t < tensors; t++) {
    for (size_t i = 0; i < n; i++) {
      for (size_t j = 0; j < n; j++) dot[(t * n + i) * n + j] = all->dot[(t * most + from[i]) * most + from[j]];
      base_dot[t * n + i] = all->base_dot[t * most + from[i]];
    }
    base_norm2[t] = all->base_norm2[t];
  }
  x->gram = (mg_gram_view){.sources = n, .source_dot = dot, .base_dot = base_dot, .base_norm2 = base_norm2};
  free(from);
  return MG_OK;
}

/* The result's, where it has one a tensor and they are of these weights: then coefficients have the bits that the cell's had.
 */
static mg_status read_grams(cell_merge *x) {
  mg_status status = MG_OK;
  mg_gram gram = {0};
  mg_strings groups = {0};
  const mg_tensor_table *table = mg_rows_table(x->rows);
  if (!x->the_same || !mg_result_has(x->chosen.reader, "/compatibility")) return MG_OK;
  MG_TRY(mg_result_read_list(x->chosen.reader, "/compatibility/gram/groups", &groups), cleanup);
  bool a_tensor = groups.count == table->count;
  for (size_t t = 0; t < table->count && a_tensor; t++) a_tensor = strcmp(groups.items[t], table->tensors[t].name) == 0;
  if (!a_tensor) goto cleanup;
  MG_TRY(mg_result_read_gram(x->chosen.reader, &gram), cleanup);
  if (gram.groups == table->count && gram.sources == x->chosen.sources.count) MG_TRY(take_grams(x, &gram), cleanup);
cleanup:
  mg_gram_free(&gram);
  mg_strings_free(&groups);
  return status;
}

/* ---- the story ---- */

static mg_status write(cell_merge *x, const char *output) {
  const mg_chosen_cell *c = &x->chosen;
  char *whole = realpath(c->result, NULL);
  const mg_merging m = {.config = c->config,
                        .roster = &x->roster,
                        .rows = x->rows,
                        .recipe = &x->recipe,
                        .gram = x->dots != NULL ? &x->gram : NULL,
                        .labels = &x->labels,
                        .class_of = x->class_of,
                        .threads = mg_threads_auto(MPI_COMM_SELF, c->config->compute.threads),
                        .cell = c->cell,
                        .resolved = &c->resolved,
                        .stand_in = c->resolved.base >= 0 ? &c->sources.items[c->resolved.base] : NULL,
                        .result = whole != NULL ? whole : c->result,
                        .row = c->row};
  const mg_status status = mg_merging_write(&m, output);
  if (status == MG_OK)
    mg_info("%s of %zu source%s in %s", c->row->method, x->recipe.count, x->recipe.count == 1 ? "" : "s", output);
  free(whole);
  return status;
}

static mg_status merge_cell(const mg_merge_cell_options *options, const char *output) {
  mg_status status = MG_OK;
  cell_merge x = {0};
  mg_strings names = {0}; /* borrowed */
  MG_TRY(mg_merging_check_output(output), cleanup);
  MG_TRY(mg_chosen_cell_open(options, &x.chosen), cleanup);
  MG_TRY(mg_result_read_inputs(x.chosen.reader, &x.inputs), cleanup);
  MG_TRY(narrow(&x), cleanup);
  MG_TRY(open_sources(&x), cleanup);
  MG_TRY(find_labels(&x, &names), cleanup);
  MG_TRY(mg_merging_classes(x.chosen.config, &x.roster, mg_rows_table(x.rows), &x.recipe, &names, &x.class_of), cleanup);
  MG_TRY(read_grams(&x), cleanup);
  MG_TRY(write(&x, output), cleanup);
cleanup:
  mg_rows_close(&x.rows);
  mg_roster_close(&x.roster);
  mg_identity_free(&x.inputs);
  mg_strings_free(&x.labels);
  mg_chosen_cell_close(&x.chosen);
  free(x.source), free(x.class_of), free(x.dots);
  return status;
}

mg_status mg_stage_merge_cell(MPI_Comm comm, const mg_merge_cell_options *options, const char *output) {
  int rank;
  MPI_Comm_rank(comm, &rank);
  return mg_agree(comm, rank == 0 ? merge_cell(options, output) : MG_OK);
}
