/* One recipe's elements of one tile, from the rows of its sources. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/hash.h"

mg_stream mg_stream_of_tensor(uint64_t seed, const char *id, const char *tensor) {
  return mg_stream_of(seed, mg_hash(id, strlen(id)), mg_hash(tensor, strlen(tensor)));
}

uint32_t mg_last_kept(double density) { return (uint32_t)fmin(ceil(density * 4294967296.0) - 1, 4294967295.0); }

/* ---- room ---- */

int64_t mg_chunk_capacity(const mg_tensor_table *table) {
  int64_t most = 1;
  for (size_t t = 0; t < table->count; t++)
    if (mg_chunk_length(&table->tensors[t]) > most) most = mg_chunk_length(&table->tensors[t]);
  return most;
}

static size_t padded(int64_t capacity) { return ((size_t)capacity + MG_MERGE_SLACK + 15) / 16 * 16; }

uint64_t mg_tile_scratch_bytes(size_t sources, int64_t capacity) {
  const uint64_t row = padded(capacity);
  return MG_MERGE_MANY * MG_PIECE * sizeof(float) +
         row * ((sources + 1) * sizeof(float) + sizeof(double) + sizeof(uint32_t) + sizeof(uint64_t));
}

mg_status mg_tile_scratch_create(size_t sources, int64_t capacity, mg_tile_scratch *s) {
  const size_t row = padded(capacity);
  *s = (mg_tile_scratch){.block = mg_alloc_aligned((sources + 1) * row * sizeof(float)),
                         .own = mg_alloc(sources, sizeof *s->own),
                         .tau = mg_alloc(sources, sizeof *s->tau),
                         .sum = mg_alloc_aligned(row * sizeof(double)),
                         .piece = mg_alloc_aligned(MG_MERGE_MANY * MG_PIECE * sizeof(float)),
                         .words = mg_alloc(row, sizeof *s->words),
                         .order = mg_alloc(row, sizeof *s->order),
                         .small = mg_alloc(sources + 4, (sources + 4) * sizeof *s->small),
                         .weight = mg_alloc(sources, sizeof *s->weight)};
  if (!s->block || !s->own || !s->tau || !s->sum || !s->piece || !s->words || !s->order || !s->small || !s->weight)
    return mg_fail(MG_ERR_NOMEM, "out of memory for merging %zu sources", sources);
  memset(s->block, 0, (sources + 1) * row * sizeof(float)); /* what lies behind a tile is read along */
  for (size_t k = 0; k < sources; k++) s->own[k] = s->block + k * row;
  s->base = s->block + sources * row;
  return MG_OK;
}

void mg_tile_scratch_free(mg_tile_scratch *s) {
  free(s->block), free(s->own), free(s->tau), free(s->sum), free(s->piece), free(s->words), free(s->order), free(s->small),
      free(s->weight);
  *s = (mg_tile_scratch){0};
}

/* ---- up to combining ---- */

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

static void drop_at_random(const mg_pass_recipe *p, const mg_prepared *prepared, const mg_tensor *tensor, const mg_tile *tile,
                           const mg_tile_scratch *scratch) {
  const mg_formula *f = prepared->formula;
  for (size_t s = 0; s < p->recipe->count; s++) {
    float *own = scratch->own[s];
    const float *from = scratch->tau[s];
    if (prepared->drop == MG_DROP_BY_RANK) {
      if (from != own) memcpy(own, from, (size_t)tile->count * sizeof *own);
      mg_keep_by_rank(own, tile->first, tile->count, mg_row_length(tensor), &prepared->stream[s], f, prepared->rescale[s],
                      scratch->words, scratch->order);
    } else {
      p->kernels->keep_random(&prepared->stream[s], (uint64_t)tile->first, (long)tile->count, mg_last_kept(f->drop_density),
                              prepared->rescale[s], from, own);
    }
    scratch->tau[s] = own;
  }
}

mg_combining mg_ready_tile(const mg_pass_recipe *p, const mg_tensor_table *table, const mg_tile *tile,
                           const mg_tile_scratch *scratch) {
  const mg_prepared *prepared = &p->tensors[tile->t];
  const mg_tensor *tensor = &table->tensors[tile->t];
  const size_t n = p->recipe->count;
  const float *base = tile->base;
  memcpy(scratch->tau, tile->tau, n * sizeof *scratch->tau);
  if (prepared->base != MG_BASE_FAMILY) base = change_base(p, prepared, tensor, tile, scratch);
  if (prepared->drop != MG_DROP_NONE) drop_at_random(p, prepared, tensor, tile, scratch);
  return (mg_combining){.pass = p,
                        .recipe = p->recipe,
                        .prepared = prepared,
                        .tensor = tensor,
                        .scratch = scratch,
                        .rows = {.sources = n,
                                 .count = (long)tile->count,
                                 .tau = scratch->tau,
                                 .weight = prepared->weight,
                                 .vote = prepared->vote,
                                 .threshold = prepared->threshold,
                                 .ceiling = prepared->ceiling,
                                 .tie = 1,
                                 .floor = prepared->formula->floor},
                        .first = tile->first,
                        .base = base,
                        .sum = scratch->sum};
}

/* ---- combining ---- */

/* What has no weight is left out, so that nothing of it can get in. */
void mg_combine_sum(mg_combining *c) {
  mg_merge_rows rows = c->rows;
  const float **tau = c->scratch->tau;
  rows.sources = 0;
  rows.weight = c->scratch->weight;
  for (size_t s = 0; s < c->rows.sources; s++) {
    if (c->prepared->weight[s] == 0) continue;
    c->scratch->weight[rows.sources] = c->prepared->weight[s];
    tau[rows.sources++] = tau[s];
  }
  c->pass->kernels->add_up(&rows, c->sum);
}

void mg_combine_between(mg_combining *c) { c->pass->kernels->add_up_between(&c->rows, c->sum); }
void mg_combine_largest(mg_combining *c) { c->pass->kernels->largest(&c->rows, c->sum); }
void mg_combine_active(mg_combining *c) {
  c->rows.alone = c->prepared->table; /* NULL but for RAM+ */
  c->pass->kernels->average_active(&c->rows, c->sum);
}

/* Every row by coefficients of its own; those of rows do not fail. */
void mg_combine_by_row(mg_combining *c) {
  const mg_merge_kernels *kernels = c->pass->kernels;
  const size_t n = c->rows.sources;
  const int64_t row = mg_row_length(c->tensor);
  double *gram = c->scratch->small, *base_dot = gram + n * n;
  const float **tau = c->scratch->tau;
  mg_merge_rows rows = c->rows;
  rows.count = (long)row;
  rows.weight = c->scratch->weight;
  for (int64_t at = 0; at < c->rows.count; at += row) {
    const float *base = c->base + at;
    double *sum = c->sum + at;
    for (size_t i = 0; i < n; i++) {
      for (size_t j = 0; j <= i; j++) gram[i * n + j] = gram[j * n + i] = kernels->dot(tau[i], 0, INFINITY, tau[j], (long)row);
      base_dot[i] = kernels->dot(base, 0, INFINITY, tau[i], (long)row);
    }
    const mg_geometry g = {.n = n,
                           .elements = (double)row,
                           .gram = gram,
                           .base_dot = base_dot,
                           .base_norm2 = kernels->dot(base, 0, INFINITY, base, (long)row)};
    mg_coefficients out = {.tau = c->scratch->weight, .base = 1};
    c->prepared->formula->coefficients(&g, c->recipe, &out);
    kernels->add_up(&rows, sum);
    for (int64_t k = 0; out.base != 1 && k < row; k++) sum[k] += (out.base - 1) * (double)base[k];
    for (size_t s = 0; s < n; s++) tau[s] += row;
  }
}

/* ---- elections ---- */

/* Looked at once, since others may find out in between. */
static void look_at_ties(mg_combining *c) {
  const mg_formula *f = c->prepared->formula;
  for (int k = 0; k < 2; k++)
    c->tie[k] = f->count_signs == NULL ? 1 : atomic_load(f->global_trim ? &c->pass->tie : &c->prepared->tie[k]);
}

double mg_tie_of(const mg_combining *c, int election) { return c->tie[election] < 0 ? -1 : 1; }

void mg_note_undecided(mg_combining *c, int election, bool cancelled) {
  c->undecided = c->undecided || (cancelled && c->tie[election] == 0);
}

void mg_combine_elect(mg_combining *c) {
  c->rows.tie = mg_tie_of(c, 0);
  mg_note_undecided(c, 0, c->pass->kernels->elect(&c->rows, c->prepared->formula->elected, c->sum));
}

void mg_count_elected(mg_combining *c, int64_t totals[2]) {
  c->pass->kernels->votes(&c->rows, c->sum);
  for (long k = 0; k < c->rows.count; k++) totals[0] += (c->sum[k] > 0) - (c->sum[k] < 0);
}

void mg_merge_tile(const mg_pass_recipe *p, const mg_tensor_table *table, const mg_tile *tile, const mg_tile_scratch *scratch,
                   float *out, bool *finite, bool *undecided) {
  const mg_prepared *prepared = &p->tensors[tile->t];
  mg_combining c = mg_ready_tile(p, table, tile, scratch);
  look_at_ties(&c);
  prepared->formula->combine(&c);
  *undecided = c.undecided;
  *finite = p->kernels->finish(c.base, c.sum, prepared->base_factor, prepared->lambda, c.rows.count, out);
}

/* ---- many at once ---- */

bool mg_is_sum_of_rows(const mg_pass_recipe *p, size_t t) {
  const mg_prepared *prepared = &p->tensors[t];
  bool all = prepared->formula->combine == mg_combine_sum && prepared->base == MG_BASE_FAMILY && prepared->drop == MG_DROP_NONE;
  for (size_t s = 0; s < p->recipe->count && all; s++) all = prepared->weight[s] != 0; /* else its row has to be left out */
  return all;
}

/* One piece of a few; scratch->tau is at it. */
static void merge_few(mg_pass_recipe *const *recipes, size_t count, size_t t, const mg_merge_rows *rows, const float *base,
                      int64_t at, const mg_tile_scratch *scratch, bool stream, float *const *out, bool *finite) {
  const mg_merge_kernels *kernels = recipes[0]->kernels;
  mg_merge_sum sums[MG_MERGE_MANY];
  for (size_t m = 0; m < MG_MERGE_MANY; m++) { /* what is not asked for is made and thrown away */
    const mg_prepared *p = &recipes[m < count ? m : 0]->tensors[t];
    sums[m] = (mg_merge_sum){
        .weight = p->weight, .base_factor = p->base_factor, .lambda = p->lambda, .out = scratch->piece + m * MG_PIECE};
  }
  kernels->sums(rows, sums, base + at);
  for (size_t m = 0; m < count; m++)
    if (!kernels->copy_out(out[m] + at, sums[m].out, rows->count, stream)) finite[m] = false;
}

/* Piece by piece, whose rows stay in the first cache until all recipes have had theirs. */
void mg_merge_sums(mg_pass_recipe *const *recipes, size_t count, const mg_tile *tile, const mg_tile_scratch *scratch,
                   bool stream, float *const *out, bool *finite) {
  mg_merge_rows rows = {.sources = recipes[0]->recipe->count, .tau = scratch->tau};
  memcpy(scratch->tau, tile->tau, rows.sources * sizeof *scratch->tau);
  for (size_t m = 0; m < count; m++) finite[m] = true;
  for (int64_t at = 0; at < tile->count; at += MG_PIECE) {
    rows.count = (long)(tile->count - at < MG_PIECE ? tile->count - at : MG_PIECE);
    for (size_t m = 0; m < count; m += MG_MERGE_MANY) {
      const size_t some = count - m < MG_MERGE_MANY ? count - m : MG_MERGE_MANY;
      merge_few(recipes + m, some, tile->t, &rows, tile->base, at, scratch, stream, out + m, finite + m);
    }
    for (size_t s = 0; s < rows.sources; s++) scratch->tau[s] += rows.count;
  }
}
