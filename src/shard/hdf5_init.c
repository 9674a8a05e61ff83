/* What the HDF5 library must be told before its first use. */

#include <hdf5.h>
#include <pthread.h>
#include <stdlib.h>

#include "mergegrid/shard.h"

static void prepare(void) {
  /* A file whose closing failed (a full disk) stays open in the library, which would try again at exit, and crash. */
  H5dont_atexit();
  /* Files are written under temporary names by one process and read-only afterwards: its locks only fail on file systems
   * without. */
  setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
}

void mg_hdf5_prepare(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare);
}
