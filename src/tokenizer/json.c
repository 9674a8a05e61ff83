/* tokenizer.json of the Unigram kind. */

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_impl.h"

static mg_status refuse(const mg_tokenizer *t, const char *what, const char *expected) {
  return mg_fail(MG_ERR_INPUT, "%s: %s; %s was expected", t->file, what, expected);
}

/* ---- the parts of the file ---- */

static bool is_type(const json_t *node, const char *type) {
  const char *found = json_string_value(json_object_get(node, "type"));
  return found != NULL && strcmp(found, type) == 0;
}

static bool is_text(const json_t *node, const char *key, const char *text) {
  const char *found = json_string_value(json_object_get(node, key));
  return found != NULL && strcmp(found, text) == 0;
}

/* Replace of " {2,}", Strip: what may follow Precompiled. */
static bool take_step(mg_tokenizer *t, const json_t *step) {
  static const char mark[] = "\xE2\x96\x81";
  if (is_type(step, "Strip")) {
    t->strip_left = t->strip_left || json_is_true(json_object_get(step, "strip_left"));
    t->strip_right = t->strip_right || json_is_true(json_object_get(step, "strip_right"));
    return t->runs == NULL; /* a strip after the replacement would be another order than ours */
  }
  if (!is_type(step, "Replace") || t->runs != NULL || !is_text(json_object_get(step, "pattern"), "Regex", " {2,}"))
    return false;
  if (is_text(step, "content", " ")) t->runs = " ";
  if (is_text(step, "content", mark)) t->runs = mark;
  return t->runs != NULL;
}

/* Precompiled, alone or at the beginning of a sequence. */
static const json_t *find_precompiled(mg_tokenizer *t, const json_t *normalizer) {
  if (is_type(normalizer, "Precompiled")) return normalizer;
  const json_t *steps = json_object_get(normalizer, "normalizers");
  if (!is_type(normalizer, "Sequence") || !is_type(json_array_get(steps, 0), "Precompiled")) return NULL;
  for (size_t k = 1; k < json_array_size(steps); k++)
    if (!take_step(t, json_array_get(steps, k))) return NULL;
  return json_array_get(steps, 0);
}

static int base64_digit(char c) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const char *found = c != '\0' ? strchr(digits, c) : NULL;
  return found != NULL ? (int)(found - digits) : -1;
}

static bool decode_base64(const char *text, mg_text *out) {
  const size_t size = strlen(text);
  if (size % 4 != 0) return false;
  for (size_t k = 0; k < size; k += 4) {
    uint32_t group = 0;
    int bytes = 3;
    for (size_t c = 0; c < 4; c++) {
      const bool padding = k + 4 == size && c >= 2 && text[k + c] == '=' && (c == 3 || text[k + 3] == '=');
      const int digit = padding ? 0 : base64_digit(text[k + c]);
      if (digit < 0) return false;
      bytes -= padding;
      group = group << 6 | (uint32_t)digit;
    }
    const unsigned char decoded[3] = {(unsigned char)(group >> 16), (unsigned char)(group >> 8), (unsigned char)group};
    mg_text_append_bytes(out, decoded, (size_t)bytes);
  }
  return !out->failed;
}

static bool is_metaspace(const json_t *mark) {
  const json_t *older = json_object_get(mark, "add_prefix_space"), *split = json_object_get(mark, "split");
  const bool always =
      json_object_get(mark, "prepend_scheme") != NULL ? is_text(mark, "prepend_scheme", "always") : json_is_true(older);
  return is_type(mark, "Metaspace") && is_text(mark, "replacement", "\xE2\x96\x81") && always && !json_is_false(split);
}

/* Metaspace, alone or after WhitespaceSplit. */
static bool take_pre_tokenizer(mg_tokenizer *t, const json_t *pre) {
  const json_t *steps = json_object_get(pre, "pretokenizers");
  t->any_space_ends = is_type(pre, "Sequence");
  if (!t->any_space_ends) return is_metaspace(pre);
  return json_array_size(steps) == 2 && is_type(json_array_get(steps, 0), "WhitespaceSplit") &&
         is_metaspace(json_array_get(steps, 1));
}

static mg_status add_tokens(mg_tokenizer *t, const json_t *added) {
  mg_status status = MG_OK;
  t->first_id = t->last_id = -1;
  for (size_t k = 0; k < json_array_size(added); k++) {
    const json_t *token = json_array_get(added, k), *id = json_object_get(token, "id");
    const char *spelling = json_string_value(json_object_get(token, "content"));
    if (spelling == NULL || spelling[0] == '\0' || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= t->vocabulary)
      return refuse(t, "an added token without content, or with an id outside the vocabulary", "a list of {id, content}");
    if (json_is_true(json_object_get(token, "single_word")))
      return refuse(t, "an added token is for single words only", "single_word: false");
    MG_TRY(mg_tokenizer_add_special(t, spelling, (int32_t)json_integer_value(id)), done);
    if (strcmp(spelling, "<s>") == 0) t->first_id = (int32_t)json_integer_value(id);
    if (strcmp(spelling, "</s>") == 0) t->last_id = (int32_t)json_integer_value(id);
  }
  if (t->first_id < 0 || t->last_id < 0) status = refuse(t, "no added tokens <s> and </s>", "XLM-RoBERTa's special tokens");
done:
  return status;
}

static mg_status add_vocabulary(mg_tokenizer *t, const json_t *vocabulary) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < json_array_size(vocabulary); k++) {
    const json_t *entry = json_array_get(vocabulary, k), *piece = json_array_get(entry, 0), *score = json_array_get(entry, 1);
    if (!json_is_string(piece) || !json_is_number(score) || json_array_size(entry) != 2 ||
        !(fabs(json_number_value(score)) < 1e6) || json_string_length(piece) == 0)
      return mg_fail(MG_ERR_INPUT, "%s: model.vocab[%zu]: [piece, score] was expected", t->file, k);
    MG_TRY(mg_unigram_add(&t->unigram, json_string_value(piece), json_string_length(piece), json_number_value(score)), done);
  }
  mg_unigram_finish(&t->unigram, t->unknown);
done:
  return status;
}

static mg_status build(mg_tokenizer *t, const json_t *root) {
  mg_status status = MG_OK;
  mg_text map = {0};
  const json_t *unigram = json_object_get(root, "model"), *vocabulary = json_object_get(unigram, "vocab");
  const json_t *unknown = json_object_get(unigram, "unk_id"), *template = json_object_get(root, "post_processor");
  const json_t *precompiled = find_precompiled(t, json_object_get(root, "normalizer"));
  const char *encoded = json_string_value(json_object_get(precompiled, "precompiled_charsmap"));
  if (!is_type(unigram, "Unigram")) return refuse(t, "the model is not Unigram", "the tokenizer of an XLM-RoBERTa");
  if (json_is_true(json_object_get(unigram, "byte_fallback"))) return refuse(t, "byte_fallback is true", "false");
  if (encoded == NULL) return refuse(t, "another normalizer", "Precompiled (then Strip, Replace of ' {2,}')");
  if (!take_pre_tokenizer(t, json_object_get(root, "pre_tokenizer")))
    return refuse(t, "another pre_tokenizer", "WhitespaceSplit and Metaspace, or Metaspace alone (prepend_scheme: always)");
  if (!is_type(template, "TemplateProcessing") || json_array_size(json_object_get(template, "single")) != 3)
    return refuse(t, "another post_processor", "TemplateProcessing of <s> A </s>");
  if (!json_is_array(vocabulary) || json_array_size(vocabulary) < 5 || json_array_size(vocabulary) > 1 << 24)
    return refuse(t, "no vocabulary in model.vocab", "a list of [piece, score]");
  t->vocabulary = (int32_t)json_array_size(vocabulary);
  if (!json_is_integer(unknown) || json_integer_value(unknown) < 0 || json_integer_value(unknown) >= t->vocabulary)
    return refuse(t, "model.unk_id is not in the vocabulary", "the id of <unk>");
  t->unknown = (int32_t)json_integer_value(unknown);
  MG_TRY(add_tokens(t, json_object_get(root, "added_tokens")), cleanup);
  if (!decode_base64(encoded, &map)) {
    status = refuse(t, "precompiled_charsmap is no base64", "a character map of SentencePiece");
    goto cleanup;
  }
  if (!mg_charsmap_open(map.data, map.size, &t->map)) {
    status = mg_fail(MG_ERR_INPUT, "%s: the map of characters is damaged", t->file);
    goto cleanup;
  }
  status = add_vocabulary(t, vocabulary);
cleanup:
  mg_text_free(&map);
  return status;
}

mg_status mg_tokenizer_from_json(mg_tokenizer *t, const char *text, size_t size) {
  json_error_t error;
  json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
  if (root == NULL) return mg_fail(MG_ERR_INPUT, "%s:%d:%d: no valid JSON: %s", t->file, error.line, error.column, error.text);
  const mg_status status = build(t, root);
  json_decref(root);
  return status;
}

bool mg_tokenizer_json_is_foreign(const char *text, size_t size) {
  json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
  const json_t *model = json_object_get(root, "model");
  const bool foreign = json_is_string(json_object_get(model, "type")) && !is_type(model, "Unigram");
  json_decref(root);
  return foreign;
}
