/*
 * What a device does against what it could do: matrix products as the measure of forward passes, plain copies that of what
 * memory bounds, and the way up of what has to get there. Ratios, measured side by side in one run.
 *
 *   bench_device [hidden layers texts length]     (768 12 4096 16: XLM-R base and MASSIVE's texts)
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gram/lane.h"
#include "mergegrid/device.h"
#include "mergegrid/encoder.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"

enum { ROUNDS = 3, VOCABULARY = 1000 };

static mg_device *device;
static const mg_device_ops *ops;
static mg_queue *queue;

static void must(mg_status status) {
  if (status == MG_OK) return;
  fprintf(stderr, "bench_device: %s\n", mg_error_message());
  exit(mg_exit_code(status));
}

static void *take(uint64_t bytes) {
  void *piece;
  must(ops->take(device, bytes, "a benchmark", &piece));
  must(ops->zero(queue, piece, bytes));
  return piece;
}

static int by_size(const void *a, const void *b) {
  return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Median seconds of one call of what is queued `times` over. */
static double seconds_of(mg_status (*work)(void *context), void *context, int times) {
  double seconds[ROUNDS];
  must(work(context)); /* warm */
  must(ops->finish(queue));
  for (int r = 0; r < ROUNDS; r++) {
    const double began = mg_now();
    for (int k = 0; k < times; k++) must(work(context));
    must(ops->finish(queue));
    seconds[r] = (mg_now() - began) / times;
  }
  qsort(seconds, ROUNDS, sizeof *seconds, by_size);
  return seconds[ROUNDS / 2];
}

/* ---- what memory bounds ---- */

typedef struct matrices {
  int rows, n;
  float *x, *y, *bias;
  int32_t *identity;
} matrices;

static mg_status copy_rows(void *context) {
  const matrices *m = context;
  return ops->gather(queue, m->rows, m->n, m->identity, m->x, m->y);
}

static mg_status norm_rows(void *context) {
  const matrices *m = context;
  return ops->add_norm(queue, m->rows, m->n, m->x, m->y, m->bias, m->bias, m->bias, 1e-5f);
}

static mg_status gelu_rows(void *context) {
  const matrices *m = context;
  return ops->bias_gelu(queue, m->rows, m->n, m->x, m->bias);
}

typedef struct merging {
  mg_device_merge merge;
} merging;

static mg_status merge_rows(void *context) {
  const merging *m = context;
  return ops->merge(queue, &m->merge);
}

typedef struct told {
  const float *tau[5];
  double weight[5], vote[5], threshold[5], ceiling[5];
  mg_device_verdict verdict;
} told;

/* Five sources of so many elements. */
static void open_merging(uint64_t elements, merging *m) {
  const uint32_t pieces = (uint32_t)(elements / MG_PIECE_ELEMENTS);
  told host = {.verdict = {.bad = UINT64_MAX}}, *at = take(sizeof *at);
  mg_device_piece *piece = mg_alloc(pieces, sizeof *piece), *there = take(pieces * sizeof *piece);
  for (uint32_t k = 0; k < pieces; k++)
    piece[k] = (mg_device_piece){
        .from = (uint64_t)k * MG_PIECE_ELEMENTS, .to = (uint64_t)k * MG_PIECE_ELEMENTS, .count = MG_PIECE_ELEMENTS};
  for (int s = 0; s < 5; s++)
    host.tau[s] = take(elements * sizeof(float)), host.weight[s] = host.vote[s] = 0.2, host.ceiling[s] = INFINITY;
  must(ops->upload_any(queue, at, &host, sizeof host));
  must(ops->upload_any(queue, there, piece, pieces * sizeof *piece));
  free(piece);
  m->merge = (mg_device_merge){.sources = 5,
                               .base_factor = 1,
                               .lambda = 1,
                               .tie = 1,
                               .tau = at->tau,
                               .weight = at->weight,
                               .vote = at->vote,
                               .threshold = at->threshold,
                               .ceiling = at->ceiling,
                               .base = take(elements * sizeof(float)),
                               .out = take(elements * sizeof(float)),
                               .piece = there,
                               .pieces = pieces,
                               .verdict = &at->verdict};
}

/* Bytes/s of copying rows, the measure of others. */
static double bound_by_memory(int rows, int n, int times) {
  const double bytes = (double)rows * n * sizeof(float);
  matrices m = {.rows = rows, .n = n, .x = take((uint64_t)bytes), .y = take((uint64_t)bytes), .bias = take((uint64_t)n * 4)};
  int32_t *identity = mg_alloc((size_t)rows, sizeof *identity);
  for (int r = 0; r < rows; r++) identity[r] = r;
  m.identity = take((uint64_t)rows * sizeof *identity);
  must(ops->upload_any(queue, m.identity, identity, (size_t)rows * sizeof *identity));
  const double copy = 2 * bytes / seconds_of(copy_rows, &m, times);
  const double norm = 3 * bytes / seconds_of(norm_rows, &m, times), gelu = 2 * bytes / seconds_of(gelu_rows, &m, times);
  printf("copying rows                      %8.1f GB/s read and written: the measure of the next\n", copy / 1e9);
  printf("adding and layer norm             %8.1f GB/s, %.2f of copying\n", norm / 1e9, norm / copy);
  printf("bias and GELU                     %8.1f GB/s, %.2f of copying\n", gelu / 1e9, gelu / copy);
  merging of = {0};
  open_merging((uint64_t)rows * (uint64_t)n, &of);
  const double merged = 7 * (double)of.merge.pieces * MG_PIECE_ELEMENTS * sizeof(float);
  of.merge.kind = MG_DEVICE_SUM;
  const double sum = merged / seconds_of(merge_rows, &of, times);
  of.merge.kind = MG_DEVICE_MEAN;
  const double elected = merged / seconds_of(merge_rows, &of, times);
  printf("merging five sources, a sum       %8.1f GB/s, %.2f of copying\n", sum / 1e9, sum / copy);
  printf("merging five, elected signs       %8.1f GB/s, %.2f of copying\n", elected / 1e9, elected / copy);
  free(identity);
  return copy;
}

/* ---- order statistics, norms, ranks, CKA ---- */

static mg_status count_magnitudes(void *context) { return ops->census(queue, context); }

static mg_status add_magnitudes(void *context) { return ops->norms(queue, context); }
static mg_status rank_rows(void *context) { return ops->thin(queue, context); }

/* What thinning out is told of one source. */
typedef struct thin_told {
  const float *tau;
  float *out;
  mg_stream stream;
  float scale;
} thin_told;

/* Norms, and the ranks of rows of 1,024, of the same pieces. */
static void ranking(const mg_device_census *of, uint64_t elements, int times, double copy) {
  const double bytes = (double)of->pieces * MG_PIECE_ELEMENTS * sizeof(float);
  thin_told *at = take(sizeof *at);
  const thin_told source = {.tau = of->tau, .out = take(elements * sizeof(float)), .stream = mg_stream_of(1, 2, 3), .scale = 1};
  mg_device_norms norms = {.tau = of->tau,
                           .threshold = 0.004,
                           .piece = of->piece,
                           .pieces = of->pieces,
                           .bins = take(2 * MG_L1_BINS * sizeof(uint64_t))};
  mg_device_thinning thinning = {.sources = 1,
                                 .tau = &at->tau,
                                 .stream = &at->stream,
                                 .scale = &at->scale,
                                 .least = 0.35,
                                 .rise = 0.3 / 1023,
                                 .row = 1024,
                                 .piece = of->piece,
                                 .pieces = of->pieces,
                                 .out = &at->out};
  must(ops->upload_any(queue, at, &source, sizeof source));
  const double norm = bytes / seconds_of(add_magnitudes, &norms, times);
  const double thin = 2 * bytes / seconds_of(rank_rows, &thinning, times);
  printf("adding up magnitudes              %8.1f GB/s, %.2f of copying\n", norm / 1e9, norm / copy);
  printf("dropping by rank                  %8.1f GB/s, %.2f of copying\n", thin / 1e9, thin / copy);
}

/* Values that are all over a few octaves, as task vectors are. */
static void counting(uint64_t elements, int times, double copy) {
  const uint32_t pieces = (uint32_t)(elements / MG_PIECE_ELEMENTS);
  mg_device_piece *piece = mg_alloc(pieces, sizeof *piece), *piece_there = take(pieces * sizeof *piece);
  float *values = mg_alloc(elements, sizeof *values), *there = take(elements * sizeof *there);
  int32_t *index = mg_alloc(MG_CENSUS_UPPER, sizeof *index), *index_there = take(MG_CENSUS_UPPER * sizeof *index);
  for (uint64_t k = 0; k < elements; k++) values[k] = ldexpf((float)(k * 7919 % 16381) - 8190, -20);
  for (uint32_t k = 0; k < pieces; k++)
    piece[k] = (mg_device_piece){.from = (uint64_t)k * MG_PIECE_ELEMENTS, .count = MG_PIECE_ELEMENTS};
  for (int k = 0; k < MG_CENSUS_UPPER; k++) index[k] = k == 0x3B80 ? 0 : -1; /* about 0.004 */
  must(ops->upload_any(queue, piece_there, piece, pieces * sizeof *piece));
  must(ops->upload_any(queue, there, values, elements * sizeof *values));
  must(ops->upload_any(queue, index_there, index, MG_CENSUS_UPPER * sizeof *index));
  mg_device_census census = {
      .tau = there, .piece = piece_there, .pieces = pieces, .bins = take(MG_CENSUS_LOWER * sizeof(uint64_t))};
  const double bytes = (double)pieces * MG_PIECE_ELEMENTS * sizeof(float), upper = seconds_of(count_magnitudes, &census, times);
  census.index = index_there;
  const double lower = seconds_of(count_magnitudes, &census, times);
  printf("counting magnitudes, first turn   %8.1f GB/s, %.2f of copying\n", bytes / upper / 1e9, bytes / upper / copy);
  printf("counting magnitudes, second turn  %8.1f GB/s, %.2f of copying\n", bytes / lower / 1e9, bytes / lower / copy);
  ranking(&census, elements, times, copy);
  free(piece), free(values), free(index);
}

typedef struct matrices_of_texts {
  int texts, width, sources;
  double *x, *grams, *parts, *out;
} matrices_of_texts;

static mg_status multiply_texts(void *context) {
  const matrices_of_texts *m = context;
  return ops->own_product(queue, m->texts, m->width, m->x, m->grams);
}

static mg_status multiply_grams(void *context) {
  const matrices_of_texts *m = context;
  const int64_t entries = (int64_t)m->texts * m->texts;
  return ops->dots(queue, m->sources, entries, m->grams, entries, m->grams, m->parts, m->out);
}

static void features(int texts, int width, int times, double copy) {
  matrices_of_texts m = {.texts = texts, .width = width, .sources = 16};
  const int64_t entries = (int64_t)texts * texts;
  m.x = take((uint64_t)texts * (uint64_t)width * sizeof *m.x);
  m.grams = take((uint64_t)m.sources * (uint64_t)entries * sizeof *m.grams);
  m.parts = take(ops->dots_scratch(m.sources, entries)), m.out = take((uint64_t)m.sources * sizeof *m.out);
  const double flops = 2.0 * texts * texts * width / seconds_of(multiply_texts, &m, times);
  const double bytes = (double)(m.sources + 1) * (double)entries * sizeof(double) / seconds_of(multiply_grams, &m, times);
  printf("CKA, a Gram matrix in double      %8.1f GFLOP/s\n", flops / 1e9);
  printf("CKA, inner products of matrices   %8.1f GB/s, %.2f of copying\n", bytes / 1e9, bytes / copy);
}

/* ---- forward passes ---- */

typedef struct products {
  int m, n, k;
  float *a, *w, *c;
} products;

static mg_status multiply(void *context) {
  const products *p = context;
  return ops->product(queue, p->m, p->n, p->k, p->a, p->k, p->w, p->c, p->n);
}

/* Flop/s of the products of a layer, weighed as they come there. */
static double product_rate(const mg_encoder_shape *s, int tokens, int times) {
  const int h = s->hidden, wide = s->intermediate;
  const int n[] = {3 * h, h, wide, h}, k[] = {h, h, h, wide};
  products p = {.m = tokens,
                .a = take((uint64_t)tokens * (uint64_t)wide * 4),
                .w = take((uint64_t)wide * (uint64_t)h * 4),
                .c = take((uint64_t)tokens * (uint64_t)wide * 4)};
  double flops = 0, seconds = 0;
  for (int i = 0; i < 4; i++) {
    p.n = n[i], p.k = k[i];
    flops += 2.0 * p.m * p.n * p.k;
    seconds += seconds_of(multiply, &p, times);
  }
  return flops / seconds;
}

static bool find_any(void *context, const char *name, int *ndim, int64_t shape[8]) {
  (void)context, (void)name, (void)shape;
  *ndim = 1;
  return true;
}

static mg_status read_any(void *context, const char *name, int64_t first, int64_t count, float *out) {
  (void)context, (void)name;
  for (int64_t k = 0; k < count; k++) out[k] = (float)(((first + k) * 7919) % 251 - 125) * 4e-4f;
  return MG_OK;
}

static double pass_rate(const mg_encoder_shape *shape, size_t count, int length) {
  mg_encoder *encoder;
  int32_t tokens[VOCABULARY], *ids = mg_alloc(count, (size_t)length * sizeof *ids);
  int64_t *offset = mg_alloc(count + 1, sizeof *offset);
  float *logits = mg_alloc(count, (size_t)shape->classes * sizeof *logits);
  double seconds[ROUNDS], flops = 0;
  for (int k = 0; k < VOCABULARY; k++) tokens[k] = k;
  for (size_t t = 0; t <= count; t++) offset[t] = (int64_t)t * length;
  for (size_t k = 0; k < count * (size_t)length; k++) ids[k] = (int32_t)(k * 31 % VOCABULARY);
  for (size_t t = 0; t < count; t++) flops += mg_encoder_flops(shape, length, false);
  const mg_weights weights = {.origin = "a benchmark", .find = find_any, .read = read_any};
  const mg_sequences texts = {.count = count, .ids = ids, .offset = offset};
  const mg_encoder_want want = {.logits = logits};
  must(mg_encoder_create(shape, tokens, VOCABULARY, 1, device, &encoder));
  must(mg_encoder_load(encoder, &weights));
  must(mg_encoder_run(encoder, &texts, 0, count, &want)); /* warm, and the weights are there */
  for (int r = 0; r < ROUNDS; r++) {
    const double began = mg_now();
    must(mg_encoder_run(encoder, &texts, 0, count, &want));
    seconds[r] = mg_now() - began;
  }
  qsort(seconds, ROUNDS, sizeof *seconds, by_size);
  mg_encoder_destroy(&encoder);
  free(ids), free(offset), free(logits);
  return flops / seconds[ROUNDS / 2];
}

/* ---- what has to get there ---- */

static double upload_rate(size_t bytes) {
  char *host = mg_alloc(bytes, 1), *to = take(bytes);
  memset(host, 1, bytes);
  must(ops->upload_any(queue, to, host, bytes));
  must(ops->finish(queue));
  const double began = mg_now();
  must(ops->upload_any(queue, to, host, bytes));
  must(ops->finish(queue));
  const double seconds = mg_now() - began;
  ops->give(device, to);
  free(host);
  return (double)bytes / seconds;
}

/* Bytes/s of tiles of 48 sources through a lane, as fast as they are there; those of BF16 in chains. */
static double gram_rate(int tiles, mg_dtype of) {
  enum { ROWS = 49 };
  mg_gram_lane *lane;
  mg_dtype dtype[ROWS];
  float scale[ROWS];
  double *acc = mg_alloc(ROWS * (ROWS + 1) / 2 * MG_ACCUMULATORS, sizeof *acc);
  const size_t values = ROWS * (ROWS + 1) / 2;
  for (int k = 0; k < ROWS; k++) dtype[k] = k < ROWS - 1 ? of : MG_F32, scale[k] = 1;
  must(mg_gram_lane_create(device, ROWS - 1, values, of, &lane));
  double began = 0;
  for (int k = -2; k < tiles; k++) {
    mg_gram_room room;
    if (k <= 0) must(mg_gram_lane_begin(lane, values));
    must(mg_gram_lane_room(lane, ROWS, MG_TILE, of, &room));
    if (k < 0) memset(room.tile, 0, (ROWS - 1) * room.stride), memset(room.base, 0, MG_TILE * sizeof(float));
    if (k == 0) began = mg_now();
    must(mg_gram_lane_multiply(lane, &room, ROWS, ROWS, of == MG_BF16 ? ROWS - 1 : 0, MG_TILE, dtype, scale));
  }
  must(mg_gram_lane_end(lane, values, acc));
  const double seconds = mg_now() - began;
  mg_gram_lane_destroy(&lane);
  free(acc);
  return (double)tiles * MG_TILE * (double)((ROWS - 1) * mg_dtype_size(of) + sizeof(float)) / seconds;
}

int main(int argc, char **argv) {
  const int hidden = argc > 1 ? atoi(argv[1]) : 768, layers = argc > 2 ? atoi(argv[2]) : 12;
  const int texts = argc > 3 ? atoi(argv[3]) : 4096, length = argc > 4 ? atoi(argv[4]) : 16, times = argc > 1 ? 1 : 20;
  const mg_encoder_shape shape = {.hidden = hidden,
                                  .layers = layers,
                                  .heads = hidden / 64 > 0 ? hidden / 64 : 1,
                                  .intermediate = 4 * hidden,
                                  .positions = 514,
                                  .vocabulary = VOCABULARY,
                                  .pad = 1,
                                  .classes = 60,
                                  .epsilon = 1e-5f};
  const int rows = MG_DEVICE_BATCH_TOKENS < texts * length ? MG_DEVICE_BATCH_TOKENS : texts * length;
  const mg_device_terms terms = {.node_ranks = 1};
  const uint64_t need =
      mg_encoder_device_bytes(&shape, VOCABULARY, 1) + (UINT64_C(1) << 29) + (uint64_t)rows * (uint64_t)hidden * 4 * 64;
  uint64_t got;
  char name[256];
  must(mg_device_open(&terms, &device));
  ops = device->ops;
  must(ops->reserve(device, need, need, &got));
  must(ops->open_queue(device, true, &queue));
  printf("%s\n", ops->describe(device, name, sizeof name));
  const double copy = bound_by_memory(rows * 4, hidden, times);
  counting((uint64_t)rows * 4 * (uint64_t)hidden, times, copy);
  features(texts < 500 ? texts : 500, hidden, times, copy);
  const double product = product_rate(&shape, rows, times), pass = pass_rate(&shape, (size_t)texts, length);
  printf("matrix products of a layer        %8.1f GFLOP/s: the measure of the next\n", product / 1e9);
  printf("forward passes, %4d tokens a text %7.1f GFLOP/s, %.2f of the products alone\n", length, pass / 1e9, pass / product);
  const double upload = upload_rate((size_t)rows * (size_t)hidden * 64), gram = gram_rate(argc > 1 ? 4 : 400, MG_F32);
  const double chains = gram_rate(argc > 1 ? 4 : 400, MG_BF16);
  printf("copying to the device             %8.2f GB/s: the measure of the next\n", upload / 1e9);
  printf("Gram of 48 sources, tiles up      %8.2f GB/s, %.2f of copying\n", gram / 1e9, gram / upload);
  printf("the same of bf16, in chains       %8.2f GB/s, %.2f of copying\n", chains / 1e9, chains / upload);
  ops->close_queue(queue);
  mg_device_close(&device);
  return 0;
}
