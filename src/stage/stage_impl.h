#ifndef MERGEGRID_STAGE_IMPL_H
#define MERGEGRID_STAGE_IMPL_H

#include "mergegrid/config.h"
#include "mergegrid/corpus.h"
#include "mergegrid/device.h"
#include "mergegrid/encoder.h"
#include "mergegrid/family.h"
#include "mergegrid/gram.h"
#include "mergegrid/grid.h"
#include "mergegrid/merge.h"
#include "mergegrid/ops.h"
#include "mergegrid/result.h"
#include "mergegrid/result_grid.h"
#include "mergegrid/schedule.h"
#include "mergegrid/shard.h"
#include "mergegrid/shared.h"
#include "mergegrid/stage.h"

/** The family as a run finds it: what has a checkpoint, what has only a shard. */
typedef struct mg_roster {
  mg_source_list list;
  bool base_there;   /**< the base's directory exists */
  mg_family *family; /**< of the sources that have checkpoints; NULL where none has one or the base is gone */
  ptrdiff_t *member; /**< [list.count]: index in family, −1 where only a shard is there */
  mg_strings labels;
} mg_roster;

/**
 * Not collective. Resolves the sources (checkpoints, or shards where those are gone) and compares headers.
 * quiet: do not log notes.
 */
mg_status mg_roster_open(const mg_config *config, bool quiet, mg_roster *roster);
/** The same of shards alone, as if there were no checkpoints. */
mg_status mg_roster_open_shards(const mg_config *config, mg_roster *roster);
void mg_roster_close(mg_roster *roster);
/** A source's own labels by index, from its checkpoint, or its shard where that is gone. The caller frees. */
mg_status mg_roster_labels(const mg_config *config, const mg_roster *roster, size_t source, mg_strings *labels);
/**
 * What each class of a source's own is called by the names `family`: to [classes], as of mg_deltas; as they are where neither
 * names any. MG_ERR_INPUT: another number of names, a label that the family lacks or that comes twice.
 */
mg_status mg_roster_class_of(const mg_config *config, const mg_roster *roster, size_t source, const mg_strings *family,
                             size_t classes, int32_t *to);
/**
 * Collective. mg_roster_open by rank 0, described to all; of a node's checkpoints each is looked at once. MG_ERR_INPUT names a
 * rank and its host where one is another than rank 0's, or is not there.
 */
mg_status mg_roster_open_all(MPI_Comm comm, const mg_config *config, mg_roster *roster);

/**
 * Collective. This rank's number among those of its node that see one and the same directory, and how many they are: what one
 * of them finds there, all do.
 */
void mg_directory_ranks(MPI_Comm comm, const char *dir, int *rank, int *ranks);
enum { MG_RANK_NAME = 96 };
/** "rank 3 on n01", for messages about what is there on this host; returns name [MG_RANK_NAME]. */
const char *mg_rank_name(int rank, char *name);

/** Collective. Packs what is missing or outdated. */
mg_status mg_pack_family(MPI_Comm comm, const mg_config *config, const mg_roster *roster, bool rehash);

/** Not collective. Tile rows of the roster: from shards, or from the checkpoints. */
mg_status mg_roster_rows(const mg_config *config, const mg_roster *roster, mg_rows **rows);

/**
 * Not collective. Resolves a recipe of the command merge against the configuration's matrices, and against the result's
 * evaluation and compatibilities where it goes by them; says what came out. finished: the result that the cell is of, whose
 * matrices count instead of the configuration's; or NULL. MG_ERR_INPUT as of mg_grid_resolve.
 */
mg_status mg_recipe_resolve(const mg_config *config, const mg_source_list *sources, const mg_cell *cell,
                            const mg_grid_reader *finished, mg_resolved *resolved);
/**
 * A resolved cell as a merge wants it: of one model a merge of one. ids [resolved->count] is filled in; all else is borrowed.
 * MG_ERR_CONFIG: a vote.
 */
mg_status mg_recipe_of_cell(const mg_cell *cell, const mg_resolved *resolved, const mg_source_list *sources, const char **ids,
                            mg_recipe *recipe);

/** The shape of a run: layout, lease size, what it holds. The same for plan and run. */
typedef struct mg_gram_plan {
  bool *selected;
  mg_gram_layout *layout;
  int64_t unit_leaves;                 /**< a power of two */
  uint64_t engine_bytes, master_bytes; /**< at work on every rank; kept on rank 0 */
  uint64_t device_bytes;               /**< of a device's memory, where there is one */
  uint64_t places_bytes;               /**< where each tensor of each source is, and the list of the work */
  double bytes_read, flops;
} mg_gram_plan;

/** staging_bytes as of mg_rows_staging_bytes. MG_ERR_NOMEM where rank_bytes exceeds the memory budget; says what would fit. */
mg_status mg_gram_plan_make(const mg_config *config, const mg_tensor_table *table, int sources, mg_dtype dtype,
                            double bytes_per_element, size_t staging_bytes, int ranks, int threads, const mg_device *device,
                            mg_gram_plan *plan);
void mg_gram_plan_free(mg_gram_plan *plan);
/** Bytes that a pair block reads and operations that it takes for an element of one of its sources; how many sources it has. */
double mg_gram_block_cost(const mg_gram_layout *layout, size_t block, double bytes_per_element, double *bytes, double *flops);

/** A lease: consecutive nodes. */
typedef struct mg_gram_unit {
  uint64_t first, count;
} mg_gram_unit;
/**
 * Cuts a list of nodes (mg_gram_sum_missing's) into leases of about unit_leaves leaves: small tensors share one. The caller
 * frees *units.
 */
mg_status mg_gram_units(const mg_gram_plan *plan, const mg_gram_node *nodes, size_t node_count, mg_gram_unit **units,
                        size_t *count);

/** A source's weights, θ0 + τ, from tile rows. */
typedef struct mg_row_weights mg_row_weights;
mg_status mg_row_weights_open(mg_rows *rows, const mg_source_list *list, mg_row_weights **opened);
/** weights are those of source k until the next call. */
void mg_row_weights_source(mg_row_weights *opened, size_t k, mg_weights *weights);
void mg_row_weights_close(mg_row_weights **opened);

/** Ranges by tensor, then first. Zero-initialise; the caller frees items. */
typedef struct mg_range_list {
  mg_range *items;
  size_t count, room;
} mg_range_list;
/**
 * What an encoder for these tokens holds of the family's tensors, at offsets of its block of weights; what was in list is
 * replaced. MG_ERR_INPUT: the family has no such tensor.
 */
mg_status mg_encoder_ranges(const mg_encoder_shape *shape, const mg_tensor_table *table, const int32_t *tokens,
                            size_t token_count, mg_range_list *list);

/** Texts as a forward pass wants them: each different sequence of ids once, shorter ones first. */
typedef struct mg_tokenized {
  size_t count;           /**< texts */
  mg_sequences sequences; /**< the different ones */
  int32_t *sequence_of;   /**< [count] */
  size_t token_count;
  int32_t *tokens; /**< [token_count] ids that occur, rising */
  int32_t *ids;
  int64_t *offset;
  uint64_t hash;    /**< of all texts' ids */
  mg_shared *block; /**< what holds the arrays, read-only, once they are shared; NULL: each is allocated */
} mg_tokenized;

/**
 * Not collective. Texts through the tokenizer of the base, or of the first source that has one: begin, add corpora, end.
 * max_length: as texts.max_length, which bounds it. MG_ERR_INPUT: no tokenizer, one that does not belong to the model, a text
 * longer than the model's positions (names file and line).
 */
typedef struct mg_tokenizing mg_tokenizing;
mg_status mg_tokenizing_begin(const mg_config *config, const mg_source_list *list, const mg_encoder_shape *shape,
                              int32_t max_length, mg_tokenizing **tokenizing);
/** Has the family a tokenizer of another kind, so that mg_tokenizing_begin must fail? */
bool mg_tokenizing_is_foreign(const mg_config *config, const mg_source_list *list);
mg_status mg_tokenizing_add(mg_tokenizing *tokenizing, const mg_corpus *corpus);
mg_status mg_tokenizing_end(mg_tokenizing *tokenizing, mg_tokenized *tokenized);
/** Appends what was added to a text, and begins anew; takes it, in another process, as if it were added there. */
void mg_tokenizing_move(mg_tokenizing *tokenizing, mg_text *to);
mg_status mg_tokenizing_take(mg_tokenizing *tokenizing, mg_cursor *cursor);
void mg_tokenizing_free(mg_tokenizing **tokenizing);
/** Collective. Rank 0's to all, once a node. */
mg_status mg_tokenized_share(MPI_Comm comm, mg_tokenized *tokenized);
void mg_tokenized_free(mg_tokenized *tokenized);

/** The metric cka: what a run and a plan know before any forward pass. */
typedef struct mg_cka_plan {
  mg_encoder_shape shape;
  int *layers; /**< [layer_count] indexes of hidden states */
  int layer_count;
  bool mean;               /**< pool over tokens, else the state of <s> */
  mg_tokenized probes;     /**< rank 0 and plan */
  uint64_t encoder_bytes;  /**< of every rank */
  uint64_t device_bytes;   /**< of its device's memory */
  uint64_t device_wish;    /**< of rank 0's, where all Gram matrices are held */
  uint64_t features_bytes; /**< kept on rank 0 */
  uint64_t grams_bytes;    /**< of rank 0, at the end, without a device */
  double flops;            /**< of all sources */
} mg_cka_plan;

bool mg_cka_wanted(const mg_config *config);
/**
 * Not collective. with_probes: read and tokenize them. MG_ERR_NOMEM where it would not fit into the budget. sources: how many.
 */
mg_status mg_cka_plan_make(const mg_config *config, const mg_source_list *list, int threads, const mg_device *device,
                           bool with_probes, mg_cka_plan *plan);
void mg_cka_plan_free(mg_cka_plan *plan);

/**
 * One of several jobs at one result, or the gathering of what they have done. A unit's part hangs on its number among all that
 * the stage has, done or not, so it's the same for everyone and at any time.
 */
typedef struct mg_parts {
  int part;          /**< this job's, 1 … count; 0: it gathers */
  int count;         /**< 0: there is but one job */
  bool compute;      /**< gathering: what the parts have not done is computed here */
  unsigned *lacking; /**< [count] rank 0: what a part has not done of its shares, a bit each */
} mg_parts;

typedef enum mg_share { MG_SHARE_GRAM, MG_SHARE_CKA, MG_SHARE_NXN, MG_SHARE_GRID, MG_SHARE_MICROSCOPE, MG_SHARES } mg_share;

/** Where a part's positions of 0 … total − 1 begin; those of part count + 1 at total. */
int64_t mg_share_begin(const mg_parts *parts, int part, int64_t total);
/** Whose position it is, 1 … count. */
int mg_share_of(const mg_parts *parts, int64_t position, int64_t total);
/** Does this job compute it? The only job, and one that gathers and computes, all; one that only gathers, none. */
bool mg_share_is_ours(const mg_parts *parts, int64_t position, int64_t total);
bool mg_parts_only_gather(const mg_parts *parts);
/** Notes that a part's share is not done. */
void mg_parts_lack(mg_parts *parts, int part, mg_share share);

/**
 * One attempt at a result, as its stages see it. Each stage has the same calls, in this order: open, identify and replay (rank
 * 0), compute, collect (rank 0), close.
 */
typedef struct mg_attempt {
  MPI_Comm comm;
  int rank, ranks, threads;
  const mg_config *config;
  const mg_run_options *options;
  mg_parts parts;
  const mg_roster *roster;
  mg_rows *rows;
  const mg_ops *ops;
  mg_device *device; /**< NULL: processors compute */
  mg_run *run;       /**< rank 0 */
  double began;
  char started[24];
  mg_rank_report mine; /**< what this rank did */
  mg_timing timings[16];
  size_t timing_count;
} mg_attempt;

/**
 * Collective. attempt->rows: of the same shards on all ranks, opened by rank 0 and described to the others.
 * MG_ERR_INPUT names a host that has another shard.
 */
mg_status mg_attempt_open_rows(mg_attempt *attempt);
/**
 * Collective, once there is something to compute. Copies what shards.stage_to does not have yet, and moves attempt->rows there;
 * a node whose disk refuses says so and stays with the shards in shards.dir. MG_STOPPED; MG_ERR_CORRUPT: a shard;
 * MG_ERR_CONFIG: a variable that is not set.
 */
mg_status mg_attempt_stage_shards(mg_attempt *attempt);
/** Bytes that may be written in a directory, or where it would be made. */
double mg_stage_room(const char *dir);
/** Collective, once threads are known. Rank 0 says what each node's ranks compute with, and warns where threads share a
 * processor. */
mg_status mg_attempt_print_places(const mg_attempt *attempt);
/** Rank 0, from a farm's tick: syncs the journal, reports, and asks for a stop where max_hours are over. */
mg_status mg_attempt_keep_going(mg_attempt *attempt, const char *stage, const char *progress);
void mg_attempt_timed(mg_attempt *attempt, const char *part, double began);
/**
 * Collective. Rank 0's list (NULL where making it failed, with status) to all: *items is allocated on the others, *count
 * everyone's.
 */
mg_status mg_attempt_share(const mg_attempt *attempt, mg_status status, void **items, size_t *count, size_t item_bytes);
/** As of mg_farm_job; context is the poll. */
mg_status mg_attempt_poll(void *context);
mg_status mg_identity_add_hash(mg_identity *identity, const char *what, uint64_t hash);

/** Kinds of records; 4 and 6 are the grid's (grid_journal.h). */
enum { MG_RECORD_NODES = 1, MG_RECORD_FEATURES = 2, MG_RECORD_LOGITS = 3, MG_RECORD_SCOPE = 5 };

/** The metric task_vector_cosine. */
typedef struct mg_gram_stage mg_gram_stage;
/** Collective, as compute and (all ranks) close. */
mg_status mg_gram_stage_open(mg_attempt *attempt, mg_gram_stage **stage);
void mg_gram_stage_close(mg_gram_stage **stage);
mg_status mg_gram_stage_identify(const mg_gram_stage *stage, mg_identity *identity);
mg_status mg_gram_stage_replay(mg_gram_stage *stage, const mg_record *record);
mg_status mg_gram_stage_compute(mg_gram_stage *stage);
/** Rank 0: notes which parts have not done their shares, as mg_cka_lacking and mg_nxn_lacking do. */
mg_status mg_gram_stage_lacking(mg_gram_stage *stage);
/** What out points to belongs to the stage. */
mg_status mg_gram_stage_collect(mg_gram_stage *stage, mg_result_compatibility *out);
/** What Grams are computed by, as far as the rows are open; of a device that multiplies matrices it is written to buffer. */
const char *mg_gram_stage_numeric_mode(const mg_attempt *attempt, char *buffer, size_t size);
/** Rank 0, before it computes: finished Grams are all there is to do. */
mg_status mg_gram_stage_adopt(mg_gram_stage *stage, const mg_gram *gram);
/** Rank 0, once computed: cosines of the selection [N,N]; Grams of all tensors, NULL unless they are kept a tensor. */
mg_status mg_gram_stage_matrices(mg_gram_stage *stage, const double **cosine, const mg_gram **gram);

/**
 * Collective, once the stage has computed. Its Grams a tensor to every node: *dots is the caller's, and view points into it;
 * NULL where there are none (stage NULL, or compatibility.gram is not tensor).
 */
mg_status mg_share_grams(const mg_attempt *attempt, mg_gram_stage *stage, mg_shared **dots, mg_gram_view *view);

/** The metric cka. */
typedef struct mg_cka_stage mg_cka_stage;
mg_status mg_cka_open(mg_attempt *attempt, mg_cka_stage **stage);
void mg_cka_close(mg_cka_stage **stage);
mg_status mg_cka_identify(const mg_cka_stage *stage, mg_identity *identity);
mg_status mg_cka_replay(mg_cka_stage *stage, const mg_record *record);
mg_status mg_cka_compute(mg_cka_stage *stage);
void mg_cka_lacking(mg_cka_stage *stage);
mg_status mg_cka_collect(mg_cka_stage *stage, mg_result_compatibility *out);
/** Rank 0, before it computes: finished matrices [layers,N,N], owned by the stage from now on. */
void mg_cka_adopt(mg_cka_stage *stage, double *biased, double *unbiased);
/** Rank 0, once computed: CKA of the last layer compared, [N,N]. */
mg_status mg_cka_last(mg_cka_stage *stage, const double **cka);

/** A target's texts of both partitions, in the order of its file. */
typedef struct mg_target {
  char *path;
  size_t count;
  char **id;
  int8_t *part;         /**< [count] 0: nxn.partition, 1: nxn.select */
  int32_t *label;       /**< [count] class */
  size_t *text;         /**< [count] number in the table of tokens */
  int64_t *line;        /**< [count] of the file */
  size_t part_count[2]; /**< texts that a partition's evaluation has */
  bool stands_in;       /**< none of nxn.select: nxn.partition's are used */
} mg_target;

typedef struct mg_nxn_texts {
  mg_strings targets; /**< M */
  mg_target *items;   /**< [M] */
  mg_strings labels;  /**< names of the classes */
  size_t parts;       /**< 1 where nxn.partition and nxn.select are the same */
  mg_tokenized tokenized;
} mg_nxn_texts;

/** Not collective. shape->classes is looked at. MG_ERR_INPUT as of mg_corpus_read; a target without texts of nxn.partition. */
mg_status mg_nxn_texts_read(const mg_config *config, const mg_source_list *list, const mg_strings *model_labels,
                            const mg_encoder_shape *shape, mg_nxn_texts *texts);
/**
 * Collective. The same on rank 0, to the same bits; targets are read and tokenized by several ranks of its node, which see its
 * files. Others' texts are empty.
 */
mg_status mg_nxn_texts_read_all(MPI_Comm comm, const mg_config *config, const mg_source_list *list,
                                const mg_strings *model_labels, const mg_encoder_shape *shape, mg_nxn_texts *texts);
/** Parts of it: which targets and classes; a target whose first text has number *first, which moves on; what is said at the
 * end. */
mg_status mg_nxn_texts_begin(const mg_config *config, const mg_source_list *list, const mg_strings *model_labels,
                             const mg_encoder_shape *shape, mg_nxn_texts *texts);
mg_status mg_nxn_target_read(const mg_config *config, size_t target, mg_nxn_texts *texts, mg_tokenizing *tokenizing,
                             size_t *first);
mg_status mg_nxn_texts_end(const mg_config *config, mg_nxn_texts *texts, mg_tokenizing *tokenizing);
void mg_nxn_target_free(mg_target *target);
void mg_nxn_texts_free(mg_nxn_texts *texts);
/** Rows of the head by the family's table; 0: none. */
int mg_nxn_classes(const mg_tensor_table *table);

/** The stage nxn: what a run and a plan know before any forward pass. */
typedef struct mg_nxn_plan {
  mg_encoder_shape shape;
  mg_nxn_texts texts; /**< rank 0 and plan; of others the tokens only */
  size_t *batch;      /**< [batch_count + 1]: first sequence of each batch */
  size_t batch_count;
  uint64_t text_bytes;                   /**< the texts, once a node; counted in every rank */
  uint64_t encoder_bytes, message_bytes; /**< of every rank */
  uint64_t reading_bytes;                /**< of rank 0 while it reads and tokenizes the texts, before others work */
  uint64_t device_bytes;                 /**< of its device's memory */
  uint64_t master_bytes, answer_bytes;   /**< kept on rank 0; of rank 0 at the end */
  double flops;                          /**< of all sources */
  double lease_flops, load_flops;        /**< of a lease where there is work for long; that loading a model costs */
} mg_nxn_plan;

/** Not collective. The shape, without texts; all else, once texts are there. MG_ERR_NOMEM: it would not fit into the budget. */
mg_status mg_nxn_plan_begin(const mg_config *config, const mg_tensor_table *table, mg_nxn_plan *plan);
mg_status mg_nxn_plan_end(const mg_config *config, size_t sources, int threads, const mg_device *device, mg_nxn_plan *plan);
void mg_nxn_plan_free(mg_nxn_plan *plan);
mg_status mg_nxn_batches(mg_nxn_plan *plan, const mg_device *device);
/**
 * Fills in lease_flops, enough that loading a model for a lease costs a few percent and that every thread has some batches of
 * it, and load_flops: at the rate of the rank's threads, or of its device.
 */
void mg_nxn_choose_leases(mg_nxn_plan *plan, int threads, bool on_device);
/** Fills in the plan's …_bytes from its texts, batches and leases. */
void mg_nxn_predict_memory(const mg_config *config, size_t sources, int threads, mg_nxn_plan *plan);
/** Of sequences first … last − 1, for one source. */
double mg_nxn_batch_flops(const mg_nxn_plan *plan, size_t first, size_t last);

/** Batches `first` … of a source: a lease, and (followed by predictions and logits, text by text) a record. */
typedef struct mg_nxn_part {
  uint32_t source, first, count, zero;
} mg_nxn_part;
/**
 * Leases of neighbouring batches that are not done [sources, batch_count] yet, source by source; shorter towards the end, and
 * where there is little for every rank. The caller frees *parts.
 */
mg_status mg_nxn_parts(const mg_nxn_plan *plan, size_t sources, int ranks, const bool *done, mg_nxn_part **parts,
                       size_t *count);

typedef struct mg_nxn_stage mg_nxn_stage;
mg_status mg_nxn_open(mg_attempt *attempt, mg_nxn_stage **stage);
void mg_nxn_close(mg_nxn_stage **stage);
mg_status mg_nxn_identify(const mg_nxn_stage *stage, mg_identity *identity);
mg_status mg_nxn_replay(mg_nxn_stage *stage, const mg_record *record);
mg_status mg_nxn_compute(mg_nxn_stage *stage);
void mg_nxn_lacking(mg_nxn_stage *stage);
/** What out points to belongs to the stage. */
mg_status mg_nxn_collect(mg_nxn_stage *stage, mg_result_nxn *out);

/** Rank 0, before it computes. Takes a source's answers to all texts: predictions, logits [sequences, classes] where kept. */
mg_status mg_nxn_adopt(mg_nxn_stage *stage, size_t source, const int32_t *predictions, const float *logits);
/** Are all answers of a source there? */
bool mg_nxn_is_done(const mg_nxn_stage *stage, size_t source);
/**
 * Rank 0, once all answers are there, any number of times. A source whose logits for any text of a target are not finite has
 * failed on that target: the first call warns of each such source. MG_ERR_INPUT: every source on every target.
 */
mg_status mg_nxn_settle(mg_nxn_stage *stage);
/** After that: why a source has failed on a target; NULL where it has not. How many have, of sources × targets. */
const char *mg_nxn_failure(const mg_nxn_stage *stage, size_t source, size_t target);
size_t mg_nxn_failed(const mg_nxn_stage *stage);
/** Rank 0, once all answers are there (it settles them): predictions of all sources, and what they are worth. */
mg_status mg_nxn_score(mg_nxn_stage *stage);
/**
 * [sources, sequences] of the table of texts, −1 where logits are not finite; [N, M] of nxn.partition (0) or nxn.select (1),
 * NaN of a source that has failed on the target. After mg_nxn_score.
 */
const int32_t *mg_nxn_predictions(const mg_nxn_stage *stage);
const double *mg_nxn_accuracy(const mg_nxn_stage *stage, int part);
/** Logits of a source [count, classes] for sequences [count]. MG_ERR_INPUT where they are not kept (nxn.logits). */
mg_status mg_nxn_logits(mg_nxn_stage *stage, size_t source, const int64_t *sequences, size_t count, float *logits);
/** [N, classes] the family's class of a source's own; everyone's. */
const int32_t *mg_nxn_class_of(const mg_nxn_stage *stage);

/** The stage grid. */
typedef struct mg_grid_stage mg_grid_stage;
typedef struct mg_stages mg_stages;
/** Collective, after the stages it builds on were opened; it borrows them. */
mg_status mg_grid_stage_open(mg_attempt *attempt, const mg_stages *stages, mg_grid_stage **stage);
void mg_grid_stage_close(mg_grid_stage **stage);
mg_status mg_grid_stage_replay(mg_grid_stage *stage, const mg_record *record);
/** Does a finished result hold all of the grid's cells? */
mg_status mg_grid_stage_covered(const mg_grid_stage *stage, const char *result, bool *covered);
mg_status mg_grid_stage_compute(mg_grid_stage *stage);
/** What out points to belongs to the stage. failed: cells that did. */
mg_status mg_grid_stage_collect(mg_grid_stage *stage, mg_result_grid *out);
size_t mg_grid_stage_failed(const mg_grid_stage *stage);

/** The stage grid: what a run and a plan know before sources are chosen. */
typedef struct mg_grid_plan {
  size_t cells, merges;                      /**< declared; of methods that merge (before equal ones are found) */
  double flops;                              /**< of evaluating them all */
  double merge_bytes;                        /**< that their merging reads and writes in memory */
  size_t most_tokens;                        /**< different ones in one target's texts */
  size_t models;                             /**< merged in one pass */
  uint64_t model_bytes, source_bytes;        /**< of a merged model; of a source in memory */
  uint64_t store_bytes;                      /**< for sources, once a node; counted in every rank */
  uint64_t gram_bytes;                       /**< of master_bytes: Grams of tensors, once a node */
  uint64_t activation_bytes, pass_bytes;     /**< of every rank */
  uint64_t master_bytes, table_bytes;        /**< kept on rank 0; of rank 0 at the end */
  uint64_t device_bytes, device_store_bytes; /**< of a rank's device's memory; what sources would take there besides */
} mg_grid_plan;

/** The stage microscope: what a run and a plan know before setups are resolved. */
typedef struct mg_microscope_plan {
  mg_encoder_shape shape;             /**< classes 0 where the family has no head */
  bool signals;                       /**< are there forward passes? */
  char *no_signals;                   /**< why not; NULL */
  mg_tokenized probes;                /**< the sequences as they are computed: padded where that is asked for */
  int32_t *keys;                      /**< [sequences] of padded ones; NULL */
  size_t models;                      /**< with the reference */
  uint64_t encoder_bytes, work_bytes; /**< of every rank: forward passes; merging and comparing */
  uint64_t device_bytes;              /**< of its device's memory */
  uint64_t master_bytes;              /**< kept on rank 0: numbers and tables */
  double flops, merge_bytes;
} mg_microscope_plan;

/** What stages will need; NULL: not asked for. */
typedef struct mg_plans {
  const mg_gram_plan *gram;
  const mg_cka_plan *cka;
  const mg_nxn_plan *nxn;
  const mg_grid_plan *grid;
  const mg_microscope_plan *microscope;
} mg_plans;

/**
 * The predicted peak of rank 0, which holds most. Stages work one after another and keep what the result needs. shared: of held
 * and working, what the ranks of a node have once between them; the budget is a rank's, so it is counted in each.
 */
typedef struct mg_memory {
  uint64_t process, held, working, total, shared;
} mg_memory;
mg_memory mg_memory_predict(const mg_plans *plans);
/** What the stages need of a device's memory at most; and what they would use. */
typedef struct mg_device_need {
  uint64_t least, wish;
} mg_device_need;
mg_device_need mg_device_need_of(const mg_plans *plans);
/**
 * Not collective. The device that compute.backend asks for: NULL where it asks for none, or `auto` finds none. MG_ERR_CONFIG:
 * `cuda`, and there is none.
 */
mg_status mg_device_of_config(const mg_config *config, int node_rank, int node_ranks, mg_device **device);
/** Collective. attempt->device: the same kind on all ranks, or NULL. */
mg_status mg_attempt_open_device(mg_attempt *attempt);
/** Collective. Its memory. MG_ERR_NOMEM: less is free than is needed. */
mg_status mg_attempt_reserve_device(mg_attempt *attempt, const mg_device_need *need);
/** MG_ERR_NOMEM where that exceeds compute.memory_budget; says what would help. */
mg_status mg_memory_hold(const mg_config *config, const mg_plans *plans);

/** Not collective. others: of the other stages. grid: its cells. */
mg_status mg_grid_plan_make(const mg_config *config, const mg_tensor_table *table, size_t sources, int threads,
                            const mg_device *device, const mg_nxn_plan *nxn, const mg_memory *others, const mg_grid *grid,
                            mg_grid_plan *plan);
const mg_grid_plan *mg_grid_stage_plan(const mg_grid_stage *stage);
/** A declared merge: what evaluating it computes, and merging moves in memory. */
typedef struct mg_grid_merge {
  size_t turn, cell; /**< its target's turn; its number in the grid */
  double flops, bytes;
} mg_grid_merge;
/** Not collective. The grid's merges in the order in which they are computed (before equal ones are found). The caller frees
 * *merges. */
mg_status mg_grid_plan_merges(const mg_nxn_plan *nxn, const mg_grid *grid, const mg_grid_plan *plan, mg_grid_merge **merges,
                              size_t *count);

/**
 * Not collective. with_probes: read and tokenize them. cells: of the grid, 0 without. A family that is no encoder has no
 * forward passes; nor has one whose tokenizer is of another kind, which only with_probes finds out.
 */
mg_status mg_microscope_plan_make(const mg_config *config, const mg_source_list *list, const mg_tensor_table *table,
                                  int threads, const mg_device *device, bool with_probes, size_t cells,
                                  mg_microscope_plan *plan);
void mg_microscope_plan_free(mg_microscope_plan *plan);

/** The stage microscope. */
typedef struct mg_microscope_stage mg_microscope_stage;
/** Collective, after the stages it builds on were opened; it borrows them. */
mg_status mg_microscope_open(mg_attempt *attempt, const mg_stages *stages, mg_microscope_stage **stage);
void mg_microscope_close(mg_microscope_stage **stage);
const mg_microscope_plan *mg_microscope_stage_plan(const mg_microscope_stage *stage);
mg_status mg_microscope_replay(mg_microscope_stage *stage, const mg_record *record);
/** Does a finished result hold the same tables? */
mg_status mg_microscope_covered(const mg_microscope_stage *stage, const char *result, bool *covered);
mg_status mg_microscope_compute(mg_microscope_stage *stage);
/** What out points to belongs to the stage. */
mg_status mg_microscope_collect(mg_microscope_stage *stage, mg_result_microscope *out);
/** Rank 0, once it has computed: setups that failed, the reference among them. */
size_t mg_microscope_failed(const mg_microscope_stage *stage);

const mg_gram_plan *mg_gram_stage_plan(const mg_gram_stage *stage);
const mg_cka_plan *mg_cka_stage_plan(const mg_cka_stage *stage);
const mg_nxn_plan *mg_nxn_stage_plan(const mg_nxn_stage *stage);

/** The stages a configuration asks for; NULL where not. */
struct mg_stages {
  mg_gram_stage *gram;
  mg_cka_stage *cka;
  mg_nxn_stage *nxn;
  mg_grid_stage *grid;
  mg_microscope_stage *microscope;
};

mg_plans mg_stages_plans(const mg_stages *stages);

/** Rank 0. Takes what finished results (the run's own, and `reuse`) know already, as if journaled. */
mg_status mg_stages_import(mg_attempt *attempt, mg_stages *stages, const mg_identity *identity);

/**
 * Collective. Takes the result (rank 0): the whole one, a part's, or the whole one with what its parts have left. MG_STOPPED
 * where a part that is to be gathered is at work.
 */
mg_status mg_parts_open(mg_attempt *attempt);
void mg_parts_close(mg_attempt *attempt);
/** Collective. mg_pack_family; parts that begin together do it one after another, so that the first one's shards are
 * everyone's. */
mg_status mg_parts_pack(const mg_attempt *attempt);
/**
 * Collective, once the stages that others build on have computed. A part takes what the others have journaled by now (by
 * `visit`). MG_STOPPED where that is not all.
 */
mg_status mg_parts_meet(mg_attempt *attempt, mg_stages *stages, const mg_identity *identity, mg_journal_visit visit);
/** Collective. MG_STOPPED names the parts whose shares are not done, as far as stages noted it. */
mg_status mg_parts_hold(mg_attempt *attempt);
/** Rank 0. What the parts say of themselves, [parts.count]; the caller frees. */
mg_status mg_parts_report(const mg_attempt *attempt, mg_part_report **reports);

bool mg_stage_wanted(const mg_config *config, const char *name);
/** Are the files there that the configuration names beside the family, and its matrices tables? Not collective. */
mg_status mg_inputs_check(const mg_config *config);

/** Rank 0. Writes and publishes the result and says what is in it; reports [ranks]. */
mg_status mg_outcome_write(mg_attempt *attempt, const mg_stages *stages, const mg_identity *identity, mg_rank_report *reports);

/** Peak of anonymous and shared memory of this process so far, in bytes. */
uint64_t mg_peak_memory(void);
/** Between these, files are looked at in the page cache: that is not this process's memory, whose peak is what samples find. */
void mg_peak_begin_seeing(void);
void mg_peak_sample(void);
void mg_peak_end_seeing(void);
/** "2026-01-31T12:00:00Z" into buffer[21]. */
void mg_utc_now(char *buffer);

#endif
