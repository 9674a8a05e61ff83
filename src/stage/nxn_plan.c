/* What the stage nxn needs, for `plan` and for the run that has to stay within it. */

#include <math.h>
#include <stdlib.h>

#include "stage_impl.h"

/*
 * What bringing a byte of weights to where they are computed with costs, in operations that could have been made meanwhile:
 * about a GB/s beside 60 GFLOP/s of a core, 2 GB/s beside 30 TFLOP/s of a device. Rates of the moment would do no better: that
 * a disk is fast today says nothing of the next node, and a factor of two hardly matters.
 */
static const double CORE_FLOPS_A_BYTE = 60, DEVICE_FLOPS_A_BYTE = 15000;
/* A lease's work is so many times its loading, and no less than so much a thread or device: messages cost something, too. */
static const double LOADS_A_LEASE = 20, LEAST_OF_A_CORE = 5e9, LEAST_OF_A_DEVICE = 1e11;

void mg_nxn_choose_leases(mg_nxn_plan *plan, int threads, bool on_device) {
  const double weights = (double)mg_encoder_bytes(&plan->shape, plan->texts.tokenized.token_count, 0);
  const double least = on_device ? LEAST_OF_A_DEVICE : LEAST_OF_A_CORE * threads;
  plan->load_flops = weights * (on_device ? DEVICE_FLOPS_A_BYTE : CORE_FLOPS_A_BYTE * threads);
  plan->lease_flops = LOADS_A_LEASE * plan->load_flops;
  if (plan->lease_flops < least) plan->lease_flops = least;
}

double mg_nxn_batch_flops(const mg_nxn_plan *plan, size_t first, size_t last) {
  double flops = 0;
  const int64_t *offset = plan->texts.tokenized.offset;
  for (size_t k = first; k < last; k++) flops += mg_encoder_flops(&plan->shape, (int)(offset[k + 1] - offset[k]), false);
  return flops;
}

mg_status mg_nxn_batches(mg_nxn_plan *plan, const mg_device *device) {
  const mg_sequences *sequences = &plan->texts.tokenized.sequences;
  plan->batch = mg_alloc(sequences->count + 1, sizeof *plan->batch);
  if (plan->batch == NULL) return MG_ERR_NOMEM;
  plan->batch[0] = 0;
  for (size_t at = 0; at < sequences->count; plan->batch[++plan->batch_count] = at)
    at = mg_batch_end(sequences, at, mg_batch_tokens(device));
  return MG_OK;
}

/* The arrays; and while they are made, all texts' ids one behind the other, and each text's place in the order. */
static void predict_texts(const mg_tokenized *t, mg_nxn_plan *plan) {
  const int64_t *offset = t->offset;
  uint64_t tokens = 0;
  for (size_t k = 0; k < t->count; k++) tokens += (uint64_t)(offset[t->sequence_of[k] + 1] - offset[t->sequence_of[k]]);
  plan->text_bytes = (uint64_t)offset[t->sequences.count] * sizeof *t->ids + (t->sequences.count + 1) * sizeof *t->offset +
                     t->count * sizeof *t->sequence_of + t->token_count * sizeof *t->tokens;
  plan->reading_bytes = tokens * sizeof *t->ids + t->count * 24;
}

void mg_nxn_predict_memory(const mg_config *config, size_t sources, int threads, mg_nxn_plan *plan) {
  const mg_nxn_texts *t = &plan->texts;
  const uint64_t width = sizeof(int32_t) + (config->nxn.logits ? (uint64_t)plan->shape.classes * sizeof(float) : 0);
  const double batch =
      plan->batch_count > 0 ? mg_nxn_batch_flops(plan, 0, t->tokenized.sequences.count) / (double)plan->batch_count : 1;
  const double lease = plan->lease_flops / batch + 1; /* in batches */
  uint64_t most = 0;
  for (size_t m = 0; m < t->targets.count; m++)
    if (t->items[m].count > most) most = t->items[m].count;
  plan->encoder_bytes = mg_encoder_bytes(&plan->shape, t->tokenized.token_count, threads);
  predict_texts(&t->tokenized, plan);
  /* where batches begin, and both ends of a message of answers */
  const double answers = lease * (double)t->tokenized.sequences.count / (double)(plan->batch_count + 1) * (double)(width + 4);
  plan->message_bytes = (plan->batch_count + 1) * sizeof *plan->batch + (uint64_t)(4 * answers);
  /* text by text its id, label, …; what is done and where it is kept, by batch and by lease (shorter ones than planned, too) */
  const double batches = (double)plan->batch_count, leases = 2 * batches / lease + 2;
  plan->master_bytes = t->tokenized.count * 96 +
                       (uint64_t)((double)sources * (5 * batches + 144 * (leases < batches ? leases : batches))) +
                       sources * (t->targets.count * sizeof(char *) + t->tokenized.sequences.count / 8) + /* who has failed */
                       (UINT64_C(4) << 20);
  /* a source's answers, a target's row of them, and the result file's buffers */
  plan->answer_bytes = (t->tokenized.sequences.count + 2 * most) * width + (UINT64_C(8) << 20);
}

mg_status mg_nxn_plan_begin(const mg_config *config, const mg_tensor_table *table, mg_nxn_plan *plan) {
  mg_status status = MG_OK;
  *plan = (mg_nxn_plan){0};
  MG_TRY(mg_encoder_shape_read(config->family.base, &plan->shape), done);
  plan->shape.classes = mg_nxn_classes(table);
done:
  return status;
}

mg_status mg_nxn_plan_end(const mg_config *config, size_t sources, int threads, const mg_device *device, mg_nxn_plan *plan) {
  mg_status status = MG_OK;
  MG_TRY(mg_nxn_batches(plan, device), done);
  const mg_tokenized *t = &plan->texts.tokenized;
  mg_nxn_choose_leases(plan, threads, device != NULL);
  mg_nxn_predict_memory(config, sources, device != NULL ? 0 : threads, plan);
  if (device != NULL) plan->device_bytes = mg_encoder_device_bytes(&plan->shape, t->token_count, 1);
  plan->flops = (double)sources * mg_nxn_batch_flops(plan, 0, t->sequences.count);
  MG_TRY(mg_memory_hold(config, &(mg_plans){.nxn = plan}), done);
done:
  return status;
}

/* How leases are cut, of how much there is for so many ranks. */
typedef struct cutting {
  double most, least, left; /* left: operations that are not dealt out yet, of all sources */
  int ranks;
} cutting;

enum { TURNS_LEFT = 4, SHORTEST = 2 };

/*
 * A rank that has work W of t leases spends t loads, and waits at the end for half of another's lease, W / 2t: together the
 * least where a lease is sqrt(2 · load · W). That matters where ranks have little to do for what a model costs to load.
 */
static cutting begin_cutting(const mg_nxn_plan *plan, int ranks, double all) {
  const double best = sqrt(2 * plan->load_flops * all / ranks), half = plan->lease_flops / SHORTEST;
  return (cutting){.most = plan->lease_flops, .least = best < half ? best : half, .left = all, .ranks = ranks};
}

/* Towards the end leases become shorter, as long as loading a model for them is still worth it, so that ranks end together. */
static double next_lease(const cutting *c) {
  const double share = c->left / (TURNS_LEFT * (double)c->ranks);
  return share > c->most ? c->most : share > c->least ? share : c->least;
}

/* Appends a source's. */
static void list_parts(const mg_nxn_plan *plan, const double *flops_of, const bool *done, uint32_t source, cutting *cut,
                       mg_nxn_part *parts, size_t *count) {
  double flops = 0, lease = 0;
  bool open = false;
  for (size_t b = 0; b < plan->batch_count; b++) {
    if (done[b]) {
      open = false;
      continue;
    }
    if (!open || flops >= lease) {
      lease = next_lease(cut);
      parts[(*count)++] = (mg_nxn_part){.source = source, .first = (uint32_t)b};
      flops = 0;
      open = true;
    }
    parts[*count - 1].count++;
    flops += flops_of[b];
    cut->left -= flops_of[b];
  }
}

mg_status mg_nxn_parts(const mg_nxn_plan *plan, size_t sources, int ranks, const bool *done, mg_nxn_part **parts,
                       size_t *count) {
  mg_status status = MG_OK;
  double left = 0;
  const size_t batches = plan->batch_count;
  size_t room = 0;
  *count = 0;
  *parts = NULL;
  double *flops = mg_alloc(batches, sizeof *flops); /* once, not once a source */
  if (flops == NULL) return MG_ERR_NOMEM;
  for (size_t b = 0; b < batches; b++) flops[b] = mg_nxn_batch_flops(plan, plan->batch[b], plan->batch[b + 1]);
  for (size_t k = 0; k < sources * batches; k++) left += done[k] ? 0 : flops[k % batches];
  cutting cut = begin_cutting(plan, ranks, left);
  for (size_t k = 0; k < sources; k++) {
    if (room - *count < batches) { /* a source may come to a lease a batch */
      room = 2 * room + batches;
      mg_nxn_part *grown = reallocarray(*parts, room, sizeof *grown);
      if (grown == NULL) {
        status = mg_fail(MG_ERR_NOMEM, "out of memory");
        break;
      }
      *parts = grown;
    }
    list_parts(plan, flops, done + k * batches, (uint32_t)k, &cut, *parts, count);
  }
  free(flops);
  return status;
}

void mg_nxn_plan_free(mg_nxn_plan *plan) {
  mg_nxn_texts_free(&plan->texts);
  free(plan->batch);
  *plan = (mg_nxn_plan){0};
}
