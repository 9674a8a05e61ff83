/* The tokenizer against Hugging Face's fast one (tests/oracle/tokenizer.py), and files that are none. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/corpus.h"
#include "mergegrid/io.h"
#include "mergegrid/tokenizer.h"

static const char BASE[] = MG_TEST_DATA "/emoji48/xlm-roberta-emoji", JSON[] = MG_TEST_DATA "/tokenizer";
enum { LONGEST = 64 };

static size_t bytes_of(const char *hex, char *bytes) {
  size_t n = 0;
  for (; hex[2 * n] != '\n'; n++) {
    unsigned value;
    assert_int_equal(sscanf(hex + 2 * n, "%2x", &value), 1);
    bytes[n] = (char)value;
  }
  return n;
}

static int compare_text(const mg_tokenizer *t, const char *hex, const char *expected) {
  char bytes[4096], got[2048] = "";
  int32_t ids[LONGEST], count;
  size_t length = 0;
  assert_true(strlen(hex) < 2 * sizeof bytes);
  assert_int_equal(mg_tokenizer_encode(t, bytes, bytes_of(hex, bytes), LONGEST, ids, &count), MG_OK);
  for (int32_t k = 0; k < count; k++)
    length += (size_t)snprintf(got + length, sizeof got - length, "%s%d", k ? " " : "", ids[k]);
  got[length++] = '\n';
  got[length] = '\0';
  if (strcmp(got, expected) == 0) return 0;
  print_message("%s  expected %s  got      %s", hex, expected, got);
  return 1;
}

/* All of the demonstration's texts, in the order of the files' names and lines. */
static uint64_t hash_demo(const mg_tokenizer *t, const char *const *locales, size_t locale_count, size_t *texts) {
  char *const names[] = {"train", "dev", "test"};
  const mg_strings partitions = {.count = 3, .items = (char **)names};
  const mg_texts_spec spec = {.files = (char *)(MG_TEST_DATA "/emoji48/texts/{locale}.jsonl"),
                              .id = (char *)"id",
                              .text = (char *)"utt",
                              .label = (char *)"intent",
                              .partition = (char *)"partition"};
  uint64_t digest = UINT64_C(1469598103934665603);
  *texts = 0;
  for (size_t l = 0; l < locale_count; l++) {
    mg_corpus c[3];
    size_t at[3] = {0};
    assert_int_equal(mg_corpus_read(&spec, locales[l], &partitions, NULL, 0, c), MG_OK);
    for (;; ++*texts) {
      int next = -1; /* the partitions' texts again in the order of lines */
      for (int p = 0; p < 3; p++)
        if (at[p] < c[p].count && (next < 0 || c[p].line[at[p]] < c[next].line[at[next]])) next = p;
      if (next < 0) break;
      int32_t ids[LONGEST], count;
      const size_t k = at[next]++;
      assert_int_equal(mg_tokenizer_encode(t, c[next].text[k], c[next].size[k], LONGEST, ids, &count), MG_OK);
      for (int32_t i = 0; i < count; i++) digest = (digest ^ (uint64_t)ids[i]) * UINT64_C(1099511628211);
    }
    for (int p = 0; p < 3; p++) mg_corpus_free(&c[p]);
  }
  return digest;
}

static const char *const LOCALES[] = {"af-ZA", "am-ET", "ar-SA", "az-AZ", "bn-BD", "ca-ES", "cy-GB", "da-DK", "de-DE", "el-GR",
                                      "en-US", "es-ES", "fa-IR", "fi-FI", "fr-FR", "hi-IN", "hu-HU", "hy-AM", "id-ID", "is-IS",
                                      "it-IT", "ja-JP", "jv-ID", "ka-GE", "km-KH", "kn-IN", "ko-KR", "lv-LV", "ml-IN", "mn-MN",
                                      "ms-MY", "my-MM", "nb-NO", "nl-NL", "pl-PL", "pt-PT", "ro-RO", "ru-RU", "sl-SL", "sq-AL",
                                      "sw-KE", "ta-IN", "te-IN", "th-TH", "tl-PH", "tr-TR", "ur-PK", "vi-VN"};

/* The texts of a file of expectations; its last line into `last` [80]. */
static void compare_file(const mg_tokenizer *t, const char *name, char *last) {
  char *hex = NULL, *ids = NULL, path[256];
  size_t hex_room = 0, ids_room = 0;
  int wrong = 0, seen = 0;
  last[0] = '\0';
  snprintf(path, sizeof path, "%s/tokenizer/%s", MG_TEST_DATA, name);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  while (getline(&hex, &hex_room, file) > 0) {
    if (strncmp(hex, "all ", 4) == 0) {
      snprintf(last, 80, "%s", hex);
      break;
    }
    assert_true(getline(&ids, &ids_room, file) > 0);
    wrong += compare_text(t, hex, ids);
    seen++;
  }
  fclose(file);
  free(hex), free(ids);
  assert_true(seen > 1000);
  if (wrong > 0) fail_msg("%d of %d texts differ", wrong, seen);
}

static void compare_all(const char *dir) {
  mg_tokenizer *t = NULL;
  char last[80];
  size_t texts, expected_texts;
  unsigned long long digest;
  assert_int_equal(mg_tokenizer_open(dir, &t), MG_OK);
  assert_int_equal(mg_tokenizer_vocabulary(t), 6002);
  compare_file(t, "expected.txt", last);
  assert_int_equal(sscanf(last, "all %zu %llu", &expected_texts, &digest), 2);
  assert_true(hash_demo(t, LOCALES, 48, &texts) == digest);
  assert_int_equal(texts, expected_texts);
  mg_tokenizer_close(&t);
}

static void test_sentencepiece(void **state) {
  (void)state;
  compare_all(BASE);
}

static void test_json(void **state) {
  (void)state;
  compare_all(JSON);
}

/* tokenizer.json with another normalizer and pre_tokenizer around the same pieces, as tests/oracle/tokenizer.py makes them. */
static void compare_variant(const char *steps, const char *name) {
  static const char sequence[] = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},";
  char dir[64], path[128], last[80], *text = NULL, *at, *end;
  size_t size;
  mg_tokenizer *t = NULL;
  assert_int_equal(mg_read_file(MG_TEST_DATA "/tokenizer/tokenizer.json", 1 << 24, &text, &size), MG_OK);
  snprintf(dir, sizeof dir, "/tmp/mergegrid-tokenizer-%d", (int)getpid());
  mkdir(dir, 0700);
  snprintf(path, sizeof path, "%s/tokenizer.json", dir);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  at = strstr(text, "\"normalizer\":{");
  assert_non_null(at);
  at += strlen("\"normalizer\":");
  end = strchr(at, '}') + 1;
  fprintf(file, "%.*s{\"type\":\"Sequence\",\"normalizers\":[%.*s,%s]}", (int)(at - text), text, (int)(end - at), at, steps);
  at = strstr(end, sequence);
  assert_non_null(at);
  fprintf(file, "%.*s", (int)(at - end), end);
  at += sizeof sequence - 1;
  end = strstr(at, "]}");
  fprintf(file, "%.*s%s", (int)(end - at), at, end + 2);
  fclose(file);
  free(text);
  assert_int_equal(mg_tokenizer_open(dir, &t), MG_OK);
  compare_file(t, name, last);
  mg_tokenizer_close(&t);
  unlink(path);
  rmdir(dir);
}

static void test_transformers_4(void **state) {
  (void)state;
  compare_variant("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}", "expected-4.34.txt");
  compare_variant("{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true},"
                  "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\"\xE2\x96\x81\"}",
                  "expected-4.40.txt");
}

static void test_limits(void **state) {
  (void)state;
  mg_tokenizer *t = NULL;
  int32_t ids[8], count;
  assert_int_equal(mg_tokenizer_open(BASE, &t), MG_OK);
  assert_int_equal(mg_tokenizer_max_length(t), 64);
  assert_int_equal(mg_tokenizer_encode(t, "a a a a a a a a", 15, 5, ids, &count), MG_OK);
  assert_int_equal(count, 5);
  assert_int_equal(ids[0], 0);
  assert_int_equal(ids[4], 2);
  assert_int_equal(mg_tokenizer_encode(t, "a", 1, 2, ids, &count), MG_OK);
  assert_int_equal(count, 2);
  assert_int_equal(mg_tokenizer_encode(t, "a\xFF", 2, 8, ids, &count), MG_ERR_INPUT);
  mg_tokenizer_close(&t);
}

static void expect_refusal(const char *name, const char *bytes, size_t size, const char *message) {
  char dir[64], path[128];
  mg_tokenizer *t = NULL;
  snprintf(dir, sizeof dir, "/tmp/mergegrid-tokenizer-%d", (int)getpid());
  mkdir(dir, 0700);
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  fclose(file);
  const mg_status status = mg_tokenizer_open(dir, &t);
  unlink(path);
  rmdir(dir);
  assert_int_equal(status, MG_ERR_INPUT);
  if (strstr(mg_error_message(), message) == NULL || strstr(mg_error_message(), name) == NULL)
    fail_msg("'%s' was expected in the message '%s'", message, mg_error_message());
}

static void test_bad_files(void **state) {
  (void)state;
  mg_tokenizer *t = NULL;
  char *model = NULL;
  size_t size;
  assert_int_equal(mg_tokenizer_open("/tmp", &t), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "no tokenizer"));
#define BAD_JSON(text, message) expect_refusal("tokenizer.json", text, sizeof(text) - 1, message)
  BAD_JSON("{", "no valid JSON");
  BAD_JSON("{}", "the model is not Unigram");
  BAD_JSON("{\"model\": {\"type\": \"BPE\"}}", "the model is not Unigram");
  BAD_JSON("{\"model\": {\"type\": \"Unigram\", \"byte_fallback\": true}}", "byte_fallback");
  BAD_JSON("{\"model\": {\"type\": \"Unigram\"}, \"normalizer\": {\"type\": \"NFC\"}}", "another normalizer");
  expect_refusal("sentencepiece.bpe.model", "", 0, "no SentencePiece model");
  expect_refusal("sentencepiece.bpe.model", "nonsense", 8, "no SentencePiece model");
  assert_int_equal(mg_read_file(MG_TEST_DATA "/emoji48/xlm-roberta-emoji/sentencepiece.bpe.model", 1 << 24, &model, &size),
                   MG_OK);
  expect_refusal("sentencepiece.bpe.model", model, size / 2, "SentencePiece model");
  /* a trie that leads out of its bounds: the library would follow it */
  char *map = NULL;
  for (size_t k = 0; k + 4 < size && map == NULL; k++)
    if (memcmp(model + k, "nmt_nfkc", 8) == 0) map = model + k + 8;
  assert_non_null(map);
  memset(map + 64, 0x7F, 4096);
  expect_refusal("sentencepiece.bpe.model", model, size, "the map of characters is damaged");
  free(model);
}

static void expect_foreign(const char *name, const char *text, bool foreign) {
  char dir[] = "/tmp/mergegrid-tokenizer-XXXXXX", path[64];
  assert_non_null(mkdtemp(dir));
  snprintf(path, sizeof path, "%s/%s", dir, name);
  assert_int_equal(mg_replace_file(path, text, strlen(text)), MG_OK);
  if (mg_tokenizer_is_foreign(dir) != foreign) fail_msg("%s: %s", name, text);
  unlink(path);
  rmdir(dir);
}

/* Another kind is not a damaged one, nor one that is not there. */
static void test_foreign(void **state) {
  (void)state;
  expect_foreign("tokenizer.json", "{\"model\": {\"type\": \"BPE\"}}", true);
  expect_foreign("tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}", false);
  expect_foreign("tokenizer.json", "{\"model\": {}}", false);
  expect_foreign("tokenizer.json", "{", false);
  expect_foreign("vocab.json", "{}", true);
  expect_foreign("vocab.txt", "[PAD]", true);
  expect_foreign("sentencepiece.bpe.model", "nonsense", false);
  expect_foreign("config.json", "{}", false);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sentencepiece),  cmocka_unit_test(test_json),
                                     cmocka_unit_test(test_transformers_4), cmocka_unit_test(test_limits),
                                     cmocka_unit_test(test_bad_files),      cmocka_unit_test(test_foreign)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
