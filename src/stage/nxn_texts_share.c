/* The targets' texts, read and tokenized by several ranks at once and put together by rank 0 in the targets' order. */

#include <stdlib.h>
#include <string.h>

#include "stage_impl.h"

/* Each loads the tokenizer, and more would wait for rank 0, which takes what they have. */
enum { MOST_READERS = 16, PIECE = 1 << 28 };

/* ---- a target as a message ---- */

static void describe_target(const mg_target *target, mg_text *text) {
  const size_t n = target->count;
  mg_append_string(text, target->path);
  mg_text_append_bytes(text, &n, sizeof n);
  mg_text_append_bytes(text, target->part_count, sizeof target->part_count);
  mg_text_append_bytes(text, &target->stands_in, sizeof target->stands_in);
  mg_text_append_bytes(text, target->part, n * sizeof *target->part);
  mg_text_append_bytes(text, target->label, n * sizeof *target->label);
  mg_text_append_bytes(text, target->text, n * sizeof *target->text);
  mg_text_append_bytes(text, target->line, n * sizeof *target->line);
  for (size_t k = 0; k < n; k++) mg_append_string(text, target->id[k]);
}

/* first: the number of its first text in the table. */
static mg_status take_target(mg_cursor *c, size_t first, mg_target *target) {
  mg_status status = MG_OK;
  size_t n = 0;
  MG_TRY(mg_cursor_take_string(c, &target->path), done);
  MG_TRY(mg_cursor_take(c, &n, sizeof n), done);
  target->id = mg_alloc_zero(n, sizeof *target->id);
  target->part = mg_alloc(n, sizeof *target->part);
  target->label = mg_alloc(n, sizeof *target->label);
  target->text = mg_alloc(n, sizeof *target->text);
  target->line = mg_alloc(n, sizeof *target->line);
  if (!target->id || !target->part || !target->label || !target->text || !target->line) return MG_ERR_NOMEM;
  MG_TRY(mg_cursor_take(c, target->part_count, sizeof target->part_count), done);
  MG_TRY(mg_cursor_take(c, &target->stands_in, sizeof target->stands_in), done);
  MG_TRY(mg_cursor_take(c, target->part, n * sizeof *target->part), done);
  MG_TRY(mg_cursor_take(c, target->label, n * sizeof *target->label), done);
  MG_TRY(mg_cursor_take(c, target->text, n * sizeof *target->text), done);
  MG_TRY(mg_cursor_take(c, target->line, n * sizeof *target->line), done);
  for (; target->count < n; target->count++) {
    target->text[target->count] += first;
    MG_TRY(mg_cursor_take_string(c, &target->id[target->count]), done);
  }
done:
  return status;
}

/* What a message begins with; of a failure the bytes are its message. */
typedef struct heading {
  unsigned long long size;
  long long status;
} heading;

static void send(MPI_Comm readers, mg_status status, const mg_text *text) {
  const char *data = status == MG_OK ? text->data : mg_error_message();
  const heading head = {.size = status == MG_OK ? text->size : strlen(data), .status = status};
  MPI_Send(&head, (int)sizeof head, MPI_BYTE, 0, 0, readers);
  for (size_t at = 0; at < head.size; at += PIECE)
    MPI_Send(data + at, (int)(head.size - at < PIECE ? head.size - at : PIECE), MPI_BYTE, 0, 0, readers);
}

/* *status: of this rank, which receives what is sent in any case; or the sender's. The caller frees *data. */
static void receive(MPI_Comm readers, int from, mg_status *status, char **data, size_t *size) {
  heading head;
  MPI_Recv(&head, (int)sizeof head, MPI_BYTE, from, 0, readers, MPI_STATUS_IGNORE);
  *size = (size_t)head.size;
  *data = mg_alloc((size_t)head.size + 1, 1);
  if (*data == NULL) MPI_Abort(readers, 1); /* the sender waits: nothing softer is left */
  if (*data == NULL) return;
  (*data)[head.size] = '\0';
  for (size_t at = 0; at < head.size; at += PIECE)
    MPI_Recv(*data + at, (int)(head.size - at < PIECE ? head.size - at : PIECE), MPI_BYTE, from, 0, readers, MPI_STATUS_IGNORE);
  if (*status == MG_OK && head.status != MG_OK) *status = mg_fail((mg_status)head.status, "%s", *data);
}

/* ---- reading ---- */

typedef struct reading {
  MPI_Comm readers;
  int rank, ranks; /* of those that read */
  const mg_config *config;
  mg_nxn_texts *texts;
  mg_tokenizing *tokenizing;
} reading;

/* One after another: what went wrong is told for the rest, too, since rank 0 waits for it. */
static void read_and_send(const reading *r, mg_status begun) {
  mg_status status = begun;
  for (size_t m = (size_t)r->rank; m < r->texts->targets.count; m += (size_t)r->ranks) {
    mg_text text = {0};
    size_t first = 0;
    if (status == MG_OK) status = mg_nxn_target_read(r->config, m, r->texts, r->tokenizing, &first);
    if (status == MG_OK) {
      describe_target(&r->texts->items[m], &text);
      mg_tokenizing_move(r->tokenizing, &text);
      if (text.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
    }
    send(r->readers, status, &text);
    mg_nxn_target_free(&r->texts->items[m]);
    mg_text_free(&text);
  }
}

/* In the order of the targets, whoever has read them: numbers, hashes and the first error are those of one reader. */
static mg_status read_and_take(const reading *r, mg_status begun) {
  mg_status status = begun;
  size_t first = 0;
  for (size_t m = 0; m < r->texts->targets.count; m++) {
    const int from = (int)(m % (size_t)r->ranks);
    if (from == 0) {
      if (status == MG_OK) status = mg_nxn_target_read(r->config, m, r->texts, r->tokenizing, &first);
      continue;
    }
    char *data = NULL;
    size_t size = 0;
    receive(r->readers, from, &status, &data, &size);
    mg_cursor c = {data, size};
    if (status == MG_OK) status = take_target(&c, first, &r->texts->items[m]);
    if (status == MG_OK) status = mg_tokenizing_take(r->tokenizing, &c);
    first += r->texts->items[m].count;
    free(data);
  }
  return status;
}

/* ---- together ---- */

/* Some of rank 0's node, spread over it; MPI_COMM_NULL for others. */
static MPI_Comm choose_readers(MPI_Comm comm, size_t targets) {
  MPI_Comm node, readers;
  int rank, node_rank, ranks, first;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &node_rank);
  MPI_Comm_size(node, &ranks);
  MPI_Allreduce(&rank, &first, 1, MPI_INT, MPI_MIN, node);
  MPI_Comm_free(&node);
  int count = ranks < MOST_READERS ? ranks : MOST_READERS;
  if (targets < (size_t)count) count = (int)targets;
  /* the ranks at which the number of readers so far goes up */
  const bool reads = first == 0 && (long)node_rank * count % ranks < count;
  MPI_Comm_split(comm, reads ? 0 : MPI_UNDEFINED, rank, &readers);
  return readers;
}

/* Which targets and classes there are, as rank 0 has found. */
static mg_status share_names(MPI_Comm comm, int rank, mg_nxn_texts *t) {
  mg_status status = MG_OK;
  mg_text text = {0};
  if (rank == 0) {
    mg_append_strings(&text, &t->targets);
    mg_append_strings(&text, &t->labels);
    mg_text_append_bytes(&text, &t->parts, sizeof t->parts);
    if (text.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  void *data = text.data;
  size_t size = text.size;
  MG_TRY(mg_agree(comm, status), cleanup);
  MG_TRY(mg_broadcast_bytes(comm, &data, &size), cleanup);
  mg_cursor c = {data, size};
  if (rank != 0) {
    status = mg_cursor_take_strings(&c, &t->targets);
    if (status == MG_OK) status = mg_cursor_take_strings(&c, &t->labels);
    if (status == MG_OK) status = mg_cursor_take(&c, &t->parts, sizeof t->parts);
    if (status == MG_OK) t->items = mg_alloc_zero(t->targets.count, sizeof *t->items);
    if (status == MG_OK && t->items == NULL) status = MG_ERR_NOMEM;
    free(data);
  }
  status = mg_agree(comm, status);
cleanup:
  mg_text_free(&text);
  return status;
}

mg_status mg_nxn_texts_read_all(MPI_Comm comm, const mg_config *config, const mg_source_list *list,
                                const mg_strings *model_labels, const mg_encoder_shape *shape, mg_nxn_texts *t) {
  mg_status status = MG_OK;
  int rank;
  *t = (mg_nxn_texts){0};
  reading r = {.readers = MPI_COMM_NULL, .config = config, .texts = t};
  MPI_Comm_rank(comm, &rank);
  MG_TRY(mg_agree(comm, rank == 0 ? mg_nxn_texts_begin(config, list, model_labels, shape, t) : MG_OK), cleanup);
  MG_TRY(share_names(comm, rank, t), cleanup);
  r.readers = choose_readers(comm, t->targets.count);
  if (r.readers != MPI_COMM_NULL) {
    MPI_Comm_rank(r.readers, &r.rank);
    MPI_Comm_size(r.readers, &r.ranks);
    status = mg_tokenizing_begin(config, list, shape, config->texts.max_length, &r.tokenizing);
    if (r.rank == 0) status = read_and_take(&r, status);
    if (r.rank != 0) read_and_send(&r, status);
    if (r.rank == 0 && status == MG_OK) status = mg_nxn_texts_end(config, t, r.tokenizing);
    MPI_Comm_free(&r.readers);
  }
  MG_TRY(mg_agree(comm, rank == 0 ? status : MG_OK), cleanup);
cleanup:
  mg_tokenizing_free(&r.tokenizing);
  if (status != MG_OK || rank != 0) mg_nxn_texts_free(t);
  return status;
}
