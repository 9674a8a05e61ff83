/* Which tile kernels this machine runs. */

#include "kernels_impl.h"

#include <stdlib.h>
#include <string.h>

const mg_merge_kernels *mg_merge_kernels_get(void) {
  const char *forced = getenv("MERGEGRID_KERNEL");
  const mg_merge_kernels *best = &mg_merge_portable;
  if (forced != NULL && strcmp(forced, "portable") == 0) return best;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) best = &mg_merge_avx2;
  if (forced != NULL && strcmp(forced, "avx2") == 0) return best;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    best = &mg_merge_avx512;
#endif
  return best;
}
