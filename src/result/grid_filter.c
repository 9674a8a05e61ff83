/* Which cells are meant, and in which order: conditions on columns, sorting by one. */

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grid_view_impl.h"
#include "mergegrid/text.h"

/* ---- columns by name ---- */

/* A column of the cells: a field, or a swept parameter. */
typedef struct column_of {
  const mg_column *field;
  const char *const *swept; /* [C] where it is no field */
} column_of;

static mg_status unknown_column(const mg_grid_table *t, const char *option, const char *name) {
  mg_strings all = {0};
  mg_text list = {0};
  for (size_t k = 0; k < mg_cell_columns.count; k++) mg_strings_add(&all, mg_cell_columns.items[k].name);
  for (size_t k = 0; k < t->swept.count; k++) mg_strings_add(&all, t->swept.items[k]);
  for (size_t k = 0; k < all.count; k++) mg_text_append(&list, "%s%s", k ? ", " : "", all.items[k]);
  const char *nearest = mg_nearest(name, (const char *const *)all.items, all.count);
  mg_fail(MG_ERR_USAGE, "%s: '%s' is no column of the cells%s%s%s; they have %s", option, name, nearest ? " (" : "",
          nearest ? nearest : "", nearest ? " is meant?)" : "", list.data ? list.data : "");
  mg_text_free(&list);
  mg_strings_free(&all);
  return MG_ERR_USAGE;
}

static mg_status find_column(const mg_grid_table *t, const char *option, const char *name, column_of *column) {
  *column = (column_of){0};
  for (size_t k = 0; k < mg_cell_columns.count; k++)
    if (strcmp(mg_cell_columns.items[k].name, name) == 0) column->field = &mg_cell_columns.items[k];
  const ptrdiff_t swept = mg_strings_find(&t->swept, name);
  if (column->field == NULL && swept < 0) return unknown_column(t, option, name);
  if (column->field == NULL) column->swept = t->swept_values + (size_t)swept * t->cell_count;
  return MG_OK;
}

static bool is_text(const column_of *c) { return c->field == NULL || c->field->type == MG_COLUMN_TEXT; }

static const char *text_of(const mg_grid_table *t, const column_of *c, size_t cell) {
  return c->field != NULL ? mg_column_text(c->field, &t->cells[cell]) : c->swept[cell];
}

static bool parse_number(const char *text, double *number) {
  char *end;
  *number = strtod(text, &end);
  return end != text && *end == '\0';
}

/* ---- conditions ---- */

static bool is_word(const char *text, const char *word) { return strcasecmp(text, word) == 0; }

/* The number that is meant by a value of a column that is no text. */
static mg_status wanted_number(const column_of *c, const char *option, const char *value, double *number) {
  if (c->field->type == MG_COLUMN_BOOL) {
    *number = is_word(value, "true");
    if (is_word(value, "true") || is_word(value, "false")) return MG_OK;
    return mg_fail(MG_ERR_USAGE, "%s: %s=%s: true or false was expected", option, c->field->name, value);
  }
  if (parse_number(value, number)) return MG_OK;
  return mg_fail(MG_ERR_USAGE, "%s: %s=%s: a number was expected", option, c->field->name, value);
}

/* Texts are compared as they are; as numbers where both are some (0.20 is 0.2); hashes may be cut. */
static bool text_matches(const column_of *c, const char *text, const char *value) {
  double x, y;
  const bool is_hash = c->field != NULL && (strcmp(c->field->name, "key") == 0 || strcmp(c->field->name, "recipe") == 0);
  if (is_hash) return value[0] != '\0' && strncmp(text, value, strlen(value)) == 0;
  return strcmp(text, value) == 0 || (parse_number(text, &x) && parse_number(value, &y) && x == y);
}

/* The values that a column has, for a message. */
static mg_status no_such_value(const mg_grid_table *t, const char *option, const column_of *c, const char *name,
                               const char *values) {
  enum { NAMED = 30 };
  mg_strings seen = {0};
  mg_text list = {0};
  for (size_t k = 0; is_text(c) && k < t->cell_count && seen.count <= NAMED; k++) {
    const char *text = text_of(t, c, k);
    if (mg_strings_find(&seen, text) < 0 && mg_strings_add(&seen, text) != MG_OK) break;
  }
  for (size_t k = 0; k < seen.count && k < NAMED; k++) mg_text_append(&list, "%s%s", k ? ", " : "", seen.items[k]);
  mg_fail(MG_ERR_INPUT, "%s: %s: no cell has %s=%s%s%s%s", t->path, option, name, values, seen.count > 0 ? "; there are " : "",
          list.data ? list.data : "", seen.count > NAMED ? ", …" : "");
  mg_text_free(&list);
  mg_strings_free(&seen);
  return MG_ERR_INPUT;
}

/* Marks cells that have one of the values (separated by '|', which is cut into). */
static mg_status match_values(const mg_grid_table *t, const char *option, const column_of *c, char *values, bool *matches) {
  char *rest = values;
  for (char *value; (value = strsep(&rest, "|")) != NULL;) {
    double wanted = NAN;
    const mg_status status = is_text(c) ? MG_OK : wanted_number(c, option, value, &wanted);
    if (status != MG_OK) return status;
    for (size_t k = 0; k < t->cell_count; k++) {
      const bool same =
          is_text(c) ? text_matches(c, text_of(t, c, k), value) : mg_column_number(c->field, &t->cells[k]) == wanted;
      if (same) matches[k] = true;
    }
  }
  return MG_OK;
}

static mg_status apply_condition(const mg_grid_table *t, const char *option, char *condition, bool *take) {
  mg_status status = MG_OK;
  size_t found = 0;
  column_of column;
  char *values = strchr(condition, '='), *shown = NULL;
  bool *matches = mg_alloc_zero(t->cell_count, sizeof *matches);
  if (matches == NULL) return MG_ERR_NOMEM;
  if (values == NULL) {
    status =
        mg_fail(MG_ERR_USAGE, "%s: '%s': COLUMN=VALUE was expected, as method=ties|average,locale=sw-KE", option, condition);
    goto cleanup;
  }
  *values++ = '\0';
  MG_TRY(find_column(t, option, condition, &column), cleanup);
  shown = mg_strdup(values);
  if (shown == NULL) {
    status = MG_ERR_NOMEM;
    goto cleanup;
  }
  MG_TRY(match_values(t, option, &column, values, matches), cleanup);
  for (size_t k = 0; k < t->cell_count; k++) {
    found += matches[k];
    take[k] = take[k] && matches[k];
  }
  if (found == 0) status = no_such_value(t, option, &column, condition, shown);
cleanup:
  free(shown);
  free(matches);
  return status;
}

/* Without the blanks around it; in place. */
static char *trim(char *text) {
  while (isspace((unsigned char)*text)) text++;
  size_t length = strlen(text);
  while (length > 0 && isspace((unsigned char)text[length - 1])) text[--length] = '\0';
  return text;
}

mg_status mg_grid_table_where(const mg_grid_table *t, const char *option, const char *where, bool *take) {
  mg_status status = MG_OK;
  for (size_t k = 0; k < t->cell_count; k++) take[k] = true;
  if (where == NULL) return MG_OK;
  char *copy = mg_strdup(where), *rest = copy;
  if (copy == NULL) return MG_ERR_NOMEM;
  for (char *condition; status == MG_OK && (condition = strsep(&rest, ",")) != NULL;)
    status = apply_condition(t, option, trim(condition), take);
  free(copy);
  return status;
}

/* ---- order ---- */

typedef struct sorting {
  const mg_grid_table *table;
  column_of column;
  int sign;
} sorting;

/* Numbers that are none come last either way. */
static int compare_numbers(double x, double y, int sign) {
  if (isnan(x) || isnan(y)) return isnan(x) - isnan(y);
  return sign * ((x > y) - (x < y));
}

static int compare_cells(const void *a, const void *b, void *context) {
  const sorting *s = context;
  const size_t i = *(const size_t *)a, j = *(const size_t *)b;
  int order;
  double x, y;
  if (!is_text(&s->column)) {
    order = compare_numbers(mg_column_number(s->column.field, &s->table->cells[i]),
                            mg_column_number(s->column.field, &s->table->cells[j]), s->sign);
  } else {
    const char *p = text_of(s->table, &s->column, i), *q = text_of(s->table, &s->column, j);
    order = parse_number(p, &x) && parse_number(q, &y) ? compare_numbers(x, y, s->sign) : s->sign * mg_natural_compare(p, q);
  }
  return order != 0 ? order : (i > j) - (i < j);
}

mg_status mg_cells_sort(const mg_grid_table *t, const char *sort, size_t *order, size_t count) {
  sorting s = {.table = t, .sign = 1};
  if (sort == NULL) return MG_OK;
  if (sort[0] == '-') {
    s.sign = -1;
    sort++;
  }
  const mg_status status = find_column(t, "--sort", sort, &s.column);
  if (status == MG_OK && count > 1) qsort_r(order, count, sizeof *order, compare_cells, &s);
  return status;
}
