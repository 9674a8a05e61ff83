/* Texts to sequences of ids: each different one once, by length, so that batches are full and nothing is computed twice. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/tokenizer.h"
#include "stage_impl.h"

static const char *tokenizer_dir(const mg_config *config, const mg_source_list *list) {
  if (mg_tokenizer_present(config->family.base)) return config->family.base;
  for (size_t k = 0; k < list->count; k++)
    if (mg_tokenizer_present(list->items[k].path)) return list->items[k].path;
  return config->family.base; /* opening it says what is missing */
}

typedef struct sequence {
  const int32_t *ids;
  int32_t length, text;
} sequence;

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

/* Fills in sequences and tokens from the texts' ids. */
static mg_status arrange(sequence *all, size_t count, size_t total, mg_probes *p) {
  p->count = count;
  p->ids = mg_alloc(total, sizeof *p->ids);
  p->tokens = mg_alloc(total, sizeof *p->tokens);
  p->offset = mg_alloc_zero(count + 1, sizeof *p->offset);
  p->sequence_of = mg_alloc(count, sizeof *p->sequence_of);
  if (p->ids == NULL || p->tokens == NULL || p->offset == NULL || p->sequence_of == NULL) return MG_ERR_NOMEM;
  qsort(all, count, sizeof *all, by_length);
  size_t n = 0;
  for (size_t k = 0; k < count; k++) {
    const size_t bytes = (size_t)all[k].length * sizeof *p->ids;
    const bool same = k > 0 && all[k].length == all[k - 1].length && memcmp(all[k].ids, all[k - 1].ids, bytes) == 0;
    if (!same) {
      memcpy(p->ids + p->offset[n], all[k].ids, bytes);
      p->offset[n + 1] = p->offset[n] + all[k].length;
      n++;
    }
    p->sequence_of[all[k].text] = (int32_t)n - 1;
  }
  const size_t used = (size_t)p->offset[n];
  p->sequences = (mg_sequences){.count = n, .ids = p->ids, .offset = p->offset};
  memcpy(p->tokens, p->ids, used * sizeof *p->tokens);
  qsort(p->tokens, used, sizeof *p->tokens, by_number);
  for (size_t k = 0; k < used; k++)
    if (p->token_count == 0 || p->tokens[p->token_count - 1] != p->tokens[k]) p->tokens[p->token_count++] = p->tokens[k];
  return MG_OK;
}

static mg_status tokenize(const mg_tokenizer *tokenizer, const mg_corpus *corpus, int32_t max_length,
                          const mg_encoder_shape *shape, mg_probes *p) {
  mg_status status = MG_OK;
  const int32_t said = mg_tokenizer_max_length(tokenizer), limit = mg_encoder_position_limit(shape);
  if (said > 0 && said < max_length) max_length = said;
  sequence *all = mg_alloc(corpus->count, sizeof *all);
  int32_t *ids = mg_alloc(corpus->count * (size_t)max_length, sizeof *ids);
  size_t total = 0;
  if (all == NULL || ids == NULL) status = MG_ERR_NOMEM;
  for (size_t k = 0; status == MG_OK && k < corpus->count; k++) {
    all[k] = (sequence){.ids = ids + total, .text = (int32_t)k};
    status = mg_tokenizer_encode(tokenizer, corpus->text[k], corpus->size[k], max_length, ids + total, &all[k].length);
    if (status == MG_OK && all[k].length > limit)
      status =
          mg_fail(MG_ERR_INPUT, "%d tokens, but the model has positions for %d: lower texts.max_length", all[k].length, limit);
    if (status != MG_OK) mg_fail_context(status, "%s:%lld", corpus->path, (long long)corpus->line[k]);
    total += (size_t)all[k].length;
    p->hash = mg_hash_more(p->hash, all[k].ids, (size_t)all[k].length * sizeof *ids);
  }
  if (status == MG_OK) status = arrange(all, corpus->count, total, p);
  free(all), free(ids);
  return status;
}

mg_status mg_probes_read(const mg_config *config, const mg_source_list *list, const mg_encoder_shape *shape,
                         mg_probes *probes) {
  mg_status status = MG_OK;
  mg_corpus corpus = {0};
  mg_tokenizer *tokenizer = NULL;
  char *partition = config->compatibility.cka.partition;
  const mg_strings partitions = {.count = 1, .items = &partition};
  *probes = (mg_probes){0};
  MG_TRY(mg_tokenizer_open(tokenizer_dir(config, list), &tokenizer), cleanup);
  if (mg_tokenizer_vocabulary(tokenizer) > shape->vocabulary) {
    status = mg_fail(MG_ERR_INPUT, "%s has %d ids, but the models' word embeddings have %d rows: they do not belong together",
                     mg_tokenizer_file(tokenizer), mg_tokenizer_vocabulary(tokenizer), shape->vocabulary);
    goto cleanup;
  }
  MG_TRY(mg_corpus_read(&config->texts, config->compatibility.cka.locale, &partitions, NULL,
                        (size_t)config->compatibility.cka.samples, &corpus),
         cleanup);
  if (corpus.count < 2) {
    status =
        mg_fail(MG_ERR_INPUT, "%s: %zu texts of partition %s; CKA needs two or more", corpus.path, corpus.count, partition);
    goto cleanup;
  }
  const int32_t longest = config->compatibility.cka.max_length < config->texts.max_length ? config->compatibility.cka.max_length
                                                                                          : config->texts.max_length;
  MG_TRY(tokenize(tokenizer, &corpus, longest, shape, probes), cleanup);
cleanup:
  mg_corpus_free(&corpus);
  mg_tokenizer_close(&tokenizer);
  return status;
}

/* One after another: counts, then the arrays. */
mg_status mg_probes_share(MPI_Comm comm, mg_probes *p) {
  mg_status status = MG_OK;
  int rank;
  uint64_t head[4] = {p->count, p->sequences.count, p->token_count, p->hash};
  MPI_Comm_rank(comm, &rank);
  MPI_Bcast(head, 4, MPI_UINT64_T, 0, comm);
  p->count = head[0], p->token_count = head[2], p->hash = head[3];
  size_t sizes[4] = {0};
  if (rank == 0) {
    sizes[0] = (size_t)p->offset[p->sequences.count] * sizeof *p->ids;
    sizes[1] = (p->sequences.count + 1) * sizeof *p->offset;
    sizes[2] = p->count * sizeof *p->sequence_of;
    sizes[3] = p->token_count * sizeof *p->tokens;
  }
  void *data[4] = {p->ids, p->offset, p->sequence_of, p->tokens};
  for (int k = 0; k < 4; k++) {
    MG_TRY(mg_broadcast_bytes(comm, &data[k], &sizes[k]), done);
    p->ids = data[0], p->offset = data[1], p->sequence_of = data[2], p->tokens = data[3];
  }
  p->sequences = (mg_sequences){.count = (size_t)head[1], .ids = p->ids, .offset = p->offset};
done:
  return status;
}

void mg_probes_free(mg_probes *p) {
  free(p->ids), free(p->offset), free(p->sequence_of), free(p->tokens);
  *p = (mg_probes){0};
}
