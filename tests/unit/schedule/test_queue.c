/*
 * The master's decisions under random orders of events: every unit is dealt once and taken once, whatever comes when; nobody
 * holds more than two leases; a stop keeps what arrives, a failure does not; and the end is reached.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/queue.h"

static uint64_t seed;

static uint64_t draw(uint64_t below) { /* xorshift64* */
  seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
  return (seed * UINT64_C(2685821657736338717) >> 11) % below;
}

/* Ranks as the queue sees them: what each holds, and whether it said goodbye. */
typedef struct trial {
  mg_queue *queue;
  int64_t units;
  int ranks;
  mg_leases *leases; /* [ranks] */
  int *dealt, *taken;
  int64_t highest; /* unit dealt so far */
} trial;

static void note_deal(trial *t, int64_t unit) {
  assert_true(unit == t->highest + 1 && unit < t->units);
  t->highest = unit;
  t->dealt[unit]++;
}

static void top_up(trial *t, int worker) {
  int64_t unit;
  while (mg_queue_deal(t->queue, worker, &unit)) {
    note_deal(t, unit);
    assert_true(mg_leases_add(&t->leases[worker], unit));
  }
}

static void begin(trial *t, int64_t units, int ranks) {
  *t = (trial){.units = units, .ranks = ranks, .highest = -1};
  t->leases = calloc((size_t)ranks, sizeof *t->leases);
  t->dealt = calloc((size_t)units + 1, sizeof *t->dealt);
  t->taken = calloc((size_t)units + 1, sizeof *t->taken);
  assert_int_equal(mg_queue_create(units, ranks, &t->queue), MG_OK);
  for (int worker = 1; worker < ranks; worker++) top_up(t, worker);
}

/* Everyone says goodbye, in the books as in the end. */
static void end(trial *t) {
  int64_t unit;
  mg_queue_close(t->queue);
  assert_false(mg_queue_own(t->queue, &unit));
  for (int worker = 1; worker < t->ranks; worker++) {
    assert_false(mg_queue_all_gone(t->queue));
    assert_false(mg_queue_deal(t->queue, worker, &unit));
    mg_queue_bye(t->queue, worker);
    mg_queue_bye(t->queue, worker); /* twice counts once */
  }
  assert_true(mg_queue_all_gone(t->queue));
  mg_queue_destroy(&t->queue);
  free(t->leases), free(t->dealt), free(t->taken);
}

/* One event: a random rank that has something returns it. False: nobody has anything. */
static bool step(trial *t) {
  const int first = (int)draw((uint64_t)t->ranks);
  for (int k = 0; k < t->ranks; k++) {
    const int rank = (first + k) % t->ranks;
    int64_t unit;
    bool wanted;
    if (rank == 0) {
      if (!mg_queue_own(t->queue, &unit)) continue;
      assert_true(t->ranks <= MG_MASTER_COMPUTES_UP_TO);
      note_deal(t, unit);
    } else if (!mg_leases_next(&t->leases[rank], &unit)) {
      continue;
    }
    assert_int_equal(mg_queue_returned(t->queue, rank, unit, &wanted), MG_OK);
    t->taken[unit] += wanted;
    if (rank > 0) top_up(t, rank);
    return true;
  }
  return false;
}

static void check_counts(const trial *t) {
  const mg_queue_counts c = mg_queue_count(t->queue);
  int64_t held = 0, dealt = 0, taken = 0;
  for (int rank = 0; rank < t->ranks; rank++) held += t->leases[rank].count;
  for (int64_t k = 0; k < t->units; k++) dealt += t->dealt[k], taken += t->taken[k];
  assert_int_equal(c.left, t->units - dealt);
  assert_int_equal(c.leased, held);
  assert_int_equal(c.taken, taken);
}

static void every_unit_once(void **state) {
  (void)state;
  for (uint64_t k = 1; k <= 400; k++) {
    trial t;
    seed = k * UINT64_C(0x9E3779B97F4A7C15);
    begin(&t, (int64_t)draw(3000), 1 + (int)draw(k % 4 ? 12 : 600));
    while (!mg_queue_over(t.queue)) {
      assert_true(step(&t)); /* else it would wait for ever */
      if (draw(64) == 0) check_counts(&t);
    }
    check_counts(&t);
    for (int64_t unit = 0; unit < t.units; unit++) assert_true(t.dealt[unit] == 1 && t.taken[unit] == 1);
    assert_int_equal(mg_queue_status(t.queue), MG_OK);
    end(&t);
  }
}

/* A reason to end at a random moment; what is under way still arrives, in any order. */
static void ends(void **state) {
  (void)state;
  for (uint64_t k = 1; k <= 400; k++) {
    trial t;
    seed = k * UINT64_C(0xD1342543DE82EF95);
    const bool stop = k % 2 == 0;
    begin(&t, 1 + (int64_t)draw(500), 2 + (int)draw(40));
    for (uint64_t steps = draw((uint64_t)t.units); steps > 0; steps--) step(&t);
    const int64_t taken = mg_queue_count(t.queue).taken, leased = mg_queue_count(t.queue).leased;
    assert_true(mg_queue_end(t.queue, stop ? MG_STOPPED : MG_ERR_IO));
    assert_false(mg_queue_end(t.queue, MG_STOPPED));
    assert_true(mg_queue_over(t.queue));
    while (step(&t)) check_counts(&t);
    const mg_queue_counts c = mg_queue_count(t.queue);
    assert_int_equal(c.leased, 0);
    assert_int_equal(c.taken, stop ? taken + leased : taken);
    for (int64_t unit = 0; unit < t.units; unit++) assert_true(t.dealt[unit] <= 1 && t.taken[unit] <= t.dealt[unit]);
    const bool all = stop && c.taken == t.units;
    assert_int_equal(mg_queue_status(t.queue), all ? MG_OK : stop ? MG_STOPPED : MG_ERR_IO);
    end(&t);
  }
}

/* The first reason is told, but a failure says more than a stop. */
static void reasons(void **state) {
  (void)state;
  mg_queue *q = NULL;
  assert_int_equal(mg_queue_create(5, 3, &q), MG_OK);
  assert_true(mg_queue_end(q, MG_STOPPED));
  assert_true(mg_queue_end(q, MG_ERR_CORRUPT));
  assert_false(mg_queue_end(q, MG_ERR_IO));
  assert_int_equal(mg_queue_status(q), MG_ERR_CORRUPT);
  mg_queue_destroy(&q);
}

/* A result of what the rank has no lease of is refused, also a second time the same. */
static void strangers(void **state) {
  (void)state;
  mg_queue *q = NULL;
  int64_t unit;
  bool wanted;
  assert_int_equal(mg_queue_create(100, 3, &q), MG_OK);
  assert_true(mg_queue_deal(q, 1, &unit));
  assert_int_equal(mg_queue_returned(q, 2, unit, &wanted), MG_ERR_INTERNAL);
  assert_int_equal(mg_queue_returned(q, 1, unit, &wanted), MG_OK);
  assert_true(wanted);
  assert_int_equal(mg_queue_returned(q, 1, unit, &wanted), MG_ERR_INTERNAL);
  assert_int_equal(mg_queue_count(q).taken, 1);
  mg_queue_destroy(&q);
}

/* Two ahead while there is plenty, one towards the end; rank 0 computes while ranks are few; books hang on ranks alone. */
static void ahead(void **state) {
  (void)state;
  mg_queue *q = NULL;
  int64_t unit;
  for (int ranks = MG_MASTER_COMPUTES_UP_TO; ranks <= MG_MASTER_COMPUTES_UP_TO + 1; ranks++) {
    assert_int_equal(mg_queue_create(1000000000, ranks, &q), MG_OK);
    assert_int_equal(mg_queue_own(q, &unit), ranks == MG_MASTER_COMPUTES_UP_TO);
    for (int k = 0; k < MG_LEASES_AHEAD; k++) assert_true(mg_queue_deal(q, 1, &unit));
    assert_false(mg_queue_deal(q, 1, &unit));
    mg_queue_destroy(&q);
  }
  assert_int_equal(mg_queue_create(6, 4, &q), MG_OK);
  assert_true(mg_queue_deal(q, 1, &unit));
  assert_false(mg_queue_deal(q, 1, &unit));
  mg_queue_destroy(&q);
  assert_true(mg_queue_bytes(1024) < 64 * 1024);
}

static void a_workers_leases(void **state) {
  (void)state;
  mg_leases l = {0};
  int64_t unit;
  assert_false(mg_leases_next(&l, &unit));
  assert_true(mg_leases_add(&l, 7) && mg_leases_add(&l, 9));
  assert_false(mg_leases_add(&l, 11));
  assert_true(mg_leases_next(&l, &unit) && unit == 7);
  l.ended = true;
  assert_false(mg_leases_next(&l, &unit));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_unit_once), cmocka_unit_test(ends),  cmocka_unit_test(reasons),
      cmocka_unit_test(strangers),       cmocka_unit_test(ahead), cmocka_unit_test(a_workers_leases),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
