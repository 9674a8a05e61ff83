/* Reading whole tensors for one recipe, where what it has to know of them hangs on all of its sources. */

#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

typedef struct reading {
  mg_delta_reader reader;
  mg_tile_scratch scratch;
  int *sources;         /* the recipe's, and what stands in for theta_0 */
  float *block, **rows; /* of both, and theta_0 */
  const float **tau;
} reading;

static void end_reading(reading *r) {
  mg_delta_reader_free(&r->reader);
  mg_tile_scratch_free(&r->scratch);
  free(r->sources), free(r->block), free(r->rows), free(r->tau);
}

static mg_status begin_reading(const mg_pass_terms *terms, const mg_recipe *recipe, int64_t capacity, reading *r) {
  mg_status status = MG_OK;
  const size_t n = recipe->count + 1, row = ((size_t)capacity + MG_MERGE_SLACK + 15) / 16 * 16;
  *r = (reading){.sources = mg_alloc(n, sizeof *r->sources),
                 .block = mg_alloc_aligned((n + 1) * row * sizeof(float)),
                 .rows = mg_alloc(n + 1, sizeof *r->rows),
                 .tau = mg_alloc(n, sizeof *r->tau)};
  if (!r->sources || !r->block || !r->rows || !r->tau) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory for merging %zu sources", recipe->count);
    goto failed;
  }
  memset(r->block, 0, (n + 1) * row * sizeof(float));
  for (size_t k = 0; k < n + 1; k++) r->rows[k] = r->block + k * row;
  for (size_t k = 0; k < recipe->count; k++) r->tau[k] = r->rows[k];
  memcpy(r->sources, recipe->source, recipe->count * sizeof *r->sources);
  r->sources[recipe->count] = recipe->base;
  MG_TRY(mg_delta_reader_create(terms->deltas, n, &r->reader), failed);
  MG_TRY(mg_tile_scratch_create(recipe->count, capacity, &r->scratch), failed);
  return MG_OK;
failed:
  end_reading(r);
  return status;
}

mg_status mg_each_tile(const mg_pass_terms *terms, const mg_pass_recipe *p, size_t t, mg_visit_fn visit, void *context) {
  mg_status status = MG_OK;
  const mg_recipe *recipe = p->recipe;
  const mg_tensor_table *table = mg_rows_table(terms->deltas->rows);
  const mg_tensor *tensor = &table->tensors[t];
  const int64_t most = mg_chunk_length(tensor);
  const bool relative = p->tensors[t].base >= 0;
  reading r;
  MG_TRY(begin_reading(terms, recipe, most, &r), done);
  for (int64_t first = 0; first < tensor->numel; first += most) {
    const mg_tile tile = {.t = t,
                          .first = first,
                          .count = tensor->numel - first < most ? tensor->numel - first : most,
                          .tau = r.tau,
                          .stand_in = r.rows[recipe->count],
                          .base = r.rows[recipe->count + 1]};
    MG_TRY(
        mg_delta_read(&r.reader, r.sources, recipe->count + relative, t, first, tile.count, r.rows, r.rows[recipe->count + 1]),
        cleanup);
    mg_combining c = mg_ready_tile(p, table, &tile, &r.scratch);
    visit(context, &c);
  }
cleanup:
  end_reading(&r);
done:
  return status;
}

/* ---- what wins where votes cancel ---- */

static void count_signs(void *totals, mg_combining *c) { c->prepared->formula->count_signs(c, totals); }

static int winner(int64_t total) { return total < 0 ? -1 : 1; }

/* Of all tensors. They are prepared for this alone, since others may be at work with those of the pass. */
static mg_status find_global_tie(const mg_pass_terms *terms, mg_pass_recipe *p) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(terms->deltas->rows);
  int64_t totals[2] = {0};
  mg_pass_recipe own;
  MG_TRY(mg_pass_recipe_open(p->recipe, table, &own), done);
  for (size_t t = 0; t < table->count; t++) {
    if (!mg_is_counted(p->recipe, &table->tensors[t])) continue;
    MG_TRY(mg_prepare(terms, &own, t), cleanup);
    MG_TRY(mg_each_tile(terms, &own, t, count_signs, totals), cleanup);
  }
  atomic_store(&p->tie, winner(totals[0]));
cleanup:
  mg_pass_recipe_close(&own, table);
done:
  return status;
}

mg_status mg_find_ties(const mg_pass_terms *terms, mg_pass_recipe *p, size_t t) {
  mg_status status = MG_OK;
  int64_t totals[2] = {0};
  mg_prepared *prepared = &p->tensors[t];
  if (prepared->formula->global_trim) return atomic_load(&p->tie) != 0 ? MG_OK : find_global_tie(terms, p);
  if (atomic_load(&prepared->tie[0]) != 0) return MG_OK;
  MG_TRY(mg_each_tile(terms, p, t, count_signs, totals), done);
  for (int k = 0; k < 2; k++) atomic_store(&prepared->tie[k], winner(totals[k]));
done:
  return status;
}
