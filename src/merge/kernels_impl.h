#ifndef MERGEGRID_MERGE_KERNELS_IMPL_H
#define MERGEGRID_MERGE_KERNELS_IMPL_H

/*
 * What is done to a tile, one table an instruction set. All of them do the same operations on each element in the same order
 * (products and sums in double, fused where it says so and nowhere else), and sums over elements in MG_MERGE_PARTS parts, so
 * their bits are the same.
 */

#include <stdbool.h>
#include <stddef.h>

#include "mergegrid/random.h"

typedef enum mg_elected { MG_ELECTED_MEAN, MG_ELECTED_SUM, MG_ELECTED_MAX } mg_elected;

/* Rows may be read, and sums written, so many elements past their count. */
enum { MG_MERGE_SLACK = 32 };
/* Sums that are made at once of the same rows. */
enum { MG_MERGE_MANY = 6 };
/* Element k goes to part k mod so many; parts are added up in halves. */
enum { MG_MERGE_PARTS = 16 };

/* Arrays are [sources]. A value is tau, 0 where it is out of bounds, minus shift times along where there is a shift. */
typedef struct mg_merge_rows {
  size_t sources;
  long count; /* elements */
  const float *const *tau;
  const double *weight;
  const double *vote;                /* what values weigh in a vote */
  const double *threshold, *ceiling; /* of |tau|: elements below, or from the ceiling on, count as 0 */
  const double *shift;               /* NULL: none */
  const float *along;
  double tie;          /* +1 or −1: what wins where votes cancel */
  double floor;        /* the least that an elected mean is divided by */
  const double *alone; /* what a value that no other source changes is multiplied by; NULL: 1 */
} mg_merge_rows;

/* One of many sums of the same rows. */
typedef struct mg_merge_sum {
  const double *weight; /* [sources] */
  double base_factor, lambda;
  float *out; /* may be written to MG_MERGE_SLACK elements past the count */
} mg_merge_sum;

typedef struct mg_merge_kernels {
  const char *name;
  /* sum[k] = Σ w_s tau_s[k] by fused multiply-adds, bounds left aside */
  void (*add_up)(const mg_merge_rows *rows, double *sum);
  /* MG_MERGE_MANY such sums of the same rows, finished as by finish, each into its own out; all may be not finite */
  void (*sums)(const mg_merge_rows *rows, const mg_merge_sum *sums, const float *base);
  /* copies, past the caches if asked to and `to` is aligned to 64 bytes; is all of it finite? */
  bool (*copy_out)(float *to, const float *from, long count, bool past);
  /* the same of what lies within bounds */
  void (*add_up_between)(const mg_merge_rows *rows, double *sum);
  /* sum[k] = Σ vote_s value_s[k] */
  void (*votes)(const mg_merge_rows *rows, double *sum);
  /* the sign of the votes, then mean, sum or largest of the values that have it. True: somewhere values cancelled each other,
     so that `tie` mattered */
  bool (*elect)(const mg_merge_rows *rows, mg_elected elected, double *sum);
  /* of each element the value of largest magnitude, of equals the first */
  void (*largest)(const mg_merge_rows *rows, double *sum);
  /* the weighted mean of those within bounds */
  void (*average_active)(const mg_merge_rows *rows, double *sum);
  /* variances over the sources, each counting alike */
  void (*variance)(const mg_merge_rows *rows, double *sum);
  /* a + u (b − a), u = t / max(|b − a|, 1e-6) or 1 if that is less; a NULL: 0 */
  void (*near)(const float *a, const float *b, double t, long count, double *sum);
  /* to[k] = scale from[k] where word first + k of the stream is at most `last`, else 0; from may be to */
  void (*keep_random)(const mg_stream *stream, uint64_t first, long count, uint32_t last, float scale, const float *from,
                      float *to);
  /* Σ a[k] b[k] over the |a| from low to below high */
  double (*dot)(const float *a, double low, double high, const float *b, long count);
  /* KL(softmax(base + b) ‖ softmax(base + a)), at least 0; a NULL: 0 */
  double (*divergence)(const float *base, const float *a, const float *b, long count);
  /* out = base_factor base + lambda sum, rounded once; is all of it finite? */
  bool (*finish)(const float *base, const double *sum, double base_factor, double lambda, long count, float *out);
} mg_merge_kernels;

extern const mg_merge_kernels mg_merge_portable, mg_merge_avx2, mg_merge_avx512;
/* The best for this machine, or what MERGEGRID_KERNEL names. */
const mg_merge_kernels *mg_merge_kernels_get(void);
/* All that this machine runs, at most 3, the portable one first; their number. */
size_t mg_merge_kernels_all(const mg_merge_kernels **kernels);

#endif
