#ifndef MERGEGRID_SHARD_H
#define MERGEGRID_SHARD_H

/**
 * Shards: one HDF5 file a source, its task vector τ = θ − θ0 in the family's canonical order; and one for the base with θ0
 * itself (`_base.h5`, always F32). Written once by mg_shard_pack, read-only afterwards. Not collective.
 *
 * File: a user block of 4096 bytes that begins with "MGSHARD1", the file's size, where the values begin, and the XXH3 of all
 * other bytes that are not values (so that damaged metadata is found before the HDF5 library sees it); then
 * HDF5: /values 1-D [elements] (F32, F16, or bfloat16 as an HDF5 float type), contiguous;
 * /tensors/{name, shape [T,8], ndim, layer, source_only, offset, rounding_error}; /blocks/{checksum uint64 [B],
 * scale float32 [B]}; /labels; /files/{path, size, mtime_ns, inode}; root attributes: format, version, kind (task_vector |
 * base), id, locale, dtype, source_path, checkpoint_hash, base_hash, content_hash, rounding_error. A block is MG_LEAF elements
 * of one tensor (the last one of a tensor shorter), in canonical order. Strings are fixed-length UTF-8.
 *
 * Beside a shard, `<shard>.seen` says how it was last found in order: the stamps of the shard and of the checkpoint's files,
 * and whether it is known to have reached the disk. A shard of this boot of this host is as its writer left it; any other is
 * checked against its checksums once. So packing need not wait for the disk.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/family.h"
#include "mergegrid/status.h"
#include "mergegrid/text.h"
#include "mergegrid/tiling.h"

/** Called before every first use of the HDF5 library, here and for results. Thread-safe. */
void mg_hdf5_prepare(void);

/** The file name of a source's shard in dir: bytes outside [A-Za-z0-9.-_] and a leading '_' or '.' as %XX. Caller frees. */
char *mg_shard_path(const char *dir, const char *id);
char *mg_shard_base_path(const char *dir);

/** What a shard is recognised by without the HDF5 library: its size and what its first bytes say. The hash covers the
 * checksums. */
typedef struct mg_shard_seal {
  uint64_t file_size, data_offset, metadata_hash;
} mg_shard_seal;

typedef struct mg_shard {
  char *path;
  mg_shard_seal seal;
  char *id, *locale, *source_path;
  bool is_base;
  mg_dtype dtype; /**< F32, F16 or BF16 */
  mg_tensor_table table;
  mg_strings labels;
  uint64_t data_offset; /**< of /values in the file */
  size_t block_count;
  uint64_t *checksum;       /**< [block_count] of the stored bytes */
  float *scale;             /**< [block_count]; stored = τ × scale, so τ = stored × (1 / scale); 1 unless F16 */
  size_t *first_block;      /**< [table.count + 1] */
  uint64_t content_hash;    /**< over table, dtype, scales and block checksums */
  uint64_t checkpoint_hash; /**< over the checkpoint's tensors as read */
  uint64_t base_hash;       /**< the base's checkpoint_hash */
  double rounding_error;    /**< ‖stored − τ‖ / ‖τ‖ over the whole vector; 0 for F32 */
  size_t file_count;        /**< the checkpoint's files as they were read */
  mg_file_stamp *stamps;    /**< [file_count] */
} mg_shard;

/**
 * Opens and validates a shard's metadata (untrusted bytes: every size is checked against the file). MG_ERR_CORRUPT names
 * the file, the object, and what was expected.
 */
mg_status mg_shard_open(const char *path, mg_shard **shard);
void mg_shard_close(mg_shard **shard);

/** One small read. MG_ERR_IO; MG_ERR_CORRUPT: it is no shard, or of another size than it says. */
mg_status mg_shard_seal_read(const char *path, mg_shard_seal *seal);
bool mg_shard_seal_equal(const mg_shard_seal *a, const mg_shard_seal *b);

/**
 * Copies the shard `from`, which must have this seal, to `to`: in large pieces, each block compared with its checksum on the
 * way, under a temporary name that is renamed when all of it has reached the disk. poll (may be NULL) is called every few MiB;
 * what it returns other than MG_OK ends the copying. MG_ERR_CORRUPT: `from` is damaged; MG_ERR_INPUT: it is another shard;
 * MG_ERR_IO: either side. Of what failed nothing is left.
 */
mg_status mg_shard_copy(const char *from, const char *to, const mg_shard_seal *seal, mg_status (*poll)(void *context),
                        void *context);

/** What a call to mg_shard_pack did. */
typedef enum mg_pack_outcome {
  MG_PACK_WRITTEN,
  MG_PACK_UNCHANGED,
  MG_PACK_KEPT /**< checkpoint gone, shard is there */
} mg_pack_outcome;

typedef struct mg_pack_job {
  const mg_family *family;
  const mg_source *source; /**< NULL: pack the base */
  size_t index;            /**< of the source in the family */
  const char *dir;
  mg_dtype dtype;
  bool allow_nonfinite;
  bool rehash;        /**< --rehash: compare contents even where the files' stamps did not change */
  uint64_t base_hash; /**< the base's checkpoint_hash, from its shard; sources packed against another base are outdated */
  /** Called every few MiB with the elements done so far; a status other than MG_OK ends the packing with it (nothing is left).
   */
  mg_status (*poll)(void *context, int64_t elements);
  void *context;
} mg_pack_job;

/**
 * Brings one shard up to date: recognises an unchanged one by stamps (size, time, inode of every file), else by content
 * hash, else writes it under a temporary name and renames it when complete. Memory: at most 32 MiB. Errors: NaN or Inf (the
 * file, tensor and element; not where allow_nonfinite), I/O, no space (nothing that looks whole is left).
 */
mg_status mg_shard_pack(const mg_pack_job *job, mg_pack_outcome *outcome);

/** Removes the temporary files that writers on this host left in dir when they were killed. */
void mg_shard_clean(const char *dir);

/** Reads everything and compares all checksums. Every bad block is named (tensor, elements, bytes) in one MG_ERR_CORRUPT. */
mg_status mg_shard_verify(const char *path);

/** Sources for which dir holds shards, sorted by id. */
mg_status mg_shard_list(const char *dir, mg_source_list *list);

/**
 * A row provider: the tiles of all sources and of the base, from shards or straight from the checkpoints, to the same bits
 * where shards are F32. Reading threads may call mg_rows_read and mg_rows_show at the same time.
 */
typedef struct mg_rows mg_rows;

enum { MG_ROW_BASE = -1 };

/**
 * Opens the shards of `list` and the base's in dir; open files are bounded by file_bound. All tables must agree
 * (MG_ERR_CORRUPT lists those that do not), all sources must have been packed against this base, and all have dtype.
 */
mg_status mg_rows_open_shards(const char *dir, const mg_source_list *list, size_t file_bound, mg_rows **rows);
/**
 * What another process needs to read the same rows without opening a shard: tensors, places, scales and seals; appended to
 * text. Not of checkpoints.
 */
mg_status mg_rows_describe(const mg_rows *rows, mg_text *text);
/**
 * Rows as described, by the same program, from the shards of `list` in dir. A shard is opened when it is first read, and then
 * compared with its seal: MG_ERR_INPUT names who ("rank 3 on n01") reads another one. who is copied.
 */
mg_status mg_rows_open_described(const void *data, size_t size, const char *dir, const mg_source_list *list, size_t file_bound,
                                 const char *who, mg_rows **rows);
/** Compares the shard of a source (or MG_ROW_BASE) with its seal now. */
mg_status mg_rows_look(mg_rows *rows, ptrdiff_t source);
/** From now on the rows are read from copies of the shards in dir. Before any is read. */
mg_status mg_rows_move(mg_rows *rows, const char *dir);
const mg_shard_seal *mg_rows_seal(const mg_rows *rows, ptrdiff_t source);
const char *mg_rows_shard_path(const mg_rows *rows, ptrdiff_t source);

/** Borrows family, which must outlive the rows. */
mg_status mg_rows_open_checkpoints(const mg_family *family, size_t file_bound, mg_rows **rows);
void mg_rows_close(mg_rows **rows);

const mg_tensor_table *mg_rows_table(const mg_rows *rows);
size_t mg_rows_sources(const mg_rows *rows);
/** Element type of the sources' rows (the base's are always F32). */
mg_dtype mg_rows_dtype(const mg_rows *rows);
/** content_hash of a source (or MG_ROW_BASE); for rows straight from checkpoints a hash of headers and stamps. */
uint64_t mg_rows_identity(const mg_rows *rows, ptrdiff_t source);
/** Bytes that reading one tile row of `count` elements takes from the file (for plan and rates). */
double mg_rows_bytes_per_element(const mg_rows *rows);

/** One thread's sight of the rows where the page cache has them. */
typedef struct mg_rows_sight mg_rows_sight;
/** For tiles of up to most_rows rows, the base among them. rows outlive it. */
mg_status mg_rows_sight_open(mg_rows *rows, size_t most_rows, mg_rows_sight **sight);
void mg_rows_sight_close(mg_rows_sight **sight);
/**
 * What was seen since the sight was opened was all there: else MG_ERR_IO names the file that was cut short or failed. To be
 * asked before what was computed from it is believed.
 */
mg_status mg_rows_sight_check(const mg_rows_sight *sight);

/** Where rows go that are not seen in place. */
typedef struct mg_rows_room {
  void *buffer;         /**< 64-byte aligned; row k at buffer + k × stride, in mg_rows_dtype */
  size_t stride;        /**< bytes */
  float *base;          /**< 64-byte aligned, room for a tile */
  void *staging;        /**< mg_rows_staging_bytes() of aligned memory */
  mg_rows_sight *sight; /**< NULL: all go there */
} mg_rows_room;

/** Rows where they are: arrays of n + 1, of which the last entry is the base's. */
typedef struct mg_rows_tile {
  const void **row; /**< aligned as elements of the type are */
  mg_dtype *dtype;  /**< F32, BF16 or F16 */
  float *scale;
  const float **minus; /**< NULL, or floats that come off the row: value = element × scale − minus */
} mg_rows_tile;

/**
 * `count` ≤ MG_TILE elements from `first` on (within one leaf of the tensor) of n sources and of the base (zeros for
 * source_only tensors); valid until the next call with the same room. Without a sight, rows are in mg_rows_dtype with nothing
 * to come off, at buffer + k × stride and at base.
 */
mg_status mg_rows_show(mg_rows *rows, const mg_rows_room *room, const int *sources, int n, size_t tensor, int64_t first,
                       int64_t count, const mg_rows_tile *tile);
/**
 * The same elements, read: row k of the result at (char *)buffer + k × stride, in mg_rows_dtype. `base` (64-byte aligned, room
 * for count floats) receives θ0; NULL: not wanted. staging: as in a room.
 */
mg_status mg_rows_read(mg_rows *rows, const int *sources, int n, size_t tensor, int64_t first, int64_t count, void *buffer,
                       size_t stride, float *scale, float *base, void *staging);
/** The same for every kind of rows. */
size_t mg_rows_staging_bytes(void);
/**
 * Looks for non-finite values of a source in a range after an inner product came out non-finite: MG_ERR_INPUT names file,
 * tensor and element; MG_OK if all are finite.
 */
mg_status mg_rows_check_finite(mg_rows *rows, int source, size_t tensor, int64_t first, int64_t count);

#endif
