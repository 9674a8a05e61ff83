#include <stdlib.h>
#include <string.h>

#include "mergegrid/schedule.h"
#include "mergegrid/text.h"

mg_status mg_agree(MPI_Comm comm, mg_status status) {
  int rank, ranks;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &ranks);
  /* A stop is everybody's, but a failure beside it says more: failures of low ranks win, stops come last. */
  int mine = status == MG_OK ? 2 * ranks : (status == MG_STOPPED ? ranks + rank : rank), first;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, comm);
  if (first == 2 * ranks) return MG_OK;
  const int speaker = first % ranks;
  int code = (int)status;
  MPI_Bcast(&code, 1, MPI_INT, speaker, comm);
  unsigned long length = rank == speaker ? strlen(mg_error_message()) : 0;
  MPI_Bcast(&length, 1, MPI_UNSIGNED_LONG, speaker, comm);
  char *text = calloc(1, length + 1);
  if (text == NULL) {
    MPI_Abort(comm, 1); /* the others wait in the broadcast: nothing softer is left */
    return MG_ERR_NOMEM;
  }
  if (rank == speaker) memcpy(text, mg_error_message(), length);
  MPI_Bcast(text, (int)length, MPI_CHAR, speaker, comm);
  mg_fail((mg_status)code, "%s", text);
  free(text);
  return (mg_status)code;
}

mg_status mg_agree_text(MPI_Comm comm, const char *what, const char *text) {
  char host[MPI_MAX_PROCESSOR_NAME];
  int rank, length;
  void *first = mg_strdup(text);
  size_t size = strlen(text);
  MPI_Comm_rank(comm, &rank);
  MPI_Get_processor_name(host, &length);
  mg_status status = mg_agree(comm, first != NULL ? MG_OK : MG_ERR_NOMEM);
  if (status == MG_OK && rank != 0) free(first), first = NULL;
  if (status == MG_OK) status = mg_broadcast_bytes(comm, &first, &size);
  if (status == MG_OK && first != NULL) {
    if (strcmp(first, text) != 0)
      status = mg_fail(MG_ERR_INPUT, "rank %d on %s: %s is '%s', of rank 0 '%s': ranks have to be the same", rank, host, what,
                       text, (const char *)first);
    status = mg_agree(comm, status);
  }
  free(first);
  return status;
}

mg_status mg_broadcast_bytes(MPI_Comm comm, void **data, size_t *size) {
  enum { PIECE = 1 << 28 };
  int rank;
  MPI_Comm_rank(comm, &rank);
  unsigned long long bytes = rank == 0 ? *size : 0;
  MPI_Bcast(&bytes, 1, MPI_UNSIGNED_LONG_LONG, 0, comm);
  mg_status status = MG_OK;
  if (rank != 0) {
    *size = (size_t)bytes;
    *data = mg_alloc((size_t)bytes + 1, 1);
    if (*data == NULL)
      status = MG_ERR_NOMEM;
    else
      ((char *)*data)[bytes] = '\0';
  }
  status = mg_agree(comm, status);
  if (status != MG_OK) {
    if (rank != 0) {
      free(*data);
      *data = NULL;
    }
    return status;
  }
  for (size_t at = 0; at < *size; at += PIECE) {
    const size_t left = *size - at;
    MPI_Bcast((char *)*data + at, (int)(left < PIECE ? left : PIECE), MPI_BYTE, 0, comm);
  }
  return MG_OK;
}
