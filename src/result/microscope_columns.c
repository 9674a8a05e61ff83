/* The columns of the microscope's tables: written and exported by these. */

#include "grid_impl.h"

#define PARAMETER(field, type, meaning)                                                                                        \
  { #field, MG_COLUMN_##type, offsetof(mg_result_parameter_delta, field), meaning }
#define LAYER(field, type, meaning)                                                                                            \
  { #field, MG_COLUMN_##type, offsetof(mg_result_layer_delta, field), meaning }
#define ATTENTION(field, type, meaning)                                                                                        \
  { #field, MG_COLUMN_##type, offsetof(mg_result_attention, field), meaning }
#define STATE(field, type, meaning)                                                                                            \
  { #field, MG_COLUMN_##type, offsetof(mg_result_hidden_state, field), meaning }
#define LOGIT(field, type, meaning)                                                                                            \
  { #field, MG_COLUMN_##type, offsetof(mg_result_logit, field), meaning }
#define SETUP(field, type, meaning)                                                                                            \
  { #field, MG_COLUMN_##type, offsetof(mg_result_setup, field), meaning }
#define COLUMNS(group, row, items, scale)                                                                                      \
  { "/microscope/" group, sizeof(items) / sizeof *(items), sizeof(row), items, scale }

static const mg_column PARAMETERS[] = {
    PARAMETER(parameter, TEXT, "a parameter's full name"),
    PARAMETER(layer, TEXT, "the notebook's layer of it"),
    PARAMETER(delta_l2, DOUBLE, "L2 norm of its difference to the reference's"),
    PARAMETER(delta_mean_abs, DOUBLE, "mean of the absolute differences"),
    PARAMETER(cosine_with_reference, DOUBLE, "cosine with the reference's"),
    PARAMETER(reference_norm, DOUBLE, "L2 norm of the reference's"),
    PARAMETER(candidate_norm, DOUBLE, "L2 norm of the model's"),
    PARAMETER(model, TEXT, "the setup"),
};

static const mg_column LAYERS[] = {
    LAYER(layer, TEXT, "the notebook's layer"),
    LAYER(delta_l2_sum, DOUBLE, "sum of delta_l2 over its parameters"),
    LAYER(delta_l2_mean, DOUBLE, "mean of delta_l2 over them"),
    LAYER(delta_mean_abs, DOUBLE, "mean of delta_mean_abs over them"),
    LAYER(cosine_mean, DOUBLE, "mean of cosine_with_reference over them"),
    LAYER(reference_norm_mean, DOUBLE, "mean of reference_norm over them"),
    LAYER(candidate_norm_mean, DOUBLE, "mean of candidate_norm over them"),
    LAYER(model, TEXT, "the setup"),
};

static const mg_column ATTENTIONS[] = {
    ATTENTION(layer, INT64, "layer, from 0"),
    ATTENTION(head, INT64, "head of the layer, from 0"),
    ATTENTION(mean_prob, DOUBLE, "mean attention probability"),
    ATTENTION(entropy, DOUBLE, "mean entropy of a token's attention, nats"),
    ATTENTION(cls_focus, DOUBLE, "mean probability that goes to the first token"),
    ATTENTION(diagonal_focus, DOUBLE, "mean probability that goes to the token itself"),
    ATTENTION(model, TEXT, "the setup"),
};

static const mg_column STATES[] = {
    STATE(layer, INT64, "hidden state, 0: the embeddings"),
    STATE(mean_token_norm, DOUBLE, "mean L2 norm of tokens"),
    STATE(max_token_norm, DOUBLE, "largest L2 norm of a token"),
    STATE(std_token_norm, DOUBLE, "standard deviation of the norms"),
    STATE(sequence_mean_norm, DOUBLE, "mean over texts of their tokens' mean norm"),
    STATE(model, TEXT, "the setup"),
};

static const mg_column LOGITS[] = {
    LOGIT(logit_mean, DOUBLE, "mean logit"),
    LOGIT(logit_std, DOUBLE, "standard deviation of the logits"),
    LOGIT(confidence_mean, DOUBLE, "mean probability of the predicted class"),
    LOGIT(confidence_std, DOUBLE, "its standard deviation"),
    LOGIT(entropy_mean, DOUBLE, "mean entropy of the classes' probabilities, nats"),
    LOGIT(model, TEXT, "the setup"),
};

static const mg_column SETUPS[] = {
    SETUP(model, TEXT, "the setup"),
    SETUP(kind, TEXT, "pretrained or merge"),
    SETUP(notes, TEXT, "what the configuration says of it"),
    SETUP(path, TEXT, "directory of a checkpoint"),
    SETUP(exists, BOOL, "is it there"),
    SETUP(error, TEXT, "why it was skipped or failed"),
    SETUP(mode, TEXT, "method of a merge"),
    SETUP(target_lang, TEXT, "target of a merge"),
    SETUP(num_languages, INT64, "sources asked for, 0: no merge"),
    SETUP(preweight, TEXT, "what its weights are by"),
    SETUP(base_model, TEXT, "what the merge starts from"),
    SETUP(sources, TEXT, "sources with their weights, by falling weight"),
    SETUP(cell, TEXT, "key of the grid's cell that it is"),
};

const mg_columns mg_microscope_columns[MG_MICROSCOPE_TABLES] = {
    COLUMNS("parameter_deltas", mg_result_parameter_delta, PARAMETERS, 0),
    COLUMNS("layer_deltas", mg_result_layer_delta, LAYERS, 0),
    COLUMNS("attentions", mg_result_attention, ATTENTIONS, 0),
    COLUMNS("hidden_states", mg_result_hidden_state, STATES, 0),
    COLUMNS("logits", mg_result_logit, LOGITS, 5),
    COLUMNS("setups", mg_result_setup, SETUPS, 0),
};
