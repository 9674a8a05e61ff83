#ifndef MERGEGRID_TESTS_MEASURE_H
#define MERGEGRID_TESTS_MEASURE_H

#include "workload.h"

/**
 * Puts what rank 0 takes for a decision, a journal record, a byte of partial sums and (of two or more ranks) a message on this
 * machine into m. Collective. Everything else stays as it was. The journal is written to a directory made in `dir` and removed.
 */
mg_status sim_measure(const sim_family *family, const char *dir, sim_machine *m);

#endif
