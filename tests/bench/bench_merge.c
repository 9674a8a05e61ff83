/*
 * Merging of what is in memory: what part of the memory's rate a linear merge reaches, and what merging many linear cells of
 * one target in one pass takes of merging them one by one.
 *
 *   build/bench_merge SHARDS_DIR [CELLS [THREADS]]      (default: 100 cells, 1 thread)
 *
 * SHARDS_DIR: packed shards, as of `scripts/make-family` and `mergegrid pack`; much larger than the processor's cache. Cells
 * are the sums of 5 of the first 15 sources. Rounds alternate; the figures are medians, the ratios of one run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "mergegrid/merge.h"

enum { CANDIDATES = 15, OF_A_CELL = 5, ROUNDS = 5 };

typedef struct bench {
  mg_rows *rows;
  mg_deltas deltas;
  mg_store store;
  mg_range *ranges;
  size_t range_count, floats;
  float **blocks;    /* θ0, then sources */
  const float **tau; /* [sources] */
  size_t cells;
  int threads;
  mg_recipe *recipes;
  int *sources;
  double *weights;
  const char **ids;
  float **out;
  mg_quantities *quantities;
} bench;

static double median(double *values) {
  for (int i = 1; i < ROUNDS; i++)
    for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
      const double larger = values[j - 1];
      values[j - 1] = values[j];
      values[j] = larger;
    }
  return values[ROUNDS / 2];
}

static mg_status load(bench *b) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(b->rows);
  const size_t n = mg_rows_sources(b->rows);
  b->ranges = mg_alloc(table->count, sizeof *b->ranges);
  b->tau = mg_alloc_zero(n, sizeof *b->tau);
  b->blocks = mg_alloc_zero(CANDIDATES + 1, sizeof *b->blocks);
  if (b->ranges == NULL || b->tau == NULL || b->blocks == NULL) return MG_ERR_NOMEM;
  for (size_t t = 0; t < table->count; t++) {
    b->ranges[b->range_count++] = (mg_range){.tensor = t, .count = table->tensors[t].numel, .offset = b->floats};
    b->floats += ((size_t)table->tensors[t].numel + 15) / 16 * 16;
  }
  for (int k = 0; k < CANDIDATES + 1; k++) {
    b->blocks[k] = mg_alloc_aligned((b->floats + MG_STORE_SLACK) * sizeof(float));
    if (b->blocks[k] == NULL) return MG_ERR_NOMEM;
    memset(b->blocks[k], 0, (b->floats + MG_STORE_SLACK) * sizeof(float));
    MG_TRY(mg_store_fill(&b->deltas, k == 0 ? MG_ROW_BASE : k - 1, b->ranges, b->range_count, b->blocks[k]), done);
    if (k > 0) b->tau[k - 1] = b->blocks[k];
  }
  b->store = (mg_store){.range_count = b->range_count, .ranges = b->ranges, .tau = b->tau, .base = b->blocks[0]};
done:
  return status;
}

/* Cell c: five sources from c on, three apart. */
static mg_status declare(bench *b) {
  mg_status status = MG_OK;
  const mg_method *method;
  b->recipes = mg_alloc_zero(b->cells, sizeof *b->recipes);
  b->sources = mg_alloc(b->cells * OF_A_CELL, sizeof *b->sources);
  b->weights = mg_alloc(b->cells * OF_A_CELL, sizeof *b->weights);
  b->ids = mg_alloc(OF_A_CELL, sizeof *b->ids);
  b->out = mg_alloc_zero(b->cells, sizeof *b->out);
  if (!b->recipes || !b->sources || !b->weights || !b->ids || !b->out) return MG_ERR_NOMEM;
  for (int k = 0; k < OF_A_CELL; k++) b->ids[k] = "source";
  MG_TRY(mg_method_find("linear", &method), done);
  for (size_t c = 0; c < b->cells; c++) {
    int *sources = b->sources + c * OF_A_CELL;
    const int first = (int)(c % 3);
    for (int k = 0; k < OF_A_CELL; k++) {
      sources[k] = first + 3 * k;
      b->weights[c * OF_A_CELL + (size_t)k] = (1 + (double)((c + (size_t)k) % 7)) / 20;
    }
    b->recipes[c] = (mg_recipe){.method = method,
                                .count = OF_A_CELL,
                                .source = sources,
                                .id = b->ids,
                                .weight = b->weights + c * OF_A_CELL,
                                .base = -1};
    mg_method_defaults(method, b->recipes[c].values);
    b->out[c] = mg_alloc_aligned(b->floats * sizeof(float));
    if (b->out[c] == NULL) return MG_ERR_NOMEM;
    memset(b->out[c], 0, b->floats * sizeof(float));
  }
  MG_TRY(mg_quantities_create(&b->quantities), done);
done:
  return status;
}

/* Seconds of merging recipes first … first + count − 1 in passes of `at_once`. */
static mg_status merge(bench *b, size_t count, size_t at_once, double *seconds) {
  mg_status status = MG_OK;
  const double began = mg_now();
  for (size_t first = 0; first < count; first += at_once) {
    mg_pass *pass = NULL;
    const mg_pass_terms terms = {.deltas = &b->deltas,
                                 .store = &b->store,
                                 .quantities = b->quantities,
                                 .recipes = b->recipes + first,
                                 .count = count - first < at_once ? count - first : at_once,
                                 .threads = b->threads};
    MG_TRY(mg_pass_create(&terms, &pass), done);
    status = mg_pass_run(pass, b->ranges, b->range_count, b->out + first, NULL, NULL);
    mg_pass_destroy(&pass);
    if (status != MG_OK) return status;
  }
done:
  *seconds = mg_now() - began;
  return status;
}

/* Bytes/s (read and written) of copying a block to another. */
static double copy_rate(const bench *b) {
  const double began = mg_now();
  for (int k = 0; k < 4; k++) memcpy(b->out[k % 2], b->blocks[k], b->floats * sizeof(float));
  return 4 * 2 * (double)b->floats * sizeof(float) / (mg_now() - began);
}

static mg_status measure(bench *b) {
  mg_status status = MG_OK;
  double copy[ROUNDS], one[ROUNDS], single[ROUNDS], together[ROUNDS];
  for (int r = 0; r < ROUNDS; r++) {
    copy[r] = copy_rate(b);
    MG_TRY(merge(b, 4, 1, &one[r]), done);
    one[r] = 4 * (OF_A_CELL + 2) * (double)b->floats * sizeof(float) / one[r];
    MG_TRY(merge(b, b->cells, 1, &single[r]), done);
    MG_TRY(merge(b, b->cells, b->cells, &together[r]), done);
  }
  const double rate = median(one), copies = median(copy), apart = median(single), all = median(together);
  printf("%.1f M parameters, %d sources a cell, %d thread%s\n", (double)b->floats / 1e6, OF_A_CELL, b->threads,
         b->threads > 1 ? "s" : "");
  printf("a linear merge moves %.2f GB/s, memcpy (one thread) %.2f GB/s: ratio %.2f\n", rate / 1e9, copies / 1e9,
         rate / copies);
  printf("%zu linear cells: one by one %.3f s, in one pass %.3f s: ratio %.2f\n", b->cells, apart, all, all / apart);
done:
  return status;
}

int main(int argc, char **argv) {
  mg_status status = MG_OK;
  mg_source_list list = {0};
  bench b = {.cells = argc > 2 ? strtoul(argv[2], NULL, 10) : 100, .threads = argc > 3 ? atoi(argv[3]) : 1};
  if (argc < 2) {
    fprintf(stderr, "usage: bench_merge SHARDS_DIR [CELLS [THREADS]]\n");
    return 2;
  }
  MG_TRY(mg_shard_list(argv[1], &list), cleanup);
  if (list.count < CANDIDATES) {
    status = mg_fail(MG_ERR_INPUT, "%s: %zu sources; %d were expected", argv[1], list.count, CANDIDATES);
    goto cleanup;
  }
  MG_TRY(mg_rows_open_shards(argv[1], &list, 64, &b.rows), cleanup);
  b.deltas = (mg_deltas){.rows = b.rows};
  MG_TRY(load(&b), cleanup);
  MG_TRY(declare(&b), cleanup);
  MG_TRY(measure(&b), cleanup);
cleanup:
  if (status != MG_OK) fprintf(stderr, "bench_merge: %s\n", mg_error_message());
  mg_quantities_destroy(&b.quantities);
  for (size_t k = 0; b.out != NULL && k < b.cells; k++) free(b.out[k]);
  for (int k = 0; b.blocks != NULL && k <= CANDIDATES; k++) free(b.blocks[k]);
  free(b.out), free(b.blocks), free(b.tau), free(b.ranges), free(b.recipes), free(b.sources), free(b.weights), free(b.ids);
  mg_rows_close(&b.rows);
  mg_source_list_free(&list);
  return status == MG_OK ? 0 : 1;
}
