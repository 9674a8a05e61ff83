/* Methods as formulas: one line of the registry each. */

#include <string.h>

#include "merge_impl.h"

double mg_value_or(const mg_recipe *r, const char *name, double otherwise) {
  const int k = mg_method_parameter(r->method, name);
  return k >= 0 ? r->values[k] : otherwise;
}

/* ---- sums ---- */

static void mask(const mg_recipe *r, mg_formula *f) {
  f->mask_rate = mg_value(r, "mask_rate");
  if (f->mask_rate > 0) f->keep = MG_KEEP_LARGEST;
}

static void linear(const mg_recipe *r, mg_formula *f) {
  f->weighted = true;
  f->lambda = mg_value(r, "lambda");
  mask(r, f);
}

static void average(const mg_recipe *r, mg_formula *f) {
  f->mean = true;
  mask(r, f);
}

/* What AML may do to task vectors first. */
static void drop_first(const mg_recipe *r, mg_formula *f) {
  const double rate = mg_value(r, "dare_drop_rate");
  if (!(rate > 0)) return;
  f->drop = MG_DROP_EVENLY;
  f->drop_density = 1 - rate;
  f->rescale = mg_value(r, "dare_rescale") != 0 ? MG_RESCALE_INVERSE : MG_RESCALE_NONE;
}

static void sum(const mg_recipe *r, mg_formula *f) {
  f->weighted = mg_value(r, "weighted") != 0;
  f->mean = !f->weighted && mg_value(r, "normalize") != 0;
  f->lambda = mg_value(r, "lambda");
}

static void task_arithmetic(const mg_recipe *r, mg_formula *f) {
  sum(r, f);
  drop_first(r, f);
}

/* ---- elections ---- */

static void elect(const mg_recipe *r, mg_formula *f) {
  f->combine = mg_combine_elect;
  f->elected = (mg_elected)mg_value(r, "combine");
  f->weighted = mg_value(r, "weighted") != 0;
  f->equal_votes = mg_value(r, "equal_votes") != 0;
  if (mg_value(r, "zeros") != 0) f->count_signs = mg_count_elected;
  f->lambda = mg_value(r, "lambda");
}

static void ties(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  drop_first(r, f);
  f->keep = MG_KEEP_LARGEST;
  f->density = mg_value(r, "density");
  f->global_trim = mg_value(r, "trim") != 0;
}

/* ---- thinning out ---- */

static void drop(const mg_recipe *r, mg_formula *f, mg_drop how) {
  f->drop_density = mg_value(r, "density");
  f->drop = f->drop_density < 1 ? how : MG_DROP_NONE;
  f->drop_spread = mg_value(r, "epsilon");
  f->linear_layers = mg_value(r, "linear_layers") != 0;
  f->rescale = (mg_rescale)mg_value(r, "rescale");
}

static void dare_linear(const mg_recipe *r, mg_formula *f) {
  sum(r, f);
  drop(r, f, MG_DROP_EVENLY);
}

static void dare_ties(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  drop(r, f, MG_DROP_EVENLY);
}

static void della_linear(const mg_recipe *r, mg_formula *f) {
  sum(r, f);
  drop(r, f, MG_DROP_BY_RANK);
}

static void della(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  drop(r, f, MG_DROP_BY_RANK);
}

static void magmax(const mg_recipe *r, mg_formula *f) {
  f->combine = mg_combine_largest;
  f->lambda = mg_value(r, "lambda");
}

static void keep_middle(const mg_recipe *r, mg_formula *f) {
  f->keep = MG_KEEP_LARGEST;
  f->density = mg_value(r, "density");
  f->gamma = mg_value(r, "gamma");
}

static void breadcrumbs(const mg_recipe *r, mg_formula *f) {
  sum(r, f);
  keep_middle(r, f);
}

static void breadcrumbs_ties(const mg_recipe *r, mg_formula *f) {
  elect(r, f);
  keep_middle(r, f);
}

static void ram(const mg_recipe *r, mg_formula *f) {
  f->keep = MG_KEEP_ABOVE;
  f->above = mg_value(r, "epsilon");
  f->combine = mg_combine_active;
}

static void ramplus_tl(const mg_recipe *r, mg_formula *f) {
  ram(r, f);
  f->prepare = mg_prepare_ramplus;
  f->reads_whole = true;
}

/* ---- coefficients from a tensor's geometry ---- */

static void model_stock(const mg_recipe *r, mg_formula *f) {
  f->coefficients = mg_model_stock;
  f->by_row = mg_value(r, "filter_wise") != 0;
}

static void directional_consensus(const mg_recipe *r, mg_formula *f) {
  f->coefficients = mg_directional_consensus;
  f->weighted = mg_value(r, "aggregation") == 0;
  mask(r, f);
  drop_first(r, f);
}

static void fisher_simple(const mg_recipe *r, mg_formula *f) {
  f->coefficients = mg_fisher_simple;
  f->weighted = mg_value(r, "weighted") != 0;
  mask(r, f);
}

static void slerp(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->coefficients = mg_slerp;
  f->weighted = true;
}

static void multislerp(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->coefficients = mg_multislerp;
  f->weighted = true;
}

static void karcher(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->coefficients = mg_karcher;
}

static void sce(const mg_recipe *r, mg_formula *f) {
  f->combine = mg_combine_elect;
  f->equal_votes = true;
  f->floor = 1e-6;
  if (!(mg_value(r, "select_topk") < 1)) {
    f->coefficients = mg_sce_weights;
    return;
  }
  f->prepare = mg_prepare_sce;
  f->combine = mg_combine_sce;
  f->reads_whole = true;
}

/* ---- layers, neurons, two models ---- */

static void layer_swap(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->prepare = mg_layer_swap;
  f->fewest = f->most_sources = 2;
  f->ordered = true;
}

static void exclude_layers(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->prepare = mg_exclude_layers;
  f->weighted = f->takes_best = true;
}

static void include_layers(const mg_recipe *r, mg_formula *f) {
  f->prepare = mg_include_layers;
  f->weighted = true;
  f->takes_best = mg_value(r, "elsewhere") != 0;
}

static void neuromerging(const mg_recipe *r, mg_formula *f) {
  mask(r, f);
  f->share = f->mask_rate > 0 && mg_value(r, "lambda2_from") == 0;
  f->prepare = mg_prepare_neuro;
  f->combine = mg_combine_neuro;
  f->count_signs = mg_count_neuro;
  f->lambda = mg_value(r, "lambda");
  f->weighted = mg_value(r, "weighted") != 0;
}

static void nuslerp(const mg_recipe *r, mg_formula *f) {
  f->fewest = f->most_sources = 2;
  f->weighted = true;
  if (mg_value(r, "flatten") != 0 || mg_value(r, "row_wise") == 0) {
    f->coefficients = mg_nuslerp;
    f->by_row = mg_value(r, "flatten") == 0;
    return;
  }
  f->prepare = mg_prepare_columns;
  f->combine = mg_combine_columns;
  f->reads_whole = true;
}

static void nearswap(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->combine = mg_combine_near;
  f->fewest = 1, f->most_sources = 2;
  f->ordered = true;
}

static void arcee_fusion(const mg_recipe *r, mg_formula *f) {
  (void)r;
  f->prepare = mg_prepare_fusion;
  f->combine = mg_combine_fusion;
  f->fewest = 1, f->most_sources = 2;
  f->ordered = f->reads_whole = true;
}

/* ---- the registry ---- */

static const struct {
  const char *name;
  void (*make)(const mg_recipe *recipe, mg_formula *formula);
  const char *as; /* the method that computes the same from the same parameters; NULL: none */
} REGISTRY[] = {{"linear", linear, NULL},
                {"similarity", linear, "linear"},
                {"manual", linear, "linear"},
                {"average", average, NULL},
                {"similarity_x_tv_compatibility", linear, "linear"},
                {"similarity_x_cka_compatibility", linear, "linear"},
                {"task_arithmetic", task_arithmetic, NULL},
                {"ties", ties, NULL},
                {"dare_linear", dare_linear, NULL},
                {"dare_ties", dare_ties, NULL},
                {"magmax", magmax, NULL},
                {"breadcrumbs", breadcrumbs, NULL},
                {"breadcrumbs_ties", breadcrumbs_ties, NULL},
                {"ram", ram, NULL},
                {"model_stock", model_stock, NULL},
                {"directional_consensus", directional_consensus, NULL},
                {"fisher_simple", fisher_simple, NULL},
                {"slerp", slerp, NULL},
                {"multislerp", multislerp, NULL},
                {"karcher", karcher, NULL},
                {"layer_swap", layer_swap, NULL},
                {"exclude_layers", exclude_layers, NULL},
                {"include_layers", include_layers, NULL},
                {"neuromerging", neuromerging, NULL},
                {"della", della, NULL},
                {"della_linear", della_linear, NULL},
                {"nuslerp", nuslerp, NULL},
                {"sce", sce, NULL},
                {"nearswap", nearswap, NULL},
                {"arcee_fusion", arcee_fusion, NULL},
                {"ramplus_tl", ramplus_tl, NULL}};

static ptrdiff_t registered(const char *name) {
  for (size_t k = 0; k < sizeof REGISTRY / sizeof *REGISTRY; k++)
    if (strcmp(REGISTRY[k].name, name) == 0) return (ptrdiff_t)k;
  return -1;
}

mg_status mg_formula_of(const mg_recipe *recipe, mg_formula *f) {
  const ptrdiff_t k = registered(recipe->method->name);
  if (k < 0) return mg_fail(MG_ERR_INTERNAL, "method %s is in the table and not in the registry", recipe->method->name);
  *f = (mg_formula){.density = 1, .lambda = 1};
  REGISTRY[k].make(recipe, f);
  if (f->combine == NULL)
    f->combine = f->by_row ? mg_combine_by_row : f->keep == MG_KEEP_ALL ? mg_combine_sum : mg_combine_between;
  f->random = f->drop != MG_DROP_NONE;
  if (f->coefficients != NULL && (f->random || f->keep != MG_KEEP_ALL)) f->reads_whole = true;
  return MG_OK;
}

mg_formula mg_formula_of_head(const mg_recipe *recipe) {
  const bool weighted = mg_method_is_weighted(recipe->method, recipe->values);
  return (mg_formula){.density = 1, .lambda = 1, .weighted = weighted, .mean = !weighted, .combine = mg_combine_sum};
}

mg_head_policy mg_head_policy_of(const char *text) {
  if (strcmp(text, "method") == 0) return MG_HEAD_METHOD;
  return strcmp(text, "random") == 0 ? MG_HEAD_RANDOM : MG_HEAD_LINEAR;
}

bool mg_is_plain_sum(const mg_formula *f) {
  return f->combine == mg_combine_sum && f->coefficients == NULL && f->prepare == NULL && !f->random;
}

size_t mg_first_source(const mg_recipe *r) {
  size_t first = 0;
  for (size_t k = 1; k < r->count; k++)
    if (r->weight[k] > r->weight[first]) first = k;
  return first;
}

const char *mg_canonical_name(const mg_recipe *recipe) {
  const ptrdiff_t k = registered(recipe->method->name);
  return k >= 0 && REGISTRY[k].as != NULL ? REGISTRY[k].as : recipe->method->name;
}

bool mg_recipe_goes_by_whole(const mg_recipe *recipe) {
  mg_formula f;
  if (mg_formula_of(recipe, &f) != MG_OK) return false;
  return (f.drop != MG_DROP_NONE && f.rescale == MG_RESCALE_L1) || f.keep == MG_KEEP_LARGEST || f.share;
}

bool mg_recipe_reads_whole(const mg_recipe *recipe) {
  mg_formula formula;
  return mg_formula_of(recipe, &formula) == MG_OK && formula.reads_whole;
}
