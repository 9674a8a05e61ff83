// The SentencePiece library behind a C face: no exception leaves this file.

#include <sentencepiece_processor.h>

#include <cstdio>
#include <exception>
#include <string>

#include "tokenizer_impl.h"

struct mg_pieces {
  sentencepiece::SentencePieceProcessor processor;
};

mg_pieces *mg_pieces_open(const void *model, size_t size, char *message, size_t message_size) {
  mg_pieces *pieces = nullptr;
  try {
    pieces = new mg_pieces;
    const auto status = pieces->processor.LoadFromSerializedProto({static_cast<const char *>(model), size});
    if (status.ok() && pieces->processor.GetPieceSize() > 0) return pieces;
    snprintf(message, message_size, "%s", status.ok() ? "no pieces" : status.ToString().c_str());
  } catch (const std::exception &error) {
    snprintf(message, message_size, "%s", error.what());
  }
  delete pieces;
  return nullptr;
}

void mg_pieces_close(mg_pieces *pieces) { delete pieces; }

int mg_pieces_count(const mg_pieces *pieces) { return pieces->processor.GetPieceSize(); }

int mg_pieces_unknown(const mg_pieces *pieces) { return pieces->processor.unk_id(); }

const char *mg_pieces_piece(const mg_pieces *pieces, int id, size_t *size, float *score) {
  const std::string &piece = pieces->processor.IdToPiece(id);
  *size = piece.size();
  *score = pieces->processor.GetScore(id);
  return piece.data();
}
