/* Sets of layers in a parameter: a bit for each number, and one for each third of a model. */

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/method.h"

static const char *const THIRDS[] = {"bottom", "middle", "top"};
enum { THIRD_COUNT = 3, FIRST_THIRD = MG_MOST_LAYERS };
_Static_assert(MG_MOST_LAYERS + 3 <= 53, "a double holds 53 bits");

static uint64_t bits_of(double set) { return (uint64_t)set; }

/* "3" or "0-3"; behind it *end. */
static bool parse_numbers(const char *text, const char **end, uint64_t *bits) {
  unsigned long first, last;
  if (!isdigit((unsigned char)*text)) return false;
  first = last = strtoul(text, (char **)(uintptr_t)end, 10);
  if (**end == '-') {
    if (!isdigit((unsigned char)(*end)[1])) return false;
    last = strtoul(*end + 1, (char **)(uintptr_t)end, 10);
  }
  if (first > last || last >= MG_MOST_LAYERS) return false;
  for (unsigned long k = first; k <= last; k++) *bits |= UINT64_C(1) << k;
  return true;
}

static bool parse_third(const char *text, const char **end, uint64_t *bits) {
  for (int k = 0; k < THIRD_COUNT; k++) {
    const size_t length = strlen(THIRDS[k]);
    if (strncmp(text, THIRDS[k], length) != 0) continue;
    *bits |= UINT64_C(1) << (FIRST_THIRD + k);
    *end = text + length;
    return true;
  }
  return false;
}

bool mg_layers_parse(const char *text, double *set) {
  uint64_t bits = 0;
  if (strcmp(text, "none") == 0) {
    *set = 0;
    return true;
  }
  for (const char *at = text;; at++) {
    while (*at == ' ') at++;
    const char *end = at;
    if (!parse_third(at, &end, &bits) && !parse_numbers(at, &end, &bits)) return false;
    at = end;
    while (*at == ' ') at++;
    if (*at == '\0') break;
    if (*at != ',') return false;
  }
  *set = (double)bits;
  return true;
}

void mg_layers_text(double set, mg_text *text) {
  const uint64_t bits = bits_of(set);
  const char *comma = "";
  if (bits == 0) mg_text_append(text, "none");
  for (int k = 0; k < MG_MOST_LAYERS; k++) {
    int last = k;
    if ((bits >> k & 1) == 0) continue;
    while (last + 1 < MG_MOST_LAYERS && (bits >> (last + 1) & 1) != 0) last++;
    if (last > k)
      mg_text_append(text, "%s%d-%d", comma, k, last);
    else
      mg_text_append(text, "%s%d", comma, k);
    comma = ",";
    k = last;
  }
  for (int k = 0; k < THIRD_COUNT; k++) {
    if ((bits >> (FIRST_THIRD + k) & 1) == 0) continue;
    mg_text_append(text, "%s%s", comma, THIRDS[k]);
    comma = ",";
  }
}

bool mg_layers_have(double set, size_t layer, size_t count) {
  const uint64_t bits = bits_of(set);
  if (layer < MG_MOST_LAYERS && (bits >> layer & 1) != 0) return true;
  if (layer >= count) return false;
  const size_t third = (2 * layer + 1) * THIRD_COUNT / (2 * count); /* that its middle lies in */
  return (bits >> (FIRST_THIRD + third) & 1) != 0;
}

int mg_layers_last(double set) {
  for (int k = MG_MOST_LAYERS - 1; k >= 0; k--)
    if ((bits_of(set) >> k & 1) != 0) return k;
  return -1;
}
