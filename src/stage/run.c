/* A run: the result is taken, the family looked at, its shards brought up to date, then the stages one after another. */

#include "mergegrid/log.h"
#include "stage_impl.h"

mg_status mg_stage_run(MPI_Comm comm, const mg_config *config, const mg_run_options *options) {
  mg_status status = MG_OK;
  int rank;
  mg_roster roster = {0};
  mg_rows *rows = NULL;
  mg_run *run = NULL;
  const double began = mg_now();
  MPI_Comm_rank(comm, &rank);
  MG_TRY(mg_agree(comm, rank == 0 ? mg_run_open(config->result, options->mode, &run) : MG_OK), cleanup);
  MG_TRY(mg_roster_open_all(comm, config, &roster), cleanup);
  roster.family_seconds = mg_now() - began;
  if (config->shards.dir != NULL) MG_TRY(mg_pack_family(comm, config, &roster, false), cleanup);
  roster.pack_seconds = mg_now() - began - roster.family_seconds;
  MG_TRY(mg_agree(comm, mg_roster_rows(config, &roster, &rows)), cleanup);
  MG_TRY(mg_stage_compatibility(comm, config, options, &roster, rows, run), cleanup);
cleanup:
  mg_rows_close(&rows);
  mg_roster_close(&roster);
  if (run != NULL) mg_run_close(&run, status);
  return status;
}
