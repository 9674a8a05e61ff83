/* What a result is computed from: comparing it, and keeping it beside a journal. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/hash.h"
#include "mergegrid/io.h"
#include "run_impl.h"

static const char FIRST_LINE[] = "mergegrid identity 1\n";
enum { LARGEST_FILE = 256 << 20 };

mg_status mg_identity_add(mg_identity *identity, const char *name, const char *value) {
  char **names = reallocarray(identity->names, identity->count + 1, sizeof *names);
  if (names != NULL) identity->names = names;
  char **values = reallocarray(identity->values, identity->count + 1, sizeof *values);
  if (values != NULL) identity->values = values;
  char *name_copy = mg_strdup(name), *value_copy = mg_strdup(value);
  if (names == NULL || values == NULL || name_copy == NULL || value_copy == NULL) {
    free(name_copy);
    free(value_copy);
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  identity->names[identity->count] = name_copy;
  identity->values[identity->count++] = value_copy;
  return MG_OK;
}

void mg_identity_free(mg_identity *identity) {
  for (size_t k = 0; k < identity->count; k++) {
    free(identity->names[k]);
    free(identity->values[k]);
  }
  free(identity->names);
  free(identity->values);
  *identity = (mg_identity){0};
}

/* The value of a name, NULL if it is not there. `hint`: where it probably is, since both sides are made in one order. */
static const char *find_value(const mg_identity *identity, const char *name, size_t hint) {
  if (hint < identity->count && strcmp(identity->names[hint], name) == 0) return identity->values[hint];
  for (size_t k = 0; k < identity->count; k++)
    if (strcmp(identity->names[k], name) == 0) return identity->values[k];
  return NULL;
}

static mg_status compare(const mg_identity *before, const mg_identity *now, const char *result, bool *more) {
  mg_text lines = {0};
  for (size_t k = 0; k < now->count; k++) {
    const char *old = find_value(before, now->names[k], k);
    if (old == NULL && more != NULL)
      *more = true;
    else if (old == NULL)
      mg_text_append(&lines, "\n  %s is new: %s", now->names[k], now->values[k]);
    else if (strcmp(old, now->values[k]) != 0)
      mg_text_append(&lines, "\n  %s was '%s', is '%s'", now->names[k], old, now->values[k]);
  }
  for (size_t k = 0; k < before->count; k++)
    if (find_value(now, before->names[k], k) == NULL)
      mg_text_append(&lines, "\n  %s is gone, was '%s'", before->names[k], before->values[k]);
  mg_status status = MG_OK;
  if (lines.failed)
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
  else if (lines.size > 0)
    status = mg_fail(MG_ERR_INPUT,
                     "%s was begun from something else; undo the change, name another result, or start over with --fresh:%s",
                     result, lines.data);
  mg_text_free(&lines);
  return status;
}

mg_status mg_identity_compare(const mg_identity *before, const mg_identity *now, const char *result) {
  return compare(before, now, result, NULL);
}

mg_status mg_identity_compare_finished(const mg_identity *before, const mg_identity *now, const char *result, bool *more) {
  *more = false;
  return compare(before, now, result, more);
}

const char *mg_identity_value(const mg_identity *identity, const char *name) { return find_value(identity, name, 0); }

/* ---- the file: a line each, "name TAB value", backslashes for the bytes that mean something; a checksum at the end ---- */

static void append_escaped(mg_text *text, const char *field) {
  for (const char *p = field; *p != '\0'; p++) {
    switch (*p) {
    case '\\':
      mg_text_append(text, "\\\\");
      break;
    case '\n':
      mg_text_append(text, "\\n");
      break;
    case '\t':
      mg_text_append(text, "\\t");
      break;
    default:
      mg_text_append_bytes(text, p, 1);
    }
  }
}

mg_status mg_identity_write(const char *path, const mg_identity *identity) {
  mg_text text = {0};
  char hash[17];
  mg_text_append(&text, "%s", FIRST_LINE);
  for (size_t k = 0; k < identity->count; k++) {
    append_escaped(&text, identity->names[k]);
    mg_text_append(&text, "\t");
    append_escaped(&text, identity->values[k]);
    mg_text_append(&text, "\n");
  }
  if (!text.failed) mg_text_append(&text, "end %s\n", mg_hash_text(mg_hash(text.data, text.size), hash));
  const mg_status status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_replace_file(path, text.data, text.size);
  mg_text_free(&text);
  return status;
}

/* In place; false if an escape is none of ours. */
static bool unescape(char *field) {
  char *to = field;
  for (const char *from = field; *from != '\0'; from++) {
    char byte = *from;
    if (byte == '\\') {
      from++;
      if (*from == '\\')
        byte = '\\';
      else if (*from == 'n')
        byte = '\n';
      else if (*from == 't')
        byte = '\t';
      else
        return false;
    }
    *to++ = byte;
  }
  *to = '\0';
  return true;
}

static mg_status parse_lines(char *line, const char *path, mg_identity *identity) {
  while (*line != '\0') {
    char *end = strchr(line, '\n'), *tab = strchr(line, '\t');
    if (end == NULL || tab == NULL || tab > end) return mg_fail(MG_ERR_CORRUPT, "%s: a line is not 'name TAB value'", path);
    *end = *tab = '\0';
    if (!unescape(line) || !unescape(tab + 1)) return mg_fail(MG_ERR_CORRUPT, "%s: a backslash that escapes nothing", path);
    const mg_status status = mg_identity_add(identity, line, tab + 1);
    if (status != MG_OK) return status;
    line = end + 1;
  }
  return MG_OK;
}

mg_status mg_identity_read(const char *path, mg_identity *identity) {
  mg_status status = MG_OK;
  char *data = NULL, expected[32], hash[17];
  size_t size = 0;
  const size_t first = sizeof FIRST_LINE - 1, last = strlen("end 0123456789abcdef\n");
  MG_TRY(mg_read_file(path, LARGEST_FILE, &data, &size), cleanup);
  if (size < first + last || memcmp(data, FIRST_LINE, first) != 0 || memchr(data, '\0', size) != NULL) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: is not the identity of an attempt", path);
    goto cleanup;
  }
  snprintf(expected, sizeof expected, "end %s\n", mg_hash_text(mg_hash(data, size - last), hash));
  if (memcmp(data + size - last, expected, last) != 0) {
    status = mg_fail(MG_ERR_CORRUPT, "%s: does not match its checksum", path);
    goto cleanup;
  }
  data[size - last] = '\0';
  MG_TRY(parse_lines(data + first, path, identity), cleanup);
cleanup:
  free(data);
  if (status != MG_OK) mg_identity_free(identity);
  return status;
}
