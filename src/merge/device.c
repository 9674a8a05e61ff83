/*
 * Merges of tensors whose sources a device holds: what is element by element is queued there, a kernel a recipe and tensor, all
 * that their kernels are told going up in one piece. The rest is the host's, whose bits these are too.
 */

#include "device.h"

#include <stdlib.h>
#include <string.h>

/* One tensor of one recipe. */
typedef struct job {
  size_t recipe, tensor;
  bool undecided;        /* what wins where votes cancel was not known when it was queued */
  bool by_rank;          /* its sources' rows are thinned out first, piece by piece of as many at once as there is room for */
  mg_device_merge merge; /* arrays: offsets into what is told, until it is there */
  mg_device_thinning thinning;
} job;

struct mg_device_pass {
  mg_device_store *store;
  mg_queue *queue;
  const mg_pass_terms *terms;
  mg_pass_recipe *recipes;
  const mg_tensor_table *table;
  const mg_range *ranges;
  size_t range_count;
  job *jobs;
  size_t job_count, job_room;
  bool thins;     /* there is room for what is thinned out */
  bool with_head; /* random heads of this seed are there */
  uint64_t seed;
  mg_text told;
};

/* ---- what a device can do ---- */

static bool kind_of(const mg_formula *f, mg_device_merge_kind *kind) {
  static const mg_device_merge_kind elected[] = {
      [MG_ELECTED_MEAN] = MG_DEVICE_MEAN, [MG_ELECTED_SUM] = MG_DEVICE_ELECTED_SUM, [MG_ELECTED_MAX] = MG_DEVICE_ELECTED_MAX};
  *kind = MG_DEVICE_SUM;
  if (f->combine == mg_combine_sum) return true;
  if (f->combine == mg_combine_between) *kind = MG_DEVICE_BETWEEN;
  if (f->combine == mg_combine_largest) *kind = MG_DEVICE_LARGEST;
  if (f->combine == mg_combine_active) *kind = MG_DEVICE_ACTIVE;
  if (f->combine == mg_combine_elect) *kind = elected[f->elected];
  return *kind != MG_DEVICE_SUM;
}

static bool holds(const mg_device_store *s, const mg_recipe *recipe) {
  if (s->base == NULL) return false;
  for (size_t k = 0; k < recipe->count; k++)
    if (s->tau[recipe->source[k]] == NULL) return false;
  return true;
}

/* Can it drop elements of a tensor's rows by their ranks? */
static bool thins(const mg_device_pass *p, const mg_pass_recipe *r, size_t t) {
  return p->thins && mg_device_thin_most(r->recipe->count, mg_row_length(&p->table->tensors[t])) > 0;
}

/* Has it what stands in for theta_0? */
static bool has_base(const mg_device_pass *p, const mg_pass_recipe *r, int base) {
  if (base == MG_BASE_RANDOM) return p->with_head && r->recipe->seed == p->seed;
  return base == MG_BASE_FAMILY || p->store->tau[base] != NULL;
}

/* Ranges [first, last) are all of one tensor. */
static bool can_do(const mg_device_pass *p, const mg_pass_recipe *r, size_t first, size_t last) {
  mg_device_merge_kind kind;
  const mg_prepared *prepared = &r->tensors[p->ranges[first].tensor];
  if (r->failure != NULL || !holds(p->store, r->recipe) || !has_base(p, r, prepared->base)) return false;
  if (!kind_of(prepared->formula, &kind)) return false;
  if (prepared->drop == MG_DROP_BY_RANK && !thins(p, r, p->ranges[first].tensor)) return false;
  for (size_t k = first; k < last; k++) {
    const mg_range *range = &p->ranges[k];
    if (mg_store_range(&p->store->where, range->tensor, range->first, range->count) == NULL) return false;
  }
  return true;
}

/* ---- what its kernels are told ---- */

/* Appends bytes on a boundary; where they are, as a pointer to come. */
static const void *tell(mg_text *told, const void *data, size_t bytes) {
  static const char zeros[16];
  mg_text_append_bytes(told, zeros, (16 - told->size % 16) % 16);
  const size_t at = told->size;
  mg_text_append_bytes(told, data, bytes);
  return (const void *)(uintptr_t)at;
}

typedef struct piece_list {
  const mg_device_piece *at;
  uint32_t count;
} piece_list;

/* Of up to so many elements each. */
static piece_list tell_pieces(mg_device_pass *p, size_t first, size_t last, int64_t most) {
  piece_list list = {.at = tell(&p->told, NULL, 0)};
  for (size_t k = first; k < last; k++) {
    const mg_range *range = &p->ranges[k];
    const mg_range *kept = mg_store_range(&p->store->where, range->tensor, range->first, range->count);
    for (int64_t done = 0; done < range->count; done += most, list.count++) {
      const int64_t left = range->count - done;
      const mg_device_piece piece = {.from = kept->offset + (size_t)(range->first - kept->first + done),
                                     .to = range->offset + (size_t)done,
                                     .element = (uint64_t)(range->first + done),
                                     .count = (uint32_t)(left < most ? left : most)};
      mg_text_append_bytes(&p->told, &piece, sizeof piece);
    }
  }
  return list;
}

/* Of a sum what has no weight is left out, as by the host. */
static bool is_used(const mg_device_merge *m, const mg_prepared *prepared, size_t s) {
  return m->kind != MG_DEVICE_SUM || prepared->weight[s] != 0;
}

static void tell_sources(mg_device_pass *p, const mg_pass_recipe *r, size_t t, mg_device_merge *m) {
  const mg_prepared *prepared = &r->tensors[t];
  const size_t n = r->recipe->count;
  const float *const *tau = (const float *const *)p->store->tau;
  size_t used = 0;
  m->tau = tell(&p->told, NULL, 0);
  for (size_t s = 0; s < n; s++)
    if (is_used(m, prepared, s)) {
      mg_text_append_bytes(&p->told, &tau[r->recipe->source[s]], sizeof *tau);
      used++;
    }
  m->weight = tell(&p->told, NULL, 0);
  for (size_t s = 0; s < n; s++)
    if (is_used(m, prepared, s)) mg_text_append_bytes(&p->told, &prepared->weight[s], sizeof prepared->weight[s]);
  m->sources = (int)used;
}

/* Streams and factors go along with the sources that are used. */
static void tell_random(mg_device_pass *p, const mg_pass_recipe *r, size_t t, mg_device_merge *m) {
  const mg_prepared *prepared = &r->tensors[t];
  const size_t n = r->recipe->count;
  m->stream = tell(&p->told, NULL, 0);
  for (size_t s = 0; s < n; s++)
    if (is_used(m, prepared, s)) mg_text_append_bytes(&p->told, &prepared->stream[s], sizeof prepared->stream[s]);
  m->rescale = tell(&p->told, NULL, 0);
  for (size_t s = 0; s < n; s++)
    if (is_used(m, prepared, s)) mg_text_append_bytes(&p->told, &prepared->rescale[s], sizeof prepared->rescale[s]);
  m->last_kept = mg_last_kept(prepared->formula->drop_density);
}

/* What is thinned out by rank, and that the merge is of what is left. */
static void tell_ranks(mg_device_pass *p, const mg_pass_recipe *r, size_t t, job *j) {
  const mg_prepared *prepared = &r->tensors[t];
  mg_device_thinning *to = &j->thinning;
  tell_random(p, r, t, &j->merge); /* the same for each source, which is not the merge's to do then */
  to->stream = j->merge.stream, to->scale = j->merge.rescale;
  j->merge.stream = NULL, j->merge.rescale = NULL;
  to->sources = j->merge.sources;
  to->tau = j->merge.tau;
  to->other = j->merge.other;
  to->inverse = prepared->formula->rescale == MG_RESCALE_INVERSE;
  to->row = (uint32_t)mg_row_length(&p->table->tensors[t]);
  mg_rank_chances(prepared->formula, to->row, &to->least, &to->rise);
  to->piece = j->merge.piece, to->pieces = j->merge.pieces;
  to->out = tell(&p->told, NULL, 0);
  for (size_t s = 0; s < (size_t)to->sources; s++) {
    float *const at = mg_device_thin_place(p->store, (size_t)to->sources, s);
    mg_text_append_bytes(&p->told, &at, sizeof at);
  }
  j->merge.tau = (const float *const *)to->out;
  j->merge.packed = true;
}

static int tie_of(const mg_pass_recipe *r, size_t t) {
  const mg_formula *f = r->tensors[t].formula;
  if (f->count_signs == NULL) return 1;
  return atomic_load(f->global_trim ? &r->tie : &r->tensors[t].tie[0]);
}

static mg_status add_job(mg_device_pass *p, size_t recipe, size_t t, piece_list pieces) {
  const mg_pass_recipe *r = &p->recipes[recipe];
  const mg_prepared *prepared = &r->tensors[t];
  const size_t n = r->recipe->count;
  if (p->job_count == p->job_room) {
    const size_t room = 2 * p->job_room + 64;
    job *jobs = reallocarray(p->jobs, room, sizeof *jobs);
    if (jobs == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    p->jobs = jobs, p->job_room = room;
  }
  job *j = &p->jobs[p->job_count++];
  *j = (job){.recipe = recipe, .tensor = t, .undecided = tie_of(r, t) == 0};
  mg_device_merge *m = &j->merge;
  kind_of(prepared->formula, &m->kind);
  m->other = mg_device_relative(p->store, prepared->base);
  m->base_factor = prepared->base_factor, m->lambda = prepared->lambda;
  m->floor = prepared->formula->floor, m->tie = tie_of(r, t) < 0 ? -1 : 1;
  m->piece = pieces.at, m->pieces = pieces.count;
  tell_sources(p, r, t, m);
  m->vote = tell(&p->told, prepared->vote, n * sizeof *prepared->vote);
  m->threshold = tell(&p->told, prepared->threshold, n * sizeof *prepared->threshold);
  m->ceiling = tell(&p->told, prepared->ceiling, n * sizeof *prepared->ceiling);
  if (m->kind == MG_DEVICE_ACTIVE && prepared->table != NULL)
    m->alone = tell(&p->told, prepared->table, n * sizeof *prepared->table);
  if (prepared->drop == MG_DROP_EVENLY) tell_random(p, r, t, m);
  j->by_rank = prepared->drop == MG_DROP_BY_RANK && m->sources > 0;
  if (j->by_rank) tell_ranks(p, r, t, j);
  return p->told.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

/* ---- running ---- */

static mg_status list_jobs(mg_device_pass *p, bool *taken) {
  mg_status status = MG_OK;
  for (size_t first = 0, last; first < p->range_count; first = last) {
    const size_t t = p->ranges[first].tensor;
    const int64_t row = mg_row_length(&p->table->tensors[t]);
    piece_list pieces = {0}, rows = {0}; /* any, and those of whole rows */
    for (last = first + 1; last < p->range_count && p->ranges[last].tensor == t;) last++;
    for (size_t r = 0; r < p->terms->count; r++) {
      if (!can_do(p, &p->recipes[r], first, last)) continue;
      const bool by_rank = p->recipes[r].tensors[t].drop == MG_DROP_BY_RANK;
      if (by_rank && rows.count == 0) rows = tell_pieces(p, first, last, MG_PIECE_ELEMENTS / row * row);
      if (!by_rank && pieces.count == 0) pieces = tell_pieces(p, first, last, MG_PIECE_ELEMENTS);
      MG_TRY(add_job(p, r, t, by_rank ? rows : pieces), done);
      for (size_t k = first; k < last; k++) {
        taken[r * p->range_count + k] = true;
        p->store->merged += (uint64_t)p->ranges[k].count;
      }
    }
  }
done:
  return status;
}

/* Room for what is told, and behind it the verdicts. */
static mg_status make_room(const mg_device_pass *p, size_t verdict_bytes) {
  mg_status status = MG_OK;
  mg_device_store *s = p->store;
  const mg_device_ops *ops = s->device->ops;
  const size_t bytes = p->told.size + verdict_bytes + 64;
  if (bytes > s->told_room) {
    ops->give(s->device, s->told);
    s->told = NULL, s->told_room = 0;
    MG_TRY(ops->take(s->device, bytes, "what merges are told", (void **)&s->told), done);
    s->told_room = bytes;
  }
  if (p->job_count > s->verdict_room) {
    ops->unpin(s->device, s->verdicts);
    s->verdicts = NULL, s->verdict_room = 0;
    MG_TRY(ops->pin(s->device, verdict_bytes, (void **)&s->verdicts), done);
    s->verdict_room = p->job_count;
  }
done:
  return status;
}

/* Offsets become addresses. */
static void *place(const mg_device_store *s, const void *offset) { return s->told + (uintptr_t)offset; }

static void place_thinning(const mg_device_store *s, mg_device_thinning *n) {
  n->tau = place(s, n->tau), n->stream = place(s, n->stream), n->scale = place(s, n->scale);
  n->piece = place(s, n->piece), n->out = place(s, n->out);
}

static void place_job(const mg_device_pass *p, job *j, mg_device_verdict *verdict) {
  const mg_device_store *s = p->store;
  mg_device_merge *m = &j->merge;
  m->tau = place(s, m->tau), m->weight = place(s, m->weight), m->vote = place(s, m->vote);
  m->threshold = place(s, m->threshold), m->ceiling = place(s, m->ceiling), m->piece = place(s, m->piece);
  if (m->alone != NULL) m->alone = place(s, m->alone);
  if (m->stream != NULL) m->stream = place(s, m->stream), m->rescale = place(s, m->rescale);
  if (j->by_rank) place_thinning(s, &j->thinning);
  m->base = s->base, m->out = p->terms->device.out[j->recipe], m->verdict = verdict;
}

/* By rank some pieces at a time, whose room the next ones take: a queue does one thing after the other. */
static mg_status queue_job(const mg_device_pass *p, const job *j) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = p->store->device->ops;
  if (!j->by_rank) return ops->merge(p->queue, &j->merge);
  const uint32_t all = j->merge.pieces, most = mg_device_thin_most((size_t)j->thinning.sources, j->thinning.row);
  for (uint32_t at = 0; at < all; at += most) {
    mg_device_thinning thinning = j->thinning;
    mg_device_merge merge = j->merge;
    thinning.piece += at, merge.piece += at;
    thinning.pieces = merge.pieces = all - at < most ? all - at : most;
    MG_TRY(ops->thin(p->queue, &thinning), done);
    MG_TRY(ops->merge(p->queue, &merge), done);
  }
done:
  return status;
}

static mg_status queue_jobs(mg_device_pass *p) {
  mg_status status = MG_OK;
  mg_device_store *s = p->store;
  const mg_device_ops *ops = s->device->ops;
  const size_t at = (p->told.size + 15) / 16 * 16, verdict_bytes = p->job_count * sizeof(mg_device_verdict);
  if (p->job_count == 0) return MG_OK;
  MG_TRY(ops->finish(p->queue), done); /* what is there may be in use yet */
  MG_TRY(make_room(p, verdict_bytes), done);
  mg_device_verdict *verdicts = (mg_device_verdict *)(void *)(s->told + at);
  for (size_t k = 0; k < p->job_count; k++) s->verdicts[k] = (mg_device_verdict){.bad = UINT64_MAX};
  MG_TRY(ops->upload_any(p->queue, s->told, p->told.data, p->told.size), done);
  MG_TRY(ops->upload(p->queue, verdicts, s->verdicts, verdict_bytes), done);
  for (size_t k = 0; k < p->job_count; k++) {
    place_job(p, &p->jobs[k], &verdicts[k]);
    MG_TRY(queue_job(p, &p->jobs[k]), done);
  }
  MG_TRY(ops->download(p->queue, s->verdicts, verdicts, verdict_bytes), done);
done:
  return status;
}

/* What merges go by that is not there from the beginning. */
static mg_status make_ready(mg_device_pass *p) {
  mg_status status = MG_OK;
  bool head = false;
  for (size_t r = 0; r < p->terms->count; r++) {
    const mg_recipe *recipe = p->recipes[r].recipe;
    if (p->recipes[r].body.drop == MG_DROP_BY_RANK && !p->thins) MG_TRY(mg_device_thin_begin(p->store, &p->thins), done);
    if (recipe->head != MG_HEAD_RANDOM || head) continue;
    MG_TRY(mg_device_head_begin(p->store, p->queue, p->table, recipe->seed, &p->with_head), done);
    p->seed = recipe->seed; /* of others the host merges the heads */
    head = true;
  }
done:
  return status;
}

mg_status mg_device_pass_begin(const mg_pass_terms *terms, mg_pass_recipe *recipes, const mg_range *ranges, size_t range_count,
                               bool *taken, mg_device_pass **out) {
  mg_status status = MG_OK;
  mg_device_pass *p = mg_alloc_zero(1, sizeof *p);
  *out = p;
  if (p == NULL) return MG_ERR_NOMEM;
  *p = (mg_device_pass){.store = terms->device.store,
                        .queue = terms->device.queue,
                        .terms = terms,
                        .recipes = recipes,
                        .table = mg_rows_table(terms->deltas->rows),
                        .ranges = ranges,
                        .range_count = range_count};
  MG_TRY(make_ready(p), done);
  MG_TRY(list_jobs(p, taken), done);
  MG_TRY(queue_jobs(p), done);
done:
  return status;
}

/* Where votes cancelled, what wins then is found out, and the tensor merged again. */
static mg_status merge_again(mg_device_pass *p, job *j, mg_device_verdict *verdict) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = p->store->device->ops;
  mg_pass_recipe *r = &p->recipes[j->recipe];
  if (tie_of(r, j->tensor) == 0) MG_TRY(mg_find_ties(p->terms, r, j->tensor), done); /* under a global trim once */
  j->merge.tie = tie_of(r, j->tensor) < 0 ? -1 : 1;
  MG_TRY(queue_job(p, j), done);
  MG_TRY(ops->download(p->queue, verdict, j->merge.verdict, sizeof *verdict), done);
  MG_TRY(ops->finish(p->queue), done);
done:
  return status;
}

mg_status mg_device_pass_end(mg_device_pass *p, mg_device_fail_fn fail, void *context) {
  mg_status status = MG_OK;
  if (p->job_count == 0) return MG_OK;
  MG_TRY(p->store->device->ops->finish(p->queue), done);
  for (size_t k = 0; k < p->job_count; k++) {
    job *j = &p->jobs[k];
    mg_device_verdict *verdict = &p->store->verdicts[k];
    if (verdict->cancelled != 0 && j->undecided) MG_TRY(merge_again(p, j, verdict), done);
    if (verdict->bad != UINT64_MAX) fail(context, j->recipe, j->tensor, (int64_t)verdict->bad);
  }
done:
  return status;
}

void mg_device_pass_free(mg_device_pass **pass) {
  mg_device_pass *p = *pass;
  if (p == NULL) return;
  free(p->jobs);
  mg_text_free(&p->told);
  free(p);
  *pass = NULL;
}
