/*
 * The grid's manifest in the journal. An answer there has a recipe's hash and predictions, no more; whoever looks at a run
 * under way has neither its configuration nor its texts, so what the cells are and how answers are scored is written beside
 * them, once an attempt.
 */

#include <stdlib.h>

#include "grid_impl.h"

/* Room for all targets' texts, one after another. */
typedef struct text_lists {
  mg_manifest_texts *texts; /* [M] */
  uint32_t *position;
  bool *scored, *selects;
} text_lists;

static void free_lists(text_lists *l) { free(l->texts), free(l->position), free(l->scored), free(l->selects); }

static mg_status list_texts(const mg_grid_stage *s, text_lists *l) {
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  size_t all = 0, next = 0;
  for (size_t m = 0; m < t->targets.count; m++) all += t->items[m].count;
  l->texts = mg_alloc(t->targets.count, sizeof *l->texts);
  l->position = mg_alloc(all, sizeof *l->position);
  l->scored = mg_alloc(all, sizeof *l->scored), l->selects = mg_alloc(all, sizeof *l->selects);
  if (l->texts == NULL || l->position == NULL || l->scored == NULL || l->selects == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < t->targets.count; m++) {
    const mg_target *of = &t->items[m];
    l->texts[m] = (mg_manifest_texts){.count = of->count,
                                      .sequences = (size_t)(s->work.first_of[m + 1] - s->work.first_of[m]),
                                      .label = of->label,
                                      .position = l->position + next,
                                      .scored = l->scored + next,
                                      .selects = l->selects + next};
    for (size_t k = 0; k < of->count; k++, next++) {
      l->position[next] = (uint32_t)mg_grid_position(&s->work, m, t->tokenized.sequence_of[of->text[k]]);
      l->scored[next] = mg_nxn_takes_part(s->nxn, of, k, s->part);
      l->selects[next] = mg_nxn_takes_part(s->nxn, of, k, 1);
    }
  }
  return MG_OK;
}

/* The partition that is chosen by, as the result names it: where no target has texts of nxn.select, what stands in for them. */
static const char *select_of(const mg_grid_stage *s) {
  return mg_partition_name(mg_nxn_parts_are_one(&s->nxn->plan.texts) ? s->attempt->config->nxn.partition
                                                                     : s->attempt->config->nxn.select);
}

mg_status mg_grid_journal_manifest(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_result_grid grid;
  text_lists lists = {0};
  mg_text payload = {0};
  mg_grid_manifest manifest = {.grid = &grid, .select = select_of(s), .classes = s->nxn->classes};
  MG_TRY(list_texts(s, &lists), cleanup);
  MG_TRY(mg_grid_make_cells(s, false, &grid, &manifest.source_mean), cleanup);
  manifest.texts = lists.texts;
  MG_TRY(mg_grid_manifest_write(&manifest, &payload), cleanup);
  if (payload.size <= MG_JOURNAL_MAX_PAYLOAD)
    MG_TRY(mg_run_append(s->attempt->run, MG_RECORD_MANIFEST, payload.data, payload.size, NULL), cleanup);
  else /* nothing that the result needs */
    mg_info("note: mergegrid show will not list cells before the result is there: %zu are too many for a journal's record",
            grid.cell_count);
cleanup:
  mg_grid_outcome_free(s);
  mg_text_free(&payload);
  free_lists(&lists);
  return status;
}
