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
#include "mergegrid/similarity.h"
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
  mg_strings chosen;      /* ids */
  double *chosen_weights; /* [chosen.count] */
  const mg_roster *roster;
  mg_rows *rows;
  mg_recipe recipe;
  int threads;
  int *source;
  const char **id;
  double *weight;
} merging;

/* ---- the recipe ---- */

/* The first source of a locale; −1 where there is none. */
static ptrdiff_t source_of(const mg_roster *roster, const char *locale) {
  for (size_t s = 0; s < roster->list.count; s++)
    if (strcmp(roster->list.items[s].locale, locale) == 0) return (ptrdiff_t)s;
  return -1;
}

static bool has_source(void *roster, const char *label) { return source_of(roster, label) >= 0; }

/* A table whose rows are named by sources gets their locales, as a matrix' labels are. */
static mg_status name_by_locale(const mg_roster *roster, mg_labelled_table *table) {
  for (size_t r = 0; r < table->rows.count; r++)
    for (size_t s = 0; s < roster->list.count; s++) {
      if (strcmp(roster->list.items[s].id, table->rows.items[r]) != 0) continue;
      char *locale = mg_strdup(roster->list.items[s].locale);
      if (locale == NULL) return MG_ERR_NOMEM;
      free(table->rows.items[r]);
      table->rows.items[r] = locale;
      break;
    }
  return MG_OK;
}

/* What only is a source or only a target gets a row and a column too: without similarity to anything there. */
static mg_status square_up(mg_labelled_table *table) {
  mg_status status = MG_OK;
  mg_labelled_table square = {0};
  for (size_t r = 0; r < table->rows.count; r++)
    if (mg_strings_find(&square.rows, table->rows.items[r]) < 0)
      MG_TRY(mg_strings_add(&square.rows, table->rows.items[r]), failed);
  for (size_t c = 0; c < table->columns.count; c++)
    if (mg_strings_find(&square.rows, table->columns.items[c]) < 0)
      MG_TRY(mg_strings_add(&square.rows, table->columns.items[c]), failed);
  const size_t n = square.rows.count;
  for (size_t k = 0; k < n; k++) MG_TRY(mg_strings_add(&square.columns, square.rows.items[k]), failed);
  square.count = n * n;
  square.values = mg_alloc_zero(n, n * sizeof *square.values);
  if (square.values == NULL) {
    status = MG_ERR_NOMEM;
    goto failed;
  }
  for (size_t r = table->rows.count; r-- > 0;) /* of several sources of a locale the first one's stays */
    for (size_t c = 0; c < table->columns.count; c++)
      square.values[(size_t)mg_strings_find(&square.rows, table->rows.items[r]) * n +
                    (size_t)mg_strings_find(&square.rows, table->columns.items[c])] =
          table->values[r * table->columns.count + c];
  mg_labelled_table_free(table);
  *table = square;
  return MG_OK;
failed:
  mg_labelled_table_free(&square);
  return status;
}

static mg_status read_similarity(const merging *m, mg_similarity *similarity, mg_strings *notes) {
  mg_status status = MG_OK;
  const mg_terms *spec = &m->config->recipe;
  const mg_grid_spec *grid = &m->config->grid;
  const mg_duplicates duplicates = strcmp(spec->duplicates, "keep") == 0 ? MG_DUPLICATES_KEEP : MG_DUPLICATES_FIRST;
  mg_labelled_table table = {0};
  ptrdiff_t at = grid->similarity_names.count == 1 && spec->similarity_type == NULL ? 0 : -1;
  if (spec->similarity_type != NULL) at = mg_strings_find(&grid->similarity_names, spec->similarity_type);
  if (at < 0)
    return mg_fail(MG_ERR_CONFIG, "%s: recipe.similarity_type: '%s' is none of grid.similarity's %zu matrices", m->config->file,
                   spec->similarity_type != NULL ? spec->similarity_type : "", grid->similarity_names.count);
  const char *file = grid->similarity_files.items[at];
  if (strcmp(file, "nxn") != 0) return mg_similarity_read(file, duplicates, similarity, notes);
  MG_TRY(mg_result_read_evaluation(m->config->result, true, &table), cleanup);
  MG_TRY(name_by_locale(m->roster, &table), cleanup);
  MG_TRY(square_up(&table), cleanup);
  MG_TRY(mg_similarity_of(&table, m->config->result, duplicates, similarity, NULL), cleanup); /* none is symmetric */
cleanup:
  mg_labelled_table_free(&table);
  return status;
}

/* Those taken, the strongest left out where that is asked for; weights as they are given to the method. */
static mg_status keep_chosen(merging *m, const mg_similarity *similarity, const mg_selection *selection) {
  mg_status status = MG_OK;
  const size_t dropped = m->config->recipe.drop_strongest && selection->taken > 1 ? 1 : 0;
  m->chosen_weights = mg_alloc(selection->taken, sizeof *m->chosen_weights);
  if (m->chosen_weights == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < selection->taken; k++) {
    const mg_candidate *c = &selection->candidates[k];
    const char *label = similarity->labels.items[c->label], *id = m->roster->list.items[source_of(m->roster, label)].id;
    mg_info("  %-12s similarity %.4g, weight %.3f%s", id, c->weight, c->share, k < dropped ? " (the strongest: dropped)" : "");
    if (k < dropped) continue;
    const ptrdiff_t at = mg_strings_find(&m->chosen, id); /* a repeated label is one source */
    if (at >= 0) {
      m->chosen_weights[at] += c->share;
      continue;
    }
    m->chosen_weights[m->chosen.count] = c->share;
    MG_TRY(mg_strings_add(&m->chosen, id), done);
  }
done:
  return status;
}

static mg_status choose_sources(merging *m) {
  mg_status status = MG_OK;
  const mg_terms *spec = &m->config->recipe;
  mg_similarity similarity = {0};
  mg_selection selection = {0};
  mg_strings notes = {0};
  const mg_selection_terms terms = {.by_row = strcmp(spec->axis, "row") == 0,
                                    .sinkhorn = strcmp(spec->select, "sinkhorn") == 0,
                                    .top_k = spec->top_k,
                                    .sinkhorn_iters = spec->sinkhorn_iters,
                                    .num_languages = spec->num_languages,
                                    .include_target = spec->include_target,
                                    .matrix_order = strcmp(spec->inctar, "matrix_order") == 0};
  MG_TRY(read_similarity(m, &similarity, &notes), cleanup);
  for (size_t k = 0; k < notes.count; k++) mg_info("note: %s", notes.items[k]);
  MG_TRY(mg_select_sources(&similarity, &terms, spec->locale, has_source, (void *)(uintptr_t)m->roster, &selection), cleanup);
  mg_info("sources for %s:", spec->locale);
  MG_TRY(keep_chosen(m, &similarity, &selection), cleanup);
cleanup:
  free(selection.candidates);
  mg_similarity_free(&similarity);
  mg_strings_free(&notes);
  return status;
}

static mg_status find_sources(merging *m) {
  mg_status status = MG_OK;
  const mg_terms *spec = &m->config->recipe;
  const bool given = spec->sources.count > 0;
  if (!given) MG_TRY(choose_sources(m), done);
  const mg_strings *sources = given ? &spec->sources : &m->chosen;
  const double *weights = given ? spec->weights : m->chosen_weights;
  const mg_source_list *list = &m->roster->list;
  const char **known = mg_alloc(list->count, sizeof *known);
  double total = 0;
  m->source = mg_alloc(sources->count, sizeof *m->source);
  m->id = mg_alloc(sources->count, sizeof *m->id);
  m->weight = mg_alloc(sources->count, sizeof *m->weight);
  if (known == NULL || m->source == NULL || m->id == NULL || m->weight == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t s = 0; s < list->count; s++) known[s] = list->items[s].id;
  for (size_t k = 0; k < sources->count; k++) total += weights[k];
  size_t n = 0;
  for (size_t s = 0; s < list->count; s++) { /* in the family's order, whatever the recipe's */
    const ptrdiff_t at = mg_strings_find(sources, list->items[s].id);
    if (at < 0) continue;
    m->source[n] = (int)s;
    m->id[n] = list->items[s].id;
    m->weight[n++] = weights[at] / total;
  }
  for (size_t k = 0; n < sources->count && k < sources->count; k++) {
    const char *wanted = sources->items[k], *nearest = mg_nearest(wanted, known, list->count);
    bool found = false;
    for (size_t s = 0; s < list->count; s++) found = found || strcmp(wanted, known[s]) == 0;
    if (!found)
      status = mg_fail(MG_ERR_CONFIG, "recipe.sources: '%s' is no source of the family%s%s%s", wanted, nearest ? " (" : "",
                       nearest ? nearest : "", nearest ? "?)" : "");
  }
  m->recipe = (mg_recipe){.method = spec->method,
                          .count = n,
                          .source = m->source,
                          .id = m->id,
                          .weight = m->weight,
                          .base = -1,
                          .head = strcmp(spec->head, "method") == 0 ? MG_HEAD_METHOD : MG_HEAD_LINEAR,
                          .seed = m->config->seed};
  memcpy(m->recipe.values, spec->values, sizeof m->recipe.values);
  for (size_t k = 1; k < n; k++) /* accuracies are not known here */
    if (m->weight[k] > m->weight[m->recipe.best]) m->recipe.best = k;
cleanup:
  free(known);
done:
  return status;
}

/* Rows of heads belong together by their labels; a source that has them in another order can't be added up with the others. */
static mg_status check_labels(const merging *m) {
  mg_status status = MG_OK;
  mg_strings first = {0};
  MG_TRY(mg_roster_labels(m->config, m->roster, (size_t)m->source[0], &first), cleanup);
  for (size_t k = 1; k < m->recipe.count && status == MG_OK; k++) {
    mg_strings own = {0};
    status = mg_roster_labels(m->config, m->roster, (size_t)m->source[k], &own);
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
  const char *from = m->roster->list.items[m->source[0]].path;
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
  const char *own = m->roster->list.items[m->source[0]].path;
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
  json_t *json = text.failed ? NULL : json_string(text.data);
  mg_text_free(&text);
  return json;
}

static json_t *parameters_json(const mg_recipe *r) {
  json_t *all = json_object();
  for (size_t k = 0; k < r->method->parameter_count; k++) {
    const mg_parameter *p = &r->method->parameters[k];
    json_object_set_new(all, p->name, parameter_json(p, r->values[k]));
  }
  return all;
}

static mg_status write_details(const merging *m, const char *dir) {
  const mg_recipe *r = &m->recipe;
  char now[24];
  json_t *sources = json_array();
  mg_utc_now(now);
  for (size_t k = 0; k < r->count; k++)
    json_array_append_new(sources, json_pack("{s:s, s:s, s:s, s:f}", "id", r->id[k], "locale",
                                             m->roster->list.items[r->source[k]].locale, "path",
                                             m->roster->list.items[r->source[k]].path, "weight", r->weight[k]));
  json_t *root = json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:s}", "made_by", mg_version(), "method", r->method->name,
                           "parameters", parameters_json(r), "sources", sources, "base", m->config->family.base, "head",
                           r->head == MG_HEAD_LINEAR ? "linear" : "method", "seed", (json_int_t)r->seed, "timestamp", now);
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
  MG_TRY(find_sources(m), cleanup);
  MG_TRY(check_labels(m), cleanup);
  MG_TRY(write_checkpoint(m, output), cleanup);
  mg_info("%s of %zu sources in %s", m->recipe.method->name, m->recipe.count, output);
cleanup:
  free(m->source), free(m->id), free(m->weight), free(m->chosen_weights);
  mg_strings_free(&m->chosen);
  return status;
}

mg_status mg_stage_merge(MPI_Comm comm, const mg_config *config, const char *output) {
  mg_status status = MG_OK;
  int rank;
  mg_roster roster = {0};
  merging m = {.config = config, .roster = &roster};
  MPI_Comm_rank(comm, &rank);
  if (config->recipe.method == NULL || (config->recipe.sources.count == 0) == (config->recipe.locale == NULL))
    status = mg_fail(MG_ERR_CONFIG,
                     "%s: recipe.method and either recipe.sources or recipe.locale say what to merge: both were expected",
                     config->file);
  else if (rank == 0 && mg_path_exists(output))
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
