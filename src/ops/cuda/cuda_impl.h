#ifndef MERGEGRID_CUDA_IMPL_H
#define MERGEGRID_CUDA_IMPL_H

/** The host's side: devices, memory, queues. Kernels are behind kernels.h. */

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <pthread.h>

#include "driver.h"
#include "mergegrid/device.h"

enum { MG_STAGING_BYTES = 8 << 20 /**< each of the two pinned buffers that upload_any goes through */ };

/** A taken piece of the arena. */
typedef struct mg_piece {
  uint64_t offset, bytes;
} mg_piece;

typedef struct mg_arena {
  char *block;
  uint64_t bytes, used;
  mg_piece *pieces; /**< rising */
  size_t count, room;
  bool apart; /**< every piece is an allocation of its own, so that tools see accesses past its end */
  pthread_mutex_t mutex;
} mg_arena;

typedef struct mg_cuda_device {
  mg_device device; /**< first */
  int number;       /**< CUDA's */
  int sharers;      /**< ranks of this node that use it, this one included */
  char name[128];
  int major, minor, cublas;
  mg_arena arena;
} mg_cuda_device;

struct mg_queue {
  mg_cuda_device *device;
  cudaStream_t stream;
  cublasHandle_t blas; /**< NULL: not for products */
  void *workspace;
  void *staging[2]; /**< pinned; NULL until they are wanted */
  cudaEvent_t staged[2];
  int turn;
};

struct mg_mark {
  mg_cuda_device *device;
  cudaEvent_t event;
};

static inline mg_cuda_device *mg_cuda_of(mg_device *device) { return (mg_cuda_device *)device; }

/** MG_OK, or what CUDA says, after "what: ". */
mg_status mg_cuda_check(const mg_cuda_device *device, cudaError_t error, const char *what);
mg_status mg_cublas_check(const mg_cuda_device *device, cublasStatus_t error, const char *what);
/** Device calls of this thread are this device's from now on. */
mg_status mg_cuda_enter(const mg_cuda_device *device);
#define MG_ENTER(device)                                                                                                       \
  do {                                                                                                                         \
    const mg_status entered = mg_cuda_enter(device);                                                                           \
    if (entered != MG_OK) return entered;                                                                                      \
  } while (0)

/* memory.c */
mg_status mg_arena_init(mg_arena *arena);
void mg_arena_free(mg_arena *arena);
mg_status mg_cuda_reserve(mg_device *device, uint64_t least, uint64_t wish, uint64_t *got);
mg_status mg_cuda_take(mg_device *device, uint64_t bytes, const char *what, void **piece);
void mg_cuda_give(mg_device *device, void *piece);
uint64_t mg_cuda_room(const mg_device *device);
mg_status mg_cuda_pin(mg_device *device, size_t bytes, void **host);
void mg_cuda_unpin(mg_device *device, void *host);

/* queue.c */
mg_status mg_cuda_open_queue(mg_device *device, bool products, mg_queue **queue);
void mg_cuda_close_queue(mg_queue *queue);
mg_status mg_cuda_open_mark(mg_device *device, mg_mark **mark);
void mg_cuda_close_mark(mg_mark *mark);
mg_status mg_cuda_mark(mg_queue *queue, mg_mark *mark);
mg_status mg_cuda_after(mg_queue *queue, const mg_mark *mark);
mg_status mg_cuda_await(mg_mark *mark);
mg_status mg_cuda_finish(mg_queue *queue);
mg_status mg_cuda_upload(mg_queue *queue, void *to, const void *host, size_t bytes);
mg_status mg_cuda_download(mg_queue *queue, void *host, const void *from, size_t bytes);
mg_status mg_cuda_upload_any(mg_queue *queue, void *to, const void *host, size_t bytes);
mg_status mg_cuda_zero(mg_queue *queue, void *to, size_t bytes);

#endif
