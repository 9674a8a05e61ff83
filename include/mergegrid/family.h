#ifndef MERGEGRID_FAMILY_H
#define MERGEGRID_FAMILY_H

/**
 * A family: one base checkpoint and the sources that were fine-tuned from it, read from Hugging Face directories.
 * Everything here works from headers alone until mg_family_read() is called. Not collective.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/cursor.h"
#include "mergegrid/dtype.h"
#include "mergegrid/io.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"

enum { MG_MAX_DIMS = 8 };

/** One tensor as a safetensors header declares it. */
typedef struct mg_tensor_info {
  char *name;
  mg_dtype dtype;
  int ndim;
  int64_t shape[MG_MAX_DIMS];
  int64_t numel;
  uint32_t file;   /**< index into the checkpoint's files */
  uint64_t offset; /**< of the first byte, from the start of that file */
} mg_tensor_info;

/**
 * Parses and validates the header of one safetensors file (header size, JSON, dtypes, shapes × size = bytes, ranges inside
 * the file, no overlap, no hole, unique UTF-8 names). Appends to *tensors (realloc'ed, owned by the caller; free each name),
 * with `file` set as given. MG_ERR_CORRUPT names the file, the tensor and what was expected.
 */
mg_status mg_safetensors_read_header(const char *path, uint32_t file, mg_tensor_info **tensors, size_t *count);

/** What describes the tensors of a safetensors file, as it stands there. */
typedef struct mg_header {
  char *text;
  size_t size;
  uint64_t file_size;
} mg_header;

/** A checkpoint directory: config.json, model.safetensors or model.safetensors.index.json with its shard files. */
typedef struct mg_checkpoint {
  char *dir;
  mg_strings files;        /**< paths of the safetensors files */
  mg_file_stamp *stamps;   /**< [files.count] as they were before their headers were read */
  mg_tensor_info *tensors; /**< sorted by name in natural order (mg_natural_compare) */
  size_t tensor_count;
  mg_strings labels; /**< id2label by index; empty if config.json has none */
  char *model_type;  /**< "" if config.json has none */
  mg_header header;  /**< of one that is a single file */
  bool alike;        /**< its tensors are those, at the same places, of the checkpoint that it was opened beside */
} mg_checkpoint;

/**
 * Opens dir from its headers. Errors (all naming the directory or file): no such directory (a name like a Hub id gets an
 * error that says so), unreadable, no config.json, only pytorch_model.bin (names scripts/to-safetensors), an index that
 * names missing files or tensors or leaves its directory, corrupt headers, a malformed id2label.
 */
mg_status mg_checkpoint_open(const char *dir, mg_checkpoint **checkpoint);
/** The same beside one that is open already: where both headers are the same bytes, this one need not be parsed. NULL: none. */
mg_status mg_checkpoint_open_beside(const char *dir, const mg_checkpoint *other, mg_checkpoint **checkpoint);
void mg_checkpoint_close(mg_checkpoint **checkpoint);
/** Identity of what the headers say: names, types, shapes and places of the tensors, labels. */
uint64_t mg_checkpoint_hash(const mg_checkpoint *checkpoint);
/** NULL if there is no tensor of that name. */
const mg_tensor_info *mg_checkpoint_find(const mg_checkpoint *checkpoint, const char *name);

/** One floating tensor of the family's canonical table. */
typedef struct mg_tensor {
  char *name;  /**< full name in the first source */
  char *layer; /**< name's prefix through the block number ("roberta.encoder.layer.3"), "" elsewhere */
  int ndim;
  int64_t shape[MG_MAX_DIMS];
  int64_t numel;
  int64_t offset;   /**< of its first element in the canonical order: the sum of numel before it */
  bool source_only; /**< the base lacks it: θ0 = 0 there */
} mg_tensor;

/** All floating tensors of the sources, head included, in canonical order: natural order of the names. */
typedef struct mg_tensor_table {
  size_t count;
  mg_tensor *tensors;
  int64_t elements; /**< sum of numel */
} mg_tensor_table;

void mg_tensor_table_free(mg_tensor_table *table);
mg_status mg_tensor_table_copy(const mg_tensor_table *from, mg_tensor_table *to);
void mg_tensor_table_describe(const mg_tensor_table *table, mg_text *text);
/** Into a table of zeros, which the caller frees also on failure. */
mg_status mg_tensor_table_take(mg_cursor *cursor, mg_tensor_table *table);
/** Identity of names, shapes and source_only flags. */
uint64_t mg_tensor_table_hash(const mg_tensor_table *table);
/**
 * Length of the layer prefix of a tensor's name: up to and including the number of `layer.N`, `layers.N`, `h.N`, `blocks.N`
 * or `block.N` as whole name components (the first such pair); 0 if it has none.
 */
size_t mg_layer_prefix(const char *name);

/** What to merge: filled by the configuration. */
typedef enum mg_sources_kind { MG_SOURCES_PATTERN, MG_SOURCES_LIST, MG_SOURCES_MAP } mg_sources_kind;

typedef struct mg_source {
  char *id, *locale, *path;
} mg_source;

typedef struct mg_family_spec {
  char *base;
  mg_sources_kind kind;
  char *pattern;      /**< PATTERN: holds {locale} once */
  mg_source *entries; /**< LIST and MAP: in the order written; locale and (LIST) id are NULL where the file gives none */
  size_t entry_count;
  mg_strings locales; /**< empty: every directory that matches, sorted by bytes */
  bool skip_missing;
  bool allow_nonfinite;
} mg_family_spec;

void mg_family_spec_free(mg_family_spec *spec);

/** The sources a specification resolves to. `skipped` names those whose checkpoint is missing where that is allowed. */
typedef struct mg_source_list {
  size_t count;
  mg_source *items;
  mg_strings skipped;
} mg_source_list;

void mg_source_list_free(mg_source_list *list);

/**
 * Resolves the pattern, list or map to directories. PATTERN: without locales, every directory that matches, byte-sorted by
 * locale; with them, one source each in that order. id = locale for a pattern; for a list, the directory's last component,
 * its locale a trailing xx-XX or the id; for a map, the key. With a non-empty `locales`, a list or map is restricted to the
 * sources of those locales, in that order. Duplicate ids are an error that lists them all.
 * `has_shard` (may be NULL) says whether a source without a directory can still be had: such a source is not missing.
 * Missing sources: an error listing all of them, or, with skip_missing, named in `skipped`.
 */
typedef bool (*mg_has_shard_fn)(void *context, const char *id);
mg_status mg_sources_resolve(const mg_family_spec *spec, mg_has_shard_fn has_shard, void *context, mg_source_list *list);

/** Where a tensor's bytes are in one checkpoint. */
typedef struct mg_location {
  uint64_t offset;
  uint32_t file;
  uint32_t dtype; /**< mg_dtype; MG_DTYPE_COUNT where the checkpoint (the base) lacks the tensor */
} mg_location;

typedef struct mg_member {
  char *dir;
  mg_strings files;
  mg_file_stamp *stamps;  /**< [files.count] as they were before their headers were read */
  mg_location *locations; /**< [table.count] */
  mg_strings labels;      /**< its own id2label by index: the family's labels, maybe in another order */
  uint64_t headers;       /**< mg_checkpoint_hash */
} mg_member;

typedef struct mg_family {
  mg_tensor_table table;
  mg_member base;
  size_t source_count;
  mg_member *sources;
  mg_strings labels; /**< the first source's */
  mg_strings notes;  /**< what is unusual but not wrong: dtypes that differ, permuted labels, buffers one side lacks, … */
} mg_family;

/**
 * Opens base and sources and compares them from their headers. Names of the base match with or without one leading prefix
 * (`roberta.`, `model.`, …) on either side; what only the sources have outside the shared backbone (heads, poolers) is
 * source_only; what only the base has there (lm_head, pooler) is ignored. Everything that does not fit, in all checkpoints,
 * is listed in one MG_ERR_INPUT message, a line each, naming file and tensor: missing and extra tensors, shapes, floating
 * against integer dtypes, unsupported dtypes, integer buffers' shapes, label maps with other labels. `exclude` (globs) only
 * helps to recognise heads.
 */
mg_status mg_family_open(const char *base_dir, const mg_source_list *list, const mg_strings *exclude, mg_family **family);
void mg_family_close(mg_family **family);

/** Appends what another process needs of a family, to read its weights without opening a header; not the notes. */
void mg_family_describe(const mg_family *family, mg_text *text);
/** A family as described, by the same program; the caller closes it. Opens no file. */
mg_status mg_family_open_described(mg_cursor *cursor, mg_family **family);
/**
 * Is a checkpoint of a described family the same here? Where its files have other stamps, their headers are read and compared.
 * MG_ERR_INPUT, naming the directory: it is another one; else as of mg_checkpoint_open.
 */
mg_status mg_member_look(const mg_member *member);

/**
 * Tensors that take part in cosines: those that match none of the globs (fnmatch without FNM_PATHNAME) on full names.
 * selected has table->count elements. MG_ERR_CONFIG if nothing is left.
 */
mg_status mg_select_tensors(const mg_tensor_table *table, const mg_strings *exclude, bool *selected);

#endif
