/* What there is to merge with. */

#include "mergegrid/method.h"

static const char *const trims[] = {"tensor", "global", NULL};
static const char *const rescales[] = {"inverse", "l1", "none", NULL};
static const char *const combines[] = {"mean", "sum", "max", NULL};
static const char *const signs[] = {"plus", "majority", NULL};
static const char *const pair_means[] = {"cosines", "angles", NULL};
static const char *const aggregations[] = {"weighted", "sum", "average", NULL};
static const char *const shares[] = {"cumulative", "merginguriel", NULL};
static const char *const spaces[] = {"tau", "theta", NULL};
static const char *const two[] = {"first", "second", NULL};
static const char *const elsewheres[] = {"pretrained", "best_source", NULL};
static const char *const rules[] = {"sigma", "given", NULL};

#define LAMBDA                                                                                                                 \
  {                                                                                                                            \
    .name = "lambda", .type = MG_PARAMETER_NUMBER, .initial = 1, .low = -100, .high = 100,                                     \
    .help = "what the merged task vector is multiplied by"                                                                     \
  }
#define WEIGHTED(value, what)                                                                                                  \
  { .name = "weighted", .type = MG_PARAMETER_BOOL, .initial = (value), .help = (what) }
#define TRIM                                                                                                                   \
  {                                                                                                                            \
    .name = "trim", .type = MG_PARAMETER_CHOICE, .choices = trims,                                                             \
    .help = "what the largest are taken of: each tensor, or all tensors of a source together"                                  \
  }
#define COMBINE                                                                                                                \
  {                                                                                                                            \
    .name = "combine", .type = MG_PARAMETER_CHOICE, .choices = combines,                                                       \
    .help = "what becomes of the values that have the elected sign"                                                            \
  }
#define DENSITY(value, what)                                                                                                   \
  { .name = "density", .type = MG_PARAMETER_NUMBER, .initial = (value), .low = 0, .high = 1, .low_open = true, .help = (what) }
#define GAMMA                                                                                                                  \
  {                                                                                                                            \
    .name = "gamma", .type = MG_PARAMETER_NUMBER, .initial = 0.01, .low = 0, .high = 1, .high_open = true,                     \
    .help = "share of the elements that is dropped for being the largest (less where density leaves less)"                     \
  }
#define RESCALE(value)                                                                                                         \
  {                                                                                                                            \
    .name = "rescale", .type = MG_PARAMETER_CHOICE, .choices = rescales, .initial = (value),                                   \
    .help = "what is kept is multiplied by 1/probability, by the ratio of L1 norms of the tensor before and after, or not"     \
  }
#define NUMBER(called, value, least, most, what)                                                                               \
  { .name = (called), .type = MG_PARAMETER_NUMBER, .initial = (value), .low = (least), .high = (most), .help = (what) }
#define SHARE_BELOW_1(called, value, what)                                                                                     \
  { .name = (called), .type = MG_PARAMETER_NUMBER, .initial = (value), .low = 0, .high = 1, .high_open = true, .help = (what) }
#define SWITCH(called, value, what)                                                                                            \
  { .name = (called), .type = MG_PARAMETER_BOOL, .initial = (value), .help = (what) }
#define CHOICE(called, list, what)                                                                                             \
  { .name = (called), .type = MG_PARAMETER_CHOICE, .choices = (list), .help = (what) }
#define LAYERS(what)                                                                                                           \
  { .name = "layers", .type = MG_PARAMETER_LAYERS, .help = (what) }
#define MASK_RATE(value)                                                                                                       \
  SHARE_BELOW_1("mask_rate", value, "share of each task vector's elements, tensor by tensor the smallest, that counts as 0")
#define DARE                                                                                                                   \
  SHARE_BELOW_1("dare_drop_rate", 0, "share of each task vector's elements that is dropped at random before all else"),        \
      SWITCH("dare_rescale", 1, "what is left of them is divided by 1 - dare_drop_rate")
#define NORMALIZE SWITCH("normalize", 0, "the sum is divided by the sum of the weights: without weights it is a mean")
#define VOTES                                                                                                                  \
  SWITCH("equal_votes", 0, "every source's values count alike in the vote, whatever `weighted` says"),                         \
      CHOICE("zeros", signs, "the sign where votes cancel: +, or the one of most elements")
#define LINEAR_LAYERS SWITCH("linear_layers", 0, "drops elements of linear layers' matrices only")
#define EPSILON                                                                                                                \
  NUMBER("epsilon", 0.15, 0, 0.5,                                                                                              \
         "a row's smallest element is kept with probability density - epsilon, its largest with density + epsilon")

const mg_method mg_methods[] = {
    {.name = "linear",
     .help = "weighted mean of the sources: theta_0 + lambda sum w_i tau_i",
     .reference = "Wortsman et al. 2022, arXiv:2203.05482",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAMBDA, MASK_RATE(0)}},
    {.name = "similarity",
     .help = "linear, of sources that a similarity chose, by its weights",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAMBDA, MASK_RATE(0)}},
    {.name = "manual",
     .help = "linear, by weights that were given",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAMBDA, MASK_RATE(0)}},
    {.name = "average",
     .help = "mean of the sources, whatever their weights",
     .reference = "Wortsman et al. 2022, arXiv:2203.05482",
     .parameter_count = 1,
     .parameters = {MASK_RATE(0)}},
    {.name = "similarity_x_tv_compatibility",
     .help = "similarity, each weight times the mean task-vector cosine with the other sources that were chosen",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAMBDA, MASK_RATE(0)}},
    {.name = "similarity_x_cka_compatibility",
     .help = "similarity, each weight times the mean CKA with the other sources that were chosen",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAMBDA, MASK_RATE(0)}},
    {.name = "own", .kind = MG_METHOD_MODEL, .help = "the target's own source: what merging is measured against"},
    {.name = "best_source",
     .kind = MG_METHOD_MODEL,
     .help = "of the sources that were chosen, the one that is most accurate on the target's texts of nxn.select"},
    {.name = "best_zero_shot",
     .kind = MG_METHOD_MODEL,
     .help = "of all sources but the target's own, the one that is most accurate on the target's texts of nxn.select"},
    {.name = "majority",
     .kind = MG_METHOD_VOTE,
     .help = "the class that most sources predict; of equals the one that the source of largest weight predicts",
     .reference = "merginguriel",
     .weighted = true},
    {.name = "weighted_majority",
     .kind = MG_METHOD_VOTE,
     .help = "the class whose sources have the largest sum of weights",
     .reference = "merginguriel",
     .weighted = true},
    {.name = "soft",
     .kind = MG_METHOD_VOTE,
     .help = "the class of the largest weighted mean of the sources' probabilities",
     .reference = "merginguriel",
     .weighted = true},
    {.name = "uriel_logits",
     .kind = MG_METHOD_VOTE,
     .help = "the class of the largest weighted sum of the sources' logits",
     .reference = "merginguriel",
     .weighted = true},
    {.name = "task_arithmetic",
     .help = "theta_0 + lambda sum tau_i",
     .reference = "Ilharco et al. 2023, arXiv:2212.04089",
     .parameter_count = 5,
     .parameters = {NUMBER("lambda", 0.3, -100, 100, "what the sum of the task vectors is multiplied by"),
                    WEIGHTED(0, "sum w_i tau_i instead"), NORMALIZE, DARE}},
    {.name = "ties",
     .help = "keeps each source's largest changes, elects a sign for each element, takes the mean of those that have it",
     .reference = "Yadav et al. 2023, arXiv:2306.01708",
     .parameter_count = 9,
     .parameters = {DENSITY(0.2, "share of a source's elements that is kept"), TRIM, COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights"), VOTES, DARE}},
    {.name = "dare_linear",
     .help = "drops elements of each task vector at random, then the weighted sum",
     .reference = "Yu et al. 2024, arXiv:2311.03099",
     .weighted = true,
     .parameter_count = 6,
     .parameters = {DENSITY(0.1, "share of the elements that is kept"), RESCALE(0), LAMBDA,
                    WEIGHTED(1, "sum w_i tau_i; else the plain sum, as task arithmetic"), NORMALIZE, LINEAR_LAYERS}},
    {.name = "dare_ties",
     .help = "drops elements at random, then elects signs as ties does (without its trimming)",
     .reference = "Yu et al. 2024, arXiv:2311.03099",
     .parameter_count = 8,
     .parameters = {DENSITY(0.1, "share of the elements that is kept"), RESCALE(0), COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights"), VOTES, LINEAR_LAYERS}},
    {.name = "magmax",
     .help = "of each element the change of largest magnitude (of equals the first source's)",
     .reference = "Marczak et al. 2024, arXiv:2407.06322",
     .parameter_count = 1,
     .parameters = {NUMBER("lambda", 0.5, -100, 100, "what the merged task vector is multiplied by")}},
    {.name = "breadcrumbs",
     .help = "drops each task vector's smallest and largest elements, tensor by tensor, then the sum",
     .reference = "Davari and Belilovsky 2024, arXiv:2312.06795",
     .weighted = true,
     .parameter_count = 5,
     .parameters = {DENSITY(0.9, "share of the elements that is kept"), GAMMA, LAMBDA,
                    WEIGHTED(1, "sum w_i tau_i; else the plain sum"), NORMALIZE}},
    {.name = "breadcrumbs_ties",
     .help = "the same with an elected sign for each element",
     .reference = "Davari and Belilovsky 2024, arXiv:2312.06795; mergekit",
     .parameter_count = 7,
     .parameters = {DENSITY(0.9, "share of the elements that is kept"), GAMMA, COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights"), VOTES}},
    {.name = "ram",
     .help = "of each element the mean of those task vectors that change it at all",
     .reference = "mergekit",
     .parameter_count = 1,
     .parameters = {NUMBER("epsilon", 1e-5, 0, 1, "a change is larger than this")}},
    {.name = "model_stock",
     .help = "the mean of the sources, drawn to the base by how far their task vectors point apart, tensor by tensor",
     .reference = "Jang et al. 2024, arXiv:2403.19522",
     .parameter_count = 2,
     .parameters = {SWITCH("filter_wise", 0, "row by row of each tensor instead"),
                    CHOICE("average", pair_means, "what the pairs' mean is taken of")}},
    {.name = "directional_consensus",
     .help = "the weighted sum of what each task vector has along the sum of all, tensor by tensor",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 6,
     .parameters = {NUMBER("alpha", 1, 0, 1, "1: only what lies along the consensus; 0: linear"), LAMBDA,
                    CHOICE("aggregation", aggregations, "what becomes of the task vectors: sum w_i tau_i, the sum, the mean"),
                    MASK_RATE(0), DARE}},
    {.name = "fisher_simple",
     .help = "weighted mean, each tensor's weights times the norms of the sources' tensors",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {WEIGHTED(1, "the sources' weights times norms; else the norms alone"), MASK_RATE(0)}},
    {.name = "slerp",
     .help = "along the arc from the source of largest weight to the next, and so on, each coming in with its share so far",
     .reference = "Shoemake 1985",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {NUMBER("dot_threshold", 0.9995, 0, 1, "a straight line where the cosine is larger than this"),
                    CHOICE("share", shares,
                           "how far to the next one: its share of the weights so far; or that of the one before it of both")}},
    {.name = "multislerp",
     .help = "the weighted mean direction of the task vectors, as long as they are in the weighted mean",
     .reference = "mergekit",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {CHOICE("of", spaces, "the task vectors, or the weights themselves")}},
    {.name = "karcher",
     .help = "the mean of the sources on the sphere, times their mean norm, tensor by tensor",
     .reference = "Karcher 1977; mergekit",
     .parameter_count = 2,
     .parameters = {NUMBER("max_iter", 10, 1, 1000, "most steps of the iteration"),
                    NUMBER("tol", 1e-5, 0, 1, "a step that is shorter ends it")}},
    {.name = "layer_swap",
     .help = "of two sources: the layers named from the one of smaller weight, the others from the other",
     .reference = "Bandarkar et al. 2025, arXiv:2410.01335; merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAYERS("those from the second source"), CHOICE("rest", two, "which one embeddings and head are from")}},
    {.name = "exclude_layers",
     .help = "linear, but for the layers named: they are the best source's",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {LAYERS("those that are not merged"), LAMBDA}},
    {.name = "include_layers",
     .help = "linear in the layers named, in embeddings and head, and nowhere else",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 3,
     .parameters = {LAYERS("those that are merged"), CHOICE("elsewhere", elsewheres, "what the other layers are"), LAMBDA}},
    {.name = "neuromerging",
     .help = "elects signs of what of each row's change is at right angles to the pretrained row, and of what is along it",
     .reference = "Fang et al. 2025; merginguriel",
     .parameter_count = 6,
     .parameters = {MASK_RATE(0.15), NUMBER("lambda1", 0, 0, 100, "what the part along the pretrained rows is multiplied by"),
                    CHOICE("lambda2_from", rules,
                           "the other part's factor: from the share of the change that mask_rate leaves out, or lambda2"),
                    NUMBER("lambda2", 1, -100, 100, "that factor, where it is given"), LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights")}},
    {.name = "della",
     .help = "drops elements at random, the smaller of each row rather than the larger, then elects signs as ties does",
     .reference = "Deep et al. 2024, arXiv:2406.11617; mergekit",
     .parameter_count = 8,
     .parameters = {DENSITY(0.5, "share of the elements that is kept"), EPSILON, RESCALE(1), COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights"), VOTES}},
    {.name = "della_linear",
     .help = "drops elements as della does, then the weighted sum",
     .reference = "Deep et al. 2024, arXiv:2406.11617; mergekit",
     .weighted = true,
     .parameter_count = 6,
     .parameters = {DENSITY(0.5, "share of the elements that is kept"), EPSILON, RESCALE(1), LAMBDA,
                    WEIGHTED(1, "sum w_i tau_i; else the plain sum"), NORMALIZE}},
    {.name = "nuslerp",
     .help = "of two sources: along the arc from the one of larger weight to the other, as far as its share of the weights",
     .reference = "mergekit",
     .weighted = true,
     .parameter_count = 3,
     .parameters = {SWITCH("flatten", 1, "whole tensors; else the vectors along an axis"),
                    SWITCH("row_wise", 0, "unless flattened: along the first axis (so mergekit has it); else along the last"),
                    CHOICE("of", spaces, "the task vectors, or the weights themselves")}},
    {.name = "sce",
     .help =
         "of the elements that differ most between sources, elected by sign, the mean weighted by the tensors' mean squares",
     .reference = "Wan et al. 2024, arXiv:2408.07990; mergekit",
     .parameter_count = 2,
     .parameters = {{.name = "select_topk",
                     .type = MG_PARAMETER_NUMBER,
                     .initial = 1,
                     .low = 0,
                     .high = 1,
                     .low_open = true,
                     .help = "share of a tensor's elements that differ at all, those of largest variance, that is kept"},
                    NUMBER("equal_below", 1e-6, 0, 1, "equal weights where the sum of the mean squares is smaller")}},
    {.name = "nearswap",
     .help = "of two sources (or the base and one): moves the one of larger weight to the other, no element further than t",
     .reference = "mergekit",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {NUMBER("t", 0.001, 0, 100, "how far an element may move")}},
    {.name = "arcee_fusion",
     .help = "of two sources (or the base and one): takes the other's elements into the one of larger weight where they matter",
     .reference = "mergekit",
     .weighted = true},
    {.name = "ramplus_tl",
     .help = "ram, with what only one source changes made larger, by how much its other changes are shared",
     .reference = "mergekit",
     .parameter_count = 3,
     .parameters = {NUMBER("epsilon", 1e-5, 0, 1, "a change is larger than this"),
                    NUMBER("r", 0.1, 0, 100, "how much larger: 1 + r min(alpha, shared / unshared)"),
                    NUMBER("alpha", 0.2, 0, 100, "the most that the ratio counts as")}},
};
const size_t mg_method_count = sizeof mg_methods / sizeof *mg_methods;
