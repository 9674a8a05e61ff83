/* A rank's device: opened where the configuration asks for it, its memory reserved for what the stages need at most. */

#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

mg_status mg_device_of_config(const mg_config *config, int node_rank, int node_ranks, mg_device **device) {
  const mg_device_terms terms = {.node_rank = node_rank,
                                 .node_ranks = node_ranks,
                                 .tf32 = strcmp(config->compute.precision, "tf32") == 0,
                                 .products = strcmp(config->compute.precision, "fp32") != 0};
  const bool must = strcmp(config->compute.backend, "cuda") == 0, may = strcmp(config->compute.backend, "auto") == 0;
  *device = NULL;
  if (!must && !(may && mg_device_likely())) return MG_OK;
  const mg_status status = mg_device_open(&terms, device);
  if (status == MG_OK || must) return status == MG_OK ? MG_OK : mg_fail_context(status, "compute.backend");
  mg_info("compute.backend: auto computes on the processors: %s", mg_error_message());
  return MG_OK;
}

/* With `auto` all ranks have one, or none uses it: they have to compute the same bits. */
mg_status mg_attempt_open_device(mg_attempt *a) {
  mg_status status = MG_OK;
  char text[256];
  int ranks, rank, there, everywhere;
  mg_node_ranks(a->comm, &ranks, &rank);
  MG_TRY(mg_agree(a->comm, mg_device_of_config(a->config, rank, ranks, &a->device)), done);
  there = a->device != NULL;
  MPI_Allreduce(&there, &everywhere, 1, MPI_INT, MPI_MIN, a->comm);
  if (there && !everywhere) {
    mg_warn("this rank's device is not used: another rank has none");
    mg_device_close(&a->device);
  }
  if (a->device != NULL)
    mg_info("backend cuda: %s, %d rank%s on this node", a->device->ops->describe(a->device, text, sizeof text), ranks,
            ranks > 1 ? "s" : "");
done:
  return status;
}

static void most(uint64_t *value, uint64_t other) {
  if (other > *value) *value = other;
}

mg_device_need mg_device_need_of(const mg_plans *p) {
  mg_device_need need = {0};
  if (p->gram != NULL) most(&need.least, p->gram->device_bytes);
  if (p->cka != NULL) most(&need.least, p->cka->device_bytes);
  if (p->nxn != NULL) most(&need.least, p->nxn->device_bytes);
  if (p->microscope != NULL) most(&need.least, p->microscope->device_bytes);
  if (p->grid != NULL) most(&need.least, p->grid->device_bytes);
  need.wish = need.least;
  if (p->cka != NULL) most(&need.wish, p->cka->device_wish);
  if (p->grid != NULL) most(&need.wish, p->grid->device_bytes + p->grid->device_store_bytes);
  return need;
}

mg_status mg_attempt_reserve_device(mg_attempt *a, const mg_device_need *need) {
  mg_status status = MG_OK;
  char took[32], wished[32];
  uint64_t got = 0;
  if (a->device == NULL) return MG_OK;
  MG_TRY(mg_agree(a->comm, a->device->ops->reserve(a->device, need->least, need->wish, &got)), done);
  mg_info("memory of the device: %s of %s that would be of use", mg_format_bytes((double)got, took),
          mg_format_bytes((double)need->wish, wished));
done:
  return status;
}
