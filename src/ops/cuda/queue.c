/* Queues are streams, marks are events; copies. */

#include <stdlib.h>
#include <string.h>

#include "cuda_impl.h"
#include "mergegrid/text.h"

static mg_status open_products(mg_queue *q) {
  mg_status status = MG_OK;
  mg_cuda_device *d = q->device;
  MG_TRY(mg_cublas_check(d, cublasCreate(&q->blas), "opening cuBLAS"), done);
  MG_TRY(mg_cublas_check(d, cublasSetStream(q->blas, q->stream), "giving cuBLAS a stream"), done);
  /* A workspace of its own and one stream: without that cuBLAS does not promise the same bits from run to run. */
  MG_TRY(mg_cuda_take(&d->device, MG_QUEUE_BYTES, "a workspace of cuBLAS", &q->workspace), done);
  MG_TRY(mg_cublas_check(d, cublasSetWorkspace(q->blas, q->workspace, MG_QUEUE_BYTES), "giving cuBLAS a workspace"), done);
  const cublasMath_t mode = d->device.tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH;
  MG_TRY(mg_cublas_check(d, cublasSetMathMode(q->blas, mode), "choosing cuBLAS's precision"), done);
done:
  return status;
}

mg_status mg_cuda_open_queue(mg_device *device, bool products, mg_queue **out) {
  mg_status status = MG_OK;
  mg_cuda_device *d = mg_cuda_of(device);
  mg_queue *q = mg_alloc_zero(1, sizeof *q);
  *out = NULL;
  if (q == NULL) return MG_ERR_NOMEM;
  q->device = d;
  MG_TRY(mg_cuda_enter(d), failed);
  MG_TRY(mg_cuda_check(d, cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking), "opening a stream"), failed);
  for (int k = 0; k < 2; k++)
    MG_TRY(mg_cuda_check(d, cudaEventCreateWithFlags(&q->staged[k], cudaEventDisableTiming), "making an event"), failed);
  if (products) MG_TRY(open_products(q), failed);
  *out = q;
  return MG_OK;
failed:
  mg_cuda_close_queue(q);
  return status;
}

void mg_cuda_close_queue(mg_queue *q) {
  if (q == NULL) return;
  mg_device *device = &q->device->device;
  if (mg_cuda_enter(q->device) == MG_OK) {
    if (q->stream != NULL) cudaStreamSynchronize(q->stream); /* nothing is under way when memory is given back */
    if (q->blas != NULL) cublasDestroy(q->blas);
    for (int k = 0; k < 2; k++)
      if (q->staged[k] != NULL) cudaEventDestroy(q->staged[k]);
    if (q->stream != NULL) cudaStreamDestroy(q->stream);
  }
  mg_cuda_give(device, q->workspace);
  for (int k = 0; k < 2; k++) mg_cuda_unpin(device, q->staging[k]);
  free(q);
}

mg_status mg_cuda_open_mark(mg_device *device, mg_mark **out) {
  mg_status status = MG_OK;
  mg_mark *m = mg_alloc_zero(1, sizeof *m);
  *out = NULL;
  if (m == NULL) return MG_ERR_NOMEM;
  m->device = mg_cuda_of(device);
  MG_TRY(mg_cuda_enter(m->device), failed);
  MG_TRY(mg_cuda_check(m->device, cudaEventCreateWithFlags(&m->event, cudaEventDisableTiming), "making an event"), failed);
  *out = m;
  return MG_OK;
failed:
  free(m);
  return status;
}

void mg_cuda_close_mark(mg_mark *m) {
  if (m == NULL) return;
  if (mg_cuda_enter(m->device) == MG_OK) cudaEventDestroy(m->event);
  free(m);
}

mg_status mg_cuda_mark(mg_queue *q, mg_mark *m) {
  MG_ENTER(q->device);
  return mg_cuda_check(q->device, cudaEventRecord(m->event, q->stream), "recording an event");
}

mg_status mg_cuda_after(mg_queue *q, const mg_mark *m) {
  MG_ENTER(q->device);
  return mg_cuda_check(q->device, cudaStreamWaitEvent(q->stream, m->event, 0), "having a stream wait");
}

mg_status mg_cuda_await(mg_mark *m) {
  MG_ENTER(m->device);
  return mg_cuda_check(m->device, cudaEventSynchronize(m->event), "computing");
}

mg_status mg_cuda_finish(mg_queue *q) {
  MG_ENTER(q->device);
  return mg_cuda_check(q->device, cudaStreamSynchronize(q->stream), "computing");
}

static mg_status copy(mg_queue *q, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, const char *what) {
  if (bytes == 0) return MG_OK;
  MG_ENTER(q->device);
  return mg_cuda_check(q->device, cudaMemcpyAsync(to, from, bytes, kind, q->stream), what);
}

mg_status mg_cuda_upload(mg_queue *q, void *to, const void *host, size_t bytes) {
  return copy(q, to, host, bytes, cudaMemcpyHostToDevice, "copying to the device");
}

mg_status mg_cuda_download(mg_queue *q, void *host, const void *from, size_t bytes) {
  return copy(q, host, from, bytes, cudaMemcpyDeviceToHost, "copying from the device");
}

mg_status mg_cuda_zero(mg_queue *q, void *to, size_t bytes) {
  if (bytes == 0) return MG_OK;
  MG_ENTER(q->device);
  return mg_cuda_check(q->device, cudaMemsetAsync(to, 0, bytes, q->stream), "setting memory to zero");
}

/* While one buffer is on its way the other one is filled. */
mg_status mg_cuda_upload_any(mg_queue *q, void *to, const void *host, size_t bytes) {
  mg_status status = MG_OK;
  MG_TRY(mg_cuda_enter(q->device), done);
  for (int k = 0; k < 2; k++)
    if (q->staging[k] == NULL) MG_TRY(mg_cuda_pin(&q->device->device, MG_STAGING_BYTES, &q->staging[k]), done);
  for (size_t at = 0; at < bytes; at += MG_STAGING_BYTES, q->turn ^= 1) {
    const size_t some = bytes - at < MG_STAGING_BYTES ? bytes - at : MG_STAGING_BYTES;
    MG_TRY(mg_cuda_check(q->device, cudaEventSynchronize(q->staged[q->turn]), "copying to the device"), done);
    memcpy(q->staging[q->turn], (const char *)host + at, some);
    MG_TRY(mg_cuda_upload(q, (char *)to + at, q->staging[q->turn], some), done);
    MG_TRY(mg_cuda_check(q->device, cudaEventRecord(q->staged[q->turn], q->stream), "recording an event"), done);
  }
done:
  return status;
}
