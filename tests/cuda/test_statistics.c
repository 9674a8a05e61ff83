/*
 * Order statistics, norms, dropping by rank and CKA on a device against the host: counts, sums and ranks exactly, CKA within
 * rounding and to the same bits for any memory. Fast, since tests/cuda/mutants.py runs it once for every bug that it plants.
 */

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "merge/device.h"
#include "mergegrid/cka.h"
#include "on_device.h"

static mg_queue *queue;

static int open_device(void **state) {
  (void)state;
  device = test_device();
  ops = device->ops;
  return ops->open_queue(device, false, &queue) == MG_OK ? 0 : -1;
}

static int close_device(void **state) {
  (void)state;
  ops->close_queue(queue);
  return 0;
}

/* ---- counting ---- */

enum {
  PIECES = 540,
  FEW = 7,
  LONG = 2,
  SHORT = 5,
  GAP = 3,
  FIRST_ELEMENT = 1000,
  ELEMENTS = LONG * 4096 + PIECES * (SHORT + GAP)
};
static const uint32_t LAST_KEPT = 0xA0000000u;

/* Zeros, equal values, magnitudes of all sizes: subnormal, tiny, usual, huge, infinite; those at the ends of what a block
   counts in shared memory. */
static float value_at(uint32_t k) {
  static const float ODD[] = {0.0f,    -0.0f,     0.25f,    -0.25f,      1e-42f,     3e-30f, -2e25f, INFINITY,
                              0x1p20f, 0x1.fp19f, 0x1p-44f, -0x1.fp-45f, 0x1.02p20f, 0.0f,   1.0f,   -1.0f};
  return k % 3 == 0 ? ODD[random_word() >> 28] : random_float() * 0.01f;
}

typedef struct counting {
  float *tau, *other; /* of the host; those of the device lie behind them there */
  const float *there;
  mg_device_piece *piece; /* [PIECES] of the host; of the device */
  const mg_device_piece *piece_there;
} counting;

/* More pieces than there are blocks, with gaps between them that nobody counts. */
static counting open_counting(void) {
  counting c = {.tau = pin(2 * ELEMENTS * sizeof(float)), .piece = pin(PIECES * sizeof *c.piece)};
  float *there = take(2 * ELEMENTS * sizeof *there);
  mg_device_piece *piece = take(PIECES * sizeof *piece);
  uint64_t at = 0;
  c.other = c.tau + ELEMENTS;
  for (uint32_t k = 0; k < 2 * ELEMENTS; k++) c.tau[k] = value_at(k);
  for (uint32_t p = 0; p < PIECES; p++) {
    const uint32_t count = p < LONG ? MG_PIECE_ELEMENTS - p : SHORT;
    c.piece[p] = (mg_device_piece){.from = at, .element = FIRST_ELEMENT + at, .count = count};
    at += count + GAP;
  }
  assert_int_equal(ops->upload(queue, there, c.tau, 2 * ELEMENTS * sizeof *there), MG_OK);
  assert_int_equal(ops->upload(queue, piece, c.piece, PIECES * sizeof *piece), MG_OK);
  c.there = there, c.piece_there = piece;
  return c;
}

static void close_counting(counting *c) {
  ops->give(device, (void *)(uintptr_t)c->there), ops->give(device, (void *)(uintptr_t)c->piece_there);
  ops->unpin(device, c->tau), ops->unpin(device, c->piece);
}

static uint32_t bits_of(const counting *c, const mg_device_census *m, uint64_t at) {
  uint32_t word, bits;
  const float value = m->other != NULL ? c->tau[at] - c->other[at] : c->tau[at];
  mg_stream_words(&m->stream, FIRST_ELEMENT + at, 1, &word);
  memcpy(&bits, &value, sizeof bits);
  return m->thinned && word > m->last_kept ? 0 : bits & 0x7FFFFFFFu;
}

/* Upper halves; or the lower ones of those that index says. Counted twice, since counts are added to what is there. */
static void check_counts(const counting *c, uint32_t pieces, int way, const int32_t *index, size_t looked) {
  const bool relative = way & 1, thinned = way & 2;
  const size_t bins = looked > 0 ? looked * MG_CENSUS_LOWER : MG_CENSUS_UPPER;
  uint64_t *want = calloc(bins, sizeof *want), *got = pin(bins * sizeof *got), *there = take(bins * sizeof *there);
  int32_t *index_there = take(MG_CENSUS_UPPER * sizeof *index_there);
  const mg_device_census m = {.tau = c->there,
                              .other = relative ? c->there + ELEMENTS : NULL,
                              .thinned = thinned,
                              .stream = mg_stream_of(3, 5, 7),
                              .last_kept = LAST_KEPT,
                              .piece = c->piece_there,
                              .pieces = pieces,
                              .index = looked > 0 ? index_there : NULL,
                              .bins = there};
  assert_int_equal(ops->zero(queue, there, bins * sizeof *there), MG_OK);
  if (looked > 0) assert_int_equal(ops->upload_any(queue, index_there, index, MG_CENSUS_UPPER * sizeof *index), MG_OK);
  for (int turn = 0; turn < 2; turn++) assert_int_equal(ops->census(queue, &m), MG_OK);
  assert_int_equal(ops->download(queue, got, there, bins * sizeof *got), MG_OK);
  assert_int_equal(ops->finish(queue), MG_OK);
  for (uint32_t p = 0; p < pieces; p++)
    for (uint32_t k = 0; k < c->piece[p].count; k++) {
      const uint32_t bits = bits_of(c, &m, c->piece[p].from + k);
      if (looked == 0) want[bits >> 16] += 2;
      if (looked > 0 && index[bits >> 16] >= 0) want[(size_t)index[bits >> 16] * MG_CENSUS_LOWER + (bits & 0xFFFFu)] += 2;
    }
  for (size_t k = 0; k < bins; k++)
    if (got[k] != want[k]) fail_msg("bin %zx: %llu, not %llu", k, (unsigned long long)got[k], (unsigned long long)want[k]);
  ops->give(device, there), ops->give(device, index_there), ops->unpin(device, got), free(want);
}

static void test_counts(void **state) {
  (void)state;
  static int32_t index[MG_CENSUS_UPPER];
  counting c = open_counting();
  for (int way = 0; way < 4; way++) check_counts(&c, way == 0 ? PIECES : FEW, way, NULL, 0);
  for (size_t k = 0; k < MG_CENSUS_UPPER; k++) index[k] = -1;
  index[0x3E80] = 0, index[0x3B00] = 1, index[0x7F80] = 2; /* 0.25, 0.002, infinity; no zeros */
  for (int way = 0; way < 2; way++) check_counts(&c, PIECES, 3 * way, index, 3);
  index[0] = 3;
  for (int way = 0; way < 2; way++) check_counts(&c, PIECES, 3 * way, index, 4);
  close_counting(&c);
}

/* ---- ranks ---- */

enum { TENSOR = 6000, OTHER_TENSOR = 9000, KEPT = 5000 + 4096, RANKS = 4 };

/* Of tensor 0 the store has two ranges, of tensor 1 one. */
static const mg_range RANGES[] = {{.tensor = 0, .first = 0, .count = 100, .offset = 0},
                                  {.tensor = 0, .first = 1100, .count = 4900, .offset = 100},
                                  {.tensor = 1, .first = 4904, .count = 4096, .offset = 5000}};
static float whole[2][TENSOR + OTHER_TENSOR], kept[2][KEPT + MG_STORE_SLACK];

static void fill_sources(void) {
  for (int s = 0; s < 2; s++) {
    for (uint32_t k = 0; k < TENSOR + OTHER_TENSOR; k++) whole[s][k] = isinf(value_at(k)) ? 1 : random_float();
    for (size_t r = 0; r < 3; r++)
      memcpy(kept[s] + RANGES[r].offset, whole[s] + (RANGES[r].tensor == 1 ? TENSOR : 0) + RANGES[r].first,
             (size_t)RANGES[r].count * sizeof(float));
  }
}

/* What a census is of; those of the host's part alone where that is asked for. */
static void add_values(mg_census *census, const mg_device_values *v, bool host_part) {
  for (int64_t k = 0; k < TENSOR + OTHER_TENSOR; k++) {
    const size_t t = k >= TENSOR;
    const int64_t element = k - (t == 1 ? TENSOR : 0);
    bool there = false;
    uint32_t word;
    for (size_t r = 0; r < 3; r++)
      there = there || (RANGES[r].tensor == t && element >= RANGES[r].first && element < RANGES[r].first + RANGES[r].count);
    if (host_part && there) continue;
    float value = v->other >= 0 ? whole[0][k] - whole[1][k] : whole[0][k];
    mg_stream_words(&v->stream, (uint64_t)element, 1, &word);
    if (v->thinned && word > v->last_kept) value = 0;
    mg_census_add(census, &value, 1);
  }
}

static mg_device_store *open_store(const mg_store *host, uint64_t spare) {
  mg_device_store *store;
  assert_int_equal(mg_device_store_create(device, queue, host, 2, KEPT + MG_STORE_SLACK, spare, &store), MG_OK);
  return store;
}

static void count_there(mg_device_store *store, const mg_device_values *v, mg_census *census) {
  bool able;
  assert_int_equal(mg_device_count_begin(store, queue, v, census, &able), MG_OK);
  assert_true(able);
  for (size_t t = 0; t < 2; t++) assert_int_equal(mg_device_count_tensor(store, queue, v, census, t), MG_OK);
  add_values(census, v, true);
  assert_int_equal(mg_device_count_end(store, queue, census), MG_OK);
}

static void check_ranks(mg_device_store *store, const mg_device_values *v) {
  static const uint64_t RANK[RANKS] = {1, 300, 7000, TENSOR + OTHER_TENSOR};
  double want[RANKS], got[RANKS];
  mg_census host, there;
  assert_int_equal(mg_census_begin(RANK, RANKS, &host), MG_OK);
  assert_int_equal(mg_census_begin(RANK, RANKS, &there), MG_OK);
  for (int turn = 0; turn < 2; turn++) {
    add_values(&host, v, false);
    count_there(store, v, &there);
    if (turn == 0) assert_int_equal(mg_census_turn(&host), MG_OK);
    if (turn == 0) assert_int_equal(mg_census_turn(&there), MG_OK);
  }
  mg_census_values(&host, want), mg_census_values(&there, got);
  for (int k = 0; k < RANKS; k++)
    if (memcmp(&want[k], &got[k], sizeof *want) != 0) fail_msg("rank %d: %a, not %a", k, got[k], want[k]);
  mg_census_free(&host), mg_census_free(&there);
}

static void test_ranks(void **state) {
  (void)state;
  const float *tau[2] = {kept[0], kept[1]};
  const mg_store host = {.range_count = 3, .ranges = RANGES, .tau = tau, .base = kept[0]};
  fill_sources();
  mg_device_store *store = open_store(&host, 0);
  assert_int_equal(mg_device_store_counted(store), 0);
  for (int way = 0; way < 4; way++) {
    const mg_device_values v = {
        .other = way & 1 ? 1 : -1, .thinned = way & 2, .stream = mg_stream_of(1, 2, 3), .last_kept = LAST_KEPT};
    check_ranks(store, &v);
  }
  assert_int_equal(mg_device_store_counted(store), 4 * KEPT);
  mg_device_store_destroy(&store);
}

/* A source that is not there, no memory for counts, and more bins than there is room for: the host counts. */
static void test_ranks_of_the_host(void **state) {
  (void)state;
  static uint64_t rank[40];
  const float *tau[2] = {kept[0], NULL};
  const mg_store host = {.range_count = 3, .ranges = RANGES, .tau = tau, .base = kept[0]};
  const mg_device_values own = {.other = -1}, another = {.other = 1};
  mg_device_store *store = open_store(&host, 0);
  mg_census census;
  bool able = true;
  for (int k = 0; k < 40; k++) rank[k] = (uint64_t)k + 1;
  assert_int_equal(mg_census_begin(rank, 40, &census), MG_OK);
  assert_int_equal(mg_device_count_begin(store, queue, &another, &census, &able), MG_OK);
  assert_false(able);
  void *all = take(ops->room(device) - MG_DEVICE_ALIGN);
  assert_int_equal(mg_device_count_begin(store, queue, &own, &census, &able), MG_OK);
  assert_false(able);
  ops->give(device, all);
  assert_int_equal(mg_device_count_begin(store, queue, &own, &census, &able), MG_OK);
  assert_true(able);
  for (int k = 0; k < 40; k++) { /* a bin each */
    const float value = ldexpf(1, 20 - k);
    mg_census_add(&census, &value, 1);
  }
  assert_int_equal(mg_census_turn(&census), MG_OK);
  assert_int_equal(mg_device_count_begin(store, queue, &own, &census, &able), MG_OK);
  assert_false(able);
  mg_census_free(&census);
  mg_device_store_destroy(&store);
}

/* ---- dropping by rank ---- */

enum { THIN_SOURCES = 2, THIN_PIECES = 3, THIN_GAP = 5, THIN_ROOM = THIN_PIECES * (MG_PIECE_ELEMENTS + THIN_GAP) };

typedef struct thin_case {
  uint32_t row;
  double density, spread;
  mg_rescale rescale;
  bool relative;
} thin_case;

/* What kernels are told, one behind the other. */
typedef struct thin_told {
  const float *tau[THIN_SOURCES];
  float *out[THIN_SOURCES];
  mg_stream stream[THIN_SOURCES];
  float scale[THIN_SOURCES];
  mg_device_piece piece[THIN_PIECES];
} thin_told;

/* Few different magnitudes, so that places decide; infinities where nothing is subtracted. */
static float thin_value(uint32_t k, bool relative) {
  const float value = k % 2 == 0 ? (float)((int)(random_word() >> 24) % 7 - 3) / 8 : value_at(k);
  return relative && isinf(value) ? -1.0f : value;
}

/* Whole rows: as many as fit, some, one. */
static void tell_thinning(const thin_case *c, const float *there, float *out, thin_told *told) {
  uint64_t at = 0;
  for (uint32_t s = 0; s < THIN_SOURCES; s++) {
    told->tau[s] = there + (size_t)s * THIN_ROOM, told->out[s] = out + (size_t)s * THIN_PIECES * MG_PIECE_ELEMENTS;
    told->stream[s] = mg_stream_of(11, s, 13);
    told->scale[s] = c->rescale == MG_RESCALE_NONE ? 1 : 1.5f + (float)s;
  }
  for (uint32_t p = 0; p < THIN_PIECES; p++) {
    const uint32_t most = MG_PIECE_ELEMENTS / c->row, rows = p == 0 ? most : p == 1 ? (most + 2) / 3 : 1;
    told->piece[p] = (mg_device_piece){.from = at, .element = 4 * at + 1, .count = rows * c->row};
    at += told->piece[p].count + THIN_GAP;
  }
}

static void thin_on_host(const thin_case *c, const float *tau, const thin_told *told, uint32_t s, uint32_t p, float *want) {
  static uint32_t words[MG_PIECE_ELEMENTS];
  static uint64_t order[MG_PIECE_ELEMENTS];
  const mg_device_piece *piece = &told->piece[p];
  const mg_formula f = {.drop_density = c->density, .drop_spread = c->spread, .rescale = c->rescale};
  const float *own = tau + (size_t)s * THIN_ROOM + piece->from, *other = tau + (size_t)THIN_SOURCES * THIN_ROOM + piece->from;
  for (uint32_t k = 0; k < piece->count; k++) want[k] = c->relative ? own[k] - other[k] : own[k];
  mg_keep_by_rank(want, (int64_t)piece->element, piece->count, c->row, &told->stream[s], &f, told->scale[s], words, order);
}

static void check_thinning(const thin_case *c) {
  static float want[MG_PIECE_ELEMENTS];
  const size_t packed = (size_t)THIN_SOURCES * THIN_PIECES * MG_PIECE_ELEMENTS, room = (size_t)(THIN_SOURCES + 1) * THIN_ROOM;
  float *tau = pin(room * sizeof *tau), *there = take(room * sizeof *there);
  float *got = pin(packed * sizeof *got), *out = take(packed * sizeof *out);
  thin_told *told = pin(sizeof *told), *at = take(sizeof *at);
  const mg_formula f = {.drop_density = c->density, .drop_spread = c->spread};
  mg_device_thinning m = {.sources = THIN_SOURCES,
                          .tau = at->tau,
                          .other = c->relative ? there + (size_t)THIN_SOURCES * THIN_ROOM : NULL,
                          .stream = at->stream,
                          .scale = at->scale,
                          .inverse = c->rescale == MG_RESCALE_INVERSE,
                          .row = c->row,
                          .piece = at->piece,
                          .pieces = THIN_PIECES,
                          .out = at->out};
  for (uint32_t k = 0; k < room; k++) tau[k] = thin_value(k, c->relative);
  mg_rank_chances(&f, c->row, &m.least, &m.rise);
  tell_thinning(c, there, out, told);
  assert_int_equal(ops->upload(queue, there, tau, room * sizeof *tau), MG_OK);
  assert_int_equal(ops->upload(queue, at, told, sizeof *told), MG_OK);
  assert_int_equal(ops->thin(queue, &m), MG_OK);
  assert_int_equal(ops->download(queue, got, out, packed * sizeof *got), MG_OK);
  assert_int_equal(ops->finish(queue), MG_OK);
  for (uint32_t s = 0; s < THIN_SOURCES; s++)
    for (uint32_t p = 0; p < THIN_PIECES; p++) {
      const float *own = got + (size_t)(s * THIN_PIECES + p) * MG_PIECE_ELEMENTS;
      thin_on_host(c, tau, told, s, p, want);
      for (uint32_t k = 0; k < told->piece[p].count; k++)
        if (memcmp(&own[k], &want[k], sizeof *own) != 0)
          fail_msg("rows of %u, source %u, piece %u, element %u: %a, not %a", c->row, s, p, k, (double)own[k], (double)want[k]);
    }
  ops->give(device, there), ops->give(device, out), ops->give(device, at);
  ops->unpin(device, tau), ops->unpin(device, got), ops->unpin(device, told);
}

static void test_thinning(void **state) {
  (void)state;
  static const thin_case CASES[] = {{1, 0.4, 0.3, MG_RESCALE_L1, false},       {7, 0.5, 0.45, MG_RESCALE_INVERSE, false},
                                    {768, 0.5, 0.15, MG_RESCALE_L1, true},     {1500, 0.3, 0.2, MG_RESCALE_INVERSE, true},
                                    {4096, 0.6, 0.35, MG_RESCALE_NONE, false}, {2049, 0.5, 0, MG_RESCALE_L1, false}};
  for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) check_thinning(&CASES[k]);
}

/* ---- norms ---- */

static float part_of(const mg_device_norms *m, const float *packed, uint32_t p, uint32_t k, uint64_t element, float value) {
  uint32_t word;
  if (m->part == MG_DEVICE_PART_PACKED) return packed[(size_t)p * MG_PIECE_ELEMENTS + k];
  if (m->part == MG_DEVICE_PART_BELOW) return fabs((double)value) < m->threshold ? value : 0;
  mg_stream_words(&m->stream, element, 1, &word);
  return word <= m->last_kept ? value : 0;
}

/* Added up twice, since sums are added to what is there. */
static void check_sums(const counting *c, uint32_t pieces, mg_device_part part, bool relative) {
  enum { PACKED = FEW * MG_PIECE_ELEMENTS, BINS = 2 * MG_L1_BINS };
  float *packed = pin(PACKED * sizeof *packed), *packed_there = take(PACKED * sizeof *packed_there);
  uint64_t *got = pin(BINS * sizeof *got), *there = take(BINS * sizeof *there);
  mg_l1 want[2] = {0};
  for (uint32_t k = 0; k < PACKED; k++) packed[k] = k == 5 ? NAN : value_at(k);
  const mg_device_norms m = {.tau = c->there,
                             .other = relative ? c->there + ELEMENTS : NULL,
                             .part = part,
                             .threshold = 0.25,
                             .stream = mg_stream_of(3, 5, 7),
                             .last_kept = LAST_KEPT,
                             .packed = packed_there,
                             .piece = c->piece_there,
                             .pieces = pieces,
                             .bins = there};
  assert_int_equal(ops->upload(queue, packed_there, packed, PACKED * sizeof *packed), MG_OK);
  assert_int_equal(ops->zero(queue, there, BINS * sizeof *there), MG_OK);
  for (int turn = 0; turn < 2; turn++) assert_int_equal(ops->norms(queue, &m), MG_OK);
  assert_int_equal(ops->download(queue, got, there, BINS * sizeof *got), MG_OK);
  assert_int_equal(ops->finish(queue), MG_OK);
  for (uint32_t p = 0; p < pieces; p++)
    for (uint32_t k = 0; k < c->piece[p].count; k++) {
      const uint64_t at = c->piece[p].from + k;
      const float value = relative ? c->tau[at] - c->other[at] : c->tau[at];
      const float own = part_of(&m, packed, p, k, FIRST_ELEMENT + at, value);
      for (int turn = 0; turn < 2; turn++) mg_l1_add(&want[0], &value, 1), mg_l1_add(&want[1], &own, 1);
    }
  for (int k = 0; k < BINS; k++)
    if (got[k] != want[k / MG_L1_BINS].bins[k % MG_L1_BINS])
      fail_msg("part %d, bin %d: %llx, not %llx", (int)part, k, (unsigned long long)got[k],
               (unsigned long long)want[k / MG_L1_BINS].bins[k % MG_L1_BINS]);
  ops->give(device, packed_there), ops->give(device, there), ops->unpin(device, packed), ops->unpin(device, got);
}

static void test_sums(void **state) {
  (void)state;
  counting c = open_counting();
  check_sums(&c, PIECES, MG_DEVICE_PART_BELOW, false);
  check_sums(&c, FEW, MG_DEVICE_PART_BELOW, true);
  check_sums(&c, FEW, MG_DEVICE_PART_KEPT, false);
  check_sums(&c, FEW, MG_DEVICE_PART_PACKED, true);
  close_counting(&c);
}

/* One source of which a store has more rows than are thinned out at once, and whole rows that take more pieces than others. */
enum { ROWS_APART = 1030, APART = 4, WIDE_ROWS = 10, WIDE = 2100, NORM_ELEMENTS = ROWS_APART * APART + WIDE_ROWS * WIDE };
static mg_range norm_ranges[ROWS_APART + 1];
static float norm_values[NORM_ELEMENTS + MG_STORE_SLACK];

static mg_store make_norm_store(const float *const *tau) {
  for (uint32_t k = 0; k < NORM_ELEMENTS; k++) norm_values[k] = value_at(k);
  for (size_t k = 0; k < ROWS_APART; k++)
    norm_ranges[k] = (mg_range){.first = (int64_t)(2 * APART * k), .count = APART, .offset = APART * k};
  norm_ranges[ROWS_APART] = (mg_range){.tensor = 1, .first = 3 * WIDE, .count = WIDE_ROWS * WIDE, .offset = ROWS_APART * APART};
  return (mg_store){.range_count = ROWS_APART + 1, .ranges = norm_ranges, .tau = tau, .base = norm_values};
}

/* The host's norms of what the store has of a tensor. */
static void norms_on_host(const mg_device_values *v, const mg_device_share *share, size_t t, mg_l1 *all, mg_l1 *part) {
  static float copy[WIDE_ROWS * WIDE];
  static uint32_t words[WIDE_ROWS * WIDE];
  static uint64_t order[WIDE_ROWS * WIDE];
  for (size_t r = 0; r <= ROWS_APART; r++) {
    const mg_range *range = &norm_ranges[r];
    if (range->tensor != t) continue;
    memcpy(copy, norm_values + range->offset, (size_t)range->count * sizeof *copy);
    mg_l1_add(all, copy, range->count);
    if (share->part == MG_DEVICE_PART_PACKED)
      mg_keep_by_rank(copy, range->first, range->count, share->row, &v->stream, share->formula, 1, words, order);
    for (int64_t k = 0; share->part == MG_DEVICE_PART_BELOW && k < range->count; k++)
      if (!(fabs((double)copy[k]) < share->threshold)) copy[k] = 0;
    mg_l1_add(part, copy, range->count);
  }
}

static void check_norms(mg_device_store *store, size_t t, const mg_device_share *share) {
  const mg_device_values v = {.other = -1, .stream = mg_stream_of(1, 2, 3)};
  mg_l1 want[2] = {0}, got[2] = {0};
  bool able;
  norms_on_host(&v, share, t, &want[0], &want[1]);
  assert_int_equal(mg_device_norms_begin(store, queue, &v, share, &able), MG_OK);
  assert_true(able);
  assert_int_equal(mg_device_norms_tensor(store, queue, &v, share, t), MG_OK);
  assert_int_equal(mg_device_norms_end(store, queue, &got[0], &got[1]), MG_OK);
  assert_memory_equal(want, got, sizeof want);
}

static void test_norms(void **state) {
  (void)state;
  const float *tau[2] = {norm_values, NULL};
  const mg_store host = make_norm_store(tau);
  const mg_formula formula = {.drop_density = 0.5, .drop_spread = 0.3, .rescale = MG_RESCALE_L1};
  mg_device_share share = {.part = MG_DEVICE_PART_PACKED, .formula = &formula, .row = WIDE};
  const mg_device_values v = {.other = -1}, another = {.other = 1};
  mg_device_store *store;
  bool able;
  assert_int_equal(mg_device_store_create(device, queue, &host, 2, NORM_ELEMENTS + MG_STORE_SLACK, 0, &store), MG_OK);
  check_norms(store, 1, &share);
  assert_int_equal(mg_device_store_counted(store), WIDE_ROWS * WIDE);
  share.row = APART;
  check_norms(store, 0, &share);
  check_norms(store, 0, &(mg_device_share){.part = MG_DEVICE_PART_BELOW, .threshold = 0.01});
  share.row = MG_PIECE_ELEMENTS + 1; /* longer than what is sorted */
  assert_int_equal(mg_device_norms_begin(store, queue, &v, &share, &able), MG_OK);
  assert_false(able);
  share.row = APART;
  assert_int_equal(mg_device_norms_begin(store, queue, &another, &share, &able), MG_OK);
  assert_false(able);
  mg_device_store_destroy(&store);
}

/* No room to thin out: the host does it, and there is room when there is; then that for pieces is enough, too. */
static void test_norms_memory(void **state) {
  (void)state;
  const float *tau[2] = {norm_values, NULL};
  mg_store host = make_norm_store(tau);
  const mg_formula formula = {.drop_density = 0.5, .drop_spread = 0.3, .rescale = MG_RESCALE_L1};
  const mg_device_share share = {.part = MG_DEVICE_PART_PACKED, .formula = &formula, .row = WIDE};
  const mg_device_values v = {.other = -1};
  mg_device_store *store;
  bool able;
  host.ranges += ROWS_APART, host.range_count = 1;
  assert_int_equal(mg_device_store_create(device, queue, &host, 2, NORM_ELEMENTS + MG_STORE_SLACK, 0, &store), MG_OK);
  void *rest = take(ops->room(device) - mg_device_thin_bytes() / 2);
  assert_int_equal(mg_device_norms_begin(store, queue, &v, &share, &able), MG_OK);
  assert_false(able);
  ops->give(device, rest);
  check_norms(store, 1, &share);
  mg_device_store_destroy(&store);
}

/* ---- CKA ---- */

enum { SOURCES = 6, TEXTS = 97, WIDTH = 150 }; /* Gram matrices of more than a slice; more columns than a block has threads */

static mg_status get(void *context, size_t source, const float **features) {
  *features = (const float *)context + source * TEXTS * WIDTH;
  return MG_OK;
}

static void cka(float *x, size_t texts, mg_device *where, double out[2][SOURCES * SOURCES]) {
  const mg_cka_features f = {.sources = SOURCES, .texts = texts, .width = WIDTH, .context = x, .get = get};
  if (mg_cka(&f, UINT64_MAX, where, out[0], out[1]) != MG_OK) fail_msg("%s", mg_error_message());
}

/* Sources that have something in common, far from zero; the last one is the same for all texts. */
static float *make_features(void) {
  float *x = malloc(SOURCES * TEXTS * WIDTH * sizeof *x);
  for (size_t k = 0; k < SOURCES * TEXTS * WIDTH; k++) {
    const size_t s = k / (TEXTS * WIDTH);
    x[k] = s == 0 ? random_float() : 0.5f * x[k % (TEXTS * WIDTH)] + 0.3f * (float)s * random_float() + 10;
    if (s == SOURCES - 1) x[k] = (float)(k % WIDTH);
  }
  return x;
}

static void close_to(const double a[2][SOURCES * SOURCES], const double b[2][SOURCES * SOURCES]) {
  for (int kind = 0; kind < 2; kind++)
    for (size_t k = 0; k < SOURCES * SOURCES; k++) {
      const double *x = a[kind], *y = b[kind];
      if (isnan(x[k]) != isnan(y[k]) || fabs(x[k] - y[k]) > 1e-12)
        fail_msg("%d, pair %zu: %.17g, not %.17g", kind, k, x[k], y[k]);
    }
}

static void test_cka(void **state) {
  (void)state;
  static const size_t COUNT[] = {TEXTS, 4, 3, 2};
  double host[2][SOURCES * SOURCES], there[2][SOURCES * SOURCES], again[2][SOURCES * SOURCES];
  float *x = make_features();
  for (size_t k = 0; k < 4; k++) {
    cka(x, COUNT[k], NULL, host), cka(x, COUNT[k], device, there), cka(x, COUNT[k], device, again);
    close_to(there, host);
    assert_memory_equal(there, again, sizeof there);
  }
  free(x);
}

/* Few matrices at once: the same bits; not even two: the numbers. */
static void test_cka_memory(void **state) {
  (void)state;
  double all[2][SOURCES * SOURCES], few[2][SOURCES * SOURCES];
  uint64_t least, wish;
  float *x = make_features();
  const mg_cka_features f = {.sources = SOURCES, .texts = TEXTS, .width = WIDTH, .context = x, .get = get};
  cka(x, TEXTS, device, all);
  for (size_t slots = 2; slots <= 4; slots += 2) {
    mg_cka_device_bytes(device, slots - 1, TEXTS, WIDTH, &least, &wish);
    void *rest = take(ops->room(device) - wish);
    cka(x, TEXTS, device, few);
    assert_memory_equal(all, few, sizeof all);
    ops->give(device, rest);
  }
  void *rest = take(ops->room(device) - least / 2);
  assert_int_equal(mg_cka(&f, UINT64_MAX, device, few[0], few[1]), MG_ERR_NOMEM);
  assert_non_null(strstr(mg_error_message(), "MiB are wanted"));
  ops->give(device, rest);
  free(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_counts),       cmocka_unit_test(test_ranks), cmocka_unit_test(test_ranks_of_the_host),
      cmocka_unit_test(test_thinning),     cmocka_unit_test(test_sums),  cmocka_unit_test(test_norms),
      cmocka_unit_test(test_norms_memory), cmocka_unit_test(test_cka),   cmocka_unit_test(test_cka_memory)};
  return cmocka_run_group_tests(tests, open_device, close_device);
}
