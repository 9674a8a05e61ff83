#ifndef MG_SMALL_RESULT_H
#define MG_SMALL_RESULT_H

#include "mergegrid/result.h"

/* A result of a test's own family; what is the same in all of them is filled in, what it holds is the test's to add. */
static mg_result_data small_result(const mg_source_list *sources, const char *base_path, const mg_strings *labels,
                                   const mg_tensor_table *table, const bool *selected, const mg_identity *identity) {
  static const mg_rank_report rank = {.host = "host", .units = 3, .busy_seconds = 1.5};
  return (mg_result_data){.sources = sources,
                          .base_path = base_path,
                          .labels = labels,
                          .table = table,
                          .selected = selected,
                          .config_yaml = "seed: 42\n",
                          .config_file = "r.yaml",
                          .identity = identity,
                          .numeric_mode = "one",
                          .backend = "ref",
                          .mpi_library = "none",
                          .started_utc = "2026-01-01T00:00:00Z",
                          .attempt = 1,
                          .ranks = 1,
                          .rank_reports = &rank};
}

#endif
