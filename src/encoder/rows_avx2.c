#define LANES        8
#define KERNELS      mg_rows_avx2
#define KERNELS_NAME "avx2"
#include "rows_body.h"
