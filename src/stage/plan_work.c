/* How much of what there is to do, in all or in a part of it, and how long that takes at the rates measured. */

#include <stdlib.h>

#include "plan_impl.h"

mg_memory mg_prediction_memory(const mg_prediction *p) {
  const mg_plans plans = mg_prediction_plans(p);
  return mg_memory_predict(&plans);
}

/* ---- hours ---- */

mg_plan_hours mg_plan_hours_of(const mg_prediction *p, const mg_plan_work *w) {
  const double cores = p->ranks * p->threads < p->processors ? p->ranks * p->threads : p->processors;
  const double engines = p->device != NULL ? p->ranks : cores;
  const double passes = p->forward_rate * engines * 3600, merging = p->merge_rate * cores * 3600; /* flop, bytes an hour */
  const double reading = p->read_rate * cores * 3600;
  mg_plan_hours h = {.pack = w->pack_bytes > 0 ? w->pack_bytes / reading : 0};
  if (p->with_gram) h.gram = w->gram_flops / (p->kernel_rate * cores * 3600) + w->gram_bytes / reading;
  if (p->with_cka) h.cka = w->cka_flops / passes;
  if (p->with_nxn) h.nxn = w->nxn_flops / passes;
  if (p->with_grid) h.grid = w->grid_flops / passes + w->grid_bytes / merging;
  if (p->with_microscope) h.microscope = (w->scope_flops > 0 ? w->scope_flops / passes : 0) + w->scope_bytes / merging;
  h.all = h.pack + h.gram + h.cka + h.nxn + h.grid + h.microscope;
  return h;
}

mg_plan_work mg_plan_work_all(const mg_prediction *p) {
  mg_plan_work w = {.pack_bytes = p->pack.bytes_read + p->pack.bytes_written};
  if (p->with_gram) w.gram_bytes = p->gram.bytes_read, w.gram_flops = p->gram.flops;
  if (p->with_cka) w.cka_flops = p->cka.flops;
  if (p->with_nxn) w.nxn_flops = p->nxn.flops;
  if (p->with_grid) w.grid_flops = p->grid.flops, w.grid_bytes = p->grid.merge_bytes;
  if (p->with_microscope) w.scope_flops = p->microscope.flops, w.scope_bytes = p->microscope.merge_bytes;
  return w;
}

/* ---- parts: each position to whose share it is, as the stages divide themselves ---- */

static mg_plan_work *owner(mg_prediction *p, int64_t position, int64_t total) {
  const mg_parts parts = {.count = p->parts};
  return &p->part_work[mg_share_of(&parts, position, total) - 1];
}

/* Leaves in order of block, group, index; of all blocks the same ones. */
static void divide_gram(mg_prediction *p) {
  const mg_gram_layout *layout = p->gram.layout;
  const int64_t all = mg_gram_leaves(layout);
  int64_t position = 0;
  for (uint32_t b = 0; b < layout->block_count; b++) {
    double bytes, flops;
    mg_gram_block_cost(layout, b, p->bytes_per_element, &bytes, &flops);
    for (uint32_t g = 0; g < layout->group_count; g++)
      for (int64_t index = 0; index < layout->groups[g].leaves; index++) {
        const mg_gram_node leaf = {.block = b, .group = g, .index = index};
        const double elements = (double)mg_gram_node_elements(layout, &leaf);
        mg_plan_work *w = owner(p, position++, all);
        w->leaves++;
        w->gram_bytes += bytes * elements;
        w->gram_flops += flops * elements;
      }
  }
}

static void divide_cka(mg_prediction *p) {
  const size_t sources = p->roster.list.count;
  for (size_t k = 0; k < sources; k++) {
    mg_plan_work *w = owner(p, (int64_t)k, (int64_t)sources);
    w->models++;
    w->cka_flops += p->cka.flops / (double)sources;
  }
}

static mg_status divide_nxn(mg_prediction *p) {
  const mg_nxn_plan *plan = &p->nxn;
  const size_t batches = plan->batch_count, all = p->roster.list.count * batches;
  double *flops = mg_alloc(batches, sizeof *flops); /* once, not once a source */
  if (flops == NULL) return MG_ERR_NOMEM;
  for (size_t b = 0; b < batches; b++) flops[b] = mg_nxn_batch_flops(plan, plan->batch[b], plan->batch[b + 1]);
  for (size_t k = 0; k < all; k++) {
    const size_t b = k % batches;
    mg_plan_work *w = owner(p, (int64_t)k, (int64_t)all);
    w->texts += (int64_t)(plan->batch[b + 1] - plan->batch[b]);
    w->nxn_flops += flops[b];
  }
  free(flops);
  return MG_OK;
}

static mg_status divide_grid(mg_prediction *p) {
  mg_grid_merge *merges = NULL;
  size_t count = 0;
  const mg_status status = mg_grid_plan_merges(&p->nxn, &p->cells, &p->grid, &merges, &count);
  for (size_t k = 0; k < count; k++) {
    mg_plan_work *w = owner(p, (int64_t)k, (int64_t)count);
    w->merges++;
    w->grid_flops += merges[k].flops;
    w->grid_bytes += merges[k].bytes;
  }
  free(merges);
  return status;
}

/* Its units go round the parts, and are known when its setups are. */
static void divide_microscope(mg_prediction *p) {
  for (int k = 0; k < p->parts; k++) {
    p->part_work[k].scope_flops = p->microscope.flops / p->parts;
    p->part_work[k].scope_bytes = p->microscope.merge_bytes / p->parts;
  }
}

mg_status mg_plan_divide(mg_prediction *p) {
  mg_status status = MG_OK;
  if (p->parts == 0) return MG_OK;
  p->part_work = mg_alloc_zero((size_t)p->parts, sizeof *p->part_work);
  if (p->part_work == NULL) return MG_ERR_NOMEM;
  if (p->with_gram) divide_gram(p);
  if (p->with_cka) divide_cka(p);
  if (p->with_nxn) MG_TRY(divide_nxn(p), done);
  if (p->with_grid) MG_TRY(divide_grid(p), done);
  if (p->with_microscope) divide_microscope(p);
done:
  return status;
}
