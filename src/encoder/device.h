#ifndef MERGEGRID_ENCODER_DEVICE_H
#define MERGEGRID_ENCODER_DEVICE_H

/** An encoder's part on a device. */

#include "encoder_impl.h"
#include "mergegrid/device.h"

/** A batch under way: while one is computed, the other one is prepared, or its answers are taken. */
typedef struct mg_device_slot {
  mg_mark *done;
  int32_t *host, *index; /**< pinned, and of the device: what the batch's rows are */
  float *answers;        /**< pinned */
  size_t answer_room;    /**< floats */
  bool busy;
  size_t first, last; /**< texts */
} mg_device_slot;

typedef struct mg_device_encoder {
  mg_device *device;
  mg_queue *queue;
  float **models; /**< [model_count] blocks of weights */
  bool *current;  /**< [model_count] is it what the host's block holds? */
  size_t model_count, model;
  float *x, *y, *qkv, *mixed, *wide; /**< activations, as of mg_scratch */
  float *pooled;                     /**< [texts, hidden] */
  float *logits;                     /**< [texts, classes] */
  float *keep;                       /**< [heads, longest, longest]: probabilities of one text */
  float *host_states, *host_keep;    /**< pinned, where a visitor wants them */
  mg_device_slot slot[2];
} mg_device_encoder;

mg_status mg_device_encoder_create(mg_device *device, const mg_encoder_shape *shape, mg_device_encoder **encoder);
void mg_device_encoder_destroy(mg_device_encoder **encoder);
/** Room for `models` blocks of so many floats. */
mg_status mg_device_encoder_hold(mg_device_encoder *encoder, size_t models, size_t floats);
/** Texts first … last − 1, as mg_encoder_run. */
mg_status mg_device_encoder_run(const mg_encoder *encoder, const mg_sequences *texts, size_t first, size_t last,
                                const mg_encoder_want *want);
/** Bytes of activations and what else does not hang on the weights. */
uint64_t mg_device_encoder_bytes(const mg_encoder_shape *shape);

/** What the host's forward pass has as well. */
mg_status mg_check_texts(const mg_encoder *encoder, const mg_sequences *texts, size_t first, size_t last, int *tokens);
/** The rows of words and positions of text t's tokens. */
mg_status mg_place_tokens(const mg_encoder *encoder, const mg_sequences *texts, size_t t, int32_t *word, int32_t *position);
bool mg_wants_all_of_last(const mg_encoder *encoder, const mg_encoder_want *want);
static inline int mg_keys_of(const mg_sequences *texts, size_t t) {
  return texts->keys != NULL ? texts->keys[t] : (int)(texts->offset[t + 1] - texts->offset[t]);
}

#endif
