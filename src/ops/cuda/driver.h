#ifndef MERGEGRID_CUDA_DRIVER_H
#define MERGEGRID_CUDA_DRIVER_H

/** The one door of the module; this header knows nothing of CUDA. */

#include "mergegrid/device.h"

#define MG_CUDA_MODULE "mergegrid-cuda.so"

#ifdef __cplusplus
extern "C" {
#endif
/** Weak: NULL in a program that has to load the module. */
mg_status mg_cuda_open(const mg_device_terms *terms, mg_device **device) __attribute__((weak, visibility("default")));
#ifdef __cplusplus
}
#endif

#endif
