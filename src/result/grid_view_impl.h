#ifndef MG_GRID_VIEW_IMPL_H
#define MG_GRID_VIEW_IMPL_H

#include <jansson.h>

#include "grid_impl.h"
#include "mergegrid/grid_journal.h"
#include "mergegrid/grid_statistics.h"

/* Cells that a user asks for, and what follows from them. */
typedef struct mg_grid_view {
  mg_grid_table table;
  char *select;         /* the partition that is chosen by */
  size_t matching;      /* cells that match */
  size_t counts[3];     /* of those: completed, failed, planned */
  size_t listed;        /* of those: all, but while the grid is computed only the finished ones */
  size_t *order;        /* [listed] sorted */
  bool incomplete;      /* the grid is still computed … */
  size_t finished, all; /* … : cells completed or failed, of those that will be */
  mg_grid_tables shown; /* over those that match; what they point to is the table's, or computed; none where incomplete */
  mg_grid_tables computed;
} mg_grid_view;

/* where, sort: NULL for all cells as they stand. MG_ERR_USAGE names what is no column. */
mg_status mg_grid_view_read(const mg_grid_reader *reader, const char *where, const char *sort, mg_grid_view *view);
/* The same of a grid that is still computed; takes table and select over from progress. */
mg_status mg_grid_view_progress(mg_grid_progress *progress, const char *where, const char *sort, mg_grid_view *view);
void mg_grid_view_free(mg_grid_view *view);

enum { MG_USUAL_CELLS = 20 }; /* printed where no number is asked for */
/* Are cells asked for, which there must be then? */
bool mg_show_asks_cells(const mg_show_options *options);
/* The order that cells are asked for in: where a number of them and none is, the most accurate first. */
const char *mg_show_order(const mg_show_options *options);

/* A run that adds to a result: what its journals have and the result has not. */
typedef struct mg_addition {
  bool known;        /* there is one */
  char state[16];    /* "running", "stopped", "failed", "in parts" */
  char stage[64];    /* "": none of them yet */
  size_t records;    /* of the journals */
  bool cells;        /* the grid of the run is known: */
  mg_grid_view view; /* its finished cells that the result has not, as they are asked for */
} mg_addition;

/* held: the result's cells, NULL where it has none. */
mg_status mg_addition_read(const char *path, const mg_grid_table *held, const mg_show_options *options, mg_addition *addition);
void mg_addition_print(const mg_addition *addition, const mg_show_options *options);
/* NULL where there is none. */
json_t *mg_addition_json(const mg_addition *addition);
void mg_addition_free(mg_addition *addition);

/* Sorts indexes of cells by a column, '-' in front for falling; equal ones stay in order. */
mg_status mg_cells_sort(const mg_grid_table *table, const char *sort, size_t *order, size_t count);

/* A method with those of its parameters that differ between cells: "ties density=0.2". */
void mg_setting_text(const mg_grid_table *table, const char *method, const char *parameters, mg_text *text);

/* Methods of a view, most accurate first; the caller frees. */
const mg_result_method **mg_sorted_methods(const mg_grid_view *view);

void mg_grid_print(const mg_grid_view *view);
/* The first `most` of the matching cells. */
void mg_grid_print_cells(const mg_grid_view *view, size_t most);
/* Of the first `most` of the matching cells, as CSV on the standard output. */
mg_status mg_grid_print_csv(const mg_grid_view *view, size_t most);
/* One tidy row a cell: a column each of the table's and of `swept`, as a line of names and one of a cell. */
void mg_cell_csv_names(mg_text *text, const mg_strings *swept);
void mg_cell_csv(mg_text *text, const mg_grid_table *table, size_t cell, const mg_strings *swept);
/* A row with all its columns; JSON texts as what they hold. NULL: out of memory. */
json_t *mg_row_json(const mg_columns *columns, const void *row);
/* All of the view; `most` of its cells. */
json_t *mg_grid_json(const mg_grid_view *view, size_t most);

#endif
