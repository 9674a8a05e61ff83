#ifndef MERGEGRID_OPS_H
#define MERGEGRID_OPS_H

/**
 * The compute backends behind one constant table of operations. A table starts as `ref` and a backend overwrites what it
 * does better. Not collective; every operation may be called from several threads on different data.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/dtype.h"
#include "mergegrid/status.h"
#include "mergegrid/tiling.h"

enum { MG_ACCUMULATORS = 8 /**< fp64 accumulators a pair */ };

/**
 * A tile: `rows` vectors of `count` elements side by side.
 * row[i] points to count elements of dtype[i] (F32, F16 or BF16), aligned as such; their values are element × scale[i] (a power
 * of two; 1 for F32 and BF16), less those of minus[i], where there are any, in fp32. What lies behind a row may be fetched into
 * the cache, and is not used.
 */
typedef struct mg_tile {
  int rows;
  int64_t count; /**< 1 … MG_TILE */
  const void *const *row;
  const mg_dtype *dtype;
  const float *scale;
  const float *const *minus; /**< [rows], each NULL or count floats; NULL: nothing is taken off any row */
  int chained;               /**< how many rows, from the first one on, are in chains: BF16, and nothing is taken off */
} mg_tile;

/**
 * Inner products of a tile's rows, one defined order of operations on every machine:
 *  - the tile is cut into runs of MG_RUN elements (the last one shorter, filled with zeros to a multiple of MG_LANES);
 *  - within a run lane l (0 … 15) starts at +0 and takes a_l = fma(x[16s+l], y[16s+l], a_l) for s = 0, 1, … in fp32;
 *  - then, in fp64, accumulator d (0 … 7) of the pair takes D_d = D_d + ((double)a_d + (double)a_{d+8}).
 * Two rows in chains are multiplied in the order of the processors' matrix units (TDPBF16PS, Intel 64 and IA-32 Architectures
 * Software Developer's Manual, volume 2), in fp32 that takes subnormal numbers for zeros and makes zeros of them (a result
 * is subnormal if, rounded to 24 digits with no bound on its exponent, it is below 2^-126):
 *  - a run is cut into links of MG_LINK elements (the last one filled with zeros); within a link e and o start at +0 and take
 *    e = fma(x[2k], y[2k], e), o = fma(x[2k+1], y[2k+1], o) for k = 0, 1, …; the run's c, from +0 on, takes c = c + (e + o);
 *  - then, in fp64, accumulator 0 of the pair takes D_0 = D_0 + (double)c.
 * Tiles of a leaf are given in rising order; accumulators run on from tile to tile.
 */
typedef struct mg_ops {
  const char *name;   /**< "ref", "openblas", … */
  const char *kernel; /**< what runs on this machine: "portable", "avx2", "avx512", "amx" */
  /** All pairs i ≤ j of one tile. acc[pair][8], pair = mg_pair_index(rows, i, j). scratch: mg_gram_scratch_bytes(rows). */
  void (*gram_triangle)(const mg_tile *tile, double *acc, void *scratch);
  /** All pairs (i of a, j of b), tiles of equal count: acc[i * b->rows + j][8]. scratch for a->rows + b->rows. */
  void (*gram_rectangle)(const mg_tile *a, const mg_tile *b, double *acc, void *scratch);
} mg_ops;

/** Packed upper triangle, row by row, diagonal included. */
static inline size_t mg_pair_index(int rows, int i, int j) {
  return (size_t)i * (size_t)rows - (size_t)i * (size_t)(i + 1) / 2 + (size_t)j;
}
static inline size_t mg_pair_count(int rows) { return (size_t)rows * (size_t)(rows + 1) / 2; }

/** Bytes of 64-byte aligned scratch for tiles of `rows` rows in all. */
size_t mg_gram_scratch_bytes(int rows);

/**
 * Ends a leaf: sum[p] = ((D0 + D4) + (D2 + D6)) + ((D1 + D5) + (D3 + D7)) for each of `pairs` pairs.
 */
void mg_gram_finish(const double *acc, size_t pairs, double *sum);

/**
 * The table of a backend: "ref" or "openblas"; the latter also for "cuda" and "auto", of what is left to the host (a device is
 * opened by device.h). MG_ERR_CONFIG if it is unknown. The environment variable MERGEGRID_KERNEL (portable, avx2, avx512,
 * amx: avx512, and rows in chains by the matrix unit) forces a kernel; asking for one the processor lacks is an error.
 */
mg_status mg_ops_get(const char *backend, const mg_ops **ops);

/**
 * For main, before anything else. Where OpenBLAS does not know the processor and takes its oldest kernels although the
 * processor runs better ones, has it take those, in place or by starting the program anew (OPENBLAS_CORETYPE, which is left
 * alone where it is set).
 */
void mg_ops_suit_processor(char **argv);

/** "ref openblas (OpenBLAS 0.3.21 …; avx512)": for --version, logs and provenance. buffer of at least 256 characters. */
const char *mg_ops_describe(const mg_ops *ops, char *buffer, size_t size);

#endif
