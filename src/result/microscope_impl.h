#ifndef MG_RESULT_MICROSCOPE_IMPL_H
#define MG_RESULT_MICROSCOPE_IMPL_H

/* The microscope's tables of a result: for show and export. */

#include <jansson.h>

#include "grid_impl.h"
#include "mergegrid/text.h"

typedef struct mg_frame_column {
  mg_strings texts; /* of a column of text; else */
  double *numbers;  /* [rows] */
} mg_frame_column;

/* A table as columns. */
typedef struct mg_frame {
  const mg_columns *of;
  size_t rows, column_count;
  mg_frame_column *columns;
} mg_frame;
/* MG_ERR_CORRUPT: a column is missing, or of another length. */
mg_status mg_frame_read(const mg_h5_reader *reader, const mg_columns *columns, mg_frame *frame);
void mg_frame_free(mg_frame *frame);
/* Of a column that the table has, of that type. */
const char *mg_frame_text(const mg_frame *frame, const char *column, size_t row);
double mg_frame_number(const mg_frame *frame, const char *column, size_t row);

/* In the order of mg_microscope_columns. */
enum { MG_SCOPE_PARAMETERS, MG_SCOPE_LAYERS, MG_SCOPE_ATTENTIONS, MG_SCOPE_STATES, MG_SCOPE_LOGITS, MG_SCOPE_SETUPS };

typedef struct mg_microscope_tables {
  mg_frame tables[MG_MICROSCOPE_TABLES];
  char *reference, *padding, *probe_source;
  int64_t probes;
} mg_microscope_tables;
mg_status mg_microscope_read(const mg_h5_reader *reader, mg_microscope_tables *tables);
void mg_microscope_tables_free(mg_microscope_tables *tables);

/* Setups, the layers that moved most, logits; at most `top` layers a model. */
void mg_microscope_print(const mg_microscope_tables *tables, size_t top);
json_t *mg_microscope_json(const mg_microscope_tables *tables, size_t top);
/* A CSV file a table, with the notebook's columns, in dir/microscope. */
mg_status mg_microscope_export(const mg_h5_reader *reader, const char *dir);

#endif
