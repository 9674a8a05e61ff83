/* Base and sources held against each other from their headers: everything that does not fit is found before any bulk read. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "family_impl.h"

typedef struct comparison {
  mg_family *family;
  const mg_strings *exclude;
  const mg_checkpoint *first; /* the first source */
  mg_prefixes prefixes;
  mg_mismatches mismatches;
  mg_status unopened;  /* of the last checkpoint that could not be opened */
  mg_strings backbone; /* first components of the names that sources and base share, on the sources' side; sorted */
  mg_strings base_backbone;
} comparison;

static const char *file_of(const mg_checkpoint *c, const mg_tensor_info *t) { return c->files.items[t->file]; }

/* ---- what is a head ---- */

static char *first_component(const char *name) {
  char *copy = strndup(name, strcspn(name, "."));
  if (copy == NULL) mg_fail(MG_ERR_NOMEM, "out of memory");
  return copy;
}

static bool has_component(const char *name, const char *component) {
  const size_t length = strlen(component);
  for (const char *at = name; at != NULL; at = strchr(at, '.'), at = at != NULL ? at + 1 : NULL)
    if (strncmp(at, component, length) == 0 && (at[length] == '.' || at[length] == '\0')) return true;
  return false;
}

/* A tensor outside the module that both sides share (classifier, lm_head), or a pooler, may be missing on one side. */
static bool head_like(const comparison *c, const mg_strings *backbone, const char *name) {
  if (has_component(name, "pooler") || mg_matches_any(c->exclude, name)) return true;
  if (strchr(name, '.') == NULL) return false;
  char *component = first_component(name);
  const bool shared = component == NULL || mg_sorted_has(backbone, component);
  free(component);
  return !shared;
}

static mg_status remember_component(mg_strings *list, const char *name) {
  mg_status status = MG_OK;
  char *component = first_component(name);
  if (component == NULL) return MG_ERR_NOMEM;
  /* names come sorted, so the same component comes again at once */
  if (list->count == 0 || strcmp(list->items[list->count - 1], component) != 0) status = mg_strings_add(list, component);
  free(component);
  return status;
}

static mg_status find_backbone(comparison *c, const mg_checkpoint *base) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < c->first->tensor_count; k++) {
    const mg_tensor_info *source = &c->first->tensors[k];
    if (!mg_dtype_is_floating(source->dtype)) continue;
    const mg_tensor_info *other = mg_base_counterpart(&c->prefixes, c->first, base, source->name);
    if (other == NULL) continue;
    MG_TRY(remember_component(&c->backbone, source->name), done);
    MG_TRY(remember_component(&c->base_backbone, other->name), done);
  }
  mg_strings_sort(&c->backbone);
  mg_strings_sort(&c->base_backbone);
done:
  return status;
}

/* ---- the table ---- */

static mg_status make_table(comparison *c, const mg_checkpoint *base) {
  mg_tensor_table *table = &c->family->table;
  table->tensors = mg_alloc_zero(c->first->tensor_count, sizeof *table->tensors);
  if (table->tensors == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < c->first->tensor_count; k++) {
    const mg_tensor_info *info = &c->first->tensors[k];
    if (!mg_dtype_is_floating(info->dtype)) continue;
    mg_tensor *t = &table->tensors[table->count++];
    *t = (mg_tensor){.name = mg_strdup(info->name),
                     .layer = strndup(info->name, mg_layer_prefix(info->name)),
                     .ndim = info->ndim,
                     .numel = info->numel,
                     .offset = table->elements,
                     .source_only = mg_base_counterpart(&c->prefixes, c->first, base, info->name) == NULL};
    memcpy(t->shape, info->shape, sizeof t->shape);
    if (t->name == NULL || t->layer == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    if (__builtin_add_overflow(table->elements, info->numel, &table->elements))
      return mg_fail(MG_ERR_INPUT, "%s: has more elements than can be counted", c->first->dir);
  }
  if (table->count == 0) return mg_fail(MG_ERR_INPUT, "%s: has no floating-point tensor", c->first->dir);
  return MG_OK;
}

/* ---- one tensor against another ---- */

static void compare_shape(comparison *c, const mg_checkpoint *checkpoint, const mg_tensor_info *t,
                          const mg_checkpoint *reference, const mg_tensor_info *expected) {
  mg_text line = {0};
  if (mg_shape_equal(t, expected)) return;
  mg_text_append(&line, "%s: tensor %s: has shape ", file_of(checkpoint, t), t->name);
  mg_shape_text(&line, t->shape, t->ndim);
  mg_text_append(&line, "; ");
  mg_shape_text(&line, expected->shape, expected->ndim);
  mg_text_append(&line, " was expected, as in %s", file_of(reference, expected));
  mg_mismatch(&c->mismatches, "%s", line.data ? line.data : "out of memory");
  mg_text_free(&line);
}

static mg_status note(comparison *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static mg_status note(comparison *c, const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  const int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = mg_strings_add(&c->family->notes, text);
  free(text);
  return status;
}

/* Types: floating ones are converted exactly, so a difference among them is only worth a note (once a checkpoint). */
static mg_status compare_dtype(comparison *c, const mg_checkpoint *checkpoint, const mg_tensor_info *t,
                               const mg_checkpoint *reference, const mg_tensor_info *expected, bool *noted) {
  if (t->dtype == expected->dtype) return MG_OK;
  if (!mg_dtype_is_floating(t->dtype) || !mg_dtype_is_floating(expected->dtype)) {
    mg_mismatch(&c->mismatches, "%s: tensor %s: is %s; %s was expected, as in %s", file_of(checkpoint, t), t->name,
                mg_dtype_name(t->dtype), mg_dtype_name(expected->dtype), file_of(reference, expected));
    return MG_OK;
  }
  if (*noted) return MG_OK;
  *noted = true;
  return note(c, "%s holds %s (tensor %s, perhaps others) where the first source holds %s: converted", checkpoint->dir,
              mg_dtype_name(t->dtype), t->name, mg_dtype_name(expected->dtype));
}

/* ---- a source against the first ---- */

static mg_status compare_tensors(comparison *c, const mg_checkpoint *source) {
  mg_status status = MG_OK;
  bool noted = false;
  if (source->alike) return MG_OK;
  for (size_t k = 0; k < c->first->tensor_count; k++) {
    const mg_tensor_info *expected = &c->first->tensors[k], *t = mg_checkpoint_find(source, expected->name);
    if (t != NULL) {
      compare_shape(c, source, t, c->first, expected);
      MG_TRY(compare_dtype(c, source, t, c->first, expected, &noted), done);
    } else if (mg_dtype_is_floating(expected->dtype)) {
      mg_mismatch(&c->mismatches, "%s: tensor %s is missing; %s has it", source->dir, expected->name, c->first->dir);
    } else {
      MG_TRY(note(c, "%s lacks the integer buffer %s that %s has", source->dir, expected->name, c->first->dir), done);
    }
  }
  for (size_t k = 0; k < source->tensor_count; k++) {
    const mg_tensor_info *t = &source->tensors[k];
    if (mg_checkpoint_find(c->first, t->name) != NULL) continue;
    if (mg_dtype_is_floating(t->dtype))
      mg_mismatch(&c->mismatches, "%s: tensor %s is one too many; %s does not have it", file_of(source, t), t->name,
                  c->first->dir);
    else
      MG_TRY(note(c, "%s has the integer buffer %s that %s lacks", source->dir, t->name, c->first->dir), done);
  }
done:
  return status;
}

static mg_status sorted_copy(const mg_strings *list, mg_strings *copy) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < list->count; k++) MG_TRY(mg_strings_add(copy, list->items[k]), done);
  mg_strings_sort(copy);
done:
  return status;
}

/* The same labels in another order are only worth a note: whoever compares predictions goes by the label. */
static mg_status compare_label_sets(comparison *c, const mg_checkpoint *source) {
  mg_status status = MG_OK;
  mg_strings mine = {0}, first = {0};
  MG_TRY(sorted_copy(&source->labels, &mine), cleanup);
  MG_TRY(sorted_copy(&c->first->labels, &first), cleanup);
  for (size_t k = 0; k < mine.count; k++) {
    if (strcmp(mine.items[k], first.items[k]) == 0) continue;
    const bool more = strcmp(mine.items[k], first.items[k]) < 0;
    mg_mismatch(&c->mismatches, "%s/config.json: id2label %s the label '%s', unlike that of %s", source->dir,
                more ? "has" : "lacks", more ? mine.items[k] : first.items[k], c->first->dir);
    goto cleanup;
  }
  status = note(c, "%s has the labels of %s in another order", source->dir, c->first->dir);
cleanup:
  mg_strings_free(&mine);
  mg_strings_free(&first);
  return status;
}

static mg_status compare_labels(comparison *c, const mg_checkpoint *source) {
  const mg_strings *mine = &source->labels, *first = &c->first->labels;
  if (mine->count == 0 || first->count == 0) return MG_OK;
  if (mine->count != first->count) {
    mg_mismatch(&c->mismatches, "%s/config.json: id2label has %zu labels; %zu were expected, as in %s", source->dir,
                mine->count, first->count, c->first->dir);
    return MG_OK;
  }
  for (size_t k = 0; k < mine->count; k++)
    if (strcmp(mine->items[k], first->items[k]) != 0) return compare_label_sets(c, source);
  return MG_OK;
}

/* ---- the base against the first source ---- */

static mg_status compare_base(comparison *c, const mg_checkpoint *base) {
  mg_status status = MG_OK;
  bool noted = false;
  size_t shared = 0;
  for (size_t k = 0; k < c->first->tensor_count; k++) {
    const mg_tensor_info *source = &c->first->tensors[k];
    const mg_tensor_info *t = mg_base_counterpart(&c->prefixes, c->first, base, source->name);
    if (t != NULL) {
      shared += mg_dtype_is_floating(source->dtype);
      compare_shape(c, base, t, c->first, source);
      MG_TRY(compare_dtype(c, base, t, c->first, source, &noted), done);
    } else if (!mg_dtype_is_floating(source->dtype)) {
      MG_TRY(note(c, "the base lacks the integer buffer %s", source->name), done);
    } else if (!head_like(c, &c->backbone, source->name)) {
      mg_mismatch(&c->mismatches, "%s: tensor %s is missing; %s has it", base->dir, source->name, c->first->dir);
    }
  }
  if (shared == 0) {
    mg_mismatch(&c->mismatches, "%s: shares no tensor name with %s: is it the base of these sources?", base->dir,
                c->first->dir);
    return MG_OK;
  }
  for (size_t k = 0; k < base->tensor_count; k++) {
    const mg_tensor_info *t = &base->tensors[k];
    if (mg_source_counterpart(&c->prefixes, c->first, base, t->name) != NULL) continue;
    if (head_like(c, &c->base_backbone, t->name)) continue;
    if (mg_dtype_is_floating(t->dtype))
      mg_mismatch(&c->mismatches, "%s: tensor %s is one too many; the sources (%s) do not have it", file_of(base, t), t->name,
                  c->first->dir);
    else
      MG_TRY(note(c, "the base has the integer buffer %s that the sources lack", t->name), done);
  }
done:
  return status;
}

/* ---- what is kept of a checkpoint ---- */

/* Where each tensor of the table is in one whose tensors are the first source's, of which the table has the floating ones. */
static void locate_in_order(const mg_tensor_table *table, const mg_checkpoint *checkpoint, mg_location *locations) {
  const mg_tensor_info *t = checkpoint->tensors;
  for (size_t k = 0; k < table->count; k++, t++) {
    while (!mg_dtype_is_floating(t->dtype)) t++;
    locations[k] = (mg_location){.offset = t->offset, .file = t->file, .dtype = (uint32_t)t->dtype};
  }
}

static void locate(const comparison *c, const mg_checkpoint *checkpoint, bool is_base, mg_location *locations) {
  const mg_tensor_table *table = &c->family->table;
  for (size_t k = 0; k < table->count; k++) {
    const char *name = table->tensors[k].name;
    const mg_tensor_info *t =
        is_base ? mg_base_counterpart(&c->prefixes, c->first, checkpoint, name) : mg_checkpoint_find(checkpoint, name);
    locations[k] = (mg_location){.dtype = MG_DTYPE_COUNT};
    if (t != NULL) locations[k] = (mg_location){.offset = t->offset, .file = t->file, .dtype = (uint32_t)t->dtype};
  }
}

/* Moves the file names over and notes where each tensor of the table is. */
static mg_status keep_member(comparison *c, mg_checkpoint *checkpoint, bool is_base, mg_member *member) {
  const mg_tensor_table *table = &c->family->table;
  const uint64_t headers = mg_checkpoint_hash(checkpoint); /* before anything is moved */
  member->dir = mg_strdup(checkpoint->dir); // NOLINT(clang-analyzer-core.NullDereference): reported before where unopened
  member->locations = mg_alloc(table->count, sizeof *member->locations);
  if (member->dir == NULL || member->locations == NULL) return MG_ERR_NOMEM;
  if (checkpoint->alike && !is_base)
    locate_in_order(table, checkpoint, member->locations);
  else
    locate(c, checkpoint, is_base, member->locations);
  member->files = checkpoint->files;
  checkpoint->files = (mg_strings){0};
  member->stamps = checkpoint->stamps;
  checkpoint->stamps = NULL;
  member->headers = headers;
  member->labels = checkpoint->labels;
  checkpoint->labels = (mg_strings){0};
  return MG_OK;
}

static mg_status take_labels(mg_family *family, const mg_checkpoint *first) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < first->labels.count; k++) MG_TRY(mg_strings_add(&family->labels, first->labels.items[k]), done);
done:
  return status;
}

/* A checkpoint that cannot be opened (*checkpoint stays NULL) is one more line: the others' faults are still looked for. */
static mg_status open_or_list(comparison *c, const char *dir, mg_checkpoint **checkpoint) {
  const mg_status status = mg_checkpoint_open_beside(dir, c->first, checkpoint);
  if (status == MG_OK || status == MG_ERR_NOMEM) return status;
  mg_mismatch(&c->mismatches, "%s", mg_error_message());
  c->unopened = status;
  return MG_OK;
}

/* Compares the sources after the first one that opens with it, each closed again before the next. */
static mg_status compare_sources(comparison *c, const mg_source_list *list, size_t from) {
  mg_status status = MG_OK;
  for (size_t k = from; k < list->count && status == MG_OK; k++) {
    mg_checkpoint *source = NULL;
    status = open_or_list(c, list->items[k].path, &source);
    if (source == NULL) continue;
    status = compare_tensors(c, source);
    if (status == MG_OK) status = compare_labels(c, source);
    if (status == MG_OK && c->mismatches.count == 0) status = keep_member(c, source, false, &c->family->sources[k]);
    mg_checkpoint_close(&source);
  }
  return status;
}

static mg_status report(const comparison *c, size_t sources) {
  const size_t count = c->mismatches.count, shown = count < MG_LISTED_MISMATCHES ? count : MG_LISTED_MISMATCHES;
  const char *lines = c->mismatches.lines.data ? c->mismatches.lines.data : "";
  char more[64] = "";
  if (count == 0) return MG_OK;
  if (count == 1 && c->unopened != MG_OK) return mg_fail(c->unopened, "%s", lines + strspn(lines, "\n "));
  if (count > shown) snprintf(more, sizeof more, "\n  … and %zu more", count - shown);
  return mg_fail(MG_ERR_INPUT, "the base and its %zu source%s do not fit together (%zu mismatch%s):%s%s", sources,
                 sources == 1 ? "" : "s", count, count == 1 ? "" : "es", lines, more);
}

/* Everything about base and first source: afterwards the table stands. */
static mg_status match_base(comparison *c, const mg_checkpoint *base) {
  mg_status status = MG_OK;
  MG_TRY(mg_prefixes_find(c->first, base, &c->prefixes), done);
  MG_TRY(find_backbone(c, base), done);
  MG_TRY(make_table(c, base), done);
  MG_TRY(compare_base(c, base), done);
done:
  return status;
}

static mg_status compare_all(comparison *c, const char *base_dir, const mg_source_list *list) {
  mg_status status = MG_OK;
  mg_checkpoint *base = NULL, *first = NULL;
  size_t next = 0;
  MG_TRY(open_or_list(c, base_dir, &base), cleanup);
  while (first == NULL && next < list->count) MG_TRY(open_or_list(c, list->items[next++].path, &first), cleanup);
  c->first = first;
  if (first != NULL) {
    if (base != NULL) MG_TRY(match_base(c, base), cleanup);
    MG_TRY(compare_sources(c, list, next), cleanup);
  }
  MG_TRY(report(c, list->count), cleanup);
  MG_TRY(take_labels(c->family, first), cleanup);
  MG_TRY(keep_member(c, base, true, &c->family->base), cleanup);
  MG_TRY(keep_member(c, first, false, &c->family->sources[0]), cleanup);
cleanup:
  mg_checkpoint_close(&base);
  mg_checkpoint_close(&first);
  return status;
}

mg_status mg_family_open(const char *base_dir, const mg_source_list *list, const mg_strings *exclude, mg_family **out) {
  mg_status status = MG_OK;
  comparison c = {.exclude = exclude};
  if (list->count == 0) return mg_fail(MG_ERR_INPUT, "a family needs at least one source");
  c.family = mg_alloc_zero(1, sizeof *c.family);
  if (c.family == NULL) return MG_ERR_NOMEM;
  c.family->sources = mg_alloc_zero(list->count, sizeof *c.family->sources);
  if (c.family->sources == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  c.family->source_count = list->count;
  MG_TRY(compare_all(&c, base_dir, list), cleanup);
  *out = c.family;
  c.family = NULL;
cleanup:
  mg_family_close(&c.family);
  mg_prefixes_free(&c.prefixes);
  mg_strings_free(&c.backbone);
  mg_strings_free(&c.base_backbone);
  mg_text_free(&c.mismatches.lines);
  return status;
}

static void member_free(mg_member *member) {
  free(member->dir);
  free(member->locations), free(member->stamps);
  mg_strings_free(&member->files);
  mg_strings_free(&member->labels);
}

void mg_family_close(mg_family **family) {
  if (*family == NULL) return;
  mg_tensor_table_free(&(*family)->table);
  member_free(&(*family)->base);
  for (size_t k = 0; k < (*family)->source_count; k++) member_free(&(*family)->sources[k]);
  free((*family)->sources);
  mg_strings_free(&(*family)->labels);
  mg_strings_free(&(*family)->notes);
  free(*family);
  *family = NULL;
}
