/*
 * Normalisation as Hugging Face's `Precompiled` does it, which is not quite SentencePiece's: a text is cut into grapheme
 * clusters; one of fewer than six bytes is replaced as a whole by what the *shortest* prefix of it in the map stands for (so a
 * second accent can get lost); the characters of others one by one. Models were trained with that.
 */

#include <string.h>
#include <utf8proc.h>

#include "tokenizer_impl.h"

enum { WHOLE_CLUSTER = 6 };

static uint32_t unit_at(const mg_charsmap *map, size_t k) {
  uint32_t unit;
  memcpy(&unit, map->units + 4 * k, sizeof unit);
  return unit;
}

static size_t children(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 0x200u) >> 6); }

/* The replacement for the shortest prefix of bytes that the map has, NULL if it has none. */
static const char *replacement(const mg_charsmap *map, const unsigned char *bytes, size_t size) {
  if (map->unit_count == 0) return NULL;
  size_t node = children(unit_at(map, 0));
  for (size_t k = 0; k < size && bytes[k] != 0; k++) {
    node ^= bytes[k];
    if (node >= map->unit_count) return NULL;
    const uint32_t unit = unit_at(map, node);
    if ((unit & 0x800000FFu) != bytes[k]) return NULL;
    node ^= children(unit);
    if (node >= map->unit_count) return NULL;
    if (unit & 0x100u) return map->strings + (unit_at(map, node) & 0x7FFFFFFFu);
  }
  return NULL;
}

static void put_character(const mg_charsmap *map, const unsigned char *at, size_t size, mg_text *out) {
  const char *instead = replacement(map, at, size);
  if (instead != NULL)
    mg_text_append_bytes(out, instead, strlen(instead));
  else
    mg_text_append_bytes(out, at, size);
}

static void put_cluster(const mg_charsmap *map, const unsigned char *at, size_t size, mg_text *out) {
  const char *instead = size < WHOLE_CLUSTER ? replacement(map, at, size) : NULL;
  if (instead != NULL) {
    mg_text_append_bytes(out, instead, strlen(instead));
    return;
  }
  while (size > 0) {
    utf8proc_int32_t point;
    const utf8proc_ssize_t length = utf8proc_iterate(at, (utf8proc_ssize_t)size, &point);
    const size_t n = length > 0 ? (size_t)length : 1;
    put_character(map, at, n, out);
    at += n;
    size -= n;
  }
}

/* Unicode's White_Space, where words end. */
static bool is_space(utf8proc_int32_t c) {
  return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static void plain_spaces(mg_text *text) {
  size_t to = 0;
  for (size_t at = 0; at < text->size;) {
    utf8proc_int32_t point;
    const utf8proc_ssize_t length =
        utf8proc_iterate((const unsigned char *)text->data + at, (utf8proc_ssize_t)(text->size - at), &point);
    const size_t n = length > 0 ? (size_t)length : 1;
    if (length > 0 && is_space(point))
      text->data[to++] = ' ';
    else
      for (size_t k = 0; k < n; k++) text->data[to++] = text->data[at + k];
    at += n;
  }
  text->size = to;
}

static void strip(bool left, bool right, mg_text *text) {
  size_t begin = 0, end = 0, at = 0;
  bool seen = false;
  while (at < text->size) {
    utf8proc_int32_t point;
    const utf8proc_ssize_t length =
        utf8proc_iterate((const unsigned char *)text->data + at, (utf8proc_ssize_t)(text->size - at), &point);
    at += length > 0 ? (size_t)length : 1;
    if (length > 0 && is_space(point)) {
      if (!seen) begin = at;
    } else {
      seen = true;
      end = at;
    }
  }
  if (!left || text->size == 0) begin = 0;
  if (!right) end = text->size;
  if (end < begin) end = begin;
  if (text->size > 0) memmove(text->data, text->data + begin, end - begin);
  text->size = end - begin;
}

/* Runs of two or more plain spaces become `runs`; every one that is left becomes ▁ where words begin with it. */
static void mark_spaces(const char *runs, bool mark, mg_text *text) {
  static const char space[] = "\xE2\x96\x81";
  mg_text out = {0};
  for (size_t at = 0; at < text->size;) {
    size_t end = at;
    while (end < text->size && text->data[end] == ' ') end++;
    if (end - at >= 2 && runs != NULL) {
      mg_text_append(&out, "%s", mark && runs[0] == ' ' ? space : runs);
      at = end;
    } else if (end > at && mark) {
      mg_text_append(&out, "%s", space);
      at++;
    } else {
      mg_text_append_bytes(&out, text->data + at++, 1);
    }
  }
  text->failed = text->failed || out.failed;
  mg_text_free(text);
  *text = out;
}

static void apply_map(const mg_charsmap *map, const char *text, size_t size, mg_text *out) {
  const unsigned char *bytes = (const unsigned char *)text;
  utf8proc_int32_t before = 0, state = 0;
  size_t cluster = 0;
  for (size_t at = 0; at < size;) {
    utf8proc_int32_t point;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + at, (utf8proc_ssize_t)(size - at), &point);
    if (at > 0 && utf8proc_grapheme_break_stateful(before, point, &state)) {
      put_cluster(map, bytes + cluster, at - cluster, out);
      cluster = at;
    }
    before = point;
    at += length > 0 ? (size_t)length : 1;
  }
  if (size > 0) put_cluster(map, bytes + cluster, size - cluster, out);
}

void mg_tokenizer_normalize(const mg_tokenizer *t, const char *text, size_t size, mg_text *out) {
  apply_map(&t->map, text, size, out);
  if (!out->failed && (t->strip_left || t->strip_right)) strip(t->strip_left, t->strip_right, out);
  if (!out->failed && (t->runs != NULL || !t->any_space_ends)) mark_spaces(t->runs, !t->any_space_ends, out);
  if (!out->failed && out->size > 0 && t->any_space_ends) plain_spaces(out);
}
