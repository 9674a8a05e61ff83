#ifndef MERGEGRID_MAPPING_H
#define MERGEGRID_MAPPING_H

/**
 * Files read where the page cache has them: what is there is shown in place, which spares the copy that a read makes. Only
 * what the page cache has is shown, since waiting for a disk page by page is slower than large reads. Not collective.
 */

#include <stddef.h>
#include <stdint.h>

#include "mergegrid/status.h"

/** A set of files, numbered from 0; each is mapped whole when it is first shown. Used by several threads. */
typedef struct mg_mappings mg_mappings;

/** What is shown of one file at present. One thread's. Zero-initialise. */
typedef struct mg_window {
  size_t file;
  const char *from; /**< where the byte at `offset` is; NULL: nothing is shown */
  uint64_t offset;
  size_t size;
  struct mg_mapped_file *shows; /**< of which this is a part */
} mg_window;

/** Page tables of all that was ever shown may stay until the files are unmapped (before Linux 6.14): 16 GiB are shown of 4 KiB.
 */
enum { MG_MOST_TABLES = 32 << 20 };

/** A set of `files` files. Once the process has more than most_tables bytes of page tables, nothing more is shown. */
mg_status mg_mappings_create(size_t files, size_t most_tables, mg_mappings **mappings);
/** No window of it may be looked through any more. */
void mg_mappings_destroy(mg_mappings **mappings);

/** Where [offset, offset + size) of the file is, if the window shows that already; else NULL. */
const char *mg_window_at(const mg_window *window, size_t file, uint64_t offset, size_t size);
/**
 * Shows [offset, offset + size) of the file that fd is open on, and of what follows up to `extent` bytes in all, until the
 * window is shown something else or closed; fd may be closed. path is for messages. NULL where it is not all in the page
 * cache, or can't be shown (too short a file, a file system or kernel that does not do it): then it is to be read.
 */
const char *mg_window_show(mg_mappings *mappings, mg_window *window, size_t file, int fd, const char *path, uint64_t offset,
                           size_t size, size_t extent);
/** Its pages no longer count as this process's memory. */
void mg_window_close(mg_window *window);
/**
 * What was seen through windows was all there: else MG_ERR_IO names the file that was cut short or could not be read again,
 * of which zeros were seen instead. To be asked after looking and before believing.
 */
mg_status mg_mappings_check(mg_mappings *mappings);

#endif
