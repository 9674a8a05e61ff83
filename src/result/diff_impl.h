#ifndef MG_DIFF_IMPL_H
#define MG_DIFF_IMPL_H

#include "grid_impl.h"
#include "grid_view_impl.h"
#include "matrices_impl.h"
#include "mergegrid/run.h"

/* One of the two results that are compared. */
typedef struct mg_diff_side {
  const char *path;
  mg_result_reader *reader;
  mg_matrices m;
  mg_identity inputs, config; /* config: resolved, "compute.threads" and so on */
  bool has_grid;
  mg_grid_table grid; /* where there is one */
} mg_diff_side;

/* What became of a name: NULL is not there. Borrowed from the sides. */
typedef struct mg_diff_value {
  const char *name, *before, *now;
} mg_diff_value;

typedef struct mg_diff_values {
  size_t compared, count; /* names; those that differ */
  mg_diff_value *items;
} mg_diff_values;

/* The same question put to both: a source on a target, or a cell. */
typedef struct mg_diff_answer {
  const char *source, *target; /* source NULL: a cell */
  const mg_result_cell *cell;  /* of the new result; NULL: a source */
  double before, now;          /* accuracy on the texts that both have */
  size_t texts, differ;        /* those; and with another prediction */
  size_t only_before, only_now;
  double p, p_holm; /* McNemar; over all that predict something else */
} mg_diff_answer;

typedef struct mg_diff_answers {
  size_t compared, count, room;
  mg_diff_answer *items; /* those that predict something else, least p first */
} mg_diff_answers;

/* A setting over the cells that both have. */
typedef struct mg_diff_method {
  const mg_result_cell *cell; /* its first, of the new result */
  size_t cells;
  double delta, low, high, p, p_holm; /* new − old, pooled over texts; 95% interval */
} mg_diff_method;

typedef struct mg_diff {
  mg_diff_side side[2]; /* old, new */
  mg_diff_values inputs, config;
  mg_strings gone[2], come[2]; /* sources; targets */
  size_t pairs, pairs_changed; /* of the task-vector cosine, of sources in both */
  double largest;              /* change of one; of which: */
  const char *largest_of[2];
  mg_strings other_texts; /* targets whose texts or labels are not all the same */
  mg_strings failed[2];   /* "source on target", in both, that failed only in the old, only in the new */
  size_t failed_both;
  mg_diff_answers nxn, cells;
  size_t cells_both, cells_gone, cells_come, same_recipe, newly_failed, newly_completed;
  size_t method_count;
  mg_diff_method *methods;
} mg_diff;

/* Target by target: what sources and cells say of the texts that both results have. */
mg_status mg_diff_answers_compare(mg_diff *diff);
void mg_diff_print(const mg_diff *diff, size_t top);
mg_status mg_diff_print_json(const mg_diff *diff);

#endif
