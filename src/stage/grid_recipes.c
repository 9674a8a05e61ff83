/* Rank 0: what every cell comes to, which merges are known already, and what is left to be dealt out. */

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/hash.h"
#include "mergegrid/io.h"

/* ---- answers that are known ---- */

mg_status mg_grid_keep(mg_grid_stage *s, const mg_grid_answer *answer, mg_record_place place) {
  if (s->kept_count == s->kept_room) {
    const size_t room = s->kept_room > 0 ? 2 * s->kept_room : 1024;
    mg_grid_kept *grown = reallocarray(s->kept, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    s->kept = grown;
    s->kept_room = room;
  }
  s->kept[s->kept_count++] = (mg_grid_kept){.recipe = answer->recipe, .place = place, .failed = answer->failed};
  return MG_OK;
}

static int by_recipe(const void *a, const void *b) {
  const mg_grid_kept *x = a, *y = b;
  return (x->recipe > y->recipe) - (x->recipe < y->recipe);
}

static void sort_kept(mg_grid_stage *s) { qsort(s->kept, s->kept_count, sizeof *s->kept, by_recipe); }

const mg_grid_kept *mg_grid_find_kept(const mg_grid_stage *s, uint64_t recipe) {
  const mg_grid_kept key = {.recipe = recipe};
  return s->kept_count > 0 ? bsearch(&key, s->kept, s->kept_count, sizeof key, by_recipe) : NULL;
}

mg_status mg_grid_journal(mg_grid_stage *s, uint64_t recipe, size_t target, const void *predictions, size_t bytes,
                          mg_record_place *place) {
  mg_status status = MG_OK;
  mg_record_place where;
  mg_text record = {0};
  const mg_grid_answer answer = {.recipe = recipe, .target = (uint32_t)target, .size = (uint32_t)bytes};
  mg_text_append_bytes(&record, &answer, sizeof answer);
  mg_text_append_bytes(&record, predictions, bytes);
  if (record.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) status = mg_run_append(s->attempt->run, MG_RECORD_CELL, record.data, record.size, &where);
  if (status == MG_OK) status = mg_grid_keep(s, &answer, where);
  if (status == MG_OK && place != NULL) *place = where;
  mg_text_free(&record);
  return status;
}

size_t mg_grid_position(const mg_grid_work *w, size_t target, int64_t sequence) {
  size_t low = (size_t)w->first_of[target], high = (size_t)w->first_of[target + 1];
  while (low + 1 < high) {
    const size_t middle = (low + high) / 2;
    if (w->sequences[middle] <= sequence)
      low = middle;
    else
      high = middle;
  }
  return low - (size_t)w->first_of[target];
}

/* ---- matrices ---- */

static void say_notes(mg_strings *notes) {
  for (size_t k = 0; k < notes->count; k++) mg_info("note: %s", notes->items[k]);
  mg_strings_free(notes);
}

static mg_status read_compatibility(const mg_grid_stage *s, const char *path, double **values) {
  mg_status status = MG_OK;
  mg_labelled_table table = {0};
  mg_strings notes = {0};
  const size_t n = s->list->count;
  *values = mg_alloc(n, n * sizeof **values);
  if (*values == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_labelled_table_read(path, &table), cleanup);
  MG_TRY(mg_compatibility_of(&table, path, s->list, *values, &notes), cleanup);
  say_notes(&notes);
cleanup:
  mg_labelled_table_free(&table);
  mg_strings_free(&notes);
  return status;
}

/* Does a cell go by the matrix, with the word for its `duplicates`? */
static bool is_gone_by(const mg_grid_stage *s, const char *matrix, const char *duplicates) {
  for (size_t k = 0; k < s->grid.count; k++) {
    const mg_terms *terms = &s->grid.cells[k].terms;
    if (mg_terms_choose(terms) && terms->similarity_type != NULL && strcmp(terms->similarity_type, matrix) == 0 &&
        strcmp(terms->duplicates, duplicates) == 0)
      return true;
  }
  return false;
}

/* Says what is unusual, as cells go by it: what is said either way is said once. One that no cell goes by is read as well. */
static mg_status check_matrix(const mg_grid_stage *s, const char *name, const char *file) {
  static const mg_duplicates ways[] = {MG_DUPLICATES_KEEP, MG_DUPLICATES_FIRST};
  mg_status status = MG_OK;
  mg_strings all = {0};
  const bool keep = is_gone_by(s, name, "keep"), asked[] = {keep, !keep || is_gone_by(s, name, "first")};
  for (size_t way = 0; way < 2; way++) {
    mg_similarity matrix = {0};
    mg_strings notes = {0};
    if (!asked[way]) continue;
    status = mg_similarity_read(file, ways[way], &matrix, &notes);
    mg_similarity_free(&matrix);
    for (size_t k = 0; k < notes.count && status == MG_OK; k++)
      if (mg_strings_find(&all, notes.items[k]) < 0) status = mg_strings_add(&all, notes.items[k]);
    mg_strings_free(&notes);
    if (status != MG_OK) break;
  }
  say_notes(&all);
  return status;
}

mg_status mg_grid_read_matrices(mg_grid_stage *s) {
  mg_status status = MG_OK;
  const mg_grid_spec *grid = &s->attempt->config->grid;
  for (size_t k = 0; k < grid->similarity_names.count; k++)
    if (strcmp(grid->similarity_files.items[k], "nxn") != 0) /* that one when its answers are there */
      MG_TRY(check_matrix(s, grid->similarity_names.items[k], grid->similarity_files.items[k]), done);
  if (strcmp(grid->compatibility.tv, "stage") != 0) MG_TRY(read_compatibility(s, grid->compatibility.tv, &s->tv), done);
  if (strcmp(grid->compatibility.cka, "stage") != 0)
    MG_TRY(read_compatibility(s, grid->compatibility.cka, &s->cka_values), done);
done:
  return status;
}

/* With the evaluation on the texts that sources are chosen by, where a matrix is that. */
static mg_status take_matrices(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_labelled_table evaluation = {0};
  const mg_config *config = s->attempt->config;
  MG_TRY(mg_evaluation_table(s->list, &s->nxn->plan.texts.targets, mg_nxn_accuracy(s->nxn, 1), &evaluation), cleanup);
  s->matrix_count = config->grid.similarity_names.count;
  MG_TRY(mg_grid_matrices_read(config, s->grid.cells, s->grid.count, s->list, &evaluation, &s->matrices, NULL), cleanup);
cleanup:
  mg_labelled_table_free(&evaluation);
  return status;
}

/* ---- hashes ---- */

/* Of what a target's predictions are about: its texts' ids and partitions, and the classes' names. */
static mg_status hash_texts(mg_grid_stage *s) {
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  const mg_sequences *all = &t->tokenized.sequences;
  uint64_t labels = mg_hash("", 0);
  char mode[256];
  mg_encoder_numeric_mode(s->attempt->device, mode, sizeof mode);
  for (size_t k = 0; k < t->labels.count; k++)
    labels = mg_hash_more(labels, t->labels.items[k], strlen(t->labels.items[k]) + 1);
  labels = mg_hash_more(labels, mode, strlen(mode));
  labels = mg_hash_more(labels, &s->nxn->plan.shape, sizeof s->nxn->plan.shape);
  s->text_hash = mg_alloc(t->targets.count, sizeof *s->text_hash);
  if (s->text_hash == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < t->targets.count; m++) {
    const mg_target *of = &t->items[m];
    uint64_t hash = labels;
    for (size_t k = 0; k < of->count; k++) {
      const int32_t sequence = t->tokenized.sequence_of[of->text[k]];
      const int64_t first = all->offset[sequence], length = all->offset[sequence + 1] - first;
      hash = mg_hash_more(hash, &of->part[k], sizeof of->part[k]);
      hash = mg_hash_more(hash, all->ids + first, (size_t)length * sizeof *all->ids);
    }
    s->text_hash[m] = hash;
  }
  return MG_OK;
}

static uint64_t hash_source(const mg_grid_stage *s, int source, uint64_t hash) {
  const uint64_t identity = mg_rows_identity(s->deltas.rows, source);
  hash = mg_hash_more(hash, &identity, sizeof identity);
  if (source < 0) return hash;
  const char *id = s->list->items[source].id; /* what is random goes by it */
  hash = mg_hash_more(hash, id, strlen(id) + 1);
  return mg_hash_more(hash, s->deltas.class_of + (size_t)source * s->deltas.classes, s->deltas.classes * sizeof(int32_t));
}

/* Coefficients from stored Grams are summed in another order than those computed on the way, and in the Grams' own. */
static uint64_t hash_grams(const mg_grid_stage *s, uint64_t hash) {
  char mode[256];
  const mg_attempt *a = s->attempt;
  const bool stored = a->config->compatibility.gram == MG_GRAM_TENSOR, products = a->device != NULL && a->device->products;
  hash = mg_hash_more(hash, stored ? "t" : "", 1);
  if (!stored || (!products && (a->rows == NULL || !mg_gram_is_chained(a->rows)))) return hash;
  const char *text = mg_gram_stage_numeric_mode(a, mode, sizeof mode);
  return mg_hash_more(hash, text, strlen(text));
}

/* Everything that a cell's predictions are computed from. Never 0. */
static mg_status hash_recipe(const mg_grid_stage *s, size_t cell, const char **ids, uint64_t *hash) {
  mg_status status = MG_OK;
  mg_text text = {0};
  const mg_grid_cell *c = &s->cells[cell];
  const mg_resolved *r = &c->resolved;
  mg_recipe recipe = {.base = -1};
  if (r->kind == MG_CELL_MERGE) {
    MG_TRY(mg_recipe_of_cell(&s->grid.cells[cell], r, s->list, ids, &recipe), cleanup);
    MG_TRY(mg_recipe_canonical(&recipe, &text), cleanup);
  } else {
    mg_text_append(&text, "%s", r->kind == MG_CELL_MODEL ? "model" : s->grid.cells[cell].terms.method->name);
  }
  for (size_t k = 0; r->kind == MG_CELL_VOTE && k < r->count; k++) mg_text_append(&text, " %a", r->weight[k]);
  if (text.failed) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  uint64_t h = mg_hash_more(s->text_hash[c->target], text.data, text.size);
  h = hash_source(s, MG_ROW_BASE, h);
  if (r->kind == MG_CELL_MERGE) h = hash_grams(s, h);
  for (size_t k = 0; k < r->count; k++) h = hash_source(s, r->source[k], h);
  if (recipe.base >= 0) h = hash_source(s, recipe.base, mg_hash_more(h, "base", 5));
  *hash = h != 0 ? h : 1;
cleanup:
  mg_text_free(&text);
  return status;
}

/* ---- resolving ---- */

mg_status mg_grid_fail_cell(mg_grid_cell *cell) {
  cell->state = MG_CELL_FAILED;
  cell->error = mg_strdup(mg_error_message());
  return cell->error != NULL ? MG_OK : MG_ERR_NOMEM;
}

/* Why a target is none: it has no texts, or nxn.targets leaves it out. */
static mg_status not_a_target(const mg_grid_stage *s, const char *locale) {
  const mg_strings *targets = &s->nxn->plan.texts.targets;
  const char *nearest = mg_nearest(locale, (const char *const *)targets->items, targets->count);
  char *path = mg_corpus_path(&s->attempt->config->texts, locale);
  if (path == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (mg_path_exists(path))
    mg_fail(MG_ERR_INPUT, "target %s is not evaluated: it has texts, but nxn.targets leaves it out", locale);
  else
    mg_fail(MG_ERR_INPUT, "target %s has no texts: there is no %s%s%s%s", locale, path, nearest ? " (" : "",
            nearest ? nearest : "", nearest ? "?)" : "");
  free(path);
  return MG_ERR_INPUT;
}

/* Baselines and votes are made of what sources say of the target: of one that has failed there they are nothing. */
static mg_status check_answers(const mg_grid_stage *s, size_t cell) {
  const mg_grid_cell *c = &s->cells[cell];
  if (c->resolved.kind == MG_CELL_MERGE) return MG_OK;
  for (size_t k = 0; k < c->resolved.count; k++) {
    const size_t source = (size_t)c->resolved.source[k];
    const char *failure = mg_nxn_failure(s->nxn, source, (size_t)c->target);
    if (failure != NULL)
      return mg_fail(MG_ERR_INPUT, "method %s needs the answers of %s on %s, which has failed in the stage nxn: %s",
                     s->grid.cells[cell].terms.method->name, s->list->items[source].id, s->grid.cells[cell].terms.locale,
                     failure);
  }
  return MG_OK;
}

static mg_status resolve_all(mg_grid_stage *s, const mg_grid_context *context) {
  mg_status status = MG_OK;
  const char **ids = mg_alloc(s->list->count, sizeof *ids);
  if (ids == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->grid.count && status == MG_OK; k++) {
    mg_grid_cell *c = &s->cells[k];
    if (!c->wanted) continue;
    c->target = mg_strings_find(context->targets, s->grid.cells[k].terms.locale);
    status = c->target < 0 ? not_a_target(s, s->grid.cells[k].terms.locale)
                           : mg_grid_resolve(context, &s->grid.cells[k], &c->resolved);
    if (status == MG_OK) status = check_answers(s, k);
    if (status == MG_OK) status = hash_recipe(s, k, ids, &c->recipe);
    if (status == MG_ERR_INPUT) status = mg_grid_fail_cell(c);
  }
  free(ids);
  return status;
}

static mg_status build_context(mg_grid_stage *s, mg_grid_context *context) {
  mg_status status = MG_OK;
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  const double *tv = s->tv, *cka = s->cka_values;
  const mg_gram *gram;
  if (tv == NULL && s->gram != NULL) MG_TRY(mg_gram_stage_matrices(s->gram, &tv, &gram), done);
  if (cka == NULL && s->cka != NULL) MG_TRY(mg_cka_last(s->cka, &cka), done);
  MG_TRY(take_matrices(s), done);
  *context = (mg_grid_context){.sources = s->list,
                               .targets = &t->targets,
                               .matrix_count = s->matrix_count,
                               .matrices = s->matrices,
                               .tv = tv,
                               .cka = cka,
                               .accuracy = {mg_nxn_accuracy(s->nxn, s->part), mg_nxn_accuracy(s->nxn, 1)}};
done:
  return status;
}

/* ---- equal recipes, and what is left ---- */

typedef struct ordered {
  uint64_t recipe;
  size_t cell;
} ordered;

static int by_hash(const void *a, const void *b) {
  const ordered *x = a, *y = b;
  if (x->recipe != y->recipe) return x->recipe < y->recipe ? -1 : 1;
  return (x->cell > y->cell) - (x->cell < y->cell);
}

static mg_status find_equal(mg_grid_stage *s) {
  size_t count = 0;
  ordered *all = mg_alloc(s->grid.count, sizeof *all);
  if (all == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < s->grid.count; k++)
    if (s->cells[k].recipe != 0) all[count++] = (ordered){.recipe = s->cells[k].recipe, .cell = k};
  qsort(all, count, sizeof *all, by_hash);
  for (size_t k = 1, first = 0; k < count; k++) {
    if (all[k].recipe == all[first].recipe)
      s->cells[all[k].cell].same_as = (ptrdiff_t)all[first].cell;
    else
      first = k;
  }
  free(all);
  return MG_OK;
}

/* The first cell of a merge. */
static bool is_merge(const mg_grid_stage *s, size_t k) {
  const mg_grid_cell *c = &s->cells[k];
  return c->recipe != 0 && c->same_as < 0 && c->resolved.kind == MG_CELL_MERGE;
}

void mg_grid_look_up(mg_grid_stage *s) {
  if (s->kept_count > 1) sort_kept(s);
  s->done = s->all = 0;
  for (size_t k = 0; k < s->grid.count; k++) {
    mg_grid_cell *c = &s->cells[k];
    if (c->recipe == 0 || c->resolved.kind == MG_CELL_MODEL || c->same_as >= 0) continue;
    const mg_grid_kept *kept = mg_grid_find_kept(s, c->recipe);
    c->done = kept != NULL;
    if (kept != NULL) c->place = kept->place;
    if (c->resolved.kind == MG_CELL_MERGE) s->all++, s->done += c->done;
  }
}

static struct { /* qsort has no context */
  const mg_grid_cell *cells;
  const size_t *turn; /* of each target */
} sorting;

/* Target by target; those of the same sources beside each other. */
static int by_target(const void *a, const void *b) {
  const size_t i = *(const size_t *)a, j = *(const size_t *)b;
  const mg_grid_cell *x = &sorting.cells[i], *y = &sorting.cells[j];
  if (x->target != y->target) return sorting.turn[x->target] < sorting.turn[y->target] ? -1 : 1;
  for (size_t k = 0; k < x->resolved.count && k < y->resolved.count; k++)
    if (x->resolved.source[k] != y->resolved.source[k]) return x->resolved.source[k] < y->resolved.source[k] ? -1 : 1;
  return (i > j) - (i < j);
}

static mg_status add_item(mg_grid_stage *s, size_t cell, const char **ids) {
  mg_grid_work *w = &s->work;
  mg_recipe r;
  const mg_grid_cell *c = &s->cells[cell];
  const mg_status status = mg_recipe_of_cell(&s->grid.cells[cell], &c->resolved, s->list, ids, &r);
  if (status != MG_OK) return status;
  mg_grid_item *item = &w->items[w->item_count++];
  *item = (mg_grid_item){.recipe = c->recipe,
                         .target = (uint32_t)c->target,
                         .method = (uint32_t)(r.method - mg_methods),
                         .count = (uint32_t)r.count,
                         .best = (uint32_t)r.best,
                         .base = r.base,
                         .head = (int32_t)r.head,
                         .seed = r.seed,
                         .first = w->source_count};
  memcpy(item->values, r.values, sizeof item->values);
  for (size_t k = 0; k < r.count; k++) {
    w->sources[w->source_count++] = r.source[k];
    w->weights[w->weight_count++] = r.weight[k];
  }
  return MG_OK;
}

/* Merges in the order of the targets' turns (`sorting` is set); of them, those that are not known yet, and for a part its
 * share, whatever is known. */
static void list_left(mg_grid_stage *s, size_t *left, size_t *count) {
  mg_parts *parts = &s->attempt->parts;
  size_t all = 0;
  for (size_t k = 0; k < s->grid.count; k++)
    if (is_merge(s, k)) left[all++] = k;
  qsort(left, all, sizeof *left, by_target);
  *count = 0;
  for (size_t k = 0; k < all; k++) {
    mg_grid_cell *c = &s->cells[left[k]];
    c->ours = !c->done && mg_share_is_ours(parts, (int64_t)k, (int64_t)all);
    if (!c->done && mg_parts_only_gather(parts))
      mg_parts_lack(parts, mg_share_of(parts, (int64_t)k, (int64_t)all), MG_SHARE_GRID);
    if (c->ours) left[(*count)++] = left[k];
  }
}

static mg_status list_items(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_grid_work *w = &s->work;
  size_t count = 0, sources = 0;
  size_t *left = mg_alloc(s->grid.count, sizeof *left), *turn = NULL;
  const char **ids = mg_alloc(s->list->count, sizeof *ids);
  if (left == NULL || ids == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_grid_turns(&s->nxn->plan, &turn), cleanup);
  sorting.cells = s->cells;
  sorting.turn = turn;
  list_left(s, left, &count);
  for (size_t k = 0; k < count; k++) sources += s->cells[left[k]].resolved.count;
  w->items = mg_alloc(count, sizeof *w->items);
  w->sources = mg_alloc(sources, sizeof *w->sources);
  w->weights = mg_alloc(sources, sizeof *w->weights);
  if (w->items == NULL || w->sources == NULL || w->weights == NULL) status = MG_ERR_NOMEM;
  for (size_t k = 0; k < count && status == MG_OK; k++) status = add_item(s, left[k], ids);
cleanup:
  free(left), free(ids), free(turn);
  return status;
}

static int rising(const void *a, const void *b) {
  return (*(const int64_t *)a > *(const int64_t *)b) - (*(const int64_t *)a < *(const int64_t *)b);
}

/* Each target's different sequences. */
static mg_status list_sequences(mg_grid_stage *s) {
  mg_grid_work *w = &s->work;
  const mg_nxn_texts *t = &s->nxn->plan.texts;
  size_t all = 0;
  for (size_t m = 0; m < t->targets.count; m++) all += t->items[m].count;
  w->sequences = mg_alloc(all, sizeof *w->sequences);
  w->first_of = mg_alloc(t->targets.count + 1, sizeof *w->first_of);
  if (w->sequences == NULL || w->first_of == NULL) return MG_ERR_NOMEM;
  w->target_count = t->targets.count;
  for (size_t m = 0; m < t->targets.count; m++) {
    const mg_target *of = &t->items[m];
    const size_t first = w->sequence_count;
    size_t count = 0;
    w->first_of[m] = first;
    for (size_t k = 0; k < of->count; k++) w->sequences[first + k] = t->tokenized.sequence_of[of->text[k]];
    qsort(w->sequences + first, of->count, sizeof *w->sequences, rising);
    for (size_t k = 0; k < of->count; k++)
      if (k == 0 || w->sequences[first + k] != w->sequences[first + count - 1])
        w->sequences[first + count++] = w->sequences[first + k];
    w->sequence_count += count;
  }
  w->first_of[t->targets.count] = w->sequence_count;
  return MG_OK;
}

static int order(double a, double b) { return (a > b) - (a < b); }

static int by_source(const void *a, const void *b) {
  const mg_quantity *x = a, *y = b;
  if (x->source != y->source) return x->source < y->source ? -1 : 1;
  if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
  if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
  if (x->base != y->base) return x->base < y->base ? -1 : 1;
  if (x->seed != y->seed) return x->seed < y->seed ? -1 : 1;
  return x->a != y->a ? order(x->a, y->a) : order(x->b, y->b);
}

/* Quantities that the items ask for, source by source: a unit each. */
static mg_status list_quantities(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_grid_work *w = &s->work;
  mg_quantities *seen = NULL;
  mg_quantity_list list = {0};
  const char **ids = mg_alloc_zero(s->list->count, sizeof *ids);
  if (ids == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_quantities_create(&seen), cleanup);
  for (size_t k = 0; k < s->grid.count; k++) {
    if (!s->cells[k].ours) continue;
    mg_recipe recipe;
    MG_TRY(mg_recipe_of_cell(&s->grid.cells[k], &s->cells[k].resolved, s->list, ids, &recipe), cleanup);
    MG_TRY(mg_recipe_quantities(&recipe, mg_rows_table(s->deltas.rows), seen, &list), cleanup);
  }
  if (list.count > 1) qsort(list.items, list.count, sizeof *list.items, by_source);
  w->quantities = list.items;
  w->quantity_count = list.count;
  w->unit_of = mg_alloc(s->list->count + 1, sizeof *w->unit_of);
  w->values = mg_alloc_zero(list.count, sizeof *w->values);
  w->value_count = list.count;
  list.items = NULL;
  if (w->unit_of == NULL || w->values == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < w->quantity_count; k++)
    if (k == 0 || w->quantities[k].source != w->quantities[k - 1].source) w->unit_of[w->unit_count++] = k;
  w->unit_of[w->unit_count] = w->quantity_count;
cleanup:
  mg_quantities_destroy(&seen);
  free(list.items), free(ids);
  return status;
}

/* ---- the story ---- */

mg_status mg_grid_recipes(mg_grid_stage *s) {
  mg_status status = MG_OK;
  mg_grid_context context;
  MG_TRY(mg_nxn_score(s->nxn), done);
  MG_TRY(build_context(s, &context), done);
  MG_TRY(hash_texts(s), done);
  MG_TRY(resolve_all(s, &context), done);
  MG_TRY(find_equal(s), done);
  MG_TRY(list_sequences(s), done);
  mg_grid_look_up(s);
  MG_TRY(mg_grid_reuse(s), done);
  mg_grid_look_up(s);
  MG_TRY(list_items(s), done);
  MG_TRY(
      mg_grid_cut(s->work.items, s->work.item_count, s->attempt->ranks, s->plan.models, &s->work.groups, &s->work.group_count),
      done);
  MG_TRY(list_quantities(s), done);
  MG_TRY(mg_grid_journal_manifest(s), done);
done:
  return status;
}

void mg_grid_recipes_free(mg_grid_stage *s) {
  for (size_t k = 0; s->cells != NULL && k < s->grid.count; k++) {
    mg_resolved_free(&s->cells[k].resolved);
    free(s->cells[k].error);
  }
  mg_grid_matrices_free(&s->matrices, s->matrix_count);
  free(s->cells), free(s->tv), free(s->cka_values), free(s->text_hash), free(s->kept);
  mg_strings_free(&s->reused);
  mg_where_free(&s->where);
  mg_grid_free(&s->grid);
}
