#include "fixture.h"

#include <sys/wait.h>

static mg_source_list list;

static void make(const char *name) { assert_int_equal(mg_make_dirs(at(name)), MG_OK); }

static mg_status resolve(const mg_family_spec *spec) { return mg_sources_resolve(spec, NULL, NULL, &list); }

static void expect(const mg_family_spec *spec, mg_status code) {
  const mg_status status = resolve(spec);
  if (status != code) print_error("status %d: %s\n", (int)status, mg_error_message());
  assert_int_equal(status, code);
}

static void add_locale(mg_family_spec *spec, const char *locale) {
  assert_int_equal(mg_strings_add(&spec->locales, locale), MG_OK);
}

static mg_family_spec pattern_of(const char *pattern) {
  return (mg_family_spec){.kind = MG_SOURCES_PATTERN, .pattern = strdup(pattern)};
}

static void add_entry(mg_family_spec *spec, const char *id, const char *path) {
  spec->entries = realloc(spec->entries, (spec->entry_count + 1) * sizeof *spec->entries);
  assert_non_null(spec->entries);
  spec->entries[spec->entry_count++] = (mg_source){.id = id ? strdup(id) : NULL, .path = strdup(path)};
}

/* ids joined by blanks */
static void expect_ids(const char *expected) {
  mg_text ids = {0};
  for (size_t k = 0; k < list.count; k++) mg_text_append(&ids, "%s%s", k ? " " : "", list.items[k].id);
  assert_string_equal(ids.data ? ids.data : "", expected);
  mg_text_free(&ids);
}

static void forget(mg_family_spec *spec) {
  mg_source_list_free(&list);
  mg_family_spec_free(spec);
}

static void a_pattern_finds_directories(void **state) {
  (void)state;
  make("p/xlmr_k_sw-KE");
  make("p/xlmr_k_af-ZA");
  make("p/xlmr_k_zh-TW");
  make("p/xlmr_k_");
  make("p/xlmr_de-DE");
  make("p/.xlmr_k_xx-XX");
  make("p/other");
  make("p/xlmr_k_B");
  put_text("p/xlmr_k_fr-FR", "a file");
  assert_int_equal(symlink("other", at("p/xlmr_k_it-IT")), 0);
  assert_int_equal(symlink("nowhere", at("p/xlmr_k_no-NO")), 0);
  mg_family_spec spec = pattern_of(at("p/xlmr_k_{locale}"));
  expect(&spec, MG_OK);
  expect_ids("B af-ZA it-IT sw-KE zh-TW");
  assert_string_equal(list.items[3].locale, "sw-KE");
  assert_string_equal(list.items[3].path, at("p/xlmr_k_sw-KE"));
  assert_int_equal(list.skipped.count, 0);
  forget(&spec);
}

static void the_place_may_be_anywhere(void **state) {
  (void)state;
  make("q/de-DE/best");
  make("q/fr-FR/best");
  make("q/it-IT/last");
  make("q/de-DE-x/a/b");
  mg_family_spec spec = pattern_of(at("q/{locale}/best"));
  expect(&spec, MG_OK);
  expect_ids("de-DE fr-FR");
  assert_string_equal(list.items[1].path, at("q/fr-FR/best"));
  forget(&spec);
  spec = pattern_of(at("q/{locale}-x/a/b"));
  expect(&spec, MG_OK);
  expect_ids("de-DE");
  forget(&spec);
  spec = pattern_of(at("q/{locale}/"));
  expect(&spec, MG_OK);
  expect_ids("de-DE de-DE-x fr-FR it-IT");
  forget(&spec);
  /* what is before and behind the place may not share a letter of the name */
  make("o/aba");
  make("o/abaaba");
  spec = pattern_of(at("o/aba{locale}aba"));
  expect(&spec, MG_ERR_INPUT);
  forget(&spec);
  make("o/aba-aba");
  spec = pattern_of(at("o/aba{locale}aba"));
  expect(&spec, MG_OK);
  expect_ids("-");
  forget(&spec);
}

static void a_relative_pattern(void **state) {
  (void)state;
  make("r/m_de");
  char *home = getcwd(NULL, 0);
  assert_non_null(home);
  assert_int_equal(chdir(at("r")), 0);
  mg_family_spec spec = pattern_of("m_{locale}");
  expect(&spec, MG_OK);
  expect_ids("de");
  assert_string_equal(list.items[0].path, "m_de");
  assert_int_equal(chdir(home), 0);
  free(home);
  forget(&spec);
}

static void locales_give_the_order(void **state) {
  (void)state;
  make("l/m_a");
  make("l/m_b");
  make("l/m_c");
  mg_family_spec spec = pattern_of(at("l/m_{locale}"));
  add_locale(&spec, "c");
  add_locale(&spec, "a");
  expect(&spec, MG_OK);
  expect_ids("c a");
  assert_string_equal(list.items[0].path, at("l/m_c"));
  forget(&spec);
}

static void patterns_that_find_nothing(void **state) {
  (void)state;
  make("n/a");
  mg_family_spec spec = pattern_of(at("n/model_{locale}"));
  expect(&spec, MG_ERR_INPUT);
  assert_told("no directory matches", at("n/model_{locale}"));
  forget(&spec);
  spec = pattern_of(at("n/absent/{locale}"));
  expect(&spec, MG_ERR_INPUT);
  assert_told(at("n/absent"), "No such file");
  forget(&spec);
  spec = pattern_of(at("n/a"));
  expect(&spec, MG_ERR_CONFIG);
  assert_told("{locale}", at("n/a"));
  forget(&spec);
  spec = pattern_of(at("n/{locale}_{locale}"));
  expect(&spec, MG_ERR_CONFIG);
  assert_told("exactly one");
  forget(&spec);
}

static void missing_ones_are_listed(void **state) {
  (void)state;
  make("m/m_a");
  mg_family_spec spec = pattern_of(at("m/m_{locale}"));
  add_locale(&spec, "x");
  add_locale(&spec, "a");
  add_locale(&spec, "y");
  expect(&spec, MG_ERR_INPUT);
  assert_told("2 of 3", at("m/m_x"), at("m/m_y"));
  assert_int_equal(list.count, 0);
  spec.skip_missing = true;
  expect(&spec, MG_OK);
  expect_ids("a");
  assert_int_equal(list.skipped.count, 2);
  assert_string_equal(list.skipped.items[0], "x");
  assert_string_equal(list.skipped.items[1], "y");
  mg_source_list_free(&list);
  /* nothing left is an error all the same */
  assert_int_equal(rmdir(at("m/m_a")), 0);
  expect(&spec, MG_ERR_INPUT);
  assert_told("no source is left", at("m/m_a"));
  forget(&spec);
}

static bool has_x(void *context, const char *id) {
  ++*(int *)context;
  return strcmp(id, "x") == 0;
}

static void a_shard_stands_in(void **state) {
  (void)state;
  int asked = 0;
  make("h/m_a");
  mg_family_spec spec = pattern_of(at("h/m_{locale}"));
  add_locale(&spec, "a");
  add_locale(&spec, "x");
  assert_int_equal(mg_sources_resolve(&spec, has_x, &asked, &list), MG_OK);
  expect_ids("a x");
  assert_true(asked > 0);
  mg_source_list_free(&list);
  add_locale(&spec, "y");
  assert_int_equal(mg_sources_resolve(&spec, has_x, &asked, &list), MG_ERR_INPUT);
  assert_told("1 of 3", at("h/m_y"));
  spec.skip_missing = true;
  assert_int_equal(mg_sources_resolve(&spec, has_x, &asked, &list), MG_OK);
  expect_ids("a x");
  assert_string_equal(list.skipped.items[0], "y");
  forget(&spec);
}

static void a_list(void **state) {
  (void)state;
  make("s/xlmr_k_sw-KE");
  make("s/xlmr_k_yue-HK");
  make("s/plain");
  make("s/xlmr_abcd-EF");
  mg_family_spec spec = {.kind = MG_SOURCES_LIST};
  add_entry(&spec, NULL, at("s/xlmr_k_sw-KE"));
  add_entry(&spec, NULL, at("s/plain/"));
  add_entry(&spec, NULL, at("s/xlmr_k_yue-HK//"));
  add_entry(&spec, NULL, at("s/xlmr_abcd-EF"));
  expect(&spec, MG_OK);
  expect_ids("xlmr_k_sw-KE plain xlmr_k_yue-HK xlmr_abcd-EF");
  assert_string_equal(list.items[0].locale, "sw-KE");
  assert_string_equal(list.items[1].locale, "plain");
  assert_string_equal(list.items[2].locale, "yue-HK");
  assert_string_equal(list.items[3].locale, "xlmr_abcd-EF");
  mg_source_list_free(&list);
  add_locale(&spec, "yue-HK");
  add_locale(&spec, "plain");
  expect(&spec, MG_OK);
  expect_ids("xlmr_k_yue-HK plain");
  mg_source_list_free(&list);
  add_locale(&spec, "de-DE");
  add_locale(&spec, "fr-FR");
  expect(&spec, MG_ERR_CONFIG);
  assert_told("de-DE, fr-FR");
  forget(&spec);
}

static void a_map(void **state) {
  (void)state;
  make("t/one");
  make("t/two");
  mg_family_spec spec = {.kind = MG_SOURCES_MAP};
  add_entry(&spec, "zulu", at("t/two"));
  add_entry(&spec, "sw-KE", at("t/one"));
  expect(&spec, MG_OK);
  expect_ids("zulu sw-KE");
  assert_string_equal(list.items[0].locale, "zulu");
  assert_string_equal(list.items[0].path, at("t/two"));
  mg_source_list_free(&list);
  add_locale(&spec, "sw-KE");
  expect(&spec, MG_OK);
  expect_ids("sw-KE");
  forget(&spec);
  spec = (mg_family_spec){.kind = MG_SOURCES_MAP};
  expect(&spec, MG_ERR_INPUT);
  assert_told("no source");
  forget(&spec);
}

static void duplicates_are_listed(void **state) {
  (void)state;
  make("d/1/m");
  make("d/2/m");
  make("d/3/n");
  mg_family_spec spec = {.kind = MG_SOURCES_LIST};
  add_entry(&spec, NULL, at("d/1/m"));
  add_entry(&spec, NULL, at("d/3/n"));
  add_entry(&spec, NULL, at("d/2/m"));
  add_entry(&spec, NULL, at("d/3/n"));
  expect(&spec, MG_ERR_CONFIG);
  assert_told("m: ", at("d/1/m"), at("d/2/m"), "n: ", at("d/3/n"));
  forget(&spec);
  make("d/m_a");
  spec = pattern_of(at("d/m_{locale}"));
  add_locale(&spec, "a");
  add_locale(&spec, "a");
  expect(&spec, MG_ERR_CONFIG);
  assert_told("a: ");
  forget(&spec);
}

/* Ids name files: they must not lead out of the directory, nor break a line of a list. */
static void ids_must_name_files(void **state) {
  (void)state;
  static const char *const bad[] = {"", ".", "..", "../x", "a/b", "a\nb", "a\x7F", "\xff"};
  make("i/m");
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
    mg_family_spec spec = {.kind = MG_SOURCES_MAP};
    add_entry(&spec, bad[k], at("i/m"));
    expect(&spec, MG_ERR_CONFIG);
    assert_told(bad[k], at("i/m"));
    forget(&spec);
  }
  char longest[232] = "";
  memset(longest, 'a', 231);
  mg_family_spec spec = {.kind = MG_SOURCES_MAP};
  add_entry(&spec, longest, at("i/m"));
  expect(&spec, MG_ERR_CONFIG);
  spec.entries[0].id[230] = '\0';
  expect(&spec, MG_OK);
  mg_source_list_free(&list);
  spec.entries[0].id[0] = ' '; /* three bytes in a file's name */
  expect(&spec, MG_ERR_CONFIG);
  spec.entries[0].id[228] = '\0';
  expect(&spec, MG_OK);
  forget(&spec);
  spec = (mg_family_spec){.kind = MG_SOURCES_LIST};
  add_entry(&spec, NULL, "/");
  expect(&spec, MG_ERR_CONFIG);
  forget(&spec);
}

static bool told_in_child(const mg_family_spec *spec, const char *what) {
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(3);
    const mg_status status = resolve(spec);
    const bool good = status != MG_OK && strstr(mg_error_message(), what) && strstr(mg_error_message(), "ermission");
    if (!good) fprintf(stderr, "%d: %s\n", (int)status, status != MG_OK ? mg_error_message() : "resolved");
    _exit(!good);
  }
  int outcome = -1;
  return child > 0 && waitpid(child, &outcome, 0) == child && WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0;
}

/* Not being allowed to look is an error, also where missing checkpoints are skipped. */
static void unreadable_directories(void **state) {
  (void)state;
  make("u/closed/m_a");
  assert_int_equal(chmod(at("u/closed"), 0), 0);
  mg_family_spec spec = pattern_of(at("u/closed/m_{locale}"));
  spec.skip_missing = true;
  assert_true(told_in_child(&spec, at("u/closed")));
  add_locale(&spec, "a");
  assert_true(told_in_child(&spec, at("u/closed")));
  mg_family_spec_free(&spec);
  make("u/half/m_a");
  assert_int_equal(chmod(at("u/half"), 0444), 0);
  spec = pattern_of(at("u/half/m_{locale}"));
  assert_true(told_in_child(&spec, at("u/half/m_a")));
  mg_family_spec_free(&spec);
}

static void the_real_family(void **state) {
  (void)state;
  mg_family_spec spec = pattern_of(MG_TEST_DATA "/emoji48/xlm-roberta-emoji_k_{locale}");
  expect(&spec, MG_OK);
  assert_int_equal(list.count, 48);
  assert_string_equal(list.items[0].id, "af-ZA");
  for (size_t k = 1; k < list.count; k++) assert_true(strcmp(list.items[k - 1].id, list.items[k].id) < 0);
  forget(&spec);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_pattern_finds_directories),
                                     cmocka_unit_test(the_place_may_be_anywhere),
                                     cmocka_unit_test(a_relative_pattern),
                                     cmocka_unit_test(locales_give_the_order),
                                     cmocka_unit_test(patterns_that_find_nothing),
                                     cmocka_unit_test(missing_ones_are_listed),
                                     cmocka_unit_test(a_shard_stands_in),
                                     cmocka_unit_test(a_list),
                                     cmocka_unit_test(a_map),
                                     cmocka_unit_test(duplicates_are_listed),
                                     cmocka_unit_test(ids_must_name_files),
                                     cmocka_unit_test(unreadable_directories),
                                     cmocka_unit_test(the_real_family)};
  return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
