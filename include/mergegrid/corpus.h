#ifndef MERGEGRID_CORPUS_H
#define MERGEGRID_CORPUS_H

/** Labelled texts: MASSIVE's JSON lines, or tab-separated values with a header line. Not collective. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"
#include "mergegrid/text.h"

/** Section `texts` of the configuration. */
typedef struct mg_texts_spec {
  char *files;                         /**< path with {locale}; `.tsv`: tab-separated, else JSON lines; NULL: no texts */
  char *id, *text, *label, *partition; /**< names of fields (or of columns of the header line) */
  int max_length;                      /**< most tokens of a text, special ones included */
  char *labels;                        /**< a file with one label name a line, or NULL */
} mg_texts_spec;

/** The texts of one locale and one partition, in the order of the file. */
typedef struct mg_corpus {
  char *path;
  size_t count;
  char **id;      /**< [count]; integers in JSON as decimal digits; the line number where the file has no such field */
  char **text;    /**< [count], NUL-terminated UTF-8 */
  size_t *size;   /**< [count] bytes of text (JSON strings may hold NULs) */
  int32_t *label; /**< [count] class index of the model */
  int64_t *line;  /**< [count] 1-based, for messages */
} mg_corpus;

/** The name that a partition goes by: `dev` for `validation`, else itself. */
const char *mg_partition_name(const char *partition);

/** The path of a locale's texts ({locale} replaced). The caller frees. */
char *mg_corpus_path(const mg_texts_spec *spec, const char *locale);

/**
 * The names that integer or LABEL_n labels stand for. model: id2label of the family by index (may be empty: a bare encoder).
 * With spec->labels, the file's names replace those of a model that has only LABEL_n names; as many are expected as the model
 * has classes, and where the model has names of its own they must be the same in the same order. MG_ERR_INPUT names the file.
 */
mg_status mg_corpus_labels(const mg_texts_spec *spec, const mg_strings *model, mg_strings *labels);

/**
 * Reads a locale's file once and gives the texts of each of `partitions` (`validation` and `dev` are the same) in corpora
 * [partitions->count], which the caller owns (mg_corpus_free each). labels (from mg_corpus_labels) turn names into indexes;
 * integers are indexes. NULL labels: the label field is not looked at, label is −1. limit: at most that many texts a partition
 * (0: all). A partition without texts is no error here: its count is 0.
 * MG_ERR_INPUT names file and line: no such file, no UTF-8, no JSON object, a missing or mistyped field, an unknown label (with
 * the nearest known one), an index out of range; names in texts where the model's are LABEL_n (says texts.labels: FILE).
 * Files above 4 GiB and lines above 16 MiB are refused.
 */
mg_status mg_corpus_read(const mg_texts_spec *spec, const char *locale, const mg_strings *partitions, const mg_strings *labels,
                         size_t limit, mg_corpus *corpora);
void mg_corpus_free(mg_corpus *corpus);
/**
 * A file with one text a line: white space around it does not count, nor do blank lines; id is the line's number, label −1. The
 * caller owns corpus. MG_ERR_INPUT names file and line: no such file, no UTF-8, no text at all.
 */
mg_status mg_corpus_read_lines(const char *path, mg_corpus *corpus);

/** The locales that have a file: those for which spec->files, filled in, is a regular file; byte-sorted. MG_ERR_CONFIG without
 * {locale}; MG_ERR_INPUT for a name that is no UTF-8. */
mg_status mg_corpus_locales(const mg_texts_spec *spec, mg_strings *locales);

#endif
