/*
 * The metric task_vector_cosine: Grams of all pairs, dealt to ranks as nodes of the summation tree, journaled as they arrive,
 * gathered into matrices.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

/* What our own kernels fix; a machine's instruction set is no part of it. */
static const char BY_LANES[] = "gram 1: runs of 1024 over 16 fp32 lanes of fused multiply-adds, fp64 above";
/* Of bf16 shards; the base's products go by lanes here, too, so that another order of these is another mode of both. */
static const char BY_CHAINS[] =
    "gram 2: runs of 1024 in links of 32 bf16, each two fp32 chains of fused multiply-adds, fp64 above";

typedef struct views {
  double *cosine, *encoder, *by_layer;
  mg_strings layers;
} views;

struct mg_gram_stage {
  mg_attempt *attempt;
  mg_gram_plan plan;
  mg_gram_engine *engine;
  mg_gram_node *nodes; /* the work that is left, the same on every rank */
  size_t node_count;
  mg_gram_unit *units;
  size_t unit_count;
  /* rank 0 */
  mg_gram_sum *sum;
  mg_gram gram;
  views views;
  mg_progress progress;
  double done_bytes, total_bytes;
};

/* ---- identity ---- */

const mg_gram_plan *mg_gram_stage_plan(const mg_gram_stage *s) { return &s->plan; }

mg_status mg_gram_stage_identify(const mg_gram_stage *s, mg_identity *identity) {
  mg_status status = MG_OK;
  mg_text exclude = {0};
  char mode[256];
  static const char *const levels[] = {[MG_GRAM_TENSOR] = "tensor", [MG_GRAM_LAYER] = "layer", [MG_GRAM_TOTAL] = "total"};
  const mg_config *config = s->attempt->config;
  for (size_t k = 0; k < config->compatibility.exclude.count; k++)
    mg_text_append(&exclude, "%s%s", k ? ", " : "", config->compatibility.exclude.items[k]);
  if (exclude.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status != MG_OK) goto cleanup;
  MG_TRY(mg_identity_add(identity, "numeric mode", mg_gram_stage_numeric_mode(s->attempt, mode, sizeof mode)), cleanup);
  MG_TRY(mg_identity_add(identity, "compatibility.gram", levels[config->compatibility.gram]), cleanup);
  MG_TRY(mg_identity_add(identity, "compatibility.exclude", exclude.data ? exclude.data : ""), cleanup);
cleanup:
  mg_text_free(&exclude);
  return status;
}

const char *mg_gram_stage_numeric_mode(const mg_attempt *a, char *buffer, size_t size) {
  char text[200];
  const mg_device *device = a->device;
  if (device == NULL || !device->products) /* a device's bits are the processors' */
    return a->rows != NULL && mg_gram_is_chained(a->rows) ? BY_CHAINS : BY_LANES;
  snprintf(buffer, size, "gram 1: products of %s, fp64 from tile to tile", device->ops->describe(device, text, sizeof text));
  return buffer;
}

/* ---- what is left ---- */

static double node_bytes(const mg_gram_stage *s, const mg_gram_node *node) {
  return (double)mg_gram_node_elements(s->plan.layout, node) * mg_rows_bytes_per_element(s->attempt->rows);
}

/* Adds a payload of nodes (each followed by its values) to the sum. */
static mg_status add_nodes(mg_gram_stage *s, const void *payload, size_t size) {
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
    /* a part, and who computed what it had not done yet, have the same sums: the first counts */
    bool covered, partly;
    mg_gram_sum_covers(s->sum, &node, &covered, &partly);
    if (!covered) status = mg_gram_sum_add(s->sum, &node, values);
    if (!covered && status == MG_OK) s->done_bytes += node_bytes(s, &node);
    free(values);
    at += sizeof node + bytes;
    size -= sizeof node + bytes;
  }
  return status;
}

mg_status mg_gram_stage_replay(mg_gram_stage *s, const mg_record *record) {
  return record->kind == MG_RECORD_NODES ? add_nodes(s, record->payload, record->size) : MG_OK;
}

mg_status mg_gram_stage_adopt(mg_gram_stage *s, const mg_gram *gram) {
  mg_status status = MG_OK;
  if (s->done_bytes > 0) return MG_OK; /* an earlier attempt went another way */
  MG_TRY(mg_gram_sum_take(s->sum, gram), done);
  s->done_bytes = s->total_bytes;
done:
  return status;
}

/* What earlier attempts have not finished, of all or of this part's share. */
static mg_status list_nodes(mg_gram_stage *s) {
  const mg_parts *parts = &s->attempt->parts;
  const int64_t all = mg_gram_leaves(s->plan.layout);
  if (parts->part == 0) return mg_gram_sum_missing(s->sum, s->plan.unit_leaves, &s->nodes, &s->node_count);
  const mg_status status = mg_gram_sum_missing_in(s->sum, s->plan.unit_leaves, mg_share_begin(parts, parts->part, all),
                                                  mg_share_begin(parts, parts->part + 1, all), &s->nodes, &s->node_count);
  s->total_bytes = s->done_bytes;
  for (size_t k = 0; k < s->node_count; k++) s->total_bytes += node_bytes(s, &s->nodes[k]);
  return status;
}

mg_status mg_gram_stage_lacking(mg_gram_stage *s) {
  mg_parts *parts = &s->attempt->parts;
  const int64_t all = mg_gram_leaves(s->plan.layout);
  for (int part = 1; part <= parts->count; part++) {
    mg_gram_node *nodes = NULL;
    size_t count = 0;
    const mg_status status = mg_gram_sum_missing_in(s->sum, s->plan.unit_leaves, mg_share_begin(parts, part, all),
                                                    mg_share_begin(parts, part + 1, all), &nodes, &count);
    free(nodes);
    if (status != MG_OK) return status;
    if (count > 0) mg_parts_lack(parts, part, MG_SHARE_GRAM);
  }
  return MG_OK;
}

/* Rank 0's list to all. */
static mg_status share_nodes(mg_gram_stage *s) {
  mg_status status = MG_OK;
  if (s->attempt->rank == 0) status = list_nodes(s);
  void *data = s->nodes;
  status = mg_attempt_share(s->attempt, status, &data, &s->node_count, sizeof *s->nodes);
  s->nodes = data;
  if (status != MG_OK) return status;
  if (s->done_bytes > 0)
    mg_info("continuing: %.0f%% of the inner products are in the journal", 100 * s->done_bytes / s->total_bytes);
  return mg_agree(s->attempt->comm, mg_gram_units(&s->plan, s->nodes, s->node_count, &s->units, &s->unit_count));
}

/* ---- the farm's side ---- */

static mg_status compute_unit(void *context, int64_t unit, mg_text *payload, mg_farm_poll *poll) {
  mg_gram_stage *s = context;
  mg_status status = MG_OK;
  const mg_gram_unit range = s->units[unit];
  double *values = NULL;
  for (uint64_t k = range.first; k < range.first + range.count; k++) {
    const mg_gram_node *node = &s->nodes[k];
    const size_t count = mg_gram_values(s->plan.layout, node->block);
    if (values == NULL && (values = mg_alloc(count, sizeof *values)) == NULL) return MG_ERR_NOMEM;
    MG_TRY(mg_gram_compute(s->engine, node, values, mg_attempt_poll, poll), cleanup);
    mg_text_append_bytes(payload, node, sizeof *node);
    mg_text_append_bytes(payload, values, count * sizeof *values);
  }
  s->attempt->mine.units++;
  mg_peak_sample();
cleanup:
  free(values);
  return status;
}

static mg_status take_unit(void *context, int64_t unit, const void *payload, size_t size) {
  mg_gram_stage *s = context;
  mg_status status = MG_OK;
  (void)unit;
  MG_TRY(mg_run_append(s->attempt->run, MG_RECORD_NODES, payload, size, NULL), done);
  MG_TRY(add_nodes(s, payload, size), done);
  mg_peak_sample();
done:
  return status;
}

static mg_status tick(void *context) {
  mg_gram_stage *s = context;
  char text[96];
  snprintf(text, sizeof text, "%.0f%% of %.4g GB", 100 * s->done_bytes / (s->total_bytes > 0 ? s->total_bytes : 1),
           s->total_bytes / 1e9);
  mg_progress_update(&s->progress, s->done_bytes);
  return mg_attempt_keep_going(s->attempt, "compatibility", text);
}

/* ---- matrices ---- */

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

static void views_free(views *v) {
  free(v->cosine);
  free(v->encoder);
  free(v->by_layer);
  mg_strings_free(&v->layers);
}

static mg_status list_layers(const mg_gram_stage *s, mg_strings *layers) {
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

static mg_status make_views(const mg_gram_stage *s, views *v) {
  mg_status status = MG_OK;
  const size_t n = (size_t)s->plan.layout->sources;
  const mg_gram_level level = s->attempt->config->compatibility.gram;
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

static void warn_of_undefined(const mg_gram_stage *s, const double *cosine) {
  const size_t n = (size_t)s->plan.layout->sources;
  for (size_t i = 0; i < n; i++)
    if (cosine[i * n + i] != 1)
      mg_warn("the task vector of %s is zero or not finite: its cosines are NaN", s->attempt->roster->list.items[i].id);
}

/* Grams and matrices, once. */
static mg_status make_matrices(mg_gram_stage *s) {
  mg_status status = MG_OK;
  if (s->views.cosine != NULL) return MG_OK;
  MG_TRY(mg_gram_collect(s->sum, &s->gram), done);
  MG_TRY(make_views(s, &s->views), done);
  warn_of_undefined(s, s->views.cosine);
done:
  return status;
}

mg_status mg_gram_stage_matrices(mg_gram_stage *s, const double **cosine, const mg_gram **gram) {
  const mg_status status = make_matrices(s);
  *cosine = s->views.cosine;
  *gram = s->attempt->config->compatibility.gram == MG_GRAM_TENSOR ? &s->gram : NULL;
  return status;
}

mg_status mg_gram_stage_collect(mg_gram_stage *s, mg_result_compatibility *out) {
  mg_status status = MG_OK;
  MG_TRY(make_matrices(s), done);
  out->level = s->attempt->config->compatibility.gram;
  out->layout = s->plan.layout;
  out->gram = &s->gram;
  out->cosine = s->views.cosine;
  out->cosine_encoder = s->views.encoder;
  out->cosine_layers = s->views.by_layer;
  out->layers = &s->views.layers;
done:
  return status;
}

/* ---- the story ---- */

static mg_status prepare(mg_gram_stage *s) {
  mg_status status = MG_OK;
  const mg_attempt *a = s->attempt;
  MG_TRY(mg_gram_plan_make(a->config, mg_rows_table(a->rows), (int)a->roster->list.count, mg_rows_dtype(a->rows),
                           mg_rows_bytes_per_element(a->rows), mg_rows_staging_bytes(), a->ranks, a->threads, a->device,
                           &s->plan),
         done);
  for (size_t b = 0; b < s->plan.layout->block_count; b++)
    for (size_t g = 0; g < s->plan.layout->group_count; g++) {
      const int64_t leaves = s->plan.layout->groups[g].leaves;
      unsigned level = 0;
      while ((INT64_C(1) << level) < leaves) level++;
      const mg_gram_node root = {.block = (uint32_t)b, .group = (uint32_t)g, .level = level};
      if (leaves > 0) s->total_bytes += node_bytes(s, &root);
    }
  if (a->rank == 0) MG_TRY(mg_gram_sum_create(s->plan.layout, &s->sum), done);
done:
  return status;
}

mg_status mg_gram_stage_open(mg_attempt *attempt, mg_gram_stage **stage) {
  mg_status status = MG_OK;
  mg_gram_stage *s = mg_alloc_zero(1, sizeof *s);
  MG_TRY(mg_agree(attempt->comm, s != NULL ? MG_OK : MG_ERR_NOMEM), failed);
  s->attempt = attempt;
  MG_TRY(mg_agree(attempt->comm, prepare(s)), failed);
  *stage = s;
  return MG_OK;
failed:
  mg_gram_stage_close(&s);
  return status;
}

void mg_gram_stage_close(mg_gram_stage **stage) {
  mg_gram_stage *s = *stage;
  if (s == NULL) return;
  mg_gram_engine_destroy(&s->engine);
  mg_gram_sum_destroy(&s->sum);
  mg_gram_free(&s->gram);
  mg_gram_plan_free(&s->plan);
  views_free(&s->views);
  free(s->nodes), free(s->units), free(s);
  *stage = NULL;
}

mg_status mg_gram_stage_compute(mg_gram_stage *s) {
  mg_status status = MG_OK;
  mg_attempt *a = s->attempt;
  MG_TRY(share_nodes(s), done);
  const mg_gram_terms terms = {.ops = a->ops,
                               .device = a->device,
                               .threads = a->threads,
                               .see = a->device == NULL,
                               .allow_nonfinite = a->config->family.allow_nonfinite};
  MG_TRY(mg_agree(a->comm, mg_gram_engine_create(s->plan.layout, a->rows, &terms, &s->engine)), done);
  mg_info("gram: %d sources, %zu tensors, %.4g M parameters, %s kernel, %d rank%s × %d thread%s", s->plan.layout->sources,
          s->plan.layout->table->count, (double)s->plan.layout->table->elements / 1e6,
          a->device != NULL ? a->device->ops->name : a->ops->kernel, a->ranks, a->ranks > 1 ? "s" : "", a->threads,
          a->threads > 1 ? "s" : "");
  mg_progress_begin(&s->progress, "gram", s->total_bytes, s->done_bytes, 1e9, "GB");
  const mg_farm_job job = {
      .units = (int64_t)s->unit_count, .context = s, .work = compute_unit, .take = take_unit, .tick = tick};
  const double began = mg_now();
  mg_peak_begin_seeing();
  MG_TRY(mg_farm_run(a->comm, &job), done);
  mg_attempt_timed(a, "gram", began);
  mg_progress_end(&s->progress, s->done_bytes);
  const mg_gram_times times = mg_gram_engine_times(s->engine);
  a->mine.busy_seconds += times.busy_seconds;
  a->mine.read_seconds += times.read_seconds;
  a->mine.bytes_read += times.bytes_read;
  mg_peak_sample();
  mg_gram_engine_destroy(&s->engine);
  mg_peak_end_seeing();
done:
  return status;
}
