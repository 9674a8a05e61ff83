/* A family whose headers one process has read and compared, told to others, which look whether theirs are the same. */

#include <stdlib.h>
#include <string.h>

#include "family_impl.h"

/* ---- tensors ---- */

void mg_tensor_table_describe(const mg_tensor_table *table, mg_text *text) {
  mg_text_append_bytes(text, &table->count, sizeof table->count);
  mg_text_append_bytes(text, &table->elements, sizeof table->elements);
  for (size_t t = 0; t < table->count; t++) {
    mg_tensor tensor = table->tensors[t];
    tensor.name = tensor.layer = NULL;
    mg_text_append_bytes(text, &tensor, sizeof tensor);
    mg_append_string(text, table->tensors[t].name);
    mg_append_string(text, table->tensors[t].layer);
  }
}

mg_status mg_tensor_table_take(mg_cursor *c, mg_tensor_table *table) {
  mg_status status = MG_OK;
  size_t count = 0;
  MG_TRY(mg_cursor_take(c, &count, sizeof count), done);
  MG_TRY(mg_cursor_take(c, &table->elements, sizeof table->elements), done);
  table->tensors = mg_alloc_zero(count, sizeof *table->tensors);
  if (table->tensors == NULL) return MG_ERR_NOMEM;
  while (table->count < count) {
    mg_tensor *t = &table->tensors[table->count++];
    MG_TRY(mg_cursor_take(c, t, sizeof *t), done);
    t->name = t->layer = NULL;
    MG_TRY(mg_cursor_take_string(c, &t->name), done);
    MG_TRY(mg_cursor_take_string(c, &t->layer), done);
  }
done:
  return status;
}

/* ---- checkpoints ---- */

static void describe_member(const mg_member *member, size_t tensors, mg_text *text) {
  mg_append_string(text, member->dir);
  mg_append_strings(text, &member->files);
  mg_append_strings(text, &member->labels);
  mg_text_append_bytes(text, member->stamps, member->files.count * sizeof *member->stamps);
  mg_text_append_bytes(text, member->locations, tensors * sizeof *member->locations);
  mg_text_append_bytes(text, &member->headers, sizeof member->headers);
}

static mg_status take_member(mg_cursor *c, size_t tensors, mg_member *member) {
  mg_status status = MG_OK;
  MG_TRY(mg_cursor_take_string(c, &member->dir), done);
  MG_TRY(mg_cursor_take_strings(c, &member->files), done);
  MG_TRY(mg_cursor_take_strings(c, &member->labels), done);
  member->stamps = mg_alloc(member->files.count, sizeof *member->stamps);
  member->locations = mg_alloc(tensors, sizeof *member->locations);
  if (member->stamps == NULL || member->locations == NULL) return MG_ERR_NOMEM;
  MG_TRY(mg_cursor_take(c, member->stamps, member->files.count * sizeof *member->stamps), done);
  MG_TRY(mg_cursor_take(c, member->locations, tensors * sizeof *member->locations), done);
  MG_TRY(mg_cursor_take(c, &member->headers, sizeof member->headers), done);
done:
  return status;
}

/* ---- the family ---- */

void mg_family_describe(const mg_family *family, mg_text *text) {
  mg_tensor_table_describe(&family->table, text);
  mg_append_strings(text, &family->labels);
  mg_text_append_bytes(text, &family->source_count, sizeof family->source_count);
  describe_member(&family->base, family->table.count, text);
  for (size_t k = 0; k < family->source_count; k++) describe_member(&family->sources[k], family->table.count, text);
}

static mg_status take_family(mg_cursor *c, mg_family *f) {
  mg_status status = MG_OK;
  size_t count = 0;
  MG_TRY(mg_tensor_table_take(c, &f->table), done);
  MG_TRY(mg_cursor_take_strings(c, &f->labels), done);
  MG_TRY(mg_cursor_take(c, &count, sizeof count), done);
  f->sources = mg_alloc_zero(count, sizeof *f->sources);
  if (f->sources == NULL) return MG_ERR_NOMEM;
  f->source_count = count;
  MG_TRY(take_member(c, f->table.count, &f->base), done);
  for (size_t k = 0; k < count; k++) MG_TRY(take_member(c, f->table.count, &f->sources[k]), done);
done:
  return status;
}

mg_status mg_family_open_described(mg_cursor *cursor, mg_family **family) {
  *family = mg_alloc_zero(1, sizeof **family);
  if (*family == NULL) return MG_ERR_NOMEM;
  const mg_status status = take_family(cursor, *family);
  if (status != MG_OK) mg_family_close(family);
  return status;
}

/* ---- the same here ---- */

static bool same_files(const mg_member *member) {
  for (size_t k = 0; k < member->files.count; k++) {
    mg_file_stamp stamp;
    if (mg_file_stamp_get(member->files.items[k], &stamp) != MG_OK) return false;
    if (!mg_file_stamp_equal(&stamp, &member->stamps[k])) return false;
  }
  return true;
}

mg_status mg_member_look(const mg_member *member) {
  mg_checkpoint *checkpoint = NULL;
  if (same_files(member)) return MG_OK;
  mg_status status = mg_checkpoint_open(member->dir, &checkpoint); /* copies have other stamps, and the same headers */
  if (status == MG_OK && mg_checkpoint_hash(checkpoint) != member->headers)
    status = mg_fail(MG_ERR_INPUT, "%s: is another checkpoint than rank 0's: is the file system shared?", member->dir);
  mg_checkpoint_close(&checkpoint);
  return status;
}
