/*
 * What docs/scaling.md promises, in simulated time: idle ranks, the time of compatibility, what rank 0 holds and writes; and
 * that stages cut their work without leaving any out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workload.h"

static const char CONFIG[] = MG_SOURCE_DIR "/configs/nightly-full-grid.yaml";
enum { RANKS = 512, SOURCES = 48, MANY = 10000 };

static sim_family cores, nodes; /* a rank a core; a rank eight cores, Grams of the whole only */

static int make_families(void **state) {
  (void)state;
  if (sim_family_make(CONFIG, MG_GRAM_TENSOR, 1, false, &cores) != MG_OK) return 1;
  return sim_family_make(CONFIG, MG_GRAM_TOTAL, 8, false, &nodes) != MG_OK;
}

static int free_families(void **state) {
  (void)state;
  sim_family_free(&cores);
  sim_family_free(&nodes);
  return 0;
}

static sim_machine eight_cores(void) {
  sim_machine m = sim_core;
  m.flops *= 8, m.merge_rate *= 4, m.read_one *= 8, m.node = 8;
  return m;
}

/* The nightly grid, whether ranks and units are alike or not, and whatever the memory has room for. */
static void the_grid_is_under_five_percent_idle(void **state) {
  (void)state;
  static const double noises[] = {0, 0.03, 0.15};
  static const uint64_t budgets[] = {UINT64_C(2) << 30, UINT64_C(64) << 30};
  for (size_t k = 0; k < 3; k++)
    for (size_t b = 0; b < 2; b++) {
      sim_machine machines[] = {sim_core, eight_cores(), sim_gpu};
      for (size_t m = 0; m < 3; m++) {
        sim_stage s;
        sim_family f = m == 0 ? cores : nodes;
        f.budget = budgets[b];
        machines[m].noise = noises[k];
        assert_int_equal(sim_grid(&f, &machines[m], SOURCES, RANKS, &s), MG_OK);
        assert_true(s.run.idle < 0.05);
        assert_true(s.run.master < 0.2);
      }
    }
}

/* Also the evaluation before it, of a rank a core. */
static void nxn_is_under_five_percent_idle(void **state) {
  (void)state;
  sim_stage s;
  assert_int_equal(sim_nxn(&cores, &sim_core, SOURCES, RANKS, &s), MG_OK);
  assert_true(s.run.idle < 0.05);
  assert_true(s.held_bytes <= s.planned_bytes);
}

/* A device computes a target in the time that loading its model takes: leases are as long as that is worth. */
static void on_devices_models_are_loaded_seldom(void **state) {
  (void)state;
  sim_stage by_core, by_device;
  sim_family f = nodes; /* shares what is allocated */
  mg_nxn_choose_leases(&f.nxn, 8, true);
  const double all = (double)SOURCES * mg_nxn_batch_flops(&f.nxn, 0, f.nxn.texts.tokenized.sequences.count) / sim_gpu.flops;
  const int ranks[] = {1, 8, 64, RANKS};
  for (size_t k = 0; k < sizeof ranks / sizeof *ranks; k++) {
    assert_int_equal(sim_nxn(&nodes, &sim_gpu, SOURCES, ranks[k], &by_core), MG_OK);
    assert_int_equal(sim_nxn(&f, &sim_gpu, SOURCES, ranks[k], &by_device), MG_OK);
    assert_true(by_device.units < by_core.units / 4);
    assert_true(by_device.run.makespan < by_core.run.makespan);
    assert_true(by_device.held_bytes <= by_device.planned_bytes);
    if (ranks[k] < RANKS) assert_true(by_device.run.makespan < 1.3 * all / ranks[k]);
  }
  assert_true(by_device.run.makespan < by_core.run.makespan / 4); /* the file system is what they wait for */
}

/* Against the time that reading takes at least, and so against the larger of that and starting. */
static void compatibility_takes_as_long_as_reading(void **state) {
  (void)state;
  const sim_machine machines[] = {sim_core, eight_cores(), sim_gpu};
  for (int dtype = 0; dtype < 2; dtype++)
    for (size_t m = 0; m < 3; m++) {
      sim_stage s;
      sim_family f = m == 0 ? cores : nodes;
      mg_config config = *f.config;
      f.config = &config;
      config.shards.dtype = dtype == 0 ? MG_BF16 : MG_F32;
      assert_int_equal(sim_compatibility(&f, &machines[m], SOURCES, RANKS, true, &s), MG_OK);
      const double larger = s.read_seconds > s.start_seconds ? s.read_seconds : s.start_seconds;
      assert_true(s.run.makespan <= 1.2 * s.read_seconds);
      assert_true(s.run.makespan <= 1.2 * larger);
      assert_true(s.held_bytes <= s.planned_bytes);
      assert_true(s.planned_bytes < 32 << 20);
      assert_true(s.run.journal_bytes < 64 << 20);
    }
}

/* With Grams of the whole: memory as planned, and a journal of a few times the sums. */
static void ten_thousand_sources_are_bounded(void **state) {
  (void)state;
  sim_stage s;
  const sim_machine machine = eight_cores();
  const uint64_t sums = (uint64_t)MANY * MANY / 2 * sizeof(double) * 3; /* groups: encoder, rest, excluded */
  assert_int_equal(sim_compatibility(&nodes, &machine, MANY, RANKS, false, &s), MG_OK);
  assert_true(s.held_bytes <= s.planned_bytes);
  assert_true(s.planned_bytes < UINT64_C(7) << 30);
  assert_true(s.run.journal_bytes < 4 * sums);
  assert_true(s.list_bytes < 4 << 20);
  assert_true(s.run.idle < 0.05 && s.run.master < 0.05);
  assert_int_equal(sim_nxn(&nodes, &machine, MANY, RANKS, &s), MG_OK);
  assert_true(s.held_bytes <= s.planned_bytes);
  assert_true(s.planned_bytes < UINT64_C(1) << 30);
  assert_true(s.run.idle < 0.05 && s.run.master < 0.2);
  assert_int_equal(sim_grid(&nodes, &machine, MANY, RANKS, &s), MG_OK);
  assert_true(s.planned_bytes < UINT64_C(12) << 30);
  assert_true(s.run.journal_bytes < 300 << 20);
  assert_true(mg_queue_bytes(RANKS) < 64 << 10);
}

/* Rank 0 that can't keep up: others wait, what waits is bounded by their leases, and everything is taken all the same. */
static void a_master_that_is_too_slow_loses_nothing(void **state) {
  (void)state;
  sim_stage s;
  sim_machine slow = sim_gpu;
  slow.message = 1e-3;
  assert_int_equal(sim_grid(&nodes, &slow, SOURCES, RANKS, &s), MG_OK);
  assert_true(s.run.master > 0.5 && s.run.idle > 0.05);
  assert_true(s.run.waiting <= MG_LEASES_AHEAD * (RANKS - 1));
}

static void the_same_twice(void **state) {
  (void)state;
  sim_stage a, b;
  for (int ranks = 1; ranks <= 40; ranks += 13) {
    assert_int_equal(sim_compatibility(&cores, &sim_core, SOURCES, ranks, true, &a), MG_OK);
    assert_int_equal(sim_compatibility(&cores, &sim_core, SOURCES, ranks, true, &b), MG_OK);
    assert_memory_equal(&a.run.makespan, &b.run.makespan, sizeof a.run.makespan);
    assert_memory_equal(&a.run.idle, &b.run.idle, sizeof a.run.idle);
    assert_true(a.run.messages == b.run.messages && a.run.journal_bytes == b.run.journal_bytes);
  }
}

/* Groups: all items, in order, of one target, no more than memory has room for, and never larger than the one before but for
   a target's rest. */
static void groups_hold_every_item_once(void **state) {
  (void)state;
  for (size_t count = 0; count < 3000; count = count * 3 / 2 + 1)
    for (int ranks = 1; ranks < 600; ranks = 3 * ranks + 1)
      for (size_t models = 1; models <= 16; models *= 2) {
        mg_grid_group *groups = NULL;
        size_t group_count, next = 0;
        mg_grid_item *items = calloc(count + 1, sizeof *items);
        assert_non_null(items);
        for (size_t k = 0; k < count; k++) items[k].target = (uint32_t)(k / 37);
        assert_int_equal(mg_grid_cut(items, count, ranks, models, &groups, &group_count), MG_OK);
        for (size_t g = 0; g < group_count; g++) {
          assert_true(groups[g].first == next && groups[g].count >= 1 && groups[g].count <= models);
          assert_int_equal(items[next].target, items[next + groups[g].count - 1].target);
          next += groups[g].count;
        }
        assert_int_equal(next, count);
        if (count > 0 && ranks > 1) assert_int_equal(groups[group_count - 1].count, 1);
        free(items), free(groups);
      }
}

/* Leases: every batch that is not done, once; none that is; no longer than planned but for a batch. */
static void cut_leases(const mg_nxn_plan *plan, int ranks) {
  enum { N = 5 };
  const size_t batches = plan->batch_count;
  mg_nxn_part *parts = NULL;
  size_t count;
  int *seen = calloc(N * batches, sizeof *seen);
  bool *done = calloc(N * batches, sizeof *done);
  assert_true(seen != NULL && done != NULL);
  for (size_t k = 0; k < N * batches; k++) done[k] = ranks > 1 && sim_draw(k / 9, (uint64_t)ranks) > 0.5;
  assert_int_equal(mg_nxn_parts(plan, N, ranks, done, &parts, &count), MG_OK);
  for (size_t p = 0; p < count; p++) {
    const size_t last = parts[p].first + parts[p].count - 1;
    assert_true(mg_nxn_batch_flops(plan, plan->batch[parts[p].first], plan->batch[last]) <= plan->lease_flops);
    for (size_t b = parts[p].first; b <= last; b++) seen[parts[p].source * batches + b]++;
  }
  for (size_t k = 0; k < N * batches; k++) assert_int_equal(seen[k], !done[k]);
  free(seen), free(done), free(parts);
}

static void leases_hold_every_batch_once(void **state) {
  (void)state;
  mg_nxn_plan on_device = cores.nxn; /* shares what is allocated */
  mg_nxn_choose_leases(&on_device, 1, true);
  for (int ranks = 1; ranks < 20000; ranks *= 7) {
    cut_leases(&cores.nxn, ranks);
    cut_leases(&on_device, ranks);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_grid_is_under_five_percent_idle),
      cmocka_unit_test(nxn_is_under_five_percent_idle),
      cmocka_unit_test(on_devices_models_are_loaded_seldom),
      cmocka_unit_test(compatibility_takes_as_long_as_reading),
      cmocka_unit_test(ten_thousand_sources_are_bounded),
      cmocka_unit_test(a_master_that_is_too_slow_loses_nothing),
      cmocka_unit_test(the_same_twice),
      cmocka_unit_test(groups_hold_every_item_once),
      cmocka_unit_test(leases_hold_every_batch_once),
  };
  return cmocka_run_group_tests(tests, make_families, free_families);
}
