#ifndef MERGEGRID_TILING_H
#define MERGEGRID_TILING_H

/** How tensors are cut into pieces, everywhere the same. */

enum {
  MG_LANES = 16,    /**< virtual fp32 lanes of an inner product */
  MG_RUN = 1024,    /**< elements summed in fp32 (MG_RUN / MG_LANES steps a lane) before the lanes go to fp64 */
  MG_LINK = 32,     /**< elements of a link of rows in chains: two chains of fused multiply-adds, which are then added up */
  MG_TILE = 8192,   /**< most elements of a tile: a multiple of MG_RUN; a multiple of MG_TILE is a leaf */
  MG_LEAF = 65536,  /**< elements of a leaf of the summation tree and of a checksummed block of a shard */
  MG_ROW_ALIGN = 64 /**< bytes: alignment of every row of a tile */
};

#endif
