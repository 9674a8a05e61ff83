/* What the stage microscope needs, for `plan` and for the run that has to stay within it. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "microscope_impl.h"

/* Those of the notebook. */
static char *const SIX[] = {"How can I upgrade my flight booking?",
                            "Show me the weather forecast for tomorrow evening.",
                            "I need to reset the password for my online banking.",
                            "Find vegetarian restaurants near my location.",
                            "Translate this sentence into French.",
                            "Remind me to call my mom at 6 PM."};
enum { SIX_COUNT = sizeof SIX / sizeof *SIX };

/* ---- probes ---- */

static mg_status add_six(mg_tokenizing *tokenizing) {
  char path[] = "the six sentences";
  size_t size[SIX_COUNT];
  int64_t line[SIX_COUNT];
  char *text[SIX_COUNT];
  for (size_t k = 0; k < SIX_COUNT; k++) text[k] = SIX[k], size[k] = strlen(SIX[k]), line[k] = (int64_t)k + 1;
  const mg_corpus corpus = {.path = path, .count = SIX_COUNT, .text = text, .size = size, .line = line};
  return mg_tokenizing_add(tokenizing, &corpus);
}

static mg_status read_corpus(const mg_config *config, mg_corpus *corpus) {
  mg_status status = MG_OK;
  const mg_microscope_spec *spec = &config->microscope;
  char *partition = spec->probes.partition;
  const mg_strings partitions = {.count = 1, .items = &partition};
  if (spec->probes.file != NULL) return mg_corpus_read_lines(spec->probes.file, corpus);
  MG_TRY(mg_corpus_read(&config->texts, spec->probes.locale, &partitions, NULL, (size_t)spec->probes.limit, corpus), done);
  if (corpus->count == 0)
    return mg_fail(MG_ERR_INPUT, "%s: no text of partition %s (microscope.probes)", corpus->path, partition);
done:
  return status;
}

/* Every sequence as long as the longest; the padding token is one that occurs. */
static mg_status pad(mg_microscope_plan *plan) {
  mg_tokenized *t = &plan->probes;
  const size_t n = t->sequences.count, longest = (size_t)(t->offset[n] - t->offset[n - 1]); /* they are sorted by length */
  const int32_t padding = plan->shape.pad;
  int32_t *ids = mg_alloc(n, longest * sizeof *ids), *keys = mg_alloc(n, sizeof *keys);
  int32_t *tokens = mg_alloc(t->token_count + 1, sizeof *tokens);
  if (ids == NULL || keys == NULL || tokens == NULL) {
    free(ids), free(keys), free(tokens);
    return MG_ERR_NOMEM;
  }
  for (size_t s = 0; s < n; s++) {
    keys[s] = (int32_t)(t->offset[s + 1] - t->offset[s]);
    for (size_t k = 0; k < longest; k++)
      ids[s * longest + k] = k < (size_t)keys[s] ? t->ids[(size_t)t->offset[s] + k] : padding;
  }
  size_t before = 0;
  while (before < t->token_count && t->tokens[before] < padding) before++;
  const bool there = before < t->token_count && t->tokens[before] == padding;
  memcpy(tokens, t->tokens, before * sizeof *tokens);
  tokens[before] = padding;
  memcpy(tokens + before + 1, t->tokens + before + there, (t->token_count - before - there) * sizeof *tokens);
  t->token_count += !there;
  for (size_t s = 0; s <= n; s++) t->offset[s] = (int64_t)(s * longest);
  free(t->ids), free(t->tokens);
  t->ids = ids;
  t->tokens = tokens;
  plan->keys = keys;
  t->sequences = (mg_sequences){.count = n, .ids = ids, .offset = t->offset, .keys = keys};
  return MG_OK;
}

static mg_status read_probes(const mg_config *config, const mg_source_list *list, mg_microscope_plan *plan) {
  mg_status status = MG_OK;
  mg_corpus corpus = {0};
  mg_tokenizing *tokenizing = NULL;
  const mg_microscope_spec *spec = &config->microscope;
  MG_TRY(mg_tokenizing_begin(config, list, &plan->shape, spec->max_length, &tokenizing), cleanup);
  if (spec->probes.file == NULL && spec->probes.locale == NULL) {
    MG_TRY(add_six(tokenizing), cleanup);
  } else {
    MG_TRY(read_corpus(config, &corpus), cleanup);
    MG_TRY(mg_tokenizing_add(tokenizing, &corpus), cleanup);
  }
  MG_TRY(mg_tokenizing_end(tokenizing, &plan->probes), cleanup);
  if (strcmp(spec->padding, "include") == 0) MG_TRY(pad(plan), cleanup);
cleanup:
  mg_corpus_free(&corpus);
  mg_tokenizing_free(&tokenizing);
  return status;
}

/* ---- what it takes ---- */

/* Sources that a setup may have, by what is said of it. */
static size_t most_sources(const mg_setup *setup, size_t all) {
  size_t count = 1;
  if (setup->kind == MG_SETUP_CELL) count = all;
  if (setup->kind == MG_SETUP_RECIPE)
    count = setup->terms.sources.count > 0                                ? setup->terms.sources.count
            : (setup->terms.given & MG_GIVEN(MG_TERM_NUM_LANGUAGES)) != 0 ? (size_t)setup->terms.num_languages
                                                                          : 5;
  return count < all ? count : all;
}

static void count_work(const mg_config *config, const mg_tensor_table *table, size_t sources, int threads, size_t cells,
                       mg_microscope_plan *plan) {
  const mg_microscope_spec *spec = &config->microscope;
  size_t together = 0;
  for (size_t k = 0; k <= spec->setup_count; k++)
    together += most_sources(k > 0 ? &spec->setups[k - 1] : &spec->reference, sources);
  const size_t distinct = together < sources ? together : sources;
  const uint64_t tensors = table->count;
  plan->work_bytes =
      mg_pass_bytes(table, distinct, threads) + plan->models * mg_scope_piece_floats(table, plan->models) * sizeof(float);
  plan->merge_bytes = (double)table->elements * sizeof(float) * (double)(distinct + 2 * plan->models);
  plan->master_bytes = plan->models * tensors * (5 * sizeof(double) + 2 * sizeof(mg_result_parameter_delta)) +
                       3 * (uint64_t)cells * tensors * sizeof(double);
}

static void count_signals(int threads, const mg_device *device, mg_microscope_plan *plan) {
  const mg_tokenized *p = &plan->probes;
  const mg_encoder_shape *shape = &plan->shape;
  plan->encoder_bytes = mg_encoder_bytes(shape, p->token_count, device != NULL ? 0 : threads) +
                        mg_signals_bytes(p->sequences.count, shape->layers, shape->heads);
  if (device != NULL) plan->device_bytes = mg_encoder_device_bytes(shape, p->token_count, 1);
  for (size_t k = 0; k < p->sequences.count; k++)
    plan->flops += (double)plan->models * mg_encoder_flops(shape, (int)(p->offset[k + 1] - p->offset[k]), true);
  plan->master_bytes += plan->models * (uint64_t)shape->layers * (uint64_t)shape->heads * 3 * sizeof(mg_result_attention);
}

/* No forward passes, for the reason that was the last failure's. */
static mg_status do_without(mg_microscope_plan *plan) {
  plan->signals = false;
  plan->no_signals = mg_strdup(mg_error_message());
  return plan->no_signals != NULL ? MG_OK : MG_ERR_NOMEM;
}

mg_status mg_microscope_plan_make(const mg_config *config, const mg_source_list *list, const mg_tensor_table *table,
                                  int threads, const mg_device *device, bool with_probes, size_t cells,
                                  mg_microscope_plan *plan) {
  mg_status status = MG_OK;
  *plan = (mg_microscope_plan){.models = config->microscope.setup_count + 1};
  count_work(config, table, list->count, threads, cells, plan);
  plan->signals = mg_encoder_shape_read(config->family.base, &plan->shape) == MG_OK;
  if (!plan->signals) return do_without(plan);
  plan->shape.classes = mg_nxn_classes(table);
  if (!with_probes) return MG_OK;
  status = read_probes(config, list, plan);
  if (status == MG_ERR_INPUT && mg_tokenizing_is_foreign(config, list)) return do_without(plan);
  if (status != MG_OK) goto failed;
  count_signals(threads, device, plan);
  MG_TRY(mg_memory_hold(config, &(mg_plans){.microscope = plan}), failed);
  return MG_OK;
failed:
  mg_microscope_plan_free(plan);
  return status;
}

void mg_microscope_plan_free(mg_microscope_plan *plan) {
  mg_tokenized_free(&plan->probes);
  free(plan->keys), free(plan->no_signals);
  *plan = (mg_microscope_plan){0};
}
