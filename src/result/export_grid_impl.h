#ifndef MG_EXPORT_GRID_IMPL_H
#define MG_EXPORT_GRID_IMPL_H

#include "export_impl.h"
#include "grid_view_impl.h"

/* A result with a grid, and what its cells are called in the Python tools. */
typedef struct mg_export_result {
  const char *path;
  mg_grid_view view;   /* all cells */
  mg_matrices m;       /* sources, accuracies, times */
  size_t *scored;      /* [targets] texts that cells are scored on */
  mg_strings types;    /* [C] merging, ensemble, baseline */
  mg_strings variants; /* [C] "ties_density0.2_URIEL_xlm-roberta-base_5lang_ExcTar": one a locale */
  mg_strings folders;  /* [C] */
} mg_export_result;

typedef struct mg_export {
  size_t count;
  mg_export_result *results;
} mg_export;

/* Types, variants and folders of a result that has been read. */
mg_status mg_export_name_cells(mg_export_result *result);
/* "xlm-roberta-base", from the base's path. */
const char *mg_export_family(const mg_export_result *result);
/* The best of a cell's sources on the texts it is scored on, or (any) of all but the target's own: its index, −1: none. */
ptrdiff_t mg_export_best(const mg_export_result *result, size_t cell, bool any, double *accuracy);
/* A cell's sources as a JSON list of their ids, or (weights) an object of ids and weights. */
json_t *mg_export_sources(const mg_export_result *result, size_t cell, bool weights);
mg_status mg_export_cells(const char *dir, const mg_export *export);
mg_status mg_export_tables(const char *dir, const mg_export *export);
mg_status mg_export_aggregates(const char *dir, const mg_export *export);
mg_status mg_export_database(const char *dir, const mg_export *export);

#endif
