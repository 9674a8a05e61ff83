/* The shape of the Gram's work and what it holds: one computation for `plan` and for the run that has to stay within it. */

#include <stdlib.h>
#include <string.h>

#include "stage_impl.h"

/* More sources than this are cut into pair blocks: accumulators and the rows of a run then stay in the second-level cache. */
enum { BLOCK_ROWS = 96 };
enum { UNITS_A_RANK = 16, ENOUGH_UNITS_A_RANK = 64, MOST_UNIT_LEAVES = 1024 };
/* A lease is about a fifth of a second of one core's arithmetic, and where there is work for long at most so many times that.
 */
static const double LEASE_FLOPS_PAIRS = 64.0 * 1200.0, LONGEST = 50;

static int64_t choose_unit_leaves(const mg_gram_layout *layout, int ranks, int threads) {
  int64_t leaves = 0;
  double pairs = 0;
  for (size_t g = 0; g < layout->group_count; g++) leaves += layout->groups[g].leaves;
  for (size_t b = 0; b < layout->block_count; b++) pairs += (double)mg_gram_values(layout, b);
  const double total = (double)leaves * (double)layout->block_count;
  /* As large as leaves every rank some sixteen turns, but about a fifth of a second, so that a crash loses little. Where that
     would be far more turns than anybody needs, longer: every lease is a record in the journal and a message to rank 0. */
  const double mean_pairs = pairs / (double)layout->block_count, fifth = LEASE_FLOPS_PAIRS / mean_pairs * threads;
  double most = total / (ENOUGH_UNITS_A_RANK * (double)ranks);
  if (most > LONGEST * fifth) most = LONGEST * fifth;
  if (most < fifth) most = fifth;
  if (most > total / (UNITS_A_RANK * (double)ranks)) most = total / (UNITS_A_RANK * (double)ranks);
  int64_t unit = 1;
  while (2 * unit <= (int64_t)most && unit < MOST_UNIT_LEAVES) unit *= 2;
  return unit;
}

/* Layers that have cosines of their own: none where Grams of layers are not kept. */
static size_t count_layers(const mg_gram_layout *layout, mg_gram_level kept) {
  size_t count = 0;
  const mg_tensor *tensors = layout->table->tensors;
  for (size_t t = 0; t < layout->table->count && kept != MG_GRAM_TOTAL; t++) {
    size_t before = 0;
    while (strcmp(tensors[before].layer, tensors[t].layer) != 0) before++;
    count += before == t && tensors[t].layer[0] != '\0';
  }
  return count;
}

/* Nodes of the list of all work: those at a group's end are cut short. */
static double count_nodes(const mg_gram_layout *layout, int64_t unit_leaves) {
  int64_t count = 0;
  for (size_t g = 0; g < layout->group_count; g++) count += (layout->groups[g].leaves + unit_leaves - 1) / unit_leaves;
  return (double)count * (double)layout->block_count;
}

static void predict_memory(const mg_gram_layout *layout, mg_gram_level kept, mg_dtype dtype, size_t staging, int ranks,
                           int threads, mg_gram_plan *plan) {
  unsigned level = 0;
  while ((INT64_C(1) << level) < plan->unit_leaves) level++;
  const double n = layout->sources, groups = (double)layout->group_count, tensors = (double)layout->table->count;
  const double views = (double)count_layers(layout, kept) + 4, leases = 2.0 * ranks;
  double values = 0;
  for (size_t b = 0; b < layout->block_count; b++) values += (double)mg_gram_values(layout, b);
  plan->engine_bytes = mg_gram_engine_bytes(layout, dtype, threads, level, staging);
  /* Rank 0 has every group's sum, what waits in them for leases that are out, then the N × N Grams, cosines of all layers, and
     a journal record's worth of both ends of a message. Every rank knows where each tensor of each source is, and all nodes and
     leases. */
  const double waiting = leases * values / (double)layout->block_count;
  plan->master_bytes = (uint64_t)(8 * (groups * (values + n * n + n) + waiting + views * n * n)) + (UINT64_C(8) << 20);
  plan->places_bytes = (uint64_t)(n * (tensors * 16 + 1024) + 80 * count_nodes(layout, plan->unit_leaves));
}

double mg_gram_block_cost(const mg_gram_layout *layout, size_t b, double bytes_per_element, double *bytes, double *flops) {
  const mg_pair_block *block = &layout->blocks[b];
  const double read = block->row1 - block->row0 + (block->row0 == block->col0 ? 0 : block->col1 - block->col0);
  *bytes = bytes_per_element + sizeof(float) / read; /* θ0 is read along */
  *flops = 2 * (double)mg_gram_values(layout, b) / read;
  return read;
}

mg_status mg_gram_plan_make(const mg_config *config, const mg_tensor_table *table, int sources, mg_dtype dtype,
                            double bytes_per_element, size_t staging_bytes, int ranks, int threads, const mg_device *device,
                            mg_gram_plan *plan) {
  mg_status status = MG_OK;
  *plan = (mg_gram_plan){0};
  plan->selected = mg_alloc_zero(table->count, sizeof *plan->selected);
  if (plan->selected == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_select_tensors(table, &config->compatibility.exclude, plan->selected), failed);
  const int sides = (sources + BLOCK_ROWS - 1) / BLOCK_ROWS;
  MG_TRY(mg_gram_layout_create(table, plan->selected, sources, config->compatibility.gram, (sources + sides - 1) / sides,
                               &plan->layout),
         failed);
  plan->unit_leaves = choose_unit_leaves(plan->layout, ranks, threads);
  for (size_t b = 0; b < plan->layout->block_count; b++) {
    double bytes, flops;
    const double elements = mg_gram_block_cost(plan->layout, b, bytes_per_element, &bytes, &flops) * (double)table->elements;
    plan->bytes_read += bytes * elements;
    plan->flops += flops * elements;
  }
  predict_memory(plan->layout, config->compatibility.gram, dtype, staging_bytes, ranks, threads, plan);
  if (device != NULL) plan->device_bytes = mg_gram_engine_device_bytes(plan->layout, dtype, threads, device);
  MG_TRY(mg_memory_hold(config, &(mg_plans){.gram = plan}), failed);
  return MG_OK;
failed:
  mg_gram_plan_free(plan);
  return status;
}

mg_status mg_gram_units(const mg_gram_plan *plan, const mg_gram_node *nodes, size_t node_count, mg_gram_unit **units,
                        size_t *count) {
  *count = 0;
  *units = mg_alloc(node_count, sizeof **units);
  if (*units == NULL) return MG_ERR_NOMEM;
  int64_t leaves = 0;
  for (size_t k = 0; k < node_count; k++) {
    const int64_t here = INT64_C(1) << nodes[k].level;
    const bool same_block = k > 0 && nodes[k].block == nodes[k - 1].block;
    if (*count == 0 || !same_block || leaves + here > plan->unit_leaves) {
      (*units)[(*count)++] = (mg_gram_unit){.first = k};
      leaves = 0;
    }
    (*units)[*count - 1].count++;
    leaves += here;
  }
  return MG_OK;
}

void mg_gram_plan_free(mg_gram_plan *plan) {
  mg_gram_layout_free(&plan->layout);
  free(plan->selected);
  *plan = (mg_gram_plan){0};
}
