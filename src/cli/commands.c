/* What the commands do: each hands over to a room. */

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_impl.h"
#include "init_impl.h"
#include "mergegrid/config.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "mergegrid/ops.h"
#include "mergegrid/result.h"
#include "mergegrid/run.h"
#include "mergegrid/schedule.h"
#include "mergegrid/search.h"
#include "mergegrid/shard.h"
#include "mergegrid/stage.h"
#include "mergegrid/version.h"

enum { LARGEST_CONFIG = 4 << 20 };

bool mg_command_is_collective(const mg_command *command) {
  return command->verb == MG_VERB_PACK || command->verb == MG_VERB_RUN || command->verb == MG_VERB_GATHER ||
         command->verb == MG_VERB_MERGE;
}

/* ---- collective commands ---- */

/* Which of the configuration's stages the result has already, a bit each: --stages adds to them. */
static unsigned stages_there(const mg_config *config) {
  unsigned there = 0;
  mg_result_reader *reader = NULL;
  if (!mg_path_exists(config->result) || mg_result_open(config->result, &reader) != MG_OK) return 0; /* a run says why */
  for (size_t k = 0; k < config->stages.count; k++) {
    char group[32];
    snprintf(group, sizeof group, "/%.30s", config->stages.items[k]);
    there |= (unsigned)mg_result_has(reader, group) << k;
  }
  mg_result_close(&reader);
  return there;
}

/* Leaves the stages that --stages names and those that are there, in the order of the configuration; the grid brings those with
   it that it needs. */
static mg_status narrow_stages(const mg_command *command, unsigned there, mg_config *config) {
  mg_status status = MG_OK;
  mg_strings kept = {0};
  if (command->stages.count == 0) return MG_OK;
  for (size_t k = 0; k < command->stages.count; k++)
    if (mg_strings_find(&config->stages, command->stages.items[k]) < 0)
      return mg_fail(MG_ERR_USAGE, "--stages %s: the configuration's stages do not have it", command->stages.items[k]);
  bool grid = mg_strings_find(&command->stages, "grid") >= 0;
  for (size_t k = 0; k < config->stages.count; k++)
    grid = grid || (strcmp(config->stages.items[k], "grid") == 0 && (there >> k & 1) != 0);
  for (size_t k = 0; k < config->stages.count; k++)
    if (grid || (there >> k & 1) != 0 || mg_strings_find(&command->stages, config->stages.items[k]) >= 0)
      MG_TRY(mg_strings_add(&kept, config->stages.items[k]), failed);
  mg_strings_free(&config->stages);
  config->stages = kept;
  return MG_OK;
failed:
  mg_strings_free(&kept);
  return status;
}

/* Rank 0 reads the file; everyone parses the same text. */
static mg_status load_config(const mg_command *command, MPI_Comm comm, mg_config **config) {
  mg_status status = MG_OK;
  void *text = NULL;
  size_t size = 0;
  int rank;
  MPI_Comm_rank(comm, &rank);
  if (rank == 0) {
    char *data = NULL;
    status = mg_read_file(command->config, LARGEST_CONFIG, &data, &size);
    text = data;
  }
  MG_TRY(mg_agree(comm, status), cleanup);
  MG_TRY(mg_broadcast_bytes(comm, &text, &size), cleanup);
  status = mg_config_parse(command->config, text, size, &command->settings, config);
  MG_TRY(mg_agree(comm, status), cleanup);
  unsigned there = rank == 0 && command->stages.count > 0 && !command->fresh ? stages_there(*config) : 0;
  MPI_Bcast(&there, 1, MPI_UNSIGNED, 0, comm);
  MG_TRY(mg_agree(comm, narrow_stages(command, there, *config)), cleanup);
cleanup:
  free(text);
  return status;
}

static mg_status merge_cell(const mg_command *command, MPI_Comm comm) {
  const mg_merge_cell_options options = {.result = command->files.items[0],
                                         .cell = command->cells.count > 0 ? command->cells.items[0] : NULL,
                                         .best = command->best,
                                         .settings = &command->settings};
  return mg_stage_merge_cell(comm, &options, command->output);
}

/* Done, and yet not all of it: how much of which stage, and what names it. */
static mg_status say_failures(const char *result, const mg_failures *failed) {
  const struct {
    size_t count;
    const char *of, *more;
  } kinds[] = {{failed->evaluations, "evaluations of the stage nxn", ""},
               {failed->cells, "cells", " --where status=failed"},
               {failed->setups, "setups of the microscope", ""}};
  mg_text text = {0};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
    if (kinds[k].count > 0)
      mg_text_append(&text, "%s%zu %s failed: mergegrid show %s%s names them", text.size > 0 ? "; " : "", kinds[k].count,
                     kinds[k].of, result, kinds[k].more);
  if (text.failed) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = text.size > 0 ? mg_fail(MG_SOME_FAILED, "%s is done, but %s", result, text.data) : MG_OK;
  mg_text_free(&text);
  return status;
}

static mg_status run_collective(const mg_command *command, MPI_Comm comm) {
  mg_status status = MG_OK;
  mg_config *config = NULL;
  MG_TRY(mg_agree_text(comm, "the command line", command->line.data), cleanup);
  if (command->verb == MG_VERB_MERGE && command->files.count > 0) return merge_cell(command, comm);
  MG_TRY(load_config(command, comm, &config), cleanup);
  if (command->verb == MG_VERB_PACK) {
    const mg_pack_options options = {.rehash = command->rehash};
    MG_TRY(mg_stage_pack(comm, config, &options), cleanup);
  } else if (command->verb == MG_VERB_MERGE) {
    MG_TRY(mg_stage_merge(comm, config, command->output), cleanup);
  } else {
    const mg_run_options options = {.mode = command->fresh    ? MG_RUN_FRESH
                                            : command->resume ? MG_RUN_RESUME
                                                              : MG_RUN_CONTINUE,
                                    .max_hours = command->max_hours,
                                    .where = command->where,
                                    .part = (int)command->part[0],
                                    .parts = (int)(command->part[0] > 0 ? command->part[1] : command->parts),
                                    .gather = command->verb == MG_VERB_GATHER,
                                    .compute_missing = command->compute_missing};
    mg_failures failed;
    MG_TRY(mg_stage_run(comm, config, &options, &failed), cleanup);
    MG_TRY(say_failures(config->result, &failed), cleanup);
  }
cleanup:
  mg_config_free(&config);
  return status;
}

/* ---- commands of one process ---- */

static mg_status run_plan(const mg_command *command) {
  mg_status status = MG_OK;
  mg_config *config = NULL;
  char *text = NULL;
  size_t size = 0;
  MG_TRY(mg_read_file(command->config, LARGEST_CONFIG, &text, &size), cleanup);
  MG_TRY(mg_config_parse(command->config, text, size, &command->settings, &config), cleanup);
  const mg_plan_options options = {
      .ranks = (int)command->ranks, .part = (int)command->part[0], .parts = (int)command->part[1], .json = command->json};
  MG_TRY(mg_stage_plan(config, &options), cleanup);
cleanup:
  free(text);
  mg_config_free(&config);
  return status;
}

/* A result, and before there is one how far its run is. */
static mg_status run_show(const mg_command *command) {
  const char *path = command->files.items[0];
  const mg_show_options options = {
      .top = (int)command->top, .json = command->json, .csv = command->csv, .where = command->where, .sort = command->sort};
  return mg_path_exists(path) ? mg_result_show(path, &options) : mg_result_show_progress(path, &options);
}

/* The keys of --cell, then those that stand behind the result. */
static mg_status run_explain(const mg_command *command) {
  mg_status status = MG_OK;
  mg_strings keys = {0};
  for (size_t k = 0; k < command->cells.count; k++) MG_TRY(mg_strings_add(&keys, command->cells.items[k]), cleanup);
  for (size_t k = 1; k < command->files.count; k++) MG_TRY(mg_strings_add(&keys, command->files.items[k]), cleanup);
  MG_TRY(mg_result_explain(command->files.items[0], &keys), cleanup);
cleanup:
  mg_strings_free(&keys);
  return status;
}

static mg_status run_search(const mg_command *command) {
  const mg_search_command search = {.result = command->files.items[0],
                                    .locale = command->locale,
                                    .similarity = command->similarity,
                                    .k = (size_t)command->num_languages,
                                    .candidates = (size_t)command->candidates,
                                    .include_target = command->include_target,
                                    .equal_weights = command->weights != NULL && strcmp(command->weights, "equal") == 0,
                                    .by = &command->by,
                                    .top = (size_t)command->top,
                                    .max_hours = command->max_hours,
                                    .format = command->json   ? MG_SEARCH_JSON
                                              : command->csv  ? MG_SEARCH_CSV
                                              : command->yaml ? MG_SEARCH_YAML
                                                              : MG_SEARCH_TEXT};
  return mg_search_print(&search);
}

static mg_status run_diff(const mg_command *command) {
  const mg_show_options options = {.top = (int)command->top, .json = command->json};
  return mg_result_diff(command->files.items[0], command->files.items[1], &options);
}

static mg_status verify_file(const char *path) {
  const char *kind = mg_path_exists(path) ? mg_file_kind(path) : NULL;
  if (!mg_path_exists(path)) return mg_fail(MG_ERR_INPUT, "%s: no such file", path);
  if (kind == NULL) return mg_fail(MG_ERR_CORRUPT, "%s: is neither a shard nor a result of mergegrid", path);
  const mg_status status = strcmp(kind, "shard") == 0 ? mg_shard_verify(path) : mg_result_verify(path);
  if (status == MG_OK) printf("%s: %s, all checksums hold\n", path, kind);
  return status;
}

/* The .h5 files of a directory, sorted. */
static mg_status list_files(const char *path, mg_strings *files) {
  mg_status status = MG_OK;
  DIR *dir = opendir(path);
  if (dir == NULL) return mg_fail_errno(MG_ERR_IO, "%s", path);
  for (const struct dirent *entry; status == MG_OK && (entry = readdir(dir)) != NULL;) {
    const size_t length = strlen(entry->d_name);
    if (length < 3 || strcmp(entry->d_name + length - 3, ".h5") != 0) continue;
    char *file = mg_path_join(path, entry->d_name);
    status = file != NULL ? mg_strings_add(files, file) : MG_ERR_NOMEM;
    free(file);
  }
  closedir(dir);
  mg_strings_sort(files);
  if (status == MG_OK && files->count == 0) status = mg_fail(MG_ERR_INPUT, "%s: holds no .h5 file", path);
  return status;
}

/* All files are looked at, so that one bad file does not hide another. */
static mg_status run_verify(const mg_command *command) {
  mg_status status = MG_OK;
  size_t bad = 0, seen = 0;
  for (size_t k = 0; k < command->files.count; k++) {
    mg_strings files = {0};
    const char *path = command->files.items[k];
    mg_status listed = mg_path_is_dir(path) ? list_files(path, &files) : mg_strings_add(&files, path);
    if (listed != MG_OK) {
      mg_error("%s", mg_error_message());
      bad++;
    }
    for (size_t f = 0; listed == MG_OK && f < files.count; f++, seen++) {
      status = verify_file(files.items[f]);
      if (status == MG_OK) continue;
      mg_error("%s", mg_error_message());
      bad++;
    }
    mg_strings_free(&files);
  }
  return bad > 0 ? mg_fail(MG_ERR_CORRUPT, "%zu of %zu files did not pass", bad, seen > bad ? seen : bad) : MG_OK;
}

static mg_status run_init(const mg_command *command) {
  const mg_init_options options = {.base = command->base,
                                   .sources = command->sources,
                                   .similarity = command->similarity,
                                   .texts = command->texts,
                                   .from = command->from};
  return mg_init_print(&options, stdout);
}

mg_status mg_command_version(FILE *out) {
  static const char *const names[] = {"ref", "openblas"};
  const mg_device_terms terms = {.node_ranks = 1};
  mg_device *device = NULL;
  const char *describe = mg_git_describe();
  fprintf(out, "mergegrid %s%s%s%s\nbuilt with %s\n", mg_version(), describe[0] ? " (" : "", describe, describe[0] ? ")" : "",
          mg_build_flags());
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    const mg_ops *ops = NULL;
    char text[256];
    if (mg_ops_get(names[k], &ops) == MG_OK)
      fprintf(out, "backend %s: usable here (%s)\n", names[k], mg_ops_describe(ops, text, sizeof text));
    else
      fprintf(out, "backend %s: %s\n", names[k], mg_error_message());
  }
  char text[256];
  if (mg_device_open(&terms, &device) == MG_OK)
    fprintf(out, "backend cuda: usable here (%s)\n", device->ops->describe(device, text, sizeof text));
  else
    fprintf(out, "backend cuda: %s\n", mg_error_message());
  mg_device_close(&device);
  return MG_OK;
}

mg_status mg_command_run(const mg_command *command, MPI_Comm comm) {
  int rank = 0, ranks = 1;
  if (comm != MPI_COMM_NULL) {
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
  }
  mg_log_setup(rank, ranks, command->quiet, command->verbose);
  switch (command->verb) {
  case MG_VERB_HELP:
    mg_command_help(command, stdout);
    return MG_OK;
  case MG_VERB_VERSION:
    return mg_command_version(stdout);
  case MG_VERB_INIT:
    return run_init(command);
  case MG_VERB_PLAN:
    return run_plan(command);
  case MG_VERB_SHOW:
    return run_show(command);
  case MG_VERB_EXPLAIN:
    return run_explain(command);
  case MG_VERB_SEARCH:
    return run_search(command);
  case MG_VERB_DIFF:
    return run_diff(command);
  case MG_VERB_EXPORT:
    return mg_result_export(&command->files, command->output, command->merginguriel ? MG_EXPORT_MERGINGURIEL : MG_EXPORT_FLAT);
  case MG_VERB_VERIFY:
    return run_verify(command);
  case MG_VERB_PACK:
  case MG_VERB_RUN:
  case MG_VERB_GATHER:
  case MG_VERB_MERGE:
    return run_collective(command, comm);
  case MG_VERB_COUNT:
    break;
  }
  return mg_fail(MG_ERR_INTERNAL, "a command without an action");
}
