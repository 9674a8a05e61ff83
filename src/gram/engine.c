/* Nodes of the summation tree from the sources' bytes: find a tile of all rows, multiply, sum. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "gram_impl.h"
#include "lane.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"

/* What one thread works in. */
typedef struct workspace {
  mg_gram_engine *engine;
  mg_gram_lane *lane;   /* of a device; NULL: this thread multiplies */
  char *tile;           /* sources' rows, `stride` bytes apart */
  float *base;          /* θ0's row */
  mg_gram_room room;    /* where a tile is read to: there, or on its way to the device */
  mg_rows_sight *sight; /* of rows where the page cache has them; NULL: all are read */
  void *staging, *scratch;
  double *acc;      /* [pairs][MG_ACCUMULATORS] */
  double **partial; /* [level]: a right subtree's sum while its left sibling is kept in the caller's array */
  unsigned levels;
  mg_rows_tile found;
  int *ids;
  double read_seconds, busy_seconds, bytes_read;
  mg_status status; /* and the message of a helper thread */
  char *message;
} workspace;

struct mg_gram_engine {
  const mg_gram_layout *layout;
  mg_rows *rows;
  const mg_ops *ops;
  mg_device *device;
  int threads;
  bool see, allow_nonfinite;
  size_t stride;
  int most_sources;      /* of any block */
  size_t most_values;    /* of any block */
  workspace *workspaces; /* [threads] */
};

/* A node being computed by all threads: its subtrees, taken as threads come. */
typedef struct shared_node {
  mg_gram_engine *engine;
  const mg_gram_node *node;
  unsigned level; /* of the subtrees */
  int64_t first;  /* index of the first subtree at that level */
  int64_t subtrees;
  double *values; /* [subtrees][values of the block] */
  size_t count;
  atomic_llong next;
  atomic_bool abandon;
  mg_status (*poll)(void *context);
  void *context;
} shared_node;

/* Rows start a cache line apart from a multiple of the tile, so that equal columns do not share a cache set. */
static size_t row_stride(mg_dtype dtype) { return MG_TILE * mg_dtype_size(dtype) + MG_ROW_ALIGN; }

static void block_extent(const mg_gram_layout *layout, int *sources, size_t *values) {
  *sources = 0;
  *values = 0;
  for (size_t b = 0; b < layout->block_count; b++) {
    if (mg_gram_block_sources(&layout->blocks[b]) > *sources) *sources = mg_gram_block_sources(&layout->blocks[b]);
    if (mg_gram_values(layout, b) > *values) *values = mg_gram_values(layout, b);
  }
}

/* Subtrees a node is cut into for the threads: enough that the last ones finish together, few enough to hold. */
static unsigned subtree_level(unsigned level, int threads) {
  unsigned cut = 0;
  if (threads > 1)
    while ((1 << cut) < 4 * threads) cut++;
  return level > cut ? level - cut : 0;
}

uint64_t mg_gram_engine_bytes(const mg_gram_layout *layout, mg_dtype dtype, int threads, unsigned level, size_t staging) {
  int sources;
  size_t values;
  block_extent(layout, &sources, &values);
  const unsigned cut = subtree_level(level, threads);
  const uint64_t one = (uint64_t)sources * (row_stride(dtype) + 64) + MG_TILE * sizeof(float) + staging +
                       mg_gram_scratch_bytes(sources + 1) + values * MG_ACCUMULATORS * sizeof(double) +
                       (uint64_t)cut * values * sizeof(double);
  return (uint64_t)threads * one + (UINT64_C(1) << (level - cut)) * values * sizeof(double);
}

uint64_t mg_gram_engine_device_bytes(const mg_gram_layout *layout, mg_dtype dtype, int threads, const mg_device *device) {
  int sources;
  size_t values;
  block_extent(layout, &sources, &values);
  return (uint64_t)threads * mg_gram_lane_bytes(device, (size_t)sources, values, dtype);
}

static mg_status workspace_create(mg_gram_engine *engine, workspace *w) {
  mg_status status = MG_OK;
  const size_t rows = (size_t)engine->most_sources + 1;
  *w = (workspace){.engine = engine};
  if (engine->device != NULL)
    MG_TRY(mg_gram_lane_create(engine->device, rows - 1, engine->most_values, mg_rows_dtype(engine->rows), &w->lane), done);
  if (engine->device == NULL && engine->see) MG_TRY(mg_rows_sight_open(engine->rows, rows, &w->sight), done);
  w->tile = mg_alloc_aligned((size_t)engine->most_sources * engine->stride);
  w->base = mg_alloc_aligned(MG_TILE * sizeof(float));
  w->staging = mg_alloc_aligned(mg_rows_staging_bytes());
  w->scratch = mg_alloc_aligned(mg_gram_scratch_bytes((int)rows));
  w->acc = mg_alloc_aligned(engine->most_values * MG_ACCUMULATORS * sizeof(double));
  w->found = (mg_rows_tile){.row = mg_alloc(rows, sizeof(void *)),
                            .dtype = mg_alloc(rows, sizeof(mg_dtype)),
                            .scale = mg_alloc(rows, sizeof(float)),
                            .minus = mg_alloc(rows, sizeof(float *))};
  w->ids = mg_alloc(rows, sizeof *w->ids);
  const bool described = w->found.row && w->found.dtype && w->found.scale && w->found.minus && w->ids;
  const bool complete = w->tile && w->base && w->staging && w->scratch && w->acc && described;
  w->room = (mg_gram_room){.tile = w->tile, .stride = engine->stride, .base = w->base};
  status = complete ? MG_OK : MG_ERR_NOMEM;
done:
  return status;
}

static void workspace_destroy(workspace *w) {
  mg_gram_lane_destroy(&w->lane);
  mg_rows_sight_close(&w->sight);
  for (unsigned k = 0; k < w->levels; k++) free(w->partial[k]);
  free(w->partial);
  free(w->tile), free(w->base), free(w->staging), free(w->scratch), free(w->acc);
  free(w->found.row), free(w->found.dtype), free(w->found.scale), free(w->found.minus), free(w->ids), free(w->message);
}

mg_status mg_gram_engine_create(const mg_gram_layout *layout, mg_rows *rows, const mg_gram_terms *terms, mg_gram_engine **out) {
  mg_status status = MG_OK;
  mg_gram_engine *engine = mg_alloc_zero(1, sizeof *engine);
  if (engine == NULL) return MG_ERR_NOMEM;
  *engine = (mg_gram_engine){.layout = layout,
                             .rows = rows,
                             .ops = terms->ops,
                             .device = terms->device,
                             .threads = terms->threads > 0 ? terms->threads : 1,
                             .see = terms->see,
                             .allow_nonfinite = terms->allow_nonfinite,
                             .stride = row_stride(mg_rows_dtype(rows))};
  block_extent(layout, &engine->most_sources, &engine->most_values);
  engine->workspaces = mg_alloc_zero((size_t)engine->threads, sizeof *engine->workspaces);
  if (engine->workspaces == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (int k = 0; k < engine->threads; k++) MG_TRY(workspace_create(engine, &engine->workspaces[k]), cleanup);
  *out = engine;
  engine = NULL;
cleanup:
  mg_gram_engine_destroy(&engine);
  return status;
}

void mg_gram_engine_destroy(mg_gram_engine **engine) {
  if (*engine == NULL) return;
  if ((*engine)->workspaces != NULL)
    for (int k = 0; k < (*engine)->threads; k++) workspace_destroy(&(*engine)->workspaces[k]);
  free((*engine)->workspaces);
  free(*engine);
  *engine = NULL;
}

/* Finds one tile of a block's sources and points the rows at it; the base is the last row. */
static mg_status find_tile(workspace *w, const mg_pair_block *block, const mg_gram_leaf *piece, int64_t first, int64_t count) {
  mg_gram_engine *engine = w->engine;
  mg_status status = MG_OK;
  const int n = mg_gram_block_sources(block), rows = block->row1 - block->row0;
  for (int k = 0; k < n; k++) w->ids[k] = k < rows ? block->row0 + k : block->col0 + k - rows;
  if (w->lane != NULL) MG_TRY(mg_gram_lane_room(w->lane, (size_t)n + 1, count, mg_rows_dtype(engine->rows), &w->room), done);
  const mg_rows_room room = {w->room.tile, w->room.stride, w->room.base, w->staging, w->sight};
  const double began = mg_now();
  status = mg_rows_show(engine->rows, &room, w->ids, n, piece->tensor, first, count, &w->found);
  w->read_seconds += mg_now() - began;
  w->bytes_read += (double)n * (double)count * mg_rows_bytes_per_element(engine->rows);
done:
  return status;
}

/* Rows `first` to `first` + rows of what was found, of which `sources` are sources'. */
static mg_tile tile_from(const workspace *w, int first, int rows, int sources, int64_t count) {
  const mg_rows_tile *found = &w->found;
  return (mg_tile){.rows = rows,
                   .count = count,
                   .row = found->row + first,
                   .dtype = found->dtype + first,
                   .scale = found->scale + first,
                   .minus = found->minus + first,
                   .chained = mg_gram_is_chained(w->engine->rows) ? sources : 0};
}

static mg_status multiply_tile(workspace *w, const mg_pair_block *block, int64_t count) {
  const int n = mg_gram_block_sources(block), rows = block->row1 - block->row0;
  if (w->lane != NULL)
    return mg_gram_lane_multiply(w->lane, &w->room, (size_t)n + 1, (size_t)(mg_gram_is_triangle(block) ? n + 1 : rows),
                                 mg_gram_is_chained(w->engine->rows) ? (size_t)n : 0, count, w->found.dtype, w->found.scale);
  if (mg_gram_is_triangle(block)) {
    const mg_tile tile = tile_from(w, 0, n + 1, n, count);
    w->engine->ops->gram_triangle(&tile, w->acc, w->scratch);
    return MG_OK;
  }
  const mg_tile left = tile_from(w, 0, rows, rows, count), right = tile_from(w, rows, n - rows, n - rows, count);
  w->engine->ops->gram_rectangle(&left, &right, w->acc, w->scratch);
  return MG_OK;
}

/* A NaN or an infinity in a row makes its products non-finite, so only then the elements need a look. */
static mg_status check_finite(workspace *w, const mg_pair_block *block, const mg_gram_leaf *piece, const double *sum,
                              size_t count) {
  mg_status status = MG_OK;
  bool finite = true;
  for (size_t k = 0; k < count; k++) finite = finite && isfinite(sum[k]);
  if (finite) return MG_OK;
  const int n = mg_gram_block_sources(block), rows = block->row1 - block->row0;
  for (int k = 0; k < n; k++) {
    const int source = k < rows ? block->row0 + k : block->col0 + k - rows;
    MG_TRY(mg_rows_check_finite(w->engine->rows, source, piece->tensor, piece->first, piece->count), done);
  }
  MG_TRY(mg_rows_check_finite(w->engine->rows, MG_ROW_BASE, piece->tensor, piece->first, piece->count), done);
done:
  return status;
}

static mg_status compute_leaf(workspace *w, shared_node *shared, int64_t leaf, double *sum) {
  mg_status status = MG_OK;
  const mg_gram_layout *layout = w->engine->layout;
  const mg_pair_block *block = &layout->blocks[shared->node->block];
  const mg_gram_leaf piece = mg_gram_leaf_at(layout, &layout->groups[shared->node->group], leaf);
  memset(w->acc, 0, shared->count * MG_ACCUMULATORS * sizeof(double));
  if (w->lane != NULL) MG_TRY(mg_gram_lane_begin(w->lane, shared->count), failed);
  for (int64_t done = 0; done < piece.count; done += MG_TILE) {
    const int64_t count = piece.count - done < MG_TILE ? piece.count - done : MG_TILE;
    MG_TRY(find_tile(w, block, &piece, piece.first + done, count), failed);
    MG_TRY(multiply_tile(w, block, count), failed);
    if (atomic_load_explicit(&shared->abandon, memory_order_relaxed)) return MG_STOPPED;
    if (shared->poll != NULL && w == &w->engine->workspaces[0]) MG_TRY(shared->poll(shared->context), failed);
  }
  if (w->lane != NULL) MG_TRY(mg_gram_lane_end(w->lane, shared->count, w->acc), failed);
  if (w->sight != NULL) MG_TRY(mg_rows_sight_check(w->sight), failed);
  mg_gram_finish(w->acc, shared->count, sum);
  if (!w->engine->allow_nonfinite) MG_TRY(check_finite(w, block, &piece, sum, shared->count), failed);
failed:
  return status;
}

static mg_status grow_partials(workspace *w, unsigned levels) {
  if (levels <= w->levels) return MG_OK;
  double **partial = reallocarray(w->partial, levels, sizeof *partial);
  if (partial == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  w->partial = partial;
  while (w->levels < levels) {
    w->partial[w->levels] = mg_alloc(w->engine->most_values, sizeof(double));
    if (w->partial[w->levels] == NULL) return MG_ERR_NOMEM;
    w->levels++;
  }
  return MG_OK;
}

static mg_status compute_subtree(workspace *w, shared_node *shared, unsigned level, int64_t index, double *sum) {
  mg_status status = MG_OK;
  if (level == 0) return compute_leaf(w, shared, index, sum);
  const int64_t leaves = w->engine->layout->groups[shared->node->group].leaves;
  MG_TRY(compute_subtree(w, shared, level - 1, 2 * index, sum), done);
  if ((2 * index + 1) << (level - 1) >= leaves) return MG_OK;
  double *right = w->partial[level - 1];
  MG_TRY(compute_subtree(w, shared, level - 1, 2 * index + 1, right), done);
  for (size_t k = 0; k < shared->count; k++) sum[k] += right[k];
done:
  return status;
}

static mg_status compute_share(workspace *w, shared_node *shared) {
  mg_status status = grow_partials(w, shared->level);
  const double began = mg_now();
  while (status == MG_OK) {
    const int64_t k = atomic_fetch_add(&shared->next, 1);
    if (k >= shared->subtrees) break;
    status = compute_subtree(w, shared, shared->level, shared->first + k, shared->values + (size_t)k * shared->count);
  }
  if (status != MG_OK) atomic_store(&shared->abandon, true);
  w->busy_seconds += mg_now() - began;
  return status;
}

typedef struct thread_task {
  workspace *workspace;
  shared_node *shared;
  pthread_t thread;
  bool started;
} thread_task;

static void *thread_main(void *argument) {
  thread_task *task = argument;
  workspace *w = task->workspace;
  w->status = compute_share(w, task->shared);
  free(w->message);
  w->message = w->status == MG_OK ? NULL : strdup(mg_error_message());
  return NULL;
}

/* Runs the share of every thread; the first real failure is the caller's, with its message. */
static mg_status compute_shares(mg_gram_engine *engine, shared_node *shared) {
  const int helpers = engine->threads - 1;
  thread_task *tasks = mg_alloc_zero((size_t)helpers + 1, sizeof *tasks);
  if (tasks == NULL) return MG_ERR_NOMEM;
  for (int k = 0; k < helpers && k + 1 < shared->subtrees; k++) {
    tasks[k] = (thread_task){.workspace = &engine->workspaces[k + 1], .shared = shared};
    /* Without a thread the caller does its share as well: fewer hands, same sums. */
    tasks[k].started = pthread_create(&tasks[k].thread, NULL, thread_main, &tasks[k]) == 0;
  }
  mg_status status = compute_share(&engine->workspaces[0], shared);
  for (int k = 0; k < helpers; k++) {
    if (!tasks[k].started) continue;
    pthread_join(tasks[k].thread, NULL);
    const workspace *w = tasks[k].workspace;
    const bool first = status == MG_OK || (status == MG_STOPPED && w->status != MG_STOPPED);
    if (w->status != MG_OK && first) status = mg_fail(w->status, "%s", w->message ? w->message : "out of memory");
  }
  free(tasks);
  return status;
}

/* Sums the subtrees to the node, in the tree's shape. */
static void combine(shared_node *shared) {
  int64_t count = shared->subtrees;
  while (count > 1) {
    for (int64_t k = 0; k + 1 < count; k += 2) {
      double *left = shared->values + (size_t)k * shared->count;
      const double *right = left + shared->count;
      for (size_t v = 0; v < shared->count; v++) left[v] += right[v];
    }
    for (int64_t k = 1; 2 * k < count; k++)
      memcpy(shared->values + (size_t)k * shared->count, shared->values + (size_t)(2 * k) * shared->count,
             shared->count * sizeof(double));
    count = (count + 1) / 2;
  }
}

mg_status mg_gram_compute(mg_gram_engine *engine, const mg_gram_node *node, double *values, mg_status (*poll)(void *context),
                          void *context) {
  const int64_t leaves = engine->layout->groups[node->group].leaves;
  const unsigned level = subtree_level(node->level, engine->threads);
  int64_t last = (node->index + 1) << node->level;
  if (last > leaves) last = leaves;
  const int64_t first = node->index << (node->level - level);
  shared_node shared = {.engine = engine,
                        .node = node,
                        .level = level,
                        .first = first,
                        .subtrees = ((last - 1) >> level) + 1 - first,
                        .values = values,
                        .count = mg_gram_values(engine->layout, node->block),
                        .poll = poll,
                        .context = context};
  if (shared.subtrees > 1) {
    shared.values = mg_alloc((size_t)shared.subtrees * shared.count, sizeof(double));
    if (shared.values == NULL) return MG_ERR_NOMEM;
  }
  const mg_status status = compute_shares(engine, &shared);
  if (shared.subtrees > 1) {
    if (status == MG_OK) {
      combine(&shared);
      memcpy(values, shared.values, shared.count * sizeof(double));
    }
    free(shared.values);
  }
  return status;
}

mg_gram_times mg_gram_engine_times(const mg_gram_engine *engine) {
  mg_gram_times times = {0};
  for (int k = 0; k < engine->threads; k++) {
    times.read_seconds += engine->workspaces[k].read_seconds;
    times.busy_seconds += engine->workspaces[k].busy_seconds;
    times.bytes_read += engine->workspaces[k].bytes_read;
  }
  return times;
}
