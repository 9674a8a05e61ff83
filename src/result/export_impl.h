#ifndef MG_EXPORT_IMPL_H
#define MG_EXPORT_IMPL_H

#include <jansson.h>

#include "matrices_impl.h"
#include "mergegrid/text.h"

/* dir/name: header ",column,column…", a row each, shortest digits that read back to the same double, NaN an empty field. */
mg_status mg_csv_write(const char *dir, const char *name, const mg_strings *rows, const mg_strings *columns,
                       const double *matrix);
/* A number as Python's repr has it, NaN as nothing; a field, quoted as csv.writer does. */
void mg_csv_number(mg_text *text, double value);
void mg_csv_field(mg_text *text, const char *field);
/* dir/name, replaced atomically, and said. */
mg_status mg_export_text(const char *dir, const char *name, const mg_text *text);
/* dir/name, replaced atomically; root is released. */
mg_status mg_json_write(const char *dir, const char *name, json_t *root);
/* null where it is not finite */
json_t *mg_json_number(double value);
/* Of the entries off the diagonal of an n × n matrix. */
json_t *mg_json_statistics(const double *matrix, size_t n);
json_t *mg_json_strings(const mg_strings *list);
/* source, target, error of each evaluation that failed */
json_t *mg_json_failures(const mg_evaluation *evaluation);

/* evaluation_matrix.csv and what belongs to it. */
mg_status mg_export_evaluation(const char *dir, const mg_matrices *matrices);
/* Cells, tables and the database of one or several grids. MG_ERR_INPUT names a result that has none. */
mg_status mg_export_grids(const mg_strings *paths, const char *dir);

#endif
