#ifndef MERGEGRID_SEARCH_H
#define MERGEGRID_SEARCH_H

/**
 * Every subset of k sources among a target's candidates, scored from matrices, and the best by each score. Not collective.
 *
 * Scores of a subset S: the mean of its similarities to the target; the mean over its pairs of the task-vector cosine, and of
 * CKA; and interference, 1 − ‖Σ w_i τ_i‖ / Σ w_i ‖τ_i‖: what the weighted task vectors cancel of each other when they are added
 * up, 0 where all point the same way.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

typedef enum mg_search_by {
  MG_BY_SIMILARITY,    /**< larger is better, as of the next two */
  MG_BY_COMPATIBILITY, /**< task-vector cosine */
  MG_BY_CKA,
  MG_BY_INTERFERENCE, /**< smaller is better */
  MG_BY_COUNT
} mg_search_by;

/** What is searched; all pointers borrowed. */
typedef struct mg_search_space {
  size_t n;                   /**< candidates; of equal subsets the first in their order comes first */
  size_t k;                   /**< 1 … n */
  const double *similarity;   /**< [n] finite */
  const double *weight;       /**< [n] positive, of any scale: what task vectors are weighed by */
  const double *cosine, *cka; /**< [n,n] symmetric, finite; NULL where not to be had */
  const double *dot;          /**< [n,n] ⟨τi, τj⟩, finite, of positive diagonal; NULL where not to be had */
} mg_search_space;

/** Can subsets be scored by it? A single source has neither pairs nor interference. */
bool mg_search_has(const mg_search_space *space, mg_search_by by);

/** Subsets of k among n; exact up to 2^53, infinite beyond what a double holds. */
double mg_search_count(size_t n, size_t k);

/** One subset's scores (NaN where it can't be scored), each subset from scratch: members [k] rising indexes of candidates. */
void mg_search_score(const mg_search_space *space, const uint32_t *members, double score[MG_BY_COUNT]);

typedef struct mg_search_options {
  size_t top;                                        /**< subsets to keep by each score, at least 1 */
  bool by[MG_BY_COUNT];                              /**< which scores; those that can't be had are passed over */
  mg_status (*poll)(void *context, double searched); /**< every few million subsets, may be NULL; a failure ends the search */
  void *context;
} mg_search_options;

/** The best subsets by one score, best first, equal ones in the order of the candidates. */
typedef struct mg_search_list {
  size_t count;
  uint32_t *members;            /**< [count,k] rising */
  double (*score)[MG_BY_COUNT]; /**< [count] all scores of each */
} mg_search_list;

typedef struct mg_search_found {
  double searched; /**< subsets */
  mg_search_list list[MG_BY_COUNT];
} mg_search_found;

/**
 * Scores every subset; the bits are those of mg_search_score. found is the caller's to free, after a failure of poll as well:
 * it then holds the best of what was searched.
 */
mg_status mg_search_subsets(const mg_search_space *space, const mg_search_options *options, mg_search_found *found);
void mg_search_found_free(mg_search_found *found);

typedef enum mg_search_format { MG_SEARCH_TEXT, MG_SEARCH_JSON, MG_SEARCH_CSV, MG_SEARCH_YAML } mg_search_format;

/** The command. */
typedef struct mg_search_command {
  const char *result, *locale;
  const char *similarity; /**< a matrix of the result's grid, `nxn`, or a CSV; NULL: the grid's first */
  size_t k;
  size_t candidates;    /**< only so many, the most similar; 0: all */
  bool include_target;  /**< the target's own source may be one */
  bool equal_weights;   /**< instead of the similarities */
  const mg_strings *by; /**< names of scores; none: all that can be had */
  size_t top;           /**< subsets a list; 0: as many as is usual */
  double max_hours;     /**< what would take longer is refused; 0: one */
  mg_search_format format;
} mg_search_command;

/**
 * Searches a result and prints what it finds. MG_ERR_USAGE: no such score. MG_ERR_INPUT: no such target or matrix, fewer
 * candidates than k, a score that the result has no matrix for, entries of a matrix that are not finite, too many subsets.
 * MG_STOPPED: interrupted, what was found by then is printed.
 */
mg_status mg_search_print(const mg_search_command *command);

#endif
