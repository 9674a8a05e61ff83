#ifndef MERGEGRID_CKA_IMPL_H
#define MERGEGRID_CKA_IMPL_H

#include "mergegrid/cka.h"

/** Gram matrices on a device: two a slot, centred and U-centred. */
typedef struct mg_cka_lane mg_cka_lane;

/** As many slots as there is room for, two at least, one more than `sources` at most. */
mg_status mg_cka_lane_create(mg_device *device, size_t sources, size_t texts, size_t width, mg_cka_lane **lane);
void mg_cka_lane_destroy(mg_cka_lane **lane);
size_t mg_cka_lane_slots(const mg_cka_lane *lane);
/** Fills a slot from features [texts, width] of any host memory. */
mg_status mg_cka_lane_fill(mg_cka_lane *lane, const float *features, size_t slot);
/** Inner products of a slot's matrices with those of slots 0 … count − 1: *centred and *u_centred [count], until the next. */
mg_status mg_cka_lane_multiply(mg_cka_lane *lane, size_t slot, size_t count, const double **centred, const double **u_centred);

#endif
