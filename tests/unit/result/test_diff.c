/* Setups of two results: rows in any order, numbers that are none, and results whose configuration can't be read. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/text.h"
#include "result/diff_impl.h"
#include "unit/result/small_result.h"
#include "unit/scratch.h"

enum { N = 2 };

/* A result of a microscope alone, whose models lie there, and whose configuration no version can read. */
static char *write_one(const char *name, const char *where, const char *hash, const mg_result_microscope *microscope) {
  char id[N][8] = {"fr-FR", "sw-KE"}, path[N][32], base[32], *path_out = in_dir(name);
  mg_source items[N];
  for (int k = 0; k < N; k++) {
    snprintf(path[k], sizeof path[k], "%s/%s", where, id[k]);
    items[k] = (mg_source){.id = id[k], .locale = id[k], .path = path[k]};
  }
  snprintf(base, sizeof base, "%s/base", where);
  const mg_source_list sources = {.count = N, .items = items};
  char tensor[] = "w", none[] = "";
  mg_tensor tensors[1] = {{.name = tensor, .layer = none, .ndim = 1, .shape = {4}, .numel = 4}};
  const mg_tensor_table table = {.count = 1, .tensors = tensors, .elements = 4};
  const bool selected[1] = {true};
  const mg_strings labels = {0};
  mg_identity identity = {0};
  mg_identity_add(&identity, "base", "b0");
  mg_identity_add(&identity, "source fr-FR", "f0");
  mg_identity_add(&identity, "source sw-KE", hash);
  mg_result_data data = small_result(&sources, base, &labels, &table, selected, &identity);
  data.microscope = microscope;
  assert_int_equal(mg_result_write(path_out, &data), MG_OK);
  mg_identity_free(&identity);
  return path_out;
}

static mg_result_microscope microscope_of(const mg_result_setup *setups, size_t setup_count,
                                          const mg_result_parameter_delta *parameters, size_t parameter_count,
                                          const mg_result_attention *attentions, size_t attention_count) {
  return (mg_result_microscope){.digest = "0123456789abcdef",
                                .reference = "source fr-FR",
                                .padding = "exclude",
                                .probe_source = "probes.txt",
                                .no_cells = "no grid",
                                .setup_count = setup_count,
                                .setups = setups,
                                .parameter_count = parameter_count,
                                .parameters = parameters,
                                .attention_count = attention_count,
                                .attentions = attentions};
}

static void open_side(const char *path, mg_diff_side *s) {
  s->path = path;
  assert_int_equal(mg_result_open(path, &s->reader), MG_OK);
  assert_int_equal(mg_matrices_read_from(&s->reader->h5, &s->m), MG_OK);
  assert_int_equal(mg_result_read_inputs(s->reader, &s->inputs), MG_OK);
  assert_int_equal(mg_microscope_read(&s->reader->h5, &s->scope), MG_OK);
  s->has_microscope = true;
}

static void close_diff(mg_diff *d) {
  mg_diff_microscope_free(&d->scope);
  for (int k = 0; k < 2; k++) {
    mg_matrices_free(&d->side[k].m);
    mg_identity_free(&d->side[k].inputs);
    mg_microscope_tables_free(&d->side[k].scope);
    mg_result_close(&d->side[k].reader);
  }
}

static const mg_result_setup REFERENCE = {.model = "reference", .exists = true, .path = "old/fr-FR"};

/* Without declared terms: what a merge came to, where its checkpoints lie being no matter. */
static void what_setups_came_to(void **state) {
  (void)state;
  const mg_result_setup
      old[] = {REFERENCE,
               {.model = "a", .exists = true, .mode = "ties", .base_model = "old/base", .sources = "fr-FR:0.500, sw-KE:0.500"},
               {.model = "b", .exists = true, .mode = "ties", .base_model = "old/base", .sources = "fr-FR:1.000"},
               {.model = "c", .exists = true, .path = "elsewhere"},
               {.model = "d", .error = "no such directory", .path = "nowhere"}},
      new[] = {{.model = "reference", .exists = true, .path = "new/fr-FR"},
               {.model = "c", .exists = true, .path = "other"},
               {.model = "b", .exists = true, .mode = "average", .base_model = "new/sw-KE", .sources = "fr-FR:1.000"},
               {.model = "a", .exists = true, .mode = "ties", .base_model = "new/base", .sources = "fr-FR:0.500, sw-KE:0.500"},
               {.model = "d", .exists = true, .path = "nowhere"}};
  const mg_result_microscope was = microscope_of(old, 5, NULL, 0, NULL, 0), is = microscope_of(new, 5, NULL, 0, NULL, 0);
  char *paths[2] = {write_one("old.h5", "old", "s0", &was), write_one("new.h5", "new", "s1", &is)};
  mg_diff d = {0};
  for (int k = 0; k < 2; k++) open_side(paths[k], &d.side[k]);
  assert_int_equal(mg_diff_microscope_compare(&d), MG_OK);
  const mg_diff_microscope *m = &d.scope;
  assert_int_equal(m->count, 5);
  assert_int_equal(m->changed, 4);
  assert_int_equal(m->same_recipe, 1); /* the reference; of d it is not known */
  assert_int_equal(m->newly_completed, 1);
  assert_int_equal(m->newly_failed, 0);
  assert_string_equal(m->items[1].name, "c");
  assert_int_equal(m->items[1].inputs.count, 1);
  assert_string_equal(m->items[1].inputs.items[0].before, "elsewhere");
  assert_string_equal(m->items[2].inputs.items[0].name, "method");
  assert_string_equal(m->items[2].inputs.items[1].name, "base_model");
  assert_string_equal(m->items[2].inputs.items[1].before, "the base");
  assert_string_equal(m->items[2].inputs.items[1].now, "sw-KE");
  assert_int_equal(m->items[2].inputs.count, 3); /* and that source's checkpoint */
  assert_int_equal(m->items[3].inputs.count, 1);
  assert_string_equal(m->items[3].inputs.items[0].name, "source sw-KE");
  assert_int_equal(m->items[4].inputs.count, 0);
  assert_string_equal(m->items[4].status[0], "skipped");
  close_diff(&d);
  free(paths[0]), free(paths[1]);
}

/* Paired by what names them; one that is NaN in both is the same, in one the largest change there is. */
static void numbers_row_by_row(void **state) {
  (void)state;
  const mg_result_setup setups[] = {REFERENCE, {.model = "a", .exists = true, .path = "x"}};
  const mg_result_parameter_delta old[] = {{.parameter = "p", .layer = "", .model = "a", .delta_l2 = 1, .reference_norm = NAN},
                                           {.parameter = "q", .layer = "", .model = "a", .delta_l2 = 2},
                                           {.parameter = "gone", .layer = "", .model = "a"}},
                                  new[] = {{.parameter = "come", .layer = "", .model = "a"},
                                           {.parameter = "q", .layer = "", .model = "a", .delta_l2 = -5, .candidate_norm = NAN},
                                           {.parameter = "come too", .layer = "", .model = "a"},
                                           {.parameter = "p", .layer = "", .model = "a", .delta_l2 = 2, .reference_norm = NAN}};
  const mg_result_attention before[] = {{.layer = 0, .head = 1, .entropy = 1, .model = "a"},
                                        {.layer = 1, .head = 0, .entropy = 2, .model = "a"}},
                            after[] = {{.layer = 1, .head = 0, .entropy = 2, .model = "a"},
                                       {.layer = 0, .head = 1, .entropy = 1.5, .model = "a"}};
  const mg_result_microscope was = microscope_of(setups, 2, old, 3, before, 2), is = microscope_of(setups, 2, new, 4, after, 2);
  char *paths[2] = {write_one("old.h5", "old", "s0", &was), write_one("new.h5", "old", "s0", &is)};
  mg_diff d = {0};
  for (int k = 0; k < 2; k++) open_side(paths[k], &d.side[k]);
  assert_int_equal(mg_diff_microscope_compare(&d), MG_OK);
  assert_int_equal(d.scope.changed, 1);
  assert_int_equal(d.scope.same_recipe, 2);
  const mg_diff_table *t = d.scope.items[1].tables;
  assert_int_equal(t[0].both, 2);
  assert_int_equal(t[0].changed, 2);
  assert_int_equal(t[0].gone, 1);
  assert_int_equal(t[0].come, 2);
  assert_string_equal(t[0].columns[0].name, "delta_l2");
  assert_int_equal(t[0].columns[0].changed, 2);
  assert_true(t[0].columns[0].largest == -7);
  assert_int_equal(t[0].columns[0].row, 1);
  assert_int_equal(t[0].columns[3].changed, 0); /* reference_norm */
  assert_int_equal(t[0].columns[4].changed, 1);
  assert_true(isnan(t[0].columns[4].largest));
  assert_int_equal(t[1].both, 2);
  assert_int_equal(t[1].changed, 1);
  assert_true(t[1].columns[1].largest == 0.5);
  assert_int_equal(t[3].both + t[3].gone + t[3].come, 0);
  close_diff(&d);
  free(paths[0]), free(paths[1]);
}

/* The whole command, of a configuration that can't be read: nothing is refused for that. */
static void configuration_of_another_version(void **state) {
  (void)state;
  const mg_result_microscope scope = microscope_of(&REFERENCE, 1, NULL, 0, NULL, 0);
  char *path = write_one("old.h5", "old", "s0", &scope);
  const mg_show_options options = {.json = true};
  assert_int_equal(mg_result_diff(path, path, &options), MG_OK);
  free(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_setups_came_to), cmocka_unit_test(numbers_row_by_row),
                                     cmocka_unit_test(configuration_of_another_version)};
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
