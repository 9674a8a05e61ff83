/* A Hugging Face checkpoint directory, from its headers alone. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "family_impl.h"
#include "mergegrid/hash.h"

enum { LARGEST_JSON = 64 << 20 };

static mg_status load_json(const char *path, json_t **root) {
  char *text = NULL;
  size_t size;
  json_error_t error;
  mg_status status = mg_read_file(path, LARGEST_JSON, &text, &size);
  if (status != MG_OK) return status;
  *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
  if (*root == NULL)
    status = mg_fail(MG_ERR_INPUT, "%s:%d:%d: no valid JSON: %s", path, error.line, error.column, error.text);
  else if (!json_is_object(*root))
    status = mg_fail(MG_ERR_INPUT, "%s: a JSON object was expected", path);
  free(text);
  return status;
}

/* id2label's keys are "0" … "n−1" in any order. */
static mg_status read_labels(const char *path, const json_t *map, mg_strings *labels) {
  mg_status status = MG_OK;
  if (map == NULL || json_is_null(map)) return MG_OK;
  if (!json_is_object(map)) return mg_fail(MG_ERR_INPUT, "%s: id2label is not an object", path);
  for (size_t k = 0; k < json_object_size(map); k++) {
    char key[24];
    snprintf(key, sizeof key, "%zu", k);
    const char *label = json_string_value(json_object_get(map, key));
    if (label == NULL)
      return mg_fail(MG_ERR_INPUT, "%s: id2label has %zu entries but no string under \"%s\"", path, json_object_size(map), key);
    MG_TRY(mg_strings_add(labels, label), done);
  }
done:
  return status;
}

/* A link into a cache that was cleaned up: another fault than a file that was never there. */
static bool is_dangling(const char *dir, const char *name) {
  struct stat info;
  char *path = mg_path_join(dir, name);
  const bool dangling = path != NULL && lstat(path, &info) == 0 && S_ISLNK(info.st_mode) && !mg_path_exists(path);
  free(path);
  return dangling;
}

/* In the Hub's cache a model's directory has the checkpoints of its revisions in snapshots/. */
static mg_status no_config(const char *dir) {
  char *snapshots = mg_path_join(dir, "snapshots");
  if (snapshots == NULL) return MG_ERR_NOMEM;
  if (is_dangling(dir, "config.json"))
    mg_fail(MG_ERR_INPUT, "%s: config.json is a symbolic link to a file that is not there", dir);
  else if (mg_path_is_dir(snapshots))
    mg_fail(MG_ERR_INPUT,
            "%s: is a model's directory of the Hub's cache; name the checkpoint in it, %s/REVISION (sources may be "
            "a map of ids to directories)",
            dir, snapshots);
  else
    mg_fail(MG_ERR_INPUT, "%s: has no config.json: is it a Hugging Face checkpoint?", dir);
  free(snapshots);
  return MG_ERR_INPUT;
}

static mg_status read_config(mg_checkpoint *c) {
  mg_status status = MG_OK;
  json_t *root = NULL;
  char *path = mg_path_join(c->dir, "config.json");
  if (path == NULL) return MG_ERR_NOMEM;
  if (!mg_path_exists(path)) {
    status = no_config(c->dir);
    goto cleanup;
  }
  MG_TRY(load_json(path, &root), cleanup);
  const char *type = json_string_value(json_object_get(root, "model_type"));
  c->model_type = mg_strdup(type != NULL ? type : "");
  if (c->model_type == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(read_labels(path, json_object_get(root, "id2label"), &c->labels), cleanup);
cleanup:
  json_decref(root);
  free(path);
  return status;
}

static int compare_names(const void *a, const void *b) {
  return mg_natural_compare(((const mg_tensor_info *)a)->name, ((const mg_tensor_info *)b)->name);
}

static mg_status copy_tensors(mg_checkpoint *c, const mg_checkpoint *from) {
  c->tensors = mg_alloc(from->tensor_count, sizeof *c->tensors);
  if (c->tensors == NULL) return MG_ERR_NOMEM;
  for (; c->tensor_count < from->tensor_count; c->tensor_count++) {
    mg_tensor_info *t = &c->tensors[c->tensor_count];
    *t = from->tensors[c->tensor_count];
    t->name = mg_strdup(t->name);
    if (t->name == NULL) return MG_ERR_NOMEM;
  }
  return MG_OK;
}

/* The tensors of a checkpoint's only file. */
static mg_status read_tensors(mg_checkpoint *c, const char *path, const mg_checkpoint *other) {
  mg_status status = MG_OK;
  MG_TRY(mg_header_read(path, &c->header), done);
  c->alike = other != NULL && mg_header_equal(&c->header, &other->header);
  if (c->alike)
    MG_TRY(copy_tensors(c, other), done);
  else
    MG_TRY(mg_header_parse(path, 0, &c->header, &c->tensors, &c->tensor_count), done);
done:
  return status;
}

/* single: it is the only one; other: NULL, or what may have the same header. */
static mg_status add_file(mg_checkpoint *c, const char *name, bool single, const mg_checkpoint *other) {
  char *path = mg_path_join(c->dir, name);
  if (path == NULL) return MG_ERR_NOMEM;
  mg_status status = MG_OK;
  const uint32_t file = (uint32_t)c->files.count;
  mg_file_stamp *stamps = reallocarray(c->stamps, c->files.count + 1, sizeof *stamps);
  if (stamps == NULL) {
    status = mg_fail(MG_ERR_NOMEM, "out of memory");
    goto cleanup;
  }
  c->stamps = stamps;
  MG_TRY(mg_file_stamp_get(path, &stamps[file]), cleanup);
  MG_TRY(mg_strings_add(&c->files, path), cleanup);
  if (single)
    MG_TRY(read_tensors(c, path, other), cleanup);
  else
    MG_TRY(mg_safetensors_read_header(path, file, &c->tensors, &c->tensor_count), cleanup);
cleanup:
  free(path);
  return status;
}

static bool plain_name(const char *name) {
  return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The names of the index's files, each once, sorted. */
static mg_status list_indexed_files(const char *index, const json_t *map, mg_strings *files) {
  mg_status status = MG_OK;
  mg_strings all = {0};
  const char *tensor;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
    const char *name = json_string_value(value);
    if (name == NULL || !plain_name(name)) {
      status = mg_fail(MG_ERR_INPUT, "%s: tensor %s: the name of a file in this directory was expected, not %s%s%s", index,
                       tensor, name ? "'" : "", name ? name : "something else", name ? "'" : "");
      goto cleanup;
    }
    if (all.count == 0 || strcmp(all.items[all.count - 1], name) != 0) MG_TRY(mg_strings_add(&all, name), cleanup);
  }
  mg_strings_sort(&all);
  for (size_t k = 0; k < all.count; k++)
    if (k == 0 || strcmp(all.items[k - 1], all.items[k]) != 0) MG_TRY(mg_strings_add(files, all.items[k]), cleanup);
cleanup:
  mg_strings_free(&all);
  return status;
}

static mg_status open_indexed_files(mg_checkpoint *c, const char *index, const json_t *map) {
  mg_status status = MG_OK;
  mg_strings names = {0};
  MG_TRY(list_indexed_files(index, map, &names), cleanup);
  for (size_t k = 0; k < names.count; k++) {
    char *path = mg_path_join(c->dir, names.items[k]);
    if (path == NULL) status = MG_ERR_NOMEM;
    if (path != NULL && !mg_path_exists(path))
      status = mg_fail_errno(MG_ERR_INPUT, "%s: names %s, which is not there", index, names.items[k]);
    free(path);
    if (status != MG_OK) goto cleanup;
    MG_TRY(add_file(c, names.items[k], false, NULL), cleanup);
  }
cleanup:
  mg_strings_free(&names);
  return status;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash != NULL ? slash + 1 : path;
}

/* Keeps the tensors where the index says they are; what else the files hold is not the checkpoint's. */
static mg_status keep_indexed(mg_checkpoint *c, const char *index, const json_t *map) {
  size_t kept = 0;
  for (size_t k = 0; k < c->tensor_count; k++) {
    mg_tensor_info *t = &c->tensors[k];
    const char *file = json_string_value(json_object_get(map, t->name));
    if (file != NULL && strcmp(file, base_name(c->files.items[t->file])) == 0) {
      if (kept != k) {
        mg_tensor_info swap = c->tensors[kept];
        c->tensors[kept] = *t;
        *t = swap;
      }
      kept++;
    }
  }
  for (size_t k = kept; k < c->tensor_count; k++) free(c->tensors[k].name);
  c->tensor_count = kept;
  if (kept == json_object_size(map)) return MG_OK;
  qsort(c->tensors, kept, sizeof *c->tensors, compare_names);
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)map, name, value) {
    if (mg_checkpoint_find(c, name) == NULL)
      return mg_fail(MG_ERR_INPUT, "%s: tensor %s is not in %s, where the index has it", index, name, json_string_value(value));
  }
  return mg_fail(MG_ERR_INPUT, "%s: a tensor is in a file twice", index);
}

static mg_status open_index(mg_checkpoint *c, const char *index) {
  mg_status status = MG_OK;
  json_t *root = NULL;
  MG_TRY(load_json(index, &root), cleanup);
  const json_t *map = json_object_get(root, "weight_map");
  if (!json_is_object(map)) {
    status = mg_fail(MG_ERR_INPUT, "%s: has no weight_map", index);
    goto cleanup;
  }
  MG_TRY(open_indexed_files(c, index, map), cleanup);
  MG_TRY(keep_indexed(c, index, map), cleanup);
cleanup:
  json_decref(root);
  return status;
}

static mg_status no_weights(const char *dir) {
  static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
  for (size_t k = 0; k < sizeof pickles / sizeof *pickles; k++) {
    char *path = mg_path_join(dir, pickles[k]);
    const bool there = path != NULL && mg_path_exists(path);
    free(path);
    if (there)
      return mg_fail(MG_ERR_INPUT, "%s: has only %s; convert it with: scripts/to-safetensors %s", dir, pickles[k], dir);
  }
  if (is_dangling(dir, "model.safetensors") || is_dangling(dir, "model.safetensors.index.json"))
    return mg_fail(MG_ERR_INPUT, "%s: model.safetensors is a symbolic link to a file that is not there", dir);
  return mg_fail(MG_ERR_INPUT, "%s: has neither model.safetensors nor model.safetensors.index.json", dir);
}

static mg_status open_weights(mg_checkpoint *c, const mg_checkpoint *other) {
  mg_status status = MG_OK;
  char *single = mg_path_join(c->dir, "model.safetensors"), *index = mg_path_join(c->dir, "model.safetensors.index.json");
  if (single == NULL || index == NULL)
    status = MG_ERR_NOMEM;
  else if (mg_path_exists(single))
    status = add_file(c, "model.safetensors", true, other);
  else if (mg_path_exists(index))
    status = open_index(c, index);
  else
    status = no_weights(c->dir);
  free(single);
  free(index);
  return status;
}

static mg_status check_dir(const char *dir) {
  if (!mg_path_exists(dir)) {
    const int error = errno;
    if (error == EACCES) return mg_fail(MG_ERR_IO, "%s: permission denied", dir);
    const char *slash = strchr(dir, '/');
    if (dir[0] != '.' && dir[0] != '/' && (slash == NULL || strchr(slash + 1, '/') == NULL))
      return mg_fail(MG_ERR_INPUT, "%s: no such directory; a checkpoint's directory was expected (a Hub id is not downloaded)",
                     dir);
    return mg_fail(
        MG_ERR_INPUT,
        "%s: no such directory; a checkpoint's directory was expected (a Hub id such as org/model is not downloaded)", dir);
  }
  if (!mg_path_is_dir(dir)) return mg_fail(MG_ERR_INPUT, "%s: is not a directory", dir);
  if (access(dir, R_OK | X_OK) != 0) return mg_fail_errno(MG_ERR_IO, "%s", dir);
  return MG_OK;
}

/* By name, each once. */
static mg_status sort_tensors(mg_checkpoint *c) {
  if (c->alike) return MG_OK; /* copied in order */
  if (c->tensor_count > 1) qsort(c->tensors, c->tensor_count, sizeof *c->tensors, compare_names);
  for (size_t k = 1; k < c->tensor_count; k++)
    if (strcmp(c->tensors[k - 1].name, c->tensors[k].name) == 0)
      return mg_fail(MG_ERR_INPUT, "%s: tensor %s is there twice", c->dir, c->tensors[k].name);
  return MG_OK;
}

mg_status mg_checkpoint_open(const char *dir, mg_checkpoint **out) { return mg_checkpoint_open_beside(dir, NULL, out); }

mg_status mg_checkpoint_open_beside(const char *dir, const mg_checkpoint *other, mg_checkpoint **out) {
  mg_status status = MG_OK;
  mg_checkpoint *c = mg_alloc_zero(1, sizeof *c);
  if (c == NULL) return MG_ERR_NOMEM;
  c->dir = mg_strdup(dir);
  if (c->dir == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(check_dir(dir), cleanup);
  MG_TRY(read_config(c), cleanup);
  MG_TRY(open_weights(c, other), cleanup);
  MG_TRY(sort_tensors(c), cleanup);
  *out = c;
  c = NULL;
cleanup:
  mg_checkpoint_close(&c);
  return status;
}

void mg_checkpoint_close(mg_checkpoint **checkpoint) {
  mg_checkpoint *c = *checkpoint;
  if (c == NULL) return;
  for (size_t k = 0; k < c->tensor_count; k++) free(c->tensors[k].name);
  free(c->tensors), free(c->stamps);
  mg_header_free(&c->header);
  mg_strings_free(&c->files);
  mg_strings_free(&c->labels);
  free(c->model_type);
  free(c->dir);
  free(c);
  *checkpoint = NULL;
}

uint64_t mg_checkpoint_hash(const mg_checkpoint *c) {
  uint64_t hash = mg_hash(&c->tensor_count, sizeof c->tensor_count);
  for (size_t k = 0; k < c->tensor_count; k++) {
    const mg_tensor_info *t = &c->tensors[k];
    const uint64_t words[4] = {(uint64_t)t->dtype, (uint64_t)t->ndim, t->file, t->offset};
    hash = mg_hash_more(hash, t->name, strlen(t->name) + 1);
    hash = mg_hash_more(hash, words, sizeof words);
    hash = mg_hash_more(hash, t->shape, (size_t)t->ndim * sizeof *t->shape);
  }
  for (size_t k = 0; k < c->labels.count; k++) hash = mg_hash_more(hash, c->labels.items[k], strlen(c->labels.items[k]) + 1);
  return hash;
}

const mg_tensor_info *mg_checkpoint_find(const mg_checkpoint *c, const char *name) {
  const mg_tensor_info key = {.name = (char *)(uintptr_t)name};
  if (c->tensor_count == 0) return NULL;
  return bsearch(&key, c->tensors, c->tensor_count, sizeof key, compare_names);
}
