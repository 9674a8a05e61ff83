/* CKA: every source becomes two vectors of centred Gram entries, and pairs are their cosines. */

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "cka_impl.h"
#include "mergegrid/text.h"

enum { LANES = 8 };

/* One order of additions for every compiler and machine: eight interleaved sums, then a tree. */
static double dot(const double *a, const double *b, size_t n) {
  double lane[LANES] = {0};
  size_t k = 0;
  for (; k + LANES <= n; k += LANES)
    for (size_t l = 0; l < LANES; l++) lane[l] += a[k + l] * b[k + l];
  for (size_t l = 0; k < n; k++, l++) lane[l] += a[k] * b[k];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static mg_status get_finite(const mg_cka_features *f, size_t source, const float **features) {
  mg_status status = MG_OK;
  MG_TRY(f->get(f->context, source, features), done);
  for (size_t k = 0; k < f->texts * f->width; k++)
    if (!isfinite((*features)[k]))
      return mg_fail(MG_ERR_INPUT, "the features of source %zu are not finite at text %zu", source, k / f->width);
done:
  return status;
}

/* Columns that sum to zero, in double. */
static void centre_features(const mg_cka_features *f, const float *features, double *x) {
  for (size_t k = 0; k < f->texts * f->width; k++) x[k] = (double)features[k];
  for (size_t d = 0; d < f->width; d++) {
    double total = 0;
    for (size_t t = 0; t < f->texts; t++) total += x[t * f->width + d];
    const double mean = total / (double)f->texts;
    for (size_t t = 0; t < f->texts; t++) x[t * f->width + d] -= mean;
  }
}

/* The whole square, so that a pair is one dot product. */
static void gram_of(const mg_cka_features *f, const double *x, double *k) {
  const size_t n = f->texts;
  for (size_t i = 0; i < n; i++)
    for (size_t j = i; j < n; j++) k[i * n + j] = k[j * n + i] = dot(x + i * f->width, x + j * f->width, f->width);
}

/* K̃ij = Kij − (ri + rj) / (n − 2) + s / ((n − 1)(n − 2)) off the diagonal, r and s sums without it; 0 on it. */
static void u_centre(const double *k, size_t n, double *out, double *row) {
  double all = 0;
  for (size_t i = 0; i < n; i++) {
    row[i] = 0;
    for (size_t j = 0; j < n; j++) row[i] += j != i ? k[i * n + j] : 0;
    all += row[i];
  }
  const double each = 1 / (double)(n - 2), total = all / ((double)(n - 1) * (double)(n - 2));
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) out[i * n + j] = i == j ? 0 : k[i * n + j] - (row[i] + row[j]) * each + total;
}

typedef struct workspace {
  const mg_cka_features *f;
  mg_cka_lane *there; /* NULL: the host computes */
  size_t entries;     /* of a Gram matrix */
  size_t block;       /* sources whose matrices are held at once */
  double *x, *row;    /* centred features, row sums */
  double *grams;      /* [block + 1][2][entries]: of the sources of the rows; of the source of a column */
} workspace;

/* Both centred Gram matrices of a source; the columns of X sum to zero, so the rows of X Xᵀ do already. */
static mg_status fill_slot(const workspace *w, size_t source, size_t slot) {
  mg_status status = MG_OK;
  const float *features;
  MG_TRY(get_finite(w->f, source, &features), done);
  if (w->there != NULL) return mg_cka_lane_fill(w->there, features, slot);
  double *to = w->grams + slot * 2 * w->entries;
  centre_features(w->f, features, w->x);
  gram_of(w->f, w->x, to);
  if (w->f->texts >= 4) u_centre(to, w->f->texts, to + w->entries, w->row);
done:
  return status;
}

static double pair_of(const workspace *w, size_t a, size_t b, size_t kind) {
  return dot(w->grams + (2 * a + kind) * w->entries, w->grams + (2 * b + kind) * w->entries, w->entries);
}

/* Source i, whose matrices are in `slot`, with sources first … first + count − 1, whose are in slots from 0 on. */
static mg_status multiply_slot(const workspace *w, size_t i, size_t slot, size_t first, size_t count, double *const *out) {
  mg_status status = MG_OK;
  const size_t n = w->f->sources;
  const double *there[2] = {NULL, NULL};
  if (w->there != NULL) MG_TRY(mg_cka_lane_multiply(w->there, slot, count, &there[0], &there[1]), done);
  for (size_t kind = 0; kind < 2; kind++)
    for (size_t k = 0; k < count; k++) {
      const size_t j = first + k;
      const bool defined = kind == 0 || w->f->texts >= 4;
      const double value = !defined ? NAN : w->there != NULL ? there[kind][k] : pair_of(w, k, slot, kind);
      out[kind][i * n + j] = out[kind][j * n + i] = value;
    }
done:
  return status;
}

/* Inner products of all pairs: rows in blocks that fit, columns one after another. */
static mg_status all_pairs(const workspace *w, double *const *out) {
  mg_status status = MG_OK;
  const size_t n = w->f->sources;
  for (size_t first = 0; first < n; first += w->block) {
    const size_t last = first + w->block < n ? first + w->block : n;
    for (size_t i = first; i < last; i++) {
      MG_TRY(fill_slot(w, i, i - first), done);
      MG_TRY(multiply_slot(w, i, i - first, first, i - first + 1, out), done);
    }
    for (size_t j = last; j < n; j++) {
      MG_TRY(fill_slot(w, j, w->block), done);
      MG_TRY(multiply_slot(w, j, w->block, first, last - first, out), done);
    }
  }
done:
  return status;
}

static void to_cosines(double *m, size_t n, double *norm) {
  for (size_t i = 0; i < n; i++) norm[i] = m[i * n + i];
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      const bool defined = norm[i] > 0 && norm[j] > 0;
      m[i * n + j] = !defined ? NAN : i == j ? 1 : m[i * n + j] / (sqrt(norm[i]) * sqrt(norm[j]));
    }
}

/* Sources whose Gram matrices are held at once. */
static size_t block_of(size_t sources, size_t texts, uint64_t memory) {
  const uint64_t each = 2 * (uint64_t)texts * texts * sizeof(double);
  size_t block = sources;
  if (block > memory / each) block = (size_t)(memory / each);
  if (block > 1 && block < sources) block--; /* the column's */
  return block < 1 ? 1 : block;
}

uint64_t mg_cka_bytes(size_t sources, size_t texts, size_t width, uint64_t memory) {
  const uint64_t held = block_of(sources, texts, memory) + 1;
  return held * 2 * texts * texts * sizeof(double) + (uint64_t)texts * width * sizeof(double);
}

static mg_status make_room(workspace *w, uint64_t memory) {
  const mg_cka_features *f = w->f;
  w->block = block_of(f->sources, f->texts, memory);
  w->x = mg_alloc(f->texts * f->width, sizeof *w->x);
  w->row = mg_alloc(f->texts, sizeof *w->row);
  w->grams = mg_alloc((w->block + 1) * 2, w->entries * sizeof *w->grams);
  return w->x != NULL && w->row != NULL && w->grams != NULL ? MG_OK : MG_ERR_NOMEM;
}

mg_status mg_cka(const mg_cka_features *f, uint64_t memory, mg_device *device, double *biased, double *unbiased) {
  mg_status status = MG_OK;
  workspace w = {.f = f, .entries = f->texts * f->texts};
  double *const out[2] = {biased, unbiased};
  double *norm = NULL;
  if (f->sources == 0 || f->texts == 0 || f->width == 0) return mg_fail(MG_ERR_INPUT, "CKA of no features");
  if (device != NULL) {
    MG_TRY(mg_cka_lane_create(device, f->sources, f->texts, f->width, &w.there), cleanup);
    w.block = mg_cka_lane_slots(w.there) - 1;
  } else {
    MG_TRY(make_room(&w, memory), cleanup);
  }
  norm = mg_alloc(f->sources, sizeof *norm);
  if (norm == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(all_pairs(&w, out), cleanup);
  for (int kind = 0; kind < 2; kind++) to_cosines(out[kind], f->sources, norm);
cleanup:
  mg_cka_lane_destroy(&w.there);
  free(w.x), free(w.row), free(w.grams), free(norm);
  return status;
}
