/* shards.stage_to: a directory that is another one on every node, so its variables are looked up where it is used. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_impl.h"

static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

/*
 * What a '$' at text stands for: *name and *length of a variable ($NAME, ${NAME}), or of length 0 for "$$", a dollar. Returns
 * what comes behind it; NULL: none of these.
 */
static const char *read_variable(const char *text, const char **name, size_t *length) {
  const bool braces = text[1] == '{';
  *name = text + (braces ? 2 : 1);
  *length = strspn(*name, LETTERS);
  if (text[1] == '$') return text + 2;
  if (*length == 0 || (**name >= '0' && **name <= '9')) return NULL;
  if (!braces) return *name + *length;
  return (*name)[*length] == '}' ? *name + *length + 1 : NULL;
}

/* A path's own dollars doubled, so that they stay dollars. */
static char *literal(const char *path) {
  mg_text out = {0};
  for (const char *p = path; *p != '\0'; p++) mg_text_append_bytes(&out, *p == '$' ? "$$" : p, *p == '$' ? 2 : 1);
  if (!out.failed && out.data != NULL) return out.data;
  mg_text_free(&out);
  return path[0] == '\0' ? mg_strdup("") : NULL;
}

/* text beneath a directory, unless it is absolute or begins with a variable. */
static char *beneath(const char *dir, const char *text) {
  if (text[0] == '/' || (text[0] == '$' && text[1] != '$')) return mg_strdup(text);
  char *front = literal(dir), *path = front != NULL ? mg_path_join(front, text) : NULL;
  free(front);
  return path;
}

char *mg_stage_dir_absolute(const char *text) {
  char *here = getcwd(NULL, 0), *path = here != NULL ? beneath(here, text) : NULL;
  free(here);
  return path;
}

mg_status mg_stage_dir_set(const mg_option *o, const mg_yaml_origin *origin, const yaml_node_t *node, char **field) {
  const char *text, *name;
  size_t length;
  char *path = NULL;
  const mg_status status = mg_scalar(origin, node, o->key, o->expected, &text);
  if (status != MG_OK) return status;
  const bool none = strcmp(text, "none") == 0 && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  for (const char *p = strchr(text, '$'); p != NULL; p = strchr(p, '$')) {
    const char *next = read_variable(p, &name, &length);
    if (next == NULL)
      return mg_config_error(origin, node,
                             "%s: '%s': behind '$' the name of a variable was expected ($TMPDIR, ${TMPDIR}), or "
                             "another '$' for a dollar",
                             o->key, text);
    p = next;
  }
  if (!none && (path = beneath(origin->dir, text)) == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  free(*field);
  *field = path;
  return MG_OK;
}

mg_status mg_config_stage_dir(const mg_config *config, char **dir) {
  mg_status status = MG_OK;
  mg_text out = {0};
  const char *text = config->shards.stage_to, *name;
  size_t length;
  while (*text != '\0') {
    const size_t plain = strcspn(text, "$");
    mg_text_append_bytes(&out, text, plain);
    text += plain;
    if (*text == '\0') break;
    text = read_variable(text, &name, &length); /* it was checked when it was read */
    char *variable = strndup(name, length);
    const char *value = length == 0 ? "$" : variable != NULL ? getenv(variable) : NULL;
    if (value == NULL || value[0] == '\0')
      status = mg_fail(MG_ERR_CONFIG, "%s: shards.stage_to is '%s', and the environment has no %s", config->file,
                       config->shards.stage_to, variable != NULL ? variable : "memory");
    else
      mg_text_append(&out, "%s", value);
    free(variable);
    if (status != MG_OK) goto cleanup;
  }
  if (out.failed || out.data == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  if (out.data[0] != '/' && config->shards.stage_to[0] == '$') {
    status = mg_fail(MG_ERR_CONFIG, "%s: shards.stage_to is '%s', which comes to '%s': an absolute path was expected",
                     config->file, config->shards.stage_to, out.data);
    goto cleanup;
  }
  *dir = out.data;
  out = (mg_text){0};
cleanup:
  mg_text_free(&out);
  return status;
}
