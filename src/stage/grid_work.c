/* A rank at work on the grid: groups of merges of one target in one pass, each then evaluated on the target's texts. */

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/score.h"

/* What a rank has for the target it works on. */
typedef struct target_setup {
  ptrdiff_t target; /* −1: none yet */
  int32_t *ids, *tokens;
  int64_t *offset;
  mg_sequences sequences;
  size_t token_count;
  mg_range_list ranges;
} target_setup;

struct mg_grid_worker {
  mg_grid_worker_terms terms;
  mg_encoder *encoder;
  mg_node_store *store;
  mg_device_store *device_store; /* NULL: no device */
  mg_range_list all_ranges;      /* of both: what any target needs */
  mg_range_list whole_ranges;    /* of the device's store, where that has sources whole */
  int *wanted;                   /* [wanted_count] sources, those first that most merges want */
  size_t wanted_count;
  mg_quantities *quantities;
  target_setup at;
  mg_recipe *recipes;    /* [models] */
  const char **ids;      /* [models × sources] */
  float **blocks;        /* [models] */
  float **device_blocks; /* [models]; NULL each: no device */
  float *logits;         /* of the longest target */
  int32_t *predictions;
  double merging, evaluating;
  uint64_t merged; /* elements, wherever */
};

void mg_grid_work_free(mg_grid_work *w) {
  free(w->items), free(w->groups), free(w->sources), free(w->weights), free(w->first_of);
  if (w->texts == NULL) free(w->sequences);
  mg_shared_destroy(&w->texts);
  free(w->quantities), free(w->unit_of), free(w->values);
  *w = (mg_grid_work){0};
}

/* ---- opening ---- */

/* Sources in the order of how many items want them. */
static mg_status rank_sources(mg_grid_worker *w) {
  const mg_grid_work *work = w->terms.work;
  const size_t n = w->terms.list->count;
  size_t *uses = mg_alloc_zero(n, sizeof *uses);
  int *order = mg_alloc(n, sizeof *order);
  w->wanted = order;
  if (uses == NULL || order == NULL) {
    free(uses);
    return MG_ERR_NOMEM;
  }
  for (size_t k = 0; k < work->source_count; k++) uses[work->sources[k]]++;
  for (size_t k = 0; k < work->item_count; k++)
    if (work->items[k].base >= 0) uses[work->items[k].base]++;
  for (size_t s = 0; s < n; s++) {
    size_t at = w->wanted_count;
    if (uses[s] == 0) continue;
    for (; at > 0 && uses[order[at - 1]] < uses[s]; at--) order[at] = order[at - 1];
    order[at] = (int)s;
    w->wanted_count++;
  }
  free(uses);
  return MG_OK;
}

static mg_status open_store(mg_grid_worker *w) {
  mg_status status = MG_OK;
  const mg_tokenized *t = w->terms.tokenized;
  status = mg_encoder_ranges(w->terms.shape, mg_rows_table(w->terms.deltas->rows), t->tokens, t->token_count, &w->all_ranges);
  if (status == MG_OK) status = rank_sources(w);
  MG_TRY(mg_agree(w->terms.attempt->comm, status), done);
  MG_TRY(mg_node_store_open(w->terms.attempt->comm, w->terms.deltas, w->wanted, w->wanted_count, w->all_ranges.items,
                            w->all_ranges.count, mg_encoder_block_floats(w->terms.shape, t->token_count), w->terms.store_bytes,
                            &w->store),
         done);
  const size_t kept = mg_node_store_sources(w->store);
  const bool all = kept == w->wanted_count || w->terms.attempt->device != NULL;
  mg_info("grid: %zu of %zu sources in memory%s", kept, w->wanted_count, all ? "" : ", the others are read for every pass");
done:
  return status;
}

static mg_status make_room(mg_grid_worker *w) {
  mg_status status = MG_OK;
  const mg_grid_worker_terms *t = &w->terms;
  size_t longest = 0;
  for (size_t m = 0; m < t->work->target_count; m++) {
    const size_t count = (size_t)(t->work->first_of[m + 1] - t->work->first_of[m]);
    if (count > longest) longest = count;
  }
  w->recipes = mg_alloc_zero(t->models, sizeof *w->recipes);
  w->ids = mg_alloc(t->models, t->list->count * sizeof *w->ids);
  w->blocks = mg_alloc(t->models, sizeof *w->blocks);
  w->device_blocks = mg_alloc(t->models, sizeof *w->device_blocks);
  w->logits = mg_alloc(longest, (size_t)t->shape->classes * sizeof *w->logits);
  w->predictions = mg_alloc(longest, sizeof *w->predictions);
  w->at = (target_setup){.target = -1, .tokens = mg_alloc(t->most_tokens, sizeof *w->at.tokens)};
  if (!w->recipes || !w->ids || !w->blocks || !w->device_blocks || !w->logits || !w->predictions || !w->at.tokens)
    return MG_ERR_NOMEM;
  MG_TRY(mg_quantities_create(&w->quantities), done);
done:
  return status;
}

mg_status mg_grid_worker_open(const mg_grid_worker_terms *terms, mg_grid_worker **out) {
  mg_status status = MG_OK;
  mg_grid_worker *w = mg_alloc_zero(1, sizeof *w);
  MG_TRY(mg_agree(terms->attempt->comm, w != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  w->terms = *terms;
  MG_TRY(mg_agree(terms->attempt->comm, make_room(w)), failed);
  MG_TRY(open_store(w), failed);
  *out = w;
  return MG_OK;
failed:
  mg_grid_worker_close(&w);
  return status;
}

void mg_grid_worker_close(mg_grid_worker **worker) {
  mg_grid_worker *w = *worker;
  if (w == NULL) return;
  if (w->device_store != NULL && w->merged > 0)
    mg_info("grid: %.3g of %.3g million elements merged on the device", (double)mg_device_store_merged(w->device_store) / 1e6,
            (double)w->merged / 1e6);
  mg_encoder_destroy(&w->encoder); /* whose queue the merges went through */
  mg_device_store_destroy(&w->device_store);
  mg_node_store_close(&w->store);
  mg_quantities_destroy(&w->quantities);
  free(w->all_ranges.items), free(w->whole_ranges.items), free(w->wanted), free(w->at.ids), free(w->at.tokens),
      free(w->at.offset), free(w->at.ranges.items);
  free(w->recipes), free(w->ids), free(w->blocks), free(w->device_blocks), free(w->logits), free(w->predictions);
  free(w);
  *worker = NULL;
}

void mg_grid_worker_times(const mg_grid_worker *w, double *merging, double *evaluating) {
  *merging = w->merging;
  *evaluating = w->evaluating;
}

/* How often a rank goes through a whole source for its share of the quantities. */
static double count_scans(const mg_grid_worker *w) {
  const mg_grid_work *work = w->terms.work;
  const mg_tensor_table *table = mg_rows_table(w->terms.deltas->rows);
  double all = 0, read = 0;
  for (size_t t = 0; t < table->count; t++) all += (double)table->tensors[t].numel;
  for (size_t k = 0; k < work->quantity_count; k++) {
    const int32_t t = work->quantities[k].tensor;
    read += t >= 0 ? (double)table->tensors[t].numel : all;
  }
  return read / all / w->terms.attempt->ranks;
}

/* On a device the sources come behind the models: what is left is theirs, however much of them the host's budget holds. */
static mg_status open_device_store(mg_grid_worker *w, mg_farm_poll *poll) {
  const mg_grid_worker_terms *t = &w->terms;
  if (t->attempt->device == NULL) return MG_OK;
  mg_grid_device_terms terms = {
      .device = t->attempt->device,
      .deltas = t->deltas,
      .host = mg_node_store_get(w->store),
      .rows = &w->all_ranges,
      .floats = mg_encoder_block_floats(t->shape, t->tokenized->token_count),
      .spare = mg_grid_device_spare(t->shape, mg_rows_table(t->deltas->rows), t->most_tokens, t->tokenized->token_count),
      .wanted = w->wanted,
      .wanted_count = w->wanted_count,
      .scans = count_scans(w),
      .poll = poll};
  mg_encoder_device_block(w->encoder, 0, &terms.queue);
  return mg_grid_device_open(&terms, &w->whole_ranges, &w->device_store);
}

/* What a rank computes with, once it has something to do. */
static mg_status open_encoder(mg_grid_worker *w, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_grid_worker_terms *t = &w->terms;
  if (w->encoder != NULL) return MG_OK;
  MG_TRY(mg_encoder_create(t->shape, t->tokenized->tokens, t->tokenized->token_count, t->attempt->threads, t->attempt->device,
                           &w->encoder),
         done);
  MG_TRY(mg_encoder_hold(w->encoder, t->models), done);
  MG_TRY(open_device_store(w, poll), done);
done:
  return status;
}

/* ---- quantities ---- */

mg_status mg_grid_worker_quantities(mg_grid_worker *w, size_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_grid_work *work = w->terms.work;
  const size_t first = (size_t)work->unit_of[unit], count = (size_t)work->unit_of[unit + 1] - first;
  const double began = mg_now();
  mg_merge_device device = {.device = w->terms.attempt->device};
  double *values = mg_alloc_zero(count, sizeof *values);
  if (values == NULL) return MG_ERR_NOMEM;
  if (device.device != NULL) { /* which counts what it holds */
    MG_TRY(open_encoder(w, poll), cleanup);
    device.store = w->device_store;
    mg_encoder_device_block(w->encoder, 0, &device.queue);
  }
  MG_TRY(mg_quantities_compute(w->terms.deltas, &device, w->terms.list->items[work->quantities[first].source].id,
                               work->quantities + first, count, mg_attempt_poll, poll, values),
         cleanup);
  mg_text_append_bytes(payload, values, count * sizeof *values);
  w->merging += mg_now() - began;
cleanup:
  free(values);
  return status;
}

mg_status mg_grid_worker_learn(mg_grid_worker *w) {
  mg_status status = MG_OK;
  const mg_grid_work *work = w->terms.work;
  for (size_t k = 0; k < work->quantity_count && status == MG_OK; k++)
    status = mg_quantities_put(w->quantities, &work->quantities[k], work->values[k]);
  const uint64_t counted = w->device_store != NULL ? mg_device_store_counted(w->device_store) : 0;
  if (counted > 0) mg_info("grid: %.3g million elements counted on the device", (double)counted / 1e6);
  return mg_agree(w->terms.attempt->comm, status);
}

/* ---- a target ---- */

static int rising(const void *a, const void *b) {
  return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b);
}

/* The target's different sequences one behind the other, and the tokens in them. */
static mg_status take_texts(mg_grid_worker *w, size_t target) {
  const mg_grid_work *work = w->terms.work;
  const mg_sequences *all = &w->terms.tokenized->sequences;
  target_setup *at = &w->at;
  const int64_t *which = work->sequences + work->first_of[target];
  const size_t count = (size_t)(work->first_of[target + 1] - work->first_of[target]);
  int64_t total = 0;
  for (size_t k = 0; k < count; k++) total += all->offset[which[k] + 1] - all->offset[which[k]];
  free(at->ids), free(at->offset);
  at->ids = mg_alloc((size_t)total, sizeof *at->ids);
  at->offset = mg_alloc(count + 1, sizeof *at->offset);
  int32_t *sorted = mg_alloc((size_t)total, sizeof *sorted);
  if (at->ids == NULL || at->offset == NULL || sorted == NULL) {
    free(sorted);
    return MG_ERR_NOMEM;
  }
  at->offset[0] = 0;
  for (size_t k = 0; k < count; k++) {
    const int64_t first = all->offset[which[k]], length = all->offset[which[k] + 1] - first;
    memcpy(at->ids + at->offset[k], all->ids + first, (size_t)length * sizeof *at->ids);
    at->offset[k + 1] = at->offset[k] + length;
  }
  at->sequences = (mg_sequences){.count = count, .ids = at->ids, .offset = at->offset};
  memcpy(sorted, at->ids, (size_t)total * sizeof *sorted);
  qsort(sorted, (size_t)total, sizeof *sorted, rising);
  at->token_count = 0;
  for (int64_t k = 0; k < total; k++)
    if (k == 0 || sorted[k] != sorted[k - 1]) at->tokens[at->token_count++] = sorted[k];
  free(sorted);
  return MG_OK;
}

static mg_status set_target(mg_grid_worker *w, size_t target, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_grid_worker_terms *t = &w->terms;
  target_setup *at = &w->at;
  if (at->target == (ptrdiff_t)target) return MG_OK;
  at->target = -1;
  MG_TRY(take_texts(w, target), done);
  MG_TRY(open_encoder(w, poll), done);
  MG_TRY(mg_encoder_set_tokens(w->encoder, at->tokens, at->token_count), done);
  MG_TRY(mg_encoder_ranges(t->shape, mg_rows_table(t->deltas->rows), at->tokens, at->token_count, &at->ranges), done);
  at->target = (ptrdiff_t)target;
done:
  return status;
}

/* ---- a group ---- */

static void take_recipe(mg_grid_worker *w, const mg_grid_item *item, size_t k) {
  const mg_grid_work *work = w->terms.work;
  const char **ids = w->ids + k * w->terms.list->count;
  const int32_t *sources = work->sources + item->first;
  for (size_t s = 0; s < item->count; s++) ids[s] = w->terms.list->items[sources[s]].id;
  w->recipes[k] = (mg_recipe){.method = &mg_methods[item->method],
                              .count = item->count,
                              .source = sources,
                              .id = ids,
                              .weight = work->weights + item->first,
                              .best = item->best,
                              .base = item->base,
                              .head = (mg_head_policy)item->head,
                              .seed = item->seed};
  memcpy(w->recipes[k].values, item->values, sizeof item->values);
}

static void append_answer(const mg_grid_item *item, const void *data, size_t size, bool failed, mg_text *payload) {
  const mg_grid_answer answer = {.recipe = item->recipe, .target = item->target, .failed = failed, .size = (uint32_t)size};
  mg_text_append_bytes(payload, &answer, sizeof answer);
  mg_text_append_bytes(payload, data, size);
}

/* Logits that are not finite are the cell's failure. */
static mg_status evaluate(mg_grid_worker *w, const mg_grid_item *item, mg_text *payload, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_encoder_want want = {.logits = w->logits, .context = poll, .poll = mg_attempt_poll};
  const size_t texts = w->at.sequences.count;
  size_t bad = 0;
  MG_TRY(mg_encoder_run(w->encoder, &w->at.sequences, 0, texts, &want), done);
  const mg_status predicted = mg_predict(w->logits, texts, (size_t)w->terms.shape->classes, w->predictions, &bad);
  if (predicted == MG_OK) {
    append_answer(item, w->predictions, texts * sizeof *w->predictions, false, payload);
  } else {
    static const char message[] = "the merged model's logits are not finite";
    append_answer(item, message, sizeof message - 1, true, payload);
  }
done:
  return status;
}

mg_status mg_grid_worker_group(mg_grid_worker *w, const mg_grid_group *group, mg_text *payload, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  mg_pass *pass = NULL;
  const mg_grid_item *items = w->terms.work->items + group->first;
  double began = mg_now();
  MG_TRY(set_target(w, items[0].target, poll), cleanup);
  mg_merge_device device = {.device = w->terms.attempt->device, .store = w->device_store, .out = w->device_blocks};
  for (size_t k = 0; k < group->count; k++) {
    take_recipe(w, &items[k], k);
    w->blocks[k] = mg_encoder_block(w->encoder, k);
    w->device_blocks[k] = mg_encoder_device_block(w->encoder, k, &device.queue);
  }
  const mg_pass_terms terms = {.deltas = w->terms.deltas,
                               .store = mg_node_store_get(w->store),
                               .gram = w->terms.gram,
                               .quantities = w->quantities,
                               .recipes = w->recipes,
                               .count = group->count,
                               .threads = w->terms.attempt->threads,
                               .device = device};
  MG_TRY(mg_pass_create(&terms, &pass), cleanup);
  MG_TRY(mg_pass_run(pass, w->at.ranges.items, w->at.ranges.count, w->blocks, mg_attempt_poll, poll), cleanup);
  for (size_t k = 0; k < w->at.ranges.count; k++) w->merged += group->count * (uint64_t)w->at.ranges.items[k].count;
  w->merging += mg_now() - began;
  began = mg_now();
  for (size_t k = 0; k < group->count; k++) {
    const char *failure = mg_pass_failure(pass, k);
    mg_encoder_use(w->encoder, k);
    if (failure != NULL)
      append_answer(&items[k], failure, strlen(failure), true, payload);
    else
      MG_TRY(evaluate(w, &items[k], payload, poll), cleanup);
  }
  w->evaluating += mg_now() - began;
cleanup:
  mg_pass_destroy(&pass);
  return status;
}
