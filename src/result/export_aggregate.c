/*
 * The files that merginguriel's aggregation writes and its plots read: a row each evaluated cell, and locales × variants. Their
 * names end in a time, by which the newest is found: the result's own.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_grid_impl.h"

static bool completed(const mg_result_cell *c) { return strcmp(c->status, "completed") == 0; }

/* "2026-01-31T23:59:59Z" as "20260131_235959". */
static void stamp_of(const char *utc, char stamp[20]) {
  size_t n = 0;
  for (; *utc != '\0' && n < 15; utc++) {
    if (*utc == 'T') stamp[n++] = '_';
    if (*utc >= '0' && *utc <= '9') stamp[n++] = *utc;
  }
  stamp[n] = '\0';
}

static mg_status write_stamped(const char *dir, const char *name, const mg_export *export, const mg_text *text) {
  char stamp[20], file[64];
  stamp_of(export->results[0].m.finished, stamp);
  snprintf(file, sizeof file, "%s_%s.csv", name, stamp);
  return mg_export_text(dir, file, text);
}

/* ---- a row each cell ---- */

static void append_json(mg_text *text, json_t *value) {
  char *json = json_dumps(value, JSON_REAL_PRECISION(15));
  if (json != NULL)
    mg_csv_field(text, json);
  else
    text->failed = true;
  free(json);
  json_decref(value);
}

static void append_best(mg_text *text, const mg_export_result *r, size_t cell, bool any) {
  double accuracy;
  const ptrdiff_t best = mg_export_best(r, cell, any, &accuracy);
  mg_text_append(text, ",");
  mg_csv_number(text, accuracy);
  mg_text_append(text, ",");
  if (best >= 0) mg_csv_field(text, r->m.locales.items[best]);
}

static void append_fields(mg_text *text, const char *const *fields, size_t count) {
  for (size_t k = 0; k < count; k++) {
    if (k > 0) mg_text_append(text, ",");
    mg_csv_field(text, fields[k]);
  }
}

static void append_row(mg_text *text, const mg_export_result *r, size_t cell) {
  const mg_grid_table *t = &r->view.table;
  const mg_result_cell *c = &t->cells[cell];
  const ptrdiff_t target = mg_strings_find(&t->targets, c->locale);
  const double total = target >= 0 ? (double)r->scored[target] : NAN;
  const char *names[] = {c->locale, r->types.items[cell], r->variants.items[cell], r->folders.items[cell]};
  append_fields(text, names, 4);
  mg_text_append(text, ",");
  mg_csv_number(text, c->accuracy);
  mg_text_append(text, ",%.0f,%.0f,", round(c->accuracy * total), total);
  mg_csv_number(text, 1 - c->accuracy);
  mg_text_append(text, ",");
  const char *about[] = {r->folders.items[cell], r->m.finished, c->locale};
  append_fields(text, about, 3);
  mg_text_append(text, ",");
  append_json(text, mg_export_sources(r, cell, false));
  mg_text_append(text, ",");
  append_json(text, mg_export_sources(r, cell, true));
  mg_text_append(text, ",");
  mg_csv_field(text, c->method);
  mg_text_append(text, ",%d,", c->num_languages);
  mg_csv_field(text, r->m.finished);
  mg_text_append(text, ",");
  mg_csv_field(text, c->similarity_type);
  append_best(text, r, cell, false);
  append_best(text, r, cell, true);
  mg_text_append(text, "\n");
}

static mg_status write_rows(const char *dir, const mg_export *export) {
  mg_text text = {0};
  mg_text_append(&text, "locale,experiment_type,experiment_variant,folder_name,accuracy,correct_predictions,total_predictions,"
                        "error_rate,model_name,timestamp,target_lang,source_languages,weights,merge_mode,num_languages,"
                        "merge_timestamp,similarity_type,best_source_accuracy,best_source_language,best_overall_accuracy,"
                        "best_overall_language\n");
  for (size_t k = 0; k < export->count; k++) {
    const mg_export_result *r = &export->results[k];
    for (size_t c = 0; c < r->view.table.cell_count; c++)
      if (completed(&r->view.table.cells[c])) append_row(&text, r, c);
  }
  const mg_status status = write_stamped(dir, "results_aggregated", export, &text);
  mg_text_free(&text);
  return status;
}

/* ---- locales × variants ---- */

typedef struct pivot {
  mg_strings locales, variants;
  double *accuracy;                   /* [locales, variants], NaN where there is none */
  double *own, *best_source, *others; /* [locales] */
} pivot;

static mg_status add_once(mg_strings *list, const char *item) {
  return mg_strings_find(list, item) >= 0 ? MG_OK : mg_strings_add(list, item);
}

static double *nans(size_t rows, size_t columns) {
  double *values = mg_alloc(rows, columns * sizeof *values);
  for (size_t k = 0; values != NULL && k < rows * columns; k++) values[k] = NAN;
  return values;
}

static mg_status name_axes(const mg_export *export, pivot *p) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < export->count; k++) {
    const mg_export_result *r = &export->results[k];
    for (size_t c = 0; c < r->view.table.cell_count; c++) {
      if (!completed(&r->view.table.cells[c])) continue;
      MG_TRY(add_once(&p->locales, r->view.table.cells[c].locale), done);
      MG_TRY(add_once(&p->variants, r->variants.items[c]), done);
    }
  }
  mg_strings_sort(&p->locales);
  mg_strings_sort(&p->variants);
  p->accuracy = nans(p->locales.count, p->variants.count);
  p->own = nans(p->locales.count, 1);
  p->best_source = nans(p->locales.count, 1);
  p->others = nans(p->locales.count, 1);
  if (p->accuracy == NULL || p->own == NULL || p->best_source == NULL || p->others == NULL) return MG_ERR_NOMEM;
done:
  return status;
}

static void keep_highest(double *kept, double value) {
  if (!(*kept >= value)) *kept = value;
}

/* Of several results the first one's number stays, as theirs does. */
static void fill(const mg_export *export, pivot *p) {
  for (size_t k = 0; k < export->count; k++) {
    const mg_export_result *r = &export->results[k];
    for (size_t c = 0; c < r->view.table.cell_count; c++) {
      const mg_result_cell *cell = &r->view.table.cells[c];
      if (!completed(cell)) continue;
      const size_t row = (size_t)mg_strings_find(&p->locales, cell->locale);
      double *at = &p->accuracy[row * p->variants.count + (size_t)mg_strings_find(&p->variants, r->variants.items[c])];
      if (isnan(*at)) *at = cell->accuracy;
      keep_highest(&p->own[row], cell->own);
      keep_highest(&p->best_source[row], cell->best_source);
      keep_highest(&p->others[row], cell->best_zero_shot);
    }
  }
}

static bool is_baseline(const char *variant) { return strncmp(variant, "baseline_", 9) == 0; }

static void append_pivot(mg_text *text, const pivot *p) {
  mg_text_append(text, "locale,baseline");
  for (size_t v = 0; v < p->variants.count; v++) {
    mg_text_append(text, ",");
    mg_csv_field(text, p->variants.items[v]);
  }
  mg_text_append(text, ",best_source_accuracy,best_overall_accuracy");
  for (size_t v = 0; v < p->variants.count; v++) {
    mg_text name = {0};
    if (is_baseline(p->variants.items[v])) continue;
    mg_text_append(&name, "%s_improvement", p->variants.items[v]);
    mg_text_append(text, ",");
    mg_csv_field(text, name.data != NULL ? name.data : "");
    text->failed = text->failed || name.failed;
    mg_text_free(&name);
  }
  mg_text_append(text, "\n");
  for (size_t l = 0; l < p->locales.count; l++) {
    const double *row = p->accuracy + l * p->variants.count, edges[] = {p->best_source[l], p->others[l]};
    mg_csv_field(text, p->locales.items[l]);
    mg_text_append(text, ",");
    mg_csv_number(text, p->own[l]);
    for (size_t v = 0; v < p->variants.count + 2; v++) {
      mg_text_append(text, ",");
      mg_csv_number(text, v < p->variants.count ? row[v] : edges[v - p->variants.count]);
    }
    for (size_t v = 0; v < p->variants.count; v++) {
      if (is_baseline(p->variants.items[v])) continue;
      mg_text_append(text, ",");
      mg_csv_number(text, row[v] - p->own[l]);
    }
    mg_text_append(text, "\n");
  }
}

static mg_status write_pivot(const char *dir, const mg_export *export) {
  mg_status status = MG_OK;
  pivot p = {0};
  mg_text text = {0};
  MG_TRY(name_axes(export, &p), cleanup);
  fill(export, &p);
  append_pivot(&text, &p);
  MG_TRY(write_stamped(dir, "results_comparison", export, &text), cleanup);
cleanup:
  mg_text_free(&text);
  mg_strings_free(&p.locales), mg_strings_free(&p.variants);
  free(p.accuracy), free(p.own), free(p.best_source), free(p.others);
  return status;
}

mg_status mg_export_aggregates(const char *dir, const mg_export *export) {
  const mg_status status = write_rows(dir, export);
  return status == MG_OK ? write_pivot(dir, export) : status;
}
