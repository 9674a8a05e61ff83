/* The shards of a run: opened by rank 0 and described to the others, which look whether theirs are the same. */

#include <stdlib.h>

#include "stage_impl.h"

/* ---- described ---- */

static mg_status take_description(mg_attempt *a, const void *data, size_t size) {
  char name[MG_RANK_NAME];
  return mg_rows_open_described(data, size, a->config->shards.dir, &a->roster->list, mg_file_cache_bound(),
                                mg_rank_name(a->rank, name), &a->rows);
}

static mg_status describe_shards(mg_attempt *a) {
  mg_status status = MG_OK;
  mg_text text = {0};
  void *data = NULL;
  size_t size = 0;
  if (a->rank == 0) {
    status = mg_roster_rows(a->config, a->roster, &a->rows);
    if (status == MG_OK) status = mg_rows_describe(a->rows, &text);
    data = text.data;
    size = text.size;
  }
  MG_TRY(mg_agree(a->comm, status), cleanup);
  MG_TRY(mg_broadcast_bytes(a->comm, &data, &size), cleanup);
  if (a->rank != 0) status = take_description(a, data, size);
  status = mg_agree(a->comm, status);
cleanup:
  if (a->rank != 0) free(data);
  mg_text_free(&text);
  return status;
}

/* ---- the same ---- */

/*
 * The same task vectors: shards may lie on hosts' own disks. Each file is looked at once a node, the ranks taking turns, so
 * that starting does not take ranks × shards opens of a shared file system; and again by every rank that comes to read it.
 */
static mg_status agree_on_shards(const mg_attempt *a) {
  mg_status status = MG_OK;
  int rank, ranks;
  const size_t n = a->roster->list.count + 1; /* the base last */
  mg_directory_ranks(a->comm, a->config->shards.dir, &rank, &ranks);
  for (size_t k = (size_t)rank; k < n && status == MG_OK; k += (size_t)ranks)
    status = mg_rows_look(a->rows, k + 1 < n ? (ptrdiff_t)k : MG_ROW_BASE);
  return mg_agree(a->comm, status);
}

mg_status mg_attempt_open_rows(mg_attempt *a) {
  mg_status status = MG_OK;
  if (a->config->shards.dir == NULL) /* copies of checkpoints have other stamps; their headers were compared */
    return mg_agree(a->comm, mg_roster_rows(a->config, a->roster, &a->rows));
  MG_TRY(describe_shards(a), done);
  MG_TRY(agree_on_shards(a), done);
done:
  return status;
}
