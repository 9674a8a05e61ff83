/* The family of a run: resolved and compared by rank 0, and described to the others, which look whether theirs is the same. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "stage_impl.h"

/* ---- described ---- */

static void describe(const mg_roster *roster, mg_text *text) {
  const mg_source_list *list = &roster->list;
  const bool compared = roster->family != NULL;
  mg_text_append_bytes(text, &list->count, sizeof list->count);
  for (size_t k = 0; k < list->count; k++) {
    mg_append_string(text, list->items[k].id);
    mg_append_string(text, list->items[k].locale);
    mg_append_string(text, list->items[k].path);
  }
  mg_append_strings(text, &list->skipped);
  mg_text_append_bytes(text, roster->member, list->count * sizeof *roster->member);
  mg_append_strings(text, &roster->labels);
  mg_text_append_bytes(text, &roster->base_there, sizeof roster->base_there);
  mg_text_append_bytes(text, &compared, sizeof compared);
  if (compared) mg_family_describe(roster->family, text);
}

static mg_status take_list(mg_cursor *c, mg_source_list *list) {
  mg_status status = MG_OK;
  size_t count = 0;
  MG_TRY(mg_cursor_take(c, &count, sizeof count), done);
  list->items = mg_alloc_zero(count, sizeof *list->items);
  if (list->items == NULL) return MG_ERR_NOMEM;
  while (list->count < count) {
    mg_source *source = &list->items[list->count++];
    MG_TRY(mg_cursor_take_string(c, &source->id), done);
    MG_TRY(mg_cursor_take_string(c, &source->locale), done);
    MG_TRY(mg_cursor_take_string(c, &source->path), done);
  }
  MG_TRY(mg_cursor_take_strings(c, &list->skipped), done);
done:
  return status;
}

static mg_status take_description(const void *data, size_t size, mg_roster *roster) {
  mg_status status = MG_OK;
  mg_cursor c = {data, size};
  bool compared = false;
  MG_TRY(take_list(&c, &roster->list), done);
  roster->member = mg_alloc(roster->list.count, sizeof *roster->member);
  if (roster->member == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_cursor_take(&c, roster->member, roster->list.count * sizeof *roster->member), done);
  MG_TRY(mg_cursor_take_strings(&c, &roster->labels), done);
  MG_TRY(mg_cursor_take(&c, &roster->base_there, sizeof roster->base_there), done);
  MG_TRY(mg_cursor_take(&c, &compared, sizeof compared), done);
  if (compared) MG_TRY(mg_family_open_described(&c, &roster->family), done);
done:
  return status;
}

static mg_status share(MPI_Comm comm, int rank, mg_status opened, mg_roster *roster) {
  mg_status status = opened;
  mg_text text = {0};
  void *data = NULL;
  size_t size = 0;
  if (rank == 0 && status == MG_OK) {
    describe(roster, &text);
    if (text.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
    data = text.data;
    size = text.size;
  }
  MG_TRY(mg_agree(comm, status), cleanup);
  MG_TRY(mg_broadcast_bytes(comm, &data, &size), cleanup);
  if (rank != 0) status = take_description(data, size, roster);
  status = mg_agree(comm, status);
cleanup:
  if (rank != 0) free(data);
  mg_text_free(&text);
  return status;
}

/* ---- the same ---- */

void mg_directory_ranks(MPI_Comm comm, const char *dir, int *rank, int *ranks) {
  MPI_Comm node, group;
  struct stat info = {0};
  uint64_t words[2] = {0};
  if (stat(dir, &info) == 0) words[0] = info.st_dev, words[1] = info.st_ino;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_split(node, (int)(mg_hash(words, sizeof words) & 0x7FFFFFFF), 0, &group);
  MPI_Comm_rank(group, rank);
  MPI_Comm_size(group, ranks);
  MPI_Comm_free(&group);
  MPI_Comm_free(&node);
}

const char *mg_rank_name(int rank, char *name) {
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  snprintf(name, MG_RANK_NAME, "rank %d on %s", rank, host);
  return name;
}

/*
 * Hosts may have checkpoints of their own, or none. Each is looked at once a node, its ranks taking turns: one stat a file
 * where it is rank 0's own, so that starting does not take ranks × sources opens of a shared file system.
 */
static mg_status agree_on_checkpoints(MPI_Comm comm, int rank, const mg_config *config, const mg_family *family) {
  mg_status status = MG_OK;
  int turn, turns;
  char name[MG_RANK_NAME];
  mg_directory_ranks(comm, config->family.base, &turn, &turns);
  for (size_t k = (size_t)turn; k <= family->source_count && status == MG_OK; k += (size_t)turns)
    status = mg_member_look(k < family->source_count ? &family->sources[k] : &family->base);
  if (status != MG_OK) mg_fail_context(status, "%s", mg_rank_name(rank, name));
  return mg_agree(comm, status);
}

mg_status mg_roster_open_all(MPI_Comm comm, const mg_config *config, mg_roster *roster) {
  mg_status status = MG_OK;
  int rank, ranks;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &ranks);
  *roster = (mg_roster){0};
  if (ranks == 1) return mg_roster_open(config, false, roster);
  MG_TRY(share(comm, rank, rank == 0 ? mg_roster_open(config, false, roster) : MG_OK, roster), done);
  if (roster->family != NULL) MG_TRY(agree_on_checkpoints(comm, rank, config, roster->family), done);
done:
  if (status != MG_OK) mg_roster_close(roster);
  return status;
}
