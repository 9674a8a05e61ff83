#include "fixture.h"
#include "mergegrid/cursor.h"

static mg_family *open_family(void) {
  mg_source items[2] = {{.path = strdup(at("one"))}, {.path = strdup(at("two"))}};
  const mg_source_list list = {.count = 2, .items = items};
  char *base = strdup(at("base"));
  mg_family *family = NULL;
  assert_int_equal(mg_family_open(base, &list, NULL, &family), MG_OK);
  free(base), free(items[0].path), free(items[1].path);
  return family;
}

static mg_family *take(const mg_family *family, mg_text *text) {
  mg_family *told = NULL;
  mg_family_describe(family, text);
  assert_false(text->failed);
  mg_cursor cursor = {text->data, text->size};
  assert_int_equal(mg_family_open_described(&cursor, &told), MG_OK);
  assert_int_equal(cursor.left, 0);
  return told;
}

static void same_member(const mg_member *a, const mg_member *b, size_t tensors) {
  assert_string_equal(a->dir, b->dir);
  assert_int_equal(a->files.count, b->files.count);
  for (size_t k = 0; k < a->files.count; k++) {
    assert_string_equal(a->files.items[k], b->files.items[k]);
    assert_true(mg_file_stamp_equal(&a->stamps[k], &b->stamps[k]));
  }
  assert_int_equal(a->labels.count, b->labels.count);
  for (size_t k = 0; k < a->labels.count; k++) assert_string_equal(a->labels.items[k], b->labels.items[k]);
  assert_memory_equal(a->locations, b->locations, tensors * sizeof *a->locations);
  assert_int_equal(a->headers, b->headers);
}

static void make(const char *two) {
  put_checkpoint("base", NULL, "a.weight F32 5 2;layer.0.b F32 3");
  put_checkpoint("one", "{\"id2label\": {\"0\": \"x\", \"1\": \"y\"}}",
                 "a.weight F32 5 2;layer.0.b F32 3;classifier.w F32 2 2");
  put_checkpoint("two", "{\"id2label\": {\"0\": \"y\", \"1\": \"x\"}}", two);
}

static void test_all_of_it(void **state) {
  (void)state;
  mg_text text = {0};
  make("a.weight F16 5 2;layer.0.b F32 3;classifier.w F32 2 2");
  mg_family *family = open_family(), *told = take(family, &text);
  assert_int_equal(mg_tensor_table_hash(&told->table), mg_tensor_table_hash(&family->table));
  assert_int_equal(told->source_count, 2);
  for (size_t k = 0; k < family->table.count; k++) {
    assert_string_equal(told->table.tensors[k].layer, family->table.tensors[k].layer);
    assert_int_equal(told->table.tensors[k].offset, family->table.tensors[k].offset);
  }
  same_member(&told->base, &family->base, family->table.count);
  for (size_t k = 0; k < 2; k++) same_member(&told->sources[k], &family->sources[k], family->table.count);
  assert_int_equal(told->labels.count, 2);
  for (size_t size = 0; size < text.size; size += 7) { /* what is cut off is an error, never read past */
    mg_family *less = NULL;
    char *copy = malloc(size + 1);
    memcpy(copy, text.data, size);
    mg_cursor cursor = {copy, size};
    assert_int_equal(mg_family_open_described(&cursor, &less), MG_ERR_INTERNAL);
    assert_null(less);
    free(copy);
  }
  mg_family_close(&family), mg_family_close(&told);
  mg_text_free(&text);
}

/* Another stamp is no fault; another header is, and one that can't be read. */
static void test_the_same_here(void **state) {
  (void)state;
  mg_text text = {0};
  make("a.weight F16 5 2;layer.0.b F32 3;classifier.w F32 2 2");
  mg_family *family = open_family(), *told = take(family, &text);
  assert_int_equal(mg_member_look(&told->sources[1]), MG_OK);
  make("a.weight F16 5 2;layer.0.b F32 3;classifier.w F32 2 2");
  told->sources[1].stamps[0].mtime_ns++;
  assert_int_equal(mg_member_look(&told->sources[1]), MG_OK);
  make("a.weight F16 5 2;layer.0.b F16 3;classifier.w F32 2 2");
  assert_int_equal(mg_member_look(&told->sources[0]), MG_OK);
  assert_int_equal(mg_member_look(&told->sources[1]), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "is another checkpoint than rank 0's"));
  assert_int_equal(unlink(told->sources[1].files.items[0]), 0);
  assert_int_equal(mg_member_look(&told->sources[1]), MG_ERR_INPUT);
  mg_family_close(&family), mg_family_close(&told);
  mg_text_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_of_it), cmocka_unit_test(test_the_same_here)};
  return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
