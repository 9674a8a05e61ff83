/* Who is in the family: checkpoints where they are, shards where the checkpoints are gone. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

static bool has_shard(void *context, const char *id) {
  char *path = mg_shard_path(context, id);
  const bool there = path != NULL && mg_path_exists(path);
  free(path);
  return there;
}

static bool base_shard_there(const mg_config *config) {
  char *path = config->shards.dir != NULL ? mg_shard_base_path(config->shards.dir) : NULL;
  const bool there = path != NULL && mg_path_exists(path);
  free(path);
  return there;
}

/* A pattern that no directory matches any more: the sources are those that were packed. */
static mg_status sources_from_shards(const mg_config *config, mg_source_list *list) {
  const mg_family_spec *spec = &config->family;
  if (config->shards.dir == NULL || spec->kind != MG_SOURCES_PATTERN || spec->locales.count > 0) return MG_ERR_INPUT;
  if (!base_shard_there(config)) return MG_ERR_INPUT;
  const mg_status status = mg_shard_list(config->shards.dir, list);
  if (status != MG_OK || list->count > 0) return status;
  return MG_ERR_INPUT;
}

static mg_status resolve(const mg_config *config, bool quiet, mg_roster *roster) {
  mg_source_list packed = {0};
  void *context = config->shards.dir;
  const bool usable = context != NULL && base_shard_there(config);
  mg_status status = mg_sources_resolve(&config->family, usable ? has_shard : NULL, context, &roster->list);
  if (status == MG_OK || status == MG_ERR_NOMEM) return status;
  char *message = mg_strdup(mg_error_message());
  if (message == NULL) return MG_ERR_NOMEM;
  if (sources_from_shards(config, &packed) == MG_OK) {
    roster->list = packed;
    if (!quiet)
      mg_info("no checkpoint matches %s any more: going on with the %zu shards in %s", config->family.pattern,
              roster->list.count, config->shards.dir);
    status = MG_OK;
  } else {
    status = mg_fail(status, "%s", message);
  }
  free(message);
  return status;
}

static void log_notes(const mg_family *family) {
  enum { SHOWN = 8 };
  for (size_t k = 0; k < family->notes.count && k < SHOWN; k++) mg_info("note: %s", family->notes.items[k]);
  if (family->notes.count > SHOWN) mg_info("note: … and %zu more like these", family->notes.count - SHOWN);
}

/* Compares the checkpoints that are there; a source with only a shard is held to the shards' tables later. */
static mg_status open_family(const mg_config *config, bool quiet, mg_roster *roster) {
  mg_status status = MG_OK;
  mg_source_list present = {0};
  present.items = mg_alloc(roster->list.count, sizeof *present.items);
  if (present.items == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < roster->list.count; k++) {
    roster->member[k] = -1;
    if (!mg_path_is_dir(roster->list.items[k].path)) continue;
    roster->member[k] = (ptrdiff_t)present.count;
    present.items[present.count++] = roster->list.items[k]; /* borrowed */
  }
  if (present.count > 0) {
    MG_TRY(mg_family_open(config->family.base, &present, &config->compatibility.exclude, &roster->family), cleanup);
    if (!quiet) log_notes(roster->family);
  }
cleanup:
  free(present.items);
  return status;
}

/* ---- labels ---- */

mg_status mg_roster_labels(const mg_config *config, const mg_roster *roster, size_t source, mg_strings *copy) {
  mg_status status = MG_OK;
  mg_shard *shard = NULL;
  const mg_strings *labels = NULL;
  char *path = NULL;
  const ptrdiff_t member = roster->member[source];
  if (roster->family != NULL && member >= 0) {
    labels = &roster->family->sources[member].labels;
  } else {
    path = mg_shard_path(config->shards.dir, roster->list.items[source].id);
    if (path == NULL) return MG_ERR_NOMEM;
    MG_TRY(mg_shard_open(path, &shard), cleanup);
    labels = &shard->labels;
  }
  for (size_t k = 0; k < labels->count; k++) MG_TRY(mg_strings_add(copy, labels->items[k]), cleanup);
cleanup:
  mg_shard_close(&shard);
  free(path);
  return status;
}

mg_status mg_roster_class_of(const mg_config *config, const mg_roster *roster, size_t source, const mg_strings *family,
                             size_t classes, int32_t *to) {
  mg_strings own = {0};
  const char *id = roster->list.items[source].id;
  mg_status status = mg_roster_labels(config, roster, source, &own);
  const bool named = status == MG_OK && own.count == classes && family->count == classes;
  for (size_t c = 0; c < classes; c++) to[c] = (int32_t)c;
  if (status == MG_OK && !named && (own.count > 0 || family->count > 0))
    status = mg_fail(MG_ERR_INPUT, "source %s names %zu labels, the family %zu, and the head has %zu classes", id, own.count,
                     family->count, classes);
  for (size_t c = 0; named && c < classes && status == MG_OK; c++) {
    const bool in_place = strcmp(family->items[c], own.items[c]) == 0; /* names need not be unique where nothing moved */
    const ptrdiff_t at = in_place ? (ptrdiff_t)c : mg_strings_find(family, own.items[c]);
    if (at < 0)
      status = mg_fail(MG_ERR_INPUT, "source %s has the label '%s', which the first source does not have", id, own.items[c]);
    to[c] = (int32_t)at;
    for (size_t d = 0; d < c && status == MG_OK; d++)
      if (to[d] == to[c])
        status = mg_fail(MG_ERR_INPUT, "source %s has the label '%s' twice, and its labels in another order than the first", id,
                         own.items[c]);
  }
  mg_strings_free(&own);
  return status;
}

/* ---- opening ---- */

mg_status mg_roster_open(const mg_config *config, bool quiet, mg_roster *roster) {
  mg_status status = MG_OK;
  *roster = (mg_roster){.base_there = mg_path_is_dir(config->family.base)};
  MG_TRY(resolve(config, quiet, roster), failed);
  roster->member = mg_alloc(roster->list.count, sizeof *roster->member);
  if (roster->member == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  for (size_t k = 0; k < roster->list.count; k++) roster->member[k] = -1;
  /* Without the base nothing can be packed or compared; what was packed from it can still be used. */
  if (roster->base_there || !base_shard_there(config)) MG_TRY(open_family(config, quiet, roster), failed);
  if (!quiet)
    for (size_t k = 0; k < roster->list.skipped.count; k++)
      mg_warn("source %s has no checkpoint and is skipped", roster->list.skipped.items[k]);
  MG_TRY(mg_roster_labels(config, roster, 0, &roster->labels), failed);
  return MG_OK;
failed:
  mg_roster_close(roster);
  return status;
}

mg_status mg_roster_open_shards(const mg_config *config, mg_roster *roster) {
  mg_status status = MG_OK;
  *roster = (mg_roster){.base_there = mg_path_is_dir(config->family.base)};
  MG_TRY(mg_sources_resolve(&config->family, has_shard, config->shards.dir, &roster->list), failed);
  roster->member = mg_alloc(roster->list.count, sizeof *roster->member);
  if (roster->member == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  for (size_t k = 0; k < roster->list.count; k++) roster->member[k] = -1;
  MG_TRY(mg_roster_labels(config, roster, 0, &roster->labels), failed);
  return MG_OK;
failed:
  mg_roster_close(roster);
  return status;
}

void mg_roster_close(mg_roster *roster) {
  mg_family_close(&roster->family);
  mg_source_list_free(&roster->list);
  mg_strings_free(&roster->labels);
  free(roster->member);
  *roster = (mg_roster){0};
}

mg_status mg_roster_rows(const mg_config *config, const mg_roster *roster, mg_rows **rows) {
  const size_t bound = mg_file_cache_bound();
  if (config->shards.dir != NULL) return mg_rows_open_shards(config->shards.dir, &roster->list, bound, rows);
  return mg_rows_open_checkpoints(roster->family, bound, rows);
}
