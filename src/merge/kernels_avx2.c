#define LANES        4
#define KERNELS      mg_merge_avx2
#define KERNELS_NAME "avx2"
#include "kernels_body.h"
