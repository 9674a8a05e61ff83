/* Tables of numbers as cells are resolved against them: similarities, accuracies, compatibilities. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipe_impl.h"

/* ---- evaluations ---- */

mg_status mg_evaluation_table(const mg_source_list *sources, const mg_strings *targets, const double *accuracy,
                              mg_labelled_table *table) {
  mg_status status = MG_OK;
  const size_t count = sources->count * targets->count;
  *table = (mg_labelled_table){0};
  for (size_t s = 0; s < sources->count; s++) MG_TRY(mg_strings_add(&table->rows, sources->items[s].id), failed);
  for (size_t t = 0; t < targets->count; t++) MG_TRY(mg_strings_add(&table->columns, targets->items[t]), failed);
  table->values = mg_alloc(count, sizeof *table->values);
  if (table->values == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  memcpy(table->values, accuracy, count * sizeof *accuracy);
  table->count = table->room = count;
  return MG_OK;
failed:
  mg_labelled_table_free(table);
  return status;
}

mg_status mg_evaluation_accuracy(const mg_labelled_table *table, const mg_source_list *sources, const mg_strings *targets,
                                 double *accuracy) {
  for (size_t s = 0; s < sources->count; s++) {
    const ptrdiff_t row = mg_strings_find(&table->rows, sources->items[s].id);
    for (size_t t = 0; t < targets->count; t++) {
      const ptrdiff_t column = mg_strings_find(&table->columns, targets->items[t]);
      accuracy[s * targets->count + t] =
          row >= 0 && column >= 0 ? table->values[(size_t)row * table->columns.count + (size_t)column] : NAN;
    }
  }
  return MG_OK;
}

static const char *locale_of(const mg_source_list *sources, const char *id) {
  for (size_t s = 0; s < sources->count; s++)
    if (strcmp(sources->items[s].id, id) == 0) return sources->items[s].locale;
  return id;
}

mg_status mg_evaluation_similarity(const mg_labelled_table *table, const mg_source_list *sources, mg_similarity *similarity) {
  mg_status status = MG_OK;
  mg_strings *labels = &similarity->labels;
  *similarity = (mg_similarity){0};
  for (size_t r = 0; r < table->rows.count; r++) {
    const char *locale = locale_of(sources, table->rows.items[r]);
    if (mg_strings_find(labels, locale) < 0) MG_TRY(mg_strings_add(labels, locale), failed);
  }
  for (size_t c = 0; c < table->columns.count; c++)
    if (mg_strings_find(labels, table->columns.items[c]) < 0) MG_TRY(mg_strings_add(labels, table->columns.items[c]), failed);
  const size_t n = labels->count;
  similarity->values = mg_alloc(n, n * sizeof *similarity->values);
  if (similarity->values == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  MG_TRY(mg_similarity_set_evaluated(similarity, &table->columns), failed);
  for (size_t k = 0; k < n * n; k++) similarity->values[k] = NAN;
  for (size_t r = table->rows.count; r-- > 0;) { /* backwards, so that of several sources of a locale the first one's stays */
    double *row = similarity->values + (size_t)mg_strings_find(labels, locale_of(sources, table->rows.items[r])) * n;
    for (size_t c = 0; c < table->columns.count; c++)
      row[mg_strings_find(labels, table->columns.items[c])] = table->values[r * table->columns.count + c];
  }
  return MG_OK;
failed:
  mg_similarity_free(similarity);
  return status;
}

/* ---- similarities ---- */

static mg_status read_matrix(const char *file, mg_duplicates duplicates, const mg_source_list *sources,
                             const mg_labelled_table *evaluation, mg_similarity *similarity, mg_strings *notes) {
  if (strcmp(file, "nxn") != 0) return mg_similarity_read(file, duplicates, similarity, notes);
  if (evaluation == NULL) return mg_fail(MG_ERR_INPUT, "grid.similarity: nxn: no evaluation of the stage nxn is there");
  return mg_evaluation_similarity(evaluation, sources, similarity);
}

mg_status mg_grid_matrices_read(const mg_config *config, const mg_cell *cells, size_t count, const mg_source_list *sources,
                                const mg_labelled_table *evaluation, mg_grid_matrix **matrices, mg_strings *notes) {
  mg_status status = MG_OK;
  const mg_strings *names = &config->grid.similarity_names, *files = &config->grid.similarity_files;
  *matrices = mg_alloc_zero(names->count, sizeof **matrices);
  if (*matrices == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < names->count; m++) (*matrices)[m].name = names->items[m];
  for (size_t c = 0; c < count; c++) {
    const mg_terms *terms = &cells[c].terms;
    if (!mg_terms_choose(terms) || terms->similarity_type == NULL) continue;
    const ptrdiff_t m = mg_strings_find(names, terms->similarity_type);
    if (m < 0) continue; /* what resolving says of the cell */
    const bool keep = strcmp(terms->duplicates, "keep") == 0;
    mg_similarity *similarity = keep ? &(*matrices)[m].keep : &(*matrices)[m].first;
    if (similarity->labels.count > 0) continue;
    MG_TRY(
        read_matrix(files->items[m], keep ? MG_DUPLICATES_KEEP : MG_DUPLICATES_FIRST, sources, evaluation, similarity, notes),
        failed);
  }
  return MG_OK;
failed:
  mg_grid_matrices_free(matrices, names->count);
  return status;
}

void mg_grid_matrices_free(mg_grid_matrix **matrices, size_t count) {
  for (size_t m = 0; *matrices != NULL && m < count; m++) {
    mg_similarity_free(&(*matrices)[m].first);
    mg_similarity_free(&(*matrices)[m].keep);
  }
  free(*matrices);
  *matrices = NULL;
}

/* ---- compatibilities ---- */

enum { NAMED = 5 }; /* of things that can be many */

/* By id, else by locale. */
static ptrdiff_t find_source(const mg_strings *labels, const mg_source *source) {
  const ptrdiff_t at = mg_strings_find(labels, source->id);
  return at >= 0 ? at : mg_strings_find(labels, source->locale);
}

/* "origin: what: names", where there are any. */
static mg_status note(mg_strings *notes, const char *origin, const char *what, const mg_text *names, size_t count) {
  char *text = NULL;
  if (count == 0 || notes == NULL) return MG_OK;
  if (asprintf(&text, "%s: %s: %s%s", origin, what, names->data ? names->data : "", count > NAMED ? ", …" : "") < 0)
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = mg_strings_add(notes, text);
  free(text);
  return status;
}

static bool stands_for_any(const mg_strings *labels, size_t at, const mg_source_list *sources) {
  for (size_t s = 0; s < sources->count; s++)
    if (find_source(labels, &sources->items[s]) == (ptrdiff_t)at) return true;
  return false;
}

/* Entries of pairs of sources that have no number, by row and column. */
static mg_status note_unknown(mg_strings *notes, const mg_labelled_table *table, const char *origin,
                              const mg_source_list *sources) {
  size_t unknown = 0;
  mg_text names = {0};
  for (size_t k = 0; k < table->rows.count * table->columns.count; k++) {
    const size_t row = k / table->columns.count, column = k % table->columns.count;
    if (!isnan(table->values[k]) || strcmp(table->rows.items[row], table->columns.items[column]) == 0) continue;
    if (!stands_for_any(&table->rows, row, sources) || !stands_for_any(&table->columns, column, sources)) continue;
    if (unknown++ < NAMED)
      mg_text_append(&names, "%s%s %s", unknown > 1 ? ", " : "", table->rows.items[row], table->columns.items[column]);
  }
  const mg_status status = note(notes, origin, "entries that are NaN count as 0 (row and column)", &names, unknown);
  mg_text_free(&names);
  return status;
}

mg_status mg_compatibility_of(const mg_labelled_table *table, const char *origin, const mg_source_list *sources,
                              double *compatibility, mg_strings *notes) {
  mg_status status = MG_OK;
  const size_t n = sources->count;
  size_t lacking = 0;
  mg_text names = {0};
  for (size_t i = 0; i < n; i++) {
    const ptrdiff_t row = find_source(&table->rows, &sources->items[i]);
    for (size_t j = 0; j < n; j++) {
      const ptrdiff_t column = find_source(&table->columns, &sources->items[j]);
      const bool there = row >= 0 && column >= 0;
      compatibility[i * n + j] = there ? table->values[(size_t)row * table->columns.count + (size_t)column] : NAN;
    }
    if (row >= 0 && find_source(&table->columns, &sources->items[i]) >= 0) continue;
    if (lacking++ < NAMED) mg_text_append(&names, "%s%s", lacking > 1 ? ", " : "", sources->items[i].id);
  }
  if (lacking == n) {
    status = mg_fail(MG_ERR_INPUT, "%s: has none of the %zu sources in its first row and column", origin, n);
    goto cleanup;
  }
  MG_TRY(note(notes, origin, "lacks sources, whose compatibility counts as 0", &names, lacking), cleanup);
  MG_TRY(note_unknown(notes, table, origin, sources), cleanup);
cleanup:
  mg_text_free(&names);
  return status;
}
