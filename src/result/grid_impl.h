#ifndef MG_GRID_IMPL_H
#define MG_GRID_IMPL_H

#include "hdf5_impl.h"
#include "mergegrid/method.h"
#include "mergegrid/result_grid.h"

/* The grid's tables are structures of one layout: these say what each field is called in the file and where it is. */
typedef enum mg_column_type {
  MG_COLUMN_TEXT,
  MG_COLUMN_BOOL,
  MG_COLUMN_INT, /* an int; in the file int64, as MG_COLUMN_INT64 */
  MG_COLUMN_INT64,
  MG_COLUMN_UINT64,
  MG_COLUMN_DOUBLE
} mg_column_type;

typedef struct mg_column {
  const char *name;
  mg_column_type type;
  size_t offset;
  const char *long_name;
} mg_column;

typedef struct mg_columns {
  const char *group; /* "/grid/cells" */
  size_t count, row_size;
  const mg_column *items;
  size_t scale; /* which column is the scale of the others */
} mg_columns;

extern const mg_columns mg_cell_columns, mg_method_columns, mg_best_columns;

/* The microscope's, by its tables; their number. */
enum { MG_MICROSCOPE_TABLES = 6 };
extern const mg_columns mg_microscope_columns[MG_MICROSCOPE_TABLES];

/* A table's group, its columns, and the scale they hang on. */
void mg_h5_table(mg_h5_writer *writer, const mg_columns *columns, const void *rows, size_t count);

/* A field of a row, by its type. */
const char *mg_column_text(const mg_column *column, const void *row);
double mg_column_number(const mg_column *column, const void *row);

/* What kind of a method that is; of one that is unknown here, a merge. */
mg_method_kind mg_kind_of(const char *method);

/* Where a matrix that cells went by is: /grid/similarity/NAME, '/' replaced. */
void mg_matrix_path(const char *name, char path[160]);

/* Texts of a target, of all partitions; of the one that cells are scored on. */
mg_status mg_grid_count_texts(const mg_h5_reader *reader, const char *target, size_t *texts);
mg_status mg_grid_count_scored(const mg_h5_reader *reader, const char *target, size_t *texts);

#endif
