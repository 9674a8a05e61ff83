/* A recipe as a checkpoint that transformers loads: weights, config.json, labels, tokenizer, and how it came about. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/checkpoint_write.h"
#include "mergegrid/log.h"
#include "mergegrid/merge.h"
#include "mergegrid/stop.h"
#include "mergegrid/version.h"
#include "stage_impl.h"

static const char *const TOKENIZER_FILES[] = {"tokenizer.json",
                                              "tokenizer_config.json",
                                              "sentencepiece.bpe.model",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "merges.txt"};

enum { MERGED_AT_ONCE = 1 << 20 }; /* elements */

typedef struct merging {
  const mg_config *config;
  const mg_roster *roster;
  mg_rows *rows;
  mg_cell cell;
  mg_resolved resolved;
  const char **id;
  mg_recipe recipe;
  int threads;
} merging;

/* ---- the recipe ---- */

/* Rows of heads belong together by their labels; a source that has them in another order can't be added up with the others. */
static mg_status check_labels(const merging *m) {
  mg_status status = MG_OK;
  mg_strings first = {0};
  MG_TRY(mg_roster_labels(m->config, m->roster, (size_t)m->recipe.source[0], &first), cleanup);
  for (size_t k = 1; k < m->recipe.count && status == MG_OK; k++) {
    mg_strings own = {0};
    status = mg_roster_labels(m->config, m->roster, (size_t)m->recipe.source[k], &own);
    bool same = own.count == first.count;
    for (size_t c = 0; same && c < own.count; c++) same = strcmp(own.items[c], first.items[c]) == 0;
    if (status == MG_OK && !same)
      status = mg_fail(MG_ERR_INPUT, "sources %s and %s have their labels in another order: their heads can't be merged",
                       m->id[0], m->id[k]);
    mg_strings_free(&own);
  }
cleanup:
  mg_strings_free(&first);
  return status;
}

/* ---- files ---- */

static mg_status poll_stop(void *dir) {
  return mg_stop_requested() ? mg_fail(MG_STOPPED, "stopped; %s is not written", (const char *)dir) : MG_OK;
}

/* Tensor by tensor, a few million elements of whole rows at a time. */
static mg_status merge_tensors(merging *m, mg_pass *pass, mg_safetensors_writer *writer, char *dir, float *values) {
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

static mg_status write_weights(merging *m, char *dir) {
  mg_status status = MG_OK;
  const mg_tensor_table *table = mg_rows_table(m->rows);
  const mg_deltas deltas = {.rows = m->rows};
  mg_pass_terms terms = {.deltas = &deltas, .recipes = &m->recipe, .count = 1, .threads = m->threads};
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

static mg_status write_json(const char *dir, const char *name, json_t *root) {
  char *path = mg_path_join(dir, name), *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  const mg_status status =
      path != NULL && text != NULL ? mg_replace_file(path, text, strlen(text)) : mg_fail(MG_ERR_NOMEM, "out of memory");
  free(path), free(text);
  return status;
}

/* The first source's config.json, since it has the architecture with the head. */
static mg_status write_config(const merging *m, const char *dir) {
  mg_status status = MG_OK;
  json_error_t error;
  const char *from = m->roster->list.items[m->recipe.source[0]].path;
  char *path = mg_path_join(from, "config.json");
  if (path == NULL) return MG_ERR_NOMEM;
  json_t *root = json_load_file(path, 0, &error);
  if (!json_is_object(root)) {
    status = mg_fail(MG_ERR_INPUT, "%s: %s; the merge needs the architecture and labels in it", path, error.text);
    goto cleanup;
  }
  json_object_del(root, "_name_or_path");
  if (json_object_get(root, "torch_dtype") != NULL) json_object_set_new(root, "torch_dtype", json_string("float32"));
  if (json_object_get(root, "dtype") != NULL) json_object_set_new(root, "dtype", json_string("float32"));
  status = write_json(dir, "config.json", root);
cleanup:
  json_decref(root);
  free(path);
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

static mg_status copy_tokenizer(const merging *m, const char *dir) {
  mg_status status = MG_OK;
  const char *from = m->config->family.base;
  const char *own = m->roster->list.items[m->recipe.source[0]].path;
  for (size_t k = 0; k < sizeof TOKENIZER_FILES / sizeof *TOKENIZER_FILES; k++) {
    char *there = mg_path_join(own, TOKENIZER_FILES[k]);
    if (there != NULL && mg_path_exists(there)) from = own; /* what it was fine-tuned with */
    free(there);
  }
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

static json_t *parameters_json(const mg_recipe *r) {
  json_t *all = json_object();
  for (size_t k = 0; k < r->method->parameter_count; k++)
    json_object_set_new(all, r->method->parameters[k].name, parameter_json(&r->method->parameters[k], r->values[k]));
  return all;
}

static mg_status write_details(const merging *m, const char *dir) {
  const mg_recipe *r = &m->recipe;
  const mg_source *list = m->roster->list.items;
  const char *base = m->resolved.base >= 0 ? list[m->resolved.base].path : m->config->family.base;
  char now[24];
  json_t *sources = json_array();
  mg_utc_now(now);
  for (size_t k = 0; k < r->count; k++)
    json_array_append_new(sources, json_pack("{s:s, s:s, s:s, s:f}", "id", r->id[k], "locale", list[r->source[k]].locale,
                                             "path", list[r->source[k]].path, "weight", r->weight[k]));
  json_t *root = json_pack("{s:s, s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:s}", "made_by", mg_version(), "key", m->cell.key,
                           "method", m->cell.terms.method->name, "parameters", parameters_json(r), "sources", sources, "base",
                           base, "head", m->cell.terms.head, "seed", (json_int_t)r->seed, "timestamp", now);
  if (root == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = write_json(dir, "merge_details.json", root);
  json_decref(root);
  return status;
}

/* ---- the story ---- */

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

/* Everything into a directory of another name, which takes its own when it is whole. */
static mg_status write_checkpoint(merging *m, const char *output) {
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

static mg_status merge(merging *m, const char *output) {
  mg_status status = MG_OK;
  MG_TRY(mg_recipe_resolve(m->config, &m->roster->list, &m->cell, &m->resolved), cleanup);
  m->id = mg_alloc(m->resolved.count, sizeof *m->id);
  if (m->id == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(mg_recipe_of_cell(&m->cell, &m->resolved, &m->roster->list, m->id, &m->recipe), cleanup);
  MG_TRY(check_labels(m), cleanup);
  MG_TRY(write_checkpoint(m, output), cleanup);
  mg_info("%s of %zu sources in %s", m->cell.terms.method->name, m->recipe.count, output);
cleanup:
  mg_resolved_free(&m->resolved);
  free(m->id);
  return status;
}

mg_status mg_stage_merge(MPI_Comm comm, const mg_config *config, const char *output) {
  mg_status status = MG_OK;
  int rank;
  mg_roster roster = {0};
  merging m = {.config = config, .roster = &roster};
  MPI_Comm_rank(comm, &rank);
  status = mg_grid_recipe_cell(config, &m.cell);
  if (status == MG_OK && m.cell.terms.method->kind == MG_METHOD_VOTE)
    status = mg_fail(MG_ERR_CONFIG, "%s: recipe.method: %s is a vote over several models' answers: no checkpoint comes of it",
                     config->file, m.cell.terms.method->name);
  if (status == MG_OK && rank == 0 && mg_path_exists(output))
    status = mg_fail(MG_ERR_INPUT, "%s: is there already; remove it, or name another directory", output);
  MG_TRY(mg_agree(comm, status), cleanup);
  MG_TRY(mg_roster_open_all(comm, config, &roster), cleanup);
  if (config->shards.dir != NULL) MG_TRY(mg_pack_family(comm, config, &roster, false), cleanup);
  MG_TRY(mg_agree(comm, rank == 0 ? mg_roster_rows(config, &roster, &m.rows) : MG_OK), cleanup);
  m.threads = mg_threads_auto(comm, config->compute.threads);
  MG_TRY(mg_agree(comm, rank == 0 ? merge(&m, output) : MG_OK), cleanup);
cleanup:
  mg_rows_close(&m.rows);
  mg_roster_close(&roster);
  return status;
}
