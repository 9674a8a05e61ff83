/* How a cell's sources were chosen: computed again from the matrix that is kept in the result. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explain_impl.h"
#include "mergegrid/similarity.h"
#include "mergegrid/text.h"

/* ---- terms ---- */

static bool says(const json_t *terms, const char *name, const char *word) {
  const char *text = json_string_value(json_object_get(terms, name));
  return text != NULL && strcmp(text, word) == 0;
}

static int whole(const json_t *terms, const char *name, int otherwise) {
  const json_t *value = json_object_get(terms, name);
  const json_int_t number = json_is_integer(value) ? json_integer_value(value) : otherwise;
  return number >= 0 && number <= 1000000 ? (int)number : otherwise;
}

static mg_selection_terms terms_of(const json_t *terms, const mg_result_cell *c) {
  return (mg_selection_terms){.by_row = says(terms, "axis", "row"),
                              .sinkhorn = says(terms, "select", "sinkhorn"),
                              .top_k = whole(terms, "top_k", 20),
                              .sinkhorn_iters = whole(terms, "sinkhorn_iters", 20),
                              .num_languages = c->num_languages,
                              .include_target = c->include_target,
                              .matrix_order = says(terms, "inctar", "matrix_order")};
}

/* ---- sources ---- */

static ptrdiff_t source_of(const mg_explaining *e, const char *locale) { return mg_strings_find(&e->m.locales, locale); }

static ptrdiff_t source_of_label(void *context, const char *label) { return source_of(context, label); }

/* What a source is worth alone on the target's texts, of both partitions. */
static void print_worth(const mg_explaining *e, ptrdiff_t target, ptrdiff_t source) {
  for (int part = 0; target >= 0 && source >= 0 && part < 2; part++) {
    const double accuracy = e->m.nxn.accuracy[part][(size_t)source * e->m.targets.count + (size_t)target];
    if (isnan(accuracy))
      printf("  %8s", "failed");
    else
      printf("  %8.4f", accuracy);
  }
}

/* A source's weight in the cell, and what it is worth. */
static void print_source(const mg_explaining *e, size_t cell, ptrdiff_t source) {
  const mg_grid_table *t = &e->view.table;
  const ptrdiff_t target = mg_strings_find(&e->m.targets, t->cells[cell].locale);
  const size_t at = cell * t->source_count + (size_t)source;
  if (t->selected[at])
    printf("  %7.4f", t->weights[at]);
  else
    printf("  %7s", "-");
  print_worth(e, target, source);
}

static void print_heading(const mg_explaining *e, const char *more) {
  printf("  %-12s%s  %7s  %8s  %8s\n", "source", more, "weight", e->m.nxn.partition[0], e->m.nxn.partition[1]);
}

/* Sources that were named, or that a baseline is. */
static void print_selected(const mg_explaining *e, size_t cell) {
  const mg_grid_table *t = &e->view.table;
  print_heading(e, "");
  for (size_t s = 0; s < t->source_count; s++) {
    if (!t->selected[cell * t->source_count + s]) continue;
    printf("  %-12s", t->sources.items[s]);
    print_source(e, cell, (ptrdiff_t)s);
    printf("\n");
  }
}

static mg_status explain_named(const mg_explaining *e, size_t cell, const json_t *terms) {
  mg_status status = MG_OK;
  mg_chosen chosen;
  const char *id;
  json_t *weight;
  json_t *named = json_object_get(terms, "sources");
  MG_TRY(mg_chosen_create(json_object_size(named), &chosen), done);
  chosen.drops = json_is_true(json_object_get(terms, "drop_strongest"));
  json_object_foreach(named, id, weight) {
    const ptrdiff_t source = mg_strings_find(&e->m.ids, id);
    if (source >= 0) mg_chosen_add(&chosen, (size_t)source, json_number_value(weight));
  }
  status = mg_explain_numbers(e, cell, &chosen);
  mg_chosen_free(&chosen);
done:
  return status;
}

/* ---- candidates ---- */

static void print_taken(const mg_explaining *e, size_t cell, const mg_similarity *s, const mg_candidate *c, bool drops) {
  const mg_grid_table *t = &e->view.table;
  const ptrdiff_t source = source_of(e, s->labels.items[c->label]);
  printf("  %-12s  %10.4g  %6.4f", e->m.ids.items[source], c->weight, c->share);
  print_source(e, cell, source);
  if (!(t->weights[cell * t->source_count + (size_t)source] > 0) && drops && t->cells[cell].recipe[0] != '\0')
    printf("  (the strongest: stands in for the base)");
  printf("\n");
}

static void print_left(const mg_explaining *e, size_t cell, const mg_similarity *s, const mg_selection *selection) {
  enum { NAMED = 12 };
  const ptrdiff_t target = mg_strings_find(&e->m.targets, e->view.table.cells[cell].locale);
  size_t left = selection->count - selection->taken;
  if (left == 0) return;
  printf("not taken, by falling similarity\n");
  for (size_t k = selection->taken; k < selection->count && k < selection->taken + NAMED; k++) {
    const mg_candidate *c = &selection->candidates[k];
    const ptrdiff_t source = source_of(e, s->labels.items[c->label]);
    printf("  %-12s  %10.4g  %-28s", s->labels.items[c->label], c->weight, c->reason);
    print_worth(e, target, source);
    printf("\n");
  }
  if (left > NAMED) printf("  … and %zu more\n", left - NAMED);
}

/*
 * As the cell's terms choose; where that fails, which may be why the cell failed, it is said, and the choice of as many as
 * there are is shown.
 */
static mg_status choose(const mg_explaining *e, size_t cell, const mg_similarity *s, mg_selection_terms terms,
                        mg_selection *selection) {
  mg_status status = MG_ERR_INPUT;
  const char *locale = e->view.table.cells[cell].locale;
  for (int wanted = terms.num_languages; status == MG_ERR_INPUT && wanted >= 1; wanted--) {
    terms.num_languages = wanted;
    status = mg_select_sources(s, &terms, locale, source_of_label, (void *)(uintptr_t)e, selection);
    if (status == MG_ERR_INPUT && wanted == e->view.table.cells[cell].num_languages) printf("  %s\n", mg_error_message());
  }
  return status == MG_ERR_INPUT ? MG_OK : status;
}

/* Is the matrix what the stage nxn measured? */
static bool is_measured(const mg_explaining *e, const char *matrix) {
  const ptrdiff_t m = e->config != NULL ? mg_strings_find(&e->config->grid.similarity_names, matrix) : -1;
  return m >= 0 && strcmp(e->config->grid.similarity_files.items[m], "nxn") == 0;
}

static mg_status explain_taken(const mg_explaining *e, size_t cell, const mg_similarity *s, const mg_selection *selection,
                               bool drops) {
  mg_status status = MG_OK;
  mg_chosen chosen;
  MG_TRY(mg_chosen_create(selection->taken, &chosen), done);
  chosen.drops = drops;
  for (size_t k = 0; k < selection->taken; k++) {
    const mg_candidate *c = &selection->candidates[k];
    mg_chosen_add(&chosen, (size_t)source_of(e, s->labels.items[c->label]), c->share);
  }
  status = mg_explain_numbers(e, cell, &chosen);
  mg_chosen_free(&chosen);
done:
  return status;
}

static mg_status print_candidates(const mg_explaining *e, size_t cell, const json_t *terms) {
  mg_status status = MG_OK;
  const mg_result_cell *c = &e->view.table.cells[cell];
  const mg_selection_terms how = terms_of(terms, c);
  mg_labelled_table table = {0};
  mg_similarity similarity = {0};
  mg_selection selection = {0};
  MG_TRY(mg_grid_read_matrix(e->reader, c->similarity_type, &table), cleanup);
  MG_TRY(mg_similarity_of(&table, c->similarity_type,
                          says(terms, "duplicates", "keep") ? MG_DUPLICATES_KEEP : MG_DUPLICATES_FIRST, &similarity, NULL),
         cleanup);
  if (is_measured(e, c->similarity_type)) MG_TRY(mg_similarity_set_evaluated(&similarity, &e->m.targets), cleanup);
  printf("\nsources: %d asked for, by the %s of %s in %s%s%s\n", c->num_languages, how.by_row ? "row" : "column", c->locale,
         c->similarity_type, how.sinkhorn ? " after top-k and Sinkhorn" : "",
         c->include_target ? "; the target's own may be one" : "");
  MG_TRY(choose(e, cell, &similarity, how, &selection), cleanup);
  if (selection.count == 0) goto cleanup;
  print_heading(e, "  similarity   share");
  const bool drops = json_is_true(json_object_get(terms, "drop_strongest"));
  for (size_t k = 0; k < selection.taken; k++) print_taken(e, cell, &similarity, &selection.candidates[k], drops);
  print_left(e, cell, &similarity, &selection);
  MG_TRY(explain_taken(e, cell, &similarity, &selection, drops), cleanup);
cleanup:
  free(selection.candidates);
  mg_similarity_free(&similarity);
  mg_labelled_table_free(&table);
  return status;
}

mg_status mg_explain_choice(const mg_explaining *e, size_t cell) {
  mg_status status = MG_OK;
  const mg_result_cell *c = &e->view.table.cells[cell];
  json_t *terms = json_loads(c->terms, 0, NULL);
  const bool named = json_object_size(json_object_get(terms, "sources")) > 0;
  if (named || c->similarity_type[0] == '\0' || mg_kind_of(c->method) == MG_METHOD_MODEL) {
    printf("\nsources%s\n", named ? ": as they were named" : "");
    print_selected(e, cell);
    if (named) status = explain_named(e, cell, terms);
  } else {
    status = print_candidates(e, cell, terms);
  }
  json_decref(terms);
  return status;
}
