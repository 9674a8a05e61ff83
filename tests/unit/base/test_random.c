/* Philox against the known answers of its authors' library (Random123), and streams that do not depend on the range asked for.
 */
#include "mergegrid/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "mergegrid/hash.h"

static void known_answers(void **state) {
  (void)state;
  static const struct {
    uint32_t counter[4], key[2], out[4];
  } cases[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    uint32_t out[4];
    mg_philox(cases[k].counter, cases[k].key, out);
    assert_memory_equal(out, cases[k].out, sizeof out);
  }
}

static void any_range_is_the_same(void **state) {
  (void)state;
  enum { N = 403 }; /* some are computed many at once */
  uint32_t all[N], some[N];
  const mg_stream stream = mg_stream_of(42, 1, 2), other = mg_stream_of(42, 2, 1);
  mg_stream_words(&stream, 0, N, all);
  for (uint64_t first = 0; first < N; first += 7)
    for (uint64_t count = 1; first + count <= N; count += 5) {
      mg_stream_words(&stream, first, count, some);
      assert_memory_equal(some, all + first, count * sizeof *some);
    }
  mg_stream_words(&other, 0, N, some);
  assert_memory_not_equal(some, all, sizeof all);
}

/* Bytes in pieces hash as they do in one. */
static void pieces_hash_as_a_whole(void **state) {
  (void)state;
  char bytes[5000];
  for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = (char)(k * 31);
  mg_hasher *hasher = mg_hasher_create();
  assert_non_null(hasher);
  for (size_t at = 0, step = 1; at < sizeof bytes; at += step, step = step * 3 % 701 + 1)
    mg_hasher_add(hasher, bytes + at, step < sizeof bytes - at ? step : sizeof bytes - at);
  assert_true(mg_hasher_digest(hasher) == mg_hash(bytes, sizeof bytes));
  mg_hasher_destroy(&hasher);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(any_range_is_the_same),
                                     cmocka_unit_test(pieces_hash_as_a_whole)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
