#ifndef MERGEGRID_GRID_JOURNAL_H
#define MERGEGRID_GRID_JOURNAL_H

/**
 * What a journal holds of a grid: one manifest an attempt, written once sources are chosen and before any merge is computed,
 * and an answer for each merge or vote. Together they tell which cells of a run under way are finished, and what those are
 * worth. Master only; reading takes no lock.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/result.h"
#include "mergegrid/result_grid.h"
#include "mergegrid/text.h"

enum { MG_RECORD_CELL = 4, MG_RECORD_MANIFEST = 6 }; /**< kinds of records, beside those of other stages */

/** The record of a merge or vote: this, then predictions [sequences] of one that succeeded, or a message. */
typedef struct mg_grid_answer {
  uint64_t recipe;
  uint32_t target, failed, size; /**< size: of what follows, in bytes */
  uint32_t zero;
} mg_grid_answer;

/** How an answer to a target is scored. Equal texts are evaluated once: several may have the same position. */
typedef struct mg_manifest_texts {
  size_t count, sequences;      /**< texts; predictions of an answer */
  const int32_t *label;         /**< [count] class */
  const uint32_t *position;     /**< [count] of the text's prediction in an answer */
  const bool *scored, *selects; /**< [count] of the partition cells are scored on; of the one that is chosen by */
} mg_manifest_texts;

/** All pointers borrowed. C cells, M targets. */
typedef struct mg_grid_manifest {
  const mg_result_grid *grid; /**< cells, swept, targets, partition; its predictions, weights and tables are not looked at */
  const double *source_mean;  /**< [C] mean accuracy of a cell's sources, NaN where it has none */
  const char *select;         /**< the partition that is chosen by */
  size_t classes;
  const mg_manifest_texts *texts; /**< [M] */
} mg_grid_manifest;

/** Appends the record's payload. Cells that have no answer of their own (baselines) are to be scored already. */
mg_status mg_grid_manifest_write(const mg_grid_manifest *manifest, mg_text *payload);

/** What the journals beside a result tell while the result is not there; owns everything. */
typedef struct mg_grid_progress {
  size_t records;
  double bytes; /**< of the records' payloads */
  bool known;   /**< there is a manifest: what follows holds */
  mg_grid_table
      table; /**< cells as of a finished result, `planned` where they have no answer; no tables of methods, no weights */
  char *select;
} mg_grid_progress;

/**
 * Reads the journals of a run and of its parts (run --part) as they are now. A record that is not whole, of a run that is
 * writing it or was killed over it, ends its journal. The newest manifest counts; answers are found by recipe, whichever
 * attempt or part wrote them.
 */
mg_status mg_grid_progress_read(const char *result, mg_grid_progress *progress);
void mg_grid_progress_free(mg_grid_progress *progress);

#endif
