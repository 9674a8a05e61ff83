/*
 * Passes over a small family composed here: what a recipe comes to does not hang on the recipes beside it, threads, kernels,
 * memory, or on which part of a tensor is wanted; and recipes of the same text are the same merge.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_device.h"

#include "merge/merge_impl.h"
#include "mergegrid/io.h"

enum { SOURCES = 4, TENSORS = 6, MOST_RECIPES = 96, EMBED = 3 };

typedef struct shape {
  const char *name;
  int64_t rows, columns; /* rows 0: one axis */
} shape;

/* In the family's order. A row longer than a tile; 300 rows of which a few are wanted; what only sources have. */
static const shape SHAPES[TENSORS] = {{"head.w", 5, 8},         {"m.layer.0.b", 0, 37}, {"m.layer.0.w", 40, 33},
                                      {"m.layer.1.w", 3, 9001}, {"m.tall", 300, 70},    {"one", 0, 1}};
enum { HEAD = 0, LONG_ROWS = 3, TALL = 4 };

/* Methods, sources as digits, then parameters. Of those that go by weights the second source weighs most. */
static const char *const RECIPES[] = {
    "linear 013",
    "linear 013 lambda=0.5",
    "linear 013 mask_rate=0.3",
    "average 013",
    "average 0123 mask_rate=0.5",
    "task_arithmetic 013",
    "task_arithmetic 013 normalize=true lambda=1",
    "task_arithmetic 013 dare_drop_rate=0.7",
    "ties 013",
    "ties 0123 zeros=majority density=0.9",
    "ties 0123 zeros=majority trim=global density=0.8",
    "ties 013 weighted=true equal_votes=true combine=max",
    "ties 012 dare_drop_rate=0.5 trim=global zeros=majority",
    "dare_linear 013 rescale=l1",
    "dare_linear 013 linear_layers=true",
    "dare_ties 013 zeros=majority",
    "magmax 013",
    "breadcrumbs 013",
    "breadcrumbs_ties 013 gamma=0.1 combine=sum",
    "ram 013 epsilon=0.02",
    "ramplus_tl 013 epsilon=0.02",
    "model_stock 013",
    "model_stock 013 filter_wise=true",
    "directional_consensus 013",
    "directional_consensus 013 mask_rate=0.2 dare_drop_rate=0.4",
    "fisher_simple 013",
    "fisher_simple 013 mask_rate=0.5",
    "slerp 013",
    "multislerp 013",
    "multislerp 013 of=theta",
    "karcher 013",
    "layer_swap 13 layers=1",
    "layer_swap 13 layers=1 rest=second",
    "exclude_layers 013 layers=0",
    "include_layers 013 layers=bottom elsewhere=best_source",
    "neuromerging 013",
    "neuromerging 0123 lambda1=0.5 mask_rate=0",
    "della 013",
    "della 013 rescale=inverse zeros=majority",
    "della_linear 013 rescale=none",
    "nuslerp 13",
    "nuslerp 13 flatten=false of=theta",
    "nuslerp 13 flatten=false row_wise=true",
    "sce 013",
    "sce 013 select_topk=0.3",
    "nearswap 13 t=0.02",
    "nearswap 2 t=0.02",
    "arcee_fusion 13",
    "arcee_fusion 0",
};
enum { RECIPE_COUNT = sizeof RECIPES / sizeof *RECIPES };

static const char *const IDS[SOURCES] = {"s0", "s1", "s2", "s3"};
static char dir[64];
static mg_source items[SOURCES];
static mg_family *family;
static mg_rows *rows;
static mg_deltas deltas;

static int64_t elements(const shape *s) { return (s->rows > 0 ? s->rows : 1) * s->columns; }

/* ---- the family ---- */

static double base_value(int t, int64_t k) { return (double)((k * 7 + t) % 61 - 30) / 64; }

/* Some changes are small multiples of 1/64, so that votes cancel and magnitudes are equal; in rows that no one touched none. */
static double change_of(int s, int t, int64_t k) {
  const uint32_t hash = (uint32_t)(k * 2654435761U) ^ (uint32_t)(s * 40503 + t * 977) * 2246822519U;
  if (t == TALL && k / 70 % 7 == 3) return 0;
  if (t == 2 || k % 5 == 0) return (double)((int)(hash >> 20) % 5 - 2) / 64;
  return sin((double)(hash >> 8)) * 0.03;
}

static void write_tensor(FILE *file, int s, int t) {
  for (int64_t k = 0; k < elements(&SHAPES[t]); k++) {
    const float value = (float)((t == HEAD ? 0 : base_value(t, k)) + (s < 0 ? 0 : change_of(s, t, k)));
    fwrite(&value, sizeof value, 1, file);
  }
}

static void write_checkpoint(const char *name, int s) {
  mg_text header = {0};
  char path[128];
  int64_t at = 0;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  assert_int_equal(mg_make_dirs(path), MG_OK);
  snprintf(path, sizeof path, "%s/%s/config.json", dir, name);
  assert_int_equal(mg_replace_file(path, "{}", 2), MG_OK);
  for (int t = s < 0 ? HEAD + 1 : HEAD; t < TENSORS; t++) {
    const shape *own = &SHAPES[t];
    const long long bytes = (long long)elements(own) * 4;
    mg_text_append(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", header.size ? "," : "{", own->name);
    if (own->rows > 0) mg_text_append(&header, "%lld,", (long long)own->rows);
    mg_text_append(&header, "%lld],\"data_offsets\":[%lld,%lld]}", (long long)own->columns, (long long)at,
                   (long long)at + bytes);
    at += bytes;
  }
  mg_text_append(&header, "}");
  snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, name);
  FILE *file = fopen(path, "wb");
  const uint64_t size = header.size;
  fwrite(&size, 8, 1, file);
  fwrite(header.data, 1, header.size, file);
  for (int t = s < 0 ? HEAD + 1 : HEAD; t < TENSORS; t++) write_tensor(file, s, t);
  fclose(file);
  mg_text_free(&header);
}

static int make_family(void **state) {
  (void)state;
  const mg_strings none = {0};
  char base[80];
  strcpy(dir, "/tmp/test_merge_XXXXXX");
  if (mkdtemp(dir) == NULL) return -1;
  snprintf(base, sizeof base, "%s/base", dir);
  write_checkpoint("base", -1);
  for (int s = 0; s < SOURCES; s++) {
    write_checkpoint(IDS[s], s);
    items[s] = (mg_source){.id = (char *)(uintptr_t)IDS[s], .locale = (char *)(uintptr_t)IDS[s]};
    if (asprintf(&items[s].path, "%s/%s", dir, IDS[s]) < 0) return -1;
  }
  const mg_source_list list = {.count = SOURCES, .items = items};
  if (mg_family_open(base, &list, &none, &family) != MG_OK) fail_msg("%s", mg_error_message());
  assert_int_equal(mg_rows_open_checkpoints(family, 8, &rows), MG_OK);
  deltas = (mg_deltas){.rows = rows};
  for (int t = 0; t < TENSORS; t++) assert_string_equal(mg_rows_table(rows)->tensors[t].name, SHAPES[t].name);
  return 0;
}

static int remove_family(void **state) {
  (void)state;
  char command[128];
  mg_rows_close(&rows);
  mg_family_close(&family);
  for (int s = 0; s < SOURCES; s++) free(items[s].path);
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  return system(command);
}

/* ---- recipes ---- */

typedef struct owned {
  mg_recipe recipe;
  int source[SOURCES];
  const char *id[SOURCES];
  double weight[SOURCES];
} owned;

static void read_recipe(const char *text, owned *to) {
  char copy[128], *rest, *word;
  snprintf(copy, sizeof copy, "%s", text);
  *to = (owned){.recipe = {.source = to->source, .id = to->id, .weight = to->weight, .best = 1, .base = -1, .seed = 42}};
  mg_recipe *r = &to->recipe;
  if (mg_method_find(strtok_r(copy, " ", &rest), &r->method) != MG_OK) fail_msg("%s", mg_error_message());
  mg_method_defaults(r->method, r->values);
  for (const char *digit = strtok_r(NULL, " ", &rest); *digit != '\0'; digit++) {
    to->source[r->count] = *digit - '0';
    to->id[r->count] = IDS[*digit - '0'];
    to->weight[r->count] = r->count == 1 ? 2 : 1;
    r->count++;
  }
  for (size_t k = 0; k < r->count; k++) to->weight[k] /= (double)(r->count > 1 ? r->count + 1 : 1);
  if (r->count == 1) r->best = 0, to->weight[0] = 1;
  while ((word = strtok_r(NULL, " ", &rest)) != NULL) {
    char *value = strchr(word, '=');
    *value = '\0';
    if (mg_method_set(r->method, word, value + 1, r->values) != MG_OK) fail_msg("%s", mg_error_message());
  }
}

static owned all[MOST_RECIPES];

/* With a head that is the method's, or a random one. */
static void read_all(mg_head_policy head, int base) {
  for (size_t k = 0; k < RECIPE_COUNT; k++) {
    read_recipe(RECIPES[k], &all[k]);
    all[k].recipe.head = head;
    all[k].recipe.base = base;
  }
}

/* ---- running ---- */

typedef struct wanted {
  mg_range ranges[TENSORS + 300];
  size_t count;
  size_t floats;
} wanted;

static void want(wanted *w, size_t tensor, int64_t first, int64_t count) {
  w->ranges[w->count++] = (mg_range){.tensor = tensor, .first = first, .count = count, .offset = w->floats};
  w->floats += (size_t)count;
}

/* Everything; or of the tall tensor a few rows, and nothing between tensors or before the first one. */
static wanted want_all(bool few) {
  wanted w = {0};
  for (size_t t = 0; t < TENSORS; t++) {
    w.floats += few ? 16 : 0;
    if (t == TALL && few)
      want(&w, t, 10 * 70, 140 * 70), want(&w, t, 200 * 70, 70), want(&w, t, 299 * 70, 70);
    else
      want(&w, t, 0, elements(&SHAPES[t]));
  }
  return w;
}

/* Of the tall tensor every row by itself. */
static wanted want_rows(void) {
  wanted w = {0};
  for (size_t t = 0; t < TENSORS; t++)
    for (int64_t r = 0; r < (t == TALL ? SHAPES[t].rows : 1); r++)
      want(&w, t, r * SHAPES[t].columns, t == TALL ? SHAPES[t].columns : elements(&SHAPES[t]));
  return w;
}

/* Where a device merges to, and what it holds of the sources. */
typedef struct elsewhere {
  mg_merge_device merge;
  float *out[MOST_RECIPES];
  size_t count, bytes;
} elsewhere;

static void open_elsewhere(elsewhere *e, const mg_store *store, size_t count, const wanted *w) {
  mg_device *device = test_device();
  *e = (elsewhere){.count = count, .bytes = w->floats * sizeof(float)};
  e->merge.device = device;
  e->merge.out = e->out;
  assert_int_equal(device->ops->open_queue(device, false, &e->merge.queue), MG_OK);
  for (size_t k = 0; k < count; k++)
    assert_int_equal(device->ops->take(device, e->bytes, "a merge", (void **)&e->out[k]), MG_OK);
  if (store == NULL) return;
  const mg_range *last = &store->ranges[store->range_count - 1];
  const size_t floats = last->offset + (size_t)last->count + MG_STORE_SLACK;
  assert_int_equal(mg_device_store_create(device, e->merge.queue, store, SOURCES, floats, 0, &e->merge.store), MG_OK);
  for (int s = MG_ROW_BASE; s < SOURCES; s++) { /* what the host has not is read */
    bool added;
    assert_int_equal(mg_device_store_add(e->merge.store, e->merge.queue, &deltas, s, NULL, NULL, NULL, &added), MG_OK);
    assert_true(added);
  }
}

/* Merges that the device has not done are in the host's block, which began as NaN; all are fetched. */
static void close_elsewhere(elsewhere *e, float *block, size_t floats, size_t *by_device) {
  const mg_device_ops *ops = e->merge.device->ops;
  float *fetched;
  assert_int_equal(ops->pin(e->merge.device, e->bytes, (void **)&fetched), MG_OK);
  for (size_t k = 0; k < e->count; k++) {
    assert_int_equal(ops->download(e->merge.queue, fetched, e->out[k], e->bytes), MG_OK);
    assert_int_equal(ops->finish(e->merge.queue), MG_OK);
    for (size_t i = 0; i < floats; i++) *by_device += isnan(block[k * floats + i]) ? 1 : 0;
    memcpy(block + k * floats, fetched, e->bytes);
  }
  mg_device_store_destroy(&e->merge.store);
  ops->close_queue(e->merge.queue);
  for (size_t k = 0; k < e->count; k++) ops->give(e->merge.device, e->out[k]);
  ops->unpin(e->merge.device, fetched);
}

static bool host_alone;
static size_t by_device; /* elements */

/* The merges of `count` recipes, a block each; the caller frees. */
static float *run(const owned *recipes, size_t count, const wanted *w, const mg_store *store, mg_quantities *known,
                  int threads) {
  mg_recipe list[MOST_RECIPES];
  float *block = calloc(count * w->floats, sizeof *block), *out[MOST_RECIPES];
  mg_quantities *own = NULL;
  mg_pass *pass = NULL;
  elsewhere there = {0};
  const bool device = test_device() != NULL && !host_alone;
  if (device) open_elsewhere(&there, store, count, w);
  for (size_t k = 0; device && k < count * w->floats; k++) block[k] = NAN;
  for (size_t k = 0; k < count; k++) list[k] = recipes[k].recipe, out[k] = block + k * w->floats;
  if (known == NULL) assert_int_equal(mg_quantities_create(&own), MG_OK);
  const mg_pass_terms terms = {.deltas = &deltas,
                               .store = store,
                               .quantities = known != NULL ? known : own,
                               .recipes = list,
                               .count = count,
                               .threads = threads,
                               .device = there.merge};
  assert_int_equal(mg_pass_create(&terms, &pass), MG_OK);
  if (mg_pass_run(pass, w->ranges, w->count, out, NULL, NULL) != MG_OK) fail_msg("%s", mg_error_message());
  for (size_t k = 0; k < count; k++)
    if (mg_pass_failure(pass, k) != NULL) fail_msg("%s: %s", list[k].method->name, mg_pass_failure(pass, k));
  mg_pass_destroy(&pass);
  mg_quantities_destroy(&own);
  if (device) close_elsewhere(&there, block, w->floats, &by_device);
  return block;
}

static void assert_same(const float *a, const float *b, size_t count, size_t recipe, const char *what) {
  for (size_t k = 0; k < count; k++)
    if (memcmp(&a[k], &b[k], sizeof *a) != 0)
      fail_msg("%s: %s: float %zu is %a, not %a", RECIPES[recipe], what, k, (double)b[k], (double)a[k]);
}

/* Each recipe alone, over whole tensors, by one portable thread. */
static float *one_by_one(const wanted *whole) {
  float *block = malloc(RECIPE_COUNT * whole->floats * sizeof *block);
  setenv("MERGEGRID_KERNEL", "portable", 1);
  host_alone = true;
  for (size_t k = 0; k < RECIPE_COUNT; k++) {
    float *alone = run(&all[k], 1, whole, NULL, NULL, 1);
    memcpy(block + k * whole->floats, alone, whole->floats * sizeof *block);
    free(alone);
  }
  unsetenv("MERGEGRID_KERNEL");
  host_alone = false;
  return block;
}

/* Two of the sources in memory, and the base. */
static mg_store make_store(const wanted *w, const float **tau, float **blocks) {
  static const int kept[] = {MG_ROW_BASE, 0, 3};
  const int count = sizeof kept / sizeof *kept;
  *blocks = calloc((size_t)count, (w->floats + MG_STORE_SLACK) * sizeof **blocks);
  for (int k = 0; k < count; k++) {
    float *block = *blocks + (size_t)k * (w->floats + MG_STORE_SLACK);
    assert_int_equal(mg_store_fill(&deltas, kept[k], w->ranges, w->count, block), MG_OK);
    if (kept[k] >= 0) tau[kept[k]] = block;
  }
  return (mg_store){.range_count = w->count, .ranges = w->ranges, .tau = tau, .base = *blocks};
}

/* A device that holds some ranges of the sources, and counts those, comes to the same. */
static void same_on_device(const mg_store *store, const wanted *w, const char *id, const mg_quantity *own, size_t count,
                           const double *values) {
  elsewhere there;
  double *again = calloc(count, sizeof *again);
  const mg_quantity_kind kinds[] = {MG_QUANTITY_RANK, MG_QUANTITY_DARE_L1, MG_QUANTITY_DELLA_L1, MG_QUANTITY_GLOBAL_SHARE};
  open_elsewhere(&there, store, 0, w);
  assert_int_equal(mg_quantities_compute(&deltas, &there.merge, id, own, count, NULL, NULL, again), MG_OK);
  for (size_t k = 0; k < count; k++)
    if (memcmp(&again[k], &values[k], sizeof *again) != 0)
      fail_msg("quantity %zu of kind %d: %a, not %a", k, (int)own[k].kind, again[k], values[k]);
  for (size_t m = 0; m < 2 * sizeof kinds / sizeof *kinds; m++) { /* of each kind all is counted there, or added up */
    const uint64_t before = mg_device_store_counted(there.merge.store);
    size_t first = 0;
    double value;
    while (first < count && (own[first].kind != (int32_t)kinds[m / 2] || (own[first].tensor == HEAD) != (m % 2))) first++;
    if (first == count) continue;
    assert_int_equal(mg_quantities_compute(&deltas, &there.merge, id, &own[first], 1, NULL, NULL, &value), MG_OK);
    assert_memory_equal(&value, &values[first], sizeof value);
    assert_true(mg_device_store_counted(there.merge.store) > before);
  }
  mg_device_store_destroy(&there.merge.store);
  there.merge.device->ops->close_queue(there.merge.queue);
  free(again);
}

/* What is asked for in advance, known before the pass. */
static mg_quantities *know_all(const mg_store *store, const wanted *w, const wanted *whole) {
  const mg_store none = {.range_count = whole->count, .ranges = whole->ranges};
  mg_quantities *known, *seen;
  mg_quantity_list list = {0};
  double value;
  assert_int_equal(mg_quantities_create(&known), MG_OK);
  assert_int_equal(mg_quantities_create(&seen), MG_OK);
  for (size_t k = 0; k < RECIPE_COUNT; k++)
    assert_int_equal(mg_recipe_quantities(&all[k].recipe, mg_rows_table(rows), seen, &list), MG_OK);
  for (int s = 0; s < SOURCES; s++) {
    mg_quantity *own = calloc(list.count, sizeof *own);
    double *values = calloc(list.count, sizeof *values);
    size_t count = 0;
    for (size_t k = 0; k < list.count; k++)
      if (list.items[k].source == s) own[count++] = list.items[k];
    assert_int_equal(mg_quantities_compute(&deltas, NULL, IDS[s], own, count, NULL, NULL, values), MG_OK);
    if (test_device() != NULL) same_on_device(store, w, IDS[s], own, count, values);
    if (test_device() != NULL && s == 0) same_on_device(&none, whole, IDS[s], own, count, values);
    for (size_t k = 0; k < count; k++) {
      assert_false(mg_quantities_find(known, &own[k], &value)); /* none is asked for twice */
      assert_int_equal(mg_quantities_put(known, &own[k], values[k]), MG_OK);
    }
    free(own), free(values);
  }
  free(list.items);
  mg_quantities_destroy(&seen);
  return known;
}

static void same_with(const float *alone, const wanted *whole, const float *together, const wanted *few, const char *what) {
  for (size_t k = 0; k < RECIPE_COUNT; k++)
    for (size_t r = 0; r < few->count; r++) {
      const mg_range *range = &few->ranges[r];
      const size_t from = whole->ranges[range->tensor].offset + (size_t)range->first;
      assert_same(alone + k * whole->floats + from, together + k * few->floats + range->offset, (size_t)range->count, k, what);
    }
}

/* A device does more than a third of what it is given by this list: what is element by element. */
static void any_way_the_same(mg_head_policy head, int base, uint64_t other_seed) {
  const wanted whole = want_all(false), few = want_all(true);
  const float *tau[SOURCES] = {NULL};
  float *blocks;
  read_all(head, base);
  for (size_t k = 1; k < RECIPE_COUNT; k += 3) all[k].recipe.seed = other_seed;
  by_device = 0;
  float *alone = one_by_one(&whole);
  float *together = run(all, RECIPE_COUNT, &few, NULL, NULL, 3);
  same_with(alone, &whole, together, &few, "with others, by three threads, in part");
  free(together);
  const mg_store store = make_store(&few, tau, &blocks);
  mg_quantities *known = know_all(&store, &few, &whole);
  together = run(all, RECIPE_COUNT, &few, &store, known, 2);
  same_with(alone, &whole, together, &few, "from memory, with what is known in advance");
  free(together);
  together = run(all, RECIPE_COUNT, &whole, &store, NULL, 2);
  same_with(alone, &whole, together, &whole, "partly from memory");
  free(together), free(alone), free(blocks);
  mg_quantities_destroy(&known);
  const double all_elements = (double)RECIPE_COUNT * (double)(few.floats + whole.floats);
  if (test_device() != NULL && (double)by_device < all_elements / 3) fail_msg("%zu of %g elements", by_device, all_elements);
}

static void head_by_method(void **state) {
  (void)state;
  any_way_the_same(MG_HEAD_METHOD, -1, 42);
}

static void head_linear_and_another_base(void **state) {
  (void)state;
  any_way_the_same(MG_HEAD_LINEAR, 2, 42);
}

static void head_random(void **state) {
  (void)state;
  any_way_the_same(MG_HEAD_RANDOM, -1, 42);
}

static void head_random_and_another_base(void **state) {
  (void)state;
  any_way_the_same(MG_HEAD_RANDOM, 2, 43);
}

/* By rank a device merges some pieces at a time; where votes cancel a second time. All but the long rows, which are the host's.
 */
static void rows_dropped(mg_head_policy head, int base) {
  static const char *const TEXTS[] = {"della 0123 zeros=majority", "della_linear 0123 rescale=inverse", "della 013 combine=max",
                                      "della_linear 13"};
  enum { COUNT = sizeof TEXTS / sizeof *TEXTS };
  static owned few[COUNT];
  const wanted apart = want_rows(), whole = want_all(false);
  const float *tau[SOURCES] = {NULL};
  float *blocks;
  const mg_store store = make_store(&apart, tau, &blocks);
  for (size_t k = 0; k < COUNT; k++) {
    read_recipe(TEXTS[k], &few[k]);
    few[k].recipe.head = head;
    few[k].recipe.base = base;
  }
  host_alone = true;
  float *want_them = run(few, COUNT, &whole, NULL, NULL, 1);
  host_alone = false, by_device = 0;
  float *together = run(few, COUNT, &apart, &store, NULL, 2);
  for (size_t k = 0; k < COUNT * whole.floats; k++)
    if (memcmp(&want_them[k], &together[k], sizeof *together) != 0)
      fail_msg("%s: float %zu is %a, not %a", TEXTS[k / whole.floats], k % whole.floats, (double)together[k],
               (double)want_them[k]);
  if (test_device() != NULL) assert_int_equal(by_device, COUNT * (whole.floats - (size_t)elements(&SHAPES[LONG_ROWS])));
  free(want_them), free(together), free(blocks);
}

static void rows_dropped_by_rank(void **state) {
  (void)state;
  rows_dropped(MG_HEAD_METHOD, -1);
  rows_dropped(MG_HEAD_RANDOM, 2); /* of all that, and of the head */
}

/* ---- the text of a recipe ---- */

static const char *const EQUAL[][2] = {{"linear 013", "similarity 013"},
                                       {"manual 013 mask_rate=0.3", "similarity_x_tv_compatibility 013 mask_rate=0.3"},
                                       {"linear 13 lambda=3", "manual 13 lambda=3"},
                                       {"task_arithmetic 013 lambda=0.25", "task_arithmetic 013 lambda=0.75 normalize=true"},
                                       {"linear 013 lambda=0.5", "task_arithmetic 013 lambda=0.5 weighted=true"}};

static char *canonical(owned *recipe, const char *text) {
  mg_text out = {0};
  if (text != NULL) read_recipe(text, recipe);
  recipe->recipe.head = MG_HEAD_METHOD;
  assert_int_equal(mg_recipe_canonical(&recipe->recipe, &out), MG_OK);
  return out.data;
}

/* Of recipes above no two are the same, but those that are; what does not matter is not in it. */
static void texts(void **state) {
  (void)state;
  const wanted whole = want_all(false);
  char *text[RECIPE_COUNT];
  read_all(MG_HEAD_METHOD, -1);
  for (size_t k = 0; k < RECIPE_COUNT; k++) text[k] = canonical(&all[k], NULL);
  float *merges = run(all, RECIPE_COUNT, &whole, NULL, NULL, 2);
  for (size_t a = 0; a < RECIPE_COUNT; a++)
    for (size_t b = 0; b < a; b++) {
      if (strchr(RECIPES[a], ' ')[1] != strchr(RECIPES[b], ' ')[1]) continue; /* whose sources differ, surely */
      const bool same = memcmp(merges + a * whole.floats, merges + b * whole.floats, whole.floats * sizeof *merges) == 0;
      if (strcmp(text[a], text[b]) == 0 && !same) fail_msg("%s and %s have one text", RECIPES[a], RECIPES[b]);
    }
  free(merges);
  for (size_t k = 0; k < RECIPE_COUNT; k++) free(text[k]);
  for (size_t k = 0; k < sizeof EQUAL / sizeof *EQUAL; k++) {
    owned one, other;
    char *a = canonical(&one, EQUAL[k][0]), *b = canonical(&other, EQUAL[k][1]);
    assert_string_equal(a, b);
    owned pair[2] = {one, other};
    for (int p = 0; p < 2; p++)
      pair[p].recipe.source = pair[p].source, pair[p].recipe.id = pair[p].id, pair[p].recipe.weight = pair[p].weight;
    float *both = run(pair, 2, &whole, NULL, NULL, 1);
    assert_memory_equal(both, both + whole.floats, whole.floats * sizeof *both);
    free(both), free(a), free(b);
  }
}

/* What only some recipes go by is in the text of those alone. */
static void texts_have_what_matters(void **state) {
  (void)state;
  static const struct {
    const char *recipe;
    bool weights, order, best, seed;
  } CASES[] = {{"linear 13", true, true, false, false},
               {"ties 13", false, false, false, false},
               {"layer_swap 13 layers=0", false, true, false, false},
               {"nearswap 13", false, true, false, false},
               {"nuslerp 13", true, true, false, false},
               {"exclude_layers 13", true, true, true, false},
               {"include_layers 13", true, true, false, false},
               {"include_layers 13 elsewhere=best_source", true, true, true, false},
               {"della 13", false, false, false, true},
               {"della 13 density=1", false, false, false, false},
               {"ties 13 dare_drop_rate=0.5", false, false, false, true}};
  for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
    owned recipe;
    char *before = canonical(&recipe, CASES[k].recipe);
    const double weights[3][2] = {{0.25, 0.75}, {2.0 / 3, 1.0 / 3}};
    for (int w = 0; w < 2; w++) {
      memcpy(recipe.weight, weights[w], sizeof weights[w]);
      char *after = canonical(&recipe, NULL);
      if ((strcmp(before, after) != 0) != (w == 0 ? CASES[k].weights : CASES[k].weights || CASES[k].order))
        fail_msg("%s: %s", CASES[k].recipe, after);
      free(after);
    }
    free(before);
    before = canonical(&recipe, CASES[k].recipe);
    recipe.recipe.best = 0;
    char *after = canonical(&recipe, NULL);
    assert_int_equal(strcmp(before, after) != 0, CASES[k].best);
    free(after), free(before);
    before = canonical(&recipe, CASES[k].recipe);
    recipe.recipe.seed = 43;
    after = canonical(&recipe, NULL);
    assert_int_equal(strcmp(before, after) != 0, CASES[k].seed);
    free(after), free(before);
  }
}

/* Of many elements that overflow, in all chunks, the same one is named, however many threads come upon them. */
static void test_first_failure(void **state) {
  (void)state;
  const wanted whole = want_all(false);
  char first[256] = "";
  float *block = calloc(2 * whole.floats, sizeof *block), *out[] = {block, block + whole.floats};
  read_all(MG_HEAD_METHOD, -1);
  for (int round = 0; round < 40; round++) {
    mg_recipe list[2] = {all[0].recipe, all[0].recipe}; /* linear: the second is whole */
    mg_quantities *known = NULL;
    mg_pass *pass = NULL;
    list[0].values[mg_method_parameter(list[0].method, "lambda")] = 1e60;
    assert_int_equal(mg_quantities_create(&known), MG_OK);
    const mg_pass_terms terms = {
        .deltas = &deltas, .quantities = known, .recipes = list, .count = 2, .threads = round == 0 ? 1 : 4};
    assert_int_equal(mg_pass_create(&terms, &pass), MG_OK);
    assert_int_equal(mg_pass_run(pass, whole.ranges, whole.count, out, NULL, NULL), MG_OK);
    if (mg_pass_failure(pass, 1) != NULL) fail_msg("%s", mg_pass_failure(pass, 1));
    assert_non_null(strstr(mg_pass_failure(pass, 0), "is not finite"));
    if (round == 0) snprintf(first, sizeof first, "%s", mg_pass_failure(pass, 0));
    assert_string_equal(mg_pass_failure(pass, 0), first);
    mg_pass_destroy(&pass);
    mg_quantities_destroy(&known);
  }
  free(block);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(rows_dropped_by_rank),
                                     cmocka_unit_test(test_first_failure),
                                     cmocka_unit_test(head_by_method),
                                     cmocka_unit_test(head_linear_and_another_base),
                                     cmocka_unit_test(head_random),
                                     cmocka_unit_test(head_random_and_another_base),
                                     cmocka_unit_test(texts),
                                     cmocka_unit_test(texts_have_what_matters)};
  return cmocka_run_group_tests(tests, make_family, remove_family);
}
