#ifndef MERGEGRID_INIT_IMPL_H
#define MERGEGRID_INIT_IMPL_H

#include <stdio.h>

#include "mergegrid/ablation.h"
#include "mergegrid/family.h"
#include "mergegrid/labelled_table.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"

typedef struct mg_init_options {
  const char *base;       /**< the base checkpoint's directory */
  const char *sources;    /**< a pattern with {locale} */
  const char *similarity; /**< a similarity matrix in CSV (labels in the first row and column); NULL: none */
  const char *texts;      /**< a pattern of text files with {locale}; NULL: none */
  const char *from; /**< an ablation file of merginguriel's, whose grid goes in; NULL: none. Without base and sources it is
                         the file that says what family there is */
} mg_init_options;

/**
 * Prints a commented run.yaml for the family that base and sources hold to out, with what was found, and which labels of
 * the matrix, texts and checkpoints do not meet. Nothing is printed unless all of it could be read: a family that does not
 * fit together, a malformed matrix or a pattern without {locale} is the status. Not collective.
 */
mg_status mg_init_print(const mg_init_options *options, FILE *out);

/** What of `these` is not among `those` (each once, in order of appearance). */
mg_status mg_strings_without(const mg_strings *these, const mg_strings *those, mg_strings *rest);
/** Items that are there more than once (each named once). */
mg_status mg_strings_repeated(const mg_strings *list, mg_strings *repeated);

/** Everything that init knows before it writes a line. */
typedef struct mg_findings {
  const mg_init_options *options;
  mg_source_list sources;
  mg_strings locales;
  mg_family *family;
  mg_strings layers, exclude;
  double source_bytes; /**< of all safetensors files of all sources */
  mg_labelled_table matrix;
  mg_strings texts;
  mg_ablation ablation; /**< where options->from */
} mg_findings;

/** Comments and configuration as one YAML text. */
mg_status mg_init_compose(const mg_findings *found, mg_text *out);
/** The same of an ablation alone: with a family where it names one, else the section grid. */
mg_status mg_init_compose_ablation(const mg_init_options *options, const mg_ablation *ablation, mg_text *out);
/** What an ablation is called, and what of it is not here, as comments. */
void mg_init_ablation_remarks(mg_text *out, const char *file, const mg_ablation *ablation);

/** A scalar of YAML: as it stands where nothing but a string can be meant, quoted elsewhere. */
void mg_init_scalar(mg_text *out, const char *text);
/** "# heading: text" */
void mg_init_line(mg_text *out, const char *heading, const char *text);

#endif
