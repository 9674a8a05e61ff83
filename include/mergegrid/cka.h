#ifndef MERGEGRID_CKA_H
#define MERGEGRID_CKA_H

/**
 * Centred kernel alignment of sources from their features on the same texts: the cosine of centred Gram matrices. Not
 * collective.
 *
 * Linear CKA (Kornblith et al. 2019, arXiv:1905.00414, eq. 1 with the biased HSIC): with X centred by columns and K = X Xᵀ,
 * CKA(i, j) = <Ki, Kj> / (‖Ki‖ ‖Kj‖), which equals ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖).
 * Unbiased (Song et al. 2012, J. Mach. Learn. Res. 13, eq. 5, HSIC_1): the same of Gram matrices with a zero diagonal, centred
 * so that their rows sum to zero (U-centring); needs at least 4 texts.
 */

#include <stddef.h>
#include <stdint.h>

#include "mergegrid/device.h"
#include "mergegrid/status.h"

typedef struct mg_cka_features {
  size_t sources, texts, width;
  void *context;
  /** Source k's features [texts, width], row by row; valid until the next call. */
  mg_status (*get)(void *context, size_t source, const float **features);
} mg_cka_features;

/**
 * biased and unbiased [sources, sources] (unbiased NaN below 4 texts). fp64 from the features on. By the host (device NULL) in
 * one order of operations: the same bits on every machine and for every `memory`, the most bytes of Gram matrices to hold at
 * once (two sources' at least). On a device to within 1e-10 of those, the same bits for every room that is left there; at least
 * what mg_cka_device_bytes says, or MG_ERR_NOMEM. Symmetric; the diagonal is exactly 1; a source whose features are the same
 * for all texts: NaN. The unbiased estimator may leave [0, 1]. MG_ERR_INPUT: features that are not finite (names the source's
 * number and the text's).
 */
mg_status mg_cka(const mg_cka_features *features, uint64_t memory, mg_device *device, double *biased, double *unbiased);
/** Bytes that mg_cka takes of `memory`. */
uint64_t mg_cka_bytes(size_t sources, size_t texts, size_t width, uint64_t memory);
/** Bytes of a device's memory: what it needs, and what it takes where there is as much. */
void mg_cka_device_bytes(const mg_device *device, size_t sources, size_t texts, size_t width, uint64_t *least, uint64_t *wish);

#endif
