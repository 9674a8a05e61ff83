/* What tests of a device's operations work with. */

#ifndef MERGEGRID_ON_DEVICE_H
#define MERGEGRID_ON_DEVICE_H

#include "test_device.h"

static mg_device *device;
static const mg_device_ops *ops;

static uint32_t state_of_random = 1;
static uint32_t random_word(void) { return state_of_random = state_of_random * 1664525u + 1013904223u; }
static float random_float(void) { return (float)((int)(random_word() >> 8) % 20001 - 10000) / 10000.0f; }

static void *take(size_t bytes) {
  void *piece;
  assert_int_equal(ops->take(device, bytes, "a test", &piece), MG_OK);
  return piece;
}

static void *pin(size_t bytes) {
  void *host;
  assert_int_equal(ops->pin(device, bytes, &host), MG_OK);
  return host;
}

#endif
