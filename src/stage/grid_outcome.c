/* Rank 0: cells' answers from the journals, what they are worth, and the tables that follow. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/grid_statistics.h"
#include "mergegrid/hash.h"
#include "mergegrid/score.h"

typedef struct mg_grid_outcome {
  mg_result_cell *cells; /* [C] */
  mg_strings strings;    /* what they point to */
  char **swept;          /* [swept, C] */
  double *weights;       /* [C, N] */
  bool *selected;        /* [C, N] */
  double *source_mean;   /* [C] */
  size_t *texts, *rows;  /* [M] */
  size_t **cell_of;      /* [M][rows] the cell a row is of */
  int64_t *positions;    /* [U] of the target at hand: of each text's sequence among the target's */
  ptrdiff_t at;          /* the target at hand */
  int32_t *by_sequence, *by_text, *labels, *scored;
  mg_grid_tables tables;
  size_t matrix_count;
  const char **matrix_names;
  const mg_strings **matrix_labels;
  const double **matrices;
} mg_grid_outcome;

static mg_status make_room(mg_grid_stage *s, mg_grid_outcome *o) {
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  const size_t c = s->grid.count, n = s->list->count, m = t->targets.count;
  size_t longest = 0;
  for (size_t k = 0; k < m; k++)
    if (t->items[k].count > longest) longest = t->items[k].count;
  o->at = -1;
  o->cells = mg_alloc_zero(c, sizeof *o->cells);
  o->swept = mg_alloc_zero(c, (s->grid.swept.count + 1) * sizeof *o->swept);
  o->weights = mg_alloc_zero(c, n * sizeof *o->weights);
  o->selected = mg_alloc_zero(c, n * sizeof *o->selected);
  o->source_mean = mg_alloc(c, sizeof *o->source_mean);
  o->texts = mg_alloc(m, sizeof *o->texts), o->rows = mg_alloc_zero(m, sizeof *o->rows);
  o->cell_of = mg_alloc_zero(m, sizeof *o->cell_of);
  o->positions = mg_alloc(longest, sizeof *o->positions);
  o->by_sequence = mg_alloc(longest, sizeof *o->by_sequence), o->by_text = mg_alloc(longest, sizeof *o->by_text);
  o->labels = mg_alloc(longest, sizeof *o->labels), o->scored = mg_alloc(longest, sizeof *o->scored);
  return o->cells && o->swept && o->weights && o->selected && o->source_mean && o->texts && o->rows && o->cell_of &&
                 o->positions && o->by_sequence && o->by_text && o->labels && o->scored
             ? MG_OK
             : MG_ERR_NOMEM;
}

void mg_grid_outcome_free(mg_grid_stage *s) {
  mg_grid_outcome *o = s->outcome;
  if (o == NULL) return;
  for (size_t k = 0; o->swept != NULL && k < s->grid.swept.count * s->grid.count; k++) free(o->swept[k]);
  for (size_t m = 0; o->cell_of != NULL && m < s->nxn->plan.texts.targets.count; m++) free(o->cell_of[m]);
  mg_grid_tables_free(&o->tables);
  mg_strings_free(&o->strings);
  free(o->cells), free(o->swept), free(o->weights), free(o->selected), free(o->source_mean), free(o->texts), free(o->rows),
      free(o->cell_of);
  free(o->positions), free(o->by_sequence), free(o->by_text), free(o->labels), free(o->scored);
  free(o->matrix_names), free(o->matrix_labels), free(o->matrices);
  free(o);
  s->outcome = NULL;
}

/* ---- predictions ---- */

static void turn_to(mg_grid_stage *s, mg_grid_outcome *o, size_t target) {
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  const mg_target *of = &t->items[target];
  if (o->at == (ptrdiff_t)target) return;
  for (size_t k = 0; k < of->count; k++)
    o->positions[k] = (int64_t)mg_grid_position(&s->work, target, t->tokenized.sequence_of[of->text[k]]);
  o->at = (ptrdiff_t)target;
}

/* The answer of a merge or vote as the journal has it: predictions, or the message of a failure. */
static mg_status recall(mg_grid_stage *s, mg_grid_cell *c, size_t sequences, int32_t *predictions) {
  mg_record record;
  mg_grid_answer answer;
  const mg_status status = mg_run_read(s->attempt->run, c->place, &record);
  if (status != MG_OK) return status;
  memcpy(&answer, record.payload, sizeof answer);
  const char *data = (const char *)record.payload + sizeof answer;
  if (answer.failed) {
    c->state = MG_CELL_FAILED;
    if (c->error == NULL) c->error = strndup(data, answer.size);
    return c->error != NULL ? MG_OK : MG_ERR_NOMEM;
  }
  memcpy(predictions, data, sequences * sizeof *predictions);
  return MG_OK;
}

/* A source's predictions of a target's texts, in the order of the file. */
static void source_by_text(const mg_grid_stage *s, size_t target, size_t source, int32_t *by_text) {
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  const mg_target *of = &t->items[target];
  const int32_t *all = mg_nxn_predictions(s->nxn) + source * t->tokenized.sequences.count;
  for (size_t k = 0; k < of->count; k++) by_text[k] = all[t->tokenized.sequence_of[of->text[k]]];
}

/* A cell's predictions of its target's texts, in the order of the file; the cell's state may become failed. */
static mg_status cell_by_text(mg_grid_stage *s, mg_grid_outcome *o, size_t cell, int32_t *by_text) {
  mg_grid_cell *c = &s->cells[cell];
  const size_t target = (size_t)c->target, sequences = (size_t)(s->work.first_of[target + 1] - s->work.first_of[target]);
  if (c->resolved.kind == MG_CELL_MODEL) {
    source_by_text(s, target, (size_t)c->resolved.source[0], by_text);
    return MG_OK;
  }
  turn_to(s, o, target);
  const mg_status status = recall(s, c, sequences, o->by_sequence);
  if (status != MG_OK || c->state == MG_CELL_FAILED) return status;
  for (size_t k = 0; k < s->nxn->plan.texts.items[target].count; k++) by_text[k] = o->by_sequence[o->positions[k]];
  return MG_OK;
}

/* ---- scores ---- */

static mg_status score(mg_grid_stage *s, mg_grid_outcome *o, size_t target, int part, const int32_t *by_text,
                       mg_scores *scores) {
  const mg_target *of = &s->nxn->plan.texts.items[target];
  size_t n = 0;
  for (size_t k = 0; k < of->count; k++) {
    if (!mg_nxn_takes_part(s->nxn, of, k, part)) continue;
    o->labels[n] = of->label[k];
    o->scored[n++] = by_text[k];
  }
  return mg_score(o->labels, o->scored, n, s->nxn->classes, scores);
}

static mg_status score_cell(mg_grid_stage *s, mg_grid_outcome *o, size_t cell) {
  mg_status status = MG_OK;
  mg_grid_cell *c = &s->cells[cell];
  mg_result_cell *out = &o->cells[cell];
  mg_scores scored, select;
  MG_TRY(cell_by_text(s, o, cell, o->by_text), done);
  if (c->state == MG_CELL_FAILED) goto done;
  c->state = MG_CELL_COMPLETED;
  c->row = (ptrdiff_t)o->rows[c->target];
  o->cell_of[c->target][o->rows[c->target]++] = cell;
  MG_TRY(score(s, o, (size_t)c->target, s->part, o->by_text, &scored), done);
  MG_TRY(score(s, o, (size_t)c->target, 1, o->by_text, &select), done);
  out->accuracy = scored.accuracy;
  out->macro_f1 = scored.macro_f1;
  out->select_accuracy = select.accuracy;
done:
  return status;
}

/*
 * Accuracies of sources on a cell's target: the best of its own, of any but the target's, and the target's. A source that has
 * failed there is best of nothing; a mean that it belongs to is none.
 */
static void compare_with_sources(const mg_grid_stage *s, mg_grid_outcome *o, size_t cell) {
  const mg_grid_cell *c = &s->cells[cell];
  mg_result_cell *out = &o->cells[cell];
  const double *accuracy = mg_nxn_accuracy(s->nxn, s->part);
  const size_t m = s->nxn->plan.texts.targets.count;
  double total = 0;
  bool has_own = false; /* of several the first, failed or not, which is whom the method `own` takes */
  o->source_mean[cell] = NAN;
  if (c->target < 0) return;
  for (size_t k = 0; k < s->list->count; k++) {
    const double own = accuracy[k * m + (size_t)c->target];
    const bool is_target = strcmp(s->list->items[k].locale, out->locale) == 0;
    if (is_target && !has_own) out->own = own;
    has_own = has_own || is_target;
    if (!is_target && !isnan(own) && !(out->best_zero_shot >= own)) out->best_zero_shot = own;
  }
  for (size_t k = 0; k < c->resolved.count; k++) {
    const double own = accuracy[(size_t)c->resolved.source[k] * m + (size_t)c->target];
    if (!isnan(own) && !(out->best_source >= own)) out->best_source = own;
    total += own;
  }
  if (c->resolved.count == 0) return;
  o->source_mean[cell] = total / (double)c->resolved.count;
  out->merging_effect = out->accuracy - o->source_mean[cell];
}

/* ---- a cell's columns ---- */

/* A copy that lives as long as the outcome. */
static mg_status keep_text(mg_grid_outcome *o, mg_text *text, const char **to) {
  mg_status status =
      text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_strings_add(&o->strings, text->data != NULL ? text->data : "");
  if (status == MG_OK) *to = o->strings.items[o->strings.count - 1];
  mg_text_free(text);
  return status;
}

static mg_status describe(mg_grid_stage *s, mg_grid_outcome *o, size_t k) {
  mg_status status = MG_OK;
  static const char *const states[] = {"planned", "completed", "failed"};
  const mg_grid_cell *c = &s->cells[k];
  const mg_cell *cell = &s->grid.cells[k];
  const mg_grid_context context = {.sources = s->list, .targets = &s->nxn->plan.texts.targets};
  mg_result_cell *out = &o->cells[k];
  mg_text text = {0};
  char hash[17];
  MG_TRY(mg_cell_json(cell, &text), done);
  MG_TRY(keep_text(o, &text, &out->terms), done);
  MG_TRY(mg_cell_parameters_json(cell, &text), done);
  MG_TRY(keep_text(o, &text, &out->parameters), done);
  if (c->resolved.count > 0) MG_TRY(mg_resolved_sources_text(&context, &c->resolved, &text), done);
  MG_TRY(keep_text(o, &text, &out->sources), done);
  if (c->recipe != 0) mg_text_append(&text, "%s", mg_hash_text(c->recipe, hash));
  MG_TRY(keep_text(o, &text, &out->recipe), done);
  for (size_t p = 0; p < s->grid.swept.count; p++) {
    MG_TRY(mg_cell_parameter(cell, s->grid.swept.items[p], &text), done);
    o->swept[p * s->grid.count + k] = text.data != NULL ? text.data : mg_strdup("");
    text = (mg_text){0};
    if (o->swept[p * s->grid.count + k] == NULL) return MG_ERR_NOMEM;
  }
  out->key = cell->key, out->phase = cell->phase;
  out->locale = cell->terms.locale, out->method = cell->terms.method->name;
  out->similarity_type = cell->terms.sources.count > 0 ? "" : cell->terms.similarity_type;
  out->preset = cell->terms.preset, out->head = cell->terms.head;
  out->status = states[c->state], out->error = c->error, out->note = c->resolved.note;
  out->num_languages = cell->terms.sources.count > 0 ? (int)cell->terms.sources.count : cell->terms.num_languages;
  out->num_sources = (int)c->resolved.count;
  out->include_target = cell->terms.include_target, out->seed = cell->terms.seed;
  out->prediction_row = c->row, out->same_as = c->same_as, out->matched = c->matched;
  for (size_t i = 0; i < c->resolved.count; i++) {
    o->weights[k * s->list->count + (size_t)c->resolved.source[i]] = c->resolved.weight[i];
    o->selected[k * s->list->count + (size_t)c->resolved.source[i]] = true;
  }
done:
  mg_text_free(&text);
  return status;
}

/* A cell of the same recipe says what the first one says. */
static void copy_scores(mg_grid_stage *s, mg_grid_outcome *o, size_t k) {
  mg_grid_cell *c = &s->cells[k];
  const mg_grid_cell *first = &s->cells[c->same_as];
  const mg_result_cell *from = &o->cells[c->same_as];
  c->state = first->state;
  c->row = first->row;
  if (first->error != NULL && c->error == NULL) c->error = mg_strdup(first->error);
  o->cells[k].accuracy = from->accuracy;
  o->cells[k].macro_f1 = from->macro_f1;
  o->cells[k].select_accuracy = from->select_accuracy;
}

/* ---- the plain-similarity cell beside a cell ---- */

typedef struct coordinates {
  uint64_t hash;
  int plain; /* as plain_rank has it */
  size_t cell;
} coordinates;

static int by_hash(const void *a, const void *b) {
  const coordinates *x = a, *y = b;
  if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
  if (x->plain != y->plain) return x->plain - y->plain;
  return (x->cell > y->cell) - (x->cell < y->cell);
}

/* What others are compared with: similarity as it is; of sources that were named, a mean, by the weights given before an equal
   one. −1: no such cell. */
static int plain_rank(const mg_terms *t) {
  static const char *const names[] = {"similarity", "manual", "linear", "average"};
  for (int k = 0; k < 4; k++)
    if (strcmp(t->method->name, names[k]) == 0) return t->said_parameters == 0 && (k == 0 || t->sources.count > 0) ? k : -1;
  return -1;
}

/* Of what a cell shares with the plain one that it is compared with: all but the method, its parameters, and what a preset
   makes different from method to method. A seed only tells cells apart where the head goes by it. */
static mg_status hash_coordinates(const mg_cell *cell, uint64_t *hash) {
  const mg_terms *t = &cell->terms;
  const uint32_t own = strcmp(t->preset, "none") == 0 ? ~UINT32_C(0) : t->given;
  mg_text text = {0};
  mg_text_append(&text, "%s|%s|%d|%d|%s|", t->locale,
                 t->sources.count > 0 ? "" : (t->similarity_type != NULL ? t->similarity_type : ""), t->num_languages,
                 t->include_target, t->preset);
  for (size_t k = 0; k < t->sources.count; k++) mg_text_append(&text, "%s:%a|", t->sources.items[k], t->weights[k]);
  mg_text_append(&text, "%s|%s|%d|%d|%s|%s|", t->axis, t->select, t->top_k, t->sinkhorn_iters, t->inctar, t->duplicates);
  if (own & MG_GIVEN(MG_TERM_DROP_STRONGEST)) mg_text_append(&text, "%d|", t->drop_strongest);
  if (own & MG_GIVEN(MG_TERM_HEAD)) mg_text_append(&text, "%s|", t->head);
  if ((own & MG_GIVEN(MG_TERM_HEAD)) && strcmp(t->head, "random") == 0)
    mg_text_append(&text, "%llu", (unsigned long long)t->seed);
  const bool failed = text.failed;
  if (!failed) *hash = mg_hash(text.data, text.size);
  mg_text_free(&text);
  return failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

static mg_status match(mg_grid_stage *s) {
  mg_status status = MG_OK;
  size_t count = 0;
  coordinates *all = mg_alloc(s->grid.count, sizeof *all);
  if (all == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->grid.count; k++) {
    const int plain = plain_rank(&s->grid.cells[k].terms);
    if (plain < 0) continue;
    MG_TRY(hash_coordinates(&s->grid.cells[k], &all[count].hash), cleanup);
    all[count].plain = plain;
    all[count++].cell = k;
  }
  qsort(all, count, sizeof *all, by_hash);
  for (size_t k = 0; k < s->grid.count; k++) {
    coordinates key = {0};
    MG_TRY(hash_coordinates(&s->grid.cells[k], &key.hash), cleanup);
    size_t low = 0, high = count;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (all[middle].hash < key.hash)
        low = middle + 1;
      else
        high = middle;
    }
    /* the plain ones themselves, of another seed say, are compared with nothing */
    const bool found = low < count && all[low].hash == key.hash && all[low].plain != plain_rank(&s->grid.cells[k].terms);
    if (found) s->cells[k].matched = (ptrdiff_t)all[low].cell;
  }
cleanup:
  free(all);
  return status;
}

/* ---- for the result and its tables ---- */

static mg_status give_row(void *context, size_t target, size_t row, int32_t *predictions) {
  mg_grid_stage *s = context;
  return cell_by_text(s, s->outcome, s->outcome->cell_of[target][row], predictions);
}

/* What the source says that is best on the select partition; *by_text stays NULL where there is none. */
static mg_status give_best(const mg_grid_stage *s, size_t target, bool own_too, int32_t **by_text) {
  const double *accuracy = mg_nxn_accuracy(s->nxn, 1);
  const size_t m = s->nxn->plan.texts.targets.count;
  ptrdiff_t best = -1;
  for (size_t k = 0; k < s->list->count; k++) {
    if (!own_too && strcmp(s->list->items[k].locale, s->nxn->plan.texts.targets.items[target]) == 0) continue;
    if (isnan(accuracy[k * m + target])) continue; /* it has failed */
    if (best < 0 || accuracy[k * m + target] > accuracy[(size_t)best * m + target]) best = (ptrdiff_t)k;
  }
  if (best < 0) return MG_OK;
  *by_text = mg_alloc(s->nxn->plan.texts.items[target].count, sizeof **by_text);
  if (*by_text == NULL) return MG_ERR_NOMEM;
  source_by_text(s, target, (size_t)best, *by_text);
  return MG_OK;
}

static mg_status give_answers(void *context, size_t target, mg_grid_answers *a) {
  mg_status status = MG_OK;
  mg_grid_stage *s = context;
  const mg_target *of = &s->nxn->plan.texts.items[target];
  const size_t u = of->count;
  *a = (mg_grid_answers){.texts = u, .rows = s->outcome->rows[target]};
  a->label = mg_alloc(u, sizeof *a->label), a->scored = mg_alloc(u, sizeof *a->scored);
  a->selects = mg_alloc(u, sizeof *a->selects), a->predictions = mg_alloc(a->rows, u * sizeof *a->predictions);
  if (!a->label || !a->scored || !a->selects || !a->predictions) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  for (size_t k = 0; k < u; k++) {
    a->label[k] = of->label[k];
    a->scored[k] = mg_nxn_takes_part(s->nxn, of, k, s->part);
    a->selects[k] = mg_nxn_takes_part(s->nxn, of, k, 1);
  }
  for (size_t r = 0; r < a->rows; r++) MG_TRY(give_row(s, target, r, a->predictions + r * u), failed);
  MG_TRY(give_best(s, target, true, &a->best_source), failed);
  MG_TRY(give_best(s, target, false, &a->best_zero_shot), failed);
  return MG_OK;
failed:
  mg_grid_answers_free(a);
  return status;
}

static mg_status make_cells(mg_grid_stage *s, mg_grid_outcome *o, bool answers) {
  mg_status status = MG_OK;
  const size_t m = s->nxn->plan.texts.targets.count;
  for (size_t t = 0; t < m; t++) {
    size_t most = 0;
    for (size_t k = 0; k < s->grid.count; k++) most += s->cells[k].target == (ptrdiff_t)t && s->cells[k].same_as < 0;
    o->texts[t] = s->nxn->plan.texts.items[t].count;
    o->cell_of[t] = mg_alloc(most, sizeof **o->cell_of);
    if (o->cell_of[t] == NULL) return MG_ERR_NOMEM;
  }
  MG_TRY(match(s), done);
  for (size_t k = 0; k < s->grid.count; k++) {
    mg_grid_cell *c = &s->cells[k];
    mg_result_cell *out = &o->cells[k];
    *out = (mg_result_cell){.locale = s->grid.cells[k].terms.locale,
                            .accuracy = NAN,
                            .macro_f1 = NAN,
                            .select_accuracy = NAN,
                            .best_source = NAN,
                            .best_zero_shot = NAN,
                            .own = NAN,
                            .merging_effect = NAN,
                            .delta_vs_similarity = NAN};
    if (c->same_as >= 0)
      copy_scores(s, o, k);
    else if (c->recipe != 0 && c->state != MG_CELL_FAILED && ((answers && c->done) || c->resolved.kind == MG_CELL_MODEL))
      MG_TRY(score_cell(s, o, k), done);
    compare_with_sources(s, o, k);
    MG_TRY(describe(s, o, k), done);
  }
  for (size_t k = 0; k < s->grid.count; k++)
    if (s->cells[k].matched >= 0)
      o->cells[k].delta_vs_similarity = o->cells[k].accuracy - o->cells[s->cells[k].matched].accuracy;
done:
  return status;
}

static mg_status make_tables(mg_grid_stage *s, mg_grid_outcome *o) {
  const mg_grid_statistics_input input = {.cell_count = s->grid.count,
                                          .cells = o->cells,
                                          .targets = &s->nxn->plan.texts.targets,
                                          .texts = o->texts,
                                          .context = s,
                                          .answers = give_answers};
  return mg_grid_statistics(&input, &o->tables);
}

/* Matrices as they were gone by: of repeated labels all where any cell kept them. */
static mg_status list_matrices(mg_grid_stage *s, mg_grid_outcome *o) {
  o->matrix_names = mg_alloc(s->matrix_count, sizeof *o->matrix_names);
  o->matrix_labels = mg_alloc(s->matrix_count, sizeof *o->matrix_labels);
  o->matrices = mg_alloc(s->matrix_count, sizeof *o->matrices);
  if (o->matrix_names == NULL || o->matrix_labels == NULL || o->matrices == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->matrix_count; k++) {
    const mg_similarity *matrix = s->matrices[k].keep.labels.count > 0 ? &s->matrices[k].keep : &s->matrices[k].first;
    if (matrix->labels.count == 0) continue; /* declared, but no cell went by it */
    o->matrix_names[o->matrix_count] = s->matrices[k].name;
    o->matrix_labels[o->matrix_count] = &matrix->labels;
    o->matrices[o->matrix_count++] = matrix->values;
  }
  return MG_OK;
}

mg_status mg_grid_make_cells(mg_grid_stage *s, bool answers, mg_result_grid *out, const double **source_mean) {
  mg_status status = MG_OK;
  mg_grid_outcome *o = s->outcome = mg_alloc_zero(1, sizeof *o);
  if (o == NULL) return MG_ERR_NOMEM;
  MG_TRY(make_room(s, o), done);
  MG_TRY(make_cells(s, o, answers), done);
  *out = (mg_result_grid){.cell_count = s->grid.count,
                          .cells = o->cells,
                          .swept = &s->grid.swept,
                          .swept_values = (const char *const *)o->swept,
                          .weights = o->weights,
                          .selected = o->selected,
                          .targets = &s->nxn->plan.texts.targets,
                          .texts = o->texts,
                          .rows = o->rows,
                          .context = s,
                          .predictions = give_row,
                          .partition = mg_partition_name(s->attempt->config->grid.partition),
                          .selected_on_partition = s->part == 1 || mg_nxn_parts_are_one(&s->nxn->plan.texts)};
  if (source_mean != NULL) *source_mean = o->source_mean;
done:
  return status;
}

mg_status mg_grid_stage_collect(mg_grid_stage *s, mg_result_grid *out) {
  mg_status status = MG_OK;
  MG_TRY(mg_grid_make_cells(s, true, out, NULL), done);
  const mg_grid_outcome *o = s->outcome;
  MG_TRY(make_tables(s, s->outcome), done);
  MG_TRY(list_matrices(s, s->outcome), done);
  out->method_count = o->tables.method_count, out->methods = o->tables.methods;
  out->best_count = o->tables.best_count, out->best = o->tables.best;
  out->matrix_count = o->matrix_count, out->matrix_names = o->matrix_names;
  out->matrix_labels = o->matrix_labels, out->matrices = o->matrices;
  out->reused_count = s->reused.count, out->reused = (const char *const *)s->reused.items;
done:
  return status;
}

size_t mg_grid_stage_failed(const mg_grid_stage *s) {
  size_t failed = 0;
  for (size_t k = 0; k < s->grid.count; k++) failed += s->cells[k].state == MG_CELL_FAILED;
  return failed;
}
