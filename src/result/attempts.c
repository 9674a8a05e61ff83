/* Names beside a result, and the directories of its attempts. */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mergegrid/io.h"
#include "mergegrid/log.h"
#include "run_impl.h"

char *mg_beside(const char *result, const char *suffix) {
  char *path = NULL;
  if (asprintf(&path, "%s%s", result, suffix) >= 0) return path;
  mg_fail(MG_ERR_NOMEM, "out of memory");
  return NULL;
}

char *mg_attempt_path(const char *result, int attempt, const char *file) {
  char *path = NULL;
  if (asprintf(&path, "%s.journal/%04d%s%s", result, attempt, file[0] ? "/" : "", file) >= 0) return path;
  mg_fail(MG_ERR_NOMEM, "out of memory");
  return NULL;
}

/* The number that a name of at least four digits stands for; 0 if it is none. */
static int attempt_number(const char *name) {
  const size_t length = strlen(name);
  if (length < 4 || length > 8 || strspn(name, "0123456789") != length) return 0;
  if (length > 4 && name[0] == '0') return 0;
  return (int)strtol(name, NULL, 10);
}

static int compare_ints(const void *a, const void *b) {
  const int x = *(const int *)a, y = *(const int *)b;
  return (x > y) - (x < y);
}

static mg_status collect_attempts(DIR *dir, int **attempts, size_t *count) {
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    const int number = attempt_number(entry->d_name);
    if (number == 0) continue;
    int *grown = reallocarray(*attempts, *count + 1, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    *attempts = grown;
    grown[(*count)++] = number;
  }
  return MG_OK;
}

mg_status mg_attempts_list(const char *result, int **attempts, size_t *count) {
  mg_status status = MG_OK;
  DIR *dir = NULL;
  *attempts = NULL;
  *count = 0;
  char *path = mg_beside(result, ".journal");
  if (path == NULL) return MG_ERR_NOMEM;
  dir = opendir(path);
  if (dir == NULL) {
    if (errno != ENOENT) status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  MG_TRY(collect_attempts(dir, attempts, count), cleanup);
  if (*count > 0) qsort(*attempts, *count, sizeof **attempts, compare_ints);
cleanup:
  if (dir != NULL) closedir(dir);
  free(path);
  if (status != MG_OK) {
    free(*attempts);
    *attempts = NULL;
    *count = 0;
  }
  return status;
}

mg_status mg_attempt_remove(const char *result, int attempt) {
  mg_status status = MG_OK;
  DIR *dir = NULL;
  char *path = mg_attempt_path(result, attempt, "");
  if (path == NULL) return MG_ERR_NOMEM;
  dir = opendir(path);
  if (dir == NULL) {
    if (errno != ENOENT) status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (unlinkat(dirfd(dir), entry->d_name, 0) == 0 || errno == ENOENT) continue;
    status = mg_fail_errno(MG_ERR_IO, "%s/%s: can't be removed", path, entry->d_name);
    goto cleanup;
  }
  if (rmdir(path) != 0 && errno != ENOENT) status = mg_fail_errno(MG_ERR_IO, "%s: can't be removed", path);
cleanup:
  if (dir != NULL) closedir(dir);
  free(path);
  return status;
}

/* Was anything written there after the result was? */
static bool is_younger(const char *result, int attempt) {
  struct stat of_result, of_file;
  bool younger = false;
  char *path = mg_attempt_path(result, attempt, "");
  DIR *dir = path != NULL ? opendir(path) : NULL;
  free(path);
  if (dir == NULL) return false;
  const bool there = stat(result, &of_result) == 0;
  for (const struct dirent *entry; there && !younger && (entry = readdir(dir)) != NULL;) {
    if (fstatat(dirfd(dir), entry->d_name, &of_file, 0) != 0 || !S_ISREG(of_file.st_mode)) continue;
    const struct timespec a = of_file.st_mtim, b = of_result.st_mtim;
    younger = a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
  }
  closedir(dir);
  return younger;
}

static mg_status remove_journals(const char *result, int last, bool all) {
  mg_status status = MG_OK;
  int *attempts = NULL;
  size_t count = 0;
  char *path = mg_beside(result, ".journal");
  if (path == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_attempts_list(result, &attempts, &count), cleanup);
  for (size_t k = 0; k < count && attempts[k] <= last; k++)
    if (all || !is_younger(result, attempts[k])) MG_TRY(mg_attempt_remove(result, attempts[k]), cleanup);
  /* Something of the user's in there is left where it is, and so is a newer attempt. */
  if (rmdir(path) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
    status = mg_fail_errno(MG_ERR_IO, "%s: can't be removed", path);
cleanup:
  free(attempts);
  free(path);
  return status;
}

mg_status mg_journals_remove(const char *result, int last) { return remove_journals(result, last, true); }
mg_status mg_journals_remove_older(const char *result, int last) { return remove_journals(result, last, false); }

/* Is name base + middle + a number up to last? */
static bool is_leftover(const char *name, const char *base, const char *middle, int last) {
  const size_t length = strlen(base), more = strlen(middle);
  if (strncmp(name, base, length) != 0 || strncmp(name + length, middle, more) != 0) return false;
  const char *digits = name + length + more;
  return digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits) && strtol(digits, NULL, 10) <= last;
}

void mg_leftovers_remove(const char *result, int last) {
  char *path = mg_path_dirname(result);
  const char *slash = strrchr(result, '/'), *base = slash != NULL ? slash + 1 : result;
  DIR *dir = path != NULL ? opendir(path) : NULL;
  if (dir != NULL) {
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
      if (is_leftover(entry->d_name, base, ".tmp.", last) || is_leftover(entry->d_name, base, ".state.tmp.", last))
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0) mg_debug("%s/%s: can't be removed", path, entry->d_name);
    closedir(dir);
  }
  free(path);
}

mg_status mg_attempt_create(const char *result, int least, int *attempt) {
  mg_status status = MG_OK;
  int *attempts = NULL;
  size_t count = 0;
  char *dir = mg_beside(result, ".journal"), *path = NULL;
  if (dir == NULL) return MG_ERR_NOMEM;
  if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
    status = mg_fail_errno(MG_ERR_IO, "%s: the directory can't be made", dir);
    goto cleanup;
  }
  MG_TRY(mg_attempts_list(result, &attempts, &count), cleanup);
  int number = least > 1 ? least : 1;
  if (count > 0 && attempts[count - 1] >= number) number = attempts[count - 1] + 1;
  for (;; number++) {
    if (number > MG_LAST_ATTEMPT) {
      status = mg_fail(MG_ERR_IO, "%s: no number is left for another attempt", dir);
      goto cleanup;
    }
    free(path);
    path = mg_attempt_path(result, number, "");
    if (path == NULL) {
      status = MG_ERR_NOMEM;
      goto cleanup;
    }
    if (mkdir(path, 0777) == 0) break;
    if (errno == EEXIST) continue;
    status = mg_fail_errno(MG_ERR_IO, "%s: the directory can't be made", path);
    goto cleanup;
  }
  *attempt = number;
  MG_TRY(mg_sync_dir(dir), cleanup);
cleanup:
  free(attempts);
  free(path);
  free(dir);
  return status;
}

/* ---- what they were computed from ---- */

/* An attempt without a record binds nobody: it was ended before its first unit was done. */
static bool has_records(const char *result, int attempt) {
  char *path = mg_attempt_path(result, attempt, "journal");
  mg_file_stamp stamp = {.size = 1};
  const bool empty = path != NULL && (!mg_path_exists(path) || (mg_file_stamp_get(path, &stamp) == MG_OK && stamp.size == 0));
  free(path);
  return !empty;
}

mg_status mg_attempts_compare(const char *result, int except, const mg_identity *identity) {
  mg_status status = MG_OK;
  int *attempts = NULL;
  size_t count = 0;
  MG_TRY(mg_attempts_list(result, &attempts, &count), cleanup);
  for (size_t k = 0; k < count; k++) {
    mg_identity before = {0};
    if (attempts[k] == except || !has_records(result, attempts[k])) continue;
    char *path = mg_attempt_path(result, attempts[k], "identity");
    if (path == NULL) status = MG_ERR_NOMEM;
    if (path != NULL && mg_path_exists(path)) {
      status = mg_identity_read(path, &before);
      if (status == MG_OK) status = mg_identity_compare(&before, identity, result);
    }
    mg_identity_free(&before);
    free(path);
    if (status != MG_OK) goto cleanup;
  }
cleanup:
  free(attempts);
  return status;
}
