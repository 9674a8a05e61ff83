/* What rank 0, which holds most, will hold: one computation for `plan` and for the run that has to stay within it. */

#include "stage_impl.h"

/* A process with MPI, HDF5 and OpenBLAS in it before any work of ours, and MG_MOST_TABLES. */
static const uint64_t PROCESS_BYTES = UINT64_C(64) << 20;

static void add(mg_memory *m, uint64_t held, uint64_t working) {
  m->held += held;
  if (working > m->working) m->working = working;
}

mg_memory mg_memory_predict(const mg_plans *p) {
  mg_memory m = {.process = PROCESS_BYTES};
  if (p->gram != NULL) {
    m.process += p->gram->places_bytes;
    add(&m, p->gram->master_bytes, p->gram->engine_bytes);
  }
  if (p->cka != NULL) {
    add(&m, p->cka->features_bytes, p->cka->encoder_bytes);
    add(&m, 0, p->cka->grams_bytes);
  }
  if (p->nxn != NULL) {
    add(&m, p->nxn->text_bytes + p->nxn->message_bytes + p->nxn->master_bytes, p->nxn->encoder_bytes);
    add(&m, 0, p->nxn->answer_bytes);
    add(&m, 0, p->nxn->reading_bytes);
    m.shared += p->nxn->text_bytes;
  }
  if (p->grid != NULL) {
    const uint64_t models = p->grid->models * p->grid->model_bytes;
    add(&m, p->grid->master_bytes, models + p->grid->store_bytes + p->grid->activation_bytes + p->grid->pass_bytes);
    add(&m, 0, p->grid->table_bytes);
    m.shared += p->grid->store_bytes + p->grid->gram_bytes;
  }
  if (p->microscope != NULL) {
    add(&m, p->microscope->master_bytes, p->microscope->work_bytes + p->microscope->encoder_bytes);
  }
  m.total = m.process + m.held + m.working;
  return m;
}

/* What helps most: the largest part names it. */
static const char *advice(const mg_config *config, const mg_plans *p) {
  const uint64_t of_gram = p->gram != NULL ? p->gram->master_bytes + p->gram->engine_bytes : 0;
  const uint64_t of_cka = p->cka != NULL ? p->cka->features_bytes + p->cka->encoder_bytes : 0;
  const uint64_t of_nxn = p->nxn != NULL ? p->nxn->text_bytes + p->nxn->master_bytes + p->nxn->encoder_bytes : 0;
  const uint64_t of_grid = p->grid != NULL ? p->grid->master_bytes + p->grid->model_bytes + p->grid->activation_bytes : 0;
  const uint64_t of_microscope =
      p->microscope != NULL ? p->microscope->master_bytes + p->microscope->work_bytes + p->microscope->encoder_bytes : 0;
  if (of_microscope > of_gram && of_microscope > of_cka && of_microscope > of_nxn && of_microscope > of_grid)
    return ", or look at fewer setups or probes at a time (microscope), or use fewer threads";
  if (of_grid > of_gram && of_grid > of_cka && of_grid > of_nxn)
    return ", or take fewer cells at a time (--where), or fewer threads";
  if (of_gram >= of_cka && of_gram >= of_nxn)
    return config->compatibility.gram != MG_GRAM_TOTAL ? ", or set compatibility.gram to layer or total" : "";
  if (of_cka >= of_nxn) return ", or compare fewer layers or samples (compatibility.cka), or use fewer threads";
  return config->nxn.logits ? ", or take fewer nxn.targets or threads, or nxn.logits: false"
                            : ", or take fewer nxn.targets or threads";
}

static void name_stages(const mg_plans *p, mg_text *names) {
  const struct {
    const char *name;
    bool there;
  } all[] = {{"compatibility", p->gram != NULL},
             {"cka", p->cka != NULL},
             {"nxn", p->nxn != NULL},
             {"grid", p->grid != NULL},
             {"microscope", p->microscope != NULL}};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++)
    if (all[k].there) mg_text_append(names, "%s%s", names->size > 0 ? ", " : "", all[k].name);
}

mg_status mg_memory_hold(const mg_config *config, const mg_plans *plans) {
  char need[32], budget[32], held[32], working[32], process[32];
  mg_text names = {0};
  const mg_memory m = mg_memory_predict(plans);
  if (m.total <= config->compute.memory_budget) return MG_OK;
  name_stages(plans, &names);
  mg_fail(MG_ERR_NOMEM,
          "%s would need %s on rank 0 (process %s, kept until the result is written %s, at work %s); compute.memory_budget is "
          "%s: raise it%s",
          names.data != NULL ? names.data : "", mg_format_bytes((double)m.total, need),
          mg_format_bytes((double)m.process, process), mg_format_bytes((double)m.held, held),
          mg_format_bytes((double)m.working, working), mg_format_bytes((double)config->compute.memory_budget, budget),
          advice(config, plans));
  mg_text_free(&names);
  return MG_ERR_NOMEM;
}
