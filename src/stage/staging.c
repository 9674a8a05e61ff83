/*
 * shards.stage_to: copies of the shards on a disk of each node. A node whose disk can't take them reads the shards where they
 * are, and says so: its run is slower, and its bits are the same.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "mergegrid/stop.h"
#include "stage_impl.h"

typedef struct staging {
  const mg_attempt *attempt;
  MPI_Comm node;
  int rank, ranks; /* of the node */
  void *dir;       /* the node's, owned */
  void *missing;   /* [count] uint32_t: sources, the base as their number; owned */
  size_t count;
  uint64_t bytes; /* of those */
} staging;

/* ---- where ---- */

/* One directory for each directory of shards, so that runs of two families don't replace each other's copies. */
static mg_status name_directory(staging *s) {
  mg_status status = MG_OK;
  char hash[17], *name = NULL, *under = NULL, *whole = NULL;
  MG_TRY(mg_config_stage_dir(s->attempt->config, &under), cleanup);
  whole = realpath(s->attempt->config->shards.dir, NULL);
  if (whole == NULL) {
    status = mg_fail_errno(MG_ERR_IO, "%s", s->attempt->config->shards.dir);
    goto cleanup;
  }
  if (asprintf(&name, "%s/mergegrid-shards-%s", under, mg_hash_text(mg_hash(whole, strlen(whole)), hash)) < 0) {
    name = NULL;
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  s->dir = name;
cleanup:
  free(under), free(whole);
  return status;
}

static char *path_of(const staging *s, uint32_t k) {
  const mg_source_list *list = &s->attempt->roster->list;
  char *path = k < list->count ? mg_shard_path(s->dir, list->items[k].id) : mg_shard_base_path(s->dir);
  if (path == NULL) mg_fail(MG_ERR_NOMEM, "out of memory");
  return path;
}

static ptrdiff_t source_of(const staging *s, uint32_t k) {
  return k < s->attempt->roster->list.count ? (ptrdiff_t)k : MG_ROW_BASE;
}

/* ---- what is not there ---- */

/* The copies that are not there, or not those of these shards; the latter are removed, which makes room. */
static mg_status find_missing(staging *s) {
  const uint32_t n = (uint32_t)s->attempt->roster->list.count + 1;
  uint32_t *list = mg_alloc(n, sizeof *list);
  if (list == NULL) return MG_ERR_NOMEM;
  s->missing = list;
  for (uint32_t k = 0; k < n; k++) {
    const mg_shard_seal *seal = mg_rows_seal(s->attempt->rows, source_of(s, k));
    mg_shard_seal found;
    char *path = path_of(s, k);
    if (path == NULL) return MG_ERR_NOMEM;
    const bool there = mg_path_exists(path);
    const bool same = there && mg_shard_seal_read(path, &found) == MG_OK && mg_shard_seal_equal(&found, seal);
    if (there && !same) unlink(path);
    free(path);
    if (same) continue;
    list[s->count++] = k;
    s->bytes += seal->file_size;
  }
  return MG_OK;
}

double mg_stage_room(const char *dir) {
  struct statvfs disk;
  char *at = mg_strdup(dir);
  while (at != NULL && statvfs(at, &disk) != 0 && strcmp(at, "/") != 0 && strcmp(at, ".") != 0) {
    char *up = mg_path_dirname(at); /* it may not be there yet */
    free(at);
    at = up;
  }
  const double room = at != NULL && statvfs(at, &disk) == 0 ? (double)disk.f_bavail * (double)disk.f_frsize : 0;
  free(at);
  return room;
}

static mg_status check_space(const staging *s) {
  struct statvfs disk;
  char need[32], have[32];
  if (s->count == 0) return MG_OK;
  if (access(s->dir, W_OK | X_OK) != 0 || statvfs(s->dir, &disk) != 0) return mg_fail_errno(MG_ERR_IO, "%s", (char *)s->dir);
  const double room = (double)disk.f_bavail * (double)disk.f_frsize;
  if ((double)s->bytes <= room) return MG_OK;
  return mg_fail(MG_ERR_IO, "%s: copies of %zu shards take %s, and %s are free", (char *)s->dir, s->count,
                 mg_format_bytes((double)s->bytes, need), mg_format_bytes(room, have));
}

static mg_status prepare(staging *s) {
  mg_status status = MG_OK;
  MG_TRY(mg_make_dirs(s->dir), done);
  mg_shard_clean(s->dir);
  MG_TRY(find_missing(s), done);
  MG_TRY(check_space(s), done);
done:
  return status;
}

/* ---- copying ---- */

static mg_status stop_if_asked(void *context) {
  (void)context;
  return mg_stop_requested() ? mg_fail(MG_STOPPED, "stopped while shards were copied") : MG_OK;
}

static mg_status copy_own(const staging *s) {
  mg_status status = MG_OK;
  const uint32_t *list = s->missing;
  for (size_t i = (size_t)s->rank; i < s->count && status == MG_OK; i += (size_t)s->ranks) {
    char *to = path_of(s, list[i]);
    if (to == NULL) return MG_ERR_NOMEM;
    const ptrdiff_t source = source_of(s, list[i]);
    status = mg_shard_copy(mg_rows_shard_path(s->attempt->rows, source), to, mg_rows_seal(s->attempt->rows, source),
                           stop_if_asked, NULL);
    free(to);
  }
  return status;
}

/* Collective on the node. What is wrong with its disk is MG_ERR_IO. */
static mg_status stage_node(staging *s) {
  mg_status status = MG_OK;
  size_t length = s->dir != NULL ? strlen(s->dir) : 0, size = 0;
  MG_TRY(mg_broadcast_bytes(s->node, &s->dir, &length), done);
  MG_TRY(mg_agree(s->node, s->rank == 0 ? prepare(s) : MG_OK), done);
  size = s->count * sizeof(uint32_t);
  MG_TRY(mg_broadcast_bytes(s->node, &s->missing, &size), done);
  s->count = size / sizeof(uint32_t);
  MG_TRY(mg_agree(s->node, copy_own(s)), done);
done:
  return status;
}

/* ---- the story ---- */

/* What each node's first rank has to say, added up for rank 0. */
static void report(const staging *s, bool staged, double began) {
  const bool speaks = s->rank == 0;
  double mine[5] = {speaks && staged, speaks && !staged, speaks && staged ? (double)s->count : 0,
                    speaks && staged ? (double)s->bytes : 0,
                    speaks && staged ? (double)(s->attempt->roster->list.count + 1 - s->count) : 0};
  double all[5] = {0};
  char size[32];
  MPI_Reduce(mine, all, 5, MPI_DOUBLE, MPI_SUM, 0, s->attempt->comm);
  if (all[0] > 0)
    mg_info("shards.stage_to: %.0f copied (%s, %.1f s) and %.0f there already on %.0f node%s, here in %s", all[2],
            mg_format_bytes(all[3], size), mg_now() - began, all[4], all[0], all[0] > 1 ? "s" : "",
            s->dir != NULL ? (const char *)s->dir : "");
  if (all[1] > 0 && all[0] > 0) mg_warn("%.0f node%s without copies of the shards", all[1], all[1] > 1 ? "s are" : " is");
}

mg_status mg_attempt_stage_shards(mg_attempt *a) {
  mg_status status = MG_OK;
  staging s = {.attempt = a};
  char host[64] = "";
  const double began = mg_now();
  gethostname(host, sizeof host - 1);
  MPI_Comm_split_type(a->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &s.node);
  MPI_Comm_rank(s.node, &s.rank);
  MPI_Comm_size(s.node, &s.ranks);
  MG_TRY(mg_agree(a->comm, s.rank == 0 ? name_directory(&s) : MG_OK), cleanup);
  status = stage_node(&s);
  const bool staged = status == MG_OK;
  if (status == MG_ERR_IO) {
    if (s.rank == 0) mg_warn("shards.stage_to: host %s reads the shards where they are: %s", host, mg_error_message());
    status = MG_OK;
  }
  if (staged) status = mg_rows_move(a->rows, s.dir);
  MG_TRY(mg_agree(a->comm, status), cleanup);
  report(&s, staged, began);
  mg_attempt_timed(a, "stage_to", began);
cleanup:
  MPI_Comm_free(&s.node);
  free(s.dir), free(s.missing);
  return status;
}
