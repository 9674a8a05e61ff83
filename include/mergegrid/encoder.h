#ifndef MERGEGRID_ENCODER_H
#define MERGEGRID_ENCODER_H

/**
 * The forward pass of RoBERTa and XLM-RoBERTa encoders and sequence classifiers (Liu et al. 2019, arXiv:1907.11692; Conneau et
 * al. 2020, arXiv:1911.02116): post-norm layers, exact GELU, learned absolute positions counted from the padding id, a head on
 * the state of `<s>`. fp32; sequences are packed one after another without padding. Not collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/device.h"
#include "mergegrid/status.h"

enum {
  MG_BATCH_TOKENS = 512, /**< tokens of a batch: part of the numeric mode, since a BLAS may round another shape otherwise */
  MG_DEVICE_BATCH_TOKENS = 4096 /**< the same on a device, which has more to fill */
};

/** What config.json says of an encoder's shape. */
typedef struct mg_encoder_shape {
  int hidden, layers, heads, intermediate;
  int positions;  /**< rows of the position embeddings: padding id + 1 + the longest text */
  int vocabulary; /**< rows of the word embeddings */
  int pad;        /**< id of the padding token */
  int classes;    /**< of the head; 0: a bare encoder (mg_encoder_shape_check finds out) */
  float epsilon;  /**< of the layer norms */
} mg_encoder_shape;

/**
 * Reads dir/config.json (untrusted). MG_ERR_INPUT names the file and key: a missing or absurd number, heads that do not divide
 * the hidden size, another model_type than roberta or xlm-roberta, another activation than gelu, positions that are not
 * absolute. classes is left 0.
 */
mg_status mg_encoder_shape_read(const char *dir, mg_encoder_shape *shape);

/** Most tokens of a text, special ones included. */
int mg_encoder_position_limit(const mg_encoder_shape *shape);

/** Where weights come from. Tensors are named without the model's prefix: "encoder.layer.0.output.dense.bias". */
typedef struct mg_weights {
  void *context;
  const char *origin; /**< for messages: a path, a source's id */
  /** Shape of a tensor; false where there is none of that name. */
  bool (*find)(void *context, const char *name, int *ndim, int64_t shape[8]);
  /** Elements first … first + count − 1 of a tensor that find knows, as float. */
  mg_status (*read)(void *context, const char *name, int64_t first, int64_t count, float *out);
} mg_weights;

/** Is full the tensor that `name` means, as it is or behind one prefix ("roberta.")? */
bool mg_weight_name_matches(const char *full, const char *name);

typedef struct mg_checkpoint_weights mg_checkpoint_weights;
/** Weights straight from a checkpoint's directory. weights is valid until the close. */
mg_status mg_checkpoint_weights_open(const char *dir, mg_checkpoint_weights **opened, mg_weights *weights);
void mg_checkpoint_weights_close(mg_checkpoint_weights **opened);

/** Holds the shape to the tensors and sets shape->classes. MG_ERR_INPUT lists every tensor that is missing or of another shape.
 */
mg_status mg_encoder_shape_check(mg_encoder_shape *shape, const mg_weights *weights);

typedef struct mg_encoder mg_encoder;

/**
 * Memory for one model and for `threads` batches at once. tokens [token_count]: the ids that texts use, rising: only their
 * embedding rows are held. device: NULL, or what computes (borrowed): its memory is taken too. *encoder is owned by the caller.
 */
mg_status mg_encoder_create(const mg_encoder_shape *shape, const int32_t *tokens, size_t token_count, int threads,
                            mg_device *device, mg_encoder **encoder);
void mg_encoder_destroy(mg_encoder **encoder);
/** Bytes that mg_encoder_create takes of the host's memory; with a device, which computes instead of threads, for 0 of them. */
uint64_t mg_encoder_bytes(const mg_encoder_shape *shape, size_t token_count, int threads);
/** Bytes of the device's memory that it and mg_encoder_hold take. */
uint64_t mg_encoder_device_bytes(const mg_encoder_shape *shape, size_t token_count, size_t models);
/**
 * Calls visit for every piece of a tensor that an encoder for these tokens holds, in the order of its block of weights:
 * elements first … first + count − 1 of tensor `name` (valid during the call) are at offset. What visit returns ends it.
 */
typedef mg_status (*mg_encoder_visit)(void *context, const char *name, int64_t first, int64_t count, size_t offset);
mg_status mg_encoder_places(const mg_encoder_shape *shape, const int32_t *tokens, size_t token_count, mg_encoder_visit visit,
                            void *context);
/** Floats of a block of weights. */
size_t mg_encoder_block_floats(const mg_encoder_shape *shape, size_t token_count);
/** Holds `models` blocks of weights instead of one; the first is in use. What they held is lost. */
mg_status mg_encoder_hold(mg_encoder *encoder, size_t models);
/** A block to write weights to, where mg_encoder_places says; owned by the encoder. */
float *mg_encoder_block(mg_encoder *encoder, size_t model);
/**
 * The device's block of a model, for operations of the device to write weights to, in the queue that is given along; NULL where
 * there is no device. What the host's block of that model holds is used no more, until mg_encoder_block is called again.
 */
float *mg_encoder_device_block(mg_encoder *encoder, size_t model, mg_queue **queue);
/** Computes with the weights of this block from now on. */
void mg_encoder_use(mg_encoder *encoder, size_t model);
/** Other tokens, at most as many as it was created for; all weights have to be written again. */
mg_status mg_encoder_set_tokens(mg_encoder *encoder, const int32_t *tokens, size_t token_count);

/** Loads a model's weights into the block in use. */
mg_status mg_encoder_load(mg_encoder *encoder, const mg_weights *weights);

/** Texts as ids: text k is ids[offset[k]] … ids[offset[k + 1] − 1]. */
typedef struct mg_sequences {
  size_t count;
  const int32_t *ids;
  const int64_t *offset; /**< [count + 1] */
  /** [count] Tokens at a text's beginning that are attended to, those behind them being padding; NULL: all of them. */
  const int32_t *keys;
} mg_sequences;

/**
 * What to take out; NULL where not wanted. A layer is an index into the hidden states: 0 the embeddings, `layers` the last.
 * Where only `<s>` of the last layer is wanted, that layer computes nothing else. Visitors are called from several threads,
 * each text from one, its layers in rising order.
 */
typedef struct mg_encoder_want {
  float *logits;     /**< [texts, classes] */
  const int *layers; /**< [layer_count], for cls and mean */
  int layer_count;
  float *cls, *mean; /**< [texts, layer_count, hidden]: the state of `<s>`; the mean over the text's tokens */
  void *context;
  mg_status (*states)(void *context, size_t text, int layer, int length, const float *states); /**< [length, hidden] */
  /** Layer 1 … layers: attention probabilities [heads, length, keys]; keys: of the text, or its length. */
  mg_status (*attention)(void *context, size_t text, int layer, int length, int keys, const float *probabilities);
  mg_status (*poll)(void *context); /**< by the calling thread, once a layer of each of its batches */
} mg_encoder_want;

/**
 * Computes texts first … last − 1. Batches are cut in the order given, so `first` must be where a batch of the whole begins for
 * results to be the same bits whatever the cut (mg_batch_end). MG_ERR_INPUT: a text of no or too many tokens, an id outside
 * `tokens`.
 */
mg_status mg_encoder_run(mg_encoder *encoder, const mg_sequences *texts, size_t first, size_t last,
                         const mg_encoder_want *want);

/** MG_BATCH_TOKENS, or the device's. */
static inline int mg_batch_tokens(const mg_device *device) { return device != NULL ? MG_DEVICE_BATCH_TOKENS : MG_BATCH_TOKENS; }
/** The end (exclusive) of the batch that begins with text `first`: up to so many tokens, at least one text. */
size_t mg_batch_end(const mg_sequences *texts, size_t first, int tokens);

/** Floating-point operations of one text of that many tokens, with the last layer for `<s>` only or in full. */
double mg_encoder_flops(const mg_encoder_shape *shape, int length, bool last_full);

/** "OpenBLAS 0.3.21 SkylakeX, avx512 rows", or the device's: what decides over bits. */
const char *mg_encoder_numeric_mode(const mg_device *device, char *buffer, size_t size);

#endif
