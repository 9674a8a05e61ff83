/* From a text to the one YAML document it may hold. */

#include <string.h>

#include "config_impl.h"

/* Nothing here nests deeper than a source's entry; a bound keeps what only pretends to be a configuration cheap to refuse. */
enum { DEEPEST_NESTING = 16 };

/* The reader knows bytes only: line and column are counted here. */
static mg_status reader_error(const mg_yaml_origin *origin, const yaml_parser_t *parser, const char *text, size_t size) {
  const size_t offset = parser->problem_offset < size ? parser->problem_offset : size;
  size_t line = 1, column = 1;
  const bool encoding = parser->problem != NULL && strstr(parser->problem, "control") == NULL;
  const char *what = encoding ? "is not UTF-8" : "a control character, which YAML does not allow";
  for (size_t k = 0; k < offset; k++) {
    if (text[k] == '\n') {
      line++;
      column = 1;
    } else if (((unsigned char)text[k] & 0xC0) != 0x80) {
      column++;
    }
  }
  if (!origin->positions) return mg_fail(MG_ERR_CONFIG, "%s: %s", origin->label, what);
  return mg_fail(MG_ERR_CONFIG, "%s:%zu:%zu: %s", origin->label, line, column, what);
}

static mg_status parser_error(const mg_yaml_origin *origin, const yaml_parser_t *parser, const char *text, size_t size) {
  const yaml_mark_t *at = &parser->problem_mark;
  const char *problem = parser->problem ? parser->problem : "the text can't be read";
  if (parser->error == YAML_MEMORY_ERROR) return mg_fail(MG_ERR_NOMEM, "out of memory");
  if (parser->error == YAML_READER_ERROR) return reader_error(origin, parser, text, size);
  if (!origin->positions) return mg_fail(MG_ERR_CONFIG, "%s: is no valid YAML: %s", origin->label, problem);
  /* what is not closed is noticed at the end: the line where it began helps more */
  if (parser->context != NULL && parser->context_mark.line != at->line)
    return mg_fail(MG_ERR_CONFIG, "%s:%zu:%zu: is no valid YAML: %s (%s, from line %zu)", origin->label, at->line + 1,
                   at->column + 1, problem, parser->context, parser->context_mark.line + 1);
  return mg_fail(MG_ERR_CONFIG, "%s:%zu:%zu: is no valid YAML: %s", origin->label, at->line + 1, at->column + 1, problem);
}

static mg_status event_error(const mg_yaml_origin *origin, const yaml_event_t *event, const char *message) {
  if (!origin->positions) return mg_fail(MG_ERR_CONFIG, "%s: %s", origin->label, message);
  return mg_fail(MG_ERR_CONFIG, "%s:%zu:%zu: %s", origin->label, event->start_mark.line + 1, event->start_mark.column + 1,
                 message);
}

static mg_status check_node(const mg_yaml_origin *origin, const yaml_event_t *event, const yaml_char_t *anchor,
                            const yaml_char_t *tag) {
  if (anchor != NULL) return event_error(origin, event, "YAML anchors (&name) are not used here; write the value out");
  if (tag != NULL) return event_error(origin, event, "YAML tags (!name) are not used here; write the plain value");
  return MG_OK;
}

typedef struct progress {
  size_t documents, depth;
} progress;

static mg_status check_event(const mg_yaml_origin *origin, const yaml_event_t *event, progress *seen) {
  mg_status status = MG_OK;
  switch (event->type) {
  case YAML_DOCUMENT_START_EVENT:
    if (seen->documents++ > 0) status = event_error(origin, event, "a second YAML document begins; one was expected");
    break;
  case YAML_ALIAS_EVENT:
    status = event_error(origin, event, "YAML aliases (*name) are not used here; write the value out");
    break;
  case YAML_SCALAR_EVENT:
    status = check_node(origin, event, event->data.scalar.anchor, event->data.scalar.tag);
    break;
  case YAML_SEQUENCE_START_EVENT:
    status = check_node(origin, event, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    seen->depth++;
    break;
  case YAML_MAPPING_START_EVENT:
    status = check_node(origin, event, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    seen->depth++;
    break;
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT:
    seen->depth--;
    break;
  default:
    break;
  }
  if (status == MG_OK && seen->depth > DEEPEST_NESTING)
    status = event_error(origin, event, "lists and maps are nested deeper than any key has them");
  return status;
}

/* Is the byte at this offset the first behind one of YAML's line breaks? */
static bool begins_line(const char *text, size_t offset) {
  static const char *const breaks[] = {"\n", "\r", "\xC2\x85", "\xE2\x80\xA8", "\xE2\x80\xA9"};
  for (size_t k = 0; k < sizeof breaks / sizeof *breaks; k++) {
    const size_t length = strlen(breaks[k]);
    if (offset >= length && memcmp(text + offset - length, breaks[k], length) == 0) return true;
  }
  return offset == 0;
}

/* Directives say nothing that is of use here, and libyaml compares each with all others. */
static mg_status check_directives(const mg_yaml_origin *origin, const char *text, size_t size) {
  size_t line = 1;
  for (size_t k = 0; k < size; k++) {
    line += text[k] == '\n';
    if (text[k] != '%' || !begins_line(text, k)) continue;
    if (!origin->positions) return mg_fail(MG_ERR_CONFIG, "%s: YAML directives (%%NAME) are not used here", origin->label);
    return mg_fail(MG_ERR_CONFIG, "%s:%zu:1: YAML directives (%%NAME) are not used here", origin->label, line);
  }
  return MG_OK;
}

/*
 * Looks through the events before anything is built: libyaml compares every anchor with all others and follows nesting of
 * any depth, so what is not wanted is refused while reading is still linear.
 */
static mg_status check_events(const mg_yaml_origin *origin, const char *text, size_t size) {
  mg_status status = MG_OK;
  yaml_parser_t parser;
  progress seen = {0};
  bool more = true;
  if (!yaml_parser_initialize(&parser)) return mg_fail(MG_ERR_NOMEM, "out of memory");
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  while (status == MG_OK && more) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      status = parser_error(origin, &parser, text, size);
      break;
    }
    more = event.type != YAML_STREAM_END_EVENT;
    status = check_event(origin, &event, &seen);
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  return status;
}

mg_status mg_yaml_read(const mg_yaml_origin *origin, const char *text, size_t size, mg_yaml_use_fn use, void *context) {
  static const char byte_order_mark[] = "\xEF\xBB\xBF";
  yaml_parser_t parser;
  yaml_document_t document;
  if (size >= 3 && memcmp(text, byte_order_mark, 3) == 0) {
    text += 3;
    size -= 3;
  }
  mg_status status = check_directives(origin, text, size);
  if (status == MG_OK) status = check_events(origin, text, size);
  if (status != MG_OK) return status;
  if (!yaml_parser_initialize(&parser)) return mg_fail(MG_ERR_NOMEM, "out of memory");
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  if (yaml_parser_load(&parser, &document)) {
    status = use(origin, &document, yaml_document_get_root_node(&document), context);
    yaml_document_delete(&document);
  } else {
    status = parser_error(origin, &parser, text, size);
  }
  yaml_parser_delete(&parser);
  return status;
}
