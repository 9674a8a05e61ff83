/* Which tile kernels this machine runs. */

#include "kernels_impl.h"

#include <stdlib.h>
#include <string.h>

size_t mg_merge_kernels_all(const mg_merge_kernels **kernels) {
  size_t count = 0;
  kernels[count++] = &mg_merge_portable;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) kernels[count++] = &mg_merge_avx2;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    kernels[count++] = &mg_merge_avx512;
#endif
  return count;
}

const mg_merge_kernels *mg_merge_kernels_get(void) {
  const char *forced = getenv("MERGEGRID_KERNEL");
  const mg_merge_kernels *all[3];
  size_t count = mg_merge_kernels_all(all), k = 0;
  while (forced != NULL && k < count && strcmp(all[k]->name, forced) != 0) k++;
  return forced != NULL && k < count ? all[k] : all[count - 1];
}
