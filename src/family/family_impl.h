#ifndef MERGEGRID_FAMILY_IMPL_H
#define MERGEGRID_FAMILY_IMPL_H

#include "mergegrid/family.h"

/** Reads the bytes that describe the tensors of a safetensors file. To be freed also on failure. */
mg_status mg_header_read(const char *path, mg_header *header);
void mg_header_free(mg_header *header);
/** The same bytes before data of the same size: the same tensors at the same places. */
bool mg_header_equal(const mg_header *a, const mg_header *b);
/** As mg_safetensors_read_header. */
mg_status mg_header_parse(const char *path, uint32_t file, const mg_header *header, mg_tensor_info **tensors, size_t *count);

/** "[2, 3]" into text. */
void mg_shape_text(mg_text *text, const int64_t *shape, int ndim);
bool mg_shape_equal(const mg_tensor_info *a, const mg_tensor_info *b);
/** Does the name match one of the globs? */
bool mg_matches_any(const mg_strings *globs, const char *name);

/** Is item in a list that mg_strings_sort has sorted? */
bool mg_sorted_has(const mg_strings *sorted, const char *item);

enum { MG_LISTED_MISMATCHES = 200 };

/** Mismatches are gathered before they are reported: one line each, the first MG_LISTED_MISMATCHES in full. */
typedef struct mg_mismatches {
  mg_text lines;
  size_t count;
} mg_mismatches;

void mg_mismatch(mg_mismatches *list, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** How names of sources and base correspond: at most one of the two is taken off the front of its side's names. */
typedef struct mg_prefixes {
  char *source, *base; /**< "" or "roberta." */
} mg_prefixes;

mg_status mg_prefixes_find(const mg_checkpoint *source, const mg_checkpoint *base, mg_prefixes *prefixes);
void mg_prefixes_free(mg_prefixes *prefixes);
/** The base's tensor for a source's name, NULL if it has none. Each tensor is the counterpart of at most one of the other side.
 */
const mg_tensor_info *mg_base_counterpart(const mg_prefixes *prefixes, const mg_checkpoint *source, const mg_checkpoint *base,
                                          const char *source_name);
/** The source's tensor for a base's name, NULL if it has none. */
const mg_tensor_info *mg_source_counterpart(const mg_prefixes *prefixes, const mg_checkpoint *source, const mg_checkpoint *base,
                                            const char *base_name);

#endif
