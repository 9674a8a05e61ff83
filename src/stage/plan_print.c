/* What `plan` says. */

#include <stdio.h>
#include <stdlib.h>

#include "plan_impl.h"

/* Billions of operations are what a test takes, and trillions of billions what a night does. */
static const char *format_flops(double flops, char *buffer) {
  static const char *const units[] = {"GFLOP", "TFLOP", "PFLOP", "EFLOP"};
  size_t unit = 0;
  for (flops /= 1e9; flops >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++) flops /= 1000;
  snprintf(buffer, 32, "%.3g %s", flops, units[unit]);
  return buffer;
}

/* ---- what there is ---- */

static void print_family(const mg_config *config, const mg_prediction *p, const mg_plan_hours *h) {
  char a[32], b[32], t[32];
  printf("family       %zu sources, %zu tensors, %.4g M parameters; base %s\n", p->roster.list.count, p->table->count,
         (double)p->table->elements / 1e6, config->family.base);
  for (size_t k = 0; k < p->roster.list.skipped.count; k++)
    printf("             skipped: %s (no checkpoint)\n", p->roster.list.skipped.items[k]);
  if (config->shards.dir == NULL)
    printf("shards       none: tiles come straight from the checkpoints\n");
  else
    printf("shards       %zu of %zu to pack in %s (%s): reads %s, writes %s, %s\n", p->pack.missing, p->roster.list.count + 1,
           config->shards.dir, mg_dtype_name(p->dtype), mg_format_bytes(p->pack.bytes_read, a),
           mg_format_bytes(p->pack.bytes_written, b), mg_format_hours(h->pack, t));
}

/* Where this command runs; a job may be bound otherwise, and each of its nodes has its own line in the run. */
static void print_node(const mg_prediction *p) {
  mg_place here = {0};
  mg_text processors = {0};
  mg_place_here(&here);
  mg_processors_text(&here.processors, &processors);
  printf("node         %s, as this command is bound: processors %s of %d for %d rank%s, %d thread%s%s\n", here.host,
         processors.data != NULL ? processors.data : "", here.online, p->ranks, p->ranks > 1 ? "s" : "", p->threads,
         p->threads > 1 ? "s" : "", p->ranks > 1 ? " each" : "");
  mg_text_free(&processors);
}

/* The variables of shards.stage_to are those of the nodes; here they may be others, or none. */
static void print_staging(const mg_config *config, const mg_prediction *p) {
  char take[32], have[32], *dir = NULL;
  if (config->shards.stage_to == NULL) return;
  printf("             copied to %s: %s a node", config->shards.stage_to, mg_format_bytes(mg_staged_bytes(p), take));
  if (mg_config_stage_dir(config, &dir) != MG_OK)
    printf(" (%s)\n", mg_error_message());
  else
    printf(" (here %s, %s free)\n", dir, mg_format_bytes(mg_stage_room(dir), have));
  free(dir);
}

static void print_stages(const mg_prediction *p, const mg_plan_hours *h) {
  char a[32], b[32], g[32], t[32];
  if (p->with_gram)
    printf("compatibility task_vector_cosine: %zu pair block%s, %zu Grams, leases of %lld leaves\n"
           "             reads %s, computes %s, %s\n",
           p->gram.layout->block_count, p->gram.layout->block_count > 1 ? "s" : "", p->gram.layout->group_count,
           (long long)p->gram.unit_leaves, mg_format_bytes(p->gram.bytes_read, a), format_flops(p->gram.flops, g),
           mg_format_hours(h->gram, t));
  if (p->with_cka)
    printf("             cka: %zu probe texts (%zu different) through %zu models, %s, %s; %s a rank, %s more on "
           "rank 0\n",
           p->cka.probes.count, p->cka.probes.sequences.count, p->roster.list.count, format_flops(p->cka.flops, g),
           mg_format_hours(h->cka, t), mg_format_bytes((double)p->cka.encoder_bytes, a),
           mg_format_bytes((double)p->cka.features_bytes, b));
  if (p->with_nxn)
    printf("nxn          %zu texts of %zu targets (%zu different) through %zu models, %s, %s; %s a rank, %s more on "
           "rank 0\n",
           p->nxn.texts.tokenized.count, p->nxn.texts.targets.count, p->nxn.texts.tokenized.sequences.count,
           p->roster.list.count, format_flops(p->nxn.flops, g), mg_format_hours(h->nxn, t),
           mg_format_bytes((double)(p->nxn.encoder_bytes + p->nxn.text_bytes + p->nxn.message_bytes), a),
           mg_format_bytes((double)(p->nxn.master_bytes + p->nxn.answer_bytes), b));
}

/* Cells a method, in the order of the grid. */
static void print_methods(const mg_grid *grid) {
  int column = 13;
  for (size_t k = 0; k < grid->count; k++) {
    const mg_method *method = grid->cells[k].terms.method;
    size_t count = 0;
    bool seen = false;
    for (size_t i = 0; i < k && !seen; i++) seen = grid->cells[i].terms.method == method;
    for (size_t i = k; !seen && i < grid->count; i++) count += grid->cells[i].terms.method == method;
    if (seen) continue;
    if (column == 13) printf("             ");
    column += printf("%s%s %zu", column > 13 ? ", " : "", method->name, count);
    if (column > 100) {
      puts(",");
      column = 13;
    }
  }
  if (column > 13) puts("");
}

static void print_grid(const mg_prediction *p, const mg_plan_hours *h) {
  char a[32], b[32], c[32], g[32], t[32];
  if (!p->with_grid) return;
  printf("grid         %zu cells, %zu of them merges (equal recipes are computed once), up to %zu in one pass\n", p->grid.cells,
         p->grid.merges, p->grid.models);
  print_methods(&p->cells);
  printf("             merging moves %s in memory, evaluating computes %s, %s; %s a model, %s for sources a node",
         mg_format_bytes(p->grid.merge_bytes, a), format_flops(p->grid.flops, g), mg_format_hours(h->grid, t),
         mg_format_bytes((double)p->grid.model_bytes, b), mg_format_bytes((double)p->grid.store_bytes, c));
  const size_t fit = p->grid.store_bytes > 0 ? (size_t)(p->grid.store_bytes / p->grid.source_bytes) - 1 : 0;
  printf(" (%zu of %zu)\n", fit, p->roster.list.count);
  if (p->failing > 0) printf("             %zu cell%s bound to fail:\n", p->failing, p->failing > 1 ? "s are" : " is");
  for (size_t k = 0; k < p->failing_why.count; k++) printf("               %s\n", p->failing_why.items[k]);
  if (p->failing_why.count == MG_MOST_REASONS) printf("               …\n");
}

static void print_microscope(const mg_prediction *p, const mg_plan_hours *h) {
  char a[32], b[32], c[32], g[32], t[32];
  const mg_microscope_plan *m = &p->microscope;
  if (!p->with_microscope) return;
  printf("microscope   %zu models and the reference, %zu probe texts (%zu different)%s%s\n", m->models - 1, m->probes.count,
         m->probes.sequences.count, m->signals ? "" : "; no forward passes: ", m->signals ? "" : m->no_signals);
  printf("             comparing moves %s in memory, forward passes compute %s, %s; %s a rank, %s more on rank 0\n",
         mg_format_bytes(m->merge_bytes, a), format_flops(m->flops, g), mg_format_hours(h->microscope, t),
         mg_format_bytes((double)(m->work_bytes + m->encoder_bytes), b), mg_format_bytes((double)m->master_bytes, c));
}

static void print_device(const mg_prediction *p) {
  char name[256], least[32], wish[32];
  const mg_plans plans = mg_prediction_plans(p);
  const mg_device_need need = mg_device_need_of(&plans);
  if (p->device == NULL) return;
  printf("device       %s, one a rank: at least %s of its memory, up to %s for sources and matrices\n",
         p->device->ops->describe(p->device, name, sizeof name), mg_format_bytes((double)need.least, least),
         mg_format_bytes((double)need.wish, wish));
}

/* ---- a part ---- */

static void print_part_stages(const mg_prediction *p, const mg_plan_work *w, const mg_plan_hours *h) {
  char a[32], g[32], t[32];
  if (p->with_gram)
    printf("             task_vector_cosine: %lld of %lld leaves, reads %s, computes %s, %s\n", (long long)w->leaves,
           (long long)mg_gram_leaves(p->gram.layout), mg_format_bytes(w->gram_bytes, a), format_flops(w->gram_flops, g),
           mg_format_hours(h->gram, t));
  if (p->with_cka)
    printf("             cka: %lld of %zu models, %s, %s\n", (long long)w->models, p->roster.list.count,
           format_flops(w->cka_flops, g), mg_format_hours(h->cka, t));
  if (p->with_nxn)
    printf("             nxn: %lld texts through a model of %.0f, %s, %s\n", (long long)w->texts,
           (double)p->roster.list.count * (double)p->nxn.texts.tokenized.sequences.count, format_flops(w->nxn_flops, g),
           mg_format_hours(h->nxn, t));
  if (p->with_grid)
    printf("             grid: %lld of %zu merges, moves %s in memory, computes %s, %s\n", (long long)w->merges, p->grid.merges,
           mg_format_bytes(w->grid_bytes, a), format_flops(w->grid_flops, g), mg_format_hours(h->grid, t));
  if (p->with_microscope)
    printf("             microscope: about 1/%d of it, %s\n", p->parts, mg_format_hours(h->microscope, t));
}

/* Of a run that is divided: this part, and what the job array waits for. */
static void print_part(const mg_prediction *p, const mg_plan_hours *whole) {
  int longest = 1, shortest = 1;
  char t[32], u[32];
  if (p->parts == 0) return;
  for (int k = 1; k <= p->parts; k++) {
    const double hours = mg_plan_hours_of(p, &p->part_work[k - 1]).all;
    if (hours > mg_plan_hours_of(p, &p->part_work[longest - 1]).all) longest = k;
    if (hours < mg_plan_hours_of(p, &p->part_work[shortest - 1]).all) shortest = k;
  }
  const mg_plan_hours own = mg_plan_hours_of(p, &p->part_work[p->part - 1]);
  printf("part         %d of %d: %s, and the memory of the whole\n", p->part, p->parts, mg_format_hours(own.all, t));
  print_part_stages(p, &p->part_work[p->part - 1], &own);
  printf("             the longest is part %d with %s, the shortest part %d with %s", longest,
         mg_format_hours(mg_plan_hours_of(p, &p->part_work[longest - 1]).all, t), shortest,
         mg_format_hours(mg_plan_hours_of(p, &p->part_work[shortest - 1]).all, u));
  if (whole->pack > 0) printf("; before, the part that begins first packs the shards: %s", mg_format_hours(whole->pack, t));
  printf("\n");
}

void mg_plan_print(const mg_config *config, const mg_prediction *p) {
  char a[32], b[32], c[32], d[32], e[32], f[32], t[32];
  const mg_plan_work work = mg_plan_work_all(p);
  const mg_plan_hours h = mg_plan_hours_of(p, &work);
  const mg_memory m = mg_prediction_memory(p);
  print_family(config, p, &h);
  print_staging(config, p);
  print_stages(p, &h);
  print_grid(p, &h);
  print_microscope(p, &h);
  print_part(p, &h);
  printf("together     %s with %d rank%s × %d thread%s on %d processor%s\n", mg_format_hours(h.all, t), p->ranks,
         p->ranks > 1 ? "s" : "", p->threads, p->threads > 1 ? "s" : "", p->processors, p->processors > 1 ? "s" : "");
  print_node(p);
  printf("rates        ");
  if (p->with_gram) printf("kernel %s %.1f GFLOP/s a core; ", p->ops->kernel, p->kernel_rate / 1e9);
  if (p->forward_rate > 0)
    printf("forward passes %.1f GFLOP/s a %s; ", p->forward_rate / 1e9, p->device != NULL ? "device" : "core");
  printf("reading %s/s (as cached now)\n", mg_format_bytes(p->read_rate, a));
  printf("memory       at most %s a rank (process %s, kept on rank 0 %s, at work %s; of these %s once a node); budget %s\n",
         mg_format_bytes((double)m.total, a), mg_format_bytes((double)m.process, b), mg_format_bytes((double)m.held, c),
         mg_format_bytes((double)m.working, d), mg_format_bytes((double)m.shared, f),
         mg_format_bytes((double)config->compute.memory_budget, e));
  print_device(p);
  printf("result       %s\n", config->result);
}
