#ifndef MERGEGRID_SHARD_IMPL_H
#define MERGEGRID_SHARD_IMPL_H

#include "mergegrid/shard.h"

enum { MG_SHARD_VERSION = 1, MG_USER_BLOCK = 4096 };

/** Blocks before each tensor, [table->count + 1]; the last is their number. */
void mg_count_blocks(const mg_tensor_table *table, size_t *first_block);
uint64_t mg_shard_content_hash(const mg_shard *shard);

/** The user block: what is checked before libhdf5 sees the file. */
typedef struct mg_user_block {
  char magic[8];
  uint64_t file_size, data_offset, metadata_hash;
  uint64_t data_size;
} mg_user_block;

/** Hash of everything between the user block and the end of the file that is not values. */
mg_status mg_hash_metadata(int fd, const char *path, const mg_user_block *block, uint64_t *hash);

/** A shard's seal, which its metadata was held against. MG_ERR_CORRUPT: it is damaged. */
mg_status mg_shard_seal_check(const char *path, mg_shard_seal *seal);

/** Of a file that is open; path is for the message. */
mg_status mg_shard_seal_of(int fd, const char *path, mg_shard_seal *seal);

/* ---- writing HDF5 (values go past the library, by pwrite) ---- */

typedef struct mg_shard_file mg_shard_file;

/** Creates the file with its datasets; *data_offset is where the values belong. */
mg_status mg_shard_file_create(const char *path, const mg_shard *shard, const mg_strings *file_names, mg_shard_file **file,
                               uint64_t *data_offset);
/** Writes what is known only after the values: checksums, scales, errors, hashes; closes; writes the user block. */
mg_status mg_shard_file_finish(mg_shard_file **file, const mg_shard *shard, const double *tensor_error);
void mg_shard_file_abandon(mg_shard_file **file);

/** Values to be written one behind the other, of which some are still here. */
typedef struct mg_spool {
  int fd;
  const char *path; /* borrowed */
  char *buffer;
  uint64_t at;   /* where the buffer's first byte belongs in the file */
  size_t filled; /* bytes */
} mg_spool;

/** room: the most bytes that are taken at once. Close it even where this fails; fd stays the caller's. */
mg_status mg_spool_open(mg_spool *spool, int fd, const char *path, uint64_t offset, size_t room);
/** Forgets what was not flushed. */
void mg_spool_close(mg_spool *spool);
/** Where the next values go; valid until they are taken. */
void *mg_spool_room(const mg_spool *spool);
/** The first `size` bytes of the room are values. */
mg_status mg_spool_take(mg_spool *spool, size_t size);
mg_status mg_spool_flush(mg_spool *spool);

/* ---- reading a member's tensors ---- */

typedef struct mg_reader mg_reader;

/** Reads raw ranges of tensors of a checkpoint; member is borrowed. */
mg_status mg_reader_create(const mg_member *member, mg_reader **reader);
void mg_reader_destroy(mg_reader **reader);
/**
 * Bytes of elements [first, first + count) of a tensor, valid until the next call: *raw is where the page cache has them, of
 * any alignment, or `room`, to which they were read.
 */
mg_status mg_reader_show(mg_reader *reader, size_t tensor, int64_t first, int64_t count, void *room, const void **raw);
/** As mg_mappings_check: before what was seen is believed. */
mg_status mg_reader_check(const mg_reader *reader);
static inline mg_dtype mg_location_dtype(const mg_member *member, size_t tensor) {
  return (mg_dtype)member->locations[tensor].dtype;
}

/** Identity of a checkpoint's tensors, fed in canonical order while they are read. */
uint64_t mg_hash_tensor_begin(uint64_t hash, const mg_tensor *tensor, mg_dtype dtype);

/** Index of the first value of n that is not finite, or −1. */
int64_t mg_first_nonfinite(const float *values, int64_t n);

/* ---- what tells one shard from another ---- */

typedef struct mg_shard_brief {
  mg_shard_seal seal;
  bool is_base;
  mg_dtype dtype;
  uint64_t id_hash, table_hash, checkpoint_hash, base_hash, content_hash;
} mg_shard_brief;

mg_shard_brief mg_shard_brief_of(const mg_shard *shard);

/* ---- the note beside a shard ---- */

typedef struct mg_seen {
  bool valid;
  mg_file_stamp shard;
  char host[256], boot[64];
  bool durable;
  bool described; /* a note of an earlier version does not say what the shard holds */
  mg_shard_brief brief;
  size_t file_count;
  mg_file_stamp *files;
} mg_seen;

void mg_seen_read(const char *shard_path, mg_seen *seen);
mg_status mg_seen_write(const char *shard_path, const mg_seen *seen);
void mg_seen_free(mg_seen *seen);
/**
 * The shard at path is the one of the note, its metadata whole and its values as their writer left them as far as that can be
 * known without reading them: so the note says what it holds, and the HDF5 library need not.
 */
bool mg_seen_vouches(const char *shard_path, const mg_seen *seen);
/** The same file as noted; *same_boot: on this host since it was last started. */
bool mg_seen_is_of(const char *shard_path, const mg_seen *seen, bool *same_boot);
/** Host and boot of this process. */
void mg_seen_here(mg_seen *seen);

#endif
