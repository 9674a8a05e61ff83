#ifndef MERGEGRID_HASH_H
#define MERGEGRID_HASH_H

/** XXH3, 64 bits: block checksums, content identities. Not cryptographic. Not collective. */

#include <stddef.h>
#include <stdint.h>

uint64_t mg_hash(const void *data, size_t size);
/** Order-dependent combination of an identity so far with more bytes. */
uint64_t mg_hash_more(uint64_t seed, const void *data, size_t size);
/** mg_hash of bytes that come in pieces. */
typedef struct mg_hasher mg_hasher;
mg_hasher *mg_hasher_create(void); /**< NULL: out of memory, with the message set */
void mg_hasher_add(mg_hasher *hasher, const void *data, size_t size);
uint64_t mg_hasher_digest(const mg_hasher *hasher);
void mg_hasher_destroy(mg_hasher **hasher);
/** 16 hexadecimal digits and a NUL into buffer[17]; returns buffer. */
const char *mg_hash_text(uint64_t hash, char *buffer);

#endif
