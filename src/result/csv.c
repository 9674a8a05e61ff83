/* CSV as pandas' to_csv writes it: numbers, fields, and a whole matrix of float64. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_impl.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"

/*
 * The fewest digits that read back to value, as "d.ddde±xx". The nearest decimal of a length is not always the one: below a
 * power of two doubles lie closer than above it, so the next decimal away from zero may be the only one of that length.
 */
static void shortest_digits(double value, char digits[40]) {
  for (int precision = 0; precision <= 17; precision++) {
    snprintf(digits, 40, "%.*e", precision, value);
    if (strtod(digits, NULL) == value) return;
    char *last = strchr(digits, 'e') - 1;
    if (*last == '9') continue; /* its successor is shorter, and was tried */
    ++*last;
    if (strtod(digits, NULL) == value) return;
  }
}

/* A double as Python's repr writes it: exponents below 1e-4 and from 1e16 on, else always with a decimal point. */
void mg_csv_number(mg_text *text, double value) {
  char digits[40];
  if (isnan(value)) return; /* pandas writes an empty field */
  if (isinf(value)) {
    mg_text_append(text, value < 0 ? "-inf" : "inf");
    return;
  }
  shortest_digits(value, digits);
  char *letter = strchr(digits, 'e');
  const int exponent = atoi(letter + 1);
  if (exponent < -4 || exponent >= 16) {
    mg_text_append(text, "%s", digits); /* 1e-05: at least two digits of exponent, as printf has it too */
    return;
  }
  char mantissa[24];
  int count = 0;
  for (const char *c = digits; c < letter; c++)
    if (*c >= '0' && *c <= '9') mantissa[count++] = *c;
  if (digits[0] == '-') mg_text_append(text, "-");
  if (exponent < 0) {
    mg_text_append(text, "0.%.*s%.*s", -exponent - 1, "000", count, mantissa);
    return;
  }
  for (int k = 0; k <= exponent; k++) mg_text_append(text, "%c", k < count ? mantissa[k] : '0');
  mg_text_append(text, ".%.*s", count > exponent + 1 ? count - exponent - 1 : 1,
                 count > exponent + 1 ? mantissa + exponent + 1 : "0");
}

/* As csv.writer quotes: where the field holds a comma, a quote or a line end. */
void mg_csv_field(mg_text *text, const char *field) {
  if (field[strcspn(field, ",\"\r\n")] == '\0') {
    mg_text_append_bytes(text, field, strlen(field));
    return;
  }
  mg_text_append_bytes(text, "\"", 1);
  for (size_t plain; *field != '\0'; field += plain) {
    plain = strcspn(field, "\"");
    mg_text_append_bytes(text, field, plain);
    if (field[plain] != '"') continue;
    mg_text_append_bytes(text, "\"\"", 2);
    plain++;
  }
  mg_text_append_bytes(text, "\"", 1);
}

mg_status mg_export_text(const char *dir, const char *name, const mg_text *text) {
  char *path = mg_path_join(dir, name);
  const mg_status status =
      path == NULL || text->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : mg_replace_file(path, text->data, text->size);
  if (status == MG_OK) mg_info("wrote %s", path);
  free(path);
  return status;
}

mg_status mg_csv_write(const char *dir, const char *name, const mg_strings *rows, const mg_strings *columns,
                       const double *matrix) {
  mg_text text = {0};
  for (size_t j = 0; j < columns->count; j++) {
    mg_text_append(&text, ",");
    mg_csv_field(&text, columns->items[j]);
  }
  mg_text_append(&text, "\n");
  for (size_t i = 0; i < rows->count; i++) {
    mg_csv_field(&text, rows->items[i]);
    for (size_t j = 0; j < columns->count; j++) {
      mg_text_append(&text, ",");
      mg_csv_number(&text, matrix[i * columns->count + j]);
    }
    mg_text_append(&text, "\n");
  }
  const mg_status status = mg_export_text(dir, name, &text);
  mg_text_free(&text);
  return status;
}
