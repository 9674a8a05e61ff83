/* What was found, for programs: JSON, CSV, and the YAML that a grid sweeps. */

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command_impl.h"
#include "mergegrid/config.h"

static mg_status put(mg_text *text) {
  const mg_status status = text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
  if (status == MG_OK) fputs(text->data, stdout);
  mg_text_free(text);
  return status;
}

/* ---- JSON ---- */

/* null where it is more than a double holds, which takes --max-hours and a signal to be seen */
static json_t *count_json(double count) {
  return isinf(count) ? json_null() : count < 0x1p53 ? json_integer((json_int_t)count) : json_real(count);
}

static json_t *subset_json(const mg_search_input *in, const mg_search_list *list, size_t at, mg_search_member *members) {
  json_t *row = json_object(), *sources = json_object();
  mg_search_members(in, list->members + at * in->space.k, members);
  for (size_t j = 0; j < in->space.k; j++) json_object_set_new(sources, members[j].id, json_real(members[j].share));
  json_object_set_new(row, "sources", sources);
  for (int by = 0; by < MG_BY_COUNT; by++) {
    const double score = list->score[at][by];
    json_object_set_new(row, mg_search_names[by], isfinite(score) ? json_real(score) : json_null());
  }
  return row;
}

mg_status mg_search_print_json(const mg_search_input *in, const mg_search_found *found, mg_search_member *members) {
  const mg_search_command *c = in->command;
  json_t *best = json_object(), *candidates = json_object();
  for (size_t k = 0; k < in->n; k++)
    json_object_set_new(candidates, in->sources.items[in->source[k]].id, json_real(in->similarity[k]));
  for (int by = 0; by < MG_BY_COUNT; by++) {
    if (!in->by[by]) continue;
    json_t *list = json_array();
    for (size_t at = 0; at < found->list[by].count; at++)
      json_array_append_new(list, subset_json(in, &found->list[by], at, members));
    json_object_set_new(best, mg_search_names[by], list);
  }
  json_t *root =
      json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:o, s:o, s:o, s:o}", "result", c->result, "locale", c->locale, "similarity",
                in->matrix, "weights", c->equal_weights ? "equal" : "similarity", "include_target", (int)c->include_target,
                "num_languages", (json_int_t)in->space.k, "subsets", count_json(mg_search_count(in->n, in->space.k)),
                "searched", count_json(found->searched), "candidates", candidates, "best", best);
  return mg_print_json(root);
}

/* ---- CSV ---- */

/* Sources are one field, as the grid's column of that name has them. */
mg_status mg_search_print_csv(const mg_search_input *in, const mg_search_found *found, mg_search_member *members) {
  mg_text text = {0};
  mg_text_append(&text, "by,rank");
  for (int by = 0; by < MG_BY_COUNT; by++) mg_text_append(&text, ",%s", mg_search_names[by]);
  mg_text_append(&text, ",sources\n");
  for (int by = 0; by < MG_BY_COUNT; by++)
    for (size_t at = 0; at < found->list[by].count; at++) {
      const mg_search_list *list = &found->list[by];
      mg_text_append(&text, "%s,%zu", mg_search_names[by], at + 1);
      for (int column = 0; column < MG_BY_COUNT; column++) {
        mg_text_append(&text, ",");
        if (isfinite(list->score[at][column])) mg_text_append_number(&text, list->score[at][column]);
      }
      mg_search_members(in, list->members + at * in->space.k, members);
      mg_text_append(&text, ",\"");
      for (size_t j = 0; j < in->space.k; j++) {
        if (j > 0) mg_text_append(&text, ",");
        for (const char *p = members[j].id; *p != '\0'; p++)
          mg_text_append_bytes(&text, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
        mg_text_append(&text, ":%.3f", members[j].share);
      }
      mg_text_append(&text, "\"\n");
    }
  return put(&text);
}

/* ---- YAML ---- */

/* In double quotes with JSON's escapes, which are YAML's. */
static void append_quoted(mg_text *text, const char *name) {
  json_t *string = json_string(name);
  char *quoted = string != NULL ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
  mg_text_append(text, "%s", quoted != NULL ? quoted : "");
  text->failed = text->failed || quoted == NULL;
  free(quoted);
  json_decref(string);
}

/* Stands the subset in an earlier list? Then the grid has it already. */
static bool is_listed(const mg_search_found *found, int by, size_t k, const uint32_t *members) {
  for (int earlier = 0; earlier < by; earlier++)
    for (size_t at = 0; at < found->list[earlier].count; at++)
      if (memcmp(found->list[earlier].members + at * k, members, k * sizeof *members) == 0) return true;
  return false;
}

static void append_subset(const mg_search_input *in, const mg_search_list *list, size_t at, mg_search_member *members,
                          mg_text *text) {
  const bool equal = in->command->equal_weights;
  mg_search_members(in, list->members + at * in->space.k, members);
  mg_text_append(text, equal ? "      - [" : "      - {");
  for (size_t j = 0; j < in->space.k; j++) {
    if (j > 0) mg_text_append(text, ", ");
    append_quoted(text, members[j].id);
    if (equal) continue;
    mg_text_append(text, ": ");
    mg_text_append_number(text, members[j].share);
  }
  mg_text_append(text, equal ? "] #" : "} #");
  for (int by = 0; by < MG_BY_COUNT; by++)
    if (isfinite(list->score[at][by])) mg_text_append(text, " %s %.5g", mg_search_names[by], list->score[at][by]);
  mg_text_append(text, "\n");
}

/* A section that stands in a configuration of the same family as it is; each subset once. */
mg_status mg_search_print_yaml(const mg_search_input *in, const mg_search_found *found, mg_search_member *members) {
  mg_text text = {0};
  size_t listed = 0;
  for (int by = 0; by < MG_BY_COUNT; by++) listed += found->list[by].count;
  if (listed > MG_MOST_VALUES)
    return mg_fail(MG_ERR_INPUT, "--yaml: %zu subsets; a key of a grid takes at most %d values: a smaller --top was expected",
                   listed, MG_MOST_VALUES);
  mg_text_append(&text, "grid:\n  fixed: {locale: ");
  append_quoted(&text, in->command->locale);
  mg_text_append(&text, ", method: %s}\n  sweep:\n    sources:\n", in->command->equal_weights ? "average" : "linear");
  const char *above = "";
  for (int by = 0; by < MG_BY_COUNT; by++) {
    const mg_search_list *list = &found->list[by];
    if (list->count == 0) continue;
    mg_text_append(&text, "      # best by %s%s\n", mg_search_names[by], above);
    above = ", without those above";
    for (size_t at = 0; at < list->count; at++)
      if (!is_listed(found, by, in->space.k, list->members + at * in->space.k)) append_subset(in, list, at, members, &text);
  }
  return put(&text);
}
