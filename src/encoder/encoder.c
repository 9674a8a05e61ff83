/* An encoder's memory and weights, and the threads that compute its batches. */

#include <cblas.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoder_impl.h"
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

int mg_batch_capacity(const mg_encoder_shape *shape) {
  const int longest = mg_encoder_position_limit(shape);
  return longest > MG_BATCH_TOKENS ? longest : MG_BATCH_TOKENS;
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
    const mg_layer layer = {.qkv = take(a, 3 * h * h),
                            .qkv_bias = take(a, 3 * h),
                            .out = take(a, h * h),
                            .out_bias = take(a, h),
                            .norm1 = take(a, h),
                            .norm1_bias = take(a, h),
                            .up = take(a, i * h),
                            .up_bias = take(a, i),
                            .down = take(a, h * i),
                            .down_bias = take(a, h),
                            .norm2 = take(a, h),
                            .norm2_bias = take(a, h)};
    if (e != NULL) e->layers[l] = layer;
  }
  to->dense = take(a, c > 0 ? h * h : 0), to->dense_bias = take(a, c > 0 ? h : 0);
  to->classes = take(a, c * h), to->classes_bias = take(a, c);
}

static void place_scratch(const mg_encoder_shape *s, arena *a, mg_scratch *scratch) {
  const size_t t = (size_t)mg_batch_capacity(s), h = (size_t)s->hidden, i = (size_t)s->intermediate;
  const size_t longest = (size_t)mg_encoder_position_limit(s), padded = (longest + 15) / 16 * 16;
  mg_scratch ignored = {0};
  mg_scratch *to = scratch != NULL ? scratch : &ignored;
  to->x = take(a, t * h + MG_ROW_SLACK), to->y = take(a, t * h + MG_ROW_SLACK);
  to->qkv = take(a, t * 3 * h + MG_ROW_SLACK), to->mixed = take(a, t * h + MG_ROW_SLACK);
  to->wide = take(a, t * i + MG_ROW_SLACK), to->scores = take(a, (longest > 16 ? longest : 16) * padded);
  to->packed = take(a, ((size_t)(s->hidden / s->heads) + 15) / 16 * 16 * 16);
  to->attention = take(a, (size_t)s->heads * longest * longest);
}

uint64_t mg_encoder_bytes(const mg_encoder_shape *shape, size_t token_count, int threads) {
  arena weights = {0}, activations = {0};
  place_weights(shape, token_count, &weights, NULL);
  place_scratch(shape, &activations, NULL);
  return (uint64_t)(weights.used + activations.used * (size_t)threads) * sizeof(float) +
         (uint64_t)shape->vocabulary * sizeof(int32_t) + token_count * sizeof(int32_t);
}

static mg_status map_tokens(mg_encoder *e, const int32_t *tokens, size_t count) {
  const size_t vocabulary = (size_t)e->shape.vocabulary;
  e->row_of = mg_alloc(vocabulary, sizeof *e->row_of);
  e->tokens = mg_alloc(count + 1, sizeof *e->tokens);
  if (e->row_of == NULL || e->tokens == NULL) return MG_ERR_NOMEM;
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

mg_status mg_encoder_create(const mg_encoder_shape *shape, const int32_t *tokens, size_t token_count, int threads,
                            mg_encoder **out) {
  mg_status status = MG_OK;
  arena weights = {0}, activations = {0};
  mg_encoder *e = mg_alloc_zero(1, sizeof *e);
  if (e == NULL) return MG_ERR_NOMEM;
  e->shape = *shape;
  e->threads = threads;
  e->rows = mg_row_kernels_get();
  openblas_set_num_threads(1); /* threads take whole batches, so that bits do not depend on their number */
  MG_TRY(map_tokens(e, tokens, token_count), failed);
  place_weights(shape, token_count, &weights, NULL);
  place_scratch(shape, &activations, NULL);
  e->layers = mg_alloc_zero((size_t)shape->layers, sizeof *e->layers);
  e->scratch = mg_alloc_zero((size_t)threads, sizeof *e->scratch);
  e->weights = mg_alloc_aligned(weights.used * sizeof(float));
  e->activations = mg_alloc_aligned(activations.used * (size_t)threads * sizeof(float));
  if (e->layers == NULL || e->scratch == NULL || e->weights == NULL || e->activations == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory for an encoder of %d layers", shape->layers);
    goto failed;
  }
  memset(e->activations, 0, activations.used * (size_t)threads * sizeof(float));
  weights = (arena){.block = e->weights}, activations = (arena){.block = e->activations};
  place_weights(shape, token_count, &weights, e);
  for (int k = 0; k < threads; k++) place_scratch(shape, &activations, &e->scratch[k]);
  *out = e;
  return MG_OK;
failed:
  mg_encoder_destroy(&e);
  return status;
}

void mg_encoder_destroy(mg_encoder **encoder) {
  mg_encoder *e = *encoder;
  if (e == NULL) return;
  free(e->row_of), free(e->tokens), free(e->layers), free(e->scratch), free(e->weights), free(e->activations);
  free(e);
  *encoder = NULL;
}

static mg_status load_words(mg_encoder *e, const mg_weights *w) {
  mg_status status = MG_OK;
  const int64_t h = e->shape.hidden;
  for (size_t k = 0; k < e->token_count;) { /* runs of neighbours in one read */
    size_t end = k + 1;
    while (end < e->token_count && e->tokens[end] == e->tokens[end - 1] + 1) end++;
    MG_TRY(w->read(w->context, mg_embedding_weights[0], e->tokens[k] * h, (int64_t)(end - k) * h, e->words + k * (size_t)h),
           done);
    k = end;
  }
done:
  return status;
}

mg_status mg_encoder_load(mg_encoder *e, const mg_weights *w) {
  mg_status status = MG_OK;
  char name[MG_WEIGHT_NAME];
  const int64_t h = e->shape.hidden;
  MG_TRY(load_words(e, w), done);
  MG_TRY(w->read(w->context, mg_embedding_weights[1], 0, e->shape.positions * h, e->positions), done);
  MG_TRY(w->read(w->context, mg_embedding_weights[2], 0, h, e->types), done);
  MG_TRY(w->read(w->context, mg_embedding_weights[3], 0, h, e->norm), done);
  MG_TRY(w->read(w->context, mg_embedding_weights[4], 0, h, e->norm_bias), done);
  for (int l = 0; l < e->shape.layers; l++) {
    const mg_layer *y = &e->layers[l];
    float *const to[MG_LAYER_WEIGHTS] = {y->qkv,
                                         y->qkv_bias,
                                         y->qkv + h * h,
                                         y->qkv_bias + h,
                                         y->qkv + 2 * h * h,
                                         y->qkv_bias + 2 * h,
                                         y->out,
                                         y->out_bias,
                                         y->norm1,
                                         y->norm1_bias,
                                         y->up,
                                         y->up_bias,
                                         y->down,
                                         y->down_bias,
                                         y->norm2,
                                         y->norm2_bias};
    for (size_t k = 0; k < MG_LAYER_WEIGHTS; k++) {
      const mg_weight_size size = mg_layer_weight_size(&e->shape, k);
      snprintf(name, sizeof name, "encoder.layer.%d.%s", l, mg_layer_weights[k]);
      MG_TRY(w->read(w->context, name, 0, size.rows * (size.columns > 0 ? size.columns : 1), to[k]), done);
    }
  }
  if (e->shape.classes == 0) goto done;
  MG_TRY(w->read(w->context, "classifier.dense.weight", 0, h * h, e->dense), done);
  MG_TRY(w->read(w->context, "classifier.dense.bias", 0, h, e->dense_bias), done);
  MG_TRY(w->read(w->context, "classifier.out_proj.weight", 0, e->shape.classes * h, e->classes), done);
  MG_TRY(w->read(w->context, "classifier.out_proj.bias", 0, e->shape.classes, e->classes_bias), done);
done:
  return status;
}

size_t mg_batch_end(const mg_sequences *texts, size_t first) {
  size_t end = first + 1;
  while (end < texts->count && texts->offset[end + 1] - texts->offset[first] <= MG_BATCH_TOKENS) end++;
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
    size_t end = done ? first : mg_batch_end(c->texts, first);
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

const char *mg_encoder_numeric_mode(char *buffer, size_t size) {
  snprintf(buffer, size, "encoder 2: %s, %s rows, batches of %d tokens", openblas_get_config(), mg_row_kernels_get()->name,
           MG_BATCH_TOKENS);
  return buffer;
}
