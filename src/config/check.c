/* What only several keys together make wrong, once all have been read. */

#include <string.h>

#include "config_impl.h"

static bool has_stage(const mg_config *config, const char *name) { return mg_strings_find(&config->stages, name) >= 0; }

/* ---- the grid ---- */

/* Calls check for every value of every axis that was declared. */
static mg_status each_axis(const mg_config *config, mg_status (*check)(const mg_config *config, const mg_axis *axis)) {
  mg_status status = MG_OK;
  const mg_grid_spec *spec = &config->grid;
  for (size_t k = 0; k < spec->fixed.count; k++) MG_TRY(check(config, &spec->fixed.items[k]), done);
  for (size_t k = 0; k < spec->sweep.count; k++) MG_TRY(check(config, &spec->sweep.items[k]), done);
  for (size_t d = 0; d < spec->declared_count; d++) {
    const mg_phase_spec *phase = &spec->declared[d];
    for (size_t k = 0; k < phase->fixed.count; k++) MG_TRY(check(config, &phase->fixed.items[k]), done);
    for (size_t k = 0; k < phase->sweep.count; k++) MG_TRY(check(config, &phase->sweep.items[k]), done);
  }
done:
  return status;
}

static mg_status check_similarity_type(const mg_config *config, const mg_axis *axis) {
  mg_status status = MG_OK;
  const mg_strings *known = &config->grid.similarity_names;
  mg_text all = {0};
  for (size_t k = 0; k < axis->count && status == MG_OK; k++) {
    const char *name = axis->values[k].similarity_type;
    if (name == NULL || mg_strings_find(known, name) >= 0) continue;
    const char *nearest = mg_nearest(name, (const char *const *)known->items, known->count);
    for (size_t j = 0; j < known->count; j++) mg_text_append(&all, "%s%s", j ? ", " : "", known->items[j]);
    status = mg_fail(MG_ERR_CONFIG, "%s: similarity_type '%s' is none of grid.similarity's%s%s%s; known: %s", axis->place, name,
                     nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "", all.data ? all.data : "none");
  }
  mg_text_free(&all);
  return status;
}

static mg_status check_cka(const mg_config *config, const mg_axis *axis) {
  if (strcmp(config->grid.compatibility.cka, "stage") != 0) return MG_OK;
  if (mg_strings_find(&config->compatibility.metrics, "cka") >= 0) return MG_OK;
  for (size_t k = 0; k < axis->count; k++)
    if (axis->values[k].method != NULL && strcmp(axis->values[k].method->name, "similarity_x_cka_compatibility") == 0)
      return mg_fail(MG_ERR_CONFIG,
                     "%s: method similarity_x_cka_compatibility needs compatibility.metrics: [task_vector_cosine, cka], or a "
                     "CSV as grid.compatibility.cka",
                     axis->place);
  return MG_OK;
}

static mg_status imply_stages(mg_config *config) {
  static const char *const needed[] = {"compatibility", "nxn"};
  mg_status status = MG_OK;
  mg_strings all = {0};
  for (size_t k = 0; k < 2; k++)
    if (!has_stage(config, needed[k])) MG_TRY(mg_strings_add(&all, needed[k]), cleanup);
  for (size_t k = 0; k < config->stages.count; k++) MG_TRY(mg_strings_add(&all, config->stages.items[k]), cleanup);
  mg_strings_free(&config->stages);
  config->stages = all;
  all = (mg_strings){0};
cleanup:
  mg_strings_free(&all);
  return status;
}

static mg_status check_grid(mg_config *config) {
  mg_status status = MG_OK;
  const char *partition = mg_partition_name(config->grid.partition);
  const bool wanted = has_stage(config, "grid");
  MG_TRY(each_axis(config, check_similarity_type), done);
  /* the default need not fit a run that has no grid */
  if ((wanted || strcmp(partition, "test") != 0) && strcmp(partition, mg_partition_name(config->nxn.partition)) != 0 &&
      strcmp(partition, mg_partition_name(config->nxn.select)) != 0)
    return mg_fail(MG_ERR_CONFIG, "%s: grid.partition is '%s'; nxn.partition ('%s') or nxn.select ('%s') was expected",
                   config->file, config->grid.partition, config->nxn.partition, config->nxn.select);
  if (!wanted) return MG_OK;
  if (config->grid.phase_count == 0)
    return mg_fail(MG_ERR_CONFIG, "%s: stages has grid, and neither grid.fixed nor grid.sweep nor grid.phases declares a cell",
                   config->file);
  if (config->texts.files == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: stages has grid, which needs texts.files: a path with {locale}", config->file);
  MG_TRY(each_axis(config, check_cka), done);
  MG_TRY(imply_stages(config), done);
done:
  return status;
}

/* ---- the microscope ---- */

static mg_status check_microscope(const mg_config *config) {
  const mg_microscope_spec *spec = &config->microscope;
  if (!has_stage(config, "microscope")) return MG_OK;
  if (spec->reference.kind == MG_SETUP_NONE)
    return mg_fail(MG_ERR_CONFIG,
                   "%s: stages has microscope, and microscope.reference does not say what setups are compared with",
                   config->file);
  if (spec->probes.locale != NULL && config->texts.files == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: microscope.probes are a locale's, which needs texts.files: a path with {locale}",
                   config->file);
  for (size_t k = 0; k <= spec->setup_count; k++) {
    const mg_setup *setup = k > 0 ? &spec->setups[k - 1] : &spec->reference;
    if (setup->kind == MG_SETUP_CELL && !has_stage(config, "grid"))
      return mg_fail(MG_ERR_CONFIG, "%s: cell %s is one of the stage grid, which stages does not have", setup->place,
                     setup->what);
  }
  return MG_OK;
}

/* ---- everything ---- */

mg_status mg_config_check(mg_config *config) {
  mg_status status = MG_OK;
  if (config->family.base == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: family.base is missing: the base checkpoint's directory was expected", config->file);
  if (config->family.pattern == NULL && config->family.entry_count == 0)
    return mg_fail(MG_ERR_CONFIG, "%s: family.sources is missing: a pattern with {locale}, a list or a map was expected",
                   config->file);
  if (mg_strings_find(&config->compatibility.metrics, "task_vector_cosine") < 0)
    return mg_fail(MG_ERR_CONFIG, "%s: compatibility.metrics: task_vector_cosine must be among them", config->file);
  if (mg_strings_find(&config->compatibility.metrics, "cka") >= 0 && config->texts.files == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: compatibility.metrics has cka, which needs texts.files: a path with {locale}",
                   config->file);
  if (has_stage(config, "nxn") && config->texts.files == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: stages has nxn, which needs texts.files: a path with {locale}", config->file);
  if (config->texts.files != NULL && strchr(config->texts.files, '{') != NULL &&
      strstr(config->texts.files, "{locale}") == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: texts.files: '%s' has no {locale} in it", config->file, config->texts.files);
  if (config->shards.stage_to != NULL && config->shards.dir == NULL)
    return mg_fail(MG_ERR_CONFIG, "%s: shards.stage_to is '%s', but with shards.dir: none there are no shards to copy there",
                   config->file, config->shards.stage_to);
  MG_TRY(check_grid(config), done);
  MG_TRY(check_microscope(config), done);
done:
  return status;
}
