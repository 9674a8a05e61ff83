/* What there is to merge with. */

#include "mergegrid/method.h"

static const char *const trims[] = {"tensor", "global", NULL};
static const char *const rescales[] = {"inverse", "l1", "none", NULL};
static const char *const combines[] = {"mean", "sum", "max", NULL};

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
#define RESCALE                                                                                                                \
  {                                                                                                                            \
    .name = "rescale", .type = MG_PARAMETER_CHOICE, .choices = rescales,                                                       \
    .help = "what is kept is multiplied by 1/density, by the ratio of L1 norms of the tensor before and after, or not"         \
  }

const mg_method mg_methods[] = {
    {.name = "linear",
     .help = "weighted mean of the sources: theta_0 + lambda sum w_i tau_i",
     .reference = "Wortsman et al. 2022, arXiv:2203.05482",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {LAMBDA}},
    {.name = "similarity",
     .help = "linear, of sources that a similarity chose, by its weights",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {LAMBDA}},
    {.name = "manual",
     .help = "linear, by weights that were given",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {LAMBDA}},
    {.name = "average",
     .help = "mean of the sources, whatever their weights",
     .reference = "Wortsman et al. 2022, arXiv:2203.05482",
     .parameter_count = 0},
    {.name = "similarity_x_tv_compatibility",
     .help = "similarity, each weight times the mean task-vector cosine with the other sources that were chosen",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {LAMBDA}},
    {.name = "similarity_x_cka_compatibility",
     .help = "similarity, each weight times the mean CKA with the other sources that were chosen",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {LAMBDA}},
    {.name = "own", .kind = MG_METHOD_MODEL, .help = "the target's own source: what merging is measured against"},
    {.name = "best_source",
     .kind = MG_METHOD_MODEL,
     .help = "of the sources that were chosen, the one that is most accurate on the target's texts of nxn.select"},
    {.name = "best_zero_shot",
     .kind = MG_METHOD_MODEL,
     .help = "of all sources but the target's own, the one that is most accurate on the target's texts of nxn.select"},
    {.name = "majority",
     .kind = MG_METHOD_VOTE,
     .help = "the class that most sources predict; of equals the one that the first source predicts",
     .reference = "merginguriel"},
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
     .parameter_count = 2,
     .parameters = {{.name = "lambda",
                     .type = MG_PARAMETER_NUMBER,
                     .initial = 0.3,
                     .low = -100,
                     .high = 100,
                     .help = "what the sum of the task vectors is multiplied by"},
                    WEIGHTED(0, "sum w_i tau_i instead")}},
    {.name = "ties",
     .help = "keeps each source's largest changes, elects a sign for each element, takes the mean of those that have it",
     .reference = "Yadav et al. 2023, arXiv:2306.01708",
     .parameter_count = 5,
     .parameters = {DENSITY(0.2, "share of a source's elements that is kept"), TRIM, COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights")}},
    {.name = "dare_linear",
     .help = "drops elements of each task vector at random, then the weighted sum",
     .reference = "Yu et al. 2024, arXiv:2311.03099",
     .weighted = true,
     .parameter_count = 4,
     .parameters = {DENSITY(0.1, "share of the elements that is kept"), RESCALE, LAMBDA,
                    WEIGHTED(1, "sum w_i tau_i; else the plain sum, as task arithmetic")}},
    {.name = "dare_ties",
     .help = "drops elements at random, then elects signs as ties does (without its trimming)",
     .reference = "Yu et al. 2024, arXiv:2311.03099",
     .parameter_count = 5,
     .parameters = {DENSITY(0.1, "share of the elements that is kept"), RESCALE, COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights")}},
    {.name = "magmax",
     .help = "of each element the change of largest magnitude (of equals the first source's)",
     .reference = "Marczak et al. 2024, arXiv:2407.06322",
     .parameter_count = 1,
     .parameters = {{.name = "lambda",
                     .type = MG_PARAMETER_NUMBER,
                     .initial = 0.5,
                     .low = -100,
                     .high = 100,
                     .help = "what the merged task vector is multiplied by"}}},
    {.name = "breadcrumbs",
     .help = "drops each task vector's smallest and largest elements, tensor by tensor, then the sum",
     .reference = "Davari and Belilovsky 2024, arXiv:2312.06795",
     .weighted = true,
     .parameter_count = 4,
     .parameters = {DENSITY(0.9, "share of the elements that is kept"), GAMMA, LAMBDA,
                    WEIGHTED(1, "sum w_i tau_i; else the plain sum")}},
    {.name = "breadcrumbs_ties",
     .help = "the same with an elected sign for each element",
     .reference = "Davari and Belilovsky 2024, arXiv:2312.06795; mergekit",
     .parameter_count = 5,
     .parameters = {DENSITY(0.9, "share of the elements that is kept"), GAMMA, COMBINE, LAMBDA,
                    WEIGHTED(0, "votes and means go by the sources' weights")}},
    {.name = "ram",
     .help = "of each element the mean of those task vectors that change it at all",
     .reference = "mergekit",
     .parameter_count = 1,
     .parameters = {{.name = "epsilon",
                     .type = MG_PARAMETER_NUMBER,
                     .initial = 1e-5,
                     .low = 0,
                     .high = 1,
                     .help = "a change is larger than this"}}},
    {.name = "model_stock",
     .help = "the mean of the sources, drawn to the base by how far their task vectors point apart, tensor by tensor",
     .reference = "Jang et al. 2024, arXiv:2403.19522"},
    {.name = "directional_consensus",
     .help = "the weighted sum of what each task vector has along the sum of all, tensor by tensor",
     .reference = "merginguriel",
     .weighted = true,
     .parameter_count = 2,
     .parameters = {{.name = "alpha",
                     .type = MG_PARAMETER_NUMBER,
                     .initial = 1,
                     .low = 0,
                     .high = 1,
                     .help = "1: only what lies along the consensus; 0: linear"},
                    LAMBDA}},
    {.name = "fisher_simple",
     .help = "weighted mean, each tensor's weights times the norms of the sources' tensors",
     .reference = "merginguriel",
     .weighted = true},
    {.name = "slerp",
     .help = "along the arc from the source of largest weight to the next, and so on, each coming in with its share so far",
     .reference = "Shoemake 1985",
     .weighted = true,
     .parameter_count = 1,
     .parameters = {{.name = "dot_threshold",
                     .type = MG_PARAMETER_NUMBER,
                     .initial = 0.9995,
                     .low = 0,
                     .high = 1,
                     .help = "a straight line where the cosine is larger than this"}}},
    {.name = "multislerp",
     .help = "the weighted mean direction of the task vectors, as long as they are in the weighted mean",
     .reference = "mergekit",
     .weighted = true},
    {.name = "karcher",
     .help = "the mean of the sources on the sphere, times their mean norm, tensor by tensor",
     .reference = "Karcher 1977; mergekit"},
};
const size_t mg_method_count = sizeof mg_methods / sizeof *mg_methods;
