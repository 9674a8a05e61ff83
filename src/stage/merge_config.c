/* config.json of a merge: a source's, or the base's with a classifier's architecture and labels where those are gone. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merging_impl.h"

/* What transformers calls a model with the head that the stage nxn evaluates. */
static const struct {
  const char *model_type, *architecture;
} CLASSIFIERS[] = {{"xlm-roberta", "XLMRobertaForSequenceClassification"}, {"roberta", "RobertaForSequenceClassification"}};

static mg_status load(const char *path, json_t **root) {
  json_error_t error;
  *root = json_load_file(path, 0, &error);
  if (json_is_object(*root)) return MG_OK;
  json_decref(*root);
  *root = NULL;
  return mg_fail(MG_ERR_INPUT, "%s: %s; the merge needs the architecture in it", path, error.text);
}

/* Of the first of the recipe's sources that has one; NULL where none has, and *first is where the first would have it. */
static mg_status find_of_source(const mg_merging *m, char **found, char **first) {
  *found = *first = NULL;
  for (size_t k = 0; k < m->recipe->count; k++) {
    char *path = mg_path_join(m->roster->list.items[m->recipe->source[k]].path, "config.json");
    if (path == NULL) return MG_ERR_NOMEM;
    if (mg_path_exists(path)) {
      *found = path;
      return MG_OK;
    }
    if (*first == NULL)
      *first = path;
    else
      free(path);
  }
  return MG_OK;
}

static mg_status name_architecture(const mg_merging *m, const char *path, json_t *root) {
  const char *type = json_string_value(json_object_get(root, "model_type"));
  if (mg_nxn_classes(mg_rows_table(m->rows)) == 0)
    return mg_fail(MG_ERR_INPUT, "%s: model_type %s: what architecture has these tensors is known of sequence classifiers only",
                   path, type != NULL ? type : "none");
  for (size_t k = 0; k < sizeof CLASSIFIERS / sizeof *CLASSIFIERS; k++) {
    if (type == NULL || strcmp(type, CLASSIFIERS[k].model_type) != 0) continue;
    json_t *architectures = json_pack("[s]", CLASSIFIERS[k].architecture);
    return json_object_set_new(root, "architectures", architectures) == 0 ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  return mg_fail(MG_ERR_INPUT, "%s: model_type is %s; xlm-roberta or roberta was expected", path, type != NULL ? type : "none");
}

/* The base's, made a classifier's. `lacking`: the config.json that would have done. */
static mg_status make_of_base(const mg_merging *m, const char *lacking, json_t **root) {
  mg_status status = MG_OK;
  char *path = mg_path_join(m->config->family.base, "config.json");
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(load(path, root), failed);
  MG_TRY(name_architecture(m, path, *root), failed);
  free(path);
  return MG_OK;
failed:
  if (status == MG_ERR_INPUT)
    mg_fail_context(status, "%s is gone, and so are the other sources' (--set family.base=DIR names another base)", lacking);
  json_decref(*root);
  *root = NULL;
  free(path);
  return status;
}

/* Heads are in the family's order, whatever order the source has its own in. */
static mg_status set_labels(const mg_merging *m, bool of_base, json_t *root) {
  const size_t count = m->labels->count > 0 ? m->labels->count : of_base ? (size_t)mg_nxn_classes(mg_rows_table(m->rows)) : 0;
  json_t *id2label = json_object(), *label2id = json_object();
  int failed = id2label == NULL || label2id == NULL;
  for (size_t c = 0; c < count && !failed; c++) {
    char number[24], name[32];
    snprintf(number, sizeof number, "%zu", c);
    snprintf(name, sizeof name, "LABEL_%zu", c);
    const char *label = m->labels->count > 0 ? m->labels->items[c] : name;
    failed = json_object_set_new(id2label, number, json_string(label)) |
             json_object_set_new(label2id, label, json_integer((json_int_t)c));
  }
  if (count > 0 && !failed) failed = json_object_set(root, "id2label", id2label) | json_object_set(root, "label2id", label2id);
  json_decref(id2label);
  json_decref(label2id);
  return failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

mg_status mg_merging_config(const mg_merging *m, json_t **config) {
  mg_status status = MG_OK;
  char *path = NULL, *lacking = NULL;
  *config = NULL;
  MG_TRY(find_of_source(m, &path, &lacking), cleanup);
  if (path != NULL)
    MG_TRY(load(path, config), cleanup);
  else
    MG_TRY(make_of_base(m, lacking, config), cleanup);
  json_object_del(*config, "_name_or_path");
  if (json_object_get(*config, "torch_dtype") != NULL) json_object_set_new(*config, "torch_dtype", json_string("float32"));
  if (json_object_get(*config, "dtype") != NULL) json_object_set_new(*config, "dtype", json_string("float32"));
  MG_TRY(set_labels(m, path == NULL, *config), cleanup);
cleanup:
  free(path), free(lacking);
  if (status != MG_OK) {
    json_decref(*config);
    *config = NULL;
  }
  return status;
}
