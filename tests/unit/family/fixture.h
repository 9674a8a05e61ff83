#ifndef MERGEGRID_TESTS_FAMILY_FIXTURE_H
#define MERGEGRID_TESTS_FAMILY_FIXTURE_H

/* Small checkpoints, whole or broken, in a directory of the test program's own. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/family.h"

#define FIXTURE __attribute__((unused)) static

static char fixture_dir[64];

FIXTURE int make_fixture(void **state) {
  (void)state;
  strcpy(fixture_dir, "/tmp/test_family_XXXXXX");
  return mkdtemp(fixture_dir) == NULL || chmod(fixture_dir, 0755) != 0;
}

FIXTURE int remove_fixture(void **state) {
  (void)state;
  char command[256];
  snprintf(command, sizeof command, "chmod -R u+rwx '%s' && rm -rf '%s'", fixture_dir, fixture_dir);
  return system(command);
}

/** fixture_dir/name in one of eight buffers that are used in turn. */
FIXTURE const char *at(const char *name) {
  static char paths[8][512];
  static int next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", fixture_dir, name);
  return path;
}

FIXTURE void put_bytes(const char *name, const void *data, size_t size) {
  char *dir = mg_path_dirname(at(name));
  assert_int_equal(mg_make_dirs(dir), MG_OK);
  free(dir);
  assert_int_equal(mg_replace_file(at(name), data, size), MG_OK);
}

FIXTURE void put_text(const char *name, const char *text) { put_bytes(name, text, strlen(text)); }

/** A safetensors file of this header (its size field says header_size, whatever the header's own is) and zeros as data. */
FIXTURE void put_sized(const char *name, uint64_t header_size, const char *header, size_t length, size_t data) {
  unsigned char *bytes = calloc(8 + length + data, 1);
  assert_non_null(bytes);
  for (int k = 0; k < 8; k++) bytes[k] = (unsigned char)(header_size >> (8 * k));
  memcpy(bytes + 8, header, length);
  put_bytes(name, bytes, 8 + length + data);
  free(bytes);
}

FIXTURE void put_raw(const char *name, const char *header, size_t data) {
  put_sized(name, strlen(header), header, strlen(header), data);
}

/**
 * A safetensors file of tensors given as "name dtype size size …; name dtype …", laid out one after another, zeros as data.
 */
FIXTURE void put_tensors(const char *name, const char *tensors) {
  mg_text header = {0};
  char *copy = strdup(tensors), *save = NULL;
  size_t end = 0;
  assert_non_null(copy);
  mg_text_append(&header, "{\"__metadata__\": {\"format\": \"pt\"}");
  for (char *one = strtok_r(copy, ";", &save); one != NULL; one = strtok_r(NULL, ";", &save)) {
    char *inner = NULL, *tensor = strtok_r(one, " ", &inner), *type = strtok_r(NULL, " ", &inner);
    mg_dtype dtype = MG_U8;
    mg_dtype_from_name(type, &dtype);
    size_t bytes = mg_dtype_size(dtype);
    mg_text_append(&header, ", \"%s\": {\"dtype\": \"%s\", \"shape\": [", tensor, type);
    const char *comma = "";
    for (const char *size; (size = strtok_r(NULL, " ", &inner)) != NULL; comma = ", ") {
      mg_text_append(&header, "%s%s", comma, size);
      bytes *= (size_t)atol(size);
    }
    mg_text_append(&header, "], \"data_offsets\": [%zu, %zu]}", end, end + bytes);
    end += bytes;
  }
  mg_text_append(&header, "}");
  put_raw(name, header.data, end);
  mg_text_free(&header);
  free(copy);
}

/** A checkpoint directory: config.json (NULL: "{}") and model.safetensors. */
FIXTURE void put_checkpoint(const char *name, const char *config, const char *tensors) {
  char path[256];
  snprintf(path, sizeof path, "%s/config.json", name);
  put_text(path, config != NULL ? config : "{}");
  snprintf(path, sizeof path, "%s/model.safetensors", name);
  put_tensors(path, tensors);
}

/** Every text must be in this thread's message. */
FIXTURE void assert_told_all(const char *file, int line, const char *const *texts, size_t count) {
  for (size_t k = 0; k < count; k++) {
    if (strstr(mg_error_message(), texts[k]) != NULL) continue;
    print_error("'%s' is not in: %s\n", texts[k], mg_error_message());
    _fail(file, line);
  }
}

#define assert_told(...)                                                                                                       \
  assert_told_all(__FILE__, __LINE__, (const char *const[]){__VA_ARGS__},                                                      \
                  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

#endif
