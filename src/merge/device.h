#ifndef MERGEGRID_MERGE_DEVICE_H
#define MERGEGRID_MERGE_DEVICE_H

#include "merge_impl.h"
#include "mergegrid/device.h"

typedef struct mg_device_counter mg_device_counter;

struct mg_device_store {
  mg_device *device;
  const mg_store *host; /* borrowed: ranges */
  size_t sources, kept;
  float **tau; /* [sources] blocks of the device; NULL: not there */
  float *base;
  char *told; /* what kernels are told: of the device, grown as needed */
  size_t told_room;
  mg_device_verdict *verdicts; /* pinned */
  size_t verdict_room;
  mg_device_counter *counter; /* NULL: nothing has been counted yet */
  float *thinned;             /* pieces that ranks have thinned out; NULL: none were yet */
};

/* ---- order statistics (device_census.c) ---- */

/* Values whose magnitudes are counted. */
typedef struct mg_device_values {
  int source, other; /* relative to that one; −1: as they are */
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

/* ---- dropping by rank (device_thin.c) ---- */

/* *able: there is room for what is thinned out. Takes it the first time. */
mg_status mg_device_thin_begin(mg_device_store *store, bool *able);
/* How many pieces of so many sources are thinned out at once; 0: none of rows of that length. */
uint32_t mg_device_thin_most(size_t sources, int64_t row);
/* Where those of a source begin. */
float *mg_device_thin_place(const mg_device_store *store, size_t sources, size_t s);

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
