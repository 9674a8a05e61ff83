/* A grid's manifest as a record of the journal: the cells' columns, and how answers are scored. */

#include "manifest_impl.h"

#include <stdlib.h>
#include <string.h>

#include "grid_impl.h"
#include "mergegrid/cursor.h"

typedef struct manifest_header {
  uint64_t layout; /* of the cells' columns: a reader of another version has others */
  uint64_t cells, targets, classes;
  uint64_t selected_on_partition;
} manifest_header;

static uint64_t layout(void) {
  uint64_t hash = mg_hash("manifest 1", sizeof "manifest 1");
  for (size_t k = 0; k < mg_cell_columns.count; k++) {
    const mg_column *c = &mg_cell_columns.items[k];
    hash = mg_hash_more(hash, c->name, strlen(c->name) + 1);
    hash = mg_hash_more(hash, &c->type, sizeof c->type);
  }
  return hash;
}

/* ---- writing ---- */

/* A text with its NUL, else eight bytes. */
static void append_field(mg_text *out, const mg_column *c, const void *row) {
  const void *field = (const char *)row + c->offset;
  int64_t whole = 0;
  if (c->type == MG_COLUMN_TEXT) {
    mg_append_string(out, mg_column_text(c, row));
    return;
  }
  if (c->type == MG_COLUMN_BOOL)
    whole = *(const bool *)field;
  else if (c->type == MG_COLUMN_INT)
    whole = *(const int *)field;
  else
    memcpy(&whole, field, sizeof whole);
  mg_text_append_bytes(out, &whole, sizeof whole);
}

static void append_texts(mg_text *out, const mg_manifest_texts *t) {
  const uint64_t counts[2] = {t->count, t->sequences};
  mg_text_append_bytes(out, counts, sizeof counts);
  mg_text_append_bytes(out, t->label, t->count * sizeof *t->label);
  mg_text_append_bytes(out, t->position, t->count * sizeof *t->position);
  mg_text_append_bytes(out, t->scored, t->count * sizeof *t->scored);
  mg_text_append_bytes(out, t->selects, t->count * sizeof *t->selects);
}

mg_status mg_grid_manifest_write(const mg_grid_manifest *m, mg_text *out) {
  const mg_result_grid *g = m->grid;
  const manifest_header header = {.layout = layout(),
                                  .cells = g->cell_count,
                                  .targets = g->targets->count,
                                  .classes = m->classes,
                                  .selected_on_partition = g->selected_on_partition};
  mg_text_append_bytes(out, &header, sizeof header);
  mg_append_string(out, g->partition);
  mg_append_string(out, m->select);
  mg_append_strings(out, g->targets);
  mg_append_strings(out, g->swept);
  for (size_t t = 0; t < g->targets->count; t++) append_texts(out, &m->texts[t]);
  for (size_t c = 0; c < g->cell_count; c++) {
    for (size_t k = 0; k < mg_cell_columns.count; k++) append_field(out, &mg_cell_columns.items[k], &g->cells[c]);
    for (size_t s = 0; s < g->swept->count; s++) mg_append_string(out, g->swept_values[s * g->cell_count + c]);
    mg_text_append_bytes(out, &m->source_mean[c], sizeof m->source_mean[c]);
  }
  return out->failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
}

/* ---- reading ---- */

static mg_status bad(void) { return mg_fail(MG_ERR_CORRUPT, "a grid's manifest whose parts do not fit each other"); }

/* Into the table's strings, where it stays. */
static mg_status take_text(mg_cursor *in, mg_grid_table *t, const char **text) {
  const size_t length = strnlen(in->at, in->left);
  if (length == in->left) return bad();
  const mg_status status = mg_strings_add(&t->strings, in->at);
  if (status != MG_OK) return status;
  *text = t->strings.items[t->strings.count - 1];
  return mg_cursor_skip(in, length + 1);
}

static mg_status take_field(mg_cursor *in, const mg_column *c, mg_grid_table *t, void *row) {
  void *field = (char *)row + c->offset;
  int64_t whole;
  if (c->type == MG_COLUMN_TEXT) return take_text(in, t, field);
  const mg_status status = mg_cursor_take(in, &whole, sizeof whole);
  if (status != MG_OK) return status;
  if (c->type == MG_COLUMN_BOOL)
    *(bool *)field = whole != 0;
  else if (c->type == MG_COLUMN_INT)
    *(int *)field = (int)whole;
  else
    memcpy(field, &whole, sizeof whole);
  return MG_OK;
}

/* A list of `count` values; what says how many there are must not make room for more than is left. */
static mg_status take_list(mg_cursor *in, size_t count, size_t size, void **list) {
  if (count > in->left / size) return bad();
  *list = mg_alloc(count, size);
  return *list != NULL ? mg_cursor_take(in, *list, count * size) : MG_ERR_NOMEM;
}

static mg_status take_texts(mg_cursor *in, size_t classes, void **lists, mg_manifest_texts *t) {
  mg_status status = MG_OK;
  uint64_t counts[2];
  static const size_t sizes[4] = {sizeof *t->label, sizeof *t->position, sizeof(char), sizeof(char)};
  MG_TRY(mg_cursor_take(in, counts, sizeof counts), done);
  for (size_t k = 0; k < 4; k++) MG_TRY(take_list(in, (size_t)counts[0], sizes[k], &lists[k]), done);
  for (size_t list = 2; list < 4; list++)
    for (size_t k = 0; k < counts[0]; k++) /* of a bool, other bytes than these have no meaning */
      if (((const char *)lists[list])[k] != 0 && ((const char *)lists[list])[k] != 1) return bad();
  *t = (mg_manifest_texts){.count = (size_t)counts[0],
                           .sequences = (size_t)counts[1],
                           .label = lists[0],
                           .position = lists[1],
                           .scored = lists[2],
                           .selects = lists[3]};
  for (size_t k = 0; k < t->count; k++)
    if (t->position[k] >= t->sequences || t->label[k] < 0 || (size_t)t->label[k] >= classes) return bad();
done:
  return status;
}

static mg_status take_cells(mg_cursor *in, mg_manifest *m) {
  mg_status status = MG_OK;
  mg_grid_table *t = &m->table;
  const size_t least = mg_cell_columns.count + t->swept.count + sizeof *m->source_mean; /* bytes of a cell */
  if (t->cell_count > in->left / least) return bad();
  t->cells = mg_alloc_zero(t->cell_count, sizeof *t->cells);
  t->swept_values = mg_alloc_zero(t->cell_count, (t->swept.count + 1) * sizeof *t->swept_values);
  m->source_mean = mg_alloc(t->cell_count, sizeof *m->source_mean);
  if (t->cells == NULL || t->swept_values == NULL || m->source_mean == NULL) return MG_ERR_NOMEM;
  for (size_t c = 0; c < t->cell_count; c++) {
    for (size_t k = 0; k < mg_cell_columns.count; k++) MG_TRY(take_field(in, &mg_cell_columns.items[k], t, &t->cells[c]), done);
    for (size_t s = 0; s < t->swept.count; s++) MG_TRY(take_text(in, t, &t->swept_values[s * t->cell_count + c]), done);
    MG_TRY(mg_cursor_take(in, &m->source_mean[c], sizeof m->source_mean[c]), done);
    const int64_t cells = (int64_t)t->cell_count, same = t->cells[c].same_as, matched = t->cells[c].matched;
    if (same < -1 || same >= (int64_t)c || matched < -1 || matched >= cells) return bad();
  }
done:
  return status;
}

static mg_status take_all(mg_cursor *in, mg_manifest *m) {
  mg_status status = MG_OK;
  manifest_header header;
  mg_grid_table *t = &m->table;
  MG_TRY(mg_cursor_take(in, &header, sizeof header), done);
  if (header.layout != layout()) return mg_fail(MG_ERR_CORRUPT, "a grid's manifest of another version of mergegrid");
  t->cell_count = (size_t)header.cells;
  t->selected_on_partition = header.selected_on_partition != 0;
  m->classes = (size_t)header.classes;
  MG_TRY(mg_cursor_take_string(in, &t->partition), done);
  MG_TRY(mg_cursor_take_string(in, &m->select), done);
  MG_TRY(mg_cursor_take_strings(in, &t->targets), done);
  MG_TRY(mg_cursor_take_strings(in, &t->swept), done);
  if (t->targets.count != header.targets) return bad();
  m->texts = mg_alloc_zero(t->targets.count, sizeof *m->texts);
  m->lists = mg_alloc_zero(t->targets.count, 4 * sizeof *m->lists);
  if (m->texts == NULL || m->lists == NULL) return MG_ERR_NOMEM;
  m->list_count = 4 * t->targets.count;
  for (size_t k = 0; k < t->targets.count; k++) MG_TRY(take_texts(in, m->classes, m->lists + 4 * k, &m->texts[k]), done);
  MG_TRY(take_cells(in, m), done);
  if (in->left != 0) return bad();
done:
  return status;
}

mg_status mg_manifest_read(const char *path, const void *payload, size_t size, mg_manifest *m) {
  mg_cursor in = {payload, size};
  *m = (mg_manifest){.table.path = mg_strdup(path)};
  const mg_status status = m->table.path != NULL ? take_all(&in, m) : MG_ERR_NOMEM;
  if (status != MG_OK) mg_manifest_free(m);
  return status;
}

void mg_manifest_free(mg_manifest *m) {
  for (size_t k = 0; k < m->list_count; k++) free(m->lists[k]);
  mg_grid_table_free(&m->table);
  free(m->select), free(m->source_mean), free(m->texts), free(m->lists);
  *m = (mg_manifest){0};
}
