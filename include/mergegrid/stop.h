#ifndef MERGEGRID_STOP_H
#define MERGEGRID_STOP_H

/** Clean stops on SIGTERM, SIGINT and SIGUSR1. Handlers are idempotent: launchers deliver a signal twice. Not collective. */

#include <stdbool.h>

void mg_stop_install(void);
bool mg_stop_requested(void);
/** The signal that asked first, 0 if none (or a budget did). */
int mg_stop_signal(void);
/** Asks this process to stop as a signal would. */
void mg_stop_request(void);

#endif
