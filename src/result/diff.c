/* What changed between two results: what they were computed from, their sources, matrices and answers. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff_impl.h"
#include "mergegrid/text.h"

/* ---- the configuration, flat ---- */

enum { DEEPEST = 8 };

/* "a:\n  b: 1\n" becomes a.b = 1: a resolved configuration has one key a line, two spaces a level. */
static mg_status flatten(char *yaml, mg_identity *flat) {
  mg_status status = MG_OK;
  const char *names[DEEPEST] = {NULL};
  char *rest = yaml;
  for (char *line; status == MG_OK && (line = strsep(&rest, "\n")) != NULL;) {
    const size_t indent = strspn(line, " "), level = indent / 2;
    char *value = strstr(line, ":");
    if (value == NULL || level >= DEEPEST) continue;
    *value++ = '\0';
    value += strspn(value, " ");
    names[level] = line + indent;
    if (*value == '\0' || (level == 0 && strcmp(names[0], "result") == 0)) continue; /* that always differs */
    mg_text name = {0};
    for (size_t k = 0; k <= level; k++) mg_text_append(&name, "%s%s", k > 0 ? "." : "", names[k] != NULL ? names[k] : "");
    status = name.failed ? MG_ERR_NOMEM : mg_identity_add(flat, name.data, value);
    mg_text_free(&name);
  }
  return status;
}

static mg_status read_config(const mg_result_reader *reader, mg_identity *flat) {
  char *yaml = NULL;
  mg_status status = mg_result_read_config(reader, &yaml);
  if (status == MG_OK) status = flatten(yaml, flat);
  free(yaml);
  return status;
}

/* ---- sides ---- */

static mg_status open_side(const char *path, mg_diff_side *s) {
  mg_status status = MG_OK;
  s->path = path;
  MG_TRY(mg_result_open(path, &s->reader), done);
  MG_TRY(mg_matrices_read_from(&s->reader->h5, &s->m), done);
  MG_TRY(mg_result_read_inputs(s->reader, &s->inputs), done);
  MG_TRY(read_config(s->reader, &s->config), done);
  s->has_grid = mg_result_has(s->reader, "/grid");
  if (s->has_grid) MG_TRY(mg_grid_read_table(s->reader, &s->grid), done);
  s->has_microscope = mg_result_has(s->reader, "/microscope");
  if (s->has_microscope) MG_TRY(mg_microscope_read(&s->reader->h5, &s->scope), done);
  if (s->has_microscope) MG_TRY(mg_result_parse_config(s->reader, &s->declared), done);
done:
  return status;
}

static void close_side(mg_diff_side *s) {
  mg_matrices_free(&s->m);
  mg_identity_free(&s->inputs), mg_identity_free(&s->config);
  if (s->has_grid) mg_grid_table_free(&s->grid);
  mg_microscope_tables_free(&s->scope);
  mg_config_free(&s->declared);
  mg_result_close(&s->reader);
}

/* ---- names and values ---- */

static void compare_value(mg_diff_values *v, const char *name, const char *before, const char *now) {
  v->compared++;
  if (before != NULL && now != NULL && strcmp(before, now) == 0) return;
  v->items[v->count++] = (mg_diff_value){name, before, now};
}

mg_status mg_diff_values_compare(const mg_identity *before, const mg_identity *now, mg_diff_values *v) {
  v->items = mg_alloc(before->count + now->count, sizeof *v->items);
  if (v->items == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < before->count; k++)
    compare_value(v, before->names[k], before->values[k], mg_identity_value(now, before->names[k]));
  for (size_t k = 0; k < now->count; k++)
    if (mg_identity_value(before, now->names[k]) == NULL) compare_value(v, now->names[k], NULL, now->values[k]);
  return MG_OK;
}

static mg_status compare_lists(const mg_strings *before, const mg_strings *now, mg_strings *gone, mg_strings *come) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < before->count && status == MG_OK; k++)
    if (mg_strings_find(now, before->items[k]) < 0) status = mg_strings_add(gone, before->items[k]);
  for (size_t k = 0; k < now->count && status == MG_OK; k++)
    if (mg_strings_find(before, now->items[k]) < 0) status = mg_strings_add(come, now->items[k]);
  return status;
}

/* Task-vector cosines of the sources that both have; NaN in both is no change. */
static mg_status compare_cosines(mg_diff *d) {
  const mg_matrices *a = &d->side[0].m, *b = &d->side[1].m;
  if (a->cosine == NULL || b->cosine == NULL) return MG_OK;
  ptrdiff_t *was = mg_alloc(b->ids.count, sizeof *was);
  if (was == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < b->ids.count; i++) was[i] = mg_strings_find(&a->ids, b->ids.items[i]);
  for (size_t i = 0; i < b->ids.count; i++)
    for (size_t j = 0; j < i; j++) {
      if (was[i] < 0 || was[j] < 0) continue;
      const double before = a->cosine[(size_t)was[i] * a->ids.count + (size_t)was[j]], now = b->cosine[i * b->ids.count + j];
      d->pairs++;
      if (before == now || (isnan(before) && isnan(now))) continue;
      if (d->pairs_changed++ > 0 && fabs(now - before) <= fabs(d->largest)) continue;
      d->largest = now - before;
      d->largest_of[0] = b->ids.items[j], d->largest_of[1] = b->ids.items[i];
    }
  free(was);
  return MG_OK;
}

/* ---- all ---- */

static void free_diff(mg_diff *d) {
  mg_diff_microscope_free(&d->scope);
  for (int k = 0; k < 2; k++) {
    mg_strings_free(&d->gone[k]), mg_strings_free(&d->come[k]);
    close_side(&d->side[k]);
  }
  mg_strings_free(&d->other_texts);
  mg_strings_free(&d->failed[0]), mg_strings_free(&d->failed[1]);
  free(d->inputs.items), free(d->config.items), free(d->nxn.items), free(d->cells.items), free(d->methods);
}

mg_status mg_result_diff(const char *before, const char *now, const mg_show_options *options) {
  mg_status status = MG_OK;
  mg_diff d = {0};
  MG_TRY(open_side(before, &d.side[0]), cleanup);
  MG_TRY(open_side(now, &d.side[1]), cleanup);
  MG_TRY(mg_diff_values_compare(&d.side[0].inputs, &d.side[1].inputs, &d.inputs), cleanup);
  MG_TRY(mg_diff_values_compare(&d.side[0].config, &d.side[1].config, &d.config), cleanup);
  MG_TRY(compare_lists(&d.side[0].m.ids, &d.side[1].m.ids, &d.gone[0], &d.come[0]), cleanup);
  MG_TRY(compare_lists(&d.side[0].m.targets, &d.side[1].m.targets, &d.gone[1], &d.come[1]), cleanup);
  MG_TRY(compare_cosines(&d), cleanup);
  MG_TRY(mg_diff_answers_compare(&d), cleanup);
  MG_TRY(mg_diff_microscope_compare(&d), cleanup);
  if (options->json)
    status = mg_diff_print_json(&d);
  else
    mg_diff_print(&d, options->top > 0 ? (size_t)options->top : 10);
cleanup:
  free_diff(&d);
  return status;
}
