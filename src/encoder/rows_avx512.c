#define LANES        16
#define KERNELS      mg_rows_avx512
#define KERNELS_NAME "avx512"
#include "rows_body.h"
