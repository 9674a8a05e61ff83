#ifndef MERGEGRID_HASH_H
#define MERGEGRID_HASH_H

/** XXH3, 64 bits: block checksums, content identities. Not cryptographic. Not collective. */

#include <stddef.h>
#include <stdint.h>

uint64_t mg_hash(const void *data, size_t size);
/** Order-dependent combination of an identity so far with more bytes. */
uint64_t mg_hash_more(uint64_t seed, const void *data, size_t size);
/** 16 hexadecimal digits and a NUL into buffer[17]; returns buffer. */
const char *mg_hash_text(uint64_t hash, char *buffer);

#endif
