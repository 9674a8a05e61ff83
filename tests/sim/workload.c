#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/io.h"

enum { LAYERS = 12, HIDDEN = 768, INNER = 3072, VOCABULARY = 250002, POSITIONS = 514, CLASSES = 60 };
enum { TEXTS = 2974 + 2033, TOKENS = 60000, TOKENS_OF_TARGET = 9000, MB = 1 << 20 };

#define COMMON                                                                                                                 \
  .latency = 5e-6, .bandwidth = 5e9, .decide = 0.1e-6, .message = 3e-6, .message_byte = 0.3e-9, .record = 6e-6,                \
  .record_byte = 2e-9, .sync = 20e-3, .sync_byte = 0.7e-9, .sync_every = 3, .sum_byte = 0.5e-9, .launch = 1,                   \
  .launch_rank = 4e-3, .opens = 20e3, .idle_wait = 200e-6, .poll = 1e-3, .spread = 0.02, .noise = 0.03, .read_all = 40e9

const sim_machine sim_core = {.flops = 60e9, .merge_rate = 5e9, .read_one = 0.3e9, .cached = 1e9, .node = 64, COMMON};
const sim_machine sim_gpu = {.flops = 30e12, .merge_rate = 500e9, .read_one = 2e9, .cached = 5e9, .node = 4, COMMON};

/* ---- the family ---- */

static mg_status add_tensor(mg_tensor_table *t, const char *name, int64_t rows, int64_t columns) {
  mg_tensor *tensors = reallocarray(t->tensors, t->count + 1, sizeof *tensors);
  if (tensors == NULL) return MG_ERR_NOMEM;
  t->tensors = tensors;
  mg_tensor *new = &tensors[t->count++];
  *new = (mg_tensor){.name = strdup(name),
                     .layer = strndup(name, mg_layer_prefix(name)),
                     .ndim = columns > 0 ? 2 : 1,
                     .shape = {rows, columns},
                     .numel = rows * (columns > 0 ? columns : 1),
                     .offset = t->elements};
  t->elements += new->numel;
  return new->name != NULL &&new->layer != NULL ? MG_OK : MG_ERR_NOMEM;
}

static mg_status add_linear(mg_tensor_table *t, const char *name, int64_t rows, int64_t columns) {
  mg_status status = MG_OK;
  char full[128];
  snprintf(full, sizeof full, "%s.bias", name);
  MG_TRY(add_tensor(t, full, rows, 0), done);
  snprintf(full, sizeof full, "%s.weight", name);
  MG_TRY(add_tensor(t, full, rows, columns), done);
done:
  return status;
}

static mg_status make_table(mg_tensor_table *t) {
  static const struct {
    const char *name;
    int rows, columns;
  } parts[] = {{"attention.output.LayerNorm", HIDDEN, 0}, {"attention.output.dense", HIDDEN, HIDDEN},
               {"attention.self.key", HIDDEN, HIDDEN},    {"attention.self.query", HIDDEN, HIDDEN},
               {"attention.self.value", HIDDEN, HIDDEN},  {"intermediate.dense", INNER, HIDDEN},
               {"output.LayerNorm", HIDDEN, 0},           {"output.dense", HIDDEN, INNER}};
  mg_status status = MG_OK;
  MG_TRY(add_linear(t, "classifier.dense", HIDDEN, HIDDEN), done);
  MG_TRY(add_linear(t, "classifier.out_proj", CLASSES, HIDDEN), done);
  MG_TRY(add_linear(t, "roberta.embeddings.LayerNorm", HIDDEN, 0), done);
  MG_TRY(add_tensor(t, "roberta.embeddings.position_embeddings.weight", POSITIONS, HIDDEN), done);
  MG_TRY(add_tensor(t, "roberta.embeddings.token_type_embeddings.weight", 1, HIDDEN), done);
  MG_TRY(add_tensor(t, "roberta.embeddings.word_embeddings.weight", VOCABULARY, HIDDEN), done);
  for (int layer = 0; layer < LAYERS; layer++)
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
      char name[96];
      snprintf(name, sizeof name, "roberta.encoder.layer.%d.%s", layer, parts[k].name);
      MG_TRY(add_linear(t, name, parts[k].rows, parts[k].columns), done);
    }
done:
  return status;
}

/* Tokens of a text: languages differ by two to one, texts about their language's mean by three to one. */
static int64_t text_length(size_t target, size_t text) {
  const double language = 14 * (1 + 0.33 * sim_draw(target, 101));
  const double length = language * (1 + 0.5 * sim_draw(target * TEXTS + text, 102));
  return length < 3 ? 3 : (int64_t)length;
}

/* Sequences stand shorter ones first in the table, as the program has them. */
static mg_status make_sequences(mg_nxn_texts *t, size_t targets) {
  enum { LONGEST = 64 };
  mg_tokenized *all = &t->tokenized;
  size_t first[LONGEST + 1] = {0};
  int64_t tokens = 0;
  all->count = targets * TEXTS;
  all->sequences.count = all->count;
  all->token_count = TOKENS;
  all->sequence_of = malloc(all->count * sizeof *all->sequence_of);
  all->offset = malloc((all->count + 1) * sizeof *all->offset);
  if (all->sequence_of == NULL || all->offset == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < targets; m++)
    for (size_t k = 0; k < TEXTS; k++) first[text_length(m, k) + 1]++;
  for (size_t length = 0, count = 0; length < LONGEST; length++)
    for (size_t k = 0; k < first[length + 1]; k++, tokens += (int64_t)length) all->offset[count++] = tokens;
  all->offset[all->count] = tokens;
  for (size_t length = 0; length < LONGEST; length++) first[length + 1] += first[length];
  for (size_t m = 0; m < targets; m++)
    for (size_t k = 0; k < TEXTS; k++) all->sequence_of[m * TEXTS + k] = (int32_t)first[text_length(m, k)]++;
  all->ids = malloc((size_t)tokens * sizeof *all->ids);
  if (all->ids == NULL) return MG_ERR_NOMEM;
  for (int64_t k = 0; k < tokens; k++) all->ids[k] = (int32_t)(k * 7919 % TOKENS_OF_TARGET);
  all->sequences.ids = all->ids;
  all->sequences.offset = all->offset;
  return MG_OK;
}

static mg_status make_texts(const mg_strings *locales, mg_nxn_texts *t) {
  mg_status status = MG_OK;
  t->parts = 2;
  t->items = calloc(locales->count, sizeof *t->items);
  if (t->items == NULL) return MG_ERR_NOMEM;
  for (size_t m = 0; m < locales->count; m++) {
    MG_TRY(mg_strings_add(&t->targets, locales->items[m]), done);
    mg_target *target = &t->items[m];
    target->text = malloc(TEXTS * sizeof *target->text);
    if (target->text == NULL) return MG_ERR_NOMEM;
    target->count = TEXTS;
    for (size_t k = 0; k < TEXTS; k++) target->text[k] = m * TEXTS + k;
  }
  MG_TRY(make_sequences(t, locales->count), done);
done:
  return status;
}

mg_status sim_family_make(const char *config, mg_gram_level level, int threads, bool on_device, sim_family *f) {
  mg_status status = MG_OK;
  char *text = NULL;
  size_t size = 0;
  *f = (sim_family){.threads = threads};
  MG_TRY(mg_read_file(config, MB, &text, &size), cleanup);
  MG_TRY(mg_config_parse(config, text, size, NULL, &f->config), cleanup);
  f->config->compatibility.gram = level;
  f->budget = f->config->compute.memory_budget;
  f->config->compute.memory_budget = UINT64_C(1) << 50; /* nothing is refused here: what it would take is what is asked */
  MG_TRY(make_table(&f->table), cleanup);
  f->nxn.shape = (mg_encoder_shape){.hidden = HIDDEN,
                                    .layers = LAYERS,
                                    .heads = 12,
                                    .intermediate = INNER,
                                    .positions = POSITIONS,
                                    .vocabulary = VOCABULARY,
                                    .pad = 1,
                                    .classes = CLASSES,
                                    .epsilon = 1e-5f};
  MG_TRY(make_texts(&f->config->family.locales, &f->nxn.texts), cleanup);
  MG_TRY(mg_nxn_batches(&f->nxn, NULL), cleanup);
  mg_nxn_choose_leases(&f->nxn, threads, on_device);
  MG_TRY(mg_grid_expand(f->config, &f->nxn.texts.targets, &f->grid), cleanup);
cleanup:
  free(text);
  if (status != MG_OK) sim_family_free(f);
  return status;
}

void sim_family_free(sim_family *f) {
  mg_grid_free(&f->grid);
  mg_nxn_plan_free(&f->nxn);
  mg_tensor_table_free(&f->table);
  mg_config_free(&f->config);
}

/* ---- compatibility ---- */

typedef struct gram_books {
  mg_gram_layout *small; /* as many blocks and groups, but one source a side: its sum stands for one that is too large */
  mg_gram_sum *sum;
  const mg_gram_node *nodes;
  const mg_gram_unit *units;
  double *values;
  mg_status status;
} gram_books;

static void take_nodes(void *context, int64_t unit) {
  gram_books *b = context;
  for (uint64_t k = b->units[unit].first; k < b->units[unit].first + b->units[unit].count && b->status == MG_OK; k++)
    b->status = mg_gram_sum_add(b->sum, &b->nodes[k], b->values);
}

static mg_status open_books(const sim_family *f, const mg_gram_plan *plan, int sources, bool real, gram_books *b) {
  mg_status status = MG_OK;
  const mg_gram_layout *layout = plan->layout;
  int sides = 1;
  while ((size_t)sides * (size_t)(sides + 1) / 2 < layout->block_count) sides++;
  MG_TRY(mg_gram_layout_create(&f->table, plan->selected, sides, f->config->compatibility.gram, 1, &b->small), done);
  b->values = mg_alloc_zero((size_t)sources + 2, (size_t)(sources + 1) * sizeof(double));
  if (b->values == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_gram_sum_create(real ? layout : b->small, &b->sum), done);
done:
  return status;
}

static mg_status make_gram_units(const sim_machine *m, const mg_gram_plan *plan, const gram_books *b, size_t nodes,
                                 double bytes_per_element, size_t count, sim_unit **out) {
  sim_unit *units = mg_alloc_zero(count, sizeof *units);
  const size_t in_block = nodes / plan->layout->block_count; /* every block has the same list */
  double *elements = mg_alloc(in_block, sizeof *elements);
  *out = units;
  if (units == NULL || elements == NULL) {
    free(elements);
    return MG_ERR_NOMEM;
  }
  const mg_pair_block *first = &plan->layout->blocks[0];
  for (size_t k = 0; k < in_block; k++)
    elements[k] = (double)mg_gram_node_elements(plan->layout, &b->nodes[k]) / (first->row1 - first->row0);
  for (size_t u = 0; u < count; u++)
    for (uint64_t k = b->units[u].first; k < b->units[u].first + b->units[u].count; k++) {
      const mg_pair_block *block = &plan->layout->blocks[b->nodes[k].block];
      const size_t values = mg_gram_values(plan->layout, b->nodes[k].block);
      const int rows = block->row1 - block->row0 + (block->row0 == block->col0 ? 0 : block->col1 - block->col0);
      units[u].context = -1;
      units[u].records = 1;
      units[u].sum_bytes += (uint32_t)(values * sizeof(double));
      units[u].payload_bytes += (uint32_t)(sizeof(mg_gram_node) + values * sizeof(double));
      units[u].read_bytes += elements[k % in_block] * (rows * bytes_per_element + (double)sizeof(float));
      units[u].seconds += 2 * (double)values * elements[k % in_block] / m->flops;
    }
  free(elements);
  return MG_OK;
}

static double start_seconds(const sim_machine *m, int sources, int ranks) {
  const int nodes = (ranks + m->node - 1) / m->node;
  return m->launch + m->launch_rank * ranks + (1.0 + nodes) * (sources + 1) / m->opens; /* rank 0, and once a node */
}

static void gram_figures(const sim_machine *m, const mg_gram_plan *plan, const gram_books *b, size_t nodes, int ranks,
                         bool real, sim_stage *s) {
  const mg_gram_held held = mg_gram_sum_held(b->sum);
  const double workers = ranks > MG_MASTER_COMPUTES_UP_TO ? ranks - 1 : ranks, all = workers * m->read_one;
  s->read_seconds = s->run.read_bytes / (all < m->read_all ? all : m->read_all);
  s->planned_bytes = plan->master_bytes;
  s->list_bytes = nodes * (sizeof(mg_gram_node) + sizeof(mg_gram_unit));
  double values = 0;
  for (size_t k = 0; k < plan->layout->block_count; k++) values += (double)mg_gram_values(plan->layout, k);
  s->held_bytes = held.most_bytes;
  if (!real) s->held_bytes = (uint64_t)((double)held.most_parts * values / (double)plan->layout->block_count * sizeof(double));
  s->held_bytes += plan->layout->block_count * plan->layout->group_count * sizeof(void *);
}

/* Nothing is left to be summed. */
static mg_status check_complete(const mg_gram_sum *sum) {
  mg_gram_node *nodes = NULL;
  size_t left = 0;
  const mg_status status = mg_gram_sum_missing(sum, 1, &nodes, &left);
  free(nodes);
  return status == MG_OK && left > 0 ? mg_fail(MG_ERR_INTERNAL, "%zu nodes were left out", left) : status;
}

mg_status sim_compatibility(const sim_family *f, const sim_machine *m, int sources, int ranks, bool real, sim_stage *s) {
  mg_status status = MG_OK;
  mg_gram_plan plan = {0};
  gram_books books = {0};
  mg_gram_node *nodes = NULL;
  mg_gram_unit *units = NULL;
  sim_unit *unit = NULL;
  size_t node_count = 0, unit_count = 0;
  const double bytes = (double)mg_dtype_size(f->config->shards.dtype);
  *s = (sim_stage){.start_seconds = start_seconds(m, sources, ranks)};
  MG_TRY(
      mg_gram_plan_make(f->config, &f->table, sources, f->config->shards.dtype, bytes, 8 * MB, ranks, f->threads, NULL, &plan),
      cleanup);
  MG_TRY(open_books(f, &plan, sources, real, &books), cleanup);
  MG_TRY(mg_gram_sum_missing(books.sum, plan.unit_leaves, &nodes, &node_count), cleanup);
  MG_TRY(mg_gram_units(&plan, nodes, node_count, &units, &unit_count), cleanup);
  books.nodes = nodes;
  books.units = units;
  MG_TRY(make_gram_units(m, &plan, &books, node_count, bytes, unit_count, &unit), cleanup);
  const sim_job job = {.units = (int64_t)unit_count, .unit = unit, .take = take_nodes, .context = &books};
  s->units = job.units;
  if (!sim_run(m, &job, ranks, &s->run)) status = mg_fail(MG_ERR_INTERNAL, "the simulated farm did not come to its end");
  if (status == MG_OK) status = books.status;
  if (status == MG_OK) status = check_complete(books.sum);
  gram_figures(m, &plan, &books, node_count, ranks, real, s);
cleanup:
  mg_gram_sum_destroy(&books.sum);
  mg_gram_layout_free(&books.small);
  mg_gram_plan_free(&plan);
  free(books.values), free(nodes), free(units), free(unit);
  return status;
}

/* ---- nxn ---- */

mg_status sim_nxn(const sim_family *f, const sim_machine *m, int sources, int ranks, sim_stage *s) {
  mg_status status = MG_OK;
  const mg_nxn_plan *plan = &f->nxn;
  mg_nxn_part *parts = NULL;
  sim_unit *unit = NULL;
  size_t count = 0;
  const double floats = (double)mg_encoder_block_floats(&plan->shape, plan->texts.tokenized.token_count);
  mg_nxn_plan predicted = *plan;
  mg_nxn_predict_memory(f->config, (size_t)sources, f->threads, &predicted);
  *s = (sim_stage){.start_seconds = start_seconds(m, sources, ranks), .planned_bytes = predicted.master_bytes};
  bool *done = mg_alloc_zero((size_t)sources, plan->batch_count);
  double *flops = mg_alloc(plan->batch_count, sizeof *flops);
  if (done == NULL || flops == NULL) status = MG_ERR_NOMEM;
  if (status == MG_OK) status = mg_nxn_parts(plan, (size_t)sources, ranks, done, &parts, &count);
  if (status == MG_OK && (unit = mg_alloc_zero(count, sizeof *unit)) == NULL) status = MG_ERR_NOMEM;
  if (status != MG_OK) goto cleanup;
  for (size_t b = 0; b < plan->batch_count; b++) flops[b] = mg_nxn_batch_flops(plan, plan->batch[b], plan->batch[b + 1]);
  for (size_t k = 0; k < count; k++) {
    const size_t texts = plan->batch[parts[k].first + parts[k].count] - plan->batch[parts[k].first];
    unit[k] = (sim_unit){.context = (int32_t)parts[k].source, .records = 1};
    unit[k].payload_bytes = (uint32_t)(sizeof *parts + texts * (sizeof(int32_t) + CLASSES * sizeof(float)));
    for (uint32_t b = 0; b < parts[k].count; b++) unit[k].seconds += flops[parts[k].first + b] / m->flops;
  }
  const sim_job job = {.units = (int64_t)count,
                       .unit = unit,
                       .contexts = sources,
                       .switch_bytes = floats * (double)(mg_dtype_size(f->config->shards.dtype) + sizeof(float))};
  s->units = job.units;
  s->list_bytes = count * sizeof *parts;
  s->held_bytes = (uint64_t)sources * plan->batch_count * (1 + sizeof(int32_t)) + 2 * count * 32;
  if (!sim_run(m, &job, ranks, &s->run)) status = mg_fail(MG_ERR_INTERNAL, "the simulated farm did not come to its end");
cleanup:
  free(done), free(flops), free(parts), free(unit);
  return status;
}

/* ---- grid ---- */

typedef struct grid_work {
  mg_grid_item *items;
  size_t item_count;
  double *flops; /* [targets] */
  mg_grid_group *groups;
  size_t group_count;
} grid_work;

/* Merges as recipes have them once sources are chosen, target by target. */
static mg_status list_items(const sim_family *f, grid_work *w) {
  mg_status status = MG_OK;
  size_t *turn = NULL;
  const mg_strings *targets = &f->nxn.texts.targets;
  w->items = mg_alloc_zero(f->grid.count, sizeof *w->items);
  w->flops = mg_alloc_zero(targets->count, sizeof *w->flops);
  if (w->items == NULL || w->flops == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_grid_turns(&f->nxn, &turn), done);
  for (size_t at = 0; at < targets->count; at++) {
    size_t m = 0;
    while (turn[m] != at) m++;
    for (size_t k = 0; k < TEXTS; k++) w->flops[m] += mg_encoder_flops(&f->nxn.shape, (int)text_length(m, k), false);
    for (size_t k = 0; k < f->grid.count; k++) {
      const mg_terms *terms = &f->grid.cells[k].terms;
      if (terms->method->kind == MG_METHOD_MERGE && strcmp(terms->locale, targets->items[m]) == 0)
        w->items[w->item_count++] = (mg_grid_item){.target = (uint32_t)m, .count = (uint32_t)terms->num_languages};
    }
  }
done:
  free(turn);
  return status;
}

static mg_status make_grid_units(const sim_machine *m, const grid_work *w, const mg_grid_plan *plan, sim_unit **out) {
  sim_unit *unit = mg_alloc_zero(w->group_count, sizeof *unit);
  *out = unit;
  if (unit == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < w->group_count; k++) {
    unit[k] = (sim_unit){.context = -1, .records = w->groups[k].count};
    unit[k].payload_bytes = (uint32_t)(w->groups[k].count * (sizeof(mg_grid_answer) + TEXTS * sizeof(int32_t)));
    for (uint32_t i = w->groups[k].first; i < w->groups[k].first + w->groups[k].count; i++)
      unit[k].seconds +=
          w->flops[w->items[i].target] / m->flops + (double)(w->items[i].count + 2) * (double)plan->model_bytes / m->merge_rate;
  }
  return MG_OK;
}

/* Seconds in which every node brings into its memory what its budget has room for. */
static double fill_seconds(const sim_family *f, const sim_machine *m, const mg_grid_plan *plan, int ranks) {
  const double nodes = (ranks + m->node - 1) / m->node;
  const double bytes = (double)plan->store_bytes / sizeof(float) * (double)mg_dtype_size(f->config->shards.dtype);
  const double all = ranks * m->read_one;
  return nodes * bytes / (all < m->read_all ? all : m->read_all);
}

mg_status sim_grid(const sim_family *f, const sim_machine *m, int sources, int ranks, sim_stage *s) {
  mg_status status = MG_OK;
  mg_grid_plan plan;
  grid_work w = {0};
  sim_unit *unit = NULL;
  mg_config nightly = *f->config;
  const mg_memory others = {0};
  *s = (sim_stage){.start_seconds = start_seconds(m, sources, ranks)};
  nightly.compute.memory_budget = f->budget; /* decides over the merges in a pass */
  MG_TRY(mg_grid_plan_make(&nightly, &f->table, (size_t)sources, f->threads, NULL, &f->nxn, &others, &f->grid, &plan), cleanup);
  MG_TRY(list_items(f, &w), cleanup);
  MG_TRY(mg_grid_cut(w.items, w.item_count, ranks, plan.models, &w.groups, &w.group_count), cleanup);
  MG_TRY(make_grid_units(m, &w, &plan, &unit), cleanup);
  const sim_job job = {.units = (int64_t)w.group_count, .unit = unit};
  s->units = job.units;
  s->read_seconds = fill_seconds(f, m, &plan, ranks);
  s->planned_bytes = plan.master_bytes;
  s->list_bytes = w.item_count * sizeof *w.items + w.group_count * sizeof *w.groups;
  if (!sim_run(m, &job, ranks, &s->run)) status = mg_fail(MG_ERR_INTERNAL, "the simulated farm did not come to its end");
cleanup:
  free(w.items), free(w.flops), free(w.groups), free(unit);
  return status;
}
