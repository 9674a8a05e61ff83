#ifndef MERGEGRID_KERNELS_IMPL_H
#define MERGEGRID_KERNELS_IMPL_H

#include "ops_impl.h"

enum {
  MG_MOST_COLUMNS = 4,
  MG_MOST_GROUP = 8,
  MG_LINE = 64,                     /* bytes of a cache line */
  MG_FETCH = MG_RUN * sizeof(float) /* bytes of a row that are fetched for its next run, or its next two */
};

/** What a block fetches into the cache beside its work: in turn a line of the one and of the other, after every 16 elements. */
typedef struct mg_ahead {
  const char *at, *other;
} mg_ahead;

/** How a group's rows come to its diagonal. */
typedef enum mg_loading {
  MG_AS_THEY_ARE, /**< aligned floats, which other blocks use where they are */
  MG_FLOATS,      /**< to be stored as aligned floats on the way, for other blocks */
  MG_BFLOATS,
  MG_HALVES,
  MG_FLOATS_LESS, /**< the same, less a row that comes off all of them */
  MG_BFLOATS_LESS,
  MG_HALVES_LESS,
  MG_LOADINGS
} mg_loading;

/** What a loading means: the type of the rows, whether their floats are stored, whether something comes off. */
typedef struct mg_load {
  mg_dtype dtype;
  bool stored, less;
} mg_load;

/** DEFINE(name, a mg_load's fields) for each loading, in order. */
#define MG_EACH_LOADING(DEFINE)                                                                                                \
  DEFINE(as_they_are, MG_F32, false, false)                                                                                    \
  DEFINE(floats, MG_F32, true, false)                                                                                          \
  DEFINE(bfloats, MG_BF16, true, false)                                                                                        \
  DEFINE(halves, MG_F16, true, false)                                                                                          \
  DEFINE(floats_less, MG_F32, true, true)                                                                                      \
  DEFINE(bfloats_less, MG_BF16, true, true)                                                                                    \
  DEFINE(halves_less, MG_F16, true, true)
/** The functions of those names, in order. */
#define MG_ALL_LOADINGS                                                                                                        \
  { as_they_are, floats, bfloats, halves, floats_less, bfloats_less, halves_less }

/** A group's rows from an element on. */
typedef struct mg_group_rows {
  const void *row[MG_MOST_GROUP];
  float scale[MG_MOST_GROUP];
  const float *minus; /**< of the loadings that say so */
  float *out;         /**< aligned; rows of MG_SCRATCH_STRIDE; not of MG_AS_THEY_ARE */
} mg_group_rows;

/** What an instruction set does for rows in chains: chains_impl.h. */
typedef struct mg_chains mg_chains;

/**
 * The micro-kernels of an instruction set, each over one run of steps × 16 elements. acc[p] points to the MG_ACCUMULATORS
 * doubles of pair p.
 */
typedef struct mg_kernels {
  int group, columns; /**< rows and columns of a block */
  /** `group` rows against each other, pairs as mg_pair_index. */
  void (*diagonal[MG_LOADINGS])(const mg_group_rows *rows, int steps, double *const *acc);
  /** `group` rows x against n columns y. before[n]: acc[j] is the pair of row 0 and column j, further rows follow it. */
  void (*before[MG_MOST_COLUMNS + 1])(const float *const *x, const float *const *y, int steps, double *const *acc,
                                      mg_ahead ahead);
  /** The same; behind[n]: acc[i] is the pair of row i and column 0, further columns follow it. */
  void (*behind[MG_MOST_COLUMNS + 1])(const float *const *x, const float *const *y, int steps, double *const *acc,
                                      mg_ahead ahead);
  const mg_chains *chains;
} mg_kernels;

extern const mg_chains mg_chains_avx2, mg_chains_avx512, mg_chains_amx;

void mg_drive_triangle(const mg_kernels *kernels, const mg_tile *tile, double *acc, void *scratch);
void mg_drive_rectangle(const mg_kernels *kernels, const mg_tile *a, const mg_tile *b, double *acc, void *scratch);

#endif
