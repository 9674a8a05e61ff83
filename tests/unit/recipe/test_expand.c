/* From axes to cells: order, presets, keys, duplicates, conditions, and how fast. */

#include <time.h>

#include "recipes.h"

#define GRID MINIMAL "grid:\n  similarity: {URIEL: u.csv, REAL: nxn}\n"

static const mg_strings NONE = {0};

static void order(void **state) {
  (void)state;
  mg_config *c = parsed(GRID "  fixed: {similarity_type: REAL, locale: [sw-KE, cy-GB]}\n"
                             "  sweep: {method: [average, {ties: {density: [0.1, 0.2]}}], num_languages: [3, 5]}\n");
  mg_grid g = expanded(c, &NONE);
  static const struct {
    const char *locale, *method;
    int num_languages;
    double density;
  } expected[] = {{"sw-KE", "average", 3, 0}, {"sw-KE", "average", 5, 0}, {"sw-KE", "ties", 3, 0.1},
                  {"sw-KE", "ties", 5, 0.1},  {"sw-KE", "ties", 3, 0.2},  {"sw-KE", "ties", 5, 0.2},
                  {"cy-GB", "average", 3, 0}, {"cy-GB", "average", 5, 0}};
  assert_int_equal(g.count, 12);
  assert_int_equal(g.duplicate_count, 0);
  for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
    const mg_terms *t = &g.cells[k].terms;
    assert_string_equal(t->locale, expected[k].locale);
    assert_string_equal(t->method->name, expected[k].method);
    assert_int_equal(t->num_languages, expected[k].num_languages);
    if (expected[k].density > 0) assert_true(mg_method_value(t->method, t->values, "density") == expected[k].density);
    assert_string_equal(t->similarity_type, "REAL");
    assert_string_equal(t->axis, "column");
    assert_int_equal(t->seed, 42);
    assert_string_equal(g.cells[k].phase, "");
  }
  assert_int_equal(g.swept.count, 1);
  assert_string_equal(g.swept.items[0], "ties.density");
  mg_text text = {0};
  assert_int_equal(mg_cell_parameter(&g.cells[4], "ties.density", &text), MG_OK);
  assert_string_equal(text.data, "0.2");
  mg_text_free(&text);
  assert_int_equal(mg_cell_parameter(&g.cells[0], "ties.density", &text), MG_OK);
  assert_string_equal(text.data, "");
  mg_text_free(&text);
  mg_grid_free(&g);
  mg_config_free(&c);
}

static void every_target(void **state) {
  (void)state;
  mg_strings targets = STRINGS("b", "a", "c");
  mg_config *c = parsed(GRID "  sweep: {seed: [1, 2], locale: all, method: own}\n");
  mg_grid g = expanded(c, &targets);
  assert_int_equal(g.count, 6);
  assert_string_equal(g.cells[1].terms.locale, "a");
  assert_int_equal(g.cells[3].terms.seed, 2);
  assert_null(g.cells[0].terms.similarity_type); /* it needs none */
  mg_grid_free(&g);
  g = expanded(c, &NONE);
  assert_int_equal(g.count, 0);
  mg_grid_free(&g);
  mg_config_free(&c);
  mg_strings_free(&targets);
}

static void duplicates(void **state) {
  (void)state;
  mg_config *c = parsed(GRID "  fixed: {locale: a, similarity_type: URIEL, method: similarity}\n"
                             "  sweep: {num_languages: [3, 5, 3]}\n"
                             "  phases: [{name: again, sweep: {num_languages: [5, 7]}}, {fixed: {sources: [x, y]}},\n"
                             "           {fixed: {sources: {y: 3, x: 3}}}]\n");
  mg_grid g = expanded(c, &NONE);
  assert_int_equal(g.count, 4); /* 3, 5, 7, and [x, y], however it is written */
  assert_int_equal(g.duplicate_count, 3);
  assert_string_equal(g.cells[1].phase, "");
  assert_string_equal(g.cells[2].phase, "again");
  assert_int_equal(g.cells[3].terms.num_languages, 2);
  for (size_t k = 0; k < g.count; k++)
    for (size_t j = 0; j < k; j++) assert_string_not_equal(g.cells[k].key, g.cells[j].key);
  mg_grid_free(&g);
  mg_config_free(&c);
}

static void json(void **state) {
  (void)state;
  mg_text text = {0};
  mg_config *c = parsed(GRID "  fixed: {locale: \"a\\\"b\\\\c\", method: [{magmax: {lambda: -1.5}}, ties]}\n"
                             "  sweep: {sources: [{x: 1, b: 3}], similarity_type: URIEL}\n");
  mg_grid g = expanded(c, &NONE);
  assert_int_equal(mg_cell_json(&g.cells[0], &text), MG_OK);
  assert_string_equal(text.data,
                      "{\"locale\": \"a\\\"b\\\\c\", \"method\": \"magmax\", \"parameters\": {\"lambda\": -1.5}, \"sources\": "
                      "{\"b\": 0.75, \"x\": 0.25}, \"similarity_type\": \"URIEL\", \"num_languages\": 2, \"include_target\": "
                      "false, \"preset\": \"none\", \"seed\": 42, \"head\": \"linear\", \"axis\": \"column\", \"select\": "
                      "\"topk\", \"top_k\": 20, \"sinkhorn_iters\": 20, \"inctar\": \"by_weight\", \"drop_strongest\": false, "
                      "\"lambda_rule\": \"none\", \"duplicates\": \"first\"}");
  mg_text_free(&text);
  assert_int_equal(mg_cell_parameters_json(&g.cells[1], &text), MG_OK);
  assert_non_null(strstr(text.data, "{\"density\": 0.2, \"trim\": \"tensor\""));
  assert_non_null(strstr(text.data, "\"weighted\": false"));
  mg_text_free(&text);
  assert_int_equal(strlen(g.cells[0].key), 16);
  assert_int_equal(strspn(g.cells[0].key, "0123456789abcdef"), 16);
  mg_grid_free(&g);
  mg_config_free(&c);
  c = parsed("seed: 18446744073709551615\n" GRID
             "  fixed: {locale: a, method: {layer_swap: {layers: \"0-3,8\"}}, similarity_type: REAL}\n");
  g = expanded(c, &NONE);
  assert_int_equal(mg_cell_json(&g.cells[0], &text), MG_OK);
  assert_non_null(strstr(text.data, "\"parameters\": {\"layers\": \"0-3,8\""));
  assert_non_null(strstr(text.data, "}, \"sources\": null, \"similarity_type\": \"REAL\""));
  assert_non_null(strstr(text.data, "\"seed\": 18446744073709551615"));
  mg_text_free(&text);
  mg_grid_free(&g);
  mg_config_free(&c);
}

/* What a preset brings stands beneath what was said, and hangs on the method. */
static void presets(void **state) {
  (void)state;
  mg_config *c = parsed(GRID "  preset: [none, merginguriel]\n"
                             "  fixed: {locale: a, similarity_type: URIEL, duplicates: keep}\n"
                             "  sweep: {method: [similarity, ties, {dare_linear: {lambda: 0.5}}, soft]}\n");
  mg_grid g = expanded(c, &NONE);
  mg_text text = {0};
  assert_int_equal(g.count, 8);
  assert_string_equal(g.cells[3].terms.preset, "none");
  assert_string_equal(g.cells[3].terms.select, "topk");
  for (size_t k = 4; k < 8; k++) {
    const mg_terms *t = &g.cells[k].terms;
    const bool pretrained = k == 5 || k == 6;
    assert_string_equal(t->preset, "merginguriel");
    assert_string_equal(t->axis, "row");
    assert_string_equal(t->select, "sinkhorn");
    assert_string_equal(t->inctar, "matrix_order");
    assert_string_equal(t->lambda_rule, "merginguriel");
    assert_string_equal(t->duplicates, "keep");
    assert_string_equal(t->head, pretrained ? "random" : k == 4 ? "method" : "linear");
    assert_int_equal(t->drop_strongest, k == 4);
  }
  assert_int_equal(mg_cell_parameters_json(&g.cells[5], &text), MG_OK);
  assert_non_null(strstr(text.data, "\"lambda\": \"merginguriel\""));
  mg_text_free(&text);
  assert_int_equal(mg_cell_parameters_json(&g.cells[6], &text), MG_OK);
  assert_non_null(strstr(text.data, "\"lambda\": 0.5"));
  mg_text_free(&text);
  assert_int_equal(mg_cell_parameters_json(&g.cells[4], &text), MG_OK);
  assert_non_null(strstr(text.data, "\"lambda\": 1"));
  mg_text_free(&text);
  mg_grid_free(&g);
  mg_config_free(&c);
}

static void recipe_is_a_cell(void **state) {
  (void)state;
  mg_cell cell, same;
  mg_config *c = parsed("seed: 7\n" MINIMAL "grid: {similarity: {URIEL: u.csv}}\n"
                        "recipe: {method: ties, locale: a, preset: merginguriel, axis: column}\n");
  assert_int_equal(mg_grid_recipe_cell(c, &cell), MG_OK);
  assert_string_equal(cell.terms.similarity_type, "URIEL");
  assert_string_equal(cell.terms.axis, "column");
  assert_string_equal(cell.terms.select, "sinkhorn");
  assert_string_equal(cell.terms.head, "random");
  assert_int_equal(cell.terms.seed, 7);
  mg_config *d = parsed("seed: 7\n" MINIMAL "grid: {similarity: {URIEL: u.csv}, preset: merginguriel, fixed: {axis: column}, "
                        "sweep: {locale: [a], method: ties}}\n");
  mg_grid g = expanded(d, &NONE);
  assert_string_equal(g.cells[0].key, cell.key);
  mg_grid_free(&g);
  mg_config_free(&d);
  mg_config_free(&c);
  c = parsed(MINIMAL "recipe: {method: average, sources: [a, b], seed: 3}\n");
  assert_int_equal(mg_grid_recipe_cell(c, &same), MG_OK);
  assert_int_equal(same.terms.num_languages, 2);
  assert_int_equal(same.terms.seed, 3);
  mg_config_free(&c);
  static const struct {
    const char *recipe, *message;
  } cases[] = {{"{locale: a}", "recipe.method and either"},
               {"{method: average}", "recipe.method and either"},
               {"{method: average, locale: a}", "recipe.similarity_type is missing, and grid.similarity has 0"},
               {"{method: own, sources: [a]}", "recipe.locale is missing"},
               {"{method: average, locale: a, similarity_type: X}", "'X' is none of grid.similarity's 0"}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    char yaml[256];
    snprintf(yaml, sizeof yaml, MINIMAL "recipe: %s\n", cases[k].recipe);
    c = parsed(yaml);
    assert_int_equal(mg_grid_recipe_cell(c, &cell), MG_ERR_CONFIG);
    assert_says(cases[k].message);
    mg_config_free(&c);
  }
}

static void incomplete(void **state) {
  (void)state;
  static const struct {
    const char *grid, *message;
  } cases[] = {{"{fixed: {method: average}, similarity: {A: a.csv}}", "run.yaml: grid: a cell has no target"},
               {"{fixed: {locale: a}}", "a cell has no method"},
               {"{phases: [{name: x, fixed: {locale: a}}]}", "a cell of phase x has no method"},
               {"{fixed: {locale: a, method: average}}",
                "(a, average) has neither sources nor a similarity_type, and grid.similarity has 0"},
               {"{fixed: {locale: a, method: soft}, similarity: {A: a.csv, B: nxn}}", "grid.similarity has 2"}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    char yaml[256];
    mg_grid g;
    snprintf(yaml, sizeof yaml, MINIMAL "grid: %s\n", cases[k].grid);
    mg_config *c = parsed(yaml);
    assert_int_equal(mg_grid_expand(c, &NONE, &g), MG_ERR_CONFIG);
    assert_says(cases[k].message);
    mg_config_free(&c);
  }
  mg_config *c =
      parsed(GRID "  fixed: {locale: a, similarity_type: REAL}\n  sweep: {method: [{ties: {density: [0.1, 0.2]}}]}\n");
  mg_grid g = expanded(c, &NONE);
  assert_int_equal(g.count, 2);
  mg_grid_free(&g);
  mg_config_free(&c);
}

static void conditions(void **state) {
  (void)state;
  mg_where w;
  mg_config *c =
      parsed(GRID "  fixed: {locale: [sw-KE, cy-GB], similarity_type: URIEL}\n"
                  "  sweep: {method: [ties, dare_ties, average], num_languages: [3, 5], include_target: [false, true]}\n"
                  "  phases: [{name: more, fixed: {seed: 7, locale: sw-KE, method: own}}]\n");
  mg_grid g = expanded(c, &NONE);
  assert_int_equal(g.count, 25);
  char key[32];
  snprintf(key, sizeof key, "key=%.6s", g.cells[3].key);
  const struct {
    const char *text;
    size_t cells;
  } cases[] = {{NULL, 25},
               {"method=ties", 8},
               {"method=ties|dare_ties,locale=sw-KE", 8},
               {"num_languages=3,include_target=true,method=average", 2},
               {"include_target=False", 13},
               {"seed=7", 1},
               {"phase=more", 1},
               {"similarity_type=REAL", 0},
               {"preset=none,head=linear", 25},
               {key, 1}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    size_t n = 0;
    assert_int_equal(mg_where_parse(cases[k].text, &w), MG_OK);
    for (size_t j = 0; j < g.count; j++) n += mg_where_matches(&w, &g.cells[j]);
    if (n != cases[k].cells) fail_msg("%s: %zu", cases[k].text, n);
    mg_where_free(&w);
  }
  static const char *const bad[][2] = {{"", "no condition"},
                                       {"method", "'method' is no condition"},
                                       {"method=", "is no condition"},
                                       {"=ties", "is no condition"},
                                       {"metod=ties", "'metod' is no coordinate of a cell (method?)"},
                                       {"accuracy=1", "there are locale, method"},
                                       {"method=ties,method=average", "two conditions on method"}};
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
    assert_int_equal(mg_where_parse(bad[k][0], &w), MG_ERR_USAGE);
    assert_says(bad[k][1]);
  }
  mg_grid_free(&g);
  mg_config_free(&c);
}

/* Large grids take a moment, enormous ones are refused. */
static void many(void **state) {
  (void)state;
  mg_strings targets = {0};
  mg_text yaml = {0};
  mg_grid g;
  char name[16];
  for (int k = 0; k < 500; k++) {
    snprintf(name, sizeof name, "t%d", k);
    assert_int_equal(mg_strings_add(&targets, name), MG_OK);
  }
  mg_text_append(&yaml, GRID "  sweep:\n    locale: all\n    similarity_type: [URIEL, REAL]\n    num_languages: [3, 5, 7, 10]\n"
                             "    include_target: [false, true]\n"
                             "    method: [average, similarity, {ties: {density: [0.1, 0.2, 0.3], trim: [tensor, global]}}, "
                             "{dare_ties: {density: [0.1, 0.9]}}, model_stock, soft, majority]\n");
  mg_config *c = parsed(yaml.data);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  g = expanded(c, &targets);
  clock_gettime(CLOCK_MONOTONIC, &end);
  assert_int_equal(g.count, 500 * 2 * 4 * 2 * 13);
  assert_int_equal(g.swept.count, 3);
  print_message("%zu cells in %.3f s\n", g.count,
                (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
  mg_grid_free(&g);
  mg_config_free(&c);
  mg_text_append(&yaml, "    top_k: [");
  for (int k = 1; k < 100; k++) mg_text_append(&yaml, "%d, ", k);
  mg_text_append(&yaml, "]\n");
  c = parsed(yaml.data);
  assert_int_equal(mg_grid_expand(c, &targets, &g), MG_ERR_CONFIG);
  assert_says("1.03e+07 cells are declared");
  mg_config_free(&c);
  mg_text_free(&yaml);
  mg_strings_free(&targets);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(order),      cmocka_unit_test(every_target), cmocka_unit_test(duplicates),
      cmocka_unit_test(json),       cmocka_unit_test(presets),      cmocka_unit_test(recipe_is_a_cell),
      cmocka_unit_test(incomplete), cmocka_unit_test(conditions),   cmocka_unit_test(many)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
