#ifndef MERGEGRID_MERGE_IMPL_H
#define MERGEGRID_MERGE_IMPL_H

#include <stdatomic.h>

#include "kernels_impl.h"
#include "mergegrid/dtype.h"
#include "mergegrid/merge.h"
#include "mergegrid/random.h"
#include "mergegrid/tiling.h"

/* ---- reading (delta.c) ---- */

enum { MG_BASE_FAMILY = -1, MG_BASE_RANDOM = -2 };

/* Tiles of task vectors as floats, of up to `most` sources at once. One a thread. */
typedef struct mg_delta_reader {
  const mg_deltas *deltas;
  size_t most;
  char *raw, *staging;
  float *base, *row, *scale;
  int *wanted;
} mg_delta_reader;
mg_status mg_delta_reader_create(const mg_deltas *deltas, size_t most, mg_delta_reader *reader);
void mg_delta_reader_free(mg_delta_reader *reader);
/* Does a source have a tensor's rows in an order of classes that is not the family's? */
bool mg_delta_is_permuted(const mg_deltas *deltas, int source, const mg_tensor *tensor);
/* tau of sources [n] into to[k] [count]; theta_0 into base (may be NULL). Any range of a tensor. */
mg_status mg_delta_read(mg_delta_reader *reader, const int *sources, size_t n, size_t t, int64_t first, int64_t count,
                        float *const *to, float *base);
/* theta_0 of a head as MG_HEAD_RANDOM draws it. */
void mg_random_head(const mg_tensor *tensor, uint64_t seed, int64_t first, int64_t count, float *out);

/* Elements of a row: of a tensor's last axis; of what has one axis all. */
static inline int64_t mg_row_length(const mg_tensor *tensor) {
  const int64_t row = tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 1;
  return row > 0 ? row : 1;
}

/* Elements of a chunk: whole rows, as many as a tile has room for, or one. */
static inline int64_t mg_chunk_length(const mg_tensor *tensor) {
  const int64_t row = mg_row_length(tensor);
  return row >= MG_TILE ? row : MG_TILE / row * row;
}
/* Of the longest chunk of all tensors. */
int64_t mg_chunk_capacity(const mg_tensor_table *table);

/* ---- formulas (formula.c and the families of methods) ---- */

typedef struct mg_pass_recipe mg_pass_recipe;
typedef struct mg_combining mg_combining;

/* Inner products over one tensor, or a part of it. */
typedef struct mg_geometry {
  size_t n;
  double elements;
  const double *gram, *base_dot; /* [n, n] <tau_i, tau_j>, [n] <theta_0, tau_i> */
  double base_norm2;             /* <theta_0, theta_0> */
} mg_geometry;

/* <theta_i, theta_j> */
static inline double mg_theta_dot(const mg_geometry *g, size_t i, size_t j) {
  return g->base_norm2 + g->base_dot[i] + g->base_dot[j] + g->gram[i * g->n + j];
}

/* A result base theta_0 + sum tau_i tau_i; base comes as 1. */
typedef struct mg_coefficients {
  double *tau, base;
} mg_coefficients;

typedef mg_status (*mg_coefficients_fn)(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
/* What a method has to know of a tensor besides what mg_prepare finds. */
typedef mg_status (*mg_prepare_fn)(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
/* What becomes of a tile: c->sum. */
typedef void (*mg_combine_fn)(mg_combining *c);
/* Elected signs of a tile, +1 and −1, added to totals: of each election that a method holds. */
typedef void (*mg_count_signs_fn)(mg_combining *c, int64_t totals[2]);

typedef enum mg_drop { MG_DROP_NONE, MG_DROP_EVENLY, MG_DROP_BY_RANK } mg_drop;
typedef enum mg_keep { MG_KEEP_ALL, MG_KEEP_LARGEST, MG_KEEP_ABOVE } mg_keep;
typedef enum mg_rescale { MG_RESCALE_INVERSE, MG_RESCALE_L1, MG_RESCALE_NONE } mg_rescale;

/* How a method's formula is made of parts: which elements of each task vector count, and what becomes of them. */
typedef struct mg_formula {
  /* at random, before all else */
  mg_drop drop;
  double drop_density, drop_spread; /* probability to stay; how much more or less by rank */
  bool linear_layers;               /* only their matrices lose elements */
  mg_rescale rescale;
  /* by magnitude */
  mg_keep keep;
  bool global_trim;
  double density, mask_rate; /* share of the largest that stay; or, where above 0, of the smallest that do not */
  double gamma;              /* share of the largest that are dropped besides */
  double above;              /* of MG_KEEP_ABOVE */
  bool share;                /* wants MG_QUANTITY_GLOBAL_SHARE */
  /* what becomes of them */
  mg_coefficients_fn coefficients; /* weights from the tensor's geometry; NULL: fixed ones */
  bool by_row;                     /* from each row's */
  mg_prepare_fn prepare;           /* NULL: nothing else */
  mg_combine_fn combine;
  mg_elected elected;
  bool equal_votes;
  mg_count_signs_fn count_signs; /* NULL: + where votes cancel */
  double floor;
  bool weighted; /* by the recipe's weights; else 1 each, or 1/n where they are a mean */
  bool mean;
  double lambda;
  /* what it hangs on besides */
  bool ordered, takes_best;    /* which source weighs most; mg_recipe.best */
  bool reads_whole, random;    /* as mg_recipe_reads_whole says; goes by the recipe's seed */
  size_t fewest, most_sources; /* most 0: any number */
} mg_formula;

/* From the recipe's method and its values. */
mg_status mg_formula_of(const mg_recipe *recipe, mg_formula *formula);
/* The formula of a head under MG_HEAD_LINEAR. */
mg_formula mg_formula_of_head(const mg_recipe *recipe);
/* Of methods that compute the same from the same parameters the first one's name. */
const char *mg_canonical_name(const mg_recipe *recipe);
/* A sum with fixed coefficients, whatever it is called. */
bool mg_is_plain_sum(const mg_formula *formula);
/* A parameter; `otherwise` where the method does not have it. */
double mg_value_or(const mg_recipe *recipe, const char *name, double otherwise);
static inline double mg_value(const mg_recipe *recipe, const char *name) { return mg_value_or(recipe, name, 0); }
/* The index of the source of largest weight, of equals the first. */
size_t mg_first_source(const mg_recipe *recipe);

mg_status mg_model_stock(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_directional_consensus(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_fisher_simple(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_multislerp(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_slerp(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_karcher(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);

/* ---- quantities that a recipe asks for (wanted.c) ---- */

typedef enum mg_purpose { MG_FOR_RESCALE, MG_FOR_THRESHOLD, MG_FOR_CEILING, MG_FOR_SHARE } mg_purpose;
typedef mg_status (*mg_want_fn)(void *context, const mg_quantity *quantity, size_t k, mg_purpose purpose);
/* Every one that tensor t asks for, source by source (k), in the order of purposes. */
mg_status mg_each_quantity(const mg_recipe *recipe, const mg_formula *formula, const mg_tensor_table *table, size_t t,
                           mg_want_fn want, void *context);
/* How many of count elements a density keeps: at least one. */
uint64_t mg_kept_of(double density, int64_t count);
/* What a tensor's task vectors are relative to. */
int mg_base_of(const mg_recipe *recipe, const mg_tensor *tensor);
/* Does a trim over all tensors count this one? */
bool mg_is_counted(const mg_recipe *recipe, const mg_tensor *tensor);
/* A matrix of an encoder layer or of a head? */
static inline bool mg_is_linear_layer(const mg_tensor *tensor) {
  return tensor->ndim == 2 && (tensor->layer[0] != '\0' || tensor->source_only);
}
/* How a tensor's elements are dropped at random. */
static inline mg_drop mg_drop_of(const mg_formula *f, const mg_tensor *tensor) {
  return f->linear_layers && !mg_is_linear_layer(tensor) ? MG_DROP_NONE : f->drop;
}

/* ---- a recipe and a tensor (prepare.c) ---- */

/* What a recipe's tiles of one tensor need to know. Arrays are [sources]. */
typedef struct mg_prepared {
  bool ready;
  const mg_formula *formula;
  int base; /* what task vectors are relative to: MG_BASE_FAMILY, a source, MG_BASE_RANDOM */
  mg_drop drop;
  double base_factor, lambda;
  double *weight, *vote, *threshold, *ceiling;
  float *rescale;
  mg_stream *stream;  /* NULL where nothing is random */
  double share;       /* the largest of the sources' shares below the global threshold */
  double *table, cut; /* a family's own */
  atomic_int tie[2];  /* what wins where votes cancel: ±1, 0 not yet known */
} mg_prepared;

struct mg_pass_recipe {
  const mg_recipe *recipe;
  const mg_merge_kernels *kernels;
  mg_formula body, head;
  size_t layers;        /* of the family's encoder */
  mg_prepared *tensors; /* [T] */
  size_t *slot;         /* [sources] number among the pass' sources */
  size_t base_slot;     /* of the source that stands in for theta_0 */
  size_t set;           /* the first recipe of the pass that has the same sources */
  atomic_int tie;       /* of all tensors together, under a global trim */
  char *failure;
  size_t failed_at; /* the first chunk of the run that did, whichever thread was first to find one */
};

/* Body, head and room for tensors; slots are the caller's. */
mg_status mg_pass_recipe_open(const mg_recipe *recipe, const mg_tensor_table *table, mg_pass_recipe *to);
void mg_pass_recipe_close(mg_pass_recipe *recipe, const mg_tensor_table *table);
/* The value, known or computed now. */
mg_status mg_quantity_value(const mg_pass_terms *terms, const char *id, const mg_quantity *quantity, double *value);
/* Fills in `tensors[t]`; not from several threads at once. */
mg_status mg_prepare(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);

/* ---- a tile (tile.c) ---- */

/* Elements of a tile that many sums are made of at a time: they stay in the first cache. */
enum { MG_PIECE = 512 };

/* What a thread computes a tile in; capacity elements, and MG_MERGE_SLACK besides. */
typedef struct mg_tile_scratch {
  float *block, **own; /* [sources] rows that may be written to */
  const float **tau;
  float *base;
  double *sum;
  float *piece; /* [MG_MERGE_MANY, MG_PIECE] */
  uint32_t *words;
  uint64_t *order;
  double *small, *weight; /* [(sources + 4)²], [sources] */
} mg_tile_scratch;
mg_status mg_tile_scratch_create(size_t sources, int64_t capacity, mg_tile_scratch *scratch);
void mg_tile_scratch_free(mg_tile_scratch *scratch);
/* Bytes of it. */
uint64_t mg_tile_scratch_bytes(size_t sources, int64_t capacity);

typedef struct mg_tile {
  size_t t;
  int64_t first, count;    /* whole rows of the tensor */
  const float *const *tau; /* [the recipe's sources] */
  const float *stand_in;   /* the source that stands in for theta_0; NULL */
  const float *base;       /* theta_0 */
} mg_tile;

/* A tile as it is combined: relative to the recipe's base, with what was dropped at random gone. */
struct mg_combining {
  const mg_pass_recipe *pass;
  const mg_recipe *recipe;
  const mg_prepared *prepared;
  const mg_tensor *tensor;
  const mg_tile_scratch *scratch;
  mg_merge_rows rows;
  int64_t first;
  const float *base; /* theta_0 */
  double *sum;
  int tie[2];     /* what wins where votes cancel: ±1, 0 not yet known; of each election that a method holds */
  bool undecided; /* they did, and it was not */
};

/* Everything up to combining it. */
mg_combining mg_ready_tile(const mg_pass_recipe *recipe, const mg_tensor_table *table, const mg_tile *tile,
                           const mg_tile_scratch *scratch);
/* One recipe's elements; *finite: are all? *undecided: mg_find_ties has to be asked, and the tile merged again. */
void mg_merge_tile(const mg_pass_recipe *recipe, const mg_tensor_table *table, const mg_tile *tile,
                   const mg_tile_scratch *scratch, float *out, bool *finite, bool *undecided);
/* Is the tensor a sum of the sources' rows as they are, each with a weight? */
bool mg_is_sum_of_rows(const mg_pass_recipe *recipe, size_t t);
/* Recipes that are, of the same sources: the bits of mg_merge_tile. */
void mg_merge_sums(mg_pass_recipe *const *recipes, size_t count, const mg_tile *tile, const mg_tile_scratch *scratch,
                   bool stream, float *const *out, bool *finite);
void mg_combine_sum(mg_combining *c);
void mg_combine_between(mg_combining *c);
void mg_combine_by_row(mg_combining *c);
void mg_combine_elect(mg_combining *c);
void mg_combine_largest(mg_combining *c);
void mg_combine_active(mg_combining *c);
void mg_count_elected(mg_combining *c, int64_t totals[2]);
/* What wins in an election of the tile where votes cancel; notes it where that is not known. */
double mg_tie_of(const mg_combining *c, int election);
void mg_note_undecided(mg_combining *c, int election, bool cancelled);
/* The last of the 2^32 words that keeps an element. */
uint32_t mg_last_kept(double density);
/* The stream of what is random about a source's tensor. */
mg_stream mg_stream_of_tensor(uint64_t seed, const char *id, const char *tensor);

/* ---- whole tensors (whole.c) ---- */

typedef void (*mg_visit_fn)(void *context, mg_combining *tile);
/* Every tile of a tensor that mg_prepare has come as far with as needed, read for this recipe alone. */
mg_status mg_each_tile(const mg_pass_terms *terms, const mg_pass_recipe *recipe, size_t t, mg_visit_fn visit, void *context);
/* Finds out what wins where votes cancel: the sign of most elements of the tensor, or of all under a global trim. */
mg_status mg_find_ties(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);

/* ---- order statistics (census.c): magnitudes order as the bits of non-negative floats do ---- */

typedef struct mg_census {
  size_t count;
  uint64_t *left;        /* [count] ranks; within their bins after the first turn */
  uint32_t *own;         /* [count] their bins */
  uint64_t *bins;        /* of the upper 16 bits; then of the lower ones, for each bin that is looked into */
  size_t looked;         /* into; 0: first turn */
  uint32_t lowest, span; /* bits of the magnitudes in the bins looked into and between: lowest … lowest + span */
  int32_t *index_of;
} mg_census;
/* For the ranks[k]-th largest magnitudes. All values have to be added, turned to the next turn, and added once more. */
mg_status mg_census_begin(const uint64_t *ranks, size_t count, mg_census *census);
void mg_census_add(mg_census *census, const float *values, int64_t count);
/* Counts made elsewhere: of the first turn (bin 0), or within a bin that is looked into. */
void mg_census_add_counts(mg_census *census, size_t bin, const uint64_t *counts, size_t count);
mg_status mg_census_turn(mg_census *census);
void mg_census_values(const mg_census *census, double *values);
void mg_census_free(mg_census *census);

/* ---- L1 norms (l1.c) ---- */

/* By exponents. Zero-initialise. */
typedef struct mg_l1 {
  uint64_t bins[MG_L1_BINS];
} mg_l1;
void mg_l1_add(mg_l1 *norm, const float *values, int64_t count);
/* What was added up elsewhere. [MG_L1_BINS] */
void mg_l1_add_counts(mg_l1 *norm, const uint64_t *bins);
double mg_l1_value(const mg_l1 *norm);

/* ---- families of methods ---- */

/* layers.c */
size_t mg_layer_count(const mg_tensor_table *table);
mg_status mg_check_layers(const mg_pass_recipe *recipe);
mg_status mg_layer_swap(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
mg_status mg_exclude_layers(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
mg_status mg_include_layers(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
/* della.c: drops the elements of whole rows by their ranks. order: scratch [row]; words [count]. */
void mg_keep_by_rank(float *delta, int64_t first, int64_t count, int64_t row, const mg_stream *stream,
                     const mg_formula *formula, float scale, uint32_t *words, uint64_t *order);
/* The probability that a row's smallest element stays, and how much more each next one has. */
void mg_rank_chances(const mg_formula *formula, int64_t row, double *least, double *rise);
mg_status mg_check_della(const mg_formula *formula);
/* neuro.c */
mg_status mg_prepare_neuro(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
void mg_combine_neuro(mg_combining *c);
void mg_count_neuro(mg_combining *c, int64_t totals[2]);
/* sce.c: SCE, and RAM+ */
mg_status mg_sce_weights(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_prepare_sce(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
void mg_combine_sce(mg_combining *c);
mg_status mg_prepare_ramplus(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
/* two_models.c */
mg_status mg_nuslerp(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_prepare_columns(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
void mg_combine_columns(mg_combining *c);
void mg_combine_near(mg_combining *c);
mg_status mg_prepare_fusion(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
void mg_combine_fusion(mg_combining *c);

#endif
