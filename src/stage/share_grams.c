/* Grams of all tensors on every node, where the stage compatibility keeps them so. */

#include "stage_impl.h"

mg_status mg_share_grams(const mg_attempt *a, mg_gram_stage *stage, mg_shared **dots, mg_gram_view *view) {
  mg_status status = MG_OK;
  const size_t n = a->roster->list.count, tensors = mg_rows_table(a->rows)->count, each = tensors * sizeof(double);
  const mg_gram *gram = NULL;
  const double *cosine;
  mg_shared_piece pieces[3] = {{0}};
  *dots = NULL;
  if (a->rank == 0 && stage != NULL) status = mg_gram_stage_matrices(stage, &cosine, &gram);
  MG_TRY(mg_agree(a->comm, status), done);
  if (gram != NULL && gram->groups == tensors) {
    pieces[0] = (mg_shared_piece){.from = gram->dot, .size = n * n * each};
    pieces[1] = (mg_shared_piece){.from = gram->base_dot, .size = n * each};
    pieces[2] = (mg_shared_piece){.from = gram->base_norm2, .size = each};
  }
  MG_TRY(mg_shared_broadcast(a->comm, "the inner products", pieces, 3, dots), done);
  *view = (mg_gram_view){.sources = n, .source_dot = pieces[0].at, .base_dot = pieces[1].at, .base_norm2 = pieces[2].at};
done:
  return status;
}
