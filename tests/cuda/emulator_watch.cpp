/*
 * Of kernels that are compiled for it (-fsanitize=thread, without its library) every access to shared and device memory is
 * watched: where one thread writes, no other one of its block reads or writes unless a barrier is between them, and no other
 * block does at all; but for those that both add atomically. Fibres never lose a count, but what would is seen all the same.
 */

#include <cuda_runtime.h>
#include <sys/mman.h>

#include <vector>

#include "emulator_watch.h"

namespace {

enum access { READS, WRITES, ADDS /* atomically */ };

/* Of four bytes, since the kernel began, or the block where they are shared memory: what is of an earlier one is forgotten
   when it is met. */
struct touches {
  uint32_t since;
  uint32_t writer, written; /* who did last, and in which phase */
  uint32_t reader, read;
  bool added, several, blocks; /* the last write was atomic; several have read in that phase; threads of several blocks have */
};
std::vector<touches> in_shared;
uint32_t block = 1, kernel = 1;

/* Pages of it are there once they are touched. */
touches &device_word(mg_emu_piece *piece, uintptr_t word) {
  if (piece->words == NULL) {
    piece->words_bytes = ((piece->end - piece->first) / 4 + 2) * sizeof(touches);
    piece->words = mmap(NULL, piece->words_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (piece->words == MAP_FAILED) mg_emu_violation("out of memory for what is known of memory");
  }
  touches &t = ((touches *)piece->words)[word - piece->first / 4];
  if (t.since != kernel) t = {kernel, 0, 0, 0, 0, false, false, false};
  return t;
}

touches &shared_word(uintptr_t word) {
  touches &t = in_shared[word - (uintptr_t)__start_mg_cuda_shared / 4];
  if (t.since != block) t = {block, 0, 0, 0, 0, false, false, false};
  return t;
}

bool is_of_block(uint32_t thread) {
  return thread > mg_emu_at.first_of_block && thread <= mg_emu_at.first_of_block + mg_emu_at.block_threads;
}

/* Is what a thread did before what is done now: by itself, or on the other side of a barrier? */
bool is_before(uint32_t thread, uint32_t then) {
  return thread == mg_emu_at.thread || (is_of_block(thread) && then != mg_emu_at.phase);
}

void touch(touches &t, access how) {
  const uint32_t me = mg_emu_at.thread, phase = mg_emu_at.phase;
  const bool both_add = how == ADDS && t.added;
  bool apart = t.writer == 0 || both_add || is_before(t.writer, t.written);
  if (how != READS && t.reader != 0)
    apart = apart && !t.blocks && is_before(t.reader, t.read) && !(t.several && t.read == phase);
  if (!apart) mg_emu_violation("two threads are at one place with no barrier between them");
  if (how != READS) {
    t.writer = me, t.written = phase, t.added = how == ADDS;
    return;
  }
  const bool known = t.reader != 0;
  t.blocks = t.blocks || (known && !is_of_block(t.reader));
  t.several = known && t.read == phase && (t.several || t.reader != me);
  t.reader = me, t.read = phase;
}

/* Only threads of kernels, and not what is their own. */
void touch_bytes(const void *at, size_t bytes, access how) {
  const uintptr_t first = (uintptr_t)at / 4, last = ((uintptr_t)at + bytes - 1) / 4;
  const bool shared = (const char *)at >= __start_mg_cuda_shared && (const char *)at < __stop_mg_cuda_shared;
  if (mg_emu_at.thread == 0) return;
  mg_emu_piece *piece = shared ? NULL : mg_emu_piece_of(at, bytes);
  if (!shared && piece == NULL) return;
  for (uintptr_t k = first; k <= last; k++) touch(shared ? shared_word(k) : device_word(piece, k), how);
}

} // namespace

void mg_emu_forget_device() { kernel++; }
void mg_emu_forget_shared() {
  block++;
  if (in_shared.empty()) in_shared.resize((size_t)(__stop_mg_cuda_shared - __start_mg_cuda_shared) / 4 + 1);
}

unsigned long long atomicMin(unsigned long long *at, unsigned long long value) {
  touch_bytes(at, sizeof *at, ADDS);
  const unsigned long long old = *at;
  if (value < old) *at = value;
  return old;
}

unsigned long long atomicAdd(unsigned long long *at, unsigned long long value) {
  touch_bytes(at, sizeof *at, ADDS);
  return (*at += value) - value;
}

unsigned atomicAdd(unsigned *at, unsigned value) {
  touch_bytes(at, sizeof *at, ADDS);
  return (*at += value) - value;
}

#if !defined(__SANITIZE_ADDRESS__) /* with which no source is compiled to be watched */
/* What compilers put before each access of a source that is to be watched (-fsanitize=thread, without its library). */
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
#define MG_WATCH(bytes)                                                                                                        \
  void __tsan_read##bytes(void *at) { touch_bytes(at, bytes, READS); }                                                         \
  void __tsan_write##bytes(void *at) { touch_bytes(at, bytes, WRITES); }                                                       \
  void __tsan_unaligned_read##bytes(void *at) { touch_bytes(at, bytes, READS); }                                               \
  void __tsan_unaligned_write##bytes(void *at) { touch_bytes(at, bytes, WRITES); }
MG_WATCH(1)
MG_WATCH(2)
MG_WATCH(4)
MG_WATCH(8)
MG_WATCH(16)
#undef MG_WATCH
void __tsan_read_range(void *at, size_t bytes) { touch_bytes(at, bytes, READS); }
void __tsan_write_range(void *at, size_t bytes) { touch_bytes(at, bytes, WRITES); }
}
#endif
