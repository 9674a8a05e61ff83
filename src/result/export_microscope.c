/* The microscope's tables as CSV, as pandas' to_csv(index=False) writes the notebook's frames. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "mergegrid/io.h"
#include "microscope_impl.h"

static void append_field(mg_text *text, const mg_frame *f, size_t column, size_t row) {
  const mg_frame_column *c = &f->columns[column];
  switch (f->of->items[column].type) {
  case MG_COLUMN_TEXT:
    mg_csv_field(text, c->texts.items[row]);
    break;
  case MG_COLUMN_BOOL:
    mg_text_append(text, "%s", c->numbers[row] != 0 ? "True" : "False");
    break;
  case MG_COLUMN_DOUBLE:
    mg_csv_number(text, c->numbers[row]);
    break;
  default:
    mg_text_append(text, "%.0f", c->numbers[row]);
  }
}

static mg_status write_frame(const char *dir, const mg_frame *f) {
  char name[64];
  mg_text text = {0};
  for (size_t c = 0; c < f->column_count; c++) mg_text_append(&text, "%s%s", c > 0 ? "," : "", f->of->items[c].name);
  mg_text_append(&text, "\n");
  for (size_t r = 0; r < f->rows; r++) {
    for (size_t c = 0; c < f->column_count; c++) {
      if (c > 0) mg_text_append(&text, ",");
      append_field(&text, f, c, r);
    }
    mg_text_append(&text, "\n");
  }
  snprintf(name, sizeof name, "%s.csv", strrchr(f->of->group, '/') + 1);
  const mg_status status = mg_export_text(dir, name, &text);
  mg_text_free(&text);
  return status;
}

mg_status mg_microscope_export(const mg_h5_reader *r, const char *dir) {
  mg_status status = MG_OK;
  mg_microscope_tables m = {0};
  char *own = mg_path_join(dir, "microscope");
  if (own == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_microscope_read(r, &m), cleanup);
  MG_TRY(mg_make_dirs(own), cleanup);
  for (size_t k = 0; k < MG_MICROSCOPE_TABLES; k++) MG_TRY(write_frame(own, &m.tables[k]), cleanup);
cleanup:
  mg_microscope_tables_free(&m);
  free(own);
  return status;
}
