#ifndef MERGEGRID_GRAM_H
#define MERGEGRID_GRAM_H

/**
 * The streaming Gram engine: inner products of all pairs of task vectors, per group of tensors, as a fixed summation tree.
 *
 * A *group* is what one Gram is kept for (a tensor, a layer, …). Its leaves are the MG_LEAF-element pieces of its tensors in
 * canonical order; node (level, index) of its tree is the sum of leaves [index · 2^level, (index + 1) · 2^level), formed as
 * left child + right child in fp64, or the left child alone where there is no right one. So any set of aligned nodes, summed by
 * anyone in any order, gives the same bits. Not collective: leasing nodes to ranks is the stage's business.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/config.h"
#include "mergegrid/device.h"
#include "mergegrid/ops.h"
#include "mergegrid/shard.h"
#include "mergegrid/status.h"

/** Sources [row0, row1) × [col0, col1): either the same range (a triangle with the base terms) or disjoint ones (a rectangle).
 */
typedef struct mg_pair_block {
  int row0, row1, col0, col1;
} mg_pair_block;

typedef struct mg_gram_group {
  char *name;      /**< the tensor's, the layer's, or "encoder", "rest" (selected, in no layer), "excluded" */
  char *layer;     /**< "" unless all its tensors are of one layer */
  bool selected;   /**< all its tensors are (a group never mixes selected and excluded ones) */
  size_t *tensors; /**< [tensor_count], canonical order */
  size_t tensor_count;
  int64_t *first_leaf; /**< [tensor_count + 1]: leaves before each of its tensors */
  int64_t leaves;
} mg_gram_group;

/** Everything that fixes the shape of the sums. Derived from the family alone (block_rows changes no bit). */
typedef struct mg_gram_layout {
  const mg_tensor_table *table; /**< borrowed */
  int sources;
  size_t group_count;
  mg_gram_group *groups;
  size_t block_count;
  mg_pair_block *blocks;
} mg_gram_layout;

/** block_rows: sources a side of a pair block (0: all in one). */
mg_status mg_gram_layout_create(const mg_tensor_table *table, const bool *selected, int sources, mg_gram_level level,
                                int block_rows, mg_gram_layout **layout);
void mg_gram_layout_free(mg_gram_layout **layout);

/** A node of one pair block's tree of one group. */
typedef struct mg_gram_node {
  uint32_t block, group;
  uint32_t level;
  uint32_t reserved; /**< 0 */
  int64_t index;
} mg_gram_node;

/** Doubles of a node of this block: mg_pair_count(n + 1) with the base as last row, or rows × cols. */
size_t mg_gram_values(const mg_gram_layout *layout, size_t block);
/** Elements under a node, over all sources of its block (the measure of its work is this × pairs). */
int64_t mg_gram_node_elements(const mg_gram_layout *layout, const mg_gram_node *node);

/** Are the sources' rows in chains (ops.h)? Those of BF16 shards are; what comes from a checkpoint is computed as in F32. */
static inline bool mg_gram_is_chained(const mg_rows *rows) { return mg_rows_dtype(rows) == MG_BF16; }

/** Computes nodes: tiles are read, multiplied and summed by `threads` threads. */
typedef struct mg_gram_engine mg_gram_engine;

typedef struct mg_gram_terms {
  const mg_ops *ops;
  mg_device *device; /**< NULL, or what multiplies the tiles that threads read: to the same bits */
  int threads;
  bool see; /**< look at rows in the page cache where they are there; those pages are the kernel's, and no memory of ours */
  bool allow_nonfinite;
} mg_gram_terms;
/** Borrows all but the terms. */
mg_status mg_gram_engine_create(const mg_gram_layout *layout, mg_rows *rows, const mg_gram_terms *terms,
                                mg_gram_engine **engine);
void mg_gram_engine_destroy(mg_gram_engine **engine);
/** Bytes an engine will hold at most for nodes of up to `level` (plan's prediction); staging as of mg_rows_staging_bytes.
 */
uint64_t mg_gram_engine_bytes(const mg_gram_layout *layout, mg_dtype dtype, int threads, unsigned level, size_t staging);
/** Bytes of the device's memory. */
uint64_t mg_gram_engine_device_bytes(const mg_gram_layout *layout, mg_dtype dtype, int threads, const mg_device *device);

/**
 * values[mg_gram_values] of one node. poll (may be NULL) is called on the calling thread between tiles; a status other than
 * MG_OK abandons the node with it.
 */
mg_status mg_gram_compute(mg_gram_engine *engine, const mg_gram_node *node, double *values, mg_status (*poll)(void *context),
                          void *context);

/** Seconds this engine's threads spent reading and in all, and bytes read. */
typedef struct mg_gram_times {
  double read_seconds, busy_seconds, bytes_read;
} mg_gram_times;
mg_gram_times mg_gram_engine_times(const mg_gram_engine *engine);

/** Where nodes are put together: any order, any aligned sizes, each leaf once. */
typedef struct mg_gram_sum mg_gram_sum;

mg_status mg_gram_sum_create(const mg_gram_layout *layout, mg_gram_sum **sum);
void mg_gram_sum_destroy(mg_gram_sum **sum);
/** Adds a node. MG_ERR_INTERNAL if it is none of the layout or overlaps what is there. */
mg_status mg_gram_sum_add(mg_gram_sum *sum, const mg_gram_node *node, const double *values);
/** Is every leaf under the node there already? Then *covered is true; a part of it: *partly is. */
void mg_gram_sum_covers(const mg_gram_sum *sum, const mg_gram_node *node, bool *covered, bool *partly);
/** Partial sums that are held, now and at most so far, and the memory they take. */
typedef struct mg_gram_held {
  uint64_t parts, bytes, most_parts, most_bytes;
} mg_gram_held;
mg_gram_held mg_gram_sum_held(const mg_gram_sum *sum);
/**
 * The work that is left: nodes of at most `leaves` leaves (a power of two), maximal and aligned, in order of block, group,
 * index. The caller frees *nodes.
 */
mg_status mg_gram_sum_missing(const mg_gram_sum *sum, int64_t leaves, mg_gram_node **nodes, size_t *count);
/** The same of leaves first … end − 1 of the layout's mg_gram_leaves: nodes that reach beyond them are cut. */
mg_status mg_gram_sum_missing_in(const mg_gram_sum *sum, int64_t leaves, int64_t first, int64_t end, mg_gram_node **nodes,
                                 size_t *count);
/** Leaves of all groups of all pair blocks, in order of block, group, index. */
int64_t mg_gram_leaves(const mg_gram_layout *layout);

/** The finished Grams. dot [G][N][N] symmetric, base_dot [G][N] = <θ0, τi>, base_norm2 [G] = <θ0, θ0>. */
typedef struct mg_gram {
  size_t groups;
  size_t sources;
  double *dot, *base_dot, *base_norm2;
} mg_gram;

/** Adds finished Grams to an empty sum: nothing is missing then. MG_ERR_INPUT where they are of another shape. */
mg_status mg_gram_sum_take(mg_gram_sum *sum, const mg_gram *gram);
/** MG_ERR_INTERNAL if anything is missing. Frees the sum's memory as it goes. */
mg_status mg_gram_collect(mg_gram_sum *sum, mg_gram *gram);
void mg_gram_free(mg_gram *gram);

/**
 * Cosines of the selection whose groups `take` returns true for: G = Σ_g dot[g] in order of groups; cos_ij = G_ij / sqrt(G_ii
 * G_jj), clamped to [−1, 1]; exactly 1 on the diagonal; NaN where a norm is 0 (or not finite). cosine is [N][N].
 */
typedef bool (*mg_group_filter)(const mg_gram_group *group, const void *context);
mg_status mg_gram_cosine(const mg_gram_layout *layout, const mg_gram *gram, mg_group_filter take, const void *context,
                         double *cosine);

/** Of the off-diagonal entries that are finite: mean, population standard deviation, minimum, maximum, how many. */
typedef struct mg_matrix_statistics {
  double mean, std, min, max;
  size_t count;
} mg_matrix_statistics;
mg_matrix_statistics mg_matrix_off_diagonal(const double *matrix, size_t n);

#endif
