/* A checkpoint that is no source of the family: its tensors by the family's names, its head in the family's order of classes.
 */

#include <stdlib.h>
#include <string.h>

#include "microscope_impl.h"

struct mg_scope_path {
  mg_checkpoint *headers;
  mg_checkpoint_weights *opened;
  mg_weights weights;
  const mg_tensor_table *table;
  size_t classes;
  int32_t *own_of; /* [classes] its class of the family's; NULL: the same */
};

/* The name that it has a tensor under: the family's, or that without what stands in front of the backbone. */
static const char *find(const mg_scope_path *p, const mg_tensor *tensor, int *ndim, int64_t shape[8]) {
  const char *dot = strchr(tensor->name, '.');
  if (p->weights.find(p->weights.context, tensor->name, ndim, shape)) return tensor->name;
  if (tensor->source_only || dot == NULL) return NULL;
  return p->weights.find(p->weights.context, dot + 1, ndim, shape) ? dot + 1 : NULL;
}

static mg_status match_labels(mg_scope_path *p, const mg_strings *labels) {
  const mg_strings *own = &p->headers->labels;
  const char *dir = p->headers->dir;
  bool same = true;
  if (labels->count == 0 || own->count == 0) return MG_OK;
  if (own->count != labels->count)
    return mg_fail(MG_ERR_INPUT, "%s names %zu labels, the family %zu", dir, own->count, labels->count);
  for (size_t c = 0; c < labels->count && same; c++) same = strcmp(own->items[c], labels->items[c]) == 0;
  if (same) return MG_OK;
  p->own_of = mg_alloc(labels->count, sizeof *p->own_of);
  if (p->own_of == NULL) return MG_ERR_NOMEM;
  for (size_t c = 0; c < labels->count; c++) {
    const ptrdiff_t at = mg_strings_find(own, labels->items[c]);
    if (at < 0) return mg_fail(MG_ERR_INPUT, "%s does not have the family's label '%s'", dir, labels->items[c]);
    p->own_of[c] = (int32_t)at;
  }
  return MG_OK;
}

mg_status mg_scope_path_open(const char *dir, const mg_tensor_table *table, const mg_strings *labels, mg_scope_path **out) {
  mg_status status = MG_OK;
  mg_scope_path *p = mg_alloc_zero(1, sizeof *p);
  if (p == NULL) return MG_ERR_NOMEM;
  *p = (mg_scope_path){.table = table, .classes = labels->count};
  MG_TRY(mg_checkpoint_open(dir, &p->headers), failed);
  MG_TRY(mg_checkpoint_weights_open(dir, &p->opened, &p->weights), failed);
  MG_TRY(match_labels(p, labels), failed);
  *out = p;
  return MG_OK;
failed:
  mg_scope_path_close(&p);
  return status;
}

void mg_scope_path_close(mg_scope_path **path) {
  mg_scope_path *p = *path;
  if (p == NULL) return;
  mg_checkpoint_weights_close(&p->opened);
  mg_checkpoint_close(&p->headers);
  free(p->own_of), free(p);
  *path = NULL;
}

const mg_weights *mg_scope_path_weights(const mg_scope_path *p) { return &p->weights; }

/* ---- does it fit? ---- */

static void append_shape(mg_text *text, int ndim, const int64_t *shape) {
  mg_text_append(text, "[");
  for (int d = 0; d < ndim; d++) mg_text_append(text, "%s%lld", d > 0 ? ", " : "", (long long)shape[d]);
  mg_text_append(text, "]");
}

static void check_encoder(const mg_scope_path *p, const mg_encoder_shape *shape, mg_text *wrong) {
  mg_encoder_shape own;
  if (mg_encoder_shape_read(p->headers->dir, &own) != MG_OK) {
    mg_text_append(wrong, "\n  %s", mg_error_message());
  } else if (own.heads != shape->heads || own.pad != shape->pad || own.epsilon != shape->epsilon ||
             own.layers != shape->layers) {
    mg_text_append(
        wrong, "\n  config.json: %d layers, %d heads, padding id %d, layer_norm_eps %g; %d, %d, %d, %g were expected",
        own.layers, own.heads, own.pad, (double)own.epsilon, shape->layers, shape->heads, shape->pad, (double)shape->epsilon);
  }
}

mg_status mg_scope_path_check(const mg_scope_path *p, const char *setup, const mg_encoder_shape *shape, uint8_t *has) {
  enum { LISTED = 20 };
  mg_text wrong = {0};
  size_t count = 0;
  for (size_t t = 0; t < p->table->count; t++) {
    const mg_tensor *tensor = &p->table->tensors[t];
    int ndim = 0;
    int64_t own[8] = {0};
    has[t] = find(p, tensor, &ndim, own) != NULL;
    const bool fits = has[t] && ndim == tensor->ndim && memcmp(own, tensor->shape, (size_t)ndim * sizeof *own) == 0;
    if (fits || (!has[t] && tensor->source_only) || count++ >= LISTED) continue;
    mg_text_append(&wrong, "\n  %s: %s", tensor->name, has[t] ? "shape " : "is missing");
    if (!has[t]) continue;
    append_shape(&wrong, ndim, own);
    mg_text_append(&wrong, ", ");
    append_shape(&wrong, tensor->ndim, tensor->shape);
    mg_text_append(&wrong, " was expected");
  }
  if (count > LISTED) mg_text_append(&wrong, "\n  and %zu tensors more", count - LISTED);
  if (shape != NULL) check_encoder(p, shape, &wrong);
  const bool fits = wrong.size == 0 && !wrong.failed;
  const mg_status status = fits ? MG_OK
                                : mg_fail(MG_ERR_INPUT, "microscope's %s: %s is not of the family:%s", setup, p->headers->dir,
                                          wrong.data != NULL ? wrong.data : "");
  mg_text_free(&wrong);
  return status;
}

/* ---- reading ---- */

/* Rows of a head one by one, from where the checkpoint has them. */
static mg_status read_permuted(const mg_scope_path *p, const char *name, const mg_tensor *tensor, const mg_range *range,
                               float *out) {
  mg_status status = MG_OK;
  const int64_t row = tensor->numel / tensor->shape[0];
  for (int64_t at = range->first; at < range->first + range->count;) {
    const int64_t r = at / row, inside = at % row, left = range->first + range->count - at;
    const int64_t now = row - inside < left ? row - inside : left;
    MG_TRY(p->weights.read(p->weights.context, name, (int64_t)p->own_of[r] * row + inside, now, out), done);
    out += now;
    at += now;
  }
done:
  return status;
}

mg_status mg_scope_path_read(mg_scope_path *p, const mg_range *range, float *out) {
  const mg_tensor *tensor = &p->table->tensors[range->tensor];
  int ndim;
  int64_t shape[8];
  const char *name = find(p, tensor, &ndim, shape);
  if (name == NULL) return mg_fail(MG_ERR_INTERNAL, "%s: no tensor %s", p->headers->dir, tensor->name);
  if (p->own_of != NULL && mg_has_row_a_class(tensor, p->classes)) return read_permuted(p, name, tensor, range, out);
  return p->weights.read(p->weights.context, name, range->first, range->count, out);
}
