#ifndef MERGEGRID_MERGE_DEVICE_H
#define MERGEGRID_MERGE_DEVICE_H

#include "merge_impl.h"
#include "mergegrid/device.h"

/* What a device counts and adds up with: one piece of its memory from the first time on, and a pinned buffer. */
typedef struct mg_device_counter {
  char *block;
  uint64_t *bins; /* [MG_MOST_LOOKED, MG_CENSUS_LOWER] */
  int32_t *index; /* [MG_CENSUS_UPPER] */
  void *source;   /* what thinning out is told of a source */
  mg_device_piece *pieces;
  size_t piece_room;
  uint64_t *fetched; /* pinned [MG_CENSUS_LOWER] */
  mg_text told;
  uint64_t elements; /* of the pieces that were told last */
  uint64_t counted;  /* in all */
} mg_device_counter;
enum { MG_MOST_LOOKED = 32 /* bins that a device looks into at once */ };

struct mg_device_store {
  mg_device *device;
  mg_store where; /* ranges of its blocks, no more */
  size_t sources, kept, floats;
  uint64_t spare; /* bytes that are left free */
  float **tau;    /* [sources] blocks of the device; NULL: not there */
  float *base;
  uint64_t merged; /* elements */
  char *told;      /* what kernels are told: of the device, grown as needed */
  size_t told_room;
  mg_device_verdict *verdicts; /* pinned */
  size_t verdict_room;
  mg_device_counter *counter; /* NULL: nothing has been counted yet */
  float *thinned;             /* pieces that ranks have thinned out; NULL: none were yet */
  float *head;                /* a random one, from offset head_first of the blocks on; NULL: none was asked for yet */
  size_t head_first;
  uint64_t head_seed;
  bool head_drawn;
};

/* ---- order statistics (device_census.c) ---- */

/* Values whose magnitudes are counted, or added up. */
typedef struct mg_device_values {
  int source, other; /* relative to that one, or to a random head; MG_BASE_FAMILY: as they are */
  bool thinned;      /* what a stream drops counts as 0 */
  mg_stream stream;
  uint32_t last_kept;
} mg_device_values;
/*
 * Begins a turn of a census. *able: the device holds the sources and has room for the counts, so that it may be asked to count
 * what it has of tensors, whose other elements are the host's; what it has counted is added at the end.
 */
mg_status mg_device_count_begin(mg_device_store *store, mg_queue *queue, const mg_device_values *values,
                                const mg_census *census, bool *able);
mg_status mg_device_count_tensor(mg_device_store *store, mg_queue *queue, const mg_device_values *values,
                                 const mg_census *census, size_t t);
mg_status mg_device_count_end(mg_device_store *store, mg_queue *queue, mg_census *census);
void mg_device_counter_free(mg_device_store *store);
/* *able: the device holds the values' sources, and there is room to count. */
mg_status mg_device_counter_open(mg_device_store *store, const mg_device_values *values, bool *able);
/* Pieces of a tensor, of up to `most` elements, are on their way. */
mg_status mg_device_counter_tell(mg_device_store *store, mg_queue *queue, size_t t, int64_t most, uint32_t *pieces);

/* ---- L1 norms (device_norms.c) ---- */

/* Which part is added up a second time. */
typedef struct mg_device_share {
  mg_device_part part;
  double threshold;
  const mg_formula *formula; /* MG_DEVICE_PART_PACKED: by rank what stays of rows */
  int64_t row;
} mg_device_share;
/* The same three steps. */
mg_status mg_device_norms_begin(mg_device_store *store, mg_queue *queue, const mg_device_values *values,
                                const mg_device_share *share, bool *able);
mg_status mg_device_norms_tensor(mg_device_store *store, mg_queue *queue, const mg_device_values *values,
                                 const mg_device_share *share, size_t t);
mg_status mg_device_norms_end(mg_device_store *store, mg_queue *queue, mg_l1 *all, mg_l1 *part);

/* ---- what stands in for theta_0 (device_head.c) ---- */

/* *able: what random heads of that seed are is there, or on its way. Only one seed's is at a time. */
mg_status mg_device_head_begin(mg_device_store *store, mg_queue *queue, const mg_tensor_table *table, uint64_t seed,
                               bool *able);
/* The block that task vectors are relative to: of a source, or of the random head; NULL under the family's base. */
const float *mg_device_relative(const mg_device_store *store, int other);

/* ---- dropping by rank (device_thin.c) ---- */

/* *able: there is room for what is thinned out. Takes it the first time. */
mg_status mg_device_thin_begin(mg_device_store *store, bool *able);
/* How many pieces of so many sources are thinned out at once; 0: none of rows of that length. */
uint32_t mg_device_thin_most(size_t sources, int64_t row);
/* Where those of a source begin. */
float *mg_device_thin_place(const mg_device_store *store, size_t sources, size_t source);

/* ---- merges (device.c) ---- */

/* The tensors of a pass that its device merges. */
typedef struct mg_device_pass mg_device_pass;

/* Queues them, and notes in taken [recipes, ranges] which those are. *pass: also where that fails. */
mg_status mg_device_pass_begin(const mg_pass_terms *terms, mg_pass_recipe *recipes, const mg_range *ranges, size_t range_count,
                               bool *taken, mg_device_pass **pass);
/* Waits; tells of elements that are not finite. */
typedef void (*mg_device_fail_fn)(void *context, size_t recipe, size_t tensor, int64_t element);
mg_status mg_device_pass_end(mg_device_pass *pass, mg_device_fail_fn fail, void *context);
void mg_device_pass_free(mg_device_pass **pass);

/* Where a store has a range; NULL where it has not. */
const mg_range *mg_store_range(const mg_store *store, size_t t, int64_t first, int64_t count);

#endif
