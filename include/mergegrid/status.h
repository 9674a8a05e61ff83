#ifndef MERGEGRID_STATUS_H
#define MERGEGRID_STATUS_H

/**
 * Status codes and the message that goes with them.
 *
 * Every function that can fail returns an mg_status. The text of the last failure belongs to the calling thread: it is
 * set by mg_fail() where the failure is found (name the file, dataset, tensor, key and line, and what was expected), and
 * callers may put their own context in front of it. Not collective: agreement between ranks is mg_agree() in schedule.h.
 */

#include <stdarg.h>
#include <stddef.h>

typedef enum mg_status {
  MG_OK = 0,
  MG_ERR_USAGE,    /**< command line: exit code 2 */
  MG_ERR_CONFIG,   /**< configuration file */
  MG_ERR_INPUT,    /**< checkpoints, matrices, texts: what the user gave does not fit */
  MG_ERR_CORRUPT,  /**< a file of ours does not hold what it should */
  MG_ERR_IO,       /**< the operating system refused */
  MG_ERR_NOMEM,    /**< memory, or the memory budget, does not suffice */
  MG_ERR_BUSY,     /**< another run owns the result */
  MG_ERR_INTERNAL, /**< a broken invariant of ours */
  MG_SOME_FAILED,  /**< the work is done and written, but some evaluations, cells or setups failed: exit code 3 */
  MG_STOPPED       /**< a signal or a budget stopped the work; what is finished is kept: exit code 75 */
} mg_status;

/** Sets this thread's message (printf style) and returns code. */
mg_status mg_fail(mg_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Like mg_fail, with ": " and the text of errno appended. */
mg_status mg_fail_errno(mg_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Puts "text: " in front of this thread's message and returns code unchanged. */
mg_status mg_fail_context(mg_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* The analyzer sees one file at a time, and through no variadic function: this tells it that a failure is what was passed. */
#define mg_fail(code, ...)         ((void)mg_fail(code, __VA_ARGS__), (code))
#define mg_fail_errno(code, ...)   ((void)mg_fail_errno(code, __VA_ARGS__), (code))
#define mg_fail_context(code, ...) ((void)mg_fail_context(code, __VA_ARGS__), (code))
#endif

/** This thread's message, never NULL; owned by the library, valid until the next mg_fail of this thread. */
const char *mg_error_message(void);

/** The process's exit code for a status (0, 1, 2, 3 or 75). */
int mg_exit_code(mg_status status);

/**
 * Runs a call; on failure goes to `label` with the code in the local variable `status`, which the function must declare.
 */
#define MG_TRY(call, label)                                                                                                    \
  do {                                                                                                                         \
    status = (call);                                                                                                           \
    if (status != MG_OK) goto label;                                                                                           \
  } while (0)

#endif
