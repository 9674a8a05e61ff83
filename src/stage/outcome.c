/* What a run has found out: into the result, and in a few lines to whoever watches. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

static void say(const char *what, const double *matrix, size_t n) {
  const mg_matrix_statistics s = mg_matrix_off_diagonal(matrix, n);
  mg_info("%s: mean %.4f, std %.4f, min %.4f, max %.4f", what, s.mean, s.std, s.min, s.max);
}

static void say_compatibility(const mg_result_compatibility *c, size_t n) {
  char what[64];
  snprintf(what, sizeof what, "task-vector cosine of %zu sources", n);
  say(what, c->cosine, n);
  for (int l = 0; l < c->cka_layer_count; l++) {
    snprintf(what, sizeof what, "CKA, layer %d", c->cka_layers[l]);
    say(what, c->cka + (size_t)l * n * n, n);
  }
}

static mg_status collect(const mg_stages *stages, mg_result_compatibility *compatibility, mg_result_nxn *nxn,
                         mg_result_grid *grid, mg_result_microscope *microscope) {
  mg_status status = MG_OK;
  if (stages->gram != NULL) MG_TRY(mg_gram_stage_collect(stages->gram, compatibility), done);
  if (stages->cka != NULL) MG_TRY(mg_cka_collect(stages->cka, compatibility), done);
  if (stages->nxn != NULL) MG_TRY(mg_nxn_collect(stages->nxn, nxn), done);
  if (stages->grid != NULL) MG_TRY(mg_grid_stage_collect(stages->grid, grid), done);
  if (stages->microscope != NULL) MG_TRY(mg_microscope_collect(stages->microscope, microscope), done);
done:
  return status;
}

/* Own: a source on its own locale's texts; best other: each target's best source of another locale. Who failed was said. */
static void say_nxn(const mg_result_nxn *nxn, const mg_source_list *sources) {
  const size_t n = sources->count, m = nxn->targets->count;
  double own = 0, other = 0, best = 0;
  size_t owns = 0, others = 0, bests = 0, failed = 0;
  for (size_t t = 0; t < m; t++) {
    double most = -1;
    for (size_t s = 0; s < n; s++) {
      const double accuracy = nxn->accuracy[s * m + t];
      const bool same = strcmp(sources->items[s].locale, nxn->targets->items[t]) == 0;
      failed += nxn->failures[s * m + t] != NULL;
      if (nxn->failures[s * m + t] != NULL) continue;
      *(same ? &own : &other) += accuracy;
      *(same ? &owns : &others) += 1;
      if (!same && accuracy > most) most = accuracy;
    }
    if (most >= 0) best += most, bests++;
  }
  mg_info("accuracy on %zu targets (%s): own source %.4f, other sources %.4f, best other source %.4f (means)", m,
          nxn->partition[0], owns > 0 ? own / (double)owns : NAN, others > 0 ? other / (double)others : NAN,
          bests > 0 ? best / (double)bests : NAN);
  if (failed > 0) mg_info("nxn: %zu of %zu evaluations failed, and are in none of these means", failed, n * m);
}

/* How many cells there are, and the first ones that failed. */
static void say_grid(const mg_result_grid *grid) {
  size_t completed = 0, failed = 0, equal = 0;
  for (size_t k = 0; k < grid->cell_count; k++) {
    const mg_result_cell *c = &grid->cells[k];
    completed += strcmp(c->status, "completed") == 0;
    equal += c->same_as >= 0;
    if (strcmp(c->status, "failed") == 0 && failed++ < 5)
      mg_warn("cell %s (%s, %s) failed: %s", c->key, c->locale, c->method, c->error != NULL ? c->error : "?");
  }
  mg_info("grid: %zu cells, %zu completed, %zu failed, %zu planned; %zu are equal to an earlier one, %zu taken from earlier "
          "results",
          grid->cell_count, completed, failed, grid->cell_count - completed - failed, equal, grid->reused_count);
}

/* How many setups there are, the reference among them, and all that failed: they are few. */
static void say_microscope(const mg_result_microscope *microscope) {
  size_t failed = 0, skipped = 0;
  for (size_t k = 0; k < microscope->setup_count; k++) {
    const mg_result_setup *setup = &microscope->setups[k];
    const char *status = mg_setup_status(setup->exists, setup->error);
    skipped += strcmp(status, "skipped") == 0;
    if (strcmp(status, "failed") != 0) continue;
    mg_warn("microscope: %s failed: %s", setup->model, setup->error);
    failed++;
  }
  mg_info("microscope: %zu setups with the reference, %zu completed, %zu failed, %zu skipped", microscope->setup_count,
          microscope->setup_count - failed - skipped, failed, skipped);
}

static mg_status describe_modes(const mg_attempt *a, const mg_stages *stages, mg_text *mode) {
  char buffer[256];
  if (stages->gram != NULL) mg_text_append(mode, "%s", mg_gram_stage_numeric_mode(a, buffer, sizeof buffer));
  if (stages->cka != NULL || stages->nxn != NULL || stages->microscope != NULL)
    mg_text_append(mode, "%s%s", mode->size > 0 ? "; " : "", mg_encoder_numeric_mode(a->device, buffer, sizeof buffer));
  return mode->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

static const char *describe_backend(const mg_attempt *a, char *buffer, size_t size) {
  char device[256];
  if (a->device == NULL) return mg_ops_describe(a->ops, buffer, size);
  snprintf(buffer, size, "cuda (%s)", a->device->ops->describe(a->device, device, sizeof device));
  return buffer;
}

mg_status mg_outcome_write(mg_attempt *a, const mg_stages *stages, const mg_identity *identity, mg_rank_report *reports) {
  mg_status status = MG_OK;
  mg_result_compatibility compatibility = {0};
  mg_result_nxn nxn = {0};
  mg_result_grid grid = {0};
  mg_result_microscope microscope = {0};
  mg_part_report *parts = NULL;
  mg_text yaml = {0}, mode = {0};
  char library[MPI_MAX_LIBRARY_VERSION_STRING], backend[300];
  int length;
  const mg_tensor_table *table = mg_rows_table(a->rows);
  bool *selected = mg_alloc_zero(table->count, sizeof *selected);
  if (selected == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_select_tensors(table, &a->config->compatibility.exclude, selected), cleanup);
  MG_TRY(collect(stages, &compatibility, &nxn, &grid, &microscope), cleanup);
  reports[0].peak_bytes = mg_peak_memory(); /* matrices are made here */
  MG_TRY(describe_modes(a, stages, &mode), cleanup);
  MG_TRY(mg_config_resolved(a->config, &yaml), cleanup);
  if (a->parts.count > 0) MG_TRY(mg_parts_report(a, &parts), cleanup);
  MPI_Get_library_version(library, &length);
  library[strcspn(library, ",\n")] = '\0';
  const mg_result_data data = {.sources = &a->roster->list,
                               .base_path = a->config->family.base,
                               .labels = stages->nxn != NULL ? nxn.labels : &a->roster->labels,
                               .table = table,
                               .selected = selected,
                               .compatibility = stages->gram != NULL ? &compatibility : NULL,
                               .nxn = stages->nxn != NULL ? &nxn : NULL,
                               .grid = stages->grid != NULL ? &grid : NULL,
                               .microscope = stages->microscope != NULL ? &microscope : NULL,
                               .config_yaml = yaml.data,
                               .config_file = a->config->file,
                               .identity = identity,
                               .numeric_mode = mode.data,
                               .backend = describe_backend(a, backend, sizeof backend),
                               .mpi_library = library,
                               .started_utc = a->started,
                               .wall_seconds = mg_now() - a->began,
                               .attempt = mg_run_attempt(a->run),
                               .ranks = a->ranks,
                               .rank_reports = reports,
                               .parts = parts,
                               .part_count = (size_t)a->parts.count,
                               .timings = a->timings,
                               .timing_count = a->timing_count};
  MG_TRY(mg_result_write(mg_run_temporary(a->run), &data), cleanup);
  MG_TRY(mg_run_publish(a->run), cleanup);
  if (stages->gram != NULL) say_compatibility(&compatibility, a->roster->list.count);
  if (stages->nxn != NULL) say_nxn(&nxn, &a->roster->list);
  if (stages->grid != NULL) say_grid(&grid);
  if (stages->microscope != NULL) say_microscope(&microscope);
  mg_info("result in %s", a->config->result);
cleanup:
  mg_text_free(&yaml);
  mg_text_free(&mode);
  free(parts);
  free(selected);
  return status;
}
