/* Methods as formulas: one line of the registry each. */

#include <string.h>

#include "merge_impl.h"

static double value_of(const mg_recipe *r, const char *name) { return mg_method_value(r->method, r->values, name); }

static void linear(const mg_recipe *r, mg_formula *f) {
  f->weighted = true;
  f->lambda = value_of(r, "lambda");
}

static void average(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->mean = true;
}

static void task_arithmetic(const mg_recipe *r, mg_formula *f) {
  f->weighted = value_of(r, "weighted") != 0;
  f->lambda = value_of(r, "lambda");
}

static void elect(const mg_recipe *r, mg_formula *f) {
  f->combine = MG_COMBINE_ELECT;
  f->elected = (mg_elected)value_of(r, "combine");
  f->weighted = value_of(r, "weighted") != 0;
  f->lambda = value_of(r, "lambda");
  f->density = value_of(r, "density");
}

static void ties(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  f->keep = MG_KEEP_LARGEST;
  f->global_trim = value_of(r, "trim") != 0;
}

static void drop(const mg_recipe *r, mg_formula *f) {
  f->keep = MG_KEEP_RANDOM;
  f->random = true;
  f->density = value_of(r, "density");
  f->rescale = (mg_rescale)value_of(r, "rescale");
}

static void dare_linear(const mg_recipe *r, mg_formula *f) {
  task_arithmetic(r, f);
  drop(r, f);
}

static void dare_ties(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  drop(r, f);
}

static void magmax(const mg_recipe *r, mg_formula *f) {
  f->combine = MG_COMBINE_LARGEST;
  f->lambda = value_of(r, "lambda");
}

static void breadcrumbs(const mg_recipe *r, mg_formula *f) {
  task_arithmetic(r, f);
  f->keep = MG_KEEP_LARGEST;
  f->density = value_of(r, "density");
  f->gamma = value_of(r, "gamma");
}

static void breadcrumbs_ties(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  f->keep = MG_KEEP_LARGEST;
  f->gamma = value_of(r, "gamma");
}

static void ram(const mg_recipe *r, mg_formula *f) {
  f->keep = MG_KEEP_ABOVE;
  f->epsilon = value_of(r, "epsilon");
  f->combine = MG_COMBINE_ACTIVE;
}

static const struct {
  const char *name;
  void (*make)(const mg_recipe *recipe, mg_formula *formula); /* NULL: nothing but coefficients */
  mg_coefficients_fn coefficients;
} REGISTRY[] = {{"linear", linear, NULL},
                {"similarity", linear, NULL},
                {"manual", linear, NULL},
                {"average", average, NULL},
                {"similarity_x_tv_compatibility", linear, NULL},
                {"similarity_x_cka_compatibility", linear, NULL},
                {"task_arithmetic", task_arithmetic, NULL},
                {"ties", ties, NULL},
                {"dare_linear", dare_linear, NULL},
                {"dare_ties", dare_ties, NULL},
                {"magmax", magmax, NULL},
                {"breadcrumbs", breadcrumbs, NULL},
                {"breadcrumbs_ties", breadcrumbs_ties, NULL},
                {"ram", ram, NULL},
                {"model_stock", NULL, mg_model_stock},
                {"directional_consensus", NULL, mg_directional_consensus},
                {"fisher_simple", NULL, mg_fisher_simple},
                {"slerp", NULL, mg_slerp},
                {"multislerp", NULL, mg_multislerp},
                {"karcher", NULL, mg_karcher}};

mg_status mg_formula_of(const mg_recipe *recipe, mg_formula *formula) {
  *formula = (mg_formula){.density = 1, .lambda = 1};
  for (size_t k = 0; k < sizeof REGISTRY / sizeof *REGISTRY; k++)
    if (strcmp(REGISTRY[k].name, recipe->method->name) == 0) {
      formula->coefficients = REGISTRY[k].coefficients;
      if (REGISTRY[k].make != NULL) REGISTRY[k].make(recipe, formula);
      return MG_OK;
    }
  return mg_fail(MG_ERR_INTERNAL, "method %s is in the table and not in the registry", recipe->method->name);
}

mg_formula mg_formula_of_head(const mg_recipe *recipe) {
  return (mg_formula){.density = 1, .lambda = 1, .weighted = recipe->method->weighted, .mean = !recipe->method->weighted};
}

mg_head_policy mg_head_policy_of(const char *text) {
  if (strcmp(text, "method") == 0) return MG_HEAD_METHOD;
  return strcmp(text, "random") == 0 ? MG_HEAD_RANDOM : MG_HEAD_LINEAR;
}

/* A sum with fixed coefficients, whatever it is called. */
static bool is_plain_sum(const mg_formula *f) {
  return f->coefficients == NULL && f->keep == MG_KEEP_ALL && f->combine == MG_COMBINE_SUM;
}

static void append_weights(const mg_recipe *r, const mg_formula *f, mg_text *text) {
  for (size_t k = 0; k < r->count; k++)
    mg_text_append(text, " %a", f->lambda * (f->mean ? 1 / (double)r->count : f->weighted ? r->weight[k] : 1));
}

mg_status mg_recipe_canonical(const mg_recipe *r, mg_text *text) {
  mg_status status = MG_OK;
  mg_formula body;
  MG_TRY(mg_formula_of(r, &body), done);
  const mg_formula head = mg_formula_of_head(r);
  mg_text_append(text, "%s", is_plain_sum(&body) ? "sum" : r->method->name);
  for (size_t k = 0; !is_plain_sum(&body) && k < r->method->parameter_count; k++) mg_text_append(text, " %a", r->values[k]);
  if (is_plain_sum(&body))
    append_weights(r, &body, text);
  else if (body.weighted || r->method->weighted)
    for (size_t k = 0; k < r->count; k++) mg_text_append(text, " %a", r->weight[k]);
  mg_text_append(text, " head %d", (int)r->head);
  if (r->head == MG_HEAD_LINEAR) append_weights(r, &head, text);
  if (body.random || r->head == MG_HEAD_RANDOM) mg_text_append(text, " seed %llu", (unsigned long long)r->seed);
  if (text->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
done:
  return status;
}

bool mg_recipe_reads_whole(const mg_recipe *recipe) {
  (void)recipe;
  return false;
}
