/* What init prints, as a string: a piece of the tests of init. */

#ifndef MERGEGRID_TEST_INIT_TEXT_H
#define MERGEGRID_TEST_INIT_TEXT_H

static mg_status print(const mg_init_options *options, char **text) {
  size_t size = 0;
  *text = NULL;
  FILE *out = open_memstream(text, &size);
  assert_non_null(out);
  const mg_status status = mg_init_print(options, out);
  assert_int_equal(fclose(out), 0);
  if (status != MG_OK) assert_int_equal(size, 0);
  return status;
}

static char *printed(const mg_init_options *options) {
  char *text;
  if (print(options, &text) != MG_OK) fail_msg("%s", mg_error_message());
  return text;
}

static void assert_has(const char *text, const char *part) {
  if (strstr(text, part) == NULL) fail_msg("lacks: %s\nin:\n%s", part, text);
}

#endif
