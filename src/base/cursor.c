/* Structures as bytes, within one program. */

#include "mergegrid/cursor.h"

#include <stdlib.h>
#include <string.h>

static mg_status cut_off(void) { return mg_fail(MG_ERR_INTERNAL, "a description that is cut off"); }

mg_status mg_cursor_skip(mg_cursor *c, size_t size) {
  if (size > c->left) return cut_off();
  c->at += size;
  c->left -= size;
  return MG_OK;
}

mg_status mg_cursor_take(mg_cursor *c, void *to, size_t size) {
  const char *from = c->at;
  const mg_status status = mg_cursor_skip(c, size);
  if (status == MG_OK && size > 0) memcpy(to, from, size);
  return status;
}

void mg_append_string(mg_text *text, const char *string) { mg_text_append_bytes(text, string, strlen(string) + 1); }

mg_status mg_cursor_take_string(mg_cursor *c, char **string) {
  const size_t length = strnlen(c->at, c->left);
  if (length == c->left) return cut_off();
  *string = mg_strdup(c->at);
  c->at += length + 1;
  c->left -= length + 1;
  return *string != NULL ? MG_OK : MG_ERR_NOMEM;
}

void mg_append_strings(mg_text *text, const mg_strings *list) {
  mg_text_append_bytes(text, &list->count, sizeof list->count);
  for (size_t k = 0; k < list->count; k++) mg_append_string(text, list->items[k]);
}

mg_status mg_cursor_take_strings(mg_cursor *c, mg_strings *list) {
  mg_status status = MG_OK;
  size_t count = 0;
  MG_TRY(mg_cursor_take(c, &count, sizeof count), done);
  for (size_t k = 0; k < count && status == MG_OK; k++) {
    const size_t length = strnlen(c->at, c->left);
    if (length == c->left) return cut_off();
    status = mg_strings_add(list, c->at);
    c->at += length + 1;
    c->left -= length + 1;
  }
done:
  return status;
}
