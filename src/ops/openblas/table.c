/* The default backend: our own Gram kernels, the best this processor runs; dense products are OpenBLAS's. */

#include <cblas.h>
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "ops_impl.h"

static const mg_ops portable = {
    .name = "openblas", .kernel = "portable", .gram_triangle = mg_gram_triangle_ref, .gram_rectangle = mg_gram_rectangle_ref};
#if MG_HAVE_X86_KERNELS
static const mg_ops avx2 = {
    .name = "openblas", .kernel = "avx2", .gram_triangle = mg_gram_triangle_avx2, .gram_rectangle = mg_gram_rectangle_avx2};
static const mg_ops avx512 = {.name = "openblas",
                              .kernel = "avx512",
                              .gram_triangle = mg_gram_triangle_avx512,
                              .gram_rectangle = mg_gram_rectangle_avx512};
static const mg_ops amx = {
    .name = "openblas", .kernel = "amx", .gram_triangle = mg_gram_triangle_amx, .gram_rectangle = mg_gram_rectangle_amx};

/* F16C came before AVX2, so it need not be asked for. */
static bool runs_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool runs_avx512(void) {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/*
 * The system saves a matrix unit's registers only for a process that has asked for them (once for all its threads), whose
 * signals' stacks then have to hold them; so only who wants them asks. It says no where such a stack is too small.
 */
static bool may_use_amx(void) {
  enum { LEAF = 7, BF16 = 1 << 22, TILES = 1 << 24, REQUEST_COMPONENT = 0x1023, TILE_DATA = 18 };
  unsigned a, b, c, d;
  if (!runs_avx512() || !__get_cpuid_count(LEAF, 0, &a, &b, &c, &d) || !(d & BF16) || !(d & TILES)) return false;
#if defined(__linux__)
  return syscall(SYS_arch_prctl, REQUEST_COMPONENT, TILE_DATA) == 0;
#else
  return false;
#endif
}
#endif

mg_status mg_ops_openblas(const char *kernel, const mg_ops **ops) {
  static const char *const names[] = {"portable", "avx2", "avx512", "amx"};
  enum { KERNELS = sizeof names / sizeof *names };
  const mg_ops *runs[KERNELS] = {&portable}; /* the last one that is not NULL is the best */
#if MG_HAVE_X86_KERNELS
  if (runs_avx2()) runs[1] = &avx2;
  if (runs_avx512()) runs[2] = &avx512;
  if ((kernel == NULL || strcmp(kernel, "amx") == 0) && may_use_amx()) runs[3] = &amx;
#endif
  *ops = &portable;
  for (int k = 0; k < KERNELS; k++) {
    if (kernel == NULL && runs[k] != NULL) *ops = runs[k];
    if (kernel == NULL || strcmp(kernel, names[k]) != 0) continue;
    if (runs[k] == NULL)
      return mg_fail(MG_ERR_CONFIG, "MERGEGRID_KERNEL: this processor does not run %s, or its system does not let us", kernel);
    *ops = runs[k];
    return MG_OK;
  }
  if (kernel == NULL) return MG_OK;
  return mg_fail(MG_ERR_CONFIG, "MERGEGRID_KERNEL: '%s' is unknown (portable, avx2, avx512, amx)", kernel);
}

const char *mg_ops_describe(const mg_ops *ops, char *buffer, size_t size) {
  if (strcmp(ops->name, "openblas") == 0)
    snprintf(buffer, size, "%s (%s, core %s; Gram kernel %s)", ops->name, openblas_get_config(), openblas_get_corename(),
             ops->kernel);
  else
    snprintf(buffer, size, "%s (Gram kernel %s)", ops->name, ops->kernel);
  return buffer;
}
