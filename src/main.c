#include <mpi.h>

#include "mergegrid/cli.h"
#include "mergegrid/log.h"
#include "mergegrid/ops.h"
#include "mergegrid/stop.h"

int main(int argc, char **argv) {
  mg_command *command = NULL;
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  mg_ops_suit_processor(argv);
  mg_status status = mg_command_parse(argc, argv, &command);
  if (status == MG_OK && mg_command_is_collective(command)) {
    int provided;
    mg_prepare_launch();
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    comm = MPI_COMM_WORLD;
    MPI_Comm_rank(comm, &rank);
    mg_stop_install(); /* after MPI_Init, which may install handlers of its own */
  }
  if (status == MG_OK) status = mg_command_run(command, comm);
  if (status != MG_OK && rank == 0) mg_error("%s", mg_error_message());
  mg_command_free(&command);
  if (comm != MPI_COMM_NULL) MPI_Finalize();
  return mg_exit_code(status);
}
