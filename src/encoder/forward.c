/* The forward pass of one batch by one thread. */

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "device.h"

/* From this length on a head's attention is two matrix products. */
enum { LONG_TEXT = 64 };

typedef struct batch {
  const mg_encoder *e;
  mg_scratch *s;
  const mg_sequences *texts;
  size_t first, last;
  int tokens; /* of all texts together */
  const mg_encoder_want *want;
  bool last_full; /* does anyone want more of the last layer than <s>? */
} batch;

static int start_of(const batch *b, size_t text) { return (int)(b->texts->offset[text] - b->texts->offset[b->first]); }
static int length_of(const batch *b, size_t text) { return (int)(b->texts->offset[text + 1] - b->texts->offset[text]); }

/* c [m, n] += a [m, k] · w [n, k]ᵀ */
static void multiply(int m, int n, int k, const float *a, int a_stride, const float *w, float *c, int c_stride) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, a, a_stride, w, k, 1, c, c_stride);
}

/* Products add to what is there, so a bias (and a residual) costs no pass of its own. */
static void fill_bias(float *c, int stride, const float *bias, int n, int rows) {
  for (int r = 0; r < rows; r++) memcpy(c + (size_t)r * (size_t)stride, bias, (size_t)n * sizeof(float));
}

static void fill_residual(float *c, const float *x, const float *bias, int n, int rows) {
  for (int r = 0; r < rows; r++, c += n, x += n)
    for (int k = 0; k < n; k++) c[k] = x[k] + bias[k];
}

static int keys_of(const batch *b, size_t text) { return mg_keys_of(b->texts, text); }

mg_status mg_check_texts(const mg_encoder *e, const mg_sequences *texts, size_t first, size_t last, int *tokens) {
  const int limit = mg_encoder_position_limit(&e->shape);
  *tokens = (int)(texts->offset[last] - texts->offset[first]);
  for (size_t t = first; t < last; t++) {
    const int length = (int)(texts->offset[t + 1] - texts->offset[t]);
    if (length < 1 || length > limit)
      return mg_fail(MG_ERR_INPUT, "text %zu has %d tokens; the model's position embeddings reach from 1 to %d", t, length,
                     limit);
    if (mg_keys_of(texts, t) < 1 || mg_keys_of(texts, t) > length)
      return mg_fail(MG_ERR_INTERNAL, "text %zu attends to %d of its %d tokens", t, mg_keys_of(texts, t), length);
  }
  return MG_OK;
}

/* Positions count from the padding id + 1, tokens that are the padding id excepted: they stay at it. */
mg_status mg_place_tokens(const mg_encoder *e, const mg_sequences *texts, size_t t, int32_t *word, int32_t *position) {
  int seen = 0;
  for (int64_t k = texts->offset[t]; k < texts->offset[t + 1]; k++) {
    const int32_t id = texts->ids[k];
    if (id < 0 || id >= e->shape.vocabulary || e->row_of[id] < 0)
      return mg_fail(MG_ERR_INPUT, "text %zu has the token id %d, which was not announced", t, id);
    *position++ = id == e->shape.pad ? e->shape.pad : e->shape.pad + ++seen;
    *word++ = e->row_of[id];
  }
  return MG_OK;
}

static mg_status embed(const batch *b) {
  mg_status status = MG_OK;
  const mg_encoder *e = b->e;
  const int h = e->shape.hidden;
  for (size_t t = b->first; t < b->last; t++) {
    int32_t *at = b->s->rows, *position = at + length_of(b, t);
    MG_TRY(mg_place_tokens(e, b->texts, t, at, position), done);
    for (int k = 0; k < length_of(b, t); k++) {
      const float *word = e->words + (size_t)at[k] * (size_t)h;
      const float *place = e->positions + (size_t)position[k] * (size_t)h;
      float *x = b->s->x + (size_t)(start_of(b, t) + k) * (size_t)h;
      for (int d = 0; d < h; d++) x[d] = (word[d] + e->types[d]) + place[d];
    }
  }
  e->rows->layer_norm(b->s->x, b->s->x, e->norm, e->norm_bias, b->tokens, h, e->shape.epsilon);
done:
  return status;
}

/* ---- attention ---- */

/* One head of one text: queries of its own stride, keys and values in qkv. */
static void attend_head(const batch *b, const float *q, int queries, int q_stride, int start, int keys, int head, float *out,
                        float *keep) {
  const mg_encoder *e = b->e;
  const int h = e->shape.hidden, width = h / e->shape.heads, stride = 3 * h;
  const float *k = b->s->qkv + (size_t)start * (size_t)stride + h + head * width, *v = k + h;
  const float scale = 1.0f / sqrtf((float)width);
  const int padded = (keys + 15) / 16 * 16;
  if (keys < LONG_TEXT || queries == 1) {
    e->rows->attend(q, k, v, queries, keys, width, stride, q_stride, scale, out, h, b->s->scores, b->s->packed, keep);
    return;
  }
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, queries, keys, width, 1, q, q_stride, k, stride, 0, b->s->scores,
              padded);
  e->rows->softmax(b->s->scores, queries, keys, padded, scale);
  for (int i = 0; keep != NULL && i < queries; i++)
    memcpy(keep + (size_t)i * (size_t)keys, b->s->scores + i * padded, (size_t)keys * sizeof(float));
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, queries, width, keys, 1, b->s->scores, padded, v, stride, 0, out, h);
}

static mg_status attend_all(const batch *b, int layer) {
  mg_status status = MG_OK;
  const int h = b->e->shape.hidden, heads = b->e->shape.heads, width = h / heads;
  for (size_t t = b->first; t < b->last; t++) {
    const int start = start_of(b, t), length = length_of(b, t), keys = keys_of(b, t);
    for (int head = 0; head < heads; head++)
      attend_head(b, b->s->qkv + (size_t)start * 3 * (size_t)h + head * width, length, 3 * h, start, keys, head,
                  b->s->mixed + (size_t)start * (size_t)h + head * width,
                  b->want->attention != NULL ? b->s->attention + (size_t)head * (size_t)length * (size_t)keys : NULL);
    if (b->want->attention != NULL) MG_TRY(b->want->attention(b->want->context, t, layer, length, keys, b->s->attention), done);
  }
done:
  return status;
}

/* ---- layers ---- */

/* What follows attention, over `rows` rows of x (in place) and of what attention mixed. */
static void finish_layer(const batch *b, const mg_layer *w, float *x, const float *mixed, int rows) {
  const mg_encoder *e = b->e;
  const int h = e->shape.hidden, i = e->shape.intermediate;
  fill_residual(b->s->y, x, w->out_bias, h, rows);
  multiply(rows, h, h, mixed, h, w->out, b->s->y, h);
  e->rows->layer_norm(x, b->s->y, w->norm1, w->norm1_bias, rows, h, e->shape.epsilon);
  fill_bias(b->s->wide, i, w->up_bias, i, rows);
  multiply(rows, i, h, x, h, w->up, b->s->wide, i);
  e->rows->gelu(b->s->wide, (long)rows * i);
  fill_residual(b->s->y, x, w->down_bias, h, rows);
  multiply(rows, h, i, b->s->wide, i, w->down, b->s->y, h);
  e->rows->layer_norm(x, b->s->y, w->norm2, w->norm2_bias, rows, h, e->shape.epsilon);
}

static mg_status run_layer(const batch *b, int layer) {
  mg_status status = MG_OK;
  const mg_layer *w = &b->e->layers[layer - 1];
  const int h = b->e->shape.hidden;
  fill_bias(b->s->qkv, 3 * h, w->qkv_bias, 3 * h, b->tokens);
  multiply(b->tokens, 3 * h, h, b->s->x, h, w->qkv, b->s->qkv, 3 * h);
  MG_TRY(attend_all(b, layer), done);
  finish_layer(b, w, b->s->x, b->s->mixed, b->tokens);
done:
  return status;
}

/* The last layer for <s> alone: keys and values of all tokens, everything else of one token a text. x becomes [texts, hidden].
 */
static void run_last_for_start(const batch *b) {
  const mg_layer *w = &b->e->layers[b->e->shape.layers - 1];
  const int h = b->e->shape.hidden, heads = b->e->shape.heads, width = h / heads, rows = (int)(b->last - b->first);
  const size_t row = (size_t)h;
  fill_bias(b->s->qkv + h, 3 * h, w->qkv_bias + h, 2 * h, b->tokens);
  multiply(b->tokens, 2 * h, h, b->s->x, h, w->qkv + row * row, b->s->qkv + h, 3 * h);
  for (int k = 0; k < rows; k++)
    memmove(b->s->x + (size_t)k * row, b->s->x + (size_t)start_of(b, b->first + (size_t)k) * row, row * sizeof(float));
  fill_bias(b->s->y, h, w->qkv_bias, h, rows); /* the queries */
  multiply(rows, h, h, b->s->x, h, w->qkv, b->s->y, h);
  for (int k = 0; k < rows; k++) {
    const size_t t = b->first + (size_t)k;
    for (int head = 0; head < heads; head++)
      attend_head(b, b->s->y + (size_t)k * row + head * width, 1, h, start_of(b, t), keys_of(b, t), head,
                  b->s->mixed + (size_t)k * row + head * width, NULL);
  }
  finish_layer(b, w, b->s->x, b->s->mixed, rows);
}

/* ---- what is taken out ---- */

static void pool(const batch *b, int layer, size_t t, const float *states, int length) {
  const size_t h = (size_t)b->e->shape.hidden;
  for (int k = 0; k < b->want->layer_count; k++) {
    if (b->want->layers[k] != layer) continue;
    const size_t to = (t * (size_t)b->want->layer_count + (size_t)k) * h;
    if (b->want->cls != NULL) memcpy(b->want->cls + to, states, h * sizeof(float));
    if (b->want->mean == NULL) continue;
    for (size_t d = 0; d < h; d++) {
      double total = 0;
      for (int i = 0; i < length; i++) total += (double)states[(size_t)i * h + d];
      b->want->mean[to + d] = (float)(total / length);
    }
  }
}

static mg_status take_states(const batch *b, int layer, bool starts_only) {
  mg_status status = MG_OK;
  for (size_t t = b->first; t < b->last; t++) {
    const size_t row = starts_only ? t - b->first : (size_t)start_of(b, t);
    const float *states = b->s->x + row * (size_t)b->e->shape.hidden;
    pool(b, layer, t, states, length_of(b, t));
    if (b->want->states != NULL && !starts_only)
      MG_TRY(b->want->states(b->want->context, t, layer, length_of(b, t), states), done);
  }
done:
  return status;
}

/* tanh(dense(<s>)) through out_proj; x holds one row a text. */
static void classify(const batch *b) {
  const mg_encoder *e = b->e;
  const int h = e->shape.hidden, c = e->shape.classes, rows = (int)(b->last - b->first);
  float *logits = b->want->logits + b->first * (size_t)c;
  fill_bias(b->s->y, h, e->dense_bias, h, rows);
  multiply(rows, h, h, b->s->x, h, e->dense, b->s->y, h);
  e->rows->tanh(b->s->y, (long)rows * h);
  fill_bias(logits, c, e->classes_bias, c, rows);
  multiply(rows, c, h, b->s->y, h, e->classes, logits, c);
}

bool mg_wants_all_of_last(const mg_encoder *e, const mg_encoder_want *want) {
  if (want->states != NULL || want->attention != NULL) return true;
  for (int k = 0; k < want->layer_count; k++)
    if (want->mean != NULL && want->layers[k] == e->shape.layers) return true;
  return false;
}

mg_status mg_forward(const mg_encoder *e, mg_scratch *scratch, const mg_sequences *texts, size_t first, size_t last,
                     const mg_encoder_want *want, bool may_poll) {
  mg_status status = MG_OK;
  batch b = {.e = e, .s = scratch, .texts = texts, .first = first, .last = last, .want = want};
  const int layers = e->shape.layers;
  const size_t row = (size_t)e->shape.hidden;
  b.last_full = mg_wants_all_of_last(e, want);
  MG_TRY(mg_check_texts(e, texts, first, last, &b.tokens), done);
  if (b.tokens > mg_batch_capacity(&e->shape, MG_BATCH_TOKENS))
    return mg_fail(MG_ERR_INTERNAL, "a batch of %d tokens", b.tokens);
  MG_TRY(embed(&b), done);
  MG_TRY(take_states(&b, 0, false), done);
  for (int layer = 1; layer <= layers; layer++) {
    if (may_poll && want->poll != NULL) MG_TRY(want->poll(want->context), done);
    const bool starts_only = layer == layers && !b.last_full;
    if (starts_only)
      run_last_for_start(&b);
    else
      MG_TRY(run_layer(&b, layer), done);
    MG_TRY(take_states(&b, layer, starts_only), done);
  }
  if (want->logits == NULL) goto done;
  for (size_t k = 0; b.last_full && k < last - first; k++)
    memmove(scratch->x + k * row, scratch->x + (size_t)start_of(&b, first + k) * row, row * sizeof(float));
  classify(&b);
done:
  return status;
}
