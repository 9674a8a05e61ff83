#ifndef MERGEGRID_SHARD_HDF5_IMPL_H
#define MERGEGRID_SHARD_HDF5_IMPL_H

#include <hdf5.h>
#include <pthread.h>

#include "mergegrid/dtype.h"

/** Held around every use of the HDF5 library by shards. */
extern pthread_mutex_t mg_hdf5_lock;

/** The file type of F32, F16 or BF16 elements; negative on failure. The caller closes it. */
hid_t mg_hdf5_element_type(mg_dtype dtype);

#endif
