#ifndef MERGEGRID_DTYPE_H
#define MERGEGRID_DTYPE_H

/** Element types of checkpoints and shards, and conversions. Not collective. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mg_dtype {
  MG_F64,
  MG_F32,
  MG_F16,
  MG_BF16,
  MG_I64,
  MG_I32,
  MG_I16,
  MG_I8,
  MG_U64,
  MG_U32,
  MG_U16,
  MG_U8,
  MG_BOOL,
  MG_DTYPE_COUNT
} mg_dtype;

size_t mg_dtype_size(mg_dtype dtype);
/** The name that safetensors uses: "F32", "BF16", "I64", "BOOL". */
const char *mg_dtype_name(mg_dtype dtype);
/** false if the name is not one of ours. */
bool mg_dtype_from_name(const char *name, mg_dtype *dtype);
bool mg_dtype_is_floating(mg_dtype dtype);

/**
 * n floating elements of src to float (F64 is rounded to nearest even; the others convert exactly), each times scale, which
 * must be a power of two. src needs no alignment. Vectorised where the machine allows, same bits everywhere.
 */
void mg_to_f32(float *dst, const void *src, mg_dtype dtype, size_t n, float scale);

/**
 * dst[i] = (float)(src[i] - base[i]), the difference correctly rounded: in double where either side is F64, in float (which
 * is exact up to its one rounding) elsewhere. base NULL stands for zeros.
 */
void mg_subtract_to_f32(float *dst, const void *src, mg_dtype dtype, const void *base, mg_dtype base_dtype, size_t n);

/** n floats times scale (a power of two) to F16 or BF16, rounded to nearest even; F16 overflow gives infinity. */
void mg_from_f32(void *dst, const float *src, mg_dtype dtype, size_t n, float scale);

#endif
