/* What was found, for people. */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "command_impl.h"

static const char *const MEANINGS[MG_BY_COUNT] = {
    "mean of the sources' similarities to the target", "mean task-vector cosine of its pairs", "mean CKA of its pairs",
    "1 − ‖Σ w τ‖ / Σ w ‖τ‖: what its weighted task vectors cancel of each other; 0: nothing"};

static void print_number(double value, int width, int digits, bool general) {
  if (isnan(value))
    printf("  %*s", width, "-");
  else if (general)
    printf("  %*.*g", width, digits, value);
  else
    printf("  %*.*f", width, digits, value);
}

static bool shown(const mg_search_input *in, int by) { return mg_search_has(&in->space, (mg_search_by)by); }

static void print_scores(const mg_search_input *in, const double *score) {
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (shown(in, by))
      print_number(score[by], by == MG_BY_CKA ? 8 : (int)strlen(mg_search_names[by]), by == MG_BY_SIMILARITY ? 6 : 5,
                   by == MG_BY_SIMILARITY);
}

static void print_list(const mg_search_input *in, int by, const mg_search_list *list, mg_search_member *members) {
  const size_t k = in->space.k;
  printf("\nbest by %s%s\n    ", mg_search_names[by], by == MG_BY_INTERFERENCE ? ", the smallest" : "");
  for (int column = 0; column < MG_BY_COUNT; column++)
    if (shown(in, column)) printf("  %*s", column == MG_BY_CKA ? 8 : 0, mg_search_names[column]);
  printf("  sources\n");
  for (size_t at = 0; at < list->count; at++) {
    printf("%4zu", at + 1);
    print_scores(in, list->score[at]);
    mg_search_members(in, list->members + at * k, members);
    for (size_t j = 0; j < k; j++) printf("%s%s:%.3f", j > 0 ? "," : "  ", members[j].id, members[j].share);
    printf("\n");
  }
}

/* Matrices that it could have been, where none was asked for. */
static void print_others(const mg_search_input *in) {
  if (in->command->similarity != NULL || in->names.count < 2) return;
  for (size_t k = 1; k < in->names.count; k++) printf("%s%s", k > 1 ? ", " : " (there is also ", in->names.items[k]);
  printf(")");
}

void mg_search_print_text(const mg_search_input *in, const mg_search_found *found, mg_search_member *members) {
  const mg_search_command *c = in->command;
  char count[32], searched[32];
  const double total = mg_search_count(in->n, in->space.k);
  printf("%s: %s subsets of %zu of %zu candidates for %s", c->result, mg_search_count_text(total, count), in->space.k, in->n,
         c->locale);
  if (found->searched < total) printf(", %s of them searched", mg_search_count_text(found->searched, searched));
  printf("\nsimilarity %s", in->matrix);
  print_others(in);
  printf(", %s%s\n", c->equal_weights ? "equal weights" : "weights by similarity",
         c->include_target ? "; the target's own source may be one" : "");
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (shown(in, by)) printf("  %-13s  %s\n", mg_search_names[by], MEANINGS[by]);
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (in->by[by]) print_list(in, by, &found->list[by], members);
}
