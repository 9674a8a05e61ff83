#include "mergegrid/hash.h"

#include <stdio.h>
#include <xxhash.h>

uint64_t mg_hash(const void *data, size_t size) { return XXH3_64bits(data, size); }

uint64_t mg_hash_more(uint64_t seed, const void *data, size_t size) { return XXH3_64bits_withSeed(data, size, seed); }

const char *mg_hash_text(uint64_t hash, char *buffer) {
  snprintf(buffer, 17, "%016llx", (unsigned long long)hash);
  return buffer;
}
