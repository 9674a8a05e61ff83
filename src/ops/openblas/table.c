/* The default backend: our own Gram kernels, the best this processor runs; dense products are OpenBLAS's. */

#include <cblas.h>
#include <stdio.h>
#include <string.h>

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

/* F16C came before AVX2, so it need not be asked for. */
static bool runs_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool runs_avx512(void) {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

mg_status mg_ops_openblas(const char *kernel, const mg_ops **ops) {
  *ops = &portable;
  if (kernel != NULL && strcmp(kernel, "portable") == 0) return MG_OK;
#if MG_HAVE_X86_KERNELS
  if (kernel == NULL) {
    if (runs_avx2()) *ops = &avx2;
    if (runs_avx512()) *ops = &avx512;
    return MG_OK;
  }
  if (strcmp(kernel, "avx2") == 0 && runs_avx2()) {
    *ops = &avx2;
    return MG_OK;
  }
  if (strcmp(kernel, "avx512") == 0 && runs_avx512()) {
    *ops = &avx512;
    return MG_OK;
  }
#else
  if (kernel == NULL) return MG_OK;
#endif
  if (strcmp(kernel, "avx2") == 0 || strcmp(kernel, "avx512") == 0)
    return mg_fail(MG_ERR_CONFIG, "MERGEGRID_KERNEL: this processor does not run %s", kernel);
  return mg_fail(MG_ERR_CONFIG, "MERGEGRID_KERNEL: '%s' is unknown (portable, avx2, avx512)", kernel);
}

const char *mg_ops_describe(const mg_ops *ops, char *buffer, size_t size) {
  if (strcmp(ops->name, "openblas") == 0)
    snprintf(buffer, size, "%s (%s, core %s; Gram kernel %s)", ops->name, openblas_get_config(), openblas_get_corename(),
             ops->kernel);
  else
    snprintf(buffer, size, "%s (Gram kernel %s)", ops->name, ops->kernel);
  return buffer;
}
