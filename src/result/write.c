/* A whole result, in a fixed order and without times, so that equal results are equal bytes outside /provenance. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hdf5_impl.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"
#include "mergegrid/version.h"
#include "run_impl.h"

static const char *const LEVELS[] = {[MG_GRAM_TENSOR] = "tensor", [MG_GRAM_LAYER] = "layer", [MG_GRAM_TOTAL] = "total"};

static void write_sources(mg_h5_writer *w, const mg_result_data *d) {
  const mg_source *s = d->sources->items;
  const size_t n = d->sources->count;
  mg_h5_group(w, "/sources");
  mg_h5_strings(w, "/sources/id", &s->id, sizeof *s, n, "source, as the configuration names it");
  mg_h5_strings(w, "/sources/locale", &s->locale, sizeof *s, n, "locale of the source");
  mg_h5_strings(w, "/sources/path", &s->path, sizeof *s, n, "checkpoint directory of the source");
  if (d->sources->skipped.count > 0)
    mg_h5_strings(w, "/sources/skipped", d->sources->skipped.items, sizeof(char *), d->sources->skipped.count,
                  "sources left out because their checkpoint is missing");
  mg_h5_strings(w, "/labels", d->labels->items, sizeof(char *), d->labels->count, "class names by index");
}

static void write_tensors(mg_h5_writer *w, const mg_result_data *d) {
  const mg_tensor *t = d->table->tensors;
  const size_t count = d->table->count;
  const hsize_t dims[2] = {count, MG_MAX_DIMS};
  int64_t *shape = mg_alloc_zero(count * MG_MAX_DIMS, sizeof *shape), *ndim = mg_alloc(count, sizeof *ndim);
  bool *source_only = mg_alloc(count, sizeof *source_only);
  if (shape == NULL || ndim == NULL || source_only == NULL) w->failed = true;
  for (size_t k = 0; !w->failed && k < count; k++) {
    memcpy(shape + k * MG_MAX_DIMS, t[k].shape, (size_t)t[k].ndim * sizeof *shape);
    ndim[k] = t[k].ndim;
    source_only[k] = t[k].source_only;
  }
  mg_h5_group(w, "/tensors");
  mg_h5_strings(w, "/tensors/name", &t->name, sizeof *t, count, "tensor, as the first source names it");
  mg_h5_numbers(w, "/tensors/shape", H5T_NATIVE_INT64, 2, dims, shape, "sizes, 0 behind the last", "1");
  mg_h5_numbers(w, "/tensors/ndim", H5T_NATIVE_INT64, 1, dims, ndim, "number of dimensions", "1");
  mg_h5_strings(w, "/tensors/layer", &t->layer, sizeof *t, count, "name's prefix through the block number");
  mg_h5_bools(w, "/tensors/selected", count, d->selected, "takes part in the cosines");
  mg_h5_bools(w, "/tensors/source_only", count, source_only, "not in the base: theta_0 is 0");
  free(shape), free(ndim), free(source_only);
}

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

static void write_cosines(mg_h5_writer *w, const mg_result_data *d) {
  const size_t n = d->sources->count;
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

static void write_cka(mg_h5_writer *w, const mg_result_data *d) {
  const size_t n = d->sources->count, layers = (size_t)d->cka_layer_count;
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

static void write_gram(mg_h5_writer *w, const mg_result_data *d) {
  const size_t n = d->sources->count, groups = d->gram->groups;
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

static void write_compatibility(mg_h5_writer *w, const mg_result_data *d) {
  const mg_source *s = d->sources->items;
  mg_h5_group(w, "/compatibility");
  mg_h5_strings(w, "/compatibility/source", &s->id, sizeof *s, d->sources->count, "source of a row");
  mg_h5_make_scale(w, "/compatibility/source", "source");
  mg_h5_strings(w, "/compatibility/source_column", &s->id, sizeof *s, d->sources->count, "source of a column");
  mg_h5_make_scale(w, "/compatibility/source_column", "source_column");
  mg_h5_strings(w, "/compatibility/layers", d->layers->items, sizeof(char *), d->layers->count, "layers with selected tensors");
  if (d->layers->count > 0) mg_h5_make_scale(w, "/compatibility/layers", "layers");
  write_gram(w, d);
  write_cosines(w, d);
  write_cka(w, d);
}

/* ---- provenance ---- */

static hid_t text_member(void) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

static void write_inputs(mg_h5_writer *w, const mg_identity *identity) {
  typedef struct input {
    const char *name, *value;
  } input;
  const hsize_t count = identity->count;
  const hid_t text = text_member(), type = H5Tcreate(H5T_COMPOUND, sizeof(input));
  input *inputs = mg_alloc((size_t)count, sizeof *inputs);
  const char **flat = mg_alloc(2 * (size_t)count, sizeof *flat);
  w->failed = w->failed || inputs == NULL || flat == NULL || type < 0 ||
              H5Tinsert(type, "name", HOFFSET(input, name), text) < 0 ||
              H5Tinsert(type, "value", HOFFSET(input, value), text) < 0;
  for (size_t k = 0; !w->failed && k < count; k++) {
    inputs[k] = (input){identity->names[k], identity->values[k]};
    flat[2 * k] = identity->names[k];
    flat[2 * k + 1] = identity->values[k];
  }
  if (!w->failed) {
    const hid_t space = H5Screate_simple(1, &count, NULL);
    const hid_t set = H5Dcreate2(w->file, "/provenance/inputs", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const uint64_t checksum = mg_hash_strings(flat, 2 * (size_t)count);
    w->failed = set < 0 || (count > 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, inputs) < 0);
    H5Dclose(set);
    H5Sclose(space);
    mg_h5_attribute(w, "/provenance/inputs", "checksum", H5T_NATIVE_UINT64, 1, &checksum);
    mg_h5_text_attribute(w, "/provenance/inputs", "long_name", "what the result was computed from");
  }
  free(inputs);
  free(flat);
  H5Tclose(type);
  H5Tclose(text);
}

typedef struct rank_row {
  int64_t rank, units;
  double busy_seconds, read_seconds, bytes_read;
  uint64_t peak_bytes;
  char host[64];
} rank_row;

static hid_t rank_type(void) {
  const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(rank_row)), host = H5Tcopy(H5T_C_S1);
  H5Tset_size(host, 64);
  H5Tset_cset(host, H5T_CSET_UTF8);
  H5Tinsert(type, "rank", HOFFSET(rank_row, rank), H5T_NATIVE_INT64);
  H5Tinsert(type, "host", HOFFSET(rank_row, host), host);
  H5Tinsert(type, "units", HOFFSET(rank_row, units), H5T_NATIVE_INT64);
  H5Tinsert(type, "busy_seconds", HOFFSET(rank_row, busy_seconds), H5T_NATIVE_DOUBLE);
  H5Tinsert(type, "read_seconds", HOFFSET(rank_row, read_seconds), H5T_NATIVE_DOUBLE);
  H5Tinsert(type, "bytes_read", HOFFSET(rank_row, bytes_read), H5T_NATIVE_DOUBLE);
  H5Tinsert(type, "peak_bytes", HOFFSET(rank_row, peak_bytes), H5T_NATIVE_UINT64);
  H5Tclose(host);
  return type;
}

static void write_ranks(mg_h5_writer *w, const mg_result_data *d) {
  const hsize_t count = (hsize_t)d->ranks;
  const hid_t type = rank_type();
  rank_row *rows = mg_alloc_zero((size_t)count, sizeof *rows);
  w->failed = w->failed || rows == NULL || type < 0;
  for (size_t k = 0; !w->failed && k < count; k++) {
    const mg_rank_report *r = &d->rank_reports[k];
    rows[k] = (rank_row){(int64_t)k, r->units, r->busy_seconds, r->read_seconds, r->bytes_read, r->peak_bytes, ""};
    memcpy(rows[k].host, r->host, sizeof rows[k].host - 1);
  }
  if (!w->failed) mg_h5_numbers(w, "/provenance/ranks", type, 1, &count, rows, "what each rank did", NULL);
  free(rows);
  H5Tclose(type);
}

static void write_timings(mg_h5_writer *w, const mg_result_data *d) {
  typedef struct row {
    char name[32];
    double seconds;
  } row;
  const hsize_t count = d->timing_count;
  const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(row)), name = H5Tcopy(H5T_C_S1);
  row *rows = mg_alloc_zero((size_t)count, sizeof *rows);
  w->failed = w->failed || rows == NULL || H5Tset_size(name, sizeof rows->name) < 0 || H5Tset_cset(name, H5T_CSET_UTF8) < 0 ||
              H5Tinsert(type, "name", HOFFSET(row, name), name) < 0 ||
              H5Tinsert(type, "seconds", HOFFSET(row, seconds), H5T_NATIVE_DOUBLE) < 0;
  for (size_t k = 0; !w->failed && k < count; k++) {
    snprintf(rows[k].name, sizeof rows[k].name, "%s", d->timings[k].name);
    rows[k].seconds = d->timings[k].seconds;
  }
  if (!w->failed) mg_h5_numbers(w, "/provenance/timings", type, 1, &count, rows, "wall-clock time of the parts", "s");
  free(rows);
  H5Tclose(name);
  H5Tclose(type);
}

static void write_provenance(mg_h5_writer *w, const mg_result_data *d) {
  char now[24], hdf5[32];
  unsigned major, minor, release;
  const int64_t schema = MG_SCHEMA_VERSION, attempt = d->attempt, ranks = d->ranks;
  mg_utc_text(now);
  H5get_libversion(&major, &minor, &release);
  snprintf(hdf5, sizeof hdf5, "%u.%u.%u", major, minor, release);
  mg_h5_group(w, "/provenance");
  mg_h5_attribute(w, "/provenance", "schema_version", H5T_NATIVE_INT64, 1, &schema);
  const struct {
    const char *name, *text;
  } texts[] = {{"version", mg_version()},
               {"git_describe", mg_git_describe()},
               {"build_flags", mg_build_flags()},
               {"started_utc", d->started_utc},
               {"finished_utc", now},
               {"numeric_mode", d->numeric_mode},
               {"backend", d->backend},
               {"mpi_library", d->mpi_library},
               {"hdf5_version", hdf5},
               {"base_path", d->base_path},
               {"config_file", d->config_file},
               {"compatibility", "done"}};
  for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
    mg_h5_text_attribute(w, "/provenance", texts[k].name, texts[k].text);
  mg_h5_attribute(w, "/provenance", "wall_seconds", H5T_NATIVE_DOUBLE, 1, &d->wall_seconds);
  mg_h5_attribute(w, "/provenance", "attempt", H5T_NATIVE_INT64, 1, &attempt);
  mg_h5_attribute(w, "/provenance", "ranks", H5T_NATIVE_INT64, 1, &ranks);
  mg_h5_strings(w, "/provenance/config", &d->config_yaml, sizeof(char *), SIZE_MAX, "the resolved configuration");
  write_inputs(w, d->identity);
  write_ranks(w, d);
  write_timings(w, d);
}

static hid_t create_file(const char *path) {
  const hid_t create = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
  hid_t file = H5I_INVALID_HID;
  if (H5Pset_userblock(create, MG_RESULT_BLOCK) >= 0 && H5Pset_obj_track_times(create, false) >= 0 &&
      H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) >= 0 &&
      H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0)
    file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
  H5Pclose(create);
  H5Pclose(access);
  return file;
}

mg_status mg_result_write(const char *path, const mg_result_data *d) {
  const int64_t schema = MG_SCHEMA_VERSION;
  mg_result_block block = {.count = 0};
  mg_h5_writer w = {.block = &block};
  mg_hdf5_prepare();
  H5E_BEGIN_TRY {
    w.file = create_file(path);
    w.failed = w.file < 0;
    mg_h5_text_attribute(&w, "/", "format", "mergegrid result");
    mg_h5_attribute(&w, "/", "schema_version", H5T_NATIVE_INT64, 1, &schema);
    write_sources(&w, d);
    write_tensors(&w, d);
    write_compatibility(&w, d);
    write_provenance(&w, d);
    if (w.file >= 0 && H5Fclose(w.file) < 0) w.failed = true;
  }
  H5E_END_TRY
  const mg_status status = w.failed ? mg_fail(MG_ERR_IO, "%s: writing the result failed (no space, or no permission?)", path)
                                    : mg_result_seal(path, &block);
  if (status != MG_OK) unlink(path);
  return status;
}
