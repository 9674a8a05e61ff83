#ifndef MERGEGRID_GRID_H
#define MERGEGRID_GRID_H

/**
 * The grid: cells declared by `grid.fixed`, `sweep` and `phases`; their keys; and what each resolves to (a recipe) once
 * similarities, accuracies and compatibilities are known. Not collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/config.h"
#include "mergegrid/similarity.h"
#include "mergegrid/status.h"

/** A cell's coordinates. `terms` borrows its strings from the configuration and from the targets. */
typedef struct mg_cell {
  mg_terms terms;    /**< complete: defaults, the preset's bundle below what was said, fixed, swept; locale is set */
  char key[17];      /**< 16 hexadecimal digits: hash of the coordinates, known before anything is computed */
  const char *phase; /**< name of its phase */
} mg_cell;

typedef struct mg_grid {
  size_t count;
  mg_cell *cells;         /**< [count] phases in turn, axes as written, last fastest; the first of equal keys stays */
  size_t duplicate_count; /**< how many equal keys were left out */
  mg_strings swept;       /**< parameters that differ between cells: "ties.density", in order of appearance */
} mg_grid;

/**
 * Expands the configuration's grid over targets (what `locale: all` means). Complete terms are: the defaults of the table of
 * options; a preset's bundle; the phase's fixed values; the axes' values. `seed` defaults to the configuration's.
 * MG_ERR_CONFIG: a cell without locale or method, or without similarity_type where there are several matrices and it does not
 * name its sources.
 */
mg_status mg_grid_expand(const mg_config *config, const mg_strings *targets, mg_grid *grid);
void mg_grid_free(mg_grid *grid);

/**
 * One cell from a section `recipe` that has a method, and a locale or sources: its complete terms. Borrows from config.
 * MG_ERR_CONFIG where something is missing.
 */
mg_status mg_grid_recipe_cell(const mg_config *config, mg_cell *cell);
/** The same from a setup of the microscope that is said in terms. */
mg_status mg_grid_setup_cell(const mg_config *config, const mg_setup *setup, mg_cell *cell);

/** Are a cell's sources chosen by a similarity, neither named nor one that follows from the target? */
bool mg_terms_choose(const mg_terms *terms);

/**
 * The coordinates as one line of JSON, keys in a fixed order, numbers with the digits that read back: what `key` hashes.
 * Sources that were named are sorted by id, their weights scaled to a sum of 1. Appended to json.
 */
mg_status mg_cell_json(const mg_cell *cell, mg_text *json);
/** The method's parameters alone: {"density": 0.2, "trim": "tensor", …}. A lambda that lambda_rule decides is its name. */
mg_status mg_cell_parameters_json(const mg_cell *cell, mg_text *json);
/** Appends the text of one parameter ("ties.density") of a cell: "" where its method has none of that name. */
mg_status mg_cell_parameter(const mg_cell *cell, const char *swept, mg_text *text);

/** `--where method=ties|dare_ties,locale=sw-KE`: names of columns and values; every named column must have one of its values.
 */
typedef struct mg_where {
  size_t count;
  mg_strings names;
  mg_strings *values; /**< [count] */
} mg_where;
/**
 * MG_ERR_USAGE names what is no condition, or no column that a cell has before it is computed. text NULL: no condition. Several
 * texts may be added up with `,`. A value of key may be cut to its beginning.
 */
mg_status mg_where_parse(const char *text, mg_where *where);
void mg_where_free(mg_where *where);
/** MG_ERR_USAGE for a value that no cell has; names those that there are. */
mg_status mg_where_check(const mg_where *where, const mg_cell *cells, size_t count);
/** Conditions may be on: locale, method, similarity_type, num_languages, include_target, preset, seed, head, phase, key. */
bool mg_where_matches(const mg_where *where, const mg_cell *cell);

/* ---- matrices ---- */

/** A similarity matrix of the configuration as it was read. */
typedef struct mg_grid_matrix {
  const char *name;          /**< borrowed */
  mg_similarity first, keep; /**< by `duplicates`; labels.count 0 where no cell asks for it */
} mg_grid_matrix;

/**
 * Reads what cells [count] ask for of grid.similarity: *matrices [as many as the configuration names], the caller's.
 * evaluation: accuracies that `nxn` stands for (rows ids, columns targets), NULL where there are none: MG_ERR_INPUT if a cell
 * goes by them. notes: as of mg_similarity_read.
 */
mg_status mg_grid_matrices_read(const mg_config *config, const mg_cell *cells, size_t count, const mg_source_list *sources,
                                const mg_labelled_table *evaluation, mg_grid_matrix **matrices, mg_strings *notes);
void mg_grid_matrices_free(mg_grid_matrix **matrices, size_t count);

/** Accuracies [N,M] as a table: rows the sources' ids, columns the targets. The caller frees it. */
mg_status mg_evaluation_table(const mg_source_list *sources, const mg_strings *targets, const double *accuracy,
                              mg_labelled_table *table);
/** The other way about: accuracy [N,M], NaN where the table has no such row or column. */
mg_status mg_evaluation_accuracy(const mg_labelled_table *table, const mg_source_list *sources, const mg_strings *targets,
                                 double *accuracy);
/**
 * An evaluation as a similarity matrix: labels are the sources' locales (of several of a locale the first one's row stays), and
 * targets without a source. What was not measured is NaN.
 */
mg_status mg_evaluation_similarity(const mg_labelled_table *table, const mg_source_list *sources, mg_similarity *similarity);

/**
 * Compatibilities [N,N] from a table whose labels are ids or locales of sources: a matrix of this program's, or merginguriel's.
 * A pair that the table lacks, or whose entry is NaN, is NaN (and counts as 0), and notes says whose. origin: for messages.
 * MG_ERR_INPUT: it has none of the sources.
 */
mg_status mg_compatibility_of(const mg_labelled_table *table, const char *origin, const mg_source_list *sources,
                              double *compatibility, mg_strings *notes);

/* ---- resolving ---- */

/** What cells are resolved against; all borrowed. N sources, M targets. */
typedef struct mg_grid_context {
  const mg_source_list *sources;
  const mg_strings *targets; /**< NULL: any locale will do */
  size_t matrix_count;
  const mg_grid_matrix *matrices;
  const double *tv, *cka;    /**< [N,N] compatibilities, NULL where not to be had */
  const double *accuracy[2]; /**< [N,M] of the partition cells are scored on, and of the one sources are chosen by; or NULL */
} mg_grid_context;

/** What a cell comes to. */
typedef enum mg_cell_kind {
  MG_CELL_MERGE, /**< a merge that has to be computed and evaluated */
  MG_CELL_MODEL, /**< one source as it is: its answers are known */
  MG_CELL_VOTE   /**< a vote over the sources' logits, which are known */
} mg_cell_kind;

typedef struct mg_resolved {
  mg_cell_kind kind;
  size_t count;
  int *source;    /**< [count] rising */
  double *weight; /**< [count] as given to the method: positive, sum 1 */
  int base;       /**< the source that stands in for the base (drop_strongest), −1: the family's base */
  size_t best;    /**< index into source: the most accurate on the select partition, else the one of largest weight */
  double values[MG_MOST_PARAMETERS]; /**< the method's, after lambda_rule */
  char *note; /**< what is unusual, the caller frees: "every compatibility is 0: the similarity's weights stay"; NULL */
  mg_selection selection; /**< how the sources were chosen; candidates NULL where they were named */
} mg_resolved;

/**
 * Sources, weights and parameters of a cell. Weights are those of the similarity (or as they were named) where the method goes
 * by weights, else equal. MG_ERR_INPUT (the cell's own failure): the target has no texts, its matrix lacks it, fewer candidates
 * than num_languages, all weights zero, no own model, a source that is not there, a matrix, evaluation or compatibility that is
 * not there, nothing left once the strongest is dropped.
 */
mg_status mg_grid_resolve(const mg_grid_context *context, const mg_cell *cell, mg_resolved *resolved);
void mg_resolved_free(mg_resolved *resolved);

/** The largest weight's index, of equals the first. */
size_t mg_strongest(const double *weights, size_t n);
/** Is the method task_arithmetic or dare_linear? */
bool mg_method_sums(const mg_method *method);
/** merginguriel's lambda, n above 1: of ties the largest weight but the strongest source's, of task arithmetic their mean. */
double mg_lambda_by_rule(const mg_method *method, const double *weights, size_t n);
/**
 * Index of the most accurate of sources [n] on the target, of equals the first of the family; where accuracy [N, columns] is
 * NULL or target below 0, of the strongest.
 */
size_t mg_best_of(const int *sources, const double *weights, size_t n, const double *accuracy, size_t columns,
                  ptrdiff_t target);

/** Appends "fr-FR:0.500,sw-KE:0.500", by falling weight (equal ones in the order of the sources). */
mg_status mg_resolved_sources_text(const mg_grid_context *context, const mg_resolved *resolved, mg_text *text);

#endif
