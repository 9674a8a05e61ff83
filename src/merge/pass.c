/*
 * Many recipes in one pass: a tile of all their sources is fetched once (or pointed to, where it is in memory), and while it is
 * in the cache every recipe takes its part.
 */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

_Static_assert((int)MG_STORE_SLACK >= (int)MG_MERGE_SLACK, "kernels read past the end of a store's blocks");

/* What a thread works in. */
typedef struct pass_worker {
  struct mg_pass *pass;
  mg_delta_reader reader;
  float **rows, *base, *block; /* [sources] of the tile, and theta_0; one allocation */
  float **fetched;             /* [sources] rows to read into */
  const float **at;            /* [sources] where each source's tile is */
  const float **tau;           /* [sources of a recipe] */
  int *wanted;                 /* [sources] those to read */
  bool *taken, *finite;        /* [recipes] of the chunk at hand */
  mg_pass_recipe **together;   /* [recipes] that are merged at once */
  float **out;                 /* [recipes] where they go */
  mg_tile_scratch scratch;
} pass_worker;

typedef struct chunk {
  const mg_range *range;
  int64_t first, count;
} chunk;

struct mg_pass {
  mg_pass_terms terms;
  const mg_tensor_table *table;
  mg_pass_recipe *recipes;   /* [terms.count] */
  int *sources;              /* [source_count] of all recipes, rising */
  size_t source_count, most; /* most sources of one recipe */
  int64_t capacity;          /* elements of the largest chunk */
  pass_worker *workers;      /* [terms.threads] */
  /* of a run */
  bool stream; /* more is written than caches hold */
  const mg_range *ranges;
  size_t range_count;
  bool *on_device; /* [recipes, ranges]; NULL: nothing is */
  chunk *chunks;
  size_t chunk_count;
  atomic_size_t next;
  float *const *out;
  mg_status (*poll)(void *context);
  void *context;
  pthread_mutex_t mutex, ties_mutex;
  mg_status status;
  char message[1024];
};

uint64_t mg_pass_bytes(const mg_tensor_table *table, size_t sources, int threads) {
  const int64_t capacity = mg_chunk_capacity(table);
  const uint64_t rows = (sources + 1) * (uint64_t)(capacity + MG_MERGE_SLACK) * sizeof(float);
  const uint64_t thread = rows + mg_tile_scratch_bytes(sources, capacity) + (sources + 4) * MG_TILE * sizeof(float);
  uint64_t tables = 0; /* of rows or columns, where a method keeps them */
  for (size_t t = 0; t < table->count; t++) {
    const int64_t row = mg_row_length(&table->tensors[t]);
    tables += (uint64_t)(table->tensors[t].numel / row + 3 * row) * sizeof(double);
  }
  /* one more reads whole tensors */
  return (uint64_t)(threads + 1) * thread + tables + table->count * (sources * 48 + sizeof(mg_prepared));
}

/* ---- creating ---- */

/* What is written may still be in a cache when it is read again, up to here. */
static const double CACHED_BYTES = 64 << 20;

static bool add_source(int *sources, size_t *count, int source) {
  for (size_t k = 0; k < *count; k++)
    if (sources[k] == source) return false;
  sources[(*count)++] = source;
  return true;
}

static int rising(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static size_t slot_of(const mg_pass *p, int source) {
  size_t k = 0;
  while (p->sources[k] != source) k++;
  return k;
}

static mg_status list_sources(mg_pass *p) {
  size_t all = 0;
  for (size_t r = 0; r < p->terms.count; r++) all += p->terms.recipes[r].count + 1;
  p->sources = mg_alloc(all, sizeof *p->sources);
  if (p->sources == NULL) return MG_ERR_NOMEM;
  for (size_t r = 0; r < p->terms.count; r++) {
    const mg_recipe *recipe = &p->terms.recipes[r];
    for (size_t k = 0; k < recipe->count; k++) add_source(p->sources, &p->source_count, recipe->source[k]);
    if (recipe->base >= 0) add_source(p->sources, &p->source_count, recipe->base);
    if (recipe->count > p->most) p->most = recipe->count;
  }
  qsort(p->sources, p->source_count, sizeof *p->sources, rising);
  return MG_OK;
}

/* The first recipe that has the same sources as recipe r. */
static size_t find_set(const mg_pass *p, size_t r) {
  const mg_recipe *own = &p->terms.recipes[r];
  for (size_t k = 0; k < r; k++) {
    const mg_recipe *other = &p->terms.recipes[k];
    if (other->count == own->count && memcmp(other->source, own->source, own->count * sizeof *own->source) == 0) return k;
  }
  return r;
}

static mg_status take_recipe(const mg_pass *p, const mg_recipe *recipe, mg_pass_recipe *to) {
  mg_status status = MG_OK;
  MG_TRY(mg_pass_recipe_open(recipe, p->table, to), done);
  to->slot = mg_alloc(recipe->count, sizeof *to->slot);
  if (to->slot == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < recipe->count; k++) to->slot[k] = slot_of(p, recipe->source[k]);
  if (recipe->base >= 0) to->base_slot = slot_of(p, recipe->base);
done:
  return status;
}

static mg_status make_worker(mg_pass *p, pass_worker *w) {
  mg_status status = MG_OK;
  const size_t n = p->source_count, tile = ((size_t)p->capacity + MG_MERGE_SLACK + 15) / 16 * 16;
  w->pass = p;
  w->rows = mg_alloc(n, sizeof *w->rows), w->fetched = mg_alloc(n, sizeof *w->fetched);
  w->at = mg_alloc(n, sizeof *w->at), w->tau = mg_alloc(p->most, sizeof *w->tau);
  w->wanted = mg_alloc(n, sizeof *w->wanted), w->taken = mg_alloc(p->terms.count, sizeof *w->taken);
  w->finite = mg_alloc(p->terms.count, sizeof *w->finite), w->out = mg_alloc(p->terms.count, sizeof *w->out);
  w->together = mg_alloc(p->terms.count, sizeof *w->together);
  w->block = mg_alloc_aligned((n + 1) * tile * sizeof(float));
  if (!w->rows || !w->fetched || !w->at || !w->tau || !w->wanted || !w->taken || !w->finite || !w->out || !w->together ||
      !w->block)
    return mg_fail(MG_ERR_NOMEM, "out of memory for merging %zu sources", n);
  memset(w->block, 0, (n + 1) * tile * sizeof(float)); /* what lies behind a tile is read along */
  for (size_t k = 0; k < n; k++) w->rows[k] = w->block + k * tile;
  w->base = w->block + n * tile;
  MG_TRY(mg_tile_scratch_create(p->most, p->capacity, &w->scratch), done);
  MG_TRY(mg_delta_reader_create(p->terms.deltas, n, &w->reader), done);
done:
  return status;
}

static void free_worker(pass_worker *w) {
  mg_delta_reader_free(&w->reader);
  mg_tile_scratch_free(&w->scratch);
  free(w->rows), free(w->fetched), free(w->at), free(w->tau), free(w->wanted), free(w->taken), free(w->block);
  free(w->finite), free(w->out), free(w->together);
}

mg_status mg_pass_create(const mg_pass_terms *terms, mg_pass **out) {
  mg_status status = MG_OK;
  mg_pass *p = mg_alloc_zero(1, sizeof *p);
  if (p == NULL) return MG_ERR_NOMEM;
  p->terms = *terms;
  p->table = mg_rows_table(terms->deltas->rows);
  p->capacity = mg_chunk_capacity(p->table);
  pthread_mutex_init(&p->mutex, NULL);
  pthread_mutex_init(&p->ties_mutex, NULL);
  MG_TRY(list_sources(p), failed);
  p->recipes = mg_alloc_zero(terms->count, sizeof *p->recipes);
  p->workers = mg_alloc_zero((size_t)terms->threads, sizeof *p->workers);
  if (p->recipes == NULL || p->workers == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  for (size_t r = 0; r < terms->count; r++) {
    MG_TRY(take_recipe(p, &terms->recipes[r], &p->recipes[r]), failed);
    p->recipes[r].set = find_set(p, r);
  }
  for (int k = 0; k < terms->threads; k++) MG_TRY(make_worker(p, &p->workers[k]), failed);
  *out = p;
  return MG_OK;
failed:
  mg_pass_destroy(&p);
  return status;
}

void mg_pass_destroy(mg_pass **pass) {
  mg_pass *p = *pass;
  if (p == NULL) return;
  for (size_t r = 0; p->recipes != NULL && r < p->terms.count; r++) mg_pass_recipe_close(&p->recipes[r], p->table);
  for (int k = 0; p->workers != NULL && k < p->terms.threads; k++) free_worker(&p->workers[k]);
  pthread_mutex_destroy(&p->mutex);
  pthread_mutex_destroy(&p->ties_mutex);
  free(p->recipes), free(p->workers), free(p->sources), free(p->chunks), free(p->on_device), free(p);
  *pass = NULL;
}

const char *mg_pass_failure(const mg_pass *pass, size_t k) { return pass->recipes[k].failure; }

/* ---- running ---- */

/* What a recipe says is of the first chunk that failed, so that it hangs on no thread. */
static void fail_recipe(mg_pass *p, mg_pass_recipe *r, size_t at, const char *message) {
  pthread_mutex_lock(&p->mutex);
  if (r->failure == NULL || at < r->failed_at) {
    free(r->failure);
    r->failure = mg_strdup(message);
    r->failed_at = at;
  }
  pthread_mutex_unlock(&p->mutex);
}

/* Has it before this chunk, which then need not be merged? */
static bool has_failed(mg_pass *p, const mg_pass_recipe *r, size_t at) {
  pthread_mutex_lock(&p->mutex);
  const bool failed = r->failure != NULL && r->failed_at <= at;
  pthread_mutex_unlock(&p->mutex);
  return failed;
}

const mg_range *mg_store_range(const mg_store *store, size_t t, int64_t first, int64_t count) {
  size_t low = 0, high = store->range_count; /* the last range that does not begin behind `first` */
  while (low < high) {
    const size_t middle = (low + high) / 2;
    const mg_range *r = &store->ranges[middle];
    if (r->tensor < t || (r->tensor == t && r->first <= first))
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return NULL;
  const mg_range *r = &store->ranges[low - 1];
  return r->tensor == t && first >= r->first && first + count <= r->first + r->count ? r : NULL;
}

/* Does a device merge this recipe's part of a chunk? */
static bool is_elsewhere(const mg_pass *p, const chunk *c, size_t recipe) {
  return p->on_device != NULL && p->on_device[recipe * p->range_count + (size_t)(c->range - p->ranges)];
}

static bool is_all_elsewhere(const mg_pass *p, const chunk *c) {
  for (size_t k = 0; k < p->terms.count; k++)
    if (!is_elsewhere(p, c, k)) return false;
  return true;
}

/* Points to the rows of a chunk, and reads what is not in memory. */
static mg_status fetch(pass_worker *w, const chunk *c, const float **base) {
  const mg_pass *p = w->pass;
  const mg_store *store = p->terms.store;
  const mg_range *kept = store != NULL ? mg_store_range(store, c->range->tensor, c->first, c->count) : NULL;
  const size_t offset = kept != NULL ? kept->offset + (size_t)(c->first - kept->first) : 0;
  size_t wanted = 0;
  for (size_t k = 0; k < p->source_count; k++) {
    const float *tau = kept != NULL ? store->tau[p->sources[k]] : NULL;
    w->at[k] = tau != NULL ? tau + offset : w->rows[k];
    if (tau != NULL) continue;
    w->fetched[wanted] = w->rows[k];
    w->wanted[wanted++] = p->sources[k];
  }
  *base = kept != NULL ? store->base + offset : w->base;
  if (wanted == 0 && kept != NULL) return MG_OK;
  return mg_delta_read(&w->reader, w->wanted, wanted, c->range->tensor, c->first, c->count, w->fetched,
                       kept != NULL ? NULL : w->base);
}

static void say_element(mg_pass *p, mg_pass_recipe *r, const chunk *c, int64_t element) {
  char message[512];
  snprintf(message, sizeof message, "the merge's element %lld of tensor %s is not finite", (long long)element,
           p->table->tensors[c->range->tensor].name);
  fail_recipe(p, r, (size_t)(c - p->chunks), message);
}

static void say_nonfinite(mg_pass *p, mg_pass_recipe *r, const chunk *c, const float *out) {
  int64_t k = 0;
  while (k < c->count - 1 && isfinite(out[k])) k++;
  say_element(p, r, c, c->first + k);
}

/* What a device has found, in the host's words: of the chunk that it would have been in. */
static void say_found(void *context, size_t recipe, size_t tensor, int64_t element) {
  mg_pass *p = context;
  for (size_t k = 0; k < p->chunk_count; k++) {
    const chunk *c = &p->chunks[k];
    if (c->range->tensor != tensor || element < c->first || element >= c->first + c->count) continue;
    say_element(p, &p->recipes[recipe], c, element);
    return;
  }
}

/* Merges a tile; where votes cancelled, what wins then is found out first. */
static mg_status merge_tile(pass_worker *w, mg_pass_recipe *r, const mg_tile *tile, float *out, bool *finite) {
  mg_status status = MG_OK;
  mg_pass *p = w->pass;
  bool undecided;
  mg_merge_tile(r, p->table, tile, &w->scratch, out, finite, &undecided);
  if (!undecided) return MG_OK;
  pthread_mutex_lock(&p->ties_mutex);
  status = mg_find_ties(&p->terms, r, tile->t);
  pthread_mutex_unlock(&p->ties_mutex);
  if (status == MG_OK) mg_merge_tile(r, p->table, tile, &w->scratch, out, finite, &undecided);
  return status;
}

static float *place_of(const mg_pass *p, const chunk *c, size_t recipe) {
  return p->out[recipe] + c->range->offset + (c->first - c->range->first);
}

/* To recipe k, those behind it that are sums of the same rows too: a row is then loaded once for several. Their number. Recipe
   k stays one of them even if another thread has just found that it fails. */
static size_t gather_sums(pass_worker *w, const chunk *c, size_t k) {
  mg_pass *p = w->pass;
  size_t count = 1;
  for (size_t m = k + 1; m < p->terms.count; m++) {
    mg_pass_recipe *r = &p->recipes[m];
    if (r->set != p->recipes[k].set || w->taken[m] || is_elsewhere(p, c, m) || has_failed(p, r, (size_t)(c - p->chunks)) ||
        !mg_is_sum_of_rows(r, c->range->tensor))
      continue;
    w->taken[m] = true;
    w->together[count] = r;
    w->out[count++] = place_of(p, c, m);
  }
  return count;
}

static mg_status merge_chunk(pass_worker *w, const chunk *c) {
  mg_status status = MG_OK;
  mg_pass *p = w->pass;
  mg_tile tile = {.t = c->range->tensor, .first = c->first, .count = c->count, .tau = w->tau};
  if (is_all_elsewhere(p, c)) return MG_OK;
  memset(w->taken, 0, p->terms.count * sizeof *w->taken);
  MG_TRY(fetch(w, c, &tile.base), done);
  for (size_t k = 0; k < p->terms.count; k++) {
    mg_pass_recipe *r = &p->recipes[k];
    size_t count = 1;
    if (w->taken[k] || is_elsewhere(p, c, k) || has_failed(p, r, (size_t)(c - p->chunks))) continue;
    for (size_t s = 0; s < r->recipe->count; s++) w->tau[s] = w->at[r->slot[s]];
    tile.stand_in = r->recipe->base >= 0 ? w->at[r->base_slot] : NULL;
    w->together[0] = r;
    w->out[0] = place_of(p, c, k);
    if (mg_is_sum_of_rows(r, tile.t)) count = gather_sums(w, c, k);
    if (count > 1)
      mg_merge_sums(w->together, count, &tile, &w->scratch, p->stream, w->out, w->finite);
    else
      MG_TRY(merge_tile(w, r, &tile, w->out[0], &w->finite[0]), done);
    for (size_t m = 0; m < count; m++)
      if (!w->finite[m]) say_nonfinite(p, w->together[m], c, w->out[m]);
  }
done:
  return status;
}

static void *work(void *context) {
  pass_worker *w = context;
  mg_pass *p = w->pass;
  mg_status status = MG_OK;
  for (size_t k; status == MG_OK && (k = atomic_fetch_add(&p->next, 1)) < p->chunk_count;) {
    if (w == p->workers && p->poll != NULL) status = p->poll(p->context);
    if (status == MG_OK) status = merge_chunk(w, &p->chunks[k]);
  }
  if (status == MG_OK) return NULL;
  atomic_store(&p->next, p->chunk_count); /* the others end too */
  pthread_mutex_lock(&p->mutex);
  if (p->status == MG_OK) {
    p->status = status;
    snprintf(p->message, sizeof p->message, "%s", mg_error_message());
  }
  pthread_mutex_unlock(&p->mutex);
  return NULL;
}

static mg_status cut(mg_pass *p, const mg_range *ranges, size_t range_count) {
  size_t count = 0;
  for (size_t k = 0; k < range_count; k++) {
    const int64_t size = mg_chunk_length(&p->table->tensors[ranges[k].tensor]);
    count += (size_t)((ranges[k].count + size - 1) / size);
  }
  free(p->chunks);
  p->chunks = mg_alloc(count, sizeof *p->chunks);
  p->chunk_count = 0;
  if (p->chunks == NULL) return MG_ERR_NOMEM;
  int64_t elements = 0;
  for (size_t k = 0; k < range_count; k++) elements += ranges[k].count;
  p->stream = (double)elements * (double)p->terms.count * sizeof(float) > CACHED_BYTES;
  for (size_t k = 0; k < range_count; k++) {
    const mg_range *r = &ranges[k];
    const int64_t size = mg_chunk_length(&p->table->tensors[r->tensor]);
    for (int64_t done = 0; done < r->count; done += size)
      p->chunks[p->chunk_count++] =
          (chunk){.range = r, .first = r->first + done, .count = r->count - done < size ? r->count - done : size};
  }
  return MG_OK;
}

/* What recipes have to know of the tensors; a recipe that can't be prepared has failed. */
static mg_status prepare(mg_pass *p, const mg_range *ranges, size_t range_count) {
  for (size_t k = 0; k < range_count; k++) {
    if (k > 0 && ranges[k].tensor == ranges[k - 1].tensor) continue;
    for (size_t r = 0; r < p->terms.count; r++) {
      if (p->recipes[r].failure != NULL) continue;
      const mg_status status = mg_prepare(&p->terms, &p->recipes[r], ranges[k].tensor);
      if (status == MG_ERR_INPUT) fail_recipe(p, &p->recipes[r], 0, mg_error_message());
      if (status != MG_OK && status != MG_ERR_INPUT) return status;
    }
    if (p->poll != NULL) {
      const mg_status status = p->poll(p->context);
      if (status != MG_OK) return status;
    }
  }
  return MG_OK;
}

static mg_status run_threads(mg_pass *p) {
  int started = 1;
  atomic_store(&p->next, 0);
  pthread_t *threads = mg_alloc((size_t)p->terms.threads, sizeof *threads);
  if (threads == NULL) return MG_ERR_NOMEM;
  while (started < p->terms.threads && (size_t)started < p->chunk_count &&
         pthread_create(&threads[started], NULL, work, &p->workers[started]) == 0)
    started++; /* fewer threads than asked for compute the same, later */
  work(&p->workers[0]);
  for (int k = 1; k < started; k++) pthread_join(threads[k], NULL);
  free(threads);
  return p->status == MG_OK ? MG_OK : mg_fail(p->status, "%s", p->message);
}

/* What the host has merged goes where the device's merges are. */
static mg_status send_rest(const mg_pass *p) {
  mg_status status = MG_OK;
  const mg_merge_device *d = &p->terms.device;
  for (size_t r = 0; r < p->terms.count; r++)
    for (size_t k = 0; k < p->range_count && p->recipes[r].failure == NULL; k++) {
      const mg_range *range = &p->ranges[k];
      if (p->on_device[r * p->range_count + k]) continue;
      MG_TRY(d->device->ops->upload_any(d->queue, d->out[r] + range->offset, p->out[r] + range->offset,
                                        (size_t)range->count * sizeof(float)),
             done);
    }
done:
  return status;
}

/* While the device does its part, the host does the rest. */
static mg_status run_with_device(mg_pass *p) {
  mg_status status = MG_OK;
  mg_device_pass *there = NULL;
  free(p->on_device);
  p->on_device = mg_alloc_zero(p->terms.count * p->range_count + 1, sizeof *p->on_device);
  if (p->on_device == NULL) return MG_ERR_NOMEM;
  if (p->terms.device.store != NULL)
    MG_TRY(mg_device_pass_begin(&p->terms, p->recipes, p->ranges, p->range_count, p->on_device, &there), cleanup);
  MG_TRY(run_threads(p), cleanup);
  MG_TRY(send_rest(p), cleanup);
  if (there != NULL) MG_TRY(mg_device_pass_end(there, say_found, p), cleanup);
cleanup:
  mg_device_pass_free(&there);
  return status;
}

mg_status mg_pass_run(mg_pass *p, const mg_range *ranges, size_t range_count, float *const *out,
                      mg_status (*poll)(void *context), void *context) {
  mg_status status = MG_OK;
  p->ranges = ranges;
  p->range_count = range_count;
  p->out = out;
  p->poll = poll;
  p->context = context;
  p->status = MG_OK;
  for (size_t r = 0; r < p->terms.count; r++) p->recipes[r].failed_at = 0; /* what failed in an earlier run stays so */
  MG_TRY(prepare(p, ranges, range_count), done);
  MG_TRY(cut(p, ranges, range_count), done);
  status = p->terms.device.device != NULL ? run_with_device(p) : run_threads(p);
done:
  return status;
}
