/* Parts of a result: their names, and reading what they have journaled. */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "run_impl.h"

char *mg_part_path(const char *result, int part, int parts) {
  char *path = NULL;
  if (asprintf(&path, "%s.part-%d-of-%d", result, part, parts) >= 0) return path;
  mg_fail(MG_ERR_NOMEM, "out of memory");
  return NULL;
}

/* N of "BASE.part-I-of-N.journal" or ".state"; 0 of any other name. */
static int parts_of_name(const char *name, const char *base) {
  const size_t length = strlen(base);
  int part = 0, parts = 0, end = 0;
  if (strncmp(name, base, length) != 0) return 0;
  if (sscanf(name + length, ".part-%7d-of-%7d%n", &part, &parts, &end) != 2 || part < 1 || part > parts) return 0;
  const char *rest = name + length + end;
  return strcmp(rest, ".journal") == 0 || strcmp(rest, ".state") == 0 ? parts : 0;
}

/* Adds a number to an ascending list that may have it already. */
static mg_status add_number(int number, int **list, size_t *count) {
  size_t at = *count;
  for (size_t k = 0; k < *count; k++)
    if ((*list)[k] == number) return MG_OK;
  int *grown = reallocarray(*list, *count + 1, sizeof *grown);
  if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  for (; at > 0 && grown[at - 1] > number; at--) grown[at] = grown[at - 1];
  grown[at] = number;
  *list = grown;
  ++*count;
  return MG_OK;
}

mg_status mg_parts_find(const char *result, int **found, size_t *count) {
  mg_status status = MG_OK;
  const char *slash = strrchr(result, '/'), *base = slash != NULL ? slash + 1 : result;
  *found = NULL;
  *count = 0;
  char *path = mg_path_dirname(result);
  DIR *dir = path != NULL ? opendir(path) : NULL;
  if (path == NULL) status = MG_ERR_NOMEM;
  if (path != NULL && dir == NULL && errno != ENOENT) status = mg_fail_errno(MG_ERR_IO, "%s", path);
  for (const struct dirent *entry; status == MG_OK && dir != NULL && (entry = readdir(dir)) != NULL;) {
    const int parts = parts_of_name(entry->d_name, base);
    if (parts > 0) status = add_number(parts, found, count);
  }
  if (dir != NULL) closedir(dir);
  free(path);
  if (status != MG_OK) {
    free(*found);
    *found = NULL;
    *count = 0;
  }
  return status;
}

static void take_value(const mg_text *all, const char *key, char *buffer, size_t size) {
  if (!mg_state_value(all, key, buffer, size)) buffer[0] = '\0';
}

/* By its state, or, should that be lost, by its journals. */
static mg_status last_attempt(const char *path, int *attempt) {
  int *attempts = NULL;
  size_t count = 0;
  mg_status status = mg_state_attempt(path, attempt);
  if (status != MG_OK || *attempt > 0) return status;
  status = mg_attempts_list(path, &attempts, &count);
  if (status == MG_OK && count > 0) *attempt = attempts[count - 1];
  free(attempts);
  return status;
}

mg_status mg_part_read_report(const char *path, int part, mg_part_report *report) {
  mg_text state, all;
  *report = (mg_part_report){.part = part};
  const mg_status status = mg_run_read_state(path, &state, &all);
  if (status != MG_OK) return status;
  snprintf(report->state, sizeof report->state, "%s", state.data != NULL ? state.data : "");
  take_value(&all, "stage", report->stage, sizeof report->stage);
  take_value(&all, "progress", report->progress, sizeof report->progress);
  take_value(&all, "host", report->host, sizeof report->host);
  take_value(&all, "started", report->started, sizeof report->started);
  take_value(&all, "updated", report->updated, sizeof report->updated);
  mg_text_free(&state);
  mg_text_free(&all);
  return last_attempt(path, &report->attempt);
}

/* ---- their journals ---- */

mg_status mg_joined_add(mg_joined *joined, int part, const char *path, bool hold) {
  mg_joined_part *grown = reallocarray(joined->items, joined->count + 1, sizeof *grown);
  if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  joined->items = grown;
  mg_joined_part *added = &grown[joined->count];
  *added = (mg_joined_part){.part = part, .path = mg_strdup(path), .lock = -1};
  if (added->path == NULL) return MG_ERR_NOMEM;
  joined->count++;
  return hold ? mg_lock_take(path, &added->lock) : MG_OK;
}

const char *mg_joined_path(const mg_joined *joined, int part) {
  for (size_t k = 0; k < joined->count; k++)
    if (joined->items[k].part == part) return joined->items[k].path;
  return NULL;
}

/* A record's place says whose it is. */
typedef struct of_part {
  int part;
  mg_journal_visit visit;
  void *context;
} of_part;

static mg_status visit_of_part(void *context, const mg_record *record) {
  const of_part *of = context;
  mg_record placed = *record;
  placed.place.part = of->part;
  return of->visit(of->context, &placed);
}

mg_status mg_joined_replay(const mg_joined *joined, const mg_identity *identity, mg_journal_visit visit, void *context) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < joined->count; k++) MG_TRY(mg_attempts_compare(joined->items[k].path, 0, identity), done);
  for (size_t k = 0; k < joined->count; k++) {
    of_part of = {.part = joined->items[k].part, .visit = visit, .context = context};
    MG_TRY(mg_journal_replay(joined->items[k].path, visit_of_part, &of), done);
  }
done:
  return status;
}

mg_status mg_joined_remove(const mg_joined *joined) {
  mg_status status = MG_OK;
  static const char *const suffixes[] = {".state", ".lock"};
  for (size_t k = 0; k < joined->count; k++) {
    if (joined->items[k].lock < 0) continue;
    MG_TRY(mg_journals_remove(joined->items[k].path, MG_LAST_ATTEMPT), done);
    for (size_t f = 0; f < sizeof suffixes / sizeof *suffixes; f++) {
      char *file = mg_beside(joined->items[k].path, suffixes[f]);
      if (file == NULL) return MG_ERR_NOMEM;
      if (unlink(file) != 0 && errno != ENOENT) status = mg_fail_errno(MG_ERR_IO, "%s: can't be removed", file);
      free(file);
      if (status != MG_OK) return status;
    }
  }
done:
  return status;
}

void mg_joined_free(mg_joined *joined) {
  for (size_t k = 0; k < joined->count; k++) {
    if (joined->items[k].lock >= 0) close(joined->items[k].lock);
    free(joined->items[k].path);
  }
  free(joined->items);
  *joined = (mg_joined){0};
}
