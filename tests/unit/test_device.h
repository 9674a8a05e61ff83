#ifndef MERGEGRID_TEST_DEVICE_H
#define MERGEGRID_TEST_DEVICE_H

/*
 * Tests of operations are compiled a second time with MG_ON_DEVICE, and then have a device (an emulated one: tests/cuda)
 * compute.
 */

#include <stddef.h>

#include "mergegrid/device.h"

static inline mg_device *test_device(void) {
#ifdef MG_ON_DEVICE
  static mg_device *device;
  const mg_device_terms terms = {.node_ranks = 1};
  uint64_t got;
  if (device != NULL) return device;
  assert_int_equal(mg_device_open(&terms, &device), MG_OK);
  assert_int_equal(device->ops->reserve(device, (uint64_t)1 << 30, (uint64_t)2 << 30, &got), MG_OK);
  return device;
#else
  return NULL;
#endif
}

#endif
