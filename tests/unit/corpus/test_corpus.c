/* The corpus reader: the demonstration's texts, and everything a file of texts can have wrong. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/corpus.h"

static char *const ONE[] = {"test"};
static const mg_strings TEST = {.count = 1, .items = (char **)ONE};
static char *const NAMED[] = {"alarm_set", "music_play"};
static const mg_strings NAMES = {.count = 2, .items = (char **)NAMED};
static char *const NUMBERED[] = {"LABEL_0", "LABEL_1"};
static const mg_strings NUMBERS = {.count = 2, .items = (char **)NUMBERED};

static void touch(const char *path) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fclose(file);
}

static void test_locales(void **state) {
  (void)state;
  char dir[] = "/tmp/corpus[x]_XXXXXX", path[128];
  assert_non_null(mkdtemp(dir));
  for (const char *const *name = (const char *const[]){"sw-KE.a.jsonl", "af-ZA.a.jsonl", "x.jsonl", ".a.jsonl", NULL}; *name;
       name++) {
    snprintf(path, sizeof path, "%s/%s", dir, *name);
    touch(path);
  }
  snprintf(path, sizeof path, "%s/{locale}.a.jsonl", dir);
  mg_texts_spec spec = {.files = path};
  mg_strings locales;
  assert_int_equal(mg_corpus_locales(&spec, &locales), MG_OK);
  assert_int_equal(locales.count, 2); /* byte-sorted; no hidden files, no others */
  assert_string_equal(locales.items[0], "af-ZA");
  assert_string_equal(locales.items[1], "sw-KE");
  mg_strings_free(&locales);
  snprintf(path, sizeof path, "%s/none-{locale}", dir);
  assert_int_equal(mg_corpus_locales(&spec, &locales), MG_OK);
  assert_int_equal(locales.count, 0);
  spec.files = dir;
  assert_int_equal(mg_corpus_locales(&spec, &locales), MG_ERR_CONFIG);
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", dir);
  assert_int_equal(system(command), 0);
}

static const char *scratch(const char *suffix) {
  static char path[64];
  snprintf(path, sizeof path, "/tmp/mergegrid-corpus-%d%s", (int)getpid(), suffix);
  return path;
}

static mg_texts_spec spec_of(const char *path) {
  return (mg_texts_spec){
      .files = (char *)path, .id = "id", .text = "utt", .label = "intent", .partition = "partition", .max_length = 512};
}

/* Writes a file of `size` bytes and reads partition test from it. */
static mg_status read_bytes(const char *suffix, const char *bytes, size_t size, const mg_strings *labels, mg_corpus *corpus) {
  const char *path = scratch(suffix);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  fclose(file);
  const mg_texts_spec spec = spec_of(path);
  const mg_status status = mg_corpus_read(&spec, "xx-XX", &TEST, labels, 0, corpus);
  unlink(path);
  return status;
}

static void expect_error(const char *suffix, const char *bytes, size_t size, const mg_strings *labels, const char *message) {
  mg_corpus corpus;
  assert_int_equal(read_bytes(suffix, bytes, size, labels, &corpus), MG_ERR_INPUT);
  if (strstr(mg_error_message(), message) == NULL)
    fail_msg("'%s' was expected in the message '%s'", message, mg_error_message());
  assert_null(corpus.text);
}

static void test_demo(void **state) {
  (void)state;
  char *const names[] = {"test", "validation", "train"};
  const mg_strings partitions = {.count = 3, .items = (char **)names};
  const mg_texts_spec spec = spec_of(MG_TEST_DATA "/emoji48/texts/{locale}.jsonl");
  mg_corpus corpora[3];
  assert_int_equal(mg_corpus_read(&spec, "sw-KE", &partitions, NULL, 0, corpora), MG_OK);
  assert_string_equal(corpora[0].id[0], "a9.0");
  assert_string_equal(corpora[0].text[0], "hakimiliki");
  assert_int_equal(corpora[0].size[0], 10);
  assert_int_equal(corpora[0].label[0], -1);
  assert_int_equal(corpora[0].line[1], 2);
  size_t lines = 0;
  FILE *file = fopen(MG_TEST_DATA "/emoji48/texts/sw-KE.jsonl", "r");
  assert_non_null(file);
  for (int byte; (byte = getc(file)) != EOF;) lines += byte == '\n';
  fclose(file);
  assert_int_equal(corpora[0].count + corpora[1].count + corpora[2].count, lines);
  assert_true(corpora[1].count > 100);
  for (size_t p = 0; p < 3; p++) mg_corpus_free(&corpora[p]);
  assert_int_equal(mg_corpus_read(&spec, "sw-KE", &partitions, NULL, 7, corpora), MG_OK);
  for (size_t p = 0; p < 3; p++) {
    assert_int_equal(corpora[p].count, 7);
    mg_corpus_free(&corpora[p]);
  }
}

static void test_labels_by_name_and_number(void **state) {
  (void)state;
  static const char text[] =
      "\xEF\xBB\xBF{\"id\": 7, \"utt\": \"a\\u0000b\", \"intent\": \"music_play\", \"partition\": \"test\"}\r\n\n"
      "{\"utt\": \"\", \"intent\": 0, \"partition\": \"test\"}\n"
      "{\"utt\": \"x\", \"intent\": \"nobody asks\", \"partition\": \"train\"}\n"
      "{\"utt\": \"y\", \"intent\": \"LABEL_1\", \"partition\": \"test\"}";
  mg_corpus corpus;
  assert_int_equal(read_bytes(".jsonl", text, sizeof text - 1, &NAMES, &corpus), MG_OK);
  assert_int_equal(corpus.count, 3);
  assert_string_equal(corpus.id[0], "7");
  assert_int_equal(corpus.size[0], 3);
  assert_memory_equal(corpus.text[0], "a\0b", 4);
  assert_int_equal(corpus.label[0], 1);
  assert_string_equal(corpus.id[1], "3");
  assert_int_equal(corpus.label[1], 0);
  assert_int_equal(corpus.label[2], 1);
  mg_corpus_free(&corpus);
}

static void test_tsv(void **state) {
  (void)state;
  static const char text[] = "intent\tutt\tpartition\n1\teins zwei\ttest\nalarm_set\t\ttest\n";
  mg_corpus corpus;
  assert_int_equal(read_bytes(".tsv", text, sizeof text - 1, &NAMES, &corpus), MG_OK);
  assert_int_equal(corpus.count, 2);
  assert_string_equal(corpus.text[0], "eins zwei");
  assert_string_equal(corpus.id[0], "2");
  assert_int_equal(corpus.label[0], 1);
  assert_int_equal(corpus.label[1], 0);
  mg_corpus_free(&corpus);
}

static void test_bad_files(void **state) {
  (void)state;
#define BAD(suffix, bytes, labels, message) expect_error(suffix, bytes, sizeof(bytes) - 1, labels, message)
#define GOOD_LINE                           "{\"utt\": \"a\", \"intent\": 0, \"partition\": \"test\"}\n"
  BAD(".jsonl", GOOD_LINE "{\"utt\": \"b\xFFz\"}\n", NULL, ":2: no valid UTF-8 at byte 11");
  BAD(".jsonl", GOOD_LINE "{\"utt\": \"b\"", NULL, ":2: no JSON");
  BAD(".jsonl", "[1]\n", NULL, ":1: a JSON object was expected");
  BAD(".jsonl", "{\"utt\": 3, \"partition\": \"test\"}\n", NULL, "field 'utt': a string was expected, found an integer");
  BAD(".jsonl", "{\"utt\": \"a\"}\n", NULL, "field 'partition': a string was expected, found none");
  BAD(".jsonl", "{\"utt\": \"a\", \"utt\": \"b\", \"partition\": \"test\"}\n", NULL, "no JSON");
  BAD(".jsonl", "{\"utt\": \"a\", \"intent\": [], \"partition\": \"test\"}\n", NULL, "field 'intent'");
  BAD(".jsonl", "{\"utt\": \"a\", \"id\": {}, \"partition\": \"test\"}\n", NULL, "field 'id'");
  BAD(".jsonl", "{\"utt\": \"a\", \"partition\": \"test\"}\n", &NAMES, ":1: the text has no label");
  BAD(".jsonl", "{\"utt\": \"a\", \"intent\": \"music_pley\", \"partition\": \"test\"}\n", &NAMES,
      "the nearest is 'music_play'");
  BAD(".jsonl", "{\"utt\": \"a\", \"intent\": \"music_play\", \"partition\": \"test\"}\n", &NUMBERS, "texts.labels: FILE");
  BAD(".jsonl", "{\"utt\": \"a\", \"intent\": 2, \"partition\": \"test\"}\n", &NAMES, "label 2 is out of range");
  BAD(".jsonl", "{\"utt\": \"a\", \"intent\": -1, \"partition\": \"test\"}\n", &NAMES, "label -1 is out of range");
  BAD(".tsv", "", NULL, "is empty; a header line was expected");
  BAD(".tsv", "utt\tintent\n", NULL, "the header line has no column 'partition'");
  BAD(".tsv", "utt\tpartition\na\n", NULL, ":2: 1 columns, where the header line has 2");
  BAD(".tsv", "utt\tpartition\na\0b\ttest\n", NULL, ":2: a NUL");
  const mg_texts_spec gone = spec_of("/nonexistent/{locale}.jsonl"), directory = spec_of("/tmp");
  mg_corpus corpus;
  assert_int_equal(mg_corpus_read(&gone, "sw-KE", &TEST, NULL, 0, &corpus), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "texts of sw-KE: /nonexistent/sw-KE.jsonl"));
  assert_int_equal(mg_corpus_read(&directory, "sw-KE", &TEST, NULL, 0, &corpus), MG_ERR_INPUT);
}

static void test_endless_line(void **state) {
  (void)state;
  const size_t size = ((size_t)16 << 20) + 10;
  char *bytes = malloc(size);
  assert_non_null(bytes);
  memset(bytes, 'a', size);
  expect_error(".jsonl", bytes, size, NULL, ":1: the line is longer than 16 MiB");
  free(bytes);
}

static mg_status names_from(const char *bytes, const mg_strings *model, mg_strings *labels) {
  const char *path = scratch(".labels");
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(bytes, file);
  fclose(file);
  mg_texts_spec spec = spec_of("x");
  spec.labels = (char *)path;
  const mg_status status = mg_corpus_labels(&spec, model, labels);
  unlink(path);
  return status;
}

static void test_label_files(void **state) {
  (void)state;
  mg_strings labels;
  const mg_texts_spec none = spec_of("x");
  assert_int_equal(mg_corpus_labels(&none, &NAMES, &labels), MG_OK);
  assert_int_equal(labels.count, 2);
  mg_strings_free(&labels);
  assert_int_equal(names_from("alarm_set\nmusic_play\n", &NUMBERS, &labels), MG_OK);
  assert_string_equal(labels.items[1], "music_play");
  mg_strings_free(&labels);
  assert_int_equal(names_from("alarm_set\n", &NUMBERS, &labels), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "1 label names, where the models have 2 classes"));
  assert_int_equal(names_from("music_play\nalarm_set\n", &NAMES, &labels), MG_ERR_INPUT);
  assert_int_equal(names_from("a\na\n", &NUMBERS, &labels), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), ":2: label 'a' is there twice"));
  assert_int_equal(names_from("a\n\nb\n", &NUMBERS, &labels), MG_ERR_INPUT);
}

static void test_lines(void **state) {
  (void)state;
  mg_corpus corpus;
  const char text[] = "\xEF\xBB\xBF first \r\n\n \t\nsecond\xC2\xA0one", bad[] = "good\nb\xE9";
  const char *path = scratch(".txt");
  const struct {
    const char *bytes;
    size_t size;
  } files[] = {{text, sizeof text - 1}, {bad, sizeof bad - 1}, {" \n\r\n", 4}, {"", 0}};
  for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(files[k].bytes, 1, files[k].size, file), files[k].size);
    fclose(file);
    assert_int_equal(mg_corpus_read_lines(path, &corpus), k == 0 ? MG_OK : MG_ERR_INPUT);
    if (k > 0) assert_non_null(strstr(mg_error_message(), k == 1 ? ".txt:2" : "no text in it"));
    if (k > 0) continue;
    assert_int_equal(corpus.count, 2);
    assert_string_equal(corpus.text[0], "first");
    assert_string_equal(corpus.text[1], "second\xC2\xA0one");
    assert_int_equal(corpus.size[1], 11);
    assert_int_equal(corpus.line[1], 4);
    assert_string_equal(corpus.id[1], "4");
    mg_corpus_free(&corpus);
  }
  unlink(path);
  assert_int_equal(mg_corpus_read_lines(path, &corpus), MG_ERR_INPUT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_demo),        cmocka_unit_test(test_locales),   cmocka_unit_test(test_labels_by_name_and_number),
      cmocka_unit_test(test_tsv),         cmocka_unit_test(test_bad_files), cmocka_unit_test(test_endless_line),
      cmocka_unit_test(test_label_files), cmocka_unit_test(test_lines),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
