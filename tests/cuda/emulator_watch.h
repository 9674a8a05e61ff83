#ifndef MERGEGRID_TEST_EMULATOR_WATCH_H
#define MERGEGRID_TEST_EMULATOR_WATCH_H

/* Who touches what (emulator_watch.cpp), and what that has to know of who is at work (emulator.cpp). */

#include <stddef.h>
#include <stdint.h>

/* Where a kernel is. Threads are the grid's, from 1 on; phase: barriers that were passed, of all blocks. */
struct mg_emu_place {
  uint32_t thread; /* 0: the host */
  uint32_t first_of_block, block_threads, phase;
};
extern mg_emu_place mg_emu_at;

[[noreturn]] void mg_emu_violation(const char *what);

/* A piece of device memory, and what is known of its words (emulator_watch.cpp makes room for that when one is touched). */
struct mg_emu_piece {
  uintptr_t first, end;
  void *words;
  size_t words_bytes;
};
/* NULL: it is none, or reaches beyond one. */
mg_emu_piece *mg_emu_piece_of(const void *at, size_t bytes);

/* A kernel begins; a block does. */
void mg_emu_forget_device();
void mg_emu_forget_shared();

extern "C" {
extern char __start_mg_cuda_shared[], __stop_mg_cuda_shared[];
}

#endif
