#define LANES        2
#define KERNELS      mg_merge_portable
#define KERNELS_NAME "portable"
#include "kernels_body.h"
