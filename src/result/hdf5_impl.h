#ifndef MG_RESULT_HDF5_IMPL_H
#define MG_RESULT_HDF5_IMPL_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/hash.h"
#include "mergegrid/result.h"

/*
 * The first block of a result vouches for all that follows, so that damage is found before libhdf5 meets it (which a damaged
 * heap of strings crashes), and says where the numbers are, so that it is located without the library. As HDF5 wants of a user
 * block, its size is a power of two: the smallest, from 4096 bytes on, that has room for `count` extents.
 */
enum { MG_RESULT_LEAST_BLOCK = 4096, MG_RESULT_MOST_EXTENTS = 1 << 18 };

typedef struct mg_result_extent {
  char name[96]; /* "" where the room was not needed */
  uint64_t offset, size, hash;
} mg_result_extent;

typedef struct mg_result_head {
  char magic[8];                 /* "MGRESULT" */
  uint64_t block_hash;           /* of the whole block with 0 here */
  uint64_t file_size, rest_hash; /* of everything behind the block */
  uint64_t count;                /* of extents, which follow */
} mg_result_head;

typedef struct mg_result_block {
  mg_result_head head; /* count: room in extents */
  mg_result_extent *extents;
  size_t bytes; /* of the block in the file */
  size_t used;
} mg_result_block;

/* Room for at least `extents`. */
mg_status mg_result_block_create(size_t extents, mg_result_block *block);
void mg_result_block_free(mg_result_block *block);
/* Writes the block: extents as filled in by the writer. */
mg_status mg_result_seal(const char *path, mg_result_block *block);
/* MG_ERR_CORRUPT names the datasets that are damaged, or says that it is something else. */
mg_status mg_result_check_seal(const char *path);

/* ---- writing: the first failure sticks ---- */

typedef struct mg_h5_writer {
  hid_t file;
  bool failed;
  mg_status status; /* what failed, where it was not HDF5 */
  mg_result_block *block;
} mg_h5_writer;

void mg_h5_group(mg_h5_writer *w, const char *path);
/* rank 0 … 3; type is the native type of data. The attributes checksum, long_name and units are added. */
void mg_h5_numbers(mg_h5_writer *w, const char *path, hid_t type, int rank, const hsize_t *dims, const void *data,
                   const char *long_name, const char *units);
/* As h5py has them: an enumeration over one byte, which is what a bool is in memory. The caller closes the type. */
hid_t mg_h5_bool_type(void);
void mg_h5_bools(mg_h5_writer *w, const char *path, size_t count, const bool *data, const char *long_name);
/* count strings, `step` bytes from one pointer to the next, NULL is ""; SIZE_MAX: one scalar string. */
void mg_h5_strings(mg_h5_writer *w, const char *path, const void *first, size_t step, size_t count, const char *long_name);
void mg_h5_scale(mg_h5_writer *w, const char *path, const char *scale, unsigned axis);
void mg_h5_make_scale(mg_h5_writer *w, const char *path, const char *name);
void mg_h5_text_attribute(mg_h5_writer *w, const char *path, const char *name, const char *text);
void mg_h5_attribute(mg_h5_writer *w, const char *path, const char *name, hid_t type, size_t count, const void *data);

void mg_h5_compatibility(mg_h5_writer *w, const mg_source_list *sources, const mg_result_compatibility *compatibility);

void mg_h5_nxn(mg_h5_writer *w, const mg_source_list *sources, const mg_result_nxn *nxn);

void mg_h5_grid(mg_h5_writer *w, const mg_source_list *sources, const mg_result_grid *grid);
/* How many extents it takes. */
size_t mg_h5_grid_extents(const mg_result_grid *grid);

void mg_h5_microscope(mg_h5_writer *w, const mg_result_microscope *microscope);
size_t mg_h5_microscope_extents(void);

/* A dataset of two or three dimensions, written a row at a time, the first to the last. */
typedef struct mg_h5_rows {
  hid_t set, type;
  int rank;
  hsize_t dims[3], next;
  mg_hasher *hasher;
  char path[160];
} mg_h5_rows;
void mg_h5_rows_begin(mg_h5_writer *w, const char *path, hid_t type, int rank, const hsize_t *dims, mg_h5_rows *rows);
void mg_h5_rows_put(mg_h5_writer *w, mg_h5_rows *rows, const void *row);
void mg_h5_rows_end(mg_h5_writer *w, mg_h5_rows *rows, const char *long_name, const char *units);

/* Hash of strings over their bytes with their NULs. */
uint64_t mg_hash_strings(const char *const *strings, size_t count);

/* ---- reading ---- */

typedef struct mg_h5_reader {
  const char *path;
  hid_t file;
} mg_h5_reader;

/* A result that is open; owns its path. */
struct mg_result_reader {
  mg_h5_reader h5;
};

/* Checks the seal, opens, checks format and schema version. */
mg_status mg_h5_open(const char *path, mg_h5_reader *reader);
void mg_h5_close(mg_h5_reader *reader);
bool mg_h5_has(const mg_h5_reader *reader, const char *path);
/* A dataset of exactly `rank` dimensions as type; *data is allocated, dims filled in. */
mg_status mg_h5_read_numbers(const mg_h5_reader *reader, const char *path, hid_t type, int rank, hsize_t *dims, void **data);
/* The same of bools; each is false or true. */
mg_status mg_h5_read_bools(const mg_h5_reader *reader, const char *path, int rank, hsize_t *dims, bool **data);
mg_status mg_h5_read_strings(const mg_h5_reader *reader, const char *path, mg_strings *list);
mg_status mg_h5_read_integer(const mg_h5_reader *reader, const char *object, const char *name, int64_t *value);
mg_status mg_h5_read_text(const mg_h5_reader *reader, const char *object, const char *name, char **text);

#endif
