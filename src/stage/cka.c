/* The metric cka: every source's features of the probe texts, once; then all pairs from them. */

#include "mergegrid/cka.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "stage_impl.h"

struct mg_cka_stage {
  mg_attempt *attempt;
  const mg_config *config;
  const mg_source_list *list;
  mg_cka_plan plan;
  mg_encoder *encoder;
  mg_row_weights *weights;
  int64_t *todo; /* sources without features, the same on every rank */
  size_t todo_count;
  /* rank 0 */
  float *features; /* [sources, layers, texts, hidden] */
  bool *done;
  size_t done_count, all_count; /* of sources: of a part, with those of its share */
  double *biased, *unbiased;    /* [layers, sources, sources] */
  char probes[128];
  mg_progress progress;
};

static size_t feature_count(const mg_cka_stage *s) {
  return (size_t)s->plan.layer_count * s->plan.probes.count * (size_t)s->plan.shape.hidden;
}

static mg_status prepare_shape(mg_cka_stage *s) {
  mg_status status = MG_OK;
  mg_weights weights;
  MG_TRY(mg_cka_plan_make(s->config, s->list, s->attempt->threads, s->attempt->device, s->attempt->rank == 0, &s->plan), done);
  MG_TRY(mg_row_weights_open(s->attempt->rows, s->list, &s->weights), done);
  mg_row_weights_source(s->weights, 0, &weights);
  MG_TRY(mg_encoder_shape_check(&s->plan.shape, &weights), done);
  s->plan.shape.classes = 0; /* states only */
  if (s->attempt->rank != 0) goto done;
  s->features = mg_alloc(s->list->count, feature_count(s) * sizeof(float));
  s->done = mg_alloc_zero(s->list->count, sizeof *s->done);
  if (s->features == NULL || s->done == NULL) return MG_ERR_NOMEM;
done:
  return status;
}

mg_status mg_cka_open(mg_attempt *attempt, mg_cka_stage **stage) {
  mg_status status = MG_OK;
  mg_cka_stage *s = mg_alloc_zero(1, sizeof *s);
  MG_TRY(mg_agree(attempt->comm, s != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  *s = (mg_cka_stage){.attempt = attempt, .config = attempt->config, .list = &attempt->roster->list};
  MG_TRY(mg_agree(attempt->comm, prepare_shape(s)), failed);
  MG_TRY(mg_tokenized_share(attempt->comm, &s->plan.probes), failed);
  *stage = s;
  return MG_OK;
failed:
  mg_cka_close(&s);
  return status;
}

void mg_cka_close(mg_cka_stage **stage) {
  mg_cka_stage *s = *stage;
  if (s == NULL) return;
  mg_encoder_destroy(&s->encoder);
  mg_row_weights_close(&s->weights);
  mg_cka_plan_free(&s->plan);
  free(s->features), free(s->done), free(s->todo), free(s->biased), free(s->unbiased), free(s);
  *stage = NULL;
}

const mg_cka_plan *mg_cka_stage_plan(const mg_cka_stage *s) { return &s->plan; }

mg_status mg_cka_identify(const mg_cka_stage *s, mg_identity *identity) {
  mg_status status = MG_OK;
  char hash[17];
  mg_text layers = {0};
  for (int k = 0; k < s->plan.layer_count; k++) mg_text_append(&layers, "%s%d", k ? ", " : "", s->plan.layers[k]);
  if (layers.failed) return mg_fail(MG_ERR_NOMEM, "out of memory");
  MG_TRY(mg_identity_add(identity, "compatibility.cka.layers", layers.data), done);
  MG_TRY(mg_identity_add(identity, "compatibility.cka.pool", s->plan.mean ? "mean" : "cls"), done);
  MG_TRY(mg_identity_add(identity, "probe texts", mg_hash_text(s->plan.probes.hash, hash)), done);
  MG_TRY(mg_identity_add(identity, "encoder", mg_hash_text(mg_hash(&s->plan.shape, sizeof s->plan.shape), hash)), done);
done:
  mg_text_free(&layers);
  return status;
}

/* ---- features ---- */

static mg_status take_features(mg_cka_stage *s, const void *payload, size_t size) {
  uint64_t source;
  const size_t bytes = feature_count(s) * sizeof(float);
  if (size != sizeof source + bytes) return mg_fail(MG_ERR_CORRUPT, "a record of features has %zu bytes", size);
  memcpy(&source, payload, sizeof source);
  if (source >= s->list->count) return mg_fail(MG_ERR_CORRUPT, "a record of features of a source that is not there");
  memcpy((char *)s->features + source * bytes, (const char *)payload + sizeof source, bytes);
  s->done_count += !s->done[source];
  s->done[source] = true;
  return MG_OK;
}

mg_status mg_cka_replay(mg_cka_stage *s, const mg_record *record) {
  return record->kind == MG_RECORD_FEATURES ? take_features(s, record->payload, record->size) : MG_OK;
}

static mg_status check_finite(const mg_cka_stage *s, size_t source, const float *pooled) {
  const size_t row = (size_t)s->plan.layer_count * (size_t)s->plan.shape.hidden;
  for (size_t t = 0; t < s->plan.probes.count; t++) {
    const float *states = pooled + (size_t)s->plan.probes.sequence_of[t] * row;
    for (size_t k = 0; k < row; k++)
      if (!isfinite(states[k]))
        return mg_fail(MG_ERR_INPUT, "source %s: the hidden state of layer %d is not finite for text %zu of %s (%s)",
                       s->list->items[source].id, s->plan.layers[k / (size_t)s->plan.shape.hidden], t + 1,
                       s->config->compatibility.cka.locale, s->config->compatibility.cka.partition);
  }
  return MG_OK;
}

static mg_status compute_source(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_cka_stage *s = context;
  mg_status status = MG_OK;
  const uint64_t source = (uint64_t)s->todo[unit];
  const mg_tokenized *p = &s->plan.probes;
  const size_t h = (size_t)s->plan.shape.hidden, layers = (size_t)s->plan.layer_count;
  mg_weights weights;
  float *pooled = mg_alloc(p->sequences.count * layers, h * sizeof *pooled);
  if (pooled == NULL) return MG_ERR_NOMEM;
  mg_row_weights_source(s->weights, source, &weights);
  MG_TRY(mg_encoder_load(s->encoder, &weights), cleanup);
  const mg_encoder_want want = {.layers = s->plan.layers,
                                .layer_count = s->plan.layer_count,
                                .cls = s->plan.mean ? NULL : pooled,
                                .mean = s->plan.mean ? pooled : NULL,
                                .context = poll,
                                .poll = mg_attempt_poll};
  MG_TRY(mg_encoder_run(s->encoder, &p->sequences, 0, p->sequences.count, &want), cleanup);
  MG_TRY(check_finite(s, source, pooled), cleanup);
  mg_text_append_bytes(payload, &source, sizeof source);
  for (size_t l = 0; l < layers; l++)
    for (size_t t = 0; t < p->count; t++)
      mg_text_append_bytes(payload, pooled + ((size_t)p->sequence_of[t] * layers + l) * h, h * sizeof *pooled);
  s->attempt->mine.units++;
cleanup:
  free(pooled);
  return status;
}

static mg_status take_source(void *context, int64_t unit, const void *payload, size_t size) {
  mg_cka_stage *s = context;
  mg_status status = MG_OK;
  (void)unit;
  MG_TRY(mg_run_append(s->attempt->run, MG_RECORD_FEATURES, payload, size, NULL), done);
  MG_TRY(take_features(s, payload, size), done);
done:
  return status;
}

static mg_status tick(void *context) {
  mg_cka_stage *s = context;
  char text[64];
  snprintf(text, sizeof text, "cka: %zu of %zu sources", s->done_count, s->all_count);
  mg_progress_update(&s->progress, (double)s->done_count);
  return mg_attempt_keep_going(s->attempt, "compatibility", text);
}

static mg_status list_todo(mg_cka_stage *s) {
  s->todo = mg_alloc(s->list->count, sizeof *s->todo);
  if (s->todo == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->list->count; k++)
    if (!s->done[k] && mg_share_is_ours(&s->attempt->parts, (int64_t)k, (int64_t)s->list->count))
      s->todo[s->todo_count++] = (int64_t)k;
  return MG_OK;
}

void mg_cka_lacking(mg_cka_stage *s) {
  mg_parts *parts = &s->attempt->parts;
  for (size_t k = 0; k < s->list->count; k++)
    if (!s->done[k]) mg_parts_lack(parts, mg_share_of(parts, (int64_t)k, (int64_t)s->list->count), MG_SHARE_CKA);
}

static mg_status share_todo(mg_cka_stage *s) {
  const mg_status listed = s->attempt->rank == 0 ? list_todo(s) : MG_OK;
  void *data = s->todo;
  const mg_status status = mg_attempt_share(s->attempt, listed, &data, &s->todo_count, sizeof *s->todo);
  s->todo = data;
  return status;
}

mg_status mg_cka_compute(mg_cka_stage *s) {
  mg_status status = MG_OK;
  const mg_tokenized *p = &s->plan.probes;
  const MPI_Comm comm = s->attempt->comm;
  const double began = mg_now();
  MG_TRY(share_todo(s), done);
  MG_TRY(mg_agree(comm, mg_encoder_create(&s->plan.shape, p->tokens, p->token_count, s->attempt->threads, s->attempt->device,
                                          &s->encoder)),
         done);
  mg_info("cka: %zu probe texts of %s (%zu different, %lld tokens), %d layer%s", p->count, s->config->compatibility.cka.locale,
          p->sequences.count, (long long)p->offset[p->sequences.count], s->plan.layer_count,
          s->plan.layer_count > 1 ? "s" : "");
  s->all_count = s->done_count + s->todo_count;
  mg_progress_begin(&s->progress, "cka", (double)s->all_count, (double)s->done_count, 1, "sources");
  const mg_farm_job job = {
      .units = (int64_t)s->todo_count, .context = s, .work = compute_source, .take = take_source, .tick = tick};
  MG_TRY(mg_farm_run(comm, &job), done);
  mg_progress_end(&s->progress, (double)s->done_count);
  mg_attempt_timed(s->attempt, "cka", began);
  mg_encoder_destroy(&s->encoder); /* its memory is the next stage's */
done:
  return status;
}

/* ---- matrices ---- */

typedef struct layer_of {
  const mg_cka_stage *s;
  size_t layer;
} layer_of;

static mg_status get_features(void *context, size_t source, const float **features) {
  const layer_of *l = context;
  const size_t one = l->s->plan.probes.count * (size_t)l->s->plan.shape.hidden;
  *features = l->s->features + source * feature_count(l->s) + l->layer * one;
  return MG_OK;
}

static mg_status make_matrices(mg_cka_stage *s) {
  mg_status status = MG_OK;
  const size_t n = s->list->count, layers = (size_t)s->plan.layer_count;
  if (s->biased != NULL) return MG_OK;
  s->biased = mg_alloc(layers * n, n * sizeof(double));
  s->unbiased = mg_alloc(layers * n, n * sizeof(double));
  if (s->biased == NULL || s->unbiased == NULL) return MG_ERR_NOMEM;
  for (size_t l = 0; l < layers; l++) {
    layer_of of = {.s = s, .layer = l};
    const mg_cka_features f = {.sources = n,
                               .texts = s->plan.probes.count,
                               .width = (size_t)s->plan.shape.hidden,
                               .context = &of,
                               .get = get_features};
    MG_TRY(mg_cka(&f, s->config->compute.memory_budget / 4, s->attempt->device, s->biased + l * n * n, s->unbiased + l * n * n),
           done);
  }
done:
  return status;
}

void mg_cka_adopt(mg_cka_stage *s, double *biased, double *unbiased) {
  free(s->biased), free(s->unbiased);
  s->biased = biased;
  s->unbiased = unbiased;
  for (size_t k = 0; k < s->list->count; k++) s->done[k] = true;
  s->done_count = s->list->count;
}

mg_status mg_cka_last(mg_cka_stage *s, const double **cka) {
  const size_t n = s->list->count;
  const mg_status status = make_matrices(s);
  *cka = status == MG_OK ? s->biased + (size_t)(s->plan.layer_count - 1) * n * n : NULL;
  return status;
}

mg_status mg_cka_collect(mg_cka_stage *s, mg_result_compatibility *out) {
  mg_status status = MG_OK;
  MG_TRY(make_matrices(s), done);
  snprintf(s->probes, sizeof s->probes, "%s %s", s->config->compatibility.cka.locale, s->config->compatibility.cka.partition);
  out->cka = s->biased;
  out->cka_unbiased = s->unbiased;
  out->cka_layers = s->plan.layers;
  out->cka_layer_count = s->plan.layer_count;
  out->cka_samples = (int64_t)s->plan.probes.count;
  out->cka_probes = s->probes;
done:
  return status;
}
