/* Writing, reading, verifying and exporting a small result; every flipped bit is found. */
#include "mergegrid/result.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/io.h"
#include "unit/result/small_result.h"
#include "unit/scratch.h"

enum { N = 3, T = 2 };

static mg_status write_with(const char *path, double changed, const mg_result_microscope *microscope) {
  char a[] = "fr-FR", b[] = "ü, \"x\"", c[] = "sw-KE", path_a[] = "m/a", path_b[] = "m/b", path_c[] = "m/c";
  mg_source items[N] = {{a, a, path_a}, {b, b, path_b}, {c, c, path_c}};
  const mg_source_list sources = {.count = N, .items = items};
  char name0[] = "enc.layer.0.w", layer0[] = "enc.layer.0", name1[] = "head.w", none[] = "";
  mg_tensor tensors[T] = {
      {.name = name0, .layer = layer0, .ndim = 2, .shape = {2, 3}, .numel = 6},
      {.name = name1, .layer = none, .ndim = 1, .shape = {4}, .numel = 4, .offset = 6, .source_only = true}};
  const mg_tensor_table table = {.count = T, .tensors = tensors, .elements = 10};
  const bool selected[T] = {true, false};
  mg_gram_group groups[T] = {{.name = name0, .layer = layer0, .selected = true}, {.name = name1, .layer = none}};
  const mg_gram_layout layout = {.table = &table, .sources = N, .group_count = T, .groups = groups};
  double dot[T * N * N] = {4, 2, 0, 2, 9, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, base_dot[T * N] = {1, 2, 3},
                     norm2[T] = {5, changed};
  const mg_gram gram = {.groups = T, .sources = N, .dot = dot, .base_dot = base_dot, .base_norm2 = norm2};
  const double third = 1.0 / 3, cosine[N * N] = {1, third, NAN, 0x1p-24, 1, NAN, NAN, NAN, NAN};
  char *label_items[] = {name0, name1}, *layer_items[] = {layer0};
  const mg_strings labels = {2, label_items}, layers = {1, layer_items};
  mg_identity identity = {0};
  mg_identity_add(&identity, "source fr-FR", "0123");
  const mg_result_compatibility compatibility = {
      .layout = &layout, .gram = &gram, .cosine = cosine, .cosine_encoder = cosine, .cosine_layers = cosine, .layers = &layers};
  mg_result_data data = small_result(&sources, "m/base", &labels, &table, selected, &identity);
  data.compatibility = &compatibility;
  data.microscope = microscope;
  data.timings = (mg_timing[]){{"gram", 1.5}};
  data.timing_count = 1;
  const mg_status status = mg_result_write(path, &data);
  mg_identity_free(&identity);
  return status;
}

static mg_status write_one(const char *path, double changed) { return write_with(path, changed, NULL); }

static void written_read_and_verified(void **state) {
  (void)state;
  char *path = in_dir("r.h5");
  mg_identity identity = {0};
  assert_int_equal(write_one(path, 7), MG_OK);
  assert_string_equal(mg_file_kind(path), "result");
  assert_int_equal(mg_result_verify(path), MG_OK);
  assert_int_equal(mg_result_read_identity(path, &identity), MG_OK);
  assert_int_equal(identity.count, 1);
  assert_string_equal(identity.names[0], "source fr-FR");
  assert_string_equal(identity.values[0], "0123");
  mg_identity_free(&identity);
  free(path);
}

/* Skipped is what is not there: that is no failure. The reference may fail like any other. */
static void failed_setups_are_counted(void **state) {
  (void)state;
  char *path = in_dir("m.h5");
  mg_failures failures = {7, 7, 7};
  const mg_result_setup setups[] = {{.model = "reference", .exists = true, .error = "not finite"},
                                    {.model = "whole", .exists = true},
                                    {.model = "gone", .error = "no such directory"},
                                    {.model = "few", .exists = true, .error = "3 candidates"}};
  const mg_result_microscope microscope = {.digest = "0123456789abcdef",
                                           .reference = "source fr-FR",
                                           .padding = "exclude",
                                           .probe_source = "probes.txt",
                                           .no_cells = "no grid",
                                           .setup_count = 4,
                                           .setups = setups};
  assert_string_equal(mg_setup_status(true, NULL), "completed");
  assert_string_equal(mg_setup_status(true, ""), "completed");
  assert_string_equal(mg_setup_status(true, "not finite"), "failed");
  assert_string_equal(mg_setup_status(false, "no such source"), "skipped");
  assert_int_equal(write_with(path, 7, &microscope), MG_OK);
  assert_int_equal(mg_result_failures(path, &failures), MG_OK);
  assert_int_equal(failures.setups, 2);
  assert_int_equal(failures.cells, 0);
  assert_int_equal(write_one(path, 7), MG_OK);
  assert_int_equal(mg_result_failures(path, &failures), MG_OK);
  assert_int_equal(failures.setups + failures.cells + failures.evaluations, 0);
  assert_int_equal(mg_result_failures("/no/such/m.h5", &failures), MG_ERR_IO);
  free(path);
}

/* What a merge of one of its cells needs to know. */
static void read_for_a_merge(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), *yaml = NULL;
  mg_result_reader *reader = NULL;
  mg_identity inputs = {0};
  mg_source_list sources;
  mg_strings labels = {0};
  mg_labelled_table cosines;
  assert_int_equal(write_one(path, 7), MG_OK);
  assert_int_equal(mg_result_open(path, &reader), MG_OK);
  assert_int_equal(mg_result_read_config(reader, &yaml), MG_OK);
  assert_string_equal(yaml, "seed: 42\n");
  assert_int_equal(mg_result_read_inputs(reader, &inputs), MG_OK);
  assert_string_equal(mg_identity_value(&inputs, "source fr-FR"), "0123");
  assert_int_equal(mg_result_read_sources(reader, &sources), MG_OK);
  assert_int_equal(sources.count, 3);
  assert_string_equal(sources.items[0].id, "fr-FR");
  assert_string_equal(sources.items[2].id, "sw-KE");
  assert_int_equal(mg_result_read_list(reader, "/labels", &labels), MG_OK);
  assert_int_equal(mg_result_read_list(reader, "/nothing", &labels), MG_ERR_CORRUPT);
  assert_int_equal(mg_result_read_compatibility(reader, false, &cosines), MG_OK);
  assert_string_equal(cosines.columns.items[0], "fr-FR");
  assert_true(cosines.values[0] == 1);
  mg_labelled_table_free(&cosines);
  assert_int_equal(mg_result_read_compatibility(reader, true, &cosines), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "has no CKA"));
  assert_int_equal(mg_result_read_evaluation(reader, true, &cosines), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "has no stage nxn"));
  mg_result_close(&reader);
  mg_identity_free(&inputs), mg_source_list_free(&sources), mg_strings_free(&labels);
  free(yaml), free(path);
}

static void exported_as_pandas_writes(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), *csv = in_dir("out/task_vector_cosine_matrix.csv"), *data = NULL;
  size_t size;
  assert_int_equal(write_one(path, 7), MG_OK);
  char *out = in_dir("out");
  assert_int_equal(mg_result_export(&(mg_strings){1, &path}, out, MG_EXPORT_FLAT), MG_OK);
  assert_int_equal(mg_read_file(csv, 1 << 20, &data, &size), MG_OK);
  assert_string_equal(data, ",fr-FR,\"ü, \"\"x\"\"\",sw-KE\n"
                            "fr-FR,1.0,0.3333333333333333,\n"
                            "\"ü, \"\"x\"\"\",5.960464477539063e-08,1.0,\n"
                            "sw-KE,,,\n");
  free(data), free(csv), free(path), free(out);
}

static void every_flipped_bit_is_found(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), *data = NULL;
  size_t size;
  assert_int_equal(write_one(path, 7), MG_OK);
  assert_int_equal(mg_read_file(path, 1 << 24, &data, &size), MG_OK);
  const int fd = open(path, O_RDWR);
  for (size_t at = 0; at < size; at += at < 1024 ? 1 : 97) {
    const char flipped = (char)(data[at] ^ (1 << (at % 8)));
    assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
    if (mg_result_verify(path) == MG_OK) fail_msg("a flipped bit at byte %zu was not found", at);
    assert_non_null(strstr(mg_error_message(), path));
    assert_int_equal(pwrite(fd, &data[at], 1, (off_t)at), 1);
  }
  close(fd);
  assert_int_equal(mg_result_verify(path), MG_OK);
  free(data), free(path);
}

/* The damaged dataset is named: here base_norm2, whose bytes are searched for. */
static void damage_is_located(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), *data = NULL;
  size_t size;
  const double needle = 12345.678;
  assert_int_equal(write_one(path, needle), MG_OK);
  assert_int_equal(mg_read_file(path, 1 << 24, &data, &size), MG_OK);
  char *found = memmem(data, size, &needle, sizeof needle);
  assert_non_null(found);
  *found ^= 1;
  assert_int_equal(mg_replace_file(path, data, size), MG_OK);
  assert_int_equal(mg_result_verify(path), MG_ERR_CORRUPT);
  assert_non_null(strstr(mg_error_message(), "/compatibility/gram/base_norm2 does not match its checksum"));
  mg_identity identity = {0};
  assert_int_equal(mg_result_read_identity(path, &identity), MG_ERR_CORRUPT);
  free(data), free(path);
}

static void truncated_and_foreign_files(void **state) {
  (void)state;
  char *path = in_dir("r.h5"), *data = NULL, *out = in_dir("none");
  size_t size;
  assert_int_equal(write_one(path, 7), MG_OK);
  assert_int_equal(mg_read_file(path, 1 << 24, &data, &size), MG_OK);
  for (size_t cut = 0; cut < size; cut += cut < 600 ? 50 : 1999) {
    assert_int_equal(mg_replace_file(path, data, cut), MG_OK);
    assert_int_not_equal(mg_result_verify(path), MG_OK);
    assert_int_not_equal(mg_result_show(path, &(mg_show_options){.top = 3}), MG_OK);
    assert_int_not_equal(mg_result_export(&(mg_strings){1, &path}, out, MG_EXPORT_FLAT), MG_OK);
  }
  assert_false(mg_path_exists(out));
  assert_int_equal(mg_replace_file(path, "something else", 14), MG_OK);
  assert_null(mg_file_kind(path));
  assert_int_equal(mg_result_verify(path), MG_ERR_CORRUPT);
  assert_int_equal(mg_result_verify("/no/such/file"), MG_ERR_IO);
  assert_int_equal(write_one("/no/such/dir/r.h5", 7), MG_ERR_IO);
  free(data), free(path), free(out);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(written_read_and_verified),  cmocka_unit_test(failed_setups_are_counted),
                                     cmocka_unit_test(read_for_a_merge),           cmocka_unit_test(exported_as_pandas_writes),
                                     cmocka_unit_test(every_flipped_bit_is_found), cmocka_unit_test(damage_is_located),
                                     cmocka_unit_test(truncated_and_foreign_files)};
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
