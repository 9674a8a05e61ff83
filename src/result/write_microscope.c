/* The microscope: its tables, and every cell of the grid against the reference. */

#include <stdio.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/text.h"

static const char CELLS[] = "/microscope/cell_deltas";
enum { CELL_DATASETS = 6 };

size_t mg_h5_microscope_extents(void) {
  size_t extents = CELL_DATASETS;
  for (size_t k = 0; k < MG_MICROSCOPE_TABLES; k++) extents += mg_microscope_columns[k].count;
  return extents;
}

static void write_cells(mg_h5_writer *w, const mg_result_microscope *m) {
  const hsize_t dims[2] = {m->cell_count, m->tensor_count};
  const struct {
    const char *name, *long_name;
    const double *values;
  } arrays[] = {{"delta_l2", "L2 norm of a parameter's difference to the reference's", m->cell_delta_l2},
                {"cosine_with_reference", "cosine with the reference's", m->cell_cosine},
                {"candidate_norm", "L2 norm of the cell's", m->cell_norm}};
  mg_h5_group(w, CELLS);
  mg_h5_strings(w, "/microscope/cell_deltas/cell", m->cells, sizeof *m->cells, m->cell_count, "key of a row's cell");
  mg_h5_make_scale(w, "/microscope/cell_deltas/cell", "cell");
  mg_h5_strings(w, "/microscope/cell_deltas/parameter", m->parameter_names, sizeof *m->parameter_names, m->tensor_count,
                "a column's parameter");
  mg_h5_make_scale(w, "/microscope/cell_deltas/parameter", "parameter");
  for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) {
    char path[96];
    snprintf(path, sizeof path, "%s/%s", CELLS, arrays[k].name);
    mg_h5_numbers(w, path, H5T_NATIVE_DOUBLE, 2, dims, arrays[k].values, arrays[k].long_name, "1");
    mg_h5_scale(w, path, "/microscope/cell_deltas/cell", 0);
    mg_h5_scale(w, path, "/microscope/cell_deltas/parameter", 1);
  }
  mg_h5_numbers(w, "/microscope/cell_deltas/reference_norm", H5T_NATIVE_DOUBLE, 1, dims + 1, m->cell_reference_norm,
                "L2 norm of the reference's", "1");
  mg_h5_scale(w, "/microscope/cell_deltas/reference_norm", "/microscope/cell_deltas/parameter", 0);
}

void mg_h5_microscope(mg_h5_writer *w, const mg_result_microscope *m) {
  const struct {
    const void *rows;
    size_t count;
  } tables[MG_MICROSCOPE_TABLES] = {{m->parameters, m->parameter_count}, {m->layers, m->layer_count},
                                    {m->attentions, m->attention_count}, {m->hidden_states, m->hidden_count},
                                    {m->logits, m->logit_count},         {m->setups, m->setup_count}};
  mg_h5_group(w, "/microscope");
  mg_h5_text_attribute(w, "/microscope", "digest", m->digest);
  mg_h5_text_attribute(w, "/microscope", "reference", m->reference);
  mg_h5_text_attribute(w, "/microscope", "padding", m->padding);
  mg_h5_text_attribute(w, "/microscope", "probe_source", m->probe_source);
  mg_h5_attribute(w, "/microscope", "probes", H5T_NATIVE_INT64, 1, &m->probes);
  if (m->no_signals != NULL) mg_h5_text_attribute(w, "/microscope", "no_signals", m->no_signals);
  if (m->no_cells != NULL) mg_h5_text_attribute(w, "/microscope", "no_cells", m->no_cells);
  for (size_t k = 0; k < MG_MICROSCOPE_TABLES; k++) mg_h5_table(w, &mg_microscope_columns[k], tables[k].rows, tables[k].count);
  if (m->no_cells == NULL) write_cells(w, m);
}
