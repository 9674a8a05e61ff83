/* From a table to a square matrix with one set of labels. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/similarity.h"

enum { NAMED = 5 }; /* of things that can be many */

static mg_status note(mg_strings *notes, const char *path, const char *what, const char *names, size_t count) {
  char *text = NULL;
  if (notes == NULL || count == 0) return MG_OK;
  if (asprintf(&text, "%s: %s: %s%s", path, what, names, count > NAMED ? ", …" : "") < 0)
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = mg_strings_add(notes, text);
  free(text);
  return status;
}

/* How often does items[k] stand before k? */
static size_t occurrence(const mg_strings *list, size_t k) {
  size_t before = 0;
  for (size_t j = 0; j < k; j++) before += strcmp(list->items[j], list->items[k]) == 0;
  return before;
}

/* The column of that name with as many of it before; −1 where there is none. */
static ptrdiff_t find_column(const mg_strings *columns, const char *name, size_t before) {
  for (size_t c = 0; c < columns->count; c++)
    if (strcmp(columns->items[c], name) == 0 && before-- == 0) return (ptrdiff_t)c;
  return -1;
}

typedef struct matching {
  size_t *row, *column; /* of each label */
  mg_text repeated, unmatched;
  size_t repeated_count, unmatched_count;
} matching;

static void name(mg_text *text, size_t *count, const char *label) {
  if ((*count)++ < NAMED) mg_text_append(text, "%s%s", *count > 1 ? ", " : "", label);
}

static mg_status match(const mg_labelled_table *t, mg_duplicates duplicates, matching *m, mg_similarity *s) {
  mg_status status = MG_OK;
  m->row = mg_alloc(t->rows.count, sizeof *m->row);
  m->column = mg_alloc(t->rows.count, sizeof *m->column);
  if (m->row == NULL || m->column == NULL) return MG_ERR_NOMEM;
  for (size_t r = 0; r < t->rows.count; r++) {
    const char *label = t->rows.items[r];
    const size_t before = occurrence(&t->rows, r);
    const ptrdiff_t column = find_column(&t->columns, label, before);
    if (before > 0) name(&m->repeated, &m->repeated_count, label);
    if (before > 0 && duplicates == MG_DUPLICATES_FIRST) continue;
    if (column < 0) {
      name(&m->unmatched, &m->unmatched_count, label);
      continue;
    }
    m->row[s->labels.count] = r;
    m->column[s->labels.count] = (size_t)column;
    MG_TRY(mg_strings_add(&s->labels, label), done);
  }
  for (size_t c = 0; c < t->columns.count; c++)
    if (occurrence(&t->columns, c) == 0 && mg_strings_find(&t->rows, t->columns.items[c]) < 0)
      name(&m->unmatched, &m->unmatched_count, t->columns.items[c]);
done:
  return status;
}

static double or_zero(double value) { return isnan(value) ? 0 : value; }

static mg_status note_values(const char *path, const mg_similarity *s, mg_strings *notes) {
  mg_status status = MG_OK;
  const size_t n = s->labels.count;
  mg_text unknown = {0}, crooked = {0};
  size_t unknown_count = 0, crooked_count = 0;
  double largest = 0;
  for (size_t k = 0; k < n * n; k++) {
    if (fabs(s->values[k]) > largest) largest = fabs(s->values[k]);
    if (!isnan(s->values[k])) continue;
    if (unknown_count++ < NAMED)
      mg_text_append(&unknown, "%s%s %s", unknown_count > 1 ? ", " : "", s->labels.items[k / n], s->labels.items[k % n]);
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = i + 1; j < n; j++)
      if (fabs(or_zero(s->values[i * n + j]) - or_zero(s->values[j * n + i])) > 1e-6 * largest && crooked_count++ < NAMED)
        mg_text_append(&crooked, "%s%s %s", crooked_count > 1 ? ", " : "", s->labels.items[i], s->labels.items[j]);
  MG_TRY(note(notes, path, "entries that are NaN count as 0", unknown.data ? unknown.data : "", unknown_count), cleanup);
  MG_TRY(note(notes, path, "not symmetric", crooked.data ? crooked.data : "", crooked_count), cleanup);
cleanup:
  mg_text_free(&unknown);
  mg_text_free(&crooked);
  return status;
}

mg_status mg_similarity_of(const mg_labelled_table *t, const char *path, mg_duplicates duplicates, mg_similarity *s,
                           mg_strings *notes) {
  mg_status status = MG_OK;
  matching m = {0};
  *s = (mg_similarity){0};
  MG_TRY(match(t, duplicates, &m, s), cleanup);
  const size_t n = s->labels.count;
  if (n == 0) {
    status = mg_fail(MG_ERR_INPUT, "%s: no label stands in the first row and in the first column", path);
    goto cleanup;
  }
  s->values = mg_alloc(n, n * sizeof *s->values);
  if (s->values == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) s->values[i * n + j] = t->values[m.row[i] * t->columns.count + m.column[j]];
  const char *repeated =
      duplicates == MG_DUPLICATES_FIRST ? "labels that are repeated; the first counts" : "labels that are repeated; all count";
  MG_TRY(note(notes, path, repeated, m.repeated.data ? m.repeated.data : "", m.repeated_count), cleanup);
  MG_TRY(note(notes, path, "labels of rows or columns only, left out", m.unmatched.data ? m.unmatched.data : "",
              m.unmatched_count),
         cleanup);
  MG_TRY(note_values(path, s, notes), cleanup);
cleanup:
  free(m.row), free(m.column);
  mg_text_free(&m.repeated);
  mg_text_free(&m.unmatched);
  if (status != MG_OK) mg_similarity_free(s);
  return status;
}

mg_status mg_similarity_read(const char *path, mg_duplicates duplicates, mg_similarity *s, mg_strings *notes) {
  mg_labelled_table t;
  *s = (mg_similarity){0};
  mg_status status = mg_labelled_table_read(path, &t);
  if (status == MG_OK) status = mg_similarity_of(&t, path, duplicates, s, notes);
  mg_labelled_table_free(&t);
  return status;
}

mg_status mg_similarity_set_evaluated(mg_similarity *s, const mg_strings *targets) {
  s->evaluated = mg_alloc(s->labels.count, sizeof *s->evaluated);
  if (s->evaluated == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->labels.count; k++) s->evaluated[k] = mg_strings_find(targets, s->labels.items[k]) >= 0;
  return MG_OK;
}

void mg_similarity_free(mg_similarity *s) {
  mg_strings_free(&s->labels);
  free(s->values), free(s->evaluated);
  *s = (mg_similarity){0};
}
