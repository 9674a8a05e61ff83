/* What each rank of a node computes with, in words. */

#include "mergegrid/places.h"

#include <string.h>
#include <unistd.h>

void mg_place_here(mg_place *place) {
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  gethostname(place->host, sizeof place->host - 1);
  CPU_ZERO(&place->processors);
  if (sched_getaffinity(0, sizeof place->processors, &place->processors) != 0) CPU_SET(0, &place->processors);
  place->online = online > 0 ? (int)online : CPU_COUNT(&place->processors);
}

/* ---- ranges ---- */

/* Numbers that come in rising order, put into ranges. */
typedef struct ranges {
  mg_text *text;
  int first, last;
  bool any;
} ranges;

static void end_range(ranges *r, bool begun_before) {
  mg_text_append(r->text, "%s%d", begun_before ? "," : "", r->first);
  if (r->last > r->first) mg_text_append(r->text, "-%d", r->last);
}

static void add_number(ranges *r, int number, size_t *written) {
  if (r->any && number != r->last + 1) {
    end_range(r, *written > 0);
    *written += 1;
    r->any = false;
  }
  if (!r->any) r->first = number;
  r->last = number;
  r->any = true;
}

void mg_processors_text(const cpu_set_t *processors, mg_text *text) {
  ranges r = {.text = text};
  size_t written = 0;
  for (size_t k = 0; k < CPU_SETSIZE; k++)
    if (CPU_ISSET(k, processors)) add_number(&r, (int)k, &written);
  if (r.any) end_range(&r, written > 0);
}

/* Of the ranks whose processors all lie within a set; NULL: of all. */
static size_t append_ranks(const mg_place *places, size_t count, const cpu_set_t *within, mg_text *text, int *threads) {
  size_t written = 0, found = 0;
  mg_text numbers = {0};
  ranges r = {.text = &numbers};
  *threads = 0;
  for (size_t k = 0; k < count; k++) {
    cpu_set_t both;
    if (within != NULL) CPU_AND(&both, within, &places[k].processors);
    if (within != NULL && !CPU_EQUAL(&both, &places[k].processors)) continue;
    add_number(&r, places[k].rank, &written);
    *threads += places[k].threads;
    found++;
  }
  if (r.any) end_range(&r, written > 0);
  mg_text_append(text, "rank%s %s", found == 1 ? "" : "s", numbers.data != NULL ? numbers.data : "");
  mg_text_free(&numbers);
  return found;
}

/* ---- lines ---- */

static void append_threads(const mg_place *places, size_t count, mg_text *text) {
  bool same = true;
  for (size_t k = 1; k < count; k++) same = same && places[k].threads == places[0].threads;
  for (size_t k = 0; k < (same ? 1 : count); k++) mg_text_append(text, "%s%d", k > 0 ? ", " : "", places[k].threads);
  mg_text_append(text, " thread%s%s", same && places[0].threads == 1 ? "" : "s", same && count > 1 ? " each" : "");
}

static void append_processors(const mg_place *places, size_t count, mg_text *text) {
  bool same = true;
  for (size_t k = 1; k < count; k++) same = same && CPU_EQUAL(&places[k].processors, &places[0].processors);
  mg_text_append(text, "%s on processor%s ", same && count > 1 ? ", all" : "",
                 count == 1 && CPU_COUNT(&places[0].processors) == 1 ? "" : "s");
  for (size_t k = 0; k < (same ? 1 : count); k++) {
    mg_text_append(text, "%s", k > 0 ? "; " : "");
    mg_processors_text(&places[k].processors, text);
  }
}

static void append_devices(const mg_place *places, size_t count, mg_text *text) {
  bool same = true, any = places[0].device[0] != '\0';
  for (size_t k = 1; k < count; k++) {
    same = same && strcmp(places[k].device, places[0].device) == 0;
    any = any || places[k].device[0] != '\0';
  }
  if (!any) return;
  mg_text_append(text, ", %s", same && count > 1 ? "each with " : "with ");
  for (size_t k = 0; k < (same ? 1 : count); k++)
    mg_text_append(text, "%s%s", k > 0 ? "; " : "", places[k].device[0] != '\0' ? places[k].device : "no device");
}

void mg_places_line(const mg_place *places, size_t count, mg_text *text) {
  int threads;
  mg_text_append(text, "node %s: ", places[0].host);
  append_ranks(places, count, NULL, text, &threads);
  mg_text_append(text, ", ");
  append_threads(places, count, text);
  append_processors(places, count, text);
  append_devices(places, count, text);
}

bool mg_places_crowded(const mg_place *places, size_t count, mg_text *text) {
  for (size_t k = 0; k < count; k++) {
    const cpu_set_t *set = &places[k].processors;
    const int processors = CPU_COUNT(set);
    mg_text ranks = {0};
    int threads;
    const bool bound = processors < places[k].online;
    const size_t found = append_ranks(places, count, set, &ranks, &threads);
    const bool crowded = bound && threads > processors;
    if (crowded) {
      mg_text_append(text, "node %s: %s %s %d threads on processor%s ", places[k].host,
                     ranks.data != NULL ? ranks.data : "ranks", found == 1 ? "has" : "have", threads,
                     processors == 1 ? "" : "s");
      mg_processors_text(set, text);
    }
    mg_text_free(&ranks);
    if (crowded) return true;
  }
  return false;
}
