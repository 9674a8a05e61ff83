#ifndef MERGEGRID_DEVICE_H
#define MERGEGRID_DEVICE_H

/**
 * An accelerator: its memory, queues of operations, and the operations themselves, behind one constant table. What implements
 * the table (src/ops/cuda) is a module of its own, loaded when a device is asked for: nothing else knows CUDA. Not collective.
 *
 * Pointers called `device` are of the device's memory and never followed by the host. Operations are queued and return at
 * once; those of one queue are done in order, those of two in any, unless a mark says otherwise. A failure of the device may
 * show at any later call. A queue is one thread's at a time; memory may be taken and given by several threads.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/dtype.h"
#include "mergegrid/random.h"
#include "mergegrid/status.h"

typedef struct mg_device_ops mg_device_ops;
typedef struct mg_device {
  const mg_device_ops *ops;
  bool tf32, products; /**< as the terms have it */
} mg_device;
/** Operations in order. */
typedef struct mg_queue mg_queue;
/** A place in a queue. */
typedef struct mg_mark mg_mark;

typedef struct mg_device_terms {
  int node_rank, node_ranks; /**< of this rank among those of its node */
  bool tf32;                 /**< matrix products may round their factors to TF32 (10 bits) */
  bool products;             /**< Grams of task vectors are matrix products, too, instead of the order of ops.h */
} mg_device_terms;

/** What a batch's attention works on: texts one behind the other, in rows of one matrix. Arrays are of the device. */
typedef struct mg_attention {
  int pieces, heads, width; /**< heads × width: hidden size */
  /** [pieces, 4]: first row of the queries, their number (at most MG_PIECE_QUERIES), first row of the keys, their number */
  const int32_t *piece;
  const float *query, *query_bias; /**< rows query_stride apart; [hidden] */
  int query_stride;
  const float *key,
      *key_bias; /**< rows key_stride apart; values lie `hidden` floats behind keys, their bias behind the keys' */
  int key_stride;
  float scale;
  float *mixed; /**< [query rows, hidden] */
  /** NULL, or for probabilities: those of a piece's first query begin at keep_at[piece], as [heads, keep_queries, keys] */
  float *keep;
  const int64_t *keep_at;   /**< [pieces] */
  const int32_t *keep_rows; /**< [pieces] queries of the piece's text */
} mg_attention;
enum { MG_PIECE_QUERIES = 16, MG_WIDEST_HEAD = 128 };

/** Where a batch's token comes from. Arrays are of the device. */
typedef struct mg_embedding {
  const int32_t *word, *position; /**< [tokens] rows of the matrices */
  const float *words, *positions; /**< [rows, hidden] */
  const float *type;              /**< [hidden] */
} mg_embedding;

/** Rows of a tile of task vectors on the device, as they are stored. */
typedef struct mg_device_rows {
  int rows;
  int64_t count; /**< elements */
  const void *raw;
  const int64_t *offset; /**< [rows] bytes from raw, multiples of 16 */
  const int32_t *dtype;  /**< [rows] mg_dtype: F32, F16 or BF16 */
  const float *scale;    /**< [rows] */
  int chained;           /**< how many rows, from the first one on, are in chains (ops.h): BF16 */
} mg_device_rows;

/** How the elements of a tensor are merged, as mg_merge_rows says it: the same operations in the same order. */
typedef enum mg_device_merge_kind {
  MG_DEVICE_SUM,     /**< Σ w_s τ_s, fused, bounds left aside */
  MG_DEVICE_BETWEEN, /**< of what lies within bounds */
  MG_DEVICE_LARGEST, /**< the value of largest magnitude */
  MG_DEVICE_ACTIVE,  /**< the weighted mean of those within bounds */
  MG_DEVICE_MEAN,    /**< elected signs: mean, sum, largest of the values that have it */
  MG_DEVICE_ELECTED_SUM,
  MG_DEVICE_ELECTED_MAX
} mg_device_merge_kind;

/** Elements that are next to each other. */
typedef struct mg_device_piece {
  uint64_t from, to; /**< offsets in the sources' blocks, and in the merge's */
  uint64_t element;  /**< of the tensor */
  uint32_t count;    /**< at most MG_PIECE_ELEMENTS */
  uint32_t reserved;
} mg_device_piece;
enum { MG_PIECE_ELEMENTS = 4096 };

/** What became of a merge. */
typedef struct mg_device_verdict {
  uint64_t bad;       /**< the first element of the tensor that is not finite; UINT64_MAX: all are */
  uint64_t cancelled; /**< not 0: somewhere votes cancelled each other */
} mg_device_verdict;

/** Arrays are of the device. */
typedef struct mg_device_merge {
  mg_device_merge_kind kind;
  int sources;
  double base_factor, lambda, tie, floor;
  const float *const *tau; /**< [sources] blocks */
  const float *other;      /**< NULL, or the block that all are relative to: τ − other, and θ0 + other is their base */
  bool packed; /**< of tau piece p lies MG_PIECE_ELEMENTS p floats behind the start, wherever it is from, and is relative
                  already */
  const double *weight, *vote; /**< [sources] */
  const double *threshold, *ceiling;
  const double *alone; /**< of MG_DEVICE_ACTIVE; NULL: 1 */
  /** NULL, or what is dropped at random before: element k of source s stays where word k of stream[s] is at most last_kept */
  const mg_stream *stream;
  const float *rescale; /**< [sources] */
  uint32_t last_kept;
  const float *base; /**< θ0's block */
  float *out;        /**< the merge's */
  const mg_device_piece *piece;
  uint32_t pieces;
  mg_device_verdict *verdict; /**< added to */
} mg_device_merge;

/** Rows whose elements are dropped at random by the rank of their magnitudes (src/merge/della.c). Arrays are of the device. */
typedef struct mg_device_thinning {
  int sources;
  const float *const *tau; /**< [sources] blocks */
  const float *other;      /**< NULL, or the block that all are relative to: τ − other */
  const mg_stream *stream; /**< [sources] */
  const float *scale;      /**< [sources] what stays is multiplied by that; or, where inverse, divided by its probability */
  bool inverse;
  double least, rise;           /**< probability to stay of a row's smallest element, and how much more each next one has */
  uint32_t row;                 /**< elements of a row, at most MG_PIECE_ELEMENTS */
  const mg_device_piece *piece; /**< from, element, count: whole rows */
  uint32_t pieces;
  float *const *out; /**< [sources] packed, as merges take it */
} mg_device_thinning;

/** Elements whose magnitudes are counted. Arrays are of the device. */
typedef struct mg_device_census {
  const float *tau;
  const float *other; /**< NULL, or the block that tau's is relative to: τ − other */
  bool thinned;       /**< element k counts as 0 where word k of the stream is more than last_kept */
  mg_stream stream;
  uint32_t last_kept;
  const mg_device_piece *piece; /**< from, element, count */
  uint32_t pieces;
  /** NULL: the upper half of a magnitude's bits is counted; else the lower half where index[upper half] is not negative */
  const int32_t *index;
  uint64_t *bins; /**< added to: [MG_CENSUS_UPPER], or [index][MG_CENSUS_LOWER] */
} mg_device_census;
enum { MG_CENSUS_UPPER = 1 << 15, MG_CENSUS_LOWER = 1 << 16 };

/** Which elements' magnitudes are added up a second time. */
typedef enum mg_device_part {
  MG_DEVICE_PART_BELOW, /**< those below a threshold */
  MG_DEVICE_PART_KEPT,  /**< those that a stream does not drop */
  MG_DEVICE_PART_PACKED /**< others in their places */
} mg_device_part;

/** Elements whose L1 norms are wanted, of all and of a part. Arrays are of the device. */
typedef struct mg_device_norms {
  const float *tau;
  const float *other; /**< NULL, or the block that tau's is relative to: τ − other */
  mg_device_part part;
  double threshold;
  mg_stream stream;
  uint32_t last_kept;
  const float *packed;          /**< as mg_device_thinning leaves them */
  const mg_device_piece *piece; /**< from, element, count */
  uint32_t pieces;
  uint64_t *bins; /**< [2][MG_L1_BINS] added to: of all, and of the part */
} mg_device_norms;
enum { MG_L1_BINS = 256 /**< exponents: an L1 norm is a whole number of the smallest unit of each (src/merge/l1.c) */ };

struct mg_device_ops {
  const char *name; /**< "cuda" */
  void (*close)(mg_device *device);
  /** "NVIDIA H200, sm_90, cuBLAS 12.8, fp32": decides over the bits of matrix products. */
  const char *(*describe)(const mg_device *device, char *buffer, size_t size);
  /** Which of the machine's it is: where it sits on the bus, "0000:3B:00.0". */
  const char *(*place)(const mg_device *device, char *buffer, size_t size);

  /* ---- memory: one arena, of which pieces are taken ---- */
  /** Bytes of the arena, once, before anything is taken: `wish`, or what there is, if that is at least `least`; *got says. */
  mg_status (*reserve)(mg_device *device, uint64_t least, uint64_t wish, uint64_t *got);
  /** A piece on a boundary of 256 bytes; what it holds is anything. what: for messages. */
  mg_status (*take)(mg_device *device, uint64_t bytes, const char *what, void **piece);
  void (*give)(mg_device *device, void *piece);
  /** Bytes that are left. */
  uint64_t (*room)(const mg_device *device);
  /** Host memory that the device copies from and to by itself. */
  mg_status (*pin)(mg_device *device, size_t bytes, void **host);
  void (*unpin)(mg_device *device, void *host);

  /* ---- queues ---- */
  /** products: matrix products are going to be queued; their workspace (MG_QUEUE_BYTES) is taken. */
  mg_status (*open_queue)(mg_device *device, bool products, mg_queue **queue);
  void (*close_queue)(mg_queue *queue);
  mg_status (*open_mark)(mg_device *device, mg_mark **mark);
  void (*close_mark)(mg_mark *mark);
  /** The mark is where the queue's operations end now. */
  mg_status (*mark)(mg_queue *queue, mg_mark *mark);
  /** The queue's further operations are done after what lies before the mark; one never set lies before everything. */
  mg_status (*after)(mg_queue *queue, const mg_mark *mark);
  /** The host waits. */
  mg_status (*await)(mg_mark *mark);
  mg_status (*finish)(mg_queue *queue);

  /* ---- copies ---- */
  /** host is pinned, and left alone until the copy is done. */
  mg_status (*upload)(mg_queue *queue, void *to, const void *host, size_t bytes);
  mg_status (*download)(mg_queue *queue, void *host, const void *from, size_t bytes);
  /** Any host memory, through two pinned buffers in turn; it may be used again on return. */
  mg_status (*upload_any)(mg_queue *queue, void *to, const void *host, size_t bytes);
  mg_status (*zero)(mg_queue *queue, void *to, size_t bytes);

  /* ---- forward passes; matrices of floats, row by row ---- */
  /** c [m, n] = a [m, k] w [n, k]ᵀ; rows of a and c are a_stride and c_stride apart. The queue is one for products. */
  mg_status (*product)(mg_queue *queue, int m, int n, int k, const float *a, int a_stride, const float *w, float *c,
                       int c_stride);
  /** x [rows, n] = norm of word + type + position. */
  mg_status (*embed)(mg_queue *queue, const mg_embedding *from, int rows, int n, const float *gain, const float *bias,
                     float epsilon, float *x);
  mg_status (*attend)(mg_queue *queue, const mg_attention *attention);
  /** x [rows, n] = norm of (x + (y + offset)). */
  mg_status (*add_norm)(mg_queue *queue, int rows, int n, float *x, const float *y, const float *offset, const float *gain,
                        const float *bias, float epsilon);
  /** x [rows, n] = gelu(x + bias); tanh(x + bias); x + bias. */
  mg_status (*bias_gelu)(mg_queue *queue, int rows, int n, float *x, const float *bias);
  mg_status (*bias_tanh)(mg_queue *queue, int rows, int n, float *x, const float *bias);
  mg_status (*bias_add)(mg_queue *queue, int rows, int n, float *x, const float *bias);
  /** to[r] = from[row[r]], rows of n; to and from do not overlap. */
  mg_status (*gather)(mg_queue *queue, int rows, int n, const int32_t *row, const float *from, float *to);
  /** to[t] = the mean, summed in double, of rows first[t] … first[t + 1] − 1. */
  mg_status (*means)(mg_queue *queue, int texts, int n, const int32_t *first, const float *from, float *to);

  /* ---- Grams: bit for bit the order of ops.h; with `products`, matrix products, fp64 from tile to tile ---- */
  /** Bytes of scratch for tiles of `rows` rows in all. */
  size_t (*gram_scratch)(int rows);
  /** Pairs of one tile's rows (b NULL: i ≤ j), or of two; added to acc [pairs][MG_ACCUMULATORS]. With `products` the queue is
      one for products. */
  mg_status (*gram)(mg_queue *queue, const mg_device_rows *a, const mg_device_rows *b, double *acc, void *scratch);

  /* ---- merges: bit for bit those of the host ---- */
  mg_status (*merge)(mg_queue *queue, const mg_device_merge *merge);
  /** Drops elements by their ranks. */
  mg_status (*thin)(mg_queue *queue, const mg_device_thinning *thinning);
  /** Numbers of magnitudes' bits, for order statistics. */
  mg_status (*census)(mg_queue *queue, const mg_device_census *census);
  /** L1 norms, exactly. */
  mg_status (*norms)(mg_queue *queue, const mg_device_norms *norms);

  /* ---- CKA; matrices of doubles, row by row, and every operation in double ---- */
  /** x [rows, n]: `from`, less the means of its columns. */
  mg_status (*centre)(mg_queue *queue, int rows, int n, const float *from, double *x);
  /** k [rows, rows] = x [rows, n] xᵀ. The queue is one for products. */
  mg_status (*own_product)(mg_queue *queue, int rows, int n, const double *x, double *k);
  /** u [n, n]: k, U-centred (cka.h); n at least 4. sums: scratch [n + 1]. */
  mg_status (*u_centre)(mg_queue *queue, int n, const double *k, double *sums, double *u);
  /** out[j] = ⟨a_j, b⟩, j < count: vectors of n, those of a `stride` apart. The bits of one hang on no other. parts: scratch.
   */
  mg_status (*dots)(mg_queue *queue, int count, int64_t n, const double *a, int64_t stride, const double *b, double *parts,
                    double *out);
  /** Bytes of parts. */
  size_t (*dots_scratch)(int count, int64_t n);
};

enum {
  MG_QUEUE_BYTES = 32 << 20, /**< workspace of a queue's matrix products */
  MG_DEVICE_ALIGN = 256      /**< bytes that pieces of the arena are rounded up to */
};

/**
 * Opens this rank's device: that of its number within the node among those that are visible, several ranks to one where there
 * are more of them. MG_ERR_CONFIG: not built in, its libraries or driver missing, no device; says which.
 */
mg_status mg_device_open(const mg_device_terms *terms, mg_device **device);
void mg_device_close(mg_device **device);
/** Is there a sign of a device, so that it is worth loading the module? Cheap. */
bool mg_device_likely(void);

#endif
