/* A rank at the microscope: pieces of tensors of all models side by side; a model's forward passes. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "microscope_impl.h"

enum {
  PIECE_FLOATS = 1 << 20,   /* of a model, at most (but for a longer row) */
  PIECES_FLOATS = 16 << 20, /* of all models together, about */
  LEAST_PIECE = 1 << 16,
  UNIT_FLOATS = 8 << 20, /* elements of a unit */
  SUMS = sizeof(mg_delta_sums) / sizeof(double)
};

struct mg_scope_worker {
  mg_scope_terms terms;
  mg_quantities *quantities;
  mg_recipe *recipes;    /* [models] of merges */
  const char **ids;      /* of all models' sources */
  mg_scope_path **paths; /* [models] */
  mg_pass *pass;         /* of all merges */
  size_t *merge_of;      /* [models] number in the pass */
  size_t merge_count;
  mg_recipe *merges;      /* [merge_count] */
  float *block, **values; /* [models, piece]; [models] */
  float **merged;         /* [merge_count] where those of the pass go */
  mg_range_list ranges;   /* of an encoder */
};

void mg_scope_work_free(mg_scope_work *w) {
  free(w->models), free(w->sources), free(w->weights), free(w->has), free(w->pieces), free(w->unit_of);
  *w = (mg_scope_work){0};
}

/* ---- pieces ---- */

static int64_t piece_length(const mg_tensor *tensor, size_t models) {
  int64_t most = PIECES_FLOATS / (int64_t)models;
  if (most > PIECE_FLOATS) most = PIECE_FLOATS;
  if (most < LEAST_PIECE) most = LEAST_PIECE;
  const int64_t row = tensor->ndim > 0 && tensor->numel > 0 ? tensor->shape[tensor->ndim - 1] : 1;
  return row < most ? most / row * row : row;
}

size_t mg_scope_piece_floats(const mg_tensor_table *table, size_t models) {
  size_t most = 1;
  for (size_t t = 0; t < table->count; t++) {
    const int64_t length = piece_length(&table->tensors[t], models), own = table->tensors[t].numel;
    const size_t floats = (size_t)(length < own ? length : own);
    if (floats > most) most = floats;
  }
  return most + MG_STORE_SLACK;
}

mg_status mg_scope_cut(const mg_tensor_table *table, mg_scope_work *w) {
  size_t count = 0;
  int64_t elements = UNIT_FLOATS;
  for (size_t t = 0; t < table->count; t++) {
    const int64_t length = piece_length(&table->tensors[t], w->model_count);
    count += (size_t)((table->tensors[t].numel + length - 1) / length);
  }
  w->pieces = mg_alloc(count, sizeof *w->pieces);
  w->unit_of = mg_alloc_zero(count + 1, sizeof *w->unit_of);
  if (w->pieces == NULL || w->unit_of == NULL) return MG_ERR_NOMEM;
  for (size_t t = 0; t < table->count; t++) {
    const mg_tensor *tensor = &table->tensors[t];
    const int64_t length = piece_length(tensor, w->model_count);
    for (int64_t first = 0; first < tensor->numel; first += length) {
      const int64_t left = tensor->numel - first;
      if (elements >= UNIT_FLOATS) {
        w->unit_of[w->delta_units++] = w->piece_count;
        elements = 0;
      }
      w->pieces[w->piece_count++] = (mg_range){.tensor = t, .first = first, .count = left < length ? left : length};
      elements += w->pieces[w->piece_count - 1].count;
    }
  }
  w->unit_of[w->delta_units] = w->piece_count;
  return MG_OK;
}

size_t mg_scope_doubles(const mg_scope_work *w, const mg_microscope_plan *plan, size_t unit) {
  if (unit < w->delta_units) return (w->unit_of[unit + 1] - w->unit_of[unit]) * (w->model_count - 1) * SUMS;
  const size_t layers = (size_t)plan->shape.layers, heads = (size_t)plan->shape.heads;
  return (layers * heads * sizeof(mg_head_summary) + (layers + 1) * sizeof(mg_state_summary) + sizeof(mg_logit_summary)) /
         sizeof(double);
}

/* ---- opening ---- */

void mg_scope_recipe(const mg_scope_terms *t, size_t model, const char **ids, mg_recipe *recipe) {
  const mg_scope_model *m = &t->work->models[model];
  const int32_t *sources = t->work->sources + m->first;
  for (size_t k = 0; k < m->count; k++) ids[k] = t->list->items[sources[k]].id;
  *recipe = (mg_recipe){.method = &mg_methods[m->method],
                        .count = m->count,
                        .source = sources,
                        .id = ids,
                        .weight = t->work->weights + m->first,
                        .best = m->best,
                        .base = m->base,
                        .head = (mg_head_policy)m->head,
                        .seed = m->seed};
  memcpy(recipe->values, m->values, sizeof m->values);
}

static mg_status make_room(mg_scope_worker *w) {
  const mg_scope_work *work = w->terms.work;
  const size_t models = work->model_count;
  const size_t floats = mg_scope_piece_floats(mg_rows_table(w->terms.deltas->rows), models);
  w->recipes = mg_alloc_zero(models, sizeof *w->recipes);
  w->merges = mg_alloc_zero(models, sizeof *w->merges);
  w->ids = mg_alloc(work->source_count, sizeof *w->ids);
  w->paths = mg_alloc_zero(models, sizeof *w->paths);
  w->merge_of = mg_alloc_zero(models, sizeof *w->merge_of);
  w->values = mg_alloc(models, sizeof *w->values);
  w->merged = mg_alloc(models, sizeof *w->merged);
  w->block = mg_alloc(models, floats * sizeof *w->block);
  if (!w->recipes || !w->merges || !w->ids || !w->paths || !w->merge_of || !w->values || !w->merged || !w->block)
    return MG_ERR_NOMEM;
  for (size_t k = 0; k < models; k++) w->values[k] = w->block + k * floats;
  return mg_quantities_create(&w->quantities);
}

static mg_status open_models(mg_scope_worker *w) {
  mg_status status = MG_OK;
  const mg_scope_work *work = w->terms.work;
  for (size_t k = 0; k < work->model_count; k++) {
    const mg_scope_model *m = &work->models[k];
    if (m->kind == MG_SCOPE_PATH)
      MG_TRY(mg_scope_path_open(m->path, mg_rows_table(w->terms.deltas->rows), w->terms.labels, &w->paths[k]), done);
    if (m->kind != MG_SCOPE_MERGE) continue;
    mg_scope_recipe(&w->terms, k, w->ids + m->first, &w->recipes[k]);
    w->merge_of[k] = w->merge_count;
    w->merged[w->merge_count] = w->values[k];
    w->merges[w->merge_count++] = w->recipes[k];
  }
done:
  return status;
}

mg_status mg_scope_worker_open(const mg_scope_terms *terms, mg_scope_worker **out) {
  mg_status status = MG_OK;
  mg_scope_worker *w = mg_alloc_zero(1, sizeof *w);
  if (w == NULL) return MG_ERR_NOMEM;
  w->terms = *terms;
  *out = w;
  MG_TRY(make_room(w), failed);
  MG_TRY(open_models(w), failed);
  return MG_OK;
failed:
  mg_scope_worker_close(out);
  return status;
}

void mg_scope_worker_close(mg_scope_worker **worker) {
  mg_scope_worker *w = *worker;
  if (w == NULL) return;
  mg_pass_destroy(&w->pass);
  for (size_t k = 0; w->paths != NULL && k < w->terms.work->model_count; k++) mg_scope_path_close(&w->paths[k]);
  mg_quantities_destroy(&w->quantities);
  free(w->recipes), free(w->merges), free(w->ids), free(w->paths), free(w->merge_of), free(w->values), free(w->merged);
  free(w->block), free(w->ranges.items), free(w);
  *worker = NULL;
}

static mg_pass_terms pass_of(const mg_scope_worker *w, const mg_recipe *recipes, size_t count) {
  return (mg_pass_terms){.deltas = w->terms.deltas,
                         .gram = w->terms.gram,
                         .quantities = w->quantities,
                         .recipes = recipes,
                         .count = count,
                         .threads = w->terms.attempt->threads};
}

/* ---- parameters ---- */

/* The first of a model in a unit is the one. */
static void note_failure(mg_text *failures, size_t model, const char *what, const char *why) {
  mg_scope_failure failure;
  const mg_scope_failure *known = (const mg_scope_failure *)(const void *)failures->data;
  for (size_t k = 0; k < failures->size / sizeof failure; k++)
    if (known[k].model == model) return;
  memset(&failure, 0, sizeof failure); /* all of it is written */
  failure.model = (uint32_t)model;
  snprintf(failure.message, sizeof failure.message, "%.150s%.90s", what, why);
  mg_text_append_bytes(failures, &failure, sizeof failure);
}

/* Weights that are not finite have sums that are not. */
static void check_sums(mg_text *failures, size_t model, const char *tensor, const mg_delta_sums *sums) {
  if (!isfinite(sums->reference2)) note_failure(failures, 0, tensor, "it is not finite");
  if (!isfinite(sums->candidate2)) note_failure(failures, model, tensor, "it is not finite");
}

/* A piece of every model that has it, into its values. */
static mg_status read_piece(mg_scope_worker *w, const mg_range *piece, mg_text *failures, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_scope_work *work = w->terms.work;
  const size_t tensors = mg_rows_table(w->terms.deltas->rows)->count;
  if (w->merge_count > 0) MG_TRY(mg_pass_run(w->pass, piece, 1, w->merged, mg_attempt_poll, poll), done);
  for (size_t k = 0; k < work->model_count; k++) {
    const mg_scope_model *m = &work->models[k];
    if (m->kind == MG_SCOPE_MERGE && mg_pass_failure(w->pass, w->merge_of[k]) != NULL)
      note_failure(failures, k, mg_pass_failure(w->pass, w->merge_of[k]), "");
    if (!work->has[k * tensors + piece->tensor]) continue;
    if (m->kind == MG_SCOPE_BASE) MG_TRY(mg_store_fill(w->terms.deltas, MG_ROW_BASE, piece, 1, w->values[k]), done);
    if (m->kind == MG_SCOPE_PATH) MG_TRY(mg_scope_path_read(w->paths[k], piece, w->values[k]), done);
  }
done:
  return status;
}

static mg_status compare(mg_scope_worker *w, size_t unit, mg_text *failures, double *numbers, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_scope_work *work = w->terms.work;
  const mg_tensor_table *table = mg_rows_table(w->terms.deltas->rows);
  const size_t tensors = table->count;
  char what[160];
  const mg_pass_terms terms = pass_of(w, w->merges, w->merge_count);
  if (w->pass == NULL && w->merge_count > 0) MG_TRY(mg_pass_create(&terms, &w->pass), done);
  for (size_t p = work->unit_of[unit]; p < work->unit_of[unit + 1]; p++) {
    const mg_range *piece = &work->pieces[p];
    snprintf(what, sizeof what, "tensor %.140s: ", table->tensors[piece->tensor].name);
    MG_TRY(read_piece(w, piece, failures, poll), done);
    for (size_t k = 1; k < work->model_count; k++, numbers += SUMS) {
      mg_delta_sums sums = {0};
      if (work->has[piece->tensor] && work->has[k * tensors + piece->tensor])
        mg_delta_sums_add(&sums, w->values[0], w->values[k], piece->count);
      check_sums(failures, k, what, &sums);
      memcpy(numbers, &sums, sizeof sums);
      MG_TRY(mg_farm_poll_now(poll), done);
    }
  }
  if (failures->size > 0) mg_pass_destroy(&w->pass); /* the next unit's failures are its own */
done:
  return status;
}

/* ---- forward passes ---- */

typedef struct listening {
  mg_signals *signals;
  mg_farm_poll *poll;
} listening;

static mg_status hear_states(void *context, size_t text, int layer, int length, const float *states) {
  mg_signals_add_states(((listening *)context)->signals, text, layer, length, states);
  return MG_OK;
}

static mg_status hear_attention(void *context, size_t text, int layer, int length, int keys, const float *probabilities) {
  mg_signals_add_attention(((listening *)context)->signals, text, layer, length, keys, probabilities);
  return MG_OK;
}

static mg_status poll_listening(void *context) { return mg_farm_poll_now(((listening *)context)->poll); }

/* θ0 as weights. */
static bool find_base(void *context, const char *name, int *ndim, int64_t shape[8]) {
  const mg_scope_worker *w = context;
  const mg_tensor_table *table = mg_rows_table(w->terms.deltas->rows);
  for (size_t t = 0; t < table->count; t++) {
    const mg_tensor *tensor = &table->tensors[t];
    if (tensor->source_only || !mg_weight_name_matches(tensor->name, name)) continue;
    *ndim = tensor->ndim;
    for (int d = 0; d < tensor->ndim; d++) shape[d] = tensor->shape[d];
    return true;
  }
  return false;
}

static mg_status read_base(void *context, const char *name, int64_t first, int64_t count, float *out) {
  const mg_scope_worker *w = context;
  const mg_tensor_table *table = mg_rows_table(w->terms.deltas->rows);
  mg_range range = {.first = first, .count = count};
  while (range.tensor < table->count && !mg_weight_name_matches(table->tensors[range.tensor].name, name)) range.tensor++;
  if (range.tensor == table->count) return mg_fail(MG_ERR_INTERNAL, "the base has no tensor %s", name);
  float *block = mg_alloc((size_t)count + MG_STORE_SLACK, sizeof *block);
  if (block == NULL) return MG_ERR_NOMEM;
  const mg_status status = mg_store_fill(w->terms.deltas, MG_ROW_BASE, &range, 1, block);
  if (status == MG_OK) memcpy(out, block, (size_t)count * sizeof *out);
  free(block);
  return status;
}

static mg_status load(mg_scope_worker *w, size_t model, mg_encoder *encoder, const mg_encoder_shape *shape, mg_text *failures,
                      mg_farm_poll *poll) {
  mg_status status = MG_OK;
  mg_pass *pass = NULL;
  const mg_scope_model *m = &w->terms.work->models[model];
  const mg_tokenized *probes = &w->terms.plan->probes;
  const mg_weights base = {.context = w, .origin = "the base", .find = find_base, .read = read_base};
  float *block = mg_encoder_block(encoder, 0);
  if (m->kind == MG_SCOPE_BASE) return mg_encoder_load(encoder, &base);
  if (m->kind == MG_SCOPE_PATH) return mg_encoder_load(encoder, mg_scope_path_weights(w->paths[model]));
  const mg_pass_terms terms = pass_of(w, &w->recipes[model], 1);
  MG_TRY(mg_encoder_ranges(shape, mg_rows_table(w->terms.deltas->rows), probes->tokens, probes->token_count, &w->ranges), done);
  MG_TRY(mg_pass_create(&terms, &pass), done);
  MG_TRY(mg_pass_run(pass, w->ranges.items, w->ranges.count, &block, mg_attempt_poll, poll), done);
  if (mg_pass_failure(pass, 0) != NULL) note_failure(failures, model, mg_pass_failure(pass, 0), "");
done:
  mg_pass_destroy(&pass);
  return status;
}

/* heads, states, logits, as mg_scope_doubles counts them. */
static void summarize(const mg_scope_worker *w, const mg_signals *signals, const float *logits, size_t classes,
                      double *numbers) {
  const mg_microscope_plan *plan = w->terms.plan;
  const mg_tokenized *p = &plan->probes;
  const size_t layers = (size_t)plan->shape.layers, heads = layers * (size_t)plan->shape.heads;
  double *states = numbers + heads * sizeof(mg_head_summary) / sizeof *numbers;
  double *answers = states + (layers + 1) * sizeof(mg_state_summary) / sizeof *numbers;
  mg_logit_summary summary = {NAN, NAN, NAN, NAN, NAN};
  mg_signals_summarize(signals, p->sequence_of, p->count, (mg_head_summary *)(void *)numbers,
                       (mg_state_summary *)(void *)states);
  if (classes > 0) summary = mg_logits_summarize(logits, classes, p->sequence_of, p->count);
  memcpy(answers, &summary, sizeof summary);
}

static mg_status listen(mg_scope_worker *w, size_t model, mg_text *failures, double *numbers, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_microscope_plan *plan = w->terms.plan;
  const mg_tokenized *p = &plan->probes;
  mg_encoder_shape shape = plan->shape;
  mg_encoder *encoder = NULL;
  listening l = {.poll = poll};
  float *logits = NULL;
  if (!w->terms.work->models[model].with_head) shape.classes = 0;
  MG_TRY(mg_encoder_create(&shape, p->tokens, p->token_count, w->terms.attempt->threads, w->terms.attempt->device, &encoder),
         cleanup);
  MG_TRY(load(w, model, encoder, &shape, failures, poll), cleanup);
  if (failures->size > 0) goto cleanup;
  MG_TRY(mg_signals_create(p->sequences.count, shape.layers, shape.heads, shape.hidden, &l.signals), cleanup);
  logits = mg_alloc(p->sequences.count, ((size_t)shape.classes + 1) * sizeof *logits);
  if (logits == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  const mg_encoder_want want = {.logits = shape.classes > 0 ? logits : NULL,
                                .context = &l,
                                .states = hear_states,
                                .attention = hear_attention,
                                .poll = poll_listening};
  MG_TRY(mg_encoder_run(encoder, &p->sequences, 0, p->sequences.count, &want), cleanup);
  summarize(w, l.signals, logits, (size_t)shape.classes, numbers);
  const size_t states = (size_t)shape.layers * (size_t)shape.heads * sizeof(mg_head_summary) / sizeof *numbers;
  if (!isfinite(numbers[states + (size_t)shape.layers * sizeof(mg_state_summary) / sizeof *numbers]))
    note_failure(failures, model, "its last hidden state is not finite", "");
cleanup:
  free(logits);
  mg_signals_destroy(&l.signals);
  mg_encoder_destroy(&encoder);
  return status;
}

/* ---- a unit ---- */

mg_status mg_scope_worker_unit(mg_scope_worker *w, size_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_status status = MG_OK;
  const mg_scope_work *work = w->terms.work;
  const size_t count = mg_scope_doubles(work, w->terms.plan, unit);
  mg_text failures = {0};
  double *numbers = mg_alloc_zero(count, sizeof *numbers);
  if (numbers == NULL) return MG_ERR_NOMEM;
  if (unit < work->delta_units)
    MG_TRY(compare(w, unit, &failures, numbers, poll), cleanup);
  else
    MG_TRY(listen(w, unit - work->delta_units, &failures, numbers, poll), cleanup);
  const mg_scope_record record = {.key = w->terms.key,
                                  .unit = (uint32_t)unit,
                                  .count = (uint32_t)count,
                                  .failures = (uint32_t)(failures.size / sizeof(mg_scope_failure))};
  mg_text_append_bytes(payload, &record, sizeof record);
  if (failures.size > 0) mg_text_append_bytes(payload, failures.data, failures.size);
  mg_text_append_bytes(payload, numbers, count * sizeof *numbers);
  if (failures.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
cleanup:
  mg_text_free(&failures);
  free(numbers);
  return status;
}
