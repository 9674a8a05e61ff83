/* Which locales have texts: the files that the pattern matches. */

#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "corpus_impl.h"

static const char PLACEHOLDER[] = "{locale}";

/* The pattern as glob(3) wants it: a star for the locale, everything else as it is. */
static void append_glob(mg_text *glob, const char *files) {
  while (*files != '\0') {
    if (strncmp(files, PLACEHOLDER, sizeof PLACEHOLDER - 1) == 0) {
      mg_text_append(glob, "*");
      files += sizeof PLACEHOLDER - 1;
      continue;
    }
    if (strchr("*?[]\\", *files) != NULL) mg_text_append(glob, "\\");
    mg_text_append_bytes(glob, files++, 1);
  }
}

/* The text that makes path of the pattern, wherever it stands in it: added once. */
static mg_status add_locale(const mg_texts_spec *spec, const char *path, mg_strings *locales) {
  mg_status status = MG_OK;
  struct stat about;
  const char *begin = path + (strstr(spec->files, PLACEHOLDER) - spec->files);
  const size_t most = strcspn(begin, "/");
  if (stat(path, &about) != 0 || !S_ISREG(about.st_mode)) return MG_OK;
  for (size_t length = most; length > 0 && status == MG_OK; length--) {
    char *locale = strndup(begin, length), *filled = locale != NULL ? mg_corpus_path(spec, locale) : NULL;
    if (filled == NULL) status = mg_fail(MG_ERR_NOMEM, "out of memory");
    if (status == MG_OK && !mg_valid_utf8(locale, length))
      status = mg_fail(MG_ERR_INPUT, "texts: %s: a name in UTF-8 was expected", path);
    const bool fits = filled != NULL && strcmp(filled, path) == 0;
    if (status == MG_OK && fits && mg_strings_find(locales, locale) < 0) status = mg_strings_add(locales, locale);
    free(locale), free(filled);
    if (fits) break;
  }
  return status;
}

mg_status mg_corpus_locales(const mg_texts_spec *spec, mg_strings *locales) {
  mg_status status = MG_OK;
  mg_text pattern = {0};
  glob_t found = {0};
  *locales = (mg_strings){0};
  if (spec->files == NULL || strstr(spec->files, PLACEHOLDER) == NULL)
    return mg_fail(MG_ERR_CONFIG, "texts.files: a path with {locale} was expected, not '%s'", spec->files ? spec->files : "");
  append_glob(&pattern, spec->files);
  const int result = pattern.failed ? GLOB_NOSPACE : glob(pattern.data, GLOB_NOSORT, NULL, &found);
  if (result == GLOB_NOSPACE) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (result == GLOB_ABORTED) status = mg_fail(MG_ERR_IO, "%s: a directory on the way can't be read", spec->files);
  for (size_t k = 0; result == 0 && k < found.gl_pathc && status == MG_OK; k++)
    status = add_locale(spec, found.gl_pathv[k], locales);
  if (result == 0) globfree(&found);
  mg_text_free(&pattern);
  mg_strings_sort(locales);
  if (status != MG_OK) mg_strings_free(locales);
  return status;
}
