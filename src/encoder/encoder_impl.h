#ifndef MERGEGRID_ENCODER_IMPL_H
#define MERGEGRID_ENCODER_IMPL_H

#include "mergegrid/encoder.h"
#include "rows_impl.h"

enum {
  MG_WEIGHT_NAME = 160,
  MG_EMBEDDING_WEIGHTS = 5, /**< words, positions, types, norm's gain and bias */
  MG_TOKEN_TYPES = 2,
  MG_LAYER_WEIGHTS = 16,
  MG_ROW_SLACK = 16 /**< floats that vector loads may read past the end of activations */
};
extern const char *const mg_embedding_weights[MG_EMBEDDING_WEIGHTS];
extern const char *const mg_layer_weights[MG_LAYER_WEIGHTS];

typedef struct mg_weight_size {
  int64_t rows, columns; /**< columns 0: a vector */
} mg_weight_size;
mg_weight_size mg_layer_weight_size(const mg_encoder_shape *shape, size_t weight);

/** Query, key and value as one matrix [3 hidden, hidden]; matrices as PyTorch stores them, [out, in]. */
typedef struct mg_layer {
  float *qkv, *qkv_bias, *out, *out_bias, *norm1, *norm1_bias, *up, *up_bias, *down, *down_bias, *norm2, *norm2_bias;
} mg_layer;

struct mg_device_encoder;

/** What one thread computes in. T tokens: MG_BATCH_TOKENS or the longest text. */
typedef struct mg_scratch {
  float *x, *y;     /**< [T, hidden] */
  float *qkv;       /**< [T, 3 hidden] */
  float *mixed;     /**< [T, hidden] */
  float *wide;      /**< [T, intermediate] */
  float *scores;    /**< [longest, longest rounded up] */
  float *packed;    /**< [head width, longest rounded up] */
  float *attention; /**< [heads, longest, longest], where a visitor wants it */
  int32_t *rows;    /**< [2, longest]: of a text's words and positions */
} mg_scratch;

struct mg_encoder {
  mg_encoder_shape shape;
  const mg_row_kernels *rows;
  int threads;
  int32_t *row_of; /**< [vocabulary]: row of words, −1 where no text uses the token */
  size_t token_count, token_room;
  int32_t *tokens;
  float *words, *positions, *types, *norm, *norm_bias;
  mg_layer *layers;
  float *dense, *dense_bias, *classes, *classes_bias;
  float *weights; /**< all of the above: the block in use */
  size_t model_count;
  float **models; /**< blocks */
  mg_scratch *scratch;
  float *activations;                  /**< of all threads */
  struct mg_device_encoder *on_device; /**< NULL: threads compute */
};

/** Tokens that a batch of `tokens` may have: the longest text is one, too. */
int mg_batch_capacity(const mg_encoder_shape *shape, int tokens);
/** One batch, texts first … last − 1. may_poll: by the calling thread. */
mg_status mg_forward(const mg_encoder *encoder, mg_scratch *scratch, const mg_sequences *texts, size_t first, size_t last,
                     const mg_encoder_want *want, bool may_poll);

#endif
