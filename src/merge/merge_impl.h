#ifndef MERGEGRID_MERGE_IMPL_H
#define MERGEGRID_MERGE_IMPL_H

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
/* tau of sources [n] into to[k] [count]; theta_0 into base (may be NULL). Any range of a tensor. */
mg_status mg_delta_read(mg_delta_reader *reader, const int *sources, size_t n, size_t t, int64_t first, int64_t count,
                        float *const *to, float *base);
/* theta_0 of a head as MG_HEAD_RANDOM draws it. */
void mg_random_head(const mg_tensor *tensor, uint64_t seed, int64_t first, int64_t count, float *out);

/* Elements of a row: of a tensor's last axis; of what has one axis all. */
static inline int64_t mg_row_length(const mg_tensor *tensor) { return tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 1; }

/* ---- formulas (formula.c, geometry.c) ---- */

/* How a method's formula is made of parts: which elements of each task vector count, and what becomes of them. */
typedef enum mg_keep { MG_KEEP_ALL, MG_KEEP_LARGEST, MG_KEEP_ABOVE, MG_KEEP_RANDOM } mg_keep;
typedef enum mg_combine { MG_COMBINE_SUM, MG_COMBINE_ELECT, MG_COMBINE_LARGEST, MG_COMBINE_ACTIVE } mg_combine;
typedef enum mg_rescale { MG_RESCALE_INVERSE, MG_RESCALE_L1, MG_RESCALE_NONE } mg_rescale;

/* Inner products over one tensor. */
typedef struct mg_geometry {
  size_t n;
  const double *gram, *base_dot; /* [n, n] <tau_i, tau_j>, [n] <theta_0, tau_i> */
  double base_norm2;             /* <theta_0, theta_0> */
} mg_geometry;

/* A result base theta_0 + sum tau_i tau_i; base comes as 1. */
typedef struct mg_coefficients {
  double *tau, base;
} mg_coefficients;

typedef mg_status (*mg_coefficients_fn)(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_model_stock(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_directional_consensus(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_fisher_simple(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_multislerp(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_slerp(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);
mg_status mg_karcher(const mg_geometry *geometry, const mg_recipe *recipe, mg_coefficients *out);

typedef struct mg_formula {
  mg_coefficients_fn coefficients; /* of a sum, from the tensor's geometry; NULL: fixed ones */
  mg_keep keep;
  bool global_trim;
  double density;
  double gamma;   /* share of the largest that MG_KEEP_LARGEST drops besides */
  double epsilon; /* of MG_KEEP_ABOVE */
  mg_rescale rescale;
  mg_combine combine;
  mg_elected elected;
  bool weighted; /* by the recipe's weights; else 1 each, or 1/n where they are a mean */
  bool mean;
  bool random; /* goes by the recipe's seed */
  double lambda;
} mg_formula;

/* From the recipe's method and its values. */
mg_status mg_formula_of(const mg_recipe *recipe, mg_formula *formula);
/* The formula of a head under MG_HEAD_LINEAR. */
mg_formula mg_formula_of_head(const mg_recipe *recipe);
/* How many of count elements a density keeps: at least one. */
uint64_t mg_kept_of(double density, int64_t count);

/* ---- a recipe and a tensor (prepare.c) ---- */

/* What a recipe's tiles of one tensor need to know. Arrays are [sources]. */
typedef struct mg_prepared {
  bool ready;
  const mg_formula *formula;
  int base; /* what task vectors are relative to: MG_BASE_FAMILY, a source, MG_BASE_RANDOM */
  double base_factor;
  double *weight, *threshold, *ceiling;
  float *rescale;
  mg_stream *stream; /* NULL where nothing is random */
} mg_prepared;

typedef struct mg_pass_recipe {
  const mg_recipe *recipe;
  mg_formula body, head;
  mg_prepared *tensors; /* [T] */
  size_t *slot;         /* [sources] number among the pass' sources */
  size_t base_slot;     /* of the source that stands in for theta_0 */
  char *failure;
} mg_pass_recipe;

/* The value, known or computed now. reader: of at least two sources. */
mg_status mg_quantity_value(const mg_pass_terms *terms, const char *id, const mg_quantity *quantity, double *value);
/* The key under which a quantity of source k of a recipe's tensor (−1: of the whole source) is kept. */
mg_quantity mg_quantity_of(const mg_recipe *recipe, const mg_tensor_table *table, mg_quantity_kind kind, size_t k,
                           ptrdiff_t tensor);
/* Fills in `tensors[t]`; not from several threads at once. */
mg_status mg_prepare(const mg_pass_terms *terms, mg_pass_recipe *recipe, size_t t);
void mg_prepared_free(mg_prepared *prepared);

/* ---- a tile (tile.c) ---- */

/* What a thread computes a tile in; capacity elements, and MG_MERGE_SLACK besides. */
typedef struct mg_tile_scratch {
  float **own; /* [sources] rows that may be written to */
  const float **tau;
  float *base;
  double *sum;
  uint32_t *words;
} mg_tile_scratch;

typedef struct mg_tile {
  size_t t;
  int64_t first, count;    /* whole rows of the tensor */
  const float *const *tau; /* [the recipe's sources] */
  const float *stand_in;   /* the source that stands in for theta_0; NULL */
  const float *base;       /* theta_0 */
} mg_tile;

/* One recipe's elements; *finite: are all? */
mg_status mg_merge_tile(const mg_merge_kernels *kernels, const mg_pass_recipe *recipe, const mg_tensor_table *table,
                        const mg_tile *tile, const mg_tile_scratch *scratch, float *out, bool *finite);
/* Zeroes what the stream drops, multiplies the rest. words: scratch [count]. */
void mg_keep_random(float *delta, int64_t first, int64_t count, const mg_stream *stream, double density, float scale,
                    uint32_t *words);
/* The stream of what is random about a source's tensor. */
mg_stream mg_stream_of_tensor(uint64_t seed, const char *id, const char *tensor);

#endif
