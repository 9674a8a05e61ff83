/* Similarity matrices in CSV: the first byte says how repeated labels are taken and how is chosen. */

#include <stdlib.h>

#include "mergegrid/similarity.h"
#include "scratch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ptrdiff_t source_of(void *context, const char *label) {
  (void)context;
  return label[0] == 'x' ? -1 : (ptrdiff_t)(unsigned char)label[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[256];
  mg_similarity s;
  mg_strings notes = {0};
  if (size < 1) return 0;
  const char *dir = scratch_file("m.csv", data + 1, size - 1, path);
  if (mg_similarity_read(path, data[0] & 1 ? MG_DUPLICATES_KEEP : MG_DUPLICATES_FIRST, &s, &notes) == MG_OK) {
    const mg_selection_terms terms = {.by_row = (data[0] & 2) != 0,
                                      .sinkhorn = (data[0] & 4) != 0,
                                      .include_target = (data[0] & 8) != 0,
                                      .matrix_order = (data[0] & 16) != 0,
                                      .top_k = 2,
                                      .sinkhorn_iters = 3,
                                      .num_languages = 1 + (data[0] >> 5)};
    mg_selection got;
    if (mg_select_sources(&s, &terms, s.labels.items[0], source_of, NULL, &got) == MG_OK) free(got.candidates);
    mg_similarity_free(&s);
  }
  mg_strings_free(&notes);
  scratch_remove(dir, path);
  return 0;
}
