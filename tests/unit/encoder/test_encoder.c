/* The encoder against what transformers computes (tests/oracle/encoder.py), against itself, and against configs that lie. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <math.h>

#include "mergegrid/encoder.h"
#include "mergegrid/family.h"
#include "test_device.h"

static const double TOLERANCE = 2e-5; /* of max |a - b| / max |b|, a text at a time */

/* ---- what the oracle wrote ---- */

typedef struct expected {
  mg_tensor_info *tensors;
  size_t count;
  int fd;
} expected;

static void *load(const expected *from, const char *name, size_t size) {
  for (size_t k = 0; k < from->count; k++) {
    if (strcmp(from->tensors[k].name, name) != 0) continue;
    void *data = malloc((size_t)from->tensors[k].numel * size + 1);
    assert_non_null(data);
    assert_int_equal(mg_dtype_size(from->tensors[k].dtype), size);
    assert_int_equal(mg_read_at(from->fd, "expected", data, (size_t)from->tensors[k].numel * size, from->tensors[k].offset),
                     MG_OK);
    return data;
  }
  return NULL;
}

typedef struct fixture {
  mg_encoder_shape shape;
  mg_checkpoint_weights *opened;
  mg_weights weights;
  mg_sequences texts;
  int32_t *ids;
  int64_t *offset;
  float *states, *logits, *attention;
  int32_t *tokens;
  size_t token_count;
} fixture;

static int by_number(const void *a, const void *b) {
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

static void announce_tokens(fixture *f) {
  const size_t n = (size_t)f->offset[f->texts.count];
  f->tokens = malloc(n * sizeof *f->tokens);
  assert_non_null(f->tokens);
  memcpy(f->tokens, f->ids, n * sizeof *f->tokens);
  qsort(f->tokens, n, sizeof *f->tokens, by_number);
  for (size_t k = 0; k < n; k++)
    if (f->token_count == 0 || f->tokens[f->token_count - 1] != f->tokens[k]) f->tokens[f->token_count++] = f->tokens[k];
}

static void open_fixture(const char *name, const char *checkpoint, fixture *f) {
  char path[1024];
  *f = (fixture){0};
  snprintf(path, sizeof path, "%s/encoder/%s/expected.safetensors", MG_TEST_DATA, name);
  expected e = {.fd = open(path, O_RDONLY)};
  assert_true(e.fd >= 0);
  assert_int_equal(mg_safetensors_read_header(path, 0, &e.tensors, &e.count), MG_OK);
  f->ids = load(&e, "ids", sizeof *f->ids);
  f->offset = load(&e, "offset", sizeof *f->offset);
  f->states = load(&e, "states", sizeof *f->states);
  f->logits = load(&e, "logits", sizeof *f->logits);
  f->attention = load(&e, "attention", sizeof *f->attention);
  for (size_t k = 0; k < e.count; k++) {
    if (strcmp(e.tensors[k].name, "offset") == 0) f->texts.count = (size_t)e.tensors[k].numel - 1;
    free(e.tensors[k].name);
  }
  free(e.tensors);
  close(e.fd);
  f->texts.ids = f->ids;
  f->texts.offset = f->offset;
  announce_tokens(f);
  snprintf(path, sizeof path, "%s/%s", MG_TEST_DATA, checkpoint);
  assert_int_equal(mg_encoder_shape_read(path, &f->shape), MG_OK);
  assert_int_equal(mg_checkpoint_weights_open(path, &f->opened, &f->weights), MG_OK);
  assert_int_equal(mg_encoder_shape_check(&f->shape, &f->weights), MG_OK);
  assert_int_equal(f->shape.classes > 0, f->logits != NULL);
}

static void close_fixture(fixture *f) {
  mg_checkpoint_weights_close(&f->opened);
  free(f->ids), free(f->offset), free(f->states), free(f->logits), free(f->attention), free(f->tokens);
}

static mg_encoder *make_encoder(const fixture *f, int threads) {
  mg_encoder *encoder = NULL;
  assert_int_equal(mg_encoder_create(&f->shape, f->tokens, f->token_count, threads, test_device(), &encoder), MG_OK);
  assert_int_equal(mg_encoder_load(encoder, &f->weights), MG_OK);
  return encoder;
}

static void compare(const char *what, const float *got, const float *want, size_t n) {
  double worst = 0, scale = 0;
  for (size_t k = 0; k < n; k++) {
    worst = fmax(worst, fabs((double)got[k] - want[k]));
    scale = fmax(scale, fabs((double)want[k]));
    if (!isfinite(got[k])) fail_msg("%s: not finite", what);
  }
  if (worst > TOLERANCE * scale) fail_msg("%s: %g off at a scale of %g", what, worst, scale);
}

/* ---- against transformers ---- */

typedef struct watch {
  const fixture *f;
  int seen;
} watch;

static mg_status compare_states(void *context, size_t text, int layer, int length, const float *states) {
  watch *w = context;
  const fixture *f = w->f;
  const size_t h = (size_t)f->shape.hidden, tokens = (size_t)f->offset[f->texts.count];
  char what[64];
  snprintf(what, sizeof what, "text %zu, layer %d", text, layer);
  assert_int_equal(length, f->offset[text + 1] - f->offset[text]);
  compare(what, states, f->states + ((size_t)layer * tokens + (size_t)f->offset[text]) * h, (size_t)length * h);
  w->seen++;
  return MG_OK;
}

static mg_status compare_attention(void *context, size_t text, int layer, int length, int keys, const float *probabilities) {
  const fixture *f = ((watch *)context)->f;
  assert_int_equal(keys, length);
  const size_t square = (size_t)length * (size_t)length * (size_t)f->shape.heads;
  if (text == 0 && f->attention != NULL)
    compare("attention", probabilities, f->attention + (size_t)(layer - 1) * square, square);
  return MG_OK;
}

static void against_transformers(const char *name, const char *checkpoint) {
  fixture f;
  open_fixture(name, checkpoint, &f);
  mg_encoder *encoder = make_encoder(&f, 1);
  watch w = {.f = &f};
  const size_t n = f.texts.count, c = (size_t)f.shape.classes, h = (size_t)f.shape.hidden;
  float *logits = malloc((n * c + 1) * sizeof *logits), *cls = malloc(n * 2 * h * sizeof *cls);
  float *mean = malloc(n * 2 * h * sizeof *mean);
  const int layers[] = {f.shape.layers, 0};
  mg_encoder_want want = {.logits = c > 0 ? logits : NULL,
                          .context = &w,
                          .states = compare_states,
                          .attention = compare_attention,
                          .layers = layers,
                          .layer_count = 2,
                          .cls = cls,
                          .mean = mean};
  assert_int_equal(mg_encoder_run(encoder, &f.texts, 0, n, &want), MG_OK);
  assert_int_equal(w.seen, (int)n * (f.shape.layers + 1));
  for (size_t t = 0; t < n && c > 0; t++) compare("logits", logits + t * c, f.logits + t * c, c);
  const size_t tokens = (size_t)f.offset[n];
  for (size_t t = 0; t < n; t++) {
    const float *last = f.states + ((size_t)f.shape.layers * tokens + (size_t)f.offset[t]) * h;
    compare("<s>", cls + t * 2 * h, last, h);
    for (size_t d = 0; d < h; d++) {
      double total = 0;
      const size_t length = (size_t)(f.offset[t + 1] - f.offset[t]);
      for (size_t k = 0; k < length; k++) total += (double)last[k * h + d];
      assert_true(fabs(total / (double)length - (double)mean[t * 2 * h + d]) < 1e-4);
    }
  }
  /* the last layer for <s> alone gives the same */
  memset(logits, 0, n * c * sizeof *logits);
  const mg_encoder_want starts = {.logits = c > 0 ? logits : NULL, .layers = layers, .layer_count = 2, .cls = cls};
  assert_int_equal(mg_encoder_run(encoder, &f.texts, 0, n, &starts), MG_OK);
  for (size_t t = 0; t < n; t++) {
    if (c > 0) compare("logits of <s> alone", logits + t * c, f.logits + t * c, c);
    compare("<s> alone", cls + t * 2 * h, f.states + ((size_t)f.shape.layers * tokens + (size_t)f.offset[t]) * h, h);
    compare("<s> of the embeddings", cls + (t * 2 + 1) * h, f.states + (size_t)f.offset[t] * h, h);
  }
  free(logits), free(cls), free(mean);
  mg_encoder_destroy(&encoder);
  close_fixture(&f);
}

/* ---- padding ---- */

/* What is behind a text does not change it. */
static mg_status compare_padded_states(void *context, size_t text, int layer, int length, const float *states) {
  watch *w = context;
  const fixture *f = w->f;
  const size_t h = (size_t)f->shape.hidden, tokens = (size_t)f->offset[f->texts.count];
  const int64_t own = f->offset[text + 1] - f->offset[text];
  assert_true(length >= own);
  compare("states of a padded text", states, f->states + ((size_t)layer * tokens + (size_t)f->offset[text]) * h,
          (size_t)own * h);
  w->seen++;
  return MG_OK;
}

static mg_status check_padded_attention(void *context, size_t text, int layer, int length, int keys,
                                        const float *probabilities) {
  const fixture *f = ((watch *)context)->f;
  (void)layer;
  assert_int_equal(keys, f->offset[text + 1] - f->offset[text]);
  for (int row = 0; row < f->shape.heads * length; row++) { /* padding asks, and is told of the text alone */
    double sum = 0;
    for (int k = 0; k < keys; k++) sum += (double)probabilities[row * keys + k];
    assert_true(fabs(sum - 1) < 1e-5);
  }
  return MG_OK;
}

static void pad_all(const fixture *f, int64_t length, int32_t *ids, int64_t *offset, int32_t *keys) {
  for (size_t t = 0; t < f->texts.count; t++) {
    keys[t] = (int32_t)(f->offset[t + 1] - f->offset[t]);
    offset[t + 1] = offset[t] + length;
    for (int64_t k = 0; k < length; k++) ids[offset[t] + k] = k < keys[t] ? f->ids[f->offset[t] + k] : f->shape.pad;
  }
}

static void padded_to_the_longest(const char *name, const char *checkpoint) {
  fixture f;
  open_fixture(name, checkpoint, &f);
  const size_t n = f.texts.count, c = (size_t)f.shape.classes;
  int64_t longest = 0;
  for (size_t t = 0; t < n; t++)
    if (f.offset[t + 1] - f.offset[t] > longest) longest = f.offset[t + 1] - f.offset[t];
  int32_t *ids = malloc(n * (size_t)longest * sizeof *ids), *keys = malloc(n * sizeof *keys);
  int64_t *offset = calloc(n + 1, sizeof *offset);
  float *logits = malloc(n * c * sizeof *logits);
  pad_all(&f, longest, ids, offset, keys);
  f.tokens[f.token_count++] = f.shape.pad; /* ids come more than once, so there is room */
  qsort(f.tokens, f.token_count, sizeof *f.tokens, by_number);
  size_t distinct = 0;
  for (size_t k = 0; k < f.token_count; k++)
    if (k == 0 || f.tokens[k] != f.tokens[k - 1]) f.tokens[distinct++] = f.tokens[k];
  f.token_count = distinct;
  mg_encoder *encoder = make_encoder(&f, 2);
  watch w = {.f = &f};
  const mg_sequences texts = {.count = n, .ids = ids, .offset = offset, .keys = keys};
  mg_encoder_want want = {
      .logits = logits, .context = &w, .states = compare_padded_states, .attention = check_padded_attention};
  assert_int_equal(mg_encoder_run(encoder, &texts, 0, n, &want), MG_OK);
  assert_int_equal(w.seen, (int)n * (f.shape.layers + 1));
  for (size_t t = 0; t < n; t++) compare("logits of a padded text", logits + t * c, f.logits + t * c, c);
  want = (mg_encoder_want){.logits = logits};
  assert_int_equal(mg_encoder_run(encoder, &texts, 0, n, &want), MG_OK);
  for (size_t t = 0; t < n; t++) compare("logits of padded <s> alone", logits + t * c, f.logits + t * c, c);
  keys[0] = 0;
  assert_int_equal(mg_encoder_run(encoder, &texts, 0, n, &want), MG_ERR_INTERNAL);
  free(ids), free(keys), free(offset), free(logits);
  mg_encoder_destroy(&encoder);
  close_fixture(&f);
}

static void test_padding(void **state) {
  (void)state;
  for (size_t k = 0; k < 2; k++) {
    setenv("MERGEGRID_KERNEL", k == 0 ? "portable" : "avx2", 1);
    padded_to_the_longest("odd-heads", "encoder/odd-heads");
    padded_to_the_longest("long", "encoder/long");
  }
  unsetenv("MERGEGRID_KERNEL");
}

static const char *const KERNELS[] = {"portable", "avx2", "avx512"}; /* where the machine lacks one: its best */

static void test_transformers(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof KERNELS / sizeof *KERNELS; k++) {
    setenv("MERGEGRID_KERNEL", KERNELS[k], 1);
    against_transformers("odd-heads", "encoder/odd-heads");
    against_transformers("one-layer", "encoder/one-layer");
    against_transformers("long", "encoder/long");
    against_transformers("bare", "encoder/bare");
    against_transformers("demo", "emoji48/xlm-roberta-emoji_k_sw-KE");
  }
  unsetenv("MERGEGRID_KERNEL");
}

/* ---- against itself ---- */

static void logits_of(const char *kernel, int threads, float *logits) {
  fixture f;
  if (kernel != NULL) setenv("MERGEGRID_KERNEL", kernel, 1);
  open_fixture("long", "encoder/long", &f);
  mg_encoder *encoder = make_encoder(&f, threads);
  const mg_encoder_want want = {.logits = logits};
  /* batch by batch, as ranks would */
  for (size_t first = 0; first < f.texts.count;) {
    const size_t end = mg_batch_end(&f.texts, first, mg_batch_tokens(test_device()));
    assert_int_equal(mg_encoder_run(encoder, &f.texts, first, end, &want), MG_OK);
    first = end;
  }
  mg_encoder_destroy(&encoder);
  close_fixture(&f);
  unsetenv("MERGEGRID_KERNEL");
}

static void test_same_bits(void **state) {
  (void)state;
  enum { COUNT = 7 * 5 };
  float first[COUNT], other[COUNT];
  for (size_t k = 0; k < sizeof KERNELS / sizeof *KERNELS; k++) { /* each whatever the threads */
    logits_of(KERNELS[k], 1, first);
    logits_of(KERNELS[k], 3, other);
    assert_memory_equal(first, other, sizeof first);
  }
  logits_of(NULL, 1, first);
  fixture f;
  open_fixture("long", "encoder/long", &f);
  mg_encoder *encoder = make_encoder(&f, 2);
  const mg_encoder_want want = {.logits = other};
  assert_int_equal(mg_encoder_run(encoder, &f.texts, 0, f.texts.count, &want), MG_OK);
  assert_memory_equal(first, other, sizeof first);
  mg_encoder_destroy(&encoder);
  close_fixture(&f);
}

/* ---- bad input ---- */

static void test_bad_texts(void **state) {
  (void)state;
  fixture f;
  open_fixture("one-layer", "encoder/one-layer", &f);
  mg_encoder *encoder = make_encoder(&f, 2);
  float logits[4];
  const mg_encoder_want want = {.logits = logits};
  int32_t ids[40] = {0};
  const int64_t too_long[] = {0, 33}, empty[] = {0, 0}, one[] = {0, 1};
  mg_sequences texts = {.count = 1, .ids = ids, .offset = too_long};
  assert_int_equal(mg_encoder_run(encoder, &texts, 0, 1, &want), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "33 tokens; the model's position embeddings reach from 1 to 32"));
  texts.offset = empty;
  assert_int_equal(mg_encoder_run(encoder, &texts, 0, 1, &want), MG_ERR_INPUT);
  texts.offset = one;
  ids[0] = 40;
  assert_int_equal(mg_encoder_run(encoder, &texts, 0, 1, &want), MG_ERR_INPUT);
  mg_encoder_destroy(&encoder);
  const int32_t outside[] = {3, 40};
  assert_int_equal(mg_encoder_create(&f.shape, outside, 2, 1, test_device(), &encoder), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "the word embeddings have 40 rows"));
  close_fixture(&f);
}

static void expect_config_error(const char *json, const char *message) {
  char dir[64], path[128];
  mg_encoder_shape shape;
  snprintf(dir, sizeof dir, "/tmp/mergegrid-encoder-%d", (int)getpid());
  mkdir(dir, 0700);
  snprintf(path, sizeof path, "%s/config.json", dir);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(json, file);
  fclose(file);
  const mg_status status = mg_encoder_shape_read(dir, &shape);
  unlink(path);
  rmdir(dir);
  assert_int_equal(status, MG_ERR_INPUT);
  if (strstr(mg_error_message(), message) == NULL || strstr(mg_error_message(), "config.json") == NULL)
    fail_msg("'%s' was expected in the message '%s'", message, mg_error_message());
}

static void test_bad_configs(void **state) {
  (void)state;
#define START "{\"model_type\": \"xlm-roberta\", \"hidden_size\": 24, \"num_hidden_layers\": 1, \"intermediate_size\": 9, "
#define END   "\"max_position_embeddings\": 34, \"vocab_size\": 40}"
  expect_config_error("{", "no valid JSON");
  expect_config_error("[]", "a JSON object was expected");
  expect_config_error("{}", "model_type is missing");
  expect_config_error("{\"model_type\": \"bert\"}", "model_type is 'bert'; the encoder computes xlm-roberta or roberta only");
  expect_config_error(START "\"hidden_act\": \"gelu_new\", " END, "hidden_act is 'gelu_new'");
  expect_config_error(START "\"position_embedding_type\": \"relative_key\", " END, "position_embedding_type");
  expect_config_error(START END, "num_attention_heads: a whole number was expected, there is none");
  expect_config_error(START "\"num_attention_heads\": 0, " END, "num_attention_heads is 0");
  expect_config_error(START "\"num_attention_heads\": 5, " END, "5 attention heads do not divide the hidden size 24");
  expect_config_error(START "\"num_attention_heads\": 3, \"pad_token_id\": 40, " END, "outside the vocabulary");
  expect_config_error(START "\"num_attention_heads\": 3, \"pad_token_id\": 33, " END, "no room for a text");
  expect_config_error(START "\"num_attention_heads\": 3, \"layer_norm_eps\": -1, " END, "layer_norm_eps");
  expect_config_error(START "\"num_attention_heads\": 99999999999, " END, "num_attention_heads is 99999999999");
}

static void test_lying_shape(void **state) {
  (void)state;
  fixture f;
  open_fixture("one-layer", "encoder/one-layer", &f);
  mg_encoder_shape lie = f.shape;
  lie.layers = 2;
  lie.intermediate = 18;
  lie.vocabulary = 41;
  assert_int_equal(mg_encoder_shape_check(&lie, &f.weights), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "encoder.layer.1.attention.self.query.weight: is missing"));
  assert_non_null(strstr(mg_error_message(), "encoder.layer.0.intermediate.dense.bias: [17"));
  assert_non_null(strstr(mg_error_message(), "embeddings.word_embeddings.weight: [40, 24]"));
  close_fixture(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_transformers), cmocka_unit_test(test_same_bits),   cmocka_unit_test(test_bad_texts),
      cmocka_unit_test(test_bad_configs),  cmocka_unit_test(test_lying_shape), cmocka_unit_test(test_padding),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
