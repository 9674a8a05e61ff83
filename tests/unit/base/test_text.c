#include "mergegrid/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void text_grows(void **state) {
  (void)state;
  mg_text text = {0};
  for (int i = 0; i < 1000; i++) mg_text_append(&text, "%d,", i);
  assert_false(text.failed);
  assert_int_equal(strlen(text.data), text.size);
  assert_int_equal(text.size, 10 * 2 + 90 * 3 + 900 * 4);
  mg_text_free(&text);
}

static void lists_keep_and_sort(void **state) {
  (void)state;
  mg_strings list = {0};
  const char *const words[] = {"sw-KE", "af-ZA", "zh-TW", "en-US", "de-DE"};
  for (int i = 0; i < 5; i++) assert_int_equal(mg_strings_add(&list, words[i]), MG_OK);
  assert_int_equal(mg_strings_find(&list, "zh-TW"), 2);
  mg_strings_sort(&list);
  assert_string_equal(list.items[0], "af-ZA");
  assert_string_equal(list.items[4], "zh-TW");
  assert_int_equal(mg_strings_find(&list, "xx"), -1);
  mg_strings_free(&list);
}

static void natural_order(void **state) {
  (void)state;
  const char *const order[] = {"", "a", "a.1", "a.01.b", "a.2", "a.10", "a.10.b", "ab", "b"};
  for (int i = 0; i < 9; i++)
    for (int j = 0; j < 9; j++) {
      const int sign = mg_natural_compare(order[i], order[j]);
      if (i == 3 || j == 3) continue; /* leading zeros: only distinct */
      assert_true((sign > 0) == (i > j) && (sign < 0) == (i < j));
    }
  assert_true(mg_natural_compare("a01", "a1") != 0);
  assert_true(mg_natural_compare("x99999999999999999999999", "x100000000000000000000000") < 0);
}

static void nearest_word(void **state) {
  (void)state;
  const char *const keys[] = {"shards", "stages", "seed", "result"};
  assert_string_equal(mg_nearest("shard", keys, 4), "shards");
  assert_string_equal(mg_nearest("reslut", keys, 4), "result");
  assert_null(mg_nearest("completely-different", keys, 4));
}

static void durations(void **state) {
  (void)state;
  char text[32];
  assert_string_equal(mg_format_hours(0, text), "0 s");
  assert_string_equal(mg_format_hours(8.5e-7, text), "under 1 s");
  assert_string_equal(mg_format_hours(40 / 3600.0, text), "40 s");
  assert_string_equal(mg_format_hours(99.4 / 3600, text), "99 s");
  assert_string_equal(mg_format_hours(0.2, text), "12 min");
  assert_string_equal(mg_format_hours(2.94, text), "2.9 h");
  assert_string_equal(mg_format_hours(1234.5, text), "1234 h");
}

static void byte_sizes(void **state) {
  (void)state;
  uint64_t bytes;
  assert_true(mg_parse_bytes("2GiB", &bytes) && bytes == UINT64_C(2) << 30);
  assert_true(mg_parse_bytes("300 MiB", &bytes) && bytes == UINT64_C(300) << 20);
  assert_true(mg_parse_bytes("1024", &bytes) && bytes == 1024);
  assert_true(mg_parse_bytes("1.5kB", &bytes) && bytes == 1500);
  const char *const bad[] = {"", "GiB", "-1", "2 parsecs", "1e300", "nan", "0x10 GiB?"};
  for (int i = 0; i < 7; i++) assert_false(mg_parse_bytes(bad[i], &bytes));
  char buffer[32];
  assert_string_equal(mg_format_bytes(1536, buffer), "1.5 KiB");
}

static void utf8(void **state) {
  (void)state;
  const char *const good[] = {"", "abc", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF"};
  const char *const bad[] = {"\x80",         "\xC0\x80",         "\xC3", "\xE0\x80\x80",
                             "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF", "\xE2\x82"};
  for (int i = 0; i < 6; i++) assert_true(mg_valid_utf8(good[i], strlen(good[i])));
  for (int i = 0; i < 8; i++) assert_false(mg_valid_utf8(bad[i], strlen(bad[i])));
}

static void allocation_overflow_fails(void **state) {
  (void)state;
  assert_null(mg_alloc(SIZE_MAX / 2, 4));
  assert_null(mg_alloc_aligned(SIZE_MAX - 3));
  assert_non_null(strstr(mg_error_message(), "out of memory"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(text_grows),    cmocka_unit_test(lists_keep_and_sort),
                                     cmocka_unit_test(natural_order), cmocka_unit_test(nearest_word),
                                     cmocka_unit_test(durations),     cmocka_unit_test(byte_sizes),
                                     cmocka_unit_test(utf8),          cmocka_unit_test(allocation_overflow_fails)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
