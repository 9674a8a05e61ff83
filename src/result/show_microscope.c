/* The microscope for people: what was looked at, which layers moved most, how sure each model is. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "microscope_impl.h"

/* Rows of a model's layers by falling movement; the caller frees. NULL: out of memory. */
static size_t *rank_layers(const mg_frame *f, const char *model, size_t *count) {
  size_t *rows = mg_alloc(f->rows, sizeof *rows);
  *count = 0;
  for (size_t k = 0; rows != NULL && k < f->rows; k++) {
    size_t at = *count;
    const double moved = mg_frame_number(f, "delta_l2_sum", k);
    if (strcmp(mg_frame_text(f, "model", k), model) != 0) continue;
    for (; at > 0 && mg_frame_number(f, "delta_l2_sum", rows[at - 1]) < moved; at--) rows[at] = rows[at - 1];
    rows[at] = k;
    ++*count;
  }
  return rows;
}

/* Row of a model in the table of logits, or −1. */
static ptrdiff_t logit_row(const mg_frame *f, const char *model) {
  for (size_t k = 0; k < f->rows; k++)
    if (strcmp(mg_frame_text(f, "model", k), model) == 0) return (ptrdiff_t)k;
  return -1;
}

static const char *status_of(const mg_frame *setups, size_t row) {
  return mg_setup_status(mg_frame_number(setups, "exists", row) != 0, mg_frame_text(setups, "error", row));
}

/* With the reference, which may fail as well. */
static size_t count_status(const mg_frame *setups, const char *status) {
  size_t count = 0;
  for (size_t k = 0; k < setups->rows; k++) count += strcmp(status_of(setups, k), status) == 0;
  return count;
}

static void print_setup(const mg_microscope_tables *m, size_t row, size_t top) {
  const mg_frame *setups = &m->tables[MG_SCOPE_SETUPS], *layers = &m->tables[MG_SCOPE_LAYERS],
                 *logits = &m->tables[MG_SCOPE_LOGITS];
  const char *model = mg_frame_text(setups, "model", row), *sources = mg_frame_text(setups, "sources", row);
  const char *mode = mg_frame_text(setups, "mode", row), *path = mg_frame_text(setups, "path", row);
  size_t count;
  size_t *ranked = rank_layers(layers, model, &count);
  printf("  %-16s %s%s%s\n", model, mode[0] != '\0' ? mode : path, sources[0] != '\0' ? " of " : "", sources);
  if (mg_frame_text(setups, "error", row)[0] != '\0')
    printf("    %s: %s\n", status_of(setups, row), mg_frame_text(setups, "error", row));
  for (size_t k = 0; ranked != NULL && k < count && k < top; k++)
    printf("    %s %-32s moved %.4g (L2 sum), cosine %.4f\n", k == 0 ? "most:" : "     ",
           mg_frame_text(layers, "layer", ranked[k]), mg_frame_number(layers, "delta_l2_sum", ranked[k]),
           mg_frame_number(layers, "cosine_mean", ranked[k]));
  const ptrdiff_t logit = logit_row(logits, model);
  if (logit >= 0)
    printf("    confidence %.4f, entropy of the classes %.4f\n", mg_frame_number(logits, "confidence_mean", (size_t)logit),
           mg_frame_number(logits, "entropy_mean", (size_t)logit));
  free(ranked);
}

void mg_microscope_print(const mg_microscope_tables *m, size_t top) {
  const mg_frame *setups = &m->tables[MG_SCOPE_SETUPS];
  printf("\nmicroscope: against %s", m->reference);
  if (m->probes > 0) printf("; %lld probe texts (%s, padding %sd)", (long long)m->probes, m->probe_source, m->padding);
  printf("\n  %zu setups with the reference: %zu completed, %zu failed, %zu skipped\n", setups->rows,
         count_status(setups, "completed"), count_status(setups, "failed"), count_status(setups, "skipped"));
  for (size_t k = 0; k < setups->rows; k++) print_setup(m, k, top);
}

/* ---- JSON ---- */

static json_t *layers_json(const mg_frame *f, const char *model, size_t top) {
  size_t count;
  json_t *list = json_array();
  size_t *ranked = rank_layers(f, model, &count);
  for (size_t k = 0; ranked != NULL && k < count && k < top; k++)
    json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "layer", mg_frame_text(f, "layer", ranked[k]), "delta_l2_sum",
                                          mg_json_number(mg_frame_number(f, "delta_l2_sum", ranked[k])), "cosine_mean",
                                          mg_json_number(mg_frame_number(f, "cosine_mean", ranked[k]))));
  free(ranked);
  return list;
}

json_t *mg_microscope_json(const mg_microscope_tables *m, size_t top) {
  const mg_frame *setups = &m->tables[MG_SCOPE_SETUPS], *logits = &m->tables[MG_SCOPE_LOGITS];
  json_t *list = json_array();
  for (size_t k = 0; k < setups->rows; k++) {
    const char *model = mg_frame_text(setups, "model", k);
    const ptrdiff_t logit = logit_row(logits, model);
    json_t *one =
        json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:o}", "model", model, "kind", mg_frame_text(setups, "kind", k),
                  "status", status_of(setups, k), "exists", mg_frame_number(setups, "exists", k) != 0, "error",
                  mg_frame_text(setups, "error", k), "mode", mg_frame_text(setups, "mode", k), "sources",
                  mg_frame_text(setups, "sources", k), "moved_most", layers_json(&m->tables[MG_SCOPE_LAYERS], model, top));
    if (one != NULL && logit >= 0)
      json_object_set_new(one, "confidence_mean", mg_json_number(mg_frame_number(logits, "confidence_mean", (size_t)logit)));
    json_array_append_new(list, one);
  }
  return json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:I, s:o}", "reference", m->reference, "padding", m->padding, "probes",
                   (json_int_t)m->probes, "probe_source", m->probe_source, "completed",
                   (json_int_t)count_status(setups, "completed"), "failed", (json_int_t)count_status(setups, "failed"),
                   "skipped", (json_int_t)count_status(setups, "skipped"), "setups", list);
}
