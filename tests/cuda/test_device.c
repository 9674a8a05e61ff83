/*
 * What a device does, operation by operation, against the host: bit for bit where the order of operations is defined, else
 * within a tolerance. Fast, since tests/cuda/mutants.py runs it once for every bug that it plants.
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gram/lane.h"
#include "merge/kernels_impl.h"
#include "mergegrid/encoder.h"
#include "mergegrid/ops.h"
#include "on_device.h"
#include "ops/ops_impl.h"

static int open_device(void **state) {
  (void)state;
  device = test_device();
  ops = device->ops;
  return 0;
}

/* ---- memory, queues ---- */

static void test_arena(void **state) {
  (void)state;
  const uint64_t before = ops->room(device);
  char *a = take(1000), *b = take(1 << 20), *c = take(3), *too_much;
  assert_true(a != b && b != c);
  assert_int_equal(ops->take(device, (uint64_t)1 << 40, "an ocean", (void **)&too_much), MG_ERR_NOMEM);
  assert_non_null(strstr(mg_error_message(), "an ocean"));
  ops->give(device, b);
  char *again = take(1 << 20);
  if (getenv("MERGEGRID_DEVICE_ARENA") == NULL) assert_ptr_equal(again, b); /* the gap is used */
  ops->give(device, again);
  char *wider = take(2 << 20); /* not into a gap that is narrower */
  assert_true(wider + (2 << 20) <= a || wider >= a + 1000);
  assert_true(wider + (2 << 20) <= c || wider >= c + 3);
  ops->give(device, a), ops->give(device, wider), ops->give(device, c), ops->give(device, NULL);
  assert_int_equal(ops->room(device), before);
}

/* One of three that share a device takes no more than its part of it. */
static void test_sharing(void **state) {
  (void)state;
  const mg_device_terms terms = {.node_rank = 1, .node_ranks = 3};
  const uint64_t all = UINT64_C(8) << 30; /* the emulated device's */
  mg_device *own = NULL;
  uint64_t got = 0;
  assert_int_equal(mg_device_open(&terms, &own), MG_OK);
  assert_int_equal(own->ops->reserve(own, 1 << 20, all, &got), MG_OK);
  if (getenv("MG_EMU_ORDER") != NULL) assert_true(got <= all / 3 && got > all / 4);
  mg_device_close(&own);
}

/* More than the buffers hold, from memory that changes as soon as the call returns. */
static void test_upload_any(void **state) {
  (void)state;
  const size_t bytes = (20 << 20) + 12345;
  mg_queue *queue;
  unsigned char *host = malloc(bytes), *to = take(bytes), *back = pin(bytes);
  assert_int_equal(ops->open_queue(device, false, &queue), MG_OK);
  for (int round = 0; round < 2; round++) {
    for (size_t k = 0; k < bytes; k++) host[k] = (unsigned char)(k * 7 + k / 4096 + (size_t)round);
    assert_int_equal(ops->upload_any(queue, to, host, bytes), MG_OK);
    memset(host, 0, bytes);
    assert_int_equal(ops->download(queue, back, to, bytes), MG_OK);
    assert_int_equal(ops->finish(queue), MG_OK);
    for (size_t k = 0; k < bytes; k++)
      if (back[k] != (unsigned char)(k * 7 + k / 4096 + (size_t)round)) fail_msg("byte %zu of round %d", k, round);
  }
  ops->close_queue(queue);
  ops->give(device, to), ops->unpin(device, back), free(host);
}

/* One queue writes, the other one reads behind a mark. */
static void test_marks(void **state) {
  (void)state;
  mg_queue *one, *other;
  mg_mark *mark;
  float *host = pin(64), *back = pin(64), *there = take(64);
  assert_int_equal(ops->open_queue(device, false, &one), MG_OK);
  assert_int_equal(ops->open_queue(device, false, &other), MG_OK);
  assert_int_equal(ops->open_mark(device, &mark), MG_OK);
  assert_int_equal(ops->await(mark), MG_OK); /* never set */
  assert_int_equal(ops->after(other, mark), MG_OK);
  for (int k = 0; k < 16; k++) host[k] = (float)k;
  assert_int_equal(ops->upload(one, there, host, 64), MG_OK);
  assert_int_equal(ops->mark(one, mark), MG_OK);
  assert_int_equal(ops->after(other, mark), MG_OK);
  assert_int_equal(ops->download(other, back, there, 64), MG_OK);
  assert_int_equal(ops->finish(other), MG_OK);
  for (int k = 0; k < 16; k++) assert_true(back[k] == (float)k);
  ops->close_mark(mark), ops->close_queue(one), ops->close_queue(other);
  ops->unpin(device, host), ops->unpin(device, back), ops->give(device, there);
}

/* ---- Grams ---- */

enum { ROWS = 19, MOST_ROWS = 49, TILES = 6 };

static size_t fill_row(void *row, mg_dtype dtype, int64_t count) {
  float *values = malloc((size_t)count * sizeof *values);
  for (int64_t k = 0; k < count; k++) values[k] = random_word() % 9 == 0 ? random_float() * 1e-6f : random_float();
  mg_from_f32(row, values, dtype, (size_t)count, 1);
  if (dtype == MG_F32) memcpy(row, values, (size_t)count * sizeof *values);
  free(values);
  return (size_t)count;
}

/* Products of such elements are subnormal, or what is left of their sums is: some rows are that small, some in places. */
static void make_tiny(uint16_t *row, size_t number, int64_t count) {
  for (int64_t k = 0; k < count; k++) {
    float x;
    mg_to_f32(&x, &row[k], MG_BF16, 1, 1);
    x *= number % 4 == 3 ? 1 : number % 4 == 2 && k / 400 % 2 == 0 ? 0x1p-50f : 0x1p-63f;
    mg_from_f32(&row[k], &x, MG_BF16, 1, 1);
  }
}

/* Rows of a leaf, the base's behind them, through a lane. left: all of them, or those of a rectangle's left side. */
typedef struct leaf {
  size_t rows, left;
  mg_dtype dtype;
  bool chained, tiny;
} leaf;

static void multiply_both_ways(mg_gram_lane *lane, const leaf *l, int64_t count, double *want, void *scratch) {
  mg_gram_room room;
  const void *row[MOST_ROWS];
  mg_dtype of[MOST_ROWS];
  float scale[MOST_ROWS];
  const size_t n = l->rows, left = l->left, sources = n - 1, chained = l->chained ? sources : 0;
  assert_int_equal(mg_gram_lane_room(lane, n, count, l->dtype, &room), MG_OK);
  for (size_t k = 0; k < n; k++) {
    of[k] = k < sources ? l->dtype : MG_F32;
    scale[k] = of[k] == MG_F16 ? ldexpf(1, (int)k % 5 - 2) : 1;
    fill_row(room.tile + k * room.stride, of[k], count);
    if (l->tiny && k < sources) make_tiny((uint16_t *)(void *)(room.tile + k * room.stride), k, count);
    row[k] = room.tile + k * room.stride;
  }
  const mg_tile a = {.rows = (int)left,
                     .count = count,
                     .row = row,
                     .dtype = of,
                     .scale = scale,
                     .chained = (int)(chained < left ? chained : left)};
  const mg_tile b = {.rows = (int)(sources - left),
                     .count = count,
                     .row = row + left,
                     .dtype = of + left,
                     .scale = scale + left,
                     .chained = (int)(chained > left ? chained - left : 0)};
  if (left == n)
    mg_ops_ref.gram_triangle(&a, want, scratch);
  else
    mg_ops_ref.gram_rectangle(&a, &b, want, scratch);
  assert_int_equal(mg_gram_lane_multiply(lane, &room, n, left, chained, count, of, scale), MG_OK);
}

/* A leaf of tiles of odd lengths through a lane, against the reference's accumulators. */
static void check_leaf(const leaf *l, int leaves, int tiles) {
  static const int64_t COUNT[TILES] = {1500, 1, 2048, 1023, 16, 33};
  const size_t n = l->rows, values = l->left == n ? n * (n + 1) / 2 : l->left * (n - 1 - l->left);
  double *want = calloc(values * MG_ACCUMULATORS, sizeof *want), *got = calloc(values * MG_ACCUMULATORS, sizeof *got);
  void *scratch = aligned_alloc(64, (mg_gram_scratch_bytes((int)n) + 63) / 64 * 64);
  mg_gram_lane *lane = NULL;
  assert_int_equal(mg_gram_lane_create(device, n - 1, values, l->dtype, &lane), MG_OK);
  for (int k = 0; k < leaves; k++) {
    memset(want, 0, values * MG_ACCUMULATORS * sizeof *want);
    assert_int_equal(mg_gram_lane_begin(lane, values), MG_OK);
    for (int t = 0; t < tiles; t++) multiply_both_ways(lane, l, COUNT[(t + k) % TILES], want, scratch);
    assert_int_equal(mg_gram_lane_end(lane, values, got), MG_OK);
    for (size_t d = 0; d < values * MG_ACCUMULATORS; d++)
      if (memcmp(&got[d], &want[d], sizeof *got) != 0)
        fail_msg("%zu rows, %zu left, leaf %d, accumulator %zu of %zu: %a, not %a", n, l->left, k, d, values, got[d], want[d]);
  }
  mg_gram_lane_destroy(&lane);
  free(want), free(got), free(scratch);
}

/* Of TF32 every product is off by 2^-10 of its size at most; a tile's sum, in any order, by what fp32 loses: 5000 roundings. */
static void check_products(mg_device *fast, size_t left, double *got) {
  enum { COUNT = 5000, TIMES = 3 };
  const size_t n = ROWS, values = left == n ? n * (n + 1) / 2 : left * (n - 1 - left);
  static float row[ROWS][COUNT];
  double *acc = calloc(values * MG_ACCUMULATORS, sizeof *acc);
  mg_dtype dtype[ROWS];
  float scale[ROWS];
  mg_gram_lane *lane = NULL;
  state_of_random = 1;
  for (size_t k = 0; k < n; k++) fill_row(row[k], dtype[k] = MG_F32, COUNT), scale[k] = 1;
  assert_int_equal(mg_gram_lane_create(fast, n - 1, values, MG_F32, &lane), MG_OK);
  assert_int_equal(mg_gram_lane_begin(lane, values), MG_OK);
  for (int t = 0; t < TIMES; t++) {
    mg_gram_room room;
    assert_int_equal(mg_gram_lane_room(lane, n, COUNT, MG_F32, &room), MG_OK);
    for (size_t k = 0; k < n; k++) memcpy(room.tile + k * room.stride, row[k], sizeof row[k]);
    assert_int_equal(mg_gram_lane_multiply(lane, &room, n, left, 0, COUNT, dtype, scale), MG_OK);
  }
  assert_int_equal(mg_gram_lane_end(lane, values, acc), MG_OK);
  size_t at = 0, exact = 0;
  const double bound = fast->tf32 ? 0x1p-10 + 0x1p-12 : COUNT * 0x1p-24;
  for (size_t i = 0; i < left; i++)
    for (size_t j = left == n ? i : left; j < (left == n ? n : n - 1); j++, at++) {
      double want = 0, size = 0;
      got[at] = 0;
      for (size_t k = 0; k < COUNT; k++) want += (double)row[i][k] * row[j][k], size += fabs((double)row[i][k] * row[j][k]);
      for (size_t k = 0; k < MG_ACCUMULATORS; k++) got[at] += acc[at * MG_ACCUMULATORS + k];
      if (!(fabs(got[at] - TIMES * want) <= TIMES * size * bound)) fail_msg("%zu %zu: %g, not %g", i, j, got[at], TIMES * want);
      exact += fabs(got[at] - TIMES * want) <= TIMES * size * 0x1p-20;
    }
  assert_true(fast->tf32 ? exact < values / 2 : exact == values); /* they are what was asked for */
  mg_gram_lane_destroy(&lane);
  free(acc);
}

static void test_gram_of_products(void **state) {
  (void)state;
  static double first[ROWS * ROWS], again[ROWS * ROWS];
  for (int tf32 = 0; tf32 < 2; tf32++) {
    const mg_device_terms terms = {.node_ranks = 1, .tf32 = tf32, .products = true};
    mg_device *fast = NULL;
    uint64_t got;
    assert_int_equal(mg_device_open(&terms, &fast), MG_OK);
    assert_int_equal(fast->ops->reserve(fast, (uint64_t)64 << 20, (uint64_t)128 << 20, &got), MG_OK);
    for (size_t left = 7; left <= ROWS; left += ROWS - 7) {
      check_products(fast, left, first);
      check_products(fast, left, again);
      assert_memory_equal(first, again, sizeof first);
    }
    mg_device_close(&fast);
  }
}

static void test_gram(void **state) {
  (void)state;
  static const leaf LEAVES[] = {{ROWS, ROWS, MG_F32, false, false},
                                {ROWS, ROWS, MG_F16, false, false},
                                {ROWS, ROWS, MG_BF16, false, false},
                                {ROWS, 7, MG_F32, false, false},
                                {ROWS, 10, MG_F16, false, false}};
  for (size_t k = 0; k < sizeof LEAVES / sizeof *LEAVES; k++) check_leaf(&LEAVES[k], 2, TILES);
}

/* Sources' rows in chains, the base's not: the blocks of pairs that they share come with any number of rows. */
static void test_chains(void **state) {
  (void)state;
  static const leaf LEAVES[] = {{MOST_ROWS, MOST_ROWS, MG_BF16, true, false},
                                {ROWS, 7, MG_BF16, true, false},
                                {ROWS, 10, MG_BF16, true, true},
                                {18, 16, MG_BF16, true, false}};
  for (size_t sources = 1; sources <= 20; sources++) {
    const leaf l = {sources + 1, sources + 1, MG_BF16, true, sources % 2 == 0};
    check_leaf(&l, 2, 2);
  }
  for (size_t k = 0; k < sizeof LEAVES / sizeof *LEAVES; k++) check_leaf(&LEAVES[k], 1, TILES);
}

/* Three elements each of two chained rows, `at` apart. */
typedef struct chain_case {
  int at;
  float x[3], y[3];
  double sum;
} chain_case;

static void check_chain(const chain_case *c) {
  enum { SOURCES_OF_TWO = 2, VALUES = 6, COUNT = 1024 };
  static const mg_dtype DTYPE[] = {MG_BF16, MG_BF16, MG_F32};
  static const float SCALE[] = {1, 1, 1};
  double got[VALUES * MG_ACCUMULATORS];
  mg_gram_lane *lane = NULL;
  mg_gram_room room;
  assert_int_equal(mg_gram_lane_create(device, SOURCES_OF_TWO, VALUES, MG_BF16, &lane), MG_OK);
  assert_int_equal(mg_gram_lane_begin(lane, VALUES), MG_OK);
  assert_int_equal(mg_gram_lane_room(lane, SOURCES_OF_TWO + 1, COUNT, MG_BF16, &room), MG_OK);
  memset(room.tile, 0, SOURCES_OF_TWO * room.stride);
  memset(room.base, 0, COUNT * sizeof *room.base);
  for (int k = 0; k < SOURCES_OF_TWO; k++) {
    uint16_t *row = (uint16_t *)(void *)(room.tile + (size_t)k * room.stride);
    for (int e = 0; e < 3; e++) mg_from_f32(&row[e * c->at], &(k == 0 ? c->x : c->y)[e], MG_BF16, 1, 1);
  }
  assert_int_equal(
      mg_gram_lane_multiply(lane, &room, SOURCES_OF_TWO + 1, SOURCES_OF_TWO + 1, SOURCES_OF_TWO, COUNT, DTYPE, SCALE), MG_OK);
  assert_int_equal(mg_gram_lane_end(lane, VALUES, got), MG_OK);
  if (got[MG_ACCUMULATORS] != c->sum)
    fail_msg("%a %a + %a %a + %a %a, %d apart, is %a, not %a", (double)c->x[0], (double)c->y[0], (double)c->x[1],
             (double)c->y[1], (double)c->x[2], (double)c->y[2], c->at, got[MG_ACCUMULATORS], c->sum);
  mg_gram_lane_destroy(&lane);
}

/* What is subnormal, of chains and of the sums of links; the smallest elements of which nothing can be; and the order. */
static void test_chains_of_tiny_numbers(void **state) {
  (void)state;
  static const chain_case CASES[] = {{2, {0x1p-63f, 0}, {0x1p-63f, 0}, 0x1p-126},
                                     {2, {0x1p-64f, 0}, {0x1p-63f, 0}, 0},
                                     {2, {0x1p-130f, 0}, {0x1p100f, 0}, 0},
                                     {2, {0x1p-64f, 0x1p-64f}, {0x1p-63f, 0x1p-63f}, 0},
                                     {2, {0x1p-63f, 0x1.8p-64f}, {0x1.02p-63f, -0x1p-63f}, 0},
                                     {2, {0x1p-63f, 0x1p-75f}, {0x1p-63f, -0x1p-76f}, 0x1p-126},
                                     {2, {0x1p-63f, 0x1p-75f}, {0x1p-63f, -0x1.02p-76f}, 0},
                                     {1, {0x1.8p-63f, 0x1p-63f}, {0x1p-63f, -0x1p-63f}, 0},
                                     {40, {0x1.8p-63f, 0x1p-63f}, {0x1p-63f, -0x1p-63f}, 0},
                                     {300, {0x1.8p-63f, 0x1p-63f}, {0x1p-63f, -0x1p-63f}, 0},
                                     {2, {0x1.02p-56f, 0x1p-56f}, {0x1.02p-56f, -0x1.04p-56f}, 0x1p-126},
                                     {2, {0x1.02p-57f, 0x1p-56f, 0x1p-57f}, {0x1.02p-56f, -0x1.04p-57f, 0x1p-57f}, 0x1p-114}};
  for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) check_chain(&CASES[k]);
}

/* ---- merges ---- */

enum { SOURCES = 5, ELEMENTS = 9000, OFFSET = 37 };

typedef struct merge_case {
  mg_device_merge_kind kind;
  bool random;
  double base_factor, lambda, tie;
  bool packed, relative; /* to another block */
} merge_case;

/* The host's sums of the same rows. */
static void merge_on_host(const merge_case *c, const float *const *tau, const mg_merge_rows *rows, const float *base,
                          float *out) {
  const mg_merge_kernels *k = &mg_merge_portable;
  double *sum = calloc(ELEMENTS + MG_MERGE_SLACK, sizeof *sum);
  mg_merge_rows r = *rows;
  r.tau = tau;
  switch (c->kind) {
  case MG_DEVICE_SUM:
    k->add_up(&r, sum);
    break;
  case MG_DEVICE_BETWEEN:
    k->add_up_between(&r, sum);
    break;
  case MG_DEVICE_LARGEST:
    k->largest(&r, sum);
    break;
  case MG_DEVICE_ACTIVE:
    k->average_active(&r, sum);
    break;
  case MG_DEVICE_MEAN:
    k->elect(&r, MG_ELECTED_MEAN, sum);
    break;
  case MG_DEVICE_ELECTED_SUM:
    k->elect(&r, MG_ELECTED_SUM, sum);
    break;
  case MG_DEVICE_ELECTED_MAX:
    k->elect(&r, MG_ELECTED_MAX, sum);
    break;
  }
  k->finish(base, sum, c->base_factor, c->lambda, ELEMENTS, out);
  free(sum);
}

/* What kernels are told, one behind the other. */
typedef struct told {
  const float *tau[SOURCES];
  double weight[SOURCES], vote[SOURCES], threshold[SOURCES], ceiling[SOURCES], alone[SOURCES];
  mg_stream stream[SOURCES];
  float rescale[SOURCES];
  mg_device_piece piece[4];
  mg_device_verdict verdict;
} told;

static void check_merge(const merge_case *c) {
  enum { BASE = SOURCES, OTHER, BLOCKS };
  float *tau[BLOCKS], *kept[SOURCES], *there[BLOCKS], *out = take((ELEMENTS + OFFSET) * sizeof(float));
  float *want = calloc(ELEMENTS + MG_MERGE_SLACK, sizeof *want), *got = pin(ELEMENTS * sizeof *got);
  told *host = pin(sizeof *host), *at = take(sizeof *at);
  mg_queue *queue;
  assert_int_equal(ops->open_queue(device, false, &queue), MG_OK);
  for (int s = 0; s < BLOCKS; s++) { /* small multiples of 1/4, so that votes cancel */
    tau[s] = calloc(ELEMENTS + OFFSET + MG_MERGE_SLACK, sizeof(float));
    for (int k = 0; k < ELEMENTS + OFFSET; k++)
      tau[s][k] = k % 3 == 0 ? (float)((int)(random_word() >> 16) % 5 - 2) / 4 : random_float();
    there[s] = take((ELEMENTS + OFFSET) * sizeof(float));
    assert_int_equal(ops->upload_any(queue, there[s], tau[s], (ELEMENTS + OFFSET) * sizeof(float)), MG_OK);
  }
  for (int s = 0; c->relative && s <= BASE; s++) /* what is packed comes so */
    for (int k = 0; k < ELEMENTS + OFFSET; k++) tau[s][k] = s == BASE ? tau[s][k] + tau[OTHER][k] : tau[s][k] - tau[OTHER][k];
  for (int s = 0; c->relative && c->packed && s < SOURCES; s++)
    assert_int_equal(ops->upload_any(queue, there[s], tau[s], (ELEMENTS + OFFSET) * sizeof(float)), MG_OK);
  for (int s = 0; s < SOURCES; s++) {
    host->tau[s] = c->packed ? there[s] + OFFSET : there[s]; /* whose pieces are full and in order */
    host->weight[s] = 0.1 + 0.07 * s, host->vote[s] = s == 2 ? 0.5 : 1, host->alone[s] = 1.5 + s;
    host->threshold[s] = 0.2 + 0.01 * s, host->ceiling[s] = s == 1 ? 0.6 : INFINITY;
    host->stream[s] = mg_stream_of(7, (uint64_t)s, 99), host->rescale[s] = 1.25f + (float)s;
    kept[s] = calloc(ELEMENTS + MG_MERGE_SLACK, sizeof(float));
    memcpy(kept[s], tau[s] + OFFSET, ELEMENTS * sizeof(float));
    if (c->random)
      mg_merge_portable.keep_random(&host->stream[s], 1000, ELEMENTS, 0x9FFFFFFFu, host->rescale[s], tau[s] + OFFSET, kept[s]);
  }
  for (uint32_t k = 0; k < 3; k++)
    host->piece[k] = (mg_device_piece){.from = OFFSET + k * MG_PIECE_ELEMENTS,
                                       .to = k * MG_PIECE_ELEMENTS,
                                       .element = 1000 + k * MG_PIECE_ELEMENTS,
                                       .count = k < 2 ? MG_PIECE_ELEMENTS : ELEMENTS - 2 * MG_PIECE_ELEMENTS};
  host->verdict = (mg_device_verdict){.bad = UINT64_MAX};
  assert_int_equal(ops->upload(queue, at, host, sizeof *host), MG_OK);
  const mg_device_merge m = {.kind = c->kind,
                             .sources = SOURCES,
                             .base_factor = c->base_factor,
                             .lambda = c->lambda,
                             .tie = c->tie,
                             .floor = 0.3,
                             .tau = at->tau,
                             .other = c->relative ? there[OTHER] : NULL,
                             .packed = c->packed,
                             .weight = at->weight,
                             .vote = at->vote,
                             .threshold = at->threshold,
                             .ceiling = at->ceiling,
                             .alone = c->kind == MG_DEVICE_ACTIVE && c->tie < 0 ? at->alone : NULL,
                             .stream = c->random ? at->stream : NULL,
                             .rescale = at->rescale,
                             .last_kept = 0x9FFFFFFFu,
                             .base = there[BASE],
                             .out = out,
                             .piece = at->piece,
                             .pieces = 3,
                             .verdict = &at->verdict};
  assert_int_equal(ops->merge(queue, &m), MG_OK);
  const mg_merge_rows rows = {.sources = SOURCES,
                              .count = ELEMENTS,
                              .weight = host->weight,
                              .vote = host->vote,
                              .threshold = host->threshold,
                              .ceiling = host->ceiling,
                              .tie = c->tie,
                              .floor = 0.3,
                              .alone = m.alone != NULL ? host->alone : NULL};
  merge_on_host(c, (const float *const *)kept, &rows, tau[BASE] + OFFSET, want);
  assert_int_equal(ops->download(queue, got, out, ELEMENTS * sizeof *got), MG_OK);
  assert_int_equal(ops->download(queue, &host->verdict, &at->verdict, sizeof host->verdict), MG_OK);
  assert_int_equal(ops->finish(queue), MG_OK);
  for (int k = 0; k < ELEMENTS; k++)
    if (memcmp(&got[k], &want[k], sizeof *got) != 0)
      fail_msg("kind %d, element %d: %a, not %a", (int)c->kind, k, (double)got[k], (double)want[k]);
  assert_true(host->verdict.bad == UINT64_MAX);
  assert_int_equal(host->verdict.cancelled != 0, c->kind >= MG_DEVICE_MEAN);
  ops->close_queue(queue);
  for (int s = 0; s < BLOCKS; s++) ops->give(device, there[s]), free(tau[s]);
  for (int s = 0; s < SOURCES; s++) free(kept[s]);
  ops->give(device, out), ops->give(device, at), ops->unpin(device, got), ops->unpin(device, host), free(want);
}

static void test_merges(void **state) {
  (void)state;
  static const merge_case CASES[] = {{MG_DEVICE_SUM, false, 1, 1, 1, false, false},
                                     {MG_DEVICE_SUM, true, 0.75, 1.5, 1, false, false},
                                     {MG_DEVICE_BETWEEN, false, 1, 0.5, 1, false, false},
                                     {MG_DEVICE_LARGEST, false, 1, 1, 1, false, false},
                                     {MG_DEVICE_ACTIVE, false, 1, 1, 1, false, false},
                                     {MG_DEVICE_ACTIVE, false, 1, 1, -1, false, false},
                                     {MG_DEVICE_MEAN, false, 1, 1, 1, false, false},
                                     {MG_DEVICE_MEAN, true, 1, 1, -1, false, false},
                                     {MG_DEVICE_ELECTED_SUM, false, 1, 2, 1, false, false},
                                     {MG_DEVICE_ELECTED_MAX, false, 1, 1, -1, false, false},
                                     {MG_DEVICE_SUM, false, 1, 1, 1, true, false},
                                     {MG_DEVICE_MEAN, false, 1, 1, 1, true, false},
                                     {MG_DEVICE_SUM, false, 1, 1, 1, false, true},
                                     {MG_DEVICE_MEAN, true, 0.75, 1, 1, false, true},
                                     {MG_DEVICE_SUM, false, 1, 1, 1, true, true}};
  for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) check_merge(&CASES[k]);
}

/* The first element that is not finite is named, wherever others are, and whichever block comes last. */
static void test_not_finite(void **state) {
  (void)state;
  mg_queue *queue;
  float *host = pin(3000 * sizeof *host), *there = take(3000 * sizeof *there), *out = take(3000 * sizeof *out);
  told *what = pin(sizeof *what), *at = take(sizeof *at);
  assert_int_equal(ops->open_queue(device, false, &queue), MG_OK);
  for (int k = 0; k < 3000; k++) host[k] = k == 1234 || k == 2999 ? INFINITY : k == 1999 ? NAN : 1;
  what->tau[0] = there, what->weight[0] = 1;
  what->piece[0] = (mg_device_piece){.element = 50, .count = 1500};
  what->piece[1] = (mg_device_piece){.from = 1500, .to = 1500, .element = 1550, .count = 1500};
  what->verdict = (mg_device_verdict){0};
  assert_int_equal(ops->upload(queue, there, host, 3000 * sizeof *host), MG_OK);
  const mg_device_merge m = {.sources = 1,
                             .base_factor = 1,
                             .lambda = 1,
                             .tau = at->tau,
                             .weight = at->weight,
                             .base = there,
                             .out = out,
                             .piece = at->piece,
                             .pieces = 2,
                             .verdict = &at->verdict};
  for (int round = 0; round < 8; round++) {
    what->verdict.bad = UINT64_MAX;
    assert_int_equal(ops->upload(queue, at, what, sizeof *what), MG_OK);
    assert_int_equal(ops->merge(queue, &m), MG_OK);
    assert_int_equal(ops->download(queue, what, at, sizeof *what), MG_OK);
    assert_int_equal(ops->finish(queue), MG_OK);
    assert_int_equal(what->verdict.bad, 1284);
    assert_int_equal(what->verdict.cancelled, 0);
  }
  ops->close_queue(queue);
  ops->give(device, there), ops->give(device, out), ops->give(device, at), ops->unpin(device, host), ops->unpin(device, what);
}

/* ---- forward passes ---- */

enum { VOCABULARY = 50 };

static bool find_any(void *context, const char *name, int *ndim, int64_t shape[8]) {
  (void)context, (void)name, (void)shape;
  *ndim = 1;
  return true;
}

static mg_status read_any(void *context, const char *name, int64_t first, int64_t count, float *out) {
  uint32_t hash = *(const uint32_t *)context;
  for (const char *c = name; *c != '\0'; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
  for (int64_t k = 0; k < count; k++) {
    const uint32_t x = ((uint32_t)(first + k) * 2654435761u) ^ hash;
    out[k] = (float)((int)((x * 2246822519u) >> 8) % 2001 - 1000) / 4000.0f;
  }
  return MG_OK;
}

typedef struct seen {
  float *values;
  size_t count;
} seen;

static void see(seen *s, const float *values, size_t count) {
  s->values = realloc(s->values, (s->count + count) * sizeof *values);
  memcpy(s->values + s->count, values, count * sizeof *values);
  s->count += count;
}

static mg_status see_states(void *context, size_t text, int layer, int length, const float *states) {
  (void)text, (void)layer;
  see(context, states, (size_t)length * 72);
  return MG_OK;
}

static mg_status see_attention(void *context, size_t text, int layer, int length, int keys, const float *probabilities) {
  (void)text, (void)layer;
  see(context, probabilities, (size_t)3 * (size_t)length * (size_t)keys);
  return MG_OK;
}

typedef struct answers {
  float *logits, *cls, *mean;
  seen seen;
} answers;

static const int LAYERS[] = {0, 1, 2};

static answers forward(mg_device *where, const mg_encoder_shape *shape, const mg_sequences *texts, uint32_t seed, bool visit,
                       int layer_count) {
  int32_t tokens[VOCABULARY];
  mg_encoder *encoder = NULL;
  const size_t n = texts->count, h = (size_t)shape->hidden;
  const mg_weights weights = {.context = &seed, .origin = "a test", .find = find_any, .read = read_any};
  answers a = {.logits = calloc(n, (size_t)shape->classes * sizeof(float)),
               .cls = calloc(n * (size_t)layer_count + 1, h * sizeof(float)),
               .mean = calloc(n * (size_t)layer_count + 1, h * sizeof(float))};
  for (int k = 0; k < VOCABULARY; k++) tokens[k] = k;
  assert_int_equal(mg_encoder_create(shape, tokens, VOCABULARY, 1, where, &encoder), MG_OK);
  assert_int_equal(mg_encoder_load(encoder, &weights), MG_OK);
  const mg_encoder_want want = {.logits = a.logits,
                                .layers = LAYERS,
                                .layer_count = layer_count,
                                .cls = layer_count > 0 ? a.cls : NULL,
                                .mean = layer_count > 0 ? a.mean : NULL,
                                .context = &a.seen,
                                .states = visit ? see_states : NULL,
                                .attention = visit ? see_attention : NULL};
  assert_int_equal(mg_encoder_run(encoder, texts, 0, n, &want), MG_OK);
  assert_int_equal(mg_encoder_run(encoder, texts, 0, visit ? 0 : n, &want), MG_OK); /* again: buffers are in use */
  mg_encoder_destroy(&encoder);
  return a;
}

static void close_to(const char *what, const float *a, const float *b, size_t count) {
  double worst = 0, scale = 0;
  for (size_t k = 0; k < count; k++) {
    if (!isfinite(a[k])) fail_msg("%s: element %zu is not finite", what, k);
    worst = fmax(worst, fabs((double)a[k] - (double)b[k]));
    scale = fmax(scale, fabs((double)b[k]));
  }
  if (worst > 1e-5 * scale) fail_msg("%s: %g off at a scale of %g", what, worst, scale);
}

static void compare(const mg_encoder_shape *shape, const mg_sequences *texts, bool visit, int layer_count) {
  const size_t n = texts->count, h = (size_t)shape->hidden;
  answers host = forward(NULL, shape, texts, 5, visit, layer_count),
          there = forward(device, shape, texts, 5, visit, layer_count);
  close_to("logits", there.logits, host.logits, n * (size_t)shape->classes);
  close_to("<s>", there.cls, host.cls, n * (size_t)layer_count * h);
  close_to("means", there.mean, host.mean, n * (size_t)layer_count * h);
  assert_int_equal(there.seen.count, host.seen.count);
  close_to("what visitors saw", there.seen.values, host.seen.values, host.seen.count);
  free(host.logits), free(host.cls), free(host.mean), free(host.seen.values);
  free(there.logits), free(there.cls), free(there.mean), free(there.seen.values);
}

/* More elements a row than one warp has threads. */
static const mg_encoder_shape SHAPE = {.hidden = 72,
                                       .layers = 2,
                                       .heads = 3,
                                       .intermediate = 81,
                                       .positions = 120,
                                       .vocabulary = VOCABULARY,
                                       .pad = 1,
                                       .classes = 5,
                                       .epsilon = 1e-5f};

/* Texts around the pieces of attention, one of them padded. */
static void test_forward(void **state) {
  (void)state;
  static const int LENGTH[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 100};
  enum { TEXTS = sizeof LENGTH / sizeof *LENGTH };
  int64_t offset[TEXTS + 1] = {0};
  int32_t ids[512], keys[TEXTS];
  for (int t = 0; t < TEXTS; t++) {
    offset[t + 1] = offset[t] + LENGTH[t];
    keys[t] = t == 7 ? 20 : LENGTH[t];
    for (int64_t k = offset[t]; k < offset[t + 1]; k++) ids[k] = (int32_t)(random_word() >> 10) % VOCABULARY;
  }
  mg_sequences texts = {.count = TEXTS, .ids = ids, .offset = offset};
  compare(&SHAPE, &texts, true, 3);
  texts.keys = keys;
  compare(&SHAPE, &texts, true, 0);
  texts.keys = NULL;
  compare(&SHAPE, &texts, false, 0);
}

/* Several batches, so that one is prepared while another is computed. */
static void test_batches(void **state) {
  (void)state;
  enum { TEXTS = 260, LENGTH = 50 };
  static int64_t offset[TEXTS + 1];
  static int32_t ids[TEXTS * LENGTH];
  mg_encoder_shape shape = SHAPE;
  shape.layers = 1;
  for (int t = 0; t < TEXTS; t++) offset[t + 1] = offset[t] + LENGTH;
  for (int k = 0; k < TEXTS * LENGTH; k++) ids[k] = (int32_t)(random_word() >> 10) % VOCABULARY;
  const mg_sequences texts = {.count = TEXTS, .ids = ids, .offset = offset};
  assert_true(mg_batch_end(&texts, 0, MG_DEVICE_BATCH_TOKENS) < TEXTS / 3); /* so there are four */
  compare(&shape, &texts, false, 0);
}

/* Weights written again are weights sent again; those of the device's own block are not written over. */
static void test_blocks(void **state) {
  (void)state;
  int32_t tokens[VOCABULARY], ids[] = {0, 7, 9};
  int64_t offset[] = {0, 3};
  float logits[3][5];
  uint32_t seed = 5;
  mg_queue *queue;
  mg_encoder *encoder = NULL;
  const mg_sequences texts = {.count = 1, .ids = ids, .offset = offset};
  const mg_weights weights = {.context = &seed, .origin = "a test", .find = find_any, .read = read_any};
  for (int k = 0; k < VOCABULARY; k++) tokens[k] = k;
  assert_int_equal(mg_encoder_create(&SHAPE, tokens, VOCABULARY, 1, device, &encoder), MG_OK);
  assert_int_equal(mg_encoder_hold(encoder, 2), MG_OK);
  for (int round = 0; round < 3; round++, seed = 6) {
    const mg_encoder_want want = {.logits = logits[round]};
    if (round < 2) assert_int_equal(mg_encoder_load(encoder, &weights), MG_OK);
    if (round == 2) { /* the device's block of the other model is a copy of this one's */
      const size_t bytes = mg_encoder_block_floats(&SHAPE, VOCABULARY) * sizeof(float);
      float *mine = mg_encoder_block(encoder, 0), *other = mg_encoder_device_block(encoder, 1, &queue);
      assert_int_equal(ops->upload_any(queue, other, mine, bytes), MG_OK);
      mg_encoder_use(encoder, 1);
    }
    assert_int_equal(mg_encoder_run(encoder, &texts, 0, 1, &want), MG_OK);
  }
  assert_true(memcmp(logits[0], logits[1], sizeof logits[0]) != 0);
  assert_memory_equal(logits[1], logits[2], sizeof logits[1]);
  mg_encoder_destroy(&encoder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_arena),      cmocka_unit_test(test_sharing),
                                     cmocka_unit_test(test_upload_any), cmocka_unit_test(test_marks),
                                     cmocka_unit_test(test_gram),       cmocka_unit_test(test_gram_of_products),
                                     cmocka_unit_test(test_chains),     cmocka_unit_test(test_chains_of_tiny_numbers),
                                     cmocka_unit_test(test_merges),     cmocka_unit_test(test_not_finite),
                                     cmocka_unit_test(test_forward),    cmocka_unit_test(test_batches),
                                     cmocka_unit_test(test_blocks)};
  return cmocka_run_group_tests(tests, open_device, NULL);
}
