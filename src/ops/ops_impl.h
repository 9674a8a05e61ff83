#ifndef MERGEGRID_OPS_IMPL_H
#define MERGEGRID_OPS_IMPL_H

#include "mergegrid/ops.h"

/** Floats from one row of the scratch to the next: a run and a cache line, so that rows do not share cache sets. */
enum { MG_SCRATCH_STRIDE = MG_RUN + 16 };

/** Rows of scratch behind those of a tile: zeros, for groups that are not full. Behind them a pointer a row, and some more. */
enum { MG_SPARE_ROWS = 8, MG_SPARE_POINTERS = 16 };

/** Floats of row k of a run in scratch. */
static inline float *mg_scratch_row(void *scratch, int k) { return (float *)scratch + (size_t)k * MG_SCRATCH_STRIDE; }
/** A pointer a row, and MG_SPARE_POINTERS more, in the scratch for `rows` rows. */
static inline const float **mg_scratch_pointers(void *scratch, int rows) {
  return (const float **)(void *)mg_scratch_row(scratch, rows + MG_SPARE_ROWS);
}
/** A run's length padded to whole lanes. */
static inline int mg_padded(int64_t count) { return (int)((count + MG_LANES - 1) / MG_LANES * MG_LANES); }
/** Links of a run, the last of which may have to be filled. */
static inline int mg_links(int64_t count) { return (int)((count + MG_LINK - 1) / MG_LINK); }

void mg_gram_triangle_ref(const mg_tile *tile, double *acc, void *scratch);
void mg_gram_rectangle_ref(const mg_tile *a, const mg_tile *b, double *acc, void *scratch);

/** Of mg_gram_scratch_bytes, what rows in chains take. */
size_t mg_chain_scratch_bytes(int rows);

/** Copies elements [first, first + count) of row k of a tile to scratch as floats, zero-filled to whole links. */
void mg_load_run(const mg_tile *tile, int k, int64_t first, int64_t count, float *to);

extern const mg_ops mg_ops_ref;

#if defined(__x86_64__)
#define MG_HAVE_X86_KERNELS 1
void mg_gram_triangle_avx2(const mg_tile *tile, double *acc, void *scratch);
void mg_gram_rectangle_avx2(const mg_tile *a, const mg_tile *b, double *acc, void *scratch);
void mg_gram_triangle_avx512(const mg_tile *tile, double *acc, void *scratch);
void mg_gram_rectangle_avx512(const mg_tile *a, const mg_tile *b, double *acc, void *scratch);
void mg_gram_triangle_amx(const mg_tile *tile, double *acc, void *scratch);
void mg_gram_rectangle_amx(const mg_tile *a, const mg_tile *b, double *acc, void *scratch);
#else
#define MG_HAVE_X86_KERNELS 0
#endif

/** The openblas table for this processor, or forced by name ("portable", "avx2", "avx512", "amx"; NULL: the best). */
mg_status mg_ops_openblas(const char *kernel, const mg_ops **ops);

#endif
