/*
 * A shard of arbitrary bytes. The user block's checksum would stop nearly every mutation before the HDF5 library and our own
 * checks behind it see anything, so the input is tried as it is and again with that checksum made right.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/hash.h"
#include "mergegrid/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { USER_BLOCK = 4096 };

static void try_file(const uint8_t *data, size_t size) {
  char path[64];
  mg_shard *shard = NULL;
  /* in memory if there is such a place; a memfd would not do, since HDF5 does not open it by its name in /proc */
  snprintf(path, sizeof path, "%s/fuzz_shard.%ld.h5", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, size, file) != size) abort();
  fclose(file);
  if (mg_shard_open(path, &shard) == MG_OK) {
    mg_shard_close(&shard);
    (void)mg_shard_verify(path);
  }
  unlink(path);
}

/* The metadata's hash as mg_shard_pack writes it; only for inputs whose other fields make sense. */
static void repair(uint8_t *data, size_t size) {
  uint64_t field[5]; /* magic, file size, data offset, hash, data size */
  memcpy(field, data, sizeof field);
  field[1] = size;
  uint64_t hash = mg_hash(&field[2], sizeof field[2]);
  const uint64_t begin = field[4] > 0 ? field[2] : size;
  if (begin < USER_BLOCK || begin > size || field[4] > size - begin) return;
  const uint64_t ranges[2][2] = {{sizeof field, begin}, {begin + field[4], size}};
  for (int r = 0; r < 2; r++)
    for (uint64_t at = ranges[r][0]; at < ranges[r][1]; at += 1 << 18) {
      const uint64_t left = ranges[r][1] - at;
      hash = mg_hash_more(hash, data + at, (size_t)(left < 1 << 18 ? left : 1 << 18));
    }
  field[3] = hash;
  memcpy(data, field, sizeof field);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > 1 << 20) return 0;
  try_file(data, size);
  if (size < USER_BLOCK) return 0;
  uint8_t *copy = malloc(size);
  if (copy == NULL) abort();
  memcpy(copy, data, size);
  repair(copy, size);
  try_file(copy, size);
  free(copy);
  return 0;
}
