#ifndef MG_MICROSCOPE_IMPL_H
#define MG_MICROSCOPE_IMPL_H

/* Between the files of the stage microscope. */

#include "grid_impl.h"
#include "mergegrid/microscope.h"

/* ---- what every rank knows ---- */

typedef enum mg_scope_kind {
  MG_SCOPE_MERGE, /* a recipe, also of one source */
  MG_SCOPE_BASE,
  MG_SCOPE_PATH /* a checkpoint's directory */
} mg_scope_kind;

/* A model that is there, in numbers that go to all ranks. The first is the reference. */
typedef struct mg_scope_model {
  uint32_t kind, method, count, best;
  int32_t base, head;
  uint64_t seed, first; /* of its sources and weights */
  double values[MG_MOST_PARAMETERS];
  int32_t with_head; /* has logits */
  char path[4096];
} mg_scope_model;

typedef struct mg_scope_work {
  mg_scope_model *models;
  int32_t *sources; /* of all models, one after another */
  double *weights;
  uint8_t *has; /* [models, T]: which tensors a model has */
  size_t model_count, source_count, weight_count, has_count;
  mg_range *pieces; /* of all tensors, in order */
  size_t *unit_of;  /* [delta_units + 1] where a unit's pieces begin */
  size_t piece_count, delta_units;
} mg_scope_work;
void mg_scope_work_free(mg_scope_work *work);
/* Pieces and units, which hang on the table and the number of models alone. */
mg_status mg_scope_cut(const mg_tensor_table *table, mg_scope_work *work);
/* Elements of the longest piece. */
size_t mg_scope_piece_floats(const mg_tensor_table *table, size_t models);

/* A unit's result, as journaled: this, then failures, then numbers. Units: pieces of all models, then models' forward passes.
 */
typedef struct mg_scope_record {
  uint64_t key;                         /* of all that the numbers hang on */
  uint32_t unit, count, failures, zero; /* count: doubles */
} mg_scope_record;

/* A model that failed, and why. */
typedef struct mg_scope_failure {
  uint32_t model;
  char message[244];
} mg_scope_failure;

/* Doubles of a delta unit: [pieces, models − 1, 5]; of a model's forward passes: heads, states, logits. */
size_t mg_scope_doubles(const mg_scope_work *work, const mg_microscope_plan *plan, size_t unit);

/* ---- the worker (microscope_work.c) ---- */

typedef struct mg_scope_worker mg_scope_worker;
typedef struct mg_scope_terms {
  const mg_attempt *attempt;
  const mg_deltas *deltas;
  const mg_gram_view *gram; /* NULL where there is none a tensor */
  const mg_source_list *list;
  const mg_scope_work *work;
  const mg_microscope_plan *plan;
  const mg_strings *labels; /* the family's */
  uint64_t key;
} mg_scope_terms;
mg_status mg_scope_worker_open(const mg_scope_terms *terms, mg_scope_worker **worker);
void mg_scope_worker_close(mg_scope_worker **worker);
/* Computes a unit; appends its record. */
mg_status mg_scope_worker_unit(mg_scope_worker *worker, size_t unit, mg_text *payload, mg_farm_poll *poll);
/* A model of the list as a recipe; ids [count] are filled in. */
void mg_scope_recipe(const mg_scope_terms *terms, size_t model, const char **ids, mg_recipe *recipe);

/* ---- a checkpoint beside the family (microscope_path.c) ---- */

typedef struct mg_scope_path mg_scope_path;
/* labels: the family's, empty where nothing names them. */
mg_status mg_scope_path_open(const char *dir, const mg_tensor_table *table, const mg_strings *labels, mg_scope_path **path);
void mg_scope_path_close(mg_scope_path **path);
/*
 * Every tensor that does not fit the family's in one MG_ERR_INPUT, a line each, and another shape of encoder (NULL: not looked
 * at). has [T]: the tensors it has; only those that the base lacks too may be missing.
 */
mg_status mg_scope_path_check(const mg_scope_path *path, const char *setup, const mg_encoder_shape *shape, uint8_t *has);
/* Elements of a tensor, a head's rows in the family's order. */
mg_status mg_scope_path_read(mg_scope_path *path, const mg_range *range, float *out);
const mg_weights *mg_scope_path_weights(const mg_scope_path *path);

/* ---- rank 0: what setups come to (microscope_models.c) ---- */

typedef struct mg_scope_setup {
  const mg_setup *said;
  bool exists;
  char *error;        /* why not; or why it failed, */
  uint32_t failed_in; /* which the first unit says, whatever the order in which they arrive */
  ptrdiff_t model;    /* −1: not there, or its terms come to no merge */
  char *sources;      /* "fr-FR:0.500, sw-KE:0.500" */
  const char *path, *mode, *target_lang, *preweight, *base_model; /* borrowed; NULL is "" */
  int num_languages;
  char cell[17];
} mg_scope_setup;

struct mg_microscope_stage {
  mg_attempt *attempt;
  const mg_stages *stages;
  const mg_source_list *list;
  mg_microscope_plan plan;
  mg_deltas deltas;
  int32_t *class_of; /* [N, classes] */
  mg_scope_work work;
  mg_scope_worker *worker;
  mg_shared *dots; /* what gram points into */
  mg_gram_view gram;
  int64_t *todo; /* units, the same on every rank */
  size_t todo_count, unit_count;
  uint64_t digest, key; /* of the section and what it reads; with what it came to */
  /* rank 0 */
  mg_scope_setup *setups;  /* [setup_count + 1], the reference first */
  size_t setup_count;      /* with the reference */
  mg_record_place *places; /* of records that earlier attempts left; once resolved, of each unit's */
  mg_scope_record *heads;
  size_t place_count, place_room;
  double **numbers; /* [units] NULL: not done */
  size_t done;
  mg_progress progress;
  struct mg_scope_tables *tables;
};

/* Do setups and reference fit the configuration and what is on the disk? Before anything is computed. */
mg_status mg_scope_examine(mg_microscope_stage *stage);
/* What they come to, into work's lists. MG_ERR_INPUT: the reference comes to nothing. */
mg_status mg_scope_resolve(mg_microscope_stage *stage);
void mg_scope_setups_free(mg_microscope_stage *stage);

/* ---- rank 0: tables (microscope_tables.c, microscope_cells.c) ---- */

typedef struct mg_scope_cells {
  size_t count;
  const char **keys;
  const char **names;               /* [T] */
  double *delta_l2, *cosine, *norm; /* [C,T] */
  double *reference_norm;           /* [T] */
  char *reason;                     /* why there are none */
} mg_scope_cells;
mg_status mg_scope_cells_make(mg_microscope_stage *stage, mg_scope_cells *cells);
void mg_scope_cells_free(mg_scope_cells *cells);
mg_status mg_scope_tables_make(mg_microscope_stage *stage, mg_result_microscope *out);
void mg_scope_tables_free(mg_microscope_stage *stage);

#endif
