#ifndef MERGEGRID_LABELLED_TABLE_H
#define MERGEGRID_LABELLED_TABLE_H

/** A table of numbers in CSV, labelled on both sides. Not collective. */

#include <stddef.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

/** Labels as they stand in the first row and the first column; values [rows, columns], NaN where a field is empty. */
typedef struct mg_labelled_table {
  mg_strings rows, columns;
  double *values;
  size_t count, room; /**< of values */
} mg_labelled_table;

/**
 * MG_ERR_INPUT names file and line where it is not a table: no label, a row of another length, a field that is no number, bytes
 * that are not UTF-8.
 */
mg_status mg_labelled_table_read(const char *path, mg_labelled_table *table);
void mg_labelled_table_free(mg_labelled_table *table);

#endif
