/* OpenBLAS goes by a list of processors: one that came after it gets the kernels of 2004, at a fifth of the speed. */

#include <cblas.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops_impl.h"

static const char *fitting_core(void) {
#if MG_HAVE_X86_KERNELS
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return NULL;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512cd");
  return wide ? "SkylakeX" : "Haswell";
#else
  return NULL;
#endif
}

/* OpenBLAS's own, which its initialisation calls; not in its header, and not there where it is built for one processor. */
__attribute__((weak)) void gotoblas_dynamic_init(void);
__attribute__((weak)) void gotoblas_dynamic_quit(void);

static bool is_slow(void) { return strcmp(openblas_get_corename(), "Prescott") == 0; }

/* The choice is made when the library is loaded. It makes it again if it has the functions for that; else another one takes
   another start. */
void mg_ops_suit_processor(char **argv) {
  const char *core = fitting_core();
  char own[PATH_MAX]; /* by its name, which the process then keeps */
  if (core == NULL || getenv("OPENBLAS_CORETYPE") != NULL || !is_slow()) return;
  if (setenv("OPENBLAS_CORETYPE", core, 1) != 0) return;
  if (gotoblas_dynamic_quit != NULL && gotoblas_dynamic_init != NULL) {
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
    if (!is_slow()) return;
  }
  const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
  own[length > 0 ? length : 0] = '\0';
  if (length > 0) execv(own, argv);
  unsetenv("OPENBLAS_CORETYPE"); /* it could not be started: the slow ones are right, too */
}
