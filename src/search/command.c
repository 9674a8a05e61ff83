/* The command: what is searched, how long that may take, and what is printed of it. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command_impl.h"
#include "mergegrid/log.h"
#include "mergegrid/stop.h"

static const double MEASURED_AFTER = 0.25, PROGRESS_AFTER = 1; /* seconds */

typedef struct watch {
  const mg_search_input *input;
  double total, began;
  bool measured, shown;
  mg_progress progress;
} watch;

const char *mg_search_count_text(double count, char text[32]) {
  if (isinf(count))
    snprintf(text, 32, "more than 1e308");
  else
    snprintf(text, 32, count < 1e15 ? "%.0f" : "%.3g", count);
  return text;
}

static const char *duration_text(double seconds, char text[48]) {
  const struct {
    double seconds;
    const char *name;
  } units[] = {{31557600, "years"}, {86400, "days"}, {3600, "hours"}, {60, "minutes"}, {1, "seconds"}};
  size_t unit = 0;
  while (unit < 4 && seconds < 2 * units[unit].seconds) unit++;
  if (isinf(seconds))
    snprintf(text, 48, "more than 1e300 years");
  else
    snprintf(text, 48, "%.3g %s", seconds / units[unit].seconds, units[unit].name);
  return text;
}

/* ---- how long it may take ---- */

/* By what was searched so far, the whole would take too long. */
static mg_status too_many(const watch *w, double rate, double limit) {
  const mg_search_input *in = w->input;
  char count[32], takes[48], allowed[48];
  size_t fewer = in->n;
  while (fewer > in->space.k && mg_search_count(fewer, in->space.k) > rate * limit) fewer--;
  return mg_fail(MG_ERR_INPUT,
                 "%s subsets of %zu of %zu candidates would take %s, at %.0f million a second; more than %s is refused: "
                 "--candidates %zu takes less, --max-hours H allows more",
                 mg_search_count_text(w->total, count), in->space.k, in->n, duration_text(w->total / rate, takes), rate / 1e6,
                 duration_text(limit, allowed), fewer);
}

static mg_status look(void *context, double searched) {
  watch *w = context;
  const double seconds = mg_now() - w->began;
  const double limit = 3600 * (w->input->command->max_hours > 0 ? w->input->command->max_hours : 1);
  if (mg_stop_requested()) return mg_fail(MG_STOPPED, "stopped by a signal");
  if (!w->measured && seconds >= MEASURED_AFTER) {
    w->measured = true;
    if (w->total / (searched / seconds) > limit) return too_many(w, searched / seconds, limit);
  }
  if (!w->shown && seconds >= PROGRESS_AFTER) {
    w->shown = true;
    mg_progress_begin(&w->progress, "search", w->total, searched, 1e6, "million subsets");
  }
  if (w->shown) mg_progress_update(&w->progress, searched);
  return MG_OK;
}

static void say_rate(watch *w, const mg_search_found *found) {
  const double seconds = mg_now() - w->began;
  char count[32];
  if (w->shown)
    mg_progress_end(&w->progress, found->searched);
  else
    mg_info("searched %s subsets in %.3f s", mg_search_count_text(found->searched, count), seconds);
}

/* ---- what is printed ---- */

static int heavier_first(const void *a, const void *b) {
  const mg_search_member *x = a, *y = b;
  if (x->share != y->share) return x->share > y->share ? -1 : 1;
  return (x->candidate > y->candidate) - (x->candidate < y->candidate);
}

void mg_search_members(const mg_search_input *in, const uint32_t *subset, mg_search_member *members) {
  const size_t k = in->space.k;
  double total = 0;
  for (size_t j = 0; j < k; j++) total += in->weight[subset[j]];
  for (size_t j = 0; j < k; j++)
    members[j] = (mg_search_member){
        .id = in->sources.items[in->source[subset[j]]].id, .share = in->weight[subset[j]] / total, .candidate = subset[j]};
  qsort(members, k, sizeof *members, heavier_first);
}

static mg_status print(const mg_search_input *in, const mg_search_found *found) {
  mg_status status = MG_OK;
  mg_search_member *members = mg_alloc(in->space.k, sizeof *members);
  if (members == NULL) return MG_ERR_NOMEM;
  switch (in->command->format) {
  case MG_SEARCH_TEXT:
    mg_search_print_text(in, found, members);
    break;
  case MG_SEARCH_JSON:
    status = mg_search_print_json(in, found, members);
    break;
  case MG_SEARCH_CSV:
    status = mg_search_print_csv(in, found, members);
    break;
  case MG_SEARCH_YAML:
    status = mg_search_print_yaml(in, found, members);
    break;
  }
  free(members);
  return status;
}

mg_status mg_search_print(const mg_search_command *command) {
  enum { USUAL_OF_ONE = 20, USUAL = 5 };
  mg_status status = MG_OK;
  mg_search_input in;
  mg_search_found found = {0};
  size_t lists = 0;
  char count[32], whole[32];
  mg_stop_install();
  MG_TRY(mg_search_input_open(command, &in), cleanup);
  for (int by = 0; by < MG_BY_COUNT; by++) lists += in.by[by];
  watch w = {.input = &in, .total = mg_search_count(in.n, command->k), .began = mg_now()};
  mg_search_options options = {.top = command->top > 0 ? command->top
                                      : lists > 1      ? USUAL
                                                       : USUAL_OF_ONE,
                               .poll = look,
                               .context = &w};
  memcpy(options.by, in.by, sizeof options.by);
  status = mg_search_subsets(&in.space, &options, &found);
  if (status != MG_OK && status != MG_STOPPED) goto cleanup;
  say_rate(&w, &found);
  MG_TRY(print(&in, &found), cleanup);
  if (found.searched < w.total)
    status = mg_fail(MG_STOPPED, "stopped: %s of %s subsets were searched, and the lists are of those",
                     mg_search_count_text(found.searched, count), mg_search_count_text(w.total, whole));
cleanup:
  mg_search_found_free(&found);
  mg_search_input_close(&in);
  return status;
}
