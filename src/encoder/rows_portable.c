#define LANES        4
#define KERNELS      mg_rows_portable
#define KERNELS_NAME "portable"
#include "rows_body.h"
