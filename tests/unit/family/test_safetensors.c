#include "fixture.h"

static mg_tensor_info *tensors;
static size_t count;

static mg_status read_header(const char *name) { return mg_safetensors_read_header(at(name), 7, &tensors, &count); }

static void forget(void) {
  for (size_t k = 0; k < count; k++) free(tensors[k].name);
  free(tensors);
  tensors = NULL;
  count = 0;
}

/* The file must be refused as corrupt, with the file's name and `what` in the message, and nothing appended. */
static void refuse(const char *name, const char *what) {
  const mg_status status = read_header(name);
  if (status != MG_ERR_CORRUPT) print_error("%s: status %d, %s\n", name, (int)status, mg_error_message());
  assert_int_equal(status, MG_ERR_CORRUPT);
  assert_told(at(name), what);
  assert_int_equal(count, 0);
}

static void refuse_header(const char *header, size_t data, const char *what) {
  put_raw("bad", header, data);
  refuse("bad", what);
}

static void a_header_is_read(void **state) {
  (void)state;
  put_tensors("good", "b F32 2 3;a.weight BF16 4;count I64;mask BOOL 5;none F16 0 7;big F64 1 1 1 1 1 1 1 2");
  assert_int_equal(read_header("good"), MG_OK);
  assert_int_equal(count, 6);
  uint64_t begin = 0;
  for (size_t k = 0; k < count; k++) {
    const mg_tensor_info *t = &tensors[k];
    assert_int_equal(t->file, 7);
    if (k == 0) begin = t->offset;
    if (strcmp(t->name, "a.weight") == 0) {
      assert_int_equal(t->dtype, MG_BF16);
      assert_int_equal(t->ndim, 1);
      assert_int_equal(t->shape[0], 4);
      assert_int_equal(t->offset - begin, 24); /* behind b, the first */
    } else if (strcmp(t->name, "count") == 0) {
      assert_int_equal(t->ndim, 0);
      assert_int_equal(t->numel, 1);
      assert_int_equal(t->offset - begin, 32);
    } else if (strcmp(t->name, "none") == 0) {
      assert_int_equal(t->numel, 0);
    } else if (strcmp(t->name, "big") == 0) {
      assert_int_equal(t->ndim, 8);
      assert_int_equal(t->shape[7], 2);
    }
  }
  forget();
}

/* The offset is counted from the start of the file: the bytes there are the tensor's. */
static void offsets_are_absolute(void **state) {
  (void)state;
  const char *header = "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}   ";
  char bytes[128] = {0};
  const size_t length = strlen(header);
  bytes[0] = (char)length;
  memcpy(bytes + 8, header, length);
  memcpy(bytes + 8 + length, "abc", 3);
  put_bytes("absolute", bytes, 8 + length + 3);
  assert_int_equal(read_header("absolute"), MG_OK);
  assert_int_equal(count, 1);
  assert_int_equal(tensors[0].offset, 8 + length);
  assert_memory_equal(bytes + tensors[0].offset, "abc", 3);
  forget();
}

static void headers_are_appended(void **state) {
  (void)state;
  put_tensors("one", "a F32 2");
  put_tensors("two", "b F32 2;c F32 1");
  assert_int_equal(read_header("one"), MG_OK);
  assert_int_equal(read_header("two"), MG_OK);
  assert_int_equal(count, 3);
  assert_string_equal(tensors[0].name, "a");
  put_raw("bad", "{", 0);
  assert_int_equal(read_header("bad"), MG_ERR_CORRUPT);
  assert_int_equal(count, 3);
  assert_string_equal(tensors[2].name, "c");
  forget();
}

static void nothing_in_it(void **state) {
  (void)state;
  put_raw("none", "{}", 0);
  assert_int_equal(read_header("none"), MG_OK);
  assert_int_equal(count, 0);
  put_raw("meta", "{\"__metadata__\":{}}", 0);
  assert_int_equal(read_header("meta"), MG_OK);
  put_tensors("empties", "a F32 0;b F32 0 5;c F32 2;d F32 0");
  assert_int_equal(read_header("empties"), MG_OK);
  assert_int_equal(count, 4);
  forget();
  put_raw("odd", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,0],\"data_offsets\":[0,0]}}", 0);
  assert_int_equal(read_header("odd"), MG_OK);
  assert_int_equal(tensors[0].numel, 0);
  forget();
}

static void sizes_are_checked(void **state) {
  (void)state;
  put_bytes("empty", "", 0);
  refuse("empty", "0 bytes");
  put_bytes("seven", "\1\0\0\0\0\0\0", 7);
  refuse("seven", "7 bytes");
  put_bytes("eight", "\1\0\0\0\0\0\0", 8);
  refuse("eight", "truncated");
  put_sized("short", 3, "{}", 2, 0);
  refuse("short", "truncated");
  put_sized("huge", UINT64_MAX, "{}", 2, 0);
  refuse("huge", "18446744073709551615");
  put_sized("wraps", UINT64_MAX - 7, "{}", 2, 0);
  refuse("wraps", "18446744073709551608");
  put_bytes("zero", "\0\0\0\0\0\0\0\0", 8);
  refuse("zero", "JSON");
  /* the format's bound, with a file (of holes) that is larger */
  put_sized("bound", 100000001, "{}", 2, 0);
  assert_int_equal(truncate(at("bound"), 200000000), 0);
  refuse("bound", "100000000 is the format's bound");
  /* data cut off */
  put_tensors("cut", "a F32 2;b F32 100");
  struct stat info;
  assert_int_equal(stat(at("cut"), &info), 0);
  assert_int_equal(truncate(at("cut"), info.st_size - 1), 0);
  refuse("cut", "tensor b");
  assert_told("408", "407");
}

static void json_is_checked(void **state) {
  (void)state;
  refuse_header("{\n\"a\": }", 0, "line 2, column ");
  refuse_header("[]", 0, "not a JSON object");
  refuse_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}} x", 0, "JSON");
  refuse_header("{\"\xff\xfe\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "JSON");
  refuse_header("{\"\xc0\xaf\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "JSON");
  refuse_header("{\"\\ud800\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "JSON");
  refuse_header("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "JSON");
  refuse_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
                "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                0, "duplicate");
  refuse_header("{\"__metadata__\": 3}", 0, "__metadata__");
  refuse_header("{\"__metadata__\": {\"format\": {}}}", 0, "format is not a string");
  char deep[10001];
  memset(deep, '[', sizeof deep - 1);
  deep[sizeof deep - 1] = '\0';
  refuse_header(deep, 0, "JSON");
}

static void entries_are_checked(void **state) {
  (void)state;
  refuse_header("{\"w\": []}", 0, "tensor w");
  refuse_header("{\"w\": {}}", 0, "dtype");
  refuse_header("{\"w\": {\"dtype\": 3}}", 0, "dtype");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"data_offsets\": [0, 4]}}", 4, "shape");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": 1, \"data_offsets\": [0, 4]}}", 4, "shape");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1.0], \"data_offsets\": [0, 4]}}", 4, "whole number");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [\"1\"], \"data_offsets\": [0, 4]}}", 4, "whole number");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [-1], \"data_offsets\": [0, 4]}}", 4, "whole number");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1,1,1,1,1], \"data_offsets\": [0, 4]}}", 4, "9 dimensions");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [4294967296,4294967296], \"data_offsets\": [0, 4]}}", 4, "overflows");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904], \"data_offsets\": [0, 0]}}", 0, "tensor w");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [9223372036854775808], \"data_offsets\": [0, 0]}}", 0, "JSON");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 4]}}", 4, "2 elements of F32");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 8]}}", 8, "hold 8 bytes");
}

static void ranges_are_checked(void **state) {
  (void)state;
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1]}}", 4, "data_offsets");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0]}}", 4, "data_offsets");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4, 4]}}", 4, "data_offsets");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0.0, 4.0]}}", 4, "data_offsets");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 0]}}", 4, "reversed");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [-4, 0]}}", 4, "negative");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}", 4, "ends at byte 8");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [9223372036854775803, 9223372036854775807]}}",
                4, "only 4 bytes");
  refuse_header("{\"v\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
                "\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [2, 6]}}",
                6, "overlaps");
  refuse_header("{\"v\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
                "\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}",
                4, "overlaps");
  refuse_header("{\"v\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
                "\"w\": {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [2, 2]}}",
                4, "overlaps");
  refuse_header("{\"v\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
                "\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [5, 9]}}",
                9, "hole");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [1, 5]}}", 5, "hole");
  refuse_header("{\"w\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 5, "1 bytes follow");
  refuse_header("{}", 1, "1 bytes follow");
}

static void unknown_types_are_named(void **state) {
  (void)state;
  put_raw("f8", "{\"w\": {\"dtype\": \"F8_E4M3\", \"shape\": [4], \"data_offsets\": [0, 4]}}", 4);
  assert_int_equal(read_header("f8"), MG_ERR_INPUT);
  assert_told(at("f8"), "tensor w", "F8_E4M3");
}

static void other_things_than_files(void **state) {
  (void)state;
  assert_int_equal(read_header("absent"), MG_ERR_IO);
  assert_told(at("absent"), "No such file");
  assert_int_equal(mkdir(at("dir"), 0755), 0);
  assert_int_equal(read_header("dir"), MG_ERR_INPUT);
  assert_told(at("dir"), "regular file");
  assert_int_equal(mkfifo(at("fifo"), 0644), 0);
  alarm(20); /* a reader that waits for a writer would wait for ever */
  assert_int_equal(read_header("fifo"), MG_ERR_INPUT);
  alarm(0);
  assert_told("regular file");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_header_is_read),        cmocka_unit_test(offsets_are_absolute),
                                     cmocka_unit_test(headers_are_appended),    cmocka_unit_test(nothing_in_it),
                                     cmocka_unit_test(sizes_are_checked),       cmocka_unit_test(json_is_checked),
                                     cmocka_unit_test(entries_are_checked),     cmocka_unit_test(ranges_are_checked),
                                     cmocka_unit_test(unknown_types_are_named), cmocka_unit_test(other_things_than_files)};
  return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
