#include "fixture.h"

static void layers_are_found(void **state) {
  (void)state;
  static const struct {
    const char *name, *layer;
  } cases[] = {{"roberta.encoder.layer.3.attention.self.query.weight", "roberta.encoder.layer.3"},
               {"model.layers.31.mlp.up_proj.weight", "model.layers.31"},
               {"transformer.h.11.ln_1.weight", "transformer.h.11"},
               {"h.0.attn.c_attn.bias", "h.0"},
               {"blocks.7.norm1.weight", "blocks.7"},
               {"encoder.block.2.layer.1.DenseReluDense.wi.weight", "encoder.block.2"},
               {"layer.5", "layer.5"},
               {"layers.007.x", "layers.007"},
               {"roberta.embeddings.word_embeddings.weight", ""},
               {"player.3.weight", ""},
               {"layer.3x.weight", ""},
               {"layer.x.3.weight", ""},
               {"layer..3.weight", ""},
               {"layer.", ""},
               {"layer", ""},
               {"a.layer", ""},
               {"layers3.weight", ""},
               {"classifier.dense.weight", ""},
               {"..", ""},
               {"", ""},
               {"layer.layer.1.w", "layer.layer.1"}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    const size_t length = mg_layer_prefix(cases[k].name);
    if (length != strlen(cases[k].layer)) print_error("%s: %zu\n", cases[k].name, length);
    assert_int_equal(length, strlen(cases[k].layer));
    assert_memory_equal(cases[k].name, cases[k].layer, length);
  }
}

static mg_tensor three[] = {
    {.name = "emb.weight", .layer = "", .ndim = 2, .shape = {3, 2}, .numel = 6},
    {.name = "layer.0.weight", .layer = "layer.0", .ndim = 1, .shape = {4}, .numel = 4, .offset = 6},
    {.name = "classifier.weight", .layer = "", .ndim = 1, .shape = {5}, .numel = 5, .offset = 10, .source_only = true}};
static const mg_tensor_table table = {.count = 3, .tensors = three, .elements = 15};

static void tensors_are_selected(void **state) {
  (void)state;
  bool selected[3];
  mg_strings exclude = {0};
  assert_int_equal(mg_select_tensors(&table, &exclude, selected), MG_OK);
  assert_true(selected[0] && selected[1] && selected[2]);
  assert_int_equal(mg_strings_add(&exclude, "classifier.*"), MG_OK);
  assert_int_equal(mg_select_tensors(&table, &exclude, selected), MG_OK);
  assert_true(selected[0] && selected[1] && !selected[2]);
  /* a star crosses dots and slashes; a glob is for the whole name */
  assert_int_equal(mg_strings_add(&exclude, "layer*weight"), MG_OK);
  assert_int_equal(mg_strings_add(&exclude, "emb"), MG_OK);
  assert_int_equal(mg_select_tensors(&table, &exclude, selected), MG_OK);
  assert_true(selected[0] && !selected[1] && !selected[2]);
  assert_int_equal(mg_strings_add(&exclude, "[de]mb.?eight"), MG_OK);
  assert_int_equal(mg_select_tensors(&table, &exclude, selected), MG_ERR_CONFIG);
  assert_told("exclude", "3");
  mg_strings_free(&exclude);
}

static void tables_are_copied_and_hashed(void **state) {
  (void)state;
  mg_tensor_table copy;
  const uint64_t hash = mg_tensor_table_hash(&table);
  assert_int_equal(mg_tensor_table_copy(&table, &copy), MG_OK);
  assert_int_equal(copy.count, 3);
  assert_int_equal(copy.elements, 15);
  assert_ptr_not_equal(copy.tensors[1].name, three[1].name);
  assert_string_equal(copy.tensors[1].name, "layer.0.weight");
  assert_string_equal(copy.tensors[1].layer, "layer.0");
  assert_int_equal(copy.tensors[2].offset, 10);
  assert_true(mg_tensor_table_hash(&copy) == hash);
  copy.tensors[0].source_only = true;
  assert_false(mg_tensor_table_hash(&copy) == hash);
  copy.tensors[0].source_only = false;
  copy.tensors[0].shape[0] = 2, copy.tensors[0].shape[1] = 3;
  assert_false(mg_tensor_table_hash(&copy) == hash);
  copy.tensors[0].shape[0] = 3, copy.tensors[0].shape[1] = 2;
  copy.tensors[0].name[0] = 'E';
  assert_false(mg_tensor_table_hash(&copy) == hash);
  copy.tensors[0].name[0] = 'e';
  assert_true(mg_tensor_table_hash(&copy) == hash);
  mg_tensor_table_free(&copy);
  assert_null(copy.tensors);
  mg_tensor_table_free(&copy);
  assert_int_equal(mg_tensor_table_copy(&(mg_tensor_table){0}, &copy), MG_OK);
  assert_int_equal(copy.count, 0);
  mg_tensor_table_free(&copy);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(layers_are_found), cmocka_unit_test(tensors_are_selected),
                                     cmocka_unit_test(tables_are_copied_and_hashed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
