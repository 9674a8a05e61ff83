#ifndef MERGEGRID_TOKENIZER_IMPL_H
#define MERGEGRID_TOKENIZER_IMPL_H

#include "mergegrid/text.h"
#include "mergegrid/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the SentencePiece library behind a C face: it reads models ---- */

typedef struct mg_pieces mg_pieces;

/** A model from its protocol buffer. NULL on failure, with the library's words in message. */
mg_pieces *mg_pieces_open(const void *model, size_t size, char *message, size_t message_size);
void mg_pieces_close(mg_pieces *pieces);
int mg_pieces_count(const mg_pieces *pieces);
int mg_pieces_unknown(const mg_pieces *pieces);
/** A piece's bytes, owned by pieces, and its score. */
const char *mg_pieces_piece(const mg_pieces *pieces, int id, size_t *size, float *score);
#ifdef __cplusplus
}
#endif

/** A token that is itself wherever a text has its spelling. */
typedef struct mg_special {
  char *spelling;
  int32_t id;
} mg_special;

/** A precompiled map of characters: a double-array trie whose leaves are indexes into a heap of strings. */
typedef struct mg_charsmap {
  char *bytes; /**< owned */
  const char *units, *strings;
  size_t unit_count;
} mg_charsmap;

typedef struct mg_piece {
  char *bytes; /**< owned */
  uint32_t size;
  int32_t id;
  double score; /**< log probability */
} mg_piece;

/** A unigram model: pieces are added by rising id, then sorted by mg_unigram_finish. */
typedef struct mg_unigram {
  mg_piece *pieces;
  size_t count, capacity;
  size_t first[257]; /**< pieces that begin with byte c: first[c] … first[c + 1] − 1 */
  int32_t unknown;
  double unknown_score;
} mg_unigram;

mg_status mg_unigram_add(mg_unigram *unigram, const char *piece, size_t size, double score);
void mg_unigram_finish(mg_unigram *unigram, int32_t unknown);
void mg_unigram_free(mg_unigram *unigram);
/** Segments a word (UTF-8, size > 0) into at most size ids. Thread-safe. false: out of memory. */
bool mg_unigram_encode(const mg_unigram *unigram, const char *word, size_t size, int32_t *ids, size_t *count);

struct mg_tokenizer {
  char *file;
  uint64_t hash;
  mg_unigram unigram;
  mg_special *specials;
  size_t special_count;
  mg_charsmap map;
  int32_t vocabulary, max_length, first_id, last_id, unknown;
  /* Which words a normalised text has: XLM-R's end at any white space; without that (what transformers 4 makes of a
     SentencePiece model), each plain space begins one, and spaces are looked after by the normalizer. */
  bool any_space_ends;
  bool strip_left, strip_right;
  const char *runs; /* what two or more spaces become; NULL: they stay */
};

/** Takes tokenizer.json's bytes: fills in everything but file, hash and max_length. */
mg_status mg_tokenizer_from_json(mg_tokenizer *tokenizer, const char *text, size_t size);
/** Does a tokenizer.json name a model, and another one than Unigram? */
bool mg_tokenizer_json_is_foreign(const char *text, size_t size);
mg_status mg_tokenizer_add_special(mg_tokenizer *tokenizer, const char *spelling, int32_t id);

/**
 * Checks and takes over a map's bytes (copied): the library's format, whose indexes are followed unchecked afterwards. false if
 * one leads out of bounds. NULL and 0: no map.
 */
bool mg_charsmap_open(const void *bytes, size_t size, mg_charsmap *map);
/** The bytes of normalizer_spec.precompiled_charsmap in a model's protocol buffer; *size 0 where there are none. */
bool mg_model_charsmap(const void *model, size_t model_size, const void **map, size_t *size);
/** Appends the text as the model's pieces spell it: words are parted by plain spaces or begin with ▁. */
void mg_tokenizer_normalize(const mg_tokenizer *tokenizer, const char *text, size_t size, mg_text *out);

#endif
