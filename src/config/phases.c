/* grid.phases; and what preset, fixed, sweep and phases come to together. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

/* ---- reading ---- */

static void phase_spec_free(mg_phase_spec *phase) {
  mg_axes_free(&phase->fixed);
  mg_axes_free(&phase->sweep);
  free(phase->name);
  *phase = (mg_phase_spec){0};
}

static mg_status set_key(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_pair_t *pair, unsigned *seen,
                         mg_phase_spec *phase) {
  static const char *const known[] = {"name", "fixed", "sweep"};
  static const mg_option fixed = {.key = "grid.phases.fixed", .expected = "a map of keys that `recipe` has"};
  static const mg_option sweep = {.key = "grid.phases.sweep", .expected = "a map of keys that `recipe` has, with lists"};
  mg_status status = MG_OK;
  const yaml_node_t *key = yaml_document_get_node(document, pair->key);
  const yaml_node_t *value = yaml_document_get_node(document, pair->value);
  const char *name, *text;
  size_t k = 0;
  MG_TRY(mg_scalar(origin, key, "grid.phases", "a key", &name), done);
  while (k < 3 && strcmp(name, known[k]) != 0) k++;
  if (k == 3) {
    const char *nearest = mg_nearest(name, known, 3);
    return mg_config_error(origin, key, "grid.phases: '%.80s' is no known key; name, fixed and sweep were expected%s%s%s", name,
                           nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "");
  }
  if (*seen & 1u << k) return mg_config_error(origin, key, "grid.phases: '%s' is there twice", name);
  *seen |= 1u << k;
  if (k == 1) return mg_axes_set(&fixed, origin, document, value, &phase->fixed);
  if (k == 2) return mg_axes_set(&sweep, origin, document, value, &phase->sweep);
  MG_TRY(mg_scalar(origin, value, "grid.phases", "a name", &text), done);
  free(phase->name);
  phase->name = mg_strdup(text);
  if (phase->name == NULL) status = MG_ERR_NOMEM;
done:
  return status;
}

static mg_status set_phase(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node, size_t number,
                           mg_phase_spec *phase) {
  mg_status status = MG_OK;
  unsigned seen = 0;
  char text[24];
  if (node->type != YAML_MAPPING_NODE)
    return mg_config_error(origin, node, "grid.phases: a map with name, fixed and sweep was expected, not %s",
                           mg_node_kind(node));
  snprintf(text, sizeof text, "%zu", number);
  phase->name = mg_strdup(text);
  if (phase->name == NULL) return MG_ERR_NOMEM;
  for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++)
    MG_TRY(set_key(origin, document, p, &seen, phase), done);
  if (phase->fixed.count == 0 && phase->sweep.count == 0)
    return mg_config_error(origin, node, "grid.phases: phase '%s' fixes nothing and sweeps over nothing", phase->name);
done:
  return status;
}

mg_status mg_phases_set(const mg_option *o, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                        mg_grid_spec *spec) {
  mg_status status = MG_OK;
  if (node->type != YAML_SEQUENCE_NODE)
    return mg_config_error(origin, node, "%s: %s was expected, not %s", o->key, o->expected, mg_node_kind(node));
  for (size_t k = 0; k < spec->declared_count; k++) phase_spec_free(&spec->declared[k]);
  free(spec->declared);
  spec->declared_count = 0;
  const yaml_node_item_t *items = node->data.sequence.items.start;
  const size_t count = (size_t)(node->data.sequence.items.top - items);
  mg_named_node *names = mg_alloc(count, sizeof *names);
  spec->declared = mg_alloc_zero(count, sizeof *spec->declared);
  if (names == NULL || spec->declared == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < count; k++) {
    const yaml_node_t *item = yaml_document_get_node(document, items[k]);
    mg_phase_spec *phase = &spec->declared[spec->declared_count++];
    MG_TRY(set_phase(origin, document, item, k + 1, phase), cleanup);
    names[k] = (mg_named_node){.name = phase->name, .length = strlen(phase->name), .order = k, .node = item};
  }
  MG_TRY(mg_check_unique(origin, o->key, names, count), cleanup);
cleanup:
  free(names);
  return status;
}

/* ---- putting together ---- */

/* Terms that some value of an axis says, and those that every value says. */
static uint32_t said_by_any(const mg_axis *axis) {
  uint32_t said = axis->all_targets ? MG_GIVEN(MG_TERM_LOCALE) : 0;
  for (size_t k = 0; k < axis->count; k++) said |= axis->values[k].given;
  return said;
}

static uint32_t said_by_all(const mg_axis *axis) {
  uint32_t said = axis->all_targets ? MG_GIVEN(MG_TERM_LOCALE) : UINT32_MAX;
  for (size_t k = 0; k < axis->count; k++) said &= axis->values[k].given;
  return said;
}

static bool is_of_maps(const mg_axis *axis) { return mg_term_option(axis->name) == NULL; }

static mg_status said_twice(uint32_t terms, const mg_axis *first, const mg_axis *second) {
  for (int k = 0; k < MG_TERM_COUNT; k++)
    if (terms & MG_GIVEN(k))
      return mg_fail(MG_ERR_CONFIG, "%s: '%s' says %s, which '%s' says too (%s)", second->place, second->name,
                     mg_term_name((mg_term)k), first->name, first->place);
  return MG_ERR_INTERNAL;
}

/* Two keys of a sweep that say the same leave it open which counts. A swept map may say what is fixed otherwise. */
static mg_status check_overlap(const mg_axes *fixed, const mg_axes *sweep) {
  for (size_t s = 0; s < sweep->count; s++) {
    const mg_axis *axis = &sweep->items[s];
    const uint32_t said = said_by_any(axis);
    for (size_t k = 0; k < s; k++)
      if (said & said_by_any(&sweep->items[k])) return said_twice(said & said_by_any(&sweep->items[k]), &sweep->items[k], axis);
    for (size_t k = 0; k < fixed->count && !is_of_maps(axis); k++)
      if (said & said_by_any(&fixed->items[k])) return said_twice(said & said_by_any(&fixed->items[k]), &fixed->items[k], axis);
  }
  for (size_t s = 0; s < fixed->count; s++)
    for (size_t k = 0; k < s; k++) {
      const uint32_t both = said_by_any(&fixed->items[s]) & said_by_any(&fixed->items[k]);
      if (both) return said_twice(both, &fixed->items[k], &fixed->items[s]);
    }
  return MG_OK;
}

static void inherit(const mg_axes *from, uint32_t replaced, mg_phase *phase) {
  for (size_t k = 0; k < from->count; k++)
    if ((said_by_any(&from->items[k]) & ~replaced) != 0) phase->axes[phase->axis_count++] = from->items[k];
}

/* The axes of fixed and sweep, before them what they inherit and do not replace. inherited: NULL of the grid's own sweep. */
static mg_status assemble(const mg_grid_spec *spec, const char *name, const mg_axes *inherited, const mg_axes *fixed,
                          const mg_axes *sweep, mg_phase *phase) {
  uint32_t replaced = 0;
  const mg_status status = check_overlap(fixed, sweep);
  if (status != MG_OK) return status;
  phase->name = name;
  phase->axes =
      mg_alloc(spec->preset.count + (inherited ? inherited->count : 0) + fixed->count + sweep->count, sizeof *phase->axes);
  if (phase->axes == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < fixed->count; k++) replaced |= said_by_all(&fixed->items[k]);
  for (size_t k = 0; k < sweep->count; k++) replaced |= said_by_all(&sweep->items[k]);
  inherit(&spec->preset, replaced, phase);
  if (inherited != NULL) inherit(inherited, replaced, phase);
  inherit(fixed, 0, phase);
  inherit(sweep, 0, phase);
  return MG_OK;
}

static void phases_free(mg_grid_spec *spec) {
  for (size_t k = 0; k < spec->phase_count; k++) free(spec->phases[k].axes);
  free(spec->phases);
  spec->phases = NULL;
  spec->phase_count = 0;
}

mg_status mg_grid_assemble(mg_config *config) {
  mg_status status = MG_OK;
  mg_grid_spec *spec = &config->grid;
  const bool own = spec->sweep.count > 0 || (spec->declared_count == 0 && spec->fixed.count > 0);
  phases_free(spec);
  spec->phases = mg_alloc_zero(spec->declared_count + 1, sizeof *spec->phases);
  if (spec->phases == NULL) return MG_ERR_NOMEM;
  MG_TRY(check_overlap(&spec->fixed, &spec->sweep), done);
  if (spec->preset.count > 0 && strcmp(spec->preset.items[0].yaml, "none") != 0) {
    MG_TRY(check_overlap(&spec->preset, &spec->fixed), done);
    MG_TRY(check_overlap(&spec->preset, &spec->sweep), done);
  }
  if (own) MG_TRY(assemble(spec, "", NULL, &spec->fixed, &spec->sweep, &spec->phases[spec->phase_count++]), done);
  for (size_t k = 0; k < spec->declared_count; k++) {
    const mg_phase_spec *declared = &spec->declared[k];
    MG_TRY(assemble(spec, declared->name, &spec->fixed, &declared->fixed, &declared->sweep, &spec->phases[spec->phase_count++]),
           done);
  }
done:
  return status;
}

void mg_grid_spec_free(mg_grid_spec *spec) {
  phases_free(spec);
  for (size_t k = 0; k < spec->declared_count; k++) phase_spec_free(&spec->declared[k]);
  free(spec->declared);
  mg_axes_free(&spec->preset);
  mg_axes_free(&spec->fixed);
  mg_axes_free(&spec->sweep);
  mg_terms_free(&spec->defaults);
  mg_strings_free(&spec->similarity_names);
  mg_strings_free(&spec->similarity_files);
  free(spec->compatibility.tv), free(spec->compatibility.cka), free(spec->partition);
}
