#include "fixture.h"

#include <sys/wait.h>

static mg_checkpoint *checkpoint;

/* name must be refused with its path and `what` in the message. */
static void refuse(const char *name, mg_status code, const char *what) {
  const mg_status status = mg_checkpoint_open(at(name), &checkpoint);
  if (status != code) print_error("%s: status %d: %s\n", name, (int)status, mg_error_message());
  assert_int_equal(status, code);
  assert_null(checkpoint);
  assert_told(at(name), what);
}

static void accept(const char *name) {
  const mg_status status = mg_checkpoint_open(at(name), &checkpoint);
  if (status != MG_OK) print_error("%s\n", mg_error_message());
  assert_int_equal(status, MG_OK);
}

static void a_single_file(void **state) {
  (void)state;
  put_checkpoint("single", "{\"model_type\": \"bert\", \"id2label\": {\"1\": \"b\", \"0\": \"a\"}}",
                 "x.layer.10.w F32 2;x.layer.2.w F16 3;x.layer.2.b F32 1;pos I64 1 4");
  accept("single");
  assert_string_equal(checkpoint->dir, at("single"));
  assert_string_equal(checkpoint->model_type, "bert");
  assert_int_equal(checkpoint->labels.count, 2);
  assert_string_equal(checkpoint->labels.items[0], "a");
  assert_string_equal(checkpoint->labels.items[1], "b");
  assert_int_equal(checkpoint->files.count, 1);
  assert_int_equal(checkpoint->tensor_count, 4);
  assert_string_equal(checkpoint->tensors[0].name, "pos");
  assert_string_equal(checkpoint->tensors[1].name, "x.layer.2.b");
  assert_string_equal(checkpoint->tensors[2].name, "x.layer.2.w");
  assert_string_equal(checkpoint->tensors[3].name, "x.layer.10.w");
  assert_ptr_equal(mg_checkpoint_find(checkpoint, "x.layer.2.w"), &checkpoint->tensors[2]);
  assert_null(mg_checkpoint_find(checkpoint, "x.layer.02.w"));
  assert_null(mg_checkpoint_find(checkpoint, "x"));
  mg_checkpoint_close(&checkpoint);
  assert_null(checkpoint);
  mg_checkpoint_close(&checkpoint);
}

static void little_is_needed(void **state) {
  (void)state;
  put_checkpoint("bare", "{\"id2label\": null}", "w F32 1");
  accept("bare");
  assert_string_equal(checkpoint->model_type, "");
  assert_int_equal(checkpoint->labels.count, 0);
  mg_checkpoint_close(&checkpoint);
  put_checkpoint("nothing", NULL, "");
  accept("nothing");
  assert_int_equal(checkpoint->tensor_count, 0);
  assert_null(mg_checkpoint_find(checkpoint, "w"));
  mg_checkpoint_close(&checkpoint);
}

static void link_to(const char *target, const char *name) { assert_int_equal(symlink(target, at(name)), 0); }

/* hub/snapshots/<revision>/ holds links to hub/blobs/, as a Hugging Face cache does; the directory may be a link itself. */
static void a_cache_of_links(void **state) {
  (void)state;
  put_text("hub/blobs/c0", "{\"model_type\": \"linked\"}");
  put_tensors("hub/blobs/b1", "w F32 4");
  assert_int_equal(mg_make_dirs(at("hub/snapshots/r1")), MG_OK);
  link_to("../../blobs/c0", "hub/snapshots/r1/config.json");
  link_to("../../blobs/b1", "hub/snapshots/r1/model.safetensors");
  link_to("hub/snapshots/r1", "linked");
  accept("linked");
  assert_string_equal(checkpoint->model_type, "linked");
  assert_int_equal(checkpoint->tensor_count, 1);
  mg_checkpoint_close(&checkpoint);
  assert_int_equal(unlink(at("hub/blobs/b1")), 0);
  refuse("linked", MG_ERR_INPUT, "symbolic link to a file that is not there");
  assert_int_equal(unlink(at("hub/blobs/c0")), 0);
  refuse("linked", MG_ERR_INPUT, "config.json is a symbolic link");
  link_to("loop", "loop");
  refuse("loop", MG_ERR_INPUT, "");
}

static void put_index(const char *name, const char *map) {
  char path[256], text[1024];
  snprintf(path, sizeof path, "%s/config.json", name);
  put_text(path, "{}");
  snprintf(path, sizeof path, "%s/model.safetensors.index.json", name);
  snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {%s}}", map);
  put_text(path, text);
}

static void shards(void **state) {
  (void)state;
  /* the second file also holds a tensor that the index has in the first, and one that it doesn't have at all */
  put_index("sharded", "\"b\": \"m-2.safetensors\", \"a\": \"m-1.safetensors\", \"c\": \"m-1.safetensors\"");
  put_tensors("sharded/m-1.safetensors", "c F32 3;a F32 1");
  put_tensors("sharded/m-2.safetensors", "stale F32 9;a F32 5;b F32 2");
  accept("sharded");
  assert_int_equal(checkpoint->files.count, 2);
  assert_string_equal(checkpoint->files.items[0], at("sharded/m-1.safetensors"));
  assert_int_equal(checkpoint->tensor_count, 3);
  const mg_tensor_info *a = mg_checkpoint_find(checkpoint, "a"), *b = mg_checkpoint_find(checkpoint, "b");
  assert_int_equal(a->file, 0);
  assert_int_equal(a->numel, 1);
  assert_int_equal(b->file, 1);
  assert_int_equal(mg_checkpoint_find(checkpoint, "c")->numel, 3);
  mg_checkpoint_close(&checkpoint);
}

static void indices_are_checked(void **state) {
  (void)state;
  put_tensors("index/m-1.safetensors", "a F32 1");
  put_tensors("index/m-2.safetensors", "b F32 1");
  put_tensors("outside.safetensors", "a F32 1");
  put_index("index", "\"a\": \"m-1.safetensors\", \"a\": \"m-2.safetensors\"");
  refuse("index", MG_ERR_INPUT, "duplicate");
  put_index("index", "\"a\": \"m-1.safetensors\", \"b\": \"m-3.safetensors\"");
  refuse("index", MG_ERR_INPUT, "m-3.safetensors");
  put_index("index", "\"a\": \"m-1.safetensors\", \"b\": \"m-1.safetensors\"");
  refuse("index", MG_ERR_INPUT, "tensor b is not in m-1.safetensors");
  put_index("index", "\"a\": \"../outside.safetensors\"");
  refuse("index", MG_ERR_INPUT, "../outside.safetensors");
  put_index("index", "\"a\": \"..\"");
  refuse("index", MG_ERR_INPUT, "'..'");
  put_index("index", "\"a\": \"\"");
  refuse("index", MG_ERR_INPUT, "tensor a");
  put_index("index", "\"a\": 3");
  refuse("index", MG_ERR_INPUT, "tensor a");
  put_index("index", "\"a\": \"/etc/passwd\"");
  refuse("index", MG_ERR_INPUT, "/etc/passwd");
  put_text("index/model.safetensors.index.json", "{\"weight_map\": []}");
  refuse("index", MG_ERR_INPUT, "weight_map");
  put_text("index/model.safetensors.index.json", "{\"weight_map\": {},\n}");
  refuse("index", MG_ERR_INPUT, "model.safetensors.index.json:2:");
  put_index("index", "\"a\": \"m-1.safetensors\"");
  put_text("index/m-1.safetensors", "short");
  refuse("index", MG_ERR_CORRUPT, "m-1.safetensors");
}

/* An index of very many files must not take the square of their number. */
static void a_long_index(void **state) {
  (void)state;
  mg_text text = {0};
  mg_text_append(&text, "{\"weight_map\": {");
  for (int k = 0; k < 300000; k++) mg_text_append(&text, "%s\"%d\":\"f%d\"", k ? "," : "", k, (int)(1000003L * k % 300007));
  mg_text_append(&text, "}}");
  put_text("long/config.json", "{}");
  put_text("long/model.safetensors.index.json", text.data);
  mg_text_free(&text);
  alarm(100);
  refuse("long", MG_ERR_INPUT, "which is not there");
  alarm(0);
}

static void pickles_are_pointed_at(void **state) {
  (void)state;
  put_text("pickled/config.json", "{}");
  refuse("pickled", MG_ERR_INPUT, "neither model.safetensors nor");
  put_text("pickled/pytorch_model.bin", "PK");
  refuse("pickled", MG_ERR_INPUT, "scripts/to-safetensors");
  assert_int_equal(unlink(at("pickled/pytorch_model.bin")), 0);
  put_text("pickled/pytorch_model.bin.index.json", "{}");
  refuse("pickled", MG_ERR_INPUT, "scripts/to-safetensors");
  put_tensors("pickled/model.safetensors", "w F32 1");
  accept("pickled");
  mg_checkpoint_close(&checkpoint);
}

static void directories_that_are_not(void **state) {
  (void)state;
  refuse("gone", MG_ERR_INPUT, "no such directory");
  put_text("file", "x");
  refuse("file", MG_ERR_INPUT, "not a directory");
  assert_int_equal(mkdir(at("empty"), 0755), 0);
  refuse("empty", MG_ERR_INPUT, "no config.json");
  assert_int_equal(mg_checkpoint_open("surely-no/such-model", &checkpoint), MG_ERR_INPUT);
  assert_told("surely-no/such-model", "directory", "Hub id is not downloaded");
  assert_int_equal(mg_checkpoint_open("surely-no-such-model", &checkpoint), MG_ERR_INPUT);
  assert_told("directory", "Hub id is not downloaded");
}

static void configs_are_checked(void **state) {
  (void)state;
  put_checkpoint("config", "{\"a\": 1,\n \"b\" 2}", "w F32 1");
  refuse("config", MG_ERR_INPUT, "config.json:2:");
  put_text("config/config.json", "");
  refuse("config", MG_ERR_INPUT, "config.json");
  put_text("config/config.json", "[]");
  refuse("config", MG_ERR_INPUT, "object");
  put_text("config/config.json", "{\"x\": \"\xff\"}");
  refuse("config", MG_ERR_INPUT, "config.json");
  put_text("config/config.json", "{\"id2label\": [\"a\"]}");
  refuse("config", MG_ERR_INPUT, "id2label");
  put_text("config/config.json", "{\"id2label\": {\"0\": \"a\", \"2\": \"b\"}}");
  refuse("config", MG_ERR_INPUT, "\"1\"");
  put_text("config/config.json", "{\"id2label\": {\"0\": \"a\", \"1\": 1}}");
  refuse("config", MG_ERR_INPUT, "\"1\"");
  put_text("config/config.json", "{\"id2label\": {\"0\": \"a\", \"01\": \"b\"}}");
  refuse("config", MG_ERR_INPUT, "\"1\"");
  assert_int_equal(unlink(at("config/config.json")), 0);
  assert_int_equal(mkdir(at("config/config.json"), 0755), 0);
  refuse("config", MG_ERR_INPUT, "regular file");
}

/* Opened beside another, a checkpoint is what it is alone; alike is one whose file has the same header before as much data. */
static void one_beside_another(void **state) {
  (void)state;
  static const struct {
    const char *name, *tensors;
    bool alike;
  } others[] = {{"twin", "x.10 F32 2;x.9 F16 3;i I64 1", true},
                {"other-type", "x.10 F32 2;x.9 BF16 3;i I64 1", false},
                {"other-name", "x.10 F32 2;x.8 F16 3;i I64 1", false},
                {"more", "x.10 F32 2;x.9 F16 3;i I64 1;z F32 1", false}};
  put_checkpoint("first", "{\"id2label\": {\"0\": \"a\"}}", "x.10 F32 2;x.9 F16 3;i I64 1");
  mg_checkpoint *first = NULL, *beside = NULL;
  assert_int_equal(mg_checkpoint_open(at("first"), &first), MG_OK);
  for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
    put_checkpoint(others[k].name, "{\"id2label\": {\"0\": \"b\"}}", others[k].tensors);
    accept(others[k].name);
    assert_int_equal(mg_checkpoint_open_beside(at(others[k].name), first, &beside), MG_OK);
    assert_int_equal(beside->alike, others[k].alike);
    assert_string_equal(beside->labels.items[0], "b");
    assert_string_equal(beside->files.items[0], checkpoint->files.items[0]);
    assert_int_equal(mg_checkpoint_hash(beside), mg_checkpoint_hash(checkpoint));
    mg_checkpoint_close(&beside);
    mg_checkpoint_close(&checkpoint);
  }
  /* The same header, and a file that is cut short. */
  assert_int_equal(truncate(at("twin/model.safetensors"), 200), 0);
  assert_int_equal(mg_checkpoint_open_beside(at("twin"), first, &beside), MG_ERR_CORRUPT);
  mg_checkpoint_close(&first);
}

/* Opens name as a user who owns nothing; the child's exit code says whether it went as expected. */
static void refuse_unprivileged(const char *name, const char *what) {
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(3);
    const mg_status status = mg_checkpoint_open(at(name), &checkpoint);
    const bool good = status == MG_ERR_IO && strstr(mg_error_message(), what) && strcasestr(mg_error_message(), "permission");
    if (!good) fprintf(stderr, "%s: %d: %s\n", name, (int)status, mg_error_message());
    _exit(!good);
  }
  int outcome = -1;
  assert_int_equal(waitpid(child, &outcome, 0), child);
  assert_true(WIFEXITED(outcome));
  assert_int_equal(WEXITSTATUS(outcome), 0);
}

static void what_may_not_be_read(void **state) {
  (void)state;
  put_checkpoint("locked", NULL, "w F32 1");
  assert_int_equal(chmod(at("locked/model.safetensors"), 0), 0);
  refuse_unprivileged("locked", "model.safetensors");
  assert_int_equal(chmod(at("locked/model.safetensors"), 0644), 0);
  assert_int_equal(chmod(at("locked/config.json"), 0), 0);
  refuse_unprivileged("locked", "config.json");
  assert_int_equal(chmod(at("locked"), 0), 0);
  refuse_unprivileged("locked", "locked");
  put_checkpoint("closed/inside", NULL, "w F32 1");
  assert_int_equal(chmod(at("closed"), 0), 0);
  refuse_unprivileged("closed/inside", "closed/inside");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_single_file),          cmocka_unit_test(little_is_needed),
                                     cmocka_unit_test(a_cache_of_links),       cmocka_unit_test(shards),
                                     cmocka_unit_test(indices_are_checked),    cmocka_unit_test(a_long_index),
                                     cmocka_unit_test(pickles_are_pointed_at), cmocka_unit_test(directories_that_are_not),
                                     cmocka_unit_test(configs_are_checked),    cmocka_unit_test(one_beside_another),
                                     cmocka_unit_test(what_may_not_be_read)};
  return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
