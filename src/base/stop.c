#include "mergegrid/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t requested;
static volatile sig_atomic_t first_signal;

static void on_signal(int signal_number) {
  if (!requested) first_signal = signal_number;
  requested = 1;
}

void mg_stop_install(void) {
  const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
  /* A full disk quota or a closed pipe is to be an error code of the call, named with its file, not a silent death. */
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  sigaction(SIGXFSZ, &ignore, NULL);
}

bool mg_stop_requested(void) { return requested != 0; }

int mg_stop_signal(void) { return (int)first_signal; }

void mg_stop_request(void) { requested = 1; }
