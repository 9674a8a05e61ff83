/* A merge as a checkpoint that transformers loads: weights, config.json, labels, tokenizer, and how it came about. */

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/checkpoint_write.h"
#include "mergegrid/log.h"
#include "mergegrid/stop.h"
#include "mergegrid/version.h"
#include "merging_impl.h"

static const char *const TOKENIZER_FILES[] = {"tokenizer.json",
                                              "tokenizer_config.json",
                                              "sentencepiece.bpe.model",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "merges.txt"};

enum { MERGED_AT_ONCE = 1 << 20 }; /* elements */

/* ---- weights ---- */

static mg_status poll_stop(void *dir) {
  return mg_stop_requested() ? mg_fail(MG_STOPPED, "stopped; %s is not written", (const char *)dir) : MG_OK;
}

/* Tensor by tensor, a few million elements of whole rows at a time. */
static mg_status merge_tensors(const mg_merging *m, mg_pass *pass, mg_safetensors_writer *writer, char *dir, float *values) {
  mg_status status = MG_OK;
  mg_progress progress;
  const mg_tensor_table *table = mg_rows_table(m->rows);
  mg_progress_begin(&progress, "merge", (double)table->elements, 0, 1e6, "M parameters");
  for (size_t t = 0; t < table->count; t++) {
    const mg_tensor *tensor = &table->tensors[t];
    const int64_t row = tensor->ndim > 0 && tensor->numel > 0 ? tensor->shape[tensor->ndim - 1] : 1;
    const int64_t most = row < MERGED_AT_ONCE ? MERGED_AT_ONCE / row * row : row;
    for (int64_t first = 0; first < tensor->numel; first += most) {
      const int64_t count = tensor->numel - first < most ? tensor->numel - first : most;
      const mg_range range = {.tensor = t, .first = first, .count = count};
      MG_TRY(mg_pass_run(pass, &range, 1, &values, poll_stop, dir), done);
      if (mg_pass_failure(pass, 0) != NULL) return mg_fail(MG_ERR_INPUT, "%s", mg_pass_failure(pass, 0));
      MG_TRY(mg_safetensors_put(writer, values, count), done);
      mg_progress_update(&progress, (double)(tensor->offset + first + count));
    }
  }
  mg_progress_end(&progress, (double)table->elements);
done:
  return status;
}

static size_t longest_row(const mg_tensor_table *table) {
  size_t most = MERGED_AT_ONCE;
  for (size_t t = 0; t < table->count; t++)
    if (table->tensors[t].ndim > 0 && (size_t)table->tensors[t].shape[table->tensors[t].ndim - 1] > most)
      most = (size_t)table->tensors[t].shape[table->tensors[t].ndim - 1];
  return most;
}

static mg_status write_weights(const mg_merging *m, char *dir) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(m->rows);
  const mg_deltas deltas = {.rows = m->rows, .classes = m->labels->count, .class_of = m->class_of};
  mg_pass_terms terms = {.deltas = &deltas, .gram = m->gram, .recipes = m->recipe, .count = 1, .threads = m->threads};
  mg_pass *pass = NULL;
  mg_safetensors_writer *writer = NULL;
  float *values = mg_alloc(longest_row(table), sizeof *values);
  char *path = mg_path_join(dir, "model.safetensors");
  if (values == NULL || path == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_safetensors_create(path, table, &writer), cleanup);
  MG_TRY(mg_quantities_create(&terms.quantities), cleanup);
  MG_TRY(mg_pass_create(&terms, &pass), cleanup);
  MG_TRY(merge_tensors(m, pass, writer, dir, values), cleanup);
  MG_TRY(mg_safetensors_finish(&writer), cleanup);
cleanup:
  mg_safetensors_abandon(&writer);
  mg_pass_destroy(&pass);
  mg_quantities_destroy(&terms.quantities);
  free(values), free(path);
  return status;
}

/* ---- what stands beside them ---- */

static mg_status write_json(const char *dir, const char *name, json_t *root) {
  char *path = mg_path_join(dir, name), *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  const mg_status status =
      path != NULL && text != NULL ? mg_replace_file(path, text, strlen(text)) : mg_fail(MG_ERR_NOMEM, "out of memory");
  free(path), free(text);
  return status;
}

static mg_status write_config(const mg_merging *m, const char *dir) {
  json_t *root = NULL;
  mg_status status = mg_merging_config(m, &root);
  if (status == MG_OK) status = write_json(dir, "config.json", root);
  json_decref(root);
  return status;
}

static mg_status copy_file(const char *from_dir, const char *to_dir, const char *name) {
  mg_status status = MG_OK;
  char *from = mg_path_join(from_dir, name), *to = mg_path_join(to_dir, name), *data = NULL;
  size_t size;
  if (from == NULL || to == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  if (!mg_path_exists(from)) goto cleanup;
  MG_TRY(mg_read_file(from, (size_t)1 << 30, &data, &size), cleanup);
  MG_TRY(mg_replace_file(to, data, size), cleanup);
cleanup:
  free(from), free(to), free(data);
  return status;
}

static bool has_tokenizer(const char *dir) {
  bool there = false;
  for (size_t k = 0; k < sizeof TOKENIZER_FILES / sizeof *TOKENIZER_FILES && !there; k++) {
    char *path = mg_path_join(dir, TOKENIZER_FILES[k]);
    there = path != NULL && mg_path_exists(path);
    free(path);
  }
  return there;
}

/* What it was fine-tuned with; of the base where the first source has none of its own. */
static mg_status copy_tokenizer(const mg_merging *m, const char *dir) {
  mg_status status = MG_OK;
  const char *own = m->roster->list.items[m->recipe->source[0]].path, *base = m->config->family.base;
  const char *from = has_tokenizer(own) ? own : base;
  if (!has_tokenizer(from)) mg_warn("there is no tokenizer in %s or %s: the merged checkpoint has none", own, base);
  for (size_t k = 0; k < sizeof TOKENIZER_FILES / sizeof *TOKENIZER_FILES; k++)
    MG_TRY(copy_file(from, dir, TOKENIZER_FILES[k]), done);
done:
  return status;
}

static json_t *parameter_json(const mg_parameter *p, double value) {
  mg_text text = {0};
  if (p->type == MG_PARAMETER_NUMBER) return json_real(value);
  if (p->type == MG_PARAMETER_BOOL) return json_boolean(value != 0);
  mg_parameter_text(p, value, &text);
  json_t *word = json_string(text.data != NULL ? text.data : "");
  mg_text_free(&text);
  return word;
}

/* As the merge had them: a lambda that follows from the weights is a number here. */
static json_t *parameters_json(const mg_method *method, const double *values) {
  json_t *all = json_object();
  for (size_t k = 0; k < method->parameter_count; k++)
    json_object_set_new(all, method->parameters[k].name, parameter_json(&method->parameters[k], values[k]));
  return all;
}

static json_t *sources_json(const mg_merging *m) {
  const mg_recipe *r = m->recipe;
  json_t *sources = json_array();
  for (size_t k = 0; k < r->count; k++) {
    const mg_source *source = &m->roster->list.items[r->source[k]];
    json_array_append_new(sources, json_pack("{s:s, s:s, s:s, s:f}", "id", source->id, "locale", source->locale, "path",
                                             source->path, "weight", r->weight[k]));
  }
  return sources;
}

static json_t *number_json(double number) { return isfinite(number) ? json_real(number) : json_null(); }

/* Where a cell is from, and what it was worth there. */
static json_t *result_json(const mg_merging *m) {
  if (m->result == NULL) return json_null();
  return json_pack("{s:s, s:s, s:o, s:o}", "path", m->result, "recipe", m->row->recipe, "accuracy",
                   number_json(m->row->accuracy), "select_accuracy", number_json(m->row->select_accuracy));
}

static mg_status write_details(const mg_merging *m, const char *dir) {
  mg_status status = MG_OK;
  const mg_terms *terms = &m->cell->terms;
  const mg_source *stand_in = m->stand_in;
  const bool chosen = m->resolved->selection.candidates != NULL;
  char now[24];
  mg_text text = {0};
  json_t *root = NULL;
  mg_utc_now(now);
  MG_TRY(mg_cell_json(m->cell, &text), cleanup);
  root = json_pack("{s:s+, s:s, s:o, s:s, s:o, s:o, s:s, s:s?, s:s?, s:s?, s:s, s:I, s:s?, s:o, s:s}", "made_by", "mergegrid ",
                   mg_version(), "key", m->cell->key, "result", result_json(m), "method", terms->method->name, "parameters",
                   parameters_json(terms->method, m->resolved->values), "sources", sources_json(m), "base",
                   stand_in != NULL ? stand_in->path : m->config->family.base, "base_source",
                   stand_in != NULL ? stand_in->id : NULL, "locale", terms->locale, "similarity",
                   chosen ? terms->similarity_type : NULL, "head", terms->head, "seed", (json_int_t)terms->seed, "note",
                   m->resolved->note, "terms", json_loads(text.data != NULL ? text.data : "", 0, NULL), "timestamp", now);
  status = root != NULL ? write_json(dir, "merge_details.json", root) : mg_fail(MG_ERR_NOMEM, "out of memory");
cleanup:
  json_decref(root);
  mg_text_free(&text);
  return status;
}

/* ---- the directory ---- */

static void remove_files(const char *dir) {
  static const char *const own[] = {"model.safetensors", "config.json", "merge_details.json"};
  for (size_t k = 0; k < sizeof own / sizeof *own + sizeof TOKENIZER_FILES / sizeof *TOKENIZER_FILES; k++) {
    const size_t known = sizeof own / sizeof *own;
    char *path = mg_path_join(dir, k < known ? own[k] : TOKENIZER_FILES[k - known]);
    if (path != NULL) unlink(path);
    free(path);
  }
  rmdir(dir);
}

mg_status mg_merging_check_output(const char *output) {
  if (!mg_path_exists(output)) return MG_OK;
  return mg_fail(MG_ERR_INPUT, "%s: is there already; remove it, or name another directory", output);
}

/* Everything into a directory of another name, which takes its own when it is whole. */
mg_status mg_merging_write(const mg_merging *m, const char *output) {
  mg_status status = MG_OK;
  char *dir = NULL, *parent = NULL;
  size_t length = strlen(output);
  while (length > 1 && output[length - 1] == '/') length--;
  if (asprintf(&dir, "%.*s.tmp.%ld", (int)length, output, (long)getpid()) < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  parent = mg_path_dirname(dir);
  if (parent == NULL) status = MG_ERR_NOMEM;
  if (status == MG_OK) status = mg_make_dirs(parent);
  if (status == MG_OK && mkdir(dir, 0777) != 0) status = mg_fail_errno(MG_ERR_IO, "%s", dir);
  if (status != MG_OK) goto cleanup;
  MG_TRY(write_weights(m, dir), failed);
  MG_TRY(write_config(m, dir), failed);
  MG_TRY(copy_tokenizer(m, dir), failed);
  MG_TRY(write_details(m, dir), failed);
  MG_TRY(mg_sync_dir(dir), failed);
  if (rename(dir, output) != 0) status = mg_fail_errno(MG_ERR_IO, "%s: renaming to %s", dir, output);
failed:
  if (status != MG_OK) remove_files(dir);
cleanup:
  free(dir), free(parent);
  return status;
}
