/* Grams, cosines and CKA, with their scales and statistics. */

#include <stdlib.h>

#include "hdf5_impl.h"
#include "mergegrid/text.h"

static const char *const LEVELS[] = {[MG_GRAM_TENSOR] = "tensor", [MG_GRAM_LAYER] = "layer", [MG_GRAM_TOTAL] = "total"};

/* Row and column scales of an N × N dataset whose rows are axis `row`. */
static void attach_pair(mg_h5_writer *w, const char *path, unsigned row) {
  mg_h5_scale(w, path, "/compatibility/source", row);
  mg_h5_scale(w, path, "/compatibility/source_column", row + 1);
}

static void write_statistics(mg_h5_writer *w, const char *path, const double *matrices, size_t count, size_t n) {
  double *values = mg_alloc(4 * count, sizeof *values);
  int64_t *entries = mg_alloc(count, sizeof *entries);
  if (values == NULL || entries == NULL) w->failed = true;
  for (size_t k = 0; !w->failed && k < count; k++) {
    const mg_matrix_statistics s = mg_matrix_off_diagonal(matrices + k * n * n, n);
    values[k] = s.mean;
    values[count + k] = s.std;
    values[2 * count + k] = s.min;
    values[3 * count + k] = s.max;
    entries[k] = (int64_t)s.count;
  }
  static const char *const names[] = {"mean", "std", "min", "max"};
  for (size_t k = 0; !w->failed && k < 4; k++) mg_h5_attribute(w, path, names[k], H5T_NATIVE_DOUBLE, count, values + k * count);
  mg_h5_attribute(w, path, "count", H5T_NATIVE_INT64, count, entries);
  free(values);
  free(entries);
}

static void write_cosines(mg_h5_writer *w, const mg_source_list *sources, const mg_result_compatibility *d) {
  const size_t n = sources->count;
  const hsize_t square[2] = {n, n}, cube[3] = {d->layers->count, n, n};
  mg_h5_numbers(w, "/compatibility/task_vector_cosine", H5T_NATIVE_DOUBLE, 2, square, d->cosine,
                "cosine of task vectors over all selected tensors", "1");
  attach_pair(w, "/compatibility/task_vector_cosine", 0);
  write_statistics(w, "/compatibility/task_vector_cosine", d->cosine, 1, n);
  if (d->cosine_encoder != NULL) {
    mg_h5_numbers(w, "/compatibility/task_vector_cosine_encoder", H5T_NATIVE_DOUBLE, 2, square, d->cosine_encoder,
                  "cosine of task vectors over selected tensors of layers", "1");
    attach_pair(w, "/compatibility/task_vector_cosine_encoder", 0);
    write_statistics(w, "/compatibility/task_vector_cosine_encoder", d->cosine_encoder, 1, n);
  }
  if (d->cosine_layers == NULL) return;
  mg_h5_numbers(w, "/compatibility/task_vector_cosine_layers", H5T_NATIVE_DOUBLE, 3, cube, d->cosine_layers,
                "cosine of task vectors over the tensors of each layer", "1");
  mg_h5_scale(w, "/compatibility/task_vector_cosine_layers", "/compatibility/layers", 0);
  attach_pair(w, "/compatibility/task_vector_cosine_layers", 1);
  write_statistics(w, "/compatibility/task_vector_cosine_layers", d->cosine_layers, d->layers->count, n);
}

static void write_cka(mg_h5_writer *w, const mg_source_list *sources, const mg_result_compatibility *d) {
  const size_t n = sources->count, layers = (size_t)d->cka_layer_count;
  const hsize_t cube[3] = {layers, n, n}, line[1] = {layers};
  const struct {
    const char *path, *meaning;
    const double *values;
  } matrices[] = {{"/compatibility/cka", "linear CKA of the sources' hidden states, biased (Kornblith et al. 2019)", d->cka},
                  {"/compatibility/cka_unbiased", "CKA with the unbiased HSIC estimator (Song et al. 2012)", d->cka_unbiased}};
  if (d->cka == NULL) return;
  mg_h5_numbers(w, "/compatibility/cka_layers", H5T_NATIVE_INT, 1, line, d->cka_layers, "hidden state, 0 the embeddings", "1");
  mg_h5_make_scale(w, "/compatibility/cka_layers", "cka_layers");
  for (size_t k = 0; k < 2; k++) {
    mg_h5_numbers(w, matrices[k].path, H5T_NATIVE_DOUBLE, 3, cube, matrices[k].values, matrices[k].meaning, "1");
    mg_h5_scale(w, matrices[k].path, "/compatibility/cka_layers", 0);
    attach_pair(w, matrices[k].path, 1);
    write_statistics(w, matrices[k].path, matrices[k].values, layers, n);
    mg_h5_attribute(w, matrices[k].path, "samples", H5T_NATIVE_INT64, 1, &d->cka_samples);
    mg_h5_text_attribute(w, matrices[k].path, "probes", d->cka_probes);
  }
}

static void write_gram(mg_h5_writer *w, const mg_source_list *sources, const mg_result_compatibility *d) {
  const size_t n = sources->count, groups = d->gram->groups;
  const hsize_t dims[3] = {groups, n, n};
  mg_h5_group(w, "/compatibility/gram");
  mg_h5_strings(w, "/compatibility/gram/groups", &d->layout->groups->name, sizeof(mg_gram_group), groups,
                "what each Gram is of");
  mg_h5_text_attribute(w, "/compatibility/gram/groups", "level", LEVELS[d->level]);
  mg_h5_make_scale(w, "/compatibility/gram/groups", "groups");
  mg_h5_numbers(w, "/compatibility/gram/source_dot", H5T_NATIVE_DOUBLE, 3, dims, d->gram->dot, "<tau_i, tau_j>", "1");
  mg_h5_scale(w, "/compatibility/gram/source_dot", "/compatibility/gram/groups", 0);
  attach_pair(w, "/compatibility/gram/source_dot", 1);
  mg_h5_numbers(w, "/compatibility/gram/base_dot", H5T_NATIVE_DOUBLE, 2, dims, d->gram->base_dot, "<theta_0, tau_i>", "1");
  mg_h5_scale(w, "/compatibility/gram/base_dot", "/compatibility/gram/groups", 0);
  mg_h5_scale(w, "/compatibility/gram/base_dot", "/compatibility/source", 1);
  mg_h5_numbers(w, "/compatibility/gram/base_norm2", H5T_NATIVE_DOUBLE, 1, dims, d->gram->base_norm2, "<theta_0, theta_0>",
                "1");
  mg_h5_scale(w, "/compatibility/gram/base_norm2", "/compatibility/gram/groups", 0);
}

void mg_h5_compatibility(mg_h5_writer *w, const mg_source_list *sources, const mg_result_compatibility *d) {
  const mg_source *s = sources->items;
  mg_h5_group(w, "/compatibility");
  mg_h5_strings(w, "/compatibility/source", &s->id, sizeof *s, sources->count, "source of a row");
  mg_h5_make_scale(w, "/compatibility/source", "source");
  mg_h5_strings(w, "/compatibility/source_column", &s->id, sizeof *s, sources->count, "source of a column");
  mg_h5_make_scale(w, "/compatibility/source_column", "source_column");
  mg_h5_strings(w, "/compatibility/layers", d->layers->items, sizeof(char *), d->layers->count, "layers with selected tensors");
  if (d->layers->count > 0) mg_h5_make_scale(w, "/compatibility/layers", "layers");
  write_gram(w, sources, d);
  write_cosines(w, sources, d);
  write_cka(w, sources, d);
}
