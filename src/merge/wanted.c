/* Which quantities of whole tensors and sources a recipe asks for. */

#include <stdlib.h>
#include <string.h>

#include "merge_impl.h"

uint64_t mg_kept_of(double density, int64_t count) {
  const uint64_t kept = (uint64_t)(density * (double)count);
  return count > 0 && kept == 0 ? 1 : kept;
}

/* The same of a formula that says which share of the smallest counts as 0. */
static uint64_t kept_by(const mg_formula *f, int64_t count) {
  if (!(f->mask_rate > 0)) return mg_kept_of(f->density, count);
  const uint64_t masked = (uint64_t)(f->mask_rate * (double)count);
  return count > 0 && masked >= (uint64_t)count ? 1 : (uint64_t)count - masked;
}

int mg_base_of(const mg_recipe *r, const mg_tensor *tensor) {
  if (tensor->source_only && r->head == MG_HEAD_RANDOM) return MG_BASE_RANDOM;
  if (tensor->source_only && r->head == MG_HEAD_LINEAR) return MG_BASE_FAMILY; /* a mean of heads */
  return r->base;
}

/* Heads against a random one are ranked with the rest where all else is against the family's base; not where a source is. */
bool mg_is_counted(const mg_recipe *r, const mg_tensor *tensor) {
  return !tensor->source_only || (r->head == MG_HEAD_RANDOM && r->base < 0);
}

static int64_t elements_of(const mg_recipe *r, const mg_tensor_table *table) {
  int64_t elements = 0;
  for (size_t t = 0; t < table->count; t++)
    if (mg_is_counted(r, &table->tensors[t])) elements += table->tensors[t].numel;
  return elements;
}

/* The key under which a quantity of source k of a recipe's tensor (−1: of the whole source) is kept. */
static mg_quantity quantity_of(const mg_recipe *r, const mg_tensor_table *table, mg_quantity_kind kind, size_t k,
                               ptrdiff_t tensor) {
  mg_quantity q;
  memset(&q, 0, sizeof q); /* it is compared by bytes */
  q.kind = (int32_t)kind;
  q.source = (int32_t)r->source[k];
  q.tensor = (int32_t)tensor;
  q.base = (int32_t)(tensor >= 0 ? mg_base_of(r, &table->tensors[tensor]) : r->base);
  const bool random_head = r->head == MG_HEAD_RANDOM && (tensor < 0 || q.base == MG_BASE_RANDOM);
  if (tensor < 0 && random_head && q.base == MG_BASE_FAMILY) q.base = MG_BASE_RANDOM;
  if (random_head || kind == MG_QUANTITY_DARE_L1 || kind == MG_QUANTITY_DELLA_L1) q.seed = r->seed;
  return q;
}

typedef struct asking {
  const mg_recipe *recipe;
  const mg_formula *formula;
  const mg_tensor_table *table;
  size_t t;
  mg_want_fn want;
  void *context;
} asking;

/* Source k's ratio of L1 norms. */
static mg_status ask_ratio(const asking *a, size_t k) {
  const mg_formula *f = a->formula;
  const bool by_rank = f->drop == MG_DROP_BY_RANK;
  mg_quantity q = quantity_of(a->recipe, a->table, by_rank ? MG_QUANTITY_DELLA_L1 : MG_QUANTITY_DARE_L1, k, (ptrdiff_t)a->t);
  q.a = f->drop_density;
  q.b = by_rank ? f->drop_spread : 0;
  return a->want(a->context, &q, k, MG_FOR_RESCALE);
}

/* Its ranks: of the smallest magnitude that stays, and of the largest. */
static mg_status ask_ranks(const asking *a, size_t k) {
  mg_status status = MG_OK;
  const mg_formula *f = a->formula;
  const mg_tensor *tensor = &a->table->tensors[a->t];
  const uint64_t kept = kept_by(f, tensor->numel), all = (uint64_t)tensor->numel;
  uint64_t top = (uint64_t)(f->gamma * (double)all);
  if (top > all - kept) top = all - kept;
  mg_quantity q = quantity_of(a->recipe, a->table, f->global_trim ? MG_QUANTITY_GLOBAL_RANK : MG_QUANTITY_RANK, k,
                              f->global_trim ? -1 : (ptrdiff_t)a->t);
  if (mg_drop_of(f, tensor) == MG_DROP_EVENLY) q.b = f->drop_density, q.seed = a->recipe->seed;
  q.a = (double)(f->global_trim ? kept_by(f, elements_of(a->recipe, a->table)) : kept + top);
  MG_TRY(a->want(a->context, &q, k, MG_FOR_THRESHOLD), done);
  if (f->global_trim || top == 0) goto done;
  q.a = (double)(top + 1);
  MG_TRY(a->want(a->context, &q, k, MG_FOR_CEILING), done);
done:
  return status;
}

static mg_status ask_share(const asking *a, size_t k) {
  mg_quantity q = quantity_of(a->recipe, a->table, MG_QUANTITY_GLOBAL_SHARE, k, -1);
  q.a = (double)kept_by(a->formula, elements_of(a->recipe, a->table));
  return a->want(a->context, &q, k, MG_FOR_SHARE);
}

mg_status mg_each_quantity(const mg_recipe *r, const mg_formula *f, const mg_tensor_table *table, size_t t, mg_want_fn want,
                           void *context) {
  mg_status status = MG_OK;
  const asking a = {.recipe = r, .formula = f, .table = table, .t = t, .want = want, .context = context};
  const bool dropped = mg_drop_of(f, &table->tensors[t]) != MG_DROP_NONE;
  for (size_t k = 0; k < r->count; k++) {
    if (dropped && f->rescale == MG_RESCALE_L1) MG_TRY(ask_ratio(&a, k), done);
    if (f->keep == MG_KEEP_LARGEST) MG_TRY(ask_ranks(&a, k), done);
    if (f->share) MG_TRY(ask_share(&a, k), done);
  }
done:
  return status;
}

/* ---- in advance ---- */

typedef struct collecting {
  mg_quantities *seen;
  mg_quantity_list *list;
} collecting;

static mg_status collect(void *context, const mg_quantity *q, size_t k, mg_purpose purpose) {
  const collecting *c = context;
  mg_quantity_list *list = c->list;
  double value;
  (void)k, (void)purpose;
  if (mg_quantities_find(c->seen, q, &value)) return MG_OK;
  if (list->count == list->room) {
    const size_t room = list->room > 0 ? 2 * list->room : 256;
    mg_quantity *grown = reallocarray(list->items, room, sizeof *grown);
    if (grown == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    list->items = grown;
    list->room = room;
  }
  list->items[list->count++] = *q;
  return mg_quantities_put(c->seen, q, 0);
}

mg_status mg_recipe_quantities(const mg_recipe *recipe, const mg_tensor_table *table, mg_quantities *seen,
                               mg_quantity_list *list) {
  mg_status status = MG_OK;
  mg_formula body;
  collecting c = {.seen = seen, .list = list};
  MG_TRY(mg_formula_of(recipe, &body), done);
  const mg_formula head = recipe->head == MG_HEAD_LINEAR ? mg_formula_of_head(recipe) : body;
  for (size_t t = 0; t < table->count && status == MG_OK; t++)
    status = mg_each_quantity(recipe, table->tensors[t].source_only ? &head : &body, table, t, collect, &c);
done:
  return status;
}
