/* Whose texts the sources are evaluated on: every target's of two partitions, labelled by class, tokenized into one table. */

#include <stdlib.h>
#include <string.h>

#include "mergegrid/log.h"
#include "stage_impl.h"

int mg_nxn_classes(const mg_tensor_table *table) {
  for (size_t t = 0; t < table->count; t++)
    if (mg_weight_name_matches(table->tensors[t].name, "classifier.out_proj.weight") && table->tensors[t].ndim == 2)
      return (int)table->tensors[t].shape[0];
  return 0;
}

/* ---- which ---- */

static mg_status add_target(mg_nxn_texts *t, const char *locale) {
  const bool usable = strcmp(locale, ".") != 0 && strcmp(locale, "..") != 0;
  return usable && mg_strings_find(&t->targets, locale) < 0 ? mg_strings_add(&t->targets, locale) : MG_OK;
}

/* all: the sources' locales that have texts, in their order, then the others that have. */
static mg_status list_targets(const mg_config *config, const mg_source_list *list, mg_nxn_texts *t) {
  mg_status status = MG_OK;
  mg_strings found = {0};
  const mg_strings *asked = &config->nxn.targets;
  if (asked->count != 1 || strcmp(asked->items[0], "all") != 0) {
    for (size_t k = 0; k < asked->count; k++) MG_TRY(mg_strings_add(&t->targets, asked->items[k]), cleanup);
    return MG_OK;
  }
  MG_TRY(mg_corpus_locales(&config->texts, &found), cleanup);
  for (size_t k = 0; k < list->count; k++) {
    if (mg_strings_find(&found, list->items[k].locale) >= 0)
      MG_TRY(add_target(t, list->items[k].locale), cleanup);
    else
      mg_info("nxn: source %s has no texts (%s): it is evaluated, but no target", list->items[k].id, config->texts.files);
  }
  for (size_t k = 0; k < found.count; k++) MG_TRY(add_target(t, found.items[k]), cleanup);
  if (t->targets.count == 0)
    status = mg_fail(MG_ERR_INPUT, "texts.files: no file matches %s: no target has texts", config->texts.files);
cleanup:
  mg_strings_free(&found);
  return status;
}

/* ---- labels ---- */

/* A head without names is one whose names are LABEL_0, LABEL_1, …, as transformers has it. */
static mg_status name_classes(const mg_config *config, const mg_strings *model, int classes, mg_strings *labels) {
  mg_status status = MG_OK;
  mg_strings numbered = {0};
  char name[24];
  if (classes == 0)
    return mg_fail(MG_ERR_INPUT,
                   "the stage nxn needs sequence classifiers: no tensor classifier.out_proj.weight in the sources");
  if (model->count > 0 && model->count != (size_t)classes)
    return mg_fail(MG_ERR_INPUT, "the sources' config.json names %zu labels, but classifier.out_proj.weight has %d rows",
                   model->count, classes);
  for (int k = 0; model->count == 0 && k < classes; k++) {
    snprintf(name, sizeof name, "LABEL_%d", k);
    MG_TRY(mg_strings_add(&numbered, name), cleanup);
  }
  MG_TRY(mg_corpus_labels(&config->texts, model->count > 0 ? model : &numbered, labels), cleanup);
cleanup:
  mg_strings_free(&numbered);
  return status;
}

/* ---- texts ---- */

/* The texts of both corpora in the order of the file; first: number of the first corpus' first text in the table. */
static mg_status merge(mg_corpus corpora[2], size_t parts, size_t first, mg_target *target) {
  size_t at[2] = {0};
  const size_t count = corpora[0].count + (parts > 1 ? corpora[1].count : 0);
  target->id = mg_alloc_zero(count, sizeof *target->id);
  target->part = mg_alloc(count, sizeof *target->part);
  target->label = mg_alloc(count, sizeof *target->label);
  target->text = mg_alloc(count, sizeof *target->text);
  target->line = mg_alloc(count, sizeof *target->line);
  if (!target->id || !target->part || !target->label || !target->text || !target->line) return MG_ERR_NOMEM;
  for (target->count = 0; target->count < count; target->count++) {
    const bool second =
        at[0] == corpora[0].count || (parts > 1 && at[1] < corpora[1].count && corpora[1].line[at[1]] < corpora[0].line[at[0]]);
    mg_corpus *from = &corpora[second];
    const size_t k = at[second]++, to = target->count;
    target->id[to] = from->id[k];
    from->id[k] = NULL;
    target->part[to] = second;
    target->label[to] = from->label[k];
    target->line[to] = from->line[k];
    target->text[to] = first + (second ? corpora[0].count : 0) + k;
  }
  return MG_OK;
}

mg_status mg_nxn_target_read(const mg_config *config, size_t m, mg_nxn_texts *t, mg_tokenizing *tokenizing, size_t *first) {
  mg_status status = MG_OK;
  mg_target *target = &t->items[m];
  mg_corpus corpora[2] = {{0}};
  char *names[2] = {config->nxn.partition, config->nxn.select};
  const mg_strings partitions = {.count = t->parts, .items = names};
  MG_TRY(mg_corpus_read(&config->texts, t->targets.items[m], &partitions, &t->labels, 0, corpora), cleanup);
  target->path = corpora[0].path;
  corpora[0].path = NULL;
  if (corpora[0].count == 0) {
    status = mg_fail(MG_ERR_INPUT, "%s: no text of partition %s: target %s can't be evaluated (nxn.partition, nxn.targets)",
                     target->path, names[0], t->targets.items[m]);
    goto cleanup;
  }
  corpora[0].path = target->path; /* borrowed, for messages */
  for (size_t p = 0; p < t->parts && status == MG_OK; p++) status = mg_tokenizing_add(tokenizing, &corpora[p]);
  corpora[0].path = NULL;
  if (status != MG_OK) goto cleanup;
  MG_TRY(merge(corpora, t->parts, *first, target), cleanup);
  target->stands_in = t->parts > 1 && corpora[1].count == 0;
  for (size_t p = 0; p < 2; p++) target->part_count[p] = corpora[t->parts > 1 && !target->stands_in ? p : 0].count;
  *first += target->count;
cleanup:
  mg_corpus_free(&corpora[0]);
  mg_corpus_free(&corpora[1]);
  return status;
}

static void say_stand_ins(const mg_config *config, const mg_nxn_texts *t) {
  mg_text names = {0};
  size_t count = 0;
  for (size_t m = 0; m < t->targets.count; m++)
    if (t->items[m].stands_in) mg_text_append(&names, "%s%s", count++ > 0 ? ", " : "", t->targets.items[m]);
  if (count > 0)
    mg_warn("no texts of partition %s for %zu of %zu targets (%s): what sources are chosen by is their partition %s",
            config->nxn.select, count, t->targets.count, names.data != NULL ? names.data : "", config->nxn.partition);
  mg_text_free(&names);
}

/* ---- all of it ---- */

mg_status mg_nxn_texts_begin(const mg_config *config, const mg_source_list *list, const mg_strings *model_labels,
                             const mg_encoder_shape *shape, mg_nxn_texts *t) {
  mg_status status = MG_OK;
  const bool same = strcmp(mg_partition_name(config->nxn.partition), mg_partition_name(config->nxn.select)) == 0;
  *t = (mg_nxn_texts){.parts = same ? 1 : 2};
  MG_TRY(name_classes(config, model_labels, shape->classes, &t->labels), done);
  MG_TRY(list_targets(config, list, t), done);
  t->items = mg_alloc_zero(t->targets.count, sizeof *t->items);
  if (t->items == NULL) return MG_ERR_NOMEM;
done:
  return status;
}

mg_status mg_nxn_texts_end(const mg_config *config, mg_nxn_texts *t, mg_tokenizing *tokenizing) {
  const mg_status status = mg_tokenizing_end(tokenizing, &t->tokenized);
  if (status == MG_OK) say_stand_ins(config, t);
  return status;
}

mg_status mg_nxn_texts_read(const mg_config *config, const mg_source_list *list, const mg_strings *model_labels,
                            const mg_encoder_shape *shape, mg_nxn_texts *t) {
  mg_status status = MG_OK;
  mg_tokenizing *tokenizing = NULL;
  size_t first = 0;
  MG_TRY(mg_nxn_texts_begin(config, list, model_labels, shape, t), cleanup);
  MG_TRY(mg_tokenizing_begin(config, list, shape, config->texts.max_length, &tokenizing), cleanup);
  for (size_t m = 0; m < t->targets.count; m++) MG_TRY(mg_nxn_target_read(config, m, t, tokenizing, &first), cleanup);
  MG_TRY(mg_nxn_texts_end(config, t, tokenizing), cleanup);
cleanup:
  mg_tokenizing_free(&tokenizing);
  if (status != MG_OK) mg_nxn_texts_free(t);
  return status;
}

void mg_nxn_target_free(mg_target *target) {
  for (size_t k = 0; target->id != NULL && k < target->count; k++) free(target->id[k]);
  free(target->path), free(target->id), free(target->part), free(target->label), free(target->text), free(target->line);
  *target = (mg_target){0};
}

void mg_nxn_texts_free(mg_nxn_texts *t) {
  for (size_t m = 0; t->items != NULL && m < t->targets.count; m++) mg_nxn_target_free(&t->items[m]);
  free(t->items);
  mg_strings_free(&t->targets);
  mg_strings_free(&t->labels);
  mg_tokenized_free(&t->tokenized);
  *t = (mg_nxn_texts){0};
}
