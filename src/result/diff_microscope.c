/* What became of the microscope's setups: their models' inputs, and their numbers row by row. No answers to texts are kept of
   them that noise could be told from, so a number that is another one has changed. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff_impl.h"

/* Tables by what names a row; that of layers follows from that of parameters. */
static const struct {
  int table;
  const char *label[2];
} TABLES[MG_DIFF_TABLES] = {{MG_SCOPE_PARAMETERS, {"parameter", NULL}},
                            {MG_SCOPE_ATTENTIONS, {"layer", "head"}},
                            {MG_SCOPE_STATES, {"layer", NULL}},
                            {MG_SCOPE_LOGITS, {NULL, NULL}}};

/* ---- rows ---- */

/* Rows of a model; the caller frees. NULL: out of memory. */
static size_t *rows_of(const mg_frame *f, const char *model, size_t *count) {
  size_t *rows = mg_alloc(f->rows, sizeof *rows);
  *count = 0;
  for (size_t k = 0; rows != NULL && k < f->rows; k++)
    if (strcmp(mg_frame_text(f, "model", k), model) == 0) rows[(*count)++] = k;
  return rows;
}

static bool same_label(const mg_frame *const f[2], const size_t row[2], const char *const label[2]) {
  for (int k = 0; k < 2 && label[k] != NULL; k++) {
    if (strcmp(label[k], "parameter") == 0) {
      if (strcmp(mg_frame_text(f[0], label[k], row[0]), mg_frame_text(f[1], label[k], row[1])) != 0) return false;
    } else if (mg_frame_number(f[0], label[k], row[0]) != mg_frame_number(f[1], label[k], row[1])) {
      return false;
    }
  }
  return true;
}

/* NaN in both is no change; in one, a larger one than any. */
static void note_change(mg_diff_column *c, double before, double now, size_t row, bool *changed) {
  if (before == now || (isnan(before) && isnan(now))) return;
  *changed = true;
  const double change = now - before;
  if (c->changed++ > 0 && (isnan(c->largest) || !(isnan(change) || fabs(change) > fabs(c->largest)))) return;
  c->largest = change;
  c->row = row;
}

static void compare_row(const mg_frame *const f[2], const size_t row[2], mg_diff_table *t) {
  bool changed = false;
  size_t at = 0;
  for (size_t c = 0; c < f[1]->column_count; c++)
    if (f[1]->of->items[c].type == MG_COLUMN_DOUBLE)
      note_change(&t->columns[at++], f[0]->columns[c].numbers[row[0]], f[1]->columns[c].numbers[row[1]], row[1], &changed);
  t->both++;
  t->changed += changed;
}

/* Rows come in one order almost always: each is looked for behind the one before. */
static mg_status compare_table(const mg_frame *const f[2], int table, const char *model, mg_diff_table *t) {
  mg_status status = MG_OK;
  size_t count[2] = {0}, next = 0;
  size_t *rows[2] = {rows_of(f[0], model, &count[0]), rows_of(f[1], model, &count[1])};
  if (rows[0] == NULL || rows[1] == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  t->frame = f[1];
  for (size_t c = 0; c < f[1]->column_count; c++)
    if (f[1]->of->items[c].type == MG_COLUMN_DOUBLE) t->columns[t->column_count++].name = f[1]->of->items[c].name;
  for (size_t k = 0; k < count[1]; k++)
    for (size_t tried = 0; tried < count[0]; tried++) {
      const size_t at = (next + tried) % count[0], row[2] = {rows[0][at], rows[1][k]};
      if (!same_label(f, row, TABLES[table].label)) continue;
      compare_row(f, row, t);
      next = at + 1;
      break;
    }
  t->gone = count[0] - t->both;
  t->come = count[1] - t->both;
cleanup:
  free(rows[0]), free(rows[1]);
  return status;
}

/* ---- setups ---- */

static ptrdiff_t row_of(const mg_frame *setups, const char *name) {
  for (size_t k = 0; k < setups->rows; k++)
    if (strcmp(mg_frame_text(setups, "model", k), name) == 0) return (ptrdiff_t)k;
  return -1;
}

static mg_status compare_numbers(const mg_diff *d, mg_diff_setup *s) {
  mg_status status = MG_OK;
  for (int k = 0; k < MG_DIFF_TABLES; k++) {
    mg_diff_table *t = &s->tables[k];
    const mg_frame *const frames[2] = {&d->side[0].scope.tables[TABLES[k].table], &d->side[1].scope.tables[TABLES[k].table]};
    MG_TRY(compare_table(frames, k, s->name, t), done);
    s->changed = s->changed || t->changed + t->gone + t->come > 0;
  }
done:
  return status;
}

static mg_status compare_setup(const mg_diff *d, const size_t row[2], mg_diff_setup *s) {
  mg_status status = MG_OK;
  const bool terms = d->side[0].declared != NULL && d->side[1].declared != NULL;
  s->resolved = mg_diff_setup_is_resolved(&d->side[0], row[0]) && mg_diff_setup_is_resolved(&d->side[1], row[1]);
  for (int k = 0; k < 2; k++) {
    const mg_frame *setups = &d->side[k].scope.tables[MG_SCOPE_SETUPS];
    s->error[k] = mg_frame_text(setups, "error", row[k]);
    s->status[k] = mg_setup_status(mg_frame_number(setups, "exists", row[k]) != 0, s->error[k]);
    MG_TRY(mg_diff_setup_inputs(&d->side[k], row[k], terms, s->resolved, &s->from[k]), done);
  }
  MG_TRY(mg_diff_values_compare(&s->from[0], &s->from[1], &s->inputs), done);
  s->changed = s->inputs.count > 0 || strcmp(s->status[0], s->status[1]) != 0 || strcmp(s->error[0], s->error[1]) != 0;
  if (strcmp(s->status[0], "completed") == 0 && strcmp(s->status[1], "completed") == 0) MG_TRY(compare_numbers(d, s), done);
done:
  return status;
}

static void count_setup(mg_diff_microscope *m, const mg_diff_setup *s) {
  const bool failed[2] = {strcmp(s->status[0], "failed") == 0, strcmp(s->status[1], "failed") == 0};
  const bool completed[2] = {strcmp(s->status[0], "completed") == 0, strcmp(s->status[1], "completed") == 0};
  m->same_recipe += s->resolved && s->inputs.count == 0;
  m->newly_failed += failed[1] && !failed[0];
  m->newly_completed += completed[1] && !completed[0];
  m->changed += s->changed;
}

static mg_status compare_setups(mg_diff *d) {
  mg_status status = MG_OK;
  mg_diff_microscope *m = &d->scope;
  const mg_frame *old = &d->side[0].scope.tables[MG_SCOPE_SETUPS], *new = &d->side[1].scope.tables[MG_SCOPE_SETUPS];
  m->items = mg_alloc_zero(new->rows, sizeof *m->items);
  if (m->items == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < old->rows; k++) {
    const char *name = mg_frame_text(old, "model", k);
    if (row_of(new, name) < 0) MG_TRY(mg_strings_add(&m->gone, name), done);
  }
  for (size_t k = 0; k < new->rows; k++) {
    const char *name = mg_frame_text(new, "model", k);
    const ptrdiff_t was = row_of(old, name);
    if (was < 0) {
      MG_TRY(mg_strings_add(&m->come, name), done);
      continue;
    }
    mg_diff_setup *s = &m->items[m->count++];
    const size_t row[2] = {(size_t)was, k};
    s->name = name;
    MG_TRY(compare_setup(d, row, s), done);
    count_setup(m, s);
  }
done:
  return status;
}

/* ---- all ---- */

/* What every setup is looked at with. A file's or a locale's texts are known by their number alone. */
static mg_status list_conditions(const mg_diff_side *s, mg_identity *from) {
  mg_status status = MG_OK;
  char probes[24];
  snprintf(probes, sizeof probes, "%lld", (long long)s->scope.probes);
  MG_TRY(mg_identity_add(from, "reference", s->scope.reference), done);
  MG_TRY(mg_identity_add(from, "probe_source", s->scope.probe_source), done);
  MG_TRY(mg_identity_add(from, "probes", probes), done);
  MG_TRY(mg_identity_add(from, "padding", s->scope.padding), done);
done:
  return status;
}

mg_status mg_diff_microscope_compare(mg_diff *d) {
  mg_status status = MG_OK;
  mg_diff_microscope *m = &d->scope;
  if (!d->side[0].has_microscope || !d->side[1].has_microscope) return MG_OK;
  for (int k = 0; k < 2; k++) MG_TRY(list_conditions(&d->side[k], &m->from[k]), done);
  MG_TRY(mg_diff_values_compare(&m->from[0], &m->from[1], &m->conditions), done);
  MG_TRY(compare_setups(d), done);
done:
  return status;
}

void mg_diff_microscope_free(mg_diff_microscope *m) {
  for (size_t k = 0; k < m->count; k++) {
    mg_identity_free(&m->items[k].from[0]), mg_identity_free(&m->items[k].from[1]);
    free(m->items[k].inputs.items);
  }
  mg_identity_free(&m->from[0]), mg_identity_free(&m->from[1]);
  mg_strings_free(&m->gone), mg_strings_free(&m->come);
  free(m->conditions.items), free(m->items);
  *m = (mg_diff_microscope){0};
}
