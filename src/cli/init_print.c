/* What init writes: what was found as comments, and the configuration. */

#include "init_impl.h"

#include <string.h>

#include "mergegrid/config.h"
#include "mergegrid/encoder.h"
#include "mergegrid/tokenizer.h"

enum { COMMENT_WIDTH = 110, LISTED_TENSORS = 20, LISTED_NOTES = 50 };

/* Larger Grams, with the matrices made of them, would not fit the default memory budget: coarser ones are proposed. */
static const double LARGEST_GRAMS = 0x1p29;
#define CKA_LOCALE "en-US" /* default of compatibility.cka.locale */

/* ---- names ---- */

void mg_init_scalar(mg_text *out, const char *text) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  const bool path_like = strchr(text, '/') != NULL || strchr(text, '-') != NULL;
  const bool begins_plain = text[0] == '/' || text[0] == '.' || (text[0] >= 'A' && text[0] <= 'z' && text[0] != '-');
  if (path_like && begins_plain && text[strspn(text, plain)] == '\0') {
    mg_text_append(out, "%s", text);
    return;
  }
  mg_text_append(out, "\"");
  mg_yaml_escape(out, text);
  mg_text_append(out, "\"");
}

/* "# heading: a, b, c", continued on further comment lines where it is long; at most `most` names in full. */
static void append_names(mg_text *out, const char *heading, const mg_strings *names, size_t most) {
  const size_t begin = out->size;
  size_t line = begin;
  mg_text_append(out, "# %s:", heading);
  if (names->count == 0) mg_text_append(out, " none");
  for (size_t k = 0; k < names->count && k < most; k++) {
    mg_text name = {0};
    mg_yaml_escape(&name, names->items[k]);
    if (out->size - line + name.size + 2 > COMMENT_WIDTH && k > 0) {
      mg_text_append(out, "\n#  ");
      line = out->size - 3;
    }
    mg_text_append(out, " ");
    if (name.size > 0) mg_text_append_bytes(out, name.data, name.size);
    if (name.size == 0) mg_text_append(out, "\"\"");
    mg_text_append(out, "%s", k + 1 < names->count ? "," : "");
    out->failed |= name.failed;
    mg_text_free(&name);
  }
  if (names->count > most) mg_text_append(out, " and %zu more", names->count - most);
  mg_text_append(out, "\n");
}

void mg_init_line(mg_text *out, const char *heading, const char *text) {
  mg_text_append(out, "# %s: ", heading);
  mg_yaml_escape(out, text);
  mg_text_append(out, "\n");
}

/* ---- writing: what was found ---- */

static void append_dtypes(mg_text *out, const mg_family *family) {
  bool seen[MG_DTYPE_COUNT] = {false}, any = false;
  for (size_t s = 0; s < family->source_count; s++)
    for (size_t k = 0; k < family->table.count; k++)
      if (family->sources[s].locations[k].dtype < MG_DTYPE_COUNT) seen[family->sources[s].locations[k].dtype] = true;
  for (int d = 0; d < MG_DTYPE_COUNT; d++) {
    if (!seen[d]) continue;
    mg_text_append(out, "%s%s", any ? " and " : "", mg_dtype_name((mg_dtype)d));
    any = true;
  }
}

static mg_status append_heads(mg_text *out, const mg_tensor_table *table) {
  mg_status status = MG_OK;
  mg_strings names = {0};
  for (size_t k = 0; k < table->count; k++)
    if (table->tensors[k].source_only) MG_TRY(mg_strings_add(&names, table->tensors[k].name), cleanup);
  append_names(out, "tensors that only the sources have", &names, LISTED_TENSORS);
cleanup:
  mg_strings_free(&names);
  return status;
}

static mg_status append_family(mg_text *out, const mg_findings *f) {
  mg_status status = MG_OK;
  const mg_family *family = f->family;
  const double count = (double)f->sources.count;
  char one[32], all[32], heading[64];
  mg_init_line(out, "base", f->options->base);
  snprintf(heading, sizeof heading, "%zu source%s", f->sources.count, f->sources.count == 1 ? "" : "s");
  append_names(out, heading, &f->locales, SIZE_MAX);
  mg_text_append(out, "# each: %zu tensors, %lld parameters, ", family->table.count, (long long)family->table.elements);
  append_dtypes(out, family);
  mg_text_append(out, ", %s in files; all: %s\n", mg_format_bytes(f->source_bytes / count, one),
                 mg_format_bytes(f->source_bytes, all));
  snprintf(heading, sizeof heading, "%zu layers", f->layers.count);
  append_names(out, heading, &f->layers, LISTED_TENSORS);
  snprintf(heading, sizeof heading, "%zu labels", family->labels.count);
  append_names(out, heading, &family->labels, SIZE_MAX);
  MG_TRY(append_heads(out, &family->table), done);
  for (size_t k = 0; k < family->notes.count && k < LISTED_NOTES; k++) mg_init_line(out, "note", family->notes.items[k]);
  if (family->notes.count > LISTED_NOTES) mg_text_append(out, "# and %zu notes more\n", family->notes.count - LISTED_NOTES);
  if (f->sources.count == 1) mg_text_append(out, "# note: one source has no other to be compared with\n");
done:
  return status;
}

static mg_status append_without(mg_text *out, const char *heading, const mg_strings *these, const mg_strings *those) {
  mg_strings rest = {0};
  const mg_status status = mg_strings_without(these, those, &rest);
  if (status == MG_OK) append_names(out, heading, &rest, SIZE_MAX);
  mg_strings_free(&rest);
  return status;
}

static mg_status append_repeated(mg_text *out, const char *heading, const mg_strings *labels) {
  mg_strings repeated = {0};
  const mg_status status = mg_strings_repeated(labels, &repeated);
  if (status == MG_OK) append_names(out, heading, &repeated, SIZE_MAX);
  mg_strings_free(&repeated);
  return status;
}

static mg_status append_matrix(mg_text *out, const mg_findings *f) {
  mg_status status = MG_OK;
  const mg_labelled_table *m = &f->matrix;
  mg_strings row_only = {0}, column_only = {0};
  if (f->options->similarity == NULL) return MG_OK;
  mg_text_append(out, "#\n");
  mg_init_line(out, "similarity", f->options->similarity);
  mg_text_append(out, "# %zu rows, %zu columns\n", m->rows.count, m->columns.count);
  MG_TRY(append_without(out, "  labels that have no checkpoint", &m->columns, &f->locales), cleanup);
  MG_TRY(append_without(out, "  checkpoints that have no label", &f->locales, &m->columns), cleanup);
  MG_TRY(append_repeated(out, "  labels that are repeated", &m->columns), cleanup);
  MG_TRY(mg_strings_without(&m->rows, &m->columns, &row_only), cleanup);
  MG_TRY(mg_strings_without(&m->columns, &m->rows, &column_only), cleanup);
  if (row_only.count > 0) append_names(out, "  labels of rows that are no column", &row_only, SIZE_MAX);
  if (column_only.count > 0) append_names(out, "  labels of columns that are no row", &column_only, SIZE_MAX);
cleanup:
  mg_strings_free(&row_only);
  mg_strings_free(&column_only);
  return status;
}

static mg_status append_texts(mg_text *out, const mg_findings *f) {
  mg_status status = MG_OK;
  if (f->options->texts == NULL) return MG_OK;
  mg_text_append(out, "#\n");
  mg_init_line(out, "texts", f->options->texts);
  mg_text_append(out, "# %zu files\n", f->texts.count);
  MG_TRY(append_without(out, "  texts that have no checkpoint", &f->texts, &f->locales), done);
  MG_TRY(append_without(out, "  checkpoints that have no texts", &f->locales, &f->texts), done);
done:
  return status;
}

/* ---- writing: the configuration ---- */

static void append_yaml_family(mg_text *out, const mg_findings *f) {
  mg_text_append(out, "\nfamily:\n  base: ");
  mg_init_scalar(out, f->options->base);
  mg_text_append(out, "\n  sources: ");
  mg_init_scalar(out, f->options->sources);
  mg_text_append(out, "\n  # Every directory that the pattern matches, sorted by bytes; or only these, in this order:\n"
                      "  # locales: [");
  for (size_t k = 0; k < f->locales.count && k < 2; k++) {
    mg_text_append(out, k ? ", " : "");
    mg_init_scalar(out, f->locales.items[k]);
  }
  mg_text_append(out, "]\n"
                      "  missing: error # or skip: a source without a checkpoint is left out, and named in the result\n"
                      "  allow_nonfinite: false\n");
}

static void append_yaml_shards(mg_text *out, const mg_findings *f) {
  char full[32], half[32];
  const double elements = (double)f->family->table.elements * (double)f->sources.count;
  mg_text_append(
      out,
      "\n# The task vectors: %s on the disk in f32, %s in bf16 or f16. `dir: none` stores none and reads the "
      "checkpoints.\nshards:\n  dir: shards\n  dtype: f32\n  stage_to: none # or a directory of each node, as $TMPDIR: "
      "a run copies its shards there first\n",
      mg_format_bytes(4 * elements, full), mg_format_bytes(2 * elements, half));
}

static double gram_bytes(const mg_findings *f, size_t groups) {
  const double count = (double)f->sources.count;
  return (double)groups * count * count * sizeof(double);
}

/* NULL where the models can be run on the texts, else why not. */
static const char *why_not_run(const mg_findings *f) {
  mg_encoder_shape shape;
  if (f->options->texts == NULL) return "no texts were named (--texts)";
  if (mg_encoder_shape_read(f->options->base, &shape) != MG_OK) return mg_error_message();
  if (!mg_tokenizer_present(f->options->base)) return "the base has no tokenizer.json or sentencepiece.bpe.model";
  for (size_t t = 0; t < f->family->table.count; t++)
    if (mg_weight_name_matches(f->family->table.tensors[t].name, "classifier.out_proj.weight")) return NULL;
  return "the sources have no classification head (classifier.out_proj.weight)";
}

static void append_yaml_texts(mg_text *out, const mg_findings *f) {
  if (f->options->texts == NULL) return;
  mg_text_append(out, "\n# Fields are MASSIVE's unless named: id, text, label, partition (`mergegrid --help config`).\n"
                      "texts: {files: \"");
  mg_yaml_escape(out, f->options->texts);
  mg_text_append(out, "\"");
  if (f->ablation.text_column != NULL) mg_text_append(out, ", text: ");
  if (f->ablation.text_column != NULL) mg_init_scalar(out, f->ablation.text_column);
  mg_text_append(out, "}\n");
}

static void append_yaml_stages(mg_text *out, const mg_findings *f) {
  const char *why_not = why_not_run(f);
  const bool grid = f->options->from != NULL;
  if (grid && f->options->texts == NULL) { /* a run says what is missing rather than leave the grid out */
    mg_text_append(out,
                   "\n# The grid needs labelled texts: texts: {files: \"texts/{locale}.jsonl\"}, or init --texts.\n"
                   "stages: [grid]\n\ncompatibility:\n  metrics: [task_vector_cosine%s]\n",
                   f->ablation.needs_cka ? ", cka" : "");
    return;
  }
  if (why_not != NULL && (f->options->texts != NULL || grid)) {
    mg_text_append(out, grid ? "\n# Not cka, nxn and grid: " : "\n# Not cka and nxn: ");
    mg_yaml_escape(out, why_not);
  }
  mg_text_append(out, "\nstages: [compatibility%s%s]\n\ncompatibility:\n  metrics: [task_vector_cosine%s]\n",
                 why_not ? "" : ", nxn", grid && !why_not ? ", grid" : "", why_not ? "" : ", cka");
}

/* CKA's own probe texts are English ones; where there are none, those of another locale have to be named. */
static void append_yaml_probes(mg_text *out, const mg_findings *f) {
  if (f->texts.count == 0 || why_not_run(f) != NULL || mg_strings_find(&f->texts, CKA_LOCALE) >= 0) return;
  mg_text_append(out, "  # The probe texts; there are none of %s.\n  cka: {locale: ", CKA_LOCALE);
  mg_init_scalar(out, f->texts.items[0]);
  mg_text_append(out, "}\n");
}

static void append_yaml_compatibility(mg_text *out, const mg_findings *f) {
  char size[32];
  const size_t tensors = f->family->table.count, layers = f->layers.count + 1;
  const char *gram = gram_bytes(f, tensors) <= LARGEST_GRAMS  ? "tensor"
                     : gram_bytes(f, layers) <= LARGEST_GRAMS ? "layer"
                                                              : "total";
  append_yaml_stages(out, f);
  append_yaml_probes(out, f);
  mg_text_append(out, "  # Globs of tensors that take no part in the cosines.\n  exclude: [");
  for (size_t k = 0; k < f->exclude.count; k++) {
    mg_text_append(out, k ? ", \"" : "\"");
    mg_yaml_escape(out, f->exclude.items[k]);
    mg_text_append(out, "\"");
  }
  mg_text_append(out, "]\n  # What inner products are kept of: tensor (%s here), layer or total.\n  gram: %s\n",
                 mg_format_bytes(gram_bytes(f, tensors), size), gram);
}

static void append_yaml_rest(mg_text *out, const mg_findings *f) {
  mg_text_append(out, "\ncompute:\n  backend: auto\n  threads: auto # a rank\n  memory_budget: 2GiB # a rank\n"
                      "  precision: fp32\n\nresult: result.h5\nseed: 42\n");
  if (f->options->from != NULL) mg_text_append(out, "\n%s", f->ablation.grid.data);
  if (f->options->similarity == NULL || f->options->from != NULL) return;
  mg_text_append(out, "\n# What `recipe` can choose sources by.\ngrid: {similarity: {URIEL: \"");
  mg_yaml_escape(out, f->options->similarity);
  mg_text_append(out, "\"}}\n");
}

/* As a comment: what to look into is known later. */
static void append_yaml_microscope(mg_text *out, const mg_findings *f) {
  const mg_source_list *list = &f->sources;
  if (list->count < 2) return;
  mg_text_append(out, "\n# To look into models, add microscope to the stages:\n"
                      "# microscope: {reference: {source: \"");
  mg_yaml_escape(out, list->items[0].id);
  mg_text_append(out, "\"}, setups: {other: {source: \"");
  mg_yaml_escape(out, list->items[1].id);
  mg_text_append(out, "\"}, merge: {method: linear, sources: [\"");
  mg_yaml_escape(out, list->items[0].id);
  mg_text_append(out, "\", \"");
  mg_yaml_escape(out, list->items[1].id);
  mg_text_append(out, "\"]}}}\n");
}

mg_status mg_init_compose(const mg_findings *f, mg_text *out) {
  mg_status status = MG_OK;
  mg_text_append(out, "# A configuration for mergegrid. Paths are relative to the directory of this file: keep it where\n"
                      "# `mergegrid init` ran. `mergegrid help config` explains every key.\n#\n");
  MG_TRY(append_family(out, f), done);
  MG_TRY(append_matrix(out, f), done);
  MG_TRY(append_texts(out, f), done);
  if (f->options->from != NULL) mg_text_append(out, "#\n");
  if (f->options->from != NULL) mg_init_ablation_remarks(out, f->options->from, &f->ablation);
  append_yaml_family(out, f);
  append_yaml_shards(out, f);
  append_yaml_texts(out, f);
  append_yaml_compatibility(out, f);
  append_yaml_rest(out, f);
  append_yaml_microscope(out, f);
  if (out->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
done:
  return status;
}
