/* The table of methods: complete, and every value's text reads back. */
#include "mergegrid/method.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/text.h"

static void table_is_complete(void **state) {
  (void)state;
  for (size_t k = 0; k < mg_method_count; k++) {
    const mg_method *m = &mg_methods[k], *found;
    assert_int_equal(mg_method_find(m->name, &found), MG_OK);
    assert_ptr_equal(found, m); /* no name comes twice */
    assert_non_null(m->help);
    assert_true(m->parameter_count <= MG_MOST_PARAMETERS);
    for (size_t p = 0; p < MG_MOST_PARAMETERS; p++) {
      if ((p < m->parameter_count) != (m->parameters[p].name != NULL))
        fail_msg("%s has not %zu parameters", m->name, m->parameter_count);
      if (p < m->parameter_count) assert_int_equal(mg_method_parameter(m, m->parameters[p].name), (int)p);
    }
  }
}

static void assert_reads_back(const mg_method *m, size_t p, double value) {
  mg_text text = {0};
  double values[MG_MOST_PARAMETERS] = {0};
  mg_parameter_text(&m->parameters[p], value, &text);
  if (mg_method_set(m, m->parameters[p].name, text.data, values) != MG_OK) fail_msg("%s", mg_error_message());
  if (values[p] != value) fail_msg("%s.%s: %s", m->name, m->parameters[p].name, text.data);
  mg_text_free(&text);
}

static void values_read_back(void **state) {
  (void)state;
  for (size_t k = 0; k < mg_method_count; k++) {
    double values[MG_MOST_PARAMETERS];
    mg_method_defaults(&mg_methods[k], values);
    for (size_t p = 0; p < mg_methods[k].parameter_count; p++) {
      const mg_parameter *parameter = &mg_methods[k].parameters[p];
      assert_reads_back(&mg_methods[k], p, values[p]);
      if (parameter->type == MG_PARAMETER_NUMBER && !parameter->high_open)
        assert_reads_back(&mg_methods[k], p, parameter->high);
      for (int c = 0; parameter->type == MG_PARAMETER_CHOICE && parameter->choices[c] != NULL; c++)
        assert_reads_back(&mg_methods[k], p, c);
    }
  }
}

static void assert_layers(const char *text, const char *expected) {
  double set;
  mg_text out = {0};
  if (!mg_layers_parse(text, &set)) fail_msg("'%s' is refused", text);
  mg_layers_text(set, &out);
  assert_string_equal(out.data, expected);
  mg_text_free(&out);
}

static void layers(void **state) {
  (void)state;
  assert_layers("none", "none");
  assert_layers("0-3,8", "0-3,8");
  assert_layers("8, 3 ,0-2", "0-3,8");
  assert_layers("49", "49");
  assert_layers("0-49", "0-49");
  assert_layers("top,bottom,5", "5,bottom,top");
  assert_layers("7,8,10", "7-8,10");
  static const char *const refused[] = {"",   "50", "0-50", "3-1",  "-1",  "1-",
                                        "0,", ",",  "1;2",  "tops", "1e1", "99999999999999999999"};
  for (size_t k = 0; k < sizeof refused / sizeof *refused; k++) {
    double set;
    if (mg_layers_parse(refused[k], &set)) fail_msg("'%s' is taken", refused[k]);
  }
}

/* Which of count layers a text means, as a string of 0 and 1. */
static void assert_members(const char *text, size_t count, const char *expected) {
  double set;
  assert_true(mg_layers_parse(text, &set));
  for (size_t k = 0; k < count; k++)
    if (mg_layers_have(set, k, count) != (expected[k] == '1')) fail_msg("%s of %zu: layer %zu", text, count, k);
}

static void thirds(void **state) {
  (void)state;
  double set;
  assert_members("bottom", 12, "111100000000");
  assert_members("middle", 12, "000011110000");
  assert_members("top", 12, "000000001111");
  assert_members("bottom,top", 4, "1001");
  assert_members("middle", 4, "0110");
  assert_members("middle", 2, "00");
  assert_members("middle", 1, "1");
  assert_members("1,top", 5, "01011");
  assert_members("none", 3, "000");
  assert_true(mg_layers_parse("3,top", &set));
  assert_int_equal(mg_layers_last(set), 3);
  assert_true(mg_layers_parse("top", &set));
  assert_int_equal(mg_layers_last(set), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(table_is_complete), cmocka_unit_test(values_read_back),
                                     cmocka_unit_test(layers), cmocka_unit_test(thirds)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
