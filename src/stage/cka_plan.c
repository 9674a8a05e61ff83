/* What the metric cka needs, for `plan` and for the run that has to stay within it. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/cka.h"
#include "stage_impl.h"

bool mg_cka_wanted(const mg_config *config) {
  return mg_stage_wanted(config, "compatibility") && mg_strings_find(&config->compatibility.metrics, "cka") >= 0;
}

static mg_status choose_layers(const mg_config *config, mg_cka_plan *plan) {
  const mg_strings *asked = &config->compatibility.cka.layers;
  const int last = plan->shape.layers;
  const bool all = strcmp(asked->items[0], "all") == 0, only_last = strcmp(asked->items[0], "last") == 0;
  plan->layer_count = all ? last + 1 : only_last ? 1 : (int)asked->count;
  plan->layers = mg_alloc((size_t)plan->layer_count, sizeof *plan->layers);
  if (plan->layers == NULL) return MG_ERR_NOMEM;
  for (int k = 0; k < plan->layer_count; k++) {
    plan->layers[k] = all ? k : only_last ? last : atoi(asked->items[k]);
    if (plan->layers[k] > last)
      return mg_fail(MG_ERR_INPUT, "compatibility.cka.layers: %d, but the models have hidden states 0 to %d", plan->layers[k],
                     last);
  }
  return MG_OK;
}

static mg_status read_probes(const mg_config *config, const mg_source_list *list, const mg_encoder_shape *shape,
                             mg_tokenized *probes) {
  mg_status status = MG_OK;
  mg_corpus corpus = {0};
  mg_tokenizing *tokenizing = NULL;
  char *partition = config->compatibility.cka.partition;
  const mg_strings partitions = {.count = 1, .items = &partition};
  MG_TRY(mg_tokenizing_begin(config, list, shape, config->compatibility.cka.max_length, &tokenizing), cleanup);
  status = mg_corpus_read(&config->texts, config->compatibility.cka.locale, &partitions, NULL,
                          (size_t)config->compatibility.cka.samples, &corpus);
  if (status != MG_OK) mg_fail_context(status, "compatibility.cka");
  if (status != MG_OK) goto cleanup;
  if (corpus.count < 2) {
    status =
        mg_fail(MG_ERR_INPUT, "%s: %zu texts of partition %s; CKA needs two or more (compatibility.cka: locale, partition)",
                corpus.path, corpus.count, partition);
    goto cleanup;
  }
  MG_TRY(mg_tokenizing_add(tokenizing, &corpus), cleanup);
  MG_TRY(mg_tokenizing_end(tokenizing, probes), cleanup);
cleanup:
  mg_corpus_free(&corpus);
  mg_tokenizing_free(&tokenizing);
  return status;
}

static void count_memory(const mg_config *config, size_t sources, int threads, const mg_device *device, mg_cka_plan *plan) {
  const mg_tokenized *p = &plan->probes;
  const size_t hidden = (size_t)plan->shape.hidden;
  const uint64_t one = (uint64_t)plan->layer_count * p->count * hidden * sizeof(float);
  plan->encoder_bytes = mg_encoder_bytes(&plan->shape, p->token_count, device != NULL ? 0 : threads);
  plan->features_bytes = one * (sources + 3); /* every source's, and a message's worth of both ends */
  if (device == NULL) {
    plan->grams_bytes = mg_cka_bytes(sources, p->count, hidden, config->compute.memory_budget / 4);
    return;
  }
  const uint64_t encoder = mg_encoder_device_bytes(&plan->shape, p->token_count, 1);
  mg_cka_device_bytes(device, sources, p->count, hidden, &plan->device_bytes, &plan->device_wish);
  if (plan->device_bytes < encoder) plan->device_bytes = encoder; /* one after the other */
}

mg_status mg_cka_plan_make(const mg_config *config, const mg_source_list *list, int threads, const mg_device *device,
                           bool with_probes, mg_cka_plan *plan) {
  mg_status status = MG_OK;
  *plan = (mg_cka_plan){.mean = strcmp(config->compatibility.cka.pool, "mean") == 0};
  MG_TRY(mg_encoder_shape_read(config->family.base, &plan->shape), failed);
  MG_TRY(choose_layers(config, plan), failed);
  if (!with_probes) return MG_OK;
  MG_TRY(read_probes(config, list, &plan->shape, &plan->probes), failed);
  const mg_tokenized *p = &plan->probes;
  count_memory(config, list->count, threads, device, plan);
  for (size_t k = 0; k < p->sequences.count; k++)
    plan->flops += (double)list->count * mg_encoder_flops(&plan->shape, (int)(p->offset[k + 1] - p->offset[k]), plan->mean);
  MG_TRY(mg_memory_hold(config, &(mg_plans){.cka = plan}), failed);
  return MG_OK;
failed:
  mg_cka_plan_free(plan);
  return status;
}

void mg_cka_plan_free(mg_cka_plan *plan) {
  mg_tokenized_free(&plan->probes);
  free(plan->layers);
  *plan = (mg_cka_plan){0};
}
