/* Names: layers, shapes as text, and how a base's names correspond to its sources'. */

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "family_impl.h"

enum { PREFIX_DEPTH = 3 };

size_t mg_layer_prefix(const char *name) {
  static const char *const words[] = {"layer", "layers", "h", "blocks", "block"};
  const char *at = name;
  while (*at != '\0') {
    const size_t length = strcspn(at, ".");
    const char *next = at[length] == '.' ? at + length + 1 : at + length;
    const size_t digits = strspn(next, "0123456789");
    const bool number = digits > 0 && (next[digits] == '.' || next[digits] == '\0');
    for (size_t k = 0; number && k < sizeof words / sizeof *words; k++)
      if (strlen(words[k]) == length && strncmp(at, words[k], length) == 0) return (size_t)(next - name) + digits;
    at = next;
  }
  return 0;
}

void mg_shape_text(mg_text *text, const int64_t *shape, int ndim) {
  mg_text_append(text, "[");
  for (int d = 0; d < ndim; d++) mg_text_append(text, "%s%lld", d ? ", " : "", (long long)shape[d]);
  mg_text_append(text, "]");
}

bool mg_shape_equal(const mg_tensor_info *a, const mg_tensor_info *b) {
  return a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0;
}

bool mg_matches_any(const mg_strings *globs, const char *name) {
  for (size_t k = 0; globs != NULL && k < globs->count; k++)
    if (fnmatch(globs->items[k], name, 0) == 0) return true;
  return false;
}

static int compare_strings(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

bool mg_sorted_has(const mg_strings *sorted, const char *item) {
  return sorted->count > 0 && bsearch(&item, sorted->items, sorted->count, sizeof *sorted->items, compare_strings) != NULL;
}

void mg_mismatch(mg_mismatches *list, const char *format, ...) {
  char *line = NULL;
  va_list arguments;
  if (list->count++ >= MG_LISTED_MISMATCHES) return;
  va_start(arguments, format);
  if (vasprintf(&line, format, arguments) < 0) line = NULL;
  va_end(arguments);
  mg_text_append(&list->lines, "\n  %s", line != NULL ? line : "(out of memory)");
  free(line);
}

static const mg_tensor_info *find_joined(const mg_checkpoint *checkpoint, const char *prefix, const char *rest) {
  char *name = NULL;
  if (prefix[0] == '\0') return mg_checkpoint_find(checkpoint, rest);
  if (asprintf(&name, "%s%s", prefix, rest) < 0) return NULL;
  const mg_tensor_info *found = mg_checkpoint_find(checkpoint, name);
  free(name);
  return found;
}

/* name without `off` in front and with `on`; NULL where name does not begin with off. */
static const mg_tensor_info *counterpart(const mg_checkpoint *where, const char *name, const char *off, const char *on) {
  const size_t length = strlen(off);
  if (strncmp(name, off, length) != 0) return NULL;
  return find_joined(where, on, name + length);
}

const mg_tensor_info *mg_base_counterpart(const mg_prefixes *prefixes, const mg_checkpoint *source, const mg_checkpoint *base,
                                          const char *source_name) {
  const mg_tensor_info *found = counterpart(base, source_name, prefixes->source, prefixes->base);
  if (found != NULL) return found;
  /* A base saved with its task's head has that under the same name, whatever prefix the backbone lost. */
  found = mg_checkpoint_find(base, source_name);
  return found != NULL && counterpart(source, found->name, prefixes->base, prefixes->source) == NULL ? found : NULL;
}

const mg_tensor_info *mg_source_counterpart(const mg_prefixes *prefixes, const mg_checkpoint *source, const mg_checkpoint *base,
                                            const char *base_name) {
  const mg_tensor_info *found = counterpart(source, base_name, prefixes->base, prefixes->source);
  if (found != NULL) return found;
  found = mg_checkpoint_find(source, base_name);
  return found != NULL && counterpart(base, found->name, prefixes->source, prefixes->base) == NULL ? found : NULL;
}

/* The leading part "a.", "a.b." or "a.b.c." without which most of one side's names are names of the other side; "" and 0
   where there is none. */
static mg_status best_prefix(const mg_checkpoint *from, const mg_checkpoint *to, char **prefix, size_t *matches) {
  mg_status status = MG_OK;
  mg_strings hits = {0};
  const char *best = "";
  *matches = 0;
  for (size_t k = 0; k < from->tensor_count; k++) {
    const char *name = from->tensors[k].name, *dot = name;
    if (!mg_dtype_is_floating(from->tensors[k].dtype)) continue;
    for (int depth = 0; depth < PREFIX_DEPTH && (dot = strchr(dot, '.')) != NULL; depth++) {
      dot++;
      if (mg_checkpoint_find(to, dot) == NULL) continue;
      char *hit = strndup(name, (size_t)(dot - name));
      status = hit != NULL ? mg_strings_add(&hits, hit) : mg_fail(MG_ERR_NOMEM, "out of memory");
      free(hit);
      if (status != MG_OK) goto cleanup;
    }
  }
  mg_strings_sort(&hits);
  for (size_t k = 0, run = 0; k < hits.count; k++) {
    run = k > 0 && strcmp(hits.items[k - 1], hits.items[k]) == 0 ? run + 1 : 1;
    if (run <= *matches) continue;
    *matches = run;
    best = hits.items[k];
  }
  *prefix = mg_strdup(best);
  if (*prefix == NULL) status = MG_ERR_NOMEM;
cleanup:
  mg_strings_free(&hits);
  return status;
}

mg_status mg_prefixes_find(const mg_checkpoint *source, const mg_checkpoint *base, mg_prefixes *prefixes) {
  mg_status status = MG_OK;
  size_t as_they_are = 0, of_source = 0, of_base = 0;
  for (size_t k = 0; k < source->tensor_count; k++)
    if (mg_dtype_is_floating(source->tensors[k].dtype))
      as_they_are += mg_checkpoint_find(base, source->tensors[k].name) != NULL;
  MG_TRY(best_prefix(source, base, &prefixes->source, &of_source), done);
  MG_TRY(best_prefix(base, source, &prefixes->base, &of_base), done);
  /* the fewest changes that explain most: no prefix, then one of the sources, then one of the base */
  if (of_source <= as_they_are || of_source < of_base) prefixes->source[0] = '\0';
  if (of_base <= as_they_are || of_base <= of_source) prefixes->base[0] = '\0';
done:
  return status;
}

void mg_prefixes_free(mg_prefixes *prefixes) {
  free(prefixes->source);
  free(prefixes->base);
  *prefixes = (mg_prefixes){0};
}
