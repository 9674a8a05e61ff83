/* What a run has found out: into the result, and in a few lines to whoever watches. */

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

static mg_status collect(const mg_stages *stages, mg_result_compatibility *compatibility) {
  mg_status status = MG_OK;
  if (stages->gram != NULL) MG_TRY(mg_gram_stage_collect(stages->gram, compatibility), done);
  if (stages->cka != NULL) MG_TRY(mg_cka_collect(stages->cka, compatibility), done);
done:
  return status;
}

static mg_status describe_modes(const mg_stages *stages, mg_text *mode) {
  char encoder[256];
  if (stages->gram != NULL) mg_text_append(mode, "%s", mg_gram_stage_numeric_mode());
  if (stages->cka != NULL)
    mg_text_append(mode, "%s%s", mode->size > 0 ? "; " : "", mg_encoder_numeric_mode(encoder, sizeof encoder));
  return mode->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

mg_status mg_outcome_write(mg_attempt *a, const mg_stages *stages, const mg_identity *identity, const mg_rank_report *reports) {
  mg_status status = MG_OK;
  mg_result_compatibility compatibility = {0};
  mg_text yaml = {0}, mode = {0};
  char library[MPI_MAX_LIBRARY_VERSION_STRING], backend[256];
  int length;
  const mg_tensor_table *table = mg_rows_table(a->rows);
  bool *selected = mg_alloc_zero(table->count, sizeof *selected);
  if (selected == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_select_tensors(table, &a->config->compatibility.exclude, selected), cleanup);
  MG_TRY(collect(stages, &compatibility), cleanup);
  MG_TRY(describe_modes(stages, &mode), cleanup);
  MG_TRY(mg_config_resolved(a->config, &yaml), cleanup);
  MPI_Get_library_version(library, &length);
  library[strcspn(library, ",\n")] = '\0';
  const mg_result_data data = {.sources = &a->roster->list,
                               .base_path = a->config->family.base,
                               .labels = &a->roster->labels,
                               .table = table,
                               .selected = selected,
                               .compatibility = stages->gram != NULL ? &compatibility : NULL,
                               .config_yaml = yaml.data,
                               .config_file = a->config->file,
                               .identity = identity,
                               .numeric_mode = mode.data,
                               .backend = mg_ops_describe(a->ops, backend, sizeof backend),
                               .mpi_library = library,
                               .started_utc = a->started,
                               .wall_seconds = mg_now() - a->began,
                               .attempt = mg_run_attempt(a->run),
                               .ranks = a->ranks,
                               .rank_reports = reports,
                               .timings = a->timings,
                               .timing_count = a->timing_count};
  MG_TRY(mg_result_write(mg_run_temporary(a->run), &data), cleanup);
  MG_TRY(mg_run_publish(a->run), cleanup);
  if (stages->gram != NULL) say_compatibility(&compatibility, a->roster->list.count);
  mg_info("result in %s", a->config->result);
cleanup:
  mg_text_free(&yaml);
  mg_text_free(&mode);
  free(selected);
  return status;
}
