/* What the stage nxn needs, for `plan` and for the run that has to stay within it. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "stage_impl.h"

static const uint64_t PROCESS_BYTES = UINT64_C(64) << 20;

/* Floating-point operations a lease: enough that loading a model for it costs a few percent, and that every thread has some
   batches of it. */
static double lease_flops(const mg_nxn_plan *plan, int threads) {
  const double weights = (double)mg_encoder_bytes(&plan->shape, plan->texts.tokenized.token_count, 0);
  const double least = 5e9, a_byte = 1200;
  return (weights * a_byte > least ? weights * a_byte : least) * threads;
}

double mg_nxn_batch_flops(const mg_nxn_plan *plan, size_t first, size_t last) {
  double flops = 0;
  const int64_t *offset = plan->texts.tokenized.offset;
  for (size_t k = first; k < last; k++) flops += mg_encoder_flops(&plan->shape, (int)(offset[k + 1] - offset[k]), false);
  return flops;
}

mg_status mg_nxn_batches(mg_nxn_plan *plan) {
  const mg_sequences *sequences = &plan->texts.tokenized.sequences;
  plan->batch = mg_alloc(sequences->count + 1, sizeof *plan->batch);
  if (plan->batch == NULL) return MG_ERR_NOMEM;
  plan->batch[0] = 0;
  for (size_t at = 0; at < sequences->count; plan->batch[++plan->batch_count] = at) at = mg_batch_end(sequences, at);
  return MG_OK;
}

/* Texts of both partitions that a source answers: what rank 0 holds beside the encoder. */
static uint64_t predict_master(const mg_config *config, const mg_nxn_plan *plan, size_t sources) {
  const mg_nxn_texts *t = &plan->texts;
  const uint64_t classes = config->nxn.logits ? (uint64_t)plan->shape.classes : 0;
  uint64_t most = 0;
  for (size_t m = 0; m < t->targets.count; m++) {
    const uint64_t here = t->items[m].count;
    if (here > most) most = here;
  }
  /* a source's answers and a target's row of them; text by text its id, label, …; what is done, and where it is kept */
  return (t->tokenized.sequences.count + most) * (classes + 1) * sizeof(float) + t->tokenized.count * 96 +
         sources * plan->batch_count * (1 + sizeof(mg_record_place) + 16) + (UINT64_C(4) << 20);
}

static mg_status hold_to_budget(const mg_config *config, const mg_nxn_plan *plan) {
  char need[32], budget[32];
  const uint64_t bytes = PROCESS_BYTES + plan->encoder_bytes + plan->text_bytes + plan->master_bytes;
  if (bytes <= config->compute.memory_budget) return MG_OK;
  return mg_fail(MG_ERR_NOMEM,
                 "the stage nxn would need %s on rank 0 (a model, its activations, %zu texts, a source's answers); "
                 "compute.memory_budget is %s: raise it, or take fewer targets or threads%s",
                 mg_format_bytes((double)bytes, need), plan->texts.tokenized.count,
                 mg_format_bytes((double)config->compute.memory_budget, budget),
                 config->nxn.logits ? ", or nxn.logits: false" : "");
}

mg_status mg_nxn_plan_make(const mg_config *config, const mg_source_list *list, const mg_strings *labels,
                           const mg_tensor_table *table, int threads, bool with_texts, mg_nxn_plan *plan) {
  mg_status status = MG_OK;
  *plan = (mg_nxn_plan){0};
  MG_TRY(mg_encoder_shape_read(config->family.base, &plan->shape), failed);
  plan->shape.classes = mg_nxn_classes(table);
  if (!with_texts) return MG_OK;
  MG_TRY(mg_nxn_texts_read(config, list, labels, &plan->shape, &plan->texts), failed);
  MG_TRY(mg_nxn_batches(plan), failed);
  const mg_tokenized *t = &plan->texts.tokenized;
  plan->lease_flops = lease_flops(plan, threads);
  plan->encoder_bytes = mg_encoder_bytes(&plan->shape, t->token_count, threads);
  plan->text_bytes = (uint64_t)t->offset[t->sequences.count] * sizeof(int32_t) * 2 + t->count * 24;
  plan->master_bytes = predict_master(config, plan, list->count);
  plan->flops = (double)list->count * mg_nxn_batch_flops(plan, 0, t->sequences.count);
  MG_TRY(hold_to_budget(config, plan), failed);
  return MG_OK;
failed:
  mg_nxn_plan_free(plan);
  return status;
}

void mg_nxn_plan_free(mg_nxn_plan *plan) {
  mg_nxn_texts_free(&plan->texts);
  free(plan->batch);
  *plan = (mg_nxn_plan){0};
}
