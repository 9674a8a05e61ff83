#include "mergegrid/status.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The message of a thread. A list of mismatches may be long, so it grows; when memory fails the fixed text stands in. */
static _Thread_local char *message;
static _Thread_local const char *fixed = "";

/* A thread's message goes with it. */
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_key;

static void make_key(void) { has_key = pthread_key_create(&key, free) == 0; }

static void set_message(char *text, const char *fallback) {
  free(message);
  message = text;
  fixed = fallback;
  pthread_once(&once, make_key);
  if (has_key) pthread_setspecific(key, text);
}

static char *format_text(const char *format, va_list arguments) {
  char *text = NULL;
  return vasprintf(&text, format, arguments) < 0 ? NULL : text;
}

mg_status(mg_fail)(mg_status code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *text = format_text(format, arguments);
  va_end(arguments);
  set_message(text, "out of memory while reporting an error");
  return code;
}

mg_status(mg_fail_errno)(mg_status code, const char *format, ...) {
  const int error = errno;
  va_list arguments;
  va_start(arguments, format);
  char *text = format_text(format, arguments);
  va_end(arguments);
  char *whole = NULL;
  if (text != NULL && asprintf(&whole, "%s: %s", text, strerrordesc_np(error) ? strerrordesc_np(error) : "unknown error") < 0)
    whole = NULL;
  free(text);
  set_message(whole, "out of memory while reporting an error");
  return code;
}

mg_status(mg_fail_context)(mg_status code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *text = format_text(format, arguments);
  va_end(arguments);
  char *whole = NULL;
  if (text != NULL && asprintf(&whole, "%s: %s", text, mg_error_message()) < 0) whole = NULL;
  free(text);
  if (whole != NULL) set_message(whole, "");
  return code;
}

const char *mg_error_message(void) { return message != NULL ? message : fixed; }

int mg_exit_code(mg_status status) {
  switch (status) {
  case MG_OK:
    return 0;
  case MG_ERR_USAGE:
    return 2;
  case MG_SOME_FAILED:
    return 3;
  case MG_STOPPED:
    return 75;
  default:
    return 1;
  }
}
