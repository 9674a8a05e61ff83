/* A whole result, in a fixed order and without times, so that equal results are equal bytes outside /provenance. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hdf5_impl.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"
#include "mergegrid/version.h"
#include "run_impl.h"

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

/* A field of fixed length. */
static void insert_text(hid_t type, const char *name, size_t offset, size_t size) {
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, size);
  H5Tset_cset(text, H5T_CSET_UTF8);
  H5Tinsert(type, name, offset, text);
  H5Tclose(text);
}

static hid_t rank_type(void) {
  const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(rank_row));
  H5Tinsert(type, "rank", HOFFSET(rank_row, rank), H5T_NATIVE_INT64);
  insert_text(type, "host", HOFFSET(rank_row, host), 64);
  H5Tinsert(type, "units", HOFFSET(rank_row, units), H5T_NATIVE_INT64);
  H5Tinsert(type, "busy_seconds", HOFFSET(rank_row, busy_seconds), H5T_NATIVE_DOUBLE);
  H5Tinsert(type, "read_seconds", HOFFSET(rank_row, read_seconds), H5T_NATIVE_DOUBLE);
  H5Tinsert(type, "bytes_read", HOFFSET(rank_row, bytes_read), H5T_NATIVE_DOUBLE);
  H5Tinsert(type, "peak_bytes", HOFFSET(rank_row, peak_bytes), H5T_NATIVE_UINT64);
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

/* Where devices computed, of each rank. */
static void write_devices(mg_h5_writer *w, const mg_result_data *d) {
  const size_t count = (size_t)d->ranks;
  const char **places = mg_alloc_zero(count, sizeof *places);
  bool any = false;
  w->failed = w->failed || places == NULL;
  for (size_t k = 0; !w->failed && k < count; k++) {
    places[k] = d->rank_reports[k].device;
    any = any || places[k][0] != '\0';
  }
  if (any) mg_h5_strings(w, "/provenance/devices", places, sizeof *places, count, "the device that each rank computed on");
  free(places);
}

typedef struct part_row {
  int64_t part, attempt;
  char host[64], state[16], started[24], updated[24];
} part_row;

/* The jobs whose journals the result was gathered from, as their state files told. */
static void write_parts(mg_h5_writer *w, const mg_result_data *d) {
  const hsize_t count = d->part_count;
  const hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(part_row));
  part_row *rows = mg_alloc_zero((size_t)count, sizeof *rows);
  H5Tinsert(type, "part", HOFFSET(part_row, part), H5T_NATIVE_INT64);
  H5Tinsert(type, "attempt", HOFFSET(part_row, attempt), H5T_NATIVE_INT64);
  insert_text(type, "host", HOFFSET(part_row, host), sizeof rows->host);
  insert_text(type, "state", HOFFSET(part_row, state), sizeof rows->state);
  insert_text(type, "started_utc", HOFFSET(part_row, started), sizeof rows->started);
  insert_text(type, "updated_utc", HOFFSET(part_row, updated), sizeof rows->updated);
  w->failed = w->failed || rows == NULL || type < 0;
  for (size_t k = 0; !w->failed && k < count; k++) {
    const mg_part_report *p = &d->parts[k];
    rows[k] = (part_row){.part = p->part, .attempt = p->attempt};
    memcpy(rows[k].host, p->host, sizeof rows[k].host);
    memcpy(rows[k].state, p->state, sizeof rows[k].state);
    memcpy(rows[k].started, p->started, sizeof rows[k].started);
    memcpy(rows[k].updated, p->updated, sizeof rows[k].updated);
  }
  if (!w->failed) mg_h5_numbers(w, "/provenance/parts", type, 1, &count, rows, "what each part's last attempt was", NULL);
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
               {"config_file", d->config_file}};
  for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
    mg_h5_text_attribute(w, "/provenance", texts[k].name, texts[k].text);
  if (d->compatibility != NULL) mg_h5_text_attribute(w, "/provenance", "compatibility", "done");
  if (d->nxn != NULL) mg_h5_text_attribute(w, "/provenance", "nxn", "done");
  if (d->grid != NULL) mg_h5_text_attribute(w, "/provenance", "grid", "done");
  if (d->microscope != NULL) mg_h5_text_attribute(w, "/provenance", "microscope", "done");
  mg_h5_attribute(w, "/provenance", "wall_seconds", H5T_NATIVE_DOUBLE, 1, &d->wall_seconds);
  mg_h5_attribute(w, "/provenance", "attempt", H5T_NATIVE_INT64, 1, &attempt);
  mg_h5_attribute(w, "/provenance", "ranks", H5T_NATIVE_INT64, 1, &ranks);
  mg_h5_strings(w, "/provenance/config", &d->config_yaml, sizeof(char *), SIZE_MAX, "the resolved configuration");
  write_inputs(w, d->identity);
  write_ranks(w, d);
  write_devices(w, d);
  write_timings(w, d);
  if (d->part_count > 0) write_parts(w, d);
  if (d->grid != NULL)
    mg_h5_strings(w, "/provenance/reused", d->grid->reused, sizeof(char *), d->grid->reused_count,
                  "recipes taken from earlier results");
}

static hid_t create_file(const char *path, size_t block_bytes) {
  const hid_t create = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
  hid_t file = H5I_INVALID_HID;
  if (H5Pset_userblock(create, block_bytes) >= 0 && H5Pset_obj_track_times(create, false) >= 0 &&
      H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) >= 0 &&
      H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0)
    file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
  H5Pclose(create);
  H5Pclose(access);
  return file;
}

mg_status mg_result_write(const char *path, const mg_result_data *d) {
  enum { EXTENTS = 33 }; /* of everything that does not grow with the targets */
  const int64_t schema = MG_SCHEMA_VERSION;
  mg_result_block block;
  mg_h5_writer w = {.block = &block};
  /* of each target: labels, and two parts' predictions and logits */
  const size_t nxn = d->nxn != NULL ? 21 + 5 * d->nxn->targets->count : 0;
  const size_t grid = d->grid != NULL ? mg_h5_grid_extents(d->grid) : 0;
  const size_t microscope = d->microscope != NULL ? mg_h5_microscope_extents() : 0;
  const size_t parts = d->part_count > 0;
  mg_status status = mg_result_block_create(EXTENTS + nxn + grid + microscope + parts, &block);
  if (status != MG_OK) return status;
  mg_hdf5_prepare();
  H5E_BEGIN_TRY {
    w.file = create_file(path, block.bytes);
    w.failed = w.file < 0;
    mg_h5_text_attribute(&w, "/", "format", "mergegrid result");
    mg_h5_attribute(&w, "/", "schema_version", H5T_NATIVE_INT64, 1, &schema);
    write_sources(&w, d);
    write_tensors(&w, d);
    if (d->compatibility != NULL) mg_h5_compatibility(&w, d->sources, d->compatibility);
    if (d->nxn != NULL) mg_h5_nxn(&w, d->sources, d->nxn);
    if (d->grid != NULL) mg_h5_grid(&w, d->sources, d->grid);
    if (d->microscope != NULL) mg_h5_microscope(&w, d->microscope);
    write_provenance(&w, d);
    if (w.file >= 0 && H5Fclose(w.file) < 0) w.failed = true;
  }
  H5E_END_TRY
  if (w.failed && w.status == MG_OK)
    w.status = mg_fail(MG_ERR_IO, "%s: writing the result failed (no space, or no permission?)", path);
  status = w.failed ? w.status : mg_result_seal(path, &block);
  mg_result_block_free(&block);
  if (status != MG_OK) unlink(path);
  return status;
}
