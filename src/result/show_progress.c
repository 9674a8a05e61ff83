/* A run whose result is not there yet: how far it is, and the cells of its grid that are finished. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_view_impl.h"
#include "mergegrid/io.h"
#include "run_impl.h"

typedef struct run_progress {
  const char *path;
  mg_text state, all; /* the first line of R.state, and the whole */
  mg_part_report *parts;
  int *parts_of; /* [part_count] how many parts each is one of */
  size_t part_count;
  mg_grid_progress grid;
  mg_grid_view view; /* where grid.known */
} run_progress;

static void release(run_progress *p) {
  mg_text_free(&p->state), mg_text_free(&p->all);
  free(p->parts), free(p->parts_of);
  mg_grid_progress_free(&p->grid);
  mg_grid_view_free(&p->view);
}

/* ---- reading ---- */

static mg_status add_part(run_progress *p, int part, int parts) {
  mg_part_report *reports = reallocarray(p->parts, p->part_count + 1, sizeof *reports);
  if (reports != NULL) p->parts = reports;
  int *of = reallocarray(p->parts_of, p->part_count + 1, sizeof *of);
  if (of != NULL) p->parts_of = of;
  char *path = mg_part_path(p->path, part, parts);
  mg_status status = reports != NULL && of != NULL && path != NULL ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) status = mg_part_read_report(path, part, &p->parts[p->part_count]);
  if (status == MG_OK) p->parts_of[p->part_count++] = parts;
  free(path);
  return status;
}

/* What jobs of `run --part` say of themselves. */
static mg_status read_parts(run_progress *p) {
  mg_status status = MG_OK;
  int *found = NULL;
  size_t count = 0;
  MG_TRY(mg_parts_find(p->path, &found, &count), cleanup);
  for (size_t k = 0; k < count; k++)
    for (int part = 1; part <= found[k]; part++) MG_TRY(add_part(p, part, found[k]), cleanup);
cleanup:
  free(found);
  return status;
}

static mg_status read_all(run_progress *p, const mg_show_options *options) {
  mg_status status = MG_OK;
  MG_TRY(mg_run_read_state(p->path, &p->state, &p->all), done);
  MG_TRY(read_parts(p), done);
  if (p->state.size == 0 && p->part_count == 0)
    return mg_fail(MG_ERR_INPUT, "%s: no such result, and no run of that name is under way", p->path);
  MG_TRY(mg_grid_progress_read(p->path, &p->grid), done);
  if (p->grid.known)
    MG_TRY(mg_grid_view_progress(&p->grid, options->where, mg_show_order(options), &p->view), done);
  else if (mg_show_asks_cells(options))
    status = mg_fail(MG_ERR_INPUT, "%s: no result yet, and no cells either: the run's stage grid has not chosen its sources",
                     p->path);
done:
  return status;
}

/* ---- what a run adds to a result that is there ---- */

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Leaves those in the view that the result has not finished. */
static mg_status keep_new(const mg_grid_table *held, mg_grid_view *view) {
  size_t count = 0, kept = 0;
  const char **keys = mg_alloc(held->cell_count, sizeof *keys);
  if (keys == NULL) return MG_ERR_NOMEM;
  for (size_t c = 0; c < held->cell_count; c++)
    if (strcmp(held->cells[c].status, "planned") != 0) keys[count++] = held->cells[c].key;
  if (count > 1) qsort(keys, count, sizeof *keys, by_text);
  for (size_t k = 0; k < view->listed; k++) {
    const char *key = view->table.cells[view->order[k]].key;
    if (count == 0 || bsearch(&key, keys, count, sizeof *keys, by_text) == NULL) view->order[kept++] = view->order[k];
  }
  view->listed = kept;
  free(keys);
  return MG_OK;
}

/* A run that was refused has a state, and nothing in its journals; one that is divided has those of its parts alone. */
mg_status mg_addition_read(const char *path, const mg_grid_table *held, const mg_show_options *options, mg_addition *a) {
  mg_status status = MG_OK;
  run_progress p = {.path = path};
  *a = (mg_addition){0};
  MG_TRY(mg_run_read_state(path, &p.state, &p.all), cleanup);
  MG_TRY(read_parts(&p), cleanup);
  const bool whole = p.state.size > 0 && strcmp(p.state.data, "done") != 0;
  if (!whole && p.part_count == 0) goto cleanup;
  MG_TRY(mg_grid_progress_read(path, &p.grid), cleanup);
  a->known = p.grid.records > 0 || (whole && strcmp(p.state.data, "running") == 0);
  snprintf(a->state, sizeof a->state, "%s", whole ? p.state.data : "in parts");
  if (whole) mg_state_value(&p.all, "stage", a->stage, sizeof a->stage);
  a->records = p.grid.records;
  if (!p.grid.known) goto cleanup;
  status = mg_grid_view_progress(&p.grid, options->where, mg_show_order(options), &a->view);
  a->cells = status == MG_OK;
  if (status == MG_ERR_USAGE || status == MG_ERR_INPUT) status = MG_OK; /* what is asked for is no matter of the run's cells */
  if (a->cells && held != NULL) MG_TRY(keep_new(held, &a->view), cleanup);
cleanup:
  release(&p);
  if (status != MG_OK) mg_addition_free(a);
  return status;
}

void mg_addition_print(const mg_addition *a, const mg_show_options *options) {
  if (!a->known) return;
  printf("\na run that adds to this result is %s%s%s: its journal has %zu records", a->state,
         a->stage[0] != '\0' ? ", stage " : "", a->stage, a->records);
  if (a->cells)
    printf("; %zu of its %zu cells are finished, %zu of them%s not in the result yet", a->view.finished, a->view.all,
           a->view.listed, options->where != NULL ? " that match" : "");
  printf("\n");
  if (a->view.listed > 0) mg_grid_print_cells(&a->view, options->top > 0 ? (size_t)options->top : MG_USUAL_CELLS);
}

json_t *mg_addition_json(const mg_addition *a) {
  if (!a->known) return NULL;
  json_t *root = json_pack("{s:s, s:s, s:I}", "state", a->state, "stage", a->stage, "journal_records", (json_int_t)a->records);
  if (root != NULL && a->cells) json_object_set_new(root, "grid", mg_grid_json(&a->view, SIZE_MAX));
  return root;
}

void mg_addition_free(mg_addition *a) {
  mg_grid_view_free(&a->view);
  *a = (mg_addition){0};
}

/* ---- printing ---- */

static const char *state_of(const mg_part_report *part) { return part->attempt > 0 ? part->state : "never begun"; }

static void print_text(const run_progress *p, const mg_show_options *options) {
  char size[32];
  for (size_t k = 0; k < p->part_count; k++)
    printf("part %d of %d: %s%s%s\n", p->parts[k].part, p->parts_of[k], state_of(&p->parts[k]),
           p->parts[k].stage[0] != '\0' ? ", " : "", p->parts[k].stage);
  printf("%s: no result yet\n", p->path);
  if (p->state.size > 0) printf("state %s", p->all.data);
  printf("journal %zu records, %s\n", p->grid.records, mg_format_bytes(p->grid.bytes, size));
  if (!p->grid.known) return;
  mg_grid_print(&p->view);
  mg_grid_print_cells(&p->view, options->top > 0 ? (size_t)options->top : MG_USUAL_CELLS);
}

static mg_status print_json(const run_progress *p, const mg_show_options *options) {
  json_t *parts = json_array();
  for (size_t k = 0; k < p->part_count; k++)
    json_array_append_new(parts, json_pack("{s:i, s:i, s:s, s:s}", "part", p->parts[k].part, "of", p->parts_of[k], "state",
                                           state_of(&p->parts[k]), "stage", p->parts[k].stage));
  json_t *root = json_pack("{s:n, s:s?, s:I, s:f, s:o}", "result", "state", p->state.size > 0 ? p->state.data : NULL,
                           "journal_records", (json_int_t)p->grid.records, "journal_bytes", p->grid.bytes, "parts", parts);
  if (root != NULL && p->grid.known)
    json_object_set_new(root, "grid", mg_grid_json(&p->view, options->top > 0 ? (size_t)options->top : SIZE_MAX));
  return mg_print_json(root);
}

mg_status mg_result_show_progress(const char *path, const mg_show_options *options) {
  run_progress p = {.path = path};
  mg_status status = read_all(&p, options);
  if (mg_path_exists(path)) /* published meanwhile, and its journals are gone or going */
    status = mg_result_show(path, options);
  else if (status == MG_OK && options->csv)
    status = mg_grid_print_csv(&p.view, options->top > 0 ? (size_t)options->top : SIZE_MAX);
  else if (status == MG_OK && options->json)
    status = print_json(&p, options);
  else if (status == MG_OK)
    print_text(&p, options);
  release(&p);
  return status;
}
