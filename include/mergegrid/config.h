#ifndef MERGEGRID_CONFIG_H
#define MERGEGRID_CONFIG_H

/**
 * The configuration: YAML through libyaml to a typed, validated structure. One table of options drives the reader, `--set`,
 * the defaults, the resolved YAML and the help. Not collective: rank 0 reads the text, every rank parses it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mergegrid/corpus.h"
#include "mergegrid/dtype.h"
#include "mergegrid/family.h"
#include "mergegrid/method.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"

typedef enum mg_gram_level { MG_GRAM_TENSOR, MG_GRAM_LAYER, MG_GRAM_TOTAL } mg_gram_level;

/** Section `recipe`: what the command merge makes. */
typedef struct mg_recipe_spec {
  const mg_method *method; /**< NULL: none */
  double values[MG_MOST_PARAMETERS];
  mg_strings sources; /**< ids */
  double *weights;    /**< [sources.count], positive */
  char *head;         /**< "linear", "method" */
  /* or, without sources, how a target's are chosen */
  char *locale;          /**< the target, or NULL */
  char *similarity_type; /**< a name of grid.similarity */
  int num_languages, top_k, sinkhorn_iters;
  bool include_target, drop_strongest;
  char *axis, *select, *inctar, *duplicates;
} mg_recipe_spec;

/** Section `grid`. */
typedef struct mg_grid_spec {
  mg_strings similarity_names, similarity_files; /**< a CSV, or "nxn": the stage's select partition */
} mg_grid_spec;

typedef struct mg_config {
  char *file; /**< the YAML file's path; relative paths in it are relative to its directory and are stored resolved */
  mg_family_spec family;
  struct {
    char *dir; /**< NULL for `dir: none`: stream straight from the checkpoints */
    mg_dtype dtype;
  } shards;
  mg_texts_spec texts;
  mg_strings stages; /**< "compatibility", "nxn" */
  struct {
    mg_strings metrics; /**< "task_vector_cosine", "cka" */
    mg_strings exclude;
    mg_gram_level gram;
    struct {
      char *locale, *partition; /**< of the probe texts */
      int samples;              /**< the first so many */
      mg_strings layers;        /**< "last", "all", or numbers of hidden states, 0 the embeddings */
      char *pool;               /**< "cls", "mean" */
      int max_length;           /**< tokens of a probe text */
    } cka;
  } compatibility;
  struct {
    char *partition, *select; /**< "test", "dev" */
    mg_strings targets;       /**< "all", or locales */
    bool logits;              /**< keep them in the result */
  } nxn;
  mg_recipe_spec recipe;
  mg_grid_spec grid;
  struct {
    char *backend;          /**< "auto", "ref", "openblas", "cuda" */
    int threads;            /**< 0: auto */
    uint64_t memory_budget; /**< bytes a rank */
    char *precision;        /**< "fp32" */
  } compute;
  char *result;
  uint64_t seed;
} mg_config;

/**
 * Parses text (the content of `file`; file is used for messages and for resolving relative paths) and applies the
 * settings "key.subkey=value" (value in YAML; a path there is relative to the file too), later ones winning.
 * MG_ERR_CONFIG: "file:line:column: message", what was expected, and the nearest known key for an unknown one; a setting
 * is named as "--set key=value". Required keys: family.base, family.sources. *config is owned by the caller.
 */
mg_status mg_config_parse(const char *file, const char *text, size_t size, const mg_strings *settings, mg_config **config);
void mg_config_free(mg_config **config);

/** The configuration with every default filled in, as YAML that mg_config_parse reads back to the same values. */
mg_status mg_config_resolved(const mg_config *config, mg_text *yaml);

/** Appends valid UTF-8 as it stands between the double quotes of a YAML scalar: in one line, whatever it holds. */
void mg_yaml_escape(mg_text *out, const char *text);

/** Prints the table of keys: type, default, meaning. */
void mg_config_help(FILE *out);

#endif
