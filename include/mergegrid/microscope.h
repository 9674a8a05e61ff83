#ifndef MERGEGRID_MICROSCOPE_H
#define MERGEGRID_MICROSCOPE_H

/**
 * What two models differ in, parameter by parameter, and what one model does with texts: statistics of attention, hidden states
 * and logits. The numbers are those of merginguriel's notebook "Merge Method Microscope" (its analysis helpers), summed in
 * double. Not collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

/* ---- parameters ---- */

/** Sums over elements that two models have. Start from zeros. */
typedef struct mg_delta_sums {
  double delta2, absolute, dot, reference2, candidate2; /**< Σ(c−r)², Σ|c−r|, Σcr, Σr², Σc² */
} mg_delta_sums;
/** Adds count elements, in an order that depends on count alone. */
void mg_delta_sums_add(mg_delta_sums *sums, const float *reference, const float *candidate, int64_t count);
void mg_delta_sums_join(mg_delta_sums *sums, const mg_delta_sums *more);

typedef struct mg_parameter_delta {
  double delta_l2, delta_mean_abs;
  double cosine_with_reference; /**< as torch has it: with norms of at least 1e-8, so 0 where either is zero */
  double reference_norm, candidate_norm;
} mg_parameter_delta;
/** Of a parameter of `count` elements (above 0). */
mg_parameter_delta mg_parameter_delta_of(const mg_delta_sums *sums, int64_t count);

/** A tensor's inner products, as the stage compatibility keeps them; all borrowed. */
typedef struct mg_inner_products {
  size_t sources;
  const double *source_dot, *base_dot; /**< [N,N] <τi, τj>; [N] <θ0, τi> */
  double base_norm2;                   /**< <θ0, θ0> */
} mg_inner_products;

/** base · θ0 + Σ coefficient[s] τ_s, coefficients [N]. */
typedef struct mg_combination {
  double base;
  const double *coefficient;
} mg_combination;

/** The same of two linear merges, from inner products alone: all but delta_mean_abs, which is NaN. */
mg_parameter_delta mg_parameter_delta_of_merges(const mg_inner_products *inner, const mg_combination *reference,
                                                const mg_combination *candidate);

/**
 * The notebook's layer of a parameter: from the component `layer` on up to four ("layer.0.attention.self"), else the name
 * without its last component. The caller frees; NULL: out of memory.
 */
char *mg_parameter_layer(const char *parameter);

/* ---- signals ---- */

/** One head of one layer, over all its attention probabilities. */
typedef struct mg_head_summary {
  double mean_prob;                 /**< mean over [queries, keys] of all texts */
  double entropy;                   /**< mean over queries of −Σ p ln(p + 1e-12), nats */
  double cls_focus, diagonal_focus; /**< mean over queries of what goes to the first token; to the query itself */
} mg_head_summary;

/** One hidden state: L2 norms of tokens. */
typedef struct mg_state_summary {
  double mean_token_norm, max_token_norm;
  double std_token_norm;     /**< of a sample: n − 1; NaN of one token */
  double sequence_mean_norm; /**< mean over texts of the mean over their tokens */
} mg_state_summary;

typedef struct mg_logit_summary {
  double logit_mean, logit_std;           /**< over texts and classes; n − 1 */
  double confidence_mean, confidence_std; /**< of the largest probability; NaN of one text */
  double entropy_mean;                    /**< nats */
} mg_logit_summary;

/** What a forward pass says, text by text. Different texts may be added by different threads. */
typedef struct mg_signals mg_signals;
/** Room for `texts` texts of a model of `layers` layers with `heads` heads each, and hidden states of `hidden` numbers. */
mg_status mg_signals_create(size_t texts, int layers, int heads, int hidden, mg_signals **signals);
void mg_signals_destroy(mg_signals **signals);
uint64_t mg_signals_bytes(size_t texts, int layers, int heads);
/** As of mg_encoder_want: states [length, hidden] of layer 0 (embeddings) … layers. */
void mg_signals_add_states(mg_signals *signals, size_t text, int layer, int length, const float *states);
/** Probabilities [heads, length, keys] of layer 1 … layers; a text's length × length of them count, those past keys as 0. */
void mg_signals_add_attention(mg_signals *signals, size_t text, int layer, int length, int keys, const float *probabilities);

/**
 * Summaries [layers, heads] and [layers + 1] over texts text_of[0 … count − 1] (one may come more than once), all of which were
 * added: heads[l × heads + h] is of layer l from 0.
 */
void mg_signals_summarize(const mg_signals *signals, const int32_t *text_of, size_t count, mg_head_summary *heads,
                          mg_state_summary *states);
/** Of logits [texts, classes], over texts text_of[0 … count − 1]. */
mg_logit_summary mg_logits_summarize(const float *logits, size_t classes, const int32_t *text_of, size_t count);

#endif
