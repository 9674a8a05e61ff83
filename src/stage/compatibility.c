/*
 * The compatibility stage, metric task_vector_cosine: Grams of all pairs, dealt to ranks as nodes of the summation tree,
 * journaled as they arrive, gathered into the result.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/log.h"
#include "mergegrid/ops.h"
#include "mergegrid/result.h"
#include "mergegrid/stop.h"
#include "stage_impl.h"

/* What our own kernels fix; a machine's instruction set is no part of it. */
static const char NUMERIC_MODE[] = "gram 1: runs of 1024 over 16 fp32 lanes of fused multiply-adds, fp64 above";

static const double SYNC_SECONDS = 3;

/* A lease: consecutive nodes. */
typedef struct unit_range {
  uint64_t first, count;
} unit_range;

typedef struct gram_stage {
  const mg_config *config;
  const mg_run_options *options;
  const mg_roster *roster;
  mg_rows *rows;
  const mg_ops *ops;
  mg_gram_plan plan;
  mg_gram_engine *engine;
  mg_gram_times times;
  mg_cka_stage *cka;   /* NULL where the metric is not asked for */
  mg_gram_node *nodes; /* the work that is left, the same on every rank */
  size_t node_count;
  unit_range *units;
  size_t unit_count;
  int64_t computed; /* units of this rank */
  int rank, ranks, threads;
  /* rank 0 */
  mg_run *run;
  mg_gram_sum *sum;
  mg_gram gram;
  mg_identity identity;
  mg_progress progress;
  double done_bytes, total_bytes, began, gram_seconds, cka_seconds;
  char started[24];
} gram_stage;

/* ---- identity ---- */

static mg_status add_hash(mg_identity *identity, const char *what, const char *id, uint64_t hash) {
  char *name = NULL, value[17];
  if (asprintf(&name, "%s%s%s", what, id[0] ? " " : "", id) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = mg_identity_add(identity, name, mg_hash_text(hash, value));
  free(name);
  return status;
}

static mg_status make_identity(gram_stage *s) {
  mg_status status = MG_OK;
  mg_text exclude = {0}, order = {0};
  static const char *const levels[] = {[MG_GRAM_TENSOR] = "tensor", [MG_GRAM_LAYER] = "layer", [MG_GRAM_TOTAL] = "total"};
  const mg_source_list *list = &s->roster->list;
  for (size_t k = 0; k < s->config->compatibility.exclude.count; k++)
    mg_text_append(&exclude, "%s%s", k ? ", " : "", s->config->compatibility.exclude.items[k]);
  for (size_t k = 0; k < list->count; k++) mg_text_append(&order, "%s\n", list->items[k].id);
  for (size_t k = 0; k < list->skipped.count; k++) mg_text_append(&order, "skipped %s\n", list->skipped.items[k]);
  if (exclude.failed || order.failed) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  MG_TRY(mg_identity_add(&s->identity, "numeric mode", NUMERIC_MODE), cleanup);
  MG_TRY(mg_identity_add(&s->identity, "compatibility.gram", levels[s->config->compatibility.gram]), cleanup);
  MG_TRY(mg_identity_add(&s->identity, "compatibility.exclude", exclude.data ? exclude.data : ""), cleanup);
  MG_TRY(mg_identity_add(&s->identity, "family.allow_nonfinite", s->config->family.allow_nonfinite ? "true" : "false"),
         cleanup);
  MG_TRY(add_hash(&s->identity, "order of the sources", "", mg_hash(order.data, order.size)), cleanup);
  MG_TRY(add_hash(&s->identity, "base", "", mg_rows_identity(s->rows, MG_ROW_BASE)), cleanup);
  for (size_t k = 0; k < list->count; k++)
    MG_TRY(add_hash(&s->identity, "source", list->items[k].id, mg_rows_identity(s->rows, (ptrdiff_t)k)), cleanup);
  if (s->cka != NULL) MG_TRY(mg_cka_identify(s->cka, &s->identity), cleanup);
cleanup:
  mg_text_free(&exclude);
  mg_text_free(&order);
  return status;
}

/* ---- what is left ---- */

static double node_bytes(const gram_stage *s, const mg_gram_node *node) {
  return (double)mg_gram_node_elements(s->plan.layout, node) * mg_rows_bytes_per_element(s->rows);
}

/* Adds a payload of nodes (each followed by its values) to the sum. */
static mg_status add_nodes(gram_stage *s, const void *payload, size_t size) {
  mg_status status = MG_OK;
  double *values = NULL;
  const char *at = payload;
  while (size > 0 && status == MG_OK) {
    mg_gram_node node;
    if (size < sizeof node) return mg_fail(MG_ERR_CORRUPT, "a record of partial sums ends in the middle of a node");
    memcpy(&node, at, sizeof node);
    if (node.block >= s->plan.layout->block_count || node.group >= s->plan.layout->group_count)
      return mg_fail(MG_ERR_CORRUPT, "a partial sum of a pair block or group that this family does not have");
    const size_t bytes = mg_gram_values(s->plan.layout, node.block) * sizeof *values;
    if (size - sizeof node < bytes) return mg_fail(MG_ERR_CORRUPT, "a record of partial sums ends in the middle of a sum");
    values = mg_alloc(bytes, 1);
    if (values == NULL) return MG_ERR_NOMEM;
    memcpy(values, at + sizeof node, bytes);
    status = mg_gram_sum_add(s->sum, &node, values);
    if (status == MG_OK) s->done_bytes += node_bytes(s, &node);
    free(values);
    at += sizeof node + bytes;
    size -= sizeof node + bytes;
  }
  return status;
}

static mg_status replay_record(void *context, uint32_t kind, const void *payload, size_t size) {
  gram_stage *s = context;
  mg_status status = MG_OK;
  if (kind == MG_RECORD_NODES) status = add_nodes(s, payload, size);
  if (kind == MG_RECORD_FEATURES && s->cka != NULL) status = mg_cka_replay(s->cka, payload, size);
  /* Whole by its checksum, and yet no part of this tree: what it held is computed again. */
  if (status == MG_ERR_INTERNAL || status == MG_ERR_CORRUPT) {
    mg_warn("a journal record is left out: %s", mg_error_message());
    return MG_OK;
  }
  return status;
}

/* Rank 0: takes over what earlier attempts have finished and lists the rest. */
static mg_status list_missing(gram_stage *s) {
  mg_status status = MG_OK;
  MG_TRY(mg_gram_sum_create(s->plan.layout, &s->sum), done);
  MG_TRY(mg_run_replay(s->run, replay_record, s), done);
  MG_TRY(mg_gram_sum_missing(s->sum, s->plan.unit_leaves, &s->nodes, &s->node_count), done);
  if (s->done_bytes > 0)
    mg_info("continuing: %.0f%% of the inner products are in the journal", 100 * s->done_bytes / s->total_bytes);
done:
  return status;
}

/* Cuts the list of nodes into leases of about unit_leaves leaves: small tensors share one. */
static mg_status make_units(gram_stage *s) {
  s->units = mg_alloc(s->node_count, sizeof *s->units);
  if (s->units == NULL) return MG_ERR_NOMEM;
  int64_t leaves = 0;
  for (size_t k = 0; k < s->node_count; k++) {
    const int64_t here = INT64_C(1) << s->nodes[k].level;
    const bool same_block = k > 0 && s->nodes[k].block == s->nodes[k - 1].block;
    if (s->unit_count == 0 || !same_block || leaves + here > s->plan.unit_leaves) {
      s->units[s->unit_count++] = (unit_range){.first = k};
      leaves = 0;
    }
    s->units[s->unit_count - 1].count++;
    leaves += here;
  }
  return MG_OK;
}

static mg_status share_nodes(MPI_Comm comm, gram_stage *s) {
  mg_status status = MG_OK;
  size_t size = s->node_count * sizeof *s->nodes;
  void *data = s->nodes;
  MG_TRY(mg_broadcast_bytes(comm, &data, &size), done);
  s->nodes = data;
  s->node_count = size / sizeof *s->nodes;
  MG_TRY(mg_agree(comm, make_units(s)), done);
done:
  return status;
}

/* ---- the farm's side ---- */

static mg_status poll_farm(void *context) { return mg_farm_poll_now(context); }

static mg_status compute_unit(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  gram_stage *s = context;
  mg_status status = MG_OK;
  const unit_range range = s->units[unit];
  double *values = NULL;
  for (uint64_t k = range.first; k < range.first + range.count; k++) {
    const mg_gram_node *node = &s->nodes[k];
    const size_t count = mg_gram_values(s->plan.layout, node->block);
    if (values == NULL && (values = mg_alloc(count, sizeof *values)) == NULL) return MG_ERR_NOMEM;
    MG_TRY(mg_gram_compute(s->engine, node, values, poll_farm, poll), cleanup);
    mg_text_append_bytes(payload, node, sizeof *node);
    mg_text_append_bytes(payload, values, count * sizeof *values);
  }
  s->computed++;
cleanup:
  free(values);
  return status;
}

static mg_status take_unit(void *context, int64_t unit, const void *payload, size_t size) {
  gram_stage *s = context;
  mg_status status = MG_OK;
  (void)unit;
  MG_TRY(mg_run_append(s->run, MG_RECORD_NODES, payload, size), done);
  MG_TRY(add_nodes(s, payload, size), done);
done:
  return status;
}

static mg_status keep_going(void *context, const char *progress) {
  gram_stage *s = context;
  mg_status status = MG_OK;
  MG_TRY(mg_run_sync(s->run, SYNC_SECONDS), done);
  MG_TRY(mg_run_report(s->run, "running", "compatibility", progress, ""), done);
  if (s->options->max_hours > 0 && mg_now() - s->began > s->options->max_hours * 3600) mg_stop_request();
done:
  return status;
}

static mg_status tick(void *context) {
  gram_stage *s = context;
  char text[96];
  snprintf(text, sizeof text, "%.0f%% of %.4g GB", 100 * s->done_bytes / (s->total_bytes > 0 ? s->total_bytes : 1),
           s->total_bytes / 1e9);
  mg_progress_update(&s->progress, s->done_bytes);
  return keep_going(s, text);
}

/* ---- views and the result ---- */

static bool take_selected(const mg_gram_group *group, const void *context) {
  (void)context;
  return group->selected;
}

static bool take_encoder(const mg_gram_group *group, const void *level) {
  if (*(const mg_gram_level *)level == MG_GRAM_TOTAL) return group->selected && strcmp(group->name, "encoder") == 0;
  return group->selected && group->layer[0] != '\0';
}

static bool take_layer(const mg_gram_group *group, const void *layer) {
  return group->selected && strcmp(group->layer, layer) == 0;
}

typedef struct views {
  double *cosine, *encoder, *by_layer, *cka, *cka_unbiased;
  mg_strings layers;
} views;

static void views_free(views *v) {
  free(v->cosine);
  free(v->encoder);
  free(v->by_layer);
  free(v->cka);
  free(v->cka_unbiased);
  mg_strings_free(&v->layers);
}

static mg_status list_layers(const gram_stage *s, mg_strings *layers) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = s->plan.layout->table;
  for (size_t t = 0; t < table->count; t++) {
    const char *layer = table->tensors[t].layer;
    if (!s->plan.selected[t] || layer[0] == '\0' || mg_strings_find(layers, layer) >= 0) continue;
    MG_TRY(mg_strings_add(layers, layer), done);
  }
done:
  return status;
}

static mg_status make_views(const gram_stage *s, views *v) {
  mg_status status = MG_OK;
  const size_t n = (size_t)s->plan.layout->sources;
  const mg_gram_level level = s->config->compatibility.gram;
  MG_TRY(list_layers(s, &v->layers), done);
  v->cosine = mg_alloc(n * n, sizeof(double));
  if (v->cosine == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_gram_cosine(s->plan.layout, &s->gram, take_selected, NULL, v->cosine), done);
  if (v->layers.count == 0) goto done;
  v->encoder = mg_alloc(n * n, sizeof(double));
  if (v->encoder == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_gram_cosine(s->plan.layout, &s->gram, take_encoder, &level, v->encoder), done);
  if (level == MG_GRAM_TOTAL) goto done;
  v->by_layer = mg_alloc(v->layers.count * n * n, sizeof(double));
  if (v->by_layer == NULL) return MG_ERR_NOMEM;
  for (size_t l = 0; l < v->layers.count; l++)
    MG_TRY(mg_gram_cosine(s->plan.layout, &s->gram, take_layer, v->layers.items[l], v->by_layer + l * n * n), done);
done:
  return status;
}

static mg_rank_report report_of(const gram_stage *s) {
  mg_rank_report report = {.units = s->computed, .peak_bytes = mg_peak_memory()};
  gethostname(report.host, sizeof report.host - 1);
  report.busy_seconds = s->times.busy_seconds;
  report.read_seconds = s->times.read_seconds;
  report.bytes_read = s->times.bytes_read;
  return report;
}

static void warn_of_undefined(const gram_stage *s, const double *cosine) {
  const size_t n = (size_t)s->plan.layout->sources;
  for (size_t i = 0; i < n; i++)
    if (cosine[i * n + i] != 1)
      mg_warn("the task vector of %s is zero or not finite: its cosines are NaN", s->roster->list.items[i].id);
}

static mg_status write_result(gram_stage *s, const mg_rank_report *reports) {
  mg_status status = MG_OK;
  views v = {0};
  mg_text yaml = {0};
  char library[MPI_MAX_LIBRARY_VERSION_STRING], backend[256];
  int length;
  MG_TRY(mg_gram_collect(s->sum, &s->gram), cleanup);
  MG_TRY(make_views(s, &v), cleanup);
  warn_of_undefined(s, v.cosine);
  int cka_layer_count = 0;
  char probes[128];
  snprintf(probes, sizeof probes, "%s %s", s->config->compatibility.cka.locale, s->config->compatibility.cka.partition);
  const int *cka_layers = s->cka != NULL ? mg_cka_layers(s->cka, &cka_layer_count) : NULL;
  if (s->cka != NULL) MG_TRY(mg_cka_matrices(s->cka, &v.cka, &v.cka_unbiased), cleanup);
  MG_TRY(mg_config_resolved(s->config, &yaml), cleanup);
  MPI_Get_library_version(library, &length);
  library[strcspn(library, ",\n")] = '\0';
  const mg_timing timings[] = {{"family", s->roster->family_seconds},
                               {"pack", s->roster->pack_seconds},
                               {"gram", s->gram_seconds},
                               {"cka", s->cka_seconds}};
  const mg_result_data data = {.sources = &s->roster->list,
                               .base_path = s->config->family.base,
                               .labels = &s->roster->labels,
                               .table = s->plan.layout->table,
                               .selected = s->plan.selected,
                               .level = s->config->compatibility.gram,
                               .layout = s->plan.layout,
                               .gram = &s->gram,
                               .cosine = v.cosine,
                               .cosine_encoder = v.encoder,
                               .cosine_layers = v.by_layer,
                               .layers = &v.layers,
                               .cka = v.cka,
                               .cka_unbiased = v.cka_unbiased,
                               .cka_layers = cka_layers,
                               .cka_layer_count = cka_layer_count,
                               .cka_samples = s->cka != NULL ? (int64_t)mg_cka_texts(s->cka) : 0,
                               .cka_probes = probes,
                               .config_yaml = yaml.data,
                               .config_file = s->config->file,
                               .identity = &s->identity,
                               .numeric_mode = NUMERIC_MODE,
                               .backend = mg_ops_describe(s->ops, backend, sizeof backend),
                               .mpi_library = library,
                               .started_utc = s->started,
                               .wall_seconds = mg_now() - s->began,
                               .attempt = mg_run_attempt(s->run),
                               .ranks = s->ranks,
                               .rank_reports = reports,
                               .timings = timings,
                               .timing_count = sizeof timings / sizeof *timings - (s->cka == NULL ? 1 : 0)};
  MG_TRY(mg_result_write(mg_run_temporary(s->run), &data), cleanup);
  MG_TRY(mg_run_publish(s->run), cleanup);
  const mg_matrix_statistics all = mg_matrix_off_diagonal(v.cosine, (size_t)s->plan.layout->sources);
  mg_info("task-vector cosine of %d sources: mean %.4f, std %.4f, min %.4f, max %.4f", s->plan.layout->sources, all.mean,
          all.std, all.min, all.max);
  for (int l = 0; l < cka_layer_count; l++) {
    const size_t n = (size_t)s->plan.layout->sources;
    const mg_matrix_statistics cka = mg_matrix_off_diagonal(v.cka + (size_t)l * n * n, n);
    mg_info("CKA, layer %d: mean %.4f, std %.4f, min %.4f, max %.4f", cka_layers[l], cka.mean, cka.std, cka.min, cka.max);
  }
  mg_info("result in %s", s->config->result);
cleanup:
  views_free(&v);
  mg_text_free(&yaml);
  return status;
}

/* ---- the story ---- */

static mg_status prepare(MPI_Comm comm, gram_stage *s) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(s->rows);
  s->threads = mg_threads_auto(comm, s->config->compute.threads);
  MG_TRY(mg_ops_get(s->config->compute.backend, &s->ops), done);
  MG_TRY(mg_gram_plan_make(s->config, table, (int)s->roster->list.count, mg_rows_dtype(s->rows),
                           mg_rows_bytes_per_element(s->rows), mg_rows_staging_bytes(), s->ranks, s->threads, &s->plan),
         done);
  for (size_t b = 0; b < s->plan.layout->block_count; b++)
    for (size_t g = 0; g < s->plan.layout->group_count; g++) {
      const int64_t leaves = s->plan.layout->groups[g].leaves;
      unsigned level = 0;
      while ((INT64_C(1) << level) < leaves) level++;
      const mg_gram_node root = {.block = (uint32_t)b, .group = (uint32_t)g, .level = level};
      if (leaves > 0) s->total_bytes += node_bytes(s, &root);
    }
done:
  return status;
}

static mg_status compute(MPI_Comm comm, gram_stage *s) {
  mg_status status = MG_OK;
  MG_TRY(mg_agree(comm, mg_gram_engine_create(s->plan.layout, s->rows, s->ops, s->threads, s->config->family.allow_nonfinite,
                                              &s->engine)),
         done);
  mg_info("gram: %d sources, %zu tensors, %.4g M parameters, %s kernel, %d rank%s × %d thread%s", s->plan.layout->sources,
          s->plan.layout->table->count, (double)s->plan.layout->table->elements / 1e6, s->ops->kernel, s->ranks,
          s->ranks > 1 ? "s" : "", s->threads, s->threads > 1 ? "s" : "");
  mg_progress_begin(&s->progress, "gram", s->total_bytes, s->done_bytes, 1e9, "GB");
  const mg_farm_job job = {
      .units = (int64_t)s->unit_count, .context = s, .work = compute_unit, .take = take_unit, .tick = tick};
  const double began = mg_now();
  MG_TRY(mg_farm_run(comm, &job), done);
  s->gram_seconds = mg_now() - began;
  mg_progress_end(&s->progress, s->done_bytes);
  s->times = mg_gram_engine_times(s->engine);
  mg_gram_engine_destroy(&s->engine);
  if (s->cka == NULL) goto done;
  const double cka_began = mg_now();
  MG_TRY(mg_cka_compute(comm, s->cka, s->run, keep_going, s), done);
  s->cka_seconds = mg_now() - cka_began;
done:
  return status;
}

static mg_status gather_and_write(MPI_Comm comm, gram_stage *s) {
  const mg_rank_report mine = report_of(s);
  mg_rank_report *reports = calloc((size_t)s->ranks, sizeof *reports);
  mg_status status = mg_agree(comm, reports == NULL ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK);
  if (status == MG_OK) {
    MPI_Gather(&mine, (int)sizeof mine, MPI_BYTE, reports, (int)sizeof mine, MPI_BYTE, 0, comm);
    status = mg_agree(comm, s->rank == 0 ? write_result(s, reports) : MG_OK);
  }
  free(reports);
  return status;
}

mg_status mg_stage_compatibility(MPI_Comm comm, const mg_config *config, const mg_run_options *options, const mg_roster *roster,
                                 mg_rows *rows, mg_run *run) {
  mg_status status = MG_OK;
  gram_stage s = {.config = config, .options = options, .roster = roster, .rows = rows, .run = run, .began = mg_now()};
  int complete = 0;
  bool already = false;
  MPI_Comm_rank(comm, &s.rank);
  MPI_Comm_size(comm, &s.ranks);
  mg_utc_now(s.started);
  MG_TRY(mg_agree(comm, prepare(comm, &s)), cleanup);
  if (mg_cka_wanted(config)) MG_TRY(mg_cka_open(comm, config, &roster->list, rows, s.threads, &s.cka), cleanup);
  if (s.rank == 0) {
    status = make_identity(&s);
    if (status == MG_OK) status = mg_run_check(run, &s.identity, &already);
    if (status == MG_OK && !already) status = list_missing(&s);
    complete = already;
  }
  MG_TRY(mg_agree(comm, status), cleanup);
  MPI_Bcast(&complete, 1, MPI_INT, 0, comm);
  if (complete) {
    mg_info("%s is complete and was computed from the same inputs: nothing to do (--fresh starts over)", config->result);
    goto cleanup;
  }
  MG_TRY(share_nodes(comm, &s), cleanup);
  MG_TRY(compute(comm, &s), cleanup);
  MG_TRY(gather_and_write(comm, &s), cleanup);
cleanup:
  mg_cka_close(&s.cka);
  mg_gram_engine_destroy(&s.engine);
  mg_gram_sum_destroy(&s.sum);
  mg_gram_free(&s.gram);
  mg_identity_free(&s.identity);
  mg_gram_plan_free(&s.plan);
  free(s.nodes);
  free(s.units);
  return status;
}
