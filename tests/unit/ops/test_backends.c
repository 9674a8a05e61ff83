/* Which backend and kernel a name gives, and what an unusable one says. */
#include "mergegrid/device.h"
#include "mergegrid/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int no_kernel_forced(void **state) {
  (void)state;
  return unsetenv("MERGEGRID_KERNEL");
}

static void assert_refused(const char *backend, const char *expected) {
  const mg_ops *ops = NULL;
  assert_int_equal(mg_ops_get(backend, &ops), MG_ERR_CONFIG);
  assert_non_null(strstr(mg_error_message(), expected));
}

static void names_give_their_backend(void **state) {
  (void)state;
  const mg_ops *ops = NULL, *best = NULL;
  assert_int_equal(mg_ops_get("ref", &ops), MG_OK);
  assert_string_equal(ops->name, "ref");
  assert_string_equal(ops->kernel, "portable");
  assert_int_equal(mg_ops_get("openblas", &ops), MG_OK);
  assert_string_equal(ops->name, "openblas");
  assert_int_equal(mg_ops_get("auto", &best), MG_OK);
  assert_ptr_equal(best, ops);
}

static void a_kernel_can_be_forced(void **state) {
  (void)state;
  const mg_ops *ops = NULL;
  setenv("MERGEGRID_KERNEL", "portable", 1);
  assert_int_equal(mg_ops_get("auto", &ops), MG_OK);
  assert_string_equal(ops->kernel, "portable");
  static const char *const names[] = {"avx2", "avx512"};
  for (size_t n = 0; n < 2; n++) { /* what it says is what runs, or else it says that it cannot */
    setenv("MERGEGRID_KERNEL", names[n], 1);
    if (mg_ops_get("openblas", &ops) == MG_OK)
      assert_string_equal(ops->kernel, names[n]);
    else
      assert_refused("openblas", names[n]);
  }
  setenv("MERGEGRID_KERNEL", "", 1);
  assert_int_equal(mg_ops_get("auto", &ops), MG_OK);
  setenv("MERGEGRID_KERNEL", "sse9", 1);
  assert_refused("openblas", "'sse9' is unknown");
  assert_refused("auto", "MERGEGRID_KERNEL");
}

static void backends_that_are_not_there_are_refused(void **state) {
  (void)state;
  const mg_device_terms terms = {.node_ranks = 1};
  const mg_ops *ops = NULL;
  mg_device *device = NULL;
  const mg_status status = mg_device_open(&terms, &device);
  assert_int_equal(status != MG_OK, device == NULL);
  if (status != MG_OK) assert_non_null(strstr(mg_error_message(), "cuda")); /* not built in, or no device: it says which */
  mg_device_close(&device);
  assert_int_equal(mg_ops_get("cuda", &ops), MG_OK); /* what is left to the host */
  assert_string_equal(ops->name, "openblas");
  assert_refused("openbals", "openblas is meant?");
  assert_refused("", "unknown");
}

static void a_description_names_library_and_kernel(void **state) {
  (void)state;
  char text[256];
  const mg_ops *ops = NULL;
  assert_int_equal(mg_ops_get("openblas", &ops), MG_OK);
  assert_ptr_equal(mg_ops_describe(ops, text, sizeof text), text);
  assert_non_null(strstr(text, "OpenBLAS"));
  assert_non_null(strstr(text, ops->kernel));
  assert_int_equal(mg_ops_get("ref", &ops), MG_OK);
  assert_non_null(strstr(mg_ops_describe(ops, text, sizeof text), "ref"));
  assert_non_null(strstr(text, "portable"));
}

static void scratch_grows_with_the_rows(void **state) {
  (void)state;
  for (int rows = 1; rows < 4096; rows *= 2) {
    assert_true(mg_gram_scratch_bytes(rows) >= (size_t)rows * MG_RUN * sizeof(float));
    assert_int_equal(mg_gram_scratch_bytes(rows) % MG_ROW_ALIGN, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(names_give_their_backend, no_kernel_forced, no_kernel_forced),
      cmocka_unit_test_setup_teardown(a_kernel_can_be_forced, no_kernel_forced, no_kernel_forced),
      cmocka_unit_test_setup_teardown(backends_that_are_not_there_are_refused, no_kernel_forced, no_kernel_forced),
      cmocka_unit_test_setup_teardown(a_description_names_library_and_kernel, no_kernel_forced, no_kernel_forced),
      cmocka_unit_test(scratch_grows_with_the_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
