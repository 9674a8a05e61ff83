#ifndef MERGEGRID_SIMILARITY_H
#define MERGEGRID_SIMILARITY_H

/** Which sources a target is merged from, and with what weights: similarity matrices and choosing from them. Not collective. */

#include <stdbool.h>
#include <stddef.h>

#include "mergegrid/labelled_table.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"

/** A matrix whose rows and columns have the same labels. Entry (s, t): what source s is to target t. */
typedef struct mg_similarity {
  mg_strings labels; /**< n, in the order of the rows */
  double *values;    /**< [n, n], row by row; NaN: the table has no number there, which counts as 0 */
  /**
   * Of accuracies of an evaluation [n]: which labels it was on; NULL of other matrices. An entry of a column that it was on has
   * no number because there is no such source or its evaluation failed; one of another column was not evaluated.
   */
  bool *evaluated;
} mg_similarity;

typedef enum mg_duplicates {
  MG_DUPLICATES_FIRST, /**< of a label that is there more than once the first row and column count */
  MG_DUPLICATES_KEEP   /**< all count, the k-th row with the k-th column of that name */
} mg_duplicates;

/**
 * Reads a CSV as pandas' to_csv writes a frame (labels in the first row and column). Labels that only rows or only columns have
 * are left out. notes (may be NULL) gets a line for each thing that is unusual, by name: labels left out, repeated ones,
 * entries that are NaN (they count as 0), pairs that differ by more than 1e-6 of the largest entry across the diagonal (a few,
 * and how many). MG_ERR_INPUT names file and line: no table, a row of another length, an entry that is no number, no label that
 * both sides have, bytes that are not UTF-8.
 */
mg_status mg_similarity_read(const char *path, mg_duplicates duplicates, mg_similarity *similarity, mg_strings *notes);
/** The same of a table that is at hand; origin: for messages. */
mg_status mg_similarity_of(const mg_labelled_table *table, const char *origin, mg_duplicates duplicates,
                           mg_similarity *similarity, mg_strings *notes);
/** It is accuracies of an evaluation on these targets. */
mg_status mg_similarity_set_evaluated(mg_similarity *similarity, const mg_strings *targets);
void mg_similarity_free(mg_similarity *similarity);

/** How sources are chosen. */
typedef struct mg_selection_terms {
  bool by_row;         /**< the target's row instead of its column */
  bool sinkhorn;       /**< of the matrix after top_k and Sinkhorn's normalisation, instead of the matrix */
  int top_k;           /**< entries that a line keeps before Sinkhorn (equals of the last one stay) */
  int sinkhorn_iters;  /**< rows, then columns are scaled to a sum of 1, so many times */
  int num_languages;   /**< sources to take */
  bool include_target; /**< the target's own source may be one */
  bool matrix_order;   /**< with include_target: the target first, then in the order of the labels, as merginguriel does */
} mg_selection_terms;

/** A label that may become a source. */
typedef struct mg_candidate {
  size_t label;  /**< index into the matrix */
  size_t rank;   /**< the smaller is the first of equals: the source's place, SIZE_MAX of none; after Sinkhorn the label's */
  double weight; /**< as the matrix (after Sinkhorn) has it */
  double share;  /**< of those taken: weight / sum; they sum to 1. 0 of others */
  bool taken;
  /**
   * Why it was not: "no checkpoint", "is the target", "enough others"; of its weight: "similarity is not positive", "no value",
   * "not evaluated (nxn.targets)", "the evaluation failed (nxn)", "not among its top_k", "a diagonal of 1 is left out".
   */
  const char *reason;
  bool unknown; /**< there is a checkpoint that may be one, and the matrix has no number */
} mg_candidate;

/**
 * All labels: those taken first, by falling weight, then the others likewise. Equal ones are in the order of the sources,
 * however the matrix is sorted; after Sinkhorn's normalisation in the matrix', as merginguriel has them.
 */
typedef struct mg_selection {
  size_t taken, count;
  mg_candidate *candidates; /**< [count], the caller frees */
} mg_selection;

/**
 * Chooses terms->num_languages sources for a target among labels that have one: source_of is a label's place among the sources,
 * −1 where it has none. MG_ERR_INPUT: the matrix lacks the target (names the nearest label); fewer candidates than asked for
 * (says how many, or that an evaluation has no row of the target, which has no source).
 */
mg_status mg_select_sources(const mg_similarity *similarity, const mg_selection_terms *terms, const char *target,
                            ptrdiff_t (*source_of)(void *context, const char *label), void *context, mg_selection *selection);

/**
 * Scales weights [n] by each source's mean compatibility with the others (compatibility [n, n]; what is negative counts as 0),
 * and to a sum of 1. One source keeps its weight; where every mean is 0 all keep theirs and *kept is true.
 */
void mg_weigh_by_compatibility(const double *compatibility, size_t n, double *weights, bool *kept);
/** Of i with the n − 1 others: what a weight is scaled by. n above 1. */
double mg_mean_compatibility(const double *compatibility, size_t n, size_t i);

#endif
