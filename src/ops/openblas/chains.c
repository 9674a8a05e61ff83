/* Walks the rows in chains, in groups of 16, slab by slab; what an instruction set does is in its mg_chains. */

#include <string.h>

#include "chains_impl.h"

#if MG_HAVE_X86_KERNELS
#include <xmmintrin.h>
#endif

/* Rows of one tile. */
typedef struct side {
  const mg_tile *tile;
  int rows, groups;
  char *panels;
} side;

/* A tile while it is multiplied, in scratch. */
typedef struct work {
  const mg_chains *chains;
  side side[2];
  int sides;              /* 1: the rows of side[0] with one another, */
  int beside;             /* and with this row by lanes; or -1 */
  float *floats;          /* that row's, of a run, filled with zeros */
  float *lanes;           /* [groups][MG_CHAIN_ROWS][MG_LANES] */
  size_t count;           /* blocks of pairs of groups */
  mg_chain_block *blocks; /* [count] */
  double *total;          /* [count][MG_CHAIN_PAIRS]: the pairs' accumulator 0 */
  float *sum;             /* the same, of the run */
  const char **page;      /* to be fetched */
} work;

static size_t groups_of(int rows) { return ((size_t)rows + MG_CHAIN_ROWS - 1) / MG_CHAIN_ROWS; }

/* Pages of half of the rows, of any number of pages in turn. */
static size_t most_pages(int rows) { return (size_t)rows / 2 + 2 + MG_PAGES_IN_TURN; }

size_t mg_chain_scratch_bytes(int rows) {
  const size_t groups = groups_of(rows) + 1; /* two sides may have a group each that is not full */
  const size_t blocks = groups * (groups + 1) / 2;
  return groups * MG_PANEL + MG_RUN * sizeof(float) + groups * MG_CHAIN_ROWS * MG_LANES * sizeof(float) +
         blocks * (MG_CHAIN_PAIRS * (sizeof(double) + sizeof(float)) + sizeof(mg_chain_block)) +
         most_pages(rows) * sizeof(char *);
}

static work prepare(const mg_chains *chains, const side *x, const side *y, void *scratch) {
  const size_t groups = (size_t)(x->groups + (y != NULL ? y->groups : 0));
  const size_t lanes = (size_t)x->groups * MG_CHAIN_ROWS * MG_LANES;
  work w = {.chains = chains, .sides = 1, .beside = -1};
  w.side[0] = *x;
  w.count = y != NULL ? (size_t)x->groups * (size_t)y->groups : mg_pair_count(x->groups);
  w.side[0].panels = scratch;
  if (y != NULL) {
    w.side[w.sides++] = *y;
    w.side[1].panels = (char *)scratch + (size_t)x->groups * MG_PANEL;
  }
  w.total = (double *)(void *)((char *)scratch + groups * MG_PANEL);
  w.sum = (float *)(void *)(w.total + w.count * MG_CHAIN_PAIRS);
  w.lanes = w.sum + w.count * MG_CHAIN_PAIRS;
  memset(scratch, 0, (size_t)((char *)(w.lanes + lanes) - (char *)scratch)); /* rows that are not there are never packed */
  w.floats = w.lanes + lanes;
  w.blocks = (mg_chain_block *)(void *)(w.floats + MG_RUN);
  w.page = (const char **)(void *)(w.blocks + w.count);
  return w;
}

static int rows_of(const side *s, int group) {
  const int left = s->rows - group * MG_CHAIN_ROWS;
  return left < MG_CHAIN_ROWS ? left : MG_CHAIN_ROWS;
}

/* Rows that are not there are best those of a block's x: their products are left out. */
static bool is_turned(const work *w, int i, int j) { return rows_of(&w->side[w->sides - 1], j) < rows_of(&w->side[0], i); }

static void name_block(work *w, size_t k, int i, int j) {
  const side *a = &w->side[0], *b = &w->side[w->sides - 1];
  const char *x = a->panels + (size_t)i * MG_PANEL, *y = b->panels + (size_t)j * MG_PANEL;
  const bool turned = is_turned(w, i, j);
  w->blocks[k] = (mg_chain_block){.x = turned ? y : x,
                                  .y = turned ? x : y,
                                  .rows = turned ? rows_of(b, j) : rows_of(a, i),
                                  .sum = w->sum + k * MG_CHAIN_PAIRS};
}

/* ---- a slab ---- */

/* The first `count` elements of each row, filled with zeros. */
static void fill(const uint16_t **row, int rows, int64_t count, uint16_t filled[MG_CHAIN_ROWS][MG_SLAB]) {
  memset(filled, 0, MG_CHAIN_ROWS * sizeof *filled);
  for (int k = 0; k < rows; k++) {
    memcpy(filled[k], row[k], (size_t)count * sizeof(uint16_t));
    row[k] = filled[k];
  }
}

static void pack_group(const work *w, const side *s, int group, int64_t first, int64_t count, const mg_slab *slab) {
  uint16_t filled[MG_CHAIN_ROWS][MG_SLAB];
  const uint16_t *row[MG_CHAIN_ROWS];
  const int rows = rows_of(s, group);
  const float *floats = w->beside >= 0 ? w->floats + first % MG_RUN : NULL;
  float *lanes = w->lanes + (size_t)group * MG_CHAIN_ROWS * MG_LANES;
  for (int k = 0; k < rows; k++) row[k] = (const uint16_t *)s->tile->row[group * MG_CHAIN_ROWS + k] + first;
  if (count % MG_LINK != 0) fill(row, rows, count, filled);
  w->chains->pack(row, rows, slab, floats, lanes, s->panels + (size_t)group * MG_PANEL);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- a run ---- */

/*
 * A page of 16-bit elements is two runs: half of the rows have their turn now, half at the next run, so that as much comes from
 * memory in each. Behind the tile's last run is either the next tile's first or something that does not matter.
 */
static mg_fetching next_pages(const work *w, int64_t run, int64_t end) {
  int turns = (int)w->count, pages = 0;
  for (int s = 0; s < w->sides; s++) {
    const side *x = &w->side[s];
    turns += x->groups * MG_PACK_TURNS;
    for (int k = (int)(run / MG_RUN % 2); k < x->rows; k += 2)
      w->page[pages++] = (const char *)((const uint16_t *)x->tile->row[k] + run + MG_RUN);
  }
  for (; pages % MG_PAGES_IN_TURN != 0; pages++) w->page[pages] = w->page[pages - 1];
  return (mg_fetching){.page = w->page,
                       .pages = pages,
                       .lines = pages / MG_PAGES_IN_TURN * (int)(MG_FETCH / MG_LINE),
                       .turns = turns * mg_links(end - run)};
}

/* Lanes of the rows with the one beside them to where the caller's accumulators are. */
static void collect_lanes(const work *w, double *acc) {
  double *pair[MG_CHAIN_ROWS];
  const side *x = &w->side[0];
  for (int group = 0; group < x->groups; group++) {
    const int rows = rows_of(x, group);
    for (int k = 0; k < rows; k++)
      pair[k] = acc + MG_ACCUMULATORS * mg_pair_index(x->tile->rows, group * MG_CHAIN_ROWS + k, w->beside);
    w->chains->collect_lanes(w->lanes + (size_t)group * MG_CHAIN_ROWS * MG_LANES, rows, pair);
  }
}

/* What is multiplied is behind a pointer, so that the compiler moves no operation out of where subnormal numbers are zeros. */
static void multiply_slab(const work *w, const mg_slab *slab) {
#if MG_HAVE_X86_KERNELS
  const unsigned control = _mm_getcsr();
  if (w->chains->flushing) _mm_setcsr(MG_FLUSHING);
#endif
  w->chains->multiply(w->blocks, w->count, slab);
#if MG_HAVE_X86_KERNELS
  if (w->chains->flushing) _mm_setcsr(control);
#endif
}

static void multiply_run(const work *w, int64_t run, int64_t end, double *acc) {
  mg_fetching fetching = next_pages(w, run, end);
  if (w->beside >= 0) mg_load_run(w->side[0].tile, w->beside, run, end - run, w->floats);
  for (int64_t first = run; first < end; first += MG_SLAB) {
    const int64_t now = least(MG_SLAB, end - first);
    const mg_slab slab = {mg_links(now), first == run, first + now == end, &fetching};
    for (int s = 0; s < w->sides; s++)
      for (int group = 0; group < w->side[s].groups; group++) pack_group(w, &w->side[s], group, first, now, &slab);
    multiply_slab(w, &slab);
  }
  w->chains->collect(w->sum, w->total, w->count * MG_CHAIN_PAIRS);
  if (w->beside >= 0) collect_lanes(w, acc);
}

/* ---- a tile ---- */

/* Copies accumulator 0 of the pairs of groups i and j to a block's totals, or back. */
static void move_totals(const work *w, double *acc, double *total, int i, int j, bool back) {
  const side *x = &w->side[0], *y = &w->side[w->sides - 1];
  const int i0 = i * MG_CHAIN_ROWS, j0 = j * MG_CHAIN_ROWS;
  const bool turned = is_turned(w, i, j);
  for (int k = 0; k < rows_of(x, i); k++)
    for (int l = w->sides == 1 && i == j ? k : 0; l < rows_of(y, j); l++) {
      const size_t pair =
          w->sides == 1 ? mg_pair_index(x->tile->rows, i0 + k, j0 + l) : (size_t)(i0 + k) * (size_t)y->rows + (size_t)(j0 + l);
      double *at = acc + MG_ACCUMULATORS * pair;
      double *in = total + (turned ? l * MG_CHAIN_ROWS + k : k * MG_CHAIN_ROWS + l);
      if (back)
        *at = *in;
      else
        *in = *at;
    }
}

static void move_all(const work *w, double *acc, bool back) {
  size_t k = 0;
  for (int i = 0; i < w->side[0].groups; i++)
    for (int j = w->sides == 1 ? i : 0; j < w->side[w->sides - 1].groups; j++, k++)
      move_totals(w, acc, w->total + k * MG_CHAIN_PAIRS, i, j, back);
}

static void multiply_all(work *w, double *acc) {
  const int64_t count = w->side[0].tile->count;
  size_t k = 0;
  for (int i = 0; i < w->side[0].groups; i++)
    for (int j = w->sides == 1 ? i : 0; j < w->side[w->sides - 1].groups; j++, k++) name_block(w, k, i, j);
  move_all(w, acc, false);
  if (w->chains->begin != NULL) w->chains->begin();
  for (int64_t run = 0; run < count; run += MG_RUN) multiply_run(w, run, least(run + MG_RUN, count), acc);
  if (w->chains->end != NULL) w->chains->end();
  move_all(w, acc, true);
}

void mg_chain_triangle(const mg_chains *chains, const mg_tile *tile, double *acc, void *scratch) {
  const side x = {.tile = tile, .rows = tile->chained, .groups = (int)groups_of(tile->chained)};
  work w = prepare(chains, &x, NULL, scratch);
  if (tile->rows > tile->chained) w.beside = tile->chained;
  multiply_all(&w, acc);
}

void mg_chain_rectangle(const mg_chains *chains, const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  const side x = {.tile = a, .rows = a->rows, .groups = (int)groups_of(a->rows)};
  const side y = {.tile = b, .rows = b->rows, .groups = (int)groups_of(b->rows)};
  work w = prepare(chains, &x, &y, scratch);
  multiply_all(&w, acc);
}
