#ifndef MERGEGRID_LOG_H
#define MERGEGRID_LOG_H

/** Messages on standard error, and the progress line of long work. Not collective. */

#include <stdbool.h>
#include <stdint.h>

/** rank is printed in front of what other ranks than 0 say; they say only warnings and errors. */
void mg_log_setup(int rank, int ranks, bool quiet, bool verbose);

void mg_debug(const char *format, ...) __attribute__((format(printf, 1, 2))); /**< with --verbose only */
void mg_info(const char *format, ...) __attribute__((format(printf, 1, 2)));  /**< rank 0 only, not with --quiet */
void mg_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));  /**< every rank */
void mg_error(const char *format, ...) __attribute__((format(printf, 1, 2))); /**< every rank */

/** A progress line with rate and time left: rewritten in place on a terminal, a line every ten seconds elsewhere. */
typedef struct mg_progress {
  const char *what;  /**< "gram", "pack" */
  double total;      /**< in units */
  double start_done; /**< already done when this attempt began (not counted in the rate) */
  double scale;      /**< units per printed unit, e.g. 1e9 for bytes as GB */
  const char *unit;  /**< "GB", "shards" */
  double began, last;
  bool terminal;
} mg_progress;

void mg_progress_begin(mg_progress *progress, const char *what, double total, double done, double scale, const char *unit);
void mg_progress_update(mg_progress *progress, double done);
void mg_progress_end(mg_progress *progress, double done);

/** Seconds on a monotonic clock. */
double mg_now(void);

#endif
