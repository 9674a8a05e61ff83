#ifndef MG_PLAN_IMPL_H
#define MG_PLAN_IMPL_H

/* Between the files of `plan`. */

#include "mergegrid/ops.h"
#include "stage_impl.h"

typedef struct mg_pack_work {
  size_t missing; /* shards that do not exist */
  double bytes_read, bytes_written;
} mg_pack_work;

enum { MG_MOST_REASONS = 5 }; /* why cells are bound to fail, that are told */

/* What there is to do; counts of parts only. */
typedef struct mg_plan_work {
  double pack_bytes, gram_bytes, gram_flops, cka_flops, nxn_flops, grid_flops, grid_bytes, scope_flops, scope_bytes;
  int64_t leaves, models, texts, merges; /* texts: once for every source */
} mg_plan_work;

typedef struct mg_plan_hours {
  double pack, gram, cka, nxn, grid, microscope, all;
} mg_plan_hours;

typedef struct mg_prediction {
  mg_roster roster;
  mg_shard *base_shard;
  const mg_tensor_table *table;
  mg_gram_plan gram;
  mg_pack_work pack;
  int ranks, threads, processors;
  mg_dtype dtype;
  double bytes_per_element;
  bool with_gram, with_cka, with_nxn, with_grid, with_microscope; /* what is asked for */
  mg_cka_plan cka;
  mg_nxn_plan nxn;
  mg_grid_plan grid;
  mg_microscope_plan microscope;
  mg_grid cells;
  size_t failing;                /* of the cells, that are bound to fail */
  mg_strings failing_why;        /* the first few reasons */
  double merge_rate;             /* bytes/s of one core: task vectors in memory to merged weights */
  double forward_rate;           /* flop/s of one core */
  double kernel_rate, read_rate; /* flop/s and bytes/s of one core */
  const mg_ops *ops;
  mg_device *device;       /**< NULL: processors compute */
  int part, parts;         /* 0: the whole */
  mg_plan_work *part_work; /* [parts] */
} mg_prediction;

/* Fills in failing, once the cells are there. */
mg_status mg_plan_find_failing(const mg_config *config, mg_prediction *prediction);
/* Flop/s of one core on tiles of this many sources of dtype, and the base. */
mg_status mg_measure_kernel(const mg_ops *ops, int sources, mg_dtype dtype, double *rate);
/* Bytes/s of one core adding up rows in memory. */
mg_status mg_measure_merging(double *rate);
/* Flop/s (mg_encoder_flops) of one core in forward passes of such texts. */
mg_status mg_measure_forward(const mg_encoder_shape *shape, const mg_sequences *texts, mg_device *device, double *rate);
/* Bytes/s of one core from files in turn, as the page cache is now; NaN where nothing can be read. */
mg_status mg_measure_reading(const mg_strings *files, double *rate);

/* Of copies of all shards. */
double mg_staged_bytes(const mg_prediction *prediction);
mg_plans mg_prediction_plans(const mg_prediction *prediction);
mg_memory mg_prediction_memory(const mg_prediction *prediction);
mg_plan_work mg_plan_work_all(const mg_prediction *prediction);
mg_plan_hours mg_plan_hours_of(const mg_prediction *prediction, const mg_plan_work *work);
/* Fills in part_work, where there are parts: all but the packing, which is that of the part that begins first. */
mg_status mg_plan_divide(mg_prediction *prediction);
void mg_plan_print(const mg_config *config, const mg_prediction *prediction);
mg_status mg_plan_print_json(const mg_config *config, const mg_prediction *prediction);

#endif
