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

enum {
  MG_CHAIN_ROWS = 16, /**< rows of a group in chains: what a matrix unit takes at a time */
  MG_CHAIN_PAIRS = MG_CHAIN_ROWS * MG_CHAIN_ROWS,
  MG_FLUSHING = 0x8040,  /**< of MXCSR: subnormal operands are zeros, subnormal results become zeros */
  MG_SLAB = 2 * MG_LINK, /**< elements of all groups that are packed before they are multiplied: in the first-level cache */
  MG_PANEL = MG_CHAIN_ROWS * MG_SLAB * sizeof(float) /**< bytes of a group's slab, as each instruction set likes it */
};

/** Links of a group's rows side by side. Rows of shards lie at the same places of their pages, and so in the same few places of
    a first-level cache: each is read once, to here. */
typedef struct mg_link_rows {
  _Alignas(64) uint16_t row[MG_CHAIN_ROWS][MG_LINK];
} mg_link_rows;

/** Two groups' slabs, and their pairs' sums of the run so far: sum[i][j] of row i of x and row j of y. */
typedef struct mg_chain_block {
  const void *x, *y;
  float *sum;
} mg_chain_block;

/**
 * What is to come from memory next: pages of rows, some of them in turn, so that the hardware, which follows within each, gets
 * ahead; as many lines as are due whenever there is a moment, of which there are `turns`.
 */
typedef struct mg_fetching {
  const char *const *page;
  int pages, at, line;
  int lines, turns, due;
} mg_fetching;

enum { MG_PAGES_IN_TURN = 8, MG_PACK_TURNS = 4 };

static inline void mg_fetch_some(mg_fetching *f) {
  for (f->due += f->lines; f->due >= f->turns; f->due -= f->turns) {
    if (f->at >= f->pages) return;
    for (int k = 0; k < MG_PAGES_IN_TURN; k++) __builtin_prefetch(f->page[f->at + k] + f->line, 0, 2);
    f->line += MG_LINE;
    if (f->line < (int)MG_FETCH) continue;
    f->line = 0;
    f->at += MG_PAGES_IN_TURN;
  }
}

/** Links, and whether they are the first or the last ones of a run: between them sums need not be in memory. */
typedef struct mg_slab {
  int links;
  bool first, last;
  mg_fetching *fetching; /**< MG_PACK_TURNS times a link that is packed, once a link of a block that is multiplied */
} mg_slab;

/** What an instruction set does for rows in chains; row: of a group. */
typedef struct mg_chains {
  void (*begin)(void), (*end)(void); /**< around the rest, on the same thread; or NULL */
  /** Packs the links of a group's rows, and multiplies these by lanes with floats, unless it is NULL. */
  void (*pack)(const uint16_t *const *row, const mg_slab *slab, const float *floats, float *lanes, void *panel);
  /** sum += the links of each block, in order. */
  void (*multiply)(const mg_chain_block *blocks, size_t count, const mg_slab *slab);
  /** total += sum in fp64, and sum = 0; of `count` pairs. */
  void (*collect)(float *sum, double *total, size_t count);
  /** The lanes of each row go to its accumulators, and are 0. */
  void (*collect_lanes)(float *lanes, double *const *acc);
} mg_chains;

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

/** The pairs of a tile's rows in chains, also with the one row behind them where there is one: acc as of the whole tile. */
void mg_chain_triangle(const mg_chains *chains, const mg_tile *tile, double *acc, void *scratch);
/** All rows of both are in chains. */
void mg_chain_rectangle(const mg_chains *chains, const mg_tile *a, const mg_tile *b, double *acc, void *scratch);

#endif
