#include "fixture.h"

static mg_family *family;

/* Opens the base fixture_dir/base and the sources named, in order. */
static mg_status open_with(const char *base, const mg_strings *exclude, const char *const *names, size_t count) {
  mg_source items[8] = {0};
  mg_source_list list = {.count = count, .items = items};
  char *base_dir = strdup(at(base));
  for (size_t k = 0; k < count; k++) items[k].path = strdup(at(names[k]));
  const mg_status status = mg_family_open(base_dir, &list, exclude, &family);
  for (size_t k = 0; k < count; k++) free(items[k].path);
  free(base_dir);
  return status;
}

static void expect(mg_status code, mg_status status, int line) {
  if (status != code) {
    print_error("line %d: status %d: %s\n", line, (int)status, mg_error_message());
    fail();
  }
  assert_true((status == MG_OK) == (family != NULL));
}

#define SOURCES(...)            (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)
#define EXPECT(code, base, ...) expect(code, open_with(base, NULL, SOURCES(__VA_ARGS__)), __LINE__)

/* The message must have exactly this many lines of mismatches. */
static void expect_lines(size_t count) {
  size_t lines = 0;
  for (const char *p = mg_error_message(); (p = strstr(p, "\n  ")) != NULL; p++) lines++;
  if (lines != count) print_error("%s\n", mg_error_message());
  assert_int_equal(lines, count);
}

static const mg_tensor *tensor(const char *name) {
  for (size_t k = 0; k < family->table.count; k++)
    if (strcmp(family->table.tensors[k].name, name) == 0) return &family->table.tensors[k];
  fail_msg("%s is not in the table", name);
  return NULL;
}

/* Which of the base's tensors stands for one of the table: its offset tells, as numels differ. */
static uint64_t base_offset(const char *name) {
  const mg_tensor *t = tensor(name);
  return family->base.locations[t - family->table.tensors].offset;
}

static bool noted(const char *what) {
  for (size_t k = 0; k < family->notes.count; k++)
    if (strstr(family->notes.items[k], what) != NULL) return true;
  for (size_t k = 0; k < family->notes.count; k++) print_error("note: %s\n", family->notes.items[k]);
  return false;
}

#define BACKBONE(p)                                                                                                            \
  p "embeddings.weight F32 5 2;" p "encoder.layer.0.weight F32 3;" p "encoder.layer.10.weight F32 4;" p                        \
    "encoder.layer.2.weight F32 2 2"
#define HEAD ";classifier.dense.weight F32 2 2;classifier.out_proj.weight F32 3 2"

static void a_family(void **state) {
  (void)state;
  put_checkpoint("base", NULL, BACKBONE("roberta."));
  put_checkpoint("a", "{\"id2label\": {\"0\": \"x\", \"1\": \"y\"}}", BACKBONE("roberta.") HEAD);
  put_checkpoint("b", NULL, BACKBONE("roberta.") HEAD);
  EXPECT(MG_OK, "base", "a", "b");
  assert_int_equal(family->table.count, 6);
  static const struct {
    const char *name, *layer;
    int64_t offset, numel;
    bool source_only;
  } expected[] = {{"classifier.dense.weight", "", 0, 4, true},
                  {"classifier.out_proj.weight", "", 4, 6, true},
                  {"roberta.embeddings.weight", "", 10, 10, false},
                  {"roberta.encoder.layer.0.weight", "roberta.encoder.layer.0", 20, 3, false},
                  {"roberta.encoder.layer.2.weight", "roberta.encoder.layer.2", 23, 4, false},
                  {"roberta.encoder.layer.10.weight", "roberta.encoder.layer.10", 27, 4, false}};
  for (size_t k = 0; k < 6; k++) {
    const mg_tensor *t = &family->table.tensors[k];
    assert_string_equal(t->name, expected[k].name);
    assert_string_equal(t->layer, expected[k].layer);
    assert_int_equal(t->offset, expected[k].offset);
    assert_int_equal(t->numel, expected[k].numel);
    assert_int_equal(t->source_only, expected[k].source_only);
    assert_int_equal(family->base.locations[k].dtype, t->source_only ? MG_DTYPE_COUNT : MG_F32);
  }
  assert_int_equal(family->table.elements, 31);
  assert_int_equal(family->source_count, 2);
  assert_string_equal(family->sources[1].dir, at("b"));
  assert_string_equal(family->sources[1].files.items[0], at("b/model.safetensors"));
  assert_int_equal(family->labels.count, 2);
  assert_string_equal(family->labels.items[1], "y");
  assert_int_equal(family->notes.count, 0);
  /* in the file the layers come in the written order: 0, 10, 2 */
  assert_int_equal(base_offset("roberta.encoder.layer.2.weight"), base_offset("roberta.encoder.layer.10.weight") + 16);
  mg_family_close(&family);
  assert_null(family);
  mg_family_close(&family);
}

/* The same family with a prefix on either side, on both, on none; with what a base of its own may have besides. */
static void prefixes(void **state) {
  (void)state;
  static const struct {
    const char *base, *source, *layer0, *pooled;
  } cases[] = {{BACKBONE("roberta."), BACKBONE("roberta.") HEAD, "roberta.encoder.layer.0.weight", NULL},
               {BACKBONE(""), BACKBONE("roberta.") HEAD, "roberta.encoder.layer.0.weight", NULL},
               {BACKBONE("roberta."), BACKBONE(""), "encoder.layer.0.weight", NULL},
               {BACKBONE("") ";pooler.dense.weight F32 2 2", BACKBONE("roberta.") HEAD, "roberta.encoder.layer.0.weight", NULL},
               {BACKBONE("roberta.") ";roberta.pooler.dense.weight F32 2 2;lm_head.dense.weight F32 2;lm_head.bias F32 5",
                BACKBONE("roberta.") HEAD, "roberta.encoder.layer.0.weight", NULL},
               {BACKBONE("roberta.") ";cls.predictions.bias F32 5", BACKBONE("") ";pooler.dense.weight F32 1",
                "encoder.layer.0.weight", "pooler.dense.weight"},
               {BACKBONE(""), BACKBONE("roberta.") ";roberta.pooler.dense.weight F32 1" HEAD, "roberta.encoder.layer.0.weight",
                "roberta.pooler.dense.weight"},
               {BACKBONE("model."), BACKBONE("a.b.model.") HEAD, "a.b.model.encoder.layer.0.weight", NULL},
               {BACKBONE("a.b.c."), BACKBONE("") ";score.weight F32 2", "encoder.layer.0.weight", NULL}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    put_checkpoint("base", NULL, cases[k].base);
    put_checkpoint("a", NULL, cases[k].source);
    EXPECT(MG_OK, "base", "a");
    assert_false(tensor(cases[k].layer0)->source_only);
    assert_int_equal(tensor(cases[k].layer0)->numel, 3);
    if (cases[k].pooled != NULL) assert_true(tensor(cases[k].pooled)->source_only);
    size_t shared = 0;
    for (size_t t = 0; t < family->table.count; t++) {
      shared += !family->table.tensors[t].source_only;
      assert_int_equal(family->base.locations[t].dtype, family->table.tensors[t].source_only ? MG_DTYPE_COUNT : MG_F32);
    }
    assert_int_equal(shared, 4);
    assert_int_equal(family->notes.count, 0);
    mg_family_close(&family);
  }
}

static void other_architectures(void **state) {
  (void)state;
  /* a Llama: the head is tied and left out on one side, or there on both; the base may lack `model.` */
  put_checkpoint("base", NULL, "model.embed_tokens.weight BF16 4 2;model.layers.0.mlp.weight BF16 3;model.norm.weight BF16 2");
  put_checkpoint("bare", NULL, "embed_tokens.weight BF16 4 2;layers.0.mlp.weight BF16 3;norm.weight BF16 2");
  put_checkpoint("a", NULL,
                 "model.embed_tokens.weight BF16 4 2;model.layers.0.mlp.weight BF16 3;model.norm.weight BF16 2;"
                 "lm_head.weight BF16 4 2");
  EXPECT(MG_OK, "base", "a");
  assert_true(tensor("lm_head.weight")->source_only);
  assert_string_equal(tensor("model.layers.0.mlp.weight")->layer, "model.layers.0");
  mg_family_close(&family);
  EXPECT(MG_OK, "bare", "a");
  assert_true(tensor("lm_head.weight")->source_only);
  assert_false(tensor("model.norm.weight")->source_only);
  mg_family_close(&family);
  EXPECT(MG_OK, "a", "base"); /* the base's head is ignored */
  assert_int_equal(family->table.count, 3);
  mg_family_close(&family);
  EXPECT(MG_OK, "a", "a");
  assert_false(tensor("lm_head.weight")->source_only);
  mg_family_close(&family);
  /* a vision transformer: parameters without a dot, a head under its own name */
  put_checkpoint("base", NULL, "cls_token F32 1 1 2;pos_embed F32 1 3 2;blocks.0.attn.weight F32 3;norm.weight F32 2");
  put_checkpoint("a", NULL,
                 "cls_token F32 1 1 2;pos_embed F32 1 3 2;blocks.0.attn.weight F32 3;norm.weight F32 2;head.weight F32 7 2");
  EXPECT(MG_OK, "base", "a");
  assert_true(tensor("head.weight")->source_only);
  assert_false(tensor("cls_token")->source_only);
  assert_string_equal(tensor("blocks.0.attn.weight")->layer, "blocks.0");
  mg_family_close(&family);
}

/* A name that both sides have stands for itself even where the rest loses a prefix, but no tensor stands for two. */
static void counterparts_are_unique(void **state) {
  (void)state;
  put_checkpoint("base", NULL, BACKBONE("") ";classifier.out.weight F32 9");
  put_checkpoint("a", NULL, BACKBONE("roberta.") ";classifier.out.weight F32 9;embeddings.weight F32 5 2");
  EXPECT(MG_OK, "base", "a");
  assert_false(tensor("classifier.out.weight")->source_only);
  assert_false(tensor("roberta.embeddings.weight")->source_only);
  assert_true(tensor("embeddings.weight")->source_only);
  mg_family_close(&family);
}

static void missing_and_extra(void **state) {
  (void)state;
  put_checkpoint("base", NULL, BACKBONE("roberta.") ";roberta.encoder.layer.11.weight F32 1;extra F32 1");
  put_checkpoint("a", NULL, BACKBONE("roberta.") ";roberta.encoder.layer.12.weight F32 1;logit_scale F32 1" HEAD);
  EXPECT(MG_ERR_INPUT, "base", "a");
  expect_lines(4);
  assert_told(at("base"), "roberta.encoder.layer.12.weight is missing", "logit_scale is missing",
              "roberta.encoder.layer.11.weight is one too many", "tensor extra is one too many");
  /* what the user excludes may be missing on either side */
  mg_strings exclude = {0};
  mg_strings_add(&exclude, "logit_*");
  mg_strings_add(&exclude, "*.layer.12.*");
  mg_strings_add(&exclude, "extra");
  expect(MG_ERR_INPUT, open_with("base", &exclude, SOURCES("a")), __LINE__);
  expect_lines(1);
  mg_strings_add(&exclude, "roberta.encoder.layer.11.weight");
  expect(MG_OK, open_with("base", &exclude, SOURCES("a")), __LINE__);
  assert_true(tensor("logit_scale")->source_only);
  assert_true(tensor("roberta.encoder.layer.12.weight")->source_only);
  mg_family_close(&family);
  mg_strings_free(&exclude);
}

static void nothing_in_common(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "bert.encoder.weight F32 2");
  put_checkpoint("a", NULL, "gpt.h.0.bias F32 2");
  EXPECT(MG_ERR_INPUT, "base", "a");
  expect_lines(1);
  assert_told(at("base"), at("a"), "shares no tensor");
  put_checkpoint("a", NULL, "");
  EXPECT(MG_ERR_INPUT, "base", "a");
  assert_told(at("a"), "no floating-point tensor");
  put_checkpoint("a", NULL, "bert.encoder.weight I32 2");
  EXPECT(MG_ERR_INPUT, "base", "a");
  assert_told(at("a"), "no floating-point tensor");
}

static void everything_is_listed_at_once(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "m.a.w F32 2;m.b.w F32 3;m.c.w I32 1;m.pos I64 1 4");
  put_checkpoint("first", "{\"id2label\": {\"0\": \"x\", \"1\": \"y\"}}",
                 "m.a.w F32 2;m.b.w F32 4;m.c.w F32 1;m.pos I64 1 5;head.w F32 2");
  put_checkpoint("second", "{\"id2label\": {\"0\": \"x\"}}",
                 "m.a.w F32 2 1;m.c.w I32 1;m.pos I32 1 5;head.w F32 3;more.w F32 1");
  put_checkpoint("third", "{\"id2label\": {\"0\": \"x\", \"1\": \"z\"}}", "m.a.w F32 2;m.b.w F32 4;m.c.w F32 1;head.w F32 2");
  put_raw("fourth/model.safetensors", "{\"w\": {\"dtype\": \"F4\", \"shape\": [1], \"data_offsets\": [0, 1]}}", 1);
  put_text("fourth/config.json", "{}");
  EXPECT(MG_ERR_INPUT, "base", "first", "second", "third", "fourth", "absent");
  expect_lines(3 + 7 + 1 + 1 + 1);
  assert_told("5 sources", "13 mismatches");
  /* base against first: shapes (also an integer buffer's), integer against floating */
  assert_told(at("base/model.safetensors"), "tensor m.b.w: has shape [3]; [4] was expected, as in",
              at("first/model.safetensors"), "tensor m.pos: has shape [1, 4]; [1, 5] was expected",
              "tensor m.c.w: is I32; F32 was expected");
  /* second against first */
  assert_told(at("second/model.safetensors"), "tensor m.a.w: has shape [2, 1]; [2] was expected", "tensor m.b.w is missing",
              "tensor m.pos: is I32; I64 was expected", "tensor head.w: has shape [3]; [2] was expected",
              "tensor more.w is one too many", "second/config.json: id2label has 1 labels; 2 were expected");
  assert_told(at("third/config.json"), "lacks the label 'y'");
  assert_told(at("fourth/model.safetensors"), "tensor w: dtype F4");
  assert_told(at("absent"));
}

static void what_cannot_be_opened(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "w F32 2");
  put_checkpoint("a", NULL, "w F32 2");
  put_checkpoint("wide", NULL, "w F32 3");
  put_checkpoint("broken", NULL, "w F32 2");
  put_text("broken/model.safetensors", "no");
  /* alone: told as it is */
  EXPECT(MG_ERR_CORRUPT, "broken", "a");
  assert_true(strncmp(mg_error_message(), at("broken"), strlen(at("broken"))) == 0);
  EXPECT(MG_ERR_CORRUPT, "base", "broken");
  EXPECT(MG_ERR_INPUT, "absent", "a");
  assert_true(strncmp(mg_error_message(), at("absent"), strlen(at("absent"))) == 0);
  /* the others are compared all the same, with the first that can be opened */
  EXPECT(MG_ERR_INPUT, "base", "broken", "a", "absent", "wide");
  expect_lines(3);
  assert_told(at("broken"), at("absent"), at("wide"), "as in", at("a"));
  EXPECT(MG_ERR_INPUT, "absent", "a", "wide");
  expect_lines(2);
  EXPECT(MG_ERR_INPUT, "absent", "broken");
  expect_lines(2);
  mg_source_list none = {0};
  assert_int_equal(mg_family_open(at("base"), &none, NULL, &family), MG_ERR_INPUT);
  assert_told("at least one source");
}

static void types_may_differ_among_floats(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "m.w F32 2;m.v F32 1");
  put_checkpoint("a", NULL, "m.w F16 2;m.v F16 1");
  put_checkpoint("b", NULL, "m.w BF16 2;m.v F64 1");
  EXPECT(MG_OK, "base", "a", "b");
  assert_int_equal(family->notes.count, 2); /* once a checkpoint */
  assert_true(noted(at("base")));
  assert_true(noted(at("b")));
  for (size_t k = 0; k < 2; k++) {
    const bool w = strcmp(family->table.tensors[k].name, "m.w") == 0;
    assert_int_equal(family->base.locations[k].dtype, MG_F32);
    assert_int_equal(family->sources[0].locations[k].dtype, MG_F16);
    assert_int_equal(family->sources[1].locations[k].dtype, w ? MG_BF16 : MG_F64);
  }
  mg_family_close(&family);
}

static void integer_buffers(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "m.w F32 2;m.base_ids I64 4");
  put_checkpoint("a", NULL, "m.w F32 2;m.position_ids I64 1 4");
  put_checkpoint("b", NULL, "m.w F32 2");
  put_checkpoint("c", NULL, "m.w F32 2;m.mask BOOL 4");
  EXPECT(MG_OK, "base", "a", "b", "c");
  assert_int_equal(family->table.count, 1); /* they are no part of it */
  assert_true(noted("the base lacks the integer buffer m.position_ids"));
  assert_true(noted("the base has the integer buffer m.base_ids"));
  assert_true(noted("lacks the integer buffer m.position_ids"));
  assert_true(noted("has the integer buffer m.mask"));
  mg_family_close(&family);
  /* they are found under the base's prefix too */
  put_checkpoint("base", NULL, "w F32 2;v F32 1;ids I64 4");
  put_checkpoint("a", NULL, "m.w F32 2;m.v F32 1;m.ids I64 5");
  EXPECT(MG_ERR_INPUT, "base", "a");
  expect_lines(1);
  assert_told("tensor ids: has shape [4]; [5] was expected");
}

#define LABELS(...) "{\"id2label\": {" __VA_ARGS__ "}}"

static void labels(void **state) {
  (void)state;
  put_checkpoint("base", LABELS("\"0\": \"LABEL_0\""), "m.w F32 2");
  put_checkpoint("a", LABELS("\"0\": \"x\", \"1\": \"y\", \"2\": \"y\""), "m.w F32 2");
  put_checkpoint("b", LABELS("\"0\": \"y\", \"1\": \"x\", \"2\": \"y\""), "m.w F32 2");
  put_checkpoint("c", NULL, "m.w F32 2");
  put_checkpoint("d", LABELS("\"0\": \"y\", \"1\": \"x\", \"2\": \"x\""), "m.w F32 2");
  put_checkpoint("e", LABELS("\"0\": \"x\", \"1\": \"y\", \"2\": \"w\""), "m.w F32 2");
  EXPECT(MG_OK, "base", "a", "b", "c");
  assert_int_equal(family->labels.count, 3);
  assert_int_equal(family->notes.count, 1);
  assert_true(noted(at("b")));
  assert_true(noted("another order"));
  mg_family_close(&family);
  EXPECT(MG_ERR_INPUT, "base", "a", "d");
  assert_told(at("d/config.json"), "has the label 'x'");
  EXPECT(MG_ERR_INPUT, "base", "a", "e");
  assert_told(at("e/config.json"), "has the label 'w'");
  EXPECT(MG_OK, "base", "c", "a"); /* the first has none to compare with */
  assert_int_equal(family->labels.count, 0);
  mg_family_close(&family);
}

static void a_long_list_is_cut(void **state) {
  (void)state;
  mg_text tensors = {0};
  put_checkpoint("base", NULL, "m.w F32 2");
  mg_text_append(&tensors, "m.w F32 2");
  for (int k = 0; k < 250; k++) mg_text_append(&tensors, ";m.layer.%d.w F32 1", k);
  put_checkpoint("a", NULL, tensors.data);
  EXPECT(MG_ERR_INPUT, "base", "a");
  expect_lines(201);
  assert_told("250 mismatches", "m.layer.199.w", "… and 50 more");
  mg_text_free(&tensors);
}

static void shapes_of_nothing(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "m.none F32 0 3;m.scalar F32;m.w F32 2");
  put_checkpoint("a", NULL, "m.none F32 0 3;m.scalar F32;m.w F32 2");
  put_checkpoint("b", NULL, "m.none F32 3 0;m.scalar F32 1;m.w F32 2");
  EXPECT(MG_OK, "base", "a");
  assert_int_equal(family->table.elements, 3);
  assert_int_equal(tensor("m.none")->numel, 0);
  assert_int_equal(tensor("m.scalar")->ndim, 0);
  mg_family_close(&family);
  EXPECT(MG_ERR_INPUT, "base", "a", "b");
  expect_lines(2);
  assert_told("[3, 0]; [0, 3] was expected", "[1]; [] was expected");
}

static void sharded_against_single(void **state) {
  (void)state;
  put_checkpoint("base", NULL, "m.a F32 2;m.b F32 3");
  put_text("a/config.json", "{}");
  assert_true(unlink(at("a/model.safetensors")) == 0);
  put_text("a/model.safetensors.index.json", "{\"weight_map\": {\"m.b\": \"2.safetensors\", \"m.a\": \"1.safetensors\"}}");
  put_tensors("a/1.safetensors", "m.a F32 2");
  put_tensors("a/2.safetensors", "m.b F32 3");
  EXPECT(MG_OK, "base", "a");
  assert_int_equal(family->sources[0].files.count, 2);
  assert_int_equal(family->sources[0].locations[0].file, 0);
  assert_int_equal(family->sources[0].locations[1].file, 1);
  mg_family_close(&family);
}

static void the_real_family(void **state) {
  (void)state;
  const mg_family_spec spec = {.kind = MG_SOURCES_PATTERN,
                               .pattern = (char[]){MG_TEST_DATA "/emoji48/xlm-roberta-emoji_k_{locale}"}};
  mg_source_list list;
  assert_int_equal(mg_sources_resolve(&spec, NULL, NULL, &list), MG_OK);
  expect(MG_OK, mg_family_open(MG_TEST_DATA "/emoji48/xlm-roberta-emoji", &list, NULL, &family), __LINE__);
  assert_int_equal(family->source_count, 48);
  assert_int_equal(family->table.count, 73);
  assert_int_equal(family->table.elements, 595305);
  assert_int_equal(family->labels.count, 41);
  assert_string_equal(family->labels.items[40], "transport-ground");
  assert_int_equal(family->notes.count, 0);
  size_t source_only = 0;
  int64_t offset = 0;
  for (size_t k = 0; k < family->table.count; k++) {
    const mg_tensor *t = &family->table.tensors[k];
    assert_int_equal(t->offset, offset);
    offset += t->numel;
    source_only += t->source_only;
    assert_int_equal(t->source_only, strncmp(t->name, "classifier.", 11) == 0);
    if (k > 0) assert_true(mg_natural_compare(t[-1].name, t->name) < 0);
    for (size_t s = 0; s < 48; s++) assert_int_equal(family->sources[s].locations[k].dtype, MG_F16);
  }
  assert_int_equal(source_only, 4);
  mg_family_close(&family);
  mg_source_list_free(&list);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_family),
                                     cmocka_unit_test(prefixes),
                                     cmocka_unit_test(other_architectures),
                                     cmocka_unit_test(counterparts_are_unique),
                                     cmocka_unit_test(missing_and_extra),
                                     cmocka_unit_test(nothing_in_common),
                                     cmocka_unit_test(everything_is_listed_at_once),
                                     cmocka_unit_test(what_cannot_be_opened),
                                     cmocka_unit_test(types_may_differ_among_floats),
                                     cmocka_unit_test(integer_buffers),
                                     cmocka_unit_test(labels),
                                     cmocka_unit_test(a_long_list_is_cut),
                                     cmocka_unit_test(shapes_of_nothing),
                                     cmocka_unit_test(sharded_against_single),
                                     cmocka_unit_test(the_real_family)};
  return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
