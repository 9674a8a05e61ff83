/* The microscope's tables read back, as the frames they are. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "microscope_impl.h"

void mg_frame_free(mg_frame *f) {
  for (size_t c = 0; f->columns != NULL && c < f->column_count; c++) {
    mg_strings_free(&f->columns[c].texts);
    free(f->columns[c].numbers);
  }
  free(f->columns);
  *f = (mg_frame){0};
}

/* A column of numbers as doubles; bools are 0 and 1. */
static mg_status read_numbers(const mg_h5_reader *r, const char *path, mg_column_type type, double **numbers, size_t *count) {
  mg_status status = MG_OK;
  hsize_t dim;
  void *data = NULL;
  bool *flags = NULL;
  if (type == MG_COLUMN_BOOL)
    MG_TRY(mg_h5_read_bools(r, path, 1, &dim, &flags), cleanup);
  else
    MG_TRY(mg_h5_read_numbers(r, path, type == MG_COLUMN_DOUBLE ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, 1, &dim, &data),
           cleanup);
  *count = (size_t)dim;
  *numbers = mg_alloc(*count, sizeof **numbers);
  if (*numbers == NULL) status = MG_ERR_NOMEM;
  for (size_t k = 0; status == MG_OK && k < *count; k++)
    (*numbers)[k] = type == MG_COLUMN_BOOL     ? flags[k]
                    : type == MG_COLUMN_DOUBLE ? ((const double *)data)[k]
                                               : (double)((const int64_t *)data)[k];
cleanup:
  free(data), free(flags);
  return status;
}

mg_status mg_frame_read(const mg_h5_reader *r, const mg_columns *columns, mg_frame *f) {
  mg_status status = MG_OK;
  *f = (mg_frame){.of = columns, .column_count = columns->count};
  f->columns = mg_alloc_zero(columns->count, sizeof *f->columns);
  if (f->columns == NULL) return MG_ERR_NOMEM;
  for (size_t c = 0; c < columns->count; c++) {
    char path[160];
    size_t count = 0;
    mg_frame_column *to = &f->columns[c];
    snprintf(path, sizeof path, "%s/%s", columns->group, columns->items[c].name);
    if (columns->items[c].type == MG_COLUMN_TEXT) {
      MG_TRY(mg_h5_read_strings(r, path, &to->texts), failed);
      count = to->texts.count;
    } else {
      MG_TRY(read_numbers(r, path, columns->items[c].type, &to->numbers, &count), failed);
    }
    if (c > 0 && count != f->rows) {
      status = mg_fail(MG_ERR_CORRUPT, "%s: %s has %zu rows, not %zu", r->path, path, count, f->rows);
      goto failed;
    }
    f->rows = count;
  }
  return MG_OK;
failed:
  mg_frame_free(f);
  return status;
}

static size_t column_of(const mg_frame *f, const char *name) {
  size_t c = 0;
  while (strcmp(f->of->items[c].name, name) != 0) c++;
  return c;
}

const char *mg_frame_text(const mg_frame *f, const char *column, size_t row) {
  return f->columns[column_of(f, column)].texts.items[row];
}

double mg_frame_number(const mg_frame *f, const char *column, size_t row) {
  return f->columns[column_of(f, column)].numbers[row];
}

mg_status mg_microscope_read(const mg_h5_reader *r, mg_microscope_tables *m) {
  mg_status status = MG_OK;
  *m = (mg_microscope_tables){0};
  MG_TRY(mg_h5_read_text(r, "/microscope", "reference", &m->reference), failed);
  MG_TRY(mg_h5_read_text(r, "/microscope", "padding", &m->padding), failed);
  MG_TRY(mg_h5_read_text(r, "/microscope", "probe_source", &m->probe_source), failed);
  MG_TRY(mg_h5_read_integer(r, "/microscope", "probes", &m->probes), failed);
  for (size_t k = 0; k < MG_MICROSCOPE_TABLES; k++) MG_TRY(mg_frame_read(r, &mg_microscope_columns[k], &m->tables[k]), failed);
  return MG_OK;
failed:
  mg_microscope_tables_free(m);
  return status;
}

void mg_microscope_tables_free(mg_microscope_tables *m) {
  for (size_t k = 0; k < MG_MICROSCOPE_TABLES; k++) mg_frame_free(&m->tables[k]);
  free(m->reference), free(m->padding), free(m->probe_source);
  *m = (mg_microscope_tables){0};
}
