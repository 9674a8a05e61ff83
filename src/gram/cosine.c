/* Views of the Grams: cosines of a selection, statistics of a matrix. */

#include <math.h>
#include <stdlib.h>

#include "gram_impl.h"
#include "mergegrid/text.h"

mg_status mg_gram_cosine(const mg_gram_layout *layout, const mg_gram *gram, mg_group_filter take, const void *context,
                         double *cosine) {
  const size_t n = gram->sources;
  double *norm = mg_alloc(n, sizeof *norm);
  if (norm == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < n * n; k++) cosine[k] = 0;
  for (size_t g = 0; g < gram->groups; g++) {
    if (!take(&layout->groups[g], context)) continue;
    for (size_t k = 0; k < n * n; k++) cosine[k] += gram->dot[g * n * n + k];
  }
  for (size_t i = 0; i < n; i++) norm[i] = sqrt(cosine[i * n + i]);
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      const bool defined = norm[i] > 0 && norm[j] > 0 && isfinite(norm[i]) && isfinite(norm[j]);
      double value = defined ? cosine[i * n + j] / (norm[i] * norm[j]) : NAN;
      if (value > 1 || (defined && i == j)) value = 1;
      if (value < -1) value = -1;
      cosine[i * n + j] = value;
    }
  free(norm);
  return MG_OK;
}

mg_matrix_statistics mg_matrix_off_diagonal(const double *matrix, size_t n) {
  mg_matrix_statistics s = {.mean = NAN, .std = NAN, .min = NAN, .max = NAN};
  double sum = 0, squares = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      const double value = matrix[i * n + j];
      if (i == j || !isfinite(value)) continue;
      if (s.count == 0 || value < s.min) s.min = value;
      if (s.count == 0 || value > s.max) s.max = value;
      sum += value;
      s.count++;
    }
  if (s.count == 0) return s;
  s.mean = sum / (double)s.count;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      const double value = matrix[i * n + j];
      if (i != j && isfinite(value)) squares += (value - s.mean) * (value - s.mean);
    }
  s.std = sqrt(squares / (double)s.count);
  return s;
}
