/* Rank 0: every cell of the grid against the reference, from inner products alone. */

#include <math.h>
#include <stdlib.h>

#include "microscope_impl.h"

typedef struct comparing {
  const mg_microscope_stage *s;
  size_t tensors, sources;
  bool *known;                /* [T] is the reference linear there? */
  double *coefficient, *base; /* [T,N], [T] of the reference */
  double *own;                /* [N] of a cell */
  const char **ids;           /* [N] */
  mg_scope_cells *out;
} comparing;

void mg_scope_cells_free(mg_scope_cells *c) {
  free(c->keys), free(c->names), free(c->delta_l2), free(c->cosine), free(c->norm), free(c->reference_norm), free(c->reason);
  *c = (mg_scope_cells){0};
}

static mg_inner_products inner_of(const comparing *c, size_t t) {
  const mg_gram_view *g = &c->s->gram;
  return (mg_inner_products){.sources = c->sources,
                             .source_dot = g->source_dot + t * c->sources * c->sources,
                             .base_dot = g->base_dot + t * c->sources,
                             .base_norm2 = g->base_norm2[t]};
}

static mg_pass_terms terms_of(const comparing *c, const mg_recipe *recipe) {
  return (mg_pass_terms){.deltas = &c->s->deltas, .gram = &c->s->gram, .recipes = recipe, .count = 1, .threads = 1};
}

/* ---- the reference ---- */

static mg_status find_reference(comparing *c) {
  mg_status status = MG_OK;
  mg_linear *linear = NULL;
  mg_recipe recipe;
  const mg_microscope_stage *s = c->s;
  const mg_scope_terms all = {.list = s->list, .work = &s->work};
  const bool base = s->work.models[0].kind == MG_SCOPE_BASE;
  if (!base) {
    mg_scope_recipe(&all, 0, c->ids, &recipe);
    const mg_pass_terms terms = terms_of(c, &recipe);
    MG_TRY(mg_linear_open(&terms, &linear), cleanup);
  }
  for (size_t t = 0; t < c->tensors; t++) {
    c->known[t] = s->work.has[t];
    c->base[t] = 1;
    if (!base) MG_TRY(mg_linear_tensor(linear, t, c->coefficient + t * c->sources, &c->base[t], &c->known[t]), cleanup);
    if (!c->known[t]) continue;
    const mg_inner_products inner = inner_of(c, t);
    const mg_combination own = {.base = c->base[t], .coefficient = c->coefficient + t * c->sources};
    c->out->reference_norm[t] = mg_parameter_delta_of_merges(&inner, &own, &own).reference_norm;
  }
cleanup:
  mg_linear_close(&linear);
  return status;
}

/* ---- a cell ---- */

static mg_status compare_cell(comparing *c, size_t cell) {
  mg_status status = MG_OK;
  const mg_grid_stage *grid = c->s->stages->grid;
  const mg_grid_cell *of = &grid->cells[cell];
  mg_scope_cells *out = c->out;
  mg_linear *linear = NULL;
  mg_recipe recipe;
  if (of->recipe == 0 || of->state != MG_CELL_COMPLETED || of->resolved.kind == MG_CELL_VOTE) return MG_OK;
  MG_TRY(mg_recipe_of_cell(&grid->grid.cells[cell], &of->resolved, c->s->list, c->ids, &recipe), cleanup);
  const mg_pass_terms terms = terms_of(c, &recipe);
  MG_TRY(mg_linear_open(&terms, &linear), cleanup);
  for (size_t t = 0; t < c->tensors; t++) {
    const size_t at = cell * c->tensors + t;
    double base;
    bool is_linear;
    MG_TRY(mg_linear_tensor(linear, t, c->own, &base, &is_linear), cleanup);
    if (!is_linear) continue;
    const mg_inner_products inner = inner_of(c, t);
    const mg_combination candidate = {.base = base, .coefficient = c->own};
    const mg_combination reference = {.base = c->base[t], .coefficient = c->coefficient + t * c->sources};
    const mg_parameter_delta delta = mg_parameter_delta_of_merges(&inner, &reference, &candidate);
    out->norm[at] = delta.candidate_norm;
    if (!c->known[t]) continue;
    out->delta_l2[at] = delta.delta_l2;
    out->cosine[at] = delta.cosine_with_reference;
  }
cleanup:
  mg_linear_close(&linear);
  return status;
}

/* ---- all ---- */

static double *all_nan(size_t count) {
  double *values = mg_alloc(count, sizeof *values);
  for (size_t k = 0; values != NULL && k < count; k++) values[k] = NAN;
  return values;
}

static mg_status make_room(comparing *c) {
  const mg_grid_stage *grid = c->s->stages->grid;
  const mg_tensor_table *table = mg_rows_table(c->s->attempt->rows);
  mg_scope_cells *out = c->out;
  const size_t cells = grid->grid.count;
  c->known = mg_alloc_zero(c->tensors, sizeof *c->known);
  c->coefficient = mg_alloc_zero(c->tensors, c->sources * sizeof *c->coefficient);
  c->base = mg_alloc_zero(c->tensors, sizeof *c->base);
  c->own = mg_alloc_zero(c->sources, sizeof *c->own);
  c->ids = mg_alloc(c->sources, sizeof *c->ids);
  out->keys = mg_alloc(cells, sizeof *out->keys);
  out->names = mg_alloc(c->tensors, sizeof *out->names);
  out->delta_l2 = all_nan(cells * c->tensors);
  out->cosine = all_nan(cells * c->tensors);
  out->norm = all_nan(cells * c->tensors);
  out->reference_norm = all_nan(c->tensors);
  if (!c->known || !c->coefficient || !c->base || !c->own || !c->ids || !out->keys || !out->names || !out->delta_l2 ||
      !out->cosine || !out->norm || !out->reference_norm)
    return MG_ERR_NOMEM;
  out->count = cells;
  for (size_t k = 0; k < cells; k++) out->keys[k] = grid->grid.cells[k].key;
  for (size_t t = 0; t < c->tensors; t++) out->names[t] = table->tensors[t].name;
  return MG_OK;
}

static const char *why_not(const mg_microscope_stage *s) {
  if (s->stages->grid == NULL) return "the run has no stage grid";
  if (s->dots == NULL) return "there are no inner products for every tensor (compatibility.gram: tensor)";
  if (s->work.models[0].kind == MG_SCOPE_PATH)
    return "the reference is a checkpoint that is not of the family, whose inner products are not known";
  return NULL;
}

mg_status mg_scope_cells_make(mg_microscope_stage *s, mg_scope_cells *out) {
  mg_status status = MG_OK;
  comparing c = {.s = s, .tensors = mg_rows_table(s->attempt->rows)->count, .sources = s->list->count, .out = out};
  const char *reason = why_not(s);
  *out = (mg_scope_cells){0};
  if (reason != NULL) {
    out->reason = mg_strdup(reason);
    return out->reason != NULL ? MG_OK : MG_ERR_NOMEM;
  }
  MG_TRY(make_room(&c), cleanup);
  MG_TRY(find_reference(&c), cleanup);
  for (size_t k = 0; k < out->count; k++) MG_TRY(compare_cell(&c, k), cleanup);
cleanup:
  free(c.known), free(c.coefficient), free(c.base), free(c.own), free(c.ids);
  return status;
}
