/* Files that a run needs beside the family: known before hours of packing to be there. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/corpus.h"
#include "mergegrid/io.h"
#include "mergegrid/labelled_table.h"
#include "stage_impl.h"

/* path NULL: none is named. */
static mg_status check_file(const char *key, const char *path) {
  if (path == NULL || mg_path_exists(path)) return MG_OK;
  return mg_fail(MG_ERR_INPUT, "%s: %s: there is no such file", key, path);
}

static mg_status check_table(const char *key, const char *path) {
  mg_labelled_table table = {0};
  const mg_status status = mg_labelled_table_read(path, &table);
  if (status == MG_ERR_INPUT || status == MG_ERR_IO) mg_fail_context(status, "%s", key);
  mg_labelled_table_free(&table);
  return status;
}

static mg_status check_grid(const mg_grid_spec *grid) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < grid->similarity_files.count; k++)
    if (strcmp(grid->similarity_files.items[k], "nxn") != 0)
      MG_TRY(check_table("grid.similarity", grid->similarity_files.items[k]), done);
  if (strcmp(grid->compatibility.tv, "stage") != 0) MG_TRY(check_table("grid.compatibility.tv", grid->compatibility.tv), done);
  if (strcmp(grid->compatibility.cka, "stage") != 0)
    MG_TRY(check_table("grid.compatibility.cka", grid->compatibility.cka), done);
done:
  return status;
}

static mg_status check_probes(const mg_config *config) {
  mg_status status = MG_OK;
  const char *locale = config->compatibility.cka.locale;
  if (!mg_cka_wanted(config) || config->texts.files == NULL) return MG_OK;
  char *path = mg_corpus_path(&config->texts, locale);
  if (path == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (!mg_path_exists(path))
    status = mg_fail(MG_ERR_INPUT, "compatibility.cka: texts of %s: %s: there is no such file", locale, path);
  free(path);
  return status;
}

mg_status mg_inputs_check(const mg_config *config) {
  mg_status status = MG_OK;
  MG_TRY(check_probes(config), done);
  if (mg_stage_wanted(config, "nxn")) MG_TRY(check_file("texts.labels", config->texts.labels), done);
  if (mg_stage_wanted(config, "grid")) MG_TRY(check_grid(&config->grid), done);
  if (mg_stage_wanted(config, "microscope")) MG_TRY(check_file("microscope.probes", config->microscope.probes.file), done);
  for (size_t k = 0; k < config->reuse.count; k++) MG_TRY(check_file("reuse", config->reuse.items[k]), done);
done:
  return status;
}
