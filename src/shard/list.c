/* The shards of a directory. */

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "shard_impl.h"

static mg_status add_shard(const char *path, mg_source_list *list) {
  mg_shard *shard = NULL;
  const mg_status status = mg_shard_open(path, &shard);
  if (status != MG_OK) return status;
  if (!shard->is_base) {
    mg_source *items = reallocarray(list->items, list->count + 1, sizeof *items);
    if (items == NULL) {
      mg_shard_close(&shard);
      return mg_fail(MG_ERR_NOMEM, "out of memory");
    }
    list->items = items;
    items[list->count++] = (mg_source){.id = shard->id, .locale = shard->locale, .path = shard->source_path};
    shard->id = shard->locale = shard->source_path = NULL; /* moved */
  }
  mg_shard_close(&shard);
  return MG_OK;
}

static int compare_ids(const void *a, const void *b) { return strcmp(((const mg_source *)a)->id, ((const mg_source *)b)->id); }

mg_status mg_shard_list(const char *dir, mg_source_list *list) {
  mg_status status = MG_OK;
  *list = (mg_source_list){0};
  DIR *entries = opendir(dir);
  if (entries == NULL) return mg_fail_errno(MG_ERR_IO, "%s", dir);
  for (const struct dirent *entry; status == MG_OK && (entry = readdir(entries)) != NULL;) {
    const size_t length = strlen(entry->d_name);
    if (length <= 3 || strcmp(entry->d_name + length - 3, ".h5") != 0) continue;
    char *path = mg_path_join(dir, entry->d_name);
    status = path != NULL ? add_shard(path, list) : MG_ERR_NOMEM;
    free(path);
  }
  closedir(entries);
  if (status != MG_OK) {
    mg_source_list_free(list);
    return status;
  }
  if (list->count > 1) qsort(list->items, list->count, sizeof *list->items, compare_ids);
  return MG_OK;
}
