/* init: a commented run.yaml for the checkpoints that are there. */

#include "init_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mergegrid/corpus.h"
#include "mergegrid/io.h"

static const char PLACE[] = "{locale}";

enum { LARGEST_ABLATION = 4 << 20 };

static void findings_free(mg_findings *f) {
  mg_source_list_free(&f->sources);
  mg_strings_free(&f->locales);
  mg_family_close(&f->family);
  mg_strings_free(&f->layers);
  mg_strings_free(&f->exclude);
  mg_labelled_table_free(&f->matrix);
  mg_strings_free(&f->texts);
  mg_ablation_free(&f->ablation);
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

static mg_status find_sources(mg_findings *f) {
  mg_status status = MG_OK;
  mg_family_spec spec = {.kind = MG_SOURCES_PATTERN, .pattern = (char *)(uintptr_t)f->options->sources};
  MG_TRY(mg_sources_resolve(&spec, NULL, NULL, &f->sources), done);
  for (size_t k = 0; k < f->sources.count; k++) MG_TRY(mg_strings_add(&f->locales, f->sources.items[k].locale), done);
done:
  return status;
}

static mg_status measure_files(mg_findings *f) {
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

static mg_status find_layers(mg_findings *f) {
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
static mg_status choose_exclude(mg_findings *f) {
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

static mg_status find_texts(mg_findings *f) {
  const mg_texts_spec spec = {.files = (char *)(uintptr_t)f->options->texts};
  const mg_status status = mg_corpus_locales(&spec, &f->texts);
  if (status != MG_OK || f->texts.count > 0) return status;
  return mg_fail(MG_ERR_INPUT, "texts: no file matches %s", f->options->texts);
}

static mg_status look(mg_findings *f) {
  mg_status status = MG_OK;
  mg_strings heads = {0};
  MG_TRY(check_options(f->options), cleanup);
  MG_TRY(find_sources(f), cleanup); /* whose ids are UTF-8 */
  MG_TRY(mg_strings_add(&heads, "classifier.*"), cleanup);
  MG_TRY(mg_family_open(f->options->base, &f->sources, &heads, &f->family), cleanup);
  MG_TRY(measure_files(f), cleanup);
  MG_TRY(find_layers(f), cleanup);
  MG_TRY(choose_exclude(f), cleanup);
  if (f->options->similarity != NULL) MG_TRY(mg_labelled_table_read(f->options->similarity, &f->matrix), cleanup);
  if (f->options->texts != NULL) MG_TRY(find_texts(f), cleanup);
cleanup:
  mg_strings_free(&heads);
  return status;
}

static mg_status read_ablation(const mg_init_options *options, mg_ablation *ablation) {
  mg_status status = MG_OK;
  char *text = NULL;
  size_t size = 0;
  if (options->from == NULL) return MG_OK;
  MG_TRY(check_text("--from", options->from), cleanup);
  MG_TRY(mg_read_file(options->from, LARGEST_ABLATION, &text, &size), cleanup);
  MG_TRY(mg_ablation_read(options->from, text, size, options->similarity, ablation), cleanup);
cleanup:
  free(text);
  return status;
}

mg_status mg_init_print(const mg_init_options *options, FILE *out) {
  mg_status status = MG_OK;
  mg_findings f = {.options = options};
  mg_text text = {0};
  MG_TRY(read_ablation(options, &f.ablation), cleanup);
  if (options->base != NULL) {
    MG_TRY(look(&f), cleanup);
    MG_TRY(mg_init_compose(&f, &text), cleanup);
  } else {
    MG_TRY(mg_init_compose_ablation(options, &f.ablation, &text), cleanup);
  }
  if (fwrite(text.data, 1, text.size, out) != text.size || fflush(out) != 0)
    status = mg_fail_errno(MG_ERR_IO, "the configuration could not be written");
cleanup:
  mg_text_free(&text);
  findings_free(&f);
  return status;
}
