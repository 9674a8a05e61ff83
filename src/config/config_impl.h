#ifndef MERGEGRID_CONFIG_IMPL_H
#define MERGEGRID_CONFIG_IMPL_H

#include <yaml.h>

#include "mergegrid/config.h"

typedef enum mg_option_type {
  MG_OPTION_PATH,
  MG_OPTION_DIR_OR_NONE,
  MG_OPTION_STAGE_DIR, /**< a directory with variables of the environment, or none */
  MG_OPTION_SOURCES,
  MG_OPTION_STRINGS,
  MG_OPTION_LOCALES,     /**< strings that can be names of sources */
  MG_OPTION_CHOICE,      /**< index into choices, stored as int */
  MG_OPTION_CHOICE_TEXT, /**< one of choices, stored as a string */
  MG_OPTION_CHOICES,     /**< list of choices, stored as strings */
  MG_OPTION_DTYPE,
  MG_OPTION_BOOL,
  MG_OPTION_THREADS, /**< auto (0) or a number */
  MG_OPTION_BYTES,
  MG_OPTION_SEED,
  MG_OPTION_TEXT,   /**< any string */
  MG_OPTION_COUNT,  /**< a whole number from 1 to 1000000 */
  MG_OPTION_LAYERS, /**< last, all, or a list of numbers */
  MG_OPTION_FILE_OR_NULL,
  MG_OPTION_TARGETS,  /**< all, or a list of locales */
  MG_OPTION_METHOD,   /**< recipe.method */
  MG_OPTION_WEIGHTS,  /**< recipe.sources */
  MG_OPTION_MATRICES, /**< names and CSV files */
  MG_OPTION_STAGE_OR_FILE,
  MG_OPTION_FILES,
  MG_OPTION_PRESETS, /**< grid.preset: an axis */
  MG_OPTION_AXES,    /**< grid.fixed, grid.sweep */
  MG_OPTION_PHASES,
  MG_OPTION_SETUP,  /**< microscope.reference */
  MG_OPTION_SETUPS, /**< microscope.setups */
  MG_OPTION_PROBES
} mg_option_type;

typedef struct mg_option {
  const char *key; /**< "family.base" */
  mg_option_type type;
  size_t field;
  const char *initial;        /**< default in YAML; NULL: required or empty */
  const char *const *choices; /**< NULL-terminated */
  const char *expected, *help;
  uint32_t term; /**< of a recipe's key: MG_GIVEN of the term */
} mg_option;

extern const mg_option mg_options[];
extern const size_t mg_option_count;

/** Where a YAML text comes from: for messages and for relative paths. */
typedef struct mg_yaml_origin {
  const char *label; /**< "run.yaml" or "--set key=value" */
  bool positions;    /**< add line and column */
  const char *dir;   /**< relative paths are relative to this */
} mg_yaml_origin;

/** MG_ERR_CONFIG "label:line:column: message". */
mg_status mg_config_error(const mg_yaml_origin *origin, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__
#define mg_config_error(...) ((void)mg_config_error(__VA_ARGS__), MG_ERR_CONFIG) /* as for mg_fail */
#endif

/**
 * Reads the one document of a text (root is NULL if it is empty) and hands it to `use`. Anchors, aliases, tags, further
 * documents and deep nesting are refused.
 */
typedef mg_status (*mg_yaml_use_fn)(const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *root,
                                    void *context);
mg_status mg_yaml_read(const mg_yaml_origin *origin, const char *text, size_t size, mg_yaml_use_fn use, void *context);

/** A name and where it stands. */
typedef struct mg_named_node {
  const char *name;
  size_t length, order;
  const yaml_node_t *node;
} mg_named_node;

/** MG_ERR_CONFIG names the first name that is there twice, with both lines. Sorts names. */
mg_status mg_check_unique(const mg_yaml_origin *origin, const char *key, mg_named_node *names, size_t count);

/** "a list", "a map" or "a value". */
const char *mg_node_kind(const yaml_node_t *node);
/** "run.yaml:12:5", or the setting; NULL: out of memory. */
char *mg_config_place(const mg_yaml_origin *origin, const yaml_node_t *node);
/** A scalar without text, or null. */
bool mg_node_is_empty(const yaml_node_t *node);

/** Sets the field that an option has in base (a configuration; of a term terms) from a node; what was there before is freed. */
mg_status mg_value_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                       const yaml_node_t *node, void *base);
/** Sets one option of a configuration. */
mg_status mg_option_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                        const yaml_node_t *node, mg_config *config);
/** Takes a value without a default away. */
void mg_option_clear(const mg_option *option, mg_config *config);

/** Index of a word among the option's choices. */
mg_status mg_choice_set(const mg_option *option, const mg_yaml_origin *origin, const yaml_node_t *node, int *choice);
/** A list; a word or a list; a list of paths. */
mg_status mg_list_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                      mg_strings *field);
mg_status mg_layers_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                        const yaml_node_t *node, mg_strings *field);
mg_status mg_files_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                       const yaml_node_t *node, mg_strings *field);

/** shards.stage_to: checks its variables, which stay as they are: each node has its own values. */
mg_status mg_stage_dir_set(const mg_option *option, const mg_yaml_origin *origin, const yaml_node_t *node, char **field);
/** The same with a relative path made absolute. NULL: out of memory, or there is no current directory. */
char *mg_stage_dir_absolute(const char *text);

/** family.sources, in any of its three forms. */
mg_status mg_sources_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                         const yaml_node_t *node, mg_family_spec *spec);
void mg_sources_clear(mg_family_spec *spec);
/** MG_ERR_CONFIG unless the text can name a source: not empty, at most 255 bytes, no '/', no control character. */
mg_status mg_check_id(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *id, size_t length);

/* ---- terms ---- */

enum { MG_LONGEST_NAME = 64 };
#define MG_NO_VARIANT SIZE_MAX

/**
 * recipe.method. Where parameters have lists of values, they make as many variants of the method (the last list fastest), of
 * which this is one; with MG_NO_VARIANT lists are refused.
 */
mg_status mg_recipe_method_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                               const yaml_node_t *node, size_t variant, mg_terms *terms);
mg_status mg_method_variants(const mg_yaml_origin *origin, const char *key, yaml_document_t *document, const yaml_node_t *node,
                             size_t *count);
mg_status mg_recipe_sources_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                                const yaml_node_t *node, mg_terms *terms);
mg_status mg_matrices_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                          const yaml_node_t *node, mg_grid_spec *spec);

/** The option of a term by its name, or its alias; NULL where there is none. */
const mg_option *mg_term_option(const char *name);
/** MG_ERR_CONFIG: name is no term of `key`; names the nearest, or lists all. more: what else it may be. */
mg_status mg_term_unknown(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *name,
                          const char *more);
#ifdef __clang_analyzer__
#define mg_term_unknown(...) ((void)mg_term_unknown(__VA_ARGS__), MG_ERR_CONFIG) /* as for mg_fail */
#endif
/** Sets what an option stands for in terms, and that it was said. key: for messages. */
mg_status mg_term_set(const mg_option *option, const char *key, const mg_yaml_origin *origin, yaml_document_t *document,
                      const yaml_node_t *node, size_t variant, mg_terms *terms);
mg_status mg_terms_copy(const mg_terms *from, mg_terms *to);
void mg_terms_free(mg_terms *terms);

/** All axes of a map, or one of them (a setting); what was there is replaced. option->key is "grid.fixed" or "grid.sweep". */
mg_status mg_axes_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document, const yaml_node_t *node,
                      mg_axes *axes);
mg_status mg_axes_set_one(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                          const yaml_node_t *key_node, const char *name, const yaml_node_t *node, mg_axes *axes);
/** grid.preset as the one axis it is. */
mg_status mg_presets_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                         const yaml_node_t *node, mg_axes *axes);
mg_status mg_phases_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                        const yaml_node_t *node, mg_grid_spec *spec);
void mg_axes_free(mg_axes *axes);
void mg_grid_spec_free(mg_grid_spec *spec);
/* ---- the microscope ---- */

mg_status mg_setup_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                       const yaml_node_t *node, mg_setup *setup);
mg_status mg_setups_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                        const yaml_node_t *node, mg_microscope_spec *spec);
mg_status mg_probes_set(const mg_option *option, const mg_yaml_origin *origin, yaml_document_t *document,
                        const yaml_node_t *node, mg_microscope_spec *spec);
void mg_setup_free(mg_setup *setup);
void mg_microscope_spec_free(mg_microscope_spec *spec);

/** The phases that preset, fixed, sweep and phases come to, and whether they hold together with the rest. */
mg_status mg_grid_assemble(mg_config *config);
/** What is missing, and what does not hold together. Adds the stages that a grid needs. */
mg_status mg_config_check(mg_config *config);

/** Appends a node in flow style, in one line, so that it reads back to the same. */
mg_status mg_flow_yaml(yaml_document_t *document, const yaml_node_t *node, mg_text *text);

/** A copy of text, relative to the origin's directory, takes *field's place. */
mg_status mg_set_path(const mg_yaml_origin *origin, const char *text, char **field);

/** The scalar's text if the node is one that is not empty and has no NUL byte; else an error naming key and what was expected.
 */
mg_status mg_scalar(const mg_yaml_origin *origin, const yaml_node_t *node, const char *key, const char *expected,
                    const char **text);

#endif
