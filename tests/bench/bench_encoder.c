/*
 * The encoder's rate on a checkpoint and texts of given lengths:
 *   bench_encoder DIR IDS.txt THREADS LOGITS.f32      (IDS: a text a line, its ids; DIR: a checkpoint)
 * Prints seconds of the forward passes, tokens a second, and the share that the same matrix products alone take.
 */

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mergegrid/encoder.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"

typedef struct text_list {
  int32_t *ids;
  int64_t *offset;
  size_t count;
} text_list;

static void read_texts(const char *path, text_list *t) {
  FILE *file = fopen(path, "r");
  char *line = NULL;
  size_t room = 0;
  if (file == NULL) exit(1);
  t->offset = calloc(1 << 20, sizeof *t->offset);
  t->ids = calloc(1 << 24, sizeof *t->ids);
  while (getline(&line, &room, file) > 0) {
    char *at = line, *end;
    int64_t n = t->offset[t->count];
    for (long id = strtol(at, &end, 10); end != at; at = end, id = strtol(at, &end, 10)) t->ids[n++] = (int32_t)id;
    t->offset[++t->count] = n;
  }
  free(line);
  fclose(file);
}

/* The products of every batch, nothing else. */
static double time_products(const mg_encoder_shape *s, const mg_sequences *texts) {
  const int h = s->hidden, w = s->intermediate, most = 1024;
  const size_t wide = (size_t)(w > 3 * h ? w : 3 * h);
  float *a = mg_alloc_aligned((size_t)most * wide * 4), *c = mg_alloc_aligned((size_t)most * wide * 4);
  const size_t layer = (size_t)(4 * h + 2 * w) * (size_t)h;
  float *weights = mg_alloc_aligned(layer * (size_t)s->layers * 4);
  if (a == NULL || c == NULL || weights == NULL) exit(1);
  for (size_t k = 0; k < (size_t)most * wide; k++) a[k] = 1, c[k] = 0;
  for (size_t k = 0; k < layer * (size_t)s->layers; k++) weights[k] = 0.01f;
  const double began = mg_now();
  for (size_t first = 0; first < texts->count; first = mg_batch_end(texts, first, MG_BATCH_TOKENS)) {
    const size_t end = mg_batch_end(texts, first, MG_BATCH_TOKENS);
    const int tokens = (int)(texts->offset[end] - texts->offset[first]), starts = (int)(end - first);
    for (int l = 0; l < s->layers; l++) {
      const float *q = weights + (size_t)l * layer, *o = q + (size_t)(3 * h * h), *u = o + (size_t)(h * h),
                  *d = u + (size_t)(w * h);
      const int rows = l == s->layers - 1 ? starts : tokens, keys = l == s->layers - 1 ? 2 * h : 3 * h;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, keys, h, 1, a, h, q, h, 1, c, 3 * h);
      if (keys != 3 * h) cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, h, h, 1, a, h, q, h, 1, c, h);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, h, h, 1, a, h, o, h, 1, c, h);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, w, h, 1, a, h, u, h, 1, c, w);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, h, w, 1, a, w, d, w, 1, c, h);
    }
  }
  const double seconds = mg_now() - began;
  free(a), free(c), free(weights);
  return seconds;
}

int main(int argc, char **argv) {
  text_list t = {0};
  mg_encoder_shape shape;
  mg_checkpoint_weights *opened = NULL;
  mg_weights weights;
  mg_encoder *encoder = NULL;
  if (argc != 5) return 2;
  read_texts(argv[2], &t);
  const mg_sequences sequences = {.count = t.count, .ids = t.ids, .offset = t.offset};
  mg_status status = mg_encoder_shape_read(argv[1], &shape);
  if (status == MG_OK) status = mg_checkpoint_weights_open(argv[1], &opened, &weights);
  if (status == MG_OK) status = mg_encoder_shape_check(&shape, &weights);
  int32_t *tokens = calloc((size_t)shape.vocabulary, sizeof *tokens);
  for (int32_t k = 0; tokens != NULL && k < shape.vocabulary; k++) tokens[k] = k;
  if (status == MG_OK) status = mg_encoder_create(&shape, tokens, (size_t)shape.vocabulary, atoi(argv[3]), NULL, &encoder);
  if (status == MG_OK) status = mg_encoder_load(encoder, &weights);
  float *logits = calloc(t.count * (size_t)(shape.classes + 1), sizeof *logits);
  const mg_encoder_want want = {.logits = logits};
  if (status == MG_OK)
    status = mg_encoder_run(encoder, &sequences, 0, mg_batch_end(&sequences, 0, MG_BATCH_TOKENS), &want); /* warm */
  const double began = mg_now();
  if (status == MG_OK) status = mg_encoder_run(encoder, &sequences, 0, t.count, &want);
  const double seconds = mg_now() - began;
  if (status != MG_OK) {
    fprintf(stderr, "%s\n", mg_error_message());
    return 1;
  }
  FILE *out = fopen(argv[4], "w");
  if (out == NULL || fwrite(logits, sizeof *logits * (size_t)shape.classes, t.count, out) != t.count) return 1;
  fclose(out);
  char mode[256];
  printf("%.4f s, %.0f tokens/s, products alone %.4f s on one thread (%s)\n", seconds, (double)t.offset[t.count] / seconds,
         time_products(&shape, &sequences), mg_encoder_numeric_mode(NULL, mode, sizeof mode));
  mg_encoder_destroy(&encoder);
  mg_checkpoint_weights_close(&opened);
  free(tokens), free(logits), free(t.ids), free(t.offset);
  return 0;
}
