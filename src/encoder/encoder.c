/* An encoder's memory and weights, and the threads that compute its batches. */

#include <cblas.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "mergegrid/text.h"

const char *const mg_embedding_weights[MG_EMBEDDING_WEIGHTS] = {
    "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight",
    "embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"};

const char *const mg_layer_weights[MG_LAYER_WEIGHTS] = {"attention.self.query.weight",
                                                        "attention.self.query.bias",
                                                        "attention.self.key.weight",
                                                        "attention.self.key.bias",
                                                        "attention.self.value.weight",
                                                        "attention.self.value.bias",
                                                        "attention.output.dense.weight",
                                                        "attention.output.dense.bias",
                                                        "attention.output.LayerNorm.weight",
                                                        "attention.output.LayerNorm.bias",
                                                        "intermediate.dense.weight",
                                                        "intermediate.dense.bias",
                                                        "output.dense.weight",
                                                        "output.dense.bias",
                                                        "output.LayerNorm.weight",
                                                        "output.LayerNorm.bias"};

mg_weight_size mg_layer_weight_size(const mg_encoder_shape *shape, size_t weight) {
  const int64_t h = shape->hidden, i = shape->intermediate;
  const mg_weight_size matrix = {h, h}, vector = {h, 0};
  if (weight == 10) return (mg_weight_size){i, h};
  if (weight == 11) return (mg_weight_size){i, 0};
  if (weight == 12) return (mg_weight_size){h, i};
  return weight % 2 == 1 || weight == 8 || weight == 14 ? vector : matrix;
}

int mg_batch_capacity(const mg_encoder_shape *shape, int tokens) {
  const int longest = mg_encoder_position_limit(shape);
  return longest > tokens ? longest : tokens;
}

/* Hands out pieces of one block, each on a 64-byte boundary; with a NULL block it only counts. */
typedef struct arena {
  float *block;
  size_t used;
} arena;

static float *take(arena *a, size_t count) {
  float *piece = a->block != NULL ? a->block + a->used : NULL;
  a->used += (count + 15) / 16 * 16;
  return piece;
}

static void place_weights(const mg_encoder_shape *s, size_t tokens, arena *a, mg_encoder *e) {
  const size_t h = (size_t)s->hidden, i = (size_t)s->intermediate, c = (size_t)s->classes;
  mg_encoder ignored = {0};
  mg_encoder *to = e != NULL ? e : &ignored;
  to->words = take(a, tokens * h), to->positions = take(a, (size_t)s->positions * h), to->types = take(a, h);
  to->norm = take(a, h), to->norm_bias = take(a, h);
  for (int l = 0; l < s->layers; l++) {
    mg_layer layer;
    layer.qkv = take(a, 3 * h * h), layer.qkv_bias = take(a, 3 * h);
    layer.out = take(a, h * h), layer.out_bias = take(a, h), layer.norm1 = take(a, h), layer.norm1_bias = take(a, h);
    layer.up = take(a, i * h), layer.up_bias = take(a, i);
    layer.down = take(a, h * i), layer.down_bias = take(a, h), layer.norm2 = take(a, h), layer.norm2_bias = take(a, h);
    if (e != NULL) e->layers[l] = layer;
  }
  to->dense = take(a, c > 0 ? h * h : 0), to->dense_bias = take(a, c > 0 ? h : 0);
  to->classes = take(a, c * h), to->classes_bias = take(a, c);
}

static void place_scratch(const mg_encoder_shape *s, arena *a, mg_scratch *scratch) {
  const size_t t = (size_t)mg_batch_capacity(s, MG_BATCH_TOKENS), h = (size_t)s->hidden, i = (size_t)s->intermediate;
  const size_t longest = (size_t)mg_encoder_position_limit(s), padded = (longest + 15) / 16 * 16;
  mg_scratch ignored = {0};
  mg_scratch *to = scratch != NULL ? scratch : &ignored;
  to->x = take(a, t * h + MG_ROW_SLACK), to->y = take(a, t * h + MG_ROW_SLACK);
  to->qkv = take(a, t * 3 * h + MG_ROW_SLACK), to->mixed = take(a, t * h + MG_ROW_SLACK);
  to->wide = take(a, t * i + MG_ROW_SLACK), to->scores = take(a, (longest > 16 ? longest : 16) * padded);
  to->packed = take(a, ((size_t)(s->hidden / s->heads) + 15) / 16 * 16 * 16);
  to->attention = take(a, (size_t)s->heads * longest * longest);
  to->rows = (int32_t *)(void *)take(a, 2 * longest);
}

uint64_t mg_encoder_bytes(const mg_encoder_shape *shape, size_t token_count, int threads) {
  arena weights = {0}, activations = {0};
  place_weights(shape, token_count, &weights, NULL);
  place_scratch(shape, &activations, NULL);
  return (uint64_t)(weights.used + activations.used * (size_t)threads) * sizeof(float) +
         (uint64_t)shape->vocabulary * sizeof(int32_t) + token_count * sizeof(int32_t);
}

uint64_t mg_encoder_device_bytes(const mg_encoder_shape *shape, size_t token_count, size_t models) {
  const uint64_t model = mg_encoder_block_floats(shape, token_count) * sizeof(float) + MG_DEVICE_ALIGN;
  return mg_device_encoder_bytes(shape) + models * model;
}

static mg_status map_tokens(mg_encoder *e, const int32_t *tokens, size_t count) {
  const size_t vocabulary = (size_t)e->shape.vocabulary;
  for (size_t k = 0; k < vocabulary; k++) e->row_of[k] = -1;
  for (size_t k = 0; k < count; k++) {
    if (tokens[k] < 0 || tokens[k] >= e->shape.vocabulary)
      return mg_fail(
          MG_ERR_INPUT,
          "the tokenizer gives id %d, but the word embeddings have %d rows: tokenizer and model do not belong together",
          tokens[k], e->shape.vocabulary);
    e->row_of[tokens[k]] = (int32_t)k;
    e->tokens[k] = tokens[k];
  }
  e->token_count = count;
  return MG_OK;
}

mg_status mg_encoder_set_tokens(mg_encoder *e, const int32_t *tokens, size_t count) {
  if (count > e->token_room) return mg_fail(MG_ERR_INTERNAL, "%zu tokens, room for %zu", count, e->token_room);
  const mg_status status = map_tokens(e, tokens, count);
  for (size_t k = 0; e->on_device != NULL && k < e->model_count; k++) e->on_device->current[k] = false;
  mg_encoder_use(e, 0);
  return status;
}

static mg_status make_scratch(mg_encoder *e) {
  arena activations = {0};
  place_scratch(&e->shape, &activations, NULL);
  const size_t floats = activations.used * (size_t)e->threads;
  e->scratch = mg_alloc_zero((size_t)e->threads, sizeof *e->scratch);
  e->activations = mg_alloc_aligned(floats * sizeof(float));
  if (e->scratch == NULL || e->activations == NULL) return MG_ERR_NOMEM;
  memset(e->activations, 0, floats * sizeof(float));
  activations = (arena){.block = e->activations};
  for (int k = 0; k < e->threads; k++) place_scratch(&e->shape, &activations, &e->scratch[k]);
  return MG_OK;
}

mg_status mg_encoder_create(const mg_encoder_shape *shape, const int32_t *tokens, size_t token_count, int threads,
                            mg_device *device, mg_encoder **out) {
  mg_status status = MG_OK;
  mg_encoder *e = mg_alloc_zero(1, sizeof *e);
  if (e == NULL) return MG_ERR_NOMEM;
  e->shape = *shape;
  e->threads = device != NULL ? 0 : threads;
  e->token_room = token_count;
  e->rows = mg_row_kernels_get();
  openblas_set_num_threads(1); /* threads take whole batches, so that bits do not depend on their number */
  e->row_of = mg_alloc((size_t)shape->vocabulary, sizeof *e->row_of);
  e->tokens = mg_alloc(token_count + 1, sizeof *e->tokens);
  e->layers = mg_alloc_zero((size_t)shape->layers, sizeof *e->layers);
  if (e->row_of == NULL || e->tokens == NULL || e->layers == NULL || make_scratch(e) != MG_OK) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory for an encoder of %d layers", shape->layers);
    goto failed;
  }
  MG_TRY(map_tokens(e, tokens, token_count), failed);
  if (device != NULL) MG_TRY(mg_device_encoder_create(device, shape, &e->on_device), failed);
  MG_TRY(mg_encoder_hold(e, 1), failed);
  *out = e;
  return MG_OK;
failed:
  mg_encoder_destroy(&e);
  return status;
}

static void free_models(mg_encoder *e) {
  for (size_t k = 0; k < e->model_count; k++) free(e->models[k]);
  free(e->models);
  e->models = NULL;
  e->model_count = 0;
}

void mg_encoder_destroy(mg_encoder **encoder) {
  mg_encoder *e = *encoder;
  if (e == NULL) return;
  free_models(e);
  mg_device_encoder_destroy(&e->on_device);
  free(e->row_of), free(e->tokens), free(e->layers), free(e->scratch), free(e->activations);
  free(e);
  *encoder = NULL;
}

/* ---- blocks of weights ---- */

size_t mg_encoder_block_floats(const mg_encoder_shape *shape, size_t token_count) {
  arena weights = {0};
  place_weights(shape, token_count, &weights, NULL);
  return weights.used;
}

mg_status mg_encoder_hold(mg_encoder *e, size_t models) {
  mg_status status = MG_OK;
  const size_t floats = mg_encoder_block_floats(&e->shape, e->token_room);
  free_models(e);
  e->models = mg_alloc_zero(models, sizeof *e->models);
  if (e->models == NULL) return MG_ERR_NOMEM;
  for (; e->model_count < models; e->model_count++)
    if ((e->models[e->model_count] = mg_alloc_aligned(floats * sizeof(float))) == NULL) break;
  if (e->model_count < models) return mg_fail(MG_ERR_NOMEM, "out of memory for %zu models of %zu parameters", models, floats);
  if (e->on_device != NULL) MG_TRY(mg_device_encoder_hold(e->on_device, models, floats), done);
  mg_encoder_use(e, 0);
done:
  return status;
}

float *mg_encoder_block(mg_encoder *e, size_t model) {
  if (e->on_device != NULL) e->on_device->current[model] = false;
  return e->models[model];
}

float *mg_encoder_device_block(mg_encoder *e, size_t model, mg_queue **queue) {
  if (e->on_device == NULL) return NULL;
  e->on_device->current[model] = true;
  *queue = e->on_device->queue;
  return e->on_device->models[model];
}

void mg_encoder_use(mg_encoder *e, size_t model) {
  arena weights = {.block = e->models[model]};
  e->weights = e->models[model];
  if (e->on_device != NULL) e->on_device->model = model;
  place_weights(&e->shape, e->token_count, &weights, e);
}

/* Goes through a block in the order of place_weights. */
typedef struct tour {
  mg_encoder_visit visit;
  void *context;
  size_t offset;
} tour;

static mg_status stop_at(tour *t, const char *name, int64_t count) {
  const mg_status status = t->visit(t->context, name, 0, count, t->offset);
  t->offset += ((size_t)count + 15) / 16 * 16;
  return status;
}

static mg_status visit_words(tour *t, int64_t h, const int32_t *tokens, size_t count) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < count;) { /* runs of neighbours in one piece */
    size_t end = k + 1;
    while (end < count && tokens[end] == tokens[end - 1] + 1) end++;
    MG_TRY(t->visit(t->context, mg_embedding_weights[0], tokens[k] * h, (int64_t)(end - k) * h, t->offset + k * (size_t)h),
           done);
    k = end;
  }
  t->offset += (count * (size_t)h + 15) / 16 * 16;
done:
  return status;
}

/* Queries, keys and values are one matrix, and their biases one vector. */
static mg_status visit_attention(tour *t, const mg_encoder_shape *shape, int layer) {
  mg_status status = MG_OK;
  char name[MG_WEIGHT_NAME];
  const int64_t h = shape->hidden;
  for (size_t bias = 0; bias < 2; bias++) {
    const int64_t count = bias ? h : h * h;
    for (size_t k = 0; k < 3; k++) {
      snprintf(name, sizeof name, "encoder.layer.%d.%s", layer, mg_layer_weights[2 * k + bias]);
      MG_TRY(t->visit(t->context, name, 0, count, t->offset + k * (size_t)count), done);
    }
    t->offset += (3 * (size_t)count + 15) / 16 * 16;
  }
done:
  return status;
}

mg_status mg_encoder_places(const mg_encoder_shape *shape, const int32_t *tokens, size_t token_count, mg_encoder_visit visit,
                            void *context) {
  mg_status status = MG_OK;
  tour t = {.visit = visit, .context = context};
  char name[MG_WEIGHT_NAME];
  const int64_t h = shape->hidden, classes = shape->classes;
  const int64_t sizes[MG_EMBEDDING_WEIGHTS] = {0, shape->positions * h, h, h, h};
  MG_TRY(visit_words(&t, h, tokens, token_count), done);
  for (size_t k = 1; k < MG_EMBEDDING_WEIGHTS; k++) MG_TRY(stop_at(&t, mg_embedding_weights[k], sizes[k]), done);
  for (int l = 0; l < shape->layers; l++) {
    MG_TRY(visit_attention(&t, shape, l), done);
    for (size_t k = 6; k < MG_LAYER_WEIGHTS; k++) {
      const mg_weight_size size = mg_layer_weight_size(shape, k);
      snprintf(name, sizeof name, "encoder.layer.%d.%s", l, mg_layer_weights[k]);
      MG_TRY(stop_at(&t, name, size.rows * (size.columns > 0 ? size.columns : 1)), done);
    }
  }
  if (classes == 0) goto done;
  MG_TRY(stop_at(&t, "classifier.dense.weight", h * h), done);
  MG_TRY(stop_at(&t, "classifier.dense.bias", h), done);
  MG_TRY(stop_at(&t, "classifier.out_proj.weight", classes * h), done);
  MG_TRY(stop_at(&t, "classifier.out_proj.bias", classes), done);
done:
  return status;
}

typedef struct loading {
  const mg_weights *weights;
  float *block;
} loading;

static mg_status load_place(void *context, const char *name, int64_t first, int64_t count, size_t offset) {
  const loading *l = context;
  return l->weights->read(l->weights->context, name, first, count, l->block + offset);
}

mg_status mg_encoder_load(mg_encoder *e, const mg_weights *w) {
  loading l = {.weights = w, .block = e->weights};
  if (e->on_device != NULL) e->on_device->current[e->on_device->model] = false;
  return mg_encoder_places(&e->shape, e->tokens, e->token_count, load_place, &l);
}

size_t mg_batch_end(const mg_sequences *texts, size_t first, int tokens) {
  size_t end = first + 1;
  while (end < texts->count && texts->offset[end + 1] - texts->offset[first] <= tokens) end++;
  return end;
}

typedef struct crew {
  const mg_encoder *encoder;
  const mg_sequences *texts;
  const mg_encoder_want *want;
  size_t last;
  pthread_mutex_t mutex;
  size_t next;      /* the first text of the next batch */
  mg_status status; /* the first failure */
  char message[1024];
} crew;

typedef struct crew_member {
  crew *crew;
  mg_scratch *scratch;
  bool may_poll;
} crew_member;

static void *work(void *context) {
  const crew_member *m = context;
  crew *c = m->crew;
  for (;;) {
    pthread_mutex_lock(&c->mutex);
    const size_t first = c->next;
    const bool done = first >= c->last || c->status != MG_OK;
    size_t end = done ? first : mg_batch_end(c->texts, first, MG_BATCH_TOKENS);
    if (end > c->last) end = c->last;
    c->next = end;
    pthread_mutex_unlock(&c->mutex);
    if (done) return NULL;
    const mg_status status = mg_forward(c->encoder, m->scratch, c->texts, first, end, c->want, m->may_poll);
    if (status == MG_OK) continue;
    pthread_mutex_lock(&c->mutex);
    if (c->status == MG_OK) {
      c->status = status;
      snprintf(c->message, sizeof c->message, "%s", mg_error_message());
    }
    pthread_mutex_unlock(&c->mutex);
  }
}

mg_status mg_encoder_run(mg_encoder *e, const mg_sequences *texts, size_t first, size_t last, const mg_encoder_want *want) {
  crew c = {.encoder = e, .texts = texts, .want = want, .last = last, .next = first};
  if (want->logits != NULL && e->shape.classes == 0) return mg_fail(MG_ERR_INPUT, "a bare encoder has no logits");
  if (e->on_device != NULL) return mg_device_encoder_run(e, texts, first, last, want);
  crew_member *members = mg_alloc((size_t)e->threads, sizeof *members);
  pthread_t *threads = mg_alloc((size_t)e->threads, sizeof *threads);
  if (members == NULL || threads == NULL) {
    free(members), free(threads);
    return MG_ERR_NOMEM;
  }
  pthread_mutex_init(&c.mutex, NULL);
  int started = 1;
  for (int k = 0; k < e->threads; k++) members[k] = (crew_member){.crew = &c, .scratch = &e->scratch[k], .may_poll = k == 0};
  /* Fewer threads than asked for compute the same, later. */
  while (started < e->threads && pthread_create(&threads[started], NULL, work, &members[started]) == 0) started++;
  work(&members[0]);
  for (int k = 1; k < started; k++) pthread_join(threads[k], NULL);
  pthread_mutex_destroy(&c.mutex);
  free(members), free(threads);
  return c.status == MG_OK ? MG_OK : mg_fail(c.status, "%s", c.message);
}

const char *mg_encoder_numeric_mode(const mg_device *device, char *buffer, size_t size) {
  char text[256];
  if (device != NULL) {
    snprintf(buffer, size, "encoder 4: %s, batches of %d tokens", device->ops->describe(device, text, sizeof text),
             MG_DEVICE_BATCH_TOKENS);
    return buffer;
  }
  snprintf(buffer, size, "encoder 3: %s, %s rows, batches of %d tokens", openblas_get_config(), mg_row_kernels_get()->name,
           MG_BATCH_TOKENS);
  return buffer;
}
