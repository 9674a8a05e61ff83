#ifndef MERGEGRID_ABLATION_H
#define MERGEGRID_ABLATION_H

/** Ablation files of merginguriel's experiment runner, as sections of a configuration. Not collective. */

#include <stdbool.h>
#include <stddef.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

/** What a file comes to. Owns everything; NULL where the file does not say. */
typedef struct mg_ablation {
  char *name, *description;
  char *models_root, *model_family, *pretrained; /**< of the first family, where several are named */
  char *text_column;
  mg_text grid;       /**< the section `grid`, in block style */
  bool needs_cka;     /**< a method goes by it */
  mg_strings remarks; /**< one line each: keys without a counterpart, methods left out, what means something else here */
} mg_ablation;

/**
 * Reads `ablation: {name, fixed, sweep, phases, …}` from text (the content of `file`, for messages). matrix: the CSV that
 * similarity_type URIEL goes by; NULL: merginguriel's name for it. MG_ERR_CONFIG "file:line:column: …": an unknown key (names
 * the nearest), an unknown method, a value that is none; nothing left that this version can do.
 */
mg_status mg_ablation_read(const char *file, const char *text, size_t size, const char *matrix, mg_ablation *ablation);
void mg_ablation_free(mg_ablation *ablation);

#endif
