/* The one table of configuration keys. */

#include <stddef.h>

#include "config_impl.h"

static const char *const missing[] = {"error", "skip", NULL};
static const char *const stages[] = {"compatibility", "nxn", "grid", "microscope", NULL};
static const char *const metrics[] = {"task_vector_cosine", "cka", NULL};
static const char *const grams[] = {"tensor", "layer", "total", NULL};
static const char *const axes[] = {"column", "row", NULL};
static const char *const selects[] = {"topk", "sinkhorn", NULL};
static const char *const orders[] = {"by_weight", "matrix_order", NULL};
static const char *const duplicates[] = {"first", "keep", NULL};
static const char *const heads[] = {"linear", "method", "random", NULL};
static const char *const presets[] = {"none", "merginguriel", NULL};
static const char *const paddings[] = {"exclude", "include", NULL};
static const char *const pools[] = {"cls", "mean", NULL};
static const char *const backends[] = {"auto", "ref", "openblas", "cuda", NULL};
static const char *const precisions[] = {"fp32", "fp32_cublas", "tf32", NULL};
static const char *const dtypes[] = {"f32", "bf16", "f16", NULL};

#define FIELD(name) offsetof(mg_config, name)
#define TERM(name)  MG_GIVEN(MG_TERM_##name)

const mg_option mg_options[] = {
    {"family.base", MG_OPTION_PATH, FIELD(family.base), NULL, NULL, "a checkpoint's directory", "the base checkpoint; required",
     0},
    {"family.sources", MG_OPTION_SOURCES, FIELD(family), NULL, NULL,
     "a pattern with {locale}, a list of directories, or a map of ids to directories",
     "the fine-tuned checkpoints: a pattern with {locale}, a list, or a map {id: path}; required", 0},
    {"family.locales", MG_OPTION_LOCALES, FIELD(family.locales), "[]", NULL, "a list of locales",
     "which of them, and in which order; empty: every directory that matches, byte-sorted", 0},
    {"family.missing", MG_OPTION_CHOICE, FIELD(family.skip_missing), "error", missing, "error or skip",
     "what a missing checkpoint is; skip names it in the result", 0},
    {"family.allow_nonfinite", MG_OPTION_BOOL, FIELD(family.allow_nonfinite), "false", NULL, "true or false",
     "let NaN and Inf in weights pass", 0},
    {"shards.dir", MG_OPTION_DIR_OR_NONE, FIELD(shards.dir), "shards", NULL, "a directory, or none",
     "where packed task vectors are (`shards: DIR` for short); none: stream straight from the checkpoints", 0},
    {"shards.dtype", MG_OPTION_DTYPE, FIELD(shards.dtype), "f32", dtypes, "f32, bf16 or f16",
     "how task vectors are stored; 16 bits halve the reading, the error is recorded", 0},
    {"shards.stage_to", MG_OPTION_STAGE_DIR, FIELD(shards.stage_to), "none", NULL,
     "a directory, with variables such as $TMPDIR if one likes, or none",
     "of each node: a run copies its shards there first and reads the copies; none: it reads them where they are", 0},
    {"texts.files", MG_OPTION_PATH, FIELD(texts.files), NULL, NULL, "a path with {locale}",
     "labelled texts, a file a locale: JSON lines, or tab-separated values with a header line (.tsv)", 0},
    {"texts.id", MG_OPTION_TEXT, FIELD(texts.id), "id", NULL, "a field's name", "the field (or column) of a text's id", 0},
    {"texts.text", MG_OPTION_TEXT, FIELD(texts.text), "utt", NULL, "a field's name", "the field of the text itself", 0},
    {"texts.label", MG_OPTION_TEXT, FIELD(texts.label), "intent", NULL, "a field's name",
     "the field of the label: a name, or a class index", 0},
    {"texts.partition", MG_OPTION_TEXT, FIELD(texts.partition), "partition", NULL, "a field's name",
     "the field that says train, dev (or validation), test", 0},
    {"texts.max_length", MG_OPTION_COUNT, FIELD(texts.max_length), "512", NULL, "a whole number from 1 to 1000000",
     "most tokens of a text, special ones included; longer texts are cut", 0},
    {"texts.labels", MG_OPTION_FILE_OR_NULL, FIELD(texts.labels), "null", NULL, "a file, or null",
     "a file with the name of each class, one a line, where the models have only LABEL_n", 0},
    {"stages", MG_OPTION_CHOICES, FIELD(stages), "[compatibility]", stages, "a list of compatibility, nxn, grid, microscope",
     "what a run does", 0},
    {"compatibility.metrics", MG_OPTION_CHOICES, FIELD(compatibility.metrics), "[task_vector_cosine]", metrics,
     "a list of task_vector_cosine, cka", "what is measured of every pair", 0},
    {"compatibility.exclude", MG_OPTION_STRINGS, FIELD(compatibility.exclude), "[\"classifier.*\"]", NULL,
     "a list of globs on tensor names", "tensors that take no part in cosines (globs on the sources' full names)", 0},
    {"compatibility.gram", MG_OPTION_CHOICE, FIELD(compatibility.gram), "tensor", grams, "tensor, layer or total",
     "what inner products are kept for", 0},
    {"compatibility.cka.locale", MG_OPTION_TEXT, FIELD(compatibility.cka.locale), "en-US", NULL, "a locale",
     "whose texts are the probes", 0},
    {"compatibility.cka.partition", MG_OPTION_TEXT, FIELD(compatibility.cka.partition), "train", NULL, "a partition",
     "which of them", 0},
    {"compatibility.cka.samples", MG_OPTION_COUNT, FIELD(compatibility.cka.samples), "500", NULL,
     "a whole number from 1 to 1000000", "the first so many", 0},
    {"compatibility.cka.layers", MG_OPTION_LAYERS, FIELD(compatibility.cka.layers), "last", NULL,
     "last, all, or a list of layers such as [0, 4]", "hidden states that are compared; 0: the embeddings", 0},
    {"compatibility.cka.pool", MG_OPTION_CHOICE_TEXT, FIELD(compatibility.cka.pool), "cls", pools, "cls or mean",
     "a text's feature: the state of <s>, or the mean over its tokens", 0},
    {"compatibility.cka.max_length", MG_OPTION_COUNT, FIELD(compatibility.cka.max_length), "128", NULL,
     "a whole number from 1 to 1000000", "most tokens of a probe text", 0},
    {"nxn.partition", MG_OPTION_TEXT, FIELD(nxn.partition), "test", NULL, "a partition",
     "the texts that every source is evaluated on", 0},
    {"nxn.select", MG_OPTION_TEXT, FIELD(nxn.select), "dev", NULL, "a partition",
     "the texts that sources are chosen by; a target without such texts uses those of nxn.partition, and it is said", 0},
    {"nxn.targets", MG_OPTION_TARGETS, FIELD(nxn.targets), "all", NULL, "all, or a list of locales",
     "whose texts; all: every locale that texts.files matches", 0},
    {"nxn.logits", MG_OPTION_BOOL, FIELD(nxn.logits), "true", NULL, "true or false",
     "keep logits beside predictions: sources x texts x classes floats", 0},
    {"recipe.method", MG_OPTION_METHOD, FIELD(recipe), NULL, NULL, "a method, as ties or {ties: {density: 0.2}}",
     "what is made of the sources (`mergegrid --help methods`)", TERM(METHOD)},
    {"recipe.sources", MG_OPTION_WEIGHTS, FIELD(recipe), NULL, NULL, "a map {id: weight}, or a list of ids",
     "which ones; weights are scaled to a sum of 1", TERM(SOURCES)},
    {"recipe.locale", MG_OPTION_TEXT, FIELD(recipe.locale), NULL, NULL, "a locale",
     "the target; without `sources` they are chosen for it by a similarity", TERM(LOCALE)},
    {"recipe.similarity_type", MG_OPTION_TEXT, FIELD(recipe.similarity_type), NULL, NULL, "a name of grid.similarity",
     "by which one; the only one where it has one", TERM(SIMILARITY_TYPE)},
    {"recipe.num_languages", MG_OPTION_COUNT, FIELD(recipe.num_languages), "5", NULL, "a whole number from 1 to 1000000",
     "how many sources", TERM(NUM_LANGUAGES)},
    {"recipe.include_target", MG_OPTION_BOOL, FIELD(recipe.include_target), "false", NULL, "true or false",
     "may the target's own source be one", TERM(INCLUDE_TARGET)},
    {"recipe.preset", MG_OPTION_CHOICE_TEXT, FIELD(recipe.preset), "none", presets, "none or merginguriel",
     "merginguriel: that system's choices for the keys below, where they are not said; not for parameters of methods, of which "
     "mergegrid --help methods has those to write",
     TERM(PRESET)},
    {"recipe.seed", MG_OPTION_SEED, FIELD(recipe.seed), NULL, NULL, "a whole number from 0 to 2^64 - 1",
     "of what a method draws at random; the top-level seed where it is not said", TERM(SEED)},
    {"recipe.head", MG_OPTION_CHOICE_TEXT, FIELD(recipe.head), "linear", heads, "linear, method or random",
     "tensors that the base lacks: their (weighted) mean; what the method says; or that, against a random head of the base",
     TERM(HEAD)},
    {"recipe.axis", MG_OPTION_CHOICE_TEXT, FIELD(recipe.axis), "column", axes, "column or row",
     "column: what sources are to the target; row: what the target is to them", TERM(AXIS)},
    {"recipe.select", MG_OPTION_CHOICE_TEXT, FIELD(recipe.select), "topk", selects, "topk or sinkhorn",
     "by the matrix, or by it after top_k and Sinkhorn's normalisation", TERM(SELECT)},
    {"recipe.top_k", MG_OPTION_COUNT, FIELD(recipe.top_k), "20", NULL, "a whole number from 1 to 1000000",
     "entries that a line keeps before Sinkhorn", TERM(TOP_K)},
    {"recipe.sinkhorn_iters", MG_OPTION_COUNT, FIELD(recipe.sinkhorn_iters), "20", NULL, "a whole number from 1 to 1000000",
     "turns of Sinkhorn's normalisation", TERM(SINKHORN_ITERS)},
    {"recipe.inctar", MG_OPTION_CHOICE_TEXT, FIELD(recipe.inctar), "by_weight", orders, "by_weight or matrix_order",
     "with include_target: the most similar, or the target first and then the matrix' order (merginguriel)", TERM(INCTAR)},
    {"recipe.drop_strongest", MG_OPTION_BOOL, FIELD(recipe.drop_strongest), "false", NULL, "true or false",
     "leave the source with the largest weight out of a merge, which starts from it instead of the base (merginguriel)",
     TERM(DROP_STRONGEST)},
    {"recipe.lambda_rule", MG_OPTION_CHOICE_TEXT, FIELD(recipe.lambda_rule), "none", presets, "none or merginguriel",
     "merginguriel: lambda of ties and task_arithmetic (and of dare_*) from the weights, where it is not said",
     TERM(LAMBDA_RULE)},
    {"recipe.duplicates", MG_OPTION_CHOICE_TEXT, FIELD(recipe.duplicates), "first", duplicates, "first or keep",
     "labels that a matrix has more than once", TERM(DUPLICATES)},
    {"grid.similarity", MG_OPTION_MATRICES, FIELD(grid), NULL, NULL, "a map {NAME: a CSV file, or nxn}",
     "similarity matrices; nxn: the result's own evaluation on its select partition", 0},
    {"grid.compatibility.tv", MG_OPTION_STAGE_OR_FILE, FIELD(grid.compatibility.tv), "stage", NULL, "stage, or a CSV file",
     "task-vector cosines that similarity_x_tv_compatibility goes by; stage: the result's own", 0},
    {"grid.compatibility.cka", MG_OPTION_STAGE_OR_FILE, FIELD(grid.compatibility.cka), "stage", NULL, "stage, or a CSV file",
     "CKA that similarity_x_cka_compatibility goes by", 0},
    {"grid.partition", MG_OPTION_TEXT, FIELD(grid.partition), "test", NULL, "nxn.partition's or nxn.select's",
     "the texts that cells are scored on", 0},
    {"grid.preset", MG_OPTION_PRESETS, FIELD(grid.preset), "none", presets, "none, merginguriel, or a list of them",
     "as recipe.preset, of every cell; a list is the first, slowest axis", 0},
    {"grid.fixed", MG_OPTION_AXES, FIELD(grid.fixed), "{}", NULL, "a map of keys that `recipe` has",
     "what all cells have: locale (or locales), method, num_languages, …; a list is an axis before those of the sweep", 0},
    {"grid.sweep", MG_OPTION_AXES, FIELD(grid.sweep), "{}", NULL, "a map of keys that `recipe` has, with lists of values",
     "a cell for each combination, the last key fastest; locale: all; lists within a method's parameters; values that are maps "
     "of several keys may stand under any name",
     0},
    {"grid.phases", MG_OPTION_PHASES, FIELD(grid), "[]", NULL, "a list of maps with name, fixed, sweep",
     "further sweeps; each inherits grid.fixed where it does not say otherwise", 0},
    {"microscope.reference", MG_OPTION_SETUP, FIELD(microscope.reference), NULL, NULL, "a map, as {source: af-ZA}",
     "the model that others are compared with: {source: id}, {base: true}, {path: DIR}, {cell: KEY}, or keys that `recipe` has",
     0},
    {"microscope.setups", MG_OPTION_SETUPS, FIELD(microscope), "{}", NULL, "a map of names to maps, as {mine: {source: fr-FR}}",
     "the models that are looked at, each said like the reference, with a note if one likes; what is missing is skipped and "
     "named",
     0},
    {"microscope.probes", MG_OPTION_PROBES, FIELD(microscope), "null", NULL,
     "a file, a map {locale: …, partition: …, limit: …}, or null",
     "texts for the forward passes: a file with one a line, or a locale's first; null: six sentences in English", 0},
    {"microscope.padding", MG_OPTION_CHOICE_TEXT, FIELD(microscope.padding), "exclude", paddings, "exclude or include",
     "include: statistics also over padding, as a batch padded to its longest text gives them", 0},
    {"microscope.max_length", MG_OPTION_COUNT, FIELD(microscope.max_length), "128", NULL, "a whole number from 1 to 1000000",
     "most tokens of a probe text", 0},
    {"reuse", MG_OPTION_FILES, FIELD(reuse), "[]", NULL, "a list of results",
     "earlier results, newest first: what they have of the grid's recipes is taken from there", 0},
    {"compute.backend", MG_OPTION_CHOICE_TEXT, FIELD(compute.backend), "auto", backends, "auto, ref, openblas or cuda",
     "what computes", 0},
    {"compute.threads", MG_OPTION_THREADS, FIELD(compute.threads), "auto", NULL, "auto, or a number from 1 to 4096",
     "threads a rank; auto: the processors it has", 0},
    {"compute.memory_budget", MG_OPTION_BYTES, FIELD(compute.memory_budget), "2GiB", NULL, "a size such as 2GiB or 300MiB",
     "most memory a rank may take; what needs more is refused before it starts", 0},
    {"compute.precision", MG_OPTION_CHOICE_TEXT, FIELD(compute.precision), "fp32", precisions, "fp32, fp32_cublas or tf32",
     "precision of a device's matrix products; fp32_cublas has cuBLAS multiply task vectors, too, which are otherwise "
     "multiplied to the processors' bits; tf32 the same, with factors rounded to 10 bits and several times as fast",
     0},
    {"result", MG_OPTION_PATH, FIELD(result), "result.h5", NULL, "a file", "the HDF5 result", 0},
    {"seed", MG_OPTION_SEED, FIELD(seed), "42", NULL, "a whole number from 0 to 2^64 - 1", "of everything random", 0},
};
const size_t mg_option_count = sizeof mg_options / sizeof *mg_options;

void mg_config_help(FILE *out) {
  for (size_t k = 0; k < mg_option_count; k++) {
    const mg_option *o = &mg_options[k];
    fprintf(out, "  %-24s %s\n  %-24s   %s; default: %s\n", o->key, o->help, "", o->expected,
            o->initial ? o->initial : "(none)");
  }
}
