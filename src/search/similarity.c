/* Which similarity a search goes by: a matrix that the result's grid went by, its own evaluation, or a file. */

#include <string.h>

#include "command_impl.h"
#include "mergegrid/grid.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"

static mg_status no_matrix(const mg_search_input *in, const char *wanted) {
  mg_text held = {0};
  const mg_strings *names = &in->names;
  const char *nearest = mg_nearest(wanted, (const char *const *)names->items, names->count);
  for (size_t k = 0; k < names->count; k++) mg_text_append(&held, "%s%s", k > 0 ? ", " : "", names->items[k]);
  const mg_status status =
      mg_fail(MG_ERR_INPUT,
              "--similarity %s%s%s%s: %s holds %s%s, and there is no such file; a matrix' name, nxn or a CSV was expected",
              wanted, nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "", in->command->result,
              names->count > 0 ? "the similarity matrices " : "no similarity matrix", held.data != NULL ? held.data : "");
  mg_text_free(&held);
  return status;
}

/* What sources are worth on the texts of `select`, as the grid's nxn has it. */
static mg_status read_evaluation(const mg_search_input *in, mg_similarity *similarity) {
  mg_status status = MG_OK;
  mg_labelled_table table = {0};
  const char *target = in->command->locale;
  MG_TRY(mg_result_read_evaluation(in->reader, true, &table), cleanup);
  if (mg_strings_find(&table.columns, target) < 0) {
    const char *nearest = mg_nearest(target, (const char *const *)table.columns.items, table.columns.count);
    status = mg_fail(MG_ERR_INPUT, "%s: target %s was not evaluated by the stage nxn%s%s%s", in->command->result, target,
                     nearest ? " (" : "", nearest ? nearest : "", nearest ? "?)" : "");
    goto cleanup;
  }
  MG_TRY(mg_evaluation_similarity(&table, &in->sources, similarity), cleanup);
cleanup:
  mg_labelled_table_free(&table);
  return status;
}

/* What is unusual about it was said when the grid was run. */
static mg_status read_stored(const mg_search_input *in, mg_similarity *similarity) {
  mg_status status = MG_OK;
  mg_labelled_table table = {0};
  MG_TRY(mg_grid_read_matrix(in->reader, in->matrix, &table), cleanup);
  MG_TRY(mg_similarity_of(&table, in->matrix, MG_DUPLICATES_FIRST, similarity, NULL), cleanup);
cleanup:
  mg_labelled_table_free(&table);
  return status;
}

mg_status mg_search_similarity(mg_search_input *in, mg_similarity *similarity) {
  mg_status status = MG_OK;
  const char *wanted = in->command->similarity;
  mg_strings notes = {0};
  MG_TRY(mg_grid_matrix_names(in->reader, &in->names), cleanup);
  if (wanted == NULL && in->names.count == 0)
    return mg_fail(MG_ERR_INPUT,
                   "%s: holds no similarity matrix, which a grid would have; --similarity FILE.csv names one, --similarity nxn "
                   "is what sources are worth on the target's texts",
                   in->command->result);
  const ptrdiff_t stored = wanted == NULL ? 0 : mg_strings_find(&in->names, wanted);
  in->matrix = stored >= 0 ? in->names.items[stored] : wanted;
  if (stored >= 0)
    MG_TRY(read_stored(in, similarity), cleanup);
  else if (strcmp(wanted, "nxn") == 0)
    MG_TRY(read_evaluation(in, similarity), cleanup);
  else if (mg_path_exists(wanted))
    MG_TRY(mg_similarity_read(wanted, MG_DUPLICATES_FIRST, similarity, &notes), cleanup);
  else
    status = no_matrix(in, wanted);
  for (size_t k = 0; status == MG_OK && k < notes.count; k++) mg_info("%s", notes.items[k]);
cleanup:
  mg_strings_free(&notes);
  return status;
}
