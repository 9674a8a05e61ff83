/* Packing: the base first, since every task vector is measured from it, then the sources as ranks come for them. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

typedef struct packing {
  const mg_config *config;
  const mg_roster *roster;
  bool rehash, of_base;
  uint64_t base_hash;
  int64_t written, unchanged, kept; /* rank 0 */
  mg_progress progress;
} packing;

static mg_status poll_farm(void *context, int64_t elements) {
  (void)elements;
  return mg_farm_poll_now(context);
}

static mg_status pack_one(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  const packing *p = context;
  const mg_source *source = p->of_base ? NULL : &p->roster->list.items[unit];
  const ptrdiff_t member = p->of_base ? 0 : p->roster->member[unit];
  const mg_pack_job job = {.family = member < 0 ? NULL : p->roster->family,
                           .source = source,
                           .index = member < 0 ? 0 : (size_t)member,
                           .dir = p->config->shards.dir,
                           .dtype = p->of_base ? MG_F32 : p->config->shards.dtype,
                           .allow_nonfinite = p->config->family.allow_nonfinite,
                           .rehash = p->rehash,
                           .base_hash = p->base_hash,
                           .poll = poll_farm,
                           .context = poll};
  mg_pack_outcome outcome = MG_PACK_UNCHANGED;
  const mg_status status = mg_shard_pack(&job, &outcome);
  mg_text_append_bytes(payload, &outcome, sizeof outcome);
  return status;
}

static mg_status take_outcome(void *context, int64_t unit, const void *payload, size_t size) {
  packing *p = context;
  mg_pack_outcome outcome;
  if (size != sizeof outcome) return mg_fail(MG_ERR_INTERNAL, "a packing outcome of %zu bytes", size);
  memcpy(&outcome, payload, sizeof outcome);
  const char *const words[] = {[MG_PACK_WRITTEN] = "written", [MG_PACK_UNCHANGED] = "up to date", [MG_PACK_KEPT] = "kept"};
  mg_debug("shard of %s: %s", p->of_base ? "the base" : p->roster->list.items[unit].id, words[outcome]);
  p->written += outcome == MG_PACK_WRITTEN;
  p->unchanged += outcome == MG_PACK_UNCHANGED;
  p->kept += outcome == MG_PACK_KEPT;
  return MG_OK;
}

static mg_status show_progress(void *context) {
  packing *p = context;
  if (!p->of_base) mg_progress_update(&p->progress, (double)(p->written + p->unchanged + p->kept));
  return MG_OK;
}

static mg_status pack_units(MPI_Comm comm, packing *p, int64_t units) {
  const mg_farm_job job = {.units = units, .context = p, .work = pack_one, .take = take_outcome, .tick = show_progress};
  return mg_farm_run(comm, &job);
}

/* The base's checkpoint_hash, by rank 0 from its shard, to all. */
static mg_status read_base_hash(MPI_Comm comm, int rank, packing *p) {
  mg_status status = MG_OK;
  mg_shard *shard = NULL;
  char *path = NULL;
  if (rank == 0) {
    path = mg_shard_base_path(p->config->shards.dir);
    status = path == NULL ? MG_ERR_NOMEM : mg_shard_open(path, &shard);
    if (status == MG_OK) p->base_hash = shard->checkpoint_hash;
  }
  mg_shard_close(&shard);
  free(path);
  status = mg_agree(comm, status);
  MPI_Bcast(&p->base_hash, 1, MPI_UINT64_T, 0, comm);
  return status;
}

mg_status mg_pack_family(MPI_Comm comm, const mg_config *config, const mg_roster *roster, bool rehash) {
  mg_status status = MG_OK;
  int rank;
  MPI_Comm_rank(comm, &rank);
  packing p = {.config = config, .roster = roster, .rehash = rehash, .of_base = true};
  MG_TRY(mg_agree(comm, rank == 0 ? mg_make_dirs(config->shards.dir) : MG_OK), done);
  if (rank == 0) mg_shard_clean(config->shards.dir);
  /* With the base gone its shard is kept as it is, and so is every source's whose checkpoint is gone. */
  if (roster->family != NULL) MG_TRY(pack_units(comm, &p, 1), done);
  const int64_t base_written = p.written;
  MG_TRY(read_base_hash(comm, rank, &p), done);
  p.of_base = false;
  p.written = p.unchanged = p.kept = 0;
  mg_progress_begin(&p.progress, "pack", (double)roster->list.count, 0, 1, "shards");
  MG_TRY(pack_units(comm, &p, (int64_t)roster->list.count), done);
  if (base_written + p.written > 0) mg_progress_end(&p.progress, (double)roster->list.count);
  mg_info("shards in %s: %lld written, %lld up to date%s; base %s", config->shards.dir, (long long)p.written,
          (long long)(p.unchanged + p.kept), p.kept > 0 ? " (some without their checkpoint)" : "",
          base_written > 0 ? "written" : "up to date");
done:
  return status;
}

mg_status mg_stage_pack(MPI_Comm comm, const mg_config *config, const mg_pack_options *options) {
  mg_status status = MG_OK;
  mg_roster roster = {0};
  if (config->shards.dir == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: shards.dir is none, so there is nothing to pack: name a directory", config->file);
  MG_TRY(mg_roster_open_all(comm, config, &roster), cleanup);
  MG_TRY(mg_pack_family(comm, config, &roster, options->rehash), cleanup);
cleanup:
  mg_roster_close(&roster);
  return status;
}
