/* Methods over all their cells, and each target's best recipe: from predictions, text by text. */

#include "mergegrid/grid_statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/statistics.h"
#include "mergegrid/text.h"

enum { DRAWS = 2000, SEED = 42, LOT_BYTES = 64 << 20 };

typedef struct work {
  const mg_grid_statistics_input *in;
  size_t *setting;         /* [C] index into methods, SIZE_MAX: not taken */
  ptrdiff_t *target;       /* [C] */
  int64_t *chosen;         /* [M] the best cell, −1 */
  int32_t **differences;   /* [lot, M] of the settings at hand: by text that is scored */
  mg_paired_target *pairs; /* [lot, M] */
  size_t lot;
  mg_grid_tables *out;
} work;

static bool completed(const mg_result_cell *c) { return strcmp(c->status, "completed") == 0; }

/* The cell that c is compared with; NULL where there is none to compare. */
static const mg_result_cell *partner(const work *w, size_t c) {
  const mg_result_cell *cell = &w->in->cells[c];
  if (!completed(cell) || cell->matched < 0 || (size_t)cell->matched == c) return NULL;
  const mg_result_cell *other = &w->in->cells[cell->matched];
  return completed(other) ? other : NULL;
}

/* ---- cells ---- */

static const char *parameters_of(const mg_result_cell *c) { return c->parameters != NULL ? c->parameters : ""; }

static size_t setting_of(const work *w, const mg_result_cell *c) {
  mg_grid_tables *out = w->out;
  for (size_t s = 0; s < out->method_count; s++)
    if (strcmp(out->methods[s].method, c->method) == 0 && strcmp(out->methods[s].parameters, parameters_of(c)) == 0) return s;
  out->methods[out->method_count] = (mg_result_method){.method = c->method,
                                                       .parameters = parameters_of(c),
                                                       .accuracy = NAN,
                                                       .delta = NAN,
                                                       .delta_low = NAN,
                                                       .delta_high = NAN,
                                                       .p = NAN,
                                                       .p_holm = NAN};
  return out->method_count++;
}

static void count_pair(mg_result_method *m, double mine, double other) {
  m->pairs++;
  m->wins += mine > other;
  m->losses += mine < other;
  m->draws += mine == other;
}

/* Settings, their counts and mean accuracies; the best recipe of each target. */
static void count_cells(const work *w) {
  const mg_grid_statistics_input *in = w->in;
  for (size_t c = 0; c < in->cell_count; c++) {
    const mg_result_cell *cell = &in->cells[c];
    w->target[c] = mg_strings_find(in->targets, cell->locale);
    w->setting[c] = in->take == NULL || in->take[c] ? setting_of(w, cell) : SIZE_MAX;
    if (w->setting[c] == SIZE_MAX) continue;
    mg_result_method *m = &w->out->methods[w->setting[c]];
    m->failed += strcmp(cell->status, "failed") == 0;
    if (!completed(cell)) continue;
    m->accuracy = m->cells == 0 ? cell->accuracy : m->accuracy + cell->accuracy;
    m->cells++;
    if (partner(w, c) != NULL) count_pair(m, cell->accuracy, partner(w, c)->accuracy);
    if (w->target[c] < 0 || mg_kind_of(cell->method) == MG_METHOD_MODEL) continue; /* a source as it is is no recipe */
    int64_t *best = &w->chosen[w->target[c]];
    if (*best < 0 || cell->select_accuracy > in->cells[*best].select_accuracy ||
        (isnan(in->cells[*best].select_accuracy) && !isnan(cell->select_accuracy)))
      *best = (int64_t)c;
  }
  for (size_t s = 0; s < w->out->method_count; s++) w->out->methods[s].accuracy /= (double)w->out->methods[s].cells;
}

/* ---- texts ---- */

static const int32_t *row_of(const mg_grid_answers *a, const mg_result_cell *c) {
  if (c->prediction_row < 0 || (size_t)c->prediction_row >= a->rows) return NULL;
  return a->predictions + (size_t)c->prediction_row * a->texts;
}

/* Adds a pair's differences to those of its setting. */
static mg_status add_pair(const mg_grid_answers *a, const int32_t *mine, const int32_t *other, int32_t **difference,
                          mg_paired_target *pair) {
  size_t next = 0;
  if (*difference == NULL) *difference = mg_alloc_zero(a->texts, sizeof **difference);
  if (*difference == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < a->texts; k++)
    if (a->scored[k]) (*difference)[next++] += (mine[k] == a->label[k]) - (other[k] == a->label[k]);
  *pair = (mg_paired_target){.texts = next, .pairs = pair->pairs + 1, .difference = *difference};
  return MG_OK;
}

static mg_status add_target(work *w, size_t target, const mg_grid_answers *a, size_t first) {
  mg_status status = MG_OK;
  const size_t targets = w->in->targets->count;
  for (size_t c = 0; c < w->in->cell_count; c++) {
    const size_t setting = w->setting[c];
    if (w->target[c] != (ptrdiff_t)target || setting == SIZE_MAX || setting < first || setting - first >= w->lot) continue;
    const mg_result_cell *other = partner(w, c);
    const int32_t *mine = other != NULL ? row_of(a, &w->in->cells[c]) : NULL, *theirs = mine ? row_of(a, other) : NULL;
    const size_t at = (setting - first) * targets + target;
    if (theirs != NULL) MG_TRY(add_pair(a, mine, theirs, &w->differences[at], &w->pairs[at]), done);
  }
done:
  return status;
}

mg_status mg_compare_predictions(const mg_grid_answers *answers, const int32_t *first, const int32_t *second,
                                 mg_cell_comparison *comparison) {
  mg_status status = MG_OK;
  mg_interval interval;
  mg_paired_target pair = {0};
  mg_cell_comparison c = {0};
  int32_t *difference = NULL;
  double p;
  MG_TRY(add_pair(answers, first, second, &difference, &pair), cleanup);
  for (size_t k = 0; k < answers->texts; k++) {
    if (!answers->scored[k]) continue;
    const bool right = first[k] == answers->label[k], other = second[k] == answers->label[k];
    c.both += right && other;
    c.only_first += right && !other;
    c.only_second += !right && other;
    c.neither += !right && !other;
    c.differ += first[k] != second[k];
  }
  c.texts = pair.texts;
  MG_TRY(mg_paired_bootstrap(&pair, 1, DRAWS, SEED, &interval, &p), cleanup);
  c.delta = interval.estimate, c.low = interval.low, c.high = interval.high;
  c.p = c.texts > 0 ? mg_mcnemar(c.only_first, c.only_second) : NAN;
  *comparison = c;
cleanup:
  free(difference);
  return status;
}

static mg_status add_best(work *w, size_t target, const mg_grid_answers *a) {
  const mg_result_cell *cell = &w->in->cells[w->chosen[target]];
  mg_result_best *best = &w->out->best[w->out->best_count++];
  mg_cell_comparison c;
  *best = (mg_result_best){.locale = cell->locale,
                           .cell = w->chosen[target],
                           .select_accuracy = cell->select_accuracy,
                           .accuracy = cell->accuracy,
                           .delta_vs_best_source = NAN,
                           .low = NAN,
                           .high = NAN,
                           .p = NAN};
  const int32_t *source = cell->include_target ? a->best_source : a->best_zero_shot;
  if (source == NULL || row_of(a, cell) == NULL) return MG_OK;
  const mg_status status = mg_compare_predictions(a, row_of(a, cell), source, &c);
  if (status == MG_OK) {
    best->delta_vs_best_source = c.delta, best->low = c.low, best->high = c.high;
    best->p = c.p;
  }
  return status;
}

/* ---- pooling ---- */

static mg_status pool(work *w, size_t first) {
  mg_status status = MG_OK;
  const size_t targets = w->in->targets->count;
  for (size_t s = first; s < w->out->method_count && s - first < w->lot; s++) {
    mg_result_method *m = &w->out->methods[s];
    mg_paired_target *pairs = w->pairs + (s - first) * targets;
    mg_interval interval;
    size_t count = 0;
    for (size_t t = 0; t < targets; t++)
      if (pairs[t].texts > 0) pairs[count++] = pairs[t];
    if (count == 0) continue;
    MG_TRY(mg_paired_bootstrap(pairs, count, DRAWS, SEED, &interval, &m->p), done);
    m->delta = interval.estimate, m->delta_low = interval.low, m->delta_high = interval.high;
  }
done:
  return status;
}

static void clear_lot(work *w) {
  const size_t count = w->lot * w->in->targets->count;
  for (size_t k = 0; w->differences != NULL && k < count; k++) free(w->differences[k]);
  if (w->differences != NULL) memset(w->differences, 0, count * sizeof(int32_t *));
  if (w->pairs != NULL) memset(w->pairs, 0, count * sizeof *w->pairs);
}

/* Settings first … first + lot − 1 over all targets; with the first lot, the best recipes too. */
static mg_status read_texts(work *w, size_t first) {
  mg_status status = MG_OK;
  for (size_t t = 0; t < w->in->targets->count; t++) {
    mg_grid_answers answers = {0};
    status = w->in->answers(w->in->context, t, &answers);
    if (status == MG_OK) status = add_target(w, t, &answers, first);
    if (status == MG_OK && first == 0 && w->chosen[t] >= 0) status = add_best(w, t, &answers);
    mg_grid_answers_free(&answers);
    if (status != MG_OK) return status;
  }
  return pool(w, first);
}

static mg_status make_room(work *w) {
  const size_t cells = w->in->cell_count, targets = w->in->targets->count;
  w->out->methods = mg_alloc_zero(cells, sizeof *w->out->methods);
  w->out->best = mg_alloc_zero(targets, sizeof *w->out->best);
  w->setting = mg_alloc(cells, sizeof *w->setting);
  w->target = mg_alloc(cells, sizeof *w->target);
  w->chosen = mg_alloc(targets, sizeof *w->chosen);
  for (size_t t = 0; w->chosen != NULL && t < targets; t++) w->chosen[t] = -1;
  const bool room = w->out->methods && w->out->best && w->setting && w->target && w->chosen;
  return room ? MG_OK : MG_ERR_NOMEM;
}

static mg_status make_lot(work *w) {
  size_t texts = 1;
  for (size_t t = 0; t < w->in->targets->count; t++) texts += w->in->texts[t];
  w->lot = LOT_BYTES / (texts * sizeof(int32_t));
  if (w->lot < 1) w->lot = 1;
  if (w->lot > w->out->method_count) w->lot = w->out->method_count;
  w->differences = mg_alloc_zero(w->lot, w->in->targets->count * sizeof *w->differences);
  w->pairs = mg_alloc_zero(w->lot, w->in->targets->count * sizeof *w->pairs);
  return w->differences != NULL && w->pairs != NULL ? MG_OK : MG_ERR_NOMEM;
}

static mg_status correct(const mg_grid_tables *out) {
  double *p = mg_alloc(out->method_count, sizeof *p);
  if (p == NULL) return MG_ERR_NOMEM;
  for (size_t s = 0; s < out->method_count; s++) p[s] = out->methods[s].p;
  const mg_status status = mg_holm(p, out->method_count);
  for (size_t s = 0; s < out->method_count; s++) out->methods[s].p_holm = p[s];
  free(p);
  return status;
}

mg_status mg_grid_statistics(const mg_grid_statistics_input *in, mg_grid_tables *out) {
  mg_status status = MG_OK;
  work w = {.in = in, .out = out};
  *out = (mg_grid_tables){0};
  MG_TRY(make_room(&w), cleanup);
  count_cells(&w);
  MG_TRY(make_lot(&w), cleanup);
  for (size_t first = 0; first < out->method_count; first += w.lot) {
    MG_TRY(read_texts(&w, first), cleanup);
    clear_lot(&w);
  }
  MG_TRY(correct(out), cleanup);
cleanup:
  clear_lot(&w);
  free(w.differences), free(w.pairs), free(w.setting), free(w.target), free(w.chosen);
  if (status != MG_OK) mg_grid_tables_free(out);
  return status;
}

void mg_grid_tables_free(mg_grid_tables *tables) {
  free(tables->methods), free(tables->best);
  *tables = (mg_grid_tables){0};
}
