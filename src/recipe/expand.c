/* From the axes of the configuration to cells. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "recipe_impl.h"

/* More would be a mistake: at a second each they would take a month. */
static const double MOST_CELLS = 2e6;

typedef struct expansion {
  const mg_config *config;
  const mg_strings *targets;
  mg_grid *grid;
  size_t room;
  uint64_t *seen; /* open addressing; 0: free */
  size_t slots;
  mg_text json;
  /* of each method its first cell (from 1; 0: none yet), and the parameters that differ from that one's */
  size_t *first;
  uint32_t *differs;
  size_t *order, order_count;
} expansion;

/* ---- keys ---- */

/* Notes a key; is it new? */
static mg_status note_key(expansion *x, uint64_t key, bool *is_new) {
  if (key == 0) key = 1;
  if (2 * (x->grid->count + 1) > x->slots) {
    const size_t slots = x->slots > 0 ? 2 * x->slots : 1024;
    uint64_t *grown = mg_alloc_zero(slots, sizeof *grown);
    if (grown == NULL) return MG_ERR_NOMEM;
    for (size_t k = 0; k < x->slots; k++) {
      size_t at = (size_t)x->seen[k] & (slots - 1);
      while (grown[at] != 0) at = (at + 1) & (slots - 1);
      grown[at] = x->seen[k];
    }
    free(x->seen);
    x->seen = grown;
    x->slots = slots;
  }
  size_t at = (size_t)key & (x->slots - 1);
  while (x->seen[at] != 0 && x->seen[at] != key) at = (at + 1) & (x->slots - 1);
  *is_new = x->seen[at] == 0;
  x->seen[at] = key;
  return MG_OK;
}

/* ---- cells ---- */

static mg_status check(const expansion *x, const mg_phase *phase, const mg_terms *terms) {
  const char *file = x->config->file, *name = phase->name, *in = name[0] != '\0' ? " of phase " : "";
  if (terms->locale == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: grid: a cell%s%s has no target; locale was expected in fixed or sweep", file, in, name);
  if (terms->method == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: grid: a cell%s%s has no method; method was expected in fixed or sweep", file, in, name);
  if (terms->similarity_type == NULL && mg_terms_choose(terms))
    return mg_fail(MG_ERR_CONFIG,
                   "%s: grid: a cell%s%s (%s, %s) has neither sources nor a similarity_type, and grid.similarity has %zu "
                   "matrices",
                   file, in, name, terms->locale, terms->method->name, x->config->grid.similarity_names.count);
  return MG_OK;
}

/* Of the last cell. */
static void note_parameters(expansion *x) {
  const mg_terms *terms = &x->grid->cells[x->grid->count - 1].terms;
  const size_t m = (size_t)(terms->method - mg_methods);
  if (x->first[m] == 0) {
    x->first[m] = x->grid->count;
    x->order[x->order_count++] = m;
  }
  const mg_terms *first = &x->grid->cells[x->first[m] - 1].terms;
  for (size_t k = 0; k < terms->method->parameter_count; k++)
    if (terms->values[k] != first->values[k]) x->differs[m] |= UINT32_C(1) << k;
}

static mg_status add_cell(expansion *x, const mg_phase *phase, const mg_terms *said) {
  mg_status status = MG_OK;
  mg_grid *grid = x->grid;
  bool is_new;
  if (grid->count == x->room) {
    const size_t room = x->room > 0 ? 2 * x->room : 256;
    mg_cell *grown = reallocarray(grid->cells, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    grid->cells = grown;
    x->room = room;
  }
  mg_cell *cell = &grid->cells[grid->count];
  cell->terms = *said;
  cell->phase = phase->name;
  mg_terms_complete(x->config, &cell->terms);
  MG_TRY(check(x, phase, &cell->terms), done);
  x->json.size = 0;
  mg_terms_json(&cell->terms, &x->json);
  if (x->json.failed) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const uint64_t key = mg_hash(x->json.data, x->json.size);
  MG_TRY(note_key(x, key, &is_new), done);
  mg_hash_text(key, cell->key);
  if (!is_new) {
    grid->duplicate_count++;
    return MG_OK;
  }
  grid->count++;
  note_parameters(x);
done:
  return status;
}

/* ---- products ---- */

static size_t length_of(const expansion *x, const mg_axis *axis) { return axis->all_targets ? x->targets->count : axis->count; }

static void put_value(const expansion *x, const mg_axis *axis, size_t k, mg_terms *terms) {
  if (!axis->all_targets) {
    mg_terms_put(terms, &axis->values[k]);
    return;
  }
  terms->locale = x->targets->items[k];
  terms->given |= MG_GIVEN(MG_TERM_LOCALE);
}

/* Axes like digits, the last the fastest; level k has what the axes before k say. */
static mg_status expand_phase(expansion *x, const mg_phase *phase) {
  mg_status status = MG_OK;
  const size_t n = phase->axis_count;
  size_t *digit = mg_alloc_zero(n + 1, sizeof *digit), k = 0;
  mg_terms *level = mg_alloc(n + 1, sizeof *level);
  if (digit == NULL || level == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  level[0] = x->config->grid.defaults;
  while (true) {
    for (; k < n && digit[k] < length_of(x, &phase->axes[k]); k++) {
      level[k + 1] = level[k];
      put_value(x, &phase->axes[k], digit[k], &level[k + 1]);
    }
    if (k == n) MG_TRY(add_cell(x, phase, &level[n]), cleanup);
    while (k > 0 && digit[k - 1] + 1 >= length_of(x, &phase->axes[k - 1])) digit[--k] = 0;
    if (k == 0) break;
    digit[--k]++;
  }
cleanup:
  free(digit), free(level);
  return status;
}

static mg_status check_size(const expansion *x) {
  double all = 0;
  for (size_t p = 0; p < x->config->grid.phase_count; p++) {
    double cells = 1;
    for (size_t k = 0; k < x->config->grid.phases[p].axis_count; k++)
      cells *= (double)length_of(x, &x->config->grid.phases[p].axes[k]);
    all += cells;
  }
  if (all <= MOST_CELLS) return MG_OK;
  return mg_fail(MG_ERR_CONFIG, "%s: grid: %.4g cells are declared; at most %.0f were expected", x->config->file, all,
                 MOST_CELLS);
}

static mg_status list_swept(const expansion *x, mg_strings *swept) {
  mg_status status = MG_OK;
  mg_text name = {0};
  for (size_t k = 0; k < x->order_count; k++) {
    const mg_method *m = &mg_methods[x->order[k]];
    for (size_t p = 0; p < m->parameter_count; p++) {
      if ((x->differs[x->order[k]] & UINT32_C(1) << p) == 0) continue;
      name.size = 0;
      mg_text_append(&name, "%s.%s", m->name, m->parameters[p].name);
      if (name.failed)
        status = mg_fail(MG_ERR_NOMEM, "out of memory");
      else
        status = mg_strings_add(swept, name.data);
      if (status != MG_OK) goto cleanup;
    }
  }
cleanup:
  mg_text_free(&name);
  return status;
}

mg_status mg_grid_expand(const mg_config *config, const mg_strings *targets, mg_grid *grid) {
  mg_status status = MG_OK;
  expansion x = {.config = config, .targets = targets, .grid = grid};
  *grid = (mg_grid){0};
  x.first = mg_alloc_zero(mg_method_count, sizeof *x.first);
  x.differs = mg_alloc_zero(mg_method_count, sizeof *x.differs);
  x.order = mg_alloc(mg_method_count, sizeof *x.order);
  if (x.first == NULL || x.differs == NULL || x.order == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(check_size(&x), cleanup);
  for (size_t p = 0; p < config->grid.phase_count; p++) MG_TRY(expand_phase(&x, &config->grid.phases[p]), cleanup);
  MG_TRY(list_swept(&x, &grid->swept), cleanup);
cleanup:
  free(x.first), free(x.differs), free(x.order), free(x.seen);
  mg_text_free(&x.json);
  if (status != MG_OK) mg_grid_free(grid);
  return status;
}

void mg_grid_free(mg_grid *grid) {
  free(grid->cells);
  mg_strings_free(&grid->swept);
  *grid = (mg_grid){0};
}

/* One cell from complete terms; where: for messages. */
static mg_status finish_cell(const mg_config *config, const char *where, mg_cell *cell) {
  mg_status status = MG_OK;
  mg_text json = {0};
  const mg_terms *terms = &cell->terms;
  mg_terms_complete(config, &cell->terms);
  if (terms->locale == NULL && terms->method->kind == MG_METHOD_MODEL)
    return mg_fail(MG_ERR_CONFIG, "%s.locale is missing: method %s is of a target", where, terms->method->name);
  if (terms->similarity_type == NULL && mg_terms_choose(terms))
    return mg_fail(MG_ERR_CONFIG, "%s.similarity_type is missing, and grid.similarity has %zu matrices", where,
                   config->grid.similarity_names.count);
  if (mg_terms_choose(terms) && mg_strings_find(&config->grid.similarity_names, terms->similarity_type) < 0)
    return mg_fail(MG_ERR_CONFIG, "%s.similarity_type: '%s' is none of grid.similarity's %zu matrices", where,
                   terms->similarity_type, config->grid.similarity_names.count);
  MG_TRY(mg_cell_json(cell, &json), cleanup);
  mg_hash_text(mg_hash(json.data, json.size), cell->key);
cleanup:
  mg_text_free(&json);
  return status;
}

mg_status mg_grid_recipe_cell(const mg_config *config, mg_cell *cell) {
  char *where = NULL;
  *cell = (mg_cell){.terms = config->recipe, .phase = ""};
  if (cell->terms.method == NULL || (cell->terms.sources.count == 0 && cell->terms.locale == NULL))
    return mg_fail(MG_ERR_CONFIG,
                   "%s: recipe.method and either recipe.sources or recipe.locale say what to merge: both were expected",
                   config->file);
  if (asprintf(&where, "%s: recipe", config->file) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = finish_cell(config, where, cell);
  free(where);
  return status;
}

mg_status mg_grid_setup_cell(const mg_config *config, const mg_setup *setup, mg_cell *cell) {
  char *where = NULL;
  *cell = (mg_cell){.terms = config->grid.defaults, .phase = ""};
  mg_terms_put(&cell->terms, &setup->terms);
  if (asprintf(&where, "%s: microscope's %s", setup->place, setup->name) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = finish_cell(config, where, cell);
  free(where);
  return status;
}
