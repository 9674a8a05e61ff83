#ifndef MERGEGRID_TOKENIZER_H
#define MERGEGRID_TOKENIZER_H

/**
 * Texts to token ids as Hugging Face's fast tokenizers for XLM-RoBERTa give them: `tokenizer.json` of the Unigram kind, or
 * `sentencepiece.bpe.model` through the SentencePiece library with XLM-R's layout of ids (`<s>` 0, `<pad>` 1, `</s>` 2,
 * `<unk>` 3, the model's pieces shifted by one, `<mask>` last). Special tokens that are written in a text are those tokens,
 * as there. Not collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

typedef struct mg_tokenizer mg_tokenizer;

/** Does dir hold a tokenizer.json or a sentencepiece.bpe.model? */
bool mg_tokenizer_present(const char *dir);

/**
 * Is the tokenizer of a checkpoint's directory of another kind than Unigram (byte-level BPE, WordPiece), as tokenizer.json or
 * the files of slow tokenizers (vocab.json, vocab.txt) say? mg_tokenizer_open refuses it. false where there is none, or none
 * that can be read.
 */
bool mg_tokenizer_is_foreign(const char *dir);

/**
 * Opens the tokenizer of a checkpoint's directory: tokenizer.json where there is one, else sentencepiece.bpe.model;
 * tokenizer_config.json's model_max_length where it says one. Untrusted bytes: MG_ERR_INPUT names the file, what was found and
 * what was expected (a tokenizer.json of another kind, a truncated model, a vocabulary without the special tokens). *tokenizer
 * is owned by the caller.
 */
mg_status mg_tokenizer_open(const char *dir, mg_tokenizer **tokenizer);
void mg_tokenizer_close(mg_tokenizer **tokenizer);

/** Ids run from 0 to this minus 1. */
int32_t mg_tokenizer_vocabulary(const mg_tokenizer *tokenizer);
/** Most tokens of a text, special ones included, by tokenizer_config.json; 0 where it does not say (or says an absurd number).
 */
int32_t mg_tokenizer_max_length(const mg_tokenizer *tokenizer);
/** Identity of what decides over ids: XXH3 of the file's bytes. */
uint64_t mg_tokenizer_hash(const mg_tokenizer *tokenizer);
/** Path of the file that was opened; owned by the tokenizer. */
const char *mg_tokenizer_file(const mg_tokenizer *tokenizer);

/**
 * `<s>` tokens `</s>`, cut to max_length ≥ 2 ids by dropping the text's last tokens; ids has room for max_length. size bytes of
 * text, which may hold NULs. Thread-safe. MG_ERR_INPUT where text is no valid UTF-8.
 */
mg_status mg_tokenizer_encode(const mg_tokenizer *tokenizer, const char *text, size_t size, int32_t max_length, int32_t *ids,
                              int32_t *count);

#endif
