/*
 * A grid that is still being computed, from its journals: the newest manifest says what the cells are, and each answer found
 * is scored as the stage would score it. Nothing is locked or written, so a run does not notice.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest_impl.h"
#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "mergegrid/score.h"
#include "run_impl.h"

/* An answer that was seen whole; its predictions are read again once it is known how they are scored. */
typedef struct seen_answer {
  uint64_t recipe;
  size_t journals; /* index into `paths` */
  mg_record_place place;
} seen_answer;

typedef struct reading {
  mg_grid_progress *out;
  mg_strings paths; /* the result's, then its parts' */
  size_t journals;  /* those that are read */
  seen_answer *seen;
  size_t seen_count;
  mg_text manifest;   /* the newest one's payload */
  size_t manifest_of; /* whose it is */
  bool has_manifest;
  int32_t *labels, *predictions; /* of the longest target */
} reading;

/* ---- the journals ---- */

/* The run's own manifest is what a gathering or continued run goes by; a part's counts where there is no other. */
static mg_status see_manifest(reading *r, const mg_record *record) {
  if (r->has_manifest && r->manifest_of == 0 && r->journals > 0) return MG_OK;
  mg_text_free(&r->manifest);
  mg_text_append_bytes(&r->manifest, record->payload, record->size);
  r->has_manifest = !r->manifest.failed;
  r->manifest_of = r->journals;
  return r->has_manifest ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
}

static mg_status see_answer(reading *r, const mg_record *record) {
  mg_grid_answer answer;
  if (record->size < sizeof answer) return MG_OK;
  memcpy(&answer, record->payload, sizeof answer);
  if ((r->seen_count & (r->seen_count - 1)) == 0) { /* grown at powers of two */
    seen_answer *grown = reallocarray(r->seen, r->seen_count > 0 ? 2 * r->seen_count : 1, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    r->seen = grown;
  }
  r->seen[r->seen_count++] = (seen_answer){.recipe = answer.recipe, .journals = r->journals, .place = record->place};
  return MG_OK;
}

static mg_status visit(void *context, const mg_record *record) {
  reading *r = context;
  r->out->records++;
  r->out->bytes += (double)record->size;
  if (record->kind == MG_RECORD_MANIFEST) return see_manifest(r, record);
  return record->kind == MG_RECORD_CELL ? see_answer(r, record) : MG_OK;
}

static mg_status list_paths(const char *result, mg_strings *paths) {
  mg_status status = MG_OK;
  int *found = NULL;
  size_t count = 0;
  MG_TRY(mg_strings_add(paths, result), cleanup);
  MG_TRY(mg_parts_find(result, &found, &count), cleanup);
  for (size_t k = 0; k < count; k++)
    for (int part = 1; part <= found[k]; part++) {
      char *path = mg_part_path(result, part, found[k]);
      status = path != NULL ? mg_strings_add(paths, path) : MG_ERR_NOMEM;
      free(path);
      if (status != MG_OK) goto cleanup;
    }
cleanup:
  free(found);
  return status;
}

/* ---- scores ---- */

static mg_status score(reading *r, const mg_manifest *m, const mg_manifest_texts *t, const bool *take, const int32_t *said,
                       mg_scores *scores) {
  size_t count = 0;
  for (size_t k = 0; k < t->count; k++) {
    if (!take[k]) continue;
    r->labels[count] = t->label[k];
    r->predictions[count++] = said[t->position[k]];
  }
  return mg_score(r->labels, r->predictions, count, m->classes, scores);
}

static mg_status fail_cell(mg_grid_table *t, mg_result_cell *cell, const char *message, size_t size) {
  mg_text text = {0};
  mg_text_append_bytes(&text, message, strnlen(message, size));
  const mg_status status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_strings_add(&t->strings, text.data);
  mg_text_free(&text);
  if (status != MG_OK) return status;
  cell->error = t->strings.items[t->strings.count - 1];
  cell->status = "failed";
  return MG_OK;
}

/* An answer that is not of these texts leaves the cell planned: the run will leave it out as well. */
static mg_status take_answer(reading *r, const mg_manifest *m, size_t c, const mg_record *record) {
  mg_grid_answer answer;
  mg_scores scored, select;
  mg_result_cell *cell = &r->out->table.cells[c];
  const ptrdiff_t target = mg_strings_find(&r->out->table.targets, cell->locale);
  if (target < 0 || record->size < sizeof answer) return MG_OK;
  memcpy(&answer, record->payload, sizeof answer);
  const mg_manifest_texts *t = &m->texts[target];
  const size_t size = record->size - sizeof answer;
  const char *data = (const char *)record->payload + sizeof answer;
  if (answer.failed != 0) return fail_cell(&r->out->table, cell, data, size);
  if (size != t->sequences * sizeof(int32_t)) return MG_OK;
  int32_t *said = mg_alloc(t->sequences, sizeof *said);
  if (said == NULL) return MG_ERR_NOMEM;
  memcpy(said, data, size);
  const bool good = score(r, m, t, t->scored, said, &scored) == MG_OK && score(r, m, t, t->selects, said, &select) == MG_OK;
  free(said);
  if (!good) return MG_OK;
  cell->accuracy = scored.accuracy, cell->macro_f1 = scored.macro_f1;
  cell->select_accuracy = select.accuracy;
  cell->merging_effect = cell->accuracy - m->source_mean[c];
  cell->status = "completed";
  return MG_OK;
}

/* ---- cells by their recipes ---- */

typedef struct recipe_of {
  uint64_t recipe;
  size_t cell;
} recipe_of;

static int by_recipe(const void *a, const void *b) {
  const recipe_of *x = a, *y = b;
  return (x->recipe > y->recipe) - (x->recipe < y->recipe);
}

/* The cells that wait for an answer: of equal recipes the first. */
static size_t list_waiting(const mg_grid_table *t, recipe_of *list) {
  size_t count = 0;
  for (size_t c = 0; c < t->cell_count; c++) {
    const mg_result_cell *cell = &t->cells[c];
    if (strcmp(cell->status, "planned") == 0 && cell->recipe[0] != '\0' && cell->same_as < 0)
      list[count++] = (recipe_of){.recipe = strtoull(cell->recipe, NULL, 16), .cell = c};
  }
  if (count > 1) qsort(list, count, sizeof *list, by_recipe);
  return count;
}

static mg_status open_journal(const reading *r, const seen_answer *s, mg_journal_file **file) {
  char *path = mg_attempt_path(r->paths.items[s->journals], s->place.attempt, "journal");
  const mg_status status = path != NULL ? mg_journal_open(path, s->place.attempt, file) : MG_ERR_NOMEM;
  free(path);
  return status;
}

static mg_status take_answers(reading *r, const mg_manifest *m) {
  mg_status status = MG_OK;
  mg_grid_table *t = &r->out->table;
  mg_journal_file *file = NULL;
  size_t of = 0;
  recipe_of *list = mg_alloc(t->cell_count, sizeof *list);
  if (list == NULL) return MG_ERR_NOMEM;
  const size_t count = list_waiting(t, list);
  for (size_t k = 0; k < r->seen_count; k++) {
    mg_record record;
    const seen_answer *s = &r->seen[k];
    const recipe_of key = {.recipe = s->recipe}, *found = count > 0 ? bsearch(&key, list, count, sizeof key, by_recipe) : NULL;
    if (found == NULL || strcmp(t->cells[found->cell].status, "planned") != 0) continue;
    if (file == NULL || of != s->journals || mg_journal_attempt(file) != s->place.attempt) {
      mg_journal_close(&file);
      MG_TRY(open_journal(r, s, &file), cleanup);
      of = s->journals;
    }
    MG_TRY(mg_journal_at(file, s->place.offset, &record), cleanup);
    MG_TRY(take_answer(r, m, found->cell, &record), cleanup);
  }
cleanup:
  mg_journal_close(&file);
  free(list);
  return status;
}

/* What follows from other cells: of the same recipe, of plain similarity. */
static void complete_cells(const mg_manifest *m, mg_grid_table *t) {
  for (size_t c = 0; c < t->cell_count; c++) {
    mg_result_cell *cell = &t->cells[c];
    cell->prediction_row = -1; /* rows are numbered when the result is written */
    if (cell->same_as < 0) continue;
    const mg_result_cell *first = &t->cells[cell->same_as]; /* an earlier one, complete by now */
    cell->status = first->status, cell->error = first->error;
    cell->accuracy = first->accuracy, cell->macro_f1 = first->macro_f1;
    cell->select_accuracy = first->select_accuracy;
    cell->merging_effect = cell->accuracy - m->source_mean[c];
  }
  for (size_t c = 0; c < t->cell_count; c++)
    t->cells[c].delta_vs_similarity =
        t->cells[c].matched >= 0 ? t->cells[c].accuracy - t->cells[t->cells[c].matched].accuracy : NAN;
}

/* ---- the whole ---- */

static mg_status make_cells(reading *r) {
  mg_status status = MG_OK;
  mg_manifest m = {0};
  size_t longest = 0;
  if (mg_manifest_read(r->paths.items[0], r->manifest.data, r->manifest.size, &m) != MG_OK) {
    mg_warn("cells are not shown: %s", mg_error_message());
    return MG_OK;
  }
  for (size_t k = 0; k < m.table.targets.count; k++)
    if (m.texts[k].count > longest) longest = m.texts[k].count;
  r->out->table = m.table, r->out->select = m.select; /* they change hands */
  m.table = (mg_grid_table){0}, m.select = NULL;
  r->out->known = true;
  r->labels = mg_alloc(longest, sizeof *r->labels), r->predictions = mg_alloc(longest, sizeof *r->predictions);
  if (r->labels == NULL || r->predictions == NULL) status = MG_ERR_NOMEM;
  if (status == MG_OK) status = take_answers(r, &m);
  if (status == MG_OK) complete_cells(&m, &r->out->table);
  mg_manifest_free(&m);
  return status;
}

mg_status mg_grid_progress_read(const char *result, mg_grid_progress *progress) {
  mg_status status = MG_OK;
  /* logits are most of a journal, and nobody asks for them here */
  static const uint32_t wanted[] = {MG_RECORD_CELL, MG_RECORD_MANIFEST};
  const mg_journal_kinds kinds = {2, wanted};
  reading r = {.out = progress};
  *progress = (mg_grid_progress){0};
  MG_TRY(list_paths(result, &r.paths), cleanup);
  for (; r.journals < r.paths.count; r.journals++)
    MG_TRY(mg_journal_skim(r.paths.items[r.journals], &kinds, visit, &r), cleanup);
  if (r.has_manifest) MG_TRY(make_cells(&r), cleanup);
cleanup:
  mg_strings_free(&r.paths);
  mg_text_free(&r.manifest);
  free(r.seen), free(r.labels), free(r.predictions);
  if (status != MG_OK) mg_grid_progress_free(progress);
  return status;
}

void mg_grid_progress_free(mg_grid_progress *progress) {
  mg_grid_table_free(&progress->table);
  free(progress->select);
  *progress = (mg_grid_progress){0};
}
