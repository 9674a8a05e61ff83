#ifndef MERGEGRID_MERGE_IMPL_H
#define MERGEGRID_MERGE_IMPL_H

#include "mergegrid/dtype.h"
#include "mergegrid/merge.h"
#include "mergegrid/random.h"
#include "mergegrid/tiling.h"

/* Tiles of one source, one after another, as float. */
typedef struct mg_source_reader {
  mg_rows *rows;
  void *tile, *staging;
  float *base, *values;
} mg_source_reader;
mg_status mg_source_reader_create(mg_rows *rows, mg_source_reader *reader);
void mg_source_reader_free(mg_source_reader *reader);
/* Calls visit for all tiles of a tensor; values is [count], scratch of the reader. */
typedef void (*mg_tile_visit)(void *context, const float *values, int64_t first, int64_t count);
mg_status mg_source_reader_tensor(mg_source_reader *reader, int source, size_t t, mg_tile_visit visit, void *context);

/* How a method's formula is made of parts: which elements of each task vector count, and what becomes of them. */
typedef enum mg_keep { MG_KEEP_ALL, MG_KEEP_LARGEST, MG_KEEP_ABOVE, MG_KEEP_RANDOM } mg_keep;
typedef enum mg_combine { MG_COMBINE_SUM, MG_COMBINE_ELECT, MG_COMBINE_LARGEST, MG_COMBINE_ACTIVE } mg_combine;
typedef enum mg_elected { MG_ELECTED_MEAN, MG_ELECTED_SUM, MG_ELECTED_MAX } mg_elected;
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
  double lambda;
} mg_formula;

/* From the recipe's method and its values. */
mg_status mg_formula_of(const mg_recipe *recipe, mg_formula *formula);
/* The formula of a head under MG_HEAD_LINEAR. */
mg_formula mg_formula_of_head(const mg_recipe *recipe);

/* A tile under way: delta [count sources][n elements] is what is kept of the task vectors. */
typedef struct mg_merge_tile {
  size_t sources;
  int64_t count;
  const double *weight; /* [sources] as the formula wants them */
  float *const *delta;
  double *sum, *vote, *share; /* [count] scratch; sum is the result */
} mg_merge_tile;

void mg_combine_tile(const mg_formula *formula, const mg_merge_tile *tile);
/* Zeroes what is smaller than threshold, and what is as large as ceiling. */
void mg_keep_between(float *delta, int64_t count, float threshold, float ceiling);
/* Zeroes what the stream drops, multiplies the rest. words: scratch [count]. */
void mg_keep_random(float *delta, int64_t first, int64_t count, const mg_stream *stream, double density, float scale,
                    uint32_t *words);

#endif
