#ifndef MERGEGRID_CLI_H
#define MERGEGRID_CLI_H

/** The command line: one table of options makes the parser and the help. */

#include <mpi.h>
#include <stdbool.h>

#include "mergegrid/status.h"

typedef struct mg_command mg_command;

/**
 * Not collective. Parses the arguments. MG_ERR_USAGE names what is wrong and the nearest known word. --help and --version are
 * commands as well. *command is owned by the caller.
 */
mg_status mg_command_parse(int argc, char **argv, mg_command **command);
void mg_command_free(mg_command **command);

/** Does the command work over all ranks (pack, run)? The others run in one process and need no MPI. */
bool mg_command_is_collective(const mg_command *command);

/** Collective where the command is. comm is MPI_COMM_NULL for the others. */
mg_status mg_command_run(const mg_command *command, MPI_Comm comm);

/** Lets single-node launches start fast: Open MPI's shared-memory transport is chosen where nothing else was. Before MPI_Init.
 */
void mg_prepare_launch(void);

#endif
