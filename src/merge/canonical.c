/* What a recipe computes, as text: two that compute the same have the same. */

#include "merge_impl.h"

static void append_weights(const mg_recipe *r, const mg_formula *f, mg_text *text) {
  for (size_t k = 0; k < r->count; k++)
    mg_text_append(text, " %a", f->lambda * (f->mean ? 1 / (double)r->count : f->weighted ? r->weight[k] : 1));
}

static void append_method(const mg_recipe *r, const mg_formula *f, mg_text *text) {
  mg_text_append(text, "%s", mg_canonical_name(r));
  for (size_t p = 0; p < r->method->parameter_count; p++) mg_text_append(text, " %a", r->values[p]);
  for (size_t s = 0; f->weighted && s < r->count; s++) mg_text_append(text, " %a", r->weight[s]);
  if (f->ordered) mg_text_append(text, " first %zu", mg_first_source(r));
  if (f->takes_best) mg_text_append(text, " best %zu", r->best);
}

mg_status mg_recipe_canonical(const mg_recipe *r, mg_text *text) {
  mg_status status = MG_OK;
  mg_formula body;
  MG_TRY(mg_formula_of(r, &body), done);
  const mg_formula head = mg_formula_of_head(r);
  if (mg_is_plain_sum(&body)) {
    mg_text_append(text, "sum");
    append_weights(r, &body, text);
  } else
    append_method(r, &body, text);
  if (r->base >= 0) mg_text_append(text, " to another base");
  mg_text_append(text, " head %d", (int)r->head);
  if (r->head == MG_HEAD_LINEAR) append_weights(r, &head, text);
  if (body.random || r->head == MG_HEAD_RANDOM) mg_text_append(text, " seed %llu", (unsigned long long)r->seed);
  if (text->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
done:
  return status;
}
