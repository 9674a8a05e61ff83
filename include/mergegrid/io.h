#ifndef MERGEGRID_IO_H
#define MERGEGRID_IO_H

/** Files: whole reads and writes, atomic replacement, a bound on open files. Not collective, thread-safe. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

/** What recognises an unchanged file before any hashing. */
typedef struct mg_file_stamp {
  uint64_t size;
  int64_t mtime_ns;
  uint64_t inode;
} mg_file_stamp;

mg_status mg_file_stamp_get(const char *path, mg_file_stamp *stamp);
bool mg_file_stamp_equal(const mg_file_stamp *a, const mg_file_stamp *b);

bool mg_path_exists(const char *path);
bool mg_path_is_dir(const char *path);
/** `dir`/`name`, or name itself where it is absolute; the caller frees. NULL if memory fails. */
char *mg_path_join(const char *dir, const char *name);
/** The directory part of a path ("." where it has none); the caller frees. */
char *mg_path_dirname(const char *path);
mg_status mg_make_dirs(const char *path);

/** Reads a whole file of at most limit bytes; *data is NUL-terminated, the caller frees. */
mg_status mg_read_file(const char *path, size_t limit, char **data, size_t *size);

/**
 * Reads a file through and forgets it: MG_ERR_IO where the disk does not give it. For what a library could not read and does
 * not say why.
 */
mg_status mg_file_readable(const char *path);

/** Reads exactly size bytes at offset; path is for the message only. A short file is MG_ERR_CORRUPT. */
mg_status mg_read_at(int fd, const char *path, void *buffer, size_t size, uint64_t offset);
mg_status mg_write_at(int fd, const char *path, const void *buffer, size_t size, uint64_t offset);

/**
 * Reads like mg_read_at, for a reader that walks through a file in rising offsets: pages that are not in the page cache yet
 * make it announce the next `ahead` bytes to the kernel, so that the device reads on while the caller computes.
 * *announced (unless NULL) is then where that ends, and else left alone.
 */
mg_status mg_read_streaming(int fd, const char *path, void *buffer, size_t size, uint64_t offset, size_t ahead,
                            uint64_t *announced);

/** Writes path.tmp.<pid>, fsyncs, renames to path, fsyncs the directory. */
mg_status mg_replace_file(const char *path, const void *data, size_t size);
/** The same by path.tmp.<number>; once that is written, `may` is asked, and its error ends it (NULL: nothing is asked). */
typedef mg_status (*mg_may_replace)(void *context);
mg_status mg_replace_file_if(const char *path, long number, const void *data, size_t size, mg_may_replace may, void *context);
mg_status mg_sync_dir(const char *dir);
/** fsyncs a file that others have written. */
mg_status mg_sync_file(const char *path);

/**
 * Locks a file, made where missing, and waits while another process has it; *lock is a descriptor, the caller's to close. A
 * file that can't be opened (a read-only directory) is not locked: −1. MG_STOPPED where a stop is asked for meanwhile.
 */
mg_status mg_lock_wait(const char *path, int *lock);

/** A bounded set of files open for reading: the least recently used is closed when the bound is met. */
typedef struct mg_file_cache mg_file_cache;
typedef struct mg_file_slot mg_file_slot;

mg_status mg_file_cache_create(size_t bound, mg_file_cache **cache);
void mg_file_cache_destroy(mg_file_cache **cache);
/** The files this process may hold open at once for streaming (soft limit raised to the hard one, some kept back). */
size_t mg_file_cache_bound(void);
/** Opens (or finds) path and pins it: *fd stays valid until the release. key is any number unique to the path. */
mg_status mg_file_acquire(mg_file_cache *cache, uint64_t key, const char *path, int *fd, mg_file_slot **slot);
void mg_file_release(mg_file_cache *cache, mg_file_slot *slot);

/** A field of /proc/self/status ("VmPTE") in bytes; 0 where it is not known. */
uint64_t mg_process_memory(const char *field);

#endif
