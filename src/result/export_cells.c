/* All cells, and the best recipe of each target: one tidy row each, as pandas reads them. */

#include <stdlib.h>
#include <string.h>

#include "export_grid_impl.h"

static void append_value(mg_text *text, const mg_column *c, const void *row) {
  if (c->type == MG_COLUMN_TEXT)
    mg_csv_field(text, mg_column_text(c, row));
  else if (c->type == MG_COLUMN_BOOL)
    mg_text_append(text, "%s", mg_column_number(c, row) != 0 ? "True" : "False");
  else if (c->type == MG_COLUMN_DOUBLE)
    mg_csv_number(text, mg_column_number(c, row));
  else if (c->type == MG_COLUMN_UINT64)
    mg_text_append(text, "%llu", (unsigned long long)*(const uint64_t *)(const void *)((const char *)row + c->offset));
  else
    mg_text_append(text, "%.0f", mg_column_number(c, row));
}

/* Swept parameters of all results, in order of appearance. */
static mg_status all_swept(const mg_export *export, mg_strings *swept) {
  for (size_t r = 0; r < export->count; r++) {
    const mg_strings *mine = &export->results[r].view.table.swept;
    for (size_t k = 0; k < mine->count; k++) {
      if (mg_strings_find(swept, mine->items[k]) >= 0) continue;
      const mg_status status = mg_strings_add(swept, mine->items[k]);
      if (status != MG_OK) return status;
    }
  }
  return MG_OK;
}

void mg_cell_csv_names(mg_text *text, const mg_strings *swept) {
  for (size_t k = 0; k < mg_cell_columns.count; k++)
    mg_text_append(text, "%s%s", k > 0 ? "," : "", mg_cell_columns.items[k].name);
  for (size_t s = 0; s < swept->count; s++) {
    mg_text_append(text, ",");
    mg_csv_field(text, swept->items[s]);
  }
}

void mg_cell_csv(mg_text *text, const mg_grid_table *t, size_t cell, const mg_strings *swept) {
  for (size_t k = 0; k < mg_cell_columns.count; k++) {
    if (k > 0) mg_text_append(text, ",");
    append_value(text, &mg_cell_columns.items[k], &t->cells[cell]);
  }
  for (size_t s = 0; s < swept->count; s++) {
    const ptrdiff_t mine = mg_strings_find(&t->swept, swept->items[s]);
    mg_text_append(text, ",");
    if (mine >= 0) mg_csv_field(text, t->swept_values[(size_t)mine * t->cell_count + cell]);
  }
}

static void append_cells(mg_text *text, const mg_export_result *r, const mg_strings *swept, bool named) {
  const mg_grid_table *t = &r->view.table;
  for (size_t c = 0; c < t->cell_count; c++) {
    if (named) {
      mg_csv_field(text, r->path);
      mg_text_append(text, ",");
    }
    mg_cell_csv(text, t, c, swept);
    mg_text_append(text, "\n");
  }
}

static mg_status write_cells(const char *dir, const mg_export *export) {
  mg_strings swept = {0};
  mg_text text = {0};
  const bool named = export->count > 1;
  mg_status status = all_swept(export, &swept);
  if (named) mg_text_append(&text, "result,");
  mg_cell_csv_names(&text, &swept);
  mg_text_append(&text, "\n");
  for (size_t r = 0; r < export->count; r++) append_cells(&text, &export->results[r], &swept, named);
  if (status == MG_OK) status = mg_export_text(dir, "grid_cells.csv", &text);
  mg_text_free(&text);
  mg_strings_free(&swept);
  return status;
}

/* ---- targets ---- */

/* What a cell says beside its target's best row. */
static const char *const BESIDE[] = {"key",         "method",         "parameters", "similarity_type", "num_languages",
                                     "num_sources", "include_target", "sources",    "best_source",     "best_zero_shot",
                                     "own"};
enum { BESIDE_COUNT = sizeof BESIDE / sizeof *BESIDE };

static const mg_column *cell_column(const char *name) {
  size_t k = 0;
  while (strcmp(mg_cell_columns.items[k].name, name) != 0) k++;
  return &mg_cell_columns.items[k];
}

static mg_status write_best(const char *dir, const mg_export *export) {
  mg_text text = {0};
  const bool named = export->count > 1;
  if (named) mg_text_append(&text, "result,");
  for (size_t k = 0; k < mg_best_columns.count; k++)
    mg_text_append(&text, "%s%s", k > 0 ? "," : "", mg_best_columns.items[k].name);
  for (size_t k = 0; k < BESIDE_COUNT; k++) mg_text_append(&text, ",%s", BESIDE[k]);
  mg_text_append(&text, "\n");
  for (size_t r = 0; r < export->count; r++) {
    const mg_grid_table *t = &export->results[r].view.table;
    for (size_t b = 0; b < t->best_count; b++) {
      if (named) {
        mg_csv_field(&text, export->results[r].path);
        mg_text_append(&text, ",");
      }
      for (size_t k = 0; k < mg_best_columns.count; k++) {
        if (k > 0) mg_text_append(&text, ",");
        append_value(&text, &mg_best_columns.items[k], &t->best[b]);
      }
      for (size_t k = 0; k < BESIDE_COUNT; k++) {
        mg_text_append(&text, ",");
        append_value(&text, cell_column(BESIDE[k]), &t->cells[t->best[b].cell]);
      }
      mg_text_append(&text, "\n");
    }
  }
  const mg_status status = mg_export_text(dir, "best_per_target.csv", &text);
  mg_text_free(&text);
  return status;
}

mg_status mg_export_cells(const char *dir, const mg_export *export) {
  const mg_status status = write_cells(dir, export);
  return status == MG_OK ? write_best(dir, export) : status;
}
