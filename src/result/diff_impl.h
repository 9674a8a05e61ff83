#ifndef MG_DIFF_IMPL_H
#define MG_DIFF_IMPL_H

#include "grid_impl.h"
#include "grid_view_impl.h"
#include "matrices_impl.h"
#include "mergegrid/config.h"
#include "mergegrid/run.h"
#include "microscope_impl.h"

/* One of the two results that are compared. */
typedef struct mg_diff_side {
  const char *path;
  mg_result_reader *reader;
  mg_matrices m;
  mg_identity inputs, config; /* config: resolved, "compute.threads" and so on */
  bool has_grid, has_microscope;
  mg_grid_table grid;         /* where there is one, */
  mg_microscope_tables scope; /* as here */
  mg_config *declared;        /* with a microscope; NULL: another version's, which this one can't read */
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

/* ---- setups of the microscope ---- */

enum { MG_DIFF_TABLES = 4, MG_DIFF_COLUMNS = 6 };

/* A column of numbers over the rows that both have: how many are others now, and of which row the change is largest. */
typedef struct mg_diff_column {
  const char *name;
  size_t changed, row; /* row: of the new table */
  double largest;      /* new − old; NaN where one of them is */
} mg_diff_column;

/* A setup's rows of a table. changed: in any column. */
typedef struct mg_diff_table {
  const mg_frame *frame; /* of the new result */
  size_t both, changed, gone, come, column_count;
  mg_diff_column columns[MG_DIFF_COLUMNS];
} mg_diff_table;

/* A setup that both have, or the reference. */
typedef struct mg_diff_setup {
  const char *name, *status[2], *error[2];
  mg_identity from[2];                  /* what its model is made from */
  mg_diff_values inputs;                /* of that, what is another */
  mg_diff_table tables[MG_DIFF_TABLES]; /* of one that completed in both */
  bool resolved;                        /* it came to a model in both */
  bool changed;                         /* inputs, status, error or numbers */
} mg_diff_setup;

typedef struct mg_diff_microscope {
  mg_identity from[2]; /* what all setups are looked at with: probes and the like */
  mg_diff_values conditions;
  mg_strings gone, come;
  size_t same_recipe, newly_failed, newly_completed;
  size_t count, changed; /* setups in both; those with other inputs, another status, or other numbers */
  mg_diff_setup *items;  /* in the order of the new result */
} mg_diff_microscope;

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
  mg_diff_microscope scope;
} mg_diff;

/* Target by target: what sources and cells say of the texts that both results have. */
mg_status mg_diff_answers_compare(mg_diff *diff);
/* Names and values of both. */
mg_status mg_diff_values_compare(const mg_identity *before, const mg_identity *now, mg_diff_values *values);
/* Setup by setup, where both have a microscope. */
mg_status mg_diff_microscope_compare(mg_diff *diff);
void mg_diff_microscope_free(mg_diff_microscope *microscope);
/* What the model of a row of the table of setups is made from, as far as the result says. terms: what is declared of it;
   resolved: what that came to, where it did. */
mg_status mg_diff_setup_inputs(const mg_diff_side *side, size_t row, bool terms, bool resolved, mg_identity *from);
bool mg_diff_setup_is_resolved(const mg_diff_side *side, size_t row);
void mg_diff_print(const mg_diff *diff, size_t top);
mg_status mg_diff_print_json(const mg_diff *diff);
void mg_diff_microscope_print(const mg_diff *diff, size_t top);
/* null where one has none. */
json_t *mg_diff_microscope_json(const mg_diff *diff);
/* Those that differ, each behind so many blanks: what it was, and under it what it is. */
void mg_diff_print_values(const mg_diff_values *values, int indent);
void mg_diff_print_list(const char *what, const mg_strings *list);
json_t *mg_diff_values_json(const mg_diff_values *values);

#endif
