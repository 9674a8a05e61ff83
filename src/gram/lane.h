#ifndef MERGEGRID_GRAM_LANE_H
#define MERGEGRID_GRAM_LANE_H

/** Where one thread of the engine has its tiles multiplied by a device. */

#include "mergegrid/device.h"
#include "mergegrid/gram.h"
#include "mergegrid/tiling.h"

typedef struct mg_gram_lane mg_gram_lane;

/** For blocks of up to so many sources (and the base) and values. */
mg_status mg_gram_lane_create(mg_device *device, size_t sources, size_t values, mg_dtype dtype, mg_gram_lane **lane);
void mg_gram_lane_destroy(mg_gram_lane **lane);
/** Bytes of the device's memory. */
uint64_t mg_gram_lane_bytes(const mg_device *device, size_t sources, size_t values, mg_dtype dtype);

/** Where a tile is to be read to: rows `stride` bytes apart, θ0's row behind them. */
typedef struct mg_gram_room {
  char *tile;
  size_t stride;
  float *base;
} mg_gram_room;

/** A leaf: begin; then for each tile room and multiply; then end, which waits. rows: sources and the base. */
mg_status mg_gram_lane_begin(mg_gram_lane *lane, size_t values);
mg_status mg_gram_lane_room(mg_gram_lane *lane, size_t rows, int64_t count, mg_dtype dtype, mg_gram_room *room);
/**
 * left: rows of the left side, all of them for a triangle; the base is no row of a rectangle. chained: how many rows, from the
 * left side's first one on, are in chains. dtype, scale: [rows].
 */
mg_status mg_gram_lane_multiply(mg_gram_lane *lane, const mg_gram_room *room, size_t rows, size_t left, size_t chained,
                                int64_t count, const mg_dtype *dtype, const float *scale);
/** acc [values][MG_ACCUMULATORS] */
mg_status mg_gram_lane_end(mg_gram_lane *lane, size_t values, double *acc);

#endif
