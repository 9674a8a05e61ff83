#ifndef MERGEGRID_ROWS_IMPL_H
#define MERGEGRID_ROWS_IMPL_H

#include <stdatomic.h>

#include "mergegrid/mapping.h"
#include "shard_impl.h"

/** A shard as far as its rows need it. */
typedef struct mg_shard_row {
  char *path, *id; /**< id: for messages */
  mg_shard_seal seal;
  uint64_t identity;
  float *inverse_scale;         /**< [blocks] of F16, else NULL */
  _Atomic uint64_t data_offset; /**< in the file at path; 0: that has not been looked at yet */
} mg_shard_row;

struct mg_rows {
  size_t sources;
  mg_dtype dtype;
  mg_tensor_table own_table; /**< of shards */
  const mg_tensor_table *table;
  size_t *first_block;
  mg_file_cache *cache;
  mg_mappings *mappings; /**< of the files that the cache opens, by the same numbers; NULL: not wanted yet */
  size_t ahead;
  mg_shard_row *shards; /**< [sources + 1], the base last; NULL for checkpoints */
  char *dir;            /**< of shards */
  char *who;            /**< of described ones, for messages; NULL */
  const mg_family *family;
  uint64_t *first_key; /**< [sources + 1]: number of a member's first file in the cache */
  uint64_t *identity;  /**< [sources + 1] of checkpoints */
  double bytes_per_element;
};

mg_rows *mg_rows_create(size_t sources, size_t file_bound);
/** Fills first_block in from the table. */
mg_status mg_rows_index(mg_rows *rows);
/** Of a family's checkpoints: source k, or the base. */
const mg_member *mg_rows_member(const mg_rows *rows, size_t k);
/** The open file of shard k against what was described; sets its data_offset. */
mg_status mg_rows_compare(mg_rows *rows, size_t k, int fd);

#endif
