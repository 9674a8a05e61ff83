/*
 * The Gram engine on the real family: one set of bits whatever the threads, pair blocks, lease sizes, order of arrival and
 * source of the rows; and against inner products taken in double, element by element.
 */
#include "mergegrid/gram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "test_device.h"

enum { SOURCES = 10 };

static char dir[64];
static mg_source_list list;
static mg_family *family;
static mg_rows *rows;
static bool *selected;
static mg_strings exclude;

static int open_family(void **state) {
  (void)state;
  mg_family_spec spec = {.base = strdup(MG_TEST_DATA "/emoji48/xlm-roberta-emoji"),
                         .kind = MG_SOURCES_PATTERN,
                         .pattern = strdup(MG_TEST_DATA "/emoji48/xlm-roberta-emoji_k_{locale}")};
  if (mg_sources_resolve(&spec, NULL, NULL, &list) != MG_OK) return 1;
  while (list.count > SOURCES) {
    list.count--;
    free(list.items[list.count].id), free(list.items[list.count].locale), free(list.items[list.count].path);
  }
  mg_strings_add(&exclude, "classifier.*");
  if (mg_family_open(spec.base, &list, &exclude, &family) != MG_OK) return 1;
  mg_family_spec_free(&spec);
  selected = calloc(family->table.count, 1);
  strcpy(dir, "/tmp/test_gram_XXXXXX");
  return mg_select_tensors(&family->table, &exclude, selected) != MG_OK ||
         mg_rows_open_checkpoints(family, 16, &rows) != MG_OK || mkdtemp(dir) == NULL;
}

static int close_family(void **state) {
  (void)state;
  char command[128];
  mg_rows_close(&rows);
  mg_family_close(&family);
  mg_source_list_free(&list);
  mg_strings_free(&exclude);
  free(selected);
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  return system(command);
}

/* A whole Gram with leases of at most `leaves`, handed in in an order shuffled by seed. */
static mg_gram compute(mg_rows *from, mg_gram_level level, int block_rows, int threads, int64_t leaves, unsigned seed) {
  mg_gram_layout *layout = NULL;
  mg_gram_engine *engine = NULL;
  mg_gram_sum *sum = NULL;
  mg_gram_node *nodes = NULL;
  mg_gram gram;
  size_t count;
  const mg_ops *ops;
  assert_int_equal(mg_ops_get("auto", &ops), MG_OK);
  assert_int_equal(mg_gram_layout_create(mg_rows_table(from), selected, (int)mg_rows_sources(from), level, block_rows, &layout),
                   MG_OK);
  const mg_gram_terms terms = {.ops = ops, .device = test_device(), .threads = threads, .see = seed % 2 == 0};
  assert_int_equal(mg_gram_engine_create(layout, from, &terms, &engine), MG_OK);
  assert_int_equal(mg_gram_sum_create(layout, &sum), MG_OK);
  assert_int_equal(mg_gram_sum_missing(sum, leaves, &nodes, &count), MG_OK);
  for (size_t k = count; k > 1; k--) { /* Fisher-Yates */
    const size_t other = (size_t)rand_r(&seed) % k;
    const mg_gram_node swap = nodes[k - 1];
    nodes[k - 1] = nodes[other];
    nodes[other] = swap;
  }
  for (size_t k = 0; k < count; k++) {
    double *values = malloc(mg_gram_values(layout, nodes[k].block) * sizeof *values);
    assert_int_equal(mg_gram_compute(engine, &nodes[k], values, NULL, NULL), MG_OK);
    assert_int_equal(mg_gram_sum_add(sum, &nodes[k], values), MG_OK);
    if (k == 0) assert_int_equal(mg_gram_sum_add(sum, &nodes[k], values), MG_ERR_INTERNAL); /* twice */
    free(values);
  }
  assert_int_equal(mg_gram_collect(sum, &gram), MG_OK);
  free(nodes);
  mg_gram_sum_destroy(&sum);
  mg_gram_engine_destroy(&engine);
  mg_gram_layout_free(&layout);
  return gram;
}

static void assert_same_gram(const mg_gram *a, const mg_gram *b) {
  assert_int_equal(a->groups, b->groups);
  assert_memory_equal(a->dot, b->dot, a->groups * a->sources * a->sources * sizeof(double));
  assert_memory_equal(a->base_dot, b->base_dot, a->groups * a->sources * sizeof(double));
  assert_memory_equal(a->base_norm2, b->base_norm2, a->groups * sizeof(double));
}

static void assert_one_set_of_bits(mg_rows *from) {
  mg_gram reference = compute(from, MG_GRAM_TENSOR, 0, 1, 1 << 20, 1);
  const struct {
    int block_rows, threads;
    int64_t leaves;
  } ways[] = {{0, 1, 1}, {0, 1, 2}, {0, 3, 4}, {3, 1, 1}, {4, 2, 64}, {1, 1, 8}};
  for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
    mg_gram other = compute(from, MG_GRAM_TENSOR, ways[k].block_rows, ways[k].threads, ways[k].leaves, (unsigned)k);
    assert_same_gram(&reference, &other);
    mg_gram_free(&other);
  }
  setenv("MERGEGRID_KERNEL", "portable", 1);
  mg_gram portable = compute(from, MG_GRAM_TENSOR, 0, 1, 4, 9);
  unsetenv("MERGEGRID_KERNEL");
  assert_same_gram(&reference, &portable);
  mg_gram_free(&portable);
  mg_gram_free(&reference);
}

static void one_set_of_bits(void **state) {
  (void)state;
  assert_one_set_of_bits(rows);
}

/* Row of τ (or θ0) of a whole tensor, in double. */
static double *whole_row(int source, size_t tensor) {
  const int64_t numel = family->table.tensors[tensor].numel;
  double *out = malloc((size_t)numel * sizeof *out);
  float *buffer = aligned_alloc(64, MG_TILE * 4), *base = aligned_alloc(64, MG_TILE * 4), scale = 1;
  void *staging = aligned_alloc(64, mg_rows_staging_bytes());
  for (int64_t first = 0; first < numel; first += MG_TILE) {
    const int64_t count = numel - first < MG_TILE ? numel - first : MG_TILE;
    assert_int_equal(
        mg_rows_read(rows, &source, source < 0 ? 0 : 1, tensor, first, count, buffer, MG_TILE * 4, &scale, base, staging),
        MG_OK);
    for (int64_t k = 0; k < count; k++) out[first + k] = (double)(source < 0 ? base : buffer)[k];
  }
  free(buffer), free(base), free(staging);
  return out;
}

static void round_row(double *row, int64_t count) {
  for (int64_t k = 0; k < count; k++) {
    const float value = (float)row[k];
    uint16_t rounded;
    float back;
    mg_from_f32(&rounded, &value, MG_BF16, 1, 1);
    mg_to_f32(&back, &rounded, MG_BF16, 1, 1);
    row[k] = (double)back;
  }
}

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += a[k] * b[k];
  return sum;
}

static void agrees_with_double(void **state) {
  (void)state;
  mg_gram gram = compute(rows, MG_GRAM_TENSOR, 0, 2, 8, 3);
  for (size_t t = 0; t < family->table.count; t += 5) {
    const int64_t numel = family->table.tensors[t].numel;
    double *a = whole_row(2, t), *b = whole_row(7, t), *base = whole_row(MG_ROW_BASE, t);
    const double aa = dot(a, a, numel), bb = dot(b, b, numel), zz = dot(base, base, numel);
    const double *g = gram.dot + t * SOURCES * SOURCES;
    assert_true(fabs(g[2 * SOURCES + 7] - dot(a, b, numel)) <= 1e-7 * sqrt(aa * bb));
    assert_true(g[2 * SOURCES + 7] == g[7 * SOURCES + 2]);
    assert_true(fabs(g[2 * SOURCES + 2] - aa) <= 1e-7 * aa);
    assert_true(fabs(gram.base_dot[t * SOURCES + 7] - dot(base, b, numel)) <= 1e-7 * sqrt(zz * bb));
    assert_true(fabs(gram.base_norm2[t] - zz) <= 1e-7 * zz);
    free(a), free(b), free(base);
  }
  mg_gram_free(&gram);
}

/* The family's shards under dir/name. */
static mg_rows *pack(const char *name, mg_dtype dtype) {
  char to[128];
  snprintf(to, sizeof to, "%s/%s", dir, name);
  assert_int_equal(mkdir(to, 0777), 0);
  mg_pack_job job = {.family = family, .dir = to, .dtype = MG_F32};
  mg_pack_outcome outcome;
  mg_shard *base = NULL;
  mg_rows *packed = NULL;
  assert_int_equal(mg_shard_pack(&job, &outcome), MG_OK);
  assert_int_equal(outcome, MG_PACK_WRITTEN);
  char *path = mg_shard_base_path(to);
  assert_int_equal(mg_shard_open(path, &base), MG_OK);
  job.base_hash = base->checkpoint_hash;
  job.dtype = dtype;
  for (size_t k = 0; k < list.count; k++) {
    job.source = &list.items[k];
    job.index = k;
    assert_int_equal(mg_shard_pack(&job, &outcome), MG_OK);
    assert_int_equal(outcome, MG_PACK_WRITTEN);
    assert_int_equal(mg_shard_pack(&job, &outcome), MG_OK);
    assert_int_equal(outcome, MG_PACK_UNCHANGED);
  }
  assert_int_equal(mg_rows_open_shards(to, &list, 4, &packed), MG_OK);
  mg_shard_close(&base);
  free(path);
  return packed;
}

static void shards_give_the_same_bits(void **state) {
  (void)state;
  mg_rows *packed = pack("f32", MG_F32);
  mg_gram direct = compute(rows, MG_GRAM_TENSOR, 0, 1, 16, 1), shards = compute(packed, MG_GRAM_TENSOR, 0, 2, 2, 5);
  assert_same_gram(&direct, &shards);
  mg_gram_free(&direct);
  mg_gram_free(&shards);
  mg_rows_close(&packed);
}

/* Rows in chains: whole tiles and rectangles, tensors of any length, and inner products of what the rounded rows hold. */
static void bfloat_shards_have_one_set_of_bits(void **state) {
  (void)state;
  mg_rows *packed = pack("bf16", MG_BF16);
  assert_true(mg_gram_is_chained(packed) && !mg_gram_is_chained(rows));
  assert_one_set_of_bits(packed);
  mg_gram gram = compute(packed, MG_GRAM_TENSOR, 0, 2, 8, 2);
  for (size_t t = 0; t < family->table.count; t += 5) {
    const int64_t numel = family->table.tensors[t].numel;
    double *a = whole_row(2, t), *b = whole_row(7, t), *base = whole_row(MG_ROW_BASE, t);
    round_row(a, numel), round_row(b, numel);
    const double aa = dot(a, a, numel), bb = dot(b, b, numel), zz = dot(base, base, numel);
    const double *g = gram.dot + t * SOURCES * SOURCES;
    assert_true(fabs(g[2 * SOURCES + 7] - dot(a, b, numel)) <= 1e-7 * sqrt(aa * bb));
    assert_true(fabs(g[2 * SOURCES + 2] - aa) <= 1e-7 * aa);
    assert_true(fabs(gram.base_dot[t * SOURCES + 7] - dot(base, b, numel)) <= 1e-7 * sqrt(zz * bb));
    free(a), free(b), free(base);
  }
  mg_gram_free(&gram);
  mg_rows_close(&packed);
}

static void levels_add_up(void **state) {
  (void)state;
  mg_gram by_tensor = compute(rows, MG_GRAM_TENSOR, 0, 1, 64, 1), by_layer = compute(rows, MG_GRAM_LAYER, 0, 1, 2, 2);
  mg_gram total = compute(rows, MG_GRAM_TOTAL, 0, 1, 16, 3);
  assert_int_equal(by_layer.groups, 4 + 2); /* four layers, the rest, the head */
  assert_int_equal(total.groups, 3);
  double sums[3] = {0};
  for (size_t g = 0; g < by_tensor.groups; g++) sums[0] += by_tensor.dot[g * SOURCES * SOURCES + 13];
  for (size_t g = 0; g < by_layer.groups; g++) sums[1] += by_layer.dot[g * SOURCES * SOURCES + 13];
  for (size_t g = 0; g < total.groups; g++) sums[2] += total.dot[g * SOURCES * SOURCES + 13];
  assert_true(fabs(sums[0] - sums[1]) <= 1e-12 * fabs(sums[0]) && fabs(sums[0] - sums[2]) <= 1e-12 * fabs(sums[0]));
  mg_gram_free(&by_tensor), mg_gram_free(&by_layer), mg_gram_free(&total);
}

static bool take_all(const mg_gram_group *group, const void *context) {
  (void)group, (void)context;
  return true;
}

static void cosines_by_hand(void **state) {
  (void)state;
  double dots[9] = {4, 2, 0, 2, 9, 0, 0, 0, 0}, cosine[9];
  mg_gram_group group = {.selected = true};
  const mg_gram_layout layout = {.sources = 3, .group_count = 1, .groups = &group};
  const mg_gram gram = {.groups = 1, .sources = 3, .dot = dots};
  assert_int_equal(mg_gram_cosine(&layout, &gram, take_all, NULL, cosine), MG_OK);
  assert_true(cosine[0] == 1 && cosine[4] == 1 && isnan(cosine[8]) && isnan(cosine[2]));
  assert_true(fabs(cosine[1] - 1.0 / 3) < 1e-16 && cosine[1] == cosine[3]);
  const double matrix[9] = {1, 2, NAN, 4, 1, 6, 7, 8, 1};
  const mg_matrix_statistics s = mg_matrix_off_diagonal(matrix, 3);
  assert_int_equal(s.count, 5);
  assert_true(fabs(s.mean - 5.4) < 1e-15 && s.min == 2 && s.max == 8 && fabs(s.std - sqrt(4.64)) < 1e-15);
}

static void incomplete_sums_are_refused(void **state) {
  (void)state;
  mg_gram_layout *layout = NULL;
  mg_gram_sum *sum = NULL;
  mg_gram gram;
  bool covered, partly;
  assert_int_equal(mg_gram_layout_create(&family->table, selected, SOURCES, MG_GRAM_TOTAL, 0, &layout), MG_OK);
  assert_int_equal(mg_gram_sum_create(layout, &sum), MG_OK);
  assert_int_equal(mg_gram_collect(sum, &gram), MG_ERR_INTERNAL);
  double *values = calloc(mg_gram_values(layout, 0), sizeof *values);
  mg_gram_node node = {.group = 0, .level = 0, .index = layout->groups[0].leaves};
  assert_int_equal(mg_gram_sum_add(sum, &node, values), MG_ERR_INTERNAL); /* behind the end */
  node.index = 1;
  assert_int_equal(mg_gram_sum_add(sum, &node, values), MG_OK);
  node = (mg_gram_node){.level = 1};
  mg_gram_sum_covers(sum, &node, &covered, &partly);
  assert_true(partly && !covered);
  assert_int_equal(mg_gram_sum_add(sum, &node, values), MG_ERR_INTERNAL); /* overlaps */
  node = (mg_gram_node){.block = 7};
  assert_int_equal(mg_gram_sum_add(sum, &node, values), MG_ERR_INTERNAL);
  free(values);
  mg_gram_sum_destroy(&sum);
  mg_gram_layout_free(&layout);
}

/* Every leaf is some share's, whatever the number of shares. */
static void shares_are_disjoint_and_all(void **state) {
  (void)state;
  mg_gram_layout *layout = NULL;
  assert_int_equal(mg_gram_layout_create(mg_rows_table(rows), selected, (int)mg_rows_sources(rows), MG_GRAM_TENSOR, 3, &layout),
                   MG_OK);
  const int64_t all = mg_gram_leaves(layout);
  for (int64_t shares = 1; shares <= 7; shares += 2) {
    mg_gram_sum *sum = NULL;
    mg_gram_node *nodes = NULL;
    size_t count;
    assert_int_equal(mg_gram_sum_create(layout, &sum), MG_OK);
    for (int64_t k = 0; k < shares; k++) {
      int64_t leaves = 0;
      assert_int_equal(mg_gram_sum_missing_in(sum, 8, k * all / shares, (k + 1) * all / shares, &nodes, &count), MG_OK);
      for (size_t n = 0; n < count; n++) {
        double *values = calloc(mg_gram_values(layout, nodes[n].block), sizeof *values);
        const int64_t begin = nodes[n].index << nodes[n].level, group = layout->groups[nodes[n].group].leaves;
        const int64_t end = begin + (INT64_C(1) << nodes[n].level);
        leaves += (end < group ? end : group) - begin;
        assert_int_equal(mg_gram_sum_add(sum, &nodes[n], values), MG_OK); /* overlaps nothing */
        free(values);
      }
      assert_int_equal(leaves, (k + 1) * all / shares - k * all / shares);
      free(nodes);
    }
    assert_int_equal(mg_gram_sum_missing(sum, 8, &nodes, &count), MG_OK);
    assert_int_equal(count, 0);
    free(nodes);
    mg_gram_sum_destroy(&sum);
  }
  mg_gram_layout_free(&layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(one_set_of_bits),
                                     cmocka_unit_test(agrees_with_double),
                                     cmocka_unit_test(shards_give_the_same_bits),
                                     cmocka_unit_test(bfloat_shards_have_one_set_of_bits),
                                     cmocka_unit_test(levels_add_up),
                                     cmocka_unit_test(cosines_by_hand),
                                     cmocka_unit_test(incomplete_sums_are_refused),
                                     cmocka_unit_test(shares_are_disjoint_and_all)};
  return cmocka_run_group_tests(tests, open_family, close_family);
}
