/* Which row operations this machine runs. */

#include <stdlib.h>
#include <string.h>

#include "rows_impl.h"

const mg_row_kernels *mg_row_kernels_get(void) {
  const char *forced = getenv("MERGEGRID_KERNEL");
  const mg_row_kernels *best = &mg_rows_portable;
  if (forced != NULL && strcmp(forced, "portable") == 0) return best;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = &mg_rows_avx2;
  if (forced != NULL && strcmp(forced, "avx2") == 0) return best;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    best = &mg_rows_avx512;
#endif
  return best;
}
