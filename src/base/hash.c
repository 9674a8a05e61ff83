#include "mergegrid/hash.h"

#include <stdio.h>
#include <xxhash.h>

#include "mergegrid/status.h"

uint64_t mg_hash(const void *data, size_t size) { return XXH3_64bits(data, size); }

uint64_t mg_hash_more(uint64_t seed, const void *data, size_t size) { return XXH3_64bits_withSeed(data, size, seed); }

mg_hasher *mg_hasher_create(void) {
  XXH3_state_t *state = XXH3_createState();
  if (state == NULL)
    mg_fail(MG_ERR_NOMEM, "out of memory");
  else
    XXH3_64bits_reset(state);
  return (mg_hasher *)state;
}

void mg_hasher_add(mg_hasher *hasher, const void *data, size_t size) { XXH3_64bits_update((XXH3_state_t *)hasher, data, size); }

uint64_t mg_hasher_digest(const mg_hasher *hasher) { return XXH3_64bits_digest((const XXH3_state_t *)hasher); }

void mg_hasher_destroy(mg_hasher **hasher) {
  XXH3_freeState((XXH3_state_t *)*hasher);
  *hasher = NULL;
}

const char *mg_hash_text(uint64_t hash, char *buffer) {
  snprintf(buffer, 17, "%016llx", (unsigned long long)hash);
  return buffer;
}
