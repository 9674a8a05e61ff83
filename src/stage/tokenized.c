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

static int by_length(const void *a, const void *b) {
  const sequence *x = a, *y = b;
  if (x->length != y->length) return x->length < y->length ? -1 : 1;
  for (int32_t k = 0; k < x->length; k++)
    if (x->ids[k] != y->ids[k]) return x->ids[k] < y->ids[k] ? -1 : 1;
  return (x->text > y->text) - (x->text < y->text);
}

static int by_number(const void *a, const void *b) {
  const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  return (x > y) - (x < y);
}

/* The ids that occur, rising. */
static void list_tokens(mg_tokenized *t, size_t used) {
  memcpy(t->tokens, t->ids, used * sizeof *t->tokens);
  if (used > 1) qsort(t->tokens, used, sizeof *t->tokens, by_number);
  for (size_t k = 0; k < used; k++)
    if (t->token_count == 0 || t->tokens[t->token_count - 1] != t->tokens[k]) t->tokens[t->token_count++] = t->tokens[k];
}

/* Fills in sequences and tokens; all is sorted. */
static mg_status arrange(sequence *all, size_t count, size_t total, mg_tokenized *t) {
  t->count = count;
  t->ids = mg_alloc(total, sizeof *t->ids);
  t->tokens = mg_alloc(total, sizeof *t->tokens);
  t->offset = mg_alloc_zero(count + 1, sizeof *t->offset);
  t->sequence_of = mg_alloc(count, sizeof *t->sequence_of);
  if (t->ids == NULL || t->tokens == NULL || t->offset == NULL || t->sequence_of == NULL) return MG_ERR_NOMEM;
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
  list_tokens(t, (size_t)t->offset[n]);
  return MG_OK;
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

/* One after another: counts, then the arrays. */
mg_status mg_tokenized_share(MPI_Comm comm, mg_tokenized *t) {
  mg_status status = MG_OK;
  int rank;
  uint64_t head[4] = {t->count, t->sequences.count, t->token_count, t->hash};
  MPI_Comm_rank(comm, &rank);
  MPI_Bcast(head, 4, MPI_UINT64_T, 0, comm);
  t->count = head[0], t->token_count = head[2], t->hash = head[3];
  size_t sizes[4] = {0};
  if (rank == 0) {
    sizes[0] = (size_t)t->offset[t->sequences.count] * sizeof *t->ids;
    sizes[1] = (t->sequences.count + 1) * sizeof *t->offset;
    sizes[2] = t->count * sizeof *t->sequence_of;
    sizes[3] = t->token_count * sizeof *t->tokens;
  }
  void *data[4] = {t->ids, t->offset, t->sequence_of, t->tokens};
  for (int k = 0; k < 4; k++) {
    MG_TRY(mg_broadcast_bytes(comm, &data[k], &sizes[k]), done);
    t->ids = data[0], t->offset = data[1], t->sequence_of = data[2], t->tokens = data[3];
  }
  t->sequences = (mg_sequences){.count = (size_t)head[1], .ids = t->ids, .offset = t->offset};
done:
  return status;
}

void mg_tokenized_free(mg_tokenized *t) {
  free(t->ids), free(t->offset), free(t->sequence_of), free(t->tokens);
  *t = (mg_tokenized){0};
}
