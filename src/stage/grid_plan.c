/* What the stage grid will compute and hold, for `plan` and for the run that has to stay within it. */

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"

enum { MOST_MODELS = 16, FEW_MODELS = 4, TURNS_LEFT = 4 };

/* Most different tokens that one target's texts have. */
static mg_status count_tokens(const mg_nxn_plan *nxn, size_t *most) {
  const mg_nxn_texts *t = &nxn->texts;
  const mg_sequences *all = &t->tokenized.sequences;
  size_t *seen = mg_alloc_zero((size_t)nxn->shape.vocabulary, sizeof *seen); /* the last target that had it, from 1 on */
  *most = 0;
  if (seen == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < t->targets.count; m++) {
    size_t count = 0;
    for (size_t k = 0; k < t->items[m].count; k++) {
      const int32_t sequence = t->tokenized.sequence_of[t->items[m].text[k]];
      for (int64_t i = all->offset[sequence]; i < all->offset[sequence + 1]; i++) {
        count += seen[all->ids[i]] != m + 1;
        seen[all->ids[i]] = m + 1;
      }
    }
    if (count > *most) *most = count;
  }
  free(seen);
  return MG_OK;
}

/* Models first, a few; then the sources; what remains for more models. */
static void share_memory(const mg_config *config, const mg_memory *others, size_t sources, mg_grid_plan *p) {
  const uint64_t used = others->process + others->held + p->master_bytes + p->activation_bytes + p->pass_bytes;
  const uint64_t budget = config->compute.memory_budget, left = budget > used ? budget - used : 0;
  const uint64_t all_sources = p->source_bytes * (sources + 1);
  uint64_t models = left / 2 / p->model_bytes;
  if (models > FEW_MODELS) models = FEW_MODELS;
  if (left > FEW_MODELS * p->model_bytes + all_sources) models = (left - all_sources) / p->model_bytes;
  p->models = models < 1 ? 1 : models > MOST_MODELS ? MOST_MODELS : (size_t)models;
  p->store_bytes = left > p->models * p->model_bytes ? left - p->models * p->model_bytes : 0;
  if (p->store_bytes > all_sources) p->store_bytes = all_sources;
  if (p->store_bytes < 2 * p->source_bytes) p->store_bytes = 0;
}

/* Floating-point operations of a target's texts. */
static double target_flops(const mg_nxn_plan *nxn, size_t target) {
  const mg_nxn_texts *t = &nxn->texts;
  double flops = 0;
  for (size_t k = 0; k < t->items[target].count; k++) {
    const int32_t sequence = t->tokenized.sequence_of[t->items[target].text[k]];
    const int64_t *offset = t->tokenized.sequences.offset;
    flops += mg_encoder_flops(&nxn->shape, (int)(offset[sequence + 1] - offset[sequence]), false);
  }
  return flops;
}

static int by_turn(const void *a, const void *b) {
  const mg_grid_merge *x = a, *y = b;
  if (x->turn != y->turn) return x->turn < y->turn ? -1 : 1;
  return (x->cell > y->cell) - (x->cell < y->cell);
}

mg_status mg_grid_plan_merges(const mg_nxn_plan *nxn, const mg_grid *grid, const mg_grid_plan *p, mg_grid_merge **merges,
                              size_t *count) {
  mg_status status = MG_OK;
  const mg_strings *targets = &nxn->texts.targets;
  double *flops = mg_alloc(targets->count, sizeof *flops);
  size_t *turn = NULL;
  *count = 0;
  *merges = mg_alloc(grid->count, sizeof **merges);
  if (flops == NULL || *merges == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_grid_turns(nxn, &turn), cleanup);
  for (size_t m = 0; m < targets->count; m++) flops[m] = target_flops(nxn, m);
  for (size_t k = 0; k < grid->count; k++) {
    const mg_terms *terms = &grid->cells[k].terms;
    const ptrdiff_t target = mg_strings_find(targets, terms->locale);
    if (terms->method->kind != MG_METHOD_MERGE || target < 0) continue;
    const double sources = terms->sources.count > 0 ? (double)terms->sources.count : terms->num_languages;
    (*merges)[(*count)++] = (mg_grid_merge){.turn = turn[target],
                                            .cell = k,
                                            .flops = flops[target],
                                            /* task vectors and theta_0 in, weights out */
                                            .bytes = (sources + 2) * (double)p->model_bytes};
  }
  qsort(*merges, *count, sizeof **merges, by_turn);
cleanup:
  free(flops), free(turn);
  return status;
}

static mg_status count_cells(const mg_nxn_plan *nxn, const mg_grid *grid, mg_grid_plan *p) {
  mg_grid_merge *merges = NULL;
  const mg_status status = mg_grid_plan_merges(nxn, grid, p, &merges, &p->merges);
  p->cells = grid->count;
  for (size_t k = 0; k < p->merges; k++) {
    p->flops += merges[k].flops;
    p->merge_bytes += merges[k].bytes;
  }
  free(merges);
  return status;
}

/* Are there merges that ask for thresholds or norms of whole tensors? */
static bool goes_by_whole(const mg_grid *grid) {
  for (size_t k = 0; k < grid->count; k++) {
    const mg_terms *terms = &grid->cells[k].terms;
    mg_recipe recipe = {.method = terms->method};
    memcpy(recipe.values, terms->values, sizeof recipe.values);
    if (terms->method->kind == MG_METHOD_MERGE && mg_recipe_goes_by_whole(&recipe)) return true;
  }
  return false;
}

mg_status mg_grid_plan_make(const mg_config *config, const mg_tensor_table *table, size_t sources, int threads,
                            const mg_device *device, const mg_nxn_plan *nxn, const mg_memory *others, const mg_grid *grid,
                            mg_grid_plan *p) {
  mg_status status = MG_OK;
  *p = (mg_grid_plan){0};
  const size_t tokens = nxn->texts.tokenized.token_count, c = grid->count;
  MG_TRY(count_tokens(nxn, &p->most_tokens), done);
  p->model_bytes = mg_encoder_block_floats(&nxn->shape, p->most_tokens) * sizeof(float);
  p->source_bytes = (mg_encoder_block_floats(&nxn->shape, tokens) + MG_STORE_SLACK + 16) * sizeof(float);
  p->activation_bytes = mg_encoder_bytes(&nxn->shape, p->most_tokens, device != NULL ? 0 : threads) - p->model_bytes;
  p->pass_bytes = mg_pass_bytes(table, 2 * MOST_MODELS < sources ? 2 * MOST_MODELS : sources, threads);
  /* cells with their recipes, columns of the result, all sources' predictions, Grams; tables of methods at the end */
  p->gram_bytes = config->compatibility.gram == MG_GRAM_TENSOR ? table->count * sources * sources * sizeof(double) : 0;
  p->master_bytes = c * (1400 + sources * 9) + sources * nxn->texts.tokenized.sequences.count * sizeof(int32_t) + p->gram_bytes;
  p->table_bytes = UINT64_C(96) << 20;
  MG_TRY(count_cells(nxn, grid, p), done);
  share_memory(config, others, sources, p);
  if (device == NULL) return MG_OK;
  p->device_bytes = mg_encoder_device_bytes(&nxn->shape, p->most_tokens, p->models) +
                    mg_grid_device_spare(&nxn->shape, table, p->most_tokens, tokens);
  p->device_store_bytes = (sources + 1) * (p->source_bytes + MG_DEVICE_ALIGN);
  if (goes_by_whole(grid) && mg_grid_device_whole(table, sources) > p->device_store_bytes)
    p->device_store_bytes = mg_grid_device_whole(table, sources);
done:
  return status;
}

typedef struct target_cost {
  double flops;
  size_t target;
} target_cost;

static int falling(const void *a, const void *b) {
  const target_cost *x = a, *y = b;
  if (x->flops < y->flops || x->flops > y->flops) return x->flops > y->flops ? -1 : 1;
  return (x->target > y->target) - (x->target < y->target);
}

mg_status mg_grid_turns(const mg_nxn_plan *nxn, size_t **turn) {
  const size_t count = nxn->texts.targets.count;
  target_cost *costs = mg_alloc(count, sizeof *costs);
  *turn = mg_alloc(count, sizeof **turn);
  if (costs == NULL || *turn == NULL) {
    free(costs);
    return MG_ERR_NOMEM;
  }
  for (size_t m = 0; m < count; m++) costs[m] = (target_cost){.flops = target_flops(nxn, m), .target = m};
  qsort(costs, count, sizeof *costs, falling);
  for (size_t k = 0; k < count; k++) (*turn)[costs[k].target] = k;
  free(costs);
  return MG_OK;
}

mg_status mg_grid_cut(const mg_grid_item *items, size_t item_count, int ranks, size_t models, mg_grid_group **groups,
                      size_t *group_count) {
  size_t most = 0;
  *group_count = 0;
  *groups = mg_alloc(item_count, sizeof **groups);
  if (*groups == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < item_count; k++) {
    mg_grid_group *last = *group_count > 0 ? &(*groups)[*group_count - 1] : NULL;
    if (last != NULL && last->count < most && items[k].target == items[last->first].target) {
      last->count++;
      continue;
    }
    most = (item_count - k) / (TURNS_LEFT * (size_t)ranks); /* what is left is some turns for every rank */
    if (most > models) most = models;
    (*groups)[(*group_count)++] = (mg_grid_group){.first = (uint32_t)k, .count = 1};
  }
  return MG_OK;
}
