/* What the SentencePiece library takes on trust in a model's bytes. */

#include <stdlib.h>
#include <string.h>

#include "tokenizer_impl.h"

static uint32_t unit_at(const unsigned char *units, size_t k) {
  uint32_t unit;
  memcpy(&unit, units + 4 * k, sizeof unit);
  return unit;
}

/* Layout: size of the trie in bytes (little endian, 32 bits), the trie's units of 32 bits, the strings, each ended by a NUL. */
static bool is_safe(const void *map, size_t size) {
  const unsigned char *bytes = map;
  uint32_t trie;
  if (size < sizeof trie) return false;
  memcpy(&trie, bytes, sizeof trie);
  if (trie == 0 || trie % 4 != 0 || trie >= size - sizeof trie) return false;
  const unsigned char *units = bytes + sizeof trie;
  const size_t count = trie / 4, strings = size - sizeof trie - trie;
  if (bytes[size - 1] != '\0') return false;
  for (size_t k = 0; k < count; k++) {
    const uint32_t unit = unit_at(units, k);
    /* a leaf is an index into the strings; every unit that might be taken for one must be as harmless */
    if (unit >> 31 && (unit & 0x7FFFFFFFu) >= strings) return false;
    if (unit >> 31 || !(unit & 0x100u)) continue;
    const size_t leaf = k ^ ((size_t)(unit >> 10) << ((unit & 0x200u) >> 6));
    if (leaf >= count || (unit_at(units, leaf) & 0x7FFFFFFFu) >= strings) return false;
  }
  return true;
}

bool mg_charsmap_open(const void *bytes, size_t size, mg_charsmap *map) {
  uint32_t trie;
  *map = (mg_charsmap){0};
  if (size == 0) return true;
  if (!is_safe(bytes, size) || (map->bytes = malloc(size)) == NULL) return false;
  memcpy(map->bytes, bytes, size);
  memcpy(&trie, bytes, sizeof trie);
  map->units = map->bytes + sizeof trie;
  map->unit_count = trie / 4;
  map->strings = map->units + trie;
  return true;
}

static bool varint(const unsigned char **at, const unsigned char *end, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
    const unsigned char byte = *(*at)++;
    *value |= (uint64_t)(byte & 0x7Fu) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

/* The last field of that number with a length, as the wire format has it: later ones win. */
static bool find_field(const void *message, size_t size, uint64_t number, const void **data, size_t *length) {
  const unsigned char *at = message, *end = at + size;
  *length = 0;
  while (at < end) {
    uint64_t tag, value;
    if (!varint(&at, end, &tag)) return false;
    switch (tag & 7u) {
    case 0:
      if (!varint(&at, end, &value)) return false;
      break;
    case 1:
      value = 8;
      goto skip;
    case 5:
      value = 4;
      goto skip;
    case 2:
      if (!varint(&at, end, &value)) return false;
      if (tag >> 3 == number && value <= (uint64_t)(end - at)) {
        *data = at;
        *length = (size_t)value;
      }
    skip:
      if (value > (uint64_t)(end - at)) return false;
      at += value;
      break;
    default:
      return false;
    }
  }
  return true;
}

bool mg_model_charsmap(const void *model, size_t model_size, const void **map, size_t *size) {
  enum { NORMALIZER_SPEC = 3, PRECOMPILED_CHARSMAP = 2 };
  const void *spec = NULL;
  size_t spec_size;
  if (!find_field(model, model_size, NORMALIZER_SPEC, &spec, &spec_size)) return false;
  *size = 0;
  return spec_size == 0 || find_field(spec, spec_size, PRECOMPILED_CHARSMAP, map, size);
}
