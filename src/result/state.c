/* R.state: what became of a result, for job scripts and for people. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "run_impl.h"

enum { LARGEST_STATE = 1 << 20 };

void mg_utc_text(char buffer[24]) {
  const time_t now = time(NULL);
  struct tm parts;
  gmtime_r(&now, &parts);
  strftime(buffer, 24, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

/* "key value" on one line; nothing for an empty value. */
static void append_line(mg_text *text, const char *key, const char *value) {
  if (value == NULL || value[0] == '\0') return;
  mg_text_append(text, "%s ", key);
  for (const char *p = value; *p != '\0'; p++) {
    if (*p == '\n' || *p == '\r') {
      if (p[1] != '\0') mg_text_append(text, "; ");
      while (p[1] == ' ' || p[1] == '\n' || p[1] == '\r') p++;
    } else {
      mg_text_append_bytes(text, p, 1);
    }
  }
  mg_text_append(text, "\n");
}

mg_status mg_state_write(const char *result, const mg_state *state, mg_may_replace may, void *context) {
  mg_text text = {0};
  char host[256] = "", now[24];
  char *path = mg_beside(result, ".state");
  if (path == NULL) return MG_ERR_NOMEM;
  gethostname(host, sizeof host - 1);
  mg_utc_text(now);
  mg_text_append(&text, "%s\nattempt %d\n", state->state, state->attempt);
  append_line(&text, "id", state->id);
  append_line(&text, "host", host);
  mg_text_append(&text, "pid %ld\n", (long)getpid());
  append_line(&text, "started", state->started);
  append_line(&text, "updated", now);
  append_line(&text, "stage", state->stage);
  append_line(&text, "progress", state->progress);
  append_line(&text, "message", state->message);
  const mg_status status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory")
                                       : mg_replace_file_if(path, state->attempt, text.data, text.size, may, context);
  mg_text_free(&text);
  free(path);
  return status;
}

mg_status mg_run_read_state(const char *result, mg_text *state, mg_text *all) {
  mg_status status = MG_OK;
  char *data = NULL;
  size_t size = 0;
  *state = *all = (mg_text){0};
  char *path = mg_beside(result, ".state");
  if (path == NULL) return MG_ERR_NOMEM;
  if (access(path, F_OK) == 0 || errno != ENOENT) MG_TRY(mg_read_file(path, LARGEST_STATE, &data, &size), cleanup);
  mg_text_append_bytes(all, data != NULL ? data : "", size);
  mg_text_append_bytes(state, data != NULL ? data : "", data != NULL ? strcspn(data, "\n") : 0);
  if (all->failed || state->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
cleanup:
  if (status != MG_OK) {
    mg_text_free(state);
    mg_text_free(all);
  }
  free(data);
  free(path);
  return status;
}

bool mg_state_value(const mg_text *all, const char *key, char *buffer, size_t size) {
  const size_t length = strlen(key);
  for (const char *line = all->data; line != NULL && *line != '\0';) {
    const char *end = strchrnul(line, '\n');
    if (strncmp(line, key, length) == 0 && line[length] == ' ') {
      snprintf(buffer, size, "%.*s", (int)(end - line - (ptrdiff_t)length - 1), line + length + 1);
      return true;
    }
    line = *end != '\0' ? end + 1 : end;
  }
  return false;
}

mg_status mg_state_attempt(const char *result, int *attempt) {
  char id[MG_RUN_ID];
  return mg_state_attempt_id(result, attempt, id);
}

mg_status mg_state_attempt_id(const char *result, int *attempt, char id[MG_RUN_ID]) {
  mg_text state, all;
  char number[32];
  *attempt = 0;
  id[0] = '\0';
  const mg_status status = mg_run_read_state(result, &state, &all);
  if (status != MG_OK) return status;
  mg_state_value(&all, "id", id, MG_RUN_ID);
  if (mg_state_value(&all, "attempt", number, sizeof number)) {
    const long value = strtol(number, NULL, 10);
    *attempt = value > 0 && value < INT_MAX ? (int)value : 0;
  }
  mg_text_free(&state);
  mg_text_free(&all);
  return MG_OK;
}

char *mg_state_owner(const char *result) {
  mg_text state = {0}, all = {0};
  char host[256], pid[32], started[64], *text = NULL;
  const bool known = mg_run_read_state(result, &state, &all) == MG_OK && mg_state_value(&all, "host", host, sizeof host) &&
                     mg_state_value(&all, "pid", pid, sizeof pid);
  if (known && !mg_state_value(&all, "started", started, sizeof started)) strcpy(started, "?");
  if (known) {
    if (asprintf(&text, "host %s, pid %s, since %s", host, pid, started) < 0) text = NULL;
  } else {
    text = mg_strdup("its R.state does not say which");
  }
  mg_text_free(&state);
  mg_text_free(&all);
  return text;
}
