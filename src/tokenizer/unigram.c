/*
 * The best segmentation of a word under a unigram model (Kudo 2018, arXiv:1804.10959): the path of pieces with the largest sum
 * of log probabilities, found by dynamic programming. Sums are double as in Hugging Face's tokenizers; SentencePiece's own are
 * float, which decides some ties another way.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_impl.h"

static const double UNKNOWN_PENALTY = 10;

mg_status mg_unigram_add(mg_unigram *u, const char *piece, size_t size, double score) {
  if (u->count == u->capacity) {
    const size_t larger = u->capacity ? 2 * u->capacity : 4096;
    mg_piece *grown = realloc(u->pieces, larger * sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    u->pieces = grown;
    u->capacity = larger;
  }
  mg_piece *p = &u->pieces[u->count];
  *p = (mg_piece){.size = (uint32_t)size, .id = (int32_t)u->count, .score = score, .bytes = mg_alloc(size + 1, 1)};
  if (p->bytes == NULL) return MG_ERR_NOMEM;
  memcpy(p->bytes, piece, size);
  p->bytes[size] = '\0';
  u->count++;
  return MG_OK;
}

static int by_bytes(const void *a, const void *b) {
  const mg_piece *p = a, *q = b;
  const int order = memcmp(p->bytes, q->bytes, p->size < q->size ? p->size : q->size);
  if (order != 0) return order;
  if (p->size != q->size) return p->size < q->size ? -1 : 1;
  return (p->id > q->id) - (p->id < q->id);
}

void mg_unigram_finish(mg_unigram *u, int32_t unknown) {
  double least = INFINITY;
  for (size_t k = 0; k < u->count; k++) least = u->pieces[k].score < least ? u->pieces[k].score : least;
  u->unknown = unknown;
  u->unknown_score = least - UNKNOWN_PENALTY;
  qsort(u->pieces, u->count, sizeof *u->pieces, by_bytes);
  for (size_t k = 0; k < u->count; k++) {
    const unsigned char first = u->pieces[k].size > 0 ? (unsigned char)u->pieces[k].bytes[0] : 0;
    u->first[first + 1]++;
  }
  for (size_t c = 0; c < 256; c++) u->first[c + 1] += u->first[c];
}

void mg_unigram_free(mg_unigram *u) {
  for (size_t k = 0; k < u->count; k++) free(u->pieces[k].bytes);
  free(u->pieces);
  *u = (mg_unigram){0};
}

/* The first of pieces [low, high), equal up to depth, whose byte there is not less than `byte`. */
static size_t narrow(const mg_unigram *u, size_t low, size_t high, size_t depth, unsigned byte) {
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const mg_piece *p = &u->pieces[middle];
    const unsigned here = p->size > depth ? (unsigned char)p->bytes[depth] + 1u : 0;
    if (here < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

typedef struct node {
  double score;
  size_t start;
  int32_t id;
  bool reached;
} node;

static void offer(node *to, double score, size_t start, int32_t id) {
  if (to->reached && !(score > to->score)) return;
  *to = (node){.score = score, .start = start, .id = id, .reached = true};
}

static size_t character_length(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

/* All pieces that begin at `at`, and the unknown one where none is a single character. */
static void extend(const mg_unigram *u, const char *word, size_t size, size_t at, node *ends) {
  const double so_far = ends[at].score;
  const unsigned char lead = (unsigned char)word[at];
  const size_t one = character_length(lead) < size - at ? character_length(lead) : size - at;
  size_t low = u->first[lead], high = u->first[lead + 1];
  bool single = false;
  for (size_t depth = 1; low < high; depth++) {
    for (; low < high && u->pieces[low].size == depth; low++) { /* of equal spellings the last */
      const mg_piece *p = &u->pieces[low];
      if (low + 1 < high && u->pieces[low + 1].size == depth) continue;
      offer(&ends[at + depth], so_far + p->score, at, p->id);
      single = single || depth == one;
    }
    if (at + depth >= size) break;
    const unsigned next = (unsigned char)word[at + depth] + 1u;
    low = narrow(u, low, high, depth, next);
    high = narrow(u, low, high, depth, next + 1);
  }
  if (!single) offer(&ends[at + one], so_far + u->unknown_score, at, u->unknown);
}

bool mg_unigram_encode(const mg_unigram *u, const char *word, size_t size, int32_t *ids, size_t *count) {
  node few[256] = {0}, *ends = few;
  if (size + 1 > sizeof few / sizeof *few && (ends = mg_alloc_zero(size + 1, sizeof *ends)) == NULL) return false;
  for (size_t at = 0; at < size; at += character_length((unsigned char)word[at])) extend(u, word, size, at, ends);
  size_t n = 0;
  for (size_t at = size; at > 0; at = ends[at].start) { /* neighbours that are unknown are one */
    if (ends[at].id == u->unknown && n > 0 && ids[n - 1] == u->unknown) continue;
    ids[n++] = ends[at].id;
  }
  for (size_t k = 0; k < n / 2; k++) {
    const int32_t id = ids[k];
    ids[k] = ids[n - 1 - k];
    ids[n - 1 - k] = id;
  }
  *count = n;
  if (ends != few) free(ends);
  return true;
}
