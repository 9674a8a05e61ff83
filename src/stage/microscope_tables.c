/* Rank 0: from units' numbers to the microscope's tables. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "microscope_impl.h"

struct mg_scope_tables {
  mg_result_parameter_delta *parameters;
  mg_result_layer_delta *layers;
  mg_result_attention *attentions;
  mg_result_hidden_state *states;
  mg_result_logit *logits;
  mg_result_setup *setups;
  size_t parameter_count, layer_count, attention_count, state_count, logit_count;
  char **layer_of; /* [T] the notebook's layer of a tensor */
  size_t tensors;
  mg_scope_cells cells;
  char digest[17];
  char reference[512], probes[512];
};

void mg_scope_tables_free(mg_microscope_stage *s) {
  struct mg_scope_tables *t = s->tables;
  if (t == NULL) return;
  for (size_t k = 0; t->layer_of != NULL && k < t->tensors; k++) free(t->layer_of[k]);
  free(t->layer_of), free(t->parameters), free(t->layers), free(t->attentions), free(t->states), free(t->logits);
  free(t->setups);
  mg_scope_cells_free(&t->cells);
  free(t);
  s->tables = NULL;
}

/* A setup whose numbers count. */
static bool is_whole(const mg_scope_setup *setup) { return setup->model >= 0 && setup->error == NULL; }

/* ---- parameters ---- */

/* Sums of model k, tensor by tensor. */
static void join_pieces(const mg_microscope_stage *s, size_t model, mg_delta_sums *sums) {
  const mg_scope_work *w = &s->work;
  for (size_t u = 0; u < w->delta_units; u++) {
    const mg_delta_sums *all = (const mg_delta_sums *)(const void *)s->numbers[u];
    for (size_t p = w->unit_of[u]; p < w->unit_of[u + 1]; p++)
      mg_delta_sums_join(&sums[w->pieces[p].tensor], &all[(p - w->unit_of[u]) * (w->model_count - 1) + model - 1]);
  }
}

static mg_status add_parameters(mg_microscope_stage *s, const mg_scope_setup *setup) {
  struct mg_scope_tables *t = s->tables;
  const mg_tensor_table *table = mg_rows_table(s->attempt->rows);
  const size_t model = (size_t)setup->model;
  mg_delta_sums *sums = mg_alloc_zero(table->count, sizeof *sums);
  if (sums == NULL) return MG_ERR_NOMEM;
  join_pieces(s, model, sums);
  for (size_t k = 0; k < table->count; k++) {
    const mg_tensor *tensor = &table->tensors[k];
    if (!s->work.has[k] || !s->work.has[model * table->count + k] || tensor->numel == 0) continue;
    const mg_parameter_delta d = mg_parameter_delta_of(&sums[k], tensor->numel);
    t->parameters[t->parameter_count++] = (mg_result_parameter_delta){.parameter = tensor->name,
                                                                      .layer = t->layer_of[k],
                                                                      .delta_l2 = d.delta_l2,
                                                                      .delta_mean_abs = d.delta_mean_abs,
                                                                      .cosine_with_reference = d.cosine_with_reference,
                                                                      .reference_norm = d.reference_norm,
                                                                      .candidate_norm = d.candidate_norm,
                                                                      .model = setup->said->name};
  }
  free(sums);
  return MG_OK;
}

static int by_layer(const void *a, const void *b) {
  return strcmp(((const mg_result_layer_delta *)a)->layer, ((const mg_result_layer_delta *)b)->layer);
}

/* Rows first … of the parameters, by layer: sums, then means; in the order of the names' bytes, as the notebook's. */
static void add_layers(struct mg_scope_tables *t, size_t first) {
  mg_result_layer_delta *rows = t->layers + t->layer_count;
  size_t count = 0;
  for (size_t k = first; k < t->parameter_count; k++) {
    const mg_result_parameter_delta *p = &t->parameters[k];
    size_t at = 0;
    double members = 0;
    while (at < count && strcmp(rows[at].layer, p->layer) != 0) at++;
    if (at < count) continue; /* had its turn with its layer's first */
    mg_result_layer_delta sum = {.layer = p->layer, .model = p->model};
    for (size_t m = k; m < t->parameter_count; m++) {
      const mg_result_parameter_delta *q = &t->parameters[m];
      if (strcmp(q->layer, p->layer) != 0) continue;
      members++;
      sum.delta_l2_sum += q->delta_l2;
      sum.delta_mean_abs += q->delta_mean_abs;
      sum.cosine_mean += q->cosine_with_reference;
      sum.reference_norm_mean += q->reference_norm;
      sum.candidate_norm_mean += q->candidate_norm;
    }
    sum.delta_l2_mean = sum.delta_l2_sum / members;
    sum.delta_mean_abs /= members;
    sum.cosine_mean /= members;
    sum.reference_norm_mean /= members;
    sum.candidate_norm_mean /= members;
    rows[count++] = sum;
  }
  if (count > 1) qsort(rows, count, sizeof *rows, by_layer);
  t->layer_count += count;
}

/* ---- forward passes ---- */

static void add_signals(mg_microscope_stage *s, const mg_scope_setup *setup) {
  struct mg_scope_tables *t = s->tables;
  const size_t layers = (size_t)s->plan.shape.layers, heads = (size_t)s->plan.shape.heads;
  const char *model = setup->said->name;
  const double *numbers = s->numbers[s->work.delta_units + (size_t)setup->model];
  const mg_head_summary *head = (const mg_head_summary *)(const void *)numbers;
  const mg_state_summary *state = (const mg_state_summary *)(const void *)(head + layers * heads);
  const mg_logit_summary *logit = (const mg_logit_summary *)(const void *)(state + layers + 1);
  for (size_t k = 0; k < layers * heads; k++)
    t->attentions[t->attention_count++] = (mg_result_attention){.layer = (int64_t)(k / heads),
                                                                .head = (int64_t)(k % heads),
                                                                .mean_prob = head[k].mean_prob,
                                                                .entropy = head[k].entropy,
                                                                .cls_focus = head[k].cls_focus,
                                                                .diagonal_focus = head[k].diagonal_focus,
                                                                .model = model};
  for (size_t l = 0; l <= layers; l++)
    t->states[t->state_count++] = (mg_result_hidden_state){.layer = (int64_t)l,
                                                           .mean_token_norm = state[l].mean_token_norm,
                                                           .max_token_norm = state[l].max_token_norm,
                                                           .std_token_norm = state[l].std_token_norm,
                                                           .sequence_mean_norm = state[l].sequence_mean_norm,
                                                           .model = model};
  if (!s->work.models[setup->model].with_head) return;
  t->logits[t->logit_count++] = (mg_result_logit){.logit_mean = logit->logit_mean,
                                                  .logit_std = logit->logit_std,
                                                  .confidence_mean = logit->confidence_mean,
                                                  .confidence_std = logit->confidence_std,
                                                  .entropy_mean = logit->entropy_mean,
                                                  .model = model};
}

/* ---- setups ---- */

static mg_result_setup setup_row(const mg_scope_setup *setup) {
  const mg_setup_kind kind = setup->said->kind;
  return (mg_result_setup){.model = setup->said->name,
                           .kind = kind == MG_SETUP_CELL || kind == MG_SETUP_RECIPE ? "merge" : "pretrained",
                           .notes = setup->said->note,
                           .path = setup->path != NULL     ? setup->path
                                   : kind == MG_SETUP_PATH ? setup->said->what
                                                           : NULL,
                           .exists = setup->exists,
                           .error = setup->error,
                           .mode = setup->mode,
                           .target_lang = setup->target_lang,
                           .num_languages = setup->num_languages,
                           .preweight = setup->preweight,
                           .base_model = setup->base_model,
                           .sources = setup->sources,
                           .cell = setup->cell};
}

static void describe(const mg_microscope_stage *s, struct mg_scope_tables *t) {
  const mg_microscope_spec *spec = &s->attempt->config->microscope;
  const mg_setup *r = &spec->reference;
  const char *kind = r->kind == MG_SETUP_SOURCE ? "source "
                     : r->kind == MG_SETUP_CELL ? "cell "
                     : r->kind == MG_SETUP_BASE ? "the base"
                                                : "";
  const char *what = r->what != NULL ? r->what : r->kind == MG_SETUP_RECIPE ? r->yaml : "";
  snprintf(t->reference, sizeof t->reference, "%s%s", kind, what);
  if (spec->probes.file != NULL)
    snprintf(t->probes, sizeof t->probes, "%s", spec->probes.file);
  else if (spec->probes.locale != NULL)
    snprintf(t->probes, sizeof t->probes, "%s %s", spec->probes.locale, spec->probes.partition);
  else
    snprintf(t->probes, sizeof t->probes, "six sentences in English");
  mg_hash_text(s->digest, t->digest);
}

static mg_status make_room(mg_microscope_stage *s) {
  struct mg_scope_tables *t = s->tables;
  const mg_tensor_table *table = mg_rows_table(s->attempt->rows);
  const size_t models = s->work.model_count, layers = (size_t)s->plan.shape.layers;
  t->tensors = table->count;
  t->layer_of = mg_alloc_zero(table->count, sizeof *t->layer_of);
  t->parameters = mg_alloc(models * table->count, sizeof *t->parameters);
  t->layers = mg_alloc(models * table->count, sizeof *t->layers);
  t->attentions = mg_alloc(models * layers, (size_t)s->plan.shape.heads * sizeof *t->attentions);
  t->states = mg_alloc(models, (layers + 1) * sizeof *t->states);
  t->logits = mg_alloc(models, sizeof *t->logits);
  t->setups = mg_alloc(s->setup_count, sizeof *t->setups);
  if (!t->layer_of || !t->parameters || !t->layers || !t->attentions || !t->states || !t->logits || !t->setups)
    return MG_ERR_NOMEM;
  for (size_t k = 0; k < table->count; k++) {
    t->layer_of[k] = mg_parameter_layer(table->tensors[k].name);
    if (t->layer_of[k] == NULL) return MG_ERR_NOMEM;
  }
  return MG_OK;
}

mg_status mg_scope_tables_make(mg_microscope_stage *s, mg_result_microscope *out) {
  mg_status status = MG_OK;
  struct mg_scope_tables *t = s->tables = mg_alloc_zero(1, sizeof *t);
  if (t == NULL) return MG_ERR_NOMEM;
  MG_TRY(make_room(s), done);
  for (size_t k = 0; k < s->setup_count; k++) {
    const mg_scope_setup *setup = &s->setups[k];
    const size_t first = t->parameter_count;
    t->setups[k] = setup_row(setup);
    if (!is_whole(setup)) continue;
    if (k > 0 && is_whole(&s->setups[0])) {
      MG_TRY(add_parameters(s, setup), done);
      add_layers(t, first);
    }
    if (s->plan.signals) add_signals(s, setup);
  }
  const double began = mg_now();
  MG_TRY(mg_scope_cells_make(s, &t->cells), done);
  if (t->cells.reason == NULL) mg_attempt_timed(s->attempt, "microscope_cells", began);
  describe(s, t);
  *out = (mg_result_microscope){.digest = t->digest,
                                .reference = t->reference,
                                .padding = s->attempt->config->microscope.padding,
                                .probes = (int64_t)s->plan.probes.count,
                                .probe_source = t->probes,
                                .no_signals = s->plan.no_signals,
                                .no_cells = t->cells.reason,
                                .parameter_count = t->parameter_count,
                                .layer_count = t->layer_count,
                                .attention_count = t->attention_count,
                                .hidden_count = t->state_count,
                                .logit_count = t->logit_count,
                                .setup_count = s->setup_count,
                                .parameters = t->parameters,
                                .layers = t->layers,
                                .attentions = t->attentions,
                                .hidden_states = t->states,
                                .logits = t->logits,
                                .setups = t->setups,
                                .cell_count = t->cells.count,
                                .tensor_count = t->tensors,
                                .cells = t->cells.keys,
                                .parameter_names = t->cells.names,
                                .cell_delta_l2 = t->cells.delta_l2,
                                .cell_cosine = t->cells.cosine,
                                .cell_norm = t->cells.norm,
                                .cell_reference_norm = t->cells.reference_norm};
done:
  return status;
}
