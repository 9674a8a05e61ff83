/* What cells come to: sources, weights, parameters, baselines; and why a cell can't be resolved. */

#include <unistd.h>

#include "mergegrid/io.h"
#include "recipes.h"

/* Five sources, two of one locale; targets with and without a source. */
static const char *const IDS[] = {"a1", "b", "a2", "c", "d"}, *const LOCALES[] = {"a", "b", "a", "c", "d"};
static const char *const TARGETS[] = {"a", "d", "t", NULL};

/* What sources are to the targets, by columns: t: a 0.1, b 0.4, c 0.4, d 0.3. e has no source. */
static const char MATRIX[] = ",a,b,c,d,e,t\n"
                             "a,1,0.5,0.2,0.2,0,0.1\nb,0.5,1,0.3,0.6,0,0.4\nc,0.2,0.3,1,0.1,0,0.4\n"
                             "d,0.2,0.6,0.1,1,0,0.3\ne,0,0,0,0.9,1,0.9\nt,0.1,0.4,0.4,0.3,0,1\n";

typedef struct world {
  mg_source items[5];
  mg_source_list sources;
  mg_strings targets;
  mg_grid_matrix matrix;
  double tv[25], select[15], test[15];
  mg_grid_context context;
} world;

static mg_similarity similarity_of(const char *text, mg_duplicates duplicates) {
  char path[64];
  mg_similarity s;
  snprintf(path, sizeof path, "/tmp/mergegrid-recipe-%d.csv", (int)getpid());
  assert_int_equal(mg_replace_file(path, text, strlen(text)), MG_OK);
  if (mg_similarity_read(path, duplicates, &s, NULL) != MG_OK) fail_msg("%s", mg_error_message());
  unlink(path);
  return s;
}

static int make_world(void **state) {
  /* of a, d, t; a1 and c are equally good on t */
  static const double select[15] = {0.9, 0.3, 0.5, 0.6, 0.7, 0.4, 0.8, 0.2, 0.1, 0.5, 0.4, 0.5, 0.2, 0.95, NAN};
  world *w = calloc(1, sizeof *w);
  assert_non_null(w);
  for (size_t k = 0; k < 5; k++) w->items[k] = (mg_source){(char *)(uintptr_t)IDS[k], (char *)(uintptr_t)LOCALES[k], NULL};
  w->sources = (mg_source_list){.count = 5, .items = w->items};
  w->targets = strings(TARGETS);
  w->matrix = (mg_grid_matrix){.name = "M", .first = similarity_of(MATRIX, MG_DUPLICATES_FIRST)};
  for (size_t k = 0; k < 25; k++) w->tv[k] = k % 6 == 0 ? 1 : 0.1 * (double)(1 + (k / 5) + (k % 5)); /* symmetric */
  memcpy(w->select, select, sizeof select);
  w->context = (mg_grid_context){.sources = &w->sources,
                                 .targets = &w->targets,
                                 .matrix_count = 1,
                                 .matrices = &w->matrix,
                                 .tv = w->tv,
                                 .accuracy = {w->test, w->select}};
  *state = w;
  return 0;
}

static int free_world(void **state) {
  world *w = *state;
  mg_strings_free(&w->targets);
  mg_similarity_free(&w->matrix.first);
  mg_similarity_free(&w->matrix.keep);
  free(w);
  return 0;
}

/* Resolves the recipe that the text says; config outlives the cell's strings. */
static mg_status resolve(const world *w, const char *recipe, mg_config **config, mg_resolved *out) {
  char yaml[512];
  mg_cell cell;
  snprintf(yaml, sizeof yaml, MINIMAL "grid: {similarity: {M: m.csv}}\nrecipe: %s\n", recipe);
  *config = parsed(yaml);
  if (mg_grid_recipe_cell(*config, &cell) != MG_OK) fail_msg("%s", mg_error_message());
  return mg_grid_resolve(&w->context, &cell, out);
}

/* "a1:0.25,b:0.75 base d best b" of a recipe. */
static void expect(const world *w, const char *recipe, const char *expected) {
  mg_config *config;
  mg_resolved r;
  char text[512] = "";
  if (resolve(w, recipe, &config, &r) != MG_OK) fail_msg("%s: %s", recipe, mg_error_message());
  for (size_t k = 0; k < r.count; k++) {
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s:%.4g", k ? "," : "", IDS[r.source[k]], r.weight[k]);
    if (k > 0) assert_true(r.source[k - 1] < r.source[k]);
  }
  if (r.base >= 0) snprintf(text + strlen(text), sizeof text - strlen(text), " base %s", IDS[r.base]);
  snprintf(text + strlen(text), sizeof text - strlen(text), " best %s", IDS[r.source[r.best]]);
  if (strcmp(text, expected) != 0) fail_msg("%s\n  gives    %s\n  expected %s", recipe, text, expected);
  mg_resolved_free(&r);
  mg_config_free(&config);
}

static void refuse(const world *w, const char *recipe, const char *message) {
  mg_config *config;
  mg_resolved r;
  if (resolve(w, recipe, &config, &r) != MG_ERR_INPUT) fail_msg("%s: not refused so", recipe);
  if (strstr(mg_error_message(), message) == NULL) fail_msg("%s: '%s' lacks '%s'", recipe, mg_error_message(), message);
  assert_null(r.source);
  mg_config_free(&config);
}

static void named(void **state) {
  const world *w = *state;
  expect(w, "{method: linear, sources: {c: 3, a2: 1}}", "a2:0.25,c:0.75 best c");
  expect(w, "{method: linear, sources: {c: 3, a2: 1}, locale: a}", "a2:0.25,c:0.75 best a2");
  expect(w, "{method: average, sources: {c: 3, a2: 1}}", "a2:0.5,c:0.5 best c");
  expect(w, "{method: linear, sources: [b]}", "b:1 best b");
  refuse(w, "{method: linear, sources: [b, a3]}", "'a3' is no source of the family (a1?)");
}

static void chosen(void **state) {
  const world *w = *state;
  /* e has no checkpoint; b and c are equal, and b comes first in the matrix; the first source of a locale is taken */
  expect(w, "{method: similarity, locale: t, num_languages: 2}", "b:0.5,c:0.5 best c");
  expect(w, "{method: similarity, locale: t, num_languages: 4}", "a1:0.08333,b:0.3333,c:0.3333,d:0.25 best a1");
  expect(w, "{method: ties, locale: t, num_languages: 4}", "a1:0.25,b:0.25,c:0.25,d:0.25 best a1");
  expect(w, "{method: {ties: {weighted: true}}, locale: t, num_languages: 3}", "b:0.3636,c:0.3636,d:0.2727 best c");
  expect(w, "{method: {dare_linear: {weighted: false}}, locale: t, num_languages: 3}", "b:0.3333,c:0.3333,d:0.3333 best c");
  expect(w, "{method: similarity, locale: d, num_languages: 2, include_target: true}", "b:0.375,d:0.625 best d");
  mg_config *config;
  mg_resolved r;
  assert_int_equal(resolve(w, "{method: similarity, locale: t, num_languages: 2}", &config, &r), MG_OK);
  assert_int_equal(r.selection.taken, 2);
  assert_int_equal(r.selection.count, 6);
  assert_null(r.note);
  assert_int_equal(r.kind, MG_CELL_MERGE);
  mg_text text = {0};
  assert_int_equal(mg_resolved_sources_text(&w->context, &r, &text), MG_OK);
  assert_string_equal(text.data, "b:0.500,c:0.500");
  mg_text_free(&text);
  mg_resolved_free(&r);
  mg_config_free(&config);
}

static void repeated_labels(void **state) {
  world *w = *state;
  mg_similarity_free(&w->matrix.first);
  w->matrix.first = similarity_of(",b,c,b,t\nb,0,0,0,2\nc,0,0,0,3\nb,0,0,0,1\nt,0,0,0,0\n", MG_DUPLICATES_FIRST);
  w->matrix.keep = similarity_of(",b,c,b,t\nb,0,0,0,2\nc,0,0,0,3\nb,0,0,0,1\nt,0,0,0,0\n", MG_DUPLICATES_KEEP);
  expect(w, "{method: linear, locale: t, num_languages: 2}", "b:0.4,c:0.6 best c");
  expect(w, "{method: linear, locale: t, num_languages: 3, duplicates: keep}", "b:0.5,c:0.5 best c");
  expect(w, "{method: linear, locale: t, num_languages: 3, duplicates: keep, drop_strongest: true}", "b:1 base c best b");
}

static void strongest_dropped(void **state) {
  const world *w = *state;
  expect(w, "{method: linear, locale: t, num_languages: 3, drop_strongest: true}", "c:0.5714,d:0.4286 base b best c");
  expect(w, "{method: ties, sources: {a1: 1, c: 3, b: 1}, drop_strongest: true}", "a1:0.5,b:0.5 base c best a1");
  expect(w, "{method: soft, locale: t, num_languages: 3, drop_strongest: true}", "b:0.3636,c:0.3636,d:0.2727 best c");
  refuse(w, "{method: linear, sources: [c], drop_strongest: true}", "drop_strongest: c is the only source");
}

static double lambda_of(const world *w, const char *recipe) {
  mg_config *config;
  mg_resolved r;
  if (resolve(w, recipe, &config, &r) != MG_OK) fail_msg("%s: %s", recipe, mg_error_message());
  const double value = mg_method_value(config->recipe.method, r.values, "lambda");
  mg_resolved_free(&r);
  mg_config_free(&config);
  return value;
}

static void lambdas(void **state) {
  const world *w = *state;
#define FOUR "sources: {a1: 4, b: 1, c: 3, d: 2}, lambda_rule: merginguriel"
  assert_true(fabs(lambda_of(w, "{method: ties, " FOUR "}") - 0.3) < 1e-15);
  assert_true(fabs(lambda_of(w, "{method: dare_ties, " FOUR "}") - 0.3) < 1e-15);
  assert_true(fabs(lambda_of(w, "{method: task_arithmetic, " FOUR "}") - 0.2) < 1e-15);
  assert_true(fabs(lambda_of(w, "{method: dare_linear, " FOUR "}") - 0.2) < 1e-15);
  assert_true(fabs(lambda_of(w, "{method: task_arithmetic, drop_strongest: true, " FOUR "}") - 0.2) < 1e-15);
  assert_true(lambda_of(w, "{method: {ties: {lambda: 0.7}}, " FOUR "}") == 0.7);
  assert_true(lambda_of(w, "{method: {ties: {lambda: 1}}, " FOUR "}") == 1);
  assert_true(lambda_of(w, "{method: linear, " FOUR "}") == 1);
  assert_true(lambda_of(w, "{method: magmax, " FOUR "}") == 0.5);
  assert_true(lambda_of(w, "{method: ties, sources: {a1: 1, b: 1}, lambda_rule: merginguriel}") ==
              0.5); /* of equals one is strongest */
  assert_true(lambda_of(w, "{method: ties, sources: [a1, b]}") == 1);
  refuse(w, "{method: ties, sources: [a1], lambda_rule: merginguriel}", "lambda_rule merginguriel: a1 is the only source");
}

/* What neither the coordinates nor the weights tell of a cell is in its note. */
static void notes_of_what_follows(void **state) {
  const world *w = *state;
  mg_config *config;
  mg_resolved r;
  assert_int_equal(
      resolve(w, "{method: ties, drop_strongest: true, sources: {a1: 1, b: 1, d: 2}, lambda_rule: merginguriel}", &config, &r),
      MG_OK);
  assert_string_equal(r.note, "lambda 0.25 by the rule merginguriel; starts from d, the strongest");
  mg_resolved_free(&r);
  mg_config_free(&config);
}

static void compatibilities(void **state) {
  world *w = *state;
  mg_config *config;
  mg_resolved r;
  /* with the others that were chosen: b (1) with c (3), d (4): 0.1 (5 + 6) / 2; c 0.1 (5 + 8) / 2; d 0.1 (6 + 8) / 2 */
  expect(w, "{method: similarity_x_tv_compatibility, locale: t, num_languages: 3}", "b:0.3188,c:0.3768,d:0.3043 best c");
  expect(w, "{method: similarity_x_tv_compatibility, locale: t, num_languages: 1}", "b:1 best b");
  expect(w, "{method: similarity_x_tv_compatibility, locale: t, num_languages: 3, drop_strongest: true}",
         "b:0.5116,d:0.4884 base c best b");
  refuse(w, "{method: similarity_x_cka_compatibility, locale: t, num_languages: 3}", "needs CKA, which is not there");
  for (size_t k = 0; k < 25; k++) w->tv[k] = -1;
  assert_int_equal(resolve(w, "{method: similarity_x_tv_compatibility, locale: t, num_languages: 3}", &config, &r), MG_OK);
  assert_string_equal(r.note, "every compatibility is 0: the similarity's weights stay");
  assert_true(fabs(r.weight[0] - 0.4 / 1.1) < 1e-15);
  mg_resolved_free(&r);
  mg_config_free(&config);
  for (size_t k = 0; k < 25; k++) w->tv[k] = k / 5 != 1 && k % 5 != 1; /* nothing goes with b */
  assert_int_equal(resolve(w, "{method: similarity_x_tv_compatibility, locale: t, num_languages: 3}", &config, &r), MG_OK);
  assert_int_equal(r.count, 2);
  assert_string_equal(r.note, "sources whose weight is 0 are left out");
  mg_resolved_free(&r);
  mg_config_free(&config);
}

static void baselines(void **state) {
  world *w = *state;
  mg_config *config;
  mg_resolved r;
  expect(w, "{method: own, locale: a}", "a1:1 best a1");
  expect(w, "{method: best_zero_shot, locale: a}", "b:1 best b");
  expect(w, "{method: best_zero_shot, locale: t}", "a1:1 best a1"); /* the first of equals */
  expect(w, "{method: best_source, locale: t, num_languages: 3}", "c:1 best c");
  expect(w, "{method: best_source, locale: t, sources: [b, a2]}", "b:1 best b");
  expect(w, "{method: best_source, locale: t, num_languages: 3, drop_strongest: true}", "c:1 best c");
  expect(w, "{method: majority, locale: t, num_languages: 2}", "b:0.5,c:0.5 best c");
  /* whose weights say who is asked first, and so what equal votes come to */
  expect(w, "{method: majority, locale: t, num_languages: 4}", "a1:0.08333,b:0.3333,c:0.3333,d:0.25 best a1");
  expect(w, "{method: uriel_logits, locale: t, num_languages: 4}", "a1:0.08333,b:0.3333,c:0.3333,d:0.25 best a1");
  assert_int_equal(resolve(w, "{method: own, locale: a}", &config, &r), MG_OK);
  assert_int_equal(r.kind, MG_CELL_MODEL);
  assert_null(r.selection.candidates);
  mg_resolved_free(&r);
  mg_config_free(&config);
  assert_int_equal(resolve(w, "{method: soft, locale: t}", &config, &r), MG_ERR_INPUT); /* four candidates, five wanted */
  mg_config_free(&config);
  refuse(w, "{method: own, locale: t}", "target t has no source of its own");
  w->context.accuracy[1] = NULL;
  refuse(w, "{method: best_zero_shot, locale: a}", "needs the evaluation of the stage nxn on a");
  expect(w, "{method: similarity, locale: t, num_languages: 3}", "b:0.3636,c:0.3636,d:0.2727 best b"); /* the strongest then */
}

/* Whose evaluation has failed is no best source, and is named; its weights are merged all the same. */
static void sources_without_an_accuracy(void **state) {
  world *w = *state;
  mg_config *config;
  mg_resolved r;
  static const char *const recipes[] = {
      "{method: best_zero_shot, locale: a}", "{method: best_source, locale: a, sources: [b, c]}",
      "{method: {exclude_layers: {layers: '0'}}, locale: a, sources: [b, c]}",
      "{method: {include_layers: {layers: '0', elsewhere: best_source}}, locale: a, sources: [b, c]}"};
  w->select[1 * 3 + 0] = NAN; /* b on a */
  for (size_t k = 0; k < 4; k++) {
    assert_int_equal(resolve(w, recipes[k], &config, &r), MG_OK);
    assert_int_equal(r.source[r.best], 3);
    assert_string_equal(r.note, "not considered as the best source, since the stage nxn has no accuracy of them: b");
    mg_resolved_free(&r);
    mg_config_free(&config);
  }
  expect(w, "{method: average, locale: a, sources: [b, c]}", "b:0.5,c:0.5 best c");
  assert_int_equal(resolve(w, "{method: average, locale: a, sources: [b, c]}", &config, &r), MG_OK);
  assert_null(r.note); /* it takes no best source */
  mg_resolved_free(&r);
  mg_config_free(&config);
  refuse(w, "{method: best_source, locale: a, sources: [b]}", "no source was evaluated on a");
}

static void compatibilities_without_a_number(void **state) {
  world *w = *state;
  mg_config *config;
  mg_resolved r;
  const char *recipe = "{method: similarity_x_tv_compatibility, locale: t, num_languages: 3}"; /* b, c, d */
  w->tv[0 * 5 + 1] = NAN;                                                                      /* a1 is not chosen */
  assert_int_equal(resolve(w, recipe, &config, &r), MG_OK);
  assert_null(r.note);
  mg_resolved_free(&r);
  mg_config_free(&config);
  w->tv[1 * 5 + 3] = NAN;
  assert_int_equal(resolve(w, recipe, &config, &r), MG_OK);
  assert_string_equal(r.note, "compatibilities (tv) that are NaN or lacking count as 0: b c");
  mg_resolved_free(&r);
  mg_config_free(&config);
}

static void refusals(void **state) {
  world *w = *state;
  refuse(w, "{method: similarity, locale: t}",
         "M: target t has 4 candidates, and num_languages is 5 (no checkpoint: 1, is the target: 1)");
  refuse(w, "{method: similarity, locale: tt}", "target tt has no texts");
  w->context.targets = NULL;
  refuse(w, "{method: similarity, locale: tt}", "M: target tt is not in the similarity matrix");
  mg_similarity_free(&w->matrix.first);
  refuse(w, "{method: similarity, locale: t}", "similarity_type 'M': there is no such matrix");
  w->matrix.first = similarity_of(",a,b,t\na,0,0,0\nb,0,0,-1\nt,0,0,\n", MG_DUPLICATES_FIRST);
  refuse(w, "{method: similarity, locale: t, num_languages: 1}",
         "M: target t has 0 candidates, and num_languages is 1 (similarity is not positive: 2, is the target: 1)");
}

/* Of the demonstration's matrix, with zh-TW twice, as the notebook of merginguriel's run printed it for af-ZA. */
static void as_the_notebook_has_it(void **state) {
  (void)state;
  static const char *const ids[] = {"hu-HU", "hy-AM", "id-ID", "ka-GE", "nl-NL"};
  static const double weights[] = {0.177, 0.283, 0.335, 0.114, 0.091};
  mg_grid_matrix *matrices;
  mg_source_list sources = {0};
  mg_similarity all;
  mg_cell cell;
  mg_resolved r;
  mg_config *c = parsed(
      MINIMAL "grid: {similarity: {OLD: " MG_TEST_DATA "/emoji48/uriel_similarity_50.csv}}\n"
              "recipe: {method: similarity, locale: af-ZA, preset: merginguriel, duplicates: keep, drop_strongest: false}\n");
  assert_int_equal(mg_similarity_read(c->grid.similarity_files.items[0], MG_DUPLICATES_FIRST, &all, NULL), MG_OK);
  sources.items = calloc(all.labels.count, sizeof *sources.items);
  for (size_t k = 0; k < all.labels.count; k++)
    if (strcmp(all.labels.items[k], "zh-TW") != 0)
      sources.items[sources.count++] = (mg_source){.id = all.labels.items[k], .locale = all.labels.items[k]};
  assert_int_equal(sources.count, 48);
  assert_int_equal(mg_grid_recipe_cell(c, &cell), MG_OK);
  assert_int_equal(mg_grid_matrices_read(c, &cell, 1, &sources, NULL, &matrices, NULL), MG_OK);
  assert_int_equal(matrices[0].keep.labels.count, 50);
  assert_int_equal(matrices[0].first.labels.count, 0); /* nobody asked */
  const mg_grid_context context = {.sources = &sources, .matrix_count = 1, .matrices = matrices};
  assert_int_equal(mg_grid_resolve(&context, &cell, &r), MG_OK);
  assert_int_equal(r.count, 5);
  for (size_t k = 0; k < 5; k++) {
    assert_string_equal(sources.items[r.source[k]].id, ids[k]);
    if (fabs(r.weight[k] - weights[k]) > 0.001) fail_msg("%s: %.4f", ids[k], r.weight[k]);
  }
  mg_resolved_free(&r);
  cell.terms.drop_strongest = true;
  assert_int_equal(mg_grid_resolve(&context, &cell, &r), MG_OK);
  assert_int_equal(r.count, 4);
  assert_string_equal(sources.items[r.base].id, "id-ID");
  mg_resolved_free(&r);
  mg_grid_matrices_free(&matrices, 1);
  mg_similarity_free(&all);
  free(sources.items);
  mg_config_free(&c);
}

/* ---- tables ---- */

static void evaluations(void **state) {
  const world *w = *state;
  mg_labelled_table table;
  mg_similarity s;
  double back[15];
  assert_int_equal(mg_evaluation_table(&w->sources, &w->targets, w->select, &table), MG_OK);
  assert_string_equal(table.rows.items[2], "a2");
  assert_int_equal(mg_evaluation_accuracy(&table, &w->sources, &w->targets, back), MG_OK);
  for (size_t k = 0; k < 15; k++) assert_true(back[k] == w->select[k] || (isnan(back[k]) && k == 14));
  assert_int_equal(mg_evaluation_similarity(&table, &w->sources, &s), MG_OK);
  static const char *const labels[] = {"a", "b", "c", "d", "t"};
  assert_int_equal(s.labels.count, 5);
  for (size_t k = 0; k < 5; k++) assert_string_equal(s.labels.items[k], labels[k]);
  assert_true(s.values[0 * 5 + 4] == 0.5 && s.values[0 * 5 + 0] == 0.9); /* a1's, not a2's */
  assert_true(s.values[1 * 5 + 3] == 0.7 && isnan(s.values[3 * 5 + 4]));
  assert_true(isnan(s.values[1 * 5 + 2]) && isnan(s.values[4 * 5 + 0])); /* no texts of c, no source of t */
  static const bool evaluated[] = {true, false, false, true, true};
  for (size_t k = 0; k < 5; k++) assert_int_equal(s.evaluated[k], evaluated[k]);
  mg_similarity_free(&s);
  mg_labelled_table_free(&table);
}

static void compatibility_tables(void **state) {
  const world *w = *state;
  double values[9], out[25];
  mg_strings notes = {0};
  for (size_t k = 0; k < 9; k++) values[k] = (double)k;
  mg_labelled_table table = {.rows = STRINGS("d", "a", "b"), .columns = STRINGS("a", "b", "d"), .values = values, .count = 9};
  assert_int_equal(mg_compatibility_of(&table, "c.csv", &w->sources, out, &notes), MG_OK);
  assert_true(out[0 * 5 + 1] == 4 && out[2 * 5 + 1] == 4); /* both sources of the locale a */
  assert_true(out[4 * 5 + 0] == 0 && out[1 * 5 + 4] == 8);
  assert_true(isnan(out[3 * 5 + 1]) && isnan(out[1 * 5 + 3]));
  assert_int_equal(notes.count, 1);
  assert_string_equal(notes.items[0], "c.csv: lacks sources, whose compatibility counts as 0: c");
  mg_strings_free(&notes);
  values[1] = values[4] = values[3] = NAN; /* d b, a b, and a a, which nothing goes by */
  assert_int_equal(mg_compatibility_of(&table, "c.csv", &w->sources, out, &notes), MG_OK);
  assert_int_equal(notes.count, 2);
  assert_string_equal(notes.items[1], "c.csv: entries that are NaN count as 0 (row and column): d b, a b");
  mg_strings_free(&notes);
  mg_strings_free(&table.rows);
  table.rows = STRINGS("x", "y", "z");
  assert_int_equal(mg_compatibility_of(&table, "c.csv", &w->sources, out, &notes), MG_ERR_INPUT);
  assert_says("c.csv: has none of the 5 sources");
  mg_strings_free(&table.rows);
  mg_strings_free(&table.columns);
}

static void matrices(void **state) {
  const world *w = *state;
  mg_grid_matrix *m;
  mg_grid g;
  mg_strings none = {0};
  mg_config *c = parsed(MINIMAL "grid: {similarity: {A: nxn, B: missing.csv}, fixed: {locale: a, similarity_type: A}, "
                                "sweep: {method: [average, own]}}\n");
  assert_int_equal(mg_grid_expand(c, &none, &g), MG_OK);
  assert_int_equal(mg_grid_matrices_read(c, g.cells, g.count, &w->sources, NULL, &m, NULL), MG_ERR_INPUT);
  assert_says("no evaluation of the stage nxn is there");
  assert_null(m);
  mg_labelled_table table;
  assert_int_equal(mg_evaluation_table(&w->sources, &w->targets, w->select, &table), MG_OK);
  assert_int_equal(mg_grid_matrices_read(c, g.cells, g.count, &w->sources, &table, &m, NULL), MG_OK);
  assert_int_equal(m[0].first.labels.count, 5);
  assert_int_equal(m[0].keep.labels.count + m[1].first.labels.count, 0);
  assert_string_equal(m[1].name, "B");
  mg_grid_matrices_free(&m, 2);
  mg_labelled_table_free(&table);
  mg_grid_free(&g);
  mg_config_free(&c);
}

int main(void) {
#define IN_A_WORLD(test) cmocka_unit_test_setup_teardown(test, make_world, free_world)
  const struct CMUnitTest tests[] = {IN_A_WORLD(named),           IN_A_WORLD(chosen),
                                     IN_A_WORLD(repeated_labels), IN_A_WORLD(strongest_dropped),
                                     IN_A_WORLD(lambdas),         IN_A_WORLD(notes_of_what_follows),
                                     IN_A_WORLD(compatibilities), IN_A_WORLD(compatibilities_without_a_number),
                                     IN_A_WORLD(baselines),       IN_A_WORLD(sources_without_an_accuracy),
                                     IN_A_WORLD(refusals),        IN_A_WORLD(as_the_notebook_has_it),
                                     IN_A_WORLD(evaluations),     IN_A_WORLD(compatibility_tables),
                                     IN_A_WORLD(matrices)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
