/* init --from: what an ablation file comes to, with or without a family that is there. */

#include <string.h>

#include "init_impl.h"
#include "mergegrid/config.h"

void mg_init_ablation_remarks(mg_text *out, const char *file, const mg_ablation *a) {
  mg_init_line(out, "ablation", a->name != NULL ? a->name : file);
  if (a->description != NULL) mg_init_line(out, "what it is", a->description);
  if (a->name != NULL) mg_init_line(out, "from", file);
  if (a->remarks.count > 0) mg_text_append(out, "# What has no counterpart here, or another one:\n");
  for (size_t k = 0; k < a->remarks.count; k++) {
    mg_text_append(out, "#   ");
    mg_yaml_escape(out, a->remarks.items[k]);
    mg_text_append(out, "\n");
  }
}

/* "haryos_model/xlm-roberta-base", with what stands behind it. */
static void append_path(mg_text *out, const mg_ablation *a, const char *name, const char *suffix) {
  mg_text path = {0};
  if (strchr(name, '/') == NULL) mg_text_append(&path, "%s/", a->models_root);
  mg_text_append(&path, "%s%s", name, suffix);
  mg_init_scalar(out, path.data != NULL ? path.data : "");
  out->failed |= path.failed;
  mg_text_free(&path);
}

static void append_family(mg_text *out, const mg_init_options *options, const mg_ablation *a) {
  const char *base = a->pretrained != NULL ? a->pretrained : a->model_family;
  mg_text_append(out, "\nfamily:\n  # The pretrained model's directory; a name of the Hub won't do.\n  base: ");
  append_path(out, a, base, "");
  mg_text_append(out, "\n  sources: ");
  append_path(out, a, a->model_family, "_massive_k_{locale}");
  mg_text_append(out, "\n\n# Labelled texts, a file a locale: MASSIVE's JSON lines, or .tsv.\ntexts: {files: ");
  mg_init_scalar(out, options->texts != NULL ? options->texts : "texts/{locale}.jsonl");
  if (a->text_column != NULL) mg_text_append(out, ", text: ");
  if (a->text_column != NULL) mg_init_scalar(out, a->text_column);
  mg_text_append(out, "}\n\n# grid brings compatibility and nxn with it.\nstages: [grid]\n");
  if (a->needs_cka) mg_text_append(out, "compatibility: {metrics: [task_vector_cosine, cka]}\n");
}

mg_status mg_init_compose_ablation(const mg_init_options *options, const mg_ablation *a, mg_text *out) {
  const bool family = a->models_root != NULL && a->model_family != NULL;
  mg_text_append(out, family ? "# A configuration for mergegrid. Paths are relative to the directory of this file.\n"
                               "# `mergegrid help config` explains every key.\n#\n"
                             : "# The section grid of a configuration for mergegrid: stages: [grid] runs it.\n#\n");
  mg_init_ablation_remarks(out, options->from, a);
  if (family) append_family(out, options, a);
  mg_text_append(out, "\n%s", a->grid.data);
  return out->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}
