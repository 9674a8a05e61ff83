#include "mergegrid/dtype.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define MG_F16C __attribute__((target("avx,f16c")))
#endif

static const struct {
  const char *name;
  unsigned char size;
  bool floating;
} types[MG_DTYPE_COUNT] = {
    [MG_F64] = {"F64", 8, true},   [MG_F32] = {"F32", 4, true},  [MG_F16] = {"F16", 2, true},  [MG_BF16] = {"BF16", 2, true},
    [MG_I64] = {"I64", 8, false},  [MG_I32] = {"I32", 4, false}, [MG_I16] = {"I16", 2, false}, [MG_I8] = {"I8", 1, false},
    [MG_U64] = {"U64", 8, false},  [MG_U32] = {"U32", 4, false}, [MG_U16] = {"U16", 2, false}, [MG_U8] = {"U8", 1, false},
    [MG_BOOL] = {"BOOL", 1, false}};

size_t mg_dtype_size(mg_dtype dtype) { return types[dtype].size; }
const char *mg_dtype_name(mg_dtype dtype) { return types[dtype].name; }
bool mg_dtype_is_floating(mg_dtype dtype) { return types[dtype].floating; }

bool mg_dtype_from_name(const char *name, mg_dtype *dtype) {
  for (int i = 0; i < MG_DTYPE_COUNT; i++) {
    if (strcmp(name, types[i].name) != 0) continue;
    *dtype = (mg_dtype)i;
    return true;
  }
  return false;
}

static float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static uint16_t load16(const void *src, size_t i) {
  uint16_t half;
  memcpy(&half, (const char *)src + 2 * i, 2);
  return half;
}

static double load64(const void *src, size_t i) {
  double value;
  memcpy(&value, (const char *)src + 8 * i, 8);
  return value;
}

static float load32(const void *src, size_t i) {
  float value;
  memcpy(&value, (const char *)src + 4 * i, 4);
  return value;
}

static float half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31, mantissa = half & 0x3FF;
  if (exponent == 31) { /* as F16C does, a NaN comes out quiet */
    const uint32_t quiet = mantissa ? 0x400000 : 0;
    return bits_to_float(sign | 0x7F800000 | mantissa << 13 | quiet);
  }
  if (exponent == 0) return bits_to_float(float_to_bits((float)mantissa * 0x1p-24f) | sign);
  return bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

static uint16_t float_to_half(float value) {
  const uint32_t bits = float_to_bits(value), magnitude = bits & 0x7FFFFFFF;
  const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
  if (magnitude >= 0x477FF000) return sign | 0x7C00; /* 65520 and more round to infinity */
  if (magnitude < 0x38800000) {
    /* Subnormal: adding 0.5 puts the unit in the last place of the sum at 2^-24, so the FPU rounds to even for us. */
    const float sum = bits_to_float(magnitude) + 0.5f;
    return (uint16_t)(sign | (float_to_bits(sum) - 0x3F000000));
  }
  const uint32_t rounded = magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1);
  return (uint16_t)(sign | rounded >> 13);
}

static uint16_t float_to_bfloat(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

#if defined(__x86_64__)
MG_F16C static size_t f16_to_f32_vector(float *dst, const void *src, size_t n, float scale) {
  const __m256 factor = _mm256_set1_ps(scale);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)((const char *)src + 2 * i));
    _mm256_storeu_ps(dst + i, _mm256_mul_ps(_mm256_cvtph_ps(half), factor));
  }
  return i;
}

MG_F16C static size_t f32_to_f16_vector(void *dst, const float *src, size_t n, float scale) {
  const __m256 factor = _mm256_set1_ps(scale);
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_mul_ps(_mm256_loadu_ps(src + i), factor), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)(void *)((char *)dst + 2 * i), half);
  }
  return i;
}

/* Every processor with AVX2 has F16C, which not every compiler can be asked about. */
static bool have_f16c(void) { return __builtin_cpu_supports("avx2"); }
#else
static bool have_f16c(void) { return false; }
static size_t f16_to_f32_vector(float *dst, const void *src, size_t n, float scale) {
  (void)dst, (void)src, (void)n, (void)scale;
  return 0;
}
static size_t f32_to_f16_vector(void *dst, const float *src, size_t n, float scale) {
  (void)dst, (void)src, (void)n, (void)scale;
  return 0;
}
#endif

void mg_to_f32(float *dst, const void *src, mg_dtype dtype, size_t n, float scale) {
  size_t i = 0;
  switch (dtype) {
  case MG_F64:
    for (; i < n; i++) dst[i] = (float)(load64(src, i) * (double)scale);
    break;
  case MG_F32:
    if (scale == 1)
      memcpy(dst, src, 4 * n);
    else
      for (; i < n; i++) dst[i] = load32(src, i) * scale;
    break;
  case MG_BF16:
    for (; i < n; i++) dst[i] = bits_to_float((uint32_t)load16(src, i) << 16) * scale;
    break;
  case MG_F16:
    if (have_f16c()) i = f16_to_f32_vector(dst, src, n, scale);
    for (; i < n; i++) dst[i] = half_to_float(load16(src, i)) * scale;
    break;
  default:
    memset(dst, 0, 4 * n); /* not a floating type: callers check mg_dtype_is_floating */
  }
}

static double load_double(const void *src, mg_dtype dtype, size_t i) {
  switch (dtype) {
  case MG_F64:
    return load64(src, i);
  case MG_F32:
    return (double)load32(src, i);
  case MG_BF16:
    return (double)bits_to_float((uint32_t)load16(src, i) << 16);
  case MG_F16:
    return (double)half_to_float(load16(src, i));
  default:
    return 0;
  }
}

void mg_subtract_to_f32(float *dst, const void *src, mg_dtype dtype, const void *base, mg_dtype base_dtype, size_t n) {
  enum { CHUNK = 1024 };
  float other[CHUNK];
  if (base == NULL) {
    mg_to_f32(dst, src, dtype, n, 1);
    return;
  }
  if (dtype == MG_F64 || base_dtype == MG_F64) {
    for (size_t i = 0; i < n; i++) dst[i] = (float)(load_double(src, dtype, i) - load_double(base, base_dtype, i));
    return;
  }
  for (size_t first = 0; first < n; first += CHUNK) {
    const size_t count = n - first < CHUNK ? n - first : CHUNK;
    mg_to_f32(dst + first, (const char *)src + first * mg_dtype_size(dtype), dtype, count, 1);
    const float *subtrahend = other;
    if (base_dtype == MG_F32 && (uintptr_t)base % sizeof(float) == 0)
      subtrahend = (const float *)base + first;
    else
      mg_to_f32(other, (const char *)base + first * mg_dtype_size(base_dtype), base_dtype, count, 1);
    for (size_t i = 0; i < count; i++) dst[first + i] -= subtrahend[i];
  }
}

void mg_from_f32(void *dst, const float *src, mg_dtype dtype, size_t n, float scale) {
  size_t i = 0;
  if (dtype == MG_F16 && have_f16c()) i = f32_to_f16_vector(dst, src, n, scale);
  for (; i < n; i++) {
    const uint16_t half = dtype == MG_F16 ? float_to_half(src[i] * scale) : float_to_bfloat(src[i] * scale);
    memcpy((char *)dst + 2 * i, &half, 2);
  }
}
