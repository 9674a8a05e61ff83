/* Every source on every target, as Python tools of the field read it: rows source models, columns targets. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "mergegrid/io.h"

static int rising(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef enum which { ALL, OWN, OTHERS } which;

/* mean, median, population standard deviation, min and max of the entries that are finite. */
static json_t *summarize(const mg_matrices *m, const double *matrix, which take) {
  size_t count = 0;
  const size_t columns = m->targets.count;
  double *values = mg_alloc(m->ids.count, columns * sizeof *values), mean = 0, variance = 0;
  if (values == NULL) return NULL;
  for (size_t s = 0; s < m->ids.count; s++)
    for (size_t t = 0; t < columns; t++) {
      const bool own = strcmp(m->locales.items[s], m->targets.items[t]) == 0;
      if ((take == ALL || own == (take == OWN)) && isfinite(matrix[s * columns + t])) values[count++] = matrix[s * columns + t];
    }
  if (count > 1) qsort(values, count, sizeof *values, rising);
  for (size_t k = 0; k < count; k++) mean += values[k] / (double)count;
  for (size_t k = 0; k < count; k++) variance += (values[k] - mean) * (values[k] - mean) / (double)count;
  json_t *summary = count == 0 ? json_pack("{s:n, s:n, s:n, s:n, s:n, s:i}", "mean", "median", "std", "min", "max", "count", 0)
                               : json_pack("{s:f, s:f, s:f, s:f, s:f, s:I}", "mean", mean, "median",
                                           (values[(count - 1) / 2] + values[count / 2]) / 2, "std", sqrt(variance), "min",
                                           values[0], "max", values[count - 1], "count", (json_int_t)count);
  free(values);
  return summary;
}

json_t *mg_json_failures(const mg_evaluation *e) {
  json_t *list = json_array();
  for (size_t k = 0; k < e->failed_source.count; k++)
    json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "source", e->failed_source.items[k], "target",
                                          e->failed_target.items[k], "error", e->error.items[k]));
  return list;
}

/* A target's best source of another locale. */
static json_t *best_others(const mg_matrices *m) {
  json_t *all = json_object();
  for (size_t t = 0; t < m->targets.count; t++) {
    ptrdiff_t own, best;
    mg_matrices_best(m, t, &own, &best);
    if (best >= 0)
      json_object_set_new(all, m->targets.items[t],
                          json_pack("{s:s, s:o}", "source", m->ids.items[best], "accuracy",
                                    mg_json_number(m->nxn.accuracy[0][(size_t)best * m->targets.count + t])));
  }
  return all;
}

static json_t *describe(const mg_matrices *m, int part) {
  return json_pack("{s:s, s:o, s:o, s:o, s:o}", "partition", m->nxn.partition[part], "accuracy",
                   summarize(m, m->nxn.accuracy[part], ALL), "own", summarize(m, m->nxn.accuracy[part], OWN), "others",
                   summarize(m, m->nxn.accuracy[part], OTHERS), "macro_f1", summarize(m, m->nxn.macro_f1[part], ALL));
}

static mg_status write_summary(const char *dir, const mg_matrices *m) {
  json_t *root = summarize(m, m->nxn.accuracy[0], ALL); /* the statistics themselves at the top, as there */
  if (root == NULL) return MG_ERR_NOMEM;
  json_object_set_new(root, "partition", json_string(m->nxn.partition[0]));
  json_object_set_new(root, "timestamp", json_string(m->finished));
  json_object_set_new(root, "num_sources", json_integer((json_int_t)m->ids.count));
  json_object_set_new(root, "num_targets", json_integer((json_int_t)m->targets.count));
  json_object_set_new(root, "sources", mg_json_strings(&m->ids));
  json_object_set_new(root, "targets", mg_json_strings(&m->targets));
  json_object_set_new(root, "evaluation", describe(m, 0));
  json_object_set_new(root, "selection", describe(m, 1));
  json_object_set_new(root, "best_other_source", best_others(m));
  json_object_set_new(root, "failed", mg_json_failures(&m->nxn));
  json_object_set_new(root, "result", json_string(m->path));
  json_object_set_new(root, "version", json_string(m->version));
  return mg_json_write(dir, "evaluation_summary.json", root);
}

mg_status mg_export_evaluation(const char *dir, const mg_matrices *m) {
  mg_status status = MG_OK;
  MG_TRY(mg_make_dirs(dir), done);
  MG_TRY(mg_csv_write(dir, "evaluation_matrix.csv", &m->ids, &m->targets, m->nxn.accuracy[0]), done);
  MG_TRY(mg_csv_write(dir, "evaluation_macro_f1_matrix.csv", &m->ids, &m->targets, m->nxn.macro_f1[0]), done);
  MG_TRY(mg_csv_write(dir, "evaluation_select_matrix.csv", &m->ids, &m->targets, m->nxn.accuracy[1]), done);
  MG_TRY(write_summary(dir, m), done);
done:
  return status;
}
