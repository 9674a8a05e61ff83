/* CKA: every source becomes two vectors of centred Gram entries, and pairs are their cosines. */

#include "mergegrid/cka.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

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

/* Columns that sum to zero, in double. */
static mg_status centre_features(const mg_cka_features *f, size_t source, double *x) {
  mg_status status = MG_OK;
  const float *features;
  MG_TRY(f->get(f->context, source, &features), done);
  for (size_t t = 0; t < f->texts; t++)
    for (size_t d = 0; d < f->width; d++) {
      x[t * f->width + d] = (double)features[t * f->width + d];
      if (!isfinite(features[t * f->width + d]))
        return mg_fail(MG_ERR_INPUT, "the features of source %zu are not finite at text %zu", source, t);
    }
  for (size_t d = 0; d < f->width; d++) {
    double total = 0;
    for (size_t t = 0; t < f->texts; t++) total += x[t * f->width + d];
    const double mean = total / (double)f->texts;
    for (size_t t = 0; t < f->texts; t++) x[t * f->width + d] -= mean;
  }
done:
  return status;
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
  size_t entries;  /* of a Gram matrix */
  double *x, *row; /* centred features, row sums */
  double *kept;    /* [block][2][entries] of the sources of the rows */
  double *one;     /* [2][entries] of the source of a column */
  double *norm;    /* ‖K‖² of every source */
} workspace;

/* Both centred Gram matrices of a source; the columns of X sum to zero, so the rows of X Xᵀ do already. */
static mg_status centred_grams(const workspace *w, size_t source, double *to) {
  mg_status status = MG_OK;
  MG_TRY(centre_features(w->f, source, w->x), done);
  gram_of(w->f, w->x, to);
  if (w->f->texts >= 4) u_centre(to, w->f->texts, to + w->entries, w->row);
done:
  return status;
}

static void pair(const workspace *w, size_t i, size_t j, const double *a, const double *b, double *const *out) {
  const size_t n = w->f->sources;
  for (int kind = 0; kind < 2; kind++) {
    if (kind == 1 && w->f->texts < 4)
      out[kind][i * n + j] = NAN;
    else
      out[kind][i * n + j] = dot(a + (size_t)kind * w->entries, b + (size_t)kind * w->entries, w->entries);
    out[kind][j * n + i] = out[kind][i * n + j];
  }
}

/* Inner products of all pairs: rows in blocks that fit, columns one after another. */
static mg_status all_pairs(const workspace *w, size_t block, double *const *out) {
  mg_status status = MG_OK;
  const size_t n = w->f->sources;
  for (size_t first = 0; first < n; first += block) {
    const size_t last = first + block < n ? first + block : n;
    for (size_t i = first; i < last; i++) {
      double *mine = w->kept + (i - first) * 2 * w->entries;
      MG_TRY(centred_grams(w, i, mine), done);
      for (size_t j = first; j <= i; j++) pair(w, i, j, mine, w->kept + (j - first) * 2 * w->entries, out);
    }
    for (size_t j = last; j < n; j++) {
      MG_TRY(centred_grams(w, j, w->one), done);
      for (size_t i = first; i < last; i++) pair(w, i, j, w->kept + (i - first) * 2 * w->entries, w->one, out);
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

mg_status mg_cka(const mg_cka_features *f, uint64_t memory, double *biased, double *unbiased) {
  mg_status status = MG_OK;
  workspace w = {.f = f, .entries = f->texts * f->texts};
  if (f->sources == 0 || f->texts == 0 || f->width == 0) return mg_fail(MG_ERR_INPUT, "CKA of no features");
  const size_t block = block_of(f->sources, f->texts, memory);
  w.x = mg_alloc(f->texts * f->width, sizeof *w.x);
  w.row = mg_alloc(f->texts, sizeof *w.row);
  w.one = mg_alloc(2 * w.entries, sizeof *w.one);
  w.kept = mg_alloc(block * 2, w.entries * sizeof *w.kept);
  w.norm = mg_alloc(f->sources, sizeof(double));
  if (w.x == NULL || w.row == NULL || w.one == NULL || w.kept == NULL || w.norm == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  double *const out[2] = {biased, unbiased};
  MG_TRY(all_pairs(&w, block, out), cleanup);
  for (int kind = 0; kind < 2; kind++) to_cosines(out[kind], f->sources, w.norm);
cleanup:
  free(w.x), free(w.row), free(w.one), free(w.kept), free(w.norm);
  return status;
}
