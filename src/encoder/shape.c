/* config.json against what this encoder computes, and against the tensors that are there. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoder_impl.h"
#include "mergegrid/io.h"
#include "mergegrid/text.h"

enum { LARGEST_CONFIG = 64 << 20 };

static mg_status read_count(const char *path, const json_t *root, const char *key, int most, int *value) {
  const json_t *node = json_object_get(root, key);
  if (!json_is_integer(node))
    return mg_fail(MG_ERR_INPUT, "%s: %s: a whole number was expected, %s", path, key,
                   node ? "found another type" : "there is none");
  const json_int_t number = json_integer_value(node);
  if (number < 1 || number > most)
    return mg_fail(MG_ERR_INPUT, "%s: %s is %lld; a number from 1 to %d was expected", path, key, (long long)number, most);
  *value = (int)number;
  return MG_OK;
}

static mg_status expect_word(const char *path, const json_t *root, const char *key, const char *const *words, bool required) {
  const json_t *node = json_object_get(root, key);
  if (node == NULL && !required) return MG_OK;
  const char *found = json_string_value(node);
  mg_text known = {0};
  for (size_t k = 0; words[k] != NULL; k++) {
    if (found != NULL && strcmp(found, words[k]) == 0) {
      mg_text_free(&known);
      return MG_OK;
    }
    mg_text_append(&known, "%s%s", k ? " or " : "", words[k]);
  }
  const mg_status status =
      mg_fail(MG_ERR_INPUT, "%s: %s is %s%s%s; the encoder computes %s only", path, key, found != NULL ? "'" : "",
              found != NULL ? found : "missing or no string", found != NULL ? "'" : "", known.data != NULL ? known.data : "");
  mg_text_free(&known);
  return status;
}

static mg_status read_shape(const char *path, const json_t *root, mg_encoder_shape *shape) {
  mg_status status = MG_OK;
  static const char *const types[] = {"xlm-roberta", "roberta", NULL}, *const acts[] = {"gelu", NULL},
                           *const positions[] = {"absolute", NULL};
  MG_TRY(expect_word(path, root, "model_type", types, true), done);
  MG_TRY(expect_word(path, root, "hidden_act", acts, false), done);
  MG_TRY(expect_word(path, root, "position_embedding_type", positions, false), done);
  MG_TRY(read_count(path, root, "hidden_size", 1 << 16, &shape->hidden), done);
  MG_TRY(read_count(path, root, "num_hidden_layers", 1 << 10, &shape->layers), done);
  MG_TRY(read_count(path, root, "num_attention_heads", 1 << 12, &shape->heads), done);
  MG_TRY(read_count(path, root, "intermediate_size", 1 << 18, &shape->intermediate), done);
  MG_TRY(read_count(path, root, "max_position_embeddings", 1 << 16, &shape->positions), done);
  MG_TRY(read_count(path, root, "vocab_size", 1 << 24, &shape->vocabulary), done);
  shape->pad = 1;
  if (json_object_get(root, "pad_token_id") != NULL) MG_TRY(read_count(path, root, "pad_token_id", 1 << 24, &shape->pad), done);
  const json_t *epsilon = json_object_get(root, "layer_norm_eps");
  shape->epsilon = epsilon != NULL ? (float)json_number_value(epsilon) : 1e-12f;
  if (!(shape->epsilon > 0 && shape->epsilon < 1))
    status = mg_fail(MG_ERR_INPUT, "%s: layer_norm_eps: a number between 0 and 1 was expected", path);
  else if (shape->hidden % shape->heads != 0)
    status =
        mg_fail(MG_ERR_INPUT, "%s: %d attention heads do not divide the hidden size %d", path, shape->heads, shape->hidden);
  else if (shape->pad >= shape->vocabulary)
    status = mg_fail(MG_ERR_INPUT, "%s: pad_token_id %d is outside the vocabulary of %d", path, shape->pad, shape->vocabulary);
  else if (mg_encoder_position_limit(shape) < 2)
    status = mg_fail(MG_ERR_INPUT, "%s: max_position_embeddings %d leaves no room for a text behind the padding id %d", path,
                     shape->positions, shape->pad);
done:
  return status;
}

mg_status mg_encoder_shape_read(const char *dir, mg_encoder_shape *shape) {
  mg_status status = MG_OK;
  char *text = NULL, *path = mg_path_join(dir, "config.json");
  size_t size;
  json_error_t error;
  json_t *root = NULL;
  *shape = (mg_encoder_shape){0};
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_read_file(path, LARGEST_CONFIG, &text, &size), cleanup);
  root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
  if (root == NULL)
    status = mg_fail(MG_ERR_INPUT, "%s:%d:%d: no valid JSON: %s", path, error.line, error.column, error.text);
  else if (!json_is_object(root))
    status = mg_fail(MG_ERR_INPUT, "%s: a JSON object was expected", path);
  else
    status = read_shape(path, root, shape);
cleanup:
  json_decref(root);
  free(text);
  free(path);
  return status;
}

int mg_encoder_position_limit(const mg_encoder_shape *shape) { return shape->positions - shape->pad - 1; }

static void hold(const mg_weights *weights, const char *name, int64_t rows, int64_t columns, mg_text *faults) {
  int ndim;
  int64_t shape[8] = {0};
  const int dims = columns > 0 ? 2 : 1;
  if (!weights->find(weights->context, name, &ndim, shape))
    mg_text_append(faults, "\n  %s: is missing", name);
  else if (ndim != dims || shape[0] != rows || (dims == 2 && shape[1] != columns))
    mg_text_append(faults, "\n  %s: [%lld%s%lld] of %d dimensions, where config.json means [%lld, %lld]", name,
                   (long long)shape[0], ndim > 1 ? ", " : "; ", (long long)shape[1], ndim, (long long)rows, (long long)columns);
}

mg_status mg_encoder_shape_check(mg_encoder_shape *shape, const mg_weights *weights) {
  mg_status status = MG_OK;
  mg_text faults = {0};
  char name[MG_WEIGHT_NAME];
  const int64_t h = shape->hidden;
  int64_t found[8];
  int ndim;
  for (size_t k = 0; k < MG_EMBEDDING_WEIGHTS; k++) {
    const int64_t rows[] = {shape->vocabulary, shape->positions, 0, h, h};
    if (k != MG_TOKEN_TYPES) hold(weights, mg_embedding_weights[k], rows[k], k < MG_TOKEN_TYPES ? h : 0, &faults);
  }
  /* one row or more of types; the first is used */
  if (!weights->find(weights->context, mg_embedding_weights[MG_TOKEN_TYPES], &ndim, found) || ndim != 2 || found[0] < 1 ||
      found[1] != h)
    mg_text_append(&faults, "\n  %s: [1, %lld] was expected", mg_embedding_weights[MG_TOKEN_TYPES], (long long)h);
  for (int l = 0; l < shape->layers; l++)
    for (size_t k = 0; k < MG_LAYER_WEIGHTS; k++) {
      const mg_weight_size size = mg_layer_weight_size(shape, k);
      snprintf(name, sizeof name, "encoder.layer.%d.%s", l, mg_layer_weights[k]);
      hold(weights, name, size.rows, size.columns, &faults);
    }
  shape->classes = 0;
  if (weights->find(weights->context, "classifier.out_proj.weight", &ndim, found)) {
    hold(weights, "classifier.dense.weight", h, h, &faults);
    hold(weights, "classifier.dense.bias", h, 0, &faults);
    hold(weights, "classifier.out_proj.weight", found[0], h, &faults);
    hold(weights, "classifier.out_proj.bias", found[0], 0, &faults);
    if (found[0] >= 1 && found[0] <= 1 << 20) shape->classes = (int)found[0];
  }
  if (faults.failed)
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
  else if (faults.size > 0)
    status = mg_fail(MG_ERR_INPUT, "%s: the tensors are not those of the encoder that config.json describes:%s",
                     weights->origin, faults.data);
  mg_text_free(&faults);
  return status;
}

double mg_encoder_flops(const mg_encoder_shape *shape, int length, bool last_full) {
  const double h = shape->hidden, i = shape->intermediate, n = length;
  const double full = n * 2 * h * (4 * h + 2 * i) + 4 * n * n * h;
  const double last = last_full ? full : n * 2 * h * 2 * h + 2 * h * (2 * h + 2 * i) + 4 * n * h;
  return full * (shape->layers - 1) + last + (shape->classes > 0 ? 2 * h * (h + shape->classes) : 0);
}
