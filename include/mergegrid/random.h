#ifndef MERGEGRID_RANDOM_H
#define MERGEGRID_RANDOM_H

/**
 * Random numbers by counter: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The same number
 * for the same key and counter, whoever asks and in which order. Not collective.
 */

#include <stdint.h>

/** Four words of a counter under a key. */
void mg_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/** A stream's key, from a seed and two names' hashes. */
typedef struct mg_stream {
  uint32_t key[2], place[2];
} mg_stream;
mg_stream mg_stream_of(uint64_t seed, uint64_t first, uint64_t second);
/** Words first … first + count − 1 of a stream; word k is the same whatever the range. */
void mg_stream_words(const mg_stream *stream, uint64_t first, uint64_t count, uint32_t *words);

#endif
