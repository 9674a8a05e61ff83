#ifndef MERGEGRID_MERGE_DEVICE_H
#define MERGEGRID_MERGE_DEVICE_H

#include "merge_impl.h"
#include "mergegrid/device.h"

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
