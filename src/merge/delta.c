/* Task vectors as floats, in any range of a tensor, heads in the family's order of classes. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"
#include "mergegrid/hash.h"

mg_status mg_delta_reader_create(const mg_deltas *deltas, size_t most, mg_delta_reader *r) {
  *r = (mg_delta_reader){.deltas = deltas, .most = most};
  r->raw = mg_alloc_aligned(most * MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  r->base = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  r->row = mg_alloc_aligned(MG_TILE * sizeof(float) + MG_ROW_ALIGN);
  r->staging = mg_alloc_aligned(mg_rows_staging_bytes());
  r->scale = mg_alloc(most, sizeof *r->scale);
  r->wanted = mg_alloc(most, sizeof *r->wanted);
  if (r->raw && r->base && r->row && r->staging && r->scale && r->wanted) return MG_OK;
  return mg_fail(MG_ERR_NOMEM, "out of memory");
}

void mg_delta_reader_free(mg_delta_reader *r) {
  free(r->raw), free(r->base), free(r->row), free(r->staging), free(r->scale), free(r->wanted);
  *r = (mg_delta_reader){0};
}

/* A hidden layer of a head may happen to be as wide as there are classes. */
static bool is_hidden(const char *name) { return strstr(name, ".dense.") != NULL || strstr(name, "pre_classifier.") != NULL; }

bool mg_has_row_a_class(const mg_tensor *tensor, size_t classes) {
  return tensor->source_only && tensor->ndim >= 1 && (size_t)tensor->shape[0] == classes && !is_hidden(tensor->name);
}

bool mg_delta_is_permuted(const mg_deltas *d, int source, const mg_tensor *tensor) {
  if (d->class_of == NULL || !mg_has_row_a_class(tensor, d->classes)) return false;
  const int32_t *class_of = d->class_of + (size_t)source * d->classes;
  for (size_t c = 0; c < d->classes; c++)
    if (class_of[c] != (int32_t)c) return true;
  return false;
}

/* Rows of a head one by one, from where the source has them. */
static mg_status read_permuted(mg_delta_reader *r, int source, size_t t, int64_t first, int64_t count, float *to) {
  mg_status status = MG_OK;
  const mg_deltas *d = r->deltas;
  const mg_tensor *tensor = &mg_rows_table(d->rows)->tensors[t];
  const int32_t *class_of = d->class_of + (size_t)source * d->classes;
  const int64_t row = tensor->numel / tensor->shape[0];
  while (count > 0) {
    const int64_t class = first / row, within = first % row;
    int64_t own = 0, now = row - within < count ? row - within : count;
    while (own < tensor->shape[0] && class_of[own] != (int32_t) class) own++;
    const int64_t at = own * row + within, leaf_end = (at / MG_LEAF + 1) * MG_LEAF;
    if (now > MG_TILE) now = MG_TILE;
    if (at + now > leaf_end) now = leaf_end - at;
    MG_TRY(mg_rows_read(d->rows, &source, 1, t, at, now, r->row, MG_TILE * sizeof(float), r->scale, NULL, r->staging), done);
    mg_to_f32(to, r->row, mg_rows_dtype(d->rows), (size_t)now, r->scale[0]);
    first += now, count -= now, to += now;
  }
done:
  return status;
}

/* Up to a tile within a leaf; rows that are one source's floats go where they belong at once. */
static mg_status read_tile(mg_delta_reader *r, const int *sources, size_t n, size_t t, int64_t first, int64_t count,
                           float *const *to, int64_t at, float *base) {
  mg_status status = MG_OK;
  const size_t stride = MG_TILE * sizeof(float);
  mg_rows *rows = r->deltas->rows;
  const bool direct = n == 1 && mg_rows_dtype(rows) == MG_F32;
  MG_TRY(mg_rows_read(rows, sources, (int)n, t, first, count, direct ? (void *)(to[0] + at) : r->raw, stride, r->scale,
                      base != NULL ? r->base : NULL, r->staging),
         done);
  for (size_t k = 0; k < n && !direct; k++)
    mg_to_f32(to[k] + at, r->raw + k * stride, mg_rows_dtype(rows), (size_t)count, r->scale[k]);
  if (base != NULL) memcpy(base + at, r->base, (size_t)count * sizeof *base);
done:
  return status;
}

mg_status mg_delta_read(mg_delta_reader *r, const int *sources, size_t n, size_t t, int64_t first, int64_t count,
                        float *const *to, float *base) {
  mg_status status = MG_OK;
  const mg_tensor *tensor = &mg_rows_table(r->deltas->rows)->tensors[t];
  for (int64_t done = 0; done < count;) {
    const int64_t at = first + done, leaf_end = (at / MG_LEAF + 1) * MG_LEAF;
    int64_t now = count - done < MG_TILE ? count - done : MG_TILE;
    if (at + now > leaf_end) now = leaf_end - at;
    MG_TRY(read_tile(r, sources, n, t, at, now, to, done, base), done);
    done += now;
  }
  for (size_t k = 0; k < n; k++)
    if (mg_delta_is_permuted(r->deltas, sources[k], tensor)) MG_TRY(read_permuted(r, sources[k], t, first, count, to[k]), done);
done:
  return status;
}

/* Box and Muller's pairs, as far as the range needs them. */
void mg_random_head(const mg_tensor *tensor, uint64_t seed, int64_t first, int64_t count, float *out) {
  const double deviation = 0.02, turn = 6.283185307179586, unit = 1.0 / 4294967296.0;
  const mg_stream stream = mg_stream_of_tensor(seed, "a new head", tensor->name);
  for (int64_t k = 0; k < count; k++) {
    uint32_t words[2];
    const uint64_t pair = (uint64_t)(first + k) / 2;
    if (tensor->ndim < 2) {
      out[k] = 0;
      continue;
    }
    mg_stream_words(&stream, 2 * pair, 2, words);
    const double radius = sqrt(-2 * log(((double)words[0] + 0.5) * unit)), angle = turn * (double)words[1] * unit;
    out[k] = (float)(deviation * radius * ((first + k) % 2 == 0 ? cos(angle) : sin(angle)));
  }
}

mg_status mg_store_fill(const mg_deltas *deltas, int source, const mg_range *ranges, size_t range_count, float *block) {
  mg_status status = MG_OK;
  mg_delta_reader reader = {0};
  const int64_t most = 8 * MG_TILE;
  MG_TRY(mg_delta_reader_create(deltas, 1, &reader), cleanup);
  for (size_t k = 0; k < range_count; k++)
    for (int64_t done = 0; done < ranges[k].count; done += most) {
      const int64_t now = ranges[k].count - done < most ? ranges[k].count - done : most;
      float *to = block + ranges[k].offset + done;
      if (source == MG_ROW_BASE)
        MG_TRY(mg_delta_read(&reader, NULL, 0, ranges[k].tensor, ranges[k].first + done, now, NULL, to), cleanup);
      else
        MG_TRY(mg_delta_read(&reader, &source, 1, ranges[k].tensor, ranges[k].first + done, now, &to, NULL), cleanup);
    }
cleanup:
  mg_delta_reader_free(&reader);
  return status;
}
