#ifndef MG_NXN_IMPL_H
#define MG_NXN_IMPL_H

/* Between the files of the stage nxn. */

#include "mergegrid/log.h"
#include "stage_impl.h"

typedef struct mg_nxn_kept {
  mg_nxn_part part;
  mg_record_place place;
} mg_nxn_kept;

struct mg_nxn_stage {
  mg_attempt *attempt;
  const mg_source_list *list;
  mg_nxn_plan plan;
  mg_encoder *encoder;
  mg_row_weights *weights;
  ptrdiff_t loaded;  /* the source whose weights the encoder has, −1 */
  size_t classes;    /* C */
  int32_t *class_of; /* [N, C]: the family's class of a source's */
  mg_nxn_part *todo; /* the same on every rank */
  size_t todo_count;
  /* rank 0 */
  bool *done; /* [N, batches] */
  size_t done_texts, all_texts;
  mg_nxn_kept *kept; /* where answers are in the journals */
  size_t kept_count, kept_room;
  uint8_t **nonfinite; /* [N] of a source that has such logits a bit a sequence; NULL of others */
  char **failure;      /* [N, M] once all answers are there: why a source has failed on a target, NULL: it has not */
  size_t failed;       /* how many have */
  mg_progress progress;
  int32_t *all;     /* [N, sequences] predictions, once they are scored */
  int32_t *kept_of; /* [N, batches] index into kept, −1 */
  /* the answers of one source, for the result */
  ptrdiff_t answering;    /* which */
  int32_t *predictions;   /* [sequences] */
  float *logits;          /* [sequences, C] */
  int32_t *labels;        /* of the longest target */
  double *accuracy;       /* [2, N, M] of mg_nxn_score */
  mg_result_texts *texts; /* [M] */
};

void mg_nxn_answers_free(mg_nxn_stage *stage);
/* Notes which of a record's answers are none: logits that are not finite. */
mg_status mg_nxn_note_nonfinite(mg_nxn_stage *stage, const mg_nxn_part *part, const int32_t *predictions);
void mg_nxn_failures_free(mg_nxn_stage *stage);
/* Does a text of a target belong to the part, as it is evaluated? */
bool mg_nxn_takes_part(const mg_nxn_stage *stage, const mg_target *target, size_t text, int part);
/* Are both parts the same texts, of every target? */
bool mg_nxn_parts_are_one(const mg_nxn_texts *texts);

#endif
