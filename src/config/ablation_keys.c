/* The keys that an ablation file may have, and what becomes of each. */

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ablation_impl.h"

static const mg_ablation_key KEYS[] = {
    {"method", MG_ABLATION_METHOD, NULL},
    {"experiment_type", MG_ABLATION_EXPERIMENT, NULL},
    {"locales", MG_ABLATION_TERM, "locale"},
    {"locale", MG_ABLATION_TERM, "locale"},
    {"target_locale", MG_ABLATION_TERM, "locale"},
    {"target_locales", MG_ABLATION_TERM, "locale"},
    {"target_languages", MG_ABLATION_TERM, "locale"},
    {"similarity_type", MG_ABLATION_TERM, "similarity_type"},
    {"num_languages", MG_ABLATION_TERM, "num_languages"},
    {"include_target", MG_ABLATION_TERM, "include_target"},
    {"top_k", MG_ABLATION_TERM, "top_k"},
    {"sinkhorn_iters", MG_ABLATION_TERM, "sinkhorn_iters"},
    {"dare_seed", MG_ABLATION_TERM, "seed"},
    {"seed", MG_ABLATION_TERM, "seed"},
    {"dare_drop_rate", MG_ABLATION_PARAMETER, NULL},
    {"dare_rescale", MG_ABLATION_PARAMETER, NULL},
    {"alpha", MG_ABLATION_PARAMETER, NULL},
    {"source_locales", MG_ABLATION_SOURCES, "sources"},
    {"cv_source_locales", MG_ABLATION_FOLDS, "sources"},
    {"model_family", MG_ABLATION_FAMILY, NULL},
    {"models_root", MG_ABLATION_FAMILY, NULL},
    {"pretrained_model_name", MG_ABLATION_FAMILY, NULL},
    {"base_model", MG_ABLATION_FAMILY, NULL},
    {"text_column", MG_ABLATION_FAMILY, NULL},
    {"layer_ablation_points", MG_ABLATION_NONE,
     "methods exclude_layers, include_layers and layer_swap have a parameter `layers`: see "
     "configs/ablations/layer-ablation.yaml"},
    {"nxn_matrix_path", MG_ABLATION_NONE, "REAL is what the stage nxn measures; grid.similarity takes a CSV as well"},
    {"merged_models_dir", MG_ABLATION_NONE, "no merge is kept as a checkpoint unless `mergegrid merge` writes it"},
    {"cleanup_after_eval", MG_ABLATION_NONE, "no merge is kept as a checkpoint"},
    {"results_dir", MG_ABLATION_NONE, "everything is in the one result"},
    {"dataset_name", MG_ABLATION_NONE, "texts.files says where the texts are"},
    {"dataset_split", MG_ABLATION_NONE, "grid.partition says what cells are scored on"},
    {"label_column", MG_ABLATION_NONE, "texts.label names the field"},
    {"num_examples", MG_ABLATION_NONE, "cells are scored on all texts"},
    {"batch_size", MG_ABLATION_NONE, "batches have a fixed number of tokens"},
    {"statsmerging_*", MG_ABLATION_NONE, "statsmerging is not in this version"},
    {"adamerging_*", MG_ABLATION_NONE, "adamerging is not in this version"},
    {"fisher_*", MG_ABLATION_NONE, "fisher and fisher_dataset are not in this version"}};
enum { KEY_COUNT = sizeof KEYS / sizeof *KEYS };

/* ---- keys ---- */

static bool is_key(const mg_ablation_key *key, const char *name) {
  const size_t length = strlen(key->name);
  return key->name[length - 1] == '*' ? strncmp(name, key->name, length - 1) == 0 && strlen(name) >= length
                                      : strcmp(name, key->name) == 0;
}

mg_status mg_ablation_unknown(const mg_ablating *a, const yaml_node_t *node, const char *name, const char *const *known,
                              size_t count) {
  const char *nearest = mg_nearest(name, known, count);
  mg_text all = {0};
  for (size_t k = 0; k < count; k++) mg_text_append(&all, "%s%s", k ? ", " : "", known[k]);
  const mg_status status =
      nearest != NULL
          ? mg_config_error(a->origin, node, "'%.80s' is no key known here; the nearest is '%s'", name, nearest)
          : mg_config_error(a->origin, node, "'%.80s' is no key known here; known: %s", name, all.data ? all.data : "");
  mg_text_free(&all);
  return status;
}

mg_status mg_ablation_key_find(const mg_ablating *a, const yaml_node_t *node, const char *name, const mg_ablation_key **key) {
  const char *known[KEY_COUNT];
  for (size_t k = 0; k < KEY_COUNT; k++) {
    known[k] = KEYS[k].name;
    *key = &KEYS[k];
    if (is_key(*key, name)) return MG_OK;
  }
  return mg_ablation_unknown(a, node, name, known, KEY_COUNT);
}

const mg_ablation_said *mg_ablation_find(const mg_ablation_block *block, const char *name) {
  for (size_t k = 0; k < block->count; k++)
    if (strcmp(block->said[k].key->name, name) == 0) return &block->said[k];
  return NULL;
}

mg_status mg_ablation_remark(mg_ablating *a, const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  const int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length < 0) return mg_fail(MG_ERR_NOMEM, "out of memory");
  const mg_status status = mg_strings_find(&a->out->remarks, text) < 0 ? mg_strings_add(&a->out->remarks, text) : MG_OK;
  free(text);
  return status;
}
