/* Elements of a merge: the operations of the host's kernels (src/merge/kernels_body.h), element by element in the same order.
 */

#include "launch.h"
#include "philox.h"

enum { CREW = 256 };

/* An element of a merge. */
typedef struct element {
  uint64_t tau;    /* where it is in the sources' blocks */
  uint64_t number; /* of the tensor */
  float other;     /* what the sources' are relative to */
} element;

static __device__ double raw(const mg_device_merge &m, const element &e, int s) {
  const float value = m.tau[s][e.tau] - e.other; /* less 0 every float is itself */
  if (m.stream == NULL) return (double)value;
  return word_of(m.stream[s], e.number) <= m.last_kept ? (double)(value * m.rescale[s]) : 0.0;
}

/* Nothing out of bounds; NaN is. */
static __device__ double within(const mg_device_merge &m, const element &e, int s) {
  const double value = raw(m, e, s), size = fabs(value);
  return size >= m.threshold[s] && size < m.ceiling[s] ? value : 0.0;
}

static __device__ double sum_of(const mg_device_merge &m, const element &e) {
  double total = 0;
  for (int s = 0; s < m.sources; s++) total = fma(m.weight[s], raw(m, e, s), total);
  return total;
}

static __device__ double between_of(const mg_device_merge &m, const element &e) {
  double total = 0;
  for (int s = 0; s < m.sources; s++) total += m.weight[s] * within(m, e, s);
  return total;
}

static __device__ double largest_of(const mg_device_merge &m, const element &e) {
  double most = 0;
  for (int s = 0; s < m.sources; s++) {
    const double value = raw(m, e, s);
    if (fabs(value) > fabs(most)) most = value;
  }
  return most;
}

static __device__ double active_of(const mg_device_merge &m, const element &e) {
  double total = 0, share = 0, alone = 0, number = 0;
  for (int s = 0; s < m.sources; s++) {
    const double value = within(m, e, s), there = value != 0 ? 1.0 : 0.0;
    total += m.weight[s] * value;
    share += value != 0 ? m.weight[s] : 0.0;
    if (m.alone == NULL) continue;
    alone += m.alone[s] * value;
    number += there;
  }
  const double mean = share > 0 ? total / share : total;
  return m.alone != NULL && number == 1 ? alone : mean;
}

static __device__ double elected_of(const mg_device_merge &m, const element &e, bool *cancelled) {
  double votes = 0, total = 0, share = 0, most = 0;
  for (int s = 0; s < m.sources; s++) votes += m.vote[s] * within(m, e, s);
  const double sign = votes > 0 ? 1.0 : votes < 0 ? -1.0 : m.tie;
  for (int s = 0; s < m.sources; s++) {
    const double value = within(m, e, s);
    const bool counts = value * sign > 0;
    if (counts && fabs(value) > fabs(most)) most = value;
    const double weight = counts ? m.weight[s] : 0.0;
    total += weight * value;
    share += weight;
  }
  if (m.kind == MG_DEVICE_ELECTED_MAX) {
    *cancelled = votes == 0 && most != 0;
    return most;
  }
  *cancelled = votes == 0 && share > 0;
  if (m.kind == MG_DEVICE_ELECTED_SUM || !(share > 0)) return total;
  return total / (share > m.floor ? share : m.floor);
}

static __global__ void merge(mg_device_merge m) {
  const mg_device_piece piece = m.piece[blockIdx.x];
  for (uint32_t k = threadIdx.x; k < piece.count; k += CREW) {
    const uint64_t at = piece.from + k;
    const element e = {m.packed ? (uint64_t)blockIdx.x * MG_PIECE_ELEMENTS + k : at, piece.element + k,
                       m.other != NULL && !m.packed ? m.other[at] : 0.0f};
    const float base = m.other != NULL ? m.base[at] + m.other[at] : m.base[at]; /* a base of -0 is one */
    bool cancelled = false;
    double sum = 0;
    switch (m.kind) {
    case MG_DEVICE_SUM:
      sum = sum_of(m, e);
      break;
    case MG_DEVICE_BETWEEN:
      sum = between_of(m, e);
      break;
    case MG_DEVICE_LARGEST:
      sum = largest_of(m, e);
      break;
    case MG_DEVICE_ACTIVE:
      sum = active_of(m, e);
      break;
    case MG_DEVICE_MEAN:
    case MG_DEVICE_ELECTED_SUM:
    case MG_DEVICE_ELECTED_MAX:
      sum = elected_of(m, e, &cancelled);
      break;
    }
    const float value = (float)(m.base_factor * (double)base + m.lambda * sum);
    m.out[piece.to + k] = value;
    if (!isfinite(value)) atomicMin((unsigned long long *)&m.verdict->bad, (unsigned long long)e.number);
    if (cancelled) m.verdict->cancelled = 1; /* whoever writes it, it is the same */
  }
}

void mg_launch_merge(cudaStream_t stream, const mg_device_merge *m) {
  if (m->pieces > 0) MG_LAUNCH(merge, dim3(m->pieces), dim3(CREW), stream, *m);
}
