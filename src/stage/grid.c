/*
 * The stage grid: every cell's sources, weights and method become a recipe; equal ones and those that are known are not
 * computed again; the others are dealt to the ranks in groups, merged in one pass each, evaluated, and journaled as they
 * arrive.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/result_grid.h"

/* ---- opening ---- */

static mg_status take_cells(mg_grid_stage *s) {
  mg_status status = MG_OK;
  const mg_config *config = s->attempt->config;
  MG_TRY(mg_grid_expand(config, &s->nxn->plan.texts.targets, &s->grid), done);
  MG_TRY(mg_where_parse(s->attempt->options->where, &s->where), done);
  MG_TRY(mg_where_check(&s->where, s->grid.cells, s->grid.count), done);
  if (s->grid.duplicate_count > 0) mg_info("note: %zu cells were declared more than once", s->grid.duplicate_count);
  s->cells = mg_alloc_zero(s->grid.count, sizeof *s->cells);
  if (s->cells == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->grid.count; k++) {
    s->cells[k] = (mg_grid_cell){.target = -1, .same_as = -1, .matched = -1, .row = -1};
    s->cells[k].wanted = mg_where_matches(&s->where, &s->grid.cells[k]);
  }
  MG_TRY(mg_grid_read_matrices(s), done);
  MG_TRY(mg_grid_check_reuse(s), done);
done:
  return status;
}

/* Rank 0 knows the texts; what it plans is everyone's. */
static mg_status plan(mg_grid_stage *s, const mg_stages *stages) {
  mg_status status = MG_OK;
  const mg_attempt *a = s->attempt;
  if (a->rank == 0) {
    const mg_plans plans = mg_stages_plans(stages);
    const mg_memory others = mg_memory_predict(&plans);
    status = mg_grid_plan_make(a->config, mg_rows_table(a->rows), s->list->count, a->threads, a->device, &s->nxn->plan, &others,
                               &s->grid, &s->plan);
  }
  MG_TRY(mg_agree(a->comm, status), done);
  MPI_Bcast(&s->plan, (int)sizeof s->plan, MPI_BYTE, 0, a->comm);
done:
  return status;
}

const mg_grid_plan *mg_grid_stage_plan(const mg_grid_stage *s) { return &s->plan; }

mg_status mg_grid_stage_open(mg_attempt *attempt, const mg_stages *stages, mg_grid_stage **stage) {
  mg_status status = MG_OK;
  mg_grid_stage *s = mg_alloc_zero(1, sizeof *s);
  MG_TRY(mg_agree(attempt->comm, s != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  *s = (mg_grid_stage){.attempt = attempt,
                       .nxn = stages->nxn,
                       .gram = stages->gram,
                       .cka = stages->cka,
                       .list = &attempt->roster->list,
                       .part = strcmp(mg_partition_name(attempt->config->grid.partition),
                                      mg_partition_name(attempt->config->nxn.partition)) != 0};
  s->deltas = (mg_deltas){.rows = attempt->rows, .classes = stages->nxn->classes, .class_of = mg_nxn_class_of(stages->nxn)};
  MG_TRY(mg_agree(attempt->comm, attempt->rank == 0 ? take_cells(s) : MG_OK), failed);
  MG_TRY(plan(s, stages), failed);
  *stage = s;
  return MG_OK;
failed:
  mg_grid_stage_close(&s);
  return status;
}

void mg_grid_stage_close(mg_grid_stage **stage) {
  mg_grid_stage *s = *stage;
  if (s == NULL) return;
  mg_grid_worker_close(&s->worker);
  mg_grid_outcome_free(s);
  mg_grid_recipes_free(s);
  mg_grid_work_free(&s->work);
  mg_shared_destroy(&s->dots);
  free(s);
  *stage = NULL;
}

/* ---- the journal ---- */

static mg_status check_answer(const void *payload, size_t size, mg_grid_answer *answer) {
  if (size < sizeof *answer) return mg_fail(MG_ERR_CORRUPT, "a record of a cell has %zu bytes", size);
  memcpy(answer, payload, sizeof *answer);
  if (answer->size != size - sizeof *answer)
    return mg_fail(MG_ERR_CORRUPT, "a record of a cell has %zu bytes, not %u", size - sizeof *answer, answer->size);
  return MG_OK;
}

mg_status mg_grid_stage_replay(mg_grid_stage *s, const mg_record *record) {
  mg_status status = MG_OK;
  mg_grid_answer answer;
  if (record->kind != MG_RECORD_CELL) return MG_OK;
  MG_TRY(check_answer(record->payload, record->size, &answer), done);
  MG_TRY(mg_grid_keep(s, &answer, record->place), done);
done:
  return status;
}

static int by_key(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Cells of a finished result that the grid no longer has would be lost: that is not what extending it means. */
static mg_status check_nothing_lost(const mg_grid_stage *s, const mg_grid_table *table, const char *result) {
  size_t lost = 0;
  const mg_result_cell *first = NULL;
  const char **keys = mg_alloc(s->grid.count, sizeof *keys);
  if (keys == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->grid.count; k++) keys[k] = s->grid.cells[k].key;
  qsort(keys, s->grid.count, sizeof *keys, by_key);
  for (size_t k = 0; k < table->cell_count; k++) {
    if (bsearch(&table->cells[k].key, keys, s->grid.count, sizeof *keys, by_key) != NULL) continue;
    if (lost++ == 0) first = &table->cells[k];
  }
  free(keys);
  if (lost == 0) return MG_OK;
  return mg_fail(
      MG_ERR_INPUT,
      "%s holds %zu cells that the grid does not declare any more (%s: %s, %s): add to the grid instead, name another "
      "result (with `reuse: [%s]` it takes what is computed already), or start over with --fresh",
      result, lost, first->key, first->locale, first->method, result);
}

mg_status mg_grid_stage_covered(const mg_grid_stage *s, const char *result, bool *covered) {
  mg_status status = MG_OK;
  mg_grid_table table = {0};
  *covered = false;
  if (!mg_result_has_grid(result)) return MG_OK;
  MG_TRY(mg_grid_table_read(result, &table), cleanup);
  MG_TRY(check_nothing_lost(s, &table, result), cleanup);
  *covered = table.cell_count == s->grid.count;
  for (size_t k = 0; k < table.cell_count && *covered; k++) {
    const bool planned = strcmp(table.cells[k].status, "planned") == 0;
    *covered = strcmp(table.cells[k].key, s->grid.cells[k].key) == 0 && !(planned && s->cells[k].wanted);
  }
cleanup:
  mg_grid_table_free(&table);
  return status;
}

/* ---- the farm's side ---- */

static mg_status compute_group(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_grid_stage *s = context;
  s->attempt->mine.units++;
  return mg_grid_worker_group(s->worker, &s->work.groups[unit], payload, poll);
}

/* An answer a record. */
static mg_status take_group(void *context, int64_t unit, const void *payload, size_t size) {
  mg_grid_stage *s = context;
  mg_status status = MG_OK;
  (void)unit;
  for (const char *at = payload; size > 0;) {
    mg_grid_answer answer;
    mg_record_place place;
    if (size < sizeof answer) return mg_fail(MG_ERR_INTERNAL, "a group's answers end in the middle");
    memcpy(&answer, at, sizeof answer);
    if (answer.size > size - sizeof answer) return mg_fail(MG_ERR_INTERNAL, "a group's answers end in the middle");
    MG_TRY(mg_run_append(s->attempt->run, MG_RECORD_CELL, at, sizeof answer + answer.size, &place), done);
    MG_TRY(mg_grid_keep(s, &answer, place), done);
    s->done++;
    at += sizeof answer + answer.size;
    size -= sizeof answer + answer.size;
  }
done:
  return status;
}

static mg_status tick(void *context) {
  mg_grid_stage *s = context;
  char text[64];
  snprintf(text, sizeof text, "%zu of %zu merges", s->done, s->all);
  mg_progress_update(&s->progress, (double)s->done);
  return mg_attempt_keep_going(s->attempt, "grid", text);
}

static mg_status compute_quantities(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  const mg_grid_stage *s = context;
  return mg_grid_worker_quantities(s->worker, (size_t)unit, payload, poll);
}

static mg_status take_quantities(void *context, int64_t unit, const void *payload, size_t size) {
  mg_grid_stage *s = context;
  const size_t first = (size_t)s->work.unit_of[unit], count = (size_t)s->work.unit_of[unit + 1] - first;
  if (size != count * sizeof *s->work.values) return mg_fail(MG_ERR_INTERNAL, "%zu bytes of %zu quantities", size, count);
  memcpy(s->work.values + first, payload, size);
  return MG_OK;
}

static mg_status tick_quantities(void *context) {
  const mg_grid_stage *s = context;
  return mg_attempt_keep_going(s->attempt, "grid", "thresholds of sources");
}

/* ---- to all ranks ---- */

typedef struct shared_list {
  void **items;
  size_t *count, bytes;
} shared_list;

/* They grow with the texts, and stand once a node as these do. */
static mg_status share_sequences(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_grid_work *w = &s->work;
  mg_shared_piece piece = {.from = w->sequences, .size = w->sequence_count * sizeof *w->sequences};
  MG_TRY(mg_shared_broadcast(s->attempt->comm, "the texts' numbers", &piece, 1, &w->texts), done);
  free(w->sequences); /* rank 0's own */
  w->sequences = piece.at;
  w->sequence_count = piece.size / sizeof *w->sequences;
done:
  return status;
}

static mg_status share_work(mg_grid_stage *s, mg_status prepared) {
  mg_status status = mg_agree(s->attempt->comm, prepared);
  mg_grid_work *w = &s->work;
  size_t first_count = w->target_count + 1, unit_count = w->unit_count + 1;
  void *items = w->items, *groups = w->groups, *sources = w->sources, *weights = w->weights, *first_of = w->first_of,
       *quantities = w->quantities, *unit_of = w->unit_of;
  const shared_list lists[] = {
      {&items, &w->item_count, sizeof *w->items},       {&groups, &w->group_count, sizeof *w->groups},
      {&sources, &w->source_count, sizeof *w->sources}, {&weights, &w->weight_count, sizeof *w->weights},
      {&first_of, &first_count, sizeof *w->first_of},   {&quantities, &w->quantity_count, sizeof *w->quantities},
      {&unit_of, &unit_count, sizeof *w->unit_of}};
  for (size_t k = 0; k < sizeof lists / sizeof *lists && status == MG_OK; k++)
    status = mg_attempt_share(s->attempt, status, lists[k].items, lists[k].count, lists[k].bytes);
  w->items = items, w->groups = groups, w->sources = sources, w->weights = weights;
  w->first_of = first_of, w->quantities = quantities, w->unit_of = unit_of;
  w->target_count = first_count - 1;
  w->unit_count = unit_count - 1;
  return status == MG_OK ? share_sequences(s) : status;
}

/* Thresholds and norms of whole tensors, source by source, before any merge asks for them. */
static mg_status find_quantities(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_grid_work *w = &s->work;
  const double began = mg_now();
  const mg_farm_job job = {.units = (int64_t)w->unit_count,
                           .context = s,
                           .work = compute_quantities,
                           .take = take_quantities,
                           .tick = tick_quantities};
  if (w->quantity_count == 0) return MG_OK;
  mg_info("grid: %zu thresholds and norms of %zu sources", w->quantity_count, w->unit_count);
  MG_TRY(mg_farm_run(s->attempt->comm, &job), done);
  void *values = w->values;
  w->value_count = w->quantity_count;
  status = mg_attempt_share(s->attempt, MG_OK, &values, &w->value_count, sizeof *w->values);
  w->values = values;
  if (status != MG_OK) return status;
  MG_TRY(mg_grid_worker_learn(s->worker), done);
  mg_attempt_timed(s->attempt, "grid_thresholds", began);
done:
  return status;
}

/* Seconds of merging and evaluating over all ranks, for the result. */
static void add_times(mg_grid_stage *s) {
  double own[2], all[2];
  mg_grid_worker_times(s->worker, &own[0], &own[1]);
  s->attempt->mine.busy_seconds += own[0] + own[1];
  MPI_Reduce(own, all, 2, MPI_DOUBLE, MPI_SUM, 0, s->attempt->comm);
  if (s->attempt->rank != 0) return;
  s->attempt->timings[s->attempt->timing_count++] = (mg_timing){.name = "grid_merge", .seconds = all[0]};
  s->attempt->timings[s->attempt->timing_count++] = (mg_timing){.name = "grid_evaluate", .seconds = all[1]};
}

/* ---- the story ---- */

static mg_status compute_merges(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_attempt *a = s->attempt;
  const double began = mg_now();
  const mg_grid_worker_terms terms = {.attempt = a,
                                      .tokenized = &s->nxn->plan.texts.tokenized,
                                      .shape = &s->nxn->plan.shape,
                                      .deltas = &s->deltas,
                                      .gram = s->dots != NULL ? &s->gram_view : NULL,
                                      .list = s->list,
                                      .work = &s->work,
                                      .most_tokens = s->plan.most_tokens,
                                      .models = s->plan.models,
                                      .store_bytes = s->plan.store_bytes};
  const mg_farm_job job = {
      .units = (int64_t)s->work.group_count, .context = s, .work = compute_group, .take = take_group, .tick = tick};
  MG_TRY(mg_grid_worker_open(&terms, &s->worker), done);
  MG_TRY(find_quantities(s), done);
  mg_progress_begin(&s->progress, "grid", (double)s->all, (double)s->done, 1, "merges");
  MG_TRY(mg_farm_run(a->comm, &job), done);
  mg_progress_end(&s->progress, (double)s->done);
  add_times(s);
  mg_attempt_timed(a, "grid", began);
  mg_grid_worker_close(&s->worker);
done:
  return status;
}

mg_status mg_grid_stage_compute(mg_grid_stage *s) {
  mg_status status = MG_OK;
  const mg_attempt *a = s->attempt;
  const mg_status prepared = a->rank == 0 ? mg_grid_recipes(s) : MG_OK;
  MG_TRY(share_work(s, prepared), done);
  MG_TRY(mg_share_grams(a, s->gram, &s->dots, &s->gram_view), done);
  if (a->rank == 0)
    mg_info("grid: %zu cells, %zu different merges, %zu of them to be computed, up to %zu at once", s->grid.count, s->all,
            s->work.item_count, s->plan.models);
  if (s->work.item_count > 0) MG_TRY(compute_merges(s), done);
  status = MG_OK;
  if (a->rank == 0 && a->parts.part == 0) { /* votes are nothing to divide */
    mg_grid_look_up(s);
    status = mg_grid_vote(s);
  }
  MG_TRY(mg_agree(a->comm, status), done);
done:
  return status;
}
