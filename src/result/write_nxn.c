/* Every source on every target: its answers row by row as they are given, and what they are worth. */

#include <stdio.h>
#include <stdlib.h>

#include "hdf5_impl.h"
#include "mergegrid/text.h"

static const char *const GROUPS[2] = {"/nxn", "/nxn_select"};

typedef struct part_writer {
  mg_h5_rows *predictions, *logits; /* [M] */
  double *accuracy, *macro_f1;      /* [N, M] */
} part_writer;

typedef struct nxn_writer {
  mg_h5_writer *w;
  const mg_result_nxn *nxn;
  size_t sources, targets;
  part_writer parts[2];
  int32_t *predictions; /* of the longest part */
  float *logits;
} nxn_writer;

static void write_texts(mg_h5_writer *w, const mg_result_nxn *nxn) {
  char path[160], group[144];
  mg_h5_strings(w, "/targets", nxn->targets->items, sizeof(char *), nxn->targets->count, "locale of a target");
  mg_h5_group(w, "/texts");
  for (size_t m = 0; m < nxn->targets->count; m++) {
    const mg_result_texts *t = &nxn->texts[m];
    const hsize_t count = t->count;
    snprintf(group, sizeof group, "/texts/%.128s", nxn->targets->items[m]);
    mg_h5_group(w, group);
    snprintf(path, sizeof path, "%s/id", group);
    mg_h5_strings(w, path, t->id, sizeof(char *), t->count, "id of a text, in the order of the file");
    snprintf(path, sizeof path, "%s/partition", group);
    mg_h5_strings(w, path, t->partition, sizeof(char *), t->count, "which part of the data it belongs to");
    snprintf(path, sizeof path, "%s/label", group);
    mg_h5_numbers(w, path, H5T_NATIVE_INT32, 1, &count, t->label, "its class, an index into /labels", "1");
  }
}

/* The group, its scales and room for the answers. */
static void begin_part(nxn_writer *n, const mg_source_list *sources, int part) {
  mg_h5_writer *w = n->w;
  const mg_result_nxn *nxn = n->nxn;
  part_writer *p = &n->parts[part];
  char path[160];
  mg_h5_group(w, GROUPS[part]);
  snprintf(path, sizeof path, "%s/source", GROUPS[part]);
  mg_h5_strings(w, path, &sources->items->id, sizeof *sources->items, sources->count, "source of a row");
  mg_h5_make_scale(w, path, "source");
  snprintf(path, sizeof path, "%s/target", GROUPS[part]);
  mg_h5_strings(w, path, nxn->targets->items, sizeof(char *), nxn->targets->count, "target of a column");
  mg_h5_make_scale(w, path, "target");
  snprintf(path, sizeof path, "%s/predictions", GROUPS[part]);
  mg_h5_group(w, path);
  snprintf(path, sizeof path, "%s/logits", GROUPS[part]);
  if (nxn->logits) mg_h5_group(w, path);
  for (size_t m = 0; m < n->targets; m++) {
    const hsize_t dims[3] = {n->sources, nxn->texts[m].part_count[part], nxn->classes};
    snprintf(path, sizeof path, "%s/predictions/%.128s", GROUPS[part], nxn->targets->items[m]);
    mg_h5_rows_begin(w, path, H5T_NATIVE_INT32, 2, dims, &p->predictions[m]);
    snprintf(path, sizeof path, "%s/logits/%.128s", GROUPS[part], nxn->targets->items[m]);
    if (nxn->logits) mg_h5_rows_begin(w, path, H5T_NATIVE_FLOAT, 3, dims, &p->logits[m]);
  }
}

static void write_answers(nxn_writer *n) {
  const mg_result_nxn *nxn = n->nxn;
  for (size_t s = 0; s < n->sources; s++)
    for (int part = 0; part < 2; part++)
      for (size_t m = 0; m < n->targets && !n->w->failed; m++) {
        part_writer *p = &n->parts[part];
        mg_scores scores = {0};
        const mg_status status = nxn->answer(nxn->context, s, part, m, n->predictions, n->logits, &scores);
        if (status != MG_OK) {
          n->w->failed = true;
          n->w->status = status;
          return;
        }
        mg_h5_rows_put(n->w, &p->predictions[m], n->predictions);
        if (nxn->logits) mg_h5_rows_put(n->w, &p->logits[m], n->logits);
        p->accuracy[s * n->targets + m] = scores.accuracy;
        p->macro_f1[s * n->targets + m] = scores.macro_f1;
      }
}

static void write_scores(nxn_writer *n, int part, const char *name, const double *values, const char *long_name) {
  char path[64], source[64], target[64];
  const hsize_t dims[2] = {n->sources, n->targets};
  snprintf(path, sizeof path, "%s/%s", GROUPS[part], name);
  snprintf(source, sizeof source, "%s/source", GROUPS[part]);
  snprintf(target, sizeof target, "%s/target", GROUPS[part]);
  mg_h5_numbers(n->w, path, H5T_NATIVE_DOUBLE, 2, dims, values, long_name, "1");
  mg_h5_scale(n->w, path, source, 0);
  mg_h5_scale(n->w, path, target, 1);
}

/* Flags beside the scores that they are about, since a NaN alone says nothing; a row of one failure, in words, once. */
static void write_failures(nxn_writer *n, int part) {
  char path[64], source[64], target[64];
  const hsize_t dims[2] = {n->sources, n->targets};
  const hid_t boolean = mg_h5_bool_type();
  bool *failed = mg_alloc_zero(n->sources, n->targets * sizeof *failed);
  if (failed == NULL) n->w->failed = true, n->w->status = MG_ERR_NOMEM;
  for (size_t k = 0; failed != NULL && n->nxn->failures != NULL && k < n->sources * n->targets; k++)
    failed[k] = n->nxn->failures[k] != NULL;
  snprintf(path, sizeof path, "%s/failed", GROUPS[part]);
  snprintf(source, sizeof source, "%s/source", GROUPS[part]);
  snprintf(target, sizeof target, "%s/target", GROUPS[part]);
  if (failed != NULL)
    mg_h5_numbers(n->w, path, boolean, 2, dims, failed, "the source has failed on the target: it has no scores there", NULL);
  mg_h5_scale(n->w, path, source, 0);
  mg_h5_scale(n->w, path, target, 1);
  H5Tclose(boolean);
  free(failed);
}

static void list_failures(nxn_writer *n, const mg_source_list *sources) {
  const size_t most = n->sources * n->targets;
  size_t count = 0;
  for (size_t k = 0; n->nxn->failures != NULL && k < most; k++) count += n->nxn->failures[k] != NULL;
  const char **of = mg_alloc(count, sizeof *of), **on = mg_alloc(count, sizeof *on), **why = mg_alloc(count, sizeof *why);
  const bool room = of != NULL && on != NULL && why != NULL;
  if (!room) n->w->failed = true, n->w->status = MG_ERR_NOMEM;
  for (size_t k = 0, next = 0; room && next < count; k++) {
    if (n->nxn->failures[k] == NULL) continue;
    of[next] = sources->items[k / n->targets].id;
    on[next] = n->nxn->targets->items[k % n->targets];
    why[next++] = n->nxn->failures[k];
  }
  mg_h5_group(n->w, "/nxn/failures");
  if (room) {
    mg_h5_strings(n->w, "/nxn/failures/source", of, sizeof *of, count, "source that has failed");
    mg_h5_strings(n->w, "/nxn/failures/target", on, sizeof *on, count, "on which target");
    mg_h5_strings(n->w, "/nxn/failures/error", why, sizeof *why, count, "why");
  }
  free(of), free(on), free(why);
}

static void end_part(nxn_writer *n, int part) {
  part_writer *p = &n->parts[part];
  size_t stand_ins = 0;
  bool *stands_in = mg_alloc(n->targets, sizeof *stands_in);
  if (stands_in == NULL) n->w->failed = true;
  for (size_t m = 0; m < n->targets; m++) {
    mg_h5_rows_end(n->w, &p->predictions[m], "class that a source gives a text, by row of the sources; -1: none", "1");
    if (n->nxn->logits) mg_h5_rows_end(n->w, &p->logits[m], "logits that a source gives a text, by class", "1");
    if (stands_in != NULL) stand_ins += stands_in[m] = part == 1 && n->nxn->texts[m].stands_in;
  }
  write_scores(n, part, "accuracy", p->accuracy, "share of right predictions");
  write_scores(n, part, "macro_f1", p->macro_f1, "mean F1 of the classes that occur");
  write_failures(n, part);
  if (part == 1 && stands_in != NULL) {
    mg_h5_bools(n->w, "/nxn_select/stands_in", n->targets, stands_in,
                "the target has no such texts: those of /nxn stand in for them");
    mg_h5_scale(n->w, "/nxn_select/stands_in", "/nxn_select/target", 0);
  }
  /* what the numbers are of: the other partition's name where it stands in everywhere */
  mg_h5_text_attribute(n->w, GROUPS[part], "partition", n->nxn->partition[stand_ins == n->targets ? 0 : part]);
  if (part == 1) mg_h5_text_attribute(n->w, GROUPS[part], "asked_partition", n->nxn->partition[1]);
  free(stands_in);
}

static bool make_room(nxn_writer *n) {
  size_t longest = 0;
  for (size_t m = 0; m < n->targets; m++)
    for (int part = 0; part < 2; part++)
      if (n->nxn->texts[m].part_count[part] > longest) longest = n->nxn->texts[m].part_count[part];
  n->predictions = mg_alloc(longest, sizeof *n->predictions);
  n->logits = n->nxn->logits ? mg_alloc(longest, n->nxn->classes * sizeof *n->logits) : NULL;
  bool room = n->predictions != NULL && (n->logits != NULL || !n->nxn->logits);
  for (int part = 0; part < 2; part++) {
    part_writer *p = &n->parts[part];
    p->predictions = mg_alloc_zero(n->targets, sizeof *p->predictions);
    p->logits = mg_alloc_zero(n->targets, sizeof *p->logits);
    p->accuracy = mg_alloc_zero(n->sources, n->targets * sizeof *p->accuracy);
    p->macro_f1 = mg_alloc_zero(n->sources, n->targets * sizeof *p->macro_f1);
    room = room && p->predictions && p->logits && p->accuracy && p->macro_f1;
  }
  return room;
}

void mg_h5_nxn(mg_h5_writer *w, const mg_source_list *sources, const mg_result_nxn *nxn) {
  nxn_writer n = {.w = w, .nxn = nxn, .sources = sources->count, .targets = nxn->targets->count};
  const bool room = make_room(&n);
  if (!room) w->failed = true, w->status = MG_ERR_NOMEM;
  write_texts(w, nxn);
  if (room) {
    for (int part = 0; part < 2; part++) begin_part(&n, sources, part);
    write_answers(&n);
    for (int part = 0; part < 2; part++) end_part(&n, part);
    list_failures(&n, sources);
  }
  for (int part = 0; part < 2; part++) {
    part_writer *p = &n.parts[part];
    free(p->predictions), free(p->logits), free(p->accuracy), free(p->macro_f1);
  }
  free(n.predictions), free(n.logits);
}
