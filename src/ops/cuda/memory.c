/* One arena of device memory, of which pieces are taken first fit: few, large, and long-lived. */

#include <stdlib.h>
#include <string.h>

#include "cuda_impl.h"
#include "mergegrid/text.h"

mg_status mg_arena_init(mg_arena *a) {
  const char *mode = getenv("MERGEGRID_DEVICE_ARENA");
  *a = (mg_arena){.apart = mode != NULL && strcmp(mode, "apart") == 0};
  return pthread_mutex_init(&a->mutex, NULL) == 0 ? MG_OK : mg_fail(MG_ERR_NOMEM, "out of memory");
}

void mg_arena_free(mg_arena *a) {
  for (size_t k = 0; a->apart && k < a->count; k++) cudaFree((void *)(uintptr_t)a->pieces[k].offset);
  if (a->block != NULL) cudaFree(a->block);
  free(a->pieces);
  pthread_mutex_destroy(&a->mutex);
}

/* Asks for less and less: what is free is shared with others, and comes in pages. */
mg_status mg_cuda_reserve(mg_device *device, uint64_t least, uint64_t wish, uint64_t *got) {
  mg_status status = MG_OK;
  mg_cuda_device *d = mg_cuda_of(device);
  size_t left = 0, all = 0;
  MG_TRY(mg_cuda_enter(d), done);
  MG_TRY(mg_cuda_check(d, cudaMemGetInfo(&left, &all), "asking for its free memory"), done);
  /* Who shares a device leaves the others their part, whoever comes first; and CUDA itself some. */
  const uint64_t part = d->sharers > 1 ? (all - all / 16) / (uint64_t)d->sharers : left;
  uint64_t bytes = wish > part ? part : wish;
  if (bytes < least) bytes = least;
  while (!d->arena.apart) {
    void *block;
    const cudaError_t error = cudaMalloc(&block, bytes);
    if (error == cudaSuccess) {
      d->arena.block = block;
      break;
    }
    cudaGetLastError(); /* it is told to whoever asks next, else */
    if (error != cudaErrorMemoryAllocation) return mg_cuda_check(d, error, "reserving memory");
    if (bytes == least)
      return mg_fail(MG_ERR_NOMEM, "device %d (%s): %.2f GiB of memory are needed at least, %.2f of %.2f GiB are free",
                     d->number, d->name, (double)least / 0x1p30, (double)left / 0x1p30, (double)all / 0x1p30);
    bytes = bytes - bytes / 16 > least ? bytes - bytes / 16 : least;
  }
  d->arena.bytes = *got = bytes;
done:
  return status;
}

static uint64_t padded(uint64_t bytes) { return (bytes + MG_DEVICE_ALIGN - 1) / MG_DEVICE_ALIGN * MG_DEVICE_ALIGN; }

/* The first gap that is wide enough: *at is the place among the pieces. */
static bool find_gap(const mg_arena *a, uint64_t bytes, size_t *at, uint64_t *offset) {
  *offset = 0;
  for (*at = 0; *at < a->count; ++*at) {
    if (a->pieces[*at].offset - *offset >= bytes) return true;
    *offset = a->pieces[*at].offset + a->pieces[*at].bytes;
  }
  return a->bytes - *offset >= bytes;
}

static mg_status grow(mg_arena *a) {
  if (a->count < a->room) return MG_OK;
  const size_t room = a->room * 2 + 16;
  mg_piece *pieces = reallocarray(a->pieces, room, sizeof *pieces);
  if (pieces == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  a->pieces = pieces;
  a->room = room;
  return MG_OK;
}

static void insert(mg_arena *a, size_t at, mg_piece piece) {
  memmove(a->pieces + at + 1, a->pieces + at, (a->count - at) * sizeof *a->pieces);
  a->pieces[at] = piece;
  a->count++;
  a->used += piece.bytes;
}

static mg_status say_full(const mg_cuda_device *d, uint64_t bytes, const char *what) {
  return mg_fail(MG_ERR_NOMEM, "device %d: %s: %.1f MiB are wanted of an arena of %.1f MiB of which %.1f are taken", d->number,
                 what, (double)bytes / 0x1p20, (double)d->arena.bytes / 0x1p20, (double)d->arena.used / 0x1p20);
}

static mg_status take_apart(mg_cuda_device *d, uint64_t bytes, const char *what, void **piece) {
  mg_status status = MG_OK;
  mg_arena *a = &d->arena;
  size_t at = 0;
  if (a->used + padded(bytes) > a->bytes) return say_full(d, bytes, what);
  MG_TRY(mg_cuda_check(d, cudaMalloc(piece, bytes), what), done);
  while (at < a->count && a->pieces[at].offset < (uintptr_t)*piece) at++;
  insert(a, at, (mg_piece){.offset = (uintptr_t)*piece, .bytes = padded(bytes)});
done:
  return status;
}

static mg_status take_gap(mg_cuda_device *d, uint64_t bytes, const char *what, void **piece) {
  mg_arena *a = &d->arena;
  size_t at;
  uint64_t offset;
  if (!find_gap(a, padded(bytes), &at, &offset)) return say_full(d, bytes, what);
  insert(a, at, (mg_piece){.offset = offset, .bytes = padded(bytes)});
  *piece = a->block + offset;
  return MG_OK;
}

mg_status mg_cuda_take(mg_device *device, uint64_t bytes, const char *what, void **piece) {
  mg_status status = MG_OK;
  mg_cuda_device *d = mg_cuda_of(device);
  *piece = NULL;
  if (bytes == 0) bytes = 1; /* so that pieces differ */
  pthread_mutex_lock(&d->arena.mutex);
  MG_TRY(mg_cuda_enter(d), done);
  MG_TRY(grow(&d->arena), done);
  status = d->arena.apart ? take_apart(d, bytes, what, piece) : take_gap(d, bytes, what, piece);
done:
  pthread_mutex_unlock(&d->arena.mutex);
  return status;
}

void mg_cuda_give(mg_device *device, void *piece) {
  mg_cuda_device *d = mg_cuda_of(device);
  mg_arena *a = &d->arena;
  if (piece == NULL) return;
  pthread_mutex_lock(&a->mutex);
  const uint64_t offset = a->apart ? (uintptr_t)piece : (uint64_t)((char *)piece - a->block);
  size_t at = 0;
  while (at < a->count && a->pieces[at].offset != offset) at++;
  if (at < a->count) {
    a->used -= a->pieces[at].bytes;
    memmove(a->pieces + at, a->pieces + at + 1, (a->count - at - 1) * sizeof *a->pieces);
    a->count--;
    if (a->apart && mg_cuda_enter(d) == MG_OK) cudaFree(piece);
  }
  pthread_mutex_unlock(&a->mutex);
}

/* Of the widest gap. */
uint64_t mg_cuda_room(const mg_device *device) {
  const mg_arena *a = &((const mg_cuda_device *)device)->arena;
  uint64_t offset = 0, widest = 0;
  if (a->apart) return a->bytes - a->used;
  for (size_t k = 0; k <= a->count; k++) {
    const uint64_t end = k < a->count ? a->pieces[k].offset : a->bytes;
    if (end - offset > widest) widest = end - offset;
    if (k < a->count) offset = end + a->pieces[k].bytes;
  }
  return widest;
}

mg_status mg_cuda_pin(mg_device *device, size_t bytes, void **host) {
  mg_status status = MG_OK;
  const mg_cuda_device *d = mg_cuda_of(device);
  *host = NULL;
  MG_TRY(mg_cuda_enter(d), done);
  const cudaError_t error = cudaMallocHost(host, bytes > 0 ? bytes : 1);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return mg_fail(MG_ERR_NOMEM, "%.1f MiB of pinned host memory are not to be had (ulimit -l?)", (double)bytes / 0x1p20);
  }
  status = mg_cuda_check(d, error, "pinning host memory");
done:
  return status;
}

void mg_cuda_unpin(mg_device *device, void *host) {
  if (host != NULL && mg_cuda_enter(mg_cuda_of(device)) == MG_OK) cudaFreeHost(host);
}
