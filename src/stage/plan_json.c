/* What `plan` says, for scripts. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan_impl.h"

static json_t *bytes(uint64_t count) { return json_integer((json_int_t)count); }

static json_t *gram_json(const mg_prediction *p, const mg_plan_hours *h) {
  return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "metric", "task_vector_cosine", "pair_blocks",
                   (json_int_t)p->gram.layout->block_count, "grams", (json_int_t)p->gram.layout->group_count, "bytes_read",
                   p->gram.bytes_read, "flops", p->gram.flops, "hours", h->gram);
}

static json_t *cka_json(const mg_prediction *p, const mg_plan_hours *h) {
  return json_pack("{s:I, s:I, s:i, s:f, s:f, s:f, s:o, s:o}", "samples", (json_int_t)p->cka.probes.count, "different",
                   (json_int_t)p->cka.probes.sequences.count, "layers", p->cka.layer_count, "flops", p->cka.flops, "hours",
                   h->cka, "flops_per_second", p->forward_rate, "encoder_bytes", bytes(p->cka.encoder_bytes), "features_bytes",
                   bytes(p->cka.features_bytes));
}

static json_t *nxn_json(const mg_prediction *p, const mg_plan_hours *h) {
  const mg_nxn_texts *t = &p->nxn.texts;
  return json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o}", "targets", (json_int_t)t->targets.count, "texts",
                   (json_int_t)t->tokenized.count, "different", (json_int_t)t->tokenized.sequences.count, "flops", p->nxn.flops,
                   "hours", h->nxn, "flops_per_second", p->forward_rate, "encoder_bytes", bytes(p->nxn.encoder_bytes),
                   "master_bytes", bytes(p->nxn.master_bytes + p->nxn.answer_bytes));
}

static json_t *grid_json(const mg_prediction *p, const mg_plan_hours *h) {
  const mg_grid_plan *g = &p->grid;
  json_t *cells = json_array();
  for (size_t k = 0; k < p->cells.count; k++) {
    const mg_cell *cell = &p->cells.cells[k];
    json_array_append_new(cells, json_pack("{s:s, s:s, s:s}", "key", cell->key, "locale", cell->terms.locale, "method",
                                           cell->terms.method->name));
  }
  return json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:o, s:o, s:o, s:o, s:I}", "cells", (json_int_t)g->cells, "merges",
                   (json_int_t)g->merges, "flops", g->flops, "bytes_moved", g->merge_bytes, "hours", h->grid,
                   "bytes_per_second", p->merge_rate, "models", (json_int_t)g->models, "model_bytes", bytes(g->model_bytes),
                   "store_bytes", bytes(g->store_bytes), "source_bytes", bytes(g->source_bytes), "list", cells, "failing",
                   (json_int_t)p->failing);
}

static json_t *microscope_json(const mg_prediction *p, const mg_plan_hours *h) {
  const mg_microscope_plan *m = &p->microscope;
  return json_pack("{s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o}", "models", (json_int_t)m->models, "texts",
                   (json_int_t)m->probes.count, "flops", m->flops, "bytes_moved", m->merge_bytes, "hours", h->microscope,
                   "encoder_bytes", bytes(m->encoder_bytes), "work_bytes", bytes(m->work_bytes), "master_bytes",
                   bytes(m->master_bytes));
}

static json_t *memory_json(const mg_config *config, const mg_prediction *p) {
  const mg_memory m = mg_prediction_memory(p);
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "rank_bytes", bytes(m.total), "process_bytes", bytes(m.process),
                   "held_bytes", bytes(m.held), "working_bytes", bytes(m.working), "shared_bytes", bytes(m.shared),
                   "budget_bytes", bytes(config->compute.memory_budget));
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

/* One part of a run that is divided, and the hours of every part. */
static json_t *part_json(const mg_prediction *p) {
  const mg_plan_work *w = &p->part_work[p->part - 1];
  const mg_plan_hours h = mg_plan_hours_of(p, w);
  json_t *hours = json_array();
  for (int k = 0; k < p->parts; k++) json_array_append_new(hours, json_real(mg_plan_hours_of(p, &p->part_work[k]).all));
  return json_pack("{s:i, s:i, s:f, s:o, s:{s:I, s:f, s:f, s:f}, s:{s:I, s:f, s:f}, s:{s:I, s:f, s:f}, s:{s:I, s:f, s:f, s:f}, "
                   "s:{s:f, s:f, s:f}}",
                   "part", p->part, "parts", p->parts, "hours", h.all, "hours_of_parts", hours, "compatibility", "leaves",
                   (json_int_t)w->leaves, "bytes_read", w->gram_bytes, "flops", w->gram_flops, "hours", h.gram, "cka", "models",
                   (json_int_t)w->models, "flops", w->cka_flops, "hours", h.cka, "nxn", "texts", (json_int_t)w->texts, "flops",
                   w->nxn_flops, "hours", h.nxn, "grid", "merges", (json_int_t)w->merges, "bytes_moved", w->grid_bytes, "flops",
                   w->grid_flops, "hours", h.grid, "microscope", "bytes_moved", w->scope_bytes, "flops", w->scope_flops,
                   "hours", h.microscope);
}

mg_status mg_plan_print_json(const mg_config *config, const mg_prediction *p) {
  const mg_plan_work work = mg_plan_work_all(p);
  const mg_plan_hours h = mg_plan_hours_of(p, &work);
  json_t *skipped = json_array();
  for (size_t k = 0; k < p->roster.list.skipped.count; k++)
    json_array_append_new(skipped, json_string(p->roster.list.skipped.items[k]));
  json_t *root = json_pack(
      "{s:i, s:o, s:I, s:I, s:i, s:i, s:s, s:s, s:f, s:{s:I, s:f, s:f, s:f}, s:{s:s, s:f, s:f, s:f}, s:o}", "sources",
      (int)p->roster.list.count, "skipped", skipped, "tensors", (json_int_t)p->table->count, "parameters",
      (json_int_t)p->table->elements, "ranks", p->ranks, "threads", p->threads, "result", config->result, "shards_dtype",
      config->shards.dir != NULL ? mg_dtype_name(p->dtype) : "none", "hours", h.all, "pack", "shards",
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
  if (root != NULL && p->parts > 0) json_object_set_new(root, "part", part_json(p));
  return mg_print_json(root);
}
