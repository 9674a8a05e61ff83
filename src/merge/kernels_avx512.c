#define LANES        8
#define KERNELS      mg_merge_avx512
#define KERNELS_NAME "avx512"
#include "kernels_body.h"
