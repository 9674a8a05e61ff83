/* The forward pass of batches on a device: queued, one batch ahead of the one whose answers are taken. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "mergegrid/text.h"

/* Where a slot's integers are, T tokens and so many texts at most: counted in int32. */
typedef struct places {
  size_t word, position, starts, first, piece, start_piece, keep_at, keep_rows, all;
} places;

static places places_of(size_t t) {
  places p = {0};
  p.position = t, p.starts = 2 * t, p.first = 3 * t, p.piece = 4 * t + 2, p.start_piece = p.piece + 4 * t;
  p.keep_at = (p.start_piece + 4 * t + 1) / 2 * 2; /* of 64 bits */
  p.keep_rows = p.keep_at + 2 * t;
  p.all = p.keep_rows + t;
  return p;
}

typedef struct batch {
  const mg_encoder *e;
  mg_device_encoder *d;
  const mg_device_ops *ops;
  mg_device_slot *slot;
  const mg_sequences *texts;
  size_t first, last;
  int tokens, pieces;
  places at;
  const mg_encoder_want *want;
  bool last_full;
} batch;

static size_t capacity_of(const mg_encoder_shape *s) { return (size_t)mg_batch_capacity(s, MG_DEVICE_BATCH_TOKENS); }
static int start_of(const batch *b, size_t text) { return (int)(b->texts->offset[text] - b->texts->offset[b->first]); }
static int length_of(const batch *b, size_t text) { return (int)(b->texts->offset[text + 1] - b->texts->offset[text]); }

/* Where the device has what the host has at `weight`. */
static const float *of_device(const batch *b, const float *weight) {
  return b->d->models[b->d->model] + (weight - b->e->weights);
}

/* ---- memory ---- */

typedef struct part {
  float **at;
  size_t floats;
  const char *what;
} part;

enum { PARTS = 8 };

static void list_parts(const mg_encoder_shape *s, mg_device_encoder *d, part parts[PARTS]) {
  const size_t t = capacity_of(s), h = (size_t)s->hidden, longest = (size_t)mg_encoder_position_limit(s);
  const part all[PARTS] = {{&d->x, t * h, "hidden states"},
                           {&d->y, t * h, "hidden states"},
                           {&d->qkv, t * 3 * h, "queries, keys and values"},
                           {&d->mixed, t * h, "attention"},
                           {&d->wide, t * (size_t)s->intermediate, "intermediate states"},
                           {&d->pooled, t * h, "pooled states"},
                           {&d->logits, t * (size_t)(s->classes > 0 ? s->classes : 1), "logits"},
                           {&d->keep, (size_t)s->heads * longest * longest, "attention probabilities"}};
  memcpy(parts, all, sizeof all);
}

uint64_t mg_device_encoder_bytes(const mg_encoder_shape *s) {
  mg_device_encoder none = {0};
  part parts[PARTS];
  uint64_t bytes = 2 * places_of(capacity_of(s)).all * sizeof(int32_t) + MG_QUEUE_BYTES;
  list_parts(s, &none, parts);
  for (size_t k = 0; k < PARTS; k++) bytes += parts[k].floats * sizeof(float) + MG_DEVICE_ALIGN;
  return bytes + 3 * MG_DEVICE_ALIGN;
}

static mg_status take_all(const mg_encoder_shape *shape, mg_device_encoder *d) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = d->device->ops;
  const size_t bytes = places_of(capacity_of(shape)).all * sizeof(int32_t);
  part parts[PARTS];
  list_parts(shape, d, parts);
  MG_TRY(ops->open_queue(d->device, true, &d->queue), done);
  for (size_t k = 0; k < PARTS; k++)
    MG_TRY(ops->take(d->device, parts[k].floats * sizeof(float), parts[k].what, (void **)parts[k].at), done);
  for (int k = 0; k < 2; k++) {
    mg_device_slot *slot = &d->slot[k];
    MG_TRY(ops->take(d->device, bytes, "a batch's tokens", (void **)&slot->index), done);
    MG_TRY(ops->pin(d->device, bytes, (void **)&slot->host), done);
    MG_TRY(ops->open_mark(d->device, &slot->done), done);
  }
done:
  return status;
}

mg_status mg_device_encoder_create(mg_device *device, const mg_encoder_shape *shape, mg_device_encoder **out) {
  mg_status status = MG_OK;
  mg_device_encoder *d = mg_alloc_zero(1, sizeof *d);
  if (d == NULL) return MG_ERR_NOMEM;
  d->device = device;
  if (shape->hidden / shape->heads > MG_WIDEST_HEAD) {
    status = mg_fail(MG_ERR_INPUT,
                     "heads of %d are wider than the device's attention takes (%d): compute.backend: openblas computes them",
                     shape->hidden / shape->heads, MG_WIDEST_HEAD);
    goto failed;
  }
  MG_TRY(take_all(shape, d), failed);
  *out = d;
  return MG_OK;
failed:
  mg_device_encoder_destroy(&d);
  return status;
}

static void free_models(mg_device_encoder *d) {
  for (size_t k = 0; k < d->model_count; k++) d->device->ops->give(d->device, d->models[k]);
  free(d->models), free(d->current);
  d->models = NULL, d->current = NULL, d->model_count = d->model = 0;
}

mg_status mg_device_encoder_hold(mg_device_encoder *d, size_t models, size_t floats) {
  mg_status status = MG_OK;
  MG_TRY(d->device->ops->finish(d->queue), done);
  free_models(d);
  d->models = mg_alloc_zero(models, sizeof *d->models);
  d->current = mg_alloc_zero(models, sizeof *d->current);
  if (d->models == NULL || d->current == NULL) return MG_ERR_NOMEM;
  for (; d->model_count < models; d->model_count++)
    MG_TRY(d->device->ops->take(d->device, floats * sizeof(float), "a model's weights", (void **)&d->models[d->model_count]),
           done);
done:
  return status;
}

void mg_device_encoder_destroy(mg_device_encoder **encoder) {
  mg_device_encoder *d = *encoder;
  if (d == NULL) return;
  const mg_device_ops *ops = d->device->ops;
  float *const parts[] = {d->x, d->y, d->qkv, d->mixed, d->wide, d->pooled, d->logits, d->keep};
  ops->close_queue(d->queue); /* which waits until nothing is under way */
  free_models(d);
  for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) ops->give(d->device, parts[k]);
  for (int k = 0; k < 2; k++) {
    ops->give(d->device, d->slot[k].index);
    ops->unpin(d->device, d->slot[k].host), ops->unpin(d->device, d->slot[k].answers);
    ops->close_mark(d->slot[k].done);
  }
  ops->unpin(d->device, d->host_states), ops->unpin(d->device, d->host_keep);
  free(d);
  *encoder = NULL;
}

/* ---- a batch's tokens ---- */

/* Queries of a text in pieces, all of them against its keys. */
static void cut_text(batch *b, size_t t) {
  int32_t *host = b->slot->host;
  int64_t *keep_at = (int64_t *)(void *)(host + b->at.keep_at);
  const int start = start_of(b, t), length = length_of(b, t), keys = mg_keys_of(b->texts, t);
  int32_t *own = host + b->at.start_piece + 4 * (t - b->first);
  for (int done = 0; done < length; done += MG_PIECE_QUERIES, b->pieces++) {
    int32_t *piece = host + b->at.piece + 4 * (size_t)b->pieces;
    piece[0] = start + done, piece[1] = length - done < MG_PIECE_QUERIES ? length - done : MG_PIECE_QUERIES;
    piece[2] = start, piece[3] = keys;
    keep_at[b->pieces] = (int64_t)done * keys;
    host[b->at.keep_rows + (size_t)b->pieces] = length;
  }
  own[0] = (int32_t)(t - b->first), own[1] = 1, own[2] = start, own[3] = keys; /* <s> alone */
}

static mg_status send_tokens(batch *b) {
  mg_status status = MG_OK;
  int32_t *host = b->slot->host;
  MG_TRY(mg_check_texts(b->e, b->texts, b->first, b->last, &b->tokens), done);
  if ((size_t)b->tokens > capacity_of(&b->e->shape)) return mg_fail(MG_ERR_INTERNAL, "a batch of %d tokens", b->tokens);
  for (size_t t = b->first; t < b->last; t++) {
    const size_t start = (size_t)start_of(b, t);
    MG_TRY(mg_place_tokens(b->e, b->texts, t, host + b->at.word + start, host + b->at.position + start), done);
    host[b->at.starts + (t - b->first)] = host[b->at.first + (t - b->first)] = (int32_t)start;
    cut_text(b, t);
  }
  host[b->at.first + (b->last - b->first)] = b->tokens;
  MG_TRY(b->ops->upload(b->d->queue, b->slot->index, host, b->at.all * sizeof *host), done);
done:
  return status;
}

static mg_status embed(const batch *b) {
  const mg_encoder *e = b->e;
  const int32_t *index = b->slot->index;
  const mg_embedding from = {.word = index + b->at.word,
                             .position = index + b->at.position,
                             .words = of_device(b, e->words),
                             .positions = of_device(b, e->positions),
                             .type = of_device(b, e->types)};
  return b->ops->embed(b->d->queue, &from, b->tokens, e->shape.hidden, of_device(b, e->norm), of_device(b, e->norm_bias),
                       e->shape.epsilon, b->d->x);
}

/* ---- layers ---- */

static mg_attention attention_of(const batch *b, const mg_layer *w) {
  const mg_encoder_shape *s = &b->e->shape;
  const int h = s->hidden, width = h / s->heads;
  const float *bias = of_device(b, w->qkv_bias);
  return (mg_attention){.pieces = b->pieces,
                        .heads = s->heads,
                        .width = width,
                        .piece = b->slot->index + b->at.piece,
                        .query = b->d->qkv,
                        .query_bias = bias,
                        .query_stride = 3 * h,
                        .key = b->d->qkv + h,
                        .key_bias = bias + h,
                        .key_stride = 3 * h,
                        .scale = 1.0f / sqrtf((float)width),
                        .mixed = b->d->mixed,
                        .keep_at = (const int64_t *)(const void *)(b->slot->index + b->at.keep_at),
                        .keep_rows = b->slot->index + b->at.keep_rows};
}

/* Text by text, its probabilities given to the visitor. */
static mg_status attend_visited(const batch *b, mg_attention a, int layer) {
  mg_status status = MG_OK;
  mg_device_encoder *d = b->d;
  const size_t longest = (size_t)mg_encoder_position_limit(&b->e->shape);
  int piece = 0;
  if (d->host_keep == NULL)
    MG_TRY(b->ops->pin(d->device, (size_t)a.heads * longest * longest * sizeof(float), (void **)&d->host_keep), done);
  a.keep = d->keep;
  for (size_t t = b->first; t < b->last; t++, piece += a.pieces) {
    const int length = length_of(b, t), keys = mg_keys_of(b->texts, t);
    mg_attention own = a;
    own.pieces = a.pieces = (length + MG_PIECE_QUERIES - 1) / MG_PIECE_QUERIES;
    own.piece += 4 * (ptrdiff_t)piece, own.keep_at += piece, own.keep_rows += piece;
    MG_TRY(b->ops->attend(d->queue, &own), done);
    MG_TRY(b->ops->download(d->queue, d->host_keep, d->keep, (size_t)a.heads * (size_t)length * (size_t)keys * sizeof(float)),
           done);
    MG_TRY(b->ops->finish(d->queue), done);
    MG_TRY(b->want->attention(b->want->context, t, layer, length, keys, d->host_keep), done);
  }
done:
  return status;
}

/* From the mixed values on; x [rows, hidden] becomes the layer's output. */
static mg_status finish_layer(const batch *b, const mg_layer *w, int rows) {
  mg_status status = MG_OK;
  const mg_encoder_shape *s = &b->e->shape;
  mg_device_encoder *d = b->d;
  mg_queue *q = d->queue;
  const int h = s->hidden, wide = s->intermediate;
  MG_TRY(b->ops->product(q, rows, h, h, d->mixed, h, of_device(b, w->out), d->y, h), done);
  MG_TRY(b->ops->add_norm(q, rows, h, d->x, d->y, of_device(b, w->out_bias), of_device(b, w->norm1),
                          of_device(b, w->norm1_bias), s->epsilon),
         done);
  MG_TRY(b->ops->product(q, rows, wide, h, d->x, h, of_device(b, w->up), d->wide, wide), done);
  MG_TRY(b->ops->bias_gelu(q, rows, wide, d->wide, of_device(b, w->up_bias)), done);
  MG_TRY(b->ops->product(q, rows, h, wide, d->wide, wide, of_device(b, w->down), d->y, h), done);
  MG_TRY(b->ops->add_norm(q, rows, h, d->x, d->y, of_device(b, w->down_bias), of_device(b, w->norm2),
                          of_device(b, w->norm2_bias), s->epsilon),
         done);
done:
  return status;
}

static mg_status run_layer(const batch *b, int layer) {
  mg_status status = MG_OK;
  const mg_layer *w = &b->e->layers[layer - 1];
  const int h = b->e->shape.hidden;
  const mg_attention a = attention_of(b, w);
  MG_TRY(b->ops->product(b->d->queue, b->tokens, 3 * h, h, b->d->x, h, of_device(b, w->qkv), b->d->qkv, 3 * h), done);
  if (b->want->attention != NULL)
    MG_TRY(attend_visited(b, a, layer), done);
  else
    MG_TRY(b->ops->attend(b->d->queue, &a), done);
  MG_TRY(finish_layer(b, w, b->tokens), done);
done:
  return status;
}

/* x becomes its rows of <s>, [texts, hidden]: through `pooled`, which then is the other one. */
static mg_status keep_starts(const batch *b) {
  mg_device_encoder *d = b->d;
  const mg_status status =
      b->ops->gather(d->queue, (int)(b->last - b->first), b->e->shape.hidden, b->slot->index + b->at.starts, d->x, d->pooled);
  float *x = d->x;
  d->x = d->pooled, d->pooled = x;
  return status;
}

/* The last layer for <s> alone: keys and values of all tokens, everything else of one token a text. */
static mg_status run_last_for_start(const batch *b) {
  mg_status status = MG_OK;
  const mg_layer *w = &b->e->layers[b->e->shape.layers - 1];
  mg_device_encoder *d = b->d;
  const int h = b->e->shape.hidden, rows = (int)(b->last - b->first);
  mg_attention a = attention_of(b, w);
  a.pieces = rows, a.piece = b->slot->index + b->at.start_piece;
  a.query = d->y, a.query_stride = h;
  MG_TRY(
      b->ops->product(d->queue, b->tokens, 2 * h, h, d->x, h, of_device(b, w->qkv) + (size_t)h * (size_t)h, d->qkv + h, 3 * h),
      done);
  MG_TRY(keep_starts(b), done);
  MG_TRY(b->ops->product(d->queue, rows, h, h, d->x, h, of_device(b, w->qkv), d->y, h), done);
  MG_TRY(b->ops->attend(d->queue, &a), done);
  MG_TRY(finish_layer(b, w, rows), done);
done:
  return status;
}

/* ---- what is taken out ---- */

/* A slot's answers: logits, then for each wanted layer <s> and means. Floats before those of one. */
static size_t answer_at(const batch *b, int wanted, bool mean) {
  const size_t texts = b->last - b->first, pools = (size_t)(b->want->cls != NULL) + (b->want->mean != NULL);
  const size_t before = (size_t)wanted * pools + (mean && b->want->cls != NULL ? 1 : 0);
  return texts * ((b->want->logits != NULL ? (size_t)b->e->shape.classes : 0) + before * (size_t)b->e->shape.hidden);
}

static mg_status make_room(const batch *b) {
  mg_status status = MG_OK;
  const size_t floats = answer_at(b, b->want->layer_count, false);
  if (floats <= b->slot->answer_room) return MG_OK;
  b->ops->unpin(b->d->device, b->slot->answers);
  b->slot->answers = NULL, b->slot->answer_room = 0;
  MG_TRY(b->ops->pin(b->d->device, floats * sizeof(float), (void **)&b->slot->answers), done);
  b->slot->answer_room = floats;
done:
  return status;
}

static mg_status pool(const batch *b, int wanted, bool starts_only) {
  mg_status status = MG_OK;
  mg_device_encoder *d = b->d;
  const int h = b->e->shape.hidden, texts = (int)(b->last - b->first);
  const size_t bytes = (size_t)texts * (size_t)h * sizeof(float);
  if (b->want->cls != NULL) {
    if (!starts_only) MG_TRY(b->ops->gather(d->queue, texts, h, b->slot->index + b->at.starts, d->x, d->pooled), done);
    MG_TRY(b->ops->download(d->queue, b->slot->answers + answer_at(b, wanted, false), starts_only ? d->x : d->pooled, bytes),
           done);
  }
  if (b->want->mean != NULL) {
    MG_TRY(b->ops->means(d->queue, texts, h, b->slot->index + b->at.first, d->x, d->pooled), done);
    MG_TRY(b->ops->download(d->queue, b->slot->answers + answer_at(b, wanted, true), d->pooled, bytes), done);
  }
done:
  return status;
}

static mg_status visit_states(const batch *b, int layer) {
  mg_status status = MG_OK;
  mg_device_encoder *d = b->d;
  const size_t h = (size_t)b->e->shape.hidden;
  if (d->host_states == NULL)
    MG_TRY(b->ops->pin(d->device, capacity_of(&b->e->shape) * h * sizeof(float), (void **)&d->host_states), done);
  MG_TRY(b->ops->download(d->queue, d->host_states, d->x, (size_t)b->tokens * h * sizeof(float)), done);
  MG_TRY(b->ops->finish(d->queue), done);
  for (size_t t = b->first; t < b->last; t++)
    MG_TRY(b->want->states(b->want->context, t, layer, length_of(b, t), d->host_states + (size_t)start_of(b, t) * h), done);
done:
  return status;
}

static mg_status take_states(const batch *b, int layer, bool starts_only) {
  mg_status status = MG_OK;
  for (int k = 0; k < b->want->layer_count; k++)
    if (b->want->layers[k] == layer) MG_TRY(pool(b, k, starts_only), done);
  if (b->want->states != NULL && !starts_only) MG_TRY(visit_states(b, layer), done);
done:
  return status;
}

static mg_status classify(const batch *b) {
  mg_status status = MG_OK;
  const mg_encoder *e = b->e;
  mg_device_encoder *d = b->d;
  const int h = e->shape.hidden, c = e->shape.classes, rows = (int)(b->last - b->first);
  if (b->last_full) MG_TRY(keep_starts(b), done);
  MG_TRY(b->ops->product(d->queue, rows, h, h, d->x, h, of_device(b, e->dense), d->y, h), done);
  MG_TRY(b->ops->bias_tanh(d->queue, rows, h, d->y, of_device(b, e->dense_bias)), done);
  MG_TRY(b->ops->product(d->queue, rows, c, h, d->y, h, of_device(b, e->classes), d->logits, c), done);
  MG_TRY(b->ops->bias_add(d->queue, rows, c, d->logits, of_device(b, e->classes_bias)), done);
  MG_TRY(b->ops->download(d->queue, b->slot->answers, d->logits, (size_t)rows * (size_t)c * sizeof(float)), done);
done:
  return status;
}

static mg_status queue_batch(batch *b) {
  mg_status status = MG_OK;
  const int layers = b->e->shape.layers;
  MG_TRY(make_room(b), done);
  MG_TRY(send_tokens(b), done);
  MG_TRY(embed(b), done);
  MG_TRY(take_states(b, 0, false), done);
  for (int layer = 1; layer <= layers; layer++) {
    const bool starts_only = layer == layers && !b->last_full;
    if (b->want->poll != NULL) MG_TRY(b->want->poll(b->want->context), done);
    MG_TRY(starts_only ? run_last_for_start(b) : run_layer(b, layer), done);
    MG_TRY(take_states(b, layer, starts_only), done);
  }
  if (b->want->logits != NULL) MG_TRY(classify(b), done);
  MG_TRY(b->ops->mark(b->d->queue, b->slot->done), done);
  b->slot->busy = true;
done:
  return status;
}

/* Waits for a slot's batch and hands out its answers. */
static mg_status take_answers(batch *b) {
  mg_status status = MG_OK;
  mg_device_slot *slot = b->slot;
  const size_t h = (size_t)b->e->shape.hidden, layers = (size_t)b->want->layer_count, c = (size_t)b->e->shape.classes;
  if (!slot->busy) return MG_OK;
  slot->busy = false;
  b->first = slot->first, b->last = slot->last;
  MG_TRY(b->ops->await(slot->done), done);
  if (b->want->logits != NULL) memcpy(b->want->logits + b->first * c, slot->answers, (b->last - b->first) * c * sizeof(float));
  for (size_t k = 0; k < layers; k++)
    for (size_t t = b->first; t < b->last; t++) {
      const size_t to = (t * layers + k) * h, from = (t - b->first) * h;
      if (b->want->cls != NULL)
        memcpy(b->want->cls + to, slot->answers + answer_at(b, (int)k, false) + from, h * sizeof(float));
      if (b->want->mean != NULL)
        memcpy(b->want->mean + to, slot->answers + answer_at(b, (int)k, true) + from, h * sizeof(float));
    }
done:
  return status;
}

mg_status mg_device_encoder_run(const mg_encoder *e, const mg_sequences *texts, size_t first, size_t last,
                                const mg_encoder_want *want) {
  mg_status status = MG_OK;
  mg_device_encoder *d = e->on_device;
  batch b = {.e = e, .d = d, .ops = d->device->ops, .texts = texts, .want = want, .last_full = mg_wants_all_of_last(e, want)};
  b.at = places_of(capacity_of(&e->shape));
  if (!d->current[d->model])
    MG_TRY(b.ops->upload_any(d->queue, d->models[d->model], e->weights,
                             mg_encoder_block_floats(&e->shape, e->token_count) * sizeof(float)),
           failed);
  d->current[d->model] = true;
  d->slot[0].busy = d->slot[1].busy = false;
  for (int turn = 0; first < last; turn ^= 1) {
    b.slot = &d->slot[turn];
    MG_TRY(take_answers(&b), failed);
    b.first = first, b.last = mg_batch_end(texts, first, MG_DEVICE_BATCH_TOKENS), b.pieces = 0;
    if (b.last > last) b.last = last;
    b.slot->first = first, b.slot->last = first = b.last;
    MG_TRY(queue_batch(&b), failed);
  }
  for (int k = 0; k < 2; k++) { /* the one queued last is taken last */
    b.slot = &d->slot[k];
    MG_TRY(take_answers(&b), failed);
  }
  return MG_OK;
failed:
  d->slot[0].busy = d->slot[1].busy = false;
  if (b.ops->finish(d->queue) != MG_OK) mg_fail_context(status, "and waiting for the device failed too");
  return status;
}
