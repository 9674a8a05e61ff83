/* Texts to sequences of ids: each different one once, by length, so that batches are full and nothing is computed twice. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/tokenizer.h"
#include "stage_impl.h"

typedef struct sequence {
  const int32_t *ids;
  int32_t length, text;
} sequence;

struct mg_tokenizing {
  mg_tokenizer *tokenizer;
  int32_t max_length, limit; /* most tokens that are taken of a text; that the model has positions for */
  mg_text ids, lengths;      /* int32_t each */
  int32_t *row;              /* [max_length] */
  size_t count;
  uint64_t hash;
};

static const char *tokenizer_dir(const mg_config *config, const mg_source_list *list) {
  if (mg_tokenizer_present(config->family.base)) return config->family.base;
  for (size_t k = 0; k < list->count; k++)
    if (mg_tokenizer_present(list->items[k].path)) return list->items[k].path;
  return config->family.base; /* opening it says what is missing */
}

bool mg_tokenizing_is_foreign(const mg_config *config, const mg_source_list *list) {
  const char *dir = tokenizer_dir(config, list);
  bool foreign = mg_tokenizer_is_foreign(dir);
  if (mg_tokenizer_present(dir)) return foreign;
  for (size_t k = 0; k < list->count; k++) foreign = foreign || mg_tokenizer_is_foreign(list->items[k].path);
  return foreign;
}

mg_status mg_tokenizing_begin(const mg_config *config, const mg_source_list *list, const mg_encoder_shape *shape,
                              int32_t max_length, mg_tokenizing **out) {
  mg_status status = MG_OK;
  mg_tokenizing *t = mg_alloc_zero(1, sizeof *t);
  if (t == NULL) return MG_ERR_NOMEM;
  *out = t;
  MG_TRY(mg_tokenizer_open(tokenizer_dir(config, list), &t->tokenizer), failed);
  if (mg_tokenizer_vocabulary(t->tokenizer) > shape->vocabulary) {
    status = mg_fail(MG_ERR_INPUT, "%s has %d ids, but the models' word embeddings have %d rows: they do not belong together",
                     mg_tokenizer_file(t->tokenizer), mg_tokenizer_vocabulary(t->tokenizer), shape->vocabulary);
    goto failed;
  }
  const int32_t said = mg_tokenizer_max_length(t->tokenizer);
  if (config->texts.max_length < max_length) max_length = config->texts.max_length;
  t->max_length = said > 0 && said < max_length ? said : max_length;
  t->limit = mg_encoder_position_limit(shape);
  t->row = mg_alloc((size_t)t->max_length, sizeof *t->row);
  if (t->row == NULL) status = MG_ERR_NOMEM;
failed:
  if (status != MG_OK) mg_tokenizing_free(out);
  return status;
}

void mg_tokenizing_free(mg_tokenizing **tokenizing) {
  mg_tokenizing *t = *tokenizing;
  if (t == NULL) return;
  mg_tokenizer_close(&t->tokenizer);
  mg_text_free(&t->ids), mg_text_free(&t->lengths);
  free(t->row), free(t);
  *tokenizing = NULL;
}

mg_status mg_tokenizing_add(mg_tokenizing *t, const mg_corpus *corpus) {
  for (size_t k = 0; k < corpus->count; k++) {
    int32_t length = 0;
    mg_status status = mg_tokenizer_encode(t->tokenizer, corpus->text[k], corpus->size[k], t->max_length, t->row, &length);
    if (status == MG_OK && length > t->limit)
      status = mg_fail(MG_ERR_INPUT, "%d tokens, but the model has positions for %d: lower texts.max_length", length, t->limit);
    if (status != MG_OK) {
      mg_fail_context(status, "%s:%lld", corpus->path, (long long)corpus->line[k]);
      return status;
    }
    mg_text_append_bytes(&t->ids, t->row, (size_t)length * sizeof *t->row);
    mg_text_append_bytes(&t->lengths, &length, sizeof length);
    t->hash = mg_hash_more(t->hash, t->row, (size_t)length * sizeof *t->row);
    t->count++;
  }
  return t->ids.failed || t->lengths.failed ? mg_fail(MG_ERR_NOMEM, "out of memory for the texts' tokens") : MG_OK;
}

void mg_tokenizing_move(mg_tokenizing *t, mg_text *to) {
  mg_text_append_bytes(to, &t->count, sizeof t->count);
  mg_text_append_bytes(to, t->lengths.data, t->lengths.size);
  mg_text_append_bytes(to, t->ids.data, t->ids.size);
  t->lengths.size = t->ids.size = t->count = 0;
  t->hash = 0;
}

mg_status mg_tokenizing_take(mg_tokenizing *t, mg_cursor *c) {
  mg_status status = MG_OK;
  size_t count = 0;
  MG_TRY(mg_cursor_take(c, &count, sizeof count), done);
  const char *lengths = c->at, *ids;
  MG_TRY(mg_cursor_skip(c, count * sizeof(int32_t)), done);
  for (size_t k = 0; k < count; k++) {
    int32_t length;
    memcpy(&length, lengths + k * sizeof length, sizeof length);
    const size_t bytes = (size_t)length * sizeof *t->row;
    ids = c->at;
    MG_TRY(mg_cursor_skip(c, bytes), done);
    mg_text_append_bytes(&t->ids, ids, bytes);
    mg_text_append_bytes(&t->lengths, &length, sizeof length);
    t->hash = mg_hash_more(t->hash, ids, bytes);
    t->count++;
  }
  if (t->ids.failed || t->lengths.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory for the texts' tokens");
done:
  return status;
}

static int by_length(const void *a, const void *b) {
  const sequence *x = a, *y = b;
  if (x->length != y->length) return x->length < y->length ? -1 : 1;
  for (int32_t k = 0; k < x->length; k++)
    if (x->ids[k] != y->ids[k]) return x->ids[k] < y->ids[k] ? -1 : 1;
  return (x->text > y->text) - (x->text < y->text);
}

/* The ids that occur, rising. They are far fewer than there are tokens, and below the model's vocabulary. */
static mg_status list_tokens(mg_tokenized *t, size_t used) {
  size_t bound = 0;
  for (size_t k = 0; k < used; k++)
    if ((size_t)t->ids[k] >= bound) bound = (size_t)t->ids[k] + 1;
  bool *occurs = mg_alloc_zero(bound, sizeof *occurs);
  if (occurs == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < used; k++) {
    t->token_count += !occurs[t->ids[k]];
    occurs[t->ids[k]] = true;
  }
  t->tokens = mg_alloc(t->token_count, sizeof *t->tokens);
  for (size_t id = 0, n = 0; t->tokens != NULL && id < bound; id++)
    if (occurs[id]) t->tokens[n++] = (int32_t)id;
  free(occurs);
  return t->tokens != NULL ? MG_OK : MG_ERR_NOMEM;
}

/* Fills in sequences and tokens; all is sorted. */
static mg_status arrange(sequence *all, size_t count, size_t total, mg_tokenized *t) {
  t->count = count;
  t->ids = mg_alloc(total, sizeof *t->ids);
  t->offset = mg_alloc_zero(count + 1, sizeof *t->offset);
  t->sequence_of = mg_alloc(count, sizeof *t->sequence_of);
  if (t->ids == NULL || t->offset == NULL || t->sequence_of == NULL) return MG_ERR_NOMEM;
  if (count > 1) qsort(all, count, sizeof *all, by_length);
  size_t n = 0;
  for (size_t k = 0; k < count; k++) {
    const size_t bytes = (size_t)all[k].length * sizeof *t->ids;
    const bool same = k > 0 && all[k].length == all[k - 1].length && memcmp(all[k].ids, all[k - 1].ids, bytes) == 0;
    if (!same) {
      memcpy(t->ids + t->offset[n], all[k].ids, bytes);
      t->offset[n + 1] = t->offset[n] + all[k].length;
      n++;
    }
    t->sequence_of[all[k].text] = (int32_t)n - 1;
  }
  t->sequences = (mg_sequences){.count = n, .ids = t->ids, .offset = t->offset};
  return list_tokens(t, (size_t)t->offset[n]);
}

mg_status mg_tokenizing_end(mg_tokenizing *t, mg_tokenized *out) {
  *out = (mg_tokenized){.hash = t->hash};
  sequence *all = mg_alloc(t->count, sizeof *all);
  if (all == NULL) return MG_ERR_NOMEM;
  const int32_t *ids = (const int32_t *)(const void *)t->ids.data, *lengths = (const int32_t *)(const void *)t->lengths.data;
  size_t total = 0;
  for (size_t k = 0; k < t->count; k++) {
    all[k] = (sequence){.ids = ids + total, .length = lengths[k], .text = (int32_t)k};
    total += (size_t)lengths[k];
  }
  const mg_status status = arrange(all, t->count, total, out);
  free(all);
  if (status != MG_OK) mg_tokenized_free(out);
  return status;
}

/* Where the arrays are: in a block of the node's. */
static void place_arrays(mg_tokenized *t, const mg_shared_piece *pieces, size_t sequences) {
  t->ids = pieces[0].at, t->offset = pieces[1].at, t->sequence_of = pieces[2].at, t->tokens = pieces[3].at;
  t->sequences = (mg_sequences){.count = sequences, .ids = t->ids, .offset = t->offset};
}

mg_status mg_tokenized_share(MPI_Comm comm, mg_tokenized *t) {
  mg_status status = MG_OK;
  mg_shared *block = NULL;
  mg_shared_piece pieces[4] = {{0}};
  int rank;
  uint64_t head[4] = {t->count, t->sequences.count, t->token_count, t->hash};
  MPI_Comm_rank(comm, &rank);
  MPI_Bcast(head, 4, MPI_UINT64_T, 0, comm);
  if (rank == 0) {
    pieces[0] = (mg_shared_piece){.from = t->ids, .size = (size_t)t->offset[t->sequences.count] * sizeof *t->ids};
    pieces[1] = (mg_shared_piece){.from = t->offset, .size = (t->sequences.count + 1) * sizeof *t->offset};
    pieces[2] = (mg_shared_piece){.from = t->sequence_of, .size = t->count * sizeof *t->sequence_of};
    pieces[3] = (mg_shared_piece){.from = t->tokens, .size = t->token_count * sizeof *t->tokens};
  }
  MG_TRY(mg_shared_broadcast(comm, "the texts", pieces, 4, &block), failed);
  mg_tokenized_free(t); /* rank 0's own */
  *t = (mg_tokenized){.count = (size_t)head[0], .token_count = (size_t)head[2], .hash = head[3], .block = block};
  place_arrays(t, pieces, (size_t)head[1]);
  return MG_OK;
failed:
  mg_shared_destroy(&block);
  return status;
}

void mg_tokenized_free(mg_tokenized *t) {
  if (t->block == NULL) free(t->ids), free(t->offset), free(t->sequence_of), free(t->tokens);
  mg_shared_destroy(&t->block);
  *t = (mg_tokenized){0};
}
