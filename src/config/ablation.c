/* An ablation file of merginguriel's runner: its keys, its phases, and what they come to. */

#include <stdlib.h>
#include <string.h>

#include "ablation_impl.h"

/* ---- reading ---- */

/* Says of a key what it says here; what was said of it before is forgotten. */
static mg_status say(mg_ablating *a, const mg_ablation_said *said, mg_ablation_block *block) {
  for (size_t k = 0; k < block->count; k++) {
    const char *as = block->said[k].key->as;
    const bool same =
        said->key->kind != MG_ABLATION_NONE && as != NULL && said->key->as != NULL && strcmp(as, said->key->as) == 0;
    if (block->said[k].key != said->key && !same) continue;
    block->count--;
    memmove(&block->said[k], &block->said[k + 1], (block->count - k) * sizeof *block->said);
    break;
  }
  if (block->count == MG_MOST_SAID) return mg_config_error(a->origin, said->key_node, "more keys than there are");
  block->said[block->count++] = *said;
  return MG_OK;
}

/* The keys of fixed or sweep. */
static mg_status read_keys(mg_ablating *a, const yaml_node_t *map, const char *what, mg_ablation_block *block) {
  mg_status status = MG_OK;
  if (map == NULL || mg_node_is_empty(map)) return MG_OK;
  if (map->type != YAML_MAPPING_NODE)
    return mg_config_error(a->origin, map, "%s: a map was expected, not %s", what, mg_node_kind(map));
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    mg_ablation_said said = {.key_node = yaml_document_get_node(a->document, p->key),
                             .value = yaml_document_get_node(a->document, p->value),
                             .swept = strcmp(what, "sweep") == 0};
    const char *name;
    MG_TRY(mg_scalar(a->origin, said.key_node, what, "a key", &name), done);
    MG_TRY(mg_ablation_key_find(a, said.key_node, name, &said.key), done);
    for (const yaml_node_pair_t *q = map->data.mapping.pairs.start; q < p; q++)
      if (strcmp((const char *)yaml_document_get_node(a->document, q->key)->data.scalar.value, name) == 0)
        return mg_config_error(a->origin, said.key_node, "'%s' is there twice", name);
    if (said.key->kind == MG_ABLATION_NONE) MG_TRY(mg_ablation_remark(a, "%s: %s", name, said.key->as), done);
    MG_TRY(say(a, &said, block), done);
  }
done:
  return status;
}

/* The values of a map's keys, by the names' order; NULL where it has none. */
static mg_status read_map(const mg_ablating *a, const yaml_node_t *map, const char *const *names, size_t count,
                          const yaml_node_t **values) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < count; k++) values[k] = NULL;
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *key = yaml_document_get_node(a->document, p->key);
    const char *name;
    size_t k = 0;
    MG_TRY(mg_scalar(a->origin, key, "ablation", "a key", &name), done);
    while (k < count && strcmp(names[k], name) != 0) k++;
    if (k == count) return mg_ablation_unknown(a, key, name, names, count);
    if (values[k] != NULL) return mg_config_error(a->origin, key, "'%s' is there twice", name);
    values[k] = yaml_document_get_node(a->document, p->value);
  }
done:
  return status;
}

/* ---- sections other than grid ---- */

/* The text of a scalar, or of the first of a list. */
static mg_status first_text(mg_ablating *a, const mg_ablation_said *said, char **text) {
  const yaml_node_t *node = said->value;
  const char *value;
  if (node->type == YAML_SEQUENCE_NODE && node->data.sequence.items.start < node->data.sequence.items.top) {
    const bool several = node->data.sequence.items.top - node->data.sequence.items.start > 1;
    node = yaml_document_get_node(a->document, *node->data.sequence.items.start);
    if (several) {
      const mg_status status = mg_ablation_remark(a, "%s: a run has one family; the first is taken", said->key->name);
      if (status != MG_OK) return status;
    }
  }
  const mg_status status = mg_scalar(a->origin, node, said->key->name, "a name", &value);
  if (status != MG_OK) return status;
  free(*text);
  *text = mg_strdup(value);
  return *text != NULL ? MG_OK : MG_ERR_NOMEM;
}

static mg_status read_family(mg_ablating *a, const mg_ablation_block *block) {
  mg_status status = MG_OK;
  mg_ablation *out = a->out;
  const struct {
    const char *name;
    char **text;
  } keys[] = {{"models_root", &out->models_root},
              {"model_family", &out->model_family},
              {"base_model", &out->pretrained},
              {"pretrained_model_name", &out->pretrained},
              {"text_column", &out->text_column}};
  for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
    const mg_ablation_said *said = mg_ablation_find(block, keys[k].name);
    if (said != NULL) MG_TRY(first_text(a, said, keys[k].text), done);
  }
done:
  return status;
}

/* ---- the section grid ---- */

/* name, fixed and sweep of a phase, over what the file fixes. */
static mg_status write_phase(mg_ablating *a, const mg_ablation_block *fixed, const yaml_node_t *node, const char *name,
                             mg_text *text, bool *any) {
  static const char *const names[] = {"name", "description", "fixed", "sweep"};
  mg_status status = MG_OK;
  const yaml_node_t *values[4];
  mg_ablation_block block = *fixed;
  mg_text lines = {0};
  bool some = false;
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(a->origin, node, "phases: a map with fixed and sweep was expected, not %s", mg_node_kind(node));
  MG_TRY(read_map(a, node, names, 4, values), cleanup);
  if (values[0] != NULL) MG_TRY(mg_scalar(a->origin, values[0], "name", "a name", &name), cleanup);
  block.name = name;
  MG_TRY(read_keys(a, values[2], "fixed", &block), cleanup);
  MG_TRY(read_keys(a, values[3], "sweep", &block), cleanup);
  MG_TRY(read_family(a, &block), cleanup);
  MG_TRY(mg_ablation_block_write(a, &block, "      ", &lines, &some), cleanup);
  if (!some) goto cleanup;
  if (!*any) mg_text_append(text, "  phases:\n");
  mg_text_append(text, "    - name: \"");
  mg_yaml_escape(text, name);
  mg_text_append(text, "\"\n%s", lines.data);
  *any = true;
cleanup:
  mg_text_free(&lines);
  return status;
}

/* A list of maps, or a map of them by name. */
static mg_status write_phases(mg_ablating *a, const mg_ablation_block *fixed, const yaml_node_t *node, mg_text *text,
                              bool *any) {
  mg_status status = MG_OK;
  char number[24];
  if (node == NULL || mg_node_is_empty(node)) return MG_OK;
  if (node->type == YAML_SCALAR_NODE) return mg_config_error(a->origin, node, "phases: a list was expected, not a value");
  const bool map = node->type == YAML_MAPPING_NODE;
  const yaml_node_pair_t *pairs = map ? node->data.mapping.pairs.start : NULL;
  const yaml_node_item_t *items = map ? NULL : node->data.sequence.items.start;
  const size_t count = map ? (size_t)(node->data.mapping.pairs.top - pairs) : (size_t)(node->data.sequence.items.top - items);
  for (size_t k = 0; k < count; k++) {
    const char *name = number;
    snprintf(number, sizeof number, "%zu", k + 1);
    if (map) MG_TRY(mg_scalar(a->origin, yaml_document_get_node(a->document, pairs[k].key), "phases", "a name", &name), done);
    const yaml_node_t *phase = yaml_document_get_node(a->document, map ? pairs[k].value : items[k]);
    MG_TRY(write_phase(a, fixed, phase, name, text, any), done);
  }
done:
  return status;
}

static mg_status write_grid(mg_ablating *a, const yaml_node_t *fixed, const yaml_node_t *sweep, const yaml_node_t *phases,
                            const char *matrix) {
  mg_status status = MG_OK;
  mg_text body = {0}, *grid = &a->out->grid;
  mg_ablation_block block = {0};
  bool own = false, any = false;
  const bool swept = sweep != NULL && !mg_node_is_empty(sweep);
  const bool alone = phases == NULL || mg_node_is_empty(phases);
  MG_TRY(read_keys(a, fixed, "fixed", &block), cleanup);
  MG_TRY(read_family(a, &block), cleanup);
  const mg_ablation_block inherited = block;
  MG_TRY(read_keys(a, sweep, "sweep", &block), cleanup);
  MG_TRY(read_family(a, &block), cleanup);
  if (swept || alone) MG_TRY(mg_ablation_block_write(a, &block, "  ", &body, &own), cleanup);
  if (!own) body.size = 0;
  MG_TRY(write_phases(a, &inherited, phases, &body, &any), cleanup);
  if (!own && !any) {
    status = mg_fail(MG_ERR_CONFIG, "%s: no method of it is in this version: %s", a->origin->label,
                     a->out->remarks.count > 0 ? a->out->remarks.items[a->out->remarks.count - 1] : "none is named");
    goto cleanup;
  }
  mg_text_append(grid, "grid:\n");
  if (a->goes_by[0] || a->goes_by[1]) {
    mg_text_append(grid, "  similarity: {%s", a->goes_by[0] ? "URIEL: \"" : "");
    if (a->goes_by[0]) mg_yaml_escape(grid, matrix);
    mg_text_append(grid, "%s%s}\n", a->goes_by[0] ? "\"" : "",
                   a->goes_by[1] ? a->goes_by[0] ? ", REAL: nxn" : "REAL: nxn" : "");
  }
  mg_text_append(grid,
                 "  # merginguriel: every choice as that system makes it; [none, merginguriel]: both ways\n"
                 "  preset: none\n%s",
                 body.data);
  if (grid->failed || body.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
cleanup:
  mg_text_free(&body);
  return status;
}

/* ---- the file ---- */

static mg_status keep_text(const mg_ablating *a, const yaml_node_t *node, const char *key, char **text) {
  const char *value;
  if (node == NULL || mg_node_is_empty(node)) return MG_OK;
  const mg_status status = mg_scalar(a->origin, node, key, "a text", &value);
  if (status != MG_OK) return status;
  *text = mg_strdup(value);
  return *text != NULL ? MG_OK : MG_ERR_NOMEM;
}

typedef struct reading {
  mg_ablation *out;
  const char *matrix;
} reading;

static mg_status use(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root, void *context) {
  enum { NAME, DESCRIPTION, FIXED, SWEEP, PHASES, DB_PATH, RESULTS, DRY_RUN, RESUME, COUNT };
  static const char *const whole[] = {"ablation"};
  static const char *const names[COUNT] = {"name",    "description",      "fixed",   "sweep", "phases",
                                           "db_path", "results_base_dir", "dry_run", "resume"};
  static const char *const remarks[COUNT] = {[DB_PATH] =
                                                 "the result has every cell; mergegrid export writes experiments.db from it",
                                             [RESULTS] = "everything is in the one result",
                                             [DRY_RUN] = "mergegrid plan lists what a run would do",
                                             [RESUME] = "a run continues what was begun, by itself"};
  mg_status status = MG_OK;
  reading *r = context;
  mg_ablating a = {.origin = origin, .document = document, .out = r->out};
  const yaml_node_t *ablation, *values[COUNT];
  if (root == NULL || root->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, root, "a map with the key ablation was expected");
  MG_TRY(read_map(&a, root, whole, 1, &ablation), done);
  if (ablation == NULL || ablation->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, ablation != NULL ? ablation : root, "ablation: a map with fixed and sweep was expected");
  MG_TRY(read_map(&a, ablation, names, COUNT, values), done);
  MG_TRY(keep_text(&a, values[NAME], "name", &r->out->name), done);
  MG_TRY(keep_text(&a, values[DESCRIPTION], "description", &r->out->description), done);
  for (int k = 0; k < COUNT; k++)
    if (values[k] != NULL && remarks[k] != NULL) MG_TRY(mg_ablation_remark(&a, "%s: %s", names[k], remarks[k]), done);
  MG_TRY(write_grid(&a, values[FIXED], values[SWEEP], values[PHASES], r->matrix), done);
done:
  return status;
}

/* What only the configuration knows to be wrong (two keys that say the same), before anyone has to find out. */
static mg_status check_grid(const char *file, const mg_ablation *ablation) {
  mg_config *config = NULL;
  mg_text text = {0};
  mg_text_append(&text, "family: {base: b, sources: \"{locale}\"}\n%s", ablation->grid.data);
  mg_status status =
      text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_config_parse("the grid", text.data, text.size, NULL, &config);
  if (status == MG_ERR_CONFIG) status = mg_fail_context(status, "%s: comes to what is no grid", file);
  mg_config_free(&config);
  mg_text_free(&text);
  return status;
}

mg_status mg_ablation_read(const char *file, const char *text, size_t size, const char *matrix, mg_ablation *ablation) {
  const mg_yaml_origin origin = {.label = file, .positions = true, .dir = ""};
  reading r = {.out = ablation, .matrix = matrix != NULL ? matrix : "language_similarity_matrix_unified.csv"};
  *ablation = (mg_ablation){0};
  mg_status status = mg_yaml_read(&origin, text, size, use, &r);
  if (status == MG_OK) status = check_grid(file, ablation);
  if (status != MG_OK) mg_ablation_free(ablation);
  return status;
}

void mg_ablation_free(mg_ablation *ablation) {
  free(ablation->name), free(ablation->description), free(ablation->models_root), free(ablation->model_family);
  free(ablation->pretrained), free(ablation->text_column);
  mg_text_free(&ablation->grid);
  mg_strings_free(&ablation->remarks);
  *ablation = (mg_ablation){0};
}
