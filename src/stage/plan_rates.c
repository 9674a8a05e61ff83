/* Rates of this machine, here and now. */

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "mergegrid/merge.h"
#include "plan_impl.h"

static const double KERNEL_SECONDS = 0.2, READ_SECONDS = 0.3;
enum { READ_PIECE = 1 << 20 };

/* Flop/s of one core on tiles of this many sources of dtype, and the base. */
mg_status mg_measure_kernel(const mg_ops *ops, int sources, mg_dtype dtype, double *rate) {
  mg_status status = MG_OK;
  const int rows = (sources < 96 ? sources : 96) + 1;
  const size_t stride = MG_TILE + 16;
  float *data = mg_alloc_aligned((size_t)rows * stride * sizeof(float)), *values = mg_alloc(MG_TILE, sizeof *values);
  double *acc = mg_alloc_aligned(mg_pair_count(rows) * MG_ACCUMULATORS * sizeof(double));
  void *scratch = mg_alloc_aligned(mg_gram_scratch_bytes(rows));
  const void **row = mg_alloc((size_t)rows, sizeof *row);
  mg_dtype *dtypes = mg_alloc((size_t)rows, sizeof *dtypes);
  float *scale = mg_alloc((size_t)rows, sizeof *scale);
  if (!data || !values || !acc || !scratch || !row || !dtypes || !scale) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  memset(acc, 0, mg_pair_count(rows) * MG_ACCUMULATORS * sizeof(double));
  for (int k = 0; k < rows; k++) {
    float *to = data + (size_t)k * stride;
    for (int e = 0; e < MG_TILE; e++) values[e] = (float)((k * MG_TILE + e) % 251) * 1e-3f - 0.125f;
    row[k] = to;
    dtypes[k] = k < rows - 1 ? dtype : MG_F32;
    scale[k] = 1;
    if (dtypes[k] == MG_F32)
      memcpy(to, values, MG_TILE * sizeof *to);
    else
      mg_from_f32(to, values, dtypes[k], MG_TILE, 1);
  }
  const mg_tile tile = {
      .rows = rows, .count = MG_TILE, .row = row, .dtype = dtypes, .scale = scale, .chained = dtype == MG_BF16 ? rows - 1 : 0};
  ops->gram_triangle(&tile, acc, scratch); /* once to warm up */
  const double began = mg_now();
  double flops = 0;
  do {
    ops->gram_triangle(&tile, acc, scratch);
    flops += 2.0 * (double)mg_pair_count(rows) * MG_TILE;
  } while (mg_now() - began < KERNEL_SECONDS);
  *rate = flops / (mg_now() - began);
cleanup:
  free(data), free(values), free(acc), free(scratch), free(row), free(dtypes), free(scale);
  return status;
}

/* ---- forward passes ---- */

enum { LAYERS = 3, SAMPLES = 16 };
static const double FORWARD_SECONDS = 0.6;

static bool find_any(void *context, const char *name, int *ndim, int64_t shape[8]) {
  (void)context, (void)name, (void)ndim, (void)shape;
  return true;
}

/* Values of the size that weights have; what they are does not matter for the time. */
static mg_status read_any(void *context, const char *name, int64_t first, int64_t count, float *out) {
  (void)context, (void)name;
  for (int64_t k = 0; k < count; k++) out[k] = (float)(((first + k) * 7919) % 251 - 125) * 4e-4f;
  return MG_OK;
}

/* Batches from everywhere in the table (texts of all lengths), each as long as there but of one token. */
static mg_status time_batches(mg_encoder *e, const mg_encoder_shape *shape, const mg_sequences *texts, int tokens,
                              float *logits, int32_t *ids, int64_t *offset, double *rate) {
  mg_status status = MG_OK;
  double flops = 0, seconds = 0;
  for (size_t k = 0; k < SAMPLES || seconds < FORWARD_SECONDS; k++) {
    const size_t first = texts->count * (k * 7 % SAMPLES) / SAMPLES, last = mg_batch_end(texts, first, tokens);
    for (size_t t = first; t <= last; t++) offset[t - first] = texts->offset[t] - texts->offset[first];
    memset(ids, 0, (size_t)offset[last - first] * sizeof *ids);
    const mg_sequences own = {.count = last - first, .ids = ids, .offset = offset};
    const mg_encoder_want want = {.logits = shape->classes > 0 ? logits : NULL, .cls = NULL};
    const double began = mg_now();
    MG_TRY(mg_encoder_run(e, &own, 0, own.count, &want), done);
    if (k == 0) continue; /* to warm up */
    seconds += mg_now() - began;
    for (size_t t = first; t < last; t++)
      flops += mg_encoder_flops(shape, (int)(texts->offset[t + 1] - texts->offset[t]), false);
    if (seconds > 4 * FORWARD_SECONDS) break;
  }
  *rate = flops / seconds;
done:
  return status;
}

mg_status mg_measure_forward(const mg_encoder_shape *whole, const mg_sequences *texts, mg_device *device, double *rate) {
  mg_status status = MG_OK;
  mg_encoder_shape shape = *whole;
  mg_encoder *e = NULL;
  const int32_t token = 0;
  if (shape.layers > LAYERS) shape.layers = LAYERS; /* one layer is like another, and three are soon filled */
  const int tokens = mg_batch_tokens(device), limit = mg_encoder_position_limit(&shape);
  const size_t longest = (size_t)(limit > tokens ? limit : tokens);
  uint64_t got;
  float *logits = mg_alloc(longest, ((size_t)shape.classes + 1) * sizeof *logits);
  int32_t *ids = mg_alloc(longest, sizeof *ids);
  int64_t *offset = mg_alloc(longest + 1, sizeof *offset);
  if (logits == NULL || ids == NULL || offset == NULL) status = MG_ERR_NOMEM;
  const uint64_t need = mg_encoder_device_bytes(&shape, 1, 1);
  if (status == MG_OK && device != NULL) status = device->ops->reserve(device, need, need, &got);
  if (status == MG_OK) status = mg_encoder_create(&shape, &token, 1, 1, device, &e);
  const mg_weights weights = {.origin = "rates", .find = find_any, .read = read_any};
  if (status == MG_OK) status = mg_encoder_load(e, &weights);
  if (status == MG_OK) status = time_batches(e, &shape, texts, tokens, logits, ids, offset, rate);
  mg_encoder_destroy(&e);
  free(logits), free(ids), free(offset);
  return status;
}

/* Half of a grid's methods are sums, half do more. */
mg_status mg_measure_merging(double *rate) {
  double linear = 0, elected = 0;
  const mg_status status = mg_merge_rate(&linear, &elected);
  *rate = 2 / (1 / linear + 1 / elected);
  return status;
}

/* Reads from the files a run would read, in turn, for a fraction of a second: bytes/s as the page cache is now. */
mg_status mg_measure_reading(const mg_strings *files, double *rate) {
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
