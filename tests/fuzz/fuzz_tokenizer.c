/* tokenizer.json and SentencePiece models, and texts through those that open. */

#include <string.h>

#include "mergegrid/tokenizer.h"
#include "scratch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const mg_tokenizer *tokenizer, const char *text, size_t size) {
  int32_t ids[64], count;
  if (mg_tokenizer_encode(tokenizer, text, size, 64, ids, &count) != MG_OK) return;
  for (int32_t k = 0; k < count; k++)
    if (ids[k] < 0 || ids[k] >= mg_tokenizer_vocabulary(tokenizer)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[256];
  mg_tokenizer *tokenizer = NULL;
  static const char hostile[] =
      " e\xCC\xA3\xCC\x82 a<mask>b\xEF\xBC\x9C \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xE2\x96\x81x <s>";
  const char *dir = scratch_file(size > 0 && data[0] == '{' ? "tokenizer.json" : "sentencepiece.bpe.model", data, size, path);
  if (mg_tokenizer_open(dir, &tokenizer) == MG_OK) {
    encode(tokenizer, hostile, sizeof hostile - 1);
    encode(tokenizer, (const char *)data, size < 200 ? size : 200);
  }
  mg_tokenizer_close(&tokenizer);
  scratch_remove(dir, path);
  return 0;
}
