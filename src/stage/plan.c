/* What a run would read, compute, hold and take, at rates measured here and now. */

#include <cblas.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "mergegrid/ops.h"
#include "stage_impl.h"

static const double KERNEL_SECONDS = 0.2, READ_SECONDS = 0.3;
enum { READ_PIECE = 1 << 20 };

typedef struct pack_work {
  size_t missing; /* shards that do not exist */
  double bytes_read, bytes_written;
} pack_work;

typedef struct prediction {
  mg_roster roster;
  mg_shard *base_shard;
  const mg_tensor_table *table;
  mg_gram_plan gram;
  pack_work pack;
  int ranks, threads, processors;
  mg_dtype dtype;
  double bytes_per_element;
  mg_cka_plan cka;               /* layer_count 0: not asked for */
  double product_rate;           /* flop/s of one core */
  double kernel_rate, read_rate; /* flop/s and bytes/s of one core */
  const mg_ops *ops;
} prediction;

/* ---- rates ---- */

/* Flop/s of one core on tiles of this many rows. */
static mg_status measure_kernel(const mg_ops *ops, int sources, double *rate) {
  mg_status status = MG_OK;
  const int rows = (sources < 96 ? sources : 96) + 1;
  const size_t stride = MG_TILE + 16;
  float *data = mg_alloc_aligned((size_t)rows * stride * sizeof(float));
  double *acc = mg_alloc_aligned(mg_pair_count(rows) * MG_ACCUMULATORS * sizeof(double));
  void *scratch = mg_alloc_aligned(mg_gram_scratch_bytes(rows));
  const void **row = mg_alloc((size_t)rows, sizeof *row);
  mg_dtype *dtype = mg_alloc((size_t)rows, sizeof *dtype);
  float *scale = mg_alloc((size_t)rows, sizeof *scale);
  if (!data || !acc || !scratch || !row || !dtype || !scale) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < (size_t)rows * stride; k++) data[k] = (float)(k % 251) * 1e-3f - 0.125f;
  memset(acc, 0, mg_pair_count(rows) * MG_ACCUMULATORS * sizeof(double));
  for (int k = 0; k < rows; k++) {
    row[k] = data + (size_t)k * stride;
    dtype[k] = MG_F32;
    scale[k] = 1;
  }
  const mg_tile tile = {.rows = rows, .count = MG_TILE, .row = row, .dtype = dtype, .scale = scale};
  ops->gram_triangle(&tile, acc, scratch); /* once to warm up */
  const double began = mg_now();
  double flops = 0;
  do {
    ops->gram_triangle(&tile, acc, scratch);
    flops += 2.0 * (double)mg_pair_count(rows) * MG_TILE;
  } while (mg_now() - began < KERNEL_SECONDS);
  *rate = flops / (mg_now() - began);
cleanup:
  free(data), free(acc), free(scratch), free(row), free(dtype), free(scale);
  return status;
}

/* Reads from the files a run would read, in turn, for a fraction of a second: bytes/s as the page cache is now. */
/* The encoder's products, as one core does them: flop/s of the shape's largest one over a batch. */
static mg_status measure_products(const mg_encoder_shape *shape, double *rate) {
  const int rows = MG_BATCH_TOKENS, h = shape->hidden, wide = shape->intermediate;
  float *a = mg_alloc_aligned((size_t)rows * (size_t)h * sizeof *a),
        *w = mg_alloc_aligned((size_t)wide * (size_t)h * sizeof *w);
  float *c = mg_alloc_aligned((size_t)rows * (size_t)wide * sizeof *c);
  double flops = 0;
  if (a == NULL || w == NULL || c == NULL) {
    free(a), free(w), free(c);
    return MG_ERR_NOMEM;
  }
  for (size_t k = 0; k < (size_t)rows * (size_t)h; k++) a[k] = 1;
  for (size_t k = 0; k < (size_t)wide * (size_t)h; k++) w[k] = 0.5f;
  openblas_set_num_threads(1);
  const double began = mg_now();
  do {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, wide, h, 1, a, h, w, h, 0, c, wide);
    flops += 2.0 * rows * wide * h;
  } while (mg_now() - began < READ_SECONDS);
  *rate = flops / (mg_now() - began);
  free(a), free(w), free(c);
  return MG_OK;
}

static mg_status measure_reading(const mg_strings *files, double *rate) {
  mg_status status = MG_OK;
  double bytes = 0;
  char *buffer = mg_alloc(READ_PIECE, 1);
  if (buffer == NULL) return MG_ERR_NOMEM;
  const double began = mg_now();
  for (size_t k = 0; k < files->count && mg_now() - began < READ_SECONDS; k++) {
    const int fd = open(files->items[k], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      status = mg_fail_errno(MG_ERR_IO, "%s", files->items[k]);
      break;
    }
    ssize_t got;
    for (int piece = 0; piece < 16 && (got = read(fd, buffer, READ_PIECE)) > 0; piece++) bytes += (double)got;
    close(fd);
  }
  const double seconds = mg_now() - began;
  *rate = seconds > 0 && bytes > 0 ? bytes / seconds : NAN;
  free(buffer);
  return status;
}

/* ---- what there is to do ---- */

static mg_status list_shards(const mg_config *config, prediction *p, mg_strings *files) {
  mg_status status = MG_OK;
  const double elements = (double)p->table->elements;
  for (size_t k = 0; k <= p->roster.list.count && status == MG_OK; k++) {
    const bool base = k == p->roster.list.count;
    char *path = base ? mg_shard_base_path(config->shards.dir) : mg_shard_path(config->shards.dir, p->roster.list.items[k].id);
    if (path == NULL) return MG_ERR_NOMEM;
    if (mg_path_exists(path)) {
      status = mg_strings_add(files, path);
    } else {
      p->pack.missing++;
      p->pack.bytes_written += elements * (double)mg_dtype_size(base ? MG_F32 : p->dtype);
    }
    free(path);
  }
  return status;
}

static double member_bytes(const prediction *p, const mg_member *member) {
  double bytes = 0;
  for (size_t t = 0; t < p->table->count; t++)
    if (member->locations[t].dtype != MG_DTYPE_COUNT)
      bytes += (double)p->table->tensors[t].numel * (double)mg_dtype_size((mg_dtype)member->locations[t].dtype);
  return bytes;
}

static mg_status list_checkpoints(const prediction *p, mg_strings *files) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < p->roster.family->source_count; k++)
    for (size_t f = 0; f < p->roster.family->sources[k].files.count; f++)
      MG_TRY(mg_strings_add(files, p->roster.family->sources[k].files.items[f]), done);
done:
  return status;
}

static mg_status find_table(const mg_config *config, prediction *p) {
  mg_status status = MG_OK;
  char *path = NULL;
  if (p->roster.family != NULL) {
    p->table = &p->roster.family->table;
    return MG_OK;
  }
  path = mg_shard_base_path(config->shards.dir);
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_shard_open(path, &p->base_shard), cleanup);
  p->table = &p->base_shard->table;
cleanup:
  free(path);
  return status;
}

static mg_status predict(const mg_config *config, int ranks, prediction *p) {
  mg_status status = MG_OK;
  mg_strings files = {0};
  cpu_set_t mine;
  CPU_ZERO(&mine);
  p->processors = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 1;
  p->ranks = ranks;
  p->threads = config->compute.threads > 0 ? config->compute.threads : p->processors / ranks;
  if (p->threads < 1) p->threads = 1;
  MG_TRY(mg_ops_get(config->compute.backend, &p->ops), cleanup);
  MG_TRY(mg_roster_open(config, false, &p->roster), cleanup);
  MG_TRY(find_table(config, p), cleanup);
  p->dtype = config->shards.dir != NULL ? config->shards.dtype : MG_F32;
  p->bytes_per_element = (double)mg_dtype_size(p->dtype);
  if (config->shards.dir == NULL)
    p->bytes_per_element =
        member_bytes(p, &p->roster.family->sources[0]) / (double)(p->table->elements ? p->table->elements : 1);
  if (config->shards.dir != NULL) MG_TRY(list_shards(config, p, &files), cleanup);
  if (p->pack.missing > 0 && p->roster.family != NULL)
    p->pack.bytes_read =
        (double)p->pack.missing * (member_bytes(p, &p->roster.family->sources[0]) + member_bytes(p, &p->roster.family->base));
  if (files.count == 0) MG_TRY(list_checkpoints(p, &files), cleanup);
  MG_TRY(measure_kernel(p->ops, (int)p->roster.list.count, &p->kernel_rate), cleanup);
  if (mg_cka_wanted(config)) {
    MG_TRY(mg_cka_plan_make(config, &p->roster.list, p->threads, true, &p->cka), cleanup);
    MG_TRY(measure_products(&p->cka.shape, &p->product_rate), cleanup);
  }
  MG_TRY(measure_reading(&files, &p->read_rate), cleanup);
  MG_TRY(mg_gram_plan_make(config, p->table, (int)p->roster.list.count, p->dtype, p->bytes_per_element, mg_rows_staging_bytes(),
                           ranks, p->threads, &p->gram),
         cleanup);
cleanup:
  mg_strings_free(&files);
  return status;
}

/* ---- saying it ---- */

typedef struct hours {
  double pack, gram, cka;
} hours;

/* Products are about four fifths of a forward pass (tests/bench/bench_encoder.py). */
static const double ENCODER_SHARE = 0.8;

static hours predict_hours(const prediction *p) {
  const double cores = p->ranks * p->threads < p->processors ? p->ranks * p->threads : p->processors;
  const double pack_bytes = p->pack.bytes_read + p->pack.bytes_written;
  return (hours){.pack = pack_bytes > 0 ? pack_bytes / p->read_rate / cores / 3600 : 0,
                 .gram = (p->gram.flops / p->kernel_rate + p->gram.bytes_read / p->read_rate) / cores / 3600,
                 .cka = p->cka.layer_count > 0 ? p->cka.flops / (ENCODER_SHARE * p->product_rate) / cores / 3600 : 0};
}

static void print_text(const mg_config *config, const prediction *p) {
  char a[32], b[32], c[32], d[32];
  const hours h = predict_hours(p);
  printf("family       %zu sources, %zu tensors, %.4g M parameters; base %s\n", p->roster.list.count, p->table->count,
         (double)p->table->elements / 1e6, config->family.base);
  for (size_t k = 0; k < p->roster.list.skipped.count; k++)
    printf("             skipped: %s (no checkpoint)\n", p->roster.list.skipped.items[k]);
  if (config->shards.dir == NULL)
    printf("shards       none: tiles come straight from the checkpoints\n");
  else
    printf("shards       %zu of %zu to pack in %s (%s): reads %s, writes %s, %.3g h\n", p->pack.missing,
           p->roster.list.count + 1, config->shards.dir, mg_dtype_name(p->dtype), mg_format_bytes(p->pack.bytes_read, a),
           mg_format_bytes(p->pack.bytes_written, b), h.pack);
  printf("compatibility task_vector_cosine: %zu pair block%s, %zu Grams, leases of %lld leaves\n", p->gram.layout->block_count,
         p->gram.layout->block_count > 1 ? "s" : "", p->gram.layout->group_count, (long long)p->gram.unit_leaves);
  printf("             reads %s, computes %.4g GFLOP, %.3g h with %d rank%s × %d thread%s on %d processor%s\n",
         mg_format_bytes(p->gram.bytes_read, a), p->gram.flops / 1e9, h.gram, p->ranks, p->ranks > 1 ? "s" : "", p->threads,
         p->threads > 1 ? "s" : "", p->processors, p->processors > 1 ? "s" : "");
  if (p->cka.layer_count > 0)
    printf("             cka: %zu probe texts (%zu different) through %zu models, %.4g GFLOP, %.3g h; %s a rank, %s more on "
           "rank 0\n",
           p->cka.probes.count, p->cka.probes.sequences.count, p->roster.list.count, p->cka.flops / 1e9, h.cka,
           mg_format_bytes((double)p->cka.encoder_bytes, a), mg_format_bytes((double)p->cka.features_bytes, b));
  printf("rates        kernel %s %.1f GFLOP/s a core; reading %s/s (as cached now)\n", p->ops->kernel, p->kernel_rate / 1e9,
         mg_format_bytes(p->read_rate, a));
  printf("memory       at most %s a rank (process %s, tiles %s, rank 0's sums %s); budget %s\n",
         mg_format_bytes((double)p->gram.rank_bytes, a), mg_format_bytes((double)p->gram.base_bytes, b),
         mg_format_bytes((double)p->gram.engine_bytes, c), mg_format_bytes((double)p->gram.master_bytes, d),
         mg_format_bytes((double)config->compute.memory_budget, (char[32]){0}));
  printf("result       %s\n", config->result);
}

static mg_status print_json(const mg_config *config, const prediction *p) {
  const hours h = predict_hours(p);
  json_t *skipped = json_array();
  for (size_t k = 0; k < p->roster.list.skipped.count; k++)
    json_array_append_new(skipped, json_string(p->roster.list.skipped.items[k]));
  json_t *root = json_pack(
      "{s:i, s:o, s:I, s:I, s:i, s:i, s:s, s:s, s:{s:I, s:f, s:f, s:f}, s:{s:s, s:I, s:I, s:f, s:f, s:f}, s:{s:s, s:f, s:f}, "
      "s:{s:I, s:I, s:I, s:I, s:I}}",
      "sources", (int)p->roster.list.count, "skipped", skipped, "tensors", (json_int_t)p->table->count, "parameters",
      (json_int_t)p->table->elements, "ranks", p->ranks, "threads", p->threads, "result", config->result, "shards_dtype",
      config->shards.dir != NULL ? mg_dtype_name(p->dtype) : "none", "pack", "shards", (json_int_t)p->pack.missing,
      "bytes_read", p->pack.bytes_read, "bytes_written", p->pack.bytes_written, "hours", h.pack, "compatibility", "metric",
      "task_vector_cosine", "pair_blocks", (json_int_t)p->gram.layout->block_count, "grams",
      (json_int_t)p->gram.layout->group_count, "bytes_read", p->gram.bytes_read, "flops", p->gram.flops, "hours", h.gram,
      "rates", "kernel", p->ops->kernel, "flops_per_second", p->kernel_rate, "read_bytes_per_second",
      isfinite(p->read_rate) ? p->read_rate : 0.0, "memory", "rank_bytes", (json_int_t)p->gram.rank_bytes, "process_bytes",
      (json_int_t)p->gram.base_bytes, "engine_bytes", (json_int_t)p->gram.engine_bytes, "master_bytes",
      (json_int_t)p->gram.master_bytes, "budget_bytes", (json_int_t)config->compute.memory_budget);
  if (root != NULL && p->cka.layer_count > 0)
    json_object_set_new(root, "cka",
                        json_pack("{s:I, s:I, s:i, s:f, s:f, s:f, s:I, s:I}", "samples", (json_int_t)p->cka.probes.count,
                                  "different", (json_int_t)p->cka.probes.sequences.count, "layers", p->cka.layer_count, "flops",
                                  p->cka.flops, "hours", h.cka, "flops_per_second", p->product_rate, "encoder_bytes",
                                  (json_int_t)p->cka.encoder_bytes, "features_bytes", (json_int_t)p->cka.features_bytes));
  char *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  if (text == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  puts(text);
  free(text);
  return MG_OK;
}

mg_status mg_stage_plan(const mg_config *config, int ranks, bool json) {
  prediction p = {0};
  mg_status status = predict(config, ranks, &p);
  if (status == MG_OK && json) status = print_json(config, &p);
  if (status == MG_OK && !json) print_text(config, &p);
  mg_cka_plan_free(&p.cka);
  mg_gram_plan_free(&p.gram);
  mg_shard_close(&p.base_shard);
  mg_roster_close(&p.roster);
  return status;
}
