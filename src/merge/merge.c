/* A recipe's tensors, tile by tile. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/hash.h"
#include "mergegrid/text.h"

struct mg_merger {
  mg_rows *rows;
  const mg_recipe *recipe;
  mg_formula body, head;
  const mg_formula *formula; /* of the current tensor */
  size_t t;
  size_t stride; /* bytes of a row as read */
  char *tile;
  void *staging;
  float *base, **delta, *scales;
  double *weight, *scratch;
  uint32_t *words;
  double *gram, *base_dot; /* of the current tensor */
  double base_factor;
  float *threshold, *ceiling; /* [sources] */
  float *global_threshold;    /* [sources], of a global trim */
  float *rescale;             /* [sources] */
  mg_stream *stream;          /* [sources] */
  mg_source_reader reader;
};

static mg_status make_room(mg_merger *m) {
  const size_t n = m->recipe->count;
  m->stride = MG_TILE * sizeof(float);
  m->tile = mg_alloc_aligned(n * m->stride + MG_ROW_ALIGN);
  m->staging = mg_alloc_aligned(mg_rows_staging_bytes());
  m->base = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  m->delta = mg_alloc_zero(n, sizeof *m->delta);
  m->scales = mg_alloc(n, sizeof *m->scales);
  m->weight = mg_alloc(n, sizeof *m->weight);
  m->scratch = mg_alloc(3 * MG_TILE, sizeof *m->scratch);
  m->words = mg_alloc(MG_TILE, sizeof *m->words);
  m->threshold = mg_alloc_zero(n, sizeof *m->threshold);
  m->ceiling = mg_alloc(n, sizeof *m->ceiling);
  m->global_threshold = mg_alloc_zero(n, sizeof *m->global_threshold);
  m->rescale = mg_alloc(n, sizeof *m->rescale);
  m->stream = mg_alloc(n, sizeof *m->stream);
  m->gram = mg_alloc(n, n * sizeof *m->gram);
  m->base_dot = mg_alloc(n, sizeof *m->base_dot);
  if (!m->tile || !m->staging || !m->base || !m->delta || !m->scales || !m->weight || !m->scratch || !m->words ||
      !m->threshold || !m->ceiling || !m->global_threshold || !m->rescale || !m->stream || !m->gram || !m->base_dot)
    return MG_ERR_NOMEM;
  for (size_t s = 0; s < n; s++)
    if ((m->delta[s] = mg_alloc_aligned(MG_TILE * sizeof(float))) == NULL) return MG_ERR_NOMEM;
  return mg_source_reader_create(m->rows, &m->reader);
}

/* How many of count elements a density keeps: at least one. */
static uint64_t kept_of(double density, int64_t count) {
  const uint64_t kept = (uint64_t)(density * (double)count);
  return count > 0 && kept == 0 ? 1 : kept;
}

/* The backbone's elements together: heads are no change of anything. */
static mg_status global_thresholds(mg_merger *m) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(m->rows);
  int64_t elements = 0;
  bool *take = mg_alloc(table->count, sizeof *take);
  if (take == NULL) return MG_ERR_NOMEM;
  for (size_t t = 0; t < table->count; t++) {
    take[t] = !table->tensors[t].source_only;
    elements += take[t] ? table->tensors[t].numel : 0;
  }
  for (size_t s = 0; s < m->recipe->count && status == MG_OK; s++)
    status =
        mg_magnitude_rank(m->rows, m->recipe->source[s], take, kept_of(m->body.density, elements), &m->global_threshold[s]);
  free(take);
  return status;
}

mg_status mg_merger_create(mg_rows *rows, const mg_recipe *recipe, mg_merger **merger) {
  mg_status status = MG_OK;
  mg_merger *m = mg_alloc_zero(1, sizeof *m);
  if (m == NULL) return MG_ERR_NOMEM;
  *m = (mg_merger){.rows = rows, .recipe = recipe};
  MG_TRY(mg_formula_of(recipe, &m->body), failed);
  m->head = recipe->head == MG_HEAD_LINEAR ? mg_formula_of_head(recipe) : m->body;
  MG_TRY(make_room(m), failed);
  if (m->body.keep == MG_KEEP_LARGEST && m->body.global_trim) MG_TRY(global_thresholds(m), failed);
  *merger = m;
  return MG_OK;
failed:
  mg_merger_destroy(&m);
  return status;
}

void mg_merger_destroy(mg_merger **merger) {
  mg_merger *m = *merger;
  if (m == NULL) return;
  for (size_t s = 0; m->delta != NULL && s < m->recipe->count; s++) free(m->delta[s]);
  free(m->tile), free(m->staging), free(m->base), free(m->delta), free(m->scales), free(m->weight), free(m->scratch);
  free(m->words), free(m->threshold), free(m->ceiling), free(m->global_threshold), free(m->rescale), free(m->stream);
  free(m->gram), free(m->base_dot);
  mg_source_reader_free(&m->reader);
  free(m);
  *merger = NULL;
}

/* ---- a tensor ---- */

typedef struct norms {
  const mg_merger *m;
  size_t source;
  float *copy;
  double before, after;
} norms;

static void add_norms(void *context, const float *values, int64_t first, int64_t count) {
  norms *n = context;
  memcpy(n->copy, values, (size_t)count * sizeof *values);
  mg_keep_random(n->copy, first, count, &n->m->stream[n->source], n->m->formula->density, 1, n->m->words);
  for (int64_t k = 0; k < count; k++) n->before += fabs((double)values[k]), n->after += fabs((double)n->copy[k]);
}

static mg_status prepare_random(mg_merger *m) {
  mg_status status = MG_OK;
  const char *name = mg_rows_table(m->rows)->tensors[m->t].name;
  for (size_t s = 0; s < m->recipe->count; s++) {
    const char *id = m->recipe->id[s];
    m->stream[s] = mg_stream_of(m->recipe->seed, mg_hash(id, strlen(id)), mg_hash(name, strlen(name)));
    m->rescale[s] = m->formula->rescale == MG_RESCALE_INVERSE ? (float)(1 / m->formula->density) : 1;
    if (m->formula->rescale != MG_RESCALE_L1) continue;
    norms n = {.m = m, .source = s, .copy = m->delta[s]};
    MG_TRY(mg_source_reader_tensor(&m->reader, m->recipe->source[s], m->t, add_norms, &n), done);
    if (n.after > 0) m->rescale[s] = (float)(n.before / n.after);
  }
done:
  return status;
}

static mg_status prepare_trim(mg_merger *m) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(m->rows);
  for (size_t s = 0; s < m->recipe->count; s++) m->ceiling[s] = INFINITY;
  if (m->formula->keep == MG_KEEP_ABOVE) { /* more than epsilon: from the next float on */
    for (size_t s = 0; s < m->recipe->count; s++) m->threshold[s] = nextafterf((float)m->formula->epsilon, INFINITY);
    return MG_OK;
  }
  if (m->formula->global_trim) {
    memcpy(m->threshold, m->global_threshold, m->recipe->count * sizeof *m->threshold);
    return MG_OK;
  }
  bool *take = mg_alloc_zero(table->count, sizeof *take);
  if (take == NULL) return MG_ERR_NOMEM;
  take[m->t] = true;
  const int64_t numel = table->tensors[m->t].numel;
  const uint64_t kept = kept_of(m->formula->density, numel), all = (uint64_t)numel;
  uint64_t top = (uint64_t)(m->formula->gamma * (double)numel);
  if (top > all - kept) top = all - kept;
  for (size_t s = 0; s < m->recipe->count && status == MG_OK; s++) {
    status = mg_magnitude_rank(m->rows, m->recipe->source[s], take, kept + top, &m->threshold[s]);
    if (status == MG_OK && top > 0) status = mg_magnitude_rank(m->rows, m->recipe->source[s], take, top, &m->ceiling[s]);
  }
  free(take);
  return status;
}

/* The sources' rows of a tile into delta, the base's into base. */
static mg_status load_tile(mg_merger *m, int64_t first, int64_t count) {
  mg_status status = MG_OK;
  const size_t n = m->recipe->count;
  MG_TRY(
      mg_rows_read(m->rows, m->recipe->source, (int)n, m->t, first, count, m->tile, m->stride, m->scales, m->base, m->staging),
      done);
  for (size_t s = 0; s < n; s++)
    mg_to_f32(m->delta[s], m->tile + s * m->stride, mg_rows_dtype(m->rows), (size_t)count, m->scales[s]);
done:
  return status;
}

static double dot(const float *a, const float *b, int64_t count) {
  double sum = 0;
  for (int64_t k = 0; k < count; k++) sum += (double)a[k] * (double)b[k];
  return sum;
}

static mg_status prepare_coefficients(mg_merger *m) {
  mg_status status = MG_OK;
  const size_t n = m->recipe->count;
  const int64_t numel = mg_rows_table(m->rows)->tensors[m->t].numel;
  mg_geometry g = {.n = n, .gram = m->gram, .base_dot = m->base_dot};
  memset(m->gram, 0, n * n * sizeof *m->gram);
  memset(m->base_dot, 0, n * sizeof *m->base_dot);
  for (int64_t first = 0; first < numel; first += MG_TILE) {
    const int64_t count = numel - first < MG_TILE ? numel - first : MG_TILE;
    MG_TRY(load_tile(m, first, count), done);
    for (size_t i = 0; i < n; i++) {
      for (size_t j = 0; j <= i; j++) m->gram[i * n + j] += dot(m->delta[i], m->delta[j], count);
      m->base_dot[i] += dot(m->base, m->delta[i], count);
    }
    g.base_norm2 += dot(m->base, m->base, count);
  }
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < i; j++) m->gram[j * n + i] = m->gram[i * n + j];
  mg_coefficients out = {.tau = m->weight, .base = 1};
  MG_TRY(m->formula->coefficients(&g, m->recipe, &out), done);
  m->base_factor = out.base;
done:
  if (status == MG_ERR_INPUT) mg_fail_context(status, "tensor %s", mg_rows_table(m->rows)->tensors[m->t].name);
  return status;
}

mg_status mg_merger_tensor(mg_merger *m, size_t t) {
  const size_t n = m->recipe->count;
  m->t = t;
  m->formula = mg_rows_table(m->rows)->tensors[t].source_only ? &m->head : &m->body;
  for (size_t s = 0; s < n; s++)
    m->weight[s] = m->formula->mean ? 1 / (double)n : m->formula->weighted ? m->recipe->weight[s] : 1;
  m->base_factor = 1;
  if (m->formula->coefficients != NULL) return prepare_coefficients(m);
  if (m->formula->keep == MG_KEEP_LARGEST || m->formula->keep == MG_KEEP_ABOVE) return prepare_trim(m);
  return m->formula->keep == MG_KEEP_RANDOM ? prepare_random(m) : MG_OK;
}

/* One tile, within a leaf. */
static mg_status merge_tile(mg_merger *m, int64_t first, int64_t count, float *out) {
  mg_status status = MG_OK;
  const mg_formula *f = m->formula;
  const size_t n = m->recipe->count;
  MG_TRY(load_tile(m, first, count), done);
  for (size_t s = 0; s < n; s++) {
    if (f->keep == MG_KEEP_LARGEST || f->keep == MG_KEEP_ABOVE)
      mg_keep_between(m->delta[s], count, m->threshold[s], m->ceiling[s]);
    if (f->keep == MG_KEEP_RANDOM)
      mg_keep_random(m->delta[s], first, count, &m->stream[s], f->density, m->rescale[s], m->words);
  }
  const mg_merge_tile tile = {.sources = n,
                              .count = count,
                              .weight = m->weight,
                              .delta = m->delta,
                              .sum = m->scratch,
                              .vote = m->scratch + MG_TILE,
                              .share = m->scratch + 2 * MG_TILE};
  mg_combine_tile(f, &tile);
  for (int64_t k = 0; k < count; k++) {
    out[k] = (float)(m->base_factor * (double)m->base[k] + f->lambda * tile.sum[k]);
    if (!isfinite(out[k]))
      return mg_fail(MG_ERR_INPUT, "the merge's element %lld of tensor %s is not finite", (long long)(first + k),
                     mg_rows_table(m->rows)->tensors[m->t].name);
  }
done:
  return status;
}

mg_status mg_merger_read(mg_merger *m, int64_t first, int64_t count, float *out) {
  mg_status status = MG_OK;
  while (count > 0) {
    const int64_t leaf_end = (first / MG_LEAF + 1) * MG_LEAF;
    int64_t now = count < MG_TILE ? count : MG_TILE;
    if (first + now > leaf_end) now = leaf_end - first;
    MG_TRY(merge_tile(m, first, now, out), done);
    first += now, count -= now, out += now;
  }
done:
  return status;
}
