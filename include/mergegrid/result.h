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

typedef struct mg_rank_report {
  char host[64];
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
} mg_result_nxn;

/** Everything a result holds; all pointers borrowed. A stage that did not run is NULL. */
typedef struct mg_result_data {
  const mg_source_list *sources; /**< with `skipped` */
  const char *base_path;
  const mg_strings *labels;
  const mg_tensor_table *table;
  const bool *selected; /**< [table->count] */
  const mg_result_compatibility *compatibility;
  const mg_result_nxn *nxn;
  /* provenance */
  const char *config_yaml, *config_file;
  const mg_identity *identity;
  const char *numeric_mode, *backend, *mpi_library;
  const char *started_utc;
  double wall_seconds;
  int attempt;
  int ranks;
  const mg_rank_report *rank_reports; /**< [ranks] */
  const mg_timing *timings;           /**< [timing_count] */
  size_t timing_count;
} mg_result_data;

/** Writes a whole result to path (created exclusively or truncated). On failure the file is removed. */
mg_status mg_result_write(const char *path, const mg_result_data *data);

/** identity of a finished result (from /provenance/inputs). MG_ERR_CORRUPT if path is no mergegrid result. */
mg_status mg_result_read_identity(const char *path, mg_identity *identity);

/**
 * Accuracy of every source (rows: ids) on every target (columns) of a finished result: of `select`'s texts, or of the
 * partition's. MG_ERR_INPUT where it has no stage nxn.
 */
mg_status mg_result_read_evaluation(const char *path, bool select, mg_labelled_table *table);

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
 * logged.
 */
mg_status mg_result_export(const char *path, const char *dir, mg_export_layout layout);

/** Prints what a result holds: sources, statistics, the `top` closest and farthest pairs; as JSON if json. */
mg_status mg_result_show(const char *path, int top, bool json);

#endif
