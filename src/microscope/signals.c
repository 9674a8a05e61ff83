/* What a model does with texts: each text's own sums, which any thread may make, then all of them in order. */

#include <math.h>
#include <stdlib.h>

#include "mergegrid/microscope.h"
#include "mergegrid/text.h"

typedef struct head_sums {
  double probability, entropy, first, diagonal;
} head_sums;

typedef struct state_sums {
  double sum, sum2, most;
} state_sums;

struct mg_signals {
  size_t texts, layers, heads, hidden;
  int *length;           /* [texts] */
  head_sums *heads_of;   /* [texts, layers, heads] */
  state_sums *states_of; /* [texts, layers + 1] */
};

uint64_t mg_signals_bytes(size_t texts, int layers, int heads) {
  return (uint64_t)texts *
         (sizeof(int) + (uint64_t)layers * (uint64_t)heads * sizeof(head_sums) + ((uint64_t)layers + 1) * sizeof(state_sums));
}

mg_status mg_signals_create(size_t texts, int layers, int heads, int hidden, mg_signals **signals) {
  mg_signals *s = mg_alloc_zero(1, sizeof *s);
  if (s == NULL) return MG_ERR_NOMEM;
  *s = (mg_signals){.texts = texts, .layers = (size_t)layers, .heads = (size_t)heads, .hidden = (size_t)hidden};
  s->length = mg_alloc_zero(texts, sizeof *s->length);
  s->heads_of = mg_alloc_zero(texts * s->layers, s->heads * sizeof *s->heads_of);
  s->states_of = mg_alloc_zero(texts, (s->layers + 1) * sizeof *s->states_of);
  *signals = s;
  if (s->length != NULL && s->heads_of != NULL && s->states_of != NULL) return MG_OK;
  mg_signals_destroy(signals);
  return MG_ERR_NOMEM;
}

void mg_signals_destroy(mg_signals **signals) {
  mg_signals *s = *signals;
  if (s == NULL) return;
  free(s->length), free(s->heads_of), free(s->states_of), free(s);
  *signals = NULL;
}

void mg_signals_add_states(mg_signals *s, size_t text, int layer, int length, const float *states) {
  state_sums *to = &s->states_of[text * (s->layers + 1) + (size_t)layer];
  *to = (state_sums){0};
  s->length[text] = length;
  for (int t = 0; t < length; t++, states += s->hidden) {
    double square = 0;
    for (size_t k = 0; k < s->hidden; k++) square += (double)states[k] * (double)states[k];
    const double norm = sqrt(square);
    to->sum += norm;
    to->sum2 += square;
    if (!(norm <= to->most)) to->most = norm; /* NaN too */
  }
}

static double entropy_of(const float *probabilities, int n) {
  double sum = 0;
  for (int k = 0; k < n; k++) sum -= (double)probabilities[k] * log((double)probabilities[k] + 1e-12);
  return sum;
}

void mg_signals_add_attention(mg_signals *s, size_t text, int layer, int length, int keys, const float *probabilities) {
  head_sums *to = &s->heads_of[(text * s->layers + (size_t)layer - 1) * s->heads];
  for (size_t h = 0; h < s->heads; h++, to++) {
    *to = (head_sums){0};
    for (int q = 0; q < length; q++, probabilities += keys) {
      for (int k = 0; k < keys; k++) to->probability += (double)probabilities[k];
      to->entropy += entropy_of(probabilities, keys);
      to->first += (double)probabilities[0];
      if (q < keys) to->diagonal += (double)probabilities[q];
    }
  }
}

/* Of a sample: the square root of Σ(x − mean)² / (n − 1). */
static double deviation(double sum, double sum2, double n) {
  const double left = sum2 - sum * sum / n;
  return n > 1 ? sqrt(fmax(left, 0) / (n - 1)) : NAN;
}

static mg_head_summary summarize_head(const mg_signals *s, size_t head, const int32_t *text_of, size_t count) {
  head_sums all = {0};
  double queries = 0, pairs = 0;
  for (size_t k = 0; k < count; k++) {
    const size_t text = (size_t)text_of[k];
    const head_sums *one = &s->heads_of[text * s->layers * s->heads + head];
    const double length = s->length[text];
    all.probability += one->probability;
    all.entropy += one->entropy;
    all.first += one->first;
    all.diagonal += one->diagonal;
    queries += length;
    pairs += length * length;
  }
  return (mg_head_summary){.mean_prob = all.probability / pairs,
                           .entropy = all.entropy / queries,
                           .cls_focus = all.first / queries,
                           .diagonal_focus = all.diagonal / queries};
}

static mg_state_summary summarize_state(const mg_signals *s, size_t layer, const int32_t *text_of, size_t count) {
  state_sums all = {0};
  double tokens = 0, means = 0;
  for (size_t k = 0; k < count; k++) {
    const size_t text = (size_t)text_of[k];
    const state_sums *one = &s->states_of[text * (s->layers + 1) + layer];
    all.sum += one->sum;
    all.sum2 += one->sum2;
    if (!(one->most <= all.most)) all.most = one->most;
    means += one->sum / s->length[text];
    tokens += s->length[text];
  }
  return (mg_state_summary){.mean_token_norm = all.sum / tokens,
                            .max_token_norm = all.most,
                            .std_token_norm = deviation(all.sum, all.sum2, tokens),
                            .sequence_mean_norm = means / (double)count};
}

void mg_signals_summarize(const mg_signals *s, const int32_t *text_of, size_t count, mg_head_summary *heads,
                          mg_state_summary *states) {
  for (size_t h = 0; h < s->layers * s->heads; h++) heads[h] = summarize_head(s, h, text_of, count);
  for (size_t l = 0; l <= s->layers; l++) states[l] = summarize_state(s, l, text_of, count);
}

/* ---- logits ---- */

typedef struct answer {
  double confidence, entropy;
} answer;

static answer read_answer(const float *logits, size_t classes) {
  double most = (double)logits[0], total = 0, entropy = 0;
  for (size_t c = 1; c < classes; c++)
    if ((double)logits[c] > most) most = (double)logits[c];
  for (size_t c = 0; c < classes; c++) total += exp((double)logits[c] - most);
  for (size_t c = 0; c < classes; c++) {
    const double p = exp((double)logits[c] - most) / total;
    entropy -= p * log(p + 1e-12);
  }
  return (answer){.confidence = 1 / total, .entropy = entropy};
}

mg_logit_summary mg_logits_summarize(const float *logits, size_t classes, const int32_t *text_of, size_t count) {
  double sum = 0, sum2 = 0, confidence = 0, confidence2 = 0, entropy = 0;
  const double n = (double)count, all = n * (double)classes;
  for (size_t k = 0; k < count; k++) {
    const float *row = logits + (size_t)text_of[k] * classes;
    const answer one = read_answer(row, classes);
    for (size_t c = 0; c < classes; c++) {
      sum += (double)row[c];
      sum2 += (double)row[c] * (double)row[c];
    }
    confidence += one.confidence;
    confidence2 += one.confidence * one.confidence;
    entropy += one.entropy;
  }
  return (mg_logit_summary){.logit_mean = sum / all,
                            .logit_std = deviation(sum, sum2, all),
                            .confidence_mean = confidence / n,
                            .confidence_std = deviation(confidence, confidence2, n),
                            .entropy_mean = entropy / n};
}
