/* Walks the rows in chains, in groups of 16, slab by slab; what an instruction set does is in its mg_chains. */

#include <string.h>

#include "kernels_impl.h"

/* Groups of one tile's rows. */
typedef struct side {
  const mg_tile *tile;
  int rows, groups;
  char *panels;
} side;

/* A block of pairs while a tile is multiplied, in scratch. */
typedef struct work {
  const mg_chains *chains;
  mg_chain_block *blocks;
  size_t count;
  float *sum;    /* [count][MG_CHAIN_PAIRS], of the run */
  double *total; /* the pairs' accumulator 0 */
  const char **page;
} work;

static int groups_of(int rows) { return (rows + MG_CHAIN_ROWS - 1) / MG_CHAIN_ROWS; }

/* Panels, then totals, sums and blocks of as many pairs of groups as there may be, then pages to fetch. */
size_t mg_chain_scratch_bytes(int rows) {
  const size_t groups = (size_t)groups_of(rows) + 1; /* two sides may have a group each that is not full */
  const size_t blocks = groups * (groups + 1) / 2;
  return groups * MG_PANEL + blocks * (MG_CHAIN_PAIRS * (sizeof(double) + sizeof(float)) + sizeof(mg_chain_block)) +
         ((size_t)rows + 1) * sizeof(char *);
}

static work work_in(const mg_chains *chains, void *scratch, int groups, size_t count) {
  work w = {.chains = chains, .count = count};
  w.total = (double *)(void *)((char *)scratch + (size_t)groups * MG_PANEL);
  w.sum = (float *)(void *)(w.total + count * MG_CHAIN_PAIRS);
  w.blocks = (mg_chain_block *)(void *)(w.sum + count * MG_CHAIN_PAIRS);
  w.page = (const char **)(void *)(w.blocks + count);
  memset(w.total, 0, count * MG_CHAIN_PAIRS * (sizeof(double) + sizeof(float)));
  return w;
}

static void name_block(work *w, size_t k, const side *x, int i, const side *y, int j) {
  w->blocks[k] = (mg_chain_block){
      .x = x->panels + (size_t)i * MG_PANEL, .y = y->panels + (size_t)j * MG_PANEL, .sum = w->sum + k * MG_CHAIN_PAIRS};
}

/* The last link of a tile, filled with zeros. */
static void pack_part(const mg_chains *chains, const uint16_t *const *row, int64_t count, void *panel) {
  uint16_t filled[MG_CHAIN_ROWS][MG_SLAB] = {{0}};
  const uint16_t *from[MG_CHAIN_ROWS];
  for (int k = 0; k < MG_CHAIN_ROWS; k++) {
    memcpy(filled[k], row[k], (size_t)count * sizeof(uint16_t));
    from[k] = filled[k];
  }
  chains->pack(from, mg_links(count), panel);
}

static void pack_side(const mg_chains *chains, const side *s, int64_t first, int64_t count) {
  static const uint16_t zeros[MG_SLAB];
  const uint16_t *row[MG_CHAIN_ROWS];
  for (int group = 0; group < s->groups; group++) {
    for (int k = 0; k < MG_CHAIN_ROWS; k++) {
      const int from = group * MG_CHAIN_ROWS + k;
      row[k] = from < s->rows ? (const uint16_t *)s->tile->row[from] + first : zeros;
    }
    if (count % MG_LINK == 0)
      chains->pack(row, (int)(count / MG_LINK), s->panels + (size_t)group * MG_PANEL);
    else
      pack_part(chains, row, count, s->panels + (size_t)group * MG_PANEL);
  }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A page is two runs: half of the rows have their turn now, half at the next run, so that as much comes from memory in each. */
static int next_pages(const side *s, int64_t run, const char **page) {
  int count = 0;
  for (int k = (int)(run / MG_RUN % 2); k < s->rows; k += 2)
    page[count++] = (const char *)((const uint16_t *)s->tile->row[k] + run + MG_RUN);
  return count;
}

static mg_fetching fetching_of(const work *w, const side *x, const side *other, int64_t run, int64_t end) {
  mg_fetching f = {.page = w->page, .pages = next_pages(x, run, w->page), .each = 1};
  if (other != NULL) f.pages += next_pages(other, run, w->page + f.pages);
  if (f.pages % 2 != 0) {
    w->page[f.pages] = w->page[f.pages - 1];
    f.pages++;
  }
  const int64_t lines = f.pages / 2 * (int64_t)(MG_FETCH / MG_LINE), turns = (int64_t)w->count * mg_links(end - run);
  while (f.each * turns < lines && f.each < (int)(MG_FETCH / MG_LINE)) f.each *= 2;
  return f;
}

static void multiply_run(const work *w, const side *x, const side *other, int64_t run, int64_t end) {
  mg_fetching fetching = fetching_of(w, x, other, run, end);
  for (int64_t first = run; first < end; first += MG_SLAB) {
    const int64_t now = least(MG_SLAB, end - first);
    const mg_slab slab = {mg_links(now), first == run, first + now == end, &fetching};
    pack_side(w->chains, x, first, now);
    if (other != NULL) pack_side(w->chains, other, first, now);
    w->chains->multiply(w->blocks, w->count, &slab);
  }
  w->chains->collect(w->sum, w->total, w->count * MG_CHAIN_PAIRS);
}

/* other: NULL where x's rows are multiplied with one another. */
static void multiply_all(const work *w, const side *x, const side *other) {
  const int64_t count = x->tile->count;
  if (w->chains->begin != NULL) w->chains->begin();
  for (int64_t run = 0; run < count; run += MG_RUN) multiply_run(w, x, other, run, least(run + MG_RUN, count));
  if (w->chains->end != NULL) w->chains->end();
}

/* Where the caller's accumulators are. */
typedef struct place {
  double *acc;
  int rows, columns;
  int all; /* rows of a triangle of which these are the first ones; 0: a rectangle */
} place;

/* Copies accumulator 0 of rows i0 … and columns j0 … to a block's totals, or back. */
static void move_totals(const place *p, double *total, int i0, int j0, bool back) {
  for (int i = i0; i < i0 + MG_CHAIN_ROWS && i < p->rows; i++)
    for (int j = p->all > 0 && j0 < i ? i : j0; j < j0 + MG_CHAIN_ROWS && j < p->columns; j++) {
      const size_t pair = p->all > 0 ? mg_pair_index(p->all, i, j) : (size_t)i * (size_t)p->columns + (size_t)j;
      double *at = p->acc + MG_ACCUMULATORS * pair, *in = total + (i - i0) * MG_CHAIN_ROWS + j - j0;
      if (back)
        *at = *in;
      else
        *in = *at;
    }
}

static void move_all(const place *p, const work *w, int groups, int other_groups, bool back) {
  size_t k = 0;
  for (int i = 0; i < groups; i++)
    for (int j = p->all > 0 ? i : 0; j < other_groups; j++, k++)
      move_totals(p, w->total + k * MG_CHAIN_PAIRS, i * MG_CHAIN_ROWS, j * MG_CHAIN_ROWS, back);
}

void mg_chain_triangle(const mg_chains *chains, const mg_tile *tile, double *acc, void *scratch) {
  const side x = {tile, tile->chained, groups_of(tile->chained), scratch};
  work w = work_in(chains, scratch, x.groups, mg_pair_count(x.groups));
  const place p = {.acc = acc, .rows = x.rows, .all = tile->rows, .columns = x.rows};
  for (int i = 0; i < x.groups; i++)
    for (int j = i; j < x.groups; j++) name_block(&w, mg_pair_index(x.groups, i, j), &x, i, &x, j);
  move_all(&p, &w, x.groups, x.groups, false);
  multiply_all(&w, &x, NULL);
  move_all(&p, &w, x.groups, x.groups, true);
}

void mg_chain_rectangle(const mg_chains *chains, const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  const side x = {a, a->rows, groups_of(a->rows), scratch};
  const side y = {b, b->rows, groups_of(b->rows), (char *)scratch + (size_t)x.groups * MG_PANEL};
  work w = work_in(chains, scratch, x.groups + y.groups, (size_t)x.groups * (size_t)y.groups);
  const place p = {.acc = acc, .rows = a->rows, .columns = b->rows};
  for (int i = 0; i < x.groups; i++)
    for (int j = 0; j < y.groups; j++) name_block(&w, (size_t)i * (size_t)y.groups + (size_t)j, &x, i, &y, j);
  move_all(&p, &w, x.groups, y.groups, false);
  multiply_all(&w, &x, &y);
  move_all(&p, &w, x.groups, y.groups, true);
}
