/* Grams of all tensors on every rank, where the stage compatibility keeps them so. */

#include <stdlib.h>
#include <string.h>

#include "stage_impl.h"

mg_status mg_share_grams(const mg_attempt *a, mg_gram_stage *stage, double **dots, mg_gram_view *view) {
  mg_status status = MG_OK;
  const size_t n = a->roster->list.count, tensors = mg_rows_table(a->rows)->count, all = tensors * (n * n + n + 1);
  int there = 0;
  const mg_gram *gram = NULL;
  const double *cosine;
  *dots = NULL;
  if (a->rank == 0 && stage != NULL) status = mg_gram_stage_matrices(stage, &cosine, &gram);
  MG_TRY(mg_agree(a->comm, status), done);
  there = gram != NULL && gram->groups == tensors;
  MPI_Bcast(&there, 1, MPI_INT, 0, a->comm);
  if (!there) return MG_OK;
  *dots = mg_alloc(all, sizeof **dots);
  MG_TRY(mg_agree(a->comm, *dots != NULL ? MG_OK : MG_ERR_NOMEM), done);
  if (*dots == NULL) return MG_ERR_NOMEM; /* agreed on, which no analyzer sees */
  double *base_dot = *dots + tensors * n * n, *base_norm2 = base_dot + tensors * n;
  if (gram != NULL) {
    memcpy(*dots, gram->dot, tensors * n * n * sizeof **dots);
    memcpy(base_dot, gram->base_dot, tensors * n * sizeof **dots);
    memcpy(base_norm2, gram->base_norm2, tensors * sizeof **dots);
  }
  for (size_t done = 0; done < all; done += 1 << 24)
    MPI_Bcast(*dots + done, (int)(all - done < 1 << 24 ? all - done : 1 << 24), MPI_DOUBLE, 0, a->comm);
  *view = (mg_gram_view){.sources = n, .source_dot = *dots, .base_dot = base_dot, .base_norm2 = base_norm2};
done:
  return status;
}
