/*
 * CUDA on the CPU, for tests: what real devices do by chance is done here on purpose.
 *
 *  - Operations of streams are queued, and done when the host waits: only those that it waits for (order lazy), those of all
 *    other streams first (others), in a random order (random), or at once (eager).
 *  - Device memory can't be touched by the host at all, nor host memory that is not pinned be copied asynchronously. Every
 *    allocation ends at a page that nobody may touch, and is full of NaN at first.
 *  - Threads of a block are fibres that run one at a time until the next barrier; who is first changes from phase to phase.
 *  - Of sources that are compiled for it, accesses to shared and device memory are watched (emulator_watch.cpp).
 *
 * Environment: MG_EMU_DEVICES (1; CUDA_VISIBLE_DEVICES chooses among them), MG_EMU_MEMORY (bytes a device), MG_EMU_ORDER (lazy,
 * others, random, eager), MG_EMU_SEED, MG_EMU_FAIL ("malloc:N", "pin:N", "launch:N", "copy:N", "product:N", or a
 * kernel's name: the N-th such call fails). What no program may do ends it with a message.
 */

#include <cblas.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "emulator_watch.h"

mg_emu_index threadIdx, blockIdx;
mg_emu_place mg_emu_at;

namespace {

const size_t page = 4096, fibre_stack = 64 << 10, most_threads = 1024;
const int warp_size = 32;
const char *running = "nothing"; /* the operation under way, for messages */

[[noreturn]] void violation(const char *what) { mg_emu_violation(what); }

/* ---- what the environment asks for ---- */

const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value != NULL && value[0] != '\0' ? value : otherwise;
}

uint64_t random_word() {
  static uint64_t state = strtoull(setting("MG_EMU_SEED", "1"), NULL, 10) * 0x9E3779B97F4A7C15u + 1;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

/* Is it this call that has to fail? */
bool fails(const char *what) {
  static std::map<std::string, long> calls;
  const char *wish = getenv("MG_EMU_FAIL");
  if (wish == NULL) return false;
  const size_t length = strlen(what);
  if (strncmp(wish, what, length) != 0 || wish[length] != ':') return false;
  return ++calls[what] == atol(wish + length + 1);
}

/* ---- memory ---- */

struct allocation {
  char *start; /* of the mapping */
  size_t mapped;
  size_t bytes;
  mg_emu_piece piece;
};

std::recursive_mutex lock;
std::map<uintptr_t, allocation> heap; /* by address; all devices' */
mg_emu_piece *met;                    /* the last one that was looked for */
std::map<uintptr_t, size_t> pinned;   /* host memory */
std::map<uintptr_t, int> device_of;   /* whose */
std::map<int, size_t> used;
cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
int window = 0; /* operations under way, during which device memory can be touched */

/* The machine's devices that CUDA_VISIBLE_DEVICES names; an unknown one ends the list, as there. */
std::vector<int> visible_devices() {
  const int all = atoi(setting("MG_EMU_DEVICES", "1"));
  const char *names = getenv("CUDA_VISIBLE_DEVICES");
  std::vector<int> visible;
  for (int k = 0; names == NULL && k < all; k++) visible.push_back(k);
  while (names != NULL && *names != '\0') {
    char *end;
    const long k = strtol(names, &end, 10);
    if (end == names || k < 0 || k >= all) break;
    visible.push_back((int)k);
    names = *end == ',' ? end + 1 : end;
  }
  return visible;
}

int device_count() { return (int)visible_devices().size(); }
size_t device_memory() { return strtoull(setting("MG_EMU_MEMORY", "8589934592"), NULL, 10); }

cudaError_t error(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}

void protect(int rights) {
  for (auto &each : heap) mprotect(each.second.start, each.second.mapped - page, rights);
}

struct open_window {
  open_window() {
    if (window++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  ~open_window() {
    if (--window == 0) protect(PROT_NONE);
  }
};

bool inside(const std::map<uintptr_t, size_t> &ranges, const void *at, size_t bytes) {
  auto next = ranges.upper_bound((uintptr_t)at);
  if (next == ranges.begin()) return false;
  --next;
  return (uintptr_t)at + bytes <= next->first + next->second;
}

bool on_device(const void *at, size_t bytes) { return mg_emu_piece_of(at, bytes) != NULL; }

void on_fault(int, siginfo_t *info, void *) {
  static char text[200];
  const int n = snprintf(text, sizeof text, "emulated CUDA: memory that may not be touched at %p (in %s%s)\n", info->si_addr,
                         running, window > 0 ? "" : ", by the host");
  if (write(2, text, (size_t)n) < 0) _exit(98);
  _exit(99);
}

void watch_faults() {
  static bool watching = false;
  struct sigaction action = {};
  if (watching) return;
  watching = true;
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
}

/* ---- streams ---- */

struct operation {
  std::string name;
  std::function<void()> run;
  std::shared_ptr<bool> done;   /* set when it is; NULL: no one asks */
  std::shared_ptr<bool> awaits; /* has to be set before */
};

} // namespace

struct mg_emu_stream {
  std::deque<operation> queue;
  int device;
};
struct mg_emu_event {
  std::shared_ptr<bool> done; /* of the last record; NULL: never recorded */
};
struct mg_emu_blas {
  cudaStream_t stream;
  void *workspace;
  size_t workspace_bytes;
  bool tf32;
};

namespace {

std::vector<cudaStream_t> streams;

bool can_go(const mg_emu_stream *s) {
  return !s->queue.empty() && (s->queue.front().awaits == nullptr || *s->queue.front().awaits);
}

void step(mg_emu_stream *s) {
  operation o = std::move(s->queue.front());
  s->queue.pop_front();
  running = o.name.c_str();
  if (o.run) o.run();
  if (o.done) *o.done = true;
  running = "nothing";
}

/* Of the streams that can go on one, as the order has it; `wanted` is being waited for. */
mg_emu_stream *choose(mg_emu_stream *wanted, const std::string &order) {
  std::vector<mg_emu_stream *> able;
  for (mg_emu_stream *s : streams)
    if (can_go(s)) able.push_back(s);
  if (able.empty()) violation("a stream waits for what nobody is going to do");
  if (order == "random") return able[random_word() % able.size()];
  if (order == "others")
    for (mg_emu_stream *s : able)
      if (s != wanted) return s;
  if (can_go(wanted)) return wanted;
  /* What it waits for is somewhere: the stream that holds the mark. */
  const std::shared_ptr<bool> mark = wanted->queue.front().awaits;
  for (mg_emu_stream *s : streams)
    for (const operation &o : s->queue)
      if (o.done == mark && s != wanted) return choose(s, order);
  violation("a stream waits for an event that is not in any");
}

void work_until(mg_emu_stream *wanted, const std::function<bool()> &enough) {
  const std::string order = setting("MG_EMU_ORDER", "lazy");
  if (enough()) return;
  open_window open;
  while (!enough()) step(choose(wanted, order));
}

void drain(mg_emu_stream *s) {
  work_until(s, [s] { return s->queue.empty(); });
}

void queue(mg_emu_stream *s, operation o) {
  static const bool eager = strcmp(setting("MG_EMU_ORDER", "lazy"), "eager") == 0;
  if (s == NULL) violation("the default stream is used");
  s->queue.push_back(std::move(o));
  if (eager) drain(s);
}

/* ---- fibres ---- */

enum state { READY, AT_BARRIER, AT_EXCHANGE, OVER };

struct fibre {
  void *stack_pointer;
  char *stack; /* NULL: it has not begun */
  state at;
  uint32_t word[2]; /* given in the warp's exchanges, every other one */
  unsigned exchanges;
  int lane;
  mg_emu_index index;
};

std::vector<fibre> fibres;
std::vector<char *> idle_stacks; /* where each begins; the last that was used is the first to be taken, being in the cache */
fibre *self, *end_of_warp;       /* the next ones are on the way there */
ptrdiff_t to_next;
void *scheduler_pointer;
std::function<void()> *body;
size_t block_threads;
bool meets; /* Have threads of the block met at a barrier? */

/* Keeps what calls have to keep, and changes stacks. */
extern "C" void mg_emu_switch(void **from, void *to);
#if defined(__x86_64__)
__asm__(".pushsection .text\n.globl mg_emu_switch\n.type mg_emu_switch,@function\nmg_emu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size mg_emu_switch,.-mg_emu_switch\n.popsection\n");
#else
#error "the emulation changes stacks of x86-64"
#endif

void fibre_main();

char *new_stack() {
  static size_t made = 0;
  void *stack = mmap(NULL, fibre_stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) violation("out of memory for threads");
  /* Stacks that begin at equal places of their pages would share a few lines of the cache. */
  return (char *)stack + fibre_stack - made++ * 448 % 16384;
}

void begin(fibre &f) {
  if (idle_stacks.empty()) idle_stacks.push_back(new_stack());
  f.stack = idle_stacks.back();
  idle_stacks.pop_back();
  void **top = (void **)f.stack;
  *--top = NULL;                          /* where a caller would be */
  *--top = (void *)(uintptr_t)fibre_main; /* where the first change of stacks returns to */
  for (int k = 0; k < 6; k++) *--top = NULL;
  f.stack_pointer = top;
}

void become(fibre &f) {
  self = &f;
  threadIdx = f.index;
  mg_emu_at.thread = mg_emu_at.first_of_block + (uint32_t)(&f - fibres.data()) + 1;
}

/* The lane that goes on when this one can't; NULL: it is the scheduler's turn. */
fibre *next_lane() {
  for (fibre *f = self + to_next; f != end_of_warp; f += to_next)
    if (f->at == READY) return f;
  return NULL;
}

void change_to(fibre *next, void **from) {
  if (next == NULL) return mg_emu_switch(from, scheduler_pointer);
  if (next->stack == NULL) begin(*next);
  become(*next);
  mg_emu_switch(from, next->stack_pointer);
}

void leave(state at) {
  fibre *me = self;
  me->at = at;
  change_to(next_lane(), &me->stack_pointer);
}

/* A thread that is over leaves its stack to the next one that begins, at once where that is the next lane: threads that never
   meet are a loop. */
void fibre_main() {
  for (;;) {
    (*body)();
    fibre *me = self, *next = (me->at = OVER, next_lane());
    if (next != NULL && next->stack == NULL) {
      next->stack = me->stack;
      become(*next);
      continue;
    }
    idle_stacks.push_back(me->stack);
    change_to(next, &me->stack_pointer);
    violation("a thread that is over goes on");
  }
}

void resume(fibre &f) {
  change_to(&f, &scheduler_pointer);
  mg_emu_at.thread = 0;
}

/* Do all of a warp's threads wait to exchange? Then they may go on. */
bool release_warp(fibre *lane, size_t count) {
  size_t waiting = 0, over = 0;
  for (size_t k = 0; k < count; k++) waiting += lane[k].at == AT_EXCHANGE, over += lane[k].at == OVER;
  if (waiting == 0 || waiting + over < count) return false; /* the others wait at the barrier, for ever */
  if (over > 0) violation("lanes exchange with threads that are over");
  for (size_t k = 0; k < count; k++) lane[k].at = READY;
  return true;
}

/* A warp runs to the barrier or the end, its lanes in order or backwards between exchanges: each resumes the next one. */
void run_warp(size_t first) {
  const size_t left = block_threads - first, count = left < (size_t)warp_size ? left : (size_t)warp_size;
  const bool backwards = random_word() % 2 == 0;
  fibre *lane = &fibres[first];
  to_next = backwards ? -1 : 1;
  end_of_warp = backwards ? lane - 1 : lane + count;
  do {
    for (size_t k = 0; k < count; k++) {
      fibre &f = lane[backwards ? count - 1 - k : k];
      if (f.at == READY) resume(f);
    }
  } while (release_warp(lane, count));
}

/* Those at the barrier may go on when all are there that are not over. */
bool release_barrier() {
  bool any = false;
  for (size_t k = 0; k < block_threads; k++) {
    if (fibres[k].at == AT_EXCHANGE) return false;
    any = any || fibres[k].at == AT_BARRIER;
  }
  for (size_t k = 0; any && k < block_threads; k++)
    if (fibres[k].at == AT_BARRIER) fibres[k].at = READY;
  return any;
}

/* Everyone runs to where it has to wait: warp by warp, from any on, in order or backwards. */
void run_phase() {
  mg_emu_at.phase++;
  const size_t warps = (block_threads + (size_t)warp_size - 1) / (size_t)warp_size,
               first = (size_t)(random_word() >> 8) % warps;
  const bool backwards = random_word() % 2 == 0;
  for (size_t k = 0; k < warps; k++) {
    const size_t turned = (first + k) % warps;
    run_warp((backwards ? warps - 1 - turned : turned) * (size_t)warp_size);
  }
}

void run_block(const dim3 &block) {
  /* Where threads do not meet, shared memory is of no use to them. */
  if (meets) memset(__start_mg_cuda_shared, 0xFF, (size_t)(__stop_mg_cuda_shared - __start_mg_cuda_shared));
  mg_emu_forget_shared();
  for (size_t k = 0; k < block_threads; k++) {
    fibre &f = fibres[k];
    f.index = {(unsigned)(k % block.x), (unsigned)(k / block.x % block.y), (unsigned)(k / block.x / block.y)};
    f.at = READY, f.stack = NULL, f.exchanges = 0, f.lane = (int)(k % (size_t)warp_size);
  }
  run_phase();
  for (meets = false; release_barrier(); meets = true) run_phase();
  for (size_t k = 0; k < block_threads; k++)
    if (fibres[k].at != OVER) violation("threads wait for each other at different places");
}

/* Blocks know no order. */
void run_grid(dim3 grid, dim3 block, std::function<void()> *kernel) {
  const size_t blocks = (size_t)grid.x * grid.y * grid.z, first = random_word() % blocks;
  const bool backwards = random_word() % 2 == 0;
  body = kernel;
  block_threads = (size_t)block.x * block.y * block.z;
  if (fibres.size() < block_threads) fibres.resize(block_threads);
  meets = true; /* for all that is known of the first block */
  mg_emu_at.block_threads = (uint32_t)block_threads;
  mg_emu_forget_device();
  for (size_t k = 0; k < blocks; k++) {
    const size_t turned = (first + k) % blocks, b = backwards ? blocks - 1 - turned : turned;
    mg_emu_at.first_of_block = (uint32_t)(b * block_threads);
    blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
    run_block(block);
  }
}

} // namespace

[[noreturn]] void mg_emu_violation(const char *what) {
  fprintf(stderr, "emulated CUDA: %s (in %s)\n", what, running);
  fflush(stderr);
  _exit(99);
}

mg_emu_piece *mg_emu_piece_of(const void *at, size_t bytes) {
  const uintptr_t first = (uintptr_t)at;
  if (met == NULL || first < met->first || first >= met->end) {
    auto next = heap.upper_bound(first);
    if (next == heap.begin()) return NULL;
    met = &(--next)->second.piece;
  }
  return first + bytes <= met->end ? met : NULL;
}

void mg_emu_launch(const char *name, dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> kernel) {
  std::lock_guard<std::recursive_mutex> own(lock);
  const size_t threads = (size_t)block.x * block.y * block.z;
  if (threads == 0 || threads > most_threads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    error(cudaErrorInvalidConfiguration);
    return;
  }
  if (fails("launch") || fails(name)) {
    error(cudaErrorLaunchFailure);
    return;
  }
  queue(stream,
        {name, [grid, block, kernel = std::move(kernel)]() mutable { run_grid(grid, block, &kernel); }, nullptr, nullptr});
}

void mg_emu_barrier() { leave(AT_BARRIER); }
int mg_emu_lane() { return self->lane; }

/* Of two phases: some threads say what they have to at the next barrier before others have read the answer of this one. */
int mg_emu_any(int predicate) {
  static struct {
    uint32_t phase;
    int any;
  } answers[2];
  auto &answer = answers[mg_emu_at.phase % 2];
  if (answer.phase != mg_emu_at.phase) answer = {mg_emu_at.phase, 0};
  answer.any |= predicate != 0;
  mg_emu_barrier();
  return answer.any;
}

uint32_t mg_emu_exchange(uint32_t word, int from_lane) {
  fibre *me = self;
  const unsigned turn = me->exchanges++ % 2;
  me->word[turn] = word;
  leave(AT_EXCHANGE);
  return (me - me->lane + from_lane)->word[turn];
}

/* ---- the runtime ---- */

cudaError_t cudaGetDeviceCount(int *count) {
  *count = device_count();
  return error(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count()) return error(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
  if (device < 0 || device >= device_count()) return error(cudaErrorInvalidDevice);
  snprintf(properties->name, sizeof properties->name, "Emulated device");
  properties->major = 0;
  properties->minor = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device) {
  if (device < 0 || device >= device_count()) return error(cudaErrorInvalidDevice);
  snprintf(id, (size_t)length, "emulated:%d", visible_devices()[(size_t)device]);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *all) {
  std::lock_guard<std::recursive_mutex> own(lock);
  *all = device_memory();
  *left = *all - used[current_device];
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **piece, size_t bytes) {
  std::lock_guard<std::recursive_mutex> own(lock);
  watch_faults();
  if (bytes > device_memory() - used[current_device] || fails("malloc")) return error(cudaErrorMemoryAllocation);
  const size_t padded = (bytes + 255) / 256 * 256, mapped = (padded + page - 1) / page * page + page;
  char *start = (char *)mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return error(cudaErrorMemoryAllocation);
  char *at = start + (mapped - page - padded); /* ends where the guard begins */
  if (bytes <= 64 << 20) memset(start, 0xFF, mapped - page);
  mprotect(start, mapped - page, window > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  mprotect(start + mapped - page, page, PROT_NONE);
  heap[(uintptr_t)at] = {start, mapped, bytes, {(uintptr_t)at, (uintptr_t)at + bytes, NULL, 0}};
  device_of[(uintptr_t)at] = current_device;
  used[current_device] += bytes;
  *piece = at;
  return cudaSuccess;
}

cudaError_t cudaFree(void *piece) {
  std::lock_guard<std::recursive_mutex> own(lock);
  auto found = heap.find((uintptr_t)piece);
  if (found == heap.end()) violation("what was never allocated is freed");
  for (cudaStream_t s : streams) drain(s);
  used[device_of[(uintptr_t)piece]] -= found->second.bytes;
  munmap(found->second.start, found->second.mapped);
  if (found->second.piece.words != NULL) munmap(found->second.piece.words, found->second.piece.words_bytes);
  met = NULL;
  heap.erase(found);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **host, size_t bytes) {
  std::lock_guard<std::recursive_mutex> own(lock);
  if (fails("pin") || posix_memalign(host, page, bytes) != 0) return error(cudaErrorMemoryAllocation);
  memset(*host, 0xFF, bytes);
  pinned[(uintptr_t)*host] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *host) {
  std::lock_guard<std::recursive_mutex> own(lock);
  if (pinned.erase((uintptr_t)host) == 0) violation("host memory that is not pinned is freed as such");
  for (cudaStream_t s : streams) drain(s);
  free(host);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  std::lock_guard<std::recursive_mutex> own(lock);
  *stream = new mg_emu_stream;
  (*stream)->device = current_device;
  streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> own(lock);
  drain(stream);
  for (size_t k = 0; k < streams.size(); k++)
    if (streams[k] == stream) streams.erase(streams.begin() + (ptrdiff_t)k);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> own(lock);
  drain(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard<std::recursive_mutex> own(lock);
  if (event->done) queue(stream, {"a wait for an event", nullptr, nullptr, event->done});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  *event = new mg_emu_event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> own(lock);
  event->done = std::make_shared<bool>(false);
  queue(stream, {"an event", nullptr, event->done, nullptr});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  std::lock_guard<std::recursive_mutex> own(lock);
  const std::shared_ptr<bool> done = event->done;
  if (!done || *done) return cudaSuccess;
  for (cudaStream_t s : streams)
    for (const operation &o : s->queue)
      if (o.done == done) {
        work_until(s, [done] { return *done; });
        return cudaSuccess;
      }
  violation("an event that is in no stream is waited for");
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> own(lock);
  const bool up = kind == cudaMemcpyHostToDevice;
  if (!inside(pinned, up ? from : to, bytes)) violation("an asynchronous copy of memory that is not pinned");
  if (!on_device(up ? to : from, bytes)) violation("a copy beyond an allocation of the device");
  if (fails("copy")) return error(cudaErrorLaunchFailure);
  queue(stream, {up ? "a copy to the device" : "a copy from the device", [=] { memcpy(to, from, bytes); }, nullptr, nullptr});
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> own(lock);
  if (!on_device(to, bytes)) violation("memory beyond an allocation of the device is set");
  queue(stream, {"setting memory", [=] { memset(to, value, bytes); }, nullptr, nullptr});
  return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
  std::lock_guard<std::recursive_mutex> own(lock);
  const cudaError_t e = last_error;
  last_error = cudaSuccess;
  return e;
}

const char *cudaGetErrorString(cudaError_t e) {
  switch (e) {
  case cudaSuccess:
    return "no error";
  case cudaErrorInvalidValue:
    return "invalid argument";
  case cudaErrorMemoryAllocation:
    return "out of memory";
  case cudaErrorInvalidConfiguration:
    return "invalid configuration argument";
  case cudaErrorNoDevice:
    return "no CUDA-capable device is detected";
  case cudaErrorInvalidDevice:
    return "invalid device ordinal";
  case cudaErrorLaunchFailure:
    return "unspecified launch failure";
  }
  return "unknown error";
}

/* ---- cuBLAS ---- */

cublasStatus_t cublasCreate(cublasHandle_t *handle) {
  *handle = new mg_emu_blas();
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  handle->workspace = NULL; /* it has to be given anew, as there */
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes) {
  std::lock_guard<std::recursive_mutex> own(lock);
  if (!on_device(workspace, bytes)) violation("a workspace that is not the device's");
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  handle->tf32 = mode == CUBLAS_TF32_TENSOR_OP_MATH;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion(cublasHandle_t, int *version) {
  *version = 0;
  return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS        ? "success"
         : status == CUBLAS_STATUS_ALLOC_FAILED ? "allocation failed"
                                                : "invalid value";
}

static bool has_shape(int m, int n, int k, int lda, int ldb, int ldc, bool ta, bool tb) {
  return m >= 0 && n >= 0 && k >= 0 && lda >= (ta ? k : m) && ldb >= (tb ? n : k) && ldc >= m;
}

/* A factor as tensor cores take it, columns ld apart: 10 bits behind the point, to the nearest. */
static std::vector<float> in_tf32(const float *factor, int rows, int columns, int ld) {
  std::vector<float> rounded((size_t)ld * (size_t)columns);
  for (size_t c = 0; c < (size_t)columns; c++)
    for (size_t r = 0; r < (size_t)rows; r++) {
      const float x = factor[c * (size_t)ld + r];
      rounded[c * (size_t)ld + r] = isfinite(x) ? __uint_as_float((__float_as_uint(x) + 0x1000u) & ~0x1FFFu) : x;
    }
  return rounded;
}

static void queue_product(cublasHandle_t handle, std::function<void()> multiply) {
  if (handle->workspace == NULL) violation("a matrix product without a workspace of its own");
  char *workspace = (char *)handle->workspace;
  queue(handle->stream, {"a matrix product",
                         [=] {
                           memset(workspace, 0xFF, 4096); /* it is the product's to write to */
                           multiply();
                         },
                         nullptr, nullptr});
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                           const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                           int ldc) {
  std::lock_guard<std::recursive_mutex> own(lock);
  const bool ta = transa == CUBLAS_OP_T, tb = transb == CUBLAS_OP_T;
  const float one = *alpha, other = *beta;
  const bool tf32 = handle->tf32;
  if (!has_shape(m, n, k, lda, ldb, ldc, ta, tb) || fails("product")) return CUBLAS_STATUS_INVALID_VALUE;
  queue_product(handle, [=]() mutable {
    std::vector<float> left, right;
    if (tf32) {
      left = in_tf32(a, ta ? k : m, ta ? m : k, lda), right = in_tf32(b, tb ? n : k, tb ? k : n, ldb);
      a = left.data(), b = right.data();
    }
    cblas_sgemm(CblasColMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, one, a, lda, b, ldb,
                other, c, ldc);
  });
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                           const double *alpha, const double *a, int lda, const double *b, int ldb, const double *beta,
                           double *c, int ldc) {
  std::lock_guard<std::recursive_mutex> own(lock);
  const bool ta = transa == CUBLAS_OP_T, tb = transb == CUBLAS_OP_T;
  const double one = *alpha, other = *beta;
  if (!has_shape(m, n, k, lda, ldb, ldc, ta, tb) || fails("product")) return CUBLAS_STATUS_INVALID_VALUE;
  queue_product(handle, [=] {
    cblas_dgemm(CblasColMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, one, a, lda, b, ldb,
                other, c, ldc);
  });
  return CUBLAS_STATUS_SUCCESS;
}
