/* Which sources there are: a pattern, a list, or a map of ids to directories. */

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "family_impl.h"

static const char PLACE[] = "{locale}";
enum { LONGEST_ID = 230 }; /* file names have 255 bytes, and temporary ones end in .tmp.<pid> */

static void source_free(mg_source *source) {
  free(source->id);
  free(source->locale);
  free(source->path);
}

void mg_family_spec_free(mg_family_spec *spec) {
  for (size_t k = 0; k < spec->entry_count; k++) source_free(&spec->entries[k]);
  free(spec->entries);
  free(spec->base);
  free(spec->pattern);
  mg_strings_free(&spec->locales);
  *spec = (mg_family_spec){0};
}

void mg_source_list_free(mg_source_list *list) {
  for (size_t k = 0; k < list->count; k++) source_free(&list->items[k]);
  free(list->items);
  mg_strings_free(&list->skipped);
  *list = (mg_source_list){0};
}

static mg_status add_source(mg_source_list *list, const char *id, const char *locale, const char *path) {
  mg_source *items = reallocarray(list->items, list->count + 1, sizeof *items);
  if (items == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  list->items = items;
  mg_source *s = &items[list->count++];
  *s = (mg_source){.id = mg_strdup(id), .locale = mg_strdup(locale), .path = mg_strdup(path)};
  return s->id != NULL && s->locale != NULL && s->path != NULL ? MG_OK : MG_ERR_NOMEM;
}

/* ---- the pattern ---- */

static char *fill_in(const char *pattern, const char *locale) {
  char *path = NULL;
  const char *place = strstr(pattern, PLACE);
  if (asprintf(&path, "%.*s%s%s", (int)(place - pattern), pattern, locale, place + strlen(PLACE)) < 0) {
    mg_fail(MG_ERR_NOMEM, "out of memory");
    return NULL;
  }
  return path;
}

/* The pattern cut at the directory component that holds the place: parent, what is before and behind the place in the
   component, and the rest of the path below it. */
typedef struct pattern_parts {
  char *parent, *before, *after, *below;
} pattern_parts;

static void parts_free(pattern_parts *p) {
  free(p->parent);
  free(p->before);
  free(p->after);
  free(p->below);
}

static mg_status cut(const char *pattern, pattern_parts *p) {
  const char *place = strstr(pattern, PLACE), *component = place, *end = place + strlen(PLACE);
  while (component > pattern && component[-1] != '/') component--;
  const size_t tail = strcspn(end, "/");
  p->parent = component == pattern ? mg_strdup(".") : strndup(pattern, (size_t)(component - pattern));
  p->before = strndup(component, (size_t)(place - component));
  p->after = strndup(end, tail);
  p->below = mg_strdup(end + tail);
  return p->parent && p->before && p->after && p->below ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
}

static bool matches(const pattern_parts *p, const char *name, size_t *length) {
  const size_t all = strlen(name), before = strlen(p->before), after = strlen(p->after);
  if (all <= before + after || strncmp(name, p->before, before) != 0 || strcmp(name + all - after, p->after) != 0) return false;
  if (name[0] == '.' && p->before[0] != '.') return false; /* as a shell does */
  *length = all - before - after;
  return true;
}

/* Is path a directory? Not there is an answer, not being allowed to look is a failure. */
static mg_status look_for_dir(const char *path, bool *is_dir) {
  struct stat info;
  const bool there = stat(path, &info) == 0;
  *is_dir = there && S_ISDIR(info.st_mode);
  if (there || errno == ENOENT || errno == ENOTDIR) return MG_OK;
  return mg_fail_errno(MG_ERR_IO, "%s", path);
}

/* Adds the entry's locale if the pattern, filled in with it, is a directory. */
static mg_status add_locale(const char *pattern, const char *text, size_t length, mg_strings *locales) {
  bool is_dir = false;
  char *locale = strndup(text, length), *path = locale != NULL ? fill_in(pattern, locale) : NULL;
  mg_status status = path == NULL ? mg_fail(MG_ERR_NOMEM, "out of memory") : look_for_dir(path, &is_dir);
  if (is_dir) status = mg_strings_add(locales, locale);
  free(locale);
  free(path);
  return status;
}

static mg_status list_locales(const char *pattern, mg_strings *locales) {
  mg_status status = MG_OK;
  pattern_parts p = {0};
  DIR *dir = NULL;
  MG_TRY(cut(pattern, &p), cleanup);
  dir = opendir(p.parent);
  if (dir == NULL) {
    status = mg_fail_errno(MG_ERR_INPUT, "%s: the directory that family.sources points into can't be read", p.parent);
    goto cleanup;
  }
  for (errno = 0;; errno = 0) {
    size_t length;
    const struct dirent *entry = readdir(dir);
    if (entry == NULL && errno != 0) status = mg_fail_errno(MG_ERR_IO, "%s: reading the directory", p.parent);
    if (entry == NULL) break;
    if (matches(&p, entry->d_name, &length))
      MG_TRY(add_locale(pattern, entry->d_name + strlen(p.before), length, locales), cleanup);
  }
  mg_strings_sort(locales);
cleanup:
  if (dir != NULL) closedir(dir);
  parts_free(&p);
  return status;
}

static mg_status resolve_pattern(const mg_family_spec *spec, mg_source_list *list) {
  mg_status status = MG_OK;
  mg_strings found = {0};
  const mg_strings *locales = &spec->locales;
  const char *place = strstr(spec->pattern, PLACE);
  if (place == NULL || strstr(place + 1, PLACE) != NULL)
    return mg_fail(MG_ERR_CONFIG, "family.sources: '%s' has %s {locale} in it; exactly one was expected", spec->pattern,
                   place == NULL ? "no" : "more than one");
  if (spec->locales.count == 0) {
    MG_TRY(list_locales(spec->pattern, &found), cleanup);
    locales = &found;
    if (found.count == 0) {
      status = mg_fail(MG_ERR_INPUT, "family.sources: no directory matches %s", spec->pattern);
      goto cleanup;
    }
  }
  for (size_t k = 0; k < locales->count && status == MG_OK; k++) {
    char *path = fill_in(spec->pattern, locales->items[k]);
    status = path != NULL ? add_source(list, locales->items[k], locales->items[k], path) : MG_ERR_NOMEM;
    free(path);
  }
cleanup:
  mg_strings_free(&found);
  return status;
}

/* ---- lists and maps ---- */

/* The last component of a path without trailing slashes; the caller frees. */
static char *last_component(const char *path) {
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  char *name = strndup(path + begin, end - begin);
  if (name == NULL) mg_fail(MG_ERR_NOMEM, "out of memory");
  return name;
}

/* A trailing "xx-XX" (or xxx-XX), as the checkpoints' names of this field end, else all of it. */
static const char *trailing_locale(const char *name) {
  const size_t length = strlen(name);
  if (length < 5 || name[length - 3] != '-' || !isupper((unsigned char)name[length - 1]) ||
      !isupper((unsigned char)name[length - 2]))
    return name;
  size_t begin = length - 3;
  while (begin > 0 && islower((unsigned char)name[begin - 1])) begin--;
  const size_t letters = length - 3 - begin;
  return letters == 2 || letters == 3 ? name + begin : name;
}

static mg_status resolve_entries(const mg_family_spec *spec, mg_source_list *list) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < spec->entry_count && status == MG_OK; k++) {
    const mg_source *entry = &spec->entries[k];
    char *name = last_component(entry->path);
    if (name == NULL) return MG_ERR_NOMEM;
    const char *id = entry->id != NULL ? entry->id : name;
    const char *locale = entry->locale != NULL ? entry->locale : spec->kind == MG_SOURCES_MAP ? id : trailing_locale(name);
    status = add_source(list, id, locale, entry->path);
    free(name);
  }
  return status;
}

/* Keeps the sources of the wanted locales, in their order. */
static mg_status restrict_to(const mg_strings *locales, mg_source_list *list) {
  mg_status status = MG_OK;
  mg_source_list kept = {0};
  mg_text absent = {0};
  for (size_t k = 0; k < locales->count; k++) {
    bool any = false;
    for (size_t s = 0; s < list->count; s++) {
      const mg_source *source = &list->items[s];
      if (strcmp(source->locale, locales->items[k]) != 0 && strcmp(source->id, locales->items[k]) != 0) continue;
      any = true;
      MG_TRY(add_source(&kept, source->id, source->locale, source->path), cleanup);
    }
    if (!any) mg_text_append(&absent, "%s%s", absent.size ? ", " : "", locales->items[k]);
  }
  if (absent.size > 0) {
    status = mg_fail(MG_ERR_CONFIG, "family.locales: family.sources has none for %s", absent.data);
    goto cleanup;
  }
  mg_source_list_free(list);
  *list = kept;
  kept = (mg_source_list){0};
cleanup:
  mg_source_list_free(&kept);
  mg_text_free(&absent);
  return status;
}

/* ---- what all have in common ---- */

/* Ids name shard files (where what is no letter, digit or one of -_. is written as %XX), rows and columns. */
static bool usable_id(const char *id) {
  const size_t length = strlen(id);
  size_t taken = 0;
  if (length == 0 || strcmp(id, ".") == 0 || strcmp(id, "..") == 0 || strchr(id, '/') != NULL) return false;
  for (size_t k = 0; k < length && taken <= LONGEST_ID; k++) {
    const unsigned char byte = (unsigned char)id[k];
    if (byte < 0x20 || byte == 0x7F) return false;
    taken += (byte < 0x80 && isalnum(byte)) || strchr("-_.", byte) != NULL ? 1 : 3;
  }
  return taken <= LONGEST_ID && mg_valid_utf8(id, length);
}

static mg_status check_ids(const mg_source_list *list) {
  mg_status status = MG_OK;
  mg_text text = {0};
  for (size_t k = 0; k < list->count; k++)
    if (!usable_id(list->items[k].id)) mg_text_append(&text, "\n  '%s': %s", list->items[k].id, list->items[k].path);
  if (text.size > 0)
    status =
        mg_fail(MG_ERR_CONFIG,
                "family.sources: ids that can't name a file (UTF-8 without '/' and control characters was expected, not '.' "
                "or '..', at most %d bytes, other ones than letters, digits and -_. counting thrice):%s",
                LONGEST_ID, text.data);
  mg_text_free(&text);
  return status;
}

static int compare_ids(const void *a, const void *b) {
  return strcmp((*(const mg_source *const *)a)->id, (*(const mg_source *const *)b)->id);
}

static mg_status check_duplicates(const mg_source_list *list) {
  mg_status status = MG_OK;
  mg_text text = {0};
  const mg_source **order = mg_alloc(list->count, sizeof *order);
  if (order == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < list->count; k++) order[k] = &list->items[k];
  if (list->count > 1) qsort(order, list->count, sizeof *order, compare_ids);
  for (size_t k = 1; k < list->count; k++)
    if (strcmp(order[k - 1]->id, order[k]->id) == 0)
      mg_text_append(&text, "\n  %s: %s and %s", order[k]->id, order[k - 1]->path, order[k]->path);
  if (text.size > 0) status = mg_fail(MG_ERR_CONFIG, "family.sources: ids that stand for more than one source:%s", text.data);
  mg_text_free(&text);
  free(order);
  return status;
}

/* Drops the missing sources from the list, and says which they were. */
static mg_status drop_missing(mg_has_shard_fn has_shard, void *context, mg_source_list *list, mg_text *missing) {
  mg_status status = MG_OK;
  size_t kept = 0, k = 0;
  for (; k < list->count && status == MG_OK; k++) {
    mg_source *source = &list->items[k];
    bool there = has_shard != NULL && has_shard(context, source->id);
    if (!there) status = look_for_dir(source->path, &there);
    if (there || status != MG_OK) {
      list->items[kept++] = *source;
      continue;
    }
    mg_text_append(missing, "\n  %s: %s", source->id, source->path);
    status = mg_strings_add(&list->skipped, source->id);
    source_free(source);
  }
  for (; k < list->count; k++) list->items[kept++] = list->items[k];
  list->count = kept;
  return status;
}

static mg_status check_missing(const mg_family_spec *spec, mg_has_shard_fn has_shard, void *context, mg_source_list *list) {
  mg_status status = MG_OK;
  mg_text missing = {0};
  const size_t all = list->count;
  MG_TRY(drop_missing(has_shard, context, list, &missing), cleanup);
  if (list->count < all && !spec->skip_missing)
    status = mg_fail(MG_ERR_INPUT, "%zu of %zu checkpoints are missing (family.missing: skip would leave them out):%s",
                     list->skipped.count, all, missing.data ? missing.data : "");
  else if (list->count == 0)
    status = mg_fail(MG_ERR_INPUT, "family.sources: no source is left:%s", missing.data ? missing.data : " it is empty");
cleanup:
  mg_text_free(&missing);
  return status;
}

mg_status mg_sources_resolve(const mg_family_spec *spec, mg_has_shard_fn has_shard, void *context, mg_source_list *list) {
  mg_status status = MG_OK;
  *list = (mg_source_list){0};
  if (spec->kind == MG_SOURCES_PATTERN) {
    MG_TRY(resolve_pattern(spec, list), failed);
  } else {
    MG_TRY(resolve_entries(spec, list), failed);
    if (spec->locales.count > 0) MG_TRY(restrict_to(&spec->locales, list), failed);
  }
  MG_TRY(check_ids(list), failed);
  MG_TRY(check_duplicates(list), failed);
  MG_TRY(check_missing(spec, has_shard, context, list), failed);
  return MG_OK;
failed:
  mg_source_list_free(list);
  return status;
}
