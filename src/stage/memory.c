/* What rank 0, which holds most, will hold: one computation for `plan` and for the run that has to stay within it. */

#include "stage_impl.h"

/* A process with MPI, HDF5 and OpenBLAS in it before any work of ours. */
static const uint64_t PROCESS_BYTES = UINT64_C(64) << 20;

static void add(mg_memory *m, uint64_t held, uint64_t working) {
  m->held += held;
  if (working > m->working) m->working = working;
}

mg_memory mg_memory_predict(const mg_gram_plan *gram, const mg_cka_plan *cka, const mg_nxn_plan *nxn) {
  mg_memory m = {.process = PROCESS_BYTES};
  if (gram != NULL) {
    m.process += gram->places_bytes;
    add(&m, gram->master_bytes, gram->engine_bytes);
  }
  if (cka != NULL) {
    add(&m, cka->features_bytes, cka->encoder_bytes);
    add(&m, 0, cka->grams_bytes);
  }
  if (nxn != NULL) {
    add(&m, nxn->text_bytes + nxn->master_bytes, nxn->encoder_bytes);
    add(&m, 0, nxn->answer_bytes);
  }
  m.total = m.process + m.held + m.working;
  return m;
}

/* What helps most: the largest part names it. */
static const char *advice(const mg_config *config, const mg_gram_plan *gram, const mg_cka_plan *cka, const mg_nxn_plan *nxn) {
  const uint64_t of_gram = gram != NULL ? gram->master_bytes + gram->engine_bytes : 0;
  const uint64_t of_cka = cka != NULL ? cka->features_bytes + cka->encoder_bytes : 0;
  const uint64_t of_nxn = nxn != NULL ? nxn->text_bytes + nxn->master_bytes + nxn->encoder_bytes : 0;
  if (of_gram >= of_cka && of_gram >= of_nxn)
    return config->compatibility.gram != MG_GRAM_TOTAL ? ", or set compatibility.gram to layer or total" : "";
  if (of_cka >= of_nxn) return ", or compare fewer layers or samples (compatibility.cka), or use fewer threads";
  return config->nxn.logits ? ", or take fewer nxn.targets or threads, or nxn.logits: false"
                            : ", or take fewer nxn.targets or threads";
}

mg_status mg_memory_hold(const mg_config *config, const mg_gram_plan *gram, const mg_cka_plan *cka, const mg_nxn_plan *nxn) {
  char need[32], budget[32], held[32], working[32], process[32];
  const mg_memory m = mg_memory_predict(gram, cka, nxn);
  if (m.total <= config->compute.memory_budget) return MG_OK;
  return mg_fail(MG_ERR_NOMEM,
                 "%s%s%s would need %s on rank 0 (process %s, kept until the result is written %s, at work %s); "
                 "compute.memory_budget is %s: raise it%s",
                 gram != NULL  ? "compatibility"
                 : cka != NULL ? "cka"
                               : "nxn",
                 gram != NULL && cka != NULL ? ", cka" : "", (gram != NULL || cka != NULL) && nxn != NULL ? ", nxn" : "",
                 mg_format_bytes((double)m.total, need), mg_format_bytes((double)m.process, process),
                 mg_format_bytes((double)m.held, held), mg_format_bytes((double)m.working, working),
                 mg_format_bytes((double)config->compute.memory_budget, budget), advice(config, gram, cka, nxn));
}
