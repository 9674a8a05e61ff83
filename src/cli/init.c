/* init: a commented run.yaml for the checkpoints that are there. */

#include "init_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mergegrid/family.h"
#include "mergegrid/io.h"

enum { COMMENT_WIDTH = 110, LISTED_TENSORS = 20, LISTED_NOTES = 50 };

/* Above this a run keeps the Grams of layers, or the total alone, unless told otherwise. */
static const double LARGEST_GRAMS = 0x1p30;

static const char PLACE[] = "{locale}";

/** Everything that init knows before it writes a line. */
typedef struct findings {
  const mg_init_options *options;
  mg_source_list sources;
  mg_strings locales;
  mg_family *family;
  mg_strings layers, exclude;
  double source_bytes; /* of all safetensors files of all sources */
  mg_matrix_labels matrix;
  mg_strings texts;
} findings;

static void findings_free(findings *f) {
  mg_source_list_free(&f->sources);
  mg_strings_free(&f->locales);
  mg_family_close(&f->family);
  mg_strings_free(&f->layers);
  mg_strings_free(&f->exclude);
  mg_matrix_labels_free(&f->matrix);
  mg_strings_free(&f->texts);
}

/* ---- looking ---- */

static mg_status check_pattern(const char *option, const char *pattern) {
  const char *place = strstr(pattern, PLACE);
  if (place == NULL)
    return mg_fail(MG_ERR_USAGE, "%s: '%s' has no {locale} in it; a pattern that has it where the names differ was expected",
                   option, pattern);
  if (strstr(place + strlen(PLACE), PLACE) != NULL)
    return mg_fail(MG_ERR_USAGE, "%s: '%s' has more than one {locale}", option, pattern);
  return MG_OK;
}

/* What stands in a YAML file has to be UTF-8; a file system's names need not be. */
static mg_status check_text(const char *what, const char *text) {
  if (mg_valid_utf8(text, strlen(text))) return MG_OK;
  return mg_fail(MG_ERR_INPUT, "%s: '%s' is not UTF-8, which a configuration has to be", what, text);
}

static mg_status check_options(const mg_init_options *o) {
  mg_status status = MG_OK;
  MG_TRY(check_text("--base", o->base), done);
  MG_TRY(check_text("--sources", o->sources), done);
  MG_TRY(check_pattern("--sources", o->sources), done);
  if (o->similarity != NULL) MG_TRY(check_text("--similarity", o->similarity), done);
  if (o->texts != NULL) MG_TRY(check_text("--texts", o->texts), done);
  if (o->texts != NULL) MG_TRY(check_pattern("--texts", o->texts), done);
done:
  return status;
}

static mg_status find_sources(findings *f) {
  mg_status status = MG_OK;
  mg_family_spec spec = {.kind = MG_SOURCES_PATTERN, .pattern = (char *)(uintptr_t)f->options->sources};
  MG_TRY(mg_sources_resolve(&spec, NULL, NULL, &f->sources), done);
  for (size_t k = 0; k < f->sources.count; k++) {
    MG_TRY(check_text("--sources", f->sources.items[k].id), done);
    MG_TRY(mg_strings_add(&f->locales, f->sources.items[k].locale), done);
  }
done:
  return status;
}

static mg_status measure_files(findings *f) {
  mg_status status = MG_OK;
  for (size_t s = 0; s < f->family->source_count; s++) {
    const mg_strings *files = &f->family->sources[s].files;
    for (size_t k = 0; k < files->count; k++) {
      mg_file_stamp stamp;
      MG_TRY(mg_file_stamp_get(files->items[k], &stamp), done);
      f->source_bytes += (double)stamp.size;
    }
  }
done:
  return status;
}

static mg_status find_layers(findings *f) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < f->family->table.count; k++) {
    const char *layer = f->family->table.tensors[k].layer;
    if (layer[0] != '\0' && mg_strings_find(&f->layers, layer) < 0) MG_TRY(mg_strings_add(&f->layers, layer), done);
  }
done:
  return status;
}

/* ---- which tensors to leave out ---- */

/* Does a tensor that the base has too begin with these bytes? */
static bool is_shared_prefix(const mg_tensor_table *table, const char *name, size_t length) {
  for (size_t k = 0; k < table->count; k++)
    if (!table->tensors[k].source_only && strncmp(table->tensors[k].name, name, length) == 0) return true;
  return false;
}

/* The shortest leading components of a head's name that nothing of the backbone has, as a glob. */
static void head_glob(const mg_tensor_table *table, const char *name, mg_text *glob) {
  size_t length = strlen(name);
  for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
    if (is_shared_prefix(table, name, (size_t)(dot - name) + 1)) continue;
    length = (size_t)(dot - name) + 1;
    break;
  }
  for (size_t k = 0; k < length; k++) mg_text_append(glob, strchr("*?[]\\", name[k]) != NULL ? "\\%c" : "%c", name[k]);
  if (name[length] != '\0') mg_text_append(glob, "*");
}

/* The default, and whatever else only the sources have. */
static mg_status choose_exclude(findings *f) {
  mg_status status = MG_OK;
  mg_text glob = {0};
  MG_TRY(mg_strings_add(&f->exclude, "classifier.*"), cleanup);
  for (size_t k = 0; k < f->family->table.count; k++) {
    const mg_tensor *t = &f->family->table.tensors[k];
    if (!t->source_only || strncmp(t->name, "classifier.", strlen("classifier.")) == 0) continue;
    glob.size = 0;
    head_glob(&f->family->table, t->name, &glob);
    if (glob.failed) {
      status = mg_fail(MG_ERR_NOMEM, "out of memory");
      goto cleanup;
    }
    if (mg_strings_find(&f->exclude, glob.data) < 0) MG_TRY(mg_strings_add(&f->exclude, glob.data), cleanup);
  }
cleanup:
  mg_text_free(&glob);
  return status;
}

static mg_status look(findings *f) {
  mg_status status = MG_OK;
  mg_strings heads = {0};
  MG_TRY(check_options(f->options), cleanup);
  MG_TRY(find_sources(f), cleanup);
  MG_TRY(mg_strings_add(&heads, "classifier.*"), cleanup);
  MG_TRY(mg_family_open(f->options->base, &f->sources, &heads, &f->family), cleanup);
  MG_TRY(measure_files(f), cleanup);
  MG_TRY(find_layers(f), cleanup);
  MG_TRY(choose_exclude(f), cleanup);
  if (f->options->similarity != NULL) MG_TRY(mg_matrix_labels_read(f->options->similarity, &f->matrix), cleanup);
  if (f->options->texts != NULL) MG_TRY(mg_texts_find(f->options->texts, &f->texts), cleanup);
cleanup:
  mg_strings_free(&heads);
  return status;
}

/* ---- writing: names that may hold anything ---- */

static bool is_printable(uint32_t point) {
  if (point < 0x20 || (point >= 0x7F && point < 0xA0)) return false;
  /* what YAML takes for a line break, does not allow, or an editor would not show */
  return point != 0x2028 && point != 0x2029 && point != 0xFEFF && point != 0xFFFE && point != 0xFFFF;
}

/* Valid UTF-8 with everything escaped that ends a line or is not allowed in YAML; `also` are further bytes to escape. */
static void append_escaped(mg_text *out, const char *text, const char *also) {
  for (const unsigned char *p = (const unsigned char *)text; *p != '\0';) {
    const size_t length = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    uint32_t point = length == 1 ? *p : *p & (0x7Fu >> length);
    for (size_t k = 1; k < length; k++) point = point << 6 | (p[k] & 0x3Fu);
    if (!is_printable(point))
      mg_text_append(out, point < 0x100 ? "\\x%02X" : "\\u%04X", point);
    else if (length == 1 && strchr(also, *p) != NULL)
      mg_text_append(out, "\\%c", *p);
    else
      mg_text_append_bytes(out, p, length);
    p += length;
  }
}

/* A scalar: as it stands where nothing but a string can be meant, quoted elsewhere. */
static void append_scalar(mg_text *out, const char *text) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  const bool path_like = strchr(text, '/') != NULL || strchr(text, '-') != NULL;
  const bool begins_plain = text[0] == '/' || text[0] == '.' || (text[0] >= 'A' && text[0] <= 'z' && text[0] != '-');
  if (path_like && begins_plain && text[strspn(text, plain)] == '\0') {
    mg_text_append(out, "%s", text);
    return;
  }
  mg_text_append(out, "\"");
  append_escaped(out, text, "\"\\");
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
    append_escaped(&name, names->items[k], "");
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

static void append_line(mg_text *out, const char *heading, const char *text) {
  mg_text_append(out, "# %s: ", heading);
  append_escaped(out, text, "");
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

static mg_status append_family(mg_text *out, const findings *f) {
  mg_status status = MG_OK;
  const mg_family *family = f->family;
  const double count = (double)f->sources.count;
  char one[32], all[32], heading[64];
  append_line(out, "base", f->options->base);
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
  for (size_t k = 0; k < family->notes.count && k < LISTED_NOTES; k++) append_line(out, "note", family->notes.items[k]);
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

static mg_status append_matrix(mg_text *out, const findings *f) {
  mg_status status = MG_OK;
  const mg_matrix_labels *m = &f->matrix;
  mg_strings row_only = {0}, column_only = {0};
  if (f->options->similarity == NULL) return MG_OK;
  mg_text_append(out, "#\n");
  append_line(out, "similarity", f->options->similarity);
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

static mg_status append_texts(mg_text *out, const findings *f) {
  mg_status status = MG_OK;
  if (f->options->texts == NULL) return MG_OK;
  mg_text_append(out, "#\n");
  append_line(out, "texts", f->options->texts);
  mg_text_append(out, "# %zu files\n", f->texts.count);
  MG_TRY(append_without(out, "  texts that have no checkpoint", &f->texts, &f->locales), done);
  MG_TRY(append_without(out, "  checkpoints that have no texts", &f->locales, &f->texts), done);
done:
  return status;
}

/* ---- writing: the configuration ---- */

static void append_yaml_family(mg_text *out, const findings *f) {
  mg_text_append(out, "\nfamily:\n  base: ");
  append_scalar(out, f->options->base);
  mg_text_append(out, "\n  sources: ");
  append_scalar(out, f->options->sources);
  mg_text_append(out, "\n  # Every directory that the pattern matches, sorted by bytes; or only these, in this order:\n"
                      "  # locales: [");
  for (size_t k = 0; k < f->locales.count && k < 2; k++) {
    mg_text_append(out, k ? ", " : "");
    append_scalar(out, f->locales.items[k]);
  }
  mg_text_append(out, "]\n"
                      "  missing: error # or skip: a source without a checkpoint is left out, and named in the result\n"
                      "  allow_nonfinite: false\n");
}

static void append_yaml_shards(mg_text *out, const findings *f) {
  char full[32], half[32];
  const double elements = (double)f->family->table.elements * (double)f->sources.count;
  mg_text_append(out,
                 "\n# The task vectors: %s on the disk in f32, %s in bf16 or f16. `dir: none` stores none and reads the "
                 "checkpoints.\nshards:\n  dir: shards\n  dtype: f32\n",
                 mg_format_bytes(4 * elements, full), mg_format_bytes(2 * elements, half));
}

static double gram_bytes(const findings *f, size_t groups) {
  const double count = (double)f->sources.count;
  return (double)groups * count * count * sizeof(double);
}

static void append_yaml_compatibility(mg_text *out, const findings *f) {
  char size[32];
  const size_t tensors = f->family->table.count, layers = f->layers.count + 1;
  const char *gram = gram_bytes(f, tensors) <= LARGEST_GRAMS  ? "tensor"
                     : gram_bytes(f, layers) <= LARGEST_GRAMS ? "layer"
                                                              : "total";
  mg_text_append(out, "\nstages: [compatibility]\n\ncompatibility:\n  metrics: [task_vector_cosine]\n"
                      "  # Globs of tensors that take no part in the cosines.\n  exclude: [");
  for (size_t k = 0; k < f->exclude.count; k++) {
    mg_text_append(out, k ? ", \"" : "\"");
    append_escaped(out, f->exclude.items[k], "\"\\");
    mg_text_append(out, "\"");
  }
  mg_text_append(out, "]\n  # What inner products are kept of: tensor (%s here), layer or total.\n  gram: %s\n",
                 mg_format_bytes(gram_bytes(f, tensors), size), gram);
}

static void append_yaml_rest(mg_text *out, const findings *f) {
  mg_text_append(out, "\ncompute:\n  backend: auto\n  threads: auto # a rank\n  memory_budget: 2GiB # a rank\n"
                      "  precision: fp32\n\nresult: result.h5\nseed: 42\n");
  if (f->options->similarity == NULL && f->options->texts == NULL) return;
  mg_text_append(out, "\n# For stages that this version does not have yet:\n");
  if (f->options->texts != NULL) {
    mg_text_append(out, "# texts: {files: \"");
    append_escaped(out, f->options->texts, "\"\\");
    mg_text_append(out, "\"}\n");
  }
  if (f->options->similarity != NULL) {
    mg_text_append(out, "# grid: {similarity: {URIEL: \"");
    append_escaped(out, f->options->similarity, "\"\\");
    mg_text_append(out, "\"}}\n");
  }
}

static mg_status compose(const findings *f, mg_text *out) {
  mg_status status = MG_OK;
  mg_text_append(out, "# A configuration for mergegrid. Paths are relative to the directory of this file: keep it where\n"
                      "# `mergegrid init` ran. `mergegrid help config` explains every key.\n#\n");
  MG_TRY(append_family(out, f), done);
  MG_TRY(append_matrix(out, f), done);
  MG_TRY(append_texts(out, f), done);
  append_yaml_family(out, f);
  append_yaml_shards(out, f);
  append_yaml_compatibility(out, f);
  append_yaml_rest(out, f);
  if (out->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
done:
  return status;
}

mg_status mg_init_print(const mg_init_options *options, FILE *out) {
  mg_status status = MG_OK;
  findings f = {.options = options};
  mg_text text = {0};
  MG_TRY(look(&f), cleanup);
  MG_TRY(compose(&f, &text), cleanup);
  if (fwrite(text.data, 1, text.size, out) != text.size || fflush(out) != 0)
    status = mg_fail_errno(MG_ERR_IO, "the configuration could not be written");
cleanup:
  mg_text_free(&text);
  findings_free(&f);
  return status;
}
