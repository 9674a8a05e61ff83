/* One recipe's elements of one tile, from the rows of its sources. */

#include <string.h>

#include "merge_impl.h"
#include "mergegrid/hash.h"

mg_stream mg_stream_of_tensor(uint64_t seed, const char *id, const char *tensor) {
  return mg_stream_of(seed, mg_hash(id, strlen(id)), mg_hash(tensor, strlen(tensor)));
}

void mg_keep_random(float *delta, int64_t first, int64_t count, const mg_stream *stream, double density, float scale,
                    uint32_t *words) {
  const double limit = density * 4294967296.0; /* of 32 random bits */
  mg_stream_words(stream, (uint64_t)first, (uint64_t)count, words);
  for (int64_t k = 0; k < count; k++) delta[k] = (double)words[k] < limit ? delta[k] * scale : 0;
}

/* theta_0 and task vectors of a recipe that has another base; returns the theta_0. */
static const float *change_base(const mg_pass_recipe *p, const mg_prepared *prepared, const mg_tensor *tensor,
                                const mg_tile *tile, const mg_tile_scratch *scratch) {
  const size_t n = p->recipe->count;
  if (prepared->base == MG_BASE_RANDOM)
    mg_random_head(tensor, p->recipe->seed, tile->first, tile->count, scratch->base);
  else
    for (int64_t k = 0; k < tile->count; k++) scratch->base[k] = tile->base[k] + tile->stand_in[k];
  for (size_t s = 0; s < n; s++) {
    float *own = scratch->own[s];
    const float *tau = tile->tau[s];
    if (prepared->base == MG_BASE_RANDOM) /* a head's task vector is the head: its theta_0 is 0 */
      for (int64_t k = 0; k < tile->count; k++) own[k] = tau[k] - scratch->base[k];
    else
      for (int64_t k = 0; k < tile->count; k++) own[k] = tau[k] - tile->stand_in[k];
    scratch->tau[s] = own;
  }
  return scratch->base;
}

static void drop_at_random(const mg_pass_recipe *p, const mg_prepared *prepared, const mg_tile *tile,
                           const mg_tile_scratch *scratch) {
  for (size_t s = 0; s < p->recipe->count; s++) {
    float *own = scratch->own[s];
    if (scratch->tau[s] != own) memcpy(own, scratch->tau[s], (size_t)tile->count * sizeof *own);
    mg_keep_random(own, tile->first, tile->count, &prepared->stream[s], prepared->formula->density, prepared->rescale[s],
                   scratch->words);
    scratch->tau[s] = own;
  }
}

static void combine(const mg_merge_kernels *kernels, const mg_formula *f, const mg_merge_rows *rows, double *sum) {
  const bool bounded = f->keep == MG_KEEP_LARGEST || f->keep == MG_KEEP_ABOVE;
  if (f->combine == MG_COMBINE_ELECT)
    kernels->elect(rows, f->elected, sum);
  else if (f->combine == MG_COMBINE_LARGEST)
    kernels->largest(rows, sum);
  else if (f->combine == MG_COMBINE_ACTIVE)
    kernels->average_active(rows, sum);
  else if (bounded)
    kernels->add_up_between(rows, sum);
  else
    kernels->add_up(rows, sum);
}

mg_status mg_merge_tile(const mg_merge_kernels *kernels, const mg_pass_recipe *p, const mg_tensor_table *table,
                        const mg_tile *tile, const mg_tile_scratch *scratch, float *out, bool *finite) {
  const mg_prepared *prepared = &p->tensors[tile->t];
  const mg_formula *f = prepared->formula;
  const float *base = tile->base;
  memcpy(scratch->tau, tile->tau, p->recipe->count * sizeof *scratch->tau);
  if (prepared->base != MG_BASE_FAMILY) base = change_base(p, prepared, &table->tensors[tile->t], tile, scratch);
  if (f->keep == MG_KEEP_RANDOM) drop_at_random(p, prepared, tile, scratch);
  const mg_merge_rows rows = {.sources = p->recipe->count,
                              .count = (long)tile->count,
                              .tau = scratch->tau,
                              .weight = prepared->weight,
                              .threshold = prepared->threshold,
                              .ceiling = prepared->ceiling};
  combine(kernels, f, &rows, scratch->sum);
  *finite = kernels->finish(base, scratch->sum, prepared->base_factor, f->lambda, (long)tile->count, out);
  return MG_OK;
}
