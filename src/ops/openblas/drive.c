/* Walks a tile run by run and block by block; what an instruction set does is in its micro-kernels. */

#include <string.h>

#include "chains_impl.h"

/* One run of a tile: where the floats of each row are. */
typedef struct run {
  const mg_kernels *kernels;
  const mg_tile *tile;
  int64_t first;
  int steps;
  bool whole; /* its elements fill whole steps; else every row goes through scratch, filled with zeros */
  void *scratch;
  int scratch_first; /* scratch row of the tile's row 0 */
  int fetched;       /* blocks of which each has fetched half of two rows of the next run */
  float *zeros;      /* a row of zeros, for groups that are not full */
  const float **at;  /* the floats of each row once it has been loaded; behind them zeros, up to whole groups */
  double *spare;     /* accumulators of the pairs that do not exist */
} run;

static size_t size_of(const run *r, int k) { return r->tile->dtype[k] == MG_F32 ? sizeof(float) : sizeof(uint16_t); }

static const void *raw_row(const run *r, int k) { return (const char *)r->tile->row[k] + (size_t)r->first * size_of(r, k); }

static float *scratch_row(const run *r, int k) { return mg_scratch_row(r->scratch, r->scratch_first + k); }

static const float *minus_row(const run *r, int k) {
  const float *minus = r->tile->minus != NULL ? r->tile->minus[k] : NULL;
  return minus != NULL ? minus + r->first : NULL;
}

/* Can row k be used where it is? Every load of a row that is not aligned would meet two cache lines. */
static bool is_ready(const run *r, int k) {
  return r->whole && r->tile->dtype[k] == MG_F32 && minus_row(r, k) == NULL && (uintptr_t)raw_row(r, k) % MG_ROW_ALIGN == 0;
}

static void load_row(const run *r, int k) {
  const int64_t left = r->tile->count - r->first;
  float *to = scratch_row(r, k);
  if (r->at[k] == to) mg_load_run(r->tile, k, r->first, left < MG_RUN ? left : MG_RUN, to);
}

/* Where row k is in the next run. Of 16-bit rows a page is that and the run behind it: half of the rows have their turn now,
   half at the next run, so that as much comes from memory in each. */
static const char *next_run(const run *r, int k) {
  if (k >= r->tile->rows) return (const char *)r->zeros;
  const size_t size = size_of(r, k);
  if (size < sizeof(float) && (r->first / MG_RUN + k) % 2 != 0) return (const char *)r->zeros;
  return (const char *)r->tile->row[k] + (size_t)(r->first + MG_RUN) * size;
}

/*
 * Rows lie pages apart, where hardware prefetching does not follow, and a run's blocks are about as many as its rows. So each
 * of them fetches half of a page of each of two rows: rows may come from memory (a mapped file) at the rate of arithmetic. Two
 * in turn, so that the hardware, which follows within a page, gets ahead of either: a line that is on its way when it is asked
 * for keeps none of the few buffers busy that all misses of the first-level cache share. Behind the tile's last run is either
 * the next tile's first or something that does not matter.
 */
static mg_ahead fetch_two(run *r) {
  const int k = r->fetched++, first = k / 2 * 2;
  const size_t half = k % 2 != 0 ? MG_FETCH / 2 : 0;
  return (mg_ahead){.at = next_run(r, first) + half, .other = next_run(r, first + 1) + half};
}

static bool has_fetched(const run *r) { return r->fetched >= r->tile->rows + r->tile->rows % 2; }

/* What too few blocks have left. */
static void fetch_others(run *r) {
  while (!has_fetched(r)) {
    const mg_ahead ahead = fetch_two(r);
    for (size_t line = 0; line < MG_FETCH / 2; line += MG_LINE) {
      __builtin_prefetch(ahead.at + line, 0, 2);
      __builtin_prefetch(ahead.other + line, 0, 2);
    }
  }
}

/* Can the group's diagonal load it by itself? Where its rows are all of a kind. */
static bool load_at_once(const run *r, int row, mg_loading *how) {
  const int group = r->kernels->group;
  const mg_dtype dtype = r->tile->dtype[row];
  const float *minus = minus_row(r, row);
  bool ready = true;
  if (!r->whole || row + group > r->tile->rows) return false;
  for (int k = row; k < row + group; k++) {
    if (r->tile->dtype[k] != dtype || minus_row(r, k) != minus) return false;
    ready = ready && r->at[k] != scratch_row(r, k);
  }
  if (ready)
    *how = MG_AS_THEY_ARE;
  else if (minus != NULL)
    *how = dtype == MG_F32 ? MG_FLOATS_LESS : dtype == MG_BF16 ? MG_BFLOATS_LESS : MG_HALVES_LESS;
  else
    *how = dtype == MG_F32 ? MG_FLOATS : dtype == MG_BF16 ? MG_BFLOATS : MG_HALVES;
  return true;
}

/* Rows [row, row + group) against each other. */
static void diagonal_block(const run *r, int row, double *acc) {
  const int group = r->kernels->group, rows = r->tile->rows;
  mg_group_rows from = {.out = scratch_row(r, row)};
  double *pair[MG_MOST_GROUP * (MG_MOST_GROUP + 1) / 2];
  mg_loading how = MG_AS_THEY_ARE;
  const bool at_once = load_at_once(r, row, &how);
  if (at_once) from.minus = minus_row(r, row);
  for (int i = 0; i < group; i++) {
    if (!at_once && row + i < rows) load_row(r, row + i);
    from.row[i] = at_once ? raw_row(r, row + i) : r->at[row + i];
    from.scale[i] = at_once ? r->tile->scale[row + i] : 1;
    for (int j = i; j < group; j++)
      pair[mg_pair_index(group, i, j)] =
          row + j < rows ? acc + MG_ACCUMULATORS * mg_pair_index(rows, row + i, row + j) : r->spare;
  }
  r->kernels->diagonal[how](&from, r->steps, pair);
}

/* Full group [row, row + group) against rows [column, column + n), all before it. */
static void block_before(run *r, int row, int column, int n, double *acc) {
  double *pair[MG_MOST_COLUMNS];
  for (int j = 0; j < n; j++) pair[j] = acc + MG_ACCUMULATORS * mg_pair_index(r->tile->rows, column + j, row);
  r->kernels->before[n](r->at + row, r->at + column, r->steps, pair, fetch_two(r));
}

/* Full group [row, row + group) against rows [column, column + n), all behind it. */
static void block_behind(run *r, int row, int column, int n, double *acc) {
  double *pair[MG_MOST_GROUP];
  for (int i = 0; i < r->kernels->group; i++) pair[i] = acc + MG_ACCUMULATORS * mg_pair_index(r->tile->rows, row + i, column);
  r->kernels->behind[n](r->at + row, r->at + column, r->steps, pair, fetch_two(r));
}

static void begin_run(run *r, int64_t first) {
  const int64_t left = r->tile->count - first, count = left < MG_RUN ? left : MG_RUN;
  r->first = first;
  r->fetched = 0;
  r->steps = mg_padded(count) / MG_LANES;
  r->whole = count % MG_LANES == 0;
  for (int k = 0; k < r->tile->rows; k++) r->at[k] = is_ready(r, k) ? raw_row(r, k) : scratch_row(r, k);
  for (int k = r->tile->rows; k < r->tile->rows + MG_MOST_GROUP; k++) r->at[k] = r->zeros;
}

/* Every pair of the run among full groups. A group follows its own conversion, and meets the rows just used first: cached. */
static int whole_groups(run *r, double *acc) {
  const int group = r->kernels->group, columns = r->kernels->columns;
  int row = 0;
  for (; row + group <= r->tile->rows; row += group) {
    diagonal_block(r, row, acc);
    for (int end = row; end > 0; end -= columns) {
      const int n = end < columns ? end : columns;
      block_before(r, row, end - n, n, acc);
    }
  }
  return row;
}

/* The pairs of the rows [first, rows), too few for a group. */
static void last_rows(run *r, int first, double *acc) {
  const int columns = r->kernels->columns, rows = r->tile->rows;
  if (first == rows) return;
  diagonal_block(r, first, acc);
  for (int row = 0; row < first; row += r->kernels->group)
    for (int column = first; column < rows; column += columns)
      block_behind(r, row, column, rows - column < columns ? rows - column : columns, acc);
}

/* Sources in chains, and θ0 behind them or not: with them by the way, and with itself, which is the tile's last pair. */
static void chained_triangle(const mg_kernels *kernels, const mg_tile *tile, double *acc, void *scratch) {
  const int chained = tile->chained, others = tile->rows - chained;
  if (others > 1) { /* nobody has such tiles */
    mg_gram_triangle_ref(tile, acc, scratch);
    return;
  }
  mg_chain_triangle(kernels->chains, tile, acc, scratch);
  if (others == 0) return;
  const mg_tile last = {.rows = 1,
                        .count = tile->count,
                        .row = tile->row + chained,
                        .dtype = tile->dtype + chained,
                        .scale = tile->scale + chained,
                        .minus = tile->minus != NULL ? tile->minus + chained : NULL};
  mg_drive_triangle(kernels, &last, acc + MG_ACCUMULATORS * mg_pair_index(tile->rows, chained, chained), scratch);
}

void mg_drive_triangle(const mg_kernels *kernels, const mg_tile *tile, double *acc, void *scratch) {
  double spare[MG_ACCUMULATORS] = {0};
  if (tile->chained > 0) {
    chained_triangle(kernels, tile, acc, scratch);
    return;
  }
  run r = {.kernels = kernels,
           .tile = tile,
           .scratch = scratch,
           .zeros = mg_scratch_row(scratch, tile->rows),
           .at = mg_scratch_pointers(scratch, tile->rows),
           .spare = spare};
  memset(r.zeros, 0, MG_RUN * sizeof(float));
  for (int64_t first = 0; first < tile->count; first += MG_RUN) {
    begin_run(&r, first);
    last_rows(&r, whole_groups(&r, acc), acc);
    fetch_others(&r);
  }
}

/* Rows [row, row + group) of a against all of b; rows that are not there are zeros. */
static void blocks_across(run *a, run *b, int row, double *acc) {
  const int group = a->kernels->group, columns = b->tile->rows;
  double *pair[MG_MOST_GROUP];
  for (int column = 0; column < columns; column += a->kernels->columns) {
    const int n = columns - column < a->kernels->columns ? columns - column : a->kernels->columns;
    for (int i = 0; i < group; i++)
      pair[i] =
          row + i < a->tile->rows ? acc + MG_ACCUMULATORS * ((size_t)(row + i) * (size_t)columns + (size_t)column) : a->spare;
    a->kernels->behind[n](a->at + row, b->at + column, a->steps, pair, fetch_two(has_fetched(a) ? b : a));
  }
}

void mg_drive_rectangle(const mg_kernels *kernels, const mg_tile *a, const mg_tile *b, double *acc, void *scratch) {
  double spare[MG_MOST_COLUMNS * MG_ACCUMULATORS] = {0};
  if (a->chained == a->rows && b->chained == b->rows) {
    mg_chain_rectangle(kernels->chains, a, b, acc, scratch);
    return;
  }
  if (a->chained > 0 && b->chained > 0) { /* nobody has such tiles */
    mg_gram_rectangle_ref(a, b, acc, scratch);
    return;
  }
  float *zeros = mg_scratch_row(scratch, a->rows + b->rows);
  const float **at = mg_scratch_pointers(scratch, a->rows + b->rows);
  run left = {.kernels = kernels, .tile = a, .scratch = scratch, .zeros = zeros, .at = at, .spare = spare};
  run right = left;
  right.tile = b;
  right.scratch_first = a->rows;
  right.at = at + a->rows + MG_MOST_GROUP;
  memset(zeros, 0, MG_RUN * sizeof(float));
  for (int64_t first = 0; first < a->count; first += MG_RUN) {
    begin_run(&left, first);
    begin_run(&right, first);
    for (int k = 0; k < a->rows; k++) load_row(&left, k);
    for (int k = 0; k < b->rows; k++) load_row(&right, k);
    for (int row = 0; row < a->rows; row += kernels->group) blocks_across(&left, &right, row, acc);
    fetch_others(&left);
    fetch_others(&right);
  }
}
