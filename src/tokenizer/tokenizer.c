/* A text's special tokens are cut out first, what is between them is normalised, cut into words and segmented. */

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "tokenizer_impl.h"

static const char JSON_NAME[] = "tokenizer.json", MODEL_NAME[] = "sentencepiece.bpe.model";
enum { LARGEST_FILE = 256 << 20 };

static char *file_in(const char *dir, const char *name) {
  char *path = mg_path_join(dir, name);
  if (path != NULL && mg_path_exists(path)) return path;
  free(path);
  return NULL;
}

bool mg_tokenizer_present(const char *dir) {
  char *json = file_in(dir, JSON_NAME), *model = file_in(dir, MODEL_NAME);
  const bool present = json != NULL || model != NULL;
  free(json), free(model);
  return present;
}

bool mg_tokenizer_is_foreign(const char *dir) {
  char *json = file_in(dir, JSON_NAME), *words = file_in(dir, "vocab.json"), *text = NULL;
  size_t size;
  bool foreign = false;
  if (words == NULL) words = file_in(dir, "vocab.txt");
  if (json != NULL)
    foreign = mg_read_file(json, LARGEST_FILE, &text, &size) == MG_OK && mg_tokenizer_json_is_foreign(text, size);
  else
    foreign = words != NULL && !mg_tokenizer_present(dir);
  free(text), free(json), free(words);
  return foreign;
}

mg_status mg_tokenizer_add_special(mg_tokenizer *t, const char *spelling, int32_t id) {
  mg_special *grown = realloc(t->specials, (t->special_count + 1) * sizeof *grown);
  if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  t->specials = grown;
  grown[t->special_count] = (mg_special){.spelling = mg_strdup(spelling), .id = id};
  return grown[t->special_count++].spelling != NULL ? MG_OK : MG_ERR_NOMEM;
}

/*
 * XLM-R's layout: the four special ids of fairseq, the library's pieces from its fourth on, one further up, the mask. The
 * special tokens are among the pieces as in Hugging Face's: what normalises to the spelling of one becomes it.
 */
static mg_status take_pieces(mg_tokenizer *t, const mg_pieces *from) {
  mg_status status = MG_OK;
  static const char *const first[] = {"<s>", "<pad>", "</s>", "<unk>"};
  const int count = mg_pieces_count(from);
  if (count < 4 || mg_pieces_unknown(from) != 0)
    return mg_fail(MG_ERR_INPUT, "%s: %d pieces with <unk> at %d; XLM-RoBERTa's have <unk> at 0 and more than 3", t->file,
                   count, mg_pieces_unknown(from));
  t->any_space_ends = true;
  t->unknown = 3;
  t->first_id = 0;
  t->last_id = 2;
  t->vocabulary = count + 2;
  for (int32_t k = 0; k < 4; k++) {
    MG_TRY(mg_tokenizer_add_special(t, first[k], k), done);
    MG_TRY(mg_unigram_add(&t->unigram, first[k], strlen(first[k]), 0), done);
  }
  for (int k = 3; k < count; k++) {
    size_t size;
    float score;
    const char *piece = mg_pieces_piece(from, k, &size, &score);
    MG_TRY(mg_unigram_add(&t->unigram, piece, size, (double)score), done);
  }
  MG_TRY(mg_tokenizer_add_special(t, "<mask>", count + 1), done);
  MG_TRY(mg_unigram_add(&t->unigram, "<mask>", 6, 0), done);
  mg_unigram_finish(&t->unigram, t->unknown);
done:
  return status;
}

static mg_status from_model(mg_tokenizer *t, const void *model, size_t size) {
  char message[256] = "";
  const void *map = NULL;
  size_t map_size;
  if (!mg_model_charsmap(model, size, &map, &map_size))
    return mg_fail(MG_ERR_INPUT, "%s: no SentencePiece model (truncated or damaged)", t->file);
  if (!mg_charsmap_open(map, map_size, &t->map)) return mg_fail(MG_ERR_INPUT, "%s: the map of characters is damaged", t->file);
  mg_pieces *from = mg_pieces_open(model, size, message, sizeof message);
  if (from == NULL) return mg_fail(MG_ERR_INPUT, "%s: no SentencePiece model: %s", t->file, message);
  const mg_status status = take_pieces(t, from);
  mg_pieces_close(from);
  return status;
}

static mg_status read_max_length(const char *dir, mg_tokenizer *t) {
  mg_status status = MG_OK;
  char *path = file_in(dir, "tokenizer_config.json"), *text = NULL;
  size_t size;
  json_error_t error;
  if (path == NULL) return MG_OK;
  MG_TRY(mg_read_file(path, LARGEST_FILE, &text, &size), cleanup);
  /* Integers of any size: a missing limit is written as 10^30. */
  json_t *root = json_loadb(text, size, JSON_DECODE_INT_AS_REAL, &error);
  if (root == NULL) {
    status = mg_fail(MG_ERR_INPUT, "%s:%d:%d: no valid JSON: %s", path, error.line, error.column, error.text);
    goto cleanup;
  }
  const double length = json_number_value(json_object_get(root, "model_max_length"));
  t->max_length = length >= 2 && length <= 1e6 ? (int32_t)length : 0;
  json_decref(root);
cleanup:
  free(text), free(path);
  return status;
}

mg_status mg_tokenizer_open(const char *dir, mg_tokenizer **tokenizer) {
  mg_status status = MG_OK;
  char *text = NULL;
  size_t size;
  mg_tokenizer *t = mg_alloc_zero(1, sizeof *t);
  if (t == NULL) return MG_ERR_NOMEM;
  t->file = file_in(dir, JSON_NAME);
  const bool json = t->file != NULL;
  if (!json) t->file = file_in(dir, MODEL_NAME);
  if (t->file == NULL) {
    status = mg_fail(MG_ERR_INPUT, "%s: no tokenizer: neither %s nor %s is there", dir, JSON_NAME, MODEL_NAME);
    goto failed;
  }
  MG_TRY(mg_read_file(t->file, LARGEST_FILE, &text, &size), failed);
  t->hash = mg_hash(text, size);
  MG_TRY(json ? mg_tokenizer_from_json(t, text, size) : from_model(t, text, size), failed);
  MG_TRY(read_max_length(dir, t), failed);
  free(text);
  *tokenizer = t;
  return MG_OK;
failed:
  free(text);
  mg_tokenizer_close(&t);
  return status;
}

void mg_tokenizer_close(mg_tokenizer **tokenizer) {
  mg_tokenizer *t = *tokenizer;
  if (t == NULL) return;
  mg_unigram_free(&t->unigram);
  for (size_t k = 0; k < t->special_count; k++) free(t->specials[k].spelling);
  free(t->specials), free(t->map.bytes), free(t->file), free(t);
  *tokenizer = NULL;
}

int32_t mg_tokenizer_vocabulary(const mg_tokenizer *t) { return t->vocabulary; }
int32_t mg_tokenizer_max_length(const mg_tokenizer *t) { return t->max_length; }
uint64_t mg_tokenizer_hash(const mg_tokenizer *t) { return t->hash; }
const char *mg_tokenizer_file(const mg_tokenizer *t) { return t->file; }

/* ---- encoding ---- */

typedef struct output {
  int32_t *ids;
  int32_t count, room; /* room leaves one place for the last id */
} output;

static void put(output *out, int32_t id) {
  if (out->count < out->room) out->ids[out->count++] = id;
}

/* Words begin with ▁: at the start, after spaces, and wherever one is written. */
static bool encode_words(const mg_tokenizer *t, const mg_text *plain, output *out) {
  static const char mark[] = "\xE2\x96\x81";
  enum { MARK = 3 };
  const char *at = plain->data, *end = plain->data + plain->size;
  char *word = mg_alloc(plain->size + MARK, 1);
  int32_t *ids = mg_alloc(plain->size + MARK, sizeof *ids);
  bool ok = word != NULL && ids != NULL;
  while (ok && at < end && out->count < out->room) {
    if (*at == ' ') {
      at++;
      continue;
    }
    size_t size = MARK, count;
    memcpy(word, mark, MARK);
    if (end - at >= MARK && memcmp(at, mark, MARK) == 0) at += MARK;
    while (at < end && *at != ' ' && !(end - at >= MARK && memcmp(at, mark, MARK) == 0)) word[size++] = *at++;
    ok = mg_unigram_encode(&t->unigram, word, size, ids, &count);
    for (size_t k = 0; ok && k < count; k++) put(out, ids[k]);
  }
  free(word), free(ids);
  return ok;
}

static mg_status encode_plain(const mg_tokenizer *t, const char *text, size_t size, output *out) {
  mg_text plain = {0};
  if (size == 0 || out->count == out->room) return MG_OK;
  mg_tokenizer_normalize(t, text, size, &plain);
  const bool ok = !plain.failed && (plain.size == 0 || encode_words(t, &plain, out));
  mg_text_free(&plain);
  return ok ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory for a text of %zu bytes", size);
}

/* The longest special token that begins here. */
static const mg_special *special_at(const mg_tokenizer *t, const char *text, size_t left, size_t *length) {
  const mg_special *found = NULL;
  *length = 0;
  for (size_t k = 0; k < t->special_count; k++) {
    const size_t n = strlen(t->specials[k].spelling);
    if (n <= *length || n > left || memcmp(text, t->specials[k].spelling, n) != 0) continue;
    found = &t->specials[k];
    *length = n;
  }
  return found;
}

mg_status mg_tokenizer_encode(const mg_tokenizer *t, const char *text, size_t size, int32_t max_length, int32_t *ids,
                              int32_t *count) {
  mg_status status = MG_OK;
  output out = {.ids = ids, .room = max_length - 1};
  if (max_length < 2) return mg_fail(MG_ERR_INTERNAL, "no room for a text's special tokens");
  if (!mg_valid_utf8(text, size)) return mg_fail(MG_ERR_INPUT, "the text is no valid UTF-8");
  put(&out, t->first_id);
  size_t plain = 0, at = 0;
  while (at < size) {
    size_t length;
    const mg_special *special = special_at(t, text + at, size - at, &length);
    if (special == NULL) {
      at++;
      continue;
    }
    MG_TRY(encode_plain(t, text + plain, at - plain, &out), done);
    put(&out, special->id);
    plain = at += length;
  }
  MG_TRY(encode_plain(t, text + plain, size - plain, &out), done);
  ids[out.count] = t->last_id;
  *count = out.count + 1;
done:
  return status;
}
