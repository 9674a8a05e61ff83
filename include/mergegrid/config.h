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

/** What a recipe or a cell is made from: the keys that `recipe:`, `grid.fixed` and `grid.sweep` may have. */
typedef enum mg_term {
  MG_TERM_LOCALE,
  MG_TERM_METHOD,
  MG_TERM_SIMILARITY_TYPE,
  MG_TERM_NUM_LANGUAGES,
  MG_TERM_INCLUDE_TARGET,
  MG_TERM_SOURCES,
  MG_TERM_PRESET,
  MG_TERM_SEED,
  MG_TERM_HEAD,
  MG_TERM_AXIS,
  MG_TERM_SELECT,
  MG_TERM_TOP_K,
  MG_TERM_SINKHORN_ITERS,
  MG_TERM_INCTAR,
  MG_TERM_DROP_STRONGEST,
  MG_TERM_LAMBDA_RULE,
  MG_TERM_DUPLICATES,
  MG_TERM_COUNT
} mg_term;

#define MG_GIVEN(term) (UINT32_C(1) << (term))

typedef struct mg_terms {
  uint32_t given;          /**< MG_GIVEN(mg_term) of those that were said; the others have their defaults */
  const mg_method *method; /**< NULL: none */
  double values[MG_MOST_PARAMETERS];
  uint32_t said_parameters; /**< 1 << index of those parameters that were said */
  mg_strings sources;       /**< ids, or empty: chosen by a similarity */
  double *weights;          /**< [sources.count], positive */
  char *locale;             /**< the target, or NULL */
  char *similarity_type;    /**< a name of grid.similarity, or NULL: the only one */
  char *preset;             /**< "none", "merginguriel" */
  char *head;               /**< "linear", "method", "random" */
  char *axis, *select, *inctar, *duplicates, *lambda_rule;
  int num_languages, top_k, sinkhorn_iters;
  bool include_target, drop_strongest;
  uint64_t seed;
} mg_terms;

/** Values of a key that is fixed or swept, and settings of a method, are at most so many. */
enum { MG_MOST_VALUES = 10000 };

/** A key that is fixed or swept, and its values: each says one term, or several ("values may be structs"). */
typedef struct mg_axis {
  char *name;       /**< the term's ("locale", also where it was said as `locales`), or any that an axis of maps was given */
  char *place;      /**< where it stands, for messages: "run.yaml:12:5", "--set grid.sweep.method=[ties]" */
  char *yaml;       /**< its values as they were said, in flow style */
  bool all_targets; /**< `locale: all`: no values, every target in turn */
  size_t count;
  mg_terms *values; /**< [count]; `given` says which terms are meant */
} mg_axis;

typedef struct mg_axes {
  size_t count;
  mg_axis *items;
} mg_axes;

/** An item of grid.phases as it was said. */
typedef struct mg_phase_spec {
  char *name; /**< its number, from 1, where it was given none */
  mg_axes fixed, sweep;
} mg_phase_spec;

/** One product of axes: the preset, what is fixed (an axis of one value, mostly), what is swept; a later one wins. */
typedef struct mg_phase {
  const char *name; /**< "" for the grid's own sweep */
  size_t axis_count;
  mg_axis *axes; /**< what they point to is borrowed from the specification */
} mg_phase;

/** Section `grid`. */
typedef struct mg_grid_spec {
  mg_strings similarity_names, similarity_files; /**< a CSV, or "nxn": the stage's select partition */
  struct {
    char *tv, *cka; /**< a CSV, or "stage": this result's */
  } compatibility;
  char *partition;              /**< what cells are scored on: nxn.partition's name or nxn.select's */
  mg_axes preset, fixed, sweep; /**< as they were said; preset: one axis, or none */
  size_t declared_count;
  mg_phase_spec *declared; /**< phases, as they were said */
  mg_terms defaults;       /**< of all terms, as the table of options has them */
  size_t phase_count;
  mg_phase *phases; /**< what all of these come to: the grid's own sweep (where there is one), then `phases` */
} mg_grid_spec;

/** A model that the microscope looks at. */
typedef enum mg_setup_kind {
  MG_SETUP_NONE,   /**< not said */
  MG_SETUP_SOURCE, /**< a source of the family, by its id */
  MG_SETUP_BASE,   /**< the family's base */
  MG_SETUP_PATH,   /**< any checkpoint's directory */
  MG_SETUP_CELL,   /**< a cell of the grid, by its key or the beginning of one */
  MG_SETUP_RECIPE  /**< terms, as in section `recipe` */
} mg_setup_kind;

typedef struct mg_setup {
  char *name;  /**< "reference", or the key under microscope.setups */
  char *place; /**< where it stands, for messages: "run.yaml:12:5" */
  mg_setup_kind kind;
  char *what;     /**< the source's id, the directory, the key; else NULL */
  mg_terms terms; /**< of a recipe: as said, without defaults */
  char *note;     /**< what the user says of it; "" */
  char *yaml;     /**< as it was said, in flow style */
} mg_setup;

/** Section `microscope`. */
typedef struct mg_microscope_spec {
  mg_setup reference;
  size_t setup_count;
  mg_setup *setups;
  struct {
    char *file, *locale, *partition; /**< a file with one text a line; or a locale's texts; all NULL: the notebook's six */
    int limit;                       /**< the first so many of the locale's; 0: all */
  } probes;
  char *padding;  /**< "exclude", "include" */
  int max_length; /**< most tokens of a probe text */
} mg_microscope_spec;

typedef struct mg_config {
  char *file; /**< the YAML file's path; relative paths in it are relative to its directory and are stored resolved */
  mg_family_spec family;
  struct {
    char *dir; /**< NULL for `dir: none`: stream straight from the checkpoints */
    mg_dtype dtype;
    char *stage_to; /**< NULL: read in place; else a directory whose variables are not expanded yet: mg_config_stage_dir */
  } shards;
  mg_texts_spec texts;
  mg_strings stages; /**< "compatibility", "nxn", "grid" (which brings the others with it), "microscope" */
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
  mg_terms recipe;
  mg_grid_spec grid;
  mg_microscope_spec microscope;
  mg_strings reuse; /**< earlier results, newest first, from which recipes already computed are taken */
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
 * is named as "--set key=value"; MG_ERR_USAGE: one is no key and value. Required keys: family.base, family.sources. *config is
 * owned by the caller.
 */
mg_status mg_config_parse(const char *file, const char *text, size_t size, const mg_strings *settings, mg_config **config);
/** The same of a text that is in no file of its own: `file` is for messages, and relative paths are relative to dir. */
mg_status mg_config_parse_in(const char *dir, const char *file, const char *text, size_t size, const mg_strings *settings,
                             mg_config **config);
void mg_config_free(mg_config **config);

/** The terms' names as keys have them: "locale", "method", … */
const char *mg_term_name(mg_term term);

/**
 * shards.stage_to (which must be there) with its variables as this process has them; the caller frees *dir. MG_ERR_CONFIG: a
 * variable that is not set or empty, or one that leaves a relative path.
 */
mg_status mg_config_stage_dir(const mg_config *config, char **dir);

/** The configuration with every default filled in, as YAML that mg_config_parse reads back to the same values. */
mg_status mg_config_resolved(const mg_config *config, mg_text *yaml);

/** Appends valid UTF-8 as it stands between the double quotes of a YAML scalar: in one line, whatever it holds. */
void mg_yaml_escape(mg_text *out, const char *text);

/** Prints the table of keys: type, default, meaning. */
void mg_config_help(FILE *out);

#endif
