/* What a run would read, compute, hold and take, at rates measured here and now. */

#include <sched.h>
#include <stdlib.h>

#include "plan_impl.h"

static mg_status list_shards(const mg_config *config, mg_prediction *p, mg_strings *files) {
  mg_status status = MG_OK;
  const double elements = (double)p->table->elements;
  for (size_t k = 0; k <= p->roster.list.count && status == MG_OK; k++) {
    const bool base = k == p->roster.list.count;
    char *path = base ? mg_shard_base_path(config->shards.dir) : mg_shard_path(config->shards.dir, p->roster.list.items[k].id);
    if (path == NULL) return MG_ERR_NOMEM;
    if (mg_path_exists(path)) {
      status = mg_strings_add(files, path);
    } else {
      p->pack.missing++;
      p->pack.bytes_written += elements * (double)mg_dtype_size(base ? MG_F32 : p->dtype);
    }
    free(path);
  }
  return status;
}

static double member_bytes(const mg_prediction *p, const mg_member *member) {
  double bytes = 0;
  for (size_t t = 0; t < p->table->count; t++)
    if (member->locations[t].dtype != MG_DTYPE_COUNT)
      bytes += (double)p->table->tensors[t].numel * (double)mg_dtype_size((mg_dtype)member->locations[t].dtype);
  return bytes;
}

static mg_status list_checkpoints(const mg_prediction *p, mg_strings *files) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < p->roster.family->source_count; k++)
    for (size_t f = 0; f < p->roster.family->sources[k].files.count; f++)
      MG_TRY(mg_strings_add(files, p->roster.family->sources[k].files.items[f]), done);
done:
  return status;
}

static mg_status find_table(const mg_config *config, mg_prediction *p) {
  mg_status status = MG_OK;
  char *path = NULL;
  if (p->roster.family != NULL) {
    p->table = &p->roster.family->table;
    return MG_OK;
  }
  path = mg_shard_base_path(config->shards.dir);
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_shard_open(path, &p->base_shard), cleanup);
  p->table = &p->base_shard->table;
cleanup:
  free(path);
  return status;
}

double mg_staged_bytes(const mg_prediction *p) {
  const double sources = (double)p->roster.list.count * (double)mg_dtype_size(p->dtype);
  return (double)p->table->elements * (sources + (double)mg_dtype_size(MG_F32));
}

mg_plans mg_prediction_plans(const mg_prediction *p) {
  return (mg_plans){.gram = p->with_gram ? &p->gram : NULL,
                    .cka = p->with_cka ? &p->cka : NULL,
                    .nxn = p->with_nxn ? &p->nxn : NULL,
                    .grid = p->with_grid ? &p->grid : NULL,
                    .microscope = p->with_microscope ? &p->microscope : NULL};
}

/* Of what is asked for: texts that a forward pass is measured with. */
static mg_status measure_passes(mg_prediction *p) {
  const bool scope = p->with_microscope && p->microscope.signals;
  const mg_encoder_shape *shape = p->with_nxn ? &p->nxn.shape : p->with_cka ? &p->cka.shape : &p->microscope.shape;
  const mg_tokenized *texts = p->with_nxn ? &p->nxn.texts.tokenized : p->with_cka ? &p->cka.probes : &p->microscope.probes;
  return p->with_nxn || p->with_cka || scope ? mg_measure_forward(shape, &texts->sequences, p->device, &p->forward_rate)
                                             : MG_OK;
}

static mg_status plan_nxn(const mg_config *config, mg_prediction *p) {
  mg_status status = MG_OK;
  const mg_source_list *list = &p->roster.list;
  MG_TRY(mg_nxn_plan_begin(config, p->table, &p->nxn), done);
  MG_TRY(mg_nxn_texts_read(config, list, &p->roster.labels, &p->nxn.shape, &p->nxn.texts), done);
  MG_TRY(mg_nxn_plan_end(config, list->count, p->threads, p->device, &p->nxn), done);
done:
  return status;
}

/* The cells, and what they share the memory with. */
static mg_status plan_grid(const mg_config *config, mg_prediction *p) {
  mg_status status = MG_OK;
  const mg_plans before = {.gram = p->with_gram ? &p->gram : NULL, .cka = p->with_cka ? &p->cka : NULL, .nxn = &p->nxn};
  const mg_memory others = mg_memory_predict(&before);
  MG_TRY(mg_grid_expand(config, &p->nxn.texts.targets, &p->cells), done);
  MG_TRY(
      mg_grid_plan_make(config, p->table, p->roster.list.count, p->threads, p->device, &p->nxn, &others, &p->cells, &p->grid),
      done);
  MG_TRY(mg_plan_find_failing(config, p), done);
done:
  return status;
}

static mg_status plan_stages(const mg_config *config, mg_prediction *p) {
  mg_status status = MG_OK;
  const mg_source_list *list = &p->roster.list;
  p->with_gram = mg_stage_wanted(config, "compatibility");
  p->with_cka = mg_cka_wanted(config);
  p->with_nxn = mg_stage_wanted(config, "nxn");
  p->with_grid = mg_stage_wanted(config, "grid");
  p->with_microscope = mg_stage_wanted(config, "microscope");
  if (p->with_gram) {
    MG_TRY(mg_measure_kernel(p->ops, (int)list->count, p->dtype, &p->kernel_rate), done);
    MG_TRY(mg_gram_plan_make(config, p->table, (int)list->count, p->dtype, p->bytes_per_element, mg_rows_staging_bytes(),
                             p->ranks, p->threads, p->device, &p->gram),
           done);
  }
  if (p->with_cka) MG_TRY(mg_cka_plan_make(config, list, p->threads, p->device, true, &p->cka), done);
  if (p->with_nxn) MG_TRY(plan_nxn(config, p), done);
  if (p->with_grid) MG_TRY(plan_grid(config, p), done);
  if (p->with_microscope)
    MG_TRY(mg_microscope_plan_make(config, list, p->table, p->threads, p->device, true, p->cells.count, &p->microscope), done);
  MG_TRY(measure_passes(p), done);
  if (p->with_grid || p->with_microscope) MG_TRY(mg_measure_merging(&p->merge_rate), done);
  const mg_plans plans = mg_prediction_plans(p);
  MG_TRY(mg_memory_hold(config, &plans), done);
  MG_TRY(mg_plan_divide(p), done);
done:
  return status;
}

static mg_status predict(const mg_config *config, mg_prediction *p) {
  mg_status status = MG_OK;
  mg_strings files = {0};
  cpu_set_t mine;
  CPU_ZERO(&mine);
  p->processors = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 1;
  p->threads = config->compute.threads > 0 ? config->compute.threads : p->processors / p->ranks;
  if (p->threads < 1) p->threads = 1;
  MG_TRY(mg_ops_get(config->compute.backend, &p->ops), cleanup);
  MG_TRY(mg_device_of_config(config, 0, p->ranks, &p->device), cleanup);
  MG_TRY(mg_roster_open(config, false, &p->roster), cleanup);
  MG_TRY(mg_inputs_check(config), cleanup);
  MG_TRY(find_table(config, p), cleanup);
  p->dtype = config->shards.dir != NULL ? config->shards.dtype : MG_F32;
  p->bytes_per_element = (double)mg_dtype_size(p->dtype);
  if (config->shards.dir == NULL)
    p->bytes_per_element =
        member_bytes(p, &p->roster.family->sources[0]) / (double)(p->table->elements ? p->table->elements : 1);
  if (config->shards.dir != NULL) MG_TRY(list_shards(config, p, &files), cleanup);
  if (p->pack.missing > 0 && p->roster.family != NULL)
    p->pack.bytes_read =
        (double)p->pack.missing * (member_bytes(p, &p->roster.family->sources[0]) + member_bytes(p, &p->roster.family->base));
  if (files.count == 0) MG_TRY(list_checkpoints(p, &files), cleanup);
  MG_TRY(mg_measure_reading(&files, &p->read_rate), cleanup);
  MG_TRY(plan_stages(config, p), cleanup);
cleanup:
  mg_strings_free(&files);
  return status;
}

mg_status mg_stage_plan(const mg_config *config, const mg_plan_options *options) {
  mg_prediction p = {.ranks = options->ranks, .part = options->part, .parts = options->parts};
  mg_status status = predict(config, &p);
  if (status == MG_OK && options->json) status = mg_plan_print_json(config, &p);
  if (status == MG_OK && !options->json) mg_plan_print(config, &p);
  free(p.part_work);
  mg_cka_plan_free(&p.cka);
  mg_nxn_plan_free(&p.nxn);
  mg_microscope_plan_free(&p.microscope);
  mg_grid_free(&p.cells);
  mg_strings_free(&p.failing_why);
  mg_gram_plan_free(&p.gram);
  mg_shard_close(&p.base_shard);
  mg_roster_close(&p.roster);
  mg_device_close(&p.device);
  return status;
}
