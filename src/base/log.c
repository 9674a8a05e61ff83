#include "mergegrid/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct {
  int rank, ranks;
  bool quiet, verbose;
  bool line_open; /* a progress line without its newline stands on the terminal */
} settings = {.ranks = 1};

void mg_log_setup(int rank, int ranks, bool quiet, bool verbose) {
  settings.rank = rank;
  settings.ranks = ranks;
  settings.quiet = quiet;
  settings.verbose = verbose;
}

double mg_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* One write a line, because the ranks' lines meet on one terminal. */
static void say(const char *level, const char *format, va_list arguments) {
  char rank[32] = "", *text = NULL, *line = NULL;
  if (settings.rank != 0) snprintf(rank, sizeof rank, "rank %d: ", settings.rank);
  const bool formatted = vasprintf(&text, format, arguments) >= 0;
  flockfile(stderr);
  const int size = asprintf(&line, "%smergegrid: %s%s%s\n", settings.line_open ? "\n" : "", rank, level,
                            formatted ? text : "out of memory, and a message is lost");
  settings.line_open = false;
  if (size >= 0) fwrite(line, 1, (size_t)size, stderr);
  funlockfile(stderr);
  if (formatted) free(text);
  if (size >= 0) free(line);
}

void mg_debug(const char *format, ...) {
  if (!settings.verbose) return;
  va_list arguments;
  va_start(arguments, format);
  say("", format, arguments);
  va_end(arguments);
}

void mg_info(const char *format, ...) {
  if (settings.quiet || settings.rank != 0) return;
  va_list arguments;
  va_start(arguments, format);
  say("", format, arguments);
  va_end(arguments);
}

void mg_warn(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("warning: ", format, arguments);
  va_end(arguments);
}

void mg_error(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("error: ", format, arguments);
  va_end(arguments);
}

void mg_progress_begin(mg_progress *progress, const char *what, double total, double done, double scale, const char *unit) {
  *progress = (mg_progress){.what = what,
                            .total = total,
                            .start_done = done,
                            .scale = scale,
                            .unit = unit,
                            .began = mg_now(),
                            .last = mg_now(),
                            .terminal = isatty(STDERR_FILENO) == 1};
}

static void print_duration(double seconds) {
  const long whole = (long)(seconds + 0.5);
  if (whole >= 3600)
    fprintf(stderr, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  else
    fprintf(stderr, "%ld:%02ld", whole / 60, whole % 60);
}

/* Hundreds of thousands of texts are a number to read, too; %g would turn to powers of ten. */
static void print_number(double value, int digits) {
  if (value >= 1000)
    fprintf(stderr, "%.0f", value);
  else
    fprintf(stderr, "%.*g", digits, value);
}

static void print_progress(mg_progress *progress, double done, bool final) {
  const double seconds = mg_now() - progress->began;
  const double rate = seconds > 0 ? (done - progress->start_done) / seconds : 0;
  flockfile(stderr);
  fprintf(stderr, "%smergegrid: %s ", progress->terminal ? "\r\033[K" : "", progress->what);
  print_number(done / progress->scale, 4);
  fputc('/', stderr);
  print_number(progress->total / progress->scale, 4);
  fprintf(stderr, " %s (%.0f%%), ", progress->unit, progress->total > 0 ? 100 * done / progress->total : 100.0);
  if (rate > 0) {
    print_number(rate / progress->scale, 3);
    fprintf(stderr, " %s/s, ", progress->unit);
  }
  if (final && done <= progress->start_done) {
    fputs("nothing left to do", stderr);
  } else if (final) {
    fputs("took ", stderr);
    print_duration(seconds);
  } else if (rate > 0) {
    print_duration((progress->total - done) / rate);
    fputs(" left", stderr);
  } else {
    fputs("time left unknown", stderr);
  }
  settings.line_open = progress->terminal && !final;
  if (!settings.line_open) fputc('\n', stderr);
  funlockfile(stderr);
}

void mg_progress_update(mg_progress *progress, double done) {
  if (settings.quiet || settings.rank != 0) return;
  const double now = mg_now();
  if (now - progress->last < (progress->terminal ? 0.2 : 10.0)) return;
  progress->last = now;
  print_progress(progress, done, false);
}

void mg_progress_end(mg_progress *progress, double done) {
  if (settings.quiet || settings.rank != 0) return;
  print_progress(progress, done, true);
}
