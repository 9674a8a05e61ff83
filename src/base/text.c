#include "mergegrid/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

static bool reserve(mg_text *text, size_t more) {
  if (text->failed) return false;
  if (more > SIZE_MAX / 2 - text->size - 1) {
    text->failed = true;
    return false;
  }
  const size_t needed = text->size + more + 1;
  if (needed <= text->capacity) return true;
  size_t capacity = text->capacity ? text->capacity : 256;
  while (capacity < needed) capacity *= 2;
  char *data = realloc(text->data, capacity);
  if (data == NULL) {
    text->failed = true;
    return false;
  }
  text->data = data;
  text->capacity = capacity;
  return true;
}

void mg_text_append(mg_text *text, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (length < 0) text->failed = true;
  if (length >= 0 && reserve(text, (size_t)length)) {
    vsnprintf(text->data + text->size, (size_t)length + 1, format, again);
    text->size += (size_t)length;
  }
  va_end(again);
}

void mg_text_append_bytes(mg_text *text, const void *bytes, size_t size) {
  if (!reserve(text, size)) return;
  if (size > 0) memcpy(text->data + text->size, bytes, size);
  text->size += size;
  text->data[text->size] = '\0';
}

void mg_text_append_number(mg_text *text, double number) {
  char digits[40];
  for (int precision = 15; precision <= 17; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, number);
    if (strtod(digits, NULL) == number) break;
  }
  mg_text_append_bytes(text, digits, strlen(digits));
}

void mg_text_free(mg_text *text) {
  free(text->data);
  *text = (mg_text){0};
}

mg_status mg_strings_add(mg_strings *list, const char *item) {
  char *copy = mg_strdup(item);
  /* grown at powers of two: no capacity to keep */
  if (copy != NULL && (list->count & (list->count - 1)) == 0) {
    char **items = reallocarray(list->items, list->count ? 2 * list->count : 1, sizeof *items);
    if (items == NULL) {
      free(copy);
      copy = NULL;
    } else {
      list->items = items;
    }
  }
  if (copy == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
  list->items[list->count++] = copy;
  return MG_OK;
}

void mg_strings_free(mg_strings *list) {
  for (size_t i = 0; i < list->count; i++) free(list->items[i]);
  free(list->items);
  *list = (mg_strings){0};
}

static int compare_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void mg_strings_sort(mg_strings *list) {
  if (list->count > 1) qsort(list->items, list->count, sizeof *list->items, compare_bytes);
}

ptrdiff_t mg_strings_find(const mg_strings *list, const char *item) {
  for (size_t i = 0; i < list->count; i++)
    if (strcmp(list->items[i], item) == 0) return (ptrdiff_t)i;
  return -1;
}

enum { LONGEST_WORD = 64 };

static size_t edit_distance(const char *a, const char *b) {
  size_t row[LONGEST_WORD + 1];
  const size_t rows = strlen(a), columns = strlen(b);
  if (rows > LONGEST_WORD || columns > LONGEST_WORD) return SIZE_MAX;
  for (size_t j = 0; j <= columns; j++) row[j] = j;
  for (size_t i = 1; i <= rows; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= columns; j++) {
      const size_t above = row[j];
      const bool same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
      size_t best = diagonal + !same;
      if (above + 1 < best) best = above + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = above;
      row[j] = best;
    }
  }
  return row[columns];
}

const char *mg_nearest(const char *word, const char *const *candidates, size_t count) {
  const char *best = NULL;
  /* a third of the word may be wrong, but at least two letters */
  size_t limit = strlen(word) / 3;
  if (limit < 2) limit = 2;
  for (size_t i = 0; i < count; i++) {
    const size_t distance = edit_distance(word, candidates[i]);
    if (distance <= limit && distance < strlen(candidates[i])) {
      best = candidates[i];
      if (distance == 0) break;
      limit = distance - 1;
    }
  }
  return best;
}

/* Whatever the locale; and names of tensors are compared by the hundred thousand. */
static bool is_digit(char c) { return (unsigned char)(c - '0') < 10; }

static size_t count_digits(const char *text) {
  size_t n = 0;
  while (is_digit(text[n])) n++;
  return n;
}

int mg_natural_compare(const char *a, const char *b) {
  const char *x = a, *y = b;
  while (*x && *y) {
    if (is_digit(*x) && is_digit(*y)) {
      while (*x == '0') x++;
      while (*y == '0') y++;
      const size_t m = count_digits(x), n = count_digits(y);
      if (m != n) return m < n ? -1 : 1;
      const int order = strncmp(x, y, m);
      if (order != 0) return order;
      x += m;
      y += n;
    } else {
      if (*x != *y) return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
      x++;
      y++;
    }
  }
  if (*x != *y) return *x ? 1 : -1;
  return strcmp(a, b); /* "a01" and "a1" differ all the same */
}

bool mg_parse_bytes(const char *text, uint64_t *bytes) {
  static const struct {
    const char *name;
    double factor;
  } units[] = {{"", 1},         {"B", 1},      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
               {"TiB", 0x1p40}, {"kB", 1e3},   {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
               {"TB", 1e12},    {"K", 0x1p10}, {"M", 0x1p20},   {"G", 0x1p30},   {"T", 0x1p40}};
  if (!isdigit((unsigned char)*text)) return false;
  char *end = NULL;
  errno = 0;
  const double number = strtod(text, &end);
  if (errno != 0 || !(number >= 0)) return false;
  while (*end == ' ') end++;
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcasecmp(end, units[i].name) != 0) continue;
    const double value = number * units[i].factor;
    if (value >= 0x1p63) return false;
    *bytes = (uint64_t)value;
    return true;
  }
  return false;
}

const char *mg_format_bytes(double bytes, char *buffer) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < sizeof units / sizeof *units) {
    bytes /= 1024;
    unit++;
  }
  snprintf(buffer, 32, bytes < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
  return buffer;
}

const char *mg_format_hours(double hours, char *buffer) {
  if (hours >= 100)
    snprintf(buffer, 32, "%.0f h", hours);
  else if (hours * 60 >= 99.5)
    snprintf(buffer, 32, "%.1f h", hours);
  else if (hours * 3600 >= 99.5)
    snprintf(buffer, 32, "%.0f min", hours * 60);
  else
    snprintf(buffer, 32, hours > 0 && hours * 3600 < 1 ? "under 1 s" : "%.0f s", hours * 3600);
  return buffer;
}

/* Length of the well-formed sequence at p (Unicode, table 3-7), 0 if there is none. */
static size_t utf8_sequence(const unsigned char *p, size_t left) {
  const unsigned char lead = p[0];
  if (lead < 0x80) return 1;
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  if (length == 0 || length > left || p[1] < low || p[1] > high) return 0;
  for (size_t i = 2; i < length; i++)
    if ((p[i] & 0xC0) != 0x80) return 0;
  return length;
}

bool mg_valid_utf8(const char *data, size_t size) {
  const unsigned char *p = (const unsigned char *)data;
  for (size_t i = 0; i < size;) {
    const size_t step = utf8_sequence(p + i, size - i);
    if (step == 0) return false;
    i += step;
  }
  return true;
}

void *mg_alloc(size_t count, size_t size) {
  void *memory = reallocarray(NULL, count ? count : 1, size ? size : 1);
  if (memory == NULL) mg_fail(MG_ERR_NOMEM, "out of memory: %zu × %zu bytes were wanted", count, size);
  return memory;
}

void *mg_alloc_zero(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size ? size : 1);
  if (memory == NULL) mg_fail(MG_ERR_NOMEM, "out of memory: %zu × %zu bytes were wanted", count, size);
  return memory;
}

/* From here on pages of 2 MiB are asked for: fewer faults while it is first written, fewer misses of the TLB afterwards. */
enum { HUGE_PAGE = 2 << 20, WORTH_HUGE = 16 * HUGE_PAGE };

void *mg_alloc_aligned(size_t bytes) {
  const size_t alignment = bytes >= WORTH_HUGE ? HUGE_PAGE : 64;
  void *memory = bytes > SIZE_MAX - 63 ? NULL : aligned_alloc(alignment, bytes ? (bytes + 63) / 64 * 64 : 64);
  if (memory == NULL) mg_fail(MG_ERR_NOMEM, "out of memory: %zu bytes were wanted", bytes);
#ifdef MADV_HUGEPAGE
  if (memory != NULL && alignment == HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE); /* a hint: it may fail */
#endif
  return memory;
}

char *mg_strdup(const char *text) {
  char *copy = strdup(text);
  if (copy == NULL) mg_fail(MG_ERR_NOMEM, "out of memory");
  return copy;
}
