#ifndef MERGEGRID_MERGE_H
#define MERGEGRID_MERGE_H

/**
 * Merging: the tensors of one or many recipes, computed in one pass over the tiles of their sources. What a recipe comes to
 * depends on nothing but itself: not on the recipes beside it, threads, tiles, or where the sources are read from. Not
 * collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/device.h"
#include "mergegrid/method.h"
#include "mergegrid/shard.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"

/** What tensors that only the sources have (heads) become: their theta_0 is 0, which few methods mean. */
typedef enum mg_head_policy {
  MG_HEAD_LINEAR, /**< the mean of the heads, weighted where the method is */
  MG_HEAD_METHOD, /**< as every other tensor */
  MG_HEAD_RANDOM  /**< as every other tensor, against a theta_0 drawn as transformers draws a new head (normal, 0.02; biases 0)
                   */
} mg_head_policy;

/** "linear", "method" or "random". */
mg_head_policy mg_head_policy_of(const char *text);

/** All pointers borrowed. */
typedef struct mg_recipe {
  const mg_method *method;
  double values[MG_MOST_PARAMETERS]; /**< of its parameters */
  size_t count;
  const int *source;     /**< [count] rows of the tiles, rising */
  const char *const *id; /**< [count] their names: what is random hangs on name, tensor and element, not on order */
  const double *weight;  /**< [count], positive, sum 1 */
  size_t best;           /**< index of the source that exclude_layers and include_layers take whole layers from */
  int base;              /**< the source that stands in for theta_0, −1: the family's base */
  mg_head_policy head;
  uint64_t seed;
} mg_recipe;

/** Does the method need tensors whole, so that what hangs on all of the recipe's sources is found by reading them? */
bool mg_recipe_reads_whole(const mg_recipe *recipe);
/** Does it ask for quantities of whole tensors or sources (see below)? By method and values alone. */
bool mg_recipe_goes_by_whole(const mg_recipe *recipe);
/**
 * What a recipe computes, whatever its method is called: equal bytes, equal merges. Appended to text. Which sources they are,
 * and which one stands in for theta_0, is the caller's to say.
 */
mg_status mg_recipe_canonical(const mg_recipe *recipe, mg_text *text);

/** Task vectors as merges want them: heads in the family's order of classes. All borrowed; sources numbered as in rows. */
typedef struct mg_deltas {
  mg_rows *rows;
  size_t classes;
  const int32_t *class_of; /**< [sources, classes] the family's class of a source's own; NULL: all as they are */
} mg_deltas;

/** Does a tensor have a row (or an element) a class, so that it is put in the family's order? Only what the base lacks has. */
bool mg_has_row_a_class(const mg_tensor *tensor, size_t classes);

/** Elements first … first + count − 1 of a tensor; offset: where they belong in a block of floats. */
typedef struct mg_range {
  size_t tensor;
  int64_t first, count;
  size_t offset;
} mg_range;

enum { MG_STORE_SLACK = 32 /**< floats that a block of a store is longer than its ranges: they are read along */ };

/** Ranges that are in memory: task vectors of some sources, and theta_0. All borrowed. */
typedef struct mg_store {
  size_t range_count;
  const mg_range *ranges;  /**< by tensor, then first; they do not overlap */
  const float *const *tau; /**< [sources] blocks with MG_STORE_SLACK behind them, NULL: not in memory */
  const float *base;       /**< such a block */
} mg_store;

/** Fills a store's block with a source's task vector, or with theta_0 (MG_ROW_BASE). Rank-local; any number at once. */
mg_status mg_store_fill(const mg_deltas *deltas, int source, const mg_range *ranges, size_t range_count, float *block);

/** A store's blocks on a device, as many as there is room for. */
typedef struct mg_device_store mg_device_store;
/**
 * host: what it has goes up; its ranges and blocks are borrowed, no block need be there. sources: of its rows; floats: of a
 * block. spare: bytes of the device's memory that are left free. The blocks are on their way in the queue.
 */
mg_status mg_device_store_create(mg_device *device, mg_queue *queue, const mg_store *host, size_t sources, size_t floats,
                                 uint64_t spare, mg_device_store **store);
/**
 * A source besides, or theta_0 (MG_ROW_BASE): block, or where that is NULL, read from deltas a piece at a time. *added: it is
 * there, or was; there may be no room. What poll (may be NULL) returns ends it.
 */
mg_status mg_device_store_add(mg_device_store *store, mg_queue *queue, const mg_deltas *deltas, int source, const float *block,
                              mg_status (*poll)(void *context), void *context, bool *added);
/** Nothing of the queue that uses it is under way. */
void mg_device_store_destroy(mg_device_store **store);
/** How many sources it has. */
size_t mg_device_store_sources(const mg_device_store *store);
/** Elements whose magnitudes it has counted for thresholds, or added up. */
uint64_t mg_device_store_counted(const mg_device_store *store);
/** Elements that passes with it have merged on the device. */
uint64_t mg_device_store_merged(const mg_device_store *store);
/** Bytes that counting takes where blocks have so many floats in so many ranges; without them the host counts. */
uint64_t mg_device_count_bytes(uint64_t floats, size_t ranges);
/** Bytes that dropping elements by rank takes; without them the host does it. */
uint64_t mg_device_thin_bytes(void);
/** Bytes that a random head takes; without them the host merges it. */
uint64_t mg_device_head_bytes(const mg_tensor_table *table);

/** Merges go to a device, and those that it can do are done there, to the same bits; all borrowed. */
typedef struct mg_merge_device {
  mg_device_store *store; /**< NULL: all merges are done by the host */
  mg_device *device;
  mg_queue *queue;
  float *const *out; /**< [count] the device's blocks; what mg_pass_run calls out is then the host's room for the rest */
} mg_merge_device;

/** Inner products of all task vectors, tensor by tensor, as the stage compatibility has them; all borrowed. */
typedef struct mg_gram_view {
  size_t sources;
  const double *source_dot, *base_dot, *base_norm2; /**< [T,N,N], [T,N], [T] */
} mg_gram_view;

/* ---- quantities of whole tensors and sources ---- */

typedef enum mg_quantity_kind {
  MG_QUANTITY_RANK,        /**< a: the a-th largest magnitude of a tensor; b > 0: where DARE kept the share b of it */
  MG_QUANTITY_GLOBAL_RANK, /**< of all tensors of the backbone together; with a random head of all */
  MG_QUANTITY_DARE_L1,     /**< a: density; ratio of the L1 norms before and after dropping at random */
  MG_QUANTITY_DELLA_L1,    /**< a: density, b: epsilon; the same of rows dropped by rank */
  MG_QUANTITY_GLOBAL_SHARE /**< a: rank; share of the source's L1 norm below its global magnitude of that rank */
} mg_quantity_kind;

/** What is asked for; compared by bytes. */
typedef struct mg_quantity {
  int32_t kind, source;
  int32_t tensor; /**< −1: of the whole source */
  int32_t base;   /**< −1, the source that stands in for theta_0, or −2: a random head */
  uint64_t seed;
  double a, b;
} mg_quantity;

/** Quantities that are known. Threads may share it. */
typedef struct mg_quantities mg_quantities;
mg_status mg_quantities_create(mg_quantities **quantities);
void mg_quantities_destroy(mg_quantities **quantities);
bool mg_quantities_find(mg_quantities *quantities, const mg_quantity *quantity, double *value);
mg_status mg_quantities_put(mg_quantities *quantities, const mg_quantity *quantity, double value);
/** Quantities in the order they were asked for. Zero-initialise; the caller frees items. */
typedef struct mg_quantity_list {
  mg_quantity *items;
  size_t count, room;
} mg_quantity_list;
/** Appends what the recipe will ask for, without what is in `seen`, and notes it there (with a value of 0). */
mg_status mg_recipe_quantities(const mg_recipe *recipe, const mg_tensor_table *table, mg_quantities *seen,
                               mg_quantity_list *list);
/**
 * Values [count] of quantities of one source, tensor by tensor, each tile read for all of them. id: the source's name. device:
 * NULL, or one whose store (may be NULL) counts and adds up what it holds, to the same values.
 */
mg_status mg_quantities_compute(const mg_deltas *deltas, const mg_merge_device *device, const char *id,
                                const mg_quantity *quantities, size_t count, mg_status (*poll)(void *context), void *context,
                                double *values);

/* ---- the pass ---- */

typedef struct mg_pass mg_pass;

/**
 * Memory for merging `count` recipes at once by `threads` threads. All arguments are borrowed; store and gram may be NULL;
 * quantities that are missing are computed when they are needed, and put there.
 */
typedef struct mg_pass_terms {
  const mg_deltas *deltas;
  const mg_store *store;
  const mg_gram_view *gram;
  mg_quantities *quantities;
  const mg_recipe *recipes;
  size_t count;
  int threads;
  mg_merge_device device; /**< .device NULL: none */
} mg_pass_terms;
mg_status mg_pass_create(const mg_pass_terms *terms, mg_pass **pass);
void mg_pass_destroy(mg_pass **pass);
/** Bytes that a pass of one recipe of `sources` sources takes, over `threads` threads. */
uint64_t mg_pass_bytes(const mg_tensor_table *table, size_t sources, int threads);

/**
 * Merges ranges (whole rows of a tensor each) into out [count] blocks: theta, sums over sources in double in the recipe's
 * order, one rounding. A recipe that fails (a merge that is not finite: names tensor and element) does not end the others: see
 * mg_pass_failure. poll (may be NULL) is called by the calling thread; what it returns ends the pass.
 */
mg_status mg_pass_run(mg_pass *pass, const mg_range *ranges, size_t range_count, float *const *out,
                      mg_status (*poll)(void *context), void *context);
/** Bytes/s (read and written) of one core merging five sources in memory: a sum; a sum of elected signs. Takes milliseconds. */
mg_status mg_merge_rate(double *linear, double *elected);
/** NULL, or why recipe k failed. */
const char *mg_pass_failure(const mg_pass *pass, size_t k);

/* ---- recipes as coefficients ---- */

/** The one recipe of terms (whose gram is needed), tensor by tensor. All arguments are borrowed. */
typedef struct mg_linear mg_linear;
mg_status mg_linear_open(const mg_pass_terms *terms, mg_linear **linear);
void mg_linear_close(mg_linear **linear);
/**
 * *is_linear: is the merged tensor base · θ0 + Σ coefficient[s] τ_s over the rows' sources [N], with inner products that belong
 * to it? Nothing is read. Not where elements are dropped, trimmed or elected, where the head is drawn at random, or where a
 * source has its classes in another order than the family. MG_ERR_INPUT where the merge itself would fail.
 */
mg_status mg_linear_tensor(mg_linear *linear, size_t tensor, double *coefficient, double *base, bool *is_linear);

#endif
