/* The candidates of a target, as the grid has them, and what the result says of them and their pairs. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command_impl.h"
#include "mergegrid/log.h"

const char *const mg_search_names[MG_BY_COUNT] = {"similarity", "compatibility", "cka", "interference"};

/* ---- candidates ---- */

static ptrdiff_t source_of(const mg_source_list *sources, const char *locale) {
  for (size_t s = 0; s < sources->count; s++)
    if (strcmp(sources->items[s].locale, locale) == 0) return (ptrdiff_t)s;
  return -1;
}

static ptrdiff_t source_of_label(void *sources, const char *label) { return source_of(sources, label); }

/* All that the grid would choose from, the most similar first. */
static mg_status choose(mg_search_input *in) {
  mg_status status = MG_OK;
  mg_similarity matrix = {0};
  mg_selection selection = {0};
  const mg_selection_terms terms = {.num_languages = 1, .include_target = in->command->include_target};
  MG_TRY(mg_search_similarity(in, &matrix), cleanup);
  status = mg_select_sources(&matrix, &terms, in->command->locale, source_of_label, &in->sources, &selection);
  if (status == MG_ERR_INPUT) mg_fail_context(status, "%s: %s", in->command->result, in->matrix);
  if (status != MG_OK) goto cleanup;
  in->source = mg_alloc(selection.count, sizeof *in->source);
  in->similarity = mg_alloc(selection.count, sizeof *in->similarity);
  if (in->source == NULL || in->similarity == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  for (size_t k = 0; k < selection.count; k++) {
    const mg_candidate *c = &selection.candidates[k];
    if (c->unknown)
      mg_warn("%s: %s is left out: %s has no number for %s (%s)", in->command->result, matrix.labels.items[c->label],
              in->matrix, in->command->locale, c->reason);
    if (!c->taken && strcmp(c->reason, "enough others") != 0) continue;
    in->source[in->n] = (size_t)source_of(&in->sources, matrix.labels.items[c->label]);
    in->similarity[in->n++] = c->weight;
  }
cleanup:
  free(selection.candidates);
  mg_similarity_free(&matrix);
  return status;
}

/* Has a source a direction, and hidden states that are not all the same? */
static bool is_usable(const mg_result_pairs *pairs, size_t source) {
  const size_t at = source * pairs->sources + source;
  if (pairs->cosine != NULL && !isfinite(pairs->cosine[at])) return false;
  if (pairs->dot != NULL && !(isfinite(pairs->dot[at]) && pairs->dot[at] > 0)) return false;
  return pairs->cka == NULL || isfinite(pairs->cka[at]);
}

/* Leaves out what can't be scored, and all but the most similar, and puts the rest into the order of the sources. */
static void narrow(mg_search_input *in, const mg_result_pairs *pairs) {
  const size_t most = in->command->candidates > 0 ? in->command->candidates : in->n;
  size_t kept = 0;
  for (size_t k = 0; k < in->n && kept < most; k++) {
    const size_t source = in->source[k];
    const double similarity = in->similarity[k];
    if (!is_usable(pairs, source)) {
      mg_warn("%s: %s is left out: its task vector has no direction, or its CKA is not a number", in->command->result,
              in->sources.items[source].id);
      continue;
    }
    size_t at = kept++;
    for (; at > 0 && in->source[at - 1] > source; at--)
      in->source[at] = in->source[at - 1], in->similarity[at] = in->similarity[at - 1];
    in->source[at] = source, in->similarity[at] = similarity;
  }
  in->n = kept;
}

/* ---- matrices ---- */

static mg_status gather(const mg_search_input *in, const char *path, const double *of_all, double **matrix) {
  const size_t n = in->n, all = in->sources.count;
  if (of_all == NULL) return MG_OK;
  *matrix = mg_alloc(n, n * sizeof **matrix);
  if (*matrix == NULL) return MG_ERR_NOMEM;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++) {
      const double value = (*matrix)[i * n + j] = of_all[in->source[i] * all + in->source[j]];
      if (!isfinite(value))
        return mg_fail(MG_ERR_INPUT, "%s: %s: %s, %s: a finite number was expected", in->command->result, path,
                       in->sources.items[in->source[i]].id, in->sources.items[in->source[j]].id);
    }
  return MG_OK;
}

/* Scaled by a power of two, which changes no share, so that squares of tiny similarities don't vanish. */
static mg_status set_weights(mg_search_input *in) {
  int exponent = 0;
  double largest = 0;
  in->weight = mg_alloc(in->n, sizeof *in->weight);
  if (in->weight == NULL) return MG_ERR_NOMEM;
  for (size_t k = 0; k < in->n; k++) largest = fmax(largest, in->similarity[k]);
  frexp(largest, &exponent);
  for (size_t k = 0; k < in->n; k++) in->weight[k] = in->command->equal_weights ? 1 : ldexp(in->similarity[k], -exponent);
  return MG_OK;
}

static mg_status gather_all(mg_search_input *in, const mg_result_pairs *pairs) {
  mg_status status = MG_OK;
  MG_TRY(gather(in, "/compatibility/task_vector_cosine", pairs->cosine, &in->cosine), done);
  MG_TRY(gather(in, "/compatibility/cka", pairs->cka, &in->cka), done);
  MG_TRY(gather(in, "/compatibility/gram/source_dot", pairs->dot, &in->dot), done);
  MG_TRY(set_weights(in), done);
done:
  return status;
}

/* ---- which scores ---- */

static mg_status find_score(const char *name, int *by) {
  for (*by = 0; *by < MG_BY_COUNT; ++*by)
    if (strcmp(mg_search_names[*by], name) == 0) return MG_OK;
  const char *nearest = mg_nearest(name, mg_search_names, MG_BY_COUNT);
  return mg_fail(MG_ERR_USAGE, "--by %s: %s%s%ssimilarity, compatibility, cka or interference was expected", name,
                 nearest ? "is " : "", nearest ? nearest : "", nearest ? " meant? " : "");
}

static mg_status not_to_be_had(const mg_search_input *in, int by) {
  if (in->command->k == 1)
    return mg_fail(MG_ERR_INPUT, "--by %s: one source has no other that it could be compared with; -k 2 or more was expected",
                   mg_search_names[by]);
  return mg_fail(MG_ERR_INPUT, "--by %s: %s has no %s", mg_search_names[by], in->command->result,
                 by == MG_BY_CKA ? "/compatibility/cka, which compatibility.metrics: [task_vector_cosine, cka] computes"
                                 : "stage compatibility, whose cosines and Grams it is computed from");
}

/* Before the result is read: a misspelt score is found whatever else is wrong. */
static mg_status choose_scores(mg_search_input *in) {
  mg_status status = MG_OK;
  const mg_strings *asked = in->command->by;
  for (size_t k = 0; asked != NULL && k < asked->count; k++) {
    int by;
    MG_TRY(find_score(asked->items[k], &by), done);
    in->by[by] = true;
  }
done:
  return status;
}

static mg_status check_scores(mg_search_input *in) {
  bool asked = false;
  for (int by = 0; by < MG_BY_COUNT; by++) {
    if (in->by[by] && !mg_search_has(&in->space, (mg_search_by)by)) return not_to_be_had(in, by);
    asked = asked || in->by[by];
  }
  if (asked) return MG_OK;
  if (in->dot == NULL)
    return mg_fail(
        MG_ERR_INPUT,
        "%s: has no stage compatibility, whose cosines and Grams subsets are scored by; --by similarity does without",
        in->command->result);
  for (int by = 0; by < MG_BY_COUNT; by++) in->by[by] = mg_search_has(&in->space, (mg_search_by)by);
  return MG_OK;
}

/* ---- the whole ---- */

mg_status mg_search_input_open(const mg_search_command *command, mg_search_input *in) {
  mg_status status = MG_OK;
  mg_result_pairs pairs = {0};
  *in = (mg_search_input){.command = command};
  MG_TRY(choose_scores(in), cleanup);
  MG_TRY(mg_result_open(command->result, &in->reader), cleanup);
  MG_TRY(mg_result_read_sources(in->reader, &in->sources), cleanup);
  MG_TRY(choose(in), cleanup);
  if (mg_result_has(in->reader, "/compatibility")) MG_TRY(mg_result_read_pairs(in->reader, &pairs), cleanup);
  narrow(in, &pairs);
  if (command->k > in->n) {
    status = mg_fail(MG_ERR_INPUT, "%s: -k %zu: target %s has %zu candidate%s by %s; 1 to as many were expected",
                     command->result, command->k, command->locale, in->n, in->n == 1 ? "" : "s", in->matrix);
    goto cleanup;
  }
  MG_TRY(gather_all(in, &pairs), cleanup);
  in->space = (mg_search_space){.n = in->n,
                                .k = command->k,
                                .similarity = in->similarity,
                                .weight = in->weight,
                                .cosine = in->cosine,
                                .cka = in->cka,
                                .dot = in->dot};
  MG_TRY(check_scores(in), cleanup);
cleanup:
  mg_result_pairs_free(&pairs);
  return status;
}

void mg_search_input_close(mg_search_input *in) {
  free(in->source), free(in->similarity), free(in->weight), free(in->cosine), free(in->cka), free(in->dot);
  mg_strings_free(&in->names);
  mg_source_list_free(&in->sources);
  mg_result_close(&in->reader);
  *in = (mg_search_input){0};
}
