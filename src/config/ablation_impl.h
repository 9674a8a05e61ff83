#ifndef MERGEGRID_ABLATION_IMPL_H
#define MERGEGRID_ABLATION_IMPL_H

#include "config_impl.h"
#include "mergegrid/ablation.h"

/* What becomes of a key. */
typedef enum mg_ablation_kind {
  MG_ABLATION_TERM,       /* one of our terms, maybe by another name */
  MG_ABLATION_METHOD,     /* method */
  MG_ABLATION_EXPERIMENT, /* experiment_type */
  MG_ABLATION_PARAMETER,  /* of methods: dare_drop_rate, dare_rescale, alpha */
  MG_ABLATION_SOURCES,    /* sources by name, of equal weights */
  MG_ABLATION_FOLDS,      /* the same, leaving out one after the other */
  MG_ABLATION_FAMILY,     /* of a section other than grid */
  MG_ABLATION_NONE        /* nothing: says why */
} mg_ablation_kind;

typedef struct mg_ablation_key {
  const char *name;
  mg_ablation_kind kind;
  const char *as; /* our term; why there is none */
} mg_ablation_key;

typedef struct mg_ablation_said {
  const mg_ablation_key *key;
  const yaml_node_t *key_node, *value;
  bool swept;
} mg_ablation_said;

enum { MG_MOST_SAID = 64 };

/* fixed and sweep of the file, or of a phase with what it inherits: each key once. */
typedef struct mg_ablation_block {
  const char *name; /* of a phase */
  size_t count;
  mg_ablation_said said[MG_MOST_SAID];
} mg_ablation_block;

typedef struct mg_ablating {
  const mg_yaml_origin *origin;
  yaml_document_t *document;
  mg_ablation *out;
  bool goes_by[2];       /* URIEL, REAL */
  bool needs_similarity; /* a method of the block needs sources to be chosen */
  bool ruled;            /* its lambda is merginguriel's */
} mg_ablating;

/* MG_ERR_CONFIG where there is no such key. */
mg_status mg_ablation_key_find(const mg_ablating *a, const yaml_node_t *node, const char *name, const mg_ablation_key **key);
/* MG_ERR_CONFIG: name is none of the known; names the nearest, or lists all. */
mg_status mg_ablation_unknown(const mg_ablating *a, const yaml_node_t *node, const char *name, const char *const *known,
                              size_t count);
/* NULL where the block does not say it. */
const mg_ablation_said *mg_ablation_find(const mg_ablation_block *block, const char *name);
/* A line of remarks, once. */
mg_status mg_ablation_remark(mg_ablating *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Appends what one of their methods is here, with the block's parameters, to list: "average", "{dare_ties: {density: 0.1}}".
 * None, with a remark, where it is not in this version.
 */
mg_status mg_ablation_method(mg_ablating *a, const mg_ablation_block *block, const yaml_node_t *node, mg_strings *list);
/* Appends the lines fixed and sweep of a block; *any is false, with a remark, where no method of it is left. */
mg_status mg_ablation_block_write(mg_ablating *a, const mg_ablation_block *block, const char *indent, mg_text *text, bool *any);

#endif
