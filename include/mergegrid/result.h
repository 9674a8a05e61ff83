#ifndef MERGEGRID_RESULT_H
#define MERGEGRID_RESULT_H

/**
 * The HDF5 result: writing it, reading it back, checking it, exporting it. Master rank only. Not collective.
 * Schema: docs/result-schema.md. The file's first 4096 bytes (an HDF5 user block) vouch for all others and say where each
 * dataset's numbers are; every dataset carries the attribute `checksum` besides (XXH3 of its bytes in native little endian
 * order, of strings with their NULs).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/family.h"
#include "mergegrid/gram.h"
#include "mergegrid/labelled_table.h"
#include "mergegrid/run.h"
#include "mergegrid/score.h"
#include "mergegrid/status.h"

enum { MG_SCHEMA_VERSION = 1 };

struct json_t;

typedef struct mg_rank_report {
  char host[64], device[64]; /**< device: where it sits on its host, "" where processors compute */
  double busy_seconds, read_seconds, bytes_read;
  uint64_t peak_bytes; /**< anonymous and shared memory at its highest */
  int64_t units;
} mg_rank_report;

/** Wall-clock seconds of a part of the attempt that finished. */
typedef struct mg_timing {
  const char *name; /**< "family", "pack", "gram" */
  double seconds;
} mg_timing;

/** The compatibility stage; all pointers borrowed. */
typedef struct mg_result_compatibility {
  mg_gram_level level;
  const mg_gram_layout *layout; /**< groups: for level tensor they are the tensors in order */
  const mg_gram *gram;
  const double *cosine, *cosine_encoder, *cosine_layers; /**< [N,N], [N,N], [L,N,N]; the latter two NULL where not to be had */
  const mg_strings *layers;                              /**< [L], order of first appearance in the table */
  const double *cka, *cka_unbiased;                      /**< [K,N,N]; NULL without the metric cka */
  const int *cka_layers;                                 /**< [K] hidden states, 0 the embeddings */
  int cka_layer_count;
  int64_t cka_samples;    /**< probe texts */
  const char *cka_probes; /**< which: "en-US train" */
} mg_result_compatibility;

/** A target's texts, in the order of its file; of both partitions. */
typedef struct mg_result_texts {
  size_t count;
  size_t part_count[2];                     /**< texts of the partition; of `select`, or of those that stand in for them */
  bool stands_in;                           /**< the target has none of `select`: those of the partition are used */
  const char *const *id, *const *partition; /**< [count] */
  const int32_t *label;                     /**< [count] class */
} mg_result_texts;

/** The stage nxn; all pointers borrowed. Part 0 is the partition, part 1 `select`. */
typedef struct mg_result_nxn {
  const mg_strings *targets, *labels; /**< [M]; [classes] */
  const mg_result_texts *texts;       /**< [M] */
  const char *partition[2];
  size_t classes;
  bool logits;
  void *context;
  /**
   * A source's answers to a part of a target's texts: predictions [part_count], logits [part_count, classes] (NULL where they
   * are not wanted) and what they are worth. Called source by source.
   */
  mg_status (*answer)(void *context, size_t source, int part, size_t target, int32_t *predictions, float *logits,
                      mg_scores *scores);
  const double *accuracy; /**< [2, N, M], filled in as answers are given */
  /** [N, M] why a source has failed on a target; NULL: it has not. Its scores are NaN; where it has no prediction it says −1.
   */
  const char *const *failures;
} mg_result_nxn;

/** One cell as the result has it; strings borrowed, NULL is "". NaN where a number is not to be had. */
typedef struct mg_result_cell {
  const char *key, *recipe; /**< 16 hexadecimal digits; recipe "" unless it was resolved */
  const char *locale, *method, *parameters, *similarity_type, *preset, *head, *phase;
  const char *status, *error; /**< planned | completed | failed */
  const char *sources;        /**< "fr-FR:0.500,sw-KE:0.500" */
  const char *note, *terms;   /**< what is unusual; all coordinates as JSON */
  int num_languages, num_sources;
  bool include_target;
  uint64_t seed;
  double accuracy, macro_f1;  /**< of the partition cells are scored on */
  double select_accuracy;     /**< of the one that sources, and best recipes, are chosen by */
  double best_source;         /**< the highest accuracy of one of its sources on the same texts */
  double best_zero_shot;      /**< of any source but the target's own */
  double own;                 /**< of the target's own source */
  double merging_effect;      /**< accuracy − mean accuracy of its sources */
  double delta_vs_similarity; /**< accuracy − that of the cell that differs in nothing but method `similarity` */
  int64_t prediction_row;     /**< of /grid/predictions/<target>, −1: none */
  int64_t same_as;            /**< the first cell of the same recipe, where that is another; −1 */
  int64_t matched;            /**< the cell that delta_vs_similarity is against; −1 */
} mg_result_cell;

/** A method setting (name and parameters) over all its completed cells. */
typedef struct mg_result_method {
  const char *method, *parameters;
  int64_t cells, failed;
  double accuracy;                     /**< mean over cells */
  int64_t pairs;                       /**< cells that have a matched plain-similarity cell */
  double delta, delta_low, delta_high; /**< pooled difference to them and its 95% interval (statistics.h) */
  double p, p_holm;
  int64_t wins, losses, draws; /**< pairs with a higher, lower, equal accuracy */
} mg_result_method;

/** The best recipe of a target, chosen by select_accuracy (of equals the first cell). */
typedef struct mg_result_best {
  const char *locale;
  int64_t cell;
  double select_accuracy, accuracy;
  /** Against the source that is best on the select partition, on the same texts; not the target's own, unless it may be one. */
  double delta_vs_best_source, low, high;
  double p; /**< McNemar, exact */
} mg_result_best;

/** The stage grid; all pointers borrowed. C cells, N sources, M targets. */
typedef struct mg_result_grid {
  size_t cell_count;
  const mg_result_cell *cells;     /**< [C] */
  const mg_strings *swept;         /**< names of columns `method.parameter` … */
  const char *const *swept_values; /**< … [swept, C], "" where a cell's method has none */
  const double *weights;           /**< [C,N] */
  const bool *selected;            /**< [C,N] */
  const mg_strings *targets;       /**< [M] */
  const size_t *texts;             /**< [M] U: texts of both partitions */
  const size_t *rows;              /**< [M] rows of predictions */
  void *context;
  /** One row of a target's predictions [U], −1: none. Called target by target, rows rising. */
  mg_status (*predictions)(void *context, size_t target, size_t row, int32_t *predictions);
  const char *partition;      /**< what cells are scored on */
  bool selected_on_partition; /**< sources were chosen on the texts that cells are scored on */
  size_t method_count;
  const mg_result_method *methods; /**< in order of first appearance */
  size_t best_count;
  const mg_result_best *best; /**< targets that have a completed cell, in order */
  size_t matrix_count;
  const char *const *matrix_names; /**< [matrix_count] similarity matrices that cells went by … */
  const mg_strings *const *matrix_labels;
  const double *const *matrices; /**< … [n, n] each, in the order of the labels, all repeated ones kept */
  size_t reused_count;           /**< recipes taken from earlier results (goes to /provenance) */
  const char *const *reused;     /**< their hashes */
} mg_result_grid;

/* The microscope's tables: columns as merginguriel's notebook has them; model names the setup. Strings borrowed. */

typedef struct mg_result_parameter_delta {
  const char *parameter, *layer; /**< full name; the notebook's layer of it */
  double delta_l2, delta_mean_abs, cosine_with_reference, reference_norm, candidate_norm;
  const char *model;
} mg_result_parameter_delta;

typedef struct mg_result_layer_delta {
  const char *layer;
  double delta_l2_sum, delta_l2_mean, delta_mean_abs, cosine_mean, reference_norm_mean, candidate_norm_mean;
  const char *model;
} mg_result_layer_delta;

typedef struct mg_result_attention {
  int64_t layer, head; /**< layer 0: the first that attends */
  double mean_prob, entropy, cls_focus, diagonal_focus;
  const char *model;
} mg_result_attention;

typedef struct mg_result_hidden_state {
  int64_t layer; /**< 0: the embeddings */
  double mean_token_norm, max_token_norm, std_token_norm, sequence_mean_norm;
  const char *model;
} mg_result_hidden_state;

typedef struct mg_result_logit {
  double logit_mean, logit_std, confidence_mean, confidence_std, entropy_mean;
  const char *model;
} mg_result_logit;

typedef struct mg_result_setup {
  const char *model, *kind, *notes; /**< kind: pretrained, merge */
  const char *path;                 /**< of a checkpoint; "" of a merge */
  bool exists;                      /**< false: skipped, `error` says why */
  const char *error;
  const char *mode, *target_lang;   /**< of a merge: its method and target */
  int64_t num_languages;            /**< sources asked for; 0 of what is no merge */
  const char *preweight;            /**< what its weights are by: equal, named, or a similarity's name */
  const char *base_model, *sources; /**< what it starts from; "fr-FR:0.500, sw-KE:0.500" */
  const char *cell;                 /**< key of the grid's cell that it is */
} mg_result_setup;

/** The stage microscope; all pointers borrowed. C cells, T tensors. */
typedef struct mg_result_microscope {
  const char *digest;    /**< 16 hexadecimal digits: of all that the tables hang on besides the family and the other stages */
  const char *reference; /**< what it is, for people */
  const char *padding;   /**< "exclude", "include" */
  int64_t probes;        /**< texts */
  const char *probe_source;
  const char *no_signals, *no_cells; /**< why there are no forward passes, no arrays over cells; NULL where there are */
  size_t parameter_count, layer_count, attention_count, hidden_count, logit_count, setup_count;
  const mg_result_parameter_delta *parameters;
  const mg_result_layer_delta *layers;
  const mg_result_attention *attentions;
  const mg_result_hidden_state *hidden_states;
  const mg_result_logit *logits;
  const mg_result_setup *setups;
  /* every cell of the grid against the reference, from inner products; NaN where a tensor is no linear merge */
  size_t cell_count, tensor_count;
  const char *const *cells;                              /**< [C] keys */
  const char *const *parameter_names;                    /**< [T] */
  const double *cell_delta_l2, *cell_cosine, *cell_norm; /**< [C,T] */
  const double *cell_reference_norm;                     /**< [T] */
} mg_result_microscope;

/** Everything a result holds; all pointers borrowed. A stage that did not run is NULL. */
typedef struct mg_result_data {
  const mg_source_list *sources; /**< with `skipped` */
  const char *base_path;
  const mg_strings *labels;
  const mg_tensor_table *table;
  const bool *selected; /**< [table->count] */
  const mg_result_compatibility *compatibility;
  const mg_result_nxn *nxn;
  const mg_result_grid *grid;
  const mg_result_microscope *microscope;
  /* provenance */
  const char *config_yaml, *config_file;
  const mg_identity *identity;
  const char *numeric_mode, *backend, *mpi_library;
  const char *started_utc;
  double wall_seconds;
  int attempt;
  int ranks;
  const mg_rank_report *rank_reports; /**< [ranks] */
  const mg_part_report *parts;        /**< [part_count] that it was gathered from */
  size_t part_count;
  const mg_timing *timings; /**< [timing_count] */
  size_t timing_count;
} mg_result_data;

/** Writes a whole result to path (created exclusively or truncated). On failure the file is removed. */
mg_status mg_result_write(const char *path, const mg_result_data *data);

/** identity of a finished result (from /provenance/inputs). MG_ERR_CORRUPT if path is no mergegrid result. */
mg_status mg_result_read_identity(const char *path, mg_identity *identity);

/** What a finished result has, for runs that build on it. Opened once, its seal checked. */
typedef struct mg_result_reader mg_result_reader;
mg_status mg_result_open(const char *path, mg_result_reader **reader);
void mg_result_close(mg_result_reader **reader);
bool mg_result_has(const mg_result_reader *reader, const char *object); /**< "/nxn", "/grid" */
/** The configuration it was computed with, resolved, as YAML. The caller frees. */
mg_status mg_result_read_config(const mg_result_reader *reader, char **yaml);
struct mg_config;
/**
 * The same, parsed. NULL, and MG_OK, where it can't be: what another version wrote may have keys that there are no more. The
 * caller frees.
 */
mg_status mg_result_parse_config(const mg_result_reader *reader, struct mg_config **config);
/** As mg_result_read_identity. */
mg_status mg_result_read_inputs(const mg_result_reader *reader, mg_identity *identity);
/** The sources in the order of the result, with the directories that they had. */
mg_status mg_result_read_sources(const mg_result_reader *reader, mg_source_list *list);
/** Appends the strings of a dataset: "/labels", "/targets", "/compatibility/gram/groups". MG_ERR_CORRUPT where there is none.
 */
mg_status mg_result_read_list(const mg_result_reader *reader, const char *path, mg_strings *list);
/** Row of the source `id` in the order of the result; −1 where it has none. */
mg_status mg_result_source(const mg_result_reader *reader, const char *id, ptrdiff_t *source);
/**
 * A source's answers to a target's texts of part 0 (/nxn) or 1 (/nxn_select): predictions [texts], logits [texts, classes] (may
 * be NULL). MG_ERR_INPUT where there are none of that size.
 */
mg_status mg_result_read_source(const mg_result_reader *reader, int part, const char *target, size_t source, size_t texts,
                                size_t classes, int32_t *predictions, float *logits);
/** Grams [groups,N,N], [groups,N], [groups], of sources [N] and their groups as the result has them; the caller frees. */
mg_status mg_result_read_gram(const mg_result_reader *reader, mg_gram *gram);
/** CKA matrices [layers,N,N], biased and unbiased; the caller frees them. MG_ERR_INPUT where there are none of that size. */
mg_status mg_result_read_cka(const mg_result_reader *reader, size_t layers, size_t sources, double **biased, double **unbiased);
/**
 * Accuracy of every source (rows: ids) on every target (columns): of `select`'s texts, or of the partition's. MG_ERR_INPUT
 * where it has no stage nxn.
 */
mg_status mg_result_read_evaluation(const mg_result_reader *reader, bool select, mg_labelled_table *table);
/**
 * A matrix of compatibilities [N,N] by ids: CKA of the last layer compared, or task-vector cosines. MG_ERR_INPUT where it has
 * none.
 */
mg_status mg_result_read_compatibility(const mg_result_reader *reader, bool cka, mg_labelled_table *table);
/** What subsets of sources can be scored by, without weights or texts. */
typedef struct mg_result_pairs {
  size_t sources;
  double *cosine; /**< [N,N] task-vector cosines over the selected tensors */
  double *dot;    /**< [N,N] ⟨τi, τj⟩ over the same, from the Grams */
  double *cka;    /**< [N,N] of the last hidden state that was compared; NULL without the metric cka */
} mg_result_pairs;
/** The caller frees. MG_ERR_INPUT where the result has no stage compatibility. */
mg_status mg_result_read_pairs(const mg_result_reader *reader, mg_result_pairs *pairs);
void mg_result_pairs_free(mg_result_pairs *pairs);
/**
 * What failed of a result: evaluations of the stage nxn, sources × targets; cells of the grid; setups of the microscope, its
 * reference among them.
 */
typedef struct mg_failures {
  size_t evaluations, cells, setups;
} mg_failures;
/** 0 of a stage that the result does not have. */
mg_status mg_result_failures(const char *path, mg_failures *failures);
/** "completed"; "failed": it is there, but came to nothing; "skipped": it is not there. error: NULL or "" where there is none.
 */
const char *mg_setup_status(bool exists, const char *error);
bool mg_result_has_grid(const char *path);

/** The digest of a result's microscope (mg_result_microscope), the caller frees; NULL where it has none. */
mg_status mg_result_microscope_digest(const char *path, char **digest);

/** Everything against its checksums and the schema; every bad dataset is named. */
mg_status mg_result_verify(const char *path);

/** Is this file a shard, a result, or neither ("shard", "result", NULL), from its root attributes. */
const char *mg_file_kind(const char *path);

typedef enum mg_export_layout { MG_EXPORT_FLAT, MG_EXPORT_MERGINGURIEL } mg_export_layout;

/**
 * Writes task_vector_cosine_matrix.csv (pandas to_csv of a float64 frame: header ",id,id,…", shortest digits that read back to
 * the same double, NaN as an empty field, ids quoted as csv.writer does), task_vector_cosine_encoder_matrix.csv,
 * layers/task_vector_cosine_matrix_<layer>.csv and computation_log.json to dir (made where missing; each file replaced
 * atomically). MERGINGURIEL puts them where those Python tools look: dir/nxn_results/compatibility_matrix/. Files written are
 * logged. With a stage grid: grid_cells.csv, best_per_target.csv, comparison.md, comparison.tex, experiments.db, and
 * results_aggregated_<time>.csv and results_comparison_<time>.csv as merginguriel's aggregation names them; of all results
 * where there are several, which then must have a grid each, while matrices are the first one's.
 */
mg_status mg_result_export(const mg_strings *paths, const char *dir, mg_export_layout layout);

typedef struct mg_show_options {
  int top;           /**< closest and farthest pairs, or cells, to print; 0: as many as is usual */
  bool json, csv;    /**< csv: the cells alone, as grid_cells.csv has them */
  const char *where; /**< conditions on the cells' columns: "method=ties|average,locale=sw-KE"; NULL: none */
  const char *sort;  /**< a column of the cells, '-' in front for falling; NULL: none */
} mg_show_options;

/**
 * Prints what a result holds: sources, statistics, the closest and farthest pairs, accuracies, and of a grid the methods
 * against plain similarity and each target's best recipe. With where or sort, or top where there is a grid: the matching cells
 * and the tables over those. Last, where a run adds to it, what that run has finished beyond it. MG_ERR_USAGE: no such column;
 * MG_ERR_INPUT: no grid, a value that no cell has.
 */
mg_status mg_result_show(const char *path, const mg_show_options *options);
/**
 * The same of a run whose result is not there yet: its state, its parts', the size of its journals, and the cells of its grid
 * that are finished so far (grid_journal.h), with what waits for the others left out, and said. Should the result appear
 * meanwhile, it is shown. MG_ERR_INPUT: no run of that name either; cells are asked for and none are known yet.
 */
mg_status mg_result_show_progress(const char *path, const mg_show_options *options);
/** Prints a jansson value, of which a reference is given up, as commands with --json do. MG_ERR_NOMEM, also for NULL. */
mg_status mg_print_json(struct json_t *root);

/**
 * Prints what changed from one result to another: what they were computed from, their configurations, sources, targets,
 * cosines; and on the texts that both have (by id, with the right class of the same name) what sources and cells say, with
 * McNemar's exact test, Holm-corrected over those that predict something else, and method settings pooled over the cells of
 * both (statistics.h); and setups of the microscope, with what their models are made from and which numbers changed. options:
 * top and json are looked at. Stages that either lacks are left out.
 */
mg_status mg_result_diff(const char *before, const char *now, const mg_show_options *options);

/**
 * Prints how the cell with a key came about (sources taken and not taken, with numbers; the method; what it is worth against
 * its sources and plain similarity), or, of two keys, why those cells differ. Keys may be cut to a unique prefix. MG_ERR_USAGE
 * for another number of keys; MG_ERR_INPUT: no stage grid, no such cell.
 */
mg_status mg_result_explain(const char *path, const mg_strings *keys);

#endif
