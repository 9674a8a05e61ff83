/* What one or several grids are exported to: reading them, and what is asked of them by several files. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_grid_impl.h"
#include "mergegrid/io.h"

const char *mg_export_family(const mg_export_result *r) {
  const char *slash = strrchr(r->m.base_path, '/');
  return slash != NULL && slash[1] != '\0' ? slash + 1 : r->m.base_path;
}

ptrdiff_t mg_export_best(const mg_export_result *r, size_t cell, bool any, double *accuracy) {
  const mg_grid_table *t = &r->view.table;
  const char *locale = t->cells[cell].locale;
  const ptrdiff_t target = mg_strings_find(&r->m.targets, locale);
  const int part = strcmp(t->partition, r->m.nxn.partition[0]) != 0;
  ptrdiff_t best = -1;
  *accuracy = NAN;
  for (size_t s = 0; target >= 0 && s < t->source_count; s++) {
    const double mine = r->m.nxn.accuracy[part][s * r->m.targets.count + (size_t)target];
    if (any ? strcmp(r->m.locales.items[s], locale) == 0 : !t->selected[cell * t->source_count + s]) continue;
    if (isnan(mine) || (best >= 0 && !(mine > *accuracy))) continue; /* NaN has failed: it is best of nothing */
    best = (ptrdiff_t)s;
    *accuracy = mine;
  }
  return best;
}

json_t *mg_export_sources(const mg_export_result *r, size_t cell, bool weights) {
  const mg_grid_table *t = &r->view.table;
  json_t *all = weights ? json_object() : json_array();
  for (size_t s = 0; s < t->source_count; s++) {
    if (!t->selected[cell * t->source_count + s]) continue;
    if (weights)
      json_object_set_new(all, t->sources.items[s], mg_json_number(t->weights[cell * t->source_count + s]));
    else
      json_array_append_new(all, json_string(t->sources.items[s]));
  }
  return all;
}

static mg_status read_result(const char *path, mg_export_result *r) {
  mg_status status = MG_OK;
  mg_grid_reader *reader = NULL;
  r->path = path;
  MG_TRY(mg_grid_open(path, &reader), cleanup);
  MG_TRY(mg_grid_view_read(reader, NULL, NULL, &r->view), cleanup);
  MG_TRY(mg_matrices_read_from(&reader->h5, &r->m), cleanup);
  r->m.path = path;
  r->scored = mg_alloc(r->view.table.targets.count, sizeof *r->scored);
  if (r->scored == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < r->view.table.targets.count; k++)
    MG_TRY(mg_grid_count_scored(&reader->h5, r->view.table.targets.items[k], &r->scored[k]), cleanup);
  MG_TRY(mg_export_name_cells(r), cleanup);
cleanup:
  mg_grid_close(&reader);
  return status;
}

mg_status mg_export_grids(const mg_strings *paths, const char *dir) {
  mg_status status = MG_OK;
  mg_export export = {.results = mg_alloc_zero(paths->count, sizeof *export.results)};
  if (export.results == NULL) return MG_ERR_NOMEM;
  for (; export.count < paths->count; export.count++)
    MG_TRY(read_result(paths->items[export.count], &export.results[export.count]), cleanup);
  MG_TRY(mg_make_dirs(dir), cleanup);
  MG_TRY(mg_export_cells(dir, &export), cleanup);
  MG_TRY(mg_export_tables(dir, &export), cleanup);
  MG_TRY(mg_export_aggregates(dir, &export), cleanup);
  MG_TRY(mg_export_database(dir, &export), cleanup);
cleanup:
  for (size_t k = 0; k < paths->count; k++) {
    mg_export_result *r = &export.results[k];
    mg_grid_view_free(&r->view);
    mg_matrices_free(&r->m);
    mg_strings_free(&r->types), mg_strings_free(&r->variants), mg_strings_free(&r->folders);
    free(r->scored);
  }
  free(export.results);
  return status;
}
