/*
 * Shards of a small family composed here: what is stored against a plain computation in double, every flipped bit found, and
 * nothing left behind by a packing that ends early.
 */
#include "mergegrid/shard.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/stop.h"
#include "unit/scratch.h"

enum { TENSORS = 5 };
static const int64_t NUMEL[TENSORS] = {1, MG_LEAF - 1, MG_LEAF, MG_LEAF + 1, 70001};
/* Element k of tensor t: of the base, and of source s. All exact in F16 and BF16 for s = 0. */
static double base_value(int t, int64_t k) { return (double)((k * 7 + t) % 61 - 30) / 64; }
static double source_value(int s, int t, int64_t k) {
  return base_value(t, k) + (s == 0 ? (double)((k + t) % 5 - 2) / 64 : sin((double)k * 0.01 + t) * 1e-3);
}

static void write_tensor(FILE *file, mg_dtype dtype, int s, int t) {
  for (int64_t k = 0; k < NUMEL[t]; k++) {
    const double value = s < 0 ? base_value(t, k) : source_value(s, t, k);
    const float single = (float)value;
    uint16_t half;
    if (dtype == MG_F64)
      fwrite(&value, 8, 1, file);
    else if (dtype == MG_F32)
      fwrite(&single, 4, 1, file);
    else {
      mg_from_f32(&half, &single, dtype, 1, 1);
      fwrite(&half, 2, 1, file);
    }
  }
}

/* s = −1: the base, which has no head (the last tensor). */
static void write_checkpoint(const char *name, mg_dtype dtype, int s) {
  static const char *const names[TENSORS] = {"m.layer.0.a", "m.layer.0.b", "m.layer.1.c", "m.layer.1.d", "head.w"};
  mg_text header = {0};
  int64_t at = 0;
  char *path = in_dir(name), *file_path, *config;
  assert_int_equal(mg_make_dirs(path), MG_OK);
  assert_true(asprintf(&file_path, "%s/model.safetensors", path) > 0 && asprintf(&config, "%s/config.json", path) > 0);
  assert_int_equal(mg_replace_file(config, "{}", 2), MG_OK);
  const int count = s < 0 ? TENSORS - 1 : TENSORS;
  for (int t = 0; t < count; t++) {
    const int64_t bytes = NUMEL[t] * (int64_t)mg_dtype_size(dtype);
    mg_text_append(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld],\"data_offsets\":[%lld,%lld]}", t ? "," : "{",
                   names[t], mg_dtype_name(dtype), (long long)NUMEL[t], (long long)at, (long long)(at + bytes));
    at += bytes;
  }
  mg_text_append(&header, "}");
  FILE *file = fopen(file_path, "wb");
  const uint64_t size = header.size;
  fwrite(&size, 8, 1, file);
  fwrite(header.data, 1, header.size, file);
  for (int t = 0; t < count; t++) write_tensor(file, dtype, s, t);
  fclose(file);
  mg_text_free(&header);
  free(path), free(file_path), free(config);
}

typedef struct fixture {
  mg_family *family;
  mg_source items[2];
  mg_source_list list;
  char *base;
} fixture;

static void make_family(fixture *f, mg_dtype base, mg_dtype sources) {
  *f = (fixture){.base = in_dir("base")};
  static char ids[2][4] = {"s0", "s1"};
  const mg_strings none = {0};
  write_checkpoint("base", base, -1);
  for (int s = 0; s < 2; s++) {
    write_checkpoint(ids[s], sources, s);
    f->items[s] = (mg_source){.id = ids[s], .locale = ids[s], .path = in_dir(ids[s])};
  }
  f->list = (mg_source_list){.count = 2, .items = f->items};
  if (mg_family_open(f->base, &f->list, &none, &f->family) != MG_OK) fail_msg("%s", mg_error_message());
}

static void free_family(fixture *f) {
  mg_family_close(&f->family);
  free(f->items[0].path), free(f->items[1].path), free(f->base);
}

static char *pack(const fixture *f, int s, mg_dtype dtype, mg_pack_outcome *outcome) {
  char *shards = in_dir("shards"), *base = mg_shard_base_path(shards);
  mg_pack_job job = {.family = f->family, .dir = shards, .dtype = MG_F32};
  mg_shard *shard = NULL;
  assert_int_equal(mg_make_dirs(shards), MG_OK);
  if (mg_shard_pack(&job, outcome) != MG_OK) fail_msg("%s", mg_error_message());
  assert_int_equal(mg_shard_open(base, &shard), MG_OK);
  job.source = &f->items[s];
  job.index = (size_t)s;
  job.dtype = dtype;
  job.base_hash = shard->checkpoint_hash;
  if (mg_shard_pack(&job, outcome) != MG_OK) fail_msg("%s", mg_error_message());
  char *path = mg_shard_path(shards, f->items[s].id);
  mg_shard_close(&shard);
  free(shards), free(base);
  return path;
}

/* Of all places in a cache line where a tensor might begin, that of most elements is its first. */
static void check_lines(const mg_shard *shard) {
  int64_t at[64] = {0};
  for (size_t t = 0; t < shard->table.count; t++) {
    const mg_tensor *tensor = &shard->table.tensors[t];
    at[(shard->data_offset + (uint64_t)tensor->offset * mg_dtype_size(shard->dtype)) % 64] += tensor->numel;
  }
  for (size_t k = 1; k < 64; k++)
    if (at[k] > at[0])
      fail_msg("%lld elements lie %zu bytes behind a line's begin, and %lld at it", (long long)at[k], k, (long long)at[0]);
}

/* The stored values against θ − θ0 in double. */
static void check_values(const fixture *f, const char *path, int s, double bound) {
  mg_shard *shard = NULL;
  assert_int_equal(mg_shard_open(path, &shard), MG_OK);
  assert_int_equal(shard->table.elements, f->family->table.elements);
  check_lines(shard);
  const size_t size = mg_dtype_size(shard->dtype);
  const int fd = open(path, O_RDONLY);
  double error2 = 0, norm2 = 0;
  for (size_t t = 0; t < shard->table.count; t++) {
    const mg_tensor *tensor = &shard->table.tensors[t];
    int which = 0; /* the table is sorted by name: find which of ours it is by its length and head */
    while (NUMEL[which] != tensor->numel || (which == TENSORS - 1) != tensor->source_only) which++;
    for (int64_t k = 0; k < tensor->numel; k += k % 997 == 0 ? 1 : 7) {
      char raw[4];
      float value;
      const size_t block = shard->first_block[t] + (size_t)(k / MG_LEAF);
      assert_int_equal(mg_read_at(fd, path, raw, size, shard->data_offset + (uint64_t)(tensor->offset + k) * size), MG_OK);
      mg_to_f32(&value, raw, shard->dtype, 1, 1 / shard->scale[block]);
      const double exact = source_value(s, which, k) - (tensor->source_only ? 0 : base_value(which, k));
      error2 += ((double)value - exact) * ((double)value - exact);
      norm2 += exact * exact;
    }
  }
  close(fd);
  assert_true(sqrt(error2 / norm2) <= bound);
  assert_true(shard->rounding_error <= bound);
  if (bound > 1e-6) assert_true(shard->rounding_error > bound / 100);
  mg_shard_close(&shard);
}

static void values_of_every_type(void **state) {
  (void)state;
  const mg_dtype types[] = {MG_F64, MG_F32, MG_F16, MG_BF16};
  mg_pack_outcome outcome;
  for (size_t b = 0; b < 4; b++)
    for (size_t s = 0; s < 4; s++) {
      fixture f;
      make_family(&f, types[b], types[s]);
      char *path = pack(&f, 0, MG_F32, &outcome); /* exact whatever the types */
      check_values(&f, path, 0, 0);
      assert_int_equal(mg_shard_verify(path), MG_OK);
      free(path);
      free_family(&f);
    }
  fixture f;
  make_family(&f, MG_F64, MG_F64);
  const struct {
    mg_dtype dtype;
    double bound;
  } stores[] = {{MG_F32, 0x1p-24}, {MG_BF16, 0x1p-8}, {MG_F16, 0x1p-11}};
  for (size_t k = 0; k < 3; k++) {
    char *path = pack(&f, 1, stores[k].dtype, &outcome);
    assert_int_equal(outcome, MG_PACK_WRITTEN);
    check_values(&f, path, 1, stores[k].bound);
    free(pack(&f, 1, stores[k].dtype, &outcome));
    assert_int_equal(outcome, MG_PACK_UNCHANGED);
    free(path);
  }
  free_family(&f);
}

static void every_flipped_bit_is_found(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  fixture f;
  make_family(&f, MG_F32, MG_F32);
  char *path = pack(&f, 1, MG_BF16, &outcome), *data = NULL;
  size_t size;
  mg_shard *shard = NULL;
  assert_int_equal(mg_shard_open(path, &shard), MG_OK);
  assert_int_equal(mg_read_file(path, 1 << 26, &data, &size), MG_OK);
  const int fd = open(path, O_RDWR);
  for (size_t at = 0; at < size; at += at < shard->data_offset ? 3 : 40009) {
    const char flipped = (char)(data[at] ^ (1 << (at % 8)));
    assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
    if (mg_shard_verify(path) == MG_OK) fail_msg("a flipped bit at byte %zu was not found", at);
    assert_int_equal(pwrite(fd, &data[at], 1, (off_t)at), 1);
  }
  /* and located: element 65540 of the last tensor of the backbone is in its second block */
  const mg_tensor *tensor = &shard->table.tensors[0];
  for (size_t t = 0; t < shard->table.count; t++)
    if (shard->table.tensors[t].numel == 70001) tensor = &shard->table.tensors[t];
  const off_t at = (off_t)(shard->data_offset + (uint64_t)(tensor->offset + 65540) * 2);
  const char flipped = (char)(data[at] ^ 1);
  assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
  assert_int_equal(mg_shard_verify(path), MG_ERR_CORRUPT);
  assert_non_null(strstr(mg_error_message(), tensor->name));
  assert_non_null(strstr(mg_error_message(), "elements 65536 to 70000"));
  close(fd);
  for (size_t cut = 0; cut < size; cut += cut < 5000 ? 499 : 50021) {
    assert_int_equal(mg_replace_file(path, data, cut), MG_OK);
    assert_int_not_equal(mg_shard_verify(path), MG_OK);
  }
  mg_shard_close(&shard);
  free(data), free(path);
  free_family(&f);
}

static size_t count_files(const char *suffix) {
  size_t count = 0;
  char *path = in_dir("shards");
  DIR *list = opendir(path);
  for (const struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;)
    count += strstr(entry->d_name, suffix) != NULL;
  if (list != NULL) closedir(list);
  free(path);
  return count;
}

static void what_ends_early_leaves_nothing(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  fixture f;
  make_family(&f, MG_F32, MG_F32);
  char *shards = in_dir("shards");
  free(pack(&f, 1, MG_F32, &outcome));
  /* no space: a bound on the size of files stands in for a full disk */
  struct rlimit limit, small;
  getrlimit(RLIMIT_FSIZE, &limit);
  small = (struct rlimit){.rlim_cur = 300000, .rlim_max = limit.rlim_max};
  mg_stop_install(); /* SIGXFSZ becomes an error code */
  setrlimit(RLIMIT_FSIZE, &small);
  mg_pack_job job = {.family = f.family, .source = &f.items[0], .index = 0, .dir = shards, .dtype = MG_F32, .base_hash = 1};
  assert_int_equal(mg_shard_pack(&job, &outcome), MG_ERR_IO);
  setrlimit(RLIMIT_FSIZE, &limit);
  assert_int_equal(count_files(".tmp"), 0);
  assert_int_equal(count_files("s0.h5"), 0);
  free(shards);
  free_family(&f);
}

static mg_rows *shared_rows;

static void *read_many(void *seed) {
  unsigned random = (unsigned)(size_t)seed;
  const mg_tensor_table *table = mg_rows_table(shared_rows);
  float *row = aligned_alloc(64, 2 * MG_TILE * 4), *base = aligned_alloc(64, MG_TILE * 4), scale[2];
  void *staging = aligned_alloc(64, mg_rows_staging_bytes());
  size_t bad = 0;
  for (int k = 0; k < 300; k++) {
    const size_t t = (size_t)rand_r(&random) % table->count;
    const int64_t numel = table->tensors[t].numel,
                  first = numel > MG_TILE ? (int64_t)rand_r(&random) % (numel / MG_TILE) * MG_TILE : 0;
    const int64_t count = numel - first < MG_TILE ? numel - first : MG_TILE;
    const int ids[2] = {1, 0};
    bad += mg_rows_read(shared_rows, ids, 2, t, first, count, row, MG_TILE * 4, scale, base, staging) != MG_OK;
    int which = 0;
    while (NUMEL[which] != numel || (which == TENSORS - 1) != table->tensors[t].source_only) which++;
    const double exact = source_value(0, which, first) - (which == TENSORS - 1 ? 0 : base_value(which, first));
    bad += (double)row[MG_TILE] != exact;
    bad += (double)base[0] != (which == TENSORS - 1 ? 0 : base_value(which, first));
  }
  free(row), free(base), free(staging);
  return (void *)bad;
}

/* Threads that read through two open files at most get what the checkpoints' rows give. */
static void rows_with_few_open_files(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  fixture f;
  make_family(&f, MG_F32, MG_F32);
  char *shards = in_dir("shards");
  for (int s = 0; s < 2; s++) free(pack(&f, s, MG_F32, &outcome));
  for (int kind = 0; kind < 2; kind++) {
    if (kind == 0)
      assert_int_equal(mg_rows_open_shards(shards, &f.list, 2, &shared_rows), MG_OK);
    else
      assert_int_equal(mg_rows_open_checkpoints(f.family, 2, &shared_rows), MG_OK);
    pthread_t threads[4];
    for (size_t k = 0; k < 4; k++) pthread_create(&threads[k], NULL, read_many, (void *)(k + 1));
    for (size_t k = 0; k < 4; k++) {
      void *bad;
      pthread_join(threads[k], &bad);
      assert_null(bad);
    }
    mg_rows_close(&shared_rows);
  }
  free(shards);
  free_family(&f);
}

/* Told by another process, read where the shards are and from copies: the same values. */
static void described_rows(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  for (int dtype = 0; dtype < 2; dtype++) {
    fixture f;
    mg_text text = {0};
    mg_rows *opened = NULL;
    make_family(&f, MG_F32, MG_F32);
    char *shards = in_dir("shards"), *copies = in_dir("copies");
    for (int s = 0; s < 2; s++) free(pack(&f, s, dtype ? MG_F16 : MG_F32, &outcome));
    assert_int_equal(mg_rows_open_shards(shards, &f.list, 4, &opened), MG_OK);
    assert_int_equal(mg_rows_describe(opened, &text), MG_OK);
    for (size_t cut = 0; cut < text.size; cut += 37)
      assert_int_equal(mg_rows_open_described(text.data, cut, shards, &f.list, 4, "x", &shared_rows), MG_ERR_INTERNAL);
    assert_int_equal(mg_rows_open_described(text.data, text.size, shards, &f.list, 4, "rank 7 on n01", &shared_rows), MG_OK);
    assert_int_equal(mg_tensor_table_hash(mg_rows_table(shared_rows)), mg_tensor_table_hash(mg_rows_table(opened)));
    assert_int_equal(mg_rows_dtype(shared_rows), mg_rows_dtype(opened));
    for (ptrdiff_t k = MG_ROW_BASE; k < 2; k++) {
      assert_true(mg_rows_identity(shared_rows, k) == mg_rows_identity(opened, k));
      assert_int_equal(mg_rows_look(shared_rows, k), MG_OK);
    }
    if (dtype == 0) assert_null(read_many((void *)1));
    assert_int_equal(mg_make_dirs(copies), MG_OK);
    for (ptrdiff_t k = MG_ROW_BASE; k < 2; k++) {
      char *to = k < 0 ? mg_shard_base_path(copies) : mg_shard_path(copies, f.list.items[k].id);
      assert_int_equal(mg_shard_copy(mg_rows_shard_path(opened, k), to, mg_rows_seal(opened, k), NULL, NULL), MG_OK);
      assert_int_equal(mg_shard_verify(to), MG_OK);
      free(to);
    }
    assert_int_equal(mg_rows_move(shared_rows, copies), MG_OK);
    if (dtype == 0) assert_null(read_many((void *)2));
    mg_rows_close(&shared_rows);
    mg_rows_close(&opened);
    mg_text_free(&text);
    free(shards), free(copies);
    free_family(&f);
  }
}

/* A process whose file is another one than that which was described says who it is. */
static void described_rows_of_another_shard(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  fixture f;
  mg_text text = {0};
  mg_rows *opened = NULL;
  float scale, row[MG_TILE];
  make_family(&f, MG_F32, MG_F32);
  const int other = 1;
  char *shards = in_dir("shards"), *one = mg_shard_path(shards, "s0"), *two = mg_shard_path(shards, "s1");
  for (int s = 0; s < 2; s++) free(pack(&f, s, MG_F32, &outcome));
  assert_int_equal(mg_rows_open_shards(shards, &f.list, 4, &opened), MG_OK);
  assert_int_equal(mg_rows_describe(opened, &text), MG_OK);
  assert_int_equal(mg_rows_open_described(text.data, text.size, shards, &f.list, 4, "rank 7 on n01", &shared_rows), MG_OK);
  assert_int_equal(rename(one, two), 0);
  assert_int_equal(mg_rows_look(shared_rows, 1), MG_ERR_INPUT);
  assert_int_equal(mg_rows_read(shared_rows, &other, 1, 0, 0, 1, row, sizeof row, &scale, NULL, NULL), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "rank 7 on n01: the shard of s1 in "));
  assert_int_equal(mg_rows_look(shared_rows, 0), MG_ERR_IO);
  assert_non_null(strstr(mg_error_message(), "rank 7 on n01: "));
  assert_int_equal(truncate(two, 4200), 0);
  assert_int_equal(mg_rows_look(shared_rows, 1), MG_ERR_CORRUPT);
  mg_rows_close(&shared_rows);
  mg_rows_close(&opened);
  mg_text_free(&text);
  free(one), free(two), free(shards);
  free_family(&f);
}

static mg_status stop_at_once(void *context) {
  (void)context;
  return mg_fail(MG_STOPPED, "stop");
}

/* Of a copy that is not finished, or that would be of something else, nothing is there. */
static void copies_that_fail(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  fixture f;
  mg_shard_seal seal, other;
  make_family(&f, MG_F32, MG_F32);
  char *from = pack(&f, 0, MG_F32, &outcome), *to = in_dir("copy.h5"), *second = pack(&f, 1, MG_F32, &outcome);
  assert_int_equal(mg_shard_seal_read(from, &seal), MG_OK);
  assert_int_equal(mg_shard_seal_read(second, &other), MG_OK);
  assert_false(mg_shard_seal_equal(&seal, &other));
  assert_int_equal(mg_shard_copy(from, to, &seal, stop_at_once, NULL), MG_STOPPED);
  assert_int_equal(mg_shard_copy(from, to, &other, NULL, NULL), MG_ERR_INPUT);
  assert_int_equal(mg_shard_copy(from, "/nowhere/at/all.h5", &seal, NULL, NULL), MG_ERR_IO);
  const int fd = open(from, O_RDWR);
  uint32_t word;
  assert_int_equal(pread(fd, &word, sizeof word, (off_t)seal.data_offset), sizeof word);
  word ^= 1;
  assert_int_equal(pwrite(fd, &word, sizeof word, (off_t)seal.data_offset), sizeof word);
  close(fd);
  assert_int_equal(mg_shard_copy(from, to, &seal, NULL, NULL), MG_ERR_CORRUPT);
  assert_false(mg_path_exists(to));
  free(from), free(to), free(second);
  free_family(&f);
}

static void shards_must_fit_together(void **state) {
  (void)state;
  mg_pack_outcome outcome;
  fixture f;
  make_family(&f, MG_F32, MG_F32);
  char *shards = in_dir("shards");
  free(pack(&f, 0, MG_F32, &outcome));
  free(pack(&f, 1, MG_BF16, &outcome));
  assert_int_equal(mg_rows_open_shards(shards, &f.list, 8, &shared_rows), MG_ERR_CORRUPT);
  assert_non_null(strstr(mg_error_message(), "s1.h5: holds BF16"));
  char *one = mg_shard_path(shards, "s0"), *two = mg_shard_path(shards, "s1");
  assert_int_equal(rename(one, two), 0); /* a shard under another's name */
  free(pack(&f, 0, MG_F32, &outcome));
  assert_int_equal(mg_rows_open_shards(shards, &f.list, 8, &shared_rows), MG_ERR_CORRUPT);
  assert_non_null(strstr(mg_error_message(), "is not the shard of 's1'"));
  free(one), free(two), free(shards);
  free_family(&f);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
  const struct CMUnitTest tests[] = {TEST(values_of_every_type),
                                     TEST(every_flipped_bit_is_found),
                                     TEST(what_ends_early_leaves_nothing),
                                     TEST(rows_with_few_open_files),
                                     TEST(shards_must_fit_together),
                                     TEST(described_rows),
                                     TEST(described_rows_of_another_shard),
                                     TEST(copies_that_fail)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
