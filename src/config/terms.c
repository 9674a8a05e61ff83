/* The terms that a recipe, `fixed` and `sweep` share: one table of options for all three. */

#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

static const char SECTION[] = "recipe.";

/* What people who sweep over several of them write. */
static const struct { const char *alias, *name; } ALIASES[] = {{"locales", "locale"}};

static const mg_option *option_of(uint32_t term) {
  for (size_t k = 0; k < mg_option_count; k++)
    if (mg_options[k].term == term) return &mg_options[k];
  return NULL;
}

const char *mg_term_name(mg_term term) { return option_of(MG_GIVEN(term))->key + strlen(SECTION); }

const mg_option *mg_term_option(const char *name) {
  for (size_t k = 0; k < sizeof ALIASES / sizeof *ALIASES; k++)
    if (strcmp(name, ALIASES[k].alias) == 0) name = ALIASES[k].name;
  for (size_t k = 0; k < mg_option_count; k++)
    if (mg_options[k].term != 0 && strcmp(mg_options[k].key + strlen(SECTION), name) == 0) return &mg_options[k];
  return NULL;
}

mg_status(mg_term_unknown)(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *name,
                           const char *more) {
  mg_text all = {0};
  const char *names[MG_TERM_COUNT + 1];
  size_t count = 0;
  for (; count < MG_TERM_COUNT; count++) {
    names[count] = mg_term_name((mg_term)count);
    mg_text_append(&all, "%s%s", count ? ", " : "", names[count]);
  }
  names[count] = more;
  if (more != NULL) count++;
  const char *nearest = mg_nearest(name, names, count);
  const mg_status status =
      nearest != NULL
          ? mg_config_error(origin, node, "%s: '%.80s' is no known key; the nearest is '%s'", key, name, nearest)
          : mg_config_error(origin, node, "%s: '%.80s' is no known key; known: %s", key, name, all.data ? all.data : "");
  mg_text_free(&all);
  return status;
}

mg_status mg_term_set(const mg_option *o, const char *key, const mg_yaml_origin *origin, yaml_document_t *document,
                      const yaml_node_t *node, size_t variant, mg_terms *terms) {
  mg_status status = MG_OK;
  mg_option relative = *o;
  relative.key = key;
  relative.field -= offsetof(mg_config, recipe);
  if (o->type == MG_OPTION_METHOD)
    MG_TRY(mg_recipe_method_set(&relative, origin, document, node, variant, terms), done);
  else
    MG_TRY(mg_value_set(&relative, origin, document, node, terms), done);
  if (o->term == MG_GIVEN(MG_TERM_LOCALE)) MG_TRY(mg_check_id(origin, node, key, terms->locale, strlen(terms->locale)), done);
  terms->given |= o->term;
done:
  return status;
}

/* ---- owning ---- */

static mg_status copy_text(const char *from, char **to) {
  *to = from != NULL ? mg_strdup(from) : NULL;
  return from != NULL && *to == NULL ? MG_ERR_NOMEM : MG_OK;
}

/* What a table of defaults can hold: no sources. */
mg_status mg_terms_copy(const mg_terms *from, mg_terms *to) {
  mg_status status = MG_OK;
  *to = *from;
  to->sources = (mg_strings){0};
  to->weights = NULL;
  char *const texts[] = {from->locale, from->similarity_type, from->preset,     from->head,       from->axis,
                         from->select, from->inctar,          from->duplicates, from->lambda_rule};
  char **const fields[] = {&to->locale, &to->similarity_type, &to->preset,     &to->head,       &to->axis,
                           &to->select, &to->inctar,          &to->duplicates, &to->lambda_rule};
  for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) *fields[k] = NULL;
  for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) MG_TRY(copy_text(texts[k], fields[k]), failed);
  return MG_OK;
failed:
  mg_terms_free(to);
  return status;
}

void mg_terms_free(mg_terms *terms) {
  mg_strings_free(&terms->sources);
  free(terms->weights), free(terms->head), free(terms->locale), free(terms->similarity_type), free(terms->preset);
  free(terms->axis), free(terms->select), free(terms->inctar), free(terms->duplicates), free(terms->lambda_rule);
  *terms = (mg_terms){0};
}
