/* What `plan` says. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan_impl.h"

typedef struct hours {
  double pack, gram, cka, nxn, grid, microscope;
} hours;

static double microscope_hours(const mg_prediction *p, double passes, double cores) {
  if (!p->with_microscope) return 0;
  const double listening = p->microscope.flops > 0 ? p->microscope.flops / passes : 0;
  return listening + p->microscope.merge_bytes / p->merge_rate / cores / 3600;
}

static hours predict_hours(const mg_prediction *p) {
  const double cores = p->ranks * p->threads < p->processors ? p->ranks * p->threads : p->processors;
  const double pack_bytes = p->pack.bytes_read + p->pack.bytes_written;
  const double engines = p->device != NULL ? p->ranks : cores;
  const double passes = p->forward_rate * engines * 3600; /* flop an hour */
  return (hours){.pack = pack_bytes > 0 ? pack_bytes / p->read_rate / cores / 3600 : 0,
                 .gram = p->with_gram ? (p->gram.flops / p->kernel_rate + p->gram.bytes_read / p->read_rate) / cores / 3600 : 0,
                 .cka = p->with_cka ? p->cka.flops / passes : 0,
                 .nxn = p->with_nxn ? p->nxn.flops / passes : 0,
                 .grid = p->with_grid ? p->grid.flops / passes + p->grid.merge_bytes / p->merge_rate / cores / 3600 : 0,
                 .microscope = microscope_hours(p, passes, cores)};
}

static double sum_hours(const hours *h) { return h->pack + h->gram + h->cka + h->nxn + h->grid + h->microscope; }

static mg_memory predict_memory(const mg_prediction *p) {
  const mg_plans plans = mg_prediction_plans(p);
  return mg_memory_predict(&plans);
}

/* ---- for people ---- */

static void print_family(const mg_config *config, const mg_prediction *p, const hours *h) {
  char a[32], b[32];
  printf("family       %zu sources, %zu tensors, %.4g M parameters; base %s\n", p->roster.list.count, p->table->count,
         (double)p->table->elements / 1e6, config->family.base);
  for (size_t k = 0; k < p->roster.list.skipped.count; k++)
    printf("             skipped: %s (no checkpoint)\n", p->roster.list.skipped.items[k]);
  if (config->shards.dir == NULL)
    printf("shards       none: tiles come straight from the checkpoints\n");
  else
    printf("shards       %zu of %zu to pack in %s (%s): reads %s, writes %s, %.3g h\n", p->pack.missing,
           p->roster.list.count + 1, config->shards.dir, mg_dtype_name(p->dtype), mg_format_bytes(p->pack.bytes_read, a),
           mg_format_bytes(p->pack.bytes_written, b), h->pack);
}

/* Where this command runs; a job may be bound otherwise, and each of its nodes has its own line in the run. */
static void print_node(const mg_prediction *p) {
  mg_place here = {0};
  mg_text processors = {0};
  mg_place_here(&here);
  mg_processors_text(&here.processors, &processors);
  printf("node         %s, as this command is bound: processors %s of %d for %d rank%s, %d thread%s%s\n", here.host,
         processors.data != NULL ? processors.data : "", here.online, p->ranks, p->ranks > 1 ? "s" : "", p->threads,
         p->threads > 1 ? "s" : "", p->ranks > 1 ? " each" : "");
  mg_text_free(&processors);
}

/* The variables of shards.stage_to are those of the nodes; here they may be others, or none. */
static void print_staging(const mg_config *config, const mg_prediction *p) {
  char take[32], have[32], *dir = NULL;
  if (config->shards.stage_to == NULL) return;
  printf("             copied to %s: %s a node", config->shards.stage_to, mg_format_bytes(mg_staged_bytes(p), take));
  if (mg_config_stage_dir(config, &dir) != MG_OK)
    printf(" (%s)\n", mg_error_message());
  else
    printf(" (here %s, %s free)\n", dir, mg_format_bytes(mg_stage_room(dir), have));
  free(dir);
}

static void print_stages(const mg_prediction *p, const hours *h) {
  char a[32], b[32];
  if (p->with_gram)
    printf("compatibility task_vector_cosine: %zu pair block%s, %zu Grams, leases of %lld leaves\n"
           "             reads %s, computes %.4g GFLOP, %.3g h\n",
           p->gram.layout->block_count, p->gram.layout->block_count > 1 ? "s" : "", p->gram.layout->group_count,
           (long long)p->gram.unit_leaves, mg_format_bytes(p->gram.bytes_read, a), p->gram.flops / 1e9, h->gram);
  if (p->with_cka)
    printf("             cka: %zu probe texts (%zu different) through %zu models, %.4g GFLOP, %.3g h; %s a rank, %s more on "
           "rank 0\n",
           p->cka.probes.count, p->cka.probes.sequences.count, p->roster.list.count, p->cka.flops / 1e9, h->cka,
           mg_format_bytes((double)p->cka.encoder_bytes, a), mg_format_bytes((double)p->cka.features_bytes, b));
  if (p->with_nxn)
    printf(
        "nxn          %zu texts of %zu targets (%zu different) through %zu models, %.4g GFLOP, %.3g h; %s a rank, %s more on "
        "rank 0\n",
        p->nxn.texts.tokenized.count, p->nxn.texts.targets.count, p->nxn.texts.tokenized.sequences.count, p->roster.list.count,
        p->nxn.flops / 1e9, h->nxn, mg_format_bytes((double)(p->nxn.encoder_bytes + p->nxn.text_bytes), a),
        mg_format_bytes((double)(p->nxn.master_bytes + p->nxn.answer_bytes), b));
}

/* Cells a method, in the order of the grid. */
static void print_methods(const mg_grid *grid) {
  int column = 13;
  for (size_t k = 0; k < grid->count; k++) {
    const mg_method *method = grid->cells[k].terms.method;
    size_t count = 0;
    bool seen = false;
    for (size_t i = 0; i < k && !seen; i++) seen = grid->cells[i].terms.method == method;
    for (size_t i = k; !seen && i < grid->count; i++) count += grid->cells[i].terms.method == method;
    if (seen) continue;
    if (column == 13) printf("             ");
    column += printf("%s%s %zu", column > 13 ? ", " : "", method->name, count);
    if (column > 100) {
      puts(",");
      column = 13;
    }
  }
  if (column > 13) puts("");
}

static void print_grid(const mg_prediction *p, const hours *h) {
  char a[32], b[32], c[32];
  if (!p->with_grid) return;
  printf("grid         %zu cells, %zu of them merges (equal recipes are computed once), up to %zu in one pass\n", p->grid.cells,
         p->grid.merges, p->grid.models);
  print_methods(&p->cells);
  printf("             merging moves %s in memory, evaluating computes %.4g GFLOP, %.3g h; %s a model, %s for sources a node",
         mg_format_bytes(p->grid.merge_bytes, a), p->grid.flops / 1e9, h->grid, mg_format_bytes((double)p->grid.model_bytes, b),
         mg_format_bytes((double)p->grid.store_bytes, c));
  const size_t fit = p->grid.store_bytes > 0 ? (size_t)(p->grid.store_bytes / p->grid.source_bytes) - 1 : 0;
  printf(" (%zu of %zu)\n", fit, p->roster.list.count);
}

static void print_microscope(const mg_prediction *p, const hours *h) {
  char a[32], b[32], c[32];
  const mg_microscope_plan *m = &p->microscope;
  if (!p->with_microscope) return;
  printf("microscope   %zu models and the reference, %zu probe texts (%zu different)%s%s\n", m->models - 1, m->probes.count,
         m->probes.sequences.count, m->signals ? "" : "; no forward passes: ", m->signals ? "" : m->no_signals);
  printf("             comparing moves %s in memory, forward passes compute %.4g GFLOP, %.3g h; %s a rank, %s more on rank 0\n",
         mg_format_bytes(m->merge_bytes, a), m->flops / 1e9, h->microscope,
         mg_format_bytes((double)(m->work_bytes + m->encoder_bytes), b), mg_format_bytes((double)m->master_bytes, c));
}

static void print_device(const mg_prediction *p) {
  char name[256], least[32], wish[32];
  const mg_plans plans = mg_prediction_plans(p);
  const mg_device_need need = mg_device_need_of(&plans);
  if (p->device == NULL) return;
  printf("device       %s, one a rank: at least %s of its memory, up to %s for sources and matrices\n",
         p->device->ops->describe(p->device, name, sizeof name), mg_format_bytes((double)need.least, least),
         mg_format_bytes((double)need.wish, wish));
}

void mg_plan_print(const mg_config *config, const mg_prediction *p) {
  char a[32], b[32], c[32], d[32], e[32];
  const hours h = predict_hours(p);
  const mg_memory m = predict_memory(p);
  print_family(config, p, &h);
  print_staging(config, p);
  print_stages(p, &h);
  print_grid(p, &h);
  print_microscope(p, &h);
  printf("together     %.3g h with %d rank%s × %d thread%s on %d processor%s\n", sum_hours(&h), p->ranks,
         p->ranks > 1 ? "s" : "", p->threads, p->threads > 1 ? "s" : "", p->processors, p->processors > 1 ? "s" : "");
  print_node(p);
  printf("rates        ");
  if (p->with_gram) printf("kernel %s %.1f GFLOP/s a core; ", p->ops->kernel, p->kernel_rate / 1e9);
  if (p->forward_rate > 0)
    printf("forward passes %.1f GFLOP/s a %s; ", p->forward_rate / 1e9, p->device != NULL ? "device" : "core");
  printf("reading %s/s (as cached now)\n", mg_format_bytes(p->read_rate, a));
  printf("memory       at most %s a rank (process %s, kept on rank 0 %s, at work %s); budget %s\n",
         mg_format_bytes((double)m.total, a), mg_format_bytes((double)m.process, b), mg_format_bytes((double)m.held, c),
         mg_format_bytes((double)m.working, d), mg_format_bytes((double)config->compute.memory_budget, e));
  print_device(p);
  printf("result       %s\n", config->result);
}

/* ---- for scripts ---- */

static json_t *bytes(uint64_t count) { return json_integer((json_int_t)count); }

static json_t *gram_json(const mg_prediction *p, const hours *h) {
  return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "metric", "task_vector_cosine", "pair_blocks",
                   (json_int_t)p->gram.layout->block_count, "grams", (json_int_t)p->gram.layout->group_count, "bytes_read",
                   p->gram.bytes_read, "flops", p->gram.flops, "hours", h->gram);
}

static json_t *cka_json(const mg_prediction *p, const hours *h) {
  return json_pack("{s:I, s:I, s:i, s:f, s:f, s:f, s:o, s:o}", "samples", (json_int_t)p->cka.probes.count, "different",
                   (json_int_t)p->cka.probes.sequences.count, "layers", p->cka.layer_count, "flops", p->cka.flops, "hours",
                   h->cka, "flops_per_second", p->forward_rate, "encoder_bytes", bytes(p->cka.encoder_bytes), "features_bytes",
                   bytes(p->cka.features_bytes));
}

static json_t *nxn_json(const mg_prediction *p, const hours *h) {
  const mg_nxn_texts *t = &p->nxn.texts;
  return json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o}", "targets", (json_int_t)t->targets.count, "texts",
                   (json_int_t)t->tokenized.count, "different", (json_int_t)t->tokenized.sequences.count, "flops", p->nxn.flops,
                   "hours", h->nxn, "flops_per_second", p->forward_rate, "encoder_bytes", bytes(p->nxn.encoder_bytes),
                   "master_bytes", bytes(p->nxn.master_bytes + p->nxn.answer_bytes));
}

static json_t *grid_json(const mg_prediction *p, const hours *h) {
  const mg_grid_plan *g = &p->grid;
  json_t *cells = json_array();
  for (size_t k = 0; k < p->cells.count; k++) {
    const mg_cell *cell = &p->cells.cells[k];
    json_array_append_new(cells, json_pack("{s:s, s:s, s:s}", "key", cell->key, "locale", cell->terms.locale, "method",
                                           cell->terms.method->name));
  }
  return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:o, s:o, s:o, s:o}", "cells", (json_int_t)g->cells, "merges",
                   (json_int_t)g->merges, "flops", g->flops, "bytes_moved", g->merge_bytes, "hours", h->grid,
                   "bytes_per_second", p->merge_rate, "models", (json_int_t)g->models, "model_bytes", bytes(g->model_bytes),
                   "store_bytes", bytes(g->store_bytes), "source_bytes", bytes(g->source_bytes), "list", cells);
}

static json_t *microscope_json(const mg_prediction *p, const hours *h) {
  const mg_microscope_plan *m = &p->microscope;
  return json_pack("{s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o}", "models", (json_int_t)m->models, "texts",
                   (json_int_t)m->probes.count, "flops", m->flops, "bytes_moved", m->merge_bytes, "hours", h->microscope,
                   "encoder_bytes", bytes(m->encoder_bytes), "work_bytes", bytes(m->work_bytes), "master_bytes",
                   bytes(m->master_bytes));
}

static json_t *memory_json(const mg_config *config, const mg_prediction *p) {
  const mg_memory m = predict_memory(p);
  return json_pack("{s:o, s:o, s:o, s:o, s:o}", "rank_bytes", bytes(m.total), "process_bytes", bytes(m.process), "held_bytes",
                   bytes(m.held), "working_bytes", bytes(m.working), "budget_bytes", bytes(config->compute.memory_budget));
}

static json_t *device_json(const mg_prediction *p) {
  char name[256];
  const mg_plans plans = mg_prediction_plans(p);
  const mg_device_need need = mg_device_need_of(&plans);
  return json_pack("{s:s, s:o, s:o}", "name", p->device->ops->describe(p->device, name, sizeof name), "least_bytes",
                   bytes(need.least), "wish_bytes", bytes(need.wish));
}

static json_t *node_json(void) {
  mg_place here = {0};
  mg_text processors = {0};
  mg_place_here(&here);
  mg_processors_text(&here.processors, &processors);
  json_t *node = json_pack("{s:s, s:s, s:i}", "host", here.host, "processors", processors.data != NULL ? processors.data : "",
                           "online", here.online);
  mg_text_free(&processors);
  return node;
}

mg_status mg_plan_print_json(const mg_config *config, const mg_prediction *p) {
  const hours h = predict_hours(p);
  json_t *skipped = json_array();
  for (size_t k = 0; k < p->roster.list.skipped.count; k++)
    json_array_append_new(skipped, json_string(p->roster.list.skipped.items[k]));
  json_t *root = json_pack(
      "{s:i, s:o, s:I, s:I, s:i, s:i, s:s, s:s, s:f, s:{s:I, s:f, s:f, s:f}, s:{s:s, s:f, s:f, s:f}, s:o}", "sources",
      (int)p->roster.list.count, "skipped", skipped, "tensors", (json_int_t)p->table->count, "parameters",
      (json_int_t)p->table->elements, "ranks", p->ranks, "threads", p->threads, "result", config->result, "shards_dtype",
      config->shards.dir != NULL ? mg_dtype_name(p->dtype) : "none", "hours", sum_hours(&h), "pack", "shards",
      (json_int_t)p->pack.missing, "bytes_read", p->pack.bytes_read, "bytes_written", p->pack.bytes_written, "hours", h.pack,
      "rates", "kernel", p->ops->kernel, "flops_per_second", p->kernel_rate, "forward_flops_per_second", p->forward_rate,
      "read_bytes_per_second", isfinite(p->read_rate) ? p->read_rate : 0.0, "memory", memory_json(config, p));
  if (root != NULL) json_object_set_new(root, "node", node_json());
  if (root != NULL && config->shards.stage_to != NULL)
    json_object_set_new(root, "stage_to", json_pack("{s:s, s:f}", "dir", config->shards.stage_to, "bytes", mg_staged_bytes(p)));
  if (root != NULL && p->with_gram) json_object_set_new(root, "compatibility", gram_json(p, &h));
  if (root != NULL && p->with_cka) json_object_set_new(root, "cka", cka_json(p, &h));
  if (root != NULL && p->with_nxn) json_object_set_new(root, "nxn", nxn_json(p, &h));
  if (root != NULL && p->with_grid) json_object_set_new(root, "grid", grid_json(p, &h));
  if (root != NULL && p->with_microscope) json_object_set_new(root, "microscope", microscope_json(p, &h));
  if (root != NULL && p->device != NULL) json_object_set_new(root, "device", device_json(p));
  char *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  if (text == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  puts(text);
  free(text);
  return MG_OK;
}
