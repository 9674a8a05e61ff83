#ifndef MERGEGRID_CHAINS_IMPL_H
#define MERGEGRID_CHAINS_IMPL_H

#include "kernels_impl.h"

enum {
  MG_CHAIN_ROWS = 16, /**< rows of a group in chains: what a matrix unit takes at a time */
  MG_CHAIN_PAIRS = MG_CHAIN_ROWS * MG_CHAIN_ROWS,
  MG_FLUSHING = 0x9FC0,  /**< MXCSR: to nearest, no traps; subnormal operands are zeros, subnormal results become zeros */
  MG_SLAB = 2 * MG_LINK, /**< elements of all groups that are packed before they are multiplied: in the first-level cache */
  MG_PANEL = MG_CHAIN_ROWS * MG_SLAB * sizeof(float), /**< bytes of a group's slab, as each instruction set likes it */
  MG_PAGES_IN_TURN = 8,                               /**< see mg_fetching */
  MG_PACK_TURNS = 4
};

/**
 * A link of each of a group's rows, side by side. Rows of shards lie at the same places of their pages, and so meet in the same
 * few places of a first-level cache: each is read once, to here.
 */
typedef struct mg_link_rows {
  _Alignas(64) uint16_t row[MG_CHAIN_ROWS][MG_LINK];
} mg_link_rows;

/** Two groups' slabs, and their pairs' sums of the run so far: sum[i][j] of row i of x and row j of y. */
typedef struct mg_chain_block {
  const void *x, *y;
  int rows; /**< of x, no more than of y, that are there; others' sums may be anything */
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
struct mg_chains {
  void (*begin)(void), (*end)(void); /**< around the rest, on the same thread; or NULL */
  /** Packs the links of a group's rows, which may be fewer, and multiplies these by lanes with floats, unless it is NULL. */
  void (*pack)(const uint16_t *const *row, int rows, const mg_slab *slab, const float *floats, float *lanes, void *panel);
  bool flushing; /**< subnormal numbers have to be switched off for multiply; a matrix unit has none */
  /** sum += the links of each block, in order. */
  void (*multiply)(const mg_chain_block *blocks, size_t count, const mg_slab *slab);
  /** total += sum in fp64, and sum = 0; of `count` pairs. */
  void (*collect)(float *sum, double *total, size_t count);
  /** The lanes of each row go to its accumulators, and are 0. */
  void (*collect_lanes)(float *lanes, int rows, double *const *acc);
};

/** The pairs of a tile's rows in chains, also with the one row behind them where there is one: acc as of the whole tile. */
void mg_chain_triangle(const mg_chains *chains, const mg_tile *tile, double *acc, void *scratch);
/** All rows of both are in chains. */
void mg_chain_rectangle(const mg_chains *chains, const mg_tile *a, const mg_tile *b, double *acc, void *scratch);

#endif
